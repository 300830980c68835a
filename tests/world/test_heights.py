"""How tall people are, and people of known height."""

from __future__ import annotations

import dataclasses
import importlib

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import posed
from multihmr.bodies.loading import load_body
from multihmr.bodies.measurements import measure
from multihmr.humans import Humans
from multihmr.postprocessing.to_humans import to_humans
from multihmr.world import heights, with_heights

module = importlib.import_module("multihmr.world.heights")  # a function has its name, too

K = torch.tensor([[800.0, 0, 500], [0, 800, 500], [0, 0, 1]])
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


@pytest.fixture(scope="module")
def humans(body: Anny) -> Humans:
    shape = body.mean_shape_S.numpy()[None].repeat(3, 0)
    names = list(body.topology.shape_names)
    shape[:, names.index("height")] = 0.3, 0.5, 0.7
    shape[2, names.index("age")] = 0.3  # a child
    pose = body.mean_pose_R33.numpy()[None].repeat(3, 0)
    face = np.zeros((3, body.expression_count), np.float32)
    translation = np.array([[-1, 0.1, 4], [0, 0, 3], [0.8, 0.3, 5]], np.float32)
    vertices, joints = posed(body, pose, shape, face, translation)
    people = {"pose": pose, "shape": shape, "expression": face, "translation": translation}
    people |= {"scores": np.ones(3), "vertices": vertices, "joints": joints}
    return to_humans(people, body, K=K, K_source="given", image_size=(1000, 1000))


def test_heights_are_those_of_the_tape(body: Anny, humans: Humans) -> None:
    assert heights(humans, body=body) == pytest.approx(measure(body, humans.shape).height, abs=1e-3)
    assert humans.height_m == pytest.approx(heights(humans, body=body))
    assert humans[:0].height_m.shape == (0,)


def test_a_known_height_fixes_size_and_distance(body: Anny, humans: Humans) -> None:
    taller = with_heights(humans, {2: 1.80}, body=body)
    before, after = humans.height_m, taller.height_m
    assert after[1] == pytest.approx(1.80, abs=0.002)
    assert after[[0, 2]] == pytest.approx(before[[0, 2]])
    assert taller.distances[1] / humans.distances[1] == pytest.approx(1.80 / before[1], rel=1e-3)
    np.testing.assert_allclose(taller.vertices[0], humans.vertices[0], atol=1e-5)
    # the same pixels: the head exactly, the rest as far as proportions stay
    head = body.center_joint
    np.testing.assert_allclose(taller.joints_2d[1, head], humans.joints_2d[1, head], atol=0.01)
    assert np.abs(taller.joints_2d[1] - humans.joints_2d[1]).max() < 8
    assert humans.with_heights(1.7, body=body).height_m == pytest.approx([1.7, 1.7, 1.7], abs=0.02)


def test_heights_that_cannot_be(body: Anny, humans: Humans) -> None:
    with pytest.raises(ValueError, match="names person 7; the numbers of the people are 1, 2, 3"):
        with_heights(humans, {7: 1.8}, body=body)
    with pytest.raises(ValueError, match="names person '1'; the numbers of the people are 1, 2, 3"):
        with_heights(humans, {"1": 1.8}, body=body)  # type: ignore[dict-item]
    for height in (float("nan"), "1.8", None):
        with pytest.raises(ValueError, match="height of person 1 must be a number of metres, got "):
            with_heights(humans, {1: height}, body=body)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"heights are in metres, from 0.3 to 2.8, got 180"):
        with_heights(humans, 180, body=body)
    with pytest.raises(ValueError, match="one for each of the 3 people"):
        with_heights(humans, [1.7, 1.8], body=body)
    with pytest.warns(UserWarning, match=r"person 3 cannot be 2.50 m tall .*is the nearest"):
        with_heights(humans, np.array([np.nan, np.nan, 2.5]), body=body)


def test_vertices_outside_of_the_mesh_do_not_count() -> None:
    """anny-163 has MakeHuman's helper vertices, which end 3 cm above the head; its mesh is that of anny."""
    tall = []
    for name in ("anny", "anny-163"):
        body = load_body(name)
        vertices = np.zeros((1, len(body.topology.skin_weights), 3), np.float32)
        people = Humans.empty(topology=body.topology, K=np.eye(3), K_source="given", image_size=(8, 8))
        arrays = {"scores": np.ones(1), "vertices": vertices, "shape": body.mean_shape_S[None].numpy()}
        for field in ("joints", "joints_2d", "boxes", "translation", "pelvis", "pose", "expression"):
            arrays[field] = np.zeros((1, *getattr(people, field).shape[1:]), np.float32)
        tall.append(heights(dataclasses.replace(people, **arrays), body=body)[0])
    assert tall[0] == pytest.approx(1.8379, abs=1e-3)
    assert tall[1] == pytest.approx(tall[0], abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["anny", "anny-163"])
def test_the_vertices_near_both_ends_are_enough_for_all_shapes(name: str) -> None:
    """Heights are measured on a few of the vertices; babies, giants and all between have their own."""
    body = load_body(name)
    random = np.random.default_rng(0)
    shapes = random.uniform(0, 1, (30, body.shape_count)).astype(np.float32)
    shapes[20:] = shapes[20:].round()
    on_faces = np.unique(body.topology.faces)
    ends = module._ends(body)
    assert len(ends.topology.skin_indices) < len(on_faces) / 4
    whole = np.ptp(module._upright(body, shapes)[:, on_faces], axis=1)
    np.testing.assert_allclose(module._heights(ends, shapes), whole, atol=1e-5)
