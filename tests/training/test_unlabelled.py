"""The second stream: what its views hold, that it is a function of the step, and that no truth leaks into a loss."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from torch import nn
from torch.nn import functional as F

from hemalum.data.dataset import Dataset
from hemalum.data.sampling import image_weights
from hemalum.data.strong_views import StrongViews, draw_box, partners, strengthen
from hemalum.errors import HemalumError
from hemalum.losses.consistency import consistency, contrast
from hemalum.networks.outputs import Outputs
from hemalum.systems.unlabelled import Unlabelled
from hemalum.training.building import build_for
from hemalum.training.consistency import pseudo_labels, two_stream_losses, worth
from hemalum.training.recipe import Recipe
from hemalum.training.stream import Facts, Stream
from hemalum.training.train import train
from hemalum.training.unlabelled import UnlabelledStream, check_unlabelled, divide_training, open_stream

NETWORK = {
    "name": "csra_net",
    "options": {
        "layers": [1, 1, 1, 1], "widths": [8, 8, 8, 16], "reduction": 2, "channels": 8, "low_level": 4,
        "reduced": [4, 4, 4, 4], "grid": 2, "heads": 1, "depth": 1,
    },
}  # fmt: skip
EVERYTHING = {"consistency": 0.5, "dropped": 0.25, "contrast": 0.1, "threshold": 0.5, "labelled": "both"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def recipe(unlabelled: dict[str, Any] | None, **keys: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "half",
            "seed": 3,
            "network": NETWORK,
            "representation": "semantic",
            "classes": "nucleus",
            "mpp": 0.5,
            "tile": 32,
            "batch": 4,
            "data": {"mini": {}},
            "labelled": {"fraction": "1/3"},
            "augment": {"scale": 2.0, "elastic": 0},
            "phases": [
                {
                    "name": "main",
                    "loss": {"name": "cross_entropy"},
                    "optimiser": {"name": "sgd", "lr": 0.01},
                    "unlabelled": unlabelled,
                    "until": {"steps": 5},
                }
            ],
            "validate_every": 2,
            "checkpoint_every": 2,
        }
        | keys
    )


@pytest.fixture(scope="module")
def stream(mini: Path) -> tuple[Stream, UnlabelledStream]:
    return opened(recipe(EVERYTHING), mini)


def opened(of: Recipe, mini: Path, share: tuple[int, int] = (0, 1)) -> tuple[Stream, UnlabelledStream]:
    facts = Facts(classes=("nucleus",), one_class=True)
    network, _ = build_for(of, facts)
    labelled = open_stream(of, [Dataset.open(mini)], network, share, None, facts)
    settings = of.phases[0].unlabelled
    assert settings is not None
    return labelled, UnlabelledStream(of, labelled.others, settings, labelled.representation, share)


def test_labelled_and_unlabelled_images_are_others(stream: tuple[Stream, UnlabelledStream], mini: Path) -> None:
    labelled, unlabelled = stream
    train_part = Dataset.open(mini).split("train")
    assert len(labelled.prepared) == len(train_part) // 3
    pixels = {sample.image.tobytes() for sample in labelled.prepared}
    assert not pixels & {sample.image.tobytes() for sample in unlabelled.prepared}
    assert len(labelled.prepared) + len(unlabelled.prepared) == len(train_part)


def test_a_batch_of_views_is_a_function_of_its_number(stream: tuple[Stream, UnlabelledStream], mini: Path) -> None:
    labelled, unlabelled = stream
    forward = list(labelled.batches(0, 4, unlabelled))
    other = opened(recipe(EVERYTHING), mini)
    again = other[0].batch(3, other[1])
    assert forward[3].views.keys() == {"weak", "strong", "boxes", "inside", "truth", "labelled"}
    for name, value in again.views.items():
        assert torch.equal(forward[3].views[name], value), name
    assert not torch.equal(forward[0].views["weak"], forward[1].views["weak"])
    # the labelled batches are those of a training without the second stream
    alone = Stream(recipe(None), divide_training(recipe(None), [Dataset.open(mini)], labelled.facts)[0],
                   facts=labelled.facts)  # fmt: skip
    assert torch.equal(alone.batch(3).images, forward[3].images)


def test_shares_of_two_processes_are_the_whole_batch(stream: tuple[Stream, UnlabelledStream], mini: Path) -> None:
    labelled, unlabelled = stream
    whole = labelled.batch(1, unlabelled).views
    parts = [s.batch(1, u).views for s, u in (opened(recipe(EVERYTHING), mini, (which, 2)) for which in (0, 1))]
    for name in ("weak", "inside", "truth", "labelled"):
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
    strong = [part["strong"].unflatten(0, (2, 2)) for part in parts]
    assert torch.equal(torch.cat(strong, dim=1).flatten(0, 1), whole["strong"])
    assert torch.equal(torch.cat([part["boxes"] for part in parts], dim=1), whole["boxes"])


def test_boxes_hold_what_the_neighbour_shows(mini: Path) -> None:
    # without colour, strong views are weak views with boxes
    plain = {"jitter": 0, "grey": 0, "blur": 0, "cutmix": 1}
    _, unlabelled = opened(recipe({"strong": plain}), mini)
    views = unlabelled.of(0, torch.empty(0), [])
    assert views["boxes"].flatten(2).any(2).all()
    for strong, boxes in zip(views["strong"].unflatten(0, (2, 4)), views["boxes"], strict=True):
        expected = torch.where(boxes[:, None], views["weak"][[1, 0, 3, 2]], views["weak"])
        torch.testing.assert_close(strong, expected)
    share = views["boxes"].float().mean((2, 3))
    assert ((share > 0.01) & (share < 0.45)).all()


def test_what_lies_beyond_the_image_is_marked(mini: Path) -> None:
    # crops of 96 px from images of 64 px: at least 5 of 9 parts lie beyond; labels are mirrored all the same
    wide = recipe({}, tile=96, augment={"scale": 1.0, "elastic": 0, "rotation": 0})
    labelled, unlabelled = opened(wide, mini)
    batch = labelled.batch(0, unlabelled)
    assert batch.views["inside"].sum((1, 2)).tolist() == [64 * 64] * 4
    assert batch.extra["inside"].sum((1, 2, 3)).tolist() == [64 * 64] * 4
    counted = opened(recipe({"beyond": "count"}, tile=96), mini)[1]
    assert counted.of(0, torch.empty(0), [])["inside"].all()


def test_strong_views_change_colours_as_often_as_they_say() -> None:
    x = torch.rand(200, 3, 8, 8) * 0.5 + 0.25

    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng([7, n]) for n in range(200)]

    none = {"jitter": 0.0, "grey": 0.0, "blur": 0.0}
    assert torch.equal(strengthen(x, rngs(), StrongViews(**none)), x)
    for name, share in (("jitter", 0.8), ("grey", 0.2), ("blur", 0.5)):
        y = strengthen(x, rngs(), StrongViews(**(none | {name: share})))
        changed = (y != x).flatten(1).any(1).float().mean()
        assert abs(float(changed) - share) < 0.12
        if name == "grey":
            grey = (y != x).flatten(1).any(1)
            torch.testing.assert_close(y[grey][:, 0], y[grey][:, 1])
    assert torch.equal(strengthen(x, rngs(), StrongViews()), strengthen(x, rngs(), StrongViews()))
    assert x.min() >= 0.25  # the weak views are left as they are


def test_boxes_keep_their_area_and_shape() -> None:
    rng, settings, boxes = np.random.default_rng(0), StrongViews(), []
    for _ in range(400):
        box = draw_box(rng, 64, 64, settings)
        if box is not None:
            boxes.append([edge.stop - edge.start for edge in box])
            assert all(0 <= edge.start < edge.stop <= 64 for edge in box)
    assert abs(len(boxes) - 200) < 50
    areas = [rows * columns / 64**2 for rows, columns in boxes]
    assert max(areas) <= 0.4
    assert min(areas) >= 0.015


def test_partners_are_pairs() -> None:
    assert partners(4) == [1, 0, 3, 2]
    assert partners(3) == [1, 0, 2]


class Echo(nn.Module):
    """Logits that are the input's own channels, and what it was asked for."""

    def forward(self, x: torch.Tensor, dropped: int = 0, features: bool = False) -> Outputs:
        self.asked = (len(x), dropped, features)
        extras = {"dropped": 2 * x[len(x) - dropped :]} if dropped else {}
        if features:
            extras |= {"features": x[:, :, ::2, ::2], "prototypes": torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])}
        return Outputs(x, extras=extras)


