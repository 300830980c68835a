from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import glnet_ablations
import numpy as np
import pytest
import torch
from glnet_ablations import FIGURES, ROWS, VARIANTS, Plan, config_of, measure, run

from multihmr.bodies.anny import Anny
from multihmr.data.sample import Sample
from multihmr.data.webdataset import write_shard
from multihmr.evaluation.ground_truth import true_people
from multihmr.geometry import default_intrinsics
from multihmr.networks.configs import GLNetConfig


@pytest.fixture(scope="module")
def body():
    return Anny().with_vertices(range(0, 13718, 400))


def scene(body, people: int = 2) -> Sample:
    """Upright people of whom nothing but their parameters is known."""
    upright = body.mean_pose_R33[None].repeat(people, 1, 1, 1).numpy()
    return Sample(
        image=np.zeros((300, 400, 3), np.uint8),
        K=default_intrinsics(300, 400).numpy(),
        pose=upright,
        shape=body.mean_shape_S[None].repeat(people, 1).numpy(),
        expression=np.zeros((people, 52), np.float32),
        translation=np.float32([[-0.6, -0.5, 3.0], [0.7, -0.4, 4.0]])[:people],
        visibility=np.ones(people, np.float32),
        name="scene",
    )


def oracle(body, sample: Sample, error: tuple[float, float, float]):
    """A model that knows the truth and moves people by `error`, and their feet by twice as much."""
    true = true_people(body, sample)
    joints = (true.joints + torch.tensor(error)).numpy()
    vertices = (true.vertices + 2 * torch.tensor(error)).numpy()
    people = SimpleNamespace(joints=joints, vertices=vertices)
    asked: list[np.ndarray] = []
    return SimpleNamespace(body=body, asked=asked, predict=lambda i, K, boxes: asked.append(boxes) or people)


def test_figures_are_zero_for_the_truth_and_see_what_is_off(body):
    sample = scene(body)
    model = oracle(body, sample, (0.0, 0.0, 0.0))
    figures = measure(model, [sample, scene(body, 0)])
    assert figures["people"] == 2
    assert all(figures[name] == pytest.approx(0, abs=0.01) for name in FIGURES)
    assert model.asked[0].shape == (2, 4)
    moved = measure(oracle(body, sample, (0.03, 0.0, 0.0)), [sample])
    assert moved["mpjpe"] == pytest.approx(0, abs=0.01)
    assert moved["pve"] == pytest.approx(30, abs=0.01)
    assert 0.7 < moved["position_percent"] < 1.0
    with pytest.raises(ValueError, match="nobody in the pictures"):
        measure(model, [scene(body, 0)])


def test_each_variant_is_another_network():
    plan = Plan("data", "test", "out", network="points=2")
    base = GLNetConfig(parts=(((0,), (0,)),))
    configs = {name: base.changed(config_of(plan, name, 0).network) for name in VARIANTS}
    assert len(set(configs.values())) == len(VARIANTS)
    assert all(config.points == 2 for config in configs.values())
    assert {name for _, _, name, _ in ROWS} == set(VARIANTS)
    assert config_of(plan, "k50", 3).out == str(Path("out/k50/3"))


def test_the_table_has_our_figures_beside_the_poster(tmp_path, monkeypatch):
    shape = {"pose": (0, 1, 3, 3), "shape": (0, 1), "expression": (0, 1), "translation": (0, 3)}
    nobody = {name: np.zeros(size, np.float32) for name, size in shape.items()}
    image, K = np.zeros((8, 8, 3), np.uint8), default_intrinsics(8, 8).numpy()
    write_shard(tmp_path / "a.tar", [Sample(image, K, visibility=np.zeros(0), name="0", **nobody)])
    trained: list[str] = []

    def pretend(config, *, progress):
        trained.append(config.network)
        if "local=no" in config.network:
            raise ValueError("no such luck")
        return Path(config.out)

    monkeypatch.setattr(glnet_ablations, "train", pretend)
    monkeypatch.setattr(glnet_ablations, "load_model", lambda *_, **__: None)
    monkeypatch.setattr(glnet_ablations, "measure", lambda *_: dict.fromkeys(FIGURES, 50.0) | {"people": 7.0})
    shards = str(tmp_path / "a.tar")
    plan = Plan(shards, shards, str(tmp_path / "out"), only=("both", "matching"))
    for name in ("both", "matching"):
        (tmp_path / "out" / name / "0").mkdir(parents=True)
    lines = run(plan).read_text(encoding="utf-8").splitlines()
    assert trained == ["local=no", ""]
    assert "| 2 | + both | 50.0 | 50.0 | 50.0 | 50.0 | 40.8 | 68.7 | 79.7 | 1 |" in lines
    assert not any("adaptive" in line for line in lines)
    run(plan)
    assert trained == ["local=no", "", "local=no"]
    assert json.loads((tmp_path / "out/both/0/result.json").read_text(encoding="utf-8"))["people"] == 7
    with pytest.raises(ValueError, match="holds results of steps 3000; choose another folder"):
        run(replace(plan, steps=10))


def test_plans_that_cannot_be_run_are_refused():
    with pytest.raises(ValueError, match="no variant luck; known: baseline, local"):
        Plan("a", "b", "c", only=("luck",))
    with pytest.raises(ValueError, match="needs seeds, steps and pictures"):
        Plan("a", "b", "c", steps=0)
