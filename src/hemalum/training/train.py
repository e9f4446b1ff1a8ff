"""Train a recipe on datasets: the verb `train`."""

import ctypes
import datetime
import hashlib
import logging
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
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
from hemalum.instances.representations import SEMANTIC, Representation, find_representation
from hemalum.models.card import Card, NetworkSpec, SamEncoding, Training, TrainingSet
from hemalum.models.file import Tensors, save_model
from hemalum.models.stain import StainTarget
from hemalum.names import nearest
from hemalum.networks import build_network, takes
from hemalum.networks.input import input_channels
from hemalum.networks.receptive_field import measure_halo
from hemalum.networks.sam import SamEncoder, load_sam
from hemalum.training.batch_norm import share_batch_norm
from hemalum.training.checkpoint import Progress, read_progress
from hemalum.training.embeddings import embed_all
from hemalum.training.loop import Loop, Watcher
from hemalum.training.parts import check_switches
from hemalum.training.processes import check_batch, ending_together, said_once, start_processes
from hemalum.training.recipe import Recipe, Source
from hemalum.training.shipped import open_recipe
from hemalum.training.stream import MEAN, STD, Facts
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
    initial: Path | str | None = None,
    stain: StainTarget | None = None,
    watch: Watcher | None = None,
) -> Path:
    """Train `recipe` on dataset folders and give the path of the model file, `out`/model.safetensors.

    `data` maps the recipe's dataset names to dataset folders or open ones, or lists those, which know their names.
    `resume` goes on where `out` stands, with the same recipe and data. `initial` is a model file whose weights are
    the start. `stain` are colours that every image is brought to, in the place of those that the recipe's
    `stain_normalisation` would find in the data.
    Under torchrun or srun the processes share each batch; `devices` starts so many on this machine, each by the
    program's own command line. Only the first of them calls `watch`, and all return when the model file is there.
    Raises HemalumError for a recipe, data or run folder that do not fit together, before any training.
    """
    with said_once():
        recipe = recipe if isinstance(recipe, Recipe) else open_recipe(recipe)
        _check_names(recipe)
        fabric = start_processes(accelerator, devices, recipe.precision)
    with ending_together(fabric):
        return _train(fabric, recipe, data, Path(out), resume, threads, initial, stain, watch)


def _train(
    fabric: Fabric, recipe: Recipe, data: Data, out: Path, resume: bool,
    threads: int | None, initial: Path | str | None, target: StainTarget | None, watch: Watcher | None,
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
    conditions = tuple(getattr(network, "conditions", ()))
    # a network that could tell organs apart and was built not to is told none, and its card names none
    facts = replace(facts, conditions=conditions, organs=facts.organs if "organ" in conditions else ())
    check_switches(network, recipe.phases)
    stride = int(getattr(network, "stride", 1))
    window = find_window(recipe, network, stride)
    if window is None:
        halo = measure_halo(network, stride, inputs=input_channels(recipe.input))
    else:
        halo = max(stride, window // 8 // stride * stride)
    if initial is not None:
        _load_initial(network, initial)
    if fabric.world_size > 1:
        network = share_batch_norm(network, fabric.device)
    embed = embedding = None
    if sam is not None and recipe.sam is not None and window is not None:
        embedding = SamEncoding(encoder=recipe.sam.encoder, digest=sam.digest, field=window)
        embed = partial(embed_all, sam.to(fabric.device), field=window, share=share, wait=fabric.barrier)
    stream = open_stream(recipe, datasets, network, share, stain, facts, embed)
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
    loop = Loop(recipe, network, stream, validation, out, fabric, progress, watch)
    loop.run(resume)
    if fabric.is_global_zero:
        seen = {"stride": stride, "halo": halo, "window": window, "sam": embedding}
        card = _card(recipe, datasets, loop.progress.step, spec, facts, seen, diameter, stain)
        tensors = load_file(loop.best)
        if recipe.keep is not None:
            trained, kept = find_representation(recipe.representation), find_representation(recipe.keep)
            tensors = keep_head(tensors, trained, kept)
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
    placeholder = ("class",) if recipe.representation == SEMANTIC else ()
    kinds: set[str] = set()
    for name in (recipe.keep, recipe.representation):
        if name is not None:
            try:
                kinds = {head.kind for head in find_representation(name, placeholder).heads}
            except HemalumError as error:
                raise HemalumError(f"recipe {recipe.name}: {error}") from error
    for phase in recipe.phases:
        if phase.loss.only is not None and not kinds <= phase.loss.only:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss.name}' does not fit representation "
                f"'{recipe.representation}', whose maps are {', '.join(sorted(kinds))}; it takes "
                f"{', '.join(sorted(phase.loss.only))}"
            )
        if phase.loss.needs and recipe.finer > 1:
            raise HemalumError(
                f"recipe {recipe.name}: loss '{phase.loss.name}' needs maps on the network's grid: finer must be 1"
            )


