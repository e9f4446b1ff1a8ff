"""What the loop does with phases, data and recipes."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from hemalum.data.dataset import Dataset
from hemalum.data.image_bank import ImageBank
from hemalum.errors import HemalumError
from hemalum.instances.representations import REPRESENTATIONS, select
from hemalum.losses.loss import Given
from hemalum.losses.maps import Maps
from hemalum.models.file import load_card
from hemalum.networks import build_network
from hemalum.networks.map_model import activate
from hemalum.systems.phases import Phase
from hemalum.training import loop as loop_module
from hemalum.training.optimisers import learning_rate
from hemalum.training.outcome import keep_head
from hemalum.training.recipe import Recipe, load_recipe
from hemalum.training.shipped import shipped_recipes
from hemalum.training.stream import Stream, encode
from hemalum.training.train import train


def test_the_model_file_tells_where_it_comes_from(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    card = load_card(train(recipe, [mini], tmp_path / "run"))
    dataset = Dataset.open(mini)
    assert card.training is not None
    assert card.training.recipe_hash == recipe.digest
    assert Recipe.model_validate(card.training.settings).digest == recipe.digest
    assert card.training.steps == 9
    assert [(s.name, s.split_hash, s.samples) for s in card.training.data] == [
        ("mini", dataset.split_hash, len(dataset.split("train")))
    ]
    assert (card.mpp, card.stride, card.network.name) == (0.5, 8, "compact")
    assert card.halo % card.stride == 0
    assert 16 <= card.halo <= 64
    steps = [json.loads(line)["step"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert steps == [2, 4, 5, 7, 9]


def test_the_model_file_tells_what_weights_it_started_from(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    first = train(recipe, [mini], tmp_path / "first")
    assert load_card(first).training.initial is None  # type: ignore[union-attr]

    def stop(step: int, total: int, row: dict[str, float]) -> None:
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, [mini], tmp_path / "second", initial=first, watch=stop)
    second = train(recipe, [mini], tmp_path / "second", resume=True)
    assert load_card(second).training.initial == load_card(first).training  # type: ignore[union-attr]


def test_a_phase_trains_only_what_it_names(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    second = recipe.model_copy(update={"phases": recipe.phases[1:], "ema": 0.0})
    train(second, [mini], tmp_path / "run")
    torch.manual_seed(recipe.seed)
    start = build_network("compact", 2, recipe.network.options).state_dict()
    end = load_file(tmp_path / "run" / "best.safetensors")
    changed = {name for name, value in start.items() if not np.array_equal(value.numpy(), end[name])}
    assert changed
    assert all(name.startswith(("decoder.", "head.")) for name in changed)
    assert "head.weight" in changed


def test_a_phase_that_trains_nothing_is_refused(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    phase = recipe.phases[0].model_copy(update={"train": ["tail.*"]})
    with pytest.raises(HemalumError, match=r"phase 'first': no parameter matches tail\.\*"):
        train(recipe.model_copy(update={"phases": [phase]}), [mini], tmp_path / "run")


@pytest.mark.parametrize("name", ["compact", "unet"])
@pytest.mark.parametrize("kept", ["distance", "interior_boundary", "centre_gradient"])
def test_a_kept_head_gives_the_same_maps(name: str, kept: str) -> None:
    combined, target = REPRESENTATIONS["combined"], REPRESENTATIONS[kept]
    options = {"widths": [4, 8]} | ({"depths": [0, 1]} if name == "compact" else {})
    network = build_network(name, combined.logits, options).eval()
    tensors = keep_head({k: v.numpy() for k, v in network.state_dict().items()}, combined, target)
    smaller = build_network(name, target.logits, options).eval()
    smaller.load_state_dict({k: torch.from_numpy(v) for k, v in tensors.items()})
    x = torch.rand(1, 3, 16, 16)
    maps, own = activate(network(x), combined.heads), activate(smaller(x), target.heads)
    expected = select(maps[0].detach().numpy(), combined, target)
    np.testing.assert_allclose(own[0].detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_a_head_that_was_not_trained_cannot_be_kept() -> None:
    with pytest.raises(HemalumError, match="representation 'distance' has no maps interior, boundary to keep"):
        keep_head({}, REPRESENTATIONS["distance"], REPRESENTATIONS["interior_boundary"])


def test_soft_targets_are_shares_of_a_pixel() -> None:
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, 1:5, 2:7] = 1
    soft = encode(labels, REPRESENTATIONS["distance"], finer=2)
    assert soft.shape == (1, 2, 4, 4)
    expected = np.array([[0, 0.5, 0.5, 0.25], [0, 1, 1, 0.5], [0, 0.5, 0.5, 0.25], [0, 0, 0, 0]])
    np.testing.assert_allclose(soft[0, 0].numpy(), expected)


def test_patience_ends_a_phase(recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.4, 0.3, 0.9])
    monkeypatch.setattr(loop_module.Validation, "score", lambda *_: {"score": next(scores)})
    phase = Phase.model_validate({"name": "p", "until": {"steps": 100, "patience": 2}})
    card = load_card(train(recipe.model_copy(update={"phases": [phase]}), [mini], tmp_path / "run"))
    assert card.training is not None
    assert card.training.steps == 8  # validated every 2 steps; the fourth is the second without a better score


def test_schedules_by_hand() -> None:
    def phase(**schedule: object) -> Phase:
        return Phase.model_validate(
            {"name": "p", "optimiser": {"name": "adamw", "lr": 1.0}, "schedule": schedule, "until": {"steps": 110}}
        )

    cosine = phase(name="cosine", warmup=10, final=0.1)
    assert learning_rate(cosine, 0, 0) == pytest.approx(0.1)
    assert learning_rate(cosine, 9, 0) == pytest.approx(1.0)
    assert learning_rate(cosine, 60, 0) == pytest.approx(0.55)
    assert learning_rate(cosine, 110, 0) == pytest.approx(0.1)
    plateau = phase(name="plateau", factor=0.5, patience=2)
    assert [learning_rate(plateau, 50, cuts) for cuts in range(3)] == [1.0, 0.5, 0.25]
    assert learning_rate(phase(name="constant"), 99, 0) == 1.0


def test_a_batch_is_a_function_of_its_number(recipe: Recipe, mini: Path) -> None:
    one, other = (Stream(recipe, [Dataset.open(mini).split("train")]) for _ in range(2))
    forward = list(one.batches(0, 4))
    assert torch.equal(other.batch(3).images, forward[3].images)
    assert torch.equal(other.batch(1).targets, forward[1].targets)
    assert not torch.equal(forward[0].images, forward[1].images)


EVERYTHING: dict[str, object] = {"stain_mix": 0.5, "dab": 0.5, "jpeg": 0.3, "blur": 1.5}


def with_augment(recipe: Recipe, **update: object) -> Recipe:
    return recipe.model_copy(update={"augment": recipe.augment.model_copy(update=update), "batch": 4})


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of two cores
@pytest.mark.parametrize("workers", [1, 3])
def test_batches_are_the_same_whatever_makes_them(recipe: Recipe, mini: Path, workers: int) -> None:
    strong, parts = with_augment(recipe, **EVERYTHING), [Dataset.open(mini).split("train")]
    alone = Stream(strong, parts)
    assert alone.donors
    seen = list(Stream(strong, parts, workers=workers).batches(2, 9))
    assert len(seen) == 7
    for number, batch in enumerate(seen, start=2):
        expected = alone.batch(number)
        assert torch.equal(batch.images, expected.images)
        assert torch.equal(batch.targets, expected.targets)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("finer", [1, 2])
def test_a_batch_finished_on_a_device_is_the_same_but_for_rounding(recipe: Recipe, mini: Path, finer: int) -> None:
    quiet = with_augment(recipe, **EVERYTHING, noise=0.0).model_copy(update={"finer": finer})
    stream = Stream(quiet, [Dataset.open(mini).split("train")])
    bank = ImageBank([sample.image for sample in stream.prepared], torch.device("cpu"))
    for number in range(4):
        expected, finished = stream.batch(number), stream.finish(number, stream.parts(number, images=False), bank)
        difference = (finished.images - expected.images).abs() * 0.25 * 255  # in levels of a byte
        assert difference.mean() < 0.1
        assert (difference > 2.5).float().mean() < 0.01  # a pixel on the edge of a level may fall into the next one
        torch.testing.assert_close(finished.targets, expected.targets, rtol=1e-3, atol=1e-3)
        assert finished.images.is_contiguous(memory_format=torch.channels_last)


def test_noise_on_a_device_is_of_the_batchs_number(recipe: Recipe, mini: Path) -> None:
    noisy, quiet = (
        Stream(with_augment(recipe, noise=noise), [Dataset.open(mini).split("train")]) for noise in (0.1, 1e-9)
    )
    bank = ImageBank([sample.image for sample in noisy.prepared], torch.device("cpu"))

    def noise_of(number: int) -> torch.Tensor:
        one, other = (stream.finish(number, stream.parts(number, images=False), bank) for stream in (noisy, quiet))
        return one.images - other.images

    first = noise_of(0)
    assert torch.equal(first, noise_of(0))
    assert 0.05 < first.std() < 0.5
    second = noise_of(1)
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.1


@pytest.mark.parametrize("workers", [0, -1, 10_000])
def test_workers_that_a_machine_cannot_have(recipe: Recipe, mini: Path, tmp_path: Path, workers: int) -> None:
    cores = os.cpu_count()
    with pytest.raises(HemalumError, match=rf"^workers is {workers}: want 1 to {cores}, the cores of this machine$"):
        train(recipe, [mini], tmp_path / "run", workers=workers)
    assert not (tmp_path / "run").exists()


def test_balance_draws_groups_equally(recipe: Recipe, mini: Path) -> None:
    train_part = Dataset.open(mini).split("train")
    stream = Stream(recipe, [train_part])
    groups = [row.group for row in train_part.rows]
    totals = {g: sum(p for p, own in zip(stream.probability, groups, strict=True) if own == g) for g in groups}
    np.testing.assert_allclose(list(totals.values()), 1 / len(totals))


def test_not_finite_loss_stops_and_keeps_the_checkpoint(
    recipe: Recipe, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = Maps.__call__, []

    def broken(loss: Maps, given: Given) -> dict[str, torch.Tensor]:
        calls.append(1)
        parts = real(loss, given)
        return {name: part * float("nan") if len(calls) == 4 else part for name, part in parts.items()}

    monkeypatch.setattr(Maps, "__call__", broken)
    with pytest.raises(HemalumError, match="the loss is not finite at step 3 of phase 'first'"):
        train(recipe, [mini], tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_a_dataset_goes_by_the_recipes_name_for_it(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    other = recipe.model_copy(update={"data": {"another": recipe.data["mini"]}, "phases": recipe.phases[:1]})
    train(other, {"another": mini}, tmp_path / "run")
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert "another_pq" in row


def test_data_that_does_not_fit_the_recipe(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    other = recipe.model_copy(update={"data": {**recipe.data, "tnbc": recipe.data["mini"]}})
    with pytest.raises(HemalumError, match=r"needs dataset 'tnbc': give --data tnbc=PATH"):
        train(other, [mini], tmp_path / "a")
    with pytest.raises(HemalumError, match=r"has no dataset 'minni', did you mean 'mini'\?"):
        train(recipe, {"minni": mini}, tmp_path / "b")
    odd = recipe.model_copy(update={"tile": 36})
    with pytest.raises(HemalumError, match="tile 36 is not a multiple of the network's 8"):
        train(odd, [mini], tmp_path / "c")
    unknown = recipe.model_copy(update={"representation": "distanse"})
    with pytest.raises(HemalumError, match="unknown representation 'distanse', did you mean 'distance'"):
        train(unknown, [mini], tmp_path / "d")
    assert not any((tmp_path / name).exists() for name in "abd")


def test_unet_recipes_differ_in_stain_augmentation_only() -> None:
    for budget in ("full", "small"):
        plain, stain = (load_recipe(shipped_recipes()[name], budget) for name in ("unet", "unet_stain"))
        changed = stain.model_copy(
            update={
                "name": plain.name,
                "description": plain.description,
                "augment": stain.augment.model_copy(update={"stain": 0.0}),
            }
        )
        assert changed == plain
        assert stain.augment.stain > 0


def test_a_recipe_without_datasets_takes_what_is_given(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    path = train(recipe.model_copy(update={"data": {}, "phases": recipe.phases[:1]}), [mini], tmp_path / "run")
    assert [used.name for used in load_card(path).training.data] == ["mini"]  # type: ignore[union-attr]
    assert "mini" in load_recipe(tmp_path / "run" / "recipe.yaml").data
    with pytest.raises(HemalumError, match="needs data: give --data PATH"):
        train(recipe.model_copy(update={"data": {}}), [], tmp_path / "other")
    with pytest.raises(HemalumError, match="same name"):
        train(recipe.model_copy(update={"data": {}}), [mini, mini], tmp_path / "other")


def test_losses_that_a_recipe_cannot_have(recipe: Recipe, mini: Path, tmp_path: Path) -> None:
    def with_loss(loss: str, **update: object) -> Recipe:
        content = recipe.model_dump(mode="json") | update
        return Recipe.model_validate(content | {"phases": [phase | {"loss": loss} for phase in content["phases"]]})

    with pytest.raises(ValueError, match="unknown loss 'bse', did you mean 'bce'"):
        with_loss("bse")
    with pytest.raises(HemalumError, match=r"loss 'bce' does not fit representation 'combined', whose maps are sig"):
        train(with_loss("bce", representation="combined"), [mini], tmp_path / "b")
    train(with_loss("bce", representation="foreground"), [mini], tmp_path / "c")


def test_small_form_changes_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        GOOD + "batch: 8\nsmall: {batch: 2, network: {options: {widths: [8]}}, phases: {p: {loss: bce}}}\n"
    )
    full, small = load_recipe(path), load_recipe(path, "small")
    assert (full.batch, small.batch) == (8, 2)
    assert (full.network.options, small.network.options) == ({}, {"widths": [8]})
    assert (small.network.name, small.phases[0].until.steps, small.phases[0].loss.name) == ("compact", 1, "bce")
    assert full.digest != small.digest


@pytest.mark.parametrize(
    ("small", "message"),
    [
        ("", "has no small form: give it a key 'small'"),
        ("small: 3", "'small' must be a mapping"),
        ("small: {bach: 2}", r"unknown key 'bach', did you mean 'batch'\? \(in its small form\)"),
        ("small: {phases: {q: {loss: bce}}}", "'small' changes phases, 'q'; known: p"),
    ],
)
def test_bad_small_forms_in_one_line(small: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(GOOD + small + "\n")
    with pytest.raises(HemalumError, match=message):
        load_recipe(path, "small")


GOOD = """
name: r
network: {name: compact}
mpp: 0.5
data: {mini: {}}
phases: [{name: p, until: {steps: 1}}]
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("bach: 4", r"unknown key 'bach', did you mean 'batch'\?"),
        ("augment: {stian: 0.1}", r"unknown key 'augment.stian', did you mean 'stain'\?"),
        ("mpp: -1", r"'mpp': Input should be greater than 0"),
        ("phases: []", r"'phases': List should have at least 1 item"),
        ("network: [1", r"is not readable YAML"),
        ("precision: half", r"'precision': Input should be"),
        (
            "phases: [{name: p, until: {steps: 1}, loss: bse}]",
            "'phases.0.loss': unknown loss 'bse', did you mean 'bce'",
        ),
        ("phases: [{name: p, until: {steps: 1}, loss: {name: bce, x: 1}}]", "loss 'bce' has no option 'x'"),
        ("system: al_nte", "unknown system 'al_nte'"),
    ],
)
def test_bad_recipes_in_one_line(change: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    key = change.split(":")[0]
    path.write_text("\n".join(line for line in GOOD.splitlines() if not line.startswith(f"{key}:")) + f"\n{change}\n")
    with pytest.raises(HemalumError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_recipe_that_is_not_one(tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match="no such recipe"):
        load_recipe(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1")
    with pytest.raises(HemalumError, match="not a recipe"):
        load_recipe(tmp_path / "list.yaml")
