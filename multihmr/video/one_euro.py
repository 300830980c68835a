"""One-euro filter for arrays and rotations: adaptive low-pass smoothing of motion.

Casiez, Roussel, Vogel: "1 € filter", CHI 2012: a low-pass filter whose cutoff rises with the speed, so that
people at rest do not jitter and fast motion does not lag. Rotations are filtered on SO(3), along the geodesic
from the last value to the new one. Where later frames are known, the mean of a forward and a backward filter
has no lag.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import roma
import torch

LONG_AGO = 0.5  # seconds without values after which a filter is reset
MEMORY = 8  # states after which a filter has settled


@dataclass(frozen=True)
class OneEuro:
    """Parameters of a one-euro filter: cutoff at rest [Hz], slope with the speed, cutoff of the speed [Hz].

    Raises ValueError where a cutoff is not greater than 0 or the slope is negative.
    """

    cutoff: float
    rise: float
    speed_cutoff: float = 1.0

    def __post_init__(self) -> None:
        if not (self.cutoff > 0 and self.speed_cutoff > 0 and self.rise >= 0):
            raise ValueError(f"a filter needs cutoffs greater than 0 and a slope of 0 or more, got {self}")


@dataclass(frozen=True)
class Smoothing:
    """The filters of rotations [rad/s], of directions from the camera and log depths [1/s], of expressions.

    Depth has its own filter, because a single camera is least accurate in depth. The defaults reduce small
    and large noise and still follow a walk: scripts/measure_tracking.py.
    """

    turns: OneEuro = field(default=OneEuro(1.0, 2.0))
    ways: OneEuro = field(default=OneEuro(1.0, 60.0))
    depths: OneEuro = field(default=OneEuro(0.5, 20.0))
    faces: OneEuro = field(default=OneEuro(2.0, 1.0))


class Moment(NamedTuple):
    """Filtered state of a person: pose (R, 3, 3), ray (3,) of the head (see `to_ray`), expression (E,)."""

    time: float
    pose: np.ndarray
    ray: np.ndarray
    expression: np.ndarray


class MotionFilter:
    """Smooths the states of one person in order; times may increase or decrease."""

    def __init__(self, smoothing: Smoothing) -> None:
        self.smoothing = smoothing
        self.time = math.nan
        self.count = 0  # states since the reset
        self._begin()

    def _begin(self) -> None:
        s = self.smoothing
        self._turns = SmoothRotations(s.turns)
        self._ways, self._depths, self._faces = map(SmoothNumbers, (s.ways, s.depths, s.faces))
        self.count = 0

    def __call__(self, moment: Moment) -> Moment:
        """Update the filter with a state and return the filtered one."""
        seconds = abs(moment.time - self.time)
        if seconds > LONG_AGO:
            self._begin()
        self.time, self.count = moment.time, self.count + 1
        ray = np.concatenate([self._ways(moment.ray[:2], seconds), self._depths(moment.ray[2:], seconds)])
        return Moment(
            moment.time, self._turns(moment.pose, seconds), ray, self._faces(moment.expression, seconds)
        )

    def ahead(self, moment: Moment, later: Sequence[Moment]) -> Moment:
        """The same without lag, given the `later` states; at the end of a track there are none."""
        forward = self(moment)
        back = MotionFilter(self.smoothing)
        known = [one for one in later[:MEMORY] if one.time - moment.time <= LONG_AGO]
        if not known:
            return forward
        for one in reversed(known):
            back(one)
        # forward and backward filters are weighted by the number of states that each has seen
        weight = len(known) / (len(known) + min(self.count - 1, MEMORY))
        return mixed(forward, back(moment), weight)


def mixed(one: Moment, other: Moment, weight: float) -> Moment:
    """Interpolation from one state to the other by `weight`, 0 to 1."""
    ray, expression = (a + weight * (b - a) for a, b in zip(one[2:], other[2:], strict=True))
    return Moment(one.time, between(one.pose, other.pose, weight), ray, expression)


class SmoothNumbers:
    """One-euro filter of a sequence of arrays of one shape, elementwise."""

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
    """One-euro filter of a sequence of (R, 3, 3) rotations, each by itself; speeds in rad/s."""

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
    """Smoothing factor alpha in [0, 1] of the new value, for this cutoff [Hz] and time step [s]."""
    time = 2 * math.pi * cutoff * seconds
    return time / (time + 1)


def between(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """(..., 3, 3) spherical interpolation (slerp) from `before` to `after` by `share`."""
    ends = [torch.from_numpy(np.array(end, np.float32)) for end in (before, after)]
    return roma.rotmat_slerp(*ends, torch.tensor(share, dtype=torch.float32, device="cpu")).numpy()


def to_ray(point: np.ndarray) -> np.ndarray:
    """(3,) [m] -> x/z, y/z, log z, in which errors of all distances have the same size."""
    z = max(float(point[2]), 0.05)
    return np.array([point[0] / z, point[1] / z, math.log(z)])


def from_ray(ray: np.ndarray) -> np.ndarray:
    """Inverse of `to_ray`."""
    return np.array([ray[0], ray[1], 1.0]) * math.exp(ray[2])
