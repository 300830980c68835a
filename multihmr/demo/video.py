"""Videos of the web demo: prediction, overlay video and files to download. Independent of the browser."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..humans import Humans
from ..io.save import save
from ..video.frame import Frame
from ..video.reader import open_video
from ..video.tracks import Track, collect, save_track, with_meshes, without_meshes
from ..visualization.draw import draw

if TYPE_CHECKING:
    from ..bodies.base import Body
    from ..model import Model

SUFFIXES = {".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg", ".wmv", ".3gp", ".ogv"}
MOST_FRAMES = 600
OVERLAY_SIDE = 960  # pixels

Progress = Callable[[float, str], object]  # share done, 0 to 1, and a description


@dataclass(frozen=True)
class VideoFiles:
    """overlay .mp4, animated .glb (None without people) and .zip with one .npz per person."""

    overlay: Path
    glb: Path | None
    npz: Path | None


@dataclass
class VideoResult:
    """People of a video, per frame and without meshes; `cut`: the video is longer."""

    path: Path
    fps: float
    times: list[float]
    people: list[Humans]
    cut: bool
    files: dict[frozenset[int], VideoFiles] = field(default_factory=dict)

    def who(self, threshold: float) -> frozenset[int]:
        """Track ids whose best score is at least the threshold."""
        best: dict[int, float] = {}
        for humans in self.people:
            for identity, score in zip(ids(humans), humans.scores.tolist(), strict=True):
                best[identity] = max(best.get(identity, 0.0), score)
        return frozenset(identity for identity, score in best.items() if score >= threshold)

    def at(self, frame: int, who: frozenset[int], body: Body) -> Humans:
        """People with these track ids in one frame, with meshes."""
        humans = self.people[min(max(frame, 0), len(self.people) - 1)]
        return with_meshes(humans[np.array([identity in who for identity in ids(humans)], bool)], body)

    def tracks(self, who: frozenset[int]) -> list[Track]:
        return [track for track in collect(self.people, self.fps, times=self.times) if track.id in who]


def predict_video_file(
    path: Path,
    model: Model,
    *,
    progress: Progress,
    turns: AbstractContextManager[None] | None = None,
    **options: Any,
) -> VideoResult:
    """Track all people in the first `MOST_FRAMES` frames; options as of `Model.predict_video`.

    `turns` is entered for each frame, so that others can predict in between.

    Raises:
        ValueError: the file is not a video, or has no frames.
        ImportError: PyAV is not installed.
        Whatever `progress` raises, to cancel.
    """
    progress(0.0, "reading the film")  # until the first frames are done, the page would show its own guess
    video = open_video(path)
    count = min(video.count or MOST_FRAMES, MOST_FRAMES)
    times: list[float] = []

    def first_frames() -> Iterator[Frame]:
        for frame in itertools.islice(video, MOST_FRAMES):
            times.append(frame.time)
            progress(0.6 * min(1.0, len(times) / count), f"frame {len(times)} of {count}")
            yield frame

    people = []
    results = iter(model.predict_video(replace(video, frames=first_frames), **options))
    while True:
        with turns or nullcontext():
            humans = next(results, None)
        if humans is None:
            break
        people.append(without_meshes(humans))
    if not people:
        raise ValueError(f"{path} has no frames")
    cut = len(people) == MOST_FRAMES and (video.count is None or video.count > MOST_FRAMES)
    return VideoResult(path, video.fps, times[: len(people)], people, cut)


def write_files(
    result: VideoResult, who: frozenset[int], body: Body, folder: Path, progress: Progress
) -> VideoFiles:
    """Draw these people over the video, and write what moves them; made once for the same people."""
    if who not in result.files:
        stem = result.path.stem
        overlay = _draw(result, who, body, folder / f"{stem}_overlay.mp4", progress)
        tracks = result.tracks(who)
        glb = save(tracks, folder / f"{stem}.glb", body=body) if tracks else None
        npz = _zip(tracks, folder / f"{stem}_npz.zip") if tracks else None
        result.files = {who: VideoFiles(overlay, glb, npz)}
    return result.files[who]


def _draw(result: VideoResult, who: frozenset[int], body: Body, path: Path, progress: Progress) -> Path:
    from ..video.writer import VideoWriter

    count = len(result.people)
    with VideoWriter(path, result.fps) as writer:
        for number, frame in enumerate(itertools.islice(open_video(result.path), count)):
            humans = result.at(number, who, body)
            writer.write(draw(humans, frame.image, side_views=False, max_side=OVERLAY_SIDE), frame.time)
            progress(0.6 + 0.4 * number / count, f"drawing frame {number + 1} of {count}")
    return path


def _zip(tracks: list[Track], path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for track in tracks:
            file = save_track(track, path.with_name(f"person_{track.id}.npz"))
            archive.write(file, file.name)
            file.unlink()
    return path


def ids(humans: Humans) -> list[int]:
    """Track ids of the people of a frame."""
    return [] if humans.track_ids is None else humans.track_ids.tolist()
