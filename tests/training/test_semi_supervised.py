"""The second stream: what its views hold, that it is a function of the step, and that no truth leaks into a loss."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from builders.trainings import assert_same_run, make_context, read_log, train_until_killed
from hemalum.data.augmentation.strong_views import StrongViews, draw_box, partners, strengthen
from hemalum.data.dataset import Dataset
from hemalum.data.sampling import image_weights
from hemalum.errors import HemalumError
from hemalum.losses.semi_supervised import consistency, contrast
from hemalum.networks.contract import Outputs
from hemalum.systems.phases import SemiSupervised
from hemalum.training import semi_supervised
from hemalum.training.building import build_for
from hemalum.training.data_spec import DataSpec
from hemalum.training.fit import open_phase
from hemalum.training.loader import TrainLoader
from hemalum.training.recipe import Recipe
from hemalum.training.semi_supervised import (
    UnlabeledLoader,
    check_semi_supervised,
    divide_training,
    find_parts,
    make_pseudo_labels,
    open_train_loader,
    semi_supervised_losses,
    summarize_pseudo_labels,
)
from hemalum.training.train import train

NETWORK = {
    "name": "csra_net",
    "options": {
        "layers": [1, 1, 1, 1], "widths": [8, 8, 8, 16], "reduction": 2, "channels": 8, "low_level": 4,
        "reduced": [4, 4, 4, 4], "grid": 2, "heads": 1, "depth": 1,
    },
}  # fmt: skip
NUCLEUS = DataSpec(classes=("nucleus",), one_class=True)
EVERYTHING = {"consistency": 0.5, "dropped": 0.25, "contrast": 0.1, "threshold": 0.5, "labeled": "both"}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def make_recipe(semi_supervised: dict[str, Any] | None, **keys: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "half",
            "seed": 3,
            "network": NETWORK,
            "representation": "semantic",
            "classes": "nucleus",
            "mpp": 0.5,
            "tile": 32,
            "beyond": "ignore",
            "batch": 4,
            "data": {"mini": {}},
            "labeled": {"fraction": "1/3"},
            "augment": {"scale": 2.0, "elastic": 0},
            "phases": [
                {
                    "name": "main",
                    "loss": {"name": "cross_entropy"},
                    "optimizer": {"name": "sgd", "lr": 0.01},
                    "semi_supervised": semi_supervised,
                    "until": {"steps": 5},
                }
            ],
            "validate_every": 2,
            "checkpoint_every": 2,
        }
        | keys
    )


@pytest.fixture(scope="module")
def loaders(mini: Path) -> tuple[TrainLoader, UnlabeledLoader]:
    return open_loaders(make_recipe(EVERYTHING), mini)


def open_loaders(recipe: Recipe, mini: Path, share: tuple[int, int] = (0, 1)) -> tuple[TrainLoader, UnlabeledLoader]:
    context = make_context(recipe, share, data_spec=NUCLEUS)
    network, _ = build_for(recipe, NUCLEUS)
    datasets = [Dataset.open(mini)]
    labeled = open_train_loader(context, datasets, find_parts(context, datasets, network))
    settings = recipe.phases[0].semi_supervised
    assert settings is not None
    return labeled, UnlabeledLoader(context, labeled.unlabeled, settings)


def test_labeled_and_unlabeled_images_are_others(loaders: tuple[TrainLoader, UnlabeledLoader], mini: Path) -> None:
    labeled, unlabeled = loaders
    train_part = Dataset.open(mini).split("train")
    assert len(labeled.prepared) == len(train_part) // 3
    pixels = {sample.image.tobytes() for sample in labeled.prepared}
    assert not pixels & {sample.image.tobytes() for sample in unlabeled.prepared}
    assert len(labeled.prepared) + len(unlabeled.prepared) == len(train_part)


def test_a_batch_of_views_is_a_function_of_its_number(
    loaders: tuple[TrainLoader, UnlabeledLoader], mini: Path
) -> None:
    labeled, unlabeled = loaders
    forward = list(labeled.batches(0, 4, unlabeled))
    second_labeled, second_unlabeled = open_loaders(make_recipe(EVERYTHING), mini)
    again = second_labeled.batch(3, second_unlabeled)
    assert forward[3].views.keys() == {"weak", "strong", "boxes", "inside", "truth", "labeled"}
    for name, value in again.views.items():
        assert torch.equal(forward[3].views[name], value), name
    assert not torch.equal(forward[0].views["weak"], forward[1].views["weak"])
    # the labeled batches are those of a training without the second stream
    plain = make_recipe(None)
    parts, _ = divide_training(plain, [Dataset.open(mini)], NUCLEUS)
    alone = TrainLoader(make_context(plain, data_spec=NUCLEUS), parts)
    assert torch.equal(alone.batch(3).images, forward[3].images)


def test_shares_of_two_processes_are_the_batch(loaders: tuple[TrainLoader, UnlabeledLoader], mini: Path) -> None:
    labeled, unlabeled = loaders
    views = labeled.batch(1, unlabeled).views
    parts = []
    for which in range(2):
        labeled, unlabeled = open_loaders(make_recipe(EVERYTHING), mini, (which, 2))
        parts.append(labeled.batch(1, unlabeled).views)
    for name in ("weak", "inside", "truth", "labeled"):
        assert torch.equal(torch.cat([part[name] for part in parts]), views[name])
    strong = [part["strong"].unflatten(0, (2, 2)) for part in parts]
    assert torch.equal(torch.cat(strong, dim=1).flatten(0, 1), views["strong"])
    assert torch.equal(torch.cat([part["boxes"] for part in parts], dim=1), views["boxes"])


def test_boxes_hold_what_the_neighbor_shows(mini: Path) -> None:
    # without color, strong views are weak views with boxes
    plain = {"jitter": 0, "gray": 0, "blur": 0, "cutmix": 1}
    _, unlabeled = open_loaders(make_recipe({"strong": plain}), mini)
    views = unlabeled.make_views(0, torch.empty(0), [])
    assert views["boxes"].flatten(2).any(2).all()
    for strong, boxes in zip(views["strong"].unflatten(0, (2, 4)), views["boxes"], strict=True):
        expected = torch.where(boxes[:, None], views["weak"][[1, 0, 3, 2]], views["weak"])
        torch.testing.assert_close(strong, expected)
    share = views["boxes"].float().mean((2, 3))
    assert ((share > 0.01) & (share < 0.45)).all()


COLORLESS = {"jitter": 0, "gray": 0, "blur": 0, "cutmix": 0}
PLACED = {"name": "flips", "scale": 2.0}  # moves, turns and mirrors, and leaves the colors


def nuclei_of(images_BCHW: torch.Tensor) -> torch.Tensor:
    """Where the miniature's images are dark, (B, H, W) bool: normalized red is 2 x - 1 over 0.5."""
    return images_BCHW[:, 0] < 4 * (170 / 255) - 2


