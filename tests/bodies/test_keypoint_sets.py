from __future__ import annotations

import numpy as np
import pytest
import roma
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.body_parts import joint_parts, vertex_parts
from multihmr.bodies.keypoint_sets import _EDGES, KEYPOINT_SETS, keypoint_names, mirror, mirror_order

RECORDED = ["mupots17", "panoptic19"]  # what data sets bring
FLIP = torch.tensor([-1.0, 1.0, 1.0])


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny()


def random_person(body: Anny) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    rotvecs = 0.4 * torch.randn(8, 104, 3, generator=generator)
    return (
        roma.rotvec_to_rotmat(rotvecs),
        torch.rand(8, 6, generator=generator),
        torch.rand(8, 52, generator=generator),
    )


def test_mirrored_parameters_give_the_mirrored_body(body):
    """Up to the asymmetry of Anny itself: its skeleton's sides differ by tenths of a millimetre a bone."""
    pose, shape, expression = random_person(body)
    template = body.rest(body.mean_shape_S[None], torch.zeros(1, 52))[0]
    distance, counterpart = torch.cdist(template[::9] * FLIP, template).min(1)
    assert distance.max() < 1e-3
    there = body(pose, shape, expression)
    here = body(*_swap(mirror(pose, expression, body.topology), shape))
    error = (here.vertices_PV3[:, counterpart] - there.vertices_PV3[:, ::9] * FLIP).norm(dim=-1)
    assert error.mean() < 1e-3
    assert error.max() < 8e-3
    joints = here.joints_PJ3[:, mirror_order(body.topology.joint_names)]
    assert (joints - there.joints_PJ3 * FLIP).norm(dim=-1).mean() < 2e-3


