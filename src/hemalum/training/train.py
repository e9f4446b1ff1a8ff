"""Train a recipe on datasets: the verb `train`."""

import ctypes
import hashlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
import yaml
from lightning_fabric import Fabric
from safetensors.numpy import load_file

from hemalum.data.dataset import Dataset
from hemalum.data.stain_normalisation import StainNormaliser
from hemalum.data.stain_target import fit_stain_target
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.instances.representations import find_representation
from hemalum.models.card import SamEncoding
from hemalum.models.file import save_model
from hemalum.models.stain import StainTarget
from hemalum.names import nearest
from hemalum.networks.input import input_channels
from hemalum.networks.receptive_field import measure_halo
from hemalum.networks.sam import SamEncoder, load_sam
from hemalum.training.batch_norm import share_batch_norm
from hemalum.training.building import build_for, check_losses, find_window, gather_facts
from hemalum.training.checkpoint import Progress, read_progress
from hemalum.training.embeddings import embed_all
from hemalum.training.initial import load_initial
from hemalum.training.loop import Loop, Watcher
from hemalum.training.outcome import describe, keep_head, kept_rows
from hemalum.training.parts import check_switches
from hemalum.training.processes import check_batch, ending_together, said_once, start_processes
from hemalum.training.recipe import Recipe, Source
from hemalum.training.shipped import open_recipe
from hemalum.training.unlabelled import open_stream
from hemalum.training.validation import Validation

log = logging.getLogger(__name__)

MODEL_FILE = "model.safetensors"

Data = Mapping[str, Path | str | Dataset] | Sequence[Path | str | Dataset]


def train(
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
    stain: StainTarget | None = None,
    compiled: bool = False,
    watch: Watcher | None = None,
) -> Path:
    """Train `recipe` on dataset folders and give the path of the model file, `out`/model.safetensors.

    `data` maps the recipe's dataset names to dataset folders or open ones, or lists those, which know their names.
    `resume` goes on where `out` stands, with the same recipe and data. `workers` are the processes that make batches
    ahead of their use: unless given, one beside a training on the CPU, all cores but two beside a GPU. `initial` is a
    model file whose weights are the start; what it has no maps for starts afresh, which is said. `stain` are colours
    that every image is brought to, in the place of those that the recipe's `stain_normalisation` would find.
    `compiled` has PyTorch compile the network first, which takes a while and changes rounding.
    Under torchrun or srun the processes share each batch; `devices` starts so many on this machine, each by the
    program's own command line. Only the first of them calls `watch`, and all return when the model file is there.
    Raises HemalumError for a recipe, data or run folder that do not fit together, before any training.
    """
    with said_once():
        recipe = recipe if isinstance(recipe, Recipe) else open_recipe(recipe)
        check_losses(recipe)
        fabric = start_processes(accelerator, devices, recipe.precision)
        workers = count_workers(workers, fabric)
    with ending_together(fabric):
        try:
            return _train(fabric, recipe, data, Path(out), resume, threads, workers, initial, stain, compiled, watch)
        except RuntimeError as error:
            if not compiled:
                raise
            from torch._dynamo.exc import TorchDynamoException  # takes seconds to import, and is there by now

            if not isinstance(error, TorchDynamoException):
                raise
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise HemalumError(f"PyTorch could not compile the network: {reason}; train without --compile") from error


