"""Local refinement of faces: crops, the turn of heads, expressions, and whose face it is."""

from __future__ import annotations

from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from multihmr import load_model
from multihmr.bodies.base import posed
from multihmr.bodies.loading import load_body
from multihmr.hub.landmarks import load_landmark_networks
from multihmr.model import faces
from multihmr.model.faces import EYES_478, SAME_68, SAME_478, FaceBody, FoundFace, face_crop, first_crop
from multihmr.networks.landmarks.face import FACE_POINTS

IMAGES = Path(__file__).parents[2] / "examples" / "images"
Picture = namedtuple("Picture", "pixels")
K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float32)


def rotation(axis, degrees):
    import roma

    vector = torch.tensor(axis, dtype=torch.float64)
    return roma.rotvec_to_rotmat(vector / vector.norm() * np.radians(degrees)).numpy()


def part(turn):
    import roma

    vector = roma.rotmat_to_rotvec(torch.from_numpy(turn))
    return roma.rotvec_to_rotmat(faces.TURN_SHARE * vector).numpy()


@pytest.fixture(scope="module")
def body():
    return load_body("anny")


@pytest.fixture(scope="module")
def astronaut():
    pixels = np.asarray(Image.open(IMAGES / "astronaut.jpg").convert("RGB"))
    return pixels, load_model(device="cpu").predict(pixels)


def found_face(points, camera):
    """A face whose points are seen under a weak perspective along the ray through it."""
    middle = points.mean(0)
    pixels = camera @ (middle / middle[2])
    ray = faces.shortest_rotation(torch.tensor([0.0, 0.0, 1.0]).double(), torch.from_numpy(middle)).numpy()
    local = (points - middle) @ ray * camera[0, 0] / np.linalg.norm(middle)
    return face_at(local[:, :2] + pixels[:2])


def face_at(xy):
    """A face of the first person, seen at these pixels (13, 2) of `SAME_478`."""
    seen = np.zeros((FACE_POINTS, 2))
    seen[list(SAME_478)] = xy
    return FoundFace(0, 1.0, seen, face_crop(seen, EYES_478), 0.0)


@pytest.mark.parametrize("axis", [(0, 1, 0), (1, 0, 0), (0.3, -0.2, 1)])
@pytest.mark.parametrize("degrees", [-30, 5, 40])
def test_a_head_turns_to_where_its_points_are_seen(body, astronaut, axis, degrees):
    _, humans = astronaut
    face = FaceBody.of(body)
    away = replace(humans, translation=np.array([[1.0, -0.5, 2.0]], np.float32))
    start, joints = posed(body, away.pose, away.shape, away.expression, away.translation)
    away = replace(away, joints=joints, K=K)
    turned = away.pose.astype(np.float64)
    turned[0, face.head] = turned[0, face.head] @ rotation(axis, degrees)
    aim, _ = posed(body, turned.astype(np.float32), away.shape, away.expression, away.translation)
    points = face.points(np.asarray(aim))[0, list(SAME_68)].astype(np.float64)
    pose, _ = faces.with_heads(away, face, [found_face(points, K)], face.points(np.asarray(start)))
    whole = rotation(axis, degrees)
    np.testing.assert_allclose(pose[0, face.head], away.pose[0, face.head] @ part(whole), atol=0.02)
    others = np.delete(np.arange(pose.shape[1]), face.head)
    assert np.array_equal(pose[0, others], away.pose[0, others])


def test_people_move_half_of_the_way_to_where_their_faces_are_seen(body, astronaut):
    _, humans = astronaut
    face = FaceBody.of(body)
    there = replace(humans, translation=humans.translation.astype(np.float64), K=K)
    aim = np.array([[0.03, -0.02, 0.08]])
    points = face.points(humans.vertices + aim)[0, list(SAME_68)]
    seen, start = faces.project(points, K), face.points(humans.vertices)
    _, moved = faces.with_heads(there, face, [face_at(seen)], start)
    np.testing.assert_allclose(moved - humans.translation, aim / 2, atol=0.003)
    # A face of no size moves people by a bounded factor.
    own = start[0, list(SAME_68)].astype(np.float64)
    assert faces.face_place(own, 1e-3 * seen, K)[2] == pytest.approx(1.3 * own[:, 2].mean(), rel=1e-6)


def test_heads_turn_by_45_degrees_at_most(body, astronaut):
    _, humans = astronaut
    points = FaceBody.of(body).points(humans.vertices)[0, list(SAME_68)].astype(np.float64)
    seen = found_face(points @ rotation((0, 1, 0), 70).T, K).points[list(SAME_478)]
    turn = faces._share(faces.head_turn(points, seen, K))
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(45, abs=1e-3)


