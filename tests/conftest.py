"""What several rooms test with: people who are balls, before a camera of 160x120 pixels."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

if "PYTEST_XDIST_WORKER" in os.environ:  # several at once: each, and what it starts, with one thread
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from multihmr.bodies.topology import KeypointSet, Topology
from multihmr.humans import Humans, project


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is nightly is slow, too: `-m "not slow"` replaces the `-m` of pyproject.toml."""
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.slow)


def pytest_sessionstart() -> None:
    gc.disable()  # until tests are collected: hundreds of modules are imported, none of which goes away
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc keep what tensors leave for the next ones: pages that come anew cost a tenth of the time."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from the heap, too
        mallopt(-1, 2**29)  # M_TRIM_THRESHOLD: bytes that are kept


def pytest_collection_finish() -> None:
    """What was imported is not searched for garbage again: a full search took half a second each time."""
    gc.freeze()
    gc.enable()


def ball(rings: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (V, 3) and outward faces (F, 3) of a closed unit ball in the camera frame."""
    polar, around = np.meshgrid(
        np.linspace(0, np.pi, rings), np.linspace(0, 2 * np.pi, 2 * rings, endpoint=False), indexing="ij"
    )
    x, y, z = np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)
    points = np.stack([x, y, z], -1).reshape(-1, 3).astype(np.float32)
    a = np.arange(rings * 2 * rings).reshape(rings, 2 * rings)
    right, below = np.roll(a, -1, axis=1), np.roll(a, -1, axis=0)
    corner = np.roll(below, -1, axis=1)
    quads = [np.stack(triangle, -1)[:-1] for triangle in ((a, right, corner), (a, corner, below))]
    return points, np.concatenate(quads).reshape(-1, 3)


@pytest.fixture(scope="session")
def fake_smplx_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up SMPLX_NEUTRAL.npz in the format of version 1.1 (116 MB, some seconds)."""
    from parity.weights import fake_smplx

    path = tmp_path_factory.mktemp("smplx") / "SMPLX_NEUTRAL.npz"
    np.savez(path, **fake_smplx())
    return path


@pytest.fixture(scope="session")
def ball_topology() -> Topology:
    vertices, faces = ball()
    last = len(vertices) - 1
    points = KeypointSet(
        ("top", "middle"), np.array([[last, last], [0, last]]), np.full((2, 2), 0.5), ((0, 1),)
    )
    names = {"joint_names": ("root", "head"), "parents": (-1, 0), "shape_names": ("size",)}
    sets = {"poles": points, "coco17": points}
    return Topology("ball", faces, keypoint_sets=sets, expression_names=(), **names)


@pytest.fixture(scope="session")
def make_humans(ball_topology: Topology) -> Callable[..., Humans]:
    """make_humans((x, y, z), ..., radius=0.3, **fields): one ball a place, seen by a camera of focal 100."""

    def make(*places: tuple[float, float, float], radius: float = 0.3, **fields: Any) -> Humans:
        at = np.array(places, np.float32).reshape(-1, 3)
        count = len(at)
        vertices = ball()[0] * np.float32(radius) + at[:, None]
        joints = at[:, None] + np.float32([[0, radius, 0], [0, 0, 0]])
        K = np.array([[100, 0, 80], [0, 100, 60], [0, 0, 1]], np.float32)
        outline = project(vertices, fields.get("K", K))
        defaults = {
            "scores": np.linspace(0.9, 0.5, count),
            "vertices": vertices,
            "joints": joints,
            "joints_2d": project(joints, fields.get("K", K)),
            "boxes": np.concatenate([outline.min(1), outline.max(1)], axis=1),
            "translation": at,
            "pelvis": joints[:, 0],
            "pose": np.tile(np.eye(3), (count, 2, 1, 1)),
            "shape": np.full((count, 1), radius),
            "expression": np.zeros((count, 0)),
            "K": K,
            "K_source": "given",
            "image_size": (120, 160),
            "body": "ball",
            "topology": ball_topology,
        }
        return Humans(**(defaults | fields))

    return make
