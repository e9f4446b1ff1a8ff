"""The command line: help, options, exit codes, one-line errors, and the commands that the documents show."""

import ast
import csv
import inspect
import json
import re
import shlex
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image

import hemalum
from builders.slides import draw_picture, save_pyramid
from hemalum import cli
from hemalum.cli.options import global_options_first
from hemalum.errors import HemalumError

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "numpy", "pyarrow", "scipy", "skimage", "numba", "openvino", "PIL", "yaml"}

# what users may rely on: taking an option away, or renaming one, has to be a decision
OPTIONS = {
    "hemalum": "--version --debug --quiet --install-completion --show-completion",
    "segment": "--output PATH… --cohort --mpp --model --organ --stain --channel --positive --engine --device "
    "--threads --precision --format --max-pixels --tta --shifts --recall --keep-artifacts --report --overwrite "
    "--no-recursive --roi --exclude --min-area --max-area --min-probability "
    "--min-hematoxylin --min-solidity --simplify --region --no-tissue-mask --workers --scheduler",
    "import": "FORMAT SRC DST --list --mpp --group --split --fold --test-groups --seed --name --license --citation "
    "--images --labels --index --option --chromogen --registration --min-quality --overwrite --preview",
    "check": "DATASET --preview",
    "train": (
        "RECIPE --data --output --list --budget --resume --accelerator --devices --threads --workers --initial "
        "--license --unlabeled --unlabeled-mpp --compile"
    ),
    "report": "RUN",
    "review": "SOURCE --model --project --author --port --no-browser --mpp --slide --no-recursive --export --format "
    "--import --reviewed --engine --accelerator --threads",
    "refine": "MODEL --output [DATASET] --project --offline --trainable --lr --epochs --holdout --replay --guard "
    "--tolerance --top --draws --test --split --seed --engine --accelerator --threads",
    "enhance": "MODEL --data --output --control --budget --steps --resume --accelerator --threads --workers",
    "evaluate": "MODEL [DATASET] --truth --split --mpp --engine --output --leave-out-ambiguous --organs "
    "--components --missing --tta --shifts --recall",
    "compare": "[NAME=]METHOD… --data --output --folds --seeds --budget --crops --mixed-budgets --split "
    "--leave-out-ambiguous --mpp --engine --accelerator --threads",
    "reproduce": "[PAPER] [TABLE] --data --output --seeds --budget --crops --engine --accelerator --threads",
    "figure": "",
    "figure difference": "COMPARISON FIRST SECOND --output --data",
    "figure embedding": "IMAGE... --output --encoder --recipe --budget --mpp --field",
    "figure stages": "MODEL… --data --output --split --image --engine --threads",
    "figure uncertainty": "MODEL IMAGE --output --mpp --organ --engine",
    "info": "[MODEL|SLIDE|RESULTS] --json",
    "calibrate": "MODEL DATASET --output --recall --by-organ --temperature-only --split --engine --threads",
    "quantize": "MODEL --data --output --windows --threads",
    "export": "RESULTS|MODEL [FILE] --to --output --as --simplify --canvas --image --slide --cell --organ",
    "demo": "--output --model --stain --engine",
}

group: Any = typer.main.get_command(cli.app)
VERBS = sorted(group.commands)


def run(*arguments: str, code: int = 0) -> None:
    assert cli.main(arguments) == code


def options_of(command: Any) -> str:
    names = []
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            names.append(parameter.metavar or parameter.name.upper())
        else:
            names.append(parameter.opts[0])
    return " ".join(names)


def test_the_options_are_those_that_were_promised() -> None:
    options_by_verb = {"hemalum": options_of(group)} | {name: options_of(group.commands[name]) for name in VERBS}
    for name in VERBS:
        for part, command in getattr(group.commands[name], "commands", {}).items():
            options_by_verb[f"{name} {part}"] = options_of(command)
    assert options_by_verb == OPTIONS


