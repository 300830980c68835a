"""Draw people over the frames of a video and write the overlay, while they are passed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..humans import Humans
from ..video.frame import Video
from ..video.writer import VideoWriter
from .draw import draw

OVERLAY_SIDE = 1920  # pixels of its longer side, at most


def write_overlay(
    video: Video,
    people: Iterable[Humans],
    path: Path,
    *,
    ids: bool = True,
    sound: Path | None = None,
    **drawing: Any,
) -> Iterator[Humans]:
    """Yield the people of each frame unchanged, and write an .mp4 with their meshes over the frames.

    Args:
        video: the frames, read anew; it may have more frames than there are people.
        people: of each frame, with meshes.
        path: of the .mp4, complete when the iterator ends.
        ids: write each person's id over the head.
        sound: a video whose sound is copied.
        **drawing: options of `draw`: opacity, boxes, keypoints, scores, wireframe.
    """
    with VideoWriter(path, video.fps, sound=sound) as writer:
        for humans, frame in zip(people, video, strict=False):
            options: dict[str, Any] = {"side_views": False, "max_side": OVERLAY_SIDE, "ids": ids}
            writer.write(draw(humans, frame.image, **options, **drawing), frame.time)
            yield humans
