"""MOTChallenge text format of tracks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..video.tracks import Track


def mot_lines(tracks: Iterable[Track]) -> list[str]:
    """MOTChallenge's text, a line a person and frame: frame and id from 1, left, top, width, height [pixels],
    score (0: filled in), and the pelvis x, y, z [metres, camera frame]."""
    lines = []
    for track in tracks:
        for frame, box, score, (x, y, z) in zip(
            track.frames.tolist(),
            track.boxes.tolist(),
            track.scores.tolist(),
            track.pelvis.tolist(),
            strict=True,
        ):
            left, top, right, bottom = box
            where = f"{left:.2f},{top:.2f},{right - left:.2f},{bottom - top:.2f}"
            lines.append((frame, track.id, f"{where},{score:.4f},{x:.4f},{y:.4f},{z:.4f}\n"))
    return [f"{frame + 1},{identity},{rest}" for frame, identity, rest in sorted(lines)]
