"""Values as Python users have them: of NumPy, of shapely, of a wrong kind; each counts, or is named in one line."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
import tifffile
from numpy.typing import NDArray

import hemalum
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.compare import make_plan
from hemalum.inference.batch import segment_paths
from hemalum.inference.slide import segment_slide
from hemalum.inference.slide_batch import segment_slides

OPTIONS: dict[str, Any] = {"engine": "torch", "stain": "he"}


@pytest.fixture(scope="module")
def picture() -> NDArray[np.uint8]:
    image = np.full((60, 90, 3), 225, np.uint8)
    image[10:22, 12:25] = image[30:44, 50:66] = (70, 40, 90)
    return image


@pytest.fixture
def path(picture: NDArray[np.uint8], tmp_path: Path) -> Path:
    tifffile.imwrite(tmp_path / "a.tif", picture, photometric="rgb", tile=(32, 32))
    return tmp_path / "a.tif"


def by_paths(path: Path, model: Path, mpp: Any) -> Any:
    (result,) = segment_paths([path], path.parent / "out", ["csv"], model, mpp=mpp, **OPTIONS)
    assert result.nuclei is not None, result.error
    return result.nuclei.mpp, result.nuclei.mpp_source


def by_evaluate(path: Path, model: Path, mpp: Any) -> Any:
    sample = Sample(tifffile.imread(path), np.zeros((60, 90), np.int32), id="a", source="a", group="a", mpp=0.25)
    row = hemalum.evaluate(model, [sample], mpp=mpp, engine="torch").per_image[0]
    return row["mpp_used"], row["mpp_source"]


def by_slide(path: Path, model: Path, mpp: Any) -> Any:
    return segment_slide(path, path.parent, model, mpp=mpp, **OPTIONS).run.mpp, "user"


def by_slides(path: Path, model: Path, mpp: Any) -> Any:
    (result,) = segment_slides([path], path.parent, ["csv"], model, mpp=mpp, **OPTIONS)
    assert result.error is None, result.error
    return 0.5, "user"


def by_label_map(path: Path, model: Path, mpp: Any) -> Any:
    nuclei = hemalum.Nuclei.from_labels(np.eye(8, dtype=np.int32), mpp=mpp)
    return nuclei.mpp, nuclei.mpp_source


def by_open_slide(path: Path, model: Path, mpp: Any) -> Any:
    with hemalum.open_slide(path, mpp=mpp) as slide:
        return slide.mpp, "user"


def by_compare(path: Path, model: Path, mpp: Any) -> Any:
    (path.parent / "set").mkdir()
    return make_plan(["classical"], [make_set(path.parent / "set")], mpp=mpp).mpp, "user"


def by_import(path: Path, model: Path, mpp: Any) -> Any:
    (path.parent / "set").mkdir()
    make_set(path.parent / "set", mpp)
    (scale,) = {(row.mpp, row.mpp_source) for row in hemalum.Dataset.open(path.parent / "set" / "done").rows}
    return scale


def make_set(folder: Path, mpp: Any = 0.25) -> Path:
    for gray, name in enumerate("abcdefgh"):
        for kind, content in (("images", np.full((32, 32, 3), 200 + gray)), ("labels", np.eye(32) * 2)):
            (folder / kind).mkdir(exist_ok=True)
            tifffile.imwrite(folder / kind / f"{name}.tif", content.astype(np.uint8))
    hemalum.import_dataset("folder", folder, folder / "done", mpp=mpp)
    return folder / "done"


VERBS: dict[str, Callable[[Path, Path, Any], Any]] = {
    "segment_paths": by_paths,
    "evaluate": by_evaluate,
    "segment_slide": by_slide,
    "segment_slides": by_slides,
    "from_labels": by_label_map,
    "open_slide": by_open_slide,
    "compare": by_compare,
    "import_dataset": by_import,
}


@pytest.mark.fault
@pytest.mark.parametrize("kind", [np.float32, np.float64, np.array])
@pytest.mark.parametrize("verb", VERBS)
def test_a_scale_of_numpy_counts_in_every_verb(verb: str, kind: Any, path: Path, dark_model: Path) -> None:
    mpp, source = VERBS[verb](path, dark_model, kind(0.5))
    assert (mpp, source, type(mpp)) == (0.5, "user", float)


@pytest.mark.fault
@pytest.mark.parametrize("verb", VERBS)
def test_a_truth_value_is_no_scale(verb: str, path: Path, dark_model: Path) -> None:
    with pytest.raises(HemalumError, match=r"^mpp is True: want a number$"):
        VERBS[verb](path, dark_model, True)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"keep": 5}, "filter: 5 is no mapping of limits, as {'min_area_um2': 20}"),
    ({"keep": ["min_area_um2"]}, "filter: ['min_area_um2'] is no mapping of limits, as {'min_area_um2': 20}"),
    ({"keep": "min_area_um2"}, "filter: 'min_area_um2' is no mapping of limits, as {'min_area_um2': 20}"),
    (
        {"keep": {3: 4}},
        "filter: no limit '3'; known: max_area_um2, min_area_um2, min_hematoxylin, min_probability, min_solidity",
    ),
    ({"keep": {"min_area_um2": True}}, "filter: min_area_um2 is True: want a number"),
    ({"keep": {"min_area_um2": "10"}}, "filter: min_area_um2 10: Input should be a valid number"),
    ({"keep": {"min_area_um2": [10]}}, "filter: min_area_um2 is [10]: want one number"),
    ({"keep": {"min_area_um2": 1 + 2j}}, "filter: min_area_um2 is (1+2j): want one number"),
    ({"roi": 5}, "roi '5': want X,Y,WIDTH,HEIGHT in px of level 0, or a GeoJSON file"),
    ({"exclude": shapely.Point(5, 5)}, "exclude: want a polygon or multipolygon of shapely in px, not Point"),
    ({"shifts": 2.5}, "shifts is 2.5: want a whole number"),
    ({"shifts": "2"}, "shifts is '2': want a whole number"),
    ({"shifts": True}, "shifts is True: want a number"),
    ({"shifts": float("nan")}, "shifts is nan: want a whole number"),
    ({"shifts": 3.0}, "shifts is 3.0: it can be 1 (none), 2, 4 or 8"),
    ({"threads": "2"}, "threads is '2': want a whole number"),
    ({"threads": True}, "threads is True: want a number"),
    ({"threads": 1.5}, "threads is 1.5: want a whole number"),
    ({"max_pixels": "9"}, "max_pixels is '9': want a whole number"),
    ({"recall": "0.9"}, "recall is '0.9': want a number"),
    ({"recall": [0.9]}, "recall is [0.9]: want one number"),
    ({"stain": None}, "unknown stain 'None'; known: auto, fluorescence, hdab, he"),
    ({"engine": None}, "engine is None: want the name of one, as 'auto' or 'torch'"),
    ({"engine": 5}, "engine is 5: want the name of one, as 'auto' or 'torch'"),
    ({"device": None}, "device is None: want the name of one, as 'cpu' or 'cuda'"),
    ({"precision": 16}, "unknown precision '16', did you mean 'bf16'?"),
]


@pytest.mark.fault
@pytest.mark.parametrize(("options", "line"), WRONG)
def test_values_of_a_wrong_kind_are_named(options: dict[str, Any], line: str, path: Path, dark_model: Path) -> None:
    with pytest.raises(HemalumError) as caught:
        hemalum.segment(path, dark_model, **{"mpp": 0.5, **OPTIONS, **options})
    assert str(caught.value) == line


RIGHT: list[dict[str, Any]] = [
    {"keep": {"min_area_um2": np.float32(1), "max_area_um2": np.array(900)}},
    {"keep": {"min_area_um2": None}},
    {"roi": (0, 0, 90, 60)},
    {"roi": shapely.box(0, 0, 90, 60)},
    {"exclude": np.array([0, 0, 5, 5])},
    {"shifts": 2.0},
    {"shifts": np.int64(2)},
    {"threads": np.int64(1)},
    {"threads": 1.0},
    {"max_pixels": 1e6},
    {"stain": "hdab", "positive": np.array([0.1, 0.2, 0.3])},
    {"stain": "hdab", "positive": np.float32(0.2)},
]


@pytest.mark.parametrize("options", RIGHT)
def test_values_of_other_libraries_count(options: dict[str, Any], path: Path, dark_model: Path) -> None:
    assert hemalum.segment(path, dark_model, **{"mpp": 0.5, **OPTIONS, **options}).count == 2


@pytest.mark.fault
@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"region": "9"}, "region is '9': want a whole number"),
        ({"region": None}, "region is None: want 1 px or more"),
        ({"workers": "1"}, "workers is '1': want a whole number"),
        ({"workers": 1.5}, "workers is 1.5: want a whole number"),
        ({"threads": "1"}, "threads is '1': want a whole number"),
    ],
)
def test_values_of_a_wrong_kind_for_slides(options: dict[str, Any], line: str, path: Path, dark_model: Path) -> None:
    with pytest.raises(HemalumError, match=f"^{re.escape(line)}$"):
        segment_slide(path, path.parent, dark_model, **{"mpp": 0.5, **OPTIONS, **options})
    assert not list(path.parent.glob("*.nuclei"))


def test_a_slide_takes_whole_floats_and_areas_of_shapely(path: Path, dark_model: Path) -> None:
    options = {"region": 4096.0, "threads": 1.0, "workers": 1.0, "shifts": 2.0, "roi": shapely.box(0, 0, 45, 60)}
    store = segment_slide(path, path.parent, dark_model, mpp=0.5, tissue_mask=False, **OPTIONS | options)
    assert store.count == 1
    assert store.notes["roi"] == "Polygon of shapely"
