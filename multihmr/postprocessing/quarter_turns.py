"""Images turned by quarter turns, and the people found in them turned back."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..humans import Humans
from ..preprocessing.image import LoadedImage
from .to_humans import people_of

UPRIGHT_DEG = 45.0  # from the vertical of the image up to which people are upright


class QuarterTurns(NamedTuple):
    """`number` counterclockwise quarter turns of an image about its middle.

    pixels   (3, 3) homogeneous pixels of the image to those of the turned image
    camera   (3, 3) camera frame of the image to that of the turned image, a rotation about the optical axis
    """

    number: int
    pixels: np.ndarray
    camera: np.ndarray

    @classmethod
    def of(cls, count: int, height: int, width: int) -> QuarterTurns:
        """For an image of that size [pixels]."""
        pixels, camera = np.eye(3, dtype=np.float32), np.eye(3, dtype=np.float32)
        for _ in range(count):
            once = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1]], np.float32)
            pixels = (once + np.array([[0, 0, 0], [0, 0, width], [0, 0, 0]], np.float32)) @ pixels
            camera = once @ camera
            height, width = width, height
        return cls(count, pixels, camera)

    def image(self, image: LoadedImage) -> LoadedImage:
        """The turned image."""
        return replace(image, pixels=np.ascontiguousarray(np.rot90(image.pixels, self.number)))

    def intrinsics(self, K: Tensor) -> Tensor:
        """(3, 3) intrinsics of the turned image."""
        return torch.from_numpy(self.pixels @ K.numpy() @ self.camera.T)

    def intrinsics_back(self, K: np.ndarray) -> Tensor:
        """(3, 3) intrinsics of the image, of those of the turned one."""
        return torch.from_numpy(np.linalg.inv(self.pixels) @ K @ self.camera)

    def people_back(self, humans: Humans) -> dict[str, np.ndarray]:
        """The people of the turned image in the camera frame of the image, by the names in OF_PEOPLE."""
        people = people_of(humans)
        for name in ("vertices", "joints", "translation"):
            people[name] = people[name] @ self.camera  # of row vectors, by the inverse
        people["pose"][:, 0] = self.camera.T @ people["pose"][:, 0]
        return people


def body_roll(humans: Humans) -> tuple[np.ndarray, np.ndarray]:
    """Direction from root to head of each person in the image, and how far it lies in the image.

    Returns:
        (N,) degrees clockwise from upwards, in [-180, 180], and (N,) from 0, along the optical axis, to 1.
    """
    up = humans.translation - humans.joints[:, 0]
    length = np.linalg.norm(up, axis=1)
    inside = np.hypot(up[:, 0], up[:, 1])
    return np.degrees(np.arctan2(up[:, 0], -up[:, 1])), inside / np.maximum(length, 1e-6)


def quarter_turns(humans: Humans) -> np.ndarray:
    """(N,) counterclockwise quarter turns of the image, 0 to 3, after which each person is upright."""
    return np.round(body_roll(humans)[0] / 90).astype(int) % 4


def turns_to_upright(humans: Humans) -> int:
    """Number of counterclockwise quarter turns after which most people, weighted by scores, are upright."""
    votes = np.zeros(4)
    np.add.at(votes, quarter_turns(humans), humans.scores * body_roll(humans)[1])
    return int(votes.argmax())


def upright_score(humans: Humans) -> float:
    """Sum of the scores of the people who are upright in the image."""
    return float(humans.scores[np.abs(body_roll(humans)[0]) <= UPRIGHT_DEG].sum())