def test_strong_views_and_their_labels_lie_on_each_other(mini: Path) -> None:
    labeled, unlabeled = open_loaders(make_recipe(EVERYTHING | {"strong": COLORLESS}, augment=PLACED), mini)
    for number in range(3):
        batch = labeled.batch(number, unlabeled)
        views = batch.views
        torch.testing.assert_close(views["labeled"], batch.images)
        torch.testing.assert_close(views["strong"], views["weak"].repeat(2, 1, 1, 1))
        pairs = ((batch.images, batch.targets[:, 0]), (views["labeled"], batch.targets[:, 0]))
        for images, truth in (*pairs, (views["weak"], views["truth"])):
            right = nuclei_of(images) == (truth > 0.5)
            assert right.float().mean() > 0.95
            for wrong in (truth.flip(-1), truth.flip(-2), truth.transpose(-1, -2), truth.roll(1, 0)):
                assert (nuclei_of(images) == (wrong > 0.5)).float().mean() < right.float().mean() - 0.05


def test_colored_strong_views_stay_where_they_are(mini: Path) -> None:
    labeled, unlabeled = open_loaders(
        make_recipe(EVERYTHING | {"strong": {"cutmix": 0, "blur": 0}}, augment=PLACED), mini
    )
    batch = labeled.batch(0, unlabeled)
    weak = (batch.images, batch.views["weak"], batch.views["weak"])
    strong = (batch.views["labeled"], *batch.views["strong"].split(4))
    for first, second in zip(weak, strong, strict=True):
        for x, y in zip(first.mean(1).flatten(1), second.mean(1).flatten(1), strict=True):
            assert torch.corrcoef(torch.stack([x, y]))[0, 1] > 0.8


