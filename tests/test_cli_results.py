"""`hemalum export RESULTS --to …`, `hemalum info RESULTS` and `hemalum import qupath …`."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from builders.stores import fill_store, make_store, small_run
from hemalum import cli
from hemalum.data.annotations import read_objects
from hemalum.data.dataset import Dataset
from hemalum.models.model import shipped_models
from hemalum.nuclei.store import NucleiStore


def run(*arguments: object, code: int = 0) -> None:
    assert cli.main([str(argument) for argument in arguments]) == code


def test_one_slide_is_written_beside_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "a.nuclei")
    run("export", store.path, "--to", "geojson", "--as", "annotation", "--simplify", "1")
    assert capsys.readouterr().out == f"{tmp_path / 'a.geojson'}\n"
    assert {one.kind for one in read_objects(tmp_path / "a.geojson")} == {"annotation"}
    run("export", tmp_path, "--to", "csv", "-o", tmp_path / "table.csv")
    with (tmp_path / "table.csv").open(newline="", encoding="utf-8") as stream:
        lines = list(csv.DictReader(stream))
    nuclei = pa.concat_tables(store.tables())
    assert [int(line["id"]) for line in lines] == nuclei.column("id").to_pylist()
    assert [float(line["x_px"]) for line in lines] == nuclei.column("x").to_pylist()
    (tmp_path / "folder").mkdir()
    run("--quiet", "export", tmp_path, "--to", "parquet", "-o", tmp_path / "folder")
    exported = pa.parquet.read_table(tmp_path / "folder" / "a.parquet")
    same = [name for name in nuclei.column_names if name not in ("x", "y")]
    assert exported.select(same).equals(nuclei.select(same))
    assert exported.column("y_px").to_pylist() == nuclei.column("y").to_pylist()
    assert capsys.readouterr().out == f"{tmp_path / 'table.csv'}\n"  # --quiet says nothing


def test_many_slides_go_on_past_a_broken_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        store = make_store(tmp_path / "out" / f"{name}.nuclei")
    broken = tmp_path / "out" / "b.nuclei" / "parts" / "0_0.parquet"
    broken.write_bytes(b"")
    run("export", tmp_path / "out", "--to", "geojson.gz", "-o", tmp_path / "sent", code=1)
    printed = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "sent").iterdir()) == ["a.geojson.gz", "c.geojson.gz"]
    assert f"failed: {broken}: is damaged" in printed.err
    expected = pa.concat_tables(store.tables()).column("class").to_pylist()
    for name in "ac":
        objects = list(read_objects(tmp_path / "sent" / f"{name}.geojson.gz"))
        assert [one.class_name for one in objects] == expected


def test_thumbnail_on_the_slide(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei", small_run(class_names=()))
    Image.fromarray(np.full((*store.run.shape, 3), (200, 100, 100), np.uint8)).save(tmp_path / "a.png")
    run("export", store.path, "--to", "thumbnail", "--image", tmp_path / "a.png")
    drawn = np.asarray(Image.open(tmp_path / "a_thumbnail.png"))
    assert 0.1 < (drawn == (200, 100, 100)).all(axis=2).mean() < 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["export", "{out}"], "is a folder; of results say in which format, as in --to geojson"),
        (["export", "fast"], "model 'fast': name the file to write, .onnx, or .xml"),
        (["export", "{out}", "x.csv", "--to", "csv"], "with --to, the file to write is given by -o x.csv"),
        (["export", "{out}", "--to", "svs"], "unknown format 'svs'"),
        (["export", "{out}/none", "--to", "csv"], "no such folder"),
        (["export", "{out}/a.nuclei/parts", "--to", "csv"], "holds no folder NAME.nuclei"),
        (["export", "{out}", "--to", "geojson", "--as", "cell"], "objects of kind 'cell'"),
        (["export", "{out}", "--to", "thumbnail", "--image", "{out}/none.png"], "none.png"),
        (
            ["export", "{out}", "--to", "csv", "--as", "detection"],
            "--as is for geojson and geojson.gz; csv",
        ),
        (
            ["export", "{out}", "--to", "parquet", "--simplify", "0"],
            "--simplify is for geojson and geojson.gz;",
        ),
        (["export", "{out}", "--to", "thumbnail", "--canvas"], "--canvas is for geojson and geojson.gz; thumbnail"),
        (
            ["export", "{out}", "--to", "geojson", "--image", "{out}/a.png"],
            "--image is for thumbnail and overlay",
        ),
        (["export", "{out}", "--to", "csv", "--organ", "lung"], "--organ is for a model (hemalum export MODEL FILE)"),
        (["export", "fast", "-o", "{out}/n.onnx"], "-o is for results (--to); the file of a model"),
        (["export", "fast", "{out}/m.onnx", "-o", "{out}/n.onnx"], "-o is for results (--to)"),
        (["export", "fast", "{out}/m.onnx", "--as", "detection"], "--as is for results (hemalum export NAME.nuclei"),
        (["export", "fast", "{out}/m.onnx", "--simplify", "0"], "--simplify is for results"),
        (["export", "fast", "{out}/m.onnx", "--canvas"], "--canvas is for results"),
        (["export", "fast", "{out}/m.onnx", "--image", "{out}/a.png"], "--image is for results"),
        (["import", "qupath", "{out}/a.geojson", "{out}/set"], "want FILE.geojson IMAGE DST"),
        (["import", "folder", "{out}"], "want SRC DST"),
        (["import", "folder", "{out}", "b", "c"], "want SRC DST"),
        (
            ["import", "qupath", "{out}/none.geojson", "{out}/a.png", "{out}/set"],
            "none.geojson: no such file or folder",
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_store(tmp_path / "a.nuclei")
    Image.fromarray(np.zeros((480, 720, 3), np.uint8)).save(tmp_path / "a.png")
    run(*(argument.format(out=tmp_path) for argument in arguments), code=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.nuclei", "a.png"]  # nothing was written


def test_a_picture_is_of_one_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        make_store(tmp_path / f"{name}.nuclei")
    Image.fromarray(np.zeros((480, 720, 3), np.uint8)).save(tmp_path / "a.png")
    run("export", tmp_path, "--to", "thumbnail", "--image", tmp_path / "a.png", code=2)
    assert "holds 2 slides, and --image shows one; export them one by one" in capsys.readouterr().err
    assert not list(tmp_path.glob("*_thumbnail.png"))


def test_results_go_to_qupath_and_come_back_as_a_dataset(tmp_path: Path) -> None:
    store = make_store(tmp_path / "a.nuclei")
    Image.fromarray(np.full((*store.run.shape, 3), 230, np.uint8)).save(tmp_path / "a.png")
    run("export", store.path, "--to", "geojson")
    run("import", "qupath", tmp_path / "a.geojson", tmp_path / "a.png", tmp_path / "set", "--mpp", "0.25")
    dataset = Dataset.open(tmp_path / "set")
    assert dataset.info.classes == {1: "epithelial", 2: "lymphocyte", 3: "stroma"}
    assert dataset.info.nuclei == len(np.unique(store.nuclei().label_map())) - 1


def test_info_of_results(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "a.nuclei", small_run(dab=True, positive=(0.25,)))
    run("info", store.path)
    expected = {
        "results": str(store.path),
        "slide": "slide.svs",
        "size": "720 x 480 px (0.18 x 0.12 mm)",
        "scale": "0.25 µm per pixel (from the file)",
        "model": "fast",
        "classes": "epithelial, lymphocyte, stroma",
        "thresholds": "0.25",
        "nuclei": "600",
        "parts": "6, of a grid of 2 x 3 regions",
        "complete": "yes",
        "fingerprint": "0" * 16,
    }
    printed = capsys.readouterr().out
    assert dict(re.split(" {2,}", line, maxsplit=1) for line in printed.splitlines()) == expected
    monkeypatch.chdir(store.path)
    run("info", ".")
    assert capsys.readouterr().out == printed
    run("info", store.path, "--json")
    facts = json.loads(capsys.readouterr().out)
    assert (facts["nuclei"], facts["parts"], facts["complete"], facts["mpp"]) == (600, 6, True, 0.25)
    assert (facts["source"], facts["shape"], facts["thresholds"]) == ("slide.svs", [480, 720], [0.25])
    store.part_path((0, 1)).unlink()
    run("info", store.path, code=2)
    assert "1 of its 6 parts are missing" in capsys.readouterr().err


def test_info_of_results_that_are_not_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plain = small_run(mpp=None, mpp_source="none", class_names=(), source=None, model=None)
    fill_store(NucleiStore.create(tmp_path / "a.nuclei", plain), [(0, 0), (1, 2)])
    run("info", tmp_path / "a.nuclei")
    lines = dict(re.split(" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["complete"] == "no: more regions may come; the same run goes on with them"
    assert (lines["nuclei"], lines["parts"]) == ("200", "2, of a grid of 2 x 3 regions")
    assert (lines["slide"], lines["model"], lines["size"]) == ("not stated", "not stated", "720 x 480 px")
    assert lines["scale"] == "unknown: nothing in µm can be said"
    assert not {"classes", "thresholds"} & set(lines)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bad.svs", "bad.svs: not a slide or an image that can be read"),
        ("empty.png", "empty.png: the file is empty"),
        ("none.svs", "none.svs: no such file"),
        ("none.nuclei", "none.nuclei: no such folder; results of a slide are in a folder NAME.nuclei"),
        ("hollow.nuclei", "hollow.nuclei: holds no nuclei"),
        ("folder", "folder: a folder that is neither a slide (OME-Zarr, DICOM) nor results of one (NAME.nuclei)"),
        ("bad.safetensors", "bad.safetensors is not a readable model file"),
        ("none.safetensors", "no such model file"),
        ("fats", "no shipped model and no file is called 'fats', did you mean 'fast'"),
    ],
)
def test_info_names_what_it_is_of(
    name: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file in ("bad.svs", "bad.safetensors"):
        (tmp_path / file).write_bytes(b"what this is nobody knows" * 9)
    (tmp_path / "empty.png").touch()
    for folder in ("folder", "hollow.nuclei"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path)
    run("info", name, code=2)
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_info_of_a_model_by_any_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(shipped_models()["fast"], tmp_path / "weights.bin")
    (tmp_path / "fast").mkdir()  # the shipped one goes before a folder
    monkeypatch.chdir(tmp_path)
    for name in ("weights.bin", "fast"):
        run("info", name, "--json")
        assert json.loads(capsys.readouterr().out)["name"] == "fast"
