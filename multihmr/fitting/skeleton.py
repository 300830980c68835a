"""Fitted points as functions of pose and shape, with analytic derivatives; no mesh is posed.

A keypoint is a mean of skinned vertices and of joints. Of each bone it needs only one 4-vector, the weighted
sum of its rest vertices, so 17 points cost less than a hundredth of the 13,718 vertices. A turn w of a bone
moves a point p that hangs on it by w x (p - joint); derivatives follow from that, exactly.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multihmr.bodies.anny import Anny
from multihmr.bodies.skinning import joined
from multihmr.bodies.topology import KeypointSet

SMALLEST_WEIGHT = 1e-5  # of a bone in a point; less moves it by micrometres

LEAST_ACTION = 1e-3  # m by which a facial action must move one of the points to be fitted
CARRIED = 0.2  # of the weight of one point that hangs on a bone, from which on it tells of the bone


@dataclass(frozen=True)
class RestPose:
    """What pose-independent numbers of P shapes move the points; with a leading axis of derivatives if asked.

    offsets_PJ3   from the parent's joint to each joint, in the axes of the reference pose [m]
    arms_PMJ3     from each joint to what a point has on that bone, weighted [m]
    """

    offsets_PJ3: Tensor
    arms_PMJ3: Tensor


@dataclass(frozen=True)
class PosedPoints:
    """P bodies with the root joint in the origin: points [m], joints [m], global turns of the bones."""

    points_PM3: Tensor
    joints_PJ3: Tensor
    turns_PJ33: Tensor
    parts_PMJ3: Tensor  # the share of each bone in each point, weighted position [m]


class PointSkeleton:
    """The bones of Anny that carry M points, in float64. Bones that never turn are part of their parents.

    bones     J names, parents first; bone 0 is the root
    parents   J indices, -1 for the root
    """

    def __init__(
        self, body: Anny, points: KeypointSet, moving: Collection[str], *, face: bool = False
    ) -> None:
        """points: which ones, with indices of the body's vertices and joints. moving: bones that may turn.

        face: facial actions move points.
        """
        self.body = body
        names, parents = body.topology.joint_names, body.topology.parents
        used = np.unique(points.vertex_indices[points.vertex_weights != 0])
        few = body.with_vertices(used if len(used) else [0])
        mean_V3, basis_KV3, skin_VB = (table.double() for table in joined(few._patches))
        self._vertices_MV = torch.zeros(len(points.names), len(mean_V3), dtype=torch.float64)
        if len(used):
            columns = np.searchsorted(used, points.vertex_indices).clip(max=len(used) - 1)
            self._vertices_MV.scatter_add_(1, torch.from_numpy(columns), _doubles(points.vertex_weights))
        on_joints_MB = torch.zeros(len(points.names), len(names), dtype=torch.float64)
        if points.joint_indices is not None and points.joint_weights is not None:
            at = torch.from_numpy(points.joint_indices.copy())
            on_joints_MB.scatter_add_(1, at, _doubles(points.joint_weights))
        skin_MB = self._vertices_MV @ skin_VB
        chosen = _carrying(parents, (skin_MB + on_joints_MB).abs().amax(0) > SMALLEST_WEIGHT)
        chosen &= torch.tensor([name in moving or j == 0 for j, name in enumerate(names)])
        kept = chosen.nonzero()[:, 0].tolist()  # Anny lists parents before children
        self.bones = tuple(names[j] for j in kept)
        owner = [_owner(j, parents, kept) for j in range(len(names))]
        self.parents = tuple(owner[parents[j]] if j else -1 for j in kept)
        self._parent_index = torch.tensor([max(p, 0) for p in self.parents])
        self._all_parents = torch.tensor([max(p, 0) for p in parents])
        self._owner_BJ = torch.eye(len(kept), dtype=torch.float64)[owner]
        self._within_BB = _paths(parents, kept)
        self._kept = torch.tensor(kept)
        self.weights_MJ = (skin_MB + on_joints_MB) @ self._owner_BJ
        self._skin_MB, self._weights_MB = skin_MB, skin_MB + on_joints_MB
        shape_directions = body._corner_coefficients.shape[1]
        used_bones = (self._weights_MB.abs().amax(0) > SMALLEST_WEIGHT).nonzero()[:, 0]
        self._used = used_bones
        skin_VU, V = skin_VB[:, used_bones], self._vertices_MV
        self._arm_mean = torch.einsum("mv,vj,vc->mjc", V, skin_VU, mean_V3)
        weighted = torch.einsum("mv,vj->mjv", V, skin_VU).flatten(0, 1).to_sparse()
        directions = torch.sparse.mm(weighted, basis_KV3.transpose(0, 1).flatten(1))
        directions = directions.view(len(V), len(used_bones), -1, 3).permute(2, 0, 1, 3).contiguous()
        self._arm_directions = directions[:shape_directions]
        self._arm_actions = directions[shape_directions:]
        self._set_actions(face)
        self.descends_JJ = _descendants(self.parents)
        self.depths = _levels(self.parents)

    def _set_actions(self, face: bool) -> None:
        """`actions`, indices of the facial actions that move points, and what they add to arms.

        Kept are only the points and bones that any action moves.
        """
        moved_E = self._arm_actions.sum(2).norm(dim=-1).amax(1)
        self.actions = (moved_E > LEAST_ACTION).nonzero()[:, 0].tolist() if face else []
        actions = self._arm_actions[self.actions]
        self._face_points = actions.any(3).any(2).any(0).nonzero()[:, 0]
        self._face_bones = actions.any(3).any(1).any(0).nonzero()[:, 0]  # among those used
        self._face_actions = actions[:, self._face_points][:, :, self._face_bones]
        owner_UJ = self._owner_BJ[self._used[self._face_bones]]
        self._face_owners = owner_UJ.any(0).nonzero()[:, 0]
        self._face_owner_UJ = owner_UJ[:, self._face_owners]

    def action_arms(self, shape_PS: Tensor) -> Tensor:
        """(P, E, M', J', 3) what full actions add to arms [m], of the points and bones that they move."""
        _, linear_PB33, _ = _rest_bones(self.body, shape_PS)
        linear = linear_PB33[:, self._used[self._face_bones]]
        turned = torch.einsum("puab,emub->pemua", linear, self._face_actions)
        return torch.einsum("pemua,uj->pemja", turned, self._face_owner_UJ)

    def with_actions(
        self, posed: PosedPoints, arms_PEMJ3: Tensor, face_PE: Tensor
    ) -> tuple[Tensor, PosedPoints]:
        """Derivatives of the points by the actions (P, M, 3, E), and the points with the actions."""
        arms = arms_PEMJ3.expand(len(face_PE), -1, -1, -1, -1)
        moved = torch.einsum("pjab,pemjb->pemja", posed.turns_PJ33[:, self._face_owners], arms)
        rows = self._face_points[:, None], self._face_owners
        parts, points = posed.parts_PMJ3.clone(), posed.points_PM3
        parts[:, rows[0], rows[1]] += torch.einsum("pe,pemja->pmja", face_PE, moved)
        derivative = points.new_zeros(*points.shape, face_PE.shape[1])
        derivative[:, self._face_points] = moved.sum(3).permute(0, 2, 3, 1)
        points = points + (derivative @ face_PE[:, None, :, None])[..., 0]
        return derivative, PosedPoints(points, posed.joints_PJ3, posed.turns_PJ33, parts)

    def known_bones(self, moved_J: Tensor, given_M: Tensor) -> set[str]:
        """Names of the bones that turn with one of `moved_J` (J,) and carry some of the given points.

        given_M (M,): which points those are.
        """
        names, parents = self.body.topology.joint_names, self.body.topology.parents
        below_BB = _descendants(parents)
        carried_B = (given_M.double() @ self._weights_MB.abs()) @ below_BB.T > CARRIED
        turning_B = self._owner_BJ @ moved_J.double() > 0
        return {name for name, known in zip(names, (carried_B & turning_B).tolist(), strict=True) if known}

    def rest(self, shape_PS: Tensor) -> RestPose:
        """The numbers of P shapes."""
        heads_PB3, linear_PB33, coefficients_PC = _rest_bones(self.body, shape_PS)
        used = self._used
        arms = self._arm_mean + torch.tensordot(coefficients_PC, self._arm_directions, 1)
        arms = arms - self._skin_MB[:, used, None] * heads_PB3[:, None, used]
        arms = torch.einsum("pjab,pmjb->pmja", linear_PB33[:, used], arms)
        carrying = linear_PB33[:, self._all_parents].clone()
        # The root carries without its own rest orientation (see bodies/anny.py).
        carrying[:, self._all_parents == 0] = torch.eye(3, dtype=torch.float64)
        steps = (carrying @ (heads_PB3 - heads_PB3[:, self._all_parents])[..., None])[..., 0]
        within = self._within_BB @ steps  # from the joint of the bone's owner
        arms = arms + self._weights_MB[:, used, None] * within[:, None, used]
        arms_PMJ3 = torch.einsum("pmux,uj->pmjx", arms, self._owner_BJ[used])
        kept_parents = self._all_parents[self._kept]
        offsets = within[:, kept_parents] + steps[:, self._kept]
        return RestPose(offsets, arms_PMJ3)

    def rest_derivative(self, shape_PS: Tensor, step: float = 0.01) -> tuple[RestPose, RestPose]:
        """`rest`, and its derivatives by the S numbers of the shape: (S, P, ...).

        One-sided differences within [0, 1]: shapes are mixed linearly between anchors 1/3 or more apart.
        """
        people, numbers = shape_PS.shape
        steps_PS = torch.where(shape_PS + step <= 1, step, -step)
        moved = shape_PS + torch.diag_embed(steps_PS).transpose(0, 1)
        both = self.rest(torch.cat([shape_PS[None], moved]).flatten(0, 1))
        offsets = both.offsets_PJ3.unflatten(0, (numbers + 1, people))
        arms = both.arms_PMJ3.unflatten(0, (numbers + 1, people))
        scale = steps_PS.T.double()
        derivative = RestPose(
            (offsets[1:] - offsets[0]) / scale[..., None, None],
            (arms[1:] - arms[0]) / scale[..., None, None, None],
        )
        return RestPose(offsets[0], arms[0]), derivative

    def chain(self, local_PJ33: Tensor) -> Tensor:
        """Each bone's own turn -> the product of the turns from the root down to it."""
        turns = local_PJ33.clone()
        for bones, parents in self.depths:
            turns[:, bones] = turns[:, parents] @ turns[:, bones]
        return turns

    def pose(self, turns_PJ33: Tensor, rest: RestPose) -> PosedPoints:
        """Points of the bodies whose bones have these global turns; a leading axis of `rest` is kept."""
        carried = (turns_PJ33[..., self._parent_index, :, :] @ rest.offsets_PJ3[..., None])[..., 0]
        joints = torch.einsum("ij,...ic->...jc", self.descends_JJ, carried)
        parts = torch.einsum("pjab,...pmjb->...pmja", turns_PJ33, rest.arms_PMJ3)
        parts = parts + self.weights_MJ[..., None] * joints[..., None, :, :]
        return PosedPoints(parts.sum(-2), joints, turns_PJ33, parts)

    def turn_derivative(self, posed: PosedPoints) -> Tensor:
        """(P, M, J, 3) levers: a small turn w [rad, camera axes] of bone j moves point m by w x lever."""
        below = torch.einsum("pmic,ji->pmjc", posed.parts_PMJ3, self.descends_JJ)
        share = self.weights_MJ @ self.descends_JJ.T
        return below - share[..., None] * posed.joints_PJ3[:, None]


