"""CSRA-Net and the methods beside it: what each option comes to, its recipes, and that it learns."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.errors import HemalumError
from hemalum.instances.representations import find_representation
from hemalum.metrics import count_pixels, score_pixels
from hemalum.networks import build_network
from hemalum.networks.map_model import activate
from hemalum.systems import build_system
from hemalum.training.recipe import Recipe, load_recipe, recipe_variants
from hemalum.training.shipped import shipped_recipes
from hemalum.training.stream import Facts, encode, normalise
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
    from hemalum.models.file import load_card

    card = load_card(train(tiny("csra_net", variant), [typed], tmp_path / "run", threads=1))
    assert card.classes == ["common", "rare"]
    assert "pretrained" not in card.network.options


def test_a_recipe_of_classes_needs_some(mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"tells classes apart and .* has none"):
        train(tiny("csra_net", "csra_8"), [mini], tmp_path / "run")
    train(tiny("csra_net_nuinsseg", "csra_8"), [mini], tmp_path / "run", threads=1)


def test_a_fraction_that_leaves_a_class_empty_is_told_before_training(typed: Path, tmp_path: Path) -> None:
    from hemalum.data.dataset import Dataset

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
def test_overfits_four_real_tiles(real_data: Path) -> None:
    # the supervised form's network and loss, narrow, on crops of four organs: Dice of at least 0.95
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    options = tiny("csra_net_nuinsseg", "supervised_8").network.options
    facts = Facts(classes=("nucleus",), one_class=True)
    representation = find_representation("semantic", facts.classes)
    names = sorted((real_data / "nuinsseg_human" / "labels").glob("human_*_01.png"))[:12:3]
    images = np.stack([np.array(Image.open(_image(name)).convert("RGB"))[100:356, 100:356] for name in names])
    labels = np.stack([np.array(Image.open(name)).astype(np.int32)[100:356, 100:356] for name in names])
    x = normalise(torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255)
    targets = encode(
        labels, representation, classes=[(np.arange(label.max() + 1) > 0).astype(np.int32) for label in labels]
    )
    network = build_network("deeplabv3plus", representation.logits, options).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, nesterov=True)
    dice = 0.0
    for step in range(1, 121):
        shares = torch.cat([1 - targets, targets], 1)
        loss = torch.nn.functional.cross_entropy(network(x), shares)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 20 == 0:
            with torch.inference_mode():
                maps = activate(network.eval()(x), representation.heads)[:, 0].numpy()
            network.train()
            counts = count_pixels(labels.reshape(-1, 256), (maps > 0.5).astype(np.int32).reshape(-1, 256))
            dice = score_pixels(counts).dice
            if dice >= 0.95:
                break
    torch.set_num_threads(threads)
    assert dice >= 0.95


def _image(label: Path) -> Path:
    return label.parents[1] / "images" / label.with_suffix(".jpg").name
