"""What a run remembers of its data: the same bytes as when it began, or it could not go on."""

from pathlib import Path

import pytest

from hemalum.data.dataset import Dataset, DatasetInfo, Row, SplitInfo
from hemalum.data.stain.normalization import StainNormalizer
from hemalum.data.stain.statistics import StainTarget
from hemalum.experiments.plan import plan_data
from hemalum.experiments.refine import DECISIVE
from hemalum.training.train import digest_data

TARGET = StainTarget(method="reinhard", mean=(1, 0, 0), sd=(1, 1, 1), origin="one image")


def dataset(*ids: str) -> Dataset:
    rows = tuple(
        Row(
            id, f"{id}.png", f"{id}.png", id, id, None if id == "b" else "liver", None, 0.5, None, "train", 1, id * 64
        )
        for id in ids
    )
    split = SplitInfo(by="image", seed=0, sha256="0" * 64, counts={})
    return Dataset(Path("set"), DatasetInfo(name="set", images=len(ids), nuclei=1, split=split), rows)


def test_digests_are_those_of_the_runs_there_are() -> None:
    two = dataset("a", "b")
    assert two.digest("id", "sha256", "mpp") == "9206fd52d90726beb9f67307c299f1a6c1dce97d238d22e1c3e7af8d51796a5c"
    assert two.digest(*DECISIVE) == "3bc7a6bb8272454d6780e03cf9753e3ef94229103c5ff821e0b8ed7804e37884"
    assert digest_data([two], None, None) == "d5fdb39452ce2f9688a12c298d5a39ee2b699cae3bc0aeffdb797dd9d1dd1dea"
    assert (
        digest_data([two, dataset("c")], StainNormalizer(TARGET), None)
        == "671370bd13ca055661dc3f33d010d14de30efb0f3492cf3567d2661b08f64d06"
    )


def test_a_comparison_remembers_ids_pixels_and_scales(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Dataset, "open", lambda _: dataset("a", "b"))
    monkeypatch.setattr("hemalum.experiments.plan.fold_of", lambda data, *_: data)
    assert (
        plan_data(Path("set"), 2, "test").digest == "9206fd52d90726beb9f67307c299f1a6c1dce97d238d22e1c3e7af8d51796a5c"
    )
