"""The one training loop: phases in order, exact on resume.

Everything random is a function of the step (see `loader`), so a run that was killed and resumed gives the same
weights, bit for bit on a CPU with the same number of threads, as one that was not. Several processes share each batch
(see `distributed`); all of them take the same decisions, the first one writes.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.losses import Distilled
from hemalum.losses.loss import LossInputs, identity
from hemalum.networks import Network, Outputs
from hemalum.systems.phases import Phase, Plateau, ScorePlateau
from hemalum.training.checkpoint import CHECKPOINT_FILE, Log, Progress, load_checkpoint, save_checkpoint
from hemalum.training.context import TrainContext
from hemalum.training.distributed import all_reduce_figures, all_reduce_sum
from hemalum.training.loader import Batch, TrainLoader
from hemalum.training.phase_optimizer import PhaseOptimizer, find_optimizer_end
from hemalum.training.semi_supervised import UnlabeledLoader, semi_supervised_losses, summarize_pseudo_labels
from hemalum.training.teacher import ask_teacher, copy_teacher
from hemalum.training.validation import Validation
from hemalum.training.weights import Weights, averaged, copy_weights, freeze, set_mode, set_stages, update_average


def name_best_file(phase: str) -> str:
    """The file in a run's folder that has the best weights of a phase, averaged if any are."""
    return f"best_{phase}.safetensors"


@dataclass(frozen=True, slots=True)
class PhaseResult:
    """The best weights of one phase: their file, the step they are from, and what tells phases apart.

    `score` is the figure that the last phase monitors, measured with that phase's loss; NaN where there is but one
    phase. `stages_off` are the network's stages that the phase had off.
    """

    phase: str
    weights: Path
    step: int
    score: float = math.nan
    stages_off: tuple[str, ...] = ()


@dataclass(eq=False)
class RunState:
    """What changes while a run trains. `average` are the averaged weights, where the recipe keeps some.

    `teacher` is the network as the training starts, where a phase's loss looks at its maps (`Distilled`).
    """

    context: TrainContext
    network: Network
    progress: Progress
    average: Weights | None = None
    teacher: Network | None = None
    epoch: float = 1.0  # steps in which as many images are drawn as there are
    names: Callable[[int], Sequence[str]] = lambda step: ()  # of the images of a step
    optimizer: PhaseOptimizer | None = None  # of the phase that trains, or trained last

    @property
    def checkpoint(self) -> Path:
        """The file from which the run can go on."""
        return self.context.folder / CHECKPOINT_FILE

    def best(self, phase: Phase) -> Path:
        """The file of the weights with the best score of a phase, averaged if any are."""
        return self.context.folder / name_best_file(phase.name)


@dataclass(frozen=True, eq=False)
class ActivePhase:
    """The phase that trains: its optimizer, the network as Fabric runs it, and the last step that it can have."""

    settings: Phase
    optimizer: PhaseOptimizer
    module: nn.Module
    end: int


@dataclass(eq=False)
class Interval:
    """What was measured since the last line of the log."""

    started: float = field(default_factory=time.perf_counter)
    losses: list[dict[str, Tensor]] = field(default_factory=list)
    factors: dict[str, float] = field(default_factory=dict)  # what the loss schedules, as of the last step
    pseudo_labels: Tensor | None = None  # counts of this process: pixels seen, kept, judged, right

    def summarize(self, fabric: Fabric, optimizer: PhaseOptimizer) -> dict[str, float]:
        """Mean losses by name, steps per second, the learning rate, and what else is scheduled or counted."""
        figures = {name: float(torch.stack([loss[name] for loss in self.losses]).mean()) for name in self.losses[0]}
        figures["steps_per_second"] = len(self.losses) / (time.perf_counter() - self.started)
        figures |= optimizer.figures() | self.factors
        if self.pseudo_labels is not None:
            figures |= summarize_pseudo_labels(all_reduce_figures(fabric, self.pseudo_labels))
        return figures


