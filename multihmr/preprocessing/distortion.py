"""Lens distortion: OpenCV's radial-tangential and fisheye models, for points and for images.

Pixel coordinates are the package's: the centre of the top-left pixel is (0.5, 0.5). OpenCV's is (0, 0), so
half a pixel is added to the principal point of a camera that OpenCV calibrated: `opencv_intrinsics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from .image import LoadedImage
from .letterbox import PADDING
from .types import IntrinsicsLike

_WIDEST = math.tan(math.radians(60))  # of an undistorted image, from its middle to its side
_STEPS = 60  # of bisection, to the precision of the numbers
_TANGENTIAL_STEPS = 20  # whose terms are small: they settle at once
_ROWS = 256  # that are resampled at once
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
        return _to_pixels(self.distort_rays(_to_rays(xy, K)), K)

    def undistort_points(self, xy: np.ndarray, K: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the original image -> of a pinhole camera K; NaN where the lens shows none."""
        return _to_pixels(self.undistort_rays(_to_rays(xy, K)), K)

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


DistortionLike = Distortion | Sequence[float] | np.ndarray


def opencv_intrinsics(K: IntrinsicsLike) -> np.ndarray:
    """(3, 3) intrinsics as OpenCV calibrates them -> in pixels of this package, half a pixel further on."""
    moved = np.array(K, dtype=np.float64)
    moved[:2, 2] += 0.5
    return moved


def undistort_image(
    image: LoadedImage, K: np.ndarray, distortion: Distortion
) -> tuple[LoadedImage, np.ndarray]:
    """An image as a pinhole camera would have taken it.

    Args:
        image: with distortion.
        K: (3, 3) its camera matrix.
        distortion: of its lens.

    Returns:
        An image of the same size that shows all of the original, up to 60 degrees from its middle, grey where
        there is nothing; and its camera matrix (3, 3). The camera's pose is unchanged, so that 3D points are
        the same.
    """
    height, width = image.pixels.shape[:2]
    new_K = _matching_intrinsics(height, width, np.asarray(K, np.float64), distortion)
    source = torch.from_numpy(np.array(image.pixels)).permute(2, 0, 1)[None].float()
    x = np.arange(width) + 0.5
    rows = []
    for start in range(0, height, _ROWS):
        y = np.arange(start, min(start + _ROWS, height)) + 0.5
        rays = _to_rays(np.stack(np.meshgrid(x, y), axis=-1), new_K)
        xy = _to_pixels(distortion.distort_rays(rays), K)
        beyond = np.linalg.norm(rays, axis=-1) > distortion.largest_radius
        grid = torch.from_numpy(2 * xy / (width, height) - 1).float()[None]
        part = F.grid_sample(source, grid, mode="bilinear", padding_mode="border", align_corners=False)[0]
        pixels = part.permute(1, 2, 0).round().to(torch.uint8).numpy()
        pixels[beyond | ((xy < 0) | (xy > (width, height))).any(axis=-1)] = PADDING
        rows.append(pixels)
    return replace(image, pixels=np.concatenate(rows), focal=None), new_K


def undistort_boxes(
    boxes: np.ndarray, K: np.ndarray, distortion: Distortion, new_K: np.ndarray
) -> np.ndarray:
    """(N, 4) boxes x0, y0, x1, y1 in the original image -> around the same in the undistorted one."""
    t = np.linspace(0, 1, 9)[:, None]
    around = []
    for x0, y0, x1, y1 in np.asarray(boxes, np.float64).reshape(-1, 4):
        corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]])
        edge = np.concatenate([a + t * (b - a) for a, b in pairwise(corners)])
        xy = _to_pixels(distortion.undistort_rays(_to_rays(edge, K)), new_K)
        around.append([*np.nanmin(xy, axis=0), *np.nanmax(xy, axis=0)])
    return np.array(around).reshape(-1, 4)


def _matching_intrinsics(height: int, width: int, K: np.ndarray, distortion: Distortion) -> np.ndarray:
    """Of a pinhole camera whose image of the same size shows all that the original shows."""
    t = np.linspace(0, 1, 65)
    sides = [(t, 0 * t), (t, 0 * t + 1), (0 * t, t), (0 * t + 1, t)]
    edge = np.concatenate([np.stack(side, axis=-1) for side in sides]) * (width, height)
    rays = distortion.undistort_rays(_to_rays(edge, K))
    rays = np.where(np.isnan(rays), np.sign(_to_rays(edge, K)) * _WIDEST, rays)
    low, high = (np.clip(x, -_WIDEST, _WIDEST) for x in (rays.min(axis=0), rays.max(axis=0)))
    scale = float(np.min((width, height) / ((high - low) * (K[0, 0], K[1, 1]))))
    new_K = np.eye(3)
    new_K[0, 0], new_K[1, 1] = scale * K[0, 0], scale * K[1, 1]
    new_K[:2, 2] = np.array([width, height]) / 2 - new_K[[0, 1], [0, 1]] * (low + high) / 2
    return new_K


def _to_rays(xy: np.ndarray, K: np.ndarray) -> np.ndarray:
    K = np.asarray(K, np.float64)
    y = (xy[..., 1] - K[1, 2]) / K[1, 1]
    return np.stack([(xy[..., 0] - K[0, 2] - K[0, 1] * y) / K[0, 0], y], axis=-1)


def _to_pixels(rays: np.ndarray, K: np.ndarray) -> np.ndarray:
    K = np.asarray(K, np.float64)
    return rays @ K[:2, :2].T + K[:2, 2]
