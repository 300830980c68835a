"""The one-euro filter on numbers and on rotations: still people stand still, quick ones are not held back.

Casiez, Roussel, Vogel: "1 € filter", CHI 2012: a low-pass filter whose cutoff rises with the speed. Rotations
are filtered on SO(3), along the geodesic from the last one to the new one, by the angle that lies between. A
filter lags behind; where the future is known, one that runs back from there lags as much the other way, and
halfway between the two there is no lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import roma
import torch

LONG_AGO = 0.5  # seconds after which a filter begins anew
MEMORY = 8  # moments after which a filter knows as much as it ever will


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


@dataclass(frozen=True)
class Smoothing:
    """The filters of rotations [rad/s], of directions from the camera and log depths [1/s], of expressions.

    Depth has one of its own, because that is where a single camera errs most. The numbers calm small and
    large noise alike and still follow a walk: scripts/measure_tracking.py.
    """

    turns: OneEuro = field(default=OneEuro(1.0, 2.0))
    ways: OneEuro = field(default=OneEuro(1.0, 60.0))
    depths: OneEuro = field(default=OneEuro(0.5, 20.0))
    faces: OneEuro = field(default=OneEuro(2.0, 1.0))


class Moment(NamedTuple):
    """What moves of a person: pose (R, 3, 3), ray (3,) of the head (see `to_ray`), expression (E,)."""

    time: float
    pose: np.ndarray
    ray: np.ndarray
    expression: np.ndarray


class MotionFilter:
    """Smooths one person, moment by moment; times may rise or fall."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self.time = math.nan
        self.count = 0  # moments since it began
        self._begin()

    def _begin(self) -> None:
        s = self.smoothing
        self._turns = SmoothRotations(s.turns)
        self._ways, self._depths, self._faces = map(SmoothNumbers, (s.ways, s.depths, s.faces))
        self.count = 0

    def __call__(self, moment: Moment) -> Moment:
        """The moment after the filter, which remembers it."""
        seconds = abs(moment.time - self.time)
        if seconds > LONG_AGO:
            self._begin()
        self.time, self.count = moment.time, self.count + 1
        ray = np.concatenate([self._ways(moment.ray[:2], seconds), self._depths(moment.ray[2:], seconds)])
        return Moment(
            moment.time, self._turns(moment.pose, seconds), ray, self._faces(moment.expression, seconds)
        )

    def ahead(self, moment: Moment, later: Sequence[Moment]) -> Moment:
        """The same without lag, where `later` has the moments that follow; at the end of a track none do."""
        forward = self(moment)
        back = MotionFilter(self.smoothing)
        known = [one for one in later[:MEMORY] if one.time - moment.time <= LONG_AGO]
        if not known:
            return forward
        for one in reversed(known):
            back(one)
        # who was there first knows more: each counts by how many moments it has seen
        weight = len(known) / (len(known) + min(self.count - 1, MEMORY))
        return mixed(forward, back(moment), weight)


def mixed(one: Moment, other: Moment, weight: float) -> Moment:
    """The moment of one, `weight` (0 to 1) of the way to the other."""
    ray, expression = (a + weight * (b - a) for a, b in zip(one[2:], other[2:], strict=True))
    return Moment(one.time, between(one.pose, other.pose, weight), ray, expression)


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
        self.speed = torch.zeros((), dtype=torch.float32, device="cpu")

    def __call__(self, value: np.ndarray, seconds: float) -> np.ndarray:
        """The filtered rotations, `seconds` after those before."""
        new = torch.from_numpy(np.array(value, np.float32))
        if self.value is None or not seconds > 0:
            self.value = new if self.value is None else self.value
            return self.value.numpy()
        turn = roma.rotmat_to_rotvec(self.value.mT @ new)
        self.speed = self.speed + _share(self.setting.speed_cutoff, seconds) * (turn / seconds - self.speed)
        cutoff = self.setting.cutoff + self.setting.rise * self.speed.norm(dim=-1, keepdim=True)
        step = roma.rotvec_to_rotmat(_share(cutoff, seconds) * turn)
        # projected again, because rounding would leave SO(3) after some thousand products
        self.value = roma.special_gramschmidt(self.value @ step)
        return self.value.numpy()


def _share(cutoff: Any, seconds: float) -> Any:
    """How much of the new value counts, 0 to 1, with this cutoff [Hz] after this time."""
    time = 2 * math.pi * cutoff * seconds
    return time / (time + 1)


def between(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """(..., 3, 3) rotations `share` of the way from `before` to `after`, on the shortest way."""
    ends = [torch.from_numpy(np.array(end, np.float32)) for end in (before, after)]
    return roma.rotmat_slerp(*ends, torch.tensor(share, dtype=torch.float32, device="cpu")).numpy()


def to_ray(point: np.ndarray) -> np.ndarray:
    """(3,) metres -> x/z, y/z, log z: errors are small across the view, and large but alike in log depth."""
    z = max(float(point[2]), 0.05)
    return np.array([point[0] / z, point[1] / z, math.log(z)])


def from_ray(ray: np.ndarray) -> np.ndarray:
    """Inverse of `to_ray`."""
    return np.array([ray[0], ray[1], 1.0]) * math.exp(ray[2])