def test_pseudo_labels_are_those_of_the_weights_as_they_stand_in_eval_mode(
    mini: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = make_recipe(EVERYTHING)
    context = make_context(recipe, data_spec=NUCLEUS)
    torch.manual_seed(0)
    network, _ = build_for(recipe, NUCLEUS)
    labeled, unlabeled = open_loaders(recipe, mini)
    batch = labeled.batch(0, unlabeled)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        expected = network.eval()(batch.views["weak"]).clone()
        in_train_mode = Outputs.of(network.train()(batch.views["weak"])).logits
    network.load_state_dict(before)
    seen: list[torch.Tensor] = []

    def look(settings: SemiSupervised, module: nn.Module, logits: torch.Tensor, *others: Any) -> Any:
        assert module.training  # the views that are learned from go through it in train mode
        seen.append(logits)
        return semi_supervised_losses(settings, module, logits, *others)

    monkeypatch.setattr("hemalum.training.fit.semi_supervised_losses", look)
    open_phase(context, network, 0)(batch)
    assert not seen[0].requires_grad
    torch.testing.assert_close(seen[0], expected)
    assert (seen[0] - in_train_mode).abs().max() > 0.01  # the mode is seen at all


def test_what_lies_beyond_the_image_is_marked(mini: Path) -> None:
    # crops of 96 px from images of 64 px: at least 5 of 9 parts lie beyond; labels are mirrored all the same
    wide = make_recipe({}, tile=96, augment={"scale": 1.0, "elastic": 0, "rotation": 0})
    labeled, unlabeled = open_loaders(wide, mini)
    batch = labeled.batch(0, unlabeled)
    assert batch.views["inside"].sum((1, 2)).tolist() == [64 * 64] * 4
    assert batch.valid.sum((1, 2, 3)).tolist() == [64 * 64] * 4
    counted = open_loaders(make_recipe({"beyond": "count"}, tile=96), mini)[1]
    assert counted.make_views(0, torch.empty(0), [])["inside"].all()


def test_what_lies_beyond_is_told_of_the_crop_that_is_seen(mini: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """View and mask are drawn by generators in one state, so that they are of one crop, whatever is drawn."""
    states: dict[str, list[Any]] = {"view": [], "mask": []}
    augment, inside_of = semi_supervised.augment, semi_supervised.inside_of

    def see(samples: Any, rngs: Any, *others: Any) -> Any:
        states["view"] += [rng.bit_generator.state for rng in rngs]
        return augment(samples, rngs, *others)

    def mask(sample: Any, rng: Any, *others: Any) -> Any:
        states["mask"].append(rng.bit_generator.state)
        return inside_of(sample, rng, *others)

    monkeypatch.setattr(semi_supervised, "augment", see)
    monkeypatch.setattr(semi_supervised, "inside_of", mask)
    loader = open_loaders(make_recipe({}, tile=96), mini)[1]
    loader.make_views(3, torch.empty(0), [])
    assert len(states["view"]) == 4
    assert states["mask"] == states["view"]


def test_strong_views_change_colors_as_often_as_they_say() -> None:
    x = torch.rand(200, 3, 8, 8) * 0.5 + 0.25

    def rngs() -> list[np.random.Generator]:
        return [np.random.default_rng([7, n]) for n in range(200)]

    none = {"jitter": 0.0, "gray": 0.0, "blur": 0.0}
    assert torch.equal(strengthen(x, rngs(), StrongViews(**none)), x)
    for name, share in (("jitter", 0.8), ("gray", 0.2), ("blur", 0.5)):
        y = strengthen(x, rngs(), StrongViews(**(none | {name: share})))
        changed = (y != x).flatten(1).any(1).float().mean()
        assert abs(float(changed) - share) < 0.12
        if name == "gray":
            gray = (y != x).flatten(1).any(1)
            torch.testing.assert_close(y[gray][:, 0], y[gray][:, 1])
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
    """Logits that are the input's own channels; keeps what was requested."""

    def forward(self, x: torch.Tensor, dropped: int = 0, features: bool = False) -> Outputs:
        self.requested = (len(x), dropped, features)
        extras = {"dropped": 2 * x[len(x) - dropped :]} if dropped else {}
        if features:
            extras |= {"features": x[:, :, ::2, ::2], "prototypes": torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])}
        return Outputs(x, extras=extras)