def test_the_whole_loss_against_its_equations() -> None:
    torch.manual_seed(0)
    images, strong_labelled, weak = (torch.randn(2, 3, 4, 4) for _ in range(3))
    strong = torch.randn(4, 3, 4, 4)
    boxes = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    boxes[0, 0, :2] = True
    boxes[1, 0, :, :2] = True
    inside = torch.ones(2, 4, 4)
    inside[1, :, 3] = 0
    truth = torch.randint(0, 3, (2, 4, 4))
    logits = 3 * torch.randn(2, 3, 4, 4)
    settings = Unlabelled(threshold=0.7, supervised=0.5, consistency=0.3, dropped=0.2, contrast=0.1, labelled="both")
    views = {
        "weak": weak, "strong": strong, "boxes": boxes, "inside": inside, "truth": truth, "labelled": strong_labelled
    }  # fmt: skip
    network = Echo()
    parts, counts = two_stream_losses(
        settings, network, logits, images, views, lambda o: {"own": o.logits.sum()}, lambda sums: sums
    )
    assert network.asked == (2 + 2 + 4 + 2, 2, True)
    assert float(parts["own"]) == pytest.approx(0.5 * float(images.sum() + strong_labelled.sum()), rel=1e-5)

    sure, label = logits.softmax(1).max(1)
    keep = (sure >= 0.7) & (inside > 0)
    terms, mixed = [], []
    for view in range(2):
        swapped = [torch.where(boxes[view], own[[1, 0]], own) for own in (label, keep, inside)]
        mixed.append(swapped)
        losses = F.cross_entropy(strong[2 * view : 2 * view + 2], swapped[0], reduction="none")
        terms.append(losses[swapped[1]].sum() / swapped[2].sum())
    torch.testing.assert_close(parts["consistency"], 0.3 * (terms[0] + terms[1]) / 2)
    expected = consistency(2 * weak, label, keep.float(), inside)
    torch.testing.assert_close(parts["dropped"], 0.2 * expected)
    same = (boxes[0] == boxes[1])[:, 1::2, 1::2]
    expected = contrast(
        strong[:2, :, ::2, ::2], strong[2:, :, ::2, ::2], torch.eye(3), mixed[0][0][:, 1::2, 1::2],
        (mixed[0][1][:, 1::2, 1::2] & same).float(),
    )  # fmt: skip
    torch.testing.assert_close(parts["contrast"], 0.1 * expected)
    assert counts.tolist() == [28, int(keep.sum()), int((keep & (label == truth)).sum())]
    assert worth(counts)["mask_rate"] == pytest.approx(int(keep.sum()) / 28)


