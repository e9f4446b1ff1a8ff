"""The one training loop: phases in order, exact on resume.

Everything random is a function of the step (see `stream`), so a run that was killed and resumed gives the same
weights, bit for bit on a CPU with the same number of threads, as one that was not. Several processes share each batch
(see `processes`); all of them take the same decisions, the first one writes.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.losses.loss import Given, whole
from hemalum.networks.outputs import Outputs
from hemalum.systems.phases import Levelled, Phase, Plateau
from hemalum.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from hemalum.training.consistency import two_stream_losses, worth
from hemalum.training.log import Log
from hemalum.training.parts import set_switches
from hemalum.training.processes import add_up, add_up_figures
from hemalum.training.recipe import Recipe
from hemalum.training.stream import Batch, Stream
from hemalum.training.switching import end_of
from hemalum.training.unlabelled import UnlabelledStream
from hemalum.training.updates import Updates
from hemalum.training.validation import Validation

Watcher = Callable[[int, int, dict[str, float]], None]


@dataclass
class _Window:
    """What has been seen since the last line of the log."""

    started: float = field(default_factory=time.perf_counter)
    losses: list[dict[str, Tensor]] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        row = {name: float(torch.stack([loss[name] for loss in self.losses]).mean()) for name in self.losses[0]}
        return row | {"steps_per_second": len(self.losses) / (time.perf_counter() - self.started)}


class Loop:
    """One run of a recipe in a folder: `checkpoint.safetensors`, `best.safetensors`, `log.jsonl`.

    `watch(step, steps in all, {} or the line just logged)` is called after every step. With `compiled` the network's
    part of a step is compiled by PyTorch, and rounds otherwise.
    """

    def __init__(
        self, recipe: Recipe, network: nn.Module, stream: Stream, validation: Validation, folder: Path,
        fabric: Fabric, progress: Progress, watch: Watcher | None = None, compiled: bool = False,
    ) -> None:  # fmt: skip
        self.recipe, self.stream, self.validation = recipe, stream, validation
        self.folder, self.fabric, self.progress, self.watch = folder, fabric, progress, watch
        self.compiled = compiled
        self.heads = stream.representation.heads
        # on the device before anything is copied from it: averaged weights, a checkpoint's optimiser state
        self.network = network.to(fabric.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.add_up = add_up if fabric.world_size > 1 else whole
        self.average: dict[str, Tensor] | None = None
        if recipe.ema:
            self.average = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.total = recipe.steps
        self.factors: dict[str, float] = {}  # what the loss schedules, as of the last step
        self.counts: Tensor | None = None  # of pseudo-labels since the last line of the log, here: seen, kept, right
        self.updates: Updates | None = None  # of the phase that runs, or ran last

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    @property
    def best(self) -> Path:
        return self.folder / "best.safetensors"

    def run(self, resume: bool) -> None:
        """Run the phases that are left."""
        if not resume:  # so that a run killed before its first regular checkpoint can be resumed as well
            self._save(None)
        with self._log(self.progress.log_bytes if resume else 0) as log:
            while self.progress.phase < len(self.recipe.phases):
                self._run_phase(self.recipe.phases[self.progress.phase], log, resume)
                resume = False

    @contextmanager
    def _log(self, keep: int) -> Iterator[Log | None]:
        """The log, which only the first process writes."""
        if not self.fabric.is_global_zero:
            yield None
            return
        with Log(self.folder, keep) as log:
            yield log

    def _save(self, optimiser: torch.optim.Optimizer | None) -> None:
        # at the end of a phase only one that carries on needs the state of its optimiser
        following = self.recipe.phases[self.progress.phase : self.progress.phase + 1]
        if self.progress.phase_step == 0 and not (following and following[0].carry):
            optimiser = None
        if self.fabric.is_global_zero:
            save_checkpoint(self.checkpoint, self.progress, self.network, self.average, optimiser)

    def _updates(self, phase: Phase) -> Updates:
        state, phases = self.progress, self.recipe.phases
        ends = end_of(phases, state.phase, state.step - state.phase_step)
        before = self.updates if phase.carry else None
        self.updates = Updates(phase, self._freeze(phase), state.switch, ends, self.total, before)
        return self.updates

    def _run_phase(self, phase: Phase, log: Log | None, resume: bool) -> None:
        updates = self._updates(phase)
        if resume:
            self.progress = load_checkpoint(self.checkpoint, self.network, self.average, updates.optimiser)
            updates.state = self.progress.switch
        # validation, with windows of many sizes, runs the network as it is
        module = cast(nn.Module, torch.compile(self.network)) if self.compiled else self.network
        network = self.fabric.setup_module(module)
        updates.set_up(self.fabric)
        state, window = self.progress, _Window()
        end = state.step - state.phase_step + phase.until.steps
        if phase.until.total is not None:
            end = min(end, phase.until.total)
        if end <= state.step:  # the phases before have left it no steps
            self._next_phase()
            self._save(updates.optimiser)
            return
        views = None
        if phase.unlabelled is not None:
            others, share = self.stream.others, self.stream.share
            views = UnlabelledStream(self.recipe, others, phase.unlabelled, self.stream.representation, share)
        for batch in self.stream.batches(state.step, end, views, self.fabric.device):
            window.losses.append(self._step(phase, network, updates, batch))
            row: dict[str, float] = {}
            ended = state.step == end
            if ended or state.phase_step % self.recipe.validate_every == 0:
                row = window.summary() | updates.figures() | self.factors | self._worth() | self._validate(phase)
                ended |= self._judge(phase, row)
                if log:
                    log.write(state.step, phase.name, updates.name, row)
                window = _Window()
            if self.watch and self.fabric.is_global_zero:
                self.watch(state.step, self.total, row)
            if ended:
                self._next_phase()
            if ended or state.step % self.recipe.checkpoint_every == 0:
                state.log_bytes = log.flush() if log else 0
                self._save(updates.optimiser)
            if ended:
                return

    def _next_phase(self) -> None:
        """End the phase; the next one goes on from the weights that it wants."""
        following = self.recipe.phases[self.progress.phase + 1 : self.progress.phase + 2]
        self.progress.next_phase(carries=bool(following) and following[0].carry)
        if following and following[0].start == "best" and self.best.is_file():
            self.fabric.barrier()  # the first process has written them
            self.network.load_state_dict(load_file(self.best, device=str(self.fabric.device)))
            if self.average is not None:
                self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def _step(self, phase: Phase, network: nn.Module, updates: Updates, batch: Batch) -> dict[str, Tensor]:
        """One update; gives the losses by name, those of the whole batch."""
        state = self.progress
        updates.set_rate(state.step, state.phase_step, state.reductions)
        # a network that draws (dropout) draws something else for each part of the batch
        torch.manual_seed(self.recipe.seed * 1_000_003 + state.step + 500_000_003 * self.fabric.global_rank)
        parts = self._losses(phase, network, batch)
        loss = torch.stack(list(parts.values())).sum()
        losses = add_up_figures(self.fabric, torch.stack([loss, *parts.values()]).detach()) / self.fabric.world_size
        updates.optimiser.zero_grad(set_to_none=True)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            network, updates.optimiser, max_norm=self.recipe.clip or math.inf, error_if_nonfinite=False
        )
        self._check(phase, losses[0], norm)
        updates.step(losses[0], state.step)
        self._follow()
        state.step += 1
        state.phase_step += 1
        return dict(zip(("loss", *(f"loss_{name}" for name in parts)), losses, strict=True))

    def _losses(self, phase: Phase, network: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Run the network on a batch; gives the weighted parts of the phase's loss by name."""
        images, targets, conditions, extra, views = self.fabric.to_device(
            (batch.images, batch.targets, batch.conditions, batch.extra, batch.views)
        )

        def judge(outputs: Outputs) -> dict[str, Tensor]:
            given = self._given(outputs, targets, extra)
            self.factors = phase.loss.factors(given)
            return phase.loss(given)

        if phase.unlabelled is None:
            outputs = Outputs.of(network(images, **conditions))
            return self._with_sides(judge(outputs), outputs)
        weak = self._evaluated(views["weak"])
        parts, counts = two_stream_losses(phase.unlabelled, network, weak, images, views, judge, self.add_up)
        self.counts = counts if self.counts is None else self.counts + counts
        return parts

    def _with_sides(self, parts: dict[str, Tensor], outputs: Outputs) -> dict[str, Tensor]:
        """Let the loss know further heads with weight 0, if several processes train: they wait for every gradient."""
        if self.fabric.world_size == 1 or not outputs.sides:
            return parts
        first = next(iter(parts))
        nothing = torch.stack([side.mean() for side in outputs.sides]).sum() * 0
        return parts | {first: parts[first] + nothing}

    @torch.no_grad()
    def _evaluated(self, images: Tensor) -> Tensor:
        """Logits of the weights as they stand, in eval mode."""
        self.network.eval()
        with self.fabric.autocast():
            logits: Tensor = self.network(images).float()
        self._set_mode()
        return logits

    def _worth(self) -> dict[str, float]:
        """What pseudo-labels were worth since the last line of the log."""
        if self.counts is None:
            return {}
        counts, self.counts = add_up_figures(self.fabric, self.counts), None
        return worth(counts)

    def _given(self, outputs: Outputs, targets: Tensor, extra: Mapping[str, Tensor]) -> Given:
        """What the phase's loss looks at."""
        state, epoch = self.progress, len(self.stream.prepared) / self.recipe.batch
        return Given(
            outputs,
            targets,
            self.heads,
            extra,
            epoch=1 + int(state.step / epoch),
            phase_step=state.phase_step,
            phase_epoch=state.phase_step / epoch,
            run_steps=self.total,
            add_up=self.add_up,
        )

    def _check(self, phase: Phase, loss: Tensor, norm: Tensor | None) -> None:
        """Raise HemalumError, the same in every process, before a step that would spoil the weights."""
        # in 16-mixed infinite gradients are expected: the scaler leaves such a step out and scales less
        if norm is None or self.recipe.precision == "16-mixed":
            norm = torch.zeros_like(loss)
        if torch.isfinite(loss + norm):
            return
        step = self.progress.step
        what = "gradient" if torch.isfinite(loss) else "loss"
        low = self.recipe.precision != "32-true"
        raise HemalumError(
            f"the {what} is not finite at step {step} of phase '{phase.name}', on a batch of these images: "
            f"{', '.join(self.stream.names(step))}; the last good weights are in {self.checkpoint}; "
            f"lower the learning rate{', ' if low else ' or '}set clip{' or precision: 32-true' if low else ''}"
        )

    def _freeze(self, phase: Phase) -> list[nn.Parameter]:
        """Let only the phase's parameters train; modules without any go to eval mode, and some parts are off."""
        set_switches(self.network, phase)
        for name, parameter in self.network.named_parameters():
            parameter.requires_grad_(phase.trains(name))
        chosen = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        if not chosen:
            raise HemalumError(f"phase '{phase.name}': no parameter matches {', '.join(phase.train)}")
        self._set_mode()
        return chosen

    def _set_mode(self) -> None:
        """What trains is in train mode; a module without parameters (dropout) goes with the one that holds it."""

        def follow(module: nn.Module, training: bool) -> None:
            own = list(module.parameters())
            module.training = any(parameter.requires_grad for parameter in own) if own else training
            for child in module.children():
                follow(child, module.training)

        follow(self.network, True)

    def _follow(self) -> None:
        """Move the averaged weights; the decay starts low so that the beginning is forgotten."""
        if self.average is None:
            return
        decay = min(self.recipe.ema, (1 + self.progress.step) / (10 + self.progress.step))
        moving: list[Tensor] = []
        values: list[Tensor] = []
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                moving.append(self.average[name])
                values.append(value)
            else:
                self.average[name].copy_(value)
        torch._foreach_lerp_(moving, values, 1 - decay)  # a kernel or two, not one for each tensor

    def _validate(self, phase: Phase) -> dict[str, float]:
        with self._averaged() as network:
            return self.validation.score(network, self.fabric, phase.loss if phase.until.monitor == "loss" else None)

    def _judge(self, phase: Phase, row: dict[str, float]) -> bool:
        """Note the score and keep the best weights; True when the phase's patience or its rise is over."""
        state = self.progress
        column = {"pq": "score", "dice": "dice", "miou": "miou", "loss": "val_loss"}[phase.until.monitor]
        score = -row[column] if phase.until.monitor == "loss" else row[column]
        if state.phase_best is None or score > state.phase_best:
            state.phase_best, state.waiting, state.plateau_waiting = score, 0, 0
            if self.fabric.is_global_zero:
                with self._averaged() as network, atomic_path(self.best) as temporary:
                    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, temporary)
        else:
            state.waiting += 1
            state.plateau_waiting += 1
        if isinstance(phase.schedule, Plateau) and state.plateau_waiting >= phase.schedule.patience:
            state.reductions += 1
            state.plateau_waiting = 0
        if phase.until.levelled is not None:
            state.phase_dice.append(row["dice"])
            if has_levelled(phase.until.levelled, state.phase_dice, state.phase_step / phase.until.steps):
                return True
        return phase.until.patience is not None and state.waiting >= phase.until.patience

    @contextmanager
    def _averaged(self) -> Iterator[nn.Module]:
        """The network in eval mode, with the averaged weights where there are any, for the block's time."""
        own = {name: value.detach().clone() for name, value in self.network.state_dict().items()}
        if self.average is not None:
            self.network.load_state_dict(self.average)
        self.network.eval()
        try:
            yield self.network
        finally:
            self.network.load_state_dict(own)
            self._set_mode()


def has_levelled(rule: Levelled, scores: Sequence[float], done: float) -> bool:
    """Whether scores have levelled off by `rule`, when the share `done` of the phase's steps is over."""
    recent, before = scores[-rule.window :], scores[-2 * rule.window : -rule.window]
    if done < rule.earliest or len(before) < rule.window:
        return False
    return sum(recent) / len(recent) - sum(before) / len(before) < rule.delta
