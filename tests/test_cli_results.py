"""`hemalum export RESULTS --to …` and `hemalum import qupath …`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from builders.stores import make_store, small_run
from hemalum import cli
from hemalum.data.annotations import read_objects
from hemalum.data.dataset import Dataset


def run(*arguments: object, code: int = 0) -> None:
    assert cli.main([str(argument) for argument in arguments]) == code


def test_one_slide_is_written_beside_its_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = make_store(tmp_path / "a.nuclei")
    run("export", store.path, "--to", "geojson", "--as", "annotation", "--simplify", "1")
    assert capsys.readouterr().out == f"{tmp_path / 'a.geojson'}\n"
    assert {one.kind for one in read_objects(tmp_path / "a.geojson")} == {"annotation"}
    run("export", tmp_path, "--to", "csv", "-o", tmp_path / "table.csv")
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 601
    (tmp_path / "folder").mkdir()
    run("--quiet", "export", tmp_path, "--to", "parquet", "-o", tmp_path / "folder")
    assert (tmp_path / "folder" / "a.parquet").is_file()


def test_many_slides_go_on_past_a_broken_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "abc":
        store = make_store(tmp_path / "out" / f"{name}.nuclei")
    broken = tmp_path / "out" / "b.nuclei" / "parts" / "0_0.parquet"
    broken.write_bytes(b"")
    run("export", tmp_path / "out", "--to", "geojson.gz", "-o", tmp_path / "sent", code=1)
    printed = capsys.readouterr()
    assert sorted(path.name for path in (tmp_path / "sent").iterdir()) == ["a.geojson.gz", "c.geojson.gz"]
    assert f"failed: {broken}: is damaged" in printed.err
    assert store.complete


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
        (["export", "{out}", "--to", "geojson", "--image", "{out}/a.png"], "--image is for thumbnail; geojson"),
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
