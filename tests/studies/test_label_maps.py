"""Label maps of other programs in the place of a model: which file, which form, what is refused."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from hemalum.data.importing import import_dataset
from hemalum.data.sample import Sample
from hemalum.errors import HemalumError
from hemalum.instances.geojson import read_geojson_labels
from hemalum.instances.nuclei import Nuclei
from hemalum.studies.evaluate import evaluate
from hemalum.studies.label_maps import LabelMaps, Truth, read_labels, sides, without_tail


def squares(shift=0, ids=(1, 2, 3)):
    labels = np.zeros((48, 64), np.int32)
    for number, (y, x) in zip(ids, [(4, 5), (20, 40), (30, 8)], strict=True):
        labels[y : y + 10, x + shift : x + shift + 12] = number
    return labels


def sample(name, labels):
    image = np.full((*labels.shape, 3), 220, np.uint8)
    return Sample(image, labels.astype(np.int32), id=name, source=name, group=name)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "maps").mkdir()
    return tmp_path / "maps"


@pytest.fixture
def dataset(tmp_path):
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


def write(path, labels):
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
def test_every_form_gives_the_same_labels(folder, name, kind):
    write(folder / name, squares(ids=(3, 1, 200)).astype(kind))
    maps = LabelMaps(folder)
    maps.check(["a"])
    found = maps(sample("a", squares()))
    assert found.dtype == np.int32
    if name.endswith(".geojson"):  # numbered by its own order
        assert (found > 0).tolist() == (squares() > 0).tolist()
        assert len(np.unique(found)) == 4
    else:
        np.testing.assert_array_equal(found, squares(ids=(3, 1, 200)))


def test_a_lookup_table_of_imagej_changes_no_id(folder):
    table = np.random.default_rng(0).integers(0, 2**16, (3, 256), np.uint16)
    tifffile.imwrite(folder / "a.tif", squares().astype(np.uint8), photometric="palette", colormap=table)
    np.testing.assert_array_equal(read_labels(folder / "a.tif", None), squares())


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
def test_tails(stem, bare):
    assert without_tail(stem) == bare


def test_the_photograph_beside_its_masks_is_not_read(folder):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(folder / "a.png")
    write(folder / "a_cp_masks.png", squares())
    (folder / "a_seg.npy").write_bytes(b"a pickle, by its name")
    np.testing.assert_array_equal(LabelMaps(folder)(sample("a", squares())), squares())


def test_a_name_with_a_tail_may_be_an_image_of_its_own(folder):
    write(folder / "a.png", squares())
    write(folder / "a_masks.png", squares(9))
    maps = LabelMaps(folder)
    maps.check(["a", "a_masks"])
    np.testing.assert_array_equal(maps(sample("a", squares())), squares())
    np.testing.assert_array_equal(maps(sample("a_masks", squares())), squares(9))


def test_two_files_for_one_image_are_refused(folder):
    write(folder / "a.png", squares())
    write(folder / "a.tif", squares().astype(np.uint8))
    with pytest.raises(HemalumError, match=r"a\.tif: a second label map for image a, beside a\.png"):
        LabelMaps(folder).check(["a"])


def test_missing_files_are_named_and_count_as_empty_only_when_asked(folder, caplog):
    write(folder / "a.png", squares())
    samples = [sample("a", squares()), sample("b", squares())]
    with pytest.raises(HemalumError, match=r"no label map for 1 of 2 images: b; .*--missing empty"):
        LabelMaps(folder).check(["a", "b"])
    with pytest.raises(HemalumError, match="no label map for image b"):
        evaluate(LabelMaps(folder), samples)
    summary = evaluate(LabelMaps(folder, missing="empty"), samples).summary
    assert summary["counted_as_empty"] == ["b"]
    assert summary["pixel"]["per_image"]["dice"] == 0.5
    assert summary["instance"]["pooled"]["pq"] == pytest.approx(3 / (3 + 1.5))


def test_files_of_no_image_are_named(folder, caplog):
    for name in ("a.png", "b.png", "zebra.png"):
        write(folder / name, squares())
    with caplog.at_level("WARNING"):
        LabelMaps(folder).check(["a"], known=["a", "b"])
    assert "1 files belong to no image: zebra.png" in caplog.text
    with pytest.raises(HemalumError, match=r"no file belongs to any of the 1 images; .* 'q', files like 'a'"):
        LabelMaps(folder).check(["q"])


def test_a_folder_without_label_maps(tmp_path, folder):
    with pytest.raises(HemalumError, match="no label maps in this folder"):
        LabelMaps(folder)
    with pytest.raises(HemalumError, match="no such folder"):
        LabelMaps(tmp_path / "nowhere")
    (folder / "labels").mkdir()
    with pytest.raises(HemalumError, match=r"did you mean .*labels\?"):
        LabelMaps(folder)


def square_geojson(**geometry):
    return {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": geometry}]}


BAD = {
    "negative": ("a.npy", lambda: squares() - 1, "ids run from -1"),
    "fractions": ("a.tif", lambda: squares().astype(np.float32) + 0.5, "holds fractions"),
    "nan": ("a.npy", lambda: np.where(squares() > 0, np.nan, 0), "holds NaN"),
    "stack": ("a.npy", lambda: np.stack([squares()] * 2), r"want one label map \(H, W\), this has shape \(2, 48"),
    "complex": ("a.npy", lambda: squares().astype(complex), "type complex128"),
    "text": ("a.npy", lambda: squares().astype(str), "type <U"),
    "mask": ("a.png", lambda: (squares() > 0) * 255, "a binary mask .*--components"),
    "one": ("a.tif", lambda: (squares() > 0).astype(np.uint8), "a binary mask"),
    "true": ("a.npy", lambda: squares() > 0, "a binary mask"),
    "grey": ("a.png", lambda: np.random.default_rng(0).integers(0, 256, (48, 64)), "a picture or a map of prob"),
    "size": ("a.png", lambda: squares()[:40], "label map is 64 x 40, its image a is 64 x 48"),
}


@pytest.mark.parametrize(("name", "labels", "message"), BAD.values(), ids=BAD)
def test_what_is_no_label_map(folder, name, labels, message):
    write(folder / name, labels())
    with pytest.raises(HemalumError, match=message) as caught:
        LabelMaps(folder)(sample("a", squares()))
    assert str(folder / name) in str(caught.value)


def test_colours_are_refused(folder):
    colours = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    Image.fromarray(colours).save(folder / "a.png")
    with pytest.raises(HemalumError, match="this one has colours"):
        LabelMaps(folder)(sample("a", squares()))


def test_nothing_is_unpickled(folder):
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


def test_a_header_that_promises_more_than_the_file_holds(folder):
    with (folder / "a.npy").open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<u2", "fortran_order": False, "shape": (900_000, 900_000)}
        )
    with pytest.raises(HemalumError, match="not a NumPy array file"):
        LabelMaps(folder)(sample("a", squares()))


def test_components_of_a_mask_when_asked(folder):
    write(folder / "a.png", (squares() > 0) * 255)
    found = LabelMaps(folder, components=True)(sample("a", squares()))
    np.testing.assert_array_equal(found, squares())


def test_a_dataset_by_folder_is_the_same_as_by_arrays(dataset, folder, tmp_path):
    from hemalum.data.dataset import Dataset

    for number, one in enumerate(Dataset.open(dataset)):
        shifted = np.roll(one.instances, 2 + number, axis=1)
        write(folder / f"{one.id}_cp_masks.png", shifted)

    def direct(one):
        return np.roll(one.instances, 2 + "abcde".index(one.id), axis=1)

    by_files = evaluate(folder, dataset, split=None, out=tmp_path / "out").summary
    by_arrays = evaluate(direct, dataset, split=None).summary
    for kind in ("pixel", "boundary", "instance", "by_group", "nuclei_predicted", "split_hash"):
        assert json.dumps(by_files[kind]) == json.dumps(by_arrays[kind])
    assert (by_files["model"], by_files["counted_as_empty"]) == ("maps", [])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["label_maps"] == str(folder)


def test_predictions_of_the_whole_set_serve_one_part_without_a_warning(dataset, folder, caplog):
    for name in "abcde":
        write(folder / f"{name}.png", squares())
    with caplog.at_level("WARNING"):
        summary = evaluate(folder, dataset, split="test").summary
    assert summary["images"] < 5
    assert not caplog.records
    (folder / "a.png").unlink()
    with pytest.raises(HemalumError, match="no label map for 1 of 5 images: a"):
        evaluate(folder, dataset, split=None)


def test_a_folder_against_a_folder(folder, tmp_path):
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in "ab":
        write(truth / f"{name}-labels.tif", squares().astype(np.uint16))
        write(folder / f"{name}_cp_masks.png", squares(4))
    method, data = sides(folder, None, truth, mpp=0.5)
    summary = evaluate(method, data).summary
    assert (summary["images"], summary["nuclei_truth"], summary["dataset"]) == (2, 6, "truth")
    assert summary["pixel"]["pooled"]["dice"] == pytest.approx(8 / 12)
    assert summary["boundary"]["per_image"]["hd95_um"] == pytest.approx(
        summary["boundary"]["per_image"]["hd95_px"] / 2
    )
    (folder / "b_cp_masks.png").unlink()
    with pytest.raises(HemalumError, match="for 1 of 2 images: b"):
        evaluate(folder, data)


def test_geojson_is_no_truth(folder):
    write(folder / "a.geojson", squares())
    with pytest.raises(HemalumError, match="does not say the size of its image"):
        list(Truth(folder))


def test_our_own_exports_come_back_unchanged(folder, dataset):
    from hemalum.data.dataset import Dataset

    for one in Dataset.open(dataset):
        nuclei = Nuclei.from_labels(np.roll(one.instances, 3, axis=0), one.image)
        nuclei.to_labels(folder / f"{one.id}_labels.tif")
        (folder / "outlines").mkdir(exist_ok=True)
        nuclei.to_geojson(folder / "outlines" / f"{one.id}.geojson")
    direct = evaluate(lambda one: np.roll(one.instances, 3, axis=0), dataset, split=None).summary
    for form in (folder, folder / "outlines"):
        found = evaluate(form, dataset, split=None).summary
        assert found["instance"] == direct["instance"]
        assert found["pixel"] == direct["pixel"]


def test_real_predictions_of_a_published_model(real_data, folder, tmp_path):
    case = real_data / "reference_metrics_nuinsseg" / "examples"
    if not case.is_dir():
        pytest.skip("reference_metrics_nuinsseg is absent from the real data")
    names = ["human_bladder_01", "human_bladder_02"]
    summary = evaluate(case / "Prediction", Truth(case / "GT")).summary
    samples = [sample(name, tifffile.imread(case / "GT" / f"{name}.tif")) for name in names]

    def direct(one):
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


# GeoJSON


def ring(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height], [x, y]]


def geojson(path, *geometries, **members):
    features = [{"type": "Feature", "geometry": geometry} | members for geometry in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def polygon(*rings):
    return {"type": "Polygon", "coordinates": list(rings)}


def test_a_hole_stays_open_and_parts_are_one_nucleus(tmp_path):
    hole = polygon(ring(2, 2, 10, 10), ring(5, 5, 4, 4))
    parts = {"type": "MultiPolygon", "coordinates": [[ring(20, 0, 3, 3)], [ring(20, 8, 3, 3)]]}
    labels = read_geojson_labels(geojson(tmp_path / "a.geojson", hole, parts), (16, 32))
    expected = np.zeros((16, 32), int)
    expected[2:12, 2:12] = 1
    expected[5:9, 5:9] = 0
    expected[0:3, 20:23] = expected[8:11, 20:23] = 2
    np.testing.assert_array_equal(labels, expected)


def test_cells_give_their_nucleus_and_annotations_are_left_out(tmp_path):
    cell = {
        "type": "Feature",
        "geometry": polygon(ring(0, 0, 12, 12)),
        "nucleusGeometry": polygon(ring(4, 4, 3, 3)),
        "properties": {"objectType": "cell"},
    }
    region = {"type": "Feature", "geometry": polygon(ring(0, 0, 16, 16)), "properties": {"objectType": "annotation"}}
    (tmp_path / "a.geojson").write_text(json.dumps([region, cell]))
    assert np.count_nonzero(read_geojson_labels(tmp_path / "a.geojson", (16, 16))) == 9
    (tmp_path / "b.geojson").write_text(json.dumps(region))
    assert np.count_nonzero(read_geojson_labels(tmp_path / "b.geojson", (16, 16))) == 256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ('{"type": "Topology"}', "not GeoJSON"),
        (json.dumps([{"geometry": {"type": "Point", "coordinates": [1, 2]}}]), "feature 1: geometry is 'Point'"),
        (json.dumps([{"geometry": None}]), "feature 1: geometry is None"),
        (json.dumps([{"geometry": polygon([[1, 2], [3, 4]])}]), "not rings of at least three points"),
        (json.dumps([{"geometry": polygon([[1, 2], [3, "x"], [4, 4]])}]), "not rings"),
        (json.dumps([{"geometry": polygon([[1, 2], [3, float("nan")], [4, 4]])}]), "finite"),
        (json.dumps([{"geometry": polygon()}]), "not rings"),
        (json.dumps([{"geometry": polygon(ring(0, 0, 90, 5))}]), "spans x 0 to 90, y 0 to 5, its image is 16 x 16"),
        (json.dumps([{"geometry": polygon(ring(-9, 0, 9, 5))}]), "export in px of this very image"),
    ],
)
def test_what_is_no_outline(tmp_path, content, message):
    (tmp_path / "a.geojson").write_text(content)
    with pytest.raises(HemalumError, match=message):
        read_geojson_labels(tmp_path / "a.geojson", (16, 16))


def test_an_empty_collection_is_an_image_without_nuclei(tmp_path):
    assert not read_geojson_labels(geojson(tmp_path / "a.geojson"), (16, 16)).any()


def test_polygons_under_others_are_counted(tmp_path, caplog):
    with caplog.at_level("WARNING"):
        read_geojson_labels(
            geojson(tmp_path / "a.geojson", polygon(ring(2, 2, 3, 3)), polygon(ring(0, 0, 9, 9))), (16, 16)
        )
    assert "1 of 2 polygons hold no pixel" in caplog.text
