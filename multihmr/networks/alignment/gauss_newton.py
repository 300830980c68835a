"""Alignment of regressed people to detected 2D keypoints by a few damped Gauss-Newton steps.

A network trained on rendered images predicts plausible poses, but places joints inaccurately; the keypoints
of a detector trained on photographs (keypoints.py) are accurate, but 2D. Here limbs rotate and people move to
minimise the reprojection error, weighted by the confidence of the keypoints, with a prior that keeps what no
keypoint constrains as it was regressed (as in SMPLify, Bogo et al., ECCV 2016, but from a regressed start as
SPIN, Kolotouros et al., ICCV 2019, on the skeleton alone).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from ...bodies.base import Body, place
from ...geometry import depth_to_code, project
from ..detection import Centers
from ..refinement import CoarseParams
from .keypoints import Keypoints

JOINTS = 22
PELVIS, NECK = 0, 2  # among BONES
STEPS = 4
SOLVER_STEPS = 20  # of conjugate gradients, for some 40 unknowns
VERTICES_A_POINT = 24  # of each keypoint, a weighted mean of vertices; the others weigh little
NOISE = 0.01  # of detected keypoints, in sizes of the person
OUTLIER = 0.1  # residual from which a keypoint is down-weighted, likewise
LEAST_SCORE = 0.1  # of a keypoint that counts
SURENESS = 2  # exponent of the confidence that the keypoints belong to this person
LONGEST_STEP, LONGEST_TURN = 0.5, 1.6  # [rad]
PLACE = (0.10, 0.10, 0.10)  # standard deviation of the position (x, y, z), relative to the distance
LEAST_DEPTH = 0.1  # [m]


# Standard deviations of regressed rotations about the axes x, y, z of the camera, relative to those of BONES.
# Rotations about the line of sight move keypoints across the image, where they are seen well; those about the
# other two foreshorten limbs, on which the regression is better than the keypoints.
ABOUT_AXES = (0.6, 0.6, 1.0)


class Bone(NamedTuple):
    """A rotated joint among the 22 of the body (bodies/body_parts.py), its parent bone, and the standard
    deviation of its regressed rotation [rad]."""

    joint: int
    parent: int
    deviation: float


BONES = (
    Bone(0, -1, 0.25),  # pelvis
    Bone(3, 0, 0.15),  # spine
    Bone(12, 1, 0.25),  # neck
    *(Bone(13, 1, 0.2), Bone(14, 1, 0.2)),  # collar bones
    *(Bone(16, 3, 0.35), Bone(17, 4, 0.35)),  # upper arms
    *(Bone(18, 5, 0.35), Bone(19, 6, 0.35)),  # forearms
    *(Bone(1, 0, 0.25), Bone(2, 0, 0.25)),  # thighs
    *(Bone(4, 9, 0.3), Bone(5, 10, 0.3)),  # shanks
)
# Bone that moves each of COCO's keypoints.
CARRIERS = (2, 2, 2, 2, 2, 3, 4, 5, 6, 7, 8, 0, 0, 9, 10, 11, 12)
# Offset of MoveNet's keypoints from the body's, in the axes of their bones in the rest pose (x left, y back,
# z up) and in distances between neck and pelvis. Joints are labelled where they seem to be from outside: hips
# further in front than they are. Of the nose and of the points on the left; the right mirrors x. Half of the
# mean offsets of rendered people (scripts/fit_keypoint_offsets.py): with all of it joints of renders are
# more exact, with none the keypoints of photographs.
OFFSETS = (
    (0.0, 0.009, 0.0),  # nose
    (-0.002, 0.007, -0.002),  # eyes
    (-0.005, -0.002, -0.002),  # ears
    (0.004, -0.006, 0.016),  # shoulders
    (-0.004, 0.007, 0.007),  # elbows
    (0.002, 0.002, 0.004),  # wrists
    (0.0, -0.030, 0.019),  # hips
    (-0.010, -0.010, 0.009),  # knees
    (0.001, -0.022, 0.0),  # ankles
)


class Alignment(nn.Module):
    """Aligns coarse estimates to keypoints; it has no learned parameters.

    body: with the keypoint set "coco17". joints: its 22, in the order of bodies/body_parts.py.

    ValueError: these are not 22 joints.
    """

    def __init__(self, body: Body, joints: Sequence[int]) -> None:
        super().__init__()
        if len(joints) != JOINTS:
            raise ValueError(f"aligning people needs the {JOINTS} joints of their body, got {len(joints)}")
        points = body.topology.keypoint_sets["coco17"]
        best = np.argsort(-points.vertex_weights, axis=1, kind="stable")[:, :VERTICES_A_POINT]
        indices = np.take_along_axis(points.vertex_indices, best, axis=1)
        weights = np.take_along_axis(points.vertex_weights, best, axis=1)
        kept, column = np.unique(indices, return_inverse=True)
        table_KV = torch.zeros(len(indices), len(kept))
        table_KV.scatter_add_(
            1, torch.from_numpy(column.reshape(indices.shape)), torch.from_numpy(weights.copy())
        )
        self.skeleton: Body = cast(Any, body).with_vertices(kept)
        turning = [joints[bone.joint] for bone in BONES]
        turned_by = {joint: r for r, joint in enumerate(body.topology.pose_joints)}
        rotations_B = torch.tensor([turned_by[joint] for joint in turning])
        order_R = torch.arange(len(turned_by))  # of all rotations, with those of the bones behind them
        order_R[rotations_B] = len(order_R) + torch.arange(len(rotations_B))
        self.paths = [
            tuple(turned_by[above] for above in body.topology.path(body.topology.parents[joint]))
            for joint in turning
        ]
        moves_KB = torch.zeros(len(CARRIERS), len(BONES))
        for point, carrier in enumerate(CARRIERS):
            while carrier >= 0:
                moves_KB[point, carrier] = 1
                carrier = BONES[carrier].parent
        self._register(
            table_KV=table_KV / table_KV.sum(1, keepdim=True),
            moves_KB=moves_KB,
            precision_BX=torch.tensor([[bone.deviation] for bone in BONES])
            .mul(torch.tensor(ABOUT_AXES))
            .pow(-2),
            offsets_K3=_offsets(),
            place_3=torch.tensor(PLACE),
            joints_B=torch.tensor(turning),
            eye_33=torch.eye(3),
            parents=torch.tensor([bone.parent for bone in BONES[1:]]),
            **_bone_chain(),
            carriers_K=torch.tensor(CARRIERS),
            rotations_B=rotations_B,
            order_R=order_R,
        )

    table_KV: Tensor
    moves_KB: Tensor
    precision_BX: Tensor
    offsets_K3: Tensor
    place_3: Tensor
    joints_B: Tensor
    carriers_K: Tensor
    rotations_B: Tensor
    order_R: Tensor
    eye_33: Tensor
    parents: Tensor
    jumps: Tensor
    ancestry_BB: Tensor

    def _register(self, **buffers: Tensor) -> None:
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(
        self,
        guess: CoarseParams,
        heads_P3: Tensor,
        found: Keypoints,
        centers: Centers,
        K_P33: Tensor,
        *,
        patch: int,
        size: int,
    ) -> CoarseParams:
        """The estimate with its limbs rotated and its people moved.

        heads_P3: positions of the heads [m]; K_P33: of the inputs, whose side is `size`, in cells
        of `patch` pixels.
        """
        pose_PR33, carried_P3 = self.aligned(guess[:3], heads_P3, found, K_P33)
        depth_P = carried_P3[:, 2]
        cells_P2 = project(carried_P3[:, None], K_P33)[:, 0] / patch
        middle_P2 = torch.stack([centers.col_P, centers.row_P], dim=-1) + 0.5
        return CoarseParams(
            pose_PR33,
            guess.shape_PS,
            guess.expression_PE,
            depth_to_code(depth_P, K_P33[:, 0, 0], size),
            cells_P2 - middle_P2,
        )

    def aligned(
        self, parameters: tuple[Tensor, Tensor, Tensor], heads_P3: Tensor, found: Keypoints, K_P33: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The pose of people whose limbs are rotated, and the positions of their heads [m].

        parameters: pose, shape and expression; heads_P3: positions of the heads [m]; K_P33: of the pixels in
        which the keypoints are given.
        """
        pose_PR33, shape_PS, expression_PE = parameters
        with torch.autocast(heads_P3.device.type, enabled=False):
            bare = place(
                self.skeleton(pose_PR33, shape_PS, torch.zeros_like(expression_PE)),
                heads_P3,
                self.skeleton.center_joint,
            )
            joints_PB3 = bare.joints_PJ3[:, self.joints_B]
            above_PB33 = self._orientations(pose_PR33)
            points_PK3 = self._labelled(
                self.table_KV @ bare.vertices_PV3,
                joints_PB3,
                above_PB33 @ pose_PR33.index_select(1, self.rotations_B),
            )
            scores_PK = ((found.scores_PK - LEAST_SCORE) / (1 - LEAST_SCORE)).clamp(min=0)
            weights_PK = scores_PK.square() * found.sure_P.pow(SURENESS)[:, None]
            weights_PK = weights_PK * (points_PK3[..., 2] > LEAST_DEPTH)
            noise_P = NOISE * found.size_P + 1
            turns_PB33, shift_P3 = self._fit(
                points_PK3, joints_PB3, heads_P3, found.xy_PK2, weights_PK, noise_P, found.size_P, K_P33
            )
            turned_PR33 = self._turned(pose_PR33, turns_PB33, above_PB33)
            carried_P3 = self._carried(bare.joints_PJ3, joints_PB3, turns_PB33) + shift_P3
        x_P, y_P, depth_P = carried_P3.unbind(-1)
        return turned_PR33, torch.stack([x_P, y_P, depth_P.clamp(min=LEAST_DEPTH)], dim=-1)

    def _orientations(self, pose_PR33: Tensor) -> Tensor:
        """(P, B, 3, 3) of the parent of each bone, in the camera frame."""
        # By paths, which share beginnings.
        products: dict[tuple[int, ...], Tensor] = {(): self.eye_33.expand(pose_PR33.shape[0], 3, 3)}

        def along(path: tuple[int, ...]) -> Tensor:
            if path not in products:
                products[path] = along(path[:-1]) @ pose_PR33[:, path[-1]]
            return products[path]

        return torch.stack([along(path) for path in self.paths], dim=1)

    def _labelled(self, points_PK3: Tensor, joints_PB3: Tensor, bones_PB33: Tensor) -> Tensor:
        """The body's keypoints moved to where MoveNet puts them, by OFFSETS."""
        size_P = (joints_PB3[:, NECK] - joints_PB3[:, PELVIS]).norm(dim=-1)
        offsets_PK31 = bones_PB33[:, self.carriers_K] @ self.offsets_K3[..., None]
        return points_PK3 + size_P[:, None, None] * offsets_PK31[..., 0]

    def _fit(
        self,
        points_PK3: Tensor,
        joints_PB3: Tensor,
        heads_P3: Tensor,
        seen_PK2: Tensor,
        weights_PK: Tensor,
        noise_P: Tensor,
        size_P: Tensor,
        K_P33: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """(P, B, 3, 3) rotation of each bone, before those of its ancestors, and (P, 3) translation [m]."""
        people, bones = joints_PB3.shape[:2]
        turns_PB33 = self.eye_33.expand(people, bones, 3, 3)
        vectors_PB3 = torch.zeros_like(joints_PB3)  # of these rotations
        shift_P3 = torch.zeros_like(points_PK3[:, 0])
        place_P3 = (self.place_3 * heads_P3[:, 2:].clamp(min=LEAST_DEPTH)).pow(-2)
        precision_PN = torch.cat([place_P3, self.precision_BX.flatten().expand(people, -1)], dim=1)
        focal_P12 = torch.stack([K_P33[:, 0, 0], K_P33[:, 1, 1]], dim=-1)[:, None]
        for _ in range(STEPS):
            above_PB33, at_PB3 = self._chain(turns_PB33, joints_PB3)
            carried_PK3 = (
                self._points(points_PK3, joints_PB3, above_PB33 @ turns_PB33, at_PB3) + shift_P3[:, None]
            )
            at_PB3 = at_PB3 + shift_P3[:, None]
            depth_PK1 = carried_PK3[..., 2:].clamp(min=LEAST_DEPTH)
            missed_PK2 = seen_PK2 - project(carried_PK3, K_P33)
            far_PK = missed_PK2.square().sum(-1) / (OUTLIER * size_P[:, None] + 1).square()
            scale_PK = (weights_PK / (1 + far_PK)).sqrt() / noise_P[:, None]
            # Jacobian of pixels by points (P, K, 2, 3), and of points by rotations: omega x (point - joint).
            slope_PK2 = focal_P12 / depth_PK1
            across_PK23 = torch.diag_embed(slope_PK2)
            along_PK2 = -slope_PK2 * carried_PK3[..., :2] / depth_PK1
            jacobian_PK23 = torch.cat([across_PK23, along_PK2[..., None]], dim=-1) * scale_PK[..., None, None]
            arms_PKB3 = (carried_PK3[:, :, None] - at_PB3[:, None]) * self.moves_KB[..., None]
            # row . (omega x arm) = (arm x row) . omega, with omega in the axes of the estimate
            rows_PKB23 = torch.linalg.cross(arms_PKB3[:, :, :, None], jacobian_PK23[:, :, None], dim=-1)
            rows_PKB23 = rows_PKB23 @ above_PB33[:, None]
            of_turns_PKN = rearrange(rows_PKB23, "p k b xy xyz -> p (k xy) (b xyz)")
            J_PMN = torch.cat([jacobian_PK23.flatten(1, 2), of_turns_PKN], dim=-1)
            missed_PM1 = (missed_PK2 * scale_PK[..., None]).flatten(1)[..., None]
            past_PN = torch.cat([shift_P3, vectors_PB3.flatten(1)], dim=1)
            wanted_PN = (J_PMN.mT @ missed_PM1)[..., 0] - precision_PN * past_PN
            step_PN = solved(J_PMN, precision_PN, wanted_PN)
            turn_PB3 = _shortened(step_PN[:, 3:].unflatten(1, (-1, 3)), LONGEST_STEP)
            vectors_PB3 = _shortened(rotation_vectors(rotations(turn_PB3) @ turns_PB33), LONGEST_TURN)
            turns_PB33 = rotations(vectors_PB3)
            shift_P3 = shift_P3 + step_PN[:, :3]
        return turns_PB33, shift_P3

    def _chain(self, turns_PB33: Tensor, joints_PB3: Tensor) -> tuple[Tensor, Tensor]:
        """Accumulated rotation of the ancestors of each bone (P, B, 3, 3), and its joint (P, B, 3)."""
        eye_P133 = self.eye_33.expand(turns_PB33.shape[0], 1, 3, 3)
        chained = turns_PB33
        for ancestors_B in self.jumps:  # products over 2, 4, 8 bones
            chained = torch.cat([chained, eye_P133], dim=1).index_select(1, ancestors_B) @ chained
        above_PB33 = torch.cat([chained, eye_P133], dim=1).index_select(1, self.jumps[0])
        ways_PB3 = torch.cat([joints_PB3[:, :1], joints_PB3[:, 1:] - joints_PB3[:, self.parents]], dim=1)
        return above_PB33, self.ancestry_BB @ (above_PB33 @ ways_PB3[..., None])[..., 0]

    def _points(self, points_PK3: Tensor, joints_PB3: Tensor, turned_PB33: Tensor, at_PB3: Tensor) -> Tensor:
        ways_PK31 = (points_PK3 - joints_PB3[:, self.carriers_K])[..., None]
        return at_PB3[:, self.carriers_K] + (turned_PB33[:, self.carriers_K] @ ways_PK31)[..., 0]

    def _carried(self, joints_PJ3: Tensor, joints_PB3: Tensor, turns_PB33: Tensor) -> Tensor:
        """(P, 3) positions of the heads, which the neck bone moves."""
        neck = CARRIERS[0]
        above_PB33, at_PB3 = self._chain(turns_PB33, joints_PB3)
        way_P31 = (joints_PJ3[:, self.skeleton.center_joint] - joints_PB3[:, neck])[..., None]
        return at_PB3[:, neck] + (above_PB33[:, neck] @ turns_PB33[:, neck] @ way_P31)[..., 0]

    def _turned(self, pose_PR33: Tensor, turns_PB33: Tensor, above_PB33: Tensor) -> Tensor:
        """The pose after the rotations of the bones, each in the axes of its parent."""
        before_PB33 = pose_PR33.index_select(1, self.rotations_B)
        turned_PB33 = above_PB33.mT @ turns_PB33 @ above_PB33 @ before_PB33
        return torch.cat([pose_PR33, turned_PB33], dim=1).index_select(1, self.order_R)


def _offsets() -> Tensor:
    """(K, 3) OFFSETS of all keypoints."""
    nose, *pairs = OFFSETS
    return torch.tensor([nose, *(point for x, y, z in pairs for point in ((x, y, z), (-x, y, z)))])


def _bone_chain() -> dict[str, Tensor]:
    """The tree of BONES: the ancestor 1, 2 and 4 above each, len(BONES) for none; paths from the root."""
    count = len(BONES)
    above = torch.tensor([*(bone.parent if bone.parent >= 0 else count for bone in BONES), count])
    jumps = []
    while (above[:-1] < count).any():
        jumps.append(above[:-1])
        above = above[above]
    ancestry_BB = torch.eye(count)
    for number, bone in enumerate(BONES[1:], 1):
        ancestry_BB[number] += ancestry_BB[bone.parent]
    return {"jumps": torch.stack(jumps), "ancestry_BB": ancestry_BB}


def solved(J_PMN: Tensor, precision_PN: Tensor, wanted_PN: Tensor) -> Tensor:
    """(P, N): the solution x of (J^T J + diag(precision)) x = wanted."""
    if J_PMN.device.type == "cpu" and not torch.compiler.is_compiling():
        return torch.linalg.solve_ex(J_PMN.mT @ J_PMN + precision_PN.diag_embed(), wanted_PN)[0]
    return conjugate_gradients(J_PMN, precision_PN, wanted_PN)


def conjugate_gradients(J_PMN: Tensor, precision_PN: Tensor, wanted_PN: Tensor) -> Tensor:
    """As `solved`, by a fixed number of steps.

    torch.linalg.solve has no ONNX operator and synchronises with a GPU. With diagonal preconditioning few
    steps are enough.
    """
    A_PNN = J_PMN.mT @ J_PMN
    scale_PN = (A_PNN.diagonal(dim1=1, dim2=2) + precision_PN).rsqrt()
    A_PNN = A_PNN * scale_PN[:, None] * scale_PN[..., None]
    ridge_PN1 = (precision_PN * scale_PN.square())[..., None]
    x = torch.zeros_like(ridge_PN1)
    rest = (wanted_PN * scale_PN)[..., None]
    way, length = rest, rest.square().sum(1, keepdim=True)
    for _ in range(SOLVER_STEPS):
        forth = A_PNN @ way + ridge_PN1 * way
        step = length / (way * forth).sum(1, keepdim=True).clamp(min=1e-12)
        x, rest = x + step * way, rest - step * forth
        longer = rest.square().sum(1, keepdim=True)
        way, length = rest + longer / length.clamp(min=1e-12) * way, longer
    return x[..., 0] * scale_PN


def rotations(vectors: Tensor) -> Tensor:
    """(..., 3) rotation vectors [rad] -> (..., 3, 3), by Rodrigues' formula."""
    angle = (vectors.square().sum(-1) + 1e-12).sqrt()[..., None, None]
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
    eye = torch.eye(3, device=vectors.device, dtype=vectors.dtype)
    return eye + angle.sin() / angle * cross + (1 - angle.cos()) / angle.square() * (cross @ cross)


def rotation_vectors(matrices: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 3) rotation vectors [rad] of turns of less than half a circle."""
    skew = (matrices - matrices.mT).flatten(-2)
    axis = torch.stack([skew[..., 7], skew[..., 2], skew[..., 3]], dim=-1)
    sine = (axis.square().sum(-1) / 4 + 1e-12).sqrt()
    cosine = (matrices.flatten(-2)[..., ::4].sum(-1) - 1) / 2  # every fourth is on the diagonal
    return axis / 2 * (torch.atan2(sine, cosine) / sine)[..., None]


def _shortened(vectors: Tensor, longest: float) -> Tensor:
    length = (vectors.square().sum(-1, keepdim=True) + 1e-12).sqrt()
    return vectors * (longest / length).clamp(max=1)
