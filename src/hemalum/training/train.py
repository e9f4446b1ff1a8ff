"""Train a recipe on datasets: the verb `train`."""

import ctypes
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from safetensors.numpy import load_file

from hemalum.data.dataset import Dataset, hash_lines
from hemalum.data.stain.normalization import StainNormalizer
from hemalum.data.stain.statistics import StainTarget
from hemalum.data.stain.target import fit_stain_target
from hemalum.errors import HemalumError, nearest
from hemalum.files import write_text
from hemalum.manifest import check_free, lock_folder, read_manifest, write_manifest
from hemalum.models.card import Card, Pretrained
from hemalum.models.file import save_model
from hemalum.models.license import check_license
from hemalum.models.sam import SamEncoder, load_sam
from hemalum.training.building import build_for_data, check_losses
from hemalum.training.checkpoint import CHECKPOINT_FILE, Progress, read_progress
from hemalum.training.context import ProgressCallback, TrainContext
from hemalum.training.distributed import abort_together, check_batch, report_once, share_batch_norm, start_processes
from hemalum.training.embeddings import embed_all
from hemalum.training.fit import PhaseResult, fit
from hemalum.training.head import keep_head, load_initial
from hemalum.training.model_card import describe, report_license
from hemalum.training.recipe import Recipe, Source, open_recipe
from hemalum.training.semi_supervised import find_parts, open_train_loader
from hemalum.training.start import load_start, open_start, report_worse
from hemalum.training.teacher import check_teacher
from hemalum.training.unlabeled_images import UnlabeledImages, as_entries
from hemalum.training.validation import Validation

log = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"
RECIPE_FILE = "recipe.yaml"
PHASES_FILE = "phases.json"  # of several phases: which is delivered, and the score of each
KIND = "training"  # of the manifest: digests of recipe and data

Data = Mapping[str, Path | str | Dataset] | Sequence[Path | str | Dataset]


def train(  # noqa: PLR0913 (the verb's options)
    recipe: Recipe | Path | str,
    data: Data,
    out: Path | str,
    *,
    resume: bool = False,
    accelerator: str = "auto",
    devices: int | None = None,
    threads: int | None = None,
    workers: int | None = None,
    initial: Path | str | None = None,
    license: str | None = None,
    stain: StainTarget | None = None,
    unlabeled: Sequence[Path | str | UnlabeledImages] = (),
    compile: bool = False,
    on_progress: ProgressCallback | None = None,
) -> Path:
    """Train `recipe` on dataset folders and give the path of the model file, `out`/model.safetensors.

    It has the best weights of the phase that is best by what the last phase monitors; of several phases each has its
    model_PHASE.safetensors beside it.

    `data` maps the recipe's dataset names to dataset folders or open ones, or lists those, which know their names.
    `resume` goes on where `out` stands, with the same recipe and data. `workers` are the processes that make batches
    ahead of their use: by default one beside a training on the CPU, all cores but two beside a GPU. `initial` is a
    model file whose weights are the start; what it has no maps for starts afresh, which the log says. `license` is
    the model's, in the place of the recipe's or of what the licenses of its data allow. `stain` are colors that every
    image is brought to, instead of those that the recipe's `stain_normalization` would fit.
    `unlabeled` are images without labels, in the place of the recipe's, for a method that learns from some: image
    files, whole slides, folders of these, dataset folders.
    `compile` has PyTorch compile the network first, which takes a while and changes rounding.
    Under torchrun or srun the processes share each batch; `devices` starts so many on this machine, each by the
    program's own command line. Only the first of them calls `on_progress`, and all return when the model file is
    there. Raises HemalumError for a recipe, data or run folder that do not fit together, before any training.
    """
    with report_once():
        recipe = recipe if isinstance(recipe, Recipe) else open_recipe(recipe)
        changes: dict[str, Any] = {"unlabeled": as_entries(unlabeled)} if unlabeled else {}
        changes |= {} if license is None else {"license": check_license(license)}
        recipe = recipe.model_copy(update=changes)
        check_losses(recipe)
        fabric = start_processes(accelerator, devices, recipe.precision)
        workers = count_workers(workers, fabric)
    first, folder = fabric.is_global_zero, Path(out)
    with abort_together(fabric), explain_compiler_errors(compile), ExitStack() as stack:
        check_batch(recipe.name, recipe.batch, fabric.world_size)
        recipe, datasets = open_datasets(recipe, data)
        start = open_start(recipe, initial)
        check_teacher(recipe, starts=start is not None or initial is not None)
        if start is not None and start.same_input and stain is None and recipe.stain_normalization is None:
            stain = start.card.stain
        normalizer = fit_normalizer(recipe, datasets) if stain is None else StainNormalizer(stain)
        sam = None if recipe.sam is None else load_sam(recipe.sam.encoder, recipe.sam.control)

        keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        torch.manual_seed(recipe.seed)
        context = TrainContext(
            recipe, fabric, folder, stain=normalizer, workers=workers, compile=compile, on_progress=on_progress
        )
        network, context = build_for_data(context, datasets, sam)
        parts = find_parts(context, datasets, network)
        recipe = count_steps(recipe, parts.labeled_images, parts.unlabeled_images + parts.passed_over)
        context = replace(context, recipe=recipe)

        # held until the model file is there
        data_digest = parts.digest(digest_data(datasets, normalizer, sam, context.pretrained), recipe)
        progress = stack.enter_context(open_run(folder, recipe.digest, data_digest, resume, writes=first))
        card = None
        if start is not None:
            card = load_start(context, network, start, report=first)
        elif initial is not None:
            card = load_initial(network, context.representation, initial, report=first)
        if card is not None and not resume:
            progress.initial = card.training
        report_license(recipe, datasets, parts, progress.initial, report=first)
        if fabric.world_size > 1:
            network = share_batch_norm(network, fabric.device)

        embed = None
        if sam is not None and context.sam is not None:
            embed = partial(
                embed_all, sam.to(fabric.device), field=context.sam.field, share=context.share, wait=fabric.barrier,
                shuffle_seed=recipe.seed if context.sam.control == "shuffled" else None,
            )  # fmt: skip
        loader = open_train_loader(context, datasets, parts, embed)
        nucleus_diameter_um = loader.measure_nucleus_diameter_um()
        validation = Validation(context, [dataset.split("val") for dataset in datasets], embed)
        del sam, embed  # the embeddings are on disk: the encoder's memory is wanted for the training

        if normalizer is not None and first:
            normalizer.warn()
        fabric.barrier()  # all have looked at the run folder before the first one writes
        if first:
            write_text(folder / RECIPE_FILE, yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False))
        ranked = fit(context, network, loader, validation, progress, resume)
        if start is not None:
            report_worse(context, network, start, validation, ranked[0])
        if first:
            card_of = partial(describe, context, datasets, parts, validation.rows, progress, nucleus_diameter_um)
            save_ranked(context, ranked, card_of)
            report_phases(recipe, ranked, folder)
        fabric.barrier()
        return folder / MODEL_FILE


