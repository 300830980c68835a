"""Gravity and floor of people whose camera is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import posed
from multihmr.humans import Humans
from multihmr.postprocessing.to_humans import to_humans
from multihmr.world import Ground, estimate_ground, in_world, level_humans
from multihmr.world.standing import angles, up_of

K = torch.tensor([[800.0, 0, 500], [0, 800, 500], [0, 0, 1]])
SIZE = (1000, 1000)


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


def standing(body: Anny, *, pitch: float, roll: float, height: float, lying: bool = False) -> Humans:
    """Three people on a floor, as a camera at that height sees them that looks down by `pitch` degrees."""
    up = up_of(np.radians(roll), np.radians(pitch))
    level = Ground(up, height, "given", "given")
    rotation, offset = level.camera_to_level()
    count, places = 3, np.array([[-0.9, 4.0], [0.2, 3.2], [1.1, 5.5]])
    pose = body.mean_pose_R33.numpy()[None].repeat(count, 0)
    for i, yaw in enumerate((0.3, 2.0, -1.2)):
        turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
        pose[i, 0] = turn @ pose[i, 0]
    if lying:
        pose[:, 0] = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]]) @ pose[:, 0]
    shape = body.mean_shape_S.numpy()[None].repeat(count, 0)
    face = np.zeros((count, body.expression_count), np.float32)
    vertices, _ = posed(body, pose, shape, face, np.zeros((count, 3)))
    head = np.stack([places[:, 0], -vertices[..., 1].max(1), places[:, 1]], 1)  # y is down, the floor at 0
    translation = ((head - offset) @ rotation).astype(np.float32)
    pose[:, 0] = rotation.T @ pose[:, 0]
    vertices, joints = posed(body, pose, shape, face, translation)
    people = {"pose": pose, "shape": shape, "expression": face, "translation": translation}
    people |= {"scores": np.ones(count), "vertices": vertices, "joints": joints}
    return to_humans(people, body, K=K, K_source="given", image_size=SIZE)


@pytest.mark.slow
@pytest.mark.parametrize(("pitch", "roll", "height"), [(10, 0, 1.6), (25, 3, 2.5), (-5, -2, 0.9)])
def test_gravity_and_floor_of_people_who_stand(body: Anny, pitch: float, roll: float, height: float) -> None:
    humans = standing(body, pitch=pitch, roll=roll, height=height)
    ground = humans.ground()
    assert ground.up is not None
    assert angles(ground.up, up_of(np.radians(roll), np.radians(pitch))) < 2.0
    assert ground.camera_pitch == pytest.approx(pitch, abs=2)
    assert ground.camera_height == pytest.approx(height, abs=0.1)
    assert (ground.gravity_source, ground.floor_source, ground.people) == ("people", "people", 3)
    assert ground.gravity_std is not None
    assert 0 < ground.gravity_std < 6
    given = humans.ground(camera_pitch=pitch, camera_roll=roll)
    assert given.camera_height == pytest.approx(height, abs=0.02)
    assert np.abs(given.heights(humans.vertices).min(1)).max() < 0.02
    assert (given.gravity_source, given.gravity_std) == ("given", 0.0)


@pytest.mark.slow
def test_the_usual_height_of_cameras_corrects_people_who_lean(
    body: Anny, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leaning forwards by 10 degrees looks like a lower camera; the floor stays where the feet are."""
    upright = standing(body, pitch=5, roll=0, height=1.5)[[2]]
    lean = np.radians(10)
    turn = np.array([[1, 0, 0], [0, np.cos(lean), np.sin(lean)], [0, -np.sin(lean), np.cos(lean)]])
    pose = upright.pose.copy()
    pose[:, 0] = turn @ pose[:, 0]
    leaning = dataclasses.replace(
        upright, pose=pose, **{n: (getattr(upright, n) - upright.pelvis) @ turn.T + upright.pelvis
                               for n in ("vertices", "joints", "translation", "pelvis")}
    )  # fmt: skip
    ground = leaning.ground()
    monkeypatch.setattr("multihmr.world.ground_solver.CAMERA_HEIGHT_STD", 100.0)
    alone = leaning.ground()
    errors = [abs(float(g.camera_pitch or 0) - 5) for g in (alone, ground)]
    assert errors[1] < errors[0] - 1
    monkeypatch.undo()
    over = ground.heights(leaning.vertices[0]).min()
    assert abs(over) < 0.02
    given = upright.ground(camera_pitch=5, camera_roll=0)
    assert given.camera_height == pytest.approx(1.5, abs=0.01)  # the usual height moves no floor


