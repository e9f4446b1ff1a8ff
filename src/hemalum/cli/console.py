"""What the program says on a terminal: log lines, progress and tables.

Results go to standard output, everything else to standard error, so that a pipe gets results only.
"""

import logging
import os
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hemalum.errors import duration_text, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn, TaskID

    from hemalum.experiments.compare import Progress as Progressed
    from hemalum.reports.grid import Grid


EVERY = 60.0  # seconds between lines where there is no terminal


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
        print(prefix + printable(self.format(record)), file=sys.stderr)


def set_up(*, debug: bool = False, quiet: bool = False) -> None:
    """Send log lines of the package to standard error: warnings only when quiet, all of them with debug."""
    for stream in (sys.stdout, sys.stderr):
        # a terminal that cannot show µ gets a replacement, not a traceback
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    # it writes what it finds wrong with a file to standard error; ours is the line that says what to do
    logging.getLogger("tifffile").addHandler(logging.NullHandler())
    logger = logging.getLogger("hemalum")
    # what the terminal does not show goes to the logs of slides all the same
    handler = LineHandler(logging.DEBUG if debug else logging.WARNING if quiet else logging.INFO)
    logger.handlers = [handler]
    logger.propagate = False
    logger.setLevel(logging.DEBUG if debug else logging.INFO)


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def print_table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], *, title: str = "", left: Sequence[str] = ()
) -> None:
    """Print a table; columns are right-aligned except the first and those named in `left`.

    Nothing is ever cut off: piped output gets the width it needs, and on a terminal that is too narrow
    each row becomes a block of `header: value` lines.
    """
    from rich import box
    from rich.table import Table

    console = _console()
    headers, rows = [printable(header) for header in headers], [[printable(cell) for cell in row] for row in rows]
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
        console.print(printable(title), style="italic", soft_wrap=True)
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
    from rich.table import Table
    from rich.text import Text

    console = _console()
    pairs = [(printable(name), printable(value)) for name, value in pairs]
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
    console = _console()
    for note in notes:
        console.print(printable(note), soft_wrap=not console.is_terminal)
    if notes:
        console.print()


def print_grid(grid: "Grid") -> None:
    """Print a table as a page would have it: caption, table, notes."""
    from hemalum.reports.grid import console_table

    headers, rows, left = console_table(grid)
    print_table(headers, rows, title=grid.caption, left=left)
    print_notes(grid.notes)


@contextmanager
def _bars(*columns: "ProgressColumn | str", quiet: bool, transient: bool = False) -> "Iterator[Progress]":
    """Progress on standard error; without a terminal, or when quiet, it takes everything and shows nothing."""
    from rich.console import Console
    from rich.progress import Progress

    # standard error as it is now: tests and callers may have replaced the stream
    console = Console(stderr=True, soft_wrap=True)
    disable = quiet or not console.is_terminal
    progress = Progress(*columns, console=console, disable=disable, transient=transient)
    with nullcontext() if disable else progress:  # even a disabled one ends with an empty line
        yield progress


def print_line(progress: "Progress", line: str) -> None:
    """Print a line above the bars, or where they would be."""
    progress.console.print(printable(line), markup=False, highlight=False)


class Minutes:
    """Lines about progress where there is no terminal to show bars on: one a minute."""

    def __init__(self, progress: "Progress", *, quiet: bool) -> None:
        self.progress, self.silent = progress, quiet or not progress.disable
        self.clock: Callable[[], float] = time.monotonic
        self.last: float | None = None

    def print(self, line: Callable[[], str]) -> None:
        """Print the line when the last one, or the start, is a minute ago."""
        moment = self.clock()
        self.last = moment if self.last is None else self.last
        if not self.silent and moment - self.last >= EVERY:
            self.last = moment
            print_line(self.progress, line())


class Pace:
    """How fast something goes, from when it was first seen: a run that goes on does not begin at nothing."""

    def __init__(self, clock: Callable[[], float], done: float) -> None:
        self.clock, self.began, self.done = clock, clock(), done

    def left(self, done: float, total: float) -> str:
        """`12 min 30 s left`; nothing until it can be told."""
        rate = self.rate(done)
        return f"{duration_text((total - done) / rate)} left" if rate else ""

    def rate(self, done: float) -> float:
        """A second; 0 until it can be told."""
        seconds = self.clock() - self.began
        return max(0.0, done - self.done) / seconds if seconds > 0 else 0.0


