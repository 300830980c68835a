"""The one-euro filter on numbers and on rotations: still people stand still, quick ones are not held back.

Casiez, Roussel, Vogel: "1 € filter", CHI 2012: a low-pass filter whose cutoff rises with the speed. Rotations
are filtered on SO(3), along the geodesic from the last one to the new one, by the angle that lies between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import roma
import torch


@dataclass(frozen=True)
class OneEuro:
    """cutoff [Hz] of what does not move, by how much it rises with the speed, cutoff [Hz] of the speed.

    Raises ValueError where a cutoff is not greater than 0 or the rise is negative.
    """

    cutoff: float
    rise: float
    speed_cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not (self.cutoff > 0 and self.speed_cutoff > 0 and self.rise >= 0):
            raise ValueError(f"a filter needs cutoffs greater than 0 and a rise of 0 or more, got {self}")


class SmoothNumbers:
    """Filters arrays of one shape that come one after the other; each number for itself."""

    def __init__(self, setting: OneEuro) -> None:
        self.setting = setting
        self.value: np.ndarray | None = None
        self.speed = np.zeros(())

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The filtered value, `seconds` after the one before."""
        if self.value is None or not seconds > 0:
            self.value = value if self.value is None else self.value
            return self.value
        speed = (value - self.value) / seconds
        self.speed = self.speed + _share(self.setting.speed_cutoff, seconds) * (speed - self.speed)
        share = _share(self.setting.cutoff + self.setting.rise * np.abs(self.speed), seconds)
        self.value = (self.value + share * (value - self.value)).astype(value.dtype)
        return self.value


class SmoothRotations:
    """Filters (R, 3, 3) rotations that come one after the other; each for itself; speeds in rad/s."""

    def __init__(self, setting: OneEuro) -> None:
        self.setting = setting
        self.value: torch.Tensor | None = None
        self.speed = torch.zeros(())

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The filtered rotations, `seconds` after those before."""
        new = torch.from_numpy(np.array(value, np.float32))
        if self.value is None or not seconds > 0:
            self.value = new if self.value is None else self.value
            return self.value.numpy()
        turn = roma.rotmat_to_rotvec(self.value.mT @ new)
        self.speed = self.speed + _share(self.setting.speed_cutoff, seconds) * (turn / seconds - self.speed)
        share = _share(
            self.setting.cutoff + self.setting.rise * self.speed.norm(dim=-1, keepdim=True), seconds
        )
        # projected again, because rounding would leave SO(3) after some thousand products
        self.value = roma.special_gramschmidt(self.value @ roma.rotvec_to_rotmat(share * turn))
        return self.value.numpy()


def _share(cutoff: Any, seconds: float) -> Any:
    """How much of the new value counts, 0 to 1, with this cutoff [Hz] after this time."""
    time = 2 * math.pi * cutoff * seconds
    return time / (time + 1)


def between(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """(..., 3, 3) rotations `share` of the way from `before` to `after`, on the shortest way."""
    ends = [torch.from_numpy(np.array(end, np.float32)) for end in (before, after)]
    return roma.rotmat_slerp(*ends, torch.tensor(share)).numpy()
