"""A model for other programs."""

from pathlib import Path
from typing import Annotated

import typer

from hemalum.cli.options import ModelArgument


def export(
    context: typer.Context,
    model: ModelArgument,
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .onnx, or .xml for OpenVINO.")],
    organ: Annotated[
        str | None, typer.Option(metavar="NAME", help="Build in the organ, for a model that tells organs apart.")
    ] = None,
) -> None:
    """Write a model as ONNX or OpenVINO IR: uint8 pixels in, maps out, the card in the file."""
    from hemalum.models.model import export_model, load_model

    loaded = load_model(model)
    for path in export_model(loaded if organ is None else loaded.with_organ(organ), output):
        if not context.obj.quiet:
            print(path)
