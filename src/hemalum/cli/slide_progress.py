"""Progress over slides: bars with rate and time left on a terminal, one line a minute elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hemalum.cli.console import Minutes, file_bars
from hemalum.errors import duration_text

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from hemalum.inference.slide_batch import SlideProgress as Progressed


@dataclass
class SlideProgress:
    """Progress over slides, and within the step of the slide at work."""

    progress: "Progress"
    slides: "TaskID"
    inside: "TaskID"
    minutes: Minutes
    step: tuple[Path, str] | None = None
    began: float = 0.0

    def update(self, now: "Progressed") -> None:
        """A share of a step is done."""
        moment = self.minutes.clock()
        if (now.path, now.step) != self.step:
            self.step, self.began = (now.path, now.step), moment
            what = "" if now.step == "segment" else f" → {now.step}"
            self.progress.reset(self.inside, total=100, description=f"{now.path.name}{what}")
        pace = describe_pace(now.share, moment - self.began, now.area_mm2)
        self.progress.update(self.inside, completed=round(100 * now.share), pace=pace)
        step = "" if now.step == "segment" else f", {now.step}"
        self.minutes.print(lambda: f"{now.path.name}{step}: {100 * now.share:.0f} %{', ' + pace if pace else ''}")

    def finish(self, _: object = None) -> None:
        """One more slide is done."""
        self.progress.advance(self.slides)


def describe_pace(share: float, seconds: float, area_mm2: float | None) -> str:
    """Tissue per second, where the area is known, and the time left; nothing until that can be told."""
    if share <= 0 or seconds <= 0:
        return ""
    rate = f"{area_mm2 * share / seconds:.3g} mm²/s, " if area_mm2 else ""
    return f"{rate}{duration_text(seconds * (1 - share) / share)} left"


@contextmanager
def slide_progress(total: int, *, quiet: bool = False) -> Iterator[SlideProgress]:
    """Show a bar for `total` slides and one for the step at work; without a terminal a line a minute."""
    with file_bars("{task.fields[pace]}", quiet=quiet) as progress:
        slides = progress.add_task("slides", total=total, pace="")
        inside = progress.add_task("starting", total=100, pace="")
        yield SlideProgress(progress, slides, inside, Minutes(progress, quiet=quiet))