def test_no_pixel_kept_has_no_accuracy() -> None:
    assert worth(torch.tensor([8.0, 0.0, 0.0])) == {"mask_rate": 0.0}
    found = pseudo_labels(torch.zeros(1, 3, 2, 2), torch.ones(1, 2, 2), 0.95)
    assert found.keep.sum() == 0


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_the_truth_of_unlabelled_images_is_never_learnt_from(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = recipe(EVERYTHING)
    train(settings, [mini], tmp_path / "one", threads=1)
    real = UnlabelledStream.of

    def lies(self: UnlabelledStream, *arguments: Any) -> dict[str, torch.Tensor]:
        views = real(self, *arguments)
        return views | {"truth": 1 - views["truth"]}

    monkeypatch.setattr(UnlabelledStream, "of", lies)
    train(settings, [mini], tmp_path / "other", threads=1)
    one, other = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("one", "other"))
    for name, value in one.items():
        np.testing.assert_array_equal(other[name], value)
    for mine, theirs in zip(rows(tmp_path / "one"), rows(tmp_path / "other"), strict=True):
        assert mine["mask_rate"] == theirs["mask_rate"]
        assert mine["pseudo_accuracy"] == pytest.approx(1 - theirs["pseudo_accuracy"], abs=1e-6)
        assert {"loss_cross_entropy", "loss_consistency", "loss_dropped", "loss_contrast"} <= mine.keys()


