"""A project: the folder that a review is kept in, so that it goes on where it was left.

PROJECT/review.yaml      what is reviewed: source, and model with its digest
PROJECT/review.sqlite    the journal of corrections
PROJECT/fields           what is known of each field that the model has looked at
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from hemalum.errors import HemalumError
from hemalum.files import named_path, new_folder
from hemalum.manifest import check_free, holds_another, manifest_path, read_manifest, require_equal, write_manifest
from hemalum.review.journal import Journal

KIND = "review"  # of folder
JOURNAL = "review.sqlite"


@dataclass(frozen=True, slots=True, eq=False)
class Project:
    """A project that is open. `id` is its own, `source` what is reviewed, `model` the name of the model that proposed
    the nuclei, `model_digest` its `Model.digest`, `model_path` its file where it is none of those that are shipped.
    `options` are plain values that decide how the source is looked at. Close it, or use it in a `with`."""

    folder: Path
    id: str
    source: str
    model: str
    model_digest: str
    journal: Journal
    model_path: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: Path | str) -> Self:
        """The project in a folder, whatever it is of.

        Raises HemalumError where there is none, its manifest is damaged or of another format, or its journal is
        missing, damaged or of another project.
        """
        folder = named_path(folder)
        if not manifest_path(folder, KIND).is_file():
            raise HemalumError(f"{folder}: holds no review; hemalum review SOURCE -p {folder} begins one")
        held = read_manifest(folder, KIND)
        for key in ("id", "source", "model", "model_digest"):
            if not isinstance(held.get(key), str):
                raise HemalumError(f"{manifest_path(folder, KIND)}: {key} is {held.get(key)!r}, not a text")
        model_path, options = held.get("model_path"), held.get("options", {})
        if not isinstance(model_path, str | None) or not isinstance(options, dict):
            raise HemalumError(f"{manifest_path(folder, KIND)}: model_path or options are not as written")
        journal = Journal.open(folder / JOURNAL, held["id"])
        return cls(
            folder, held["id"], held["source"], held["model"], held["model_digest"], journal, model_path, options
        )

    @classmethod
    def join(
        cls,
        folder: Path | str,
        *,
        source: str,
        model: str,
        model_digest: str,
        model_path: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """The project of this source and model in a folder: started where that is new or empty, else gone on with.

        A model may be called otherwise than before, and lie elsewhere; its digest decides. Raises HemalumError as
        `open` does, and where the folder holds anything else, or the same with other options.
        """
        folder = named_path(folder)
        check_free(folder, KIND)
        options = dict(options or {})
        requested: dict[str, Any] = {"source": source, "model": model, "model_digest": model_digest}
        requested |= {"model_path": model_path, "options": options}
        if not manifest_path(folder, KIND).is_file():
            with new_folder(folder) as building:
                id = uuid.uuid4().hex
                Journal.create(building / JOURNAL, id).close()
                write_manifest(building, KIND, {"id": id, **requested})
        held = read_manifest(folder, KIND)
        require_equal(folder, KIND, held, {"source": source})
        require_equal(folder, KIND, held.get("options", {}), options)
        if held.get("model_digest") != model_digest:
            raise holds_another(
                folder, KIND, f"it is of another model, '{held.get('model')}'; take that one, or another folder"
            )
        return cls.open(folder)

    def close(self) -> None:
        """Close the journal."""
        self.journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
