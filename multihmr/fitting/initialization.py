"""Initialisation of a fit: poses of the prior, oriented and placed by their reprojection error."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from multihmr.fitting.skeleton import PosedPoints, rotation_matrix
from multihmr.fitting.solver import Energy, PoseModel
from multihmr.fitting.state import Observations, State
from multihmr.humans import rotmat_to_rotvec

LEAST_PARALLAX = math.radians(0.3)  # between two rays to one point
YAWS, PITCHES_DEG = 24, (-30.0, 0.0, 30.0)
TILT_SIGMA = 0.5  # rad that people are expected to lean in a picture
LIKENESS_SIGMA = 0.04  # of a person's size: how far points of the nearest pose that we have are off
PER_POSE = 2  # candidates of one pose at most


class Candidates:
    """E poses of one shape as points (E, M, 3), the root upright in the origin [m]."""

    def __init__(
        self, points_EM3: Tensor, pose_ED: Tensor, model: PoseModel, shape_S: Tensor, actions: int = 0
    ) -> None:
        """actions: how many facial actions a state has; all begin at 0."""
        self.points_EM3, self.pose_ED, self.shape_S, self.actions = points_EM3, pose_ED, shape_S, actions
        self.component_E = model.components(pose_ED)
        self.views_R33 = _orientations()

    def from_space(self, seen: Observations, count: int) -> State:
        """(N * count) states whose points lie nearest to those given in space, best first."""
        found = [self._align(seen.xyz_PM3[i], seen.weight_PM[i], count) for i in range(len(seen.xyz_PM3))]
        return _stack(found)

    def _align(self, xyz_M3: Tensor, weight_M: Tensor, count: int) -> State:
        share_M = weight_M / weight_M.sum()
        middle_3 = share_M @ xyz_M3
        middles_E3 = torch.einsum("m,emc->ec", share_M, self.points_EM3)
        wanted, model = xyz_M3 - middle_3, self.points_EM3 - middles_E3[:, None]
        covariance = torch.einsum("m,ma,emb->eab", share_M, wanted, model)
        U, S, Vh = torch.linalg.svd(covariance)
        sign = torch.det(U @ Vh)
        flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
        R_E33 = (U * flip[:, None]) @ Vh
        size_E = torch.einsum("m,emc->e", share_M, model**2)
        agreement = (S * flip).sum(1).clamp(min=0)
        error_E = (share_M @ wanted.square().sum(1)) - agreement**2 / size_E
        best = error_E.argsort()[:count]
        pelvis = middle_3 - (R_E33[best] @ middles_E3[best, :, None])[..., 0]
        return self._state(best, R_E33[best], pelvis)

    def from_view(self, seen: Observations, view_P: Tensor, count: int) -> State:
        """(P * count) states whose points look most like those in one view of each person, best first."""
        found = []
        for i, v in enumerate(view_P.tolist()):
            K, R, t = seen.K_PV33[i, v], seen.R_PV33[i, v], seen.t_PV3[i, v]
            root, pelvis, best = self._look(K, seen.xy_PVM2[i, v], seen.weight_PVM[i, v], count)
            found.append(self._state(best, R.T @ root, (pelvis - t) @ R))
        return _stack(found)

    def _look(self, K: Tensor, xy_M2: Tensor, weight_M: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Turns (C, 3, 3) and pelvises (C, 3) in the camera, indices of poses (C,)."""
        kept = weight_M > 0
        share = weight_M[kept] / weight_M[kept].sum()
        flat = torch.cat([xy_M2[kept], torch.ones_like(xy_M2[kept, :1])], 1) @ torch.linalg.inv(K).T
        axis = share @ (flat / flat.norm(dim=1, keepdim=True))
        to_axis_33 = _towards(axis / axis.norm())
        turned = flat @ to_axis_33.T
        seen_M = torch.complex(turned[:, 0] / turned[:, 2], turned[:, 1] / turned[:, 2])
        middle = (share * seen_M).sum()
        seen_M = seen_M - middle
        size = (share * seen_M.abs() ** 2).sum()
        # A scaled orthographic view: a complex factor is the scale and the roll (pixels on a picture's
        # plane).
        points = torch.einsum("rab,emb->erma", self.views_R33, self.points_EM3[:, kept])
        flat_ERM = torch.complex(points[..., 0], points[..., 1])
        middles = (share * flat_ERM).sum(-1, keepdim=True)
        flat_ERM = flat_ERM - middles
        product = (share * flat_ERM.conj() * seen_M).sum(-1)
        spread = (share * flat_ERM.abs() ** 2).sum(-1).clamp(min=1e-9)
        error = 1 - product.abs() ** 2 / (spread * size.clamp(min=1e-12))
        roll = torch.angle(product)
        tilt = torch.arccos((-self.views_R33[:, 1, 2]).clamp(-1, 1))
        lean = torch.sqrt(roll**2 + tilt**2)
        score = error / LIKENESS_SIGMA**2 + (2 - 2 * torch.cos(lean)) / TILT_SIGMA**2
        best = _spread_best(score, count)
        pose, view = best // score.shape[1], best % score.shape[1]
        factor = product / spread
        scale = factor.abs().flatten()[best]
        depth = 1 / scale
        roll_C = roll.flatten()[best]
        place = middle - factor.flatten()[best] * middles.flatten()[best]
        pelvis = torch.stack([place.real * depth, place.imag * depth, depth], -1)
        mean_depth = (share * points[..., 2]).sum(-1).flatten()[best]
        pelvis = pelvis * ((depth - mean_depth) / depth)[:, None]
        root = _rolls(roll_C) @ self.views_R33[view]
        return to_axis_33.T @ root, pelvis @ to_axis_33, pose

    def _state(self, best: Tensor, root_C33: Tensor, pelvis_C3: Tensor) -> State:
        return State(
            root_C33,
            pelvis_C3,
            self.pose_ED[best],
            self.pose_ED.new_zeros(len(best), self.actions),
            self.shape_S.expand(len(best), -1).clone(),
            self.component_E[best],
        )