def test_all_losses_against_their_equations() -> None:
    torch.manual_seed(0)
    images, strong_labeled, weak = (torch.randn(2, 3, 4, 4) for _ in range(3))
    strong = torch.randn(4, 3, 4, 4)
    boxes = torch.zeros(2, 2, 4, 4, dtype=torch.bool)
    boxes[0, 0, :2] = True
    boxes[1, 0, :, :2] = True
    inside = torch.ones(2, 4, 4)
    inside[1, :, 3] = 0
    truth = torch.randint(0, 3, (2, 4, 4))
    truth[1, :2] = -1  # nobody knows
    logits = 3 * torch.randn(2, 3, 4, 4)
    settings = SemiSupervised(
        threshold=0.7, supervised=0.5, consistency=0.3, dropped=0.2, contrast=0.1, labeled="both"
    )
    views = {
        "weak": weak, "strong": strong, "boxes": boxes, "inside": inside, "truth": truth, "labeled": strong_labeled
    }  # fmt: skip
    network, wanted = Echo(), torch.randn(2, 3, 4, 4)  # of which image and pixel it is shows in the sum
    parts, counts = semi_supervised_losses(
        settings, network, logits, images, views, lambda o: {"supervised": (o.logits * wanted).sum()},
        lambda sums: sums,
    )  # fmt: skip
    assert network.requested == (2 + 2 + 4 + 2, 2, True)
    expected = 0.5 * ((images * wanted).sum() + (strong_labeled * wanted).sum())
    torch.testing.assert_close(parts["supervised"], expected)

    probability, label = logits.softmax(1).max(1)
    keep = (probability >= 0.7) & (inside > 0)
    terms, mixed = [], []
    for view in range(2):
        swapped = [torch.where(boxes[view], x[[1, 0]], x) for x in (label, keep, inside)]
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
    kept, judged, right = (int((keep & where).sum()) for where in (keep, truth >= 0, label == truth))
    assert counts.tolist() == [28, kept, judged, right]
    assert judged < kept
    assert summarize_pseudo_labels(counts)["mask_rate"] == pytest.approx(int(keep.sum()) / 28)


def test_no_pixel_kept_has_no_accuracy() -> None:
    assert summarize_pseudo_labels(torch.tensor([8.0, 0.0, 0.0, 0.0])) == {"mask_rate": 0.0}
    pseudo = make_pseudo_labels(torch.zeros(1, 3, 2, 2), torch.ones(1, 2, 2), 0.95)
    assert pseudo.keep.sum() == 0