@pytest.mark.slow
def test_a_camera_high_above_is_not_pulled_down(body: Anny) -> None:
    ground = standing(body, pitch=55, roll=0, height=9.0).ground()
    assert ground.camera_pitch == pytest.approx(55, abs=2)
    assert ground.camera_height == pytest.approx(9.0, abs=0.3)


@pytest.mark.slow
def test_one_who_jumps_or_lies_is_outvoted(body: Anny) -> None:
    humans = standing(body, pitch=12, roll=0, height=1.6)
    up = up_of(0, np.radians(12)).astype(np.float32)
    jump = np.array([[0, 0, 0], [0, 0, 0], [1, 1, 1]], np.float32) * up * 0.5
    moved = {name: getattr(humans, name) + jump for name in ("translation", "pelvis")}
    moved |= {name: getattr(humans, name) + jump[:, None] for name in ("vertices", "joints")}
    ground = dataclasses.replace(humans, **moved).ground()
    assert ground.camera_height == pytest.approx(1.6, abs=0.1)
    assert angles(ground.up, up) < 3


@pytest.mark.slow
def test_a_height_of_the_camera_that_people_contradict_is_named(body: Anny, monkeypatch) -> None:
    humans = standing(body, pitch=0, roll=0, height=1.6)
    monkeypatch.setattr("multihmr.world.ground.AGREEMENT", 2.0)  # more than there can be
    told = "the 3 people who stand do not agree about which way is up"
    assert humans.ground().reason.startswith(f"{told}: give camera_pitch")
    ground = humans.ground(floor=2.5)
    assert ground.up is None
    assert ground.reason.startswith(f"{told}, with the camera 2.5 m over the floor: give camera_pitch")


@pytest.mark.slow
def test_nobody_stands_is_said(body: Anny) -> None:
    lying = standing(body, pitch=12, roll=0, height=1.6, lying=True)
    ground = lying.ground()
    assert ground.up is None
    assert not ground.known
    assert ground.reason.startswith(
        "none of the 3 people in view stands upright with the knees in the picture, so nothing shows"
    )
    assert lying[:0].ground().reason.startswith("no people are seen")
    with pytest.raises(ValueError, match=r"none of the 3 people in view stands upright.*give camera_pitch"):
        lying.in_world()
    given = lying.ground(camera_pitch=12)
    assert given.camera_roll == pytest.approx(0)
    assert given.camera_height is None
    assert "the floor is not known" in given.reason
    assert lying.ground(camera_pitch=12, floor=1.6).known


@pytest.mark.slow
def test_legs_outside_of_the_image_tell_nothing(body: Anny) -> None:
    humans = standing(body, pitch=12, roll=0, height=1.6)
    portrait = dataclasses.replace(humans, image_size=(400, 1000))
    assert portrait.ground().up is None


@pytest.mark.slow
@pytest.mark.parametrize("frame", ["opengl", "blender", "unity", "unreal", "opencv"])
def test_world_has_the_floor_at_zero(body: Anny, frame: str) -> None:
    humans = standing(body, pitch=20, roll=4, height=1.8)
    world = in_world(humans, frame, camera_pitch=20, camera_roll=4, one_floor=False)
    axis, sign = {"opengl": (1, 1), "unity": (1, 1), "opencv": (1, -1)}.get(frame, (2, 1))
    unit = 100 if world.unit == "cm" else 1
    lowest = (sign * world.vertices[..., axis] / unit).min(1)
    assert np.abs(lowest).max() < 0.03
    assert np.abs(world.over_floor).max() < 0.03
    assert sign * world.camera_to_world[axis, 3] / unit == pytest.approx(1.8, abs=0.03)
    back = np.append(humans.joints[0, 5], 1) @ world.camera_to_world.T
    np.testing.assert_allclose(back[:3], world.joints[0, 5], rtol=1e-4, atol=1e-4)
    assert world.height_m == pytest.approx(humans.height_m)
    a, b, c = (world.vertices[0][world.faces[:, i]] for i in range(3))  # volume is positive: faces outwards
    assert np.einsum("fc,fc->", a, np.cross(b, c)) > 0