@dataclass
class FileProgress:
    """Progress over files and within the file at work."""

    progress: "Progress"
    files: "TaskID"
    inside: "TaskID"
    total: int
    minutes: Minutes
    at_work: Path | None = None
    done: int = 0
    pace: Pace | None = None

    def update(self, path: Path, share: float) -> None:
        """`share` of the file `path` is done, in [0, 1]."""
        if path != self.at_work:
            self.at_work = path
            self.progress.reset(self.inside, total=100, description=printable(path.name))
        self.progress.update(self.inside, completed=round(100 * share))
        self.pace = self.pace or Pace(self.minutes.clock, 0.0)
        left = self.pace.left(self.done + share, self.total)
        self.minutes.print(
            lambda: f"{path.name}, {self.done + 1} of {self.total}: {100 * share:.0f} %{', ' + left if left else ''}"
        )

    def finish(self, _: object = None) -> None:
        """One more file is done."""
        self.done += 1
        self.progress.advance(self.files)


@contextmanager
def file_bars(*columns: "ProgressColumn | str", quiet: bool = False) -> "Iterator[Progress]":
    """Bars with the name of a file before each, and how much is done of how much; then the columns that are named."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.table import Column

    names = TextColumn("{task.description}", markup=False, table_column=Column(max_width=40))
    with _bars(names, BarColumn(bar_width=30), MofNCompleteColumn(), *columns, quiet=quiet) as progress:
        yield progress


@contextmanager
def file_progress(total: int, *, quiet: bool = False) -> Iterator[FileProgress]:
    """Show a bar for `total` files and one for the file at work, on a terminal."""
    from rich.progress import TimeRemainingColumn

    with file_bars(TimeRemainingColumn(), quiet=quiet) as progress:
        files = progress.add_task("files", total=total)
        inside = progress.add_task("starting", total=100)
        yield FileProgress(progress, files, inside, total, Minutes(progress, quiet=quiet))


@contextmanager
def counter(description: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """Give a function that counts one more of something whose number is not known beforehand."""
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), description, TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with _bars(*columns, quiet=quiet, transient=True) as progress:
        task = progress.add_task("", total=None)
        yield lambda: progress.advance(task)


@contextmanager
def _named_bars(quiet: bool) -> "Iterator[Progress]":
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    names = TextColumn("{task.description}", markup=False)
    with _bars(names, BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), quiet=quiet) as progress:
        yield progress


def steps_text(pace: Pace, step: int, total: int) -> str:
    """`3.2 steps/s, 5 min 20 s left`."""
    rate, left = pace.rate(step), pace.left(step, total)
    return f"{rate:.3g} steps/s, {left}" if left else "begun"


@contextmanager
def training_progress(*, quiet: bool = False) -> Iterator[Callable[[int, int, dict[str, float]], None]]:
    """Give a function of (step, of how many, figures): a bar on a terminal, a line a minute elsewhere, and a line
    for figures."""
    with _named_bars(quiet) as progress:
        task = progress.add_task("training", total=None)
        minutes, paces = Minutes(progress, quiet=quiet), list[Pace]()

        def show(step: int, total: int, figures: dict[str, float]) -> None:
            progress.update(task, completed=step, total=total)
            paces[:] = paces or [Pace(minutes.clock, step)]
            if figures and not quiet:
                words = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
                print_line(progress, f"step {step}/{total}  {words}")
            minutes.print(lambda: f"step {step}/{total}  {steps_text(paces[0], step, total)}")

        yield show


@contextmanager
def steps_progress(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function of (what, done, of how many): a bar for each on a terminal, a line as each begins elsewhere."""
    with _named_bars(quiet) as progress:
        tasks: dict[str, TaskID] = {}
        minutes, paces = Minutes(progress, quiet=quiet), dict[str, Pace]()

        def show(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what], paces[what] = progress.add_task(what, total=total), Pace(minutes.clock, done)
                if progress.disable and not quiet:
                    print_line(progress, f"{what}: {total:,}")
            progress.update(tasks[what], completed=done, total=total)
            minutes.print(lambda: f"{what}: {done:,}/{total:,}  {paces[what].left(done, total)}")

        yield show


@contextmanager
def comparison_progress(*, quiet: bool = False) -> "Iterator[Callable[[Progressed], None]]":
    """Give a function of a comparison's progress: bars on a terminal, a line for each run that is begun elsewhere."""
    with _named_bars(quiet) as progress:
        runs = progress.add_task("runs", total=None)
        inside = progress.add_task("", total=None)
        minutes, paces = Minutes(progress, quiet=quiet), dict[str, Pace]()

        def show(now: "Progressed") -> None:
            progress.update(runs, completed=now.done, total=now.total)
            progress.update(inside, description=printable(now.name), completed=now.step, total=now.steps or None)
            line = f"run {now.done + 1}/{now.total}  {now.name}"
            if progress.disable and not quiet and now.step == 0:
                print_line(progress, line)
            pace = paces.setdefault(f"{now.done} {now.name}", Pace(minutes.clock, now.step))
            if now.steps:
                words = steps_text(pace, now.step, now.steps)
                minutes.print(lambda: f"{line}: step {now.step}/{now.steps}  {words} of this run")

        yield show
