"""Time line of a video: presentation timestamps to seconds since the first frame that always rise."""

from __future__ import annotations

import math
import statistics
import warnings
from collections import deque

TYPICAL_STEPS = 15  # recent steps whose median is the frame period while timestamps are missing
MAX_LATE = 4  # frames in a row behind the clock that count as reordered; more are a new time line
MAX_BACK = 1.75  # frame periods that a timestamp may lie behind the clock and count as reordered
MAX_JUMP = 10.0  # seconds; in formats whose timestamps may jump (MPEG-TS) more is no pause but a join
MAX_PAUSE = 1e6  # seconds (11 days); in the other formats more is a damaged timestamp


class FrameClock:
    """Seconds since the first frame, from presentation timestamps that may be missing, equal or jump back.

    Timestamps that rise are kept to the last digit, pauses included, so a variable frame rate survives. The
    following is repaired; consecutive times then differ by half a frame period to twice that:

    - missing timestamps: time goes on by the typical period (median of the last steps);
    - equal or reordered timestamps: the same, and the clock returns to the timestamps within some frames;
    - timestamps that jump back (files joined end to end), or ahead by more than `max_jump`: time goes on by
      one typical period, and `name` is warned about once.

    Args:
        period: nominal frame period [s], taken until steps were measured.
        shortest: least frame period of this video [s]; half of it is the floor of every step. None: `period`.
        max_jump: seconds; a longer step ahead starts a new time line. None: up to 11 days are a pause.
        name: of the video, for the warning.
    """

    def __init__(
        self,
        period: float,
        *,
        shortest: float | None = None,
        max_jump: float | None = None,
        name: str = "the video",
    ) -> None:
        if not (math.isfinite(period) and period > 0):
            raise ValueError(f"period must be a number of seconds greater than 0, got {period}")
        self.floor = 0.5 * min(period, shortest or period)
        self.max_jump = MAX_PAUSE if max_jump is None else max_jump
        self.name = name
        self.time: float | None = None  # of the last frame
        self._steps: deque[float] = deque([period], TYPICAL_STEPS)
        self._offset: float | None = None  # timestamp minus time
        self._timestamp: float | None = None  # the last one
        self._late = self._number = 0
        self._warned = False

    @property
    def joined(self) -> bool:
        """Whether timestamps jumped, so that differences of the file's own timestamps mean nothing."""
        return self._warned

    @property
    def period(self) -> float:
        """Typical seconds between two frames so far."""
        return statistics.median(self._steps)

    def __call__(self, timestamp: float | None) -> float:
        """The time of the next frame [s]; timestamp in seconds, None if it has none."""
        if timestamp is not None and not math.isfinite(timestamp):
            timestamp = None
        if self.time is None:
            self.time = 0.0
        elif timestamp is None or self._offset is None or timestamp == self._timestamp:
            self.time += self.period
        else:
            self.time = self._next(timestamp - self._offset, self.time)
        if timestamp is not None:
            if self._offset is None:
                self._offset = timestamp - self.time
            self._timestamp = timestamp
        self._number += 1
        return self.time

    def _next(self, due: float, last: float) -> float:
        """The time after `last` of a frame that is due at `due` on the present time line."""
        step = due - last
        if step > self.max_jump:
            return self._join(last, f"jump ahead by {step:.1f} s")
        if step >= self.floor:
            if not self._late:
                self._steps.append(step)
            self._late = 0
            return due
        self._late += 1
        if step < -MAX_BACK * self.period or self._late > MAX_LATE:
            return self._join(last, f"jump back by {-step:.2f} s")
        return last + max(self.floor, 0.5 * self.period)

    def _join(self, last: float, problem: str) -> float:
        """A new time line begins with this frame, one typical period after `last`."""
        self._offset, self._late = None, 0
        if not self._warned:
            warnings.warn(
                f"{self.name}: timestamps {problem} at frame {self._number}, as in files joined end to end; "
                "time goes on by one frame period there",
                stacklevel=5,
            )
        self._warned = True
        return last + self.period
