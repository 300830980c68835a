"""Predict a live source: the newest frame each time, tracked and smoothed; what came between is dropped."""

from __future__ import annotations

import dataclasses
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from ..humans import Humans
from ..preprocessing.distortion import DistortionLike
from ..video.frame import Frame
from ..video.live import latest_frames
from ..video.predict import Predictor, predict_video
from ..video.reader import VideoSource, open_video
from ..video.tracker import LIVE, Tracking

RECENT = 10_000  # frames whose latency the summary is of


@dataclass(frozen=True, eq=False)
class LiveFrame:
    """The people of one frame, and when they were known.

    Attributes:
        frame: picture, number and time in the source.
        humans: people with `track_ids`.
        dropped: frames that arrived since the one before and were not predicted.
        latency: seconds from the arrival of the frame to its people.
    """

    frame: Frame
    humans: Humans
    dropped: int
    latency: float


class Output(Protocol):
    """Where people are sent to."""

    def send(self, result: LiveFrame) -> None:
        """Send the people of a frame; must not wait for a receiver."""
        ...

    def close(self) -> None:
        """End the output."""
        ...


@dataclass
class LiveStatistics:
    """Counts and latencies of a run."""

    frames: int = 0
    dropped: int = 0
    people: set[int] = field(default_factory=set)  # track ids
    seconds: float = 0.0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    problem: OSError | None = None  # why the source broke off

    def add(self, result: LiveFrame, latency: float) -> None:
        """Count a frame whose people were sent `latency` seconds after it arrived."""
        self.frames += 1
        self.dropped += result.dropped
        self.people.update([] if result.humans.track_ids is None else result.humans.track_ids.tolist())
        self.latencies.append(latency)

    def latency(self, percentile: float = 50) -> float:
        """Seconds from the arrival of a frame until its people were sent: a percentile."""
        return float(np.percentile(self.latencies, percentile)) if self.latencies else 0.0

    def __str__(self) -> str:
        rate = self.frames / self.seconds if self.seconds else 0.0
        frames = "1 frame" if self.frames == 1 else f"{self.frames} frames"
        return (
            f"{frames} ({rate:.1f} a second), {self.dropped} dropped; latency "
            f"{self.latency():.2f} s, of 5 % of the frames more than {self.latency(95):.2f} s"
        )


def predict_live(
    model: Predictor,
    source: VideoSource,
    K: Any = None,
    *,
    fov: float | None = None,
    threshold: float | None = None,
    tiles: int | Literal["auto"] = 1,
    hands_and_faces: bool = False,
    limbs: bool = True,
    distortion: DistortionLike | None = None,
    tracking: Tracking | None = None,
) -> Iterator[LiveFrame]:
    """Yield the people of the newest frame of a source each time; frames that came meanwhile are dropped.

    Args:
        model: a `multihmr.Model`.
        source: a webcam, a stream, or a video, which is played at its own speed. As for `open_video`.
        K: intrinsics; this and the other options as for `Model.predict_video`.
        fov: field of view in degrees.
        threshold: least score of a new person.
        tiles: predict tiles, too.
        hands_and_faces: look once more at each hand and face; takes longer.
        limbs: align limbs with keypoints from a crop of each person; False is faster.
        distortion: of the lens whose camera matrix is K.
        tracking: None tracks without a lookahead, so that no result waits for later frames.

    Raises:
        OSError: the source cannot be opened, or broke off.
        ValueError: it is no video.
    """
    video = open_video(source)
    arrivals: dict[int, float] = {}
    chosen: deque[Frame] = deque()

    def arriving() -> Iterator[Frame]:
        for frame in video if video.live else _in_real_time(video):
            arrivals[frame.number] = time.monotonic()
            yield frame

    def newest() -> Iterator[Frame]:
        for frame in latest_frames(dataclasses.replace(video, frames=arriving)):
            chosen.append(frame)
            yield frame

    shown = dataclasses.replace(video, live=True, frames=newest)
    last = -1
    options: dict[str, Any] = {"fov": fov, "threshold": threshold, "tiles": tiles, "distortion": distortion}
    options |= {"hands_and_faces": hands_and_faces, "limbs": limbs}
    for humans in predict_video(model, shown, K, tracking=tracking or LIVE, **options):
        frame = chosen.popleft()
        arrived = arrivals[frame.number]
        for number in [number for number in list(arrivals) if number <= frame.number]:
            del arrivals[number]
        yield LiveFrame(frame, humans, frame.number - last - 1, time.monotonic() - arrived)
        last = frame.number


def _in_real_time(video: Iterable[Frame]) -> Iterator[Frame]:
    """The frames of a file as a camera would give them."""
    start = time.monotonic()
    for frame in video:
        time.sleep(max(0.0, start + frame.time - time.monotonic()))
        yield frame


def run_live(
    results: Iterable[LiveFrame],
    outputs: Iterable[Output],
    *,
    seconds: float | None = None,
    progress: Callable[[LiveStatistics], Any] = lambda _: None,
) -> LiveStatistics:
    """Send every result to every output until the source, `seconds` or Ctrl-C ends it.

    Returns:
        Counts and latencies, also after Ctrl-C, and when the source broke off (`problem`).
    """
    outputs, statistics, start = list(outputs), LiveStatistics(), time.monotonic()
    try:
        for result in results:
            known = time.monotonic()
            for output in outputs:
                output.send(result)
            statistics.add(result, result.latency + time.monotonic() - known)
            statistics.seconds = time.monotonic() - start
            progress(statistics)
            if seconds is not None and statistics.seconds >= seconds:
                break
    except KeyboardInterrupt:
        pass
    except OSError as error:
        statistics.problem = error
    finally:
        if hasattr(results, "close"):
            results.close()
    return statistics
