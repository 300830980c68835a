"""Parameters of any skinned body from points of its surface: Levenberg-Marquardt over pose, shape and place.

The body is only asked for its posed points. That a small turn w of a joint p moves a point x that hangs on it
with the share s by s w x (x - p) follows from the skinning weights; how the shape moves points is found by
differences. Several people are solved side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from multihmr.bodies.base import Body
from multihmr.bodies.topology import Topology
from multihmr.fitting.skeleton import cross_matrix, left_jacobian, rotation_matrix
from multihmr.humans import rotmat_to_rotvec

DIFFERENCE = 1e-2  # of shape and expression; bodies are linear in them or nearly so
LEAST_GAIN = 1e-3  # of the energy in one step; less is the end
CURVATURE_STEPS = 3  # for which one J^T J serves; gradients are exact in each step
LOWEST_DAMPING, HIGHEST_DAMPING = 1e-6, 1e6


@dataclass(frozen=True)
class BodyState:
    """Parameters of P people, float32: pose_PR33, shape_PS, expression_PE; root_P3, the pelvis joint [m]."""

    pose_PR33: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    root_P3: Tensor

    def where(self, mask_P: Tensor, other: BodyState) -> BodyState:
        """Rows of `other` where the mask is true."""
        return BodyState(
            *(
                torch.where(mask_P.view(-1, *[1] * (mine.ndim - 1)), theirs, mine)
                for mine, theirs in (
                    (getattr(self, name), getattr(other, name)) for name in BodyState.__annotations__
                )
            )
        )


@dataclass(frozen=True)
class Priors:
    """How far parameters are expected from rest, one standard deviation each; 0 holds them at rest.

    pose_R        angle of each rotation [rad]; that of the root is not used
    twist_R       of the turn about the bone itself [rad]; inf where the bone has no direction
    axis_R3       the direction of that bone, a unit vector in the axes of the body
    shape_S, expression_E
    """

    pose_R: Tensor
    twist_R: Tensor
    axis_R3: Tensor
    shape_S: Tensor
    expression_E: Tensor
    mean_shape_S: Tensor


class _Part:
    """Some vertices and joints of a body, `rows` of them among all that a solver looks at."""

    def __init__(self, body: Body, vertices: np.ndarray, joints: Sequence[int], rows: np.ndarray) -> None:
        with_vertices = getattr(body, "with_vertices", None)
        self._few = with_vertices(vertices) if with_vertices else body
        self._vertices = None if with_vertices else torch.from_numpy(vertices)
        self._joints, self.rows = list(joints), torch.from_numpy(rows)

    def points(self, state: BodyState) -> tuple[Tensor, Tensor]:
        output = self._few(state.pose_PR33, state.shape_PS, state.expression_PE)
        vertices = output.vertices_PV3
        vertices = vertices if self._vertices is None else vertices[:, self._vertices]
        points = torch.cat([vertices, output.joints_PJ3[:, self._joints]], 1)
        return points + state.root_P3[:, None], output.joints_PJ3 + state.root_P3[:, None]


class BodySolver:
    """Finds parameters of a body whose points, C vertices and K joints, lie at goals."""

    def __init__(self, body: Body, vertices: np.ndarray, joints: Sequence[int], priors: Priors) -> None:
        self.body, self.priors = body, priors
        self._all = _Part(body, vertices, joints, np.arange(len(vertices) + len(joints)))
        topology = body.topology
        self.owner, self.parent_R = joints_of_rotations(topology)
        below = descendants(topology.parents)  # (J, J)
        assert topology.skin_indices is not None
        assert topology.skin_weights is not None
        skin = np.zeros((len(vertices), len(topology.parents)), np.float32)
        rows = np.arange(len(vertices))[:, None]
        np.add.at(skin, (rows, topology.skin_indices[vertices]), topology.skin_weights[vertices])
        of_joints = np.eye(len(topology.parents), dtype=np.float32)[list(joints)]
        hanging = np.concatenate([skin, of_joints]) @ below.T
        self.free = torch.tensor([r == 0 or float(s) > 0 for r, s in enumerate(priors.pose_R)])
        self._free = self.free.nonzero()[:, 0]
        self._share_MQ = torch.from_numpy(hanging[:, self.owner])[:, self._free]
        self._joint_Q = torch.tensor(self.owner)[self._free]
        self._shaped = (priors.shape_S > 0).nonzero()[:, 0]
        self._expressed = (priors.expression_E > 0).nonzero()[:, 0]
        self._facial = self._moved_by_expressions(vertices)
        self.robust = 0.03

    def start(self, people: int) -> BodyState:
        """P average people in the body's mean pose, in the origin."""
        body = self.body
        return BodyState(
            body.mean_pose_R33.float().repeat(people, 1, 1, 1),
            self.priors.mean_shape_S.repeat(people, 1),
            torch.zeros(people, body.expression_count),
            torch.zeros(people, 3),
        )

    def points(self, state: BodyState) -> tuple[Tensor, Tensor]:
        """(P, C + K, 3) points and all joints (P, J, 3) of these people [m]."""
        return self._all.points(state)

    @torch.no_grad()
    def _moved_by_expressions(self, vertices: np.ndarray) -> _Part:
        count = len(self._expressed)
        if not count:
            return _Part(self.body, vertices[:0], (), np.zeros(0, int))
        start = self.start(count + 1)
        start.expression_PE[torch.arange(count), self._expressed] = 1
        points, _ = self.points(start)
        moved = (points[:-1] - points[-1])[:, : len(vertices)].norm(dim=-1).amax(0) > 1e-5
        rows = moved.nonzero()[:, 0].numpy()
        return _Part(self.body, vertices[rows], (), rows)

    @torch.no_grad()
    def solve(
        self, state: BodyState, goals_PM3: Tensor, sigma_M: Tensor, *, steps: int, shape: bool = True
    ) -> BodyState:
        """States of less energy: points near the goals (P, C + K, 3), `sigma_M` apart [m], inf: not used.

        shape: also shape and expression.
        """
        damping = torch.full((len(goals_PM3),), 1e-3, dtype=torch.float64)
        energy, gradient = self._gradient(state, goals_PM3, sigma_M, shape)
        curvature, age = self._curvature(state, goals_PM3, sigma_M, shape), 0
        for _ in range(steps):
            held = self._clamped(state, gradient, shape)
            trial = self._moved(state, self._step(gradient, curvature, held, damping), shape)
            found = self._energy(trial, goals_PM3, sigma_M, shape)
            better = found < energy
            gain = torch.where(better, (energy - found) / energy.clamp(min=1e-12), 0.0)
            damping = torch.where(better, damping / 5, damping * 8).clamp(LOWEST_DAMPING, HIGHEST_DAMPING)
            state, age = state.where(better, trial), age + 1
            if bool((gain < LEAST_GAIN).all()) and bool(((damping >= 1) | better).all()):
                break
            if bool(better.any()):
                energy, gradient = self._gradient(state, goals_PM3, sigma_M, shape)
            if age >= CURVATURE_STEPS or not bool(better.all()):
                curvature, age = self._curvature(state, goals_PM3, sigma_M, shape), 0
        return state

    def _step(self, gradient: Tensor, hessian: Tensor, clamped: Tensor, damping: Tensor) -> Tensor:
        free = (~clamped).to(hessian.dtype)
        hessian = hessian * free[:, :, None] * free[:, None, :]
        diagonal = hessian.diagonal(dim1=1, dim2=2)
        damped = hessian + torch.diag_embed(damping[:, None] * diagonal + 1e-9 + clamped.to(hessian.dtype))
        factor = torch.linalg.cholesky_ex(damped)[0]
        return -torch.cholesky_solve((gradient * free)[..., None], factor)[..., 0].nan_to_num(0.0)

    def _moved(self, state: BodyState, step: Tensor, shape: bool, *, bounded: bool = True) -> BodyState:
        count = len(self._free)
        small = rotation_matrix(step[:, : 3 * count].unflatten(1, (-1, 3))).float()
        above = self._above(self.global_turns(state.pose_PR33))[:, self._free]
        turned = above.mT @ small @ above @ state.pose_PR33[:, self._free]
        if bounded:  # products of float32 matrices drift from rotations
            turned = nearest_rotations(turned)
        pose = state.pose_PR33.index_copy(1, self._free, turned)
        rest = step[:, 3 * count :].float()
        moved = replace(state, pose_PR33=pose, root_P3=state.root_P3 + rest[:, :3])
        if not shape:
            return moved
        by_shape, by_face = rest[:, 3:].split([len(self._shaped), len(self._expressed)], 1)
        numbers = state.shape_PS.index_add(1, self._shaped, by_shape)
        faces = state.expression_PE.index_add(1, self._expressed, by_face)
        if self.body.bounded and bounded:
            numbers, faces = numbers.clamp(0, 1), faces.clamp(0, 1)
        return replace(moved, shape_PS=numbers, expression_PE=faces)

    def global_turns(self, pose_PR33: Tensor) -> Tensor:
        """(P, R, 3, 3) each rotation with all above it."""
        turns = pose_PR33.clone()
        for r in self._order():
            if self.parent_R[r] >= 0:
                turns[:, r] = turns[:, self.parent_R[r]] @ pose_PR33[:, r]
        return turns

    def _order(self) -> list[int]:
        depth: dict[int, int] = {}

        def deep(r: int) -> int:
            if r not in depth:
                depth[r] = 0 if self.parent_R[r] < 0 else deep(self.parent_R[r]) + 1
            return depth[r]

        return sorted(range(len(self.parent_R)), key=deep)

    def _above(self, turns_PR33: Tensor) -> Tensor:
        """(P, R, 3, 3) the global turn of what each rotation hangs on."""
        eye = torch.eye(3).expand(len(turns_PR33), 1, 3, 3)
        padded = torch.cat([turns_PR33, eye], 1)
        return padded[:, torch.tensor([p if p >= 0 else len(self.parent_R) for p in self.parent_R])]

    def _energy(self, state: BodyState, goals: Tensor, sigma_M: Tensor, shape: bool) -> Tensor:
        """(P,) the robust distances (Geman and McClure 1987) and what parameters are expected to be."""
        points, _ = self.points(state)
        return self._distances(points, goals, sigma_M).double() + self._prior_terms(state, shape)[0]

    def _distances(self, points: Tensor, goals: Tensor, sigma_M: Tensor) -> Tensor:
        used = sigma_M.isfinite().nonzero()[:, 0]
        square, c2 = (points - goals)[:, used].square().sum(-1), self.robust**2
        return (sigma_M[used] ** -2 * square * c2 / (square + c2)).sum(1)

    def _gradient(
        self, state: BodyState, goals: Tensor, sigma_M: Tensor, shape: bool
    ) -> tuple[Tensor, Tensor]:
        """Energy (P,) and half its gradient (P, U), exactly."""
        zero = torch.zeros(len(goals), self._unknowns(shape), requires_grad=True)
        with torch.enable_grad():
            points, _ = self.points(self._moved(state, zero, shape, bounded=False))
            energy = self._distances(points, goals, sigma_M)
            gradient = torch.autograd.grad(energy.sum(), zero)[0].double() / 2
        prior, slope, _ = self._prior_terms(state, shape)
        return energy.detach().double() + prior, gradient + slope

    def _curvature(self, state: BodyState, goals: Tensor, sigma_M: Tensor, shape: bool) -> Tensor:
        """(P, U, U) J^T J, in which all bones that move a point have it at its place."""
        points, joints = self.points(state)
        used = sigma_M.isfinite().nonzero()[:, 0]
        square, c2 = (points - goals)[:, used].square().sum(-1), self.robust**2
        weight = c2 / (square + c2) / sigma_M[used]
        levers = points[:, used, None] - joints[:, None, self._joint_Q]
        share = weight[:, :, None] * self._share_MQ[used]
        by_turn = cross_matrix(-levers * share[..., None]).transpose(2, 3).flatten(3)
        blocks = [by_turn, torch.eye(3) * weight[..., None, None]]
        if shape:
            blocks.append(self._by_shape(state, points)[:, used] * weight[..., None, None])
        J = torch.cat(blocks, -1).flatten(1, 2)
        return (J.mT @ J).double() + self._prior_terms(state, shape)[2]

    def _unknowns(self, shape: bool) -> int:
        return 3 * len(self._free) + 3 + (len(self._shaped) + len(self._expressed) if shape else 0)

    def _by_shape(self, state: BodyState, points: Tensor) -> Tensor:
        """(P, M, 3, S' + E') how points move with the free numbers of shape and expression."""
        columns = [self._differences(self._all, state, points, "shape_PS", self._shaped)]
        if len(self._expressed):
            moved = points.new_zeros(*points.shape, len(self._expressed))
            here = points[:, self._facial.rows]
            moved[:, self._facial.rows] = self._differences(
                self._facial, state, here, "expression_PE", self._expressed
            )
            columns.append(moved)
        return torch.cat(columns, -1)

    def _differences(self, part: _Part, state: BodyState, points: Tensor, name: str, free: Tensor) -> Tensor:
        people, count = len(points), len(free)
        values = getattr(state, name)
        step = torch.full_like(values[:, free], DIFFERENCE)
        if self.body.bounded:
            step = torch.where(values[:, free] + DIFFERENCE > 1, -DIFFERENCE, step)
        moved = values[:, None].repeat(1, count, 1)
        moved[:, torch.arange(count), free] += step
        many = {key: getattr(state, key).repeat_interleave(count, 0) for key in BodyState.__annotations__}
        found, _ = part.points(BodyState(**(many | {name: moved.flatten(0, 1)})))
        change = found.unflatten(0, (people, count)) - points[:, None]
        return (change / step[..., None, None]).permute(0, 2, 3, 1)

    def _prior_terms(self, state: BodyState, shape: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Energy (P,), half its gradient (P, U) and its curvature (P, U, U) of what is expected."""
        people, priors, unknowns = len(state.root_P3), self.priors, self._unknowns(shape)
        gradient = torch.zeros(people, unknowns, dtype=torch.float64)
        hessian = torch.zeros(people, unknowns, unknowns, dtype=torch.float64)
        limbs = self._free[1:]  # the root is free
        vectors = torch.from_numpy(rotmat_to_rotvec(state.pose_PR33[:, limbs].numpy())).double()
        axis = priors.axis_R3[limbs].double()
        across = torch.diag_embed((priors.pose_R[limbs].double() ** -2)[:, None].expand(-1, 3))
        twisted = priors.twist_R[limbs].double() ** -2
        metric = across + twisted[:, None, None] * axis[:, :, None] * axis[:, None, :]  # (Q, 3, 3)
        pull = (metric @ vectors[..., None])[..., 0]
        energy = (pull * vectors).sum((1, 2))
        above = self._above(self.global_turns(state.pose_PR33))[:, limbs].double()
        slope = torch.linalg.solve(left_jacobian(vectors).mT, pull[..., None])
        count = len(limbs)
        gradient[:, 3 : 3 + 3 * count] = (above @ slope)[..., 0].flatten(1)
        curvature = above @ metric @ above.mT
        for q in range(count):
            block = slice(3 + 3 * q, 6 + 3 * q)
            hessian[:, block, block] = curvature[:, q]
        if shape:
            start = 3 * (count + 1) + 3
            pairs = (
                ((state.shape_PS - priors.mean_shape_S)[:, self._shaped], priors.shape_S[self._shaped]),
                (state.expression_PE[:, self._expressed], priors.expression_E[self._expressed]),
            )
            for difference, sigma in pairs:
                weight = sigma.double() ** -2
                energy = energy + (difference.double() ** 2 * weight).sum(1)
                at = torch.arange(start, start + len(weight))
                gradient[:, at] = difference.double() * weight
                hessian[:, at, at] = weight.expand(people, -1)
                start += len(weight)
        return energy, gradient, hessian

    def _clamped(self, state: BodyState, gradient: Tensor, shape: bool) -> Tensor:
        held = torch.zeros_like(gradient, dtype=torch.bool)
        if shape and self.body.bounded:
            start = 3 * len(self._free) + 3
            values = torch.cat([state.shape_PS[:, self._shaped], state.expression_PE[:, self._expressed]], 1)
            slope = gradient[:, start:]
            held[:, start:] = ((values <= 0) & (slope > 0)) | ((values >= 1) & (slope < 0))
        return held


def nearest_rotations(matrices: Tensor) -> Tensor:
    """(..., 3, 3) the rotations with the largest trace of R^T matrix (Kabsch 1976)."""
    U, _, Vh = torch.linalg.svd(matrices)
    sign = torch.det(U @ Vh)
    return torch.cat([U[..., :2], U[..., 2:] * sign[..., None, None]], -1) @ Vh


def joints_of_rotations(topology: Topology) -> tuple[list[int], list[int]]:
    """For each rotation of a pose: its joint, and the rotation above it (-1 for the root)."""
    owner = list(topology.pose_joints)
    place = {joint: r for r, joint in enumerate(owner)}
    parents = []
    for joint in owner:
        above = topology.parents[joint]
        while above >= 0 and above not in place:
            above = topology.parents[above]
        parents.append(place[above] if above >= 0 else -1)
    return owner, parents


def descendants(parents: Sequence[int]) -> np.ndarray:
    """(J, J) 1 where the second joint is the first or hangs on it."""
    table = np.eye(len(parents), dtype=np.float32)
    for joint in range(len(parents)):
        above = parents[joint]
        while above >= 0:
            table[above, joint] = 1
            above = parents[above]
    return table