@pytest.mark.parametrize("degrees", [0, 30, -120])
def test_the_crop_is_upright_and_holds_the_face(degrees):
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-0.5, -0.3], [0.5, -0.3]]) * 50.0
    turn = rotation((0, 0, 1), degrees)[:2, :2]
    crop = face_crop(square @ turn.T + [200, 100], (4, 5))
    np.testing.assert_allclose(crop.center, [200, 100], atol=1e-9)
    assert crop.side == pytest.approx(150)
    np.testing.assert_allclose(crop.up, turn @ [0, -1], atol=1e-9)
    level = crop.from_image(square @ turn.T + [200, 100])
    np.testing.assert_allclose(level[:4], 128 + square[:4] * 256 / 150, atol=1e-9)


@pytest.mark.slow
def test_a_smile_is_read_from_a_photograph(body, astronaut):
    pixels, humans = astronaut
    face = FaceBody.of(body)
    found = faces.find_faces(Picture(pixels), humans, face, load_landmark_networks())
    assert [one.person for one in found] == [0]
    assert found[0].presence > 0.99
    expression = faces.with_expressions(humans, face, found, load_landmark_networks())[0]
    seen = dict(zip(body.topology.expression_names, expression, strict=True))
    assert min(seen["mouthSmileLeft"], seen["mouthSmileRight"]) > 0.7
    assert max(seen["jawOpen"], seen["eyeBlinkLeft"], seen["eyeBlinkRight"]) < 0.3
    assert seen["tongueOut"] == humans.expression[0][list(body.topology.expression_names).index("tongueOut")]
    eyes = found[0].points[[159, 386]]
    np.testing.assert_allclose(eyes, [[203, 100], [248, 101]], atol=5)


def test_faces_that_are_small_turned_away_or_elsewhere_are_left_alone(body, astronaut):
    pixels, humans = astronaut
    points = FaceBody.of(body).points(humans.vertices)[0]
    assert first_crop(points, humans) is not None
    far = points + [0, 0, 30.0]
    assert first_crop(far, humans) is None
    behind = points * [1, 1, -1] + [0, 0, 2 * points[:, 2].mean()]
    assert first_crop(behind, humans) is None
    assert first_crop(points + [5.0, 0, 0], humans) is None
    grey = Picture(np.full_like(pixels, 128))
    assert faces.find_faces(grey, humans, FaceBody.of(body), load_landmark_networks()) == []


def test_one_face_is_that_of_the_nearest_head(body, astronaut):
    pixels, humans = astronaut
    beside = replace(
        type(humans).concatenate([humans, humans]),
        vertices=np.concatenate([humans.vertices + [0.02, 0, 0], humans.vertices]).astype(np.float32),
    )
    found = faces.find_faces(Picture(pixels), beside, FaceBody.of(body), load_landmark_networks())
    assert len(found) == 1


def test_other_bodies_are_refused():
    with pytest.raises(ValueError, match="moves the faces of the body 'anny'; this model has 'toy'"):
        FaceBody(namedtuple("Body", "name")("toy"))


@pytest.mark.slow
def test_predict_with_the_option_smiles_and_keeps_the_rest(body, astronaut):
    pixels, humans = astronaut
    model = load_model(device="cpu")
    moved = model.predict(pixels, hands_and_faces=True)
    names = list(body.topology.expression_names)
    assert moved.expression[0][names.index("mouthSmileLeft")] > 0.7 > humans.expression[0].max()
    face = FaceBody.of(body)
    (seen,) = faces.find_faces(Picture(pixels), humans, face, load_landmark_networks())
    off = [
        np.linalg.norm(
            faces.project(face.points(people.vertices)[0, list(SAME_68)], people.K)
            - seen.points[list(SAME_478)],
            axis=1,
        ).mean()
        for people in (humans, moved)
    ]
    assert off[1] < 0.7 * off[0]
    assert abs(moved.distances[0] / humans.distances[0] - 1) < 0.1
    np.testing.assert_array_equal(moved.shape, humans.shape)
    arms = [i for i, name in enumerate(body.topology.pose_names) if "finger" in name or "wrist" in name]
    kept = np.setdiff1d(np.arange(moved.pose.shape[1]), [face.head, *arms])
    legs = [i for i in kept if "leg" in body.topology.pose_names[i]]
    np.testing.assert_array_equal(moved.pose[:, legs], humans.pose[:, legs])
    # The mesh is that of its parameters.
    vertices, joints = posed(body, moved.pose, moved.shape, moved.expression, moved.translation)
    np.testing.assert_allclose(moved.vertices, vertices, atol=1e-5)
    np.testing.assert_allclose(moved.joints, joints, atol=1e-5)
