"""Crops of people for top-down networks, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..humans import Humans
from .boxes import box_of_points
from .image import LoadedImage
from .letterbox import Letterbox


@dataclass(frozen=True)
class Scene:
    """An image, its camera, and N boxes of people in it.

    Attributes:
        photo: the image.
        K: (3, 3) its intrinsics.
        K_source: where they come from.
        boxes: (N, 4) x0, y0, x1, y1 in pixels.
        scores: (N,) of people that a detector found; None for boxes that were given.
    """

    image: LoadedImage
    K: Tensor
    K_source: str
    boxes: np.ndarray
    scores: np.ndarray | None = None


def boxes_of(humans: Humans) -> np.ndarray:
    """(N, 4) around the joints of people within the image, as `box_of_points` makes them for training."""
    height, width = humans.image_size
    boxes = [box_of_points(points, height, width) for points in humans.joints_2d]
    # People whose joints are all outside, an elbow perhaps reaching in, are cropped where the skin is.
    there = [box if box is not None else skin for box, skin in zip(boxes, humans.boxes, strict=True)]
    return np.array(there, dtype=np.float64).reshape(-1, 4)


def crops(scenes: Sequence[Scene], size: int, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The boxes of all scenes, one after the other, as (images_B3HW, K_B33), at most `count` at a time."""
    people = [(scene, box) for scene in scenes for box in scene.boxes]
    for start in range(0, len(people), count):
        images, cameras = [], []
        for scene, box in people[start : start + count]:
            x0, y0, x1, y1 = box.tolist()
            letterbox = Letterbox.person(x0, y0, x1, y1, size)
            images.append(letterbox.to_tensor(scene.image.pixels))
            cameras.append(letterbox.intrinsics(scene.K))
        yield torch.stack(images), torch.stack(cameras)
