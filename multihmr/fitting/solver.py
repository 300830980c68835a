"""Batched Levenberg-Marquardt over pose, shape and position, with analytic derivatives.

The energy is minus twice the log of a posterior: reprojection and 3D errors under the robust function of
Geman and McClure (1987), the pose prior, limits of the joints, an average shape, and people who stand
upright in the picture. The scale of the robust function falls from wide to its own ("graduated
non-convexity", Blake and Zisserman 1987).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from multihmr.bodies.anny import Anny
from multihmr.fitting.prior import PosePrior
from multihmr.fitting.skeleton import (
    PointSkeleton,
    PosedPoints,
    RestPose,
    cross_matrix,
    left_jacobian,
    rotation_matrix,
)
from multihmr.fitting.state import Observations, State
from multihmr.world.heights import heights_of_shapes

FACE_SIGMA = 0.3  # of the strength of a facial action
HELD = 1e12  # curvature that keeps a number at its limit
ROBUST_SCALE = 4.0  # standard deviations at which an error counts half as much as it should
NEAREST = 0.1  # points nearer to a camera than this [m] are taken to lie there
LIMIT_SIGMA = 0.1  # rad by which a joint may pass its limit
HEIGHT_SIGMA = 0.01  # of a height that is known [m]
HEIGHT_STEP = 0.01  # of a phenotype, to see how the height follows it
UPRIGHT_SIGMA = 0.5  # of the difference between the body's and the picture's "up", as unit vectors


@dataclass(frozen=True)
class ShapePrior:
    """A mixture of K Gaussians over the six phenotypes: adults and children.

    constants_K: minus twice the logarithm of each one's weight and density at its mean, up to one constant.
    """

    mean_KS: Tensor
    sigma_KS: Tensor
    constants_K: Tensor

    def kinds(self, shape_PS: Tensor) -> Tensor:
        """(P,) the Gaussian that holds each shape most likely."""
        scaled = (shape_PS[:, None] - self.mean_KS) / self.sigma_KS
        return (scaled.square().sum(-1) + self.constants_K).argmin(1)


@dataclass(frozen=True)
class PoseModel:
    """How pose coordinates turn the bones of a skeleton: those of the prior first, then those of hands.

    basis_D3J and mean_3J: rotation vectors of all bones of the skeleton but the root = mean + pose @ basis.
    """

    prior: PosePrior
    hands: tuple[str, ...]  # sides that have coordinates of their own, "L" and "R"
    mean_3J: Tensor
    basis_D3J: Tensor
    whitening_KDD: Tensor
    centers_KD: Tensor
    constants_K: Tensor
    extra_sigma: Tensor
    lower_3J: Tensor
    upper_3J: Tensor

    @property
    def coordinates(self) -> int:
        return self.basis_D3J.shape[0]

    @cached_property
    def prior_coordinates(self) -> int:
        return self.centers_KD.shape[1]

    def components(self, pose_PD: Tensor) -> Tensor:
        """(P,) the Gaussian of the prior that holds each pose most likely."""
        z = pose_PD[:, None, : self.prior_coordinates]
        scaled = torch.einsum("kde,pke->pkd", self.whitening_KDD, z - self.centers_KD)
        return (scaled.square().sum(-1) + self.constants_K).argmin(1)


class Terms(NamedTuple):
    """Energy (P,), its gradient halves J^T r (P, N) and J^T J (P, N, N)."""

    energy_P: Tensor
    gradient_PN: Tensor
    hessian_PNN: Tensor


class Energy:
    """The energy of states of P people, each with its own observations.

    Around `expand`ed shapes the points are linear in the shape: the skeleton's rest tables are only made anew
    there.
    """

    def __init__(
        self,
        skeleton: PointSkeleton,
        model: PoseModel,
        shape_prior: ShapePrior,
        seen: Observations,
        *,
        upright: bool,
    ) -> None:
        self.skeleton, self.model, self.shape_prior, self.seen = skeleton, model, shape_prior, seen
        self.upright = upright
        self.robust = ROBUST_SCALE
        self._around_PS: Tensor | None = None
        self.face = bool(skeleton.actions)  # whether facial actions are unknowns

    def rows(self, index: Tensor) -> Energy:
        """Of the people at an index; to be expanded again."""
        other = Energy(
            self.skeleton, self.model, self.shape_prior, self.seen.rows(index), upright=self.upright
        )
        other.robust, other.face = self.robust, self.face
        return other

    def expand(self, shape_PS: Tensor) -> None:
        """Take the points to be linear around these shapes; one row serves all people."""
        self._around_PS = shape_PS.clone()
        self._rest, self._by_shape = self.skeleton.rest_derivative(shape_PS)
        self._by_face = self.skeleton.action_arms(shape_PS) if self.face else None
        self._height = None
        if bool(self.seen.height_P.isfinite().any()):
            self._height = height_derivative(self.skeleton.body, shape_PS)

    def rest(self, shape_PS: Tensor) -> RestPose:
        assert self._around_PS is not None
        change_SP = (shape_PS - self._around_PS).T
        offsets = self._rest.offsets_PJ3 + (change_SP[..., None, None] * self._by_shape.offsets_PJ3).sum(0)
        arms = self._rest.arms_PMJ3 + (change_SP[..., None, None, None] * self._by_shape.arms_PMJ3).sum(0)
        return RestPose(offsets, arms)

    def posed(self, state: State) -> tuple[PosedPoints, Tensor]:
        """The skeletons, roots in the origin, and each bone's own turn (P, J, 3, 3)."""
        vectors = (self.model.mean_3J + state.pose_PD @ self.model.basis_D3J).unflatten(1, (-1, 3))
        local = torch.cat([state.root_P33[:, None], rotation_matrix(vectors)], 1)
        return self.skeleton.pose(self.skeleton.chain(local), self.rest(state.shape_PS)), local

    def points(self, state: State) -> tuple[Tensor, Tensor]:
        """(P, M, 3) points in the world [m] and their derivatives (P, M, 3, N)."""
        vectors = (self.model.mean_3J + state.pose_PD @ self.model.basis_D3J).unflatten(1, (-1, 3))
        posed, _ = self.posed(state)
        if self._by_face is not None:
            by_face, posed = self.skeleton.with_actions(posed, self._by_face, state.face_PE)
        levers = cross_matrix(-self.skeleton.turn_derivative(posed))
        parents = posed.turns_PJ33[:, self.skeleton.parents[1:]]
        by_vector = levers[:, :, 1:] @ (parents @ left_jacobian(vectors))[:, None]  # (P, M, J, 3, 3)
        by_pose = by_vector.transpose(2, 3).flatten(3) @ self.model.basis_D3J.T
        by_shape = self.skeleton.pose(posed.turns_PJ33, self._by_shape).points_PM3.permute(1, 2, 3, 0)
        people, count = posed.points_PM3.shape[:2]
        eye = torch.eye(3, dtype=torch.float64).expand(people, count, 3, 3)
        columns = [levers[:, :, 0], eye, by_pose, by_shape]
        if self._by_face is not None:
            columns.insert(3, by_face)
        jacobian = torch.cat(columns, -1)
        return posed.points_PM3 + state.pelvis_P3[:, None], jacobian

    def __call__(self, state: State) -> Terms:
        points_PM3, jacobian_PM3N = self.points(state)
        people, unknowns = len(points_PM3), jacobian_PM3N.shape[-1]
        energy = points_PM3.new_zeros(people)
        residuals, jacobians = [], []
        seen = self.seen
        if seen.weight_PVM.shape[1]:
            camera = torch.einsum("pvab,pmb->pvma", seen.R_PV33, points_PM3) + seen.t_PV3[:, :, None]
            depth = camera[..., 2:].clamp(min=NEAREST)
            xy = camera[..., :2] / depth
            pixels = torch.einsum("pvab,pvmb->pvma", seen.K_PV33[..., :2, :2], xy)
            pixels = pixels + seen.K_PV33[:, :, None, :2, 2]
            by_camera = torch.cat([torch.eye(2, dtype=xy.dtype).expand(*xy.shape, 2), -xy[..., None]], -1)
            by_camera = by_camera / depth[..., None]
            by_point = torch.einsum(
                "pvab,pvmbc,pvcd->pvmad", seen.K_PV33[..., :2, :2], by_camera, seen.R_PV33
            )
            scale = seen.sigma_PVM[..., None]
            error = (pixels - seen.xy_PVM2) / scale
            jacobian = (by_point / scale[..., None]) @ jacobian_PM3N[:, None]
            part, weight = self._robust(error, seen.weight_PVM)
            energy = energy + part.sum((1, 2))
            residuals.append((weight[..., None] * error).flatten(1))
            jacobians.append((weight[..., None, None] * jacobian).flatten(1, 3))
        if bool((seen.weight_PM > 0).any()):
            scale = seen.sigma_PM[..., None]
            error = (points_PM3 - seen.xyz_PM3) / scale
            part, weight = self._robust(error, seen.weight_PM)
            energy = energy + part.sum(1)
            residuals.append((weight[..., None] * error).flatten(1))
            jacobians.append((weight[..., None, None] / scale[..., None] * jacobian_PM3N).flatten(1, 2))
        for residual, jacobian, constant in self._priors(state, unknowns):
            energy = energy + residual.square().sum(1) + constant
            residuals.append(residual)
            jacobians.append(jacobian)
        r_PR, J_PRN = torch.cat(residuals, 1), torch.cat(jacobians, 1)
        return Terms(energy, (J_PRN.mT @ r_PR[..., None])[..., 0], J_PRN.mT @ J_PRN)

    def _robust(self, error: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Energies of weighted errors (..., 2 or 3), and the square roots of the weights in least squares."""
        square = error.square().sum(-1)
        c2 = self.robust**2
        return weight * square * c2 / (square + c2), weight.sqrt() * c2 / (square + c2)

    def _priors(self, state: State, unknowns: int) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(residuals (P, R), derivatives (P, R, N), constants (P,)) of all that is known beforehand."""
        model, people = self.model, len(state.pose_PD)
        count, known = model.coordinates, model.prior_coordinates
        zero = state.pose_PD.new_zeros(people)

        def wide(block: Tensor, start: int) -> Tensor:
            whole = block.new_zeros(people, block.shape[-2], unknowns)
            whole[..., start : start + block.shape[-1]] = block
            return whole

        whitening = model.whitening_KDD[state.component_P]
        z = state.pose_PD[:, :known] - model.centers_KD[state.component_P]
        terms = [
            (
                (whitening @ z[..., None])[..., 0],
                wide(whitening, 6),
                model.constants_K[state.component_P],
            )
        ]
        if count > known:
            scale = 1 / model.extra_sigma
            terms.append((state.pose_PD[:, known:] * scale, wide(torch.diag(scale), 6 + known), zero))
        beyond = self.beyond_limits(state)
        outside = (beyond != 0).to(beyond.dtype)[..., None] * model.basis_D3J.T / LIMIT_SIGMA
        terms.append((beyond / LIMIT_SIGMA, wide(outside, 6), zero))
        shapes = unknowns - self.shape_prior.mean_KS.shape[1]  # where those of the shape begin
        prior = self.shape_prior
        kind_P = prior.kinds(state.shape_PS)
        scale = 1 / prior.sigma_KS[kind_P]
        residual = (state.shape_PS - prior.mean_KS[kind_P]) * scale
        terms.append((residual, wide(torch.diag_embed(scale), shapes), prior.constants_K[kind_P]))
        if self._height is not None:
            terms.append((*self._height_term(state, wide, shapes), zero))
        if self.face:
            eye = torch.eye(len(self.skeleton.actions), dtype=zero.dtype) / FACE_SIGMA
            terms.append((state.face_PE / FACE_SIGMA, wide(eye, 6 + count), zero))
        if self.upright:
            up = state.root_P33[..., 2]
            wanted = torch.tensor([0.0, -1.0, 0.0], dtype=up.dtype)
            terms.append(((up - wanted) / UPRIGHT_SIGMA, wide(-cross_matrix(up) / UPRIGHT_SIGMA, 0), zero))
        return terms

    def beyond_limits(self, state: State) -> Tensor:
        """(P, 3 J) how far the turns of joints are beyond their limits [rad]."""
        vectors = self.model.mean_3J + state.pose_PD @ self.model.basis_D3J
        return (vectors - self.model.upper_3J).clamp(min=0) + (vectors - self.model.lower_3J).clamp(max=0)

    def _height_term(
        self, state: State, wide: Callable[[Tensor, int], Tensor], shapes: int
    ) -> tuple[Tensor, Tensor]:
        """Residual (P, 1) of a known height and its derivative (P, 1, N), 0 where none is known."""
        assert self._height is not None
        assert self._around_PS is not None
        height_P, slope_PS = self._height
        known = self.seen.height_P.isfinite()
        change = ((state.shape_PS - self._around_PS) * slope_PS).sum(1)
        error = (height_P + change - self.seen.height_P.nan_to_num()) / HEIGHT_SIGMA
        slope = slope_PS.expand(len(known), -1) * (known / HEIGHT_SIGMA)[:, None]
        return torch.where(known, error, 0.0)[:, None], wide(slope[:, None], shapes)

    def evidence(self, state: State) -> Tensor:
        """(P,) minus twice the logarithm of how likely the points are around each state, up to a constant.

        Laplace's approximation: a state from which all others near it are far worse weighs less than one
        with many alike. The place counts relative to the distance, so that it prefers none.
        """
        terms = self(state)
        eye = torch.eye(terms.hessian_PNN.shape[1], dtype=terms.energy_P.dtype)
        spread = torch.linalg.slogdet(terms.hessian_PNN + 1e-6 * eye)[1]
        return terms.energy_P + spread + 6 * state.pelvis_P3.norm(dim=1).clamp(min=NEAREST).log()


def height_derivative(body: Anny, shape_PS: Tensor) -> tuple[Tensor, Tensor]:
    """Heights (P,) of these shapes [m] and how they follow the phenotypes (P, S)."""
    people, numbers = shape_PS.shape
    steps_PS = torch.where(shape_PS + HEIGHT_STEP <= 1, HEIGHT_STEP, -HEIGHT_STEP)
    moved = shape_PS[:, None] + torch.diag_embed(steps_PS)
    every = torch.cat([shape_PS[:, None], moved], 1).flatten(0, 1)
    found = torch.from_numpy(heights_of_shapes(body, every.numpy())).double().view(people, 1 + numbers)
    return found[:, 0], (found[:, 1:] - found[:, :1]) / steps_PS.double()


def held_at_limits(state: State, gradient_PN: Tensor) -> Tensor:
    """(P, N) 1 for the facial actions that lie at a limit and would pass it."""
    held, first = torch.zeros_like(gradient_PN), 6 + state.pose_PD.shape[1]
    count = gradient_PN.shape[1] - first - state.shape_PS.shape[1]
    if count:
        slope, values = gradient_PN[:, first : first + count], state.face_PE
        beyond = ((values <= 0) & (slope > 0)) | ((values >= 1) & (slope < 0))
        held[:, first : first + count] = beyond.to(held)
    return held


def minimise(energy: Energy, state: State, *, steps: int, switch: bool = False) -> tuple[State, Tensor]:
    """States of less energy, and that energy (P,); `switch` lets poses change their Gaussian of the prior."""
    damping = torch.full_like(state.pelvis_P3[:, 0], 1e-2)
    terms = energy(state)
    for _ in range(steps):
        diagonal = terms.hessian_PNN.diagonal(dim1=1, dim2=2)
        held = held_at_limits(state, terms.gradient_PN)
        damped = terms.hessian_PNN + torch.diag_embed(damping[:, None] * diagonal + 1e-9 + HELD * held)
        factor = torch.linalg.cholesky_ex(damped)[0]
        step = -torch.cholesky_solve(terms.gradient_PN[..., None], factor)[..., 0]
        trial = state.moved(step.nan_to_num(0.0))
        if switch:
            trial = replace(trial, component_P=energy.model.components(trial.pose_PD))
        found = energy(trial)
        better = found.energy_P < terms.energy_P
        gain = (terms.energy_P - found.energy_P).where(better, torch.zeros_like(damping))
        state = state.where(better, trial)
        terms = Terms(
            *(
                torch.where(better.view(-1, *[1] * (old.ndim - 1)), new, old)
                for old, new in zip(terms, found, strict=True)
            )
        )
        damping = torch.where(better, damping / 5, damping * 5).clamp(1e-6, 1e6)
        if bool((better & (gain < 1e-4)).all()):
            break
    return state, terms.energy_P
