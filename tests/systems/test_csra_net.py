"""CSRA-Net and the methods beside it: what each option comes to, its recipes, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemalum.data.augment import NO_AUGMENTATION
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.models.file import load_card
from hemalum.systems import build_system
from hemalum.training.recipe import Recipe, load_recipe, recipe_variants
from hemalum.training.shipped import shipped_recipes
from hemalum.training.train import train

RECIPES = sorted(name for name in shipped_recipes() if name.startswith("csra_net"))


def recipe(**options: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "r", "mpp": 0.5, "tile": 32, "batch": 2, "system": {"name": "csra_net", **options}}
    )


def weights(of: Recipe) -> dict[str, float] | None:
    settings = of.phases[0].unlabelled
    if settings is None:
        return None
    found = {key: getattr(settings, key) for key in ("supervised", "consistency", "dropped", "contrast")}
    return {key: value for key, value in found.items() if value} | {"views": settings.views}


def test_each_method_weighs_its_losses_as_published() -> None:
    assert weights(recipe(method="supervised")) is None
    # FixMatch (L_x + L_u) / 2; UniMatch (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2, as a mean over two views
    assert weights(recipe(method="fixmatch")) == {"supervised": 0.5, "consistency": 0.5, "views": 1}
    assert weights(recipe(method="unimatch")) == {
        "supervised": 0.5, "consistency": 2 / 8, "dropped": 1 / 4, "views": 2
    }  # fmt: skip
    assert weights(recipe()) == {"supervised": 1.0, "consistency": 0.5, "contrast": 0.1, "views": 2}
    assert recipe().phases[0].unlabelled.labelled == "both"
    assert recipe(method="unimatch").phases[0].unlabelled.labelled == "weak"


def test_parts_are_options_and_belong_to_csra() -> None:
    whole, plain = recipe(), recipe(method="unimatch")
    assert (whole.network.name, whole.network.options["skips"], whole.sampling.gamma) == ("csra_net", [1, 2, 3], 0.85)
    assert (plain.network.name, plain.network.options["skips"], plain.sampling) == ("deeplabv3plus", [1], None)
    none = recipe(cas=False, swc=False, raa=False)
    assert (none.network.name, none.sampling, none.phases[0].unlabelled) == ("deeplabv3plus", None, None)
    assert recipe(method="supervised", raa=True).network.name == "csra_net"
    assert recipe(method="fixmatch", network="unet").network.name == "unet"


def test_optimiser_and_weak_view_are_the_papers() -> None:
    phase = recipe().phases[0]
    assert (phase.optimiser.name, phase.optimiser.lr, phase.optimiser.momentum) == ("sgd", 0.005, 0.9)
    assert phase.schedule.name == "cosine"
    assert recipe().augment.scale == 2.0
    assert recipe().augment.saturation == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "mixmatch"}, "'csra_net', 'method': .*'supervised', 'fixmatch', 'unimatch' or 'csra'"),
        ({"fractoin": "1/8"}, "has no option 'fractoin', did you mean 'fraction'"),
        ({"fraction": "2/3"}, "labelled.fraction"),
        ({"method": "unimatch", "network": "unet"}, "network unet has no features"),
        ({"method": "fixmatch", "swc": False}, "swc is a part of method csra, not of fixmatch"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        recipe(**options)


@pytest.mark.parametrize("name", RECIPES)
def test_variants_differ_by_method_and_fraction_alone(name: str) -> None:
    path = shipped_recipes()[name]
    for budget in ("full", "small"):
        for variant in recipe_variants(path):
            found = load_recipe(path, budget, variant)
            own = build_system(found.system)
            assert found.labelled.fraction == f"1/{variant.rsplit('_', 1)[1]}"
            shared = {"method": "csra", "fraction": "1/8", "cas": None, "swc": True, "raa": None,
                      "network": "deeplabv3plus"}  # fmt: skip
            first = build_system(load_recipe(path, budget, recipe_variants(path)[0]).system)
            assert own.model_copy(update=shared) == first.model_copy(update=shared)
            assert found.phases[0].until.steps == own.steps


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of dark discs, the class of each by its colour; class "rare" in three of them."""
    source = tmp_path_factory.mktemp("typed")
    for name in ("images", "labels", "types"):
        (source / name).mkdir()
    rng, lines = np.random.default_rng(0), ["image,label"]
    y, x = np.mgrid[:64, :64]
    for number in range(12):
        labels, types = np.zeros((64, 64), np.uint16), np.zeros((64, 64), np.uint8)
        for index in range(1, 7):
            cy, cx = rng.integers(6, 58, 2)
            disc = (y - cy) ** 2 + (x - cx) ** 2 < 36
            labels[disc], types[disc] = index, 2 if number % 4 == 0 and index > 3 else 1
        colours = np.array([[230, 190, 215], [110, 80, 160], [60, 130, 70]])
        image = colours[types] + rng.normal(0, 8, (64, 64, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(source / "images" / f"{number}.png")
        Image.fromarray(labels).save(source / "labels" / f"{number}.png")
        Image.fromarray(types).save(source / "types" / f"{number}.png")
        lines.append(f"{number}.png,{number}.png")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    target = tmp_path_factory.mktemp("data") / "typed"
    import_dataset("folder", source, target, mpp=0.5, split=(0.7, 0.1, 0.2), name="typed", class_names="common,rare")
    return target


def tiny(name: str, variant: str) -> Recipe:
    of = load_recipe(shipped_recipes()[name], "small", variant)
    phases = [phase.model_copy(update={"until": phase.until.model_copy(update={"steps": 2})}) for phase in of.phases]
    return of.model_copy(update={"phases": phases, "batch": 2, "tile": 32})


@pytest.mark.parametrize("variant", ["unet_8", "supervised_8", "fixmatch_4", "unimatch_8", "csra_4"])
def test_each_method_trains_on_classes(variant: str, typed: Path, tmp_path: Path) -> None:
    card = load_card(train(tiny("csra_net", variant), [typed], tmp_path / "run", threads=1))
    assert card.classes == ["common", "rare"]
    assert "pretrained" not in card.network.options


def test_a_recipe_of_classes_needs_some(mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"tells classes apart and .* has none"):
        train(tiny("csra_net", "csra_8"), [mini], tmp_path / "run")
    train(tiny("csra_net_nuinsseg", "csra_8"), [mini], tmp_path / "run", threads=1)


def test_a_fraction_that_leaves_a_class_empty_is_told_before_training(typed: Path, tmp_path: Path) -> None:
    whole = Dataset.open(typed)
    # no single image holds both classes when the rare one's images lose their common nuclei
    rows = [row for row in whole.rows if row.split == "train"]
    folder = tmp_path / "apart"
    (folder / "classes").mkdir(parents=True)
    for row in rows:
        types = np.array(Image.open(typed / row.classes))
        if (types == 2).any():
            types[types == 1] = 2
        Image.fromarray(types).save(folder / row.classes)
        for file in (row.image, row.label):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes((typed / file).read_bytes())
    apart = replace(whole, path=folder, rows=tuple(rows))
    with pytest.raises(HemalumError, match=r"labelled fraction 1/32 leaves class '(common|rare)' without an image"):
        train(tiny("csra_net", "csra_32"), [apart], tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_overfits_four_real_tiles(real_data: Path, tmp_path: Path) -> None:
    # the supervised form, narrow, on tiles of four organs, which are its validation images as well; each is some six
    # times in a batch, so that batch norm sees the same mixture at all times
    source = tmp_path / "source"
    for name in ("images", "labels"):
        (source / name).mkdir(parents=True)
    lines = ["image,label"]
    for organ in ("bladder", "liver", "pancreas", "spleen"):
        for folder, file in (("images", f"human_{organ}_01.jpg"), ("labels", f"human_{organ}_01.png")):
            tile = Image.open(real_data / "nuinsseg_human" / folder / file).crop((100, 100, 228, 228))
            tile.save(source / folder / f"{organ}.png")
        lines.append(f"{organ}.png,{organ}.png")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    whole = import_dataset("folder", source, tmp_path / "four", mpp=0.25, name="four")
    rows = [replace(row, split=split) for split in ("train", "val") for row in whole.rows]
    own = load_recipe(shipped_recipes()["csra_net_nuinsseg"], "small", "supervised_8")
    phase = own.phases[0].model_copy(update={"until": own.phases[0].until.model_copy(update={"steps": 100})})
    same = {"labelled": None, "augment": NO_AUGMENTATION, "mpp": 0.25, "tile": 128, "batch": 24, "validate_every": 50}
    own = own.model_copy(update={"phases": [phase], "precision": "32-true", **same})
    train(own, [replace(whole, rows=tuple(rows))], tmp_path / "run", threads=1)
    scores = [json.loads(line)["dice"] for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert max(scores) >= 0.95