@pytest.mark.slow
def test_files_stand_upright(body: Anny, tmp_path) -> None:
    import trimesh

    humans = standing(body, pitch=20, roll=4, height=1.8)
    ground = humans.ground(camera_pitch=20, camera_roll=4)
    for name in ("people.glb", "people.obj", "people.ply"):
        bounds = trimesh.load(humans.save(tmp_path / name, ground=ground)).bounds
        assert bounds[0][1] == pytest.approx(0, abs=0.03), name
        assert 1.4 < bounds[1][1] < 2.0, name
    scene = humans.to_trimesh(ground=ground)
    assert scene.camera_transform[1, 3] == pytest.approx(ground.camera_height)
    # the camera still shows a joint where the image does
    local = np.linalg.inv(scene.camera_transform) @ np.append(
        level_humans(humans, ground).joints[0, 3] * [1, -1, -1], 1
    )
    pixel = local[:2] * [1, -1] / -local[2] * 800 + 500
    np.testing.assert_allclose(pixel, humans.joints_2d[0, 3], atol=0.01)
    rigged = humans[0].save(tmp_path / "person.bvh", body=body, ground=ground)
    assert rigged.is_file()
    with pytest.raises(ValueError, match=r"numbers as in 'people.json' stay in the camera frame"):
        humans.save(tmp_path / "people.json", ground=ground)


@pytest.mark.slow
def test_glb_camera_shows_the_image(body: Anny, tmp_path) -> None:
    import json
    import struct

    humans = standing(body, pitch=20, roll=4, height=1.8)
    ground = humans.ground(camera_pitch=20, camera_roll=4)
    content = humans.save(tmp_path / "people.glb", ground=ground).read_bytes()
    tree = json.loads(content[20 : 20 + struct.unpack("<I", content[12:16])[0]])
    node = next(node for node in tree["nodes"] if "camera" in node)
    x, y, z, w = node["rotation"]
    matrix = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    point = level_humans(humans, ground).joints[1, 7] * [1, -1, -1]
    local = matrix.T @ (point - node["translation"])
    pixel = local[:2] * [1, -1] / -local[2] * 800 + 500
    np.testing.assert_allclose(pixel, humans.joints_2d[1, 7], atol=0.05)


@pytest.mark.slow
def test_floor_is_drawn_under_the_people(body: Anny) -> None:
    humans = standing(body, pitch=20, roll=0, height=1.8)
    ground = humans.ground(camera_pitch=20)
    plain, drawn = humans.draw(side_views=False), humans.draw(side_views=False, ground=ground)
    changed = (plain != drawn).any(2)
    horizon = 500 - 800 * np.tan(np.radians(20))
    assert changed[int(horizon) + 20 :].mean() > 0.02
    assert not changed[: int(horizon)].any()
    assert (humans.draw(side_views=False, ground=Ground(reason="unknown")) == plain).all()


def test_a_given_plane_is_the_ground() -> None:
    ground = estimate_ground([], floor=(0, -2, 0, 3))
    assert ground.camera_height == pytest.approx(1.5)
    assert ground.camera_pitch == pytest.approx(0)
    np.testing.assert_allclose(ground.plane, [0, -1, 0, 1.5])
    assert ground.heights(np.array([0.0, 1.5, 4.0])) == pytest.approx(0)


@pytest.mark.parametrize("pitch", [90, -90, 60])
def test_a_camera_that_looks_straight_down_has_a_world(pitch: float) -> None:
    ground = estimate_ground([], camera_pitch=pitch, camera_roll=0, floor=2)
    rotation, _ = ground.camera_to_level()
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(rotation) == pytest.approx(1)
    np.testing.assert_allclose(rotation @ ground.up, [0, -1, 0], atol=1e-9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"camera_pitch": 91}, "camera_pitch is in degrees, from -90 to 90"),
        ({"camera_roll": "5"}, "camera_roll is in degrees"),
        ({"floor": -1}, "floor is the height of the camera over it"),
        ({"floor": (0, 0, 0, 1)}, "floor is the height of the camera"),
        ({"floor": (0, -1, 0, 1), "camera_pitch": 3}, "a floor plane gives the vertical"),
    ],
)
def test_wrong_options_are_one_sentence(options, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        estimate_ground([], **options)
