"""The words of a command line turned into values, and the options that several verbs share.

A default stands once: with the function that a verb calls, where that has one. The option is then None unless it is
set, `chosen` leaves it out, and its help names the default.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from hemalum.errors import printable

if TYPE_CHECKING:
    from hemalum.training import UnlabeledImages


def global_options_first(arguments: list[str]) -> list[str]:
    """`hemalum segment x --debug` is what people type when something has failed: let it mean the same."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    moved = sorted({word for word in arguments[:end] if word in ("--debug", "--quiet")})
    return moved + [word for word in arguments[:end] if word not in ("--debug", "--quiet")] + arguments[end:]


def chosen(**options: Any) -> dict[str, Any]:
    """The options that are set; for the others the default of the function called holds."""
    return {name: value for name, value in options.items() if value is not None}


def exit_with_failures(failed: Iterable[tuple[object, str]]) -> None:
    """Print what failed and why, and end with exit code 1; nothing where all went well."""
    lines = [f"failed: {what}: {reason}" for what, reason in failed]
    if lines:
        print("\n".join(map(printable, lines)), file=sys.stderr)
        raise typer.Exit(1)


def scale(text: str) -> float | str:
    """A scale option: a number of microns per pixel, `auto` or `estimate`."""
    return text if text in ("auto", "estimate") else _number(text, "'auto' or 'estimate'")


def series_scale(text: str) -> float | str:
    """The same, or `series`."""
    return text if text in ("auto", "estimate", "series") else _number(text, "'auto', 'estimate' or 'series'")


def as_scale(value: float | str | None) -> float | Literal["auto"] | None:
    """A scale option as experiments take it: of `auto` nothing is set, and `estimate` is their "auto"."""
    if isinstance(value, str):
        return "auto" if value == "estimate" else None
    return value


def import_scale(text: str) -> float | str:
    """The scale of a dataset: a number of microns per pixel, or `nuclei`."""
    return text if text == "nuclei" else _number(text, "'nuclei'")


def _number(text: str, word: str) -> float:
    try:
        return float(text)
    except ValueError:
        point = f"; write {text.replace(',', '.')}" if re.fullmatch(r"\d+,\d+", text) else ""
        raise typer.BadParameter(f"'{text}' is neither a number of microns per pixel nor {word}{point}") from None


def listed(text: str) -> list[str]:
    """The parts of a comma-separated list."""
    return [part.strip() for part in text.split(",") if part.strip()]


def shares(text: str) -> tuple[float, float, float] | str:
    """The shares of the parts of a split, as `0.7,0.1,0.2`, or `published`."""
    if text == "published":
        return text
    try:
        train, val, test = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"--split '{text}': want three shares like 0.7,0.1,0.2, or 'published'") from None
    return train, val, test


def reader_options(texts: list[str]) -> dict[str, str | bool]:
    """Options of a format's reader, as `species=human` or `merged=true`."""
    options: dict[str, str | bool] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"--option '{text}': want NAME=VALUE")
        options[name] = {"true": True, "false": False}.get(value.lower(), value)
    return options


def named_datasets(data: list[str]) -> dict[str, str] | list[str]:
    """Datasets by name, or as a list where none is named; of a mixture the others have their folders' names."""
    pairs = [("", "", text) if Path(text).exists() else text.partition("=") for text in data]
    pairs = [pair if pair[1] else ("", "", "".join(pair)) for pair in pairs]
    if not any(equals for _, equals, _ in pairs):
        return data
    named: dict[str, str] = {}
    for name, equals, path in pairs:
        if equals and not (name and path):
            raise typer.BadParameter(f"--data '{name}{equals}{path}': want NAME=PATH, or PATH")
        key = name or Path(path).resolve().name  # a dataset folder that is not named has its folder's name
        if key in named:
            raise typer.BadParameter(f"--data: {named[key]} and {path} are both called '{key}': name one, NAME=PATH")
        named[key] = path
    return named


def unlabeled_images(paths: list[str] | None, mpp: float | None) -> "list[UnlabeledImages]":
    """Images without labels as a recipe writes them, at the scale that holds for all of them."""
    if mpp is not None and not paths:
        raise typer.BadParameter("--unlabeled-mpp is the scale of images that --unlabeled names: give these as well")
    from hemalum.training import as_entries

    return [entry.model_copy(update={"mpp": mpp}) for entry in as_entries(paths or [])]


def budget_of(text: str | None) -> Literal["full", "small"] | None:
    """The budget of a training, by its word."""
    if text not in (None, "full", "small"):
        raise typer.BadParameter(f"--budget '{text}': want full or small")
    return None if text is None else "small" if text == "small" else "full"


Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model file, or the name of a shipped model; default: the shipped one."),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Model file, or the name of a shipped model.")]
Organ = Annotated[
    str | None,
    typer.Option("--organ", metavar="NAME", help="Organ of the image, for a model that tells organs apart."),
]
Engine = Annotated[
    str | None, typer.Option(help="What runs the network: auto, torch, openvino or onnx; default: auto.")
]
Accelerator = Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps; default: auto.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; default: all cores.")]
BatchWorkers = Annotated[
    int | None,
    typer.Option(
        "--workers",
        min=1,
        help="Processes that make training batches; default: 1 beside the CPU, all cores but two beside a GPU.",
    ),
]
ResumeRun = Annotated[bool, typer.Option("--resume", help="Go on with the run in RUN, exactly where it stopped.")]
Tta = Annotated[
    bool,
    typer.Option("--tta", help="Mean over the eight turns and mirror images: a little better, 2 to 5 times as long."),
]
Shifts = Annotated[
    int | None,
    typer.Option(
        metavar="2|4|8",
        help="Mean over so many shifts by up to 3 px: nuclei hang less on where the image begins; as many times the "
        "work.",
    ),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random; default: 0.")]
Scale = Annotated[
    Any,
    typer.Option(
        "--mpp",
        parser=scale,
        metavar="NUMBER|auto|estimate",
        help="Microns per pixel. auto, the default: what the image says, else an estimate from its nuclei; "
        "estimate: in any case.",
    ),
]
SeriesScale = Annotated[
    Any,
    typer.Option(
        "--mpp",
        parser=series_scale,
        metavar="NUMBER|auto|estimate|series",
        help="Microns per pixel. auto, the default: what the image says, else an estimate from its nuclei; "
        "estimate: in any case; series: what the image says, else one estimate for all.",
    ),
]
BudgetOption = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="full|small",
        help="small: the recipe's narrow, short form, for two processor cores; default: full.",
    ),
]
LeaveOutAmbiguous = Annotated[
    bool,
    typer.Option("--leave-out-ambiguous", help="Pixels that the annotators could not tell count nowhere."),
]
Preview = Annotated[
    Path | None,
    typer.Option(
        metavar="PNG",
        help="Write a contact sheet: samples, outlines, what augmentation and stain normalization do to them.",
    ),
]