def fit(
    context: TrainContext, network: Network, loader: TrainLoader, validation: Validation, progress: Progress,
    resume: bool = False,
) -> list[PhaseResult]:  # fmt: skip
    """Train `network` through the phases that are left, and give the best weights of each, the best phase first.

    `progress` is where the run stands, and goes on with it; with `resume` the weights come from the run's checkpoint.
    Raises HemalumError before a step that would spoil the weights.
    """
    recipe, fabric = context.recipe, context.fabric
    # on the device before anything is copied from it: averaged weights, a checkpoint's optimizer state
    network = network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = copy_weights(network) if recipe.ema else None
    epoch = len(loader.prepared) / recipe.batch
    run = RunState(context, network, progress, average, copy_teacher(recipe.phases, network), epoch, loader.names)
    if not resume:  # so that a run killed before its first regular checkpoint can be resumed as well
        _save(run)
    log_bytes = progress.log_bytes if resume else 0
    with closing(Log(context.folder, log_bytes)) if fabric.is_global_zero else nullcontext() as log:
        while progress.phase < len(recipe.phases):
            phase = _begin_phase(run, resume)
            resume = False
            if progress.phase > 0 and progress.phase_step == 0 and phase.end > progress.step:
                # what it starts from is the first that it has to surpass
                phase.optimizer.set_rate(progress.step, 0, 0)
                figures = phase.optimizer.figures() | _validate(run, phase, validation)
                _judge(run, phase, figures)
                if log:
                    log.write(progress.step, phase.settings.name, phase.optimizer.name, figures)
            settings = phase.settings.semi_supervised
            views = UnlabeledLoader(context, loader.unlabeled, settings) if settings is not None else None
            interval = Interval()
            # none where the phases before have left it no steps
            for batch in loader.batches(progress.step, phase.end, views, fabric.device):
                _step(run, phase, batch, interval)
                figures = {}
                ended = progress.step == phase.end
                if ended or progress.phase_step % recipe.validate_every == 0:
                    figures = interval.summarize(fabric, phase.optimizer) | _validate(run, phase, validation)
                    ended |= _judge(run, phase, figures)
                    if log:
                        log.write(progress.step, phase.settings.name, phase.optimizer.name, figures)
                    interval = Interval()
                if context.on_progress and fabric.is_global_zero:
                    context.on_progress(progress.step, recipe.steps, figures)
                if ended:
                    break
                if progress.step % recipe.checkpoint_every == 0:
                    _save(run, log)
            _end_phase(run)
            _save(run, log)
    return _rank_phases(run, validation)


def open_phase(context: TrainContext, network: Network, index: int) -> Callable[[Batch], float]:
    """Give what takes a step of one phase of the recipe, as the first of a run, and gives the loss before it.

    It is to be measured, not to be kept.
    """
    teacher = copy_teacher(context.recipe.phases, network)
    run = RunState(context, network, Progress(phase=index), teacher=teacher)
    phase = _begin_phase(run)

    def take_step(batch: Batch) -> float:
        interval = Interval()
        _step(run, phase, batch, interval)
        return float(interval.losses[0]["loss"])

    return take_step


def _save(run: RunState, log: Log | None = None) -> None:
    progress, phases = run.progress, run.context.recipe.phases
    if log:
        progress.log_bytes = log.flush()
    optimizer = None if run.optimizer is None else run.optimizer.optimizer
    # at the end of a phase only one that carries on needs the state of its optimizer
    if progress.phase_step == 0 and not (progress.phase < len(phases) and phases[progress.phase].keep_optimizer):
        optimizer = None
    if run.context.fabric.is_global_zero:
        save_checkpoint(run.checkpoint, progress, run.network, run.average, optimizer)


def _begin_phase(run: RunState, resume: bool = False) -> ActivePhase:
    context, progress = run.context, run.progress
    phase = context.recipe.phases[progress.phase]
    start = progress.step - progress.phase_step
    run.optimizer = PhaseOptimizer(
        phase,
        freeze(run.network, phase),
        progress.switch,
        end=find_optimizer_end(context.recipe.phases, progress.phase, start),
        run_steps=context.recipe.steps,
        previous=run.optimizer if phase.keep_optimizer else None,
    )
    if resume:
        load_checkpoint(run.checkpoint, run.network, run.average, run.optimizer.optimizer)
    # validation, with windows of many sizes, runs the network as it is
    module = cast(nn.Module, torch.compile(run.network)) if context.compile else run.network
    module = context.fabric.setup_module(module)
    run.optimizer.set_up(context.fabric)
    return ActivePhase(phase, run.optimizer, module, phase.until.last_step(start))