KILLED = """
import os, signal, sys
from hemalum.training.recipe import Recipe
from hemalum.training.train import train
def watch(step, total, row):
    if step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
train(Recipe.model_validate_json(sys.argv[1]), [sys.argv[2]], sys.argv[3], threads=1, watch=watch)
"""


def test_killed_and_resumed_equals_uninterrupted(mini: Path, tmp_path: Path) -> None:
    sampling = {"name": "category_adaptive", "period": 1}
    settings = recipe(EVERYTHING, sampling=sampling, ema=0.9)
    train(settings, [mini], tmp_path / "whole", threads=1)
    arguments = [settings.model_dump_json(), str(mini), str(tmp_path / "run")]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    train(settings, [mini], tmp_path / "run", resume=True, threads=1)
    for name in ("checkpoint.safetensors", "model.safetensors"):
        expected, found = load_file(tmp_path / "whole" / name), load_file(tmp_path / "run" / name)
        for key in expected:
            np.testing.assert_array_equal(found[key], expected[key], err_msg=f"{name}: {key}")


def test_sampling_follows_the_equations_epoch_by_epoch(mini: Path) -> None:
    part = Dataset.open(mini).split("train")
    organs = ["breast"] * (len(part) - 1) + ["colon"]
    part = replace(part, rows=tuple(replace(row, organ=o) for row, o in zip(part.rows, organs, strict=True)))
    own = recipe(None, sampling={"name": "category_adaptive", "gamma": 0.8, "period": 2}, labelled=None)
    stream = Stream(own, [part], facts=Facts(classes=("nucleus",), one_class=True))
    held = np.ones((len(part), 1), bool)
    # 5 steps of 4 images over 6: four epochs, two steps of the stairs
    for epoch, gamma in enumerate((0.8, 0.8, 0.4, 0.4)):
        weights = image_weights(organs, held, gamma)
        np.testing.assert_allclose(stream.probabilities(epoch), weights / weights.sum())
    assert stream.probabilities(0)[-1] > stream.probabilities(3)[-1] > stream.probabilities(0)[0]


@pytest.mark.parametrize(
    ("settings", "keys", "words"),
    [
        ({}, {"labelled": None}, r"learns from unlabelled images and there are none: give 'labelled"),
        (
            {},
            {"representation": "combined", "phases": [{"name": "main", "unlabelled": {}, "until": {"steps": 5}}]},
            "needs one softmax head, of representation semantic",
        ),
        ({"contrast": 0.1, "views": 1}, {}, "the contrastive term needs views: 2"),
        ({"contrast": 0.1}, {"network": {"name": "unet", "options": {"widths": [4, 8]}}}, "'unet' gives no features"),
    ],
)
def test_phases_that_cannot_learn_from_unlabelled_images(
    settings: dict[str, Any], keys: dict[str, Any], words: str, mini: Path, tmp_path: Path
) -> None:
    own = recipe(settings, **keys)
    with pytest.raises(HemalumError, match=words):
        train(own, [mini], tmp_path / "run", threads=1)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_consistency_alone_takes_any_network(mini: Path, tmp_path: Path) -> None:
    network = {"name": "unet", "options": {"widths": [4, 8], "norm": True}}
    train(recipe({"views": 1, "threshold": 0.5}, network=network), [mini], tmp_path / "run", threads=1)
    assert "loss_consistency" in rows(tmp_path / "run")[0]


def test_an_odd_share_of_pairs_is_refused(mini: Path) -> None:
    of = recipe({}, batch=6)
    stream = opened(of, mini)[0]
    with pytest.raises(HemalumError, match=r"in pairs: batch 6 gives each of 2 processes an odd number"):
        check_unlabelled(of, nn.Identity(), stream.representation.heads, 4, 2)
