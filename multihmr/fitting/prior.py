"""Pose prior: a Gaussian mixture over captured motions, and joint limits.

The rotations of the captured bones are written as rotation vectors; their first principal components are the
coordinates z, and a mixture of Gaussians over z says how likely a pose is, as in SMPLify (Bogo et al., "Keep
it SMPL", ECCV 2016). `scripts/fit_pose_prior.py` makes the file from the CMU motion captures.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# The bones of a hand that move, without the side.
HAND_BONES = tuple(f"finger{finger}-{k}" for finger in range(1, 6) for k in (1, 2, 3))
MIRROR = np.array([1.0, -1.0, -1.0])  # of a rotation vector, left to right

FILE = Path(__file__).with_name("pose_prior.npz")


@dataclass(frozen=True)
class PosePrior:
    """K Gaussians over D coordinates of the rotation vectors of B bones.

    bones          B names of Anny's bones; all others are at rest
    mean           (3 B,) rotation vectors [rad] of the average pose
    basis          (D, 3 B) orthonormal principal directions: rotation vectors = mean + z @ basis
    log_weights    (K,) of the Gaussians
    centers        (K, D)
    factors        (K, D, D) upper triangular W, W^T W = inverse covariance; the residual is W (z - center)
    log_scales     (K,) log determinant of each W
    lower, upper   (3 B,) limits of the rotation vectors [rad]
    exemplars      (E, D) poses that together stand for the captured ones: where a search begins
    hand_mean      (45,) rotation vectors of a left hand's HAND_BONES [rad]; those of a right one are mirrored
    hand_basis     (F, 45) principal directions, each times its standard deviation
    """

    bones: tuple[str, ...]
    mean: np.ndarray
    basis: np.ndarray
    log_weights: np.ndarray
    centers: np.ndarray
    factors: np.ndarray
    log_scales: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    exemplars: np.ndarray
    hand_mean: np.ndarray
    hand_basis: np.ndarray

    def rotation_vectors(self, z: np.ndarray) -> np.ndarray:
        """(..., D) coordinates -> (..., B, 3) rotation vectors [rad]."""
        flat = self.mean + z @ self.basis
        return flat.reshape(*flat.shape[:-1], len(self.bones), 3)

    def hand(self, side: str) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
        """Of a hand, "L" or "R": 15 names of bones, mean (45,) and basis (F, 45) of its rotation vectors."""
        signs = np.tile(MIRROR if side == "R" else np.ones(3), len(HAND_BONES))
        return tuple(f"{bone}.{side}" for bone in HAND_BONES), self.hand_mean * signs, self.hand_basis * signs

    def coordinates(self, rotation_vectors: np.ndarray) -> np.ndarray:
        """(..., B, 3) rotation vectors [rad] -> (..., D) coordinates of the nearest pose that has some."""
        flat = rotation_vectors.reshape(*rotation_vectors.shape[:-2], -1)
        return (flat - self.mean) @ self.basis.T

    def energies(self, z: np.ndarray) -> np.ndarray:
        """(..., D) -> (..., K): minus twice the log likelihood of each Gaussian, up to one constant."""
        residuals = np.einsum("kde,...ke->...kd", self.factors, z[..., None, :] - self.centers)
        return (residuals**2).sum(-1) - 2 * (self.log_weights + self.log_scales)


@functools.cache
def load_prior(path: Path = FILE) -> PosePrior:
    """The prior that comes with the package; FileNotFoundError names the script that makes it."""
    if not path.is_file():
        raise FileNotFoundError(f"no pose prior at {path}; make it with scripts/fit_pose_prior.py")
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name].astype(np.float64) for name in file.files if name != "bones"}
        bones = tuple(str(name) for name in file["bones"])
    dimensions = arrays["centers"].shape[1]
    rows, columns = np.triu_indices(dimensions)
    factors = np.zeros((len(arrays["centers"]), dimensions, dimensions))
    factors[:, rows, columns] = arrays.pop("upper_triangles")
    log_scales = np.log(np.diagonal(factors, axis1=1, axis2=2)).sum(1)
    return PosePrior(bones=bones, factors=factors, log_scales=log_scales, **arrays)
