"""The training stream: what a batch holds is a function of its number, wherever and by whomever it is made."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from builders.trainings import make_context
from hemalum.data.augmentation.image_bank import ImageBank
from hemalum.data.dataset import Dataset
from hemalum.data.sampling import FixedShares
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe, Source


def test_a_batch_is_a_function_of_its_number(recipe: Recipe, mini: Path) -> None:
    first, second = (TrainLoader(make_context(recipe), [Dataset.open(mini).split("train")]) for _ in range(2))
    forward = list(first.batches(0, 4))
    assert torch.equal(second.batch(3).images, forward[3].images)
    assert torch.equal(second.batch(1).targets, forward[1].targets)
    assert not torch.equal(forward[0].images, forward[1].images)


EVERYTHING: dict[str, object] = {"stain_mix": 0.5, "dab": 0.5, "jpeg": 0.3, "blur": 1.5}


def with_augment(recipe: Recipe, **update: object) -> Recipe:
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=update), "batch": 4})


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_same_whatever_makes_them(recipe: Recipe, mini: Path, workers: int) -> None:
    strong, parts = with_augment(recipe, **EVERYTHING), [Dataset.open(mini).split("train")]
    direct = TrainLoader(make_context(strong), parts)
    assert direct.donors
    batches = list(TrainLoader(make_context(strong, workers=workers), parts).batches(2, 9))
    assert len(batches) == 7
    for number, batch in enumerate(batches, start=2):
        expected = direct.batch(number)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets, expected.targets)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("target_supersampling", [1, 2])
def test_a_batch_finished_on_a_device_is_the_same_but_for_rounding(
    recipe: Recipe, mini: Path, target_supersampling: int
) -> None:
    quiet = with_augment(recipe, **EVERYTHING, noise=0.0).model_copy(
        update={"target_supersampling": target_supersampling}
    )
    loader = TrainLoader(make_context(quiet), [Dataset.open(mini).split("train")])
    bank = ImageBank([sample.image for sample in loader.prepared], torch.device("cpu"))
    for number in range(4):
        expected, finished = loader.batch(number), loader.finish(number, loader.parts(number, images=False), bank)
        difference = (finished.images - expected.images).abs() * 0.25 * 255  # in levels of a byte
        assert difference.mean() < 0.1
        assert (difference > 2.5).float().mean() < 0.01  # a pixel on the edge of a level may fall into the next one
        torch.testing.assert_close(finished.targets, expected.targets, rtol=1e-3, atol=1e-3)
        assert finished.images.is_contiguous(memory_format=torch.channels_last)


def test_noise_on_a_device_is_of_the_batchs_number(recipe: Recipe, mini: Path) -> None:
    parts = [Dataset.open(mini).split("train")]
    noisy, quiet = (TrainLoader(make_context(with_augment(recipe, noise=noise)), parts) for noise in (0.1, 1e-9))
    bank = ImageBank([sample.image for sample in noisy.prepared], torch.device("cpu"))

    def measure_noise(number: int) -> torch.Tensor:
        with_noise, without = (
            loader.finish(number, loader.parts(number, images=False), bank) for loader in (noisy, quiet)
        )
        return with_noise.images - without.images

    first = measure_noise(0)
    assert torch.equal(first, measure_noise(0))
    assert 0.05 < first.std() < 0.5
    second = measure_noise(1)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.1


def test_balance_draws_groups_equally(recipe: Recipe, mini: Path) -> None:
    train_part = Dataset.open(mini).split("train")
    loader = TrainLoader(make_context(recipe), [train_part])
    groups = [row.group for row in train_part.rows]
    totals = dict.fromkeys(groups, 0.0)
    for probability, group in zip(loader.probability, groups, strict=True):
        totals[group] += probability
    np.testing.assert_allclose(list(totals.values()), 1 / len(totals))


def test_parts_of_a_batch_are_the_batch(recipe: Recipe, mini: Path) -> None:
    data = [Dataset.open(mini).split("train")]
    recipe = recipe.model_copy(update={"batch": 6})
    alone = TrainLoader(make_context(recipe), data)
    batch, names = alone.batch(4), alone.names(4)
    parts = [TrainLoader(make_context(recipe, (which, 3)), data).batch(4) for which in range(3)]
    assert [len(part.images) for part in parts] == [2, 2, 2]
    np.testing.assert_allclose(np.concatenate([part.images for part in parts]), batch.images, atol=1e-6)
    np.testing.assert_array_equal(np.concatenate([part.targets for part in parts]), batch.targets)
    assert TrainLoader(make_context(recipe, (1, 3)), data).names(4) == names


def test_every_batch_has_the_shares_of_its_sets(recipe: Recipe, mini: Path) -> None:
    """Whatever their sizes, and over the end of an epoch as well."""
    part = Dataset.open(mini).split("train")
    few, many = replace(part, rows=part.rows[:1]), replace(part, rows=part.rows[1:])
    mixed = recipe.model_copy(
        update={"data": {"few": Source(), "many": Source()}, "sampling": FixedShares(), "batch": 4}
    )
    loader = TrainLoader(make_context(mixed), [few, many])
    drawn: set[int] = set()
    for number in range(12):
        samples = [draw.sample for draw in loader.draws(number)]
        assert sum(sample == 0 for sample in samples) == 2, number
        assert [sample == 0 for sample in samples] == [True, False, True, False]
        drawn |= set(samples)
    assert drawn == set(range(len(part)))
    again = TrainLoader(make_context(mixed), [few, many])
    assert again.draws(7) == loader.draws(7)
