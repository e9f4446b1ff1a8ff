"""CSRA-Net and the methods beside it: what each option comes to, its recipes, and that it learns."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hemalum.data.augmentation.settings import NO_AUGMENTATION
from hemalum.data.dataset import Dataset
from hemalum.data.importing import import_dataset
from hemalum.data.labeled_images import LabeledImages
from hemalum.data.sampling import CategoryAdaptive
from hemalum.errors import HemalumError
from hemalum.experiments.plan import one_budget, plan_methods
from hemalum.losses.cross_entropy import CrossEntropy
from hemalum.models.file import load_card
from hemalum.systems import build_system
from hemalum.systems.csra_net import CSRANet
from hemalum.systems.phases import SemiSupervised
from hemalum.systems.system import SystemSettings, network_options
from hemalum.training.recipe import Recipe, load_recipe, recipe_variants, shipped_recipes
from hemalum.training.train import count_steps, train

STEPS = 180  # of the overfitting
ALONE = {"csra_net_unlabeled", "csra_net_controls"}  # whose variants differ in more than method and fraction
RECIPES = sorted({name for name in shipped_recipes() if name.startswith("csra_net")} - ALONE)


def recipe_of(**options: Any) -> Recipe:
    return Recipe.model_validate(
        {"name": "r", "mpp": 0.5, "tile": 32, "batch": 2, "system": {"name": "csra_net", **options}}
    )


def loss_weights(recipe: Recipe) -> dict[str, float] | None:
    settings = recipe.phases[0].semi_supervised
    if settings is None:
        return None
    weights = {key: getattr(settings, key) for key in ("supervised", "consistency", "dropped", "contrast")}
    return {key: weight for key, weight in weights.items() if weight} | {"views": settings.views}


def test_each_method_weighs_its_losses_as_published() -> None:
    assert loss_weights(recipe_of(method="supervised")) is None
    # FixMatch (L_x + L_u) / 2; UniMatch (L_x + L_s1 / 4 + L_s2 / 4 + L_fp / 2) / 2, as a mean over two views
    assert loss_weights(recipe_of(method="fixmatch")) == {"supervised": 0.5, "consistency": 0.5, "views": 1}
    assert loss_weights(recipe_of(method="unimatch")) == {
        "supervised": 0.5, "consistency": 2 / 8, "dropped": 1 / 4, "views": 2
    }  # fmt: skip
    assert loss_weights(recipe_of()) == {"supervised": 1.0, "consistency": 0.5, "contrast": 0.1, "views": 2}
    assert recipe_of().phases[0].semi_supervised.labeled == "both"
    assert recipe_of(method="unimatch").phases[0].semi_supervised.labeled == "weak"


def test_parts_are_options_and_belong_to_csra() -> None:
    full, plain = recipe_of(), recipe_of(method="unimatch")
    assert (full.network.name, full.network.options["skips"], full.sampling.gamma) == ("csra_net", [1, 2, 3], 0.85)
    assert (plain.network.name, plain.network.options["skips"], plain.sampling) == ("deeplabv3plus", [1], None)
    none = recipe_of(cas=False, swc=False, raa=False)
    assert (none.network.name, none.sampling, none.phases[0].semi_supervised) == ("deeplabv3plus", None, None)
    assert recipe_of(method="supervised", raa=True).network.name == "csra_net"
    unet = recipe_of(method="fixmatch", network={"name": "unet", "widths": [4, 8]}).network
    assert (unet.name, unet.options) == ("unet", {"widths": [4, 8], "norm": True})


def test_options_reach_what_they_are_for() -> None:
    network = {"backbone": "resnet50", "skips": [1, 3], "heads": 2}
    changed = recipe_of(network=network, loss={"dice": 0.5}, optimizer={"lr": 0.01}, schedule={"warmup": 7}, steps=9)
    assert {key: changed.network.options[key] for key in network} == network
    assert changed.network.options["output_stride"] == 16  # what is not said stays
    phase = changed.phases[0]
    assert (phase.loss.name, phase.loss.dice, phase.schedule.warmup, changed.steps) == ("cross_entropy", 0.5, 7, 9)
    assert (phase.optimizer.lr, phase.optimizer.weight_decay, phase.optimizer.momentum) == (0.01, 1e-4, 0.9)
    plain = recipe_of(network=network, method="supervised").network
    assert (plain.name, plain.options["skips"], "heads" in plain.options) == ("deeplabv3plus", [1, 3], False)


def test_the_stated_form_is_what_the_paper_states() -> None:
    path = shipped_recipes()["csra_net_stated"]
    for variant in recipe_variants(path):
        recipe = load_recipe(path, variant=variant)
        phase, augment = recipe.phases[0], recipe.augment
        assert (phase.until.epochs, phase.until.epochs_of) == (400, "unlabeled")
        assert (phase.optimizer.name, phase.optimizer.nesterov, recipe.clip) == ("sgd", False, None)
        assert (augment.flips, augment.scale, augment.rotation) == ("horizontal", 2.0, 0)
        assert recipe.labeled.draw == "random"
        assert recipe.network.options.get("skips", []) == []  # DeepLabV3, or U-Net
    # 7/8 of 80 % of PanNuke, 400 times, in batches of 16
    csra = count_steps(load_recipe(path, variant="csra_8"), 790, 5530)
    assert csra.steps == 138_250
    assert count_steps(csra, 790, 5530) == csra
    assert count_steps(load_recipe(path, variant="supervised_8"), 790, 5530).steps == csra.steps


@pytest.mark.fault
def test_epochs_are_turned_into_steps_from_the_data(mini: Path, tmp_path: Path) -> None:
    until = {"steps": 100, "epochs": 3, "epochs_of": "unlabeled"}
    small = load_recipe(shipped_recipes()["csra_net_nuinsseg"], "small", "fixmatch_8").model_dump(mode="json")
    small["phases"][0]["until"] |= until
    recipe = Recipe.model_validate(small | {"batch": 2, "tile": 32, "labeled": "1/3", "precision": "32-true"})
    card = load_card(train(recipe, [mini], tmp_path / "run", threads=1))
    hidden = card.training.data[0].unlabeled
    assert (hidden, card.training.steps) == (4, 3 * 4 // 2)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert (log[-1]["step"], log[-1]["lr"] < recipe.phases[0].optimizer.lr) == (6, True)  # the cosine knows its end
    alone = recipe.model_copy(update={"labeled": None, "name": "none"})
    with pytest.raises(HemalumError, match=r"counts epochs of unlabeled images and there are none: give steps"):
        count_steps(alone, 6, 0)
    with pytest.raises(HemalumError, match=r"3 epochs of unlabeled images, at most"):
        one_budget(
            [*plan_methods(write(tmp_path, "a", recipe), "full"), *plan_methods("csra_net_nuinsseg:csra_8", "full")],
            None,
            False,
        )
    cut = one_budget(plan_methods(write(tmp_path, "a", recipe), "full"), 40, False)[0]
    assert Recipe.model_validate(cut.recipe).phases[0].until.epochs is None


def write(folder: Path, name: str, recipe: Recipe) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(recipe.model_dump_json())
    return str(path)


def test_arms_of_an_ablation_differ_by_their_part_alone() -> None:
    for name in ("csra_net_ablation", "csra_net_nuinsseg_ablation"):
        path = shipped_recipes()[name]
        for budget in ("full", "small"):
            recipes = {variant: load_recipe(path, budget, variant) for variant in recipe_variants(path)}
            assert {str(recipe.network.options["skips"]) for recipe in recipes.values()} == {"[1, 2, 3]"}
            # without what attention has of its own, the networks are one
            attention = {"reduced", "region", "grid", "heads", "depth"}
            options = [
                {key: value for key, value in recipe.network.options.items() if key not in attention}
                for recipe in recipes.values()
            ]
            assert all(one == options[0] for one in options)


def test_controls_change_one_thing_each() -> None:
    path = shipped_recipes()["csra_net_controls"]
    for budget in ("full", "small"):
        for part in (8, 32):
            arms = {
                variant.removesuffix(f"_{part}"): load_recipe(path, budget, variant)
                for variant in recipe_variants(path)
                if variant.endswith(f"_{part}")
            }
            csra, plain = arms["csra"], arms["supervised"]
            assert {recipe.labeled for recipe in arms.values()} == {
                LabeledImages(fraction=f"1/{part}", draw="random", draws=3)
            }
            assert {str(recipe.network.options["skips"]) for recipe in arms.values()} == {"[1, 2, 3]"}
            assert {recipe.steps // recipe.validate_every for recipe in arms.values()} == {
                csra.steps // csra.validate_every
            }
            assert arms["supervised_4x"].steps == 4 * plain.steps
            # the weight of the labeled images' gradient, times the rate
            masses = {name: mass_of(recipe) / plain.phases[0].optimizer.lr for name, recipe in arms.items()}
            assert masses == pytest.approx(
                {
                    "csra": 2, "lambda0": 2, "csra_mass1": 1, "cas_raa": 1, "supervised": 1, "supervised_4x": 1,
                    "supervised_mass2": 2, "fixmatch": 0.5, "fixmatch_mass1": 1, "unimatch": 0.5, "unimatch_mass1": 1,
                }
            )  # fmt: skip
            nothing = {"consistency": 0.0, "contrast": 0.0}
            semi, without = csra.phases[0].semi_supervised, arms["lambda0"].phases[0].semi_supervised
            assert semi.model_copy(update=nothing) == without
            assert arms["lambda0"].model_copy(
                update={"phases": csra.phases, "system": None, "name": ""}
            ) == csra.model_copy(update={"system": None, "name": ""})
            for method in ("csra", "fixmatch", "unimatch"):
                first, second = (loss_weights(arms[name]) for name in (method, f"{method}_mass1"))
                ratios = {second[key] / first[key] for key in first if key != "views"}
                assert ratios == {0.5 if method == "csra" else 2.0}
            assert (arms["cas_raa"].network, arms["cas_raa"].sampling) == (csra.network, csra.sampling)


def mass_of(recipe: Recipe) -> float:
    settings = recipe.phases[0].semi_supervised
    views = 1 if settings is None else settings.supervised * (2 if settings.labeled == "both" else 1)
    return views * recipe.phases[0].optimizer.lr


def test_without_unlabeled_losses_only_the_labeled_images_teach(mini: Path, tmp_path: Path) -> None:
    semi = {"consistency": 0, "contrast": 0, "threshold": 0.5}
    small = load_recipe(shipped_recipes()["csra_net_nuinsseg"], "small", "csra_8").model_dump(mode="json")
    small["phases"][0]["semi_supervised"] |= semi
    small["phases"][0]["until"]["steps"] = 2
    recipe = Recipe.model_validate(small | {"batch": 2, "tile": 32, "labeled": "1/3", "precision": "32-true"})
    train(recipe, [mini], tmp_path / "run", threads=1)
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {name for name in last if name.startswith("loss")} == {"loss", "loss_cross_entropy"}
    assert last["loss"] == pytest.approx(last["loss_cross_entropy"])


def test_what_is_said_of_unlabeled_images_goes_over_the_method() -> None:
    settings = {"threshold": 0.9, "consistency": 0.7, "strong": {"jitter": 0.5}}
    semi = recipe_of(semi_supervised=settings).phases[0].semi_supervised
    assert (semi.threshold, semi.consistency, semi.contrast, semi.labeled) == (0.9, 0.7, 0.1, "both")
    assert (semi.strong.jitter, semi.strong.hue) == (0.5, 0.25)
    fixmatch = recipe_of(method="fixmatch", semi_supervised={"threshold": 0.9})
    assert (fixmatch.phases[0].semi_supervised.threshold, fixmatch.phases[0].semi_supervised.views) == (0.9, 1)
    assert Recipe.model_validate(fixmatch.model_dump(mode="json")) == fixmatch


def test_optimizer_and_weak_view_are_the_papers() -> None:
    phase = recipe_of().phases[0]
    assert (phase.optimizer.name, phase.optimizer.lr, phase.optimizer.momentum) == ("sgd", 0.005, 0.9)
    assert not phase.optimizer.nesterov
    assert recipe_of(optimizer={"nesterov": True}).phases[0].optimizer.nesterov
    assert phase.schedule.name == "cosine"
    assert recipe_of().augment.scale == 2.0
    assert recipe_of().augment.saturation == 0
    assert recipe_of().labeled.draw == "random"
    assert recipe_of(draw="stratified").labeled.draw == "stratified"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "mixmatch"}, "'csra_net', 'method': .*'supervised', 'fixmatch', 'unimatch' or 'csra'"),
        ({"fractoin": "1/8"}, "has no option 'fractoin', did you mean 'fraction'"),
        ({"fraction": "2/3"}, "labeled.fraction"),
        ({"method": "unimatch", "network": {"name": "unet"}}, "network unet has no features"),
        ({"network": {"name": "unit"}, "method": "supervised"}, "unknown network 'unit', did you mean 'unet'"),
        ({"network": {"backbne": "resnet50"}}, "network 'csra_net' has no option 'backbne', did you mean 'backbone'"),
        ({"network": {"haeds": 2}, "method": "supervised"}, "network 'csra_net' has no option 'haeds'.* 'heads'"),
        ({"network": {"reduction": 0}}, "network 'csra_net', 'reduction': want a whole number from 1 on, not 0"),
        ({"semi_supervised": {"treshold": 1}}, "no option 'semi_supervised.treshold'.* 'semi_supervised.threshold'"),
        ({"gamma": 0.5}, "system 'csra_net' has no option 'gamma'"),
        ({"draw": "randm"}, "system 'csra_net', 'draw': .*'random' or 'stratified'"),
        ({"epoch": 3}, "has no option 'epoch', did you mean 'epochs'"),
        ({"network": {"name": "deeplabv3"}}, r"deeplabv3 has no features .* for DeepLabV3 network: \{skips: \[\]\}"),
        ({"method": "fixmatch", "swc": False}, "swc is a part of method csra, not of fixmatch"),
    ],
)
def test_options_that_are_not_possible(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        recipe_of(**options)


@pytest.mark.parametrize("name", RECIPES)
def test_variants_differ_by_method_and_fraction_alone(name: str) -> None:
    path = shipped_recipes()[name]
    shared = {"method": "csra", "fraction": "1/8", "cas": None, "swc": True, "raa": None}
    for budget in ("full", "small"):
        first_of_network: dict[str, SystemSettings] = {}
        for variant in recipe_variants(path):
            recipe = load_recipe(path, budget, variant)
            system = build_system(recipe.system)
            assert recipe.labeled.fraction == f"1/{variant.rsplit('_', 1)[1]}"
            first = first_of_network.setdefault(system.network["name"], system)
            assert system.model_copy(update=shared) == first.model_copy(update=shared)
            assert recipe.phases[0].until.steps == system.steps
        networks = {"network": {"name": "csra_net"}}
        assert set(first_of_network) == ({"unet", "csra_net"} if "ablation" not in name else {"csra_net"})
        assert len({str(system.model_copy(update=shared | networks)) for system in first_of_network.values()}) == 1


def test_defaults_are_the_reading_of_the_docs() -> None:
    page = (Path(__file__).parents[2] / "docs" / "systems" / "csra_net.md").read_text(encoding="utf-8")
    nested = {*network_options("csra_net"), *SemiSupervised.model_fields, *CategoryAdaptive.model_fields}
    nested |= {*CrossEntropy.model_fields, *LabeledImages.model_fields}
    names = {*CSRANet.model_fields, *nested, "lr", "weight_decay", "monitor", "flips", "clip"}
    names -= {"name", "growth", "beyond"}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


def test_the_recipe_for_own_images_hides_no_label() -> None:
    path = shipped_recipes()["csra_net_unlabeled"]
    recipes = {name: load_recipe(path, variant=name) for name in recipe_variants(path)}
    assert list(recipes) == ["supervised", "fixmatch", "unimatch", "csra"]
    assert {recipe.labeled.fraction for recipe in recipes.values()} == {"1/1"}
    assert [recipe.phases[0].semi_supervised is None for recipe in recipes.values()] == [True, False, False, False]


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images of dark discs, the class of each by its color; class "rare" in three of them."""
    source = tmp_path_factory.mktemp("typed")
    for folder in ("images", "labels", "types"):
        (source / folder).mkdir()
    rng, lines = np.random.default_rng(0), ["image,label"]
    y, x = np.mgrid[:64, :64]
    for number in range(12):
        labels, types = np.zeros((64, 64), np.uint16), np.zeros((64, 64), np.uint8)
        for index in range(1, 7):
            cy, cx = rng.integers(6, 58, 2)
            disc = (y - cy) ** 2 + (x - cx) ** 2 < 36
            labels[disc], types[disc] = index, 2 if number % 4 == 0 and index > 3 else 1
        colors = np.array([[230, 190, 215], [110, 80, 160], [60, 130, 70]])
        image = colors[types] + rng.normal(0, 8, (64, 64, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(source / "images" / f"{number}.png")
        Image.fromarray(labels).save(source / "labels" / f"{number}.png")
        Image.fromarray(types).save(source / "types" / f"{number}.png")
        lines.append(f"{number}.png,{number}.png")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    target = tmp_path_factory.mktemp("data") / "typed"
    import_dataset("folder", source, target, mpp=0.5, split=(0.7, 0.1, 0.2), name="typed", class_names="common,rare")
    return target


def tiny(name: str, variant: str) -> Recipe:
    small = load_recipe(shipped_recipes()[name], "small", variant)
    phases = [
        phase.model_copy(update={"until": phase.until.model_copy(update={"steps": 2})}) for phase in small.phases
    ]
    return small.model_copy(update={"phases": phases, "batch": 2, "tile": 32})


@pytest.mark.parametrize("variant", ["unet_8", "supervised_8", "fixmatch_4", "unimatch_8", "csra_4"])
def test_each_method_trains_on_classes(variant: str, typed: Path, tmp_path: Path) -> None:
    card = load_card(train(tiny("csra_net", variant), [typed], tmp_path / "run", threads=1))
    assert card.classes == ["common", "rare"]
    assert "pretrained" not in card.network.options


@pytest.mark.fault
def test_a_recipe_of_classes_needs_some(mini: Path, tmp_path: Path) -> None:
    with pytest.raises(HemalumError, match=r"tells classes apart and .* has none"):
        train(tiny("csra_net", "csra_8"), [mini], tmp_path / "run")
    train(tiny("csra_net_nuinsseg", "csra_8"), [mini], tmp_path / "run", threads=1)


@pytest.mark.fault
def test_a_fraction_that_leaves_a_class_empty_is_told_before_training(typed: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(typed)
    # no single image holds both classes when the rare one's images lose their common nuclei
    rows = [row for row in dataset.rows if row.split in ("train", "val")]
    folder = tmp_path / "apart"
    (folder / "classes").mkdir(parents=True)
    for row in rows:
        types = np.array(Image.open(typed / row.classes))
        if row.split == "train" and (types == 2).any():
            types[types == 1] = 2
        Image.fromarray(types).save(folder / row.classes)
        for file in (row.image, row.label):
            (folder / file).parent.mkdir(exist_ok=True)
            (folder / file).write_bytes((typed / file).read_bytes())
    apart = replace(dataset, path=folder, rows=tuple(rows))
    recipe = tiny("csra_net", "csra_32")
    stratified = recipe.model_copy(update={"labeled": recipe.labeled.model_copy(update={"draw": "stratified"})})
    with pytest.raises(HemalumError, match=r"labeled fraction 1/32 leaves class '(common|rare)' without an image"):
        train(stratified, [apart], tmp_path / "run")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


@pytest.mark.slow
def test_overfits_four_real_tiles(real_data: Path, tmp_path: Path) -> None:
    # CSRA-Net itself, narrow, on tiles of four organs, which are its validation images as well, beside four others
    # without labels; every part of it is at work: sampling, attention, both consistency terms
    source = tmp_path / "source"
    for name in ("images", "labels"):
        (source / name).mkdir(parents=True)
    lines, labeled, organs = ["image,label"], [], ("bladder", "liver", "pancreas", "spleen")
    for organ in organs:
        for number in (1, 2):
            name = f"{organ}_{number}"
            for folder, suffix in (("images", "jpg"), ("labels", "png")):
                tile = Image.open(real_data / "nuinsseg_human" / folder / f"human_{organ}_{number:02}.{suffix}")
                tile.crop((100, 100, 228, 228)).save(source / folder / f"{name}.png")
            lines.append(f"{name}.png,{name}.png")
        labeled.append(f"{organ}_1")
    (source / "index.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "labeled.txt").write_text("\n".join(labeled))
    tiles = import_dataset("folder", source, tmp_path / "tiles", mpp=0.25, name="tiles")
    rows = [replace(row, split="train") for row in tiles.rows]
    rows += [replace(row, split="val") for row in tiles.rows if row.id in labeled]
    small = load_recipe(shipped_recipes()["csra_net_nuinsseg"], "small", "csra_8")
    phase = small.phases[0].model_copy(update={"until": small.phases[0].until.model_copy(update={"steps": STEPS})})
    recipe = small.model_copy(
        update={
            "phases": [phase],
            "precision": "32-true",
            "labeled": LabeledImages(file=str(tmp_path / "labeled.txt")),
            "augment": NO_AUGMENTATION,
            "mpp": 0.5,
            "tile": 64,
            "batch": 8,
            "validate_every": STEPS // 6,
        }
    )
    train(recipe, [replace(tiles, rows=tuple(rows))], tmp_path / "run", threads=1)
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert max(line["dice"] for line in log) >= 0.95
    assert {"loss_cross_entropy", "loss_consistency", "loss_contrast"} <= log[-1].keys()
    assert log[-1]["mask_rate"] > 0.5
    assert log[-1]["loss_cross_entropy"] < log[0]["loss_cross_entropy"] / 2