def turned_hand(energy: Energy, state: State, side: str, *, mirrored: bool) -> State:
    """The states with a hand, "L" or "R", turned about its forearm.

    mirrored: its palm mirrored in the plane of the picture, as an orthographic view cannot tell; else turned
    over by half a turn. The forearm takes half of the turn, as far as the coordinates of poses allow.
    """
    posed, local = energy.posed(state)
    bone = {name: j for j, name in enumerate(energy.skeleton.bones)}
    elbow, forearm, wrist = (bone[f"{name}.{side}"] for name in ("lowerarm01", "lowerarm02", "wrist"))
    joints = posed.joints_PJ3
    axis = torch.nn.functional.normalize(joints[:, wrist] - joints[:, elbow], dim=-1)
    fingers = [joints[:, bone[f"finger{k}-1.{side}"]] - joints[:, wrist] for k in (2, 5)]
    palm = torch.linalg.cross(*fingers)
    angle = torch.full_like(palm[:, 0], math.pi)
    if mirrored:
        ray = torch.nn.functional.normalize(joints[:, wrist] + state.pelvis_P3, dim=-1)
        reflected = 2 * (palm * ray).sum(1, keepdim=True) * ray - palm
        across = torch.linalg.cross(axis, palm)
        along = palm - (palm * axis).sum(1, keepdim=True) * axis
        angle = torch.atan2((reflected * across).sum(1), (reflected * along).sum(1))
    both = [
        _turned_forearm(energy, state, posed, local, (elbow, forearm, wrist), axis, a)
        for a in (angle, angle - 2 * math.pi * torch.sign(angle))
    ]
    beyond = [energy.beyond_limits(trial).square().sum(1) for trial in both]
    return both[0].where(beyond[1] < beyond[0], both[1])


def _turned_forearm(
    energy: Energy,
    state: State,
    posed: PosedPoints,
    local: Tensor,
    bones: tuple[int, int, int],
    axis_P3: Tensor,
    angle_P: Tensor,
) -> State:
    elbow, forearm, wrist = bones
    half, whole = (rotation_matrix(share * angle_P[:, None] * axis_P3) for share in (0.5, 1.0))
    turned = half @ posed.turns_PJ33[:, forearm]
    own = posed.turns_PJ33[:, elbow].mT @ turned, turned.mT @ whole @ posed.turns_PJ33[:, wrist]
    model, known = energy.model, energy.model.prior_coordinates
    change = torch.zeros(len(local), len(local[0]) - 1, 3, dtype=local.dtype)
    for j, new in zip((forearm, wrist), own, strict=True):
        both = rotmat_to_rotvec(torch.stack([local[:, j], new]).numpy())
        change[:, j - 1] = torch.from_numpy(both[1] - both[0]).to(local.dtype)
    pose_PD = state.pose_PD.clone()
    pose_PD[:, :known] += change.flatten(1) @ model.basis_D3J[:known].T
    return replace(state, pose_PD=pose_PD, component_P=model.components(pose_PD))


