"""Whether crops lie within their images: every recipe at full size on its sets, and what is warned of."""

import logging
from pathlib import Path

import numpy as np
import pytest

from builders.trainings import make_context
from hemalum.data.augmentation.crops import measure_inside
from hemalum.data.augmentation.settings import NO_AUGMENTATION, AugmentSettings
from hemalum.data.augmentation.warp import TrainingImage, inside_of
from hemalum.data.dataset import Dataset
from hemalum.training.loader import LEAST_INSIDE, TrainLoader
from hemalum.training.recipe import Recipe, open_recipes, shipped_recipes

# rows, columns, µm/px and how many images of that size, as published; DSB2018 scaled by its nuclei, by their median
IMAGES: dict[str, list[tuple[int, int, float, int]]] = {
    "tnbc": [(512, 512, 0.25, 50)],
    "consep": [(1000, 1000, 0.25, 41)],
    "nuinsseg": [(512, 512, 0.16, 665)],
    "cryonuseg": [(512, 512, 0.25, 30)],
    "conic": [(256, 256, 0.5, 4981)],
    "pannuke": [(256, 256, 0.25, 7901)],
    "lizard": [(900, 1000, 0.5, 238)],  # of many sizes
    "dsb2018": [
        (256, 256, 0.375, 334), (256, 320, 0.238, 112), (360, 360, 0.103, 91), (520, 696, 0.18, 92),
        (1024, 1024, 0.294, 16), (512, 640, 0.139, 13), (603, 1272, 0.422, 6),
    ],
    "polyps": [(288, 384, 352 / 384, 612), (500, 574, 352 / 574, 380)],
    "ihc_pairs": [(1024, 1024, 0.5, 1)],
}  # fmt: skip
SETS = {
    "al_net": ["dsb2018"],
    "al_net_ablation": ["dsb2018"],
    "al_net_baselines": ["dsb2018"],
    "al_net_controls": ["dsb2018"],
    "al_net_polyps": ["polyps"],
    "al_net_polyps_baselines": ["polyps"],
    "baselines": ["tnbc"],
    "clin_seg_net": ["nuinsseg"],
    "clin_seg_net_ablation": ["nuinsseg"],
    "clin_seg_net_baselines": ["nuinsseg"],
    "clin_seg_net_film": ["nuinsseg"],
    "clin_seg_net_organs": ["nuinsseg"],
    "clin_seg_net_ratio": ["nuinsseg"],
    "csra_net": ["pannuke"],
    "csra_net_ablation": ["pannuke"],
    "csra_net_conic": ["conic"],
    "csra_net_consep": ["consep"],
    "csra_net_controls": ["nuinsseg"],
    "csra_net_nuinsseg": ["nuinsseg"],
    "csra_net_nuinsseg_ablation": ["nuinsseg"],
    "csra_net_stated": ["pannuke"],
    "csra_net_unlabeled": ["tnbc"],
    "enhance": ["tnbc"],
    "eunet3plus_conic": ["conic"],
    "eunet3plus_cryonuseg": ["cryonuseg"],
    "eunet3plus_nuinsseg": ["nuinsseg"],
    "two_stage": ["tnbc"],
    "two_stage_lizard": ["lizard", "conic"],
    "unet": ["tnbc"],
    "unet_stain": ["tnbc"],
}  # and those that name their sets themselves


def blank(rows: int, columns: int) -> TrainingImage:
    image = np.broadcast_to(np.zeros(3, np.uint8), (max(1, rows), max(1, columns), 3))
    return TrainingImage(image, np.ones((1, 1), np.int32))


def share_inside(recipe: Recipe, name: str) -> float:
    """The share of an average crop of the set that lies inside its images."""
    sizes = IMAGES[name.removesuffix("_human")]
    scaled = [
        blank(round(rows * mpp / recipe.mpp), round(columns * mpp / recipe.mpp)) for rows, columns, mpp, _ in sizes
    ]
    counts = np.array([count for *_, count in sizes], np.float64)
    return measure_inside(scaled, recipe.tile, recipe.augment, counts / counts.sum())


@pytest.mark.parametrize("name", sorted(shipped_recipes()))
def test_crops_of_a_full_recipe_lie_inside_the_images_of_its_sets(name: str) -> None:
    """Unless the recipe says what becomes of the pixels beyond."""
    done = set()
    for variant, recipe in open_recipes(name).items():
        key = (recipe.mpp, recipe.tile, recipe.augment.model_dump_json(), recipe.beyond)
        if key in done:
            continue
        done.add(key)
        weights = {name: source.weight for name, source in recipe.data.items()}
        weights = weights or dict.fromkeys(SETS[name], 1.0)
        shares = {dataset: share_inside(recipe, dataset) for dataset in weights}
        average = sum(weights[dataset] * share for dataset, share in shares.items()) / sum(weights.values())
        lowest = average if recipe.data else min(shares.values())  # a recipe is trained on one of those
        explicit = "beyond" in recipe.model_fields_set
        assert explicit or lowest >= LEAST_INSIDE, f"{name}:{variant}: {shares}"
        assert lowest >= 0.6, f"{name}:{variant}: {shares}"  # whatever it says: the rest is a waste


def test_nuinsseg_is_trained_at_the_scale_at_which_an_image_is_a_tile() -> None:
    for recipe in open_recipes("eunet3plus_nuinsseg").values():
        assert (recipe.tile, recipe.mpp, recipe.beyond) == (256, 0.32, "ignore")
        assert round(512 * 0.16 / recipe.mpp) == recipe.tile


def test_the_share_is_that_of_the_pixels() -> None:
    settings = AugmentSettings(scale=1.6, rotation=1.0)
    sample = blank(70, 90)
    drawn = [inside_of(sample, np.random.default_rng([0, index]), 64, settings).mean() for index in range(500)]
    assert measure_inside([sample], 64, settings) == pytest.approx(float(np.mean(drawn)), abs=0.02)
    assert measure_inside([blank(32, 64)], 64, NO_AUGMENTATION) == pytest.approx(0.5)
    assert measure_inside([blank(64, 64)], 64, NO_AUGMENTATION) == 1
    two = [blank(64, 64), blank(32, 64)]
    assert measure_inside(two, 64, NO_AUGMENTATION, np.array([1.0, 0.0])) == 1
    assert measure_inside(two, 64, NO_AUGMENTATION, np.array([0.0, 1.0])) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("tile", "beyond", "warned"), [(32, "count", False), (96, "count", True), (96, "ignore", False)]
)
def test_crops_that_are_mostly_mirror_are_warned_of(
    tile: int, beyond: str, warned: bool, recipe: Recipe, mini: Path, caplog: pytest.LogCaptureFixture
) -> None:
    changed = recipe.model_copy(update={"tile": tile, "beyond": beyond, "augment": NO_AUGMENTATION})
    with caplog.at_level(logging.WARNING):
        TrainLoader(make_context(changed), [Dataset.open(mini).split("train")])
    warnings = [record.getMessage() for record in caplog.records if "beyond" in record.getMessage()]
    assert len(warnings) == warned
    if warned:
        assert "of an average crop of 96 px at" in warnings[0]
        assert "beyond: ignore" in warnings[0]
