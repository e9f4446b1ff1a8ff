"""Label maps of other programs in the place of a model: which file, which form, what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.data.label_files import without_tail
from hemalum.data.label_maps import read_instances
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.experiments.evaluate import evaluate
from hemalum.experiments.label_maps import LabelMaps, Truth, evaluation_inputs
from hemalum.nuclei.nuclei import Nuclei


def squares(shift: int = 0, ids: tuple[int, ...] = (1, 2, 3)) -> NDArray[np.int32]:
    labels = np.zeros((48, 64), np.int32)
    for number, (y, x) in zip(ids, [(4, 5), (20, 40), (30, 8)], strict=True):
        labels[y : y + 10, x + shift : x + shift + 12] = number
    return labels


def sample(name: str, labels: NDArray[Any]) -> Sample:
    image = np.full((*labels.shape, 3), 220, np.uint8)
    return Sample(image, labels.astype(np.int32), id=name, source=name, group=name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "maps").mkdir()
    return tmp_path / "maps"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five images a…e with three nuclei each, through the real import."""
    source = tmp_path / "source"
    for part in ("images", "labels"):
        (source / part).mkdir(parents=True)
    for number, name in enumerate("abcde"):
        labels = squares(number)
        image = np.repeat(np.where(labels > 0, 90, 200 + number).astype(np.uint8)[..., None], 3, axis=2)
        Image.fromarray(image).save(source / "images" / f"{name}.png")
        Image.fromarray(labels.astype(np.uint16)).save(source / "labels" / f"{name}.png")
    return import_dataset("folder", source, tmp_path / "data", mpp=0.5).path


def write(path: Path, labels: NDArray[Any]) -> None:
    if path.suffix == ".png":
        Image.fromarray(labels.astype(np.uint16)).save(path)
    elif path.suffix == ".npy":
        np.save(path, labels)
    elif path.suffix == ".geojson":
        Nuclei.from_labels(labels).to_geojson(path)
    else:
        tifffile.imwrite(path, labels)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.png", np.uint16),
        ("a.tif", np.uint8),
        ("a.tif", np.uint32),
        ("a.TIFF", np.float32),
        ("a.ome.tif", np.uint16),
        ("a.npy", np.int64),
        ("a.npy", np.uint8),
        ("a.npy", np.float64),
        ("a_cp_masks.png", np.uint16),
        ("a_cp_masks.tif", np.uint16),
        ("a_labels.tif", np.int32),
        ("a-labels.tif", np.uint16),
        ("a_Labels.ome.tiff", np.uint16),
        ("a_instances.npy", np.int32),
        ("a.geojson", np.int32),
    ],
)
def test_every_form_gives_the_same_labels(folder: Path, name: str, kind: type) -> None:
    write(folder / name, squares(ids=(3, 1, 200)).astype(kind))
    maps = LabelMaps(folder)
    maps.check(["a"])
    result = maps(sample("a", squares()))
    assert result.dtype == np.int32
    if name.endswith(".geojson"):  # numbered by its own order
        assert (result > 0).tolist() == (squares() > 0).tolist()
        assert len(np.unique(result)) == 4
    else:
        np.testing.assert_array_equal(result, squares(ids=(3, 1, 200)))


@pytest.mark.fault
def test_a_map_of_the_image_before_it_was_turned(folder: Path) -> None:
    write(folder / "a.png", np.ascontiguousarray(squares().T).astype(np.uint8))
    with pytest.raises(HemalumError) as refused:
        LabelMaps(folder)(sample("a", squares()))
    assert str(refused.value) == (
        f"{folder / 'a.png'}: label map is 48 x 64, its image a is 64 x 48; save it at the size of the image; "
        "with height and width exchanged it fits: was the image turned as its orientation tag says?"
    )


