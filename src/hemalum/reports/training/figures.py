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

Panel = Callable[["Axes", RunLog], tuple[str, str]]


def training_curves(run: RunLog) -> SvgFigure:
    """All curves of a run, one panel below the other; borders of phases and switches of the optimizer are marked."""
    panels: list[Panel] = [_scores, _losses, _rate]
    if run.factors:
        panels.append(_factors)

    def paint(figure: "Figure") -> None:
        rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, axes in zip(panels, rows, strict=True):
            label, title = panel(axes, run)
            axes.set_ylabel(label)
            axes.set_title(title, pad=16 if axes is rows[0] else None)  # room for the phases' names
            if axes.get_legend_handles_labels()[1]:
                axes.legend(loc="center left", bbox_to_anchor=(1.005, 0.5), labelcolor=INK, handlelength=2.6)
            axes.grid(visible=True, color=LINE)
            for stretch in run.stretches[:-1]:
                axes.axvline(stretch.end, color=SOFT, linewidth=1.2)
            for step, _, _ in run.switches:
                axes.axvline(step, color=SOFT, linewidth=1.2, linestyle=(0, (1, 2)))
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


def _scores(axes: "Axes", run: RunLog) -> tuple[str, str]:
    several = len(run.datasets) > 1
    lowest: list[float] = []
    for index, dataset in enumerate(run.datasets):
        for style, (score, title) in enumerate((("pq", "PQ"), ("dice", "Dice"), ("miou", "mIoU by class"))):
            values = run.values(f"{dataset}_{score}")
            lowest += [value for value in values if math.isfinite(value)]
            label = f"{title} {short(dataset, 18)}" if several else title
            _curve(axes, run, values, label, color_of(index if several else style), dash_of(style))
    best = run.best
    if best is not None and run.monitor != "val_loss":
        score = "pq" if run.monitor == "score" else run.monitor
        heights = [best.of(f"{dataset}_{score}") for dataset in run.datasets]
        ring: dict[str, Any] = {"markersize": 9, "markerfacecolor": "none", "markeredgecolor": INK, "zorder": 5}
        axes.plot([best.step] * len(heights), heights, "o", **ring)
    low = min(lowest, default=0.0)
    axes.set_ylim(math.floor(low * 10 - 0.3) / 10 if low > 0.15 else min(0.0, low), 1.0)
    return "score (no unit)", "On the validation images"


def _losses(axes: "Axes", run: RunLog) -> tuple[str, str]:
    _curve(axes, run, run.values("loss"), "loss", INK, "solid", width=2.0)
    if run.monitor == "val_loss":
        _curve(axes, run, run.values("val_loss"), "loss, validation", SOFT, dash_of(1), width=2.0)
    parts = run.parts if len(run.parts) > 1 else []
    for index, part in enumerate(parts):
        label = part.removeprefix("loss_").replace("_", " ")
        _curve(axes, run, run.values(part), short(label, 22), color_of(index), dash_of(index + 1))
    return "loss (no unit)", "On the training crops" + (": the loss, and its weighted parts" if parts else "")


def _rate(axes: "Axes", run: RunLog) -> tuple[str, str]:
    for index, name in enumerate(dict.fromkeys(line.optimizer for line in run.lines)):
        shown = [line.of("lr") if line.optimizer == name else math.nan for line in run.lines]
        _curve(axes, run, shown, name or "learning rate", color_of(index), dash_of(index))
    rates = [rate for rate in run.values("lr") if rate > 0]
    if rates and max(rates) > _WIDE * min(rates):
        # a schedule that ends at 0 must not stretch the axis to nothing
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda rate, _: f"{rate:g}")
        axes.set_ylim(max(min(rates), max(rates) * 1e-4) / 1.6, max(rates) * 1.6)
    else:
        axes.set_ylim(0, max(rates, default=1.0) * 1.1)
    return "learning rate", "Optimizer and learning rate"


def _factors(axes: "Axes", run: RunLog) -> tuple[str, str]:
    for index, name in enumerate(run.factors):
        _curve(axes, run, run.values(name), short(name.replace("_", " "), 22), color_of(index), dash_of(index))
    low, high = axes.get_ylim()
    axes.set_ylim(min(low, -0.03), max(high, 1.05))
    return "value (no unit)", "What the loss schedules or counts"


def _curve(
    axes: "Axes", run: RunLog, values: Sequence[float], label: str, color: str, dash: Any, width: float = 1.6
) -> None:
    """One value for each line of the log; no curve where none of them is a number."""
    if any(map(math.isfinite, values)):
        looks = {"color": color, "linestyle": dash, "linewidth": width, "markersize": 3}
        axes.plot(
            [line.step for line in run.lines],
            values,
            marker="o" if len(run.lines) <= _FEW else "",
            label=label,
            **looks,
        )


def _name_phases(axes: "Axes", run: RunLog) -> None:
    """The phases' names above the first panel, each over its stretch; what is too narrow for its name has none."""
    last_step = max(1, run.lines[-1].step)
    for stretch in run.stretches:
        name = short(stretch.phase, 24)
        if (stretch.end - stretch.start) / last_step > 0.014 * len(name):
            where: dict[str, Any] = {"transform": axes.get_xaxis_transform(), "ha": "center", "va": "bottom"}
            axes.text((stretch.start + stretch.end) / 2, 1.02, name, color=SOFT, fontsize=8.5, **where)


def _describe(run: RunLog) -> str:
    phases = "; ".join(f"{one.phase} to step {one.end}" for one in run.stretches)
    switches = "".join(f" At step {step} {after} takes over from {before}." for step, before, after in run.switches)
    last = run.lines[-1]
    scores = ", ".join(f"Dice on {name} {last.of(f'{name}_dice'):.3f}" for name in run.datasets)
    return f"Curves of the training. Phases: {phases}.{switches} At the end: loss {last.of('loss'):.4g}; {scores}."
