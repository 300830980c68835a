"""What the web demo says where no people are found: what is the matter, and what can be tried. HTML."""

from __future__ import annotations

import math

from .sessions import LEAST_SCORE
from .video import VideoResult, ids


def advice(
    video: VideoResult | None, frame: int, threshold: float, fainter: float | None, *, tiles: bool
) -> str:
    """Heading and list for a picture, or for a frame of a video, without people.

    Args:
        video: None for a picture.
        frame: the frame of the video that is shown.
        threshold: least score of people who are shown.
        fainter: best score below the threshold in a picture, if any.
        tiles: whether tiles were predicted as well.
    """
    if video is not None and (who := video.who(threshold)):
        first = next(i for i, humans in enumerate(video.people) if who & set(ids(humans)))
        return _html(
            f"No people in frame {frame}", [f"The first frame with people is {first}: move “Frame” there."]
        )
    if video is not None:
        best = max((float(score) for humans in video.people for score in humans.scores), default=None)
        what = "video"
    else:
        best, what = fainter, "picture"
    return _html(f"No people found in this {what}", _attempts(what, threshold, best, tiles=tiles))


def _attempts(what: str, threshold: float, best: float | None, *, tiles: bool) -> list[str]:
    attempts = []
    if best is not None:
        attempts.append(
            f"Set “Least score” to {math.floor(best * 100) / 100:.2f}: what was seen there is less certain "
            f"than the {threshold:.2f} that is asked for, and may be no person."
        )
    elif what == "picture":
        attempts.append(f"A lower score does not help: nothing reaches {LEAST_SCORE:.2f}.")
    if not tiles:
        attempts.append("Tick “Find small people” if people are far away.")
    attempts.append(
        f"Cut the {what} to the people, or take one in which they are larger, sharper or brighter."
    )
    return attempts


def _html(heading: str, attempts: list[str]) -> str:
    items = "".join(f"<li>{attempt}</li>" for attempt in attempts)
    return f"<h2>{heading}</h2><ul>{items}</ul>"
