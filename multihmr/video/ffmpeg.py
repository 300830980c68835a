"""PyAV (FFmpeg): open containers, choose the stream of pictures, its frame rate and its clock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .frame_times import MAX_JUMP, FrameClock

DEFAULT_FPS = 30.0  # of pictures that come without times
MAX_FPS = 240.0  # a higher rate in a header is a time base, not a frame rate
# Raw MPEG-1 and MPEG-2: FFmpeg says 25 frames a second whatever the pictures say, and its presentation
# timestamps leave one out where frames are reordered.
_RAW_MPEG = "mpegvideo"
_TIMESTAMPS_MAY_JUMP = 0x200  # AVFMT_TS_DISCONT of libavformat
# A film whose rate is so many times that of its average has pauses; FFmpeg's guess is none above the second.
PAUSES, MAX_BASE_RATE = 4, 120


def frame_rate(stream: Any) -> float:
    """Frames a second of a PyAV stream on average; what FFmpeg assumes (25) where nothing tells.

    Of films that stand still for long (surveillance, slides) it is the rate between the pauses.
    """
    average = stream.guessed_rate if _is_raw_mpeg(stream) else stream.average_rate
    rate, base = float(average or stream.guessed_rate or 0), float(stream.base_rate or 0)
    if 0 < PAUSES * rate < base <= MAX_BASE_RATE or _counts_fields(stream):
        rate = base
    return rate if 0 < rate < 10_000 else DEFAULT_FPS


def _is_raw_mpeg(stream: Any) -> bool:
    return bool(stream.container.format.name == _RAW_MPEG)


def _counts_fields(stream: Any) -> bool:
    """Whether a header counts fields, two a frame, as that of H.264 in AVI does."""
    rate, base = float(stream.average_rate or 0), float(stream.base_rate or 0)
    return base > 0 and abs(rate - 2 * base) < 1e-3 * rate


def frame_count(container: Any, stream: Any, length: float | None) -> int | None:
    """Number of frames as far as a file tells; `length` in seconds.

    The length of joined MPEG-TS files is the difference of timestamps of two clocks, up to 26 hours: more
    frames than the file has packets of 188 bytes are not believed.
    """
    if stream.frames and not _counts_fields(stream):
        return int(stream.frames)
    count = max(1, round(length * frame_rate(stream))) if length else None
    jumps = container.format.flags & _TIMESTAMPS_MAY_JUMP
    return None if count and jumps and 0 < container.size < 188 * count else count


class FrameStamps:
    """Timestamps of the decoded frames of one stream [s].

    Containers without presentation timestamps (H.264 in AVI) have decoding timestamps only. PyAV labels
    frames with those of their packets, which are in coding order; the frames themselves come in the order
    of presentation and take the decoding timestamps one after the other.
    """

    def __init__(self, stream: Any) -> None:
        self.time_base = stream.time_base
        self._raw = _is_raw_mpeg(stream)
        self._with = self._without = 0  # packets with and without a presentation timestamp

    def read(self, packet: Any) -> None:
        """Count a packet of this stream."""
        self._with += packet.pts is not None
        self._without += packet.pts is None and packet.dts is not None

    def of(self, frame: Any) -> float | None:
        """Timestamp [s] of a decoded frame; None where it has none."""
        if self._raw or self._without > self._with:
            return None if frame.dts is None else float(frame.dts * self.time_base)
        return None if frame.time is None else float(frame.time)


def frame_clock(container: Any, stream: Any, name: str) -> FrameClock:
    """The clock for the frames of a stream."""
    rates = [float(rate) for rate in (stream.average_rate, stream.base_rate) if rate]
    highest = max([rate for rate in rates if rate <= MAX_FPS], default=frame_rate(stream))
    jumps = container.format.flags & _TIMESTAMPS_MAY_JUMP
    return FrameClock(
        1 / frame_rate(stream), shortest=1 / highest, max_jump=MAX_JUMP if jumps else None, name=name
    )


def open_container(path: Path) -> Any:
    """A PyAV container of a file; ValueError says why it is none."""
    av = pyav()
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: 0 bytes")
    try:
        container = av.open(str(path))
    except av.error.FFmpegError as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ValueError(f"{path} is no video or is cut short: {ffmpeg_reason(error)}") from error
    # FFmpeg would invent presentation timestamps, as if no frame was reordered.
    container.flags &= ~av.container.core.Flags.gen_pts.value
    return container


def video_stream(container: Any, name: str) -> Any:
    """The first stream of moving pictures; the cover of a song is none."""
    cover = pyav().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover and stream.codec_context is not None:
            stream.thread_type = "AUTO"
            return stream
    raise ValueError(
        f"{name} has sound but no pictures" if container.streams.audio else f"{name} has no pictures"
    )


def pyav() -> Any:
    """The package that reads and writes videos."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ImportError("videos need PyAV: pip install 'multihmr[video]'") from error
    return av


def ffmpeg_reason(error: BaseException) -> str:
    """FFmpeg's message without numbers and repeated names."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