def has_parallax(seen: Observations) -> Tensor:
    """(P, M) whether two views see a point along rays that differ by LEAST_PARALLAX or more.

    Cameras in one place, or one camera given twice, tell of directions alone.
    """
    ones = torch.ones_like(seen.xy_PVM2[..., :1])
    rays = torch.cat([seen.xy_PVM2, ones], -1) @ torch.linalg.inv(seen.K_PV33).mT @ seen.R_PV33
    rays = torch.nn.functional.normalize(rays, dim=-1)
    there = seen.weight_PVM > 0
    sines = torch.linalg.cross(rays[:, :, None], rays[:, None]).norm(dim=-1)  # (P, V, V, M)
    return ((sines > LEAST_PARALLAX) & there[:, :, None] & there[:, None]).any(2).any(1)


def triangulate(seen: Observations) -> tuple[Tensor, Tensor]:
    """Points (P, M, 3) [m] seen by two views or more, and weights (P, M), 0 for the others.

    Direct linear transform (Hartley and Zisserman, "Multiple View Geometry", 2004, 12.2), on rays.
    """
    ones = torch.ones_like(seen.xy_PVM2[..., :1])
    rays = torch.cat([seen.xy_PVM2, ones], -1) @ torch.linalg.inv(seen.K_PV33).mT
    cameras = torch.cat([seen.R_PV33, seen.t_PV3[..., None]], -1)[:, :, None]
    weight = seen.weight_PVM[..., None]
    rows = [weight * (rays[..., i, None] * cameras[..., 2, :] - cameras[..., i, :]) for i in (0, 1)]
    A = torch.stack(rows, -2).transpose(1, 2).flatten(2, 3)  # (P, M, 2 V, 4)
    # Least squares with the last coordinate 1: points lie metres away, never at infinity.
    normal = A[..., :3].mT @ A[..., :3] + 1e-9 * torch.eye(3, dtype=A.dtype)
    xyz = -torch.linalg.solve(normal, A[..., :3].mT @ A[..., 3:])[..., 0]
    camera = torch.einsum("pvab,pmb->pvma", seen.R_PV33, xyz) + seen.t_PV3[:, :, None]
    seen_by = (seen.weight_PVM > 0).sum(1)
    in_front = ((camera[..., 2] > 0) | (seen.weight_PVM == 0)).all(1)
    known = (seen_by >= 2) & in_front & xyz.isfinite().all(-1) & has_parallax(seen)
    return torch.where(known[..., None], xyz, 0), known.to(xyz.dtype)


def _orientations() -> Tensor:
    """(R, 3, 3) turns from the body's axes (z up, facing -y) into a camera's: all yaws, some tilts."""
    facing = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    turns = []
    for pitch in PITCHES_DEG:
        c, s = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
        tilt = torch.tensor([[1, 0, 0], [0, c, -s], [0, s, c]], dtype=torch.float64)
        for k in range(YAWS):
            c, s = math.cos(2 * math.pi * k / YAWS), math.sin(2 * math.pi * k / YAWS)
            yaw = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
            turns.append(tilt @ facing @ yaw)
    return torch.stack(turns)


def _spread_best(score_ER: Tensor, count: int) -> Tensor:
    """Flat indices of the best scores, at most PER_POSE of one row."""
    scores, at = score_ER.topk(min(PER_POSE, score_ER.shape[1]), dim=1, largest=False)
    order = scores.flatten().argsort()[:count]
    rows = order // at.shape[1]
    return rows * score_ER.shape[1] + at.flatten()[order]


def _towards(axis_3: Tensor) -> Tensor:
    """(3, 3) smallest turn of a camera's axes that brings direction axis_3 onto z."""
    x, y, z = axis_3.tolist()
    s = 1 / (1 + z)
    rows = [[1 - x * x * s, -x * y * s, -x], [-x * y * s, 1 - y * y * s, -y], [x, y, z]]
    return torch.tensor(rows, dtype=torch.float64)


def _rolls(angle_C: Tensor) -> Tensor:
    c, s, zero, one = angle_C.cos(), angle_C.sin(), torch.zeros_like(angle_C), torch.ones_like(angle_C)
    return torch.stack([c, -s, zero, s, c, zero, zero, zero, one], -1).unflatten(-1, (3, 3))


def _stack(states: list[State]) -> State:
    return State(
        *(
            torch.cat([getattr(state, name) for state in states])
            for name in ("root_P33", "pelvis_P3", "pose_PD", "face_PE", "shape_PS", "component_P")
        )
    )
