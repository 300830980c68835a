"""Camera and web image effects: tone curves, sharpening, vignetting, blur, resizing, JPEG."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter


def apply_camera_effects(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 picture with random effects of cameras, their software and websites."""
    if rng.random() < 0.4:
        image = _toned(image, rng)
    if rng.random() < 0.25:
        image = _vignette(image, rng)
    picture = Image.fromarray(image)
    if rng.random() < 0.15:
        picture = _moved(picture, rng)
    if rng.random() < 0.3:  # shown smaller, and larger again
        share = rng.uniform(0.35, 0.9)
        small = (max(16, int(picture.width * share)), max(16, int(picture.height * share)))
        picture = picture.resize(small, Image.Resampling.BILINEAR).resize(
            picture.size, Image.Resampling.BICUBIC
        )
    if rng.random() < 0.45:
        picture = picture.filter(
            ImageFilter.UnsharpMask(rng.uniform(0.5, 2.0), int(rng.integers(40, 200)), 2)
        )
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
        with Image.open(buffer) as again:
            picture = again.convert("RGB")
    return np.array(picture)


def _toned(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random tone curve: compressed contrast as of HDR processing, or more contrast as of film."""
    x = np.linspace(0, 1, 256)
    bend = rng.uniform(-0.16, 0.16)  # strength of an S-curve, of either sign
    curve = x + bend * np.sin(2 * np.pi * x) / 2
    low, high = rng.uniform(0, 0.12), rng.uniform(0.85, 1.0)
    table = np.clip(255 * (low + (high - low) * curve), 0, 255).astype(np.uint8)
    return table[image]


def _vignette(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vignetting: darken towards the corners."""
    height, width = image.shape[:2]
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    light = 1 - rng.uniform(0.1, 0.5) * (x**2 + y**2) / 2
    return (image * light[..., None]).astype(np.uint8)


def _moved(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Motion blur along one direction, as of a moving hand."""
    kernel = np.zeros((5, 5))
    slope, middle = rng.uniform(-1, 1), 2
    for step in range(-2, 3):
        kernel[middle + round(slope * step), middle + step] = 1
    if rng.random() < 0.5:
        kernel = kernel.T
    return picture.filter(ImageFilter.Kernel((5, 5), kernel.ravel().tolist()))
