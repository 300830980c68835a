"""Fit of one person over many frames: one shape, and smooth motion (low acceleration of points).

All frames are solved together. What couples them reaches over three frames, so the normal equations are a
band, which a block Cholesky factorisation solves in a time that grows with the number of frames; the shape,
which all frames share, is eliminated last (Schur complement).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from multihmr.fitting.solver import HELD, Energy, Terms, held_at_limits
from multihmr.fitting.state import State

ACCELERATION = 10.0  # of the points, one standard deviation [m/s^2]
POSE_SPEED = 6.0  # of pose coordinates, one standard deviation in a second
SPEED = 3.0  # of points between two frames, by which one of several poses is chosen [m/s]


def best_path(points_TCM3: Tensor, energy_TC: Tensor, seconds: float) -> Tensor:
    """(T,) which of C candidates of each frame: energies and steps of the points are least (Viterbi)."""
    total_C, back = energy_TC[0], []
    for t in range(1, len(points_TCM3)):
        step = points_TCM3[t][None] - points_TCM3[t - 1][:, None]
        cost_CC = (step / (SPEED * seconds)).square().sum((2, 3)) + total_C[:, None]
        back.append(cost_CC.argmin(0))
        total_C = cost_CC.amin(0) + energy_TC[t]
    path = [total_C.argmin()]
    for table in reversed(back):
        path.append(table[path[-1]])
    return torch.stack(path[::-1])


def smooth(
    energy: Energy, state: State, seconds: float, robust_scales: Sequence[float], *, steps: int
) -> State:
    """The states of T frames that are likely together; they share one shape.

    energy: of T people, who are one person at T times, `seconds` apart. robust_scales: one for each round of
    so many steps; points are linear in the shape, and poses of one Gaussian of the prior, within a round.
    """
    frames = len(state.pelvis_P3)
    state = replace(state, shape_PS=state.shape_PS.mean(0, keepdim=True).expand(frames, -1))
    wide = replace(
        energy.shape_prior, sigma_KS=energy.shape_prior.sigma_KS * frames**0.5
    )  # counted once, not T times
    energy.shape_prior = wide
    for scale in robust_scales:
        energy.robust, damping = scale, 1e-3
        state = replace(state, component_P=energy.model.components(state.pose_PD))
        energy.expand(state.shape_PS[:1].float())
        current, band = _terms(energy, state, seconds)
        for _ in range(steps):
            step = _solve(current, band, damping, state)
            trial = state.moved(step)
            found, found_band = _terms(energy, trial, seconds)
            if float(found.energy_P.sum()) < float(current.energy_P.sum()):
                state, current, band, damping = trial, found, found_band, max(damping / 5, 1e-6)
            else:
                damping = min(damping * 8, 1e6)
    return state


def _terms(energy: Energy, state: State, seconds: float) -> tuple[Terms, tuple[Tensor, Tensor]]:
    """Terms of each frame with those that couple it, and the blocks (T, U, U) to the next frame and the one
    after.

    U are the unknowns without the shape, which hardly changes accelerations.
    """
    terms = energy(state)
    points, jacobian = energy.points(state)
    frames, unknowns = terms.gradient_PN.shape
    own = unknowns - state.shape_PS.shape[1]
    scale = 1 / (ACCELERATION * seconds**2)
    J = scale * jacobian[..., :own].flatten(1, 2)
    value = scale * points.flatten(1)
    gradient, hessian, total = terms.gradient_PN.clone(), terms.hessian_PNN.clone(), terms.energy_P.clone()
    first = hessian.new_zeros(frames, own, own)
    second = hessian.new_zeros(frames, own, own)
    if frames > 2:
        bend = value[:-2] - 2 * value[1:-1] + value[2:]
        total[1:-1] += bend.square().sum(1)
        for offset, factor in ((0, 1.0), (1, -2.0), (2, 1.0)):
            rows = slice(offset, frames - 2 + offset)
            gradient[rows, :own] += factor * (J[rows].mT @ bend[..., None])[..., 0]
            hessian[rows, :own, :own] += factor**2 * J[rows].mT @ J[rows]
        next_to = J[:-1].mT @ J[1:]
        first[: frames - 2] += -2 * next_to[:-1]
        first[1 : frames - 1] += -2 * next_to[1:]
        second[: frames - 2] += J[:-2].mT @ J[2:]
    if frames > 1:  # what no point shows stays as it was
        coordinates = torch.cat([state.pose_PD, state.face_PE], 1)[:, : own - 6]
        change = (coordinates[1:] - coordinates[:-1]) / (POSE_SPEED * seconds)
        total[1:] += change.square().sum(1)
        pose, weight = slice(6, own), (POSE_SPEED * seconds) ** -2
        gradient[1:, pose] += change / (POSE_SPEED * seconds)
        gradient[:-1, pose] -= change / (POSE_SPEED * seconds)
        eye = torch.eye(own - 6, dtype=value.dtype)
        hessian[1:, pose, pose] += weight * eye
        hessian[:-1, pose, pose] += weight * eye
        first[:-1, pose, pose] -= weight * eye
    return Terms(total, gradient, hessian), (first, second)


def _solve(terms: Terms, band: tuple[Tensor, Tensor], damping: float, state: State) -> Tensor:
    """(T, N) the step of Levenberg-Marquardt; the last S numbers are the same in all frames."""
    hessian, gradient = terms.hessian_PNN, terms.gradient_PN
    frames, own = len(gradient), gradient.shape[1] - state.shape_PS.shape[1]
    held = held_at_limits(state, gradient)
    diagonal = hessian.diagonal(dim1=1, dim2=2)
    hessian = hessian + torch.diag_embed(damping * diagonal + 1e-9 + HELD * held)
    right = torch.cat([gradient[:, :own, None], hessian[:, :own, own:]], 2)  # (T, U, 1 + S)
    solved = _solve_band(hessian[:, :own, :own], *band, right)
    border = hessian[:, :own, own:]
    schur = hessian[:, own:, own:].sum(0) - torch.einsum("tus,tur->sr", border, solved[..., 1:])
    rest = gradient[:, own:].sum(0) - torch.einsum("tus,tu->s", border, solved[..., 0])
    shape = torch.linalg.solve(schur, rest)
    step = solved[..., 0] - solved[..., 1:] @ shape
    return -torch.cat([step, shape.expand(frames, -1)], 1)


def _solve_band(diagonal: Tensor, first: Tensor, second: Tensor, right: Tensor) -> Tensor:
    """(T, U, R) of symmetric systems with blocks (T, U, U) on the diagonal, beside it and next to that.

    Two frames make one block, so that only neighbours are coupled.
    """
    frames, size = diagonal.shape[:2]
    if frames % 2:
        eye = torch.eye(size, dtype=diagonal.dtype)[None]
        zero = torch.zeros_like(eye)
        diagonal, first, second = (
            torch.cat([diagonal, eye]),
            torch.cat([first, zero]),
            torch.cat([second, zero]),
        )
        right = torch.cat([right, torch.zeros_like(right[:1])])
    even, odd = slice(0, None, 2), slice(1, None, 2)
    upper = torch.cat([diagonal[even], first[even]], 2)
    lower = torch.cat([first[even].mT, diagonal[odd]], 2)
    blocks = torch.cat([upper, lower], 1)
    upper = torch.cat([second[even], torch.zeros_like(second[even])], 2)
    lower = torch.cat([first[odd], second[odd]], 2)
    coupling = torch.cat([upper, lower], 1)  # from each block to the next
    values = torch.cat([right[even], right[odd]], 1)
    factors: list[Tensor] = []
    halves: list[Tensor] = []
    for t in range(len(blocks)):
        block, value = blocks[t], values[t]
        if t:
            W = torch.linalg.solve_triangular(factors[-1], coupling[t - 1], upper=False)
            block = block - W.T @ W
            value = value - W.T @ halves[-1]
        factor = torch.linalg.cholesky(block)
        factors.append(factor)
        halves.append(torch.linalg.solve_triangular(factor, value, upper=False))
    found: list[Tensor] = []
    for t in reversed(range(len(blocks))):
        value = halves[t]
        if found:
            W = torch.linalg.solve_triangular(factors[t], coupling[t], upper=False)
            value = value - W @ found[-1]
        found.append(torch.linalg.solve_triangular(factors[t].T, value, upper=True))
    solved = torch.stack(found[::-1])
    return torch.stack([solved[:, :size], solved[:, size:]], 1).flatten(0, 1)[:frames]