def _step(run: RunState, phase: ActivePhase, batch: Batch, interval: Interval) -> None:
    """One update of the weights; notes the losses of the whole batch, by name."""
    recipe, fabric, progress = run.context.recipe, run.context.fabric, run.progress
    phase.optimizer.set_rate(progress.step, progress.phase_step, progress.reductions)
    # a network that draws (dropout) draws something else for each part of the batch
    torch.manual_seed(recipe.seed * 1_000_003 + progress.step + 500_000_003 * fabric.global_rank)
    parts = _compute_losses(run, phase, batch, interval)
    loss = torch.stack(list(parts.values())).sum()
    losses = all_reduce_figures(fabric, torch.stack([loss, *parts.values()]).detach()) / fabric.world_size
    phase.optimizer.optimizer.zero_grad(set_to_none=True)
    fabric.backward(loss)
    norm = fabric.clip_gradients(
        phase.module, phase.optimizer.optimizer, max_norm=recipe.clip or math.inf, error_if_nonfinite=False
    )
    _check_finite(run, phase, losses[0], norm)
    named = dict(zip(parts, losses[1:], strict=True))
    phase.optimizer.step(phase.optimizer.watched_loss(losses[0], named, interval.factors), progress.step)
    if run.average is not None:
        update_average(run.average, run.network, recipe.ema, progress.step)
    progress.step += 1
    progress.phase_step += 1
    interval.losses.append(dict(zip(("loss", *(f"loss_{name}" for name in parts)), losses, strict=True)))


def _compute_losses(run: RunState, phase: ActivePhase, batch: Batch, interval: Interval) -> dict[str, Tensor]:
    """Run the network on a batch; gives the weighted parts of the phase's loss by name."""
    fabric, loss = run.context.fabric, phase.settings.loss
    images, targets, conditions, extra, views, valid = fabric.to_device(
        (batch.images, batch.targets, batch.conditions, batch.extra, batch.views, batch.valid)
    )
    teacher = ask_teacher(fabric, run.teacher if isinstance(loss, Distilled) else None, images, conditions)
    sum_over_processes = all_reduce_sum if fabric.world_size > 1 else identity

    def compute_supervised(outputs: Outputs) -> dict[str, Tensor]:
        inputs = LossInputs(
            outputs,
            targets,
            run.context.representation.heads,
            extra,
            valid,
            epoch=1 + int(run.progress.step / run.epoch),
            phase_step=run.progress.phase_step,
            run_steps=run.context.recipe.steps,
            all_reduce_sum=sum_over_processes,
            teacher=teacher,
        )
        interval.factors = loss.factors(inputs)
        return loss(inputs)

    settings = phase.settings.semi_supervised
    if settings is None:
        outputs = Outputs.of(phase.module(images, **conditions))
        parts = compute_supervised(outputs)
        return parts if fabric.world_size == 1 else _with_aux_logits(parts, outputs)
    logits = _predict(run, views["weak"])
    parts, counts = semi_supervised_losses(
        settings, phase.module, logits, images, views, compute_supervised, sum_over_processes
    )
    interval.pseudo_labels = counts if interval.pseudo_labels is None else interval.pseudo_labels + counts
    return parts


def _with_aux_logits(parts: dict[str, Tensor], outputs: Outputs) -> dict[str, Tensor]:
    """Let the loss know further heads with weight 0: processes that train together wait for every gradient."""
    if not outputs.aux_logits:
        return parts
    first = next(iter(parts))
    zero = torch.stack([logits.mean() for logits in outputs.aux_logits]).sum() * 0
    return parts | {first: parts[first] + zero}


@torch.no_grad()
def _predict(run: RunState, images: Tensor) -> Tensor:
    """Logits of the weights as they stand, in eval mode."""
    run.network.eval()
    with run.context.fabric.autocast():
        logits: Tensor = run.network(images).float()
    set_mode(run.network)
    return logits


def _check_finite(run: RunState, phase: ActivePhase, loss: Tensor, norm: Tensor | None) -> None:
    """Raise HemalumError, the same in every process, before a step that would spoil the weights."""
    precision = run.context.recipe.precision
    # in 16-mixed infinite gradients are expected: the scaler leaves such a step out and scales less
    if norm is None or precision == "16-mixed":
        norm = torch.zeros_like(loss)
    if torch.isfinite(loss + norm):
        return
    step = run.progress.step
    what = "gradient" if torch.isfinite(loss) else "loss"
    low = precision != "32-true"
    raise HemalumError(
        f"the {what} is not finite at step {step} of phase '{phase.settings.name}', on a batch of these images: "
        f"{', '.join(run.names(step))}; the last good weights are in {run.checkpoint}; "
        f"lower the learning rate{', ' if low else ' or '}set clip{' or precision: 32-true' if low else ''}"
    )


