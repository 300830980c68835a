"""Figures of noisy predictions, as they were before the two evaluators became one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from multihmr.bodies.base import Body
from multihmr.data.sample import Sample
from multihmr.evaluation import runner
from multihmr.evaluation.runner import Plan, Protocol, evaluate, measure
from multihmr.humans import Humans

from .conftest import ToyModel, people, scene

GOLDEN = json.loads((Path(__file__).parent / "golden_figures.json").read_text(encoding="utf-8"))
KEYPOINT_SETS = {"mupots": "mupots17", "panoptic": "panoptic19", "h36m": "h36m17"}
SCENES = [
    scene(10 + i, [(x, 0.1 * x, 3 + i + abs(x)) for x in np.linspace(-2, 2, i)], f"S{i % 2}/{i}")
    for i in range(5)
]
SCENES[4].visibility[0] = 0.05
SCENES[3].visibility[1] = 0.4


def noisy(body: Body) -> Callable[[Sample], Humans]:
    """Everybody but the third, and in the crowd of three the first twice; all a little wrong."""

    def answer(sample: Sample) -> Humans:
        rng, count = np.random.default_rng(len(sample)), len(sample)
        shape = sample.shape * rng.uniform(0.9, 1.1, sample.shape.shape).astype(np.float32)
        place = sample.translation * rng.uniform(0.97, 1.03, (count, 1)).astype(np.float32)
        humans = people(body, sample.pose, shape, place)
        vertices = humans.vertices + rng.normal(0, 0.02, humans.vertices.shape).astype(np.float32)
        joints = humans.joints + rng.normal(0, 0.02, humans.joints.shape).astype(np.float32)
        rows = [i for i in range(count) if i != 2] + [0] * (count == 3)
        return replace(humans, vertices=vertices, joints=joints)[rows]

    return answer


def as_keypoints(body: Body, keypoint_set: str) -> list[Sample]:
    """The same people as a data set of joints knows them."""
    samples = []
    for sample in SCENES:
        points = people(body, sample.pose, sample.shape, sample.translation).keypoints(keypoint_set)
        known = {"keypoints_3d": points.xyz.astype(np.float32), "keypoints_2d": points.xy}
        pose = np.zeros((len(sample), 0, 3, 3), np.float32)
        samples.append(replace(sample, pose=pose, keypoint_set=keypoint_set, **known))
    return samples


def check(found: dict[str, Any], golden: dict[str, Any]) -> None:
    for name, value in golden.items():
        if isinstance(value, dict):
            check(found[name], value)
        elif isinstance(value, (int, float)):
            assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_figures_of_evaluate(body: Body) -> None:
    result = evaluate(ToyModel(body, SCENES, noisy(body)), SCENES, Protocol(batch_size=3)).to_dict()
    check(result, {name: value for name, value in GOLDEN["evaluate"].items() if name != "groups"})
    assert list(result["groups"]) == list(GOLDEN["evaluate"]["groups"])
    for name, groups in GOLDEN["evaluate"]["groups"].items():
        for group, golden in zip(result["groups"][name], groups, strict=True):
            check(group, golden)


@pytest.mark.parametrize("data", [name for name in GOLDEN if name != "evaluate"])
def test_figures_of_benchmarks(data: str, body: Body, monkeypatch: pytest.MonkeyPatch) -> None:
    samples = as_keypoints(body, KEYPOINT_SETS[data]) if data in KEYPOINT_SETS else SCENES
    monkeypatch.setattr(runner, "open_samples", lambda *_: samples)
    model: Any = ToyModel(body, SCENES, noisy(body))
    result = measure(model, Plan(data, protocol=Protocol(batch_size=3))).to_dict()
    check(result, GOLDEN[data])
    assert result["notes"] == GOLDEN[data].get("notes", [])
