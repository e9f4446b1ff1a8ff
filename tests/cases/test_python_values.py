"""Values as Python users have them: of NumPy, of shapely, of a wrong kind; each counts, or is named in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
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
