"""Cameras of recorded data sets: coordinate frames, lens distortion, projection."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import roma
import torch
from torch.nn.functional import grid_sample

NEAREST = 0.05  # metres; points nearer than that, or behind the camera, have no pixel


def into_camera(points: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """(..., 3) world points -> camera frame: R @ point + t; in float64, as world coordinates may be large."""
    return np.asarray(points, np.float64) @ np.asarray(R, np.float64).T + np.reshape(t, 3)


def turn_roots(pose: np.ndarray, R: np.ndarray) -> np.ndarray:
    """(N, R, 3) rotation vectors with the root in the world -> in the frame of the camera R @ point + t."""
    turned = np.array(pose, np.float32)
    roots = roma.rotvec_to_rotmat(torch.from_numpy(turned[:, 0].copy()))
    turn = torch.from_numpy(np.asarray(R, np.float32))
    turned[:, 0] = roma.rotmat_to_rotvec(turn @ roots).numpy()
    return turned


def pixels_of(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(..., 3) points in the camera frame [m] -> (..., 2) pixels; NaN where NaN, or behind the camera."""
    depth = np.where(points[..., 2:] > NEAREST, points[..., 2:], np.nan)
    return ((points / depth) @ np.asarray(K).T)[..., :2]


def inside(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(...,) bool: which of the (..., 2) pixels are in a picture of this size (height, width)."""
    with np.errstate(invalid="ignore"):
        return np.all((pixels >= 0) & (pixels < size[::-1]), axis=-1)


def fit_intrinsics(points: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """K (3, 3) of the camera that projects (P, 3) points to (P, 2) pixels, and the median error [pixels].

    The pixel's x is linear in x / z: the slope is the focal length, the intercept the principal point.

    Raises:
        ValueError: fewer than three points are finite and in front of the camera.
    """
    known = np.isfinite(points).all(1) & np.isfinite(pixels).all(1) & (points[:, 2] > NEAREST)
    if known.sum() < 3:
        raise ValueError("the camera cannot be fitted to fewer than three points in front of it")
    slopes = points[known, :2] / points[known, 2:]
    K = np.eye(3)
    for axis in range(2):
        columns = np.stack([slopes[:, axis], np.ones(len(slopes))], axis=1)
        K[axis, [axis, 2]] = np.linalg.lstsq(columns, pixels[known, axis], rcond=None)[0]
    errors = np.linalg.norm(pixels_of(points[known], K) - pixels[known], axis=1)
    return K, float(np.median(errors))


def bend(xy: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Apply lens distortion (k1, k2, p1, p2, k3 of OpenCV) to (..., 2) normalised points x / z, y / z."""
    k1, k2, p1, p2, k3 = np.asarray(lens, xy.dtype)
    x, y = xy[..., 0], xy[..., 1]
    r2 = x * x + y * y
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return np.stack(
        [
            x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
            y * radial + 2 * p2 * x * y + p1 * (r2 + 2 * y * y),
        ],
        axis=-1,
    )


def straighten(image: np.ndarray, K: np.ndarray, lens: np.ndarray) -> np.ndarray:
    """Undistort an (H, W, C) uint8 picture, keeping K.

    Parts beyond the edges are lost; pixels that the lens did not show are black. `Sample` has no distortion,
    which in the corners of a wide lens moves people by some ten pixels.
    """
    if not np.any(lens):
        return image
    grid = _grid(image.shape[:2], np.asarray(K, np.float32).tobytes(), np.asarray(lens, np.float32).tobytes())
    planes = torch.from_numpy(np.array(image)).movedim(-1, 0)[None].float()
    return grid_sample(planes, grid, align_corners=False)[0].movedim(0, -1).round().to(torch.uint8).numpy()


@lru_cache(maxsize=8)  # the cameras of one scene; 16 MB for a picture of 1920x1080
def _grid(size: tuple[int, int], K_bytes: bytes, lens_bytes: bytes) -> torch.Tensor:
    """(1, H, W, 2) position of each pixel's centre in the distorted picture, scaled to [-1, 1]."""
    K = np.frombuffer(K_bytes, np.float32).reshape(3, 3)
    rows, columns = np.indices(size, dtype=np.float32) + np.float32(0.5)
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ np.linalg.inv(K).T
    at = bend(rays[..., :2], np.frombuffer(lens_bytes, np.float32)) @ K[:2, :2].T + K[:2, 2]
    return torch.from_numpy((2 * at / np.array(size[::-1], np.float32) - 1).astype(np.float32))[None]