def save_ranked(context: TrainContext, ranked: Sequence[PhaseResult], card_of: Callable[[PhaseResult], Card]) -> None:
    """Write the model file of the best phase, and of several phases each its own beside it."""
    for result in ranked:
        card, tensors = card_of(result), load_file(result.weights)
        if context.recipe.output_representation is not None:
            tensors = keep_head(tensors, context.representation, context.output_representation)
        if len(ranked) > 1:
            save_model(context.folder / name_phase_model(result.phase), card, tensors)
        if result is ranked[0]:
            save_model(context.folder / MODEL_FILE, card, tensors)


def name_phase_model(phase: str) -> str:
    """The model file, in a run's folder, with the best weights of one of several phases."""
    return f"model_{phase}.safetensors"


def report_phases(recipe: Recipe, ranked: Sequence[PhaseResult], folder: Path) -> None:
    """Write which of several phases is delivered, and by what; a log line says so where it is not the last."""
    if len(ranked) < 2:
        return
    monitor, best = recipe.phases[-1].until.monitor, ranked[0]
    rows = [
        {"phase": one.phase, "step": one.step, monitor: one.score, "model": name_phase_model(one.phase)}
        for one in ranked
    ]
    content = {"monitor": monitor, "delivered": best.phase, "step": best.step, "phases": rows}
    write_text(folder / PHASES_FILE, json.dumps(content, indent=2) + "\n")
    if best.phase != recipe.phases[-1].name:
        others = ", ".join(f"{one.score:.4g} after '{one.phase}'" for one in ranked[1:])
        log.warning(
            "%s has the best weights of phase '%s', step %d: validation %s %.4g, against %s",
            MODEL_FILE, best.phase, best.step, monitor, best.score, others,
        )  # fmt: skip


