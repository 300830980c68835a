"""Types of a video: `Frame`, `Video`, and the warning that frames are missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..preprocessing.image import LoadedImage


class IncompleteVideo(UserWarning):
    """Frames of a video are missing: it is damaged, cut short, or holds pictures that cannot be read."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a video: number from 0, time in seconds since the first frame, upright image."""

    number: int
    time: float
    image: LoadedImage

    @property
    def photo(self) -> LoadedImage:
        """Former name of `image`, for one version more."""
        return self.image


@dataclass(frozen=True, eq=False)
class Video:
    """A source of frames; iterating reads them, from the first one each time where that is possible.

    Attributes:
        name: path, address or kind of the source.
        fps: frames a second on average.
        count: number of frames, None if unknown. Files may promise more than they hold.
        live: webcam or stream that does not wait for its reader.
        frames: starts an iteration.
    """

    name: str
    fps: float
    count: int | None
    live: bool
    frames: Callable[[], Iterator[Frame]]

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()
