"""`Distortion`: how a lens bends rays, by OpenCV's radial-tangential and fisheye models.

Pixel coordinates are the package's: the centre of the top-left pixel is (0.5, 0.5).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

_STEPS = 60  # of bisection, to the precision of the numbers
_TANGENTIAL_STEPS = 20  # whose terms are small: they settle at once
_GRID = np.linspace(0, 20, 20001)  # radii at which a lens is searched for where it folds over


@dataclass(frozen=True)
class Distortion:
    """How a lens bends rays.

    Attributes:
        coefficients: k1, k2, p1, p2 and, if given, k3 and k4, k5, k6, in OpenCV's order; of a fisheye k1, k2,
            k3, k4.
        fisheye: whether these are of OpenCV's fisheye model.
    """

    coefficients: tuple[float, ...]
    fisheye: bool = False

    def __post_init__(self) -> None:
        counts = (4,) if self.fisheye else (4, 5, 8)
        if len(self.coefficients) not in counts or not np.isfinite(self.coefficients).all():
            expected = "k1, k2, k3, k4 of a fisheye" if self.fisheye else "k1, k2, p1, p2[, k3[, k4, k5, k6]]"
            raise ValueError(f"distortion must be finite numbers {expected}, got {self.coefficients}")

    @classmethod
    def of(cls, value: Distortion | Sequence[float] | np.ndarray) -> Distortion:
        """A distortion as it is, or from the 4, 5 or 8 numbers that OpenCV's calibrateCamera gives.

        Raises:
            ValueError: they are not such numbers.
        """
        if isinstance(value, Distortion):
            return value
        try:
            numbers = np.asarray(value, dtype=np.float64).ravel()
        except (TypeError, ValueError):
            raise ValueError(
                f"distortion must be numbers k1, k2, p1, p2, k3 or a Distortion, got {type(value).__name__}"
            ) from None
        return cls(tuple(numbers.tolist()))

    @classmethod
    def of_fisheye(cls, value: Sequence[float] | np.ndarray) -> Distortion:
        """From the four numbers that OpenCV's fisheye.calibrate gives."""
        return cls(tuple(np.asarray(value, dtype=np.float64).ravel().tolist()), fisheye=True)

    def to_json(self) -> dict[str, object]:
        """Model and coefficients, for JSON."""
        return {"model": "fisheye" if self.fisheye else "opencv", "coefficients": list(self.coefficients)}

    @classmethod
    def from_json(cls, stored: Any) -> Distortion:
        """Inverse of `to_json`; ValueError if it is something else."""
        model = stored.get("model") if isinstance(stored, Mapping) else None
        if model not in ("fisheye", "opencv"):
            raise ValueError(
                f"a distortion is stored as model (opencv or fisheye) and coefficients, got {stored!r}"
            )
        numbers = stored.get("coefficients")
        return cls.of_fisheye(numbers) if model == "fisheye" else cls.of(numbers)

    @cached_property
    def largest_radius(self) -> float:
        """Radius of an undistorted ray (x, y) at depth 1 up to which the lens is one to one."""
        bent = self._bent_radius(_GRID)
        falling = np.flatnonzero(np.diff(bent) <= 0)
        return float(_GRID[falling[0]]) if len(falling) else math.inf

    def distort_rays(self, rays: np.ndarray) -> np.ndarray:
        """(..., 2) straight rays (x, y) at depth 1 -> bent ones; those out of its range at its edge."""
        rays = np.asarray(rays, dtype=np.float64)
        radius = np.linalg.norm(rays, axis=-1, keepdims=True)
        largest = self.largest_radius
        if math.isfinite(largest):
            rays = rays * np.minimum(1, largest / np.maximum(radius, 1e-12))
            radius = np.minimum(radius, largest)
        bent = rays * (self._bent_radius(radius) / np.maximum(radius, 1e-12))
        return bent if self.fisheye else bent + self._tangential(rays)

    def undistort_rays(self, bent: np.ndarray) -> np.ndarray:
        """(..., 2) rays as the lens shows them -> straight ones; NaN where it shows none."""
        bent = np.asarray(bent, dtype=np.float64)
        rays = self._without_radial(bent)
        if self.fisheye or self.coefficients[2:4] == (0, 0):
            return rays
        for _ in range(_TANGENTIAL_STEPS):
            rays = self._without_radial(bent - self._tangential(np.nan_to_num(rays)))
        return rays

    def distort_points(self, xy: np.ndarray, K: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of a pinhole camera K -> of the original image, whose lens distorts."""
        return rays_to_pixels(self.distort_rays(pixels_to_rays(xy, K)), K)

    def undistort_points(self, xy: np.ndarray, K: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the original image -> of a pinhole camera K; NaN where the lens shows none."""
        return rays_to_pixels(self.undistort_rays(pixels_to_rays(xy, K)), K)

    def _bent_radius(self, radius: np.ndarray) -> np.ndarray:
        if self.fisheye:
            k1, k2, k3, k4 = self.coefficients
            angle = np.arctan(radius)
            s = angle**2
            return angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
        k1, k2, _, _, k3, k4, k5, k6 = (*self.coefficients, *[0.0] * (8 - len(self.coefficients)))
        s = radius**2
        return radius * (1 + s * (k1 + s * (k2 + s * k3))) / (1 + s * (k4 + s * (k5 + s * k6)))

    def _tangential(self, rays: np.ndarray) -> np.ndarray:
        p1, p2 = self.coefficients[2:4]
        x, y = rays[..., 0], rays[..., 1]
        s = x**2 + y**2
        return np.stack([2 * p1 * x * y + p2 * (s + 2 * x**2), p1 * (s + 2 * y**2) + 2 * p2 * x * y], -1)

    def _without_radial(self, bent: np.ndarray) -> np.ndarray:
        radius = np.linalg.norm(bent, axis=-1, keepdims=True)
        return bent * (self._straight_radius(radius) / np.maximum(radius, 1e-12))

    def _straight_radius(self, bent: np.ndarray) -> np.ndarray:
        """The inverse of `_bent_radius`, by bisection within its range."""
        high = np.full_like(bent, min(self.largest_radius, _GRID[-1]))
        low = np.zeros_like(bent)
        outside = bent > self._bent_radius(high)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            below = self._bent_radius(middle) < bent
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.where(outside, np.nan, (low + high) / 2)


def distortion_arrays(distortion: Distortion | None) -> dict[str, Any]:
    """What a .npz holds of a distortion: its coefficients and whether they are a fisheye's; {} of None."""
    if distortion is None:
        return {}
    return {"distortion": np.array(distortion.coefficients), "fisheye": np.array(distortion.fisheye)}


def stored_distortion(arrays: Mapping[str, np.ndarray]) -> Distortion | None:
    """Inverse of `distortion_arrays`; other names in `arrays` are passed over."""
    if "distortion" not in arrays:
        return None
    return Distortion(tuple(arrays["distortion"].tolist()), fisheye=bool(arrays["fisheye"]))


def pixels_to_rays(xy: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(..., 2) pixels -> (..., 2) points x / z, y / z of their rays, by K (3, 3)."""
    K = np.asarray(K, np.float64)
    y = (xy[..., 1] - K[1, 2]) / K[1, 1]
    return np.stack([(xy[..., 0] - K[0, 2] - K[0, 1] * y) / K[0, 0], y], axis=-1)


def rays_to_pixels(rays: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Inverse of `pixels_to_rays`."""
    K = np.asarray(K, np.float64)
    return rays @ K[:2, :2].T + K[:2, 2]
