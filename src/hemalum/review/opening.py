"""What a review is opened with: its source, its model and its project, each checked against the others."""

from pathlib import Path
from typing import Any

from hemalum.errors import HemalumError
from hemalum.files import named_path
from hemalum.manifest import check_free, manifest_path
from hemalum.models import load_model
from hemalum.models.model import Model, shipped_models
from hemalum.review.fields import SIDE
from hemalum.review.project import KIND, Project
from hemalum.review.sources import Source, open_source

DEFAULTS: dict[str, Any] = {"mpp": None, "slide": None, "recursive": True, "side": SIDE}
KINDS: dict[str, Any] = {"mpp": int | float | None, "slide": str | None, "recursive": bool, "side": int}


def open_review(
    source: Path | str | None,
    model: Path | str | Model | None,
    project: Path | str | None,
    *,
    begin: bool = True,
    **asked: Any,
) -> tuple[Project, Source, Model]:
    """The project, what is reviewed, and the model; `asked` are the options of `DEFAULTS`. See `Session.open`."""
    if source is None and project is None:
        raise HemalumError("give SOURCE, what is to be reviewed, or --project, to go on with a review")
    folder = named_path(f"{named_path(str(source)).name}.review" if project is None else project)
    path, options, held_model = _requested(folder, source, asked, begin=begin, has_model=model is not None)
    opened = open_source(path, folder, mpp=options["mpp"], slide=options["slide"], recursive=options["recursive"])
    loaded = load_model(model if model is not None else held_model or _finder(opened))
    _check_stores(opened, loaded)
    joined = Project.join(
        folder, source=str(path), model=loaded.card.name, model_digest=loaded.digest, model_path=_path_of(loaded),
        options=options,
    )  # fmt: skip
    return joined, opened, loaded


def _requested(
    folder: Path, source: Path | str | None, asked: dict[str, Any], *, begin: bool, has_model: bool
) -> tuple[Path, dict[str, Any], str | None]:
    """What is reviewed, how, and by which model: as asked for, else as the project has it."""
    slide = asked["slide"]
    options = {**asked, "slide": None if slide is None else str(Path(slide).resolve())}
    if begin and source is not None and not manifest_path(folder, KIND).is_file():
        check_free(folder, KIND)
        return Path(source).resolve(), options, None
    with Project.open(folder) as held:
        for name, value in held.options.items():
            if name not in KINDS or not isinstance(value, KINDS[name]):
                raise HemalumError(f"{manifest_path(folder, KIND)}: options.{name} is {value!r}, not as written")
            if options[name] == DEFAULTS[name]:
                options[name] = value
        lost = held.model_path is not None and not Path(held.model_path).is_file()
        if lost and not has_model:
            raise HemalumError(
                f"{folder}: its model '{held.model}' is no longer at {held.model_path}; say where it is with --model"
            )
        return Path(held.source if source is None else source).resolve(), options, held.model_path or held.model


def _finder(source: Source) -> str | None:
    """The model that found the nuclei of slides, where it is one of those shipped."""
    names = {image.store.run.model for image in source.images if image.store is not None}
    name = names.pop() if len(names) == 1 else None
    return name if name in shipped_models() else None


def _path_of(model: Model) -> str | None:
    """The file of a model that is none of those shipped."""
    if model.path is None or model.path in shipped_models().values():
        return None
    return str(model.path.resolve())


def _check_stores(source: Source, model: Model) -> None:
    """Raise HemalumError where the nuclei of a slide are of another model: its proposals would not be theirs."""
    for image in source.images:
        if image.store is None or image.store.run.model_digest in (None, model.digest):
            continue
        run = image.store.run
        raise HemalumError(
            f"{image.store.path}: its nuclei are of model '{run.model}' ({str(run.model_digest)[:12]}), and this is "
            f"'{model.card.name}' ({model.digest[:12]}): give that one by --model, or segment the slide again"
        )
