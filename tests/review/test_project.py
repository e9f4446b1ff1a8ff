"""The folder of a review: started once, gone on with by the same, refused for anything else."""

import shutil
from pathlib import Path

import pytest

from builders.reviews import NAME, draw_labels, make_item
from hemalum.errors import HemalumError
from hemalum.manifest import read_manifest
from hemalum.nuclei.nuclei import Nuclei
from hemalum.review.edits import delete
from hemalum.review.project import JOURNAL, Project

DIGEST = "ab" * 32


def join(folder: Path, source: str = "/data/kidney", model: str = "fast", digest: str = DIGEST) -> Project:
    return Project.join(folder, source=source, model=model, model_digest=digest)


def test_a_project_is_started_and_gone_on_with(tmp_path: Path) -> None:
    with join(tmp_path / "new" / "project") as project:
        labels = draw_labels()
        state = project.journal.add_item(make_item(labels), Nuclei.from_labels(labels))
        project.journal.append(NAME, "Anna", delete(state, [2]), 0)
    manifest = read_manifest(tmp_path / "new" / "project", "review")
    assert {key: manifest[key] for key in ("source", "model", "model_digest")} == {
        "source": "/data/kidney",
        "model": "fast",
        "model_digest": DIGEST,
    }
    for again in (join(tmp_path / "new" / "project", model="renamed"), Project.open(tmp_path / "new" / "project")):
        with again as project:
            assert (project.source, project.model, project.model_digest) == ("/data/kidney", "fast", DIGEST)
            assert sorted(project.journal.state(NAME)) == [1, 3, 4]
    assert sorted(path.name for path in (tmp_path / "new" / "project").iterdir()) == ["review.sqlite", "review.yaml"]


@pytest.mark.fault
def test_another_source_or_model_is_refused(tmp_path: Path) -> None:
    join(tmp_path / "project").close()
    with pytest.raises(HemalumError, match="project holds another review: source is /data/kidney there, /data/li"):
        join(tmp_path / "project", source="/data/liver")
    with pytest.raises(HemalumError, match="holds another review: it is of another model, 'fast'; take that one, or"):
        join(tmp_path / "project", digest="00")


def test_options_and_the_file_of_a_model_are_kept(tmp_path: Path) -> None:
    facts = {"source": "/data/kidney", "model": "mine", "model_digest": DIGEST}
    Project.join(tmp_path / "p", **facts, model_path="/models/mine", options={"mpp": 0.5}).close()
    with Project.open(tmp_path / "p") as project:
        assert (project.model_path, dict(project.options)) == ("/models/mine", {"mpp": 0.5})
    Project.join(tmp_path / "p", **facts, model_path="/elsewhere/mine", options={"mpp": 0.5}).close()
    with pytest.raises(HemalumError, match=r"holds another review: mpp is 0\.5 there, 0\.25 here"):
        Project.join(tmp_path / "p", **facts, options={"mpp": 0.25})


@pytest.mark.fault
def test_folders_that_hold_no_review(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(HemalumError, match="is not empty and holds no review; choose another folder"):
        join(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(HemalumError, match="holds no review"):
        Project.open(tmp_path)
    with pytest.raises(HemalumError, match=r"notes\.txt: is a file; name a folder"):
        join(tmp_path / "notes.txt")


@pytest.mark.fault
def test_a_journal_that_is_gone_or_anothers_is_no_new_beginning(tmp_path: Path) -> None:
    join(tmp_path / "one").close()
    join(tmp_path / "two").close()
    (tmp_path / "one" / JOURNAL).unlink()
    for open_project in (lambda: join(tmp_path / "one"), lambda: Project.open(tmp_path / "one")):
        with pytest.raises(HemalumError, match=r"review\.sqlite: the journal of corrections is missing; put it back"):
            open_project()
    shutil.copy(tmp_path / "two" / JOURNAL, tmp_path / "one" / JOURNAL)
    with pytest.raises(HemalumError, match="is the journal of another project"):
        join(tmp_path / "one")


@pytest.mark.fault
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("format: 9\n", r"review\.yaml: is of format 9, this version of hemalum reads format 2"),
        ("format: 2\nid: x\nsource: [1]\n", r"review\.yaml: source is \[1\], not a text"),
        ("[", r"review\.yaml: cannot be read"),
        (
            "format: 2\nid: x\nsource: a\nmodel: b\nmodel_digest: c\noptions: 3\n",
            r"review\.yaml: model_path or options",
        ),
    ],
)
def test_a_damaged_manifest(tmp_path: Path, text: str, message: str) -> None:
    join(tmp_path / "project").close()
    (tmp_path / "project" / "review.yaml").write_text(text)
    with pytest.raises(HemalumError, match=message):
        Project.open(tmp_path / "project")
