"""Train a recipe on datasets: the verb `train`."""

import ctypes
import datetime
import hashlib
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from numpy.typing import NDArray
from safetensors.numpy import load_file
from torch import nn

from hemalum import __version__
from hemalum.data.dataset import Dataset
from hemalum.data.stain_normalisation import StainNormaliser
from hemalum.data.stain_target import fit_stain_target
from hemalum.errors import HemalumError
from hemalum.files import atomic_path
from hemalum.instances.representations import REPRESENTATIONS, Representation
from hemalum.losses.maps import LOSSES, SIGMOID_ONLY
from hemalum.models.card import Card, Training, TrainingSet
from hemalum.models.file import Tensors, save_model
from hemalum.names import nearest
from hemalum.networks import build_network
from hemalum.networks.receptive_field import measure_halo
from hemalum.training.batch_norm import share_batch_norm
from hemalum.training.checkpoint import Progress, read_progress
from hemalum.training.loop import Loop, Watcher
from hemalum.training.processes import check_batch, ending_together, said_once, start_processes
from hemalum.training.recipe import Recipe, Source, load_recipe
from hemalum.training.stream import MEAN, STD, Stream
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
    initial: Path | str | None = None,
    watch: Watcher | None = None,
) -> Path:
    """Train `recipe` on dataset folders and give the path of the model file, `out`/model.safetensors.

    `data` maps the recipe's dataset names to dataset folders or open ones, or lists those, which know their names.
    `resume` goes on where `out` stands, with the same recipe and data. `initial` is a model file whose weights are
    the start.
    Under torchrun or srun the processes share each batch; `devices` starts so many on this machine, each by the
    program's own command line. Only the first of them calls `watch`, and all return when the model file is there.
    Raises HemalumError for a recipe, data or run folder that do not fit together, before any training.
    """
    with said_once():
        recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
        _check_names(recipe)
        fabric = start_processes(accelerator, devices, recipe.precision)
    with ending_together(fabric):
        return _train(fabric, recipe, data, Path(out), resume, threads, initial, watch)


def _train(
    fabric: Fabric, recipe: Recipe, data: Data, out: Path, resume: bool,
    threads: int | None, initial: Path | str | None, watch: Watcher | None,
) -> Path:  # fmt: skip
    share = fabric.global_rank, fabric.world_size
    check_batch(recipe.name, recipe.batch, fabric.world_size)
    recipe, datasets = _open_datasets(recipe, data)
    stain = _stain(recipe, datasets)
    progress = Progress(recipe_digest=recipe.digest, data_digest=_data_digest(datasets, stain))
    progress = _start_or_resume(out, progress, resume)
    keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(recipe.seed)
    logits = REPRESENTATIONS[recipe.representation].logits
    network = build_network(recipe.network.name, logits, recipe.network.options)
    stride = int(getattr(network, "stride", 1))
    if recipe.tile % stride:
        raise HemalumError(f"recipe {recipe.name}: tile {recipe.tile} is not a multiple of the network's {stride}")
    halo = measure_halo(network, stride)
    if initial is not None:
        _load_initial(network, initial)
    if fabric.world_size > 1:
        network = share_batch_norm(network, fabric.device)
    stream = Stream(recipe, [dataset.split("train") for dataset in datasets], share, stain)
    diameter = stream.nucleus_diameter_um()
    validation = Validation(recipe, [dataset.split("val") for dataset in datasets], stride, share, stain)
    if stain is not None and fabric.is_global_zero:
        stain.warn()
    fabric.barrier()  # all have looked at the run folder before the first one writes
    if fabric.is_global_zero:
        with atomic_path(out / "recipe.yaml") as temporary:
            temporary.write_text(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), encoding="utf-8")
    loop = Loop(recipe, network, stream, validation, out, fabric, progress, watch)
    loop.run(resume)
    if fabric.is_global_zero:
        card = _card(recipe, datasets, loop.progress.step, stride, halo, diameter, stain)
        tensors = load_file(loop.best)
        if recipe.keep is not None:
            tensors = keep_head(tensors, REPRESENTATIONS[recipe.representation], REPRESENTATIONS[recipe.keep])
        save_model(out / MODEL_FILE, card, tensors)
    fabric.barrier()
    return out / MODEL_FILE