def _swap(mirrored: tuple[torch.Tensor, torch.Tensor], shape: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return mirrored[0], shape, mirrored[1]


def test_mirror_twice_is_the_identity_for_arrays_and_tensors(body):
    pose, _, expression = random_person(body)
    for p, e in ((pose, expression), (pose.numpy(), expression.numpy())):
        again = mirror(*mirror(p, e, body.topology), body.topology)
        assert type(again[0]) is type(p)
        np.testing.assert_array_equal(again[0], p)
        np.testing.assert_array_equal(again[1], e)


def test_mirror_in_the_camera_is_the_flipped_picture(body):
    """The root may hold a camera's rotation: x of the camera frame flips."""
    pose, shape, expression = random_person(body)
    turn = roma.rotvec_to_rotmat(torch.tensor([1.0, 2.0, -0.5]))
    pose[:, 0] = turn @ pose[:, 0]
    there = body(pose, shape, expression).joints_PJ3
    here = body(*_swap(mirror(pose, expression, body.topology), shape)).joints_PJ3
    assert (here[:, mirror_order(body.topology.joint_names)] - there * FLIP).norm(dim=-1).mean() < 2e-3


def test_order_swaps_sides():
    names = ("nose", "left_eye", "right_eye", "wrist.L", "wrist.R", "jawRight", "jawLeft", "odd.L")
    assert mirror_order(names) == [0, 2, 1, 4, 3, 6, 5, 7]


def test_named_sets_have_as_many_points_as_their_name_says_and_edges_between_them():
    for name in KEYPOINT_SETS:
        names = keypoint_names(name)
        assert len(set(names)) == len(names) == int("".join(filter(str.isdigit, name.removeprefix("h36m"))))
        assert max(max(edge) for edge in _EDGES[name]) < len(names)
        sided = [n for n in names if n.startswith(("left_", "right_"))]
        assert len(sided) == sum(other != i for i, other in enumerate(mirror_order(names)))
    with pytest.raises(ValueError, match="no keypoint set 'coco18'; known are coco17"):
        keypoint_names("coco18")


def test_every_sided_name_of_anny_has_its_counterpart(body):
    for names in (body.topology.joint_names, body.topology.expression_names):
        sided = [n for n in names if n.endswith((".L", ".R", "Left", "Right"))]
        order = mirror_order(names)
        assert len(sided) == sum(order[i] != i for i in range(len(names)))


def test_parts_are_a_partition(body):
    joints, vertices = joint_parts(body.topology), vertex_parts(body.topology)
    assert {part: len(found) for part, found in joints.items()} == {
        "left_hand": 20, "right_hand": 20, "head": 3, "body": 61,
    }  # fmt: skip
    for parts, count in ((joints, 104), (vertices, 13718)):
        assert len(np.unique(np.concatenate(list(parts.values())))) == count
    rest = body.rest(body.mean_shape_S[None], torch.zeros(1, 52))[0]
    assert (rest[vertices["left_hand"], 0] > 0.2).all()
    assert len(vertices["left_hand"]) == len(vertices["right_hand"])


def test_named_sets_stand_upright_and_keep_their_sides(body):
    sets = body.topology.keypoint_sets
    first = ["coco17", "coco23", "coco133", "openpose25", "h36m17", "h36m14", "lsp14", "smpl24"]
    assert list(sets) == [*first, *RECORDED]
    output = body(body.mean_pose_R33[None], body.mean_shape_S[None], torch.zeros(1, 52))
    vertices, joints = (points.numpy() for points in output)
    for name, keypoints in sets.items():
        points = keypoints.points(vertices, joints)[0]
        at = dict(zip(keypoints.names, points, strict=True))
        assert len(points) == len(at) == int(name.lstrip("abcdefghijklmnopqrstuvwxyz").removeprefix("36m"))
        assert at.get("head_top", at.get("nose", at["left_hip"] - 9))[1] < at["left_shoulder"][1]
        assert at["left_shoulder"][1] < at["left_hip"][1] < at["left_knee"][1] < at["left_ankle"][1]
        sides = [np.sign(p[0]) if "_" in n and n != "head_top" else 0 for n, p in at.items()]
        crossing = [(a, b) for a, b in keypoints.edges if sides[a] * sides[b] < 0]
        assert all(keypoints.names[a].split("_")[1] in ("hip", "shoulder", "eye") for a, _ in crossing)
        assert all(sides[i] == 1 for i, n in enumerate(keypoints.names) if n.startswith("left_"))
    bones = dict(zip(body.topology.joint_names, joints[0], strict=True))
    smpl = sets["smpl24"]
    np.testing.assert_allclose(smpl.points(vertices, joints)[0, 20], bones["wrist.L"], atol=1e-6)
    highest = vertices[0, :, 1].min()
    assert sets["lsp14"].points(vertices, joints)[0, 13, 1] - highest < 0.01


def test_face_and_hands_of_coco_wholebody(body):
    """All 133 points: 23 of body and feet, the 68 of a face from ear to ear, then the left and right hand."""
    sets = body.topology.keypoint_sets
    output = body(body.mean_pose_R33[None], body.mean_shape_S[None], torch.zeros(1, 52))
    vertices, joints = (points.numpy() for points in output)
    keypoints = sets["coco133"]
    points = keypoints.points(vertices, joints)[0]
    assert keypoints.names == keypoint_names("coco133")
    np.testing.assert_array_equal(points[:23], sets["coco23"].points(vertices, joints)[0])
    at = dict(zip(keypoints.names, points, strict=True))
    bones = dict(zip(body.topology.joint_names, joints[0], strict=True))
    for side, letter, sign in (("left", "L", 1), ("right", "R", -1)):
        np.testing.assert_array_equal(at[f"{side}_hand_root"], at[f"{side}_wrist"])
        for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1):
            for k in (1, 2, 3):
                bone = bones[f"finger{number}-{k}.{letter}"]
                np.testing.assert_allclose(at[f"{side}_{finger}{k}"], bone, atol=1e-6)
            tip, last, before = (at[f"{side}_{finger}{k}"] for k in (4, 3, 2))
            assert 0.01 < np.linalg.norm(tip - last) < 0.04
            assert (tip - last) @ (last - before) > 0  # farther out
        assert sign * at[f"{side}_eye1"][0] > sign * at[f"{side}_eye4"][0] > 0  # outer corner, inner corner
    face = points[23:91]
    np.testing.assert_allclose(  # the two halves are mirror images
        face[mirror_order(keypoints.names[23:91])] * (-1, 1, 1), face, atol=0.004
    )
    assert at["right_eye_brow3"][1] < at["right_eye2"][1] < at["nose4"][1] < at["mouth_top"][1]  # y is down
    assert at["lip_top"][1] < at["lip_bottom"][1] < at["mouth_bottom"][1] < at["contour_middle"][1]


def test_keypoints_lie_where_their_names_say(body):
    sets = body.topology.keypoint_sets
    output = body(body.mean_pose_R33[None], body.mean_shape_S[None], torch.zeros(1, 52))
    keypoints = sets["coco23"]
    points = dict(zip(keypoints.names, keypoints.points(output.vertices_PV3.numpy())[0], strict=True))
    joints = dict(zip(body.topology.joint_names, output.joints_PJ3[0].numpy(), strict=True))
    assert sets["coco17"].names == keypoints.names[:17]
    assert keypoints.names[17:20] == ("left_big_toe", "left_small_toe", "left_heel")  # COCO-WholeBody
    assert points["nose"][1] < points["left_shoulder"][1] < points["left_hip"][1] < points["left_heel"][1]
    assert points["left_eye"][0] > points["right_eye"][0]
    assert np.linalg.norm(points["right_wrist"] - joints["wrist.R"]) < 0.03
    np.testing.assert_allclose(keypoints.vertex_weights.sum(1), 1, atol=1e-6)