def _validate(run: RunState, phase: ActivePhase, validation: Validation) -> dict[str, float]:
    loss = phase.settings.loss if phase.settings.until.monitor == "loss" else None
    with averaged(run.network, run.average) as network:
        return validation.score(network, loss)


def _judge(run: RunState, phase: ActivePhase, figures: dict[str, float]) -> bool:
    """Note the score and keep the best weights; True when the phase's patience or its rise is over."""
    progress, until, schedule = run.progress, phase.settings.until, phase.settings.schedule
    score = until.score(figures)
    better = progress.phase_best is None or score > progress.phase_best
    if better and run.context.fabric.is_global_zero:
        with averaged(run.network, run.average) as network, atomic_path(run.best(phase.settings)) as temporary:
            save_file({name: value.contiguous() for name, value in network.state_dict().items()}, temporary)
    if better:
        progress.best_steps[phase.settings.name] = progress.step
    if better and not math.isnan(score):  # weights are kept meanwhile, and whatever comes is better
        progress.phase_best, progress.waiting, progress.plateau_waiting = score, 0, 0
    else:
        progress.waiting += 1
        progress.plateau_waiting += 1
    if isinstance(schedule, Plateau) and progress.plateau_waiting >= schedule.patience:
        progress.reductions += 1
        progress.plateau_waiting = 0
    if until.score_plateau is not None:
        progress.phase_dice.append(figures["dice"])
        if has_plateaued(until.score_plateau, progress.phase_dice, progress.phase_step / until.steps):
            return True
    return until.patience is not None and progress.waiting >= until.patience


def _rank_phases(run: RunState, validation: Validation) -> list[PhaseResult]:
    """The best weights of each phase, the best phase first; of equals the later one.

    Phases may have different losses and monitors: all are measured by those of the last.
    """
    fabric, phases = run.context.fabric, run.context.recipe.phases
    fabric.barrier()  # the first process has written them
    until, loss = phases[-1].until, phases[-1].loss if phases[-1].until.monitor == "loss" else None
    measured = [phase for phase in phases if phase.name in run.progress.best_steps]
    ranked: list[tuple[float, PhaseResult]] = []
    for phase in measured:
        path, score = run.best(phase), math.nan
        if len(measured) > 1:
            run.network.load_state_dict(load_file(path, device=str(fabric.device)))
            set_stages(run.network, phase)
            score = until.score(validation.score(run.network.eval(), loss))
        off = tuple(name for name, on in phase.stage_toggles.items() if not on)
        result = PhaseResult(
            phase.name,
            path,
            run.progress.best_steps[phase.name],
            until.shown(score),
            off,
        )
        ranked.insert(0, (-math.inf if math.isnan(score) else score, result))
    return [result for _, result in sorted(ranked, key=lambda pair: pair[0], reverse=True)]


def has_plateaued(rule: ScorePlateau, scores: Sequence[float], done: float) -> bool:
    """Whether scores have leveled off by `rule`, when the share `done` of the phase's steps is over."""
    recent, before = scores[-rule.patience :], scores[: -rule.patience]
    best = max((score for score in before if not math.isnan(score)), default=math.nan)
    if done < rule.earliest or math.isnan(best):
        return False
    return all(best - rule.fall <= score < best + rule.delta for score in recent)


def _end_phase(run: RunState) -> None:
    """Count the phase as over; the next one goes on from the weights that it wants."""
    phases, progress = run.context.recipe.phases, run.progress
    best = run.best(phases[progress.phase])
    following = phases[progress.phase + 1] if progress.phase + 1 < len(phases) else None
    progress.next_phase(keep_optimizer=following is not None and following.keep_optimizer)
    if following is not None and following.start == "best" and best.is_file():
        fabric = run.context.fabric
        fabric.barrier()  # the first process has written them
        run.network.load_state_dict(load_file(best, device=str(fabric.device)))
        if run.average is not None:
            run.average = copy_weights(run.network)
