"""Limbs turn until projected keypoints lie on those that are seen, and no further than they must."""

import pytest
import torch

from multihmr.bodies.base import place
from multihmr.bodies.body_parts import body_joints
from multihmr.bodies.loading import load_body
from multihmr.geometry import code_to_depth, project, unproject
from multihmr.networks.alignment.gauss_newton import (
    BONES,
    Alignment,
    conjugate_gradients,
    rotation_vectors,
    rotations,
    solved,
)
from multihmr.networks.alignment.keypoints import Keypoints
from multihmr.networks.detection import Centers
from multihmr.networks.refinement import CoarseParams

SIZE, PATCH = 352, 16
HEADS = torch.tensor([[0.0, -0.5, 4.0], [0.2, -0.4, 3.0]])
K = torch.tensor([[300.0, 0, 176], [0, 300, 176], [0, 0, 1]]).repeat(2, 1, 1)


@pytest.fixture(scope="module")
def body():
    return load_body("anny")


@pytest.fixture(scope="module")
def alignment(body):
    names = body_joints(body.topology)
    return Alignment(body, [body.topology.joint_names.index(name) for name in names])


def guess_of(body, seed=0, turned=0.2):
    random = torch.Generator().manual_seed(seed)
    turns = rotations(turned * torch.randn(2, body.rotation_count, 3, generator=random))
    pose = turns @ body.mean_pose_R33
    shape = body.mean_shape_S.repeat(2, 1)
    return CoarseParams(pose, shape, torch.zeros(2, body.expression_count), torch.zeros(2), torch.zeros(2, 2))


def points(alignment, guess, heads):
    out = place(alignment.skeleton(*guess[:3]), heads, alignment.skeleton.center_joint)
    joints = out.joints_PJ3[:, alignment.joints_B]
    bones = alignment._orientations(guess.pose_PR33) @ guess.pose_PR33.index_select(1, alignment.rotations_B)
    return alignment._labelled(alignment.table_KV @ out.vertices_PV3, joints, bones)


def answered(alignment, guess, seen, scores=1.0, sure=1.0):
    """The aligned guess and where its heads are."""
    centers = Centers(torch.zeros(2).long(), torch.tensor([5, 5]), torch.tensor([5, 8]), torch.ones(2))
    found = Keypoints(seen, torch.full((2, 17), scores), torch.full((2,), sure), torch.full((2,), 150.0))
    said = alignment(guess, HEADS, found, centers, K, patch=PATCH, size=SIZE)
    depth = code_to_depth(said.depth_code_P, K[:, 0, 0], SIZE)
    return said, unproject((centers.heads(said.offset_P2) * PATCH)[:, None], depth[:, None], K)[:, 0]


def test_rotations_and_their_vectors():
    vectors = 0.7 * torch.randn(50, 3, generator=torch.Generator().manual_seed(0))
    matrices = rotations(vectors)
    torch.testing.assert_close(matrices @ matrices.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(rotation_vectors(matrices), vectors, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(rotation_vectors(torch.eye(3)), torch.zeros(3))


def test_both_solvers_agree():
    random = torch.Generator().manual_seed(0)
    J, wanted = torch.randn(3, 34, 42, generator=random), torch.randn(3, 42, generator=random)
    precision = torch.rand(3, 42, generator=random) * 50 + 3
    torch.testing.assert_close(
        conjugate_gradients(J, precision, wanted), solved(J, precision, wanted), atol=2e-3, rtol=2e-2
    )


def test_bones_turn_as_the_body_turns_them(body, alignment):
    guess = guess_of(body)
    turns = rotations(0.4 * torch.randn(2, len(BONES), 3, generator=torch.Generator().manual_seed(1)))
    before = alignment.skeleton(*guess[:3]).joints_PJ3
    _, places = alignment._chain(turns, before[:, alignment.joints_B])
    after = alignment.skeleton(
        alignment._turned(guess.pose_PR33, turns, alignment._orientations(guess.pose_PR33)), *guess[1:3]
    ).joints_PJ3
    moved = after[:, alignment.joints_B]
    torch.testing.assert_close(places - places[:, :1], moved - moved[:, :1], atol=1e-5, rtol=0)
    head = alignment._carried(before, before[:, alignment.joints_B], turns)
    centre = body.center_joint
    torch.testing.assert_close(head - places[:, 0], after[:, centre] - moved[:, 0], atol=1e-5, rtol=0)


def test_people_lie_on_their_keypoints_afterwards(body, alignment):
    guess = guess_of(body)
    seen = project(points(alignment, guess_of(body, seed=5), HEADS + torch.tensor([0.1, 0.05, 0.3])), K)
    before = (project(points(alignment, guess, HEADS), K) - seen).norm(dim=-1)
    said, heads = answered(alignment, guess, seen)
    after = (project(points(alignment, said, heads), K) - seen).norm(dim=-1)
    assert before.mean() > 10
    assert after.mean() < 0.25 * before.mean()
    torch.testing.assert_close(said.pose_PR33.det(), torch.ones(2, body.rotation_count), atol=1e-4, rtol=0)
    torch.testing.assert_close(said.shape_PS, guess.shape_PS)


def test_fewer_joints_are_refused(body):
    with pytest.raises(ValueError, match="needs the 22 joints of their body, got 3"):
        Alignment(body, (0, 1, 2))


@pytest.mark.parametrize("unsure", [{"scores": 0.0}, {"sure": 0.0}])
def test_what_nobody_sees_stays(body, alignment, unsure):
    guess = guess_of(body)
    seen = torch.full((2, 17, 2), 40.0)
    said, heads = answered(alignment, guess, seen, **unsure)
    torch.testing.assert_close(said.pose_PR33, guess.pose_PR33, atol=1e-5, rtol=0)
    torch.testing.assert_close(heads, HEADS, atol=1e-4, rtol=1e-4)


def test_nonsense_stays_finite(body, alignment):
    said, heads = answered(alignment, guess_of(body), torch.full((2, 17, 2), 1e4))
    assert said.pose_PR33.isfinite().all()
    assert heads.isfinite().all()


def test_rotations_along_the_chain_of_bones(alignment):
    random = torch.Generator().manual_seed(0)
    turns_PB33 = rotations(torch.randn(2, len(BONES), 3, generator=random))
    joints_PB3 = torch.randn(2, len(BONES), 3, generator=random)
    above_PB33, at_PB3 = alignment._chain(turns_PB33, joints_PB3)
    for number, bone in enumerate(BONES):
        above, at = torch.eye(3).expand(2, 3, 3), joints_PB3[:, number]
        if bone.parent >= 0:
            above = above_PB33[:, bone.parent] @ turns_PB33[:, bone.parent]
            way = joints_PB3[:, number] - joints_PB3[:, bone.parent]
            at = at_PB3[:, bone.parent] + (above @ way[..., None])[..., 0]
        torch.testing.assert_close(above_PB33[:, number], above, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(at_PB3[:, number], at, atol=1e-5, rtol=1e-5)
