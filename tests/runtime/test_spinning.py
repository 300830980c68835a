"""Threads that wait for others sleep soon on a busy machine, and results stay as they are."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from toys import tiny_model

from multihmr.evaluation.speed.machine import noise_picture
from multihmr.runtime import spinning

linux = pytest.mark.skipif(sys.platform != "linux" or spinning._libgomp() is None, reason="needs libgomp")


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in spinning.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    for name in ("cores", "usable_cores"):
        monkeypatch.setattr(spinning, name, lambda: 3)
    spinning.limit_spinning(False)  # of a test before, where the machine is busy
    yield
    spinning.limit_spinning(False)


def tasks() -> set[str]:
    return {task.name for task in Path("/proc/self/task").iterdir()}


@linux
def test_more_threads_than_cores_sleep_while_others_compute_and_are_gone_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = tasks()
    monkeypatch.setattr(spinning, "running_elsewhere", lambda: 2)
    for _ in range(2):  # once is enough
        spinning.limit_spinning_if_busy()
        assert len(tasks() - before) == 4  # a team of 4 for 3 cores
        assert "multihmr-openmp" in {thread.name for thread in threading.enumerate()}
    monkeypatch.setattr(spinning, "running_elsewhere", lambda: 1)  # 2 of ours and 1 have a core each
    spinning.limit_spinning_if_busy()
    assert "multihmr-openmp" not in {thread.name for thread in threading.enumerate()}


@linux
@pytest.mark.parametrize("name", spinning.CHOSEN)
def test_what_the_user_chose_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spinning, "running_elsewhere", lambda: 99)
    monkeypatch.setenv(name, "1")
    spinning.limit_spinning_if_busy()
    monkeypatch.delenv(name)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    spinning.limit_spinning_if_busy()
    assert spinning._wake_sleepers is None


@linux
def test_predictions_stay_bit_for_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    model, found = tiny_model(), []
    for others in (0, 99):
        monkeypatch.setattr(spinning, "running_elsewhere", lambda others=others: others)
        found.append(model.predict(noise_picture(), threshold=0, max_people=2))
        assert (spinning._wake_sleepers is not None) == (others > 0)
    assert (found[0].vertices == found[1].vertices).all()


@linux
def test_a_process_that_forks_starts_anew() -> None:
    spinning.limit_spinning(True)
    child = os.fork()
    if child == 0:
        os._exit(0 if spinning._wake_sleepers is None else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert spinning._wake_sleepers is not None
