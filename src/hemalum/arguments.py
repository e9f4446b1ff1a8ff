"""The words of a command line turned into values, and the options that several verbs share."""

from typing import Annotated, Any, Literal

import typer


def global_options_first(arguments: list[str]) -> list[str]:
    """`hemalum segment x --debug` is what people type when something has failed: let it mean the same."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    moved = sorted({word for word in arguments[:end] if word in ("--debug", "--quiet")})
    return moved + [word for word in arguments[:end] if word not in ("--debug", "--quiet")] + arguments[end:]


def scale(text: str) -> float | str:
    """A scale option: a number of microns per pixel, `auto` or `estimate`."""
    return text if text in ("auto", "estimate") else _number(text, "auto")


def import_scale(text: str) -> float | str:
    """The scale of a dataset: a number of microns per pixel, or `nuclei`."""
    return text if text == "nuclei" else _number(text, "nuclei")


def _number(text: str, word: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"'{text}' is neither a number of microns per pixel nor '{word}'") from None


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
    """Datasets by the recipe's names, or as a list where none is named."""
    pairs = [text.partition("=") for text in data]
    if not any(equals for _, equals, _ in pairs):
        return data
    for name, equals, path in pairs:
        if not (name and equals and path):
            raise typer.BadParameter(f"--data '{name}': name all datasets (NAME=PATH) or none")
    return {name: path for name, _, path in pairs}


def budget_of(text: str) -> Literal["full", "small"]:
    """The budget of a training, by its word."""
    if text not in ("full", "small"):
        raise typer.BadParameter(f"--budget '{text}': want full or small")
    return "small" if text == "small" else "full"


Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Model file, or the name of a shipped model; default: the shipped one."),
]
Engine = Annotated[str, typer.Option(help="What runs the network: auto, torch, openvino or onnx.")]
Threads = Annotated[int | None, typer.Option(min=1, help="Processor threads; default: all cores.")]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes that make training batches; default: 1 beside the CPU, all cores but two beside a GPU."
    ),
]
Tta = Annotated[
    bool,
    typer.Option("--tta", help="Mean over the eight turns and mirror images: a little better, eight times the work."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
Scale = Annotated[
    Any,
    typer.Option(
        "--mpp",
        parser=scale,
        metavar="NUMBER|auto|estimate",
        help="Microns per pixel. auto: what the image says, else an estimate from its nuclei; estimate: in any case.",
    ),
]
Stain = Annotated[
    str,
    typer.Option(
        "--stain",
        metavar="auto|he|hdab|fluorescence",
        help="Stain of the images. auto: recognised by each image's own colors.",
    ),
]
Positive = Annotated[
    str | None,
    typer.Option(
        "--positive",
        metavar="OD[,OD,OD]|otsu",
        help="DAB from which a nucleus is positive, in optical density, as 0.2; or three for 1+, 2+, 3+, as "
        "0.2,0.4,0.6; or otsu. Implies --stain hdab.",
    ),
]
BudgetOption = Annotated[
    str,
    typer.Option(
        "--budget", metavar="full|small", help="small: the recipe's narrow, short form, for two processor cores."
    ),
]