def test_a_lookup_table_of_imagej_changes_no_id(folder: Path) -> None:
    table = np.random.default_rng(0).integers(0, 2**16, (3, 256), np.uint16)
    tifffile.imwrite(folder / "a.tif", squares().astype(np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_instances(folder / "a.tif").labels, squares())


@pytest.mark.parametrize(
    ("stem", "bare"),
    [
        ("a_cp_masks", "a"),
        ("a.b-label", "a.b"),
        ("a_mask_1", "a_mask_1"),
        ("_labels", "_labels"),
        ("masks", "masks"),
    ],
)
def test_tails(stem: str, bare: str) -> None:
    assert without_tail(stem) == bare


def test_the_photograph_beside_its_masks_is_not_read(folder: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(folder / "a.png")
    write(folder / "a_cp_masks.png", squares())
    (folder / "a_seg.npy").write_bytes(b"a pickle, by its name")
    np.testing.assert_array_equal(LabelMaps(folder)(sample("a", squares())), squares())


def test_a_name_with_a_tail_may_be_an_image_of_its_own(folder: Path) -> None:
    write(folder / "a.png", squares())
    write(folder / "a_masks.png", squares(9))
    maps = LabelMaps(folder)
    maps.check(["a", "a_masks"])
    np.testing.assert_array_equal(maps(sample("a", squares())), squares())
    np.testing.assert_array_equal(maps(sample("a_masks", squares())), squares(9))


@pytest.mark.fault
def test_two_files_for_one_image_are_refused(folder: Path) -> None:
    write(folder / "a.png", squares())
    write(folder / "a.tif", squares().astype(np.uint8))
    with pytest.raises(HemalumError, match=r"a\.tif: a second label map for image a, beside a\.png"):
        LabelMaps(folder).check(["a"])


@pytest.mark.fault
def test_missing_files_are_named_and_count_as_empty_only_when_asked(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder / "a.png", squares())
    samples = [sample("a", squares()), sample("b", squares())]
    with pytest.raises(HemalumError, match=r"no label map for 1 of 2 images: b; .*`missing` empty"):
        LabelMaps(folder).check(["a", "b"])
    with pytest.raises(HemalumError, match="no label map for image b"):
        evaluate(LabelMaps(folder), samples)
    summary = evaluate(LabelMaps(folder, missing="empty"), samples).summary
    assert summary["counted_as_empty"] == ["b"]
    assert summary["pixel"]["per_image"]["dice"] == 0.5
    assert summary["instance"]["pooled"]["pq"] == pytest.approx(3 / (3 + 1.5))


@pytest.mark.fault
def test_files_of_no_image_are_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.png", "zebra.png"):
        write(folder / name, squares())
    with caplog.at_level("WARNING"):
        LabelMaps(folder).check(["a"], known=["a", "b"])
    assert "1 file without an image: zebra.png" in caplog.text
    with pytest.raises(HemalumError, match=r"no file belongs to any of 1 image; .* 'q', files like 'a'"):
        LabelMaps(folder).check(["q"])


@pytest.mark.fault
def test_a_folder_without_label_maps(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(HemalumError, match="no label maps in this folder"):
        LabelMaps(folder)
    with pytest.raises(HemalumError, match="no such folder"):
        LabelMaps(tmp_path / "nowhere")
    (folder / "labels").mkdir()
    with pytest.raises(HemalumError, match=r"did you mean .*labels\?"):
        LabelMaps(folder)


def square_geojson(**geometry: object) -> dict[str, Any]:
    return {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry}]}


BAD = {
    "negative": ("a.npy", lambda: squares() - 1, "ids run from -1"),
    "fractions": ("a.tif", lambda: squares().astype(np.float32) + 0.5, "holds fractions"),
    "nan": ("a.npy", lambda: np.where(squares() > 0, np.nan, 0), "holds NaN"),
    "stack": ("a.npy", lambda: np.stack([squares()] * 2), r"want one label map \(H, W\), this has shape \(2, 48"),
    "complex": ("a.npy", lambda: squares().astype(complex), "type complex128"),
    "text": ("a.npy", lambda: squares().astype(str), "type <U"),
    "mask": ("a.png", lambda: (squares() > 0) * 255, "a binary mask .*`components`"),
    "one": ("a.tif", lambda: (squares() > 0).astype(np.uint8), "a binary mask"),
    "true": ("a.npy", lambda: squares() > 0, "a binary mask"),
    "gray": ("a.png", lambda: np.random.default_rng(0).integers(0, 256, (48, 64)), "a picture or a map of prob"),
    "size": ("a.png", lambda: squares()[:40], "label map is 64 x 40, its image a is 64 x 48"),
}


@pytest.mark.fault
@pytest.mark.parametrize(("name", "labels", "message"), BAD.values(), ids=BAD)
def test_what_is_no_label_map(folder: Path, name: str, labels: Callable[[], NDArray[Any]], message: str) -> None:
    write(folder / name, labels())
    with pytest.raises(HemalumError, match=message) as caught:
        LabelMaps(folder)(sample("a", squares()))
    assert str(folder / name) in str(caught.value)


@pytest.mark.fault
def test_colors_are_refused(folder: Path) -> None:
    colors = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(colors).save(folder / "a.png")
    with pytest.raises(HemalumError, match="this one has colors"):
        LabelMaps(folder)(sample("a", squares()))


@pytest.mark.fault
def test_nothing_is_unpickled(folder: Path) -> None:
    np.save(folder / "a_seg.npy", np.array({"masks": squares()}), allow_pickle=True)
    with pytest.raises(HemalumError, match=r"Cellpose's _seg\.npy is a pickle.*--save_tif"):
        LabelMaps(folder)(sample("a", squares()))
    np.save(folder / "b.npy", np.array([object()]), allow_pickle=True)
    with pytest.raises(HemalumError, match="holds Python objects, which are never loaded"):
        LabelMaps(folder)(sample("b", squares()))
    (folder / "c.npy").write_bytes((folder / "a_seg.npy").read_bytes()[:40])
    with pytest.raises(HemalumError, match="not a NumPy array file"):
        LabelMaps(folder)(sample("c", squares()))
    (folder / "d.npy").write_bytes(b"\x93NUMPY\x01\x00\x0b\x00{'descr': (")
    with pytest.raises(HemalumError, match="not a NumPy array file"):
        LabelMaps(folder)(sample("d", squares()))


@pytest.mark.fault
def test_a_header_that_promises_more_than_the_file_holds(folder: Path) -> None:
    with (folder / "a.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<u2", "fortran_order": False, "shape": (900_000, 900_000)}
        )
    with pytest.raises(HemalumError, match="not a NumPy array file"):
        LabelMaps(folder)(sample("a", squares()))