def test_the_truth_of_unlabeled_images_is_never_learnt_from(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = make_recipe(EVERYTHING)
    train(settings, [mini], tmp_path / "true", threads=1)
    make_views = UnlabeledLoader.make_views

    def make_views_with_false_truth(self: UnlabeledLoader, *arguments: Any) -> dict[str, torch.Tensor]:
        views = make_views(self, *arguments)
        return views | {"truth": 1 - views["truth"]}

    monkeypatch.setattr(UnlabeledLoader, "make_views", make_views_with_false_truth)
    train(settings, [mini], tmp_path / "false", threads=1)
    assert_same_run(tmp_path / "true", tmp_path / "false")
    for true, false in zip(read_log(tmp_path / "true"), read_log(tmp_path / "false"), strict=True):
        assert true["mask_rate"] == false["mask_rate"]
        assert true["pseudo_accuracy"] == pytest.approx(1 - false["pseudo_accuracy"], abs=1e-6)
        assert {"loss_cross_entropy", "loss_consistency", "loss_dropped", "loss_contrast"} <= true.keys()


def test_killed_and_resumed_equals_uninterrupted(mini: Path, tmp_path: Path) -> None:
    sampling = {"name": "category_adaptive", "period": 1}
    settings = make_recipe(EVERYTHING, sampling=sampling, ema=0.9)
    train(settings, [mini], tmp_path / "uninterrupted", threads=1)
    train_until_killed(settings, mini, tmp_path / "run", 3)
    train(settings, [mini], tmp_path / "run", resume=True, threads=1)
    assert_same_run(tmp_path / "run", tmp_path / "uninterrupted")


def test_sampling_follows_the_equations_epoch_by_epoch(mini: Path) -> None:
    part = Dataset.open(mini).split("train")
    organs = ["breast"] * (len(part) - 1) + ["colon"]
    part = replace(part, rows=tuple(replace(row, organ=o) for row, o in zip(part.rows, organs, strict=True)))
    sampled = make_recipe(None, sampling={"name": "category_adaptive", "gamma": 0.8, "period": 2}, labeled=None)
    loader = TrainLoader(make_context(sampled, data_spec=NUCLEUS), [part])
    present = np.ones((len(part), 1), bool)
    # 5 steps of 4 images over 6: four epochs, two steps of the stairs
    for epoch, gamma in enumerate((0.8, 0.8, 0.4, 0.4)):
        weights = image_weights(organs, present, gamma)
        np.testing.assert_allclose(loader.probabilities(epoch), weights / weights.sum())
    assert loader.probabilities(0)[-1] > loader.probabilities(3)[-1] > loader.probabilities(0)[0]


@pytest.mark.fault
@pytest.mark.parametrize(
    ("settings", "keys", "message"),
    [
        ({}, {"labeled": None}, r"learns from unlabeled images and there are none: give images as 'unlabeled"),
        (
            {},
            {
                "representation": "combined",
                "phases": [{"name": "main", "semi_supervised": {}, "until": {"steps": 5}}],
            },
            "needs one softmax head, of representation semantic",
        ),
        ({"contrast": 0.1, "views": 1}, {}, "the contrastive term needs views: 2"),
        ({"contrast": 0.1}, {"network": {"name": "unet", "options": {"widths": [4, 8]}}}, "'unet' gives no features"),
    ],
)
def test_phases_that_cannot_learn_from_unlabeled_images(
    settings: dict[str, Any], keys: dict[str, Any], message: str, mini: Path, tmp_path: Path
) -> None:
    recipe = make_recipe(settings, **keys)
    with pytest.raises(HemalumError, match=message):
        train(recipe, [mini], tmp_path / "run", threads=1)
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_consistency_alone_takes_any_network(mini: Path, tmp_path: Path) -> None:
    network = {"name": "unet", "options": {"widths": [4, 8], "norm": True}}
    train(make_recipe({"views": 1, "threshold": 0.5}, network=network), [mini], tmp_path / "run", threads=1)
    assert "loss_consistency" in read_log(tmp_path / "run")[0]


@pytest.mark.fault
def test_an_odd_share_of_pairs_is_refused() -> None:
    recipe = make_recipe({}, batch=6)
    network, _ = build_for(recipe, NUCLEUS)
    with pytest.raises(HemalumError, match=r"in pairs: batch 6 gives each of 2 processes an odd number"):
        check_semi_supervised(make_context(recipe, (0, 2), data_spec=NUCLEUS), network, 4)
