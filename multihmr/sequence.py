"""People over time: `Track`, one identity of a video, and `People`, those of one frame without their meshes.

Camera frame, metres, pixels: as in `humans.py`. numpy only; meshes are made anew by the body when asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from multihmr.humans import Topology

# Trailing shapes of what a person has in each frame; a letter is any length.
_PER_FRAME: dict[str, tuple[str | int, ...]] = {
    "frames": (),
    "times": (),
    "pose": ("R", 3, 3),
    "expression": ("E",),
    "translation": (3,),
    "pelvis": (3,),
    "scores": (),
    "boxes": (4,),
    "filled": (),
    "K": (3, 3),
    "image_sizes": (2,),
}
_DTYPES: dict[str, Any] = {"frames": np.int64, "times": np.float64, "filled": bool, "image_sizes": np.int64}


@dataclass(frozen=True, eq=False)
class Track:
    """One identity of a video in the T frames that it is there: `track[10:20]`, `track[~track.filled]`.

    id           the `track_ids` of Humans
    frames       (T,) int64    numbers of the frames, from 0, rising; those where the person is away are missing
    times        (T,) float64  seconds since the beginning of the video
    pose         (T, R, 3, 3)  rotations; the first orients the person in the camera frame
    shape        (S,)          the same in every frame
    expression   (T, E)
    translation  (T, 3)        the head in metres, camera frame
    pelvis       (T, 3)        metres, camera frame
    scores       (T,)          confidence, 0 to 1; 0 where filled
    boxes        (T, 4)        x0, y0, x1, y1 in pixels
    filled       (T,) bool     not seen in this frame but put between two where the person was
    K            (T, 3, 3)     intrinsics in pixels
    image_sizes  (T, 2)        height and width in pixels
    fps          frames a second, on average
    body, topology, unpredicted   as in Humans

    Arrays are read-only; a length or shape that does not fit raises ValueError by name.
    """

    id: int
    frames: np.ndarray
    times: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    translation: np.ndarray
    pelvis: np.ndarray
    scores: np.ndarray
    boxes: np.ndarray
    filled: np.ndarray
    K: np.ndarray
    image_sizes: np.ndarray
    fps: float
    body: str
    topology: Topology
    unpredicted: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(np.asarray(self.frames))
        for name, trailing in _PER_FRAME.items():
            array = np.array(getattr(self, name), _DTYPES.get(name, np.float32))
            fits = array.ndim == 1 + len(trailing) and len(array) == count
            if not fits or any(
                e not in (n, "R", "E") for e, n in zip(trailing, array.shape[1:], strict=True)
            ):
                form = ", ".join(map(str, (count, *trailing)))
                raise ValueError(f"{name} of a track must be ({form}), got {array.shape}")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if (np.diff(self.frames) <= 0).any():
            raise ValueError("frames of a track must rise: each frame once, in order")
        if not self.fps > 0:
            raise ValueError(f"fps of a track must be greater than 0, got {self.fps}")
        object.__setattr__(self, "shape", np.asarray(self.shape, np.float32))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int | slice | np.ndarray) -> Track:
        """The frames at an int (length 1), slice, mask (T,) or rising list of ints: places, not numbers."""
        rows = np.atleast_1d(np.arange(len(self))[index])
        return dataclasses.replace(self, **{name: getattr(self, name)[rows] for name in _PER_FRAME})

    def __iter__(self) -> Iterator[Track]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        span = f"frames {self.frames[0]} to {self.frames[-1]}, " if len(self) else ""
        return f"Track(id {self.id}, {span}{len(self)} frames, body {self.body!r}, {self.fps:g} fps)"

    def at(self, frame: int) -> Track:
        """The one frame of this number; ValueError if the person is not there."""
        found = np.flatnonzero(self.frames == frame)
        if not len(found):
            raise ValueError(f"person {self.id} is not there in frame {frame}: frames tells where it is")
        return self[int(found[0])]
