"""Seeing a sample through another window, other light, another lens: the truth follows.

Geometry goes through `Window`, so that K follows; nobody's head is cut off, so that all who are seen keep
their label.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageFilter

from ..bodies.joints import mirror
from ..geometry import project
from ..humans import Topology
from ..image import Window
from .sample import Sample


@dataclass(frozen=True)
class Augmentation:
    """How far pictures are changed; the defaults are those of the bundled model."""

    crop: float = 0.6  # probability of another window than the whole picture
    scale: tuple[float, float] = (0.45, 1.35)  # side of that window, in longer sides of the picture
    flip: float = 0.5
    colour: float = 0.8
    grey: float = 0.08
    blur: float = 0.15
    noise: float = 0.3


def augment(
    sample: Sample, size: int, rng: np.random.Generator, topology: Topology, how: Augmentation | None = None
) -> Sample:
    """A sample of `size` x `size` pixels that shows what `sample` shows, somewhat changed."""
    how = how or Augmentation()
    moved = see(sample, _choose_window(sample, size, rng, how))
    if rng.random() < how.flip:
        moved = flip(moved, topology)
    return dataclasses.replace(moved, image=_change_light(moved.image, rng, how))


def see(sample: Sample, window: Window) -> Sample:
    """The sample as it looks through a window: pixels and camera move, metres do not."""
    pixels = (window.pixels(sample.image).movedim(0, -1) * 255).round().to(torch.uint8).numpy()
    K = window.intrinsics(torch.from_numpy(sample.K)).numpy()
    return dataclasses.replace(sample, image=pixels, K=K.astype(np.float32))


def flip(sample: Sample, topology: Topology) -> Sample:
    """The sample in a mirror: left and right change places in picture, camera, pose, hands and face."""
    width = sample.image.shape[1]
    K = sample.K.copy()
    K[0, 2] = width - K[0, 2]
    pose, expression = mirror(sample.pose, sample.expression, topology)
    return dataclasses.replace(
        sample,
        image=np.ascontiguousarray(sample.image[:, ::-1]),
        K=K,
        pose=pose,
        expression=expression,
        translation=sample.translation * np.array([-1, 1, 1], np.float32),
    )


def _choose_window(sample: Sample, size: int, rng: np.random.Generator, how: Augmentation) -> Window:
    """The whole picture, or a square somewhere on it (and perhaps beyond) that holds all heads."""
    height, width = sample.image.shape[:2]
    if rng.random() >= how.crop:
        return Window.whole(height, width, size)
    longer = max(height, width)
    side = longer * np.exp(rng.uniform(*np.log(how.scale)))
    low, high = np.zeros(2), np.array([width, height], dtype=float)
    if len(sample.translation):
        heads = project(torch.from_numpy(sample.translation), torch.from_numpy(sample.K)).numpy()
        low, high = heads.min(0), heads.max(0)
        side = max(side, 1.1 * (high - low).max() + 0.04 * longer)
        margin = 0.02 * longer
        start = rng.uniform(high + margin - side, np.maximum(low - margin, high + margin - side + 1e-3))
    else:
        start = rng.uniform(np.minimum(low, high - side), np.maximum(low, high - side) + 1e-3)
    # Windows far beyond the picture show little but padding.
    start = np.clip(start, -0.25 * side, high.max() + 0.25 * side)
    return Window.box(start[0], start[1], start[0] + side, start[1] + side, size)


def _change_light(image: np.ndarray, rng: np.random.Generator, how: Augmentation) -> np.ndarray:
    x = image.astype(np.float32) / 255
    if rng.random() < how.colour:
        x = x ** np.exp(rng.normal(0, 0.25))
        x = x * np.exp(rng.normal(0, [0.07, 0.04, 0.07])).astype(np.float32)
        mean = x.mean()
        x = (x - mean) * np.exp(rng.normal(0, 0.2)) + mean * np.exp(rng.normal(0, 0.2))
        grey = x.mean(-1, keepdims=True)
        x = grey + (x - grey) * np.exp(rng.normal(0, 0.25))
    if rng.random() < how.grey:
        x = np.repeat(x.mean(-1, keepdims=True), 3, axis=-1)
    if rng.random() < how.noise:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape).astype(np.float32)
    changed = (x.clip(0, 1) * 255).astype(np.uint8)
    if rng.random() < how.blur:
        blurred = Image.fromarray(changed).filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.3)))
        changed = np.asarray(blurred)
    return changed