@pytest.mark.parametrize(
    ("verb", "function"),
    [
        ("segment", "hemalum.inference.batch.segment_paths"),
        ("segment", "hemalum.inference.slide_batch.segment_slides"),
        ("import", "hemalum.data.importing.import_dataset"),
        ("train", "hemalum.training.train.train"),
        ("calibrate", "hemalum.experiments.calibrate.calibrate"),
        ("quantize", "hemalum.experiments.quantize.quantize"),
        ("refine", "hemalum.experiments.refine.refine"),
        ("refine", "hemalum.review.refinement.refine_reviewed"),
        ("evaluate", "hemalum.experiments.evaluate.evaluate"),
        ("compare", "hemalum.experiments.compare.compare"),
        ("reproduce", "hemalum.experiments.reproduce.reproduce"),
        ("demo", "hemalum.demo.run_demo"),
    ],
)
def test_a_default_stands_once(verb: str, function: str) -> None:
    """With the function that a verb calls; the verb's option is None, or a flag that is off."""
    module, _, name = function.rpartition(".")
    parameters = inspect.signature(getattr(import_module(module), name)).parameters
    for option in group.commands[verb].params:
        parameter = parameters.get(option.name)
        if parameter is not None and parameter.default not in (inspect.Parameter.empty, None, False):
            assert option.default is None, option.name


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_every_verb(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    run(verb, "--help")
    shown = capsys.readouterr().out
    assert "Usage: hemalum " + verb in shown
    for parameter in group.commands[verb].params:
        assert parameter.help, f"{verb} {parameter.name} has no help"


def test_help_without_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    run()
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in VERBS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    run("--version")
    assert capsys.readouterr().out == f"hemalum {hemalum.__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["segment", "--help"], ["import", "-h"]])
def test_help_loads_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from hemalum.cli import main; code = main(sys.argv[1:]); "
        "print(sorted(name for name in sys.modules if '.' not in name), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    loaded = set(ast.literal_eval(done.stderr.splitlines()[-1]))
    assert not loaded & HEAVY


def test_import_loads_nothing_heavy() -> None:
    program = "import sys, hemalum; dir(hemalum); print([n for n in sys.modules if '.' not in n])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not set(ast.literal_eval(done.stdout)) & (HEAVY | {"typer", "rich"})


def test_each_experiment_is_public() -> None:
    assert {"evaluate", "compare", "refine", "reproduce"} <= set(hemalum.__all__)


@pytest.mark.parametrize("name", hemalum.__all__)
def test_public_names(name: str) -> None:
    value = getattr(hemalum, name)
    assert name in dir(hemalum)
    assert value.__doc__


def test_the_package_lists_its_public_names_alone_and_documents_them() -> None:
    assert dir(hemalum) == hemalum.__all__
    page = (Path(__file__).parents[1] / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    assert [name for name in hemalum.__all__ if f"::: hemalum.{name}\n" not in page] == []


def test_an_unknown_name_of_the_package() -> None:
    with pytest.raises(AttributeError, match="No hemalum attribute segmnet"):
        _ = hemalum.segmnet  # type: ignore[attr-defined]


# mistakes: one line, exit code 2


def mistake(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    run(*arguments, code=2)
    printed = capsys.readouterr()
    assert printed.out == ""
    (line,) = printed.err.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segmnet"], "No such command 'segmnet'"),
        (["segment"], "(see hemalum segment --help)"),
        (["segment", "a.png", "-o", "out", "--mmp", "1"], "--mmp"),
        (
            ["segment", "a.png", "-o", "out", "--mpp", "big"],
            "'big' is neither a number of microns per pixel nor 'auto'",
        ),
        (["import", "folder", "a", "b", "--mpp", "auto"], "neither a number of microns per pixel nor 'nuclei'"),
        (["import", "folder", "a", "b", "--split", "0.5"], "want three shares"),
        (["import", "nonsense", "a", "b"], "no format 'nonsense'"),
        (["import", "folder", ".", "b", "--seed", "-1"], "seed -1: want a whole number from 0 to 4294967295"),
        (
            ["refine", "a", "b", "-o", "c", "--offline", "--seed", "4294967296"],
            "seed 4294967296: want a whole number",
        ),
        (["check", "/no/such/folder"], "/no/such/folder: no such folder"),
        (["train", "no_such_recipe", "-d", "a", "-o", "run"], "no shipped recipe 'no_such_recipe'"),
        (["train", "fast", "-d", "=b", "-o", "run"], "--data '=b': want NAME=PATH, or PATH"),
        (["train", "fast", "-d", "c=b", "-d", "x/c", "-o", "run"], "--data: b and x/c are both called 'c': name one"),
        (["train", "fast", "-d", "a", "-o", "run", "--workers", "0"], "Invalid value for '--workers'"),
        (["train", "fast", "-d", "a", "-o", "run", "--workers", "10000"], "workers is 10000: want 1 to "),
        (["report", "/no/such/run"], "/no/such/run is not the folder of a run: it has no log.jsonl"),
        (["evaluate", "classical", "/no/such/folder"], "/no/such/folder"),
        (["evaluate", "classical"], "give one of DATASET and --truth FOLDER"),
        (["evaluate", "classical", "--truth", "/no/such/folder"], "a model needs the images of a DATASET"),
        (["evaluate", "classical", "/no/such/folder", "--components"], "are for a folder of label maps"),
        (["evaluate", "classical", "/no/such/folder", "--split", "tst"], ""),
        (["figure", "difference", "/no/such", "a", "b", "-o", "c.png"], "/no/such: holds no comparison"),
        (["reproduce", "alnet"], "no paper 'alnet', did you mean 'al_net'"),
        (["reproduce", "two_stage", "reslts"], "two_stage has no table 'reslts', did you mean 'results'"),
        (["reproduce", "two_stage", "-d", "tnbc=a"], "give a folder for the runs"),
        (["reproduce", "-d", "tnbc=a"], "name the paper first: hemalum reproduce PAPER -d"),
        (["reproduce", "-o", "out"], "name the paper first: hemalum reproduce PAPER -d"),
        (["reproduce", "two_stage", "-o", "out"], "two_stage needs data: --data NAME=PATH"),
        (["reproduce", "two_stage", "-d", "tnbd=a", "-o", "out"], "no dataset 'tnbd', did you mean 'tnbc'"),
        (["info", "/no/such/model.safetensors"], "no such model file"),
        (["info", "no_such_model"], "no_such_model"),
        (["export", "/no/such/model.safetensors", "a.onnx"], "no such model file"),
        (["segment", "/no/such/image.png", "-o", "out"], "/no/such/image.png: no such file or folder"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in mistake(capsys, *arguments)
    assert not list(tmp_path.iterdir()), "something was left behind"


def test_debug_shows_the_traceback_wherever_it_stands() -> None:
    with pytest.raises(HemalumError):
        cli.main(["check", "/no/such/folder", "--debug"])
    with pytest.raises(HemalumError):
        cli.main(["--debug", "check", "/no/such/folder"])


def test_options_after_two_dashes_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert "--debug: no such folder" in mistake(capsys, "check", "--", "--debug")


def test_an_error_of_several_lines_is_printed_as_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise HemalumError("first\n  second")

    monkeypatch.setattr("hemalum.data.check.check_dataset", fail)
    assert mistake(capsys, "check", "x") == "error: first second"


def test_what_nobody_foresaw_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr("hemalum.data.check.check_dataset", fail)
    with pytest.raises(ZeroDivisionError):
        cli.main(["check", "x"])


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("hemalum.data.check.check_dataset", interrupt)
    run("check", "x", code=130)


def test_interrupt_of_the_program() -> None:
    # a shell that starts us in the background has us ignore the interrupt
    program = "import hemalum.data.check as c, signal, time, sys\nfrom hemalum.cli import main\n"
    program += "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    program += (
        "c.check_dataset = lambda p: (print('ready', flush=True), time.sleep(60))\nsys.exit(main(['check', 'x']))"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert b"Traceback" not in process.stderr.read()
    process.stdout.close()
    process.stderr.close()


# the verbs on a small dataset


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images and label maps of four sources: two squares of nuclei each."""
    source = tmp_path / "source"
    generator = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (source / kind).mkdir(parents=True)
    for name in "abcd":
        image = generator.integers(200, 255, (64, 64, 3), np.uint8)
        labels = np.zeros((64, 64), np.uint16)
        for label, (y, x) in enumerate([(8, 8), (30, 36)], start=1):
            image[y : y + 14, x : x + 14] = generator.integers(60, 90, (14, 14, 3))
            labels[y : y + 14, x : x + 14] = label
        Image.fromarray(image).save(source / "images" / f"{name}.png")
        Image.fromarray(labels).save(source / "labels" / f"{name}.png")
    return source


@pytest.fixture
def dataset(folder: Path, tmp_path: Path) -> Path:
    run(
        "--quiet",
        "import",
        "folder",
        str(folder),
        str(tmp_path / "dataset"),
        "--mpp",
        "0.5",
        "--split",
        "0.5,0.25,0.25",
    )
    return tmp_path / "dataset"


def test_import_prints_what_it_made(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("import", "folder", str(folder), str(tmp_path / "made"), "--mpp", "0.5", "--license", "CC0")
    words = " ".join(capsys.readouterr().out.split())
    assert "images 4 nuclei 8 scale 0.5 µm/px (user)" in words
    assert "license CC0" in words


def test_import_list(capsys: pytest.CaptureFixture[str]) -> None:
    from hemalum.data.readers import READERS

    run("import", "--list")
    shown = capsys.readouterr().out
    assert all(name in shown for name in READERS)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--split", "published"], "format folder has no published split"),
        (["--fold", "2"], "fold 2: format folder has no published folds"),
        (["--split", "half"], "want three shares like 0.7,0.1,0.2, or 'published'"),
        (["--option", "merged=true"], "format folder has no option 'merged'"),
        (["--option", "merged"], "--option 'merged': want NAME=VALUE"),
    ],
)
def test_import_options_that_do_not_fit(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], line: str
) -> None:
    run("import", "folder", str(folder), str(tmp_path / "made"), *options, code=2)
    assert line in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_check_of_a_sound_and_a_broken_dataset(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("check", str(dataset))
    assert "0 errors" in capsys.readouterr().out
    (dataset / "labels" / "a.png").unlink()
    run("check", str(dataset), code=1)
    shown = capsys.readouterr().out
    assert "labels/a.png" in shown
    assert ": 1 error, " in shown


def test_evaluate_prints_tables_and_writes_files(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run("evaluate", "classical", str(dataset), "--split", "all", "-o", str(tmp_path / "scores"))
    shown = capsys.readouterr().out
    summary = json.loads((tmp_path / "scores" / "summary.json").read_text())
    assert "4 images, 8 nuclei" in shown
    dice = f"{summary['pixel']['pooled']['dice']:.4g}"
    (line,) = [line for line in shown.splitlines() if line.strip().startswith("pooled")][:1]
    assert dice in line.split()


def test_quiet_is_quiet(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("check", str(dataset), "--quiet")
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", "")


# segment, demo and what goes with a model


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """Twelve dark squares of 12 × 12 px, 200 × 300 px."""
    pixels = np.full((200, 300, 3), 230, np.uint8)
    for y in range(20, 180, 60):
        for x in range(20, 280, 70):
            pixels[y : y + 12, x : x + 12] = 70
    path = tmp_path / "squares.png"
    Image.fromarray(pixels).save(path)
    return path


def segment(*arguments: object, code: int = 0) -> None:
    run("segment", *map(str, arguments), code=code)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_segment_writes_what_is_asked_and_prints_a_table(
    image: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    formats = "geojson,csv,parquet,labels,overlay"
    segment(image, "-o", out, "--mpp", 0.5, "--model", dark_model, "--format", formats)
    assert names_in(out) == [
        "squares.csv",
        "squares.geojson",
        "squares.parquet",
        "squares_labels.tif",
        "squares_overlay.png",
        "summary.csv",
        "summary.jsonl",
    ]
    with (out / "squares.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 12
    assert len(json.loads((out / "squares.geojson").read_text())["features"]) == 12
    printed = capsys.readouterr().out
    (line,) = [line.split() for line in printed.splitlines() if "squares.png" in line]
    # 12 nuclei on 200 × 300 px of 0.5 µm: 0.015 mm²
    assert line[:6] == ["squares.png", "12", "800", "0.5", "given", "by"]
    assert f"5 files in {out}" in printed


def test_formats_may_be_named_one_by_one(image: Path, dark_model: Path, tmp_path: Path) -> None:
    segment(image, "-o", tmp_path / "out", "--mpp", 0.5, "--model", dark_model, "-f", "csv", "-f", "labels,parquet")
    assert names_in(tmp_path / "out")[:3] == ["squares.csv", "squares.parquet", "squares_labels.tif"]


def test_an_estimate_is_marked(
    image: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    segment(image, "-o", tmp_path / "out", "--model", dark_model)
    printed = capsys.readouterr()
    assert "(estimated)" in printed.out
    assert "is an estimate" in printed.err


def test_one_bad_file_does_not_stop_the_others(
    image: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(image.read_bytes()[:200])
    out = tmp_path / "out"
    segment(bad, image, "-o", out, "--mpp", 0.5, "--model", dark_model, "--report", code=1)
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith(f"failed: {bad}: ")
    assert "squares.png" in printed.out
    assert names_in(out) == [
        "squares.csv",
        "squares.geojson",
        "squares_overlay.png",
        "summary.csv",
        "summary.html",
        "summary.jsonl",
    ]
    assert "bad.png" in (out / "summary.html").read_text()


def test_a_single_bad_file_is_a_mistake(
    image: Path, dark_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.png"
    bad.write_text("no image")
    options = ["-o", str(tmp_path / "out"), "--model", str(dark_model), "--engine", "torch"]  # nothing is converted
    line = mistake(capsys, "segment", str(bad), *options)
    assert str(bad) in line
    assert names_in(tmp_path / "out") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "geojsn"], "unknown format 'geojsn', did you mean 'geojson'"),
        (["--format", ","], "no format"),
        (["--mpp", "0"], "mpp 0 µm per px is out of range"),
        (["--engine", "opnvino"], "unknown engine 'opnvino', did you mean 'openvino'"),
        (["--max-pixels", "1000"], "over the limit of 1,000; --max-pixels lifts it, and a tiled TIFF"),
        (["--threads", "0"], "--threads"),
        (["--stain", "hdap"], "unknown stain 'hdap', did you mean 'hdab'"),
        (["--positive", "0.4,0.2,0.6"], "positive 0.4,0.2,0.6: thresholds must rise"),
        (["--positive", "0.2,0.4"], "positive has 2 thresholds"),
        (["--positive", "brown"], "positive 'brown': want a threshold"),
        (["--positive", "0.2", "--stain", "he"], "it goes with stain hdab"),
    ],
)
def test_mistakes_of_segment(
    options: list[str],
    message: str,
    image: Path,
    dark_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "out"
    run("--quiet", "segment", str(image), "-o", str(tmp_path / "ready"), "--model", str(dark_model))
    capsys.readouterr()  # that the model was converted, which is said once
    assert message in mistake(capsys, "segment", str(image), "-o", str(out), "--model", str(dark_model), *options)
    assert not out.exists() or names_in(out) == []


def test_an_output_folder_that_cannot_be(image: Path, dark_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "cannot write" in mistake(
        capsys, "segment", str(image), "-o", str(image / "out"), "--model", str(dark_model)
    )


def test_report_names_the_command(image: Path, dark_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment(image, "-o", out, "--mpp", "0.5", "--model", dark_model, "--report", "--quiet")
    page = (out / "summary.html").read_text()
    assert f"hemalum segment {image} -o {out} --mpp 0.5" in page
    assert "Model: dark" in page


@pytest.mark.slow
def test_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("demo", "-o", str(tmp_path / "demo"), "--model", "fast")
    printed = capsys.readouterr().out
    assert names_in(tmp_path / "demo") == [
        "immunohistochemistry.csv",
        "immunohistochemistry.geojson",
        "immunohistochemistry.png",
        "immunohistochemistry_overlay.png",
        "summary.csv",
        "summary.html",
        "summary.jsonl",
    ]
    assert "estimated: the image does not say its scale" in printed
    assert re.search(r"intensity +Negative \d+, Positive \d+", printed)
    assert re.search(r"stain +H-DAB, set", printed)
    assert str(tmp_path / "demo" / "summary.html") in printed


def test_info(dark_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("info", str(dark_model))
    printed = capsys.readouterr().out
    assert "0.5 µm per pixel" in printed
    assert "made up" in printed
    run("info", str(dark_model), "--json")
    assert json.loads(capsys.readouterr().out)["name"] == "dark"


def test_info_of_a_slide(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = save_pyramid(tmp_path / "a.tif", draw_picture(300, 400), levels=2)
    run("info", str(path))
    lines = dict(re.split(" {2,}", line, maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.pop("fingerprint")
    assert lines == {
        "slide": str(path),
        "format": "TIFF",
        "size": "400 x 300 px (0.20 x 0.15 mm)",
        "scale": "0.5 µm per pixel",
        "levels": "400 x 300 (1:1), 200 x 150 (1:2)",
    }
    run("info", str(path), "--json")
    printed = json.loads(capsys.readouterr().out)
    assert (printed["width"], printed["mpp"], printed["levels"][1]["height"]) == (400, pytest.approx(0.5), 150)
    run("info", str(save_pyramid(tmp_path / "b.tif", draw_picture(64, 64), levels=1, mpp=None)))
    assert "not stated: give --mpp NUMBER, µm per pixel" in capsys.readouterr().out
    path.write_bytes(path.read_bytes()[:-5000])
    run("info", str(path), code=2)
    assert "the file is truncated" in capsys.readouterr().err


@pytest.mark.slow
def test_export(dark_model: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    run("export", str(dark_model), str(tmp_path / "dark.onnx"))
    properties = {entry.key: entry.value for entry in onnx.load(tmp_path / "dark.onnx").metadata_props}
    assert json.loads(properties["hemalum_card"])["name"] == "dark"


def test_evaluate_a_model(dataset: Path, dark_model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run("evaluate", str(dark_model), str(dataset), "--split", "all")
    (line,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip().startswith("pooled")][:1]
    assert float(line[3]) > 0.99  # Dice: the nuclei are the dark squares


def test_train_hands_over_what_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import hemalum.training.train
    from hemalum.training import UnlabeledImages
    from hemalum.training.recipe import load_recipe, shipped_recipes

    calls: list[dict[str, Any]] = []
    signature = inspect.signature(hemalum.training.train.train)

    def train(*arguments: Any, **options: Any) -> Path:
        options.pop("on_progress")(5, 10, {"loss": 0.5})
        call = signature.bind(*arguments, **options)
        call.apply_defaults()
        calls.append(call.arguments)
        (tmp_path / "run").mkdir()
        line = {"step": 10, "phase": "main", "score": 0.25, "dice": 0.5}
        (tmp_path / "run" / "log.jsonl").write_text(json.dumps(line) + "\n")
        return tmp_path / "run" / "model.safetensors"

    monkeypatch.setattr(hemalum.training.train, "train", train)
    out = str(tmp_path / "run")
    numbers = ["--threads", "1", "--workers", "2", "--unlabeled", "slides", "--unlabeled-mpp", "0.25", "--compile"]
    run("train", "unet", "--data", "a=x", "-d", "b=y", "-o", out, "--resume", *numbers, "--budget", "small")
    assert calls == [
        {
            "recipe": load_recipe(shipped_recipes()["unet"], "small"), "data": {"a": "x", "b": "y"},
            "out": tmp_path / "run", "resume": True, "accelerator": "auto", "devices": None, "threads": 1,
            "workers": 2, "initial": None, "license": None, "stain": None,
            "unlabeled": [UnlabeledImages(path="slides", mpp=0.25)], "compile": True, "on_progress": None,
        }
    ]  # fmt: skip
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'run' / 'model.safetensors'}\n"
    assert "step 5/10  loss 0.5" in printed.err
    assert re.search(
        r"^trained in \d+ s; best on validation: PQ 0.25, Dice 0.5, step 10 of 10$", printed.err, re.MULTILINE
    )


def test_recipes_are_listed_with_their_variants(capsys: pytest.CaptureFixture[str]) -> None:
    from hemalum.training.recipe import shipped_recipes

    run("train", "--list")
    printed = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", printed, re.MULTILINE) for name in shipped_recipes())
    line = next(line for line in printed.splitlines() if line.startswith("two_stage "))
    assert "micro_net" in line
    assert "Two-stage enhancement" in line


# documents


def documented_commands() -> list[tuple[str, str]]:
    """Every `hemalum …` command line in README and docs: in code blocks, and inline where it has arguments."""
    commands = []
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CONTRIBUTING.md"]:
        text = path.read_text(encoding="utf-8").replace("\\\n", " ")  # a command may go on in the next line
        blocks = re.findall(r"^```.*?^```|^(?: {4}|\t).*?$", text, re.MULTILINE | re.DOTALL)
        lines = [line.strip() for block in blocks for line in block.splitlines()]
        lines = [line for line in lines if re.match(r"(\$ )?\S*hemalum ", line)]
        lines += re.findall(r"`(hemalum [^`]+)`", text)
        for line in lines:
            line = re.sub(r"\s+#.*", "", line).removeprefix("$ ")
            words = shlex.split(line.replace("…", ""))
            if Path(words[0]).name == "hemalum" and "VERB" not in words:
                commands.append((path.name, " ".join(["hemalum", *map(shlex.quote, words[1:])])))
    return sorted(set(commands))


def test_documents_hold_commands() -> None:
    shown = {shlex.split(command)[1] for _, command in documented_commands()}
    assert set(VERBS) <= shown


@pytest.mark.parametrize(("document", "command"), documented_commands())
def test_documented_commands_parse(document: str, command: str) -> None:
    words = global_options_first(shlex.split(command)[1:])
    words = [word for word in words if word not in ("--debug", "--quiet", "--version", "--help")]
    if not words:
        return
    verb, *arguments = words
    assert verb in group.commands, f"{document}: {command}"
    if arguments and "--list" not in arguments:
        # parses and converts, raises on what does not fit, runs nothing
        group.commands[verb].make_context(verb, arguments)


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))],
    ids=lambda path: path.name,
)
def test_links_between_documents(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
