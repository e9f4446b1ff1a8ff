"""The curves of one training on one time axis: scores, losses, learning rate, and what was scheduled."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from hemalum.reports.style import INK, LINE, SOFT, SvgFigure, color_of, dash_of, draw, short
from hemalum.reports.training.log import RunLog

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 9.4, 2.15  # inches, of each panel
_FEW = 40  # lines of a log that still get a mark each
_WIDE = 20  # a rate that changes by this factor is drawn on a logarithmic axis

Panel = Callable[["Axes", RunLog], None]


def training_curves(run: RunLog) -> SvgFigure:
    """All curves of a run, one panel below the other; borders of phases and switches of the optimizer are marked."""
    panels: list[Panel] = [_scores, _losses, _rate]
    if run.factors:
        panels.append(_factors)

    def paint(figure: "Figure") -> None:
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, axes in zip(panels, rows, strict=True):
            panel(axes, run)
            _mark(axes, run)
        _name_phases(rows[0], run)
        rows[-1].set_xlabel("Training step")
        rows[-1].xaxis.set_major_formatter(lambda step, _: f"{step:,.0f}")
        rows[-1].set_xlim(0, run.lines[-1].step * 1.01)

    return SvgFigure(
        name="training",
        caption="Gray lines: where a phase ends and the next begins. Dotted: another optimizer takes over. "
        "Ring: the validation whose weights the model file has.",
        alt_text=_describe(run),
        svg=draw((WIDTH, 0.6 + HEIGHT * len(panels)), paint),
    )


def _scores(axes: "Axes", run: RunLog) -> None:
    for index, dataset in enumerate(run.datasets):
        of = f" {short(dataset, 18)}" if len(run.datasets) > 1 else ""
        for style, (score, title) in enumerate((("pq", "PQ"), ("dice", "Dice"), ("miou", "mIoU by class"))):
            if not any(f"{dataset}_{score}" in line.figures for line in run.lines):
                continue
            color = color_of(index if len(run.datasets) > 1 else style)
            _curve(axes, run, f"{dataset}_{score}", f"{title}{of}", color, dash_of(style))
    best = run.best
    if best is not None and run.monitor != "val_loss":
        monitored = [f"{dataset}_{'pq' if run.monitor == 'score' else run.monitor}" for dataset in run.datasets]
        heights = [best.of(name) for name in monitored]
        axes.plot(
            [best.step] * len(monitored),
            heights,
            "o",
            markersize=9,
            markerfacecolor="none",
            markeredgecolor=INK,
            zorder=5,
        )
    axes.set_ylim(
        _low([line.of(f"{d}_{s}") for line in run.lines for d in run.datasets for s in ("pq", "dice", "miou")]), 1.0
    )
    axes.set_ylabel("score (no unit)")
    axes.set_title("On the validation images", pad=16)
    _legend(axes)


def _losses(axes: "Axes", run: RunLog) -> None:
    _curve(axes, run, "loss", "loss", INK, "solid", width=2.0)
    if run.monitor == "val_loss":
        _curve(axes, run, "val_loss", "loss, validation", SOFT, dash_of(1), width=2.0)
    if len(run.parts) > 1:
        for index, part in enumerate(run.parts):
            label = part.removeprefix("loss_").replace("_", " ")
            _curve(axes, run, part, short(label, 22), color_of(index), dash_of(index + 1))
    axes.set_ylabel("loss (no unit)")
    axes.set_title("On the training crops" + (": the loss, and its weighted parts" if len(run.parts) > 1 else ""))
    _legend(axes)


def _rate(axes: "Axes", run: RunLog) -> None:
    names = list(dict.fromkeys(line.optimizer for line in run.lines))
    rates = [line.of("lr") for line in run.lines if line.of("lr") > 0]
    for index, name in enumerate(names):
        shown = [line.of("lr") if line.optimizer == name else math.nan for line in run.lines]
        _plot(axes, run, shown, name or "learning rate", color_of(index), dash_of(index))
    if rates and max(rates) > _WIDE * min(rates):
        # a schedule that ends at 0 must not stretch the axis to nothing
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.set_ylim(max(min(rates), max(rates) * 1e-4) / 1.6, max(rates) * 1.6)
    else:
        axes.set_ylim(0, max(rates, default=1.0) * 1.1)
    axes.set_ylabel("learning rate")
    axes.set_title("Optimizer and learning rate")
    _legend(axes)


def _factors(axes: "Axes", run: RunLog) -> None:
    for index, name in enumerate(run.factors):
        _curve(axes, run, name, short(name.replace("_", " "), 22), color_of(index), dash_of(index))
    axes.set_ylabel("value (no unit)")
    axes.set_title("What the loss schedules or counts")
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.03), max(high, 1.05))
    _legend(axes)


def _curve(axes: "Axes", run: RunLog, name: str, label: str, color: str, dash: object, width: float = 1.6) -> None:
    _plot(axes, run, [line.of(name) for line in run.lines], label, color, dash, width)


def _plot(
    axes: "Axes", run: RunLog, values: Sequence[float], label: str, color: str, dash: object, width: float = 1.6
) -> None:
    points = [(line.step, value) for line, value in zip(run.lines, values, strict=True)]
    if not any(math.isfinite(value) for _, value in points):
        return
    steps, heights = zip(*points, strict=True)
    mark = "o" if len(run.lines) <= _FEW else ""
    axes.plot(
        steps, heights, color=color, linestyle=dash, linewidth=width, marker=mark, markersize=3, label=label
    )  # fmt: skip


def _mark(axes: "Axes", run: RunLog) -> None:
    for stretch in run.stretches[:-1]:
        axes.axvline(stretch.end, color=SOFT, linewidth=1.2)
    for step, _, _ in run.switches:
        axes.axvline(step, color=SOFT, linewidth=1.2, linestyle=(0, (1, 2)))


def _name_phases(axes: "Axes", run: RunLog) -> None:
    """The phases' names above the first panel, each over its stretch; what is too narrow for its name has none."""
    last_step = max(1, run.lines[-1].step)
    for stretch in run.stretches:
        name = short(stretch.phase, 24)
        if (stretch.end - stretch.start) / last_step > 0.014 * len(name):
            where: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text((stretch.start + stretch.end) / 2, 1.02, name, color=SOFT, fontsize=8.5, **where)


def _legend(axes: "Axes") -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), labelcolor=INK, handlelength=2.6)
    axes.grid(visible=True, color=LINE)


def _low(values: Sequence[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    low = min(finite, default=0.0)
    return math.floor(low * 10 - 0.3) / 10 if low > 0.15 else min(0.0, low)


def _describe(run: RunLog) -> str:
    phases = "; ".join(f"{one.phase} to step {one.end}" for one in run.stretches)
    switches = "".join(f" At step {step} {after} takes over from {before}." for step, before, after in run.switches)
    last = run.lines[-1]
    scores = ", ".join(f"Dice on {name} {last.of(f'{name}_dice'):.3f}" for name in run.datasets)
    return f"Curves of the training. Phases: {phases}.{switches} At the end: loss {last.of('loss'):.4g}; {scores}."
