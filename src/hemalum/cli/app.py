"""The program itself: what holds for every verb."""

from dataclasses import dataclass
from typing import Annotated

import typer

from hemalum import __version__

app = typer.Typer(
    name="hemalum",
    help="Nucleus segmentation for histopathology: segment, train, compare, measure.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@dataclass
class CliContext:
    """What holds for every verb: the command as given, and whether to say less."""

    command: str
    quiet: bool = False


def _print_version(asked: bool) -> None:
    if asked:
        print(f"hemalum {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Log everything; show the traceback of errors.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="No progress and no tables; warnings and errors only.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit
    from hemalum.cli.console import set_up

    set_up(debug=debug, quiet=quiet)
    context.obj.quiet = quiet