def count_workers(workers: int | None, fabric: Fabric) -> int:
    """How many processes make batches for each that trains. Raises HemalumError for none, or more than cores."""
    cores = os.cpu_count() or 1
    if workers is None:
        return 1 if fabric.device.type == "cpu" else max(1, (cores - 2) // max(1, fabric.world_size))
    if not 1 <= workers <= cores:
        raise HemalumError(f"workers is {workers}: want 1 to {cores}, the cores of this machine")
    return workers


@contextmanager
def explain_compiler_errors(compile: bool) -> Iterator[None]:
    """Give an error of PyTorch's compiler as one HemalumError, which says how to do without."""
    try:
        yield
    except RuntimeError as error:
        if not compile:
            raise
        # the base of all that the compiler raises has no public name; its module takes seconds to import, and is
        # there by now
        from torch._dynamo.exc import TorchDynamoException

        if not isinstance(error, TorchDynamoException):
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise HemalumError(f"PyTorch could not compile the network: {reason}; train without --compile") from error


def open_datasets(recipe: Recipe, data: Data) -> tuple[Recipe, list[Dataset]]:
    """The recipe's datasets, in the recipe's order; a recipe that names none gets the names of those in `data`.

    Raises HemalumError when the names do not fit together.
    """
    named = data.items() if isinstance(data, Mapping) else [(None, dataset) for dataset in data]
    opened = [(name, one if isinstance(one, Dataset) else Dataset.open(one)) for name, one in named]
    datasets = {name or dataset.info.name: dataset for name, dataset in opened}
    if len(datasets) < len(opened):
        raise HemalumError("two of the datasets have the same name: give --data NAME=PATH for each")
    if not recipe.data:
        recipe = recipe.model_copy(update={"data": {name: Source() for name in datasets}})
    for name in datasets:
        if name not in recipe.data:
            raise HemalumError(f"recipe {recipe.name} has no dataset '{name}'{nearest(name, recipe.data)}")
    for name in recipe.data:
        if name not in datasets:
            raise HemalumError(f"recipe {recipe.name} needs dataset '{name}': give --data {name}=PATH")
    if not datasets:
        raise HemalumError(f"recipe {recipe.name} needs data: give --data PATH")
    return recipe, [datasets[name] for name in recipe.data]


def count_steps(recipe: Recipe, labeled: int, unlabeled: int) -> Recipe:
    """The recipe with the steps that its epochs come to, for so many labeled and unlabeled images; the same again.

    Raises HemalumError for epochs of images that there are not.
    """
    phases = []
    for phase in recipe.phases:
        if phase.until.epochs is not None:
            images = labeled if phase.until.epochs_of == "labeled" else unlabeled
            if not images:
                raise HemalumError(
                    f"recipe {recipe.name}, phase '{phase.name}' counts epochs of {phase.until.epochs_of} images and "
                    "there are none: give steps, or epochs_of: labeled"
                )
            steps = min(phase.until.steps, math.ceil(phase.until.epochs * images / recipe.batch))
            phase = phase.model_copy(update={"until": phase.until.model_copy(update={"steps": steps})})
        phases.append(phase)
    return recipe.model_copy(update={"phases": phases})


def fit_normalizer(recipe: Recipe, datasets: Sequence[Dataset]) -> StainNormalizer | None:
    """What brings images to the recipe's colors; None where it asks for nothing."""
    if recipe.stain_normalization is None:
        return None
    named = dict(zip(recipe.data, datasets, strict=True))
    return StainNormalizer(fit_stain_target(recipe.stain_normalization, named))


def digest_data(
    datasets: Sequence[Dataset],
    stain: StainNormalizer | None,
    sam: SamEncoder | None,
    pretrained: Pretrained | None = None,
) -> str:
    """Hash over what the run sees: every image, its truth and its part, the stain target's origin, other weights."""
    lines = [line for dataset in datasets for line in dataset.lines()]
    if stain is not None:
        lines.append(stain.target.origin)
    if sam is not None:
        lines.append(sam.digest)
    if pretrained is not None:
        lines.append(pretrained.sha256)
    return hash_lines(lines)


@contextmanager
def open_run(
    folder: Path, recipe_digest: str, data_digest: str, resume: bool, *, writes: bool = True
) -> Iterator[Progress]:
    """Where the run in `folder` stands; the process that `writes` keeps others from training there meanwhile.

    Raises HemalumError when it holds another run, files that are not of a training, or none to resume.
    """
    checkpoint = folder / CHECKPOINT_FILE
    if resume and not checkpoint.exists():
        raise HemalumError(f"nothing to resume: {checkpoint} does not exist")
    if not resume and checkpoint.exists():
        raise HemalumError(f"{folder} already holds a run: give --resume to go on, or another folder")
    if not resume:
        check_free(folder, KIND)
    with lock_folder(folder, wait=False) if writes else nullcontext(True) as locked:
        if not locked:
            raise HemalumError(f"{folder}: another process is training there")
        if not resume:
            if writes:
                write_manifest(folder, KIND, {"recipe": recipe_digest, "data": data_digest})
            yield Progress()
            return
        progress, held = read_progress(checkpoint), read_manifest(folder, KIND)
        if held.get("recipe") != recipe_digest:
            raise HemalumError(
                f"cannot resume {folder}: the recipe has changed since (compare it with {folder / RECIPE_FILE})"
            )
        if held.get("data") != data_digest:
            raise HemalumError(f"cannot resume {folder}: the data, its labels or its split have changed since")
        yield progress


def keep_freed_memory() -> None:
    """Have glibc keep freed memory: fresh pages for every activation cost up to half of a step on a CPU."""
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another libc: only speed is lost
        log.info("mallopt is not available; training goes on without it")
        return
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 256 * 2**20)):  # MMAP_MAX, TRIM_THRESHOLD, TOP_PAD
        mallopt(option, value)