def gather_facts(recipe: Recipe, datasets: Sequence[Dataset]) -> Facts:
    """What the recipe's network needs to know of the data: classes, and organs where it tells them apart.

    Raises HemalumError when classes are wanted and a dataset has none, or two name others.
    """
    organs: tuple[str, ...] = ()
    if takes(recipe.network.name, "organs"):
        rows = [row for dataset in datasets for row in dataset.split("train").rows]
        found = sorted({row.organ for row in rows if row.organ})
        organs = tuple(found if recipe.organs == "auto" else recipe.organs)
    if recipe.representation != SEMANTIC:
        return Facts(organs=organs)
    if recipe.classes == "nucleus":
        return Facts(classes=("nucleus",), organs=organs, one_class=True)
    first = datasets[0]
    for dataset in datasets:
        if not dataset.info.classes or any(row.classes is None for row in dataset.rows if row.nuclei):
            raise HemalumError(
                f"recipe {recipe.name} tells classes apart and {dataset.path} has none: take another recipe, or "
                "classes: nucleus, which takes all nuclei as one"
            )
        if set(_class_names(dataset)) != set(_class_names(first)):
            raise HemalumError(
                f"{first.path} and {dataset.path} name different classes: {', '.join(_class_names(first))}; "
                f"{', '.join(_class_names(dataset))}"
            )
    return Facts(classes=tuple(_class_names(first)), organs=organs)


def _class_names(dataset: Dataset) -> list[str]:
    classes = dataset.info.classes or {}
    return [classes[id] for id in sorted(classes) if id > 0]


def build_for(recipe: Recipe, facts: Facts) -> tuple[nn.Module, NetworkSpec]:
    """Build the recipe's network for the data, and give it as the card says it: with all options that follow.

    Raises HemalumError when there is no such network or its options do not fit.
    """
    options = dict(recipe.network.options)
    if recipe.input != "RGB":
        options.setdefault("inputs", 1)
    if facts.organs:
        options.setdefault("organs", len(facts.organs))
    if facts.embedding and takes(recipe.network.name, "embedding"):
        options.setdefault("embedding", facts.embedding)
    logits = find_representation(recipe.representation, facts.classes).logits
    network = build_network(recipe.network.name, logits, options)
    options.pop("pretrained", None)  # the model file holds all weights: no need to fetch others under them
    return network, NetworkSpec(name=recipe.network.name, options=options)


def find_window(recipe: Recipe, network: nn.Module, stride: int) -> int | None:
    """The side of every input of the trained network, in px; None where it takes any size.

    Raises HemalumError when the recipe's tiles do not fit the network.
    """
    size = getattr(network, "size", None)
    if size is not None and recipe.tile != size:
        raise HemalumError(
            f"recipe {recipe.name}: tile is {recipe.tile}, its network takes {size} x {size} px: make them equal"
        )
    if recipe.tile % stride:
        raise HemalumError(f"recipe {recipe.name}: tile {recipe.tile} is not a multiple of the network's {stride}")
    wants = "embedding" in getattr(network, "conditions", ())
    if wants != (recipe.sam is not None):
        what = "needs an embedding: give 'sam' with an encoder" if wants else "takes no embedding: leave out 'sam'"
        raise HemalumError(f"recipe {recipe.name}: its network {what}")
    if recipe.sam is not None:
        field = recipe.sam.field or recipe.tile
        if field % stride:
            raise HemalumError(f"recipe {recipe.name}: sam.field {field} is not a multiple of the network's {stride}")
        return field
    return recipe.tile if size is not None or getattr(network, "global_context", False) else None


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


def _load_initial(network: nn.Module, path: Path | str) -> None:
    from hemalum.models.file import load_model_file

    _, tensors = load_model_file(path)
    try:
        network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    except RuntimeError as error:
        raise HemalumError(f"{path} does not fit the recipe's network: {str(error).splitlines()[-1]}") from error


def _card(
    recipe: Recipe, datasets: Sequence[Dataset], steps: int, spec: NetworkSpec, facts: Facts,
    seen: Mapping[str, Any], diameter: float, stain: StainNormaliser | None,
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
        network=spec,
        representation=recipe.keep or recipe.representation,
        mpp=recipe.mpp,
        nucleus_diameter_um=round(diameter, 2),
        enlarge=recipe.enlarge,
        channels=recipe.input,
        mean=MEAN,
        std=STD,
        stain=None if stain is None else stain.target,
        **seen,
        classes=list(facts.classes) or ["nucleus"],
        organs=list(facts.organs),
        separation=recipe.separation,
        training=Training(
            recipe=recipe.name,
            recipe_hash=recipe.digest,
            command=shlex.join(["hemalum", *sys.argv[1:]]),
            steps=steps,
            seed=recipe.seed,
            date=datetime.datetime.now(datetime.UTC).date().isoformat(),
            data=sets,
            settings=recipe.model_dump(mode="json"),
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
