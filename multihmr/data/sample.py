"""Sample: one picture with the true people in it, as every data set gives it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

ARRAYS = ("K", "pose", "shape", "expression", "translation", "visibility")


@dataclass(frozen=True)
class Sample:
    """A picture, its camera and its N people.

    image        (H, W, 3) uint8
    K            (3, 3) float32 intrinsics in pixels of this image
    pose         (N, R, 3, 3) float32; pose[:, 0] turns the body into the camera frame
    shape        (N, S), expression (N, E) float32
    translation  (N, 3) float32 head joint in the camera frame [m]
    visibility   (N,) float32 share of the person's vertices whose pixel shows this person
    """

    image: np.ndarray
    K: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    translation: np.ndarray
    visibility: np.ndarray
    name: str

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {self.image.dtype} {self.image.shape}")
        counts = {f: len(getattr(self, f)) for f in ARRAYS if f != "K"}
        if len(set(counts.values())) > 1:
            raise ValueError(f"sample '{self.name}' has arrays for different numbers of people: {counts}")

    def __len__(self) -> int:
        return len(self.translation)


assert {f.name for f in fields(Sample)} == {"image", "name", *ARRAYS}
