"""The law of all: what a point's colour is in the picture, it still is where the moved truth projects it."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from toys import ToyBody

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import place
from multihmr.bodies.keypoint_sets import KEYPOINT_SETS
from multihmr.bodies.topology import Topology
from multihmr.data.sample import Sample
from multihmr.data.transforms import flip, heads_of, occlude, on_pelvis, warp
from multihmr.geometry import project
from multihmr.preprocessing.letterbox import Letterbox

NAMES = KEYPOINT_SETS["lsp14"].split()
TOPOLOGY = Anny().topology
WINDOWS = {
    "whole": Letterbox.whole(240, 320, 320),
    "smaller": Letterbox.whole(240, 320, 200),
    "crop": Letterbox.box(70, 20, 290, 200, 300),
    "beyond": Letterbox.box(-80, -60, 330, 300, 450),
    "longer lens": Letterbox.box(155 - 150, 118 - 150, 155 + 150, 118 + 150, 400),
}
TURNS = (0.0, math.radians(20), math.radians(-35))


def colour_of(person: int, name: str) -> np.ndarray:
    """Left is red, right is blue, the middle green; people differ in brightness."""
    channel = 0 if name.startswith("left") else 2 if name.startswith("right") else 1
    return np.eye(3, dtype=np.uint8)[channel] * (255 if person == 0 else 200)


def projected(points: np.ndarray, sample: Sample) -> np.ndarray:
    return project(torch.from_numpy(points), torch.from_numpy(sample.K)).numpy()


@pytest.fixture
def sample() -> Sample:
    """Two people of 14 coloured dots before a camera off the middle, each on a square of the mask."""
    K = np.float32([[300, 4, 155], [0, 290, 118], [0, 0, 1]])
    rng = np.random.default_rng(3)
    grid = np.stack(np.meshgrid([-0.75, -0.25, 0.25, 0.75], [-0.7, -0.25, 0.2, 0.65]), -1).reshape(-1, 2)[:14]
    middles = np.float32([[-0.9, 0.1, 4.0], [1.0, -0.1, 5.0]])
    points = middles[:, None] + np.pad(grid, ((0, 0), (0, 1))) + rng.normal(0, 0.02, (2, 14, 3))
    sample = Sample(
        image=np.full((240, 320, 3), 90, np.uint8),
        K=K,
        pose=np.tile(np.eye(3, dtype=np.float32), (2, 104, 1, 1)),
        shape=np.full((2, 6), 0.5, np.float32),
        expression=np.zeros((2, 52), np.float32),
        translation=points[:, 13].astype(np.float32),
        visibility=np.float32([1, 0.5]),
        name="dots",
        keypoints_3d=points.astype(np.float32),
        keypoint_set="lsp14",
        mask=np.zeros((240, 320), np.uint8),
        depth=np.full((240, 320), np.nan, np.float32),
    )
    at = projected(sample.keypoints_3d, sample)
    for person in range(2):
        (x0, y0), (x1, y1) = at[person].min(0).astype(int) - 5, at[person].max(0).astype(int) + 6
        sample.mask[y0:y1, x0:x1] = person + 1
        sample.depth[y0:y1, x0:x1] = middles[person, 2]
        for (x, y), name in zip(at[person].astype(int), NAMES, strict=True):
            sample.image[y - 4 : y + 5, x - 4 : x + 5] = colour_of(person, name)
    return dataclasses.replace(sample, keypoints_2d=at)


def assert_truth_on_picture(sample: Sample, *, mirrored: bool = False) -> None:
    np.testing.assert_allclose(projected(sample.keypoints_3d, sample), sample.keypoints_2d, atol=2e-2)
    np.testing.assert_allclose(heads_of(sample), sample.keypoints_2d[:, 13], atol=2e-2)
    other = {"left": "right", "right": "left"}
    seen = 0
    for person, points in enumerate(sample.keypoints_2d):
        for name, (x, y) in zip(NAMES, points, strict=True):
            if not (0 <= x < sample.image.shape[1] and 0 <= y < sample.image.shape[0]):
                continue
            side = name.split("_")[0]
            name = other.get(side, side) if mirrored else name
            pixel = sample.image[int(y), int(x)].astype(int)
            assert np.abs(pixel - colour_of(person, name)).max() < 60, (name, pixel)
            assert sample.mask[int(y), int(x)] == person + 1
            assert sample.depth[int(y), int(x)] == 4 + person
            seen += 1
    assert seen > 14


@pytest.mark.parametrize("angle", TURNS)
@pytest.mark.parametrize("letterbox", WINDOWS.values(), ids=WINDOWS)
def test_windows_and_turns_move_truth_with_the_picture(sample, letterbox, angle):
    assert_truth_on_picture(warp(sample, letterbox, angle))


def test_a_mirror_moves_truth_with_the_picture_and_swaps_sides(sample):
    assert_truth_on_picture(flip(sample, TOPOLOGY), mirrored=True)
    assert_truth_on_picture(flip(flip(sample, TOPOLOGY), TOPOLOGY))


def test_a_longer_lens_changes_only_k(sample):
    moved = warp(sample, WINDOWS["longer lens"])
    np.testing.assert_array_equal(moved.keypoints_3d, sample.keypoints_3d)
    np.testing.assert_array_equal(moved.translation, sample.translation)
    np.testing.assert_allclose(moved.K[:, 2], [200, 200, 1], rtol=1e-5)
    np.testing.assert_allclose(moved.K[0, 0], sample.K[0, 0] * 400 / 300, rtol=1e-5)


@pytest.mark.parametrize("angle", TURNS[1:])
def test_a_turned_camera_turns_the_whole_body(sample, angle):
    """Joints, built from the turned pose and place, are where the turned camera sees the old ones."""
    rng = np.random.default_rng(1)
    turns = torch.linalg.matrix_exp(torch.tensor(np.cross(np.eye(3), rng.normal(0, 1, (6, 1, 3))))).float()
    toys = dataclasses.replace(
        sample, pose=turns.reshape(2, 3, 3, 3).numpy(), shape=rng.random((2, 2)), expression=np.ones((2, 1))
    )
    letterbox = Letterbox.box(20, -30, 300, 200, 256)
    before, after = joints_of(toys, ToyBody()), joints_of(warp(toys, letterbox, angle), ToyBody())
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    np.testing.assert_allclose(after, before @ turn.T, atol=1e-5)


def joints_of(sample: Sample, body) -> np.ndarray:
    parameters = (torch.from_numpy(x).float() for x in (sample.pose, sample.shape, sample.expression))
    placed = place(body(*parameters), torch.from_numpy(sample.translation), body.center_joint)
    return placed.joints_PJ3.numpy()


def test_a_mirror_changes_sides_of_pose_hands_and_face(sample):
    names = [TOPOLOGY.pose_names.index(name) for name in ("lowerarm01.L", "lowerarm01.R")]
    fingers = [TOPOLOGY.pose_names.index(name) for name in ("finger2-1.L", "finger2-1.R")]
    eyes = [TOPOLOGY.expression_names.index(name) for name in ("eyeBlinkLeft", "eyeBlinkRight")]
    bend = np.float32([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    sample.pose[:, names[0]], sample.pose[:, fingers[1]], sample.expression[:, eyes[0]] = bend, bend.T, 0.7
    seen = np.zeros((2, len(TOPOLOGY.joint_names)), bool)
    seen[0, TOPOLOGY.joint_names.index("wrist.L")] = True
    moved = flip(dataclasses.replace(sample, joint_visibility=seen), TOPOLOGY)
    np.testing.assert_allclose(moved.pose[:, names], np.stack([np.stack([np.eye(3), bend])] * 2))
    np.testing.assert_allclose(moved.pose[:, fingers], np.stack([np.stack([bend.T, np.eye(3)])] * 2))
    np.testing.assert_allclose(moved.expression[:, eyes], [[0, 0.7]] * 2)
    assert moved.joint_visibility.nonzero()[1].tolist() == [TOPOLOGY.joint_names.index("wrist.R")]


def test_a_mirrored_body_stands_where_the_mirrored_picture_shows_it(sample):
    body = Anny()
    before, after = joints_of(sample, body), joints_of(flip(sample, TOPOLOGY), body)
    order = [TOPOLOGY.joint_names.index(n) for n in ("wrist.L", "wrist.R", "foot.L", "foot.R", "head")]
    swapped = [TOPOLOGY.joint_names.index(n) for n in ("wrist.R", "wrist.L", "foot.R", "foot.L", "head")]
    np.testing.assert_allclose(after[:, order], before[:, swapped] * [-1, 1, 1], atol=6e-3)


def test_a_patch_hides_what_is_behind_it(sample):
    x, y = sample.keypoints_2d[1, 5].astype(int)
    patch = np.full((21, 11, 3), 7, np.uint8)
    covered = occlude(sample, patch, x - 5, y - 10)
    assert (covered.image[y, x] == 7).all()
    assert covered.mask[y, x] == 0
    assert np.isnan(covered.depth[y, x])
    area = (sample.mask == 2).sum()
    np.testing.assert_allclose(covered.visibility, [1, 0.5 * (1 - 21 * 11 / area)], rtol=1e-5)
    np.testing.assert_array_equal(covered.keypoints_2d, sample.keypoints_2d)
    assert (sample.image[y, x] != 7).any()


def test_joints_that_are_keypoints_become_hidden_by_patches_and_crops(sample):
    seen = dataclasses.replace(sample, keypoint_set=sample.body, joint_visibility=np.ones((2, 14), bool))
    x, y = seen.keypoints_2d[0, 3].astype(int)
    covered = occlude(seen, np.zeros((5, 5, 3), np.uint8), x - 2, y - 2)
    assert np.argwhere(~covered.joint_visibility).tolist() == [[0, 3]]
    moved = warp(seen, Letterbox.box(0, 0, 160, 160, 160))
    inside = ((moved.keypoints_2d >= 0) & (moved.keypoints_2d < 160)).all(-1)
    np.testing.assert_array_equal(moved.joint_visibility, inside)
    assert 0 < inside.sum() < 28
    # joints whose places only the body knows
    unknown = dataclasses.replace(sample, joint_visibility=np.ones((2, 104), bool))
    assert occlude(unknown, np.zeros((5, 5, 3), np.uint8), 0, 0).joint_visibility is None


def test_the_way_to_the_world_follows(sample):
    """A point of the world keeps its pixel: turned with the camera, mirrored with the world."""
    world = np.float32([[1, 0, 0, 0.2], [0, 0, -1, 0.4], [0, 1, 0, 5.0]])
    known = dataclasses.replace(sample, world_to_camera=world)
    at = np.float32([[0.3, 1.0, 0.5, 1]])
    pixel = projected(at @ world.T, sample)
    letterbox = Letterbox.whole(240, 320, 320)
    turned = warp(known, letterbox, 0.4)
    by_keypoint = warp(dataclasses.replace(sample, keypoints_2d=np.stack([pixel] * 2)), letterbox, 0.4)
    np.testing.assert_allclose(
        projected(at @ turned.world_to_camera.T, turned), by_keypoint.keypoints_2d[0], rtol=1e-4
    )
    mirrored = flip(known, TOPOLOGY)
    there = projected((at * np.float32([-1, 1, 1, 1])) @ mirrored.world_to_camera.T, mirrored)
    np.testing.assert_allclose(there, [[320 - pixel[0, 0], pixel[0, 1]]], rtol=1e-4)
    assert np.linalg.det(mirrored.world_to_camera[:, :3]) == pytest.approx(1)


def test_visibility_falls_with_what_the_window_cuts_off(sample):
    (x0, _), (x1, _) = (f(np.argwhere(sample.mask == 2)[:, ::-1], axis=0) for f in (np.min, np.max))
    half = warp(sample, Letterbox.box((x0 + x1 + 1) / 2 - 320, -40, (x0 + x1 + 1) / 2, 280, 640))
    np.testing.assert_allclose(half.visibility, [1, 0.25], atol=0.02)


def test_without_a_camera_the_picture_turns_about_its_middle(sample):
    unknown = dataclasses.replace(sample, K=np.full((3, 3), np.nan, np.float32), keypoints_3d=None)
    moved = warp(unknown, Letterbox.whole(240, 320, 320), math.pi / 2)
    x, y = sample.keypoints_2d[0, 2]
    np.testing.assert_allclose(moved.keypoints_2d[0, 2], [160 - (y - 120), 160 + (x - 160)], atol=1e-3)
    assert np.isfinite(heads_of(dataclasses.replace(moved, keypoint_set="coco17"))).all()


def test_nobody_and_nothing_known_pass(sample):
    people = {
        "pose": (0, 0, 3, 3), "shape": (0, 0), "expression": (0, 0), "translation": (0, 3), "visibility": (0,)
    }  # fmt: skip
    fields = {name: np.zeros(shape, np.float32) for name, shape in people.items()}
    empty = Sample(image=sample.image, K=sample.K, name="empty", **fields)
    moved = flip(warp(empty, Letterbox.whole(240, 320, 64), 0.3), TOPOLOGY)
    assert moved.image.shape == (64, 64, 3)
    assert len(moved) == 0


def test_smpl_changes_sides_without_a_topology(sample):
    pose = np.tile(np.eye(3, dtype=np.float32), (2, 24, 1, 1))
    bend = np.float32([[1, 0, 0], [0, 0.6, -0.8], [0, 0.8, 0.6]])
    pose[:, 4] = bend  # left knee
    smpl = dataclasses.replace(sample, body="smpl", pose=pose, expression=np.zeros((2, 0), np.float32))
    np.testing.assert_allclose(flip(smpl, TOPOLOGY).pose[:, 5], [bend, bend])


def test_smpl_translations_become_places_of_pelves_where_the_body_is_known(sample):
    rest = np.random.default_rng(0).normal(size=(1 + 6 + 52, 3)).astype(np.float32)
    topology = Topology(
        "anny", np.zeros((0, 3)), ("root",), (-1,), {}, ("s",) * 6, ("e",) * 52, rest_pelvis=rest
    )
    at_transl = dataclasses.replace(sample, anchor="transl")
    moved = on_pelvis(at_transl, topology)
    assert moved.anchor == "pelvis"
    np.testing.assert_allclose(
        moved.translation, sample.translation + rest[0] + 0.5 * rest[1:7].sum(0), rtol=1e-5
    )
    assert on_pelvis(at_transl, TOPOLOGY).anchor == "transl"
    with pytest.raises(ValueError, match="sample 'dots' places people by SMPL's transl"):
        warp(at_transl, Letterbox.whole(240, 320, 64), 0.1)


def test_sides_that_are_unknown_are_named(sample):
    with pytest.raises(ValueError, match="14 keypoints of set 'mine', whose left"):
        flip(dataclasses.replace(sample, keypoint_set="mine"), TOPOLOGY)
    with pytest.raises(ValueError, match="pose of sample 'dots' has 55 columns of body 'smplx'"):
        flip(dataclasses.replace(sample, body="smplx", pose=np.zeros((2, 55, 3, 3), np.float32)), TOPOLOGY)
    with pytest.raises(ValueError, match="use flip"):
        warp(sample, Letterbox.box(0, 0, 9, 9, 9, flip=True))
