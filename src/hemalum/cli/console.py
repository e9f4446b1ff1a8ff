"""What the program says on a terminal: log lines, progress and tables.

Results go to standard output, everything else to standard error, so that a pipe gets results only.
"""

import logging
import os
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from hemalum.experiments.compare import Progress as Progressed


class LineHandler(logging.Handler):
    """One line on standard error per record, as `warning: …`, in the form of the program's errors.

    The stream is looked up at each line, so that lines go above a progress bar and not through it.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        level = record.levelname.lower()
        prefix = "" if record.levelno == logging.INFO else f"{level}: "
        if record.levelno >= logging.WARNING and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
            prefix = f"\x1b[33m{prefix}\x1b[0m"
        if record.levelno < logging.INFO:
            prefix += f"{record.name}: "
        print(prefix + self.format(record), file=sys.stderr)


def set_up(*, debug: bool = False, quiet: bool = False) -> None:
    """Send log lines of the package to standard error: warnings only when quiet, all of them with debug."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show µ gets a replacement, not a traceback
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    logger = logging.getLogger("hemalum")
    logger.handlers = [LineHandler()]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)


def error_console() -> "Console":
    """The console on standard error, as it is now (tests and callers may have replaced the stream)."""
    from rich.console import Console

    return Console(stderr=True, soft_wrap=True)


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", left: Sequence[str] = ()
) -> None:
    """Print a table; columns are right-aligned except the first and those named in `left`.

    Nothing is ever cut off: piped output gets the width it needs, and on a terminal that is too narrow
    each row becomes a block of `header: value` lines.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, emoji=False, markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, header in enumerate(headers):
        table.add_column(header, justify="left" if index == 0 or header in left else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    needed = sum(max(len(header), *(len(row[index]) for row in rows), 0) + 3 for index, header in enumerate(headers))
    if not console.is_terminal:
        console.width = max(console.width, needed + 2)
    if title:
        # not the table's own title, which would be broken at the table's width
        console.print(title, style="italic", soft_wrap=True)
    if console.is_terminal and needed > console.width:
        _print_blocks(console, headers, rows)
    else:
        console.print(table)


def _print_blocks(console: "Console", headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    for row in rows:
        console.print(row[0], style="bold")
        for header, value in zip(headers[1:], row[1:], strict=True):
            if value:
                # a long value goes on under itself; addresses are never broken
                line = textwrap.fill(
                    f"  {header}: {value}",
                    console.width,
                    subsequent_indent="    ",
                    break_long_words=False,
                    break_on_hyphens=False,
                )
                console.print(line, markup=False, soft_wrap=True)


def print_pairs(pairs: Sequence[tuple[str, str]]) -> None:
    """Print `name  value` lines; on a terminal a long value goes on under itself."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, emoji=False, markup=False)
    if not console.is_terminal:
        widest = max((len(name) for name, _ in pairs), default=0)
        for name, value in pairs:
            print(f"{name:{widest}}  {value}")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(Text(name), Text(value))
    console.print(table)


def print_notes(notes: Sequence[str]) -> None:
    """Print lines that belong to the table above, and an empty one after them."""
    from rich.console import Console

    console = Console(highlight=False, emoji=False, markup=False)
    for note in notes:
        console.print(note, soft_wrap=not console.is_terminal)
    if notes:
        console.print()


@dataclass
class FileProgress:
    """Progress over files and within the file at work; does nothing when there is nobody to see it."""

    progress: "Progress | None" = None
    files: "TaskID | None" = None
    inside: "TaskID | None" = None
    at_work: Path | None = None

    def update(self, path: Path, share: float) -> None:
        """`share` of the file `path` is done, in [0, 1]."""
        if self.progress is None or self.inside is None:
            return
        if path != self.at_work:
            self.at_work = path
            self.progress.reset(self.inside, total=100, description=path.name)
        self.progress.update(self.inside, completed=round(100 * share))

    def finish(self, _: object = None) -> None:
        """One more file is done."""
        if self.progress is not None and self.files is not None:
            self.progress.advance(self.files)


@contextmanager
def file_progress(total: int, *, quiet: bool = False) -> Iterator[FileProgress]:
    """Show a bar for `total` files and one for the file at work, on standard error, if that is a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    console = error_console()
    if quiet or not console.is_terminal:
        yield FileProgress()
        return
    columns = (
        TextColumn("{task.description}", markup=False, table_column=Column(max_width=40)),
        BarColumn(bar_width=30),
    )
    with Progress(*columns, MofNCompleteColumn(), TimeRemainingColumn(), console=console) as progress:
        files = progress.add_task("files", total=total)
        inside = progress.add_task("starting", total=100)
        yield FileProgress(progress, files, inside)


@contextmanager
def counter(description: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Give a function that counts one more of something whose number is not known beforehand."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = error_console()
    if quiet or not console.is_terminal:
        yield lambda: None
        return
    columns = (
        SpinnerColumn(),
        TextColumn(description),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda: progress.advance(task)


@contextmanager
def training_progress(*, quiet: bool = False) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Give a function of (step, of how many, figures): a bar on a terminal, a line for figures."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = error_console()
    if quiet:
        yield lambda step, total, figures: None
        return

    def progress_line(step: int, total: int, figures: dict[str, float]) -> str:
        return f"step {step}/{total}  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items())

    if not console.is_terminal:

        def write(step: int, total: int, figures: dict[str, float]) -> None:
            if figures:
                console.print(progress_line(step, total, figures), markup=False, highlight=False)

        yield write
        return
    columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)

        def draw(step: int, total: int, figures: dict[str, float]) -> None:
            progress.update(task, completed=step, total=total)
            if figures:
                progress.console.print(progress_line(step, total, figures), markup=False, highlight=False)

        yield draw


@contextmanager
def steps_progress(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function of (what, done, of how many): a bar for each on a terminal, a line as each begins elsewhere."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = error_console()
    if quiet:
        yield lambda what, done, total: None
        return
    if not console.is_terminal:
        begun: set[str] = set()

        def write(what: str, done: int, total: int) -> None:
            if what not in begun:
                begun.add(what)
                console.print(f"{what}: {total:,}", markup=False, highlight=False)

        yield write
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        tasks: dict[str, TaskID] = {}

        def draw(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total)

        yield draw


@contextmanager
def comparison_progress(*, quiet: bool = False) -> "Iterator[Callable[[Progressed], None]]":
    """Give a function of a comparison's progress: bars on a terminal, a line for each run that is begun."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = error_console()
    if quiet:
        yield lambda progress: None
        return
    if not console.is_terminal:

        def write(now: "Progressed") -> None:
            if now.step == 0:
                console.print(f"run {now.done + 1}/{now.total}  {now.name}", markup=False, highlight=False)

        yield write
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        runs = progress.add_task("runs", total=None)
        inside = progress.add_task("", total=None)

        def draw(now: "Progressed") -> None:
            progress.update(runs, completed=now.done, total=now.total)
            progress.update(inside, description=now.name, completed=now.step, total=now.steps or None)

        yield draw
