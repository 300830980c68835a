"""Images and boxes of a lens with distortion (`Distortion`), undistorted.

Pixel coordinates are the package's: the centre of the top-left pixel is (0.5, 0.5). OpenCV's is (0, 0), so
half a pixel is added to the principal point of a camera that OpenCV calibrated: `opencv_intrinsics`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F

from ..humans.distortion import Distortion, pixels_to_rays, rays_to_pixels
from .image import LoadedImage
from .letterbox import PADDING
from .types import IntrinsicsLike

__all__ = ["Distortion", "DistortionLike", "opencv_intrinsics", "undistort_boxes", "undistort_image"]

_WIDEST = math.tan(math.radians(60))  # of an undistorted image, from its middle to its side
_ROWS = 256  # that are resampled at once


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
        rays = pixels_to_rays(np.stack(np.meshgrid(x, y), axis=-1), new_K)
        xy = rays_to_pixels(distortion.distort_rays(rays), K)
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
    """(N, 4) boxes x0, y0, x1, y1 in the original image -> around the same in the undistorted one.

    Of a box that reaches beyond what the lens shows it is the part within.

    Raises:
        ValueError: a box lies where the lens shows nothing.
    """
    t = np.linspace(0, 1, 9)
    largest = min(distortion.largest_radius, _WIDEST)
    around = []
    for x0, y0, x1, y1 in np.asarray(boxes, np.float64).reshape(-1, 4):
        grid = np.stack(np.meshgrid(x0 + t * (x1 - x0), y0 + t * (y1 - y0)), axis=-1).reshape(-1, 2)
        bent = pixels_to_rays(grid, K)
        rays = distortion.undistort_rays(bent)
        beyond = np.isnan(rays).any(axis=-1)
        if beyond.all():
            raise ValueError(
                f"the box ({x0:g}, {y0:g}, {x1:g}, {y1:g}) lies where a lens of this distortion shows nothing"
            )
        radius = np.linalg.norm(bent, axis=-1, keepdims=True)
        rays = np.where(beyond[:, None], bent * largest / np.maximum(radius, 1e-12), rays)
        xy = rays_to_pixels(rays, new_K)
        around.append([*xy.min(axis=0), *xy.max(axis=0)])
    return np.array(around).reshape(-1, 4)


def _matching_intrinsics(height: int, width: int, K: np.ndarray, distortion: Distortion) -> np.ndarray:
    """Of a pinhole camera whose image of the same size shows all that the original shows."""
    t = np.linspace(0, 1, 65)
    sides = [(t, 0 * t), (t, 0 * t + 1), (0 * t, t), (0 * t + 1, t)]
    edge = np.concatenate([np.stack(side, axis=-1) for side in sides]) * (width, height)
    rays = distortion.undistort_rays(pixels_to_rays(edge, K))
    rays = np.where(np.isnan(rays), np.sign(pixels_to_rays(edge, K)) * _WIDEST, rays)
    low, high = (np.clip(x, -_WIDEST, _WIDEST) for x in (rays.min(axis=0), rays.max(axis=0)))
    scale = float(np.min((width, height) / ((high - low) * (K[0, 0], K[1, 1]))))
    new_K = np.eye(3)
    new_K[0, 0], new_K[1, 1] = scale * K[0, 0], scale * K[1, 1]
    new_K[:2, 2] = np.array([width, height]) / 2 - new_K[[0, 1], [0, 1]] * (low + high) / 2
    return new_K
