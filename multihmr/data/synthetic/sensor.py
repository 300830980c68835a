"""Camera sensor simulation: exposure, white balance, tone curve, noise, blur and JPEG compression."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from .textures import jpeg


def simulate_sensor(linear: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) linear light -> (H, W, 3) uint8 picture of a random camera."""
    # numpy takes long for a mean over an axis of three
    grey = (linear[..., 0] + linear[..., 1] + linear[..., 2]) / np.float32(3)
    bright = float(np.median(grey) * 0.5 + grey.mean() * 0.5)
    exposure = rng.uniform(0.13, 0.34) / max(bright, 0.02)
    # in front of a dark background people would be overexposed
    exposure = min(exposure, rng.uniform(0.9, 1.6) / max(float(np.quantile(linear[::4, ::4], 0.96)), 0.02))
    balance = 1 + rng.normal(0, 0.05, 3)
    light = np.clip(linear * (exposure * balance).astype(np.float32), 0, None)
    high = light > 0.75
    light[high] = 0.75 + 0.25 * np.tanh((light[high] - 0.75) * 2)  # a soft shoulder
    image = light ** np.float32(1 / rng.uniform(1.9, 2.5))
    image = (image - 0.5) * np.float32(rng.uniform(0.8, 1.2)) + np.float32(0.5 + rng.normal(0, 0.03))
    if rng.random() < 0.06:
        image = np.repeat(image.mean(2, keepdims=True), 3, axis=2)
    if rng.random() < 0.55:
        spread = np.float32(rng.choice([0.008, 0.015, 0.03, 0.06], p=[0.4, 0.3, 0.2, 0.1]))
        image = image + spread * rng.standard_normal(image.shape, dtype=np.float32)
    picture = Image.fromarray((np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8))
    if rng.random() < 0.3:
        picture = picture.filter(
            ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.6)) * linear.shape[0] / 448)
        )
    if rng.random() < 0.06:
        picture = _motion_blur(picture, rng)
    image = np.asarray(picture)
    if rng.random() < 0.5:
        image = _recompressed(image, int(rng.integers(25, 90)))
    return np.ascontiguousarray(image)


def _motion_blur(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    kernel = np.zeros((5, 5))
    kernel[2] = 1
    if rng.random() < 0.5:
        kernel = kernel.T
    return picture.filter(ImageFilter.Kernel((5, 5), kernel.reshape(-1).tolist()))


def _recompressed(image: np.ndarray, quality: int) -> np.ndarray:
    with Image.open(io.BytesIO(jpeg(image, quality))) as again:
        return np.asarray(again.convert("RGB"))