def count_workers(workers: int | None, fabric: Fabric) -> int:
    """How many processes make batches for each that trains. Raises HemalumError for none, or more than cores."""
    cores = os.cpu_count() or 1
    if workers is None:
        return 1 if fabric.device.type == "cpu" else max(1, (cores - 2) // max(1, fabric.world_size))
    if not 1 <= workers <= cores:
        raise HemalumError(f"workers is {workers}: want 1 to {cores}, the cores of this machine")
    return workers


def _train(
    fabric: Fabric, recipe: Recipe, data: Data, out: Path, resume: bool,
    threads: int | None, workers: int, initial: Path | str | None, target: StainTarget | None, compiled: bool,
    watch: Watcher | None,
) -> Path:  # fmt: skip
    share = fabric.global_rank, fabric.world_size
    check_batch(recipe.name, recipe.batch, fabric.world_size)
    recipe, datasets = _open_datasets(recipe, data)
    stain = _stain(recipe, datasets) if target is None else StainNormaliser(target)
    sam = None if recipe.sam is None else load_sam(recipe.sam.encoder)
    progress = Progress(recipe_digest=recipe.digest, data_digest=_data_digest(datasets, stain, sam))
    progress = _start_or_resume(out, progress, resume)
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    facts = replace(gather_facts(recipe, datasets), embedding=0 if sam is None else sam.channels)
    network, spec = build_for(recipe, facts)
    representation = find_representation(recipe.representation, facts.classes)
    kept = None if recipe.keep is None else find_representation(recipe.keep, facts.classes)
    if kept is not None:
        kept_rows(representation, kept)  # what cannot be kept is refused now, not at the end
    conditions = tuple(getattr(network, "conditions", ()))
    # a network that could tell organs apart and was built not to is told none, and its card names none
    facts = replace(facts, conditions=conditions, organs=facts.organs if "organ" in conditions else ())
    check_switches(network, recipe.phases)
    network = network.to(fabric.device)  # where its halo is measured in no time
    stride = int(getattr(network, "stride", 1))
    window = find_window(recipe, network, stride)
    if window is None:
        halo = measure_halo(network, stride, inputs=input_channels(recipe.input))
    else:
        halo = max(stride, window // 8 // stride * stride)
    if initial is not None:
        card = load_initial(network, representation, initial, say=fabric.is_global_zero)
        if not resume:
            progress.initial = card.training
    if fabric.world_size > 1:
        network = share_batch_norm(network, fabric.device)
    embed = embedding = None
    if sam is not None and recipe.sam is not None and window is not None:
        embedding = SamEncoding(encoder=recipe.sam.encoder, digest=sam.digest, field=window)
        embed = partial(embed_all, sam.to(fabric.device), field=window, share=share, wait=fabric.barrier)
    stream = open_stream(recipe, datasets, network, share, stain, facts, embed, workers)
    diameter = stream.nucleus_diameter_um()
    held_out = [dataset.split("val") for dataset in datasets]
    validation = Validation(recipe, held_out, stride, share, stain, facts, window, embed)
    sam = embed = None  # its embeddings are on disk: its memory is wanted for the training
    if stain is not None and fabric.is_global_zero:
        stain.warn()
    fabric.barrier()  # all have looked at the run folder before the first one writes
    if fabric.is_global_zero:
        with atomic_path(out / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    loop = Loop(recipe, network, stream, validation, out, fabric, progress, watch, compiled)
    loop.run(resume)
    if fabric.is_global_zero:
        seen = {"stride": stride, "halo": halo, "window": window, "sam": embedding}
        card = describe(recipe, datasets, loop.progress, spec, facts, seen, diameter, stain)
        tensors = load_file(loop.best)
        if kept is not None:
            tensors = keep_head(tensors, representation, kept)
        save_model(out / MODEL_FILE, card, tensors)
    fabric.barrier()
    return out / MODEL_FILE


def _open_datasets(recipe: Recipe, data: Data) -> tuple[Recipe, list[Dataset]]:
    """The recipe's datasets, in the recipe's order; a recipe that names none gets the names of those given."""
    if isinstance(data, Mapping):
        found = {name: _opened(path) for name, path in data.items()}
    else:
        opened = [_opened(path) for path in data]
        found = {dataset.info.name: dataset for dataset in opened}
        if len(found) < len(opened):
            raise HemalumError("two of the datasets have the same name: give --data NAME=PATH for each")
    if not recipe.data:
        recipe = recipe.model_copy(update={"data": {name: Source() for name in found}})
    for name in found:
        if name not in recipe.data:
            raise HemalumError(f"recipe {recipe.name} has no dataset '{name}'{nearest(name, recipe.data)}")
    for name in recipe.data:
        if name not in found:
            raise HemalumError(f"recipe {recipe.name} needs dataset '{name}': give --data {name}=PATH")
    if not found:
        raise HemalumError(f"recipe {recipe.name} needs data: give --data PATH")
    return recipe, [found[name] for name in recipe.data]


def _opened(dataset: Path | str | Dataset) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else Dataset.open(dataset)


def _stain(recipe: Recipe, datasets: Sequence[Dataset]) -> StainNormaliser | None:
    """What brings images to the recipe's colours; None where it asks for nothing."""
    if recipe.stain_normalisation is None:
        return None
    named = dict(zip(recipe.data, datasets, strict=True))
    return StainNormaliser(fit_stain_target(recipe.stain_normalisation, named))


def _data_digest(datasets: Sequence[Dataset], stain: StainNormaliser | None, sam: SamEncoder | None) -> str:
    """Hash over what the run sees: every image's content, scale and part, the stain target's origin, the encoder."""
    lines = [f"{row.sha256}:{row.mpp}:{row.split}" for dataset in datasets for row in dataset.rows]
    if stain is not None:
        lines.append(stain.target.origin)
    if sam is not None:
        lines.append(sam.digest)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _start_or_resume(out: Path, fresh: Progress, resume: bool) -> Progress:
    checkpoint = out / "checkpoint.safetensors"
    if not resume:
        if checkpoint.exists():
            raise HemalumError(f"{out} already holds a run: give --resume to go on, or another folder")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise HemalumError(f"cannot create {out}: {error.strerror}") from error
        return fresh
    if not checkpoint.exists():
        raise HemalumError(f"nothing to resume: {checkpoint} does not exist")
    progress = read_progress(checkpoint)
    if progress.recipe_digest != fresh.recipe_digest:
        raise HemalumError(
            f"cannot resume {out}: the recipe has changed since (compare it with {out / 'recipe.yaml'})"
        )
    if progress.data_digest != fresh.data_digest:
        raise HemalumError(f"cannot resume {out}: the data or its split has changed since")
    return progress


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
