"""Processors are counted as affinity, control groups and SLURM give them, whichever is least."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hemalum import cpus
from hemalum.models.engines.engine import make_engine
from hemalum.models.model import Model


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Sets up a machine of 16 processors: affinity, own groups, files of control groups, environment."""

    def set_up(
        *, bound: int = 16, groups: str = "0::/\n", files: dict[str, str] | None = None, **environment: str
    ) -> None:
        monkeypatch.setattr(os, "cpu_count", lambda: 16)
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(bound)), raising=False)
        folder = tmp_path / "cgroup"
        folder.mkdir()
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (tmp_path / "own").write_text(groups)
        monkeypatch.setattr(cpus, "CONTROL_GROUPS", folder)
        monkeypatch.setattr(cpus, "OWN_GROUPS", tmp_path / "own")
        for name in cpus.SLURM:
            monkeypatch.delenv(name, raising=False)
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

    return set_up


V1_OWN = "9:memory:/docker/ab\n4:cpu,cpuacct:/docker/ab\n1:cpuset:/docker/ab\n0::/\n"


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, 16),
        ({"bound": 3}, 3),
        ({"files": {"cpu.max": "max 100000\n"}}, 16),
        ({"files": {"cpu.max": "200000 100000\n"}}, 2),
        ({"files": {"cpu.max": "250000 100000\n"}}, 3),  # a part of a processor counts as one
        ({"files": {"cpu.max": "10000 100000\n"}}, 1),
        ({"files": {"cpu.max": "nonsense\n"}}, 16),
        ({"files": {"cpu.max": "200000 100000\n"}, "bound": 1}, 1),
        # a job's own group, without a name space of its own, and one above it
        ({"groups": "0::/slurm/job_7/step\n", "files": {"slurm/job_7/step/cpu.max": "500000 100000\n"}}, 5),
        ({"groups": "0::/slurm/job_7/step\n", "files": {"slurm/job_7/cpu.max": "400000 100000\n"}}, 4),
        ({"groups": "0::/slurm/job_7\n", "files": {"slurm/job_8/cpu.max": "400000 100000\n"}}, 16),
        # version 1, in a container that sees its own group as the topmost
        (
            {"groups": V1_OWN, "files": {"cpu/cpu.cfs_quota_us": "600000\n", "cpu/cpu.cfs_period_us": "100000\n"}},
            6,
        ),
        (
            {
                "groups": V1_OWN,
                "files": {
                    "cpu,cpuacct/docker/ab/cpu.cfs_quota_us": "150000\n",
                    "cpu,cpuacct/docker/ab/cpu.cfs_period_us": "50000\n",
                },
            },
            3,
        ),
        ({"groups": V1_OWN, "files": {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}}, 16),
        ({"SLURM_CPUS_PER_TASK": "4"}, 4),
        ({"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "2"}, 2),
        ({"SLURM_CPUS_ON_NODE": "8"}, 8),
        ({"SLURM_CPUS_PER_TASK": "0"}, 16),
        ({"SLURM_CPUS_PER_TASK": "4(x2)"}, 16),
        ({"SLURM_CPUS_PER_TASK": "64", "bound": 2}, 2),
    ],
)
def test_the_least_limit_counts(machine: Callable[..., None], limits: dict[str, Any], expected: int) -> None:
    machine(**limits)
    assert cpus.count_cpus() == expected
    assert cpus.limited_cpus() == (expected if expected < 16 else None)


def test_where_there_is_no_affinity_and_no_control_group(
    machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine()
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(cpus, "OWN_GROUPS", tmp_path / "absent")
    assert cpus.count_cpus() == 16


@pytest.mark.parametrize(("asked", "limit", "expected"), [(None, 1, 1), (None, None, None), (2, 1, 2)])
def test_engines_keep_to_the_limit(
    monkeypatch: pytest.MonkeyPatch, tiny_model: Model, asked: int | None, limit: int | None, expected: int | None
) -> None:
    """OpenVINO reads neither quotas nor SLURM."""
    core_settings = []

    class Core:
        def __init__(self, core: Any) -> None:
            self.core = core

        def compile_model(self, model: Any, device: str, settings: dict[str, Any]) -> Any:
            core_settings.append(settings)
            return self.core.compile_model(model, device, settings)

        def __getattr__(self, name: str) -> Any:
            return getattr(self.core, name)

    from hemalum.models.engines import engine, openvino

    core = openvino.shared_core()
    monkeypatch.setattr(openvino, "shared_core", lambda: Core(core))
    monkeypatch.setattr(engine, "limited_cpus", lambda: limit)
    made = make_engine("openvino", tiny_model, threads=asked, precision="f32")
    assert core_settings[-1].get("INFERENCE_NUM_THREADS") == expected
    if expected == 1:
        assert made.parallel == 1