@torch.no_grad()
def _rest_bones(body: Anny, shape_PS: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Joints at rest (P, B, 3) [m], turns from rest to reference (P, B, 3, 3), coefficients (P, C)."""
    coefficients_PC = body._shape_coefficients(shape_PS.float())
    heads_PB3 = torch.addmm(body._head_mean, coefficients_PC, body._head_directions).unflatten(1, (-1, 3))
    upright = torch.eye(3).expand(len(shape_PS), body.rotation_count, 3, 3)
    _, linear_PB33 = body._turn_bones(upright, coefficients_PC)
    return heads_PB3.double(), linear_PB33.double(), coefficients_PC.double()


def _doubles(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array.astype(np.float64))


def _carrying(parents: Sequence[int], has_points_B: Tensor) -> Tensor:
    """(B,) whether points lie on a bone or on what hangs on it."""
    carrying = has_points_B.clone()
    for joint in reversed(range(1, len(parents))):
        if carrying[joint]:
            carrying[parents[joint]] = True
    return carrying


def _owner(joint: int, parents: Sequence[int], kept: list[int]) -> int:
    """Place in `kept` of the nearest kept bone up from a joint, or of itself."""
    while joint not in kept:
        joint = parents[joint]
    return kept.index(joint)


def _paths(parents: Sequence[int], kept: list[int]) -> Tensor:
    """(B, B) 1 for the bones on the way from a bone's owner down to it, the owner left out."""
    table = torch.zeros(len(parents), len(parents), dtype=torch.float64)
    for joint in range(len(parents)):
        if joint not in kept:
            table[joint] = table[parents[joint]]
            table[joint, joint] = 1
    return table


def _descendants(parents: Sequence[int]) -> Tensor:
    """(J, J) 1 where the second bone is the first or hangs on it."""
    table = torch.eye(len(parents), dtype=torch.float64)
    for j, parent in enumerate(parents):
        if parent >= 0:
            table[:, j] += table[:, parent]
    return table


def _levels(parents: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
    """(bones, their parents) of each level below the root."""
    depth = [0] * len(parents)
    for j, parent in enumerate(parents):
        depth[j] = depth[parent] + 1 if parent >= 0 else 0
    levels = [[j for j, d in enumerate(depth) if d == level] for level in range(1, max(depth) + 1)]
    return [(torch.tensor(level), torch.tensor([parents[j] for j in level])) for level in levels]


def rotation_matrix(vector: Tensor) -> Tensor:
    """(..., 3) rotation vectors [rad] -> (..., 3, 3): Rodrigues' formula."""
    angle = vector.norm(dim=-1)[..., None, None]
    K = cross_matrix(vector)
    small = angle < 1e-6
    safe = torch.where(small, torch.ones_like(angle), angle)
    sine = torch.where(small, 1 - angle**2 / 6, torch.sin(safe) / safe)
    cosine = torch.where(small, 0.5 - angle**2 / 24, (1 - torch.cos(safe)) / safe**2)
    return torch.eye(3, dtype=vector.dtype) + sine * K + cosine * (K @ K)


def left_jacobian(vector: Tensor) -> Tensor:
    """(..., 3, 3) J with exp(vector + d) = exp(J d) exp(vector) for small d.

    Barfoot, "State Estimation for Robotics", 2017, equation 7.77.
    """
    angle = vector.norm(dim=-1)[..., None, None]
    K = cross_matrix(vector)
    small = angle < 1e-4
    safe = torch.where(small, torch.ones_like(angle), angle)
    first = torch.where(small, 0.5 - angle**2 / 24, (1 - torch.cos(safe)) / safe**2)
    second = torch.where(small, 1 / 6 - angle**2 / 120, (safe - torch.sin(safe)) / safe**3)
    return torch.eye(3, dtype=vector.dtype) + first * K + second * (K @ K)


def cross_matrix(vector: Tensor) -> Tensor:
    """(..., 3) v -> (..., 3, 3) with matrix @ u = v x u."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
