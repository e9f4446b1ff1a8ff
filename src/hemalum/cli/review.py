"""Looking at what a model found, and correcting it, in the browser."""

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hemalum.cli.app import CliContext
from hemalum.cli.options import Accelerator, Engine, Model, Threads, chosen, exit_with_failures
from hemalum.errors import HemalumError, counted

if TYPE_CHECKING:
    from hemalum.review import Session

MAX_PORT = 65_535


def review(
    context: typer.Context,
    source: Annotated[
        Path | None,
        typer.Argument(
            metavar="SOURCE",
            help="Folder of images, one image, a dataset, or segmented slides (the OUT of hemalum segment); default: "
            "what PROJECT was begun with.",
        ),
    ] = None,
    model: Model = None,
    project: Annotated[
        Path | None,
        typer.Option(
            "--project",
            "-p",
            metavar="PROJECT",
            help="Folder that keeps the review, and that it goes on from; default: SOURCE.review where you are.",
        ),
    ] = None,
    author: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who corrects; default: the name of your account.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_PORT, help="Port of the page on this machine; default: 8765, or the next free."),
    ] = None,
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Print the link, and open no browser.")] = False,
    mpp: Annotated[
        float | None,
        typer.Option(metavar="NUMBER", help="Microns per pixel of the images; default: what each says."),
    ] = None,
    slide: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="The slide, or a folder that has all; default: beside the results, or where it was."
        ),
    ] = None,
    no_recursive: Annotated[
        bool, typer.Option("--no-recursive", help="Of folders take what lies directly inside, not in sub-folders.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="OUT", help="Write what was reviewed into the new folder OUT, and open no page."),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            metavar="dataset|geojson|qupath",
            help="Of --export. dataset, the default: items marked as reviewed, to train on; geojson: the nuclei of "
            "each image as they are now; qupath: the same, as annotations that can be edited there.",
        ),
    ] = None,
    import_: Annotated[
        Path | None,
        typer.Option(
            "--import",
            metavar="PATH",
            help="Take the nuclei of a GeoJSON file of QuPath, or of a folder of them, and open no page.",
        ),
    ] = None,
    reviewed: Annotated[
        bool,
        typer.Option(
            "--reviewed",
            help="With --import: mark what is taken as reviewed; of a slide the windows where anything was changed.",
        ),
    ] = False,
    engine: Engine = None,
    accelerator: Accelerator = None,
    threads: Threads = None,
) -> None:
    """Correct nuclei in the browser, those first that the model is least sure of.

    Every change is kept in PROJECT at once; the same command, or -p PROJECT alone, goes on where it was left.
    """
    cli: CliContext = context.obj
    if export is not None and import_ is not None:
        raise HemalumError("give --export or --import, one after the other")
    if format is not None and export is None:
        raise HemalumError("--format is for --export: leave it out")
    if reviewed and import_ is None:
        raise HemalumError("--reviewed is for --import: leave it out")
    for name, value in {"port": port, "no-browser": no_browser or None, "author": author}.items():
        if value is not None and (export is not None or import_ is not None):
            raise HemalumError(f"--{name} is for the page, and --export and --import open none: leave it out")
    from hemalum.review import Session

    begin = export is None and import_ is None  # a new project would have nothing to give
    options = chosen(mpp=mpp, slide=slide, engine=engine, accelerator=accelerator, threads=threads)
    with Session.open(source, model, project, recursive=not no_recursive, begin=begin, **options) as session:
        if export is not None:
            _export(cli, session, export, format or "dataset")
        elif import_ is not None:
            _import(cli, session, import_, reviewed)
        else:
            _serve(cli, session, port, author or _account(), not no_browser)


def _serve(cli: CliContext, session: "Session", port: int | None, author: str, open_browser: bool) -> None:
    from hemalum.review.server import serve

    def say(link: str) -> None:
        print(f"{session.name}, kept in {session.project.folder}: {link}")
        if not cli.quiet:
            print("Ctrl-C ends it; everything is saved as you go")

    session.start()
    serve(session, port=port or 0, author=author, open_browser=open_browser, on_ready=say)


def _export(cli: CliContext, session: "Session", out: Path, format: str) -> None:
    from hemalum.cli.console import counter
    from hemalum.review import export_review

    with counter("images", quiet=cli.quiet) as advance:
        files = export_review(session, out, format, on_progress=lambda _: advance())
    if not cli.quiet:
        print(out if format == "dataset" else f"{counted(len(files), 'file')} in {out}")


def _import(cli: CliContext, session: "Session", path: Path, reviewed: bool) -> None:
    from hemalum.cli.console import counter
    from hemalum.review import describe_import, import_review

    with counter("images", quiet=cli.quiet) as advance:
        summary = import_review(session, path, reviewed=reviewed, on_progress=lambda _: advance())
    if not cli.quiet:
        for remark in summary.remarks:
            print(remark)
        print(describe_import(summary))
    failed: list[tuple[Any, str]] = [*summary.failed, *summary.conflicts]
    exit_with_failures((what, reason.removeprefix(f"{what}: ").removeprefix(f"{what}, ")) for what, reason in failed)


def _account() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an account without a name
        return "reviewer"
