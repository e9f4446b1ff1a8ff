"""What a model, a slide or the results of one say about themselves."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.errors import HemalumError

MODEL_SUFFIXES = (".safetensors", ".onnx", ".xml")


def info(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|SLIDE|RESULTS]",
            help="Model file or name, a slide, or a folder NAME.nuclei; default: the shipped model.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Print what a model says about itself: scale, training data, metrics; or a slide: size, scale, levels.

    Of results (NAME.nuclei): slide, model, scale, how many nuclei, and whether the run is complete.
    """
    kind = _kind(name)
    if kind == "model":
        _print_model(name, as_json)
    elif kind == "slide":
        _print_slide(Path(str(name)), as_json)
    else:
        _print_store(Path(str(name)), as_json)


def _kind(name: str | None) -> str:
    """What a name is of: model, slide or results; whoever reads that says what is wrong with it.

    Raises HemalumError for a folder that is none of them.
    """
    path = Path(name or "")
    if name is None or path.suffix.lower() in MODEL_SUFFIXES:
        return "model"
    from hemalum.manifest import manifest_path

    if path.suffix == ".nuclei" or manifest_path(path, "nuclei").is_file():
        return "results"
    from hemalum.slides import is_slide

    if is_slide(path):
        return "slide"
    if not path.suffix:
        from hemalum.models.model import shipped_models

        if name in shipped_models() or not path.exists():
            return "model"
    if path.is_dir():
        raise HemalumError(
            f"{path}: a folder that is neither a slide (OME-Zarr, DICOM) nor results of one (NAME.nuclei)"
        )
    return "model" if _is_safetensors(path) else "slide"


def _is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes, and JSON."""
    try:
        with path.open("rb") as stream:
            return stream.read(9)[8:] == b"{"
    except OSError:
        return False


def _print_model(name: str | None, as_json: bool) -> None:
    from hemalum.cli.console import print_pairs, print_table
    from hemalum.models.model import load_model
    from hemalum.reports.tables import card_pairs, metrics_table

    card = load_model(name).card
    if as_json:
        print(card.model_dump_json(indent=2))
        return
    print_pairs(card_pairs(card))
    if card.metrics:
        print_table(*metrics_table(card.metrics))


def _print_slide(path: Path, as_json: bool) -> None:
    import json

    from hemalum.cli.console import print_pairs
    from hemalum.reports.tables import slide_pairs
    from hemalum.slides import open_slide

    with open_slide(path) as slide:
        if not as_json:
            print_pairs(slide_pairs(slide))
            return
        levels = [
            {"width": level.shape[1], "height": level.shape[0], "downsample": level.downsample}
            for level in slide.levels
        ]
        facts = {"format": slide.format, "width": slide.shape[1], "height": slide.shape[0], "mpp": slide.mpp}
        print(json.dumps(facts | {"levels": levels, "fingerprint": slide.fingerprint}, indent=2))


def _print_store(path: Path, as_json: bool) -> None:
    import json

    from hemalum.cli.console import print_pairs
    from hemalum.nuclei.store import open_store
    from hemalum.reports.tables import store_pairs

    store = open_store(path)
    if not as_json:
        print_pairs(store_pairs(store))
        return
    run = store.run.model_dump(mode="json", exclude={"positive", "settings"})
    facts = {"nuclei": store.count, "parts": len(store.finished), "complete": store.complete}
    print(json.dumps(facts | run | {"thresholds": store.thresholds, "notes": store.notes}, indent=2))