def keep_head(tensors: Tensors, trained: Representation, kept: Representation) -> Tensors:
    """Drop what the network's last layer, `head`, gives beside the maps of `kept`; the rest is untouched.

    Raises HemalumError when `trained` lacks a head of `kept`.
    """
    rows: list[int] = []
    for head in kept.heads:
        start = 0
        for own in trained.heads:
            if own.kind == head.kind and set(head.channels) <= set(own.channels):
                background = own.kind == "softmax"
                rows += [start] * background
                rows += [start + background + own.channels.index(channel) for channel in head.channels]
                break
            start += own.logits
        else:
            raise HemalumError(f"representation '{trained.name}' has no maps {', '.join(head.channels)} to keep")

    def chosen(value: NDArray[Any]) -> NDArray[Any]:
        # a sub-pixel head has several rows for each logit, one after the other
        grouped = value.reshape(trained.logits, -1, *value.shape[1:])
        return grouped[rows].reshape(-1, *value.shape[1:])

    return {name: chosen(value) if name.startswith("head.") else value for name, value in tensors.items()}


def _check_names(recipe: Recipe) -> None:
    for name in (recipe.representation, recipe.keep):
        if name is not None and name not in REPRESENTATIONS:
            raise HemalumError(
                f"recipe {recipe.name}: unknown representation '{name}'{nearest(name, REPRESENTATIONS)}"
            )
    kinds = {head.kind for head in REPRESENTATIONS[recipe.representation].heads}
    for phase in recipe.phases:
        if phase.loss not in LOSSES:
            raise HemalumError(f"recipe {recipe.name}: unknown loss '{phase.loss}'{nearest(phase.loss, LOSSES)}")
        if phase.loss in SIGMOID_ONLY and kinds != {"sigmoid"}:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss}' does not fit representation '{recipe.representation}', "
                "whose maps are not all probabilities of their own"
            )


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


def _data_digest(datasets: Sequence[Dataset], stain: StainNormaliser | None) -> str:
    """Hash over what the run sees: every image's content, scale and part, and what the stain target is fitted on."""
    lines = [f"{row.sha256}:{row.mpp}:{row.split}" for dataset in datasets for row in dataset.rows]
    if stain is not None:
        lines.append(stain.target.origin)
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


def _load_initial(network: nn.Module, path: Path | str) -> None:
    from hemalum.models.file import load_model_file

    _, tensors = load_model_file(path)
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    except RuntimeError as error:
        raise HemalumError(f"{path} does not fit the recipe's network: {str(error).splitlines()[-1]}") from error


def _card(
    recipe: Recipe, datasets: Sequence[Dataset], steps: int, stride: int, halo: int, diameter: float,
    stain: StainNormaliser | None,
) -> Card:  # fmt: skip
    sets = [
        TrainingSet(
            name=dataset.info.name,
            licence=dataset.info.licence,
            citation=dataset.info.citation,
            split_hash=dataset.split_hash,
            samples=len(dataset.split("train")),
        )
        for dataset in datasets
    ]
    return Card(
        name=recipe.name,
        network=recipe.network,
        representation=recipe.keep or recipe.representation,
        mpp=recipe.mpp,
        nucleus_diameter_um=round(diameter, 2),
        enlarge=recipe.enlarge,
        mean=MEAN,
        std=STD,
        stain=None if stain is None else stain.target,
        halo=halo,
        stride=stride,
        separation=recipe.separation,
        training=Training(
            recipe=recipe.name,
            recipe_hash=recipe.digest,
            command=shlex.join(["hemalum", *sys.argv[1:]]),
            steps=steps,
            seed=recipe.seed,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            data=sets,
        ),
        code_version=__version__,
    )


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
