"""Cores that this process may use, and what others do with them, as Linux tells it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from multihmr.runtime import machine_load


def test_other_processes_are_counted_without_our_own_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {"/proc/loadavg": "1.00 0.50 0.25 7/180 4242\n"}
    for number, state in enumerate("RSR"):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "stat").write_text(f"{number} (a (b) R) {state} 1 1", encoding="utf-8")
    monkeypatch.setattr(
        machine_load,
        "Path",
        lambda name: tmp_path if name == "/proc/self/task" else written(tmp_path, texts[name]),
    )
    assert machine_load.running_elsewhere() == 5
    texts["/proc/loadavg"] = "nothing"
    assert machine_load.running_elsewhere() == 0


def written(folder: Path, text: str) -> Path:
    (folder / "loadavg").write_text(text, encoding="ascii")
    return folder / "loadavg"


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000"}, math.inf),
        ("0::/\n", {}, math.inf),
        # The least of a group and those around it; a path of the host that a container does not see.
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, 2),
        ("0::/docker/4711\n", {"cpu.max": "300000 100000"}, 3),
        ("4:memory:/\n3:cpu,cpuacct:/x\n0::/\n", v1 := {
            "cpu,cpuacct/x/cpu.cfs_quota_us": "50000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000",
        }, 0.5),
        ("3:cpuset:/x\n", v1, math.inf),
        (None, {"cpu.max": "100000 100000"}, math.inf),  # no Linux
        ("0::/\n", {"cpu.max": "damaged"}, math.inf),
    ],
)  # fmt: skip
def test_quotas_of_containers(
    groups: str | None, files: dict[str, str], expected: float, tmp_path: Path
) -> None:
    if groups is not None:
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(groups, encoding="utf-8")
    for name, text in files.items():
        file = tmp_path / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n", encoding="ascii")
    assert machine_load.quota(tmp_path) == expected


@pytest.mark.parametrize(("quota", "expected"), [(math.inf, 4), (2.5, 2), (0.5, 1), (64, 4)])
def test_a_quota_limits_the_cores(quota: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_load, "cores", lambda: 4)
    monkeypatch.setattr(machine_load, "quota", lambda: quota)
    assert machine_load.usable_cores() == expected


@pytest.mark.parametrize("content", [b"0::/caf\xe9\n", b"no colon\n", b""])
def test_names_in_no_known_encoding_are_no_limit(tmp_path, content):
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_bytes(content)
    assert machine_load.quota(tmp_path) == math.inf