def test_components_of_a_mask_when_asked(folder: Path) -> None:
    write(folder / "a.png", (squares() > 0) * 255)
    result = LabelMaps(folder, components=True)(sample("a", squares()))
    np.testing.assert_array_equal(result, squares())


def test_a_dataset_by_folder_is_the_same_as_by_arrays(dataset: Path, folder: Path, tmp_path: Path) -> None:
    from hemalum.data.dataset import Dataset

    for number, one in enumerate(Dataset.open(dataset)):
        shifted = np.roll(one.instances, 2 + number, axis=1)
        write(folder / f"{one.id}_cp_masks.png", shifted)

    def direct(one: Sample) -> NDArray[np.int32]:
        return np.roll(one.instances, 2 + "abcde".index(one.id), axis=1)

    by_files = evaluate(folder, dataset, split=None, out=tmp_path / "out").summary
    by_arrays = evaluate(direct, dataset, split=None).summary
    for kind in ("pixel", "boundary", "instance", "by_group", "nuclei_predicted", "split_hash"):
        assert json.dumps(by_files[kind]) == json.dumps(by_arrays[kind])
    assert (by_files["model"], by_files["counted_as_empty"]) == ("maps", [])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["label_maps"] == str(folder)


@pytest.mark.fault
def test_predictions_of_the_whole_set_serve_one_part_without_a_warning(
    dataset: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in "abcde":
        write(folder / f"{name}.png", squares())
    with caplog.at_level("WARNING"):
        summary = evaluate(folder, dataset, split="test").summary
    assert summary["images"] < 5
    assert not caplog.records
    (folder / "a.png").unlink()
    with pytest.raises(HemalumError, match="no label map for 1 of 5 images: a"):
        evaluate(folder, dataset, split=None)


@pytest.mark.fault
def test_a_folder_against_a_folder(folder: Path, tmp_path: Path) -> None:
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in "ab":
        write(truth / f"{name}-labels.tif", squares().astype(np.uint16))
        write(folder / f"{name}_cp_masks.png", squares(4))
    method, data = evaluation_inputs(folder, None, truth, mpp=0.5)
    summary = evaluate(method, data).summary
    assert (summary["images"], summary["nuclei_truth"], summary["dataset"]) == (2, 6, "truth")
    assert summary["pixel"]["pooled"]["dice"] == pytest.approx(8 / 12)
    assert summary["boundary"]["per_image"]["hd95_um"] == pytest.approx(
        summary["boundary"]["per_image"]["hd95_px"] / 2
    )
    (folder / "b_cp_masks.png").unlink()
    with pytest.raises(HemalumError, match="for 1 of 2 images: b"):
        evaluate(folder, data)


@pytest.mark.fault
def test_geojson_is_no_truth(folder: Path) -> None:
    write(folder / "a.geojson", squares())
    with pytest.raises(HemalumError, match="does not say the size of its image"):
        list(Truth(folder))


def test_our_own_exports_come_back_unchanged(folder: Path, dataset: Path) -> None:
    from hemalum.data.dataset import Dataset

    for one in Dataset.open(dataset):
        nuclei = Nuclei.from_labels(np.roll(one.instances, 3, axis=0), one.image)
        nuclei.to_labels(folder / f"{one.id}_labels.tif")
        (folder / "outlines").mkdir(exist_ok=True)
        nuclei.to_geojson(folder / "outlines" / f"{one.id}.geojson")
    direct = evaluate(lambda one: np.roll(one.instances, 3, axis=0), dataset, split=None).summary
    for form in (folder, folder / "outlines"):
        result = evaluate(form, dataset, split=None).summary
        assert result["instance"] == direct["instance"]
        assert result["pixel"] == direct["pixel"]


def test_real_predictions_of_a_published_model(real_data: Path, folder: Path, tmp_path: Path) -> None:
    case = real_data / "reference_metrics_nuinsseg" / "examples"
    if not case.is_dir():
        pytest.skip("reference_metrics_nuinsseg is absent from the real data")
    names = ["human_bladder_01", "human_bladder_02"]
    summary = evaluate(case / "Prediction", Truth(case / "GT")).summary
    samples = [sample(name, tifffile.imread(case / "GT" / f"{name}.tif")) for name in names]

    def direct(one: Sample) -> NDArray[np.int32]:
        return np.load(case / "Prediction" / f"{one.id}.npy", allow_pickle=False)

    expected = evaluate(direct, samples).summary
    assert summary["images"] == 2
    assert summary["instance"]["per_image"]["pq"] > 0.3
    for kind in ("pixel", "instance", "nuclei_truth", "nuclei_predicted"):
        assert summary[kind] == expected[kind]
    # the same masks as outlines; QuPath's grid is ours
    for name in names:
        Nuclei.from_labels(direct(sample(name, squares()))).to_geojson(folder / f"{name}.geojson")
    outlined = evaluate(folder, samples).summary
    assert outlined["pixel"]["pooled"]["dice"] == pytest.approx(expected["pixel"]["pooled"]["dice"], abs=2e-3)
