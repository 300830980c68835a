"""Live sources: webcams, network streams, and the newest frame of one that is faster than its reader."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ..preprocessing.image import LoadedImage
from .ffmpeg import DEFAULT_FPS, ffmpeg_reason, frame_clock, frame_rate, pyav, video_stream
from .frame import Frame, Video
from .frame_pixels import FrameConverter

OPEN_SECONDS, READ_SECONDS = 10.0, 20.0  # that a stream may take to answer, and between two packets
# platform -> FFmpeg's name of the interface to webcams, and of the camera with an index
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}:none"),
    "win32": ("dshow", ""),
}
_ALWAYS_LIVE = {"rtsp", "rtsps", "rtp", "rtmp", "rtmps", "udp", "srt", "mms"}


def open_webcam(index: int) -> Video:
    """The webcam with this index from 0; OSError if there is none or it is in use."""
    av = pyav()
    name = f"webcam {index}"
    kind, pattern = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    if index < 0:
        raise ValueError(f"a webcam has an index of 0 or more, got {index}")
    try:
        device = pattern.format(index) if pattern else _directshow_name(index)
        container = av.open(device, format=kind)
    except (OSError, ValueError) as error:
        raise OSError(f"there is no {name}, or another program uses it: {ffmpeg_reason(error)}") from error
    stream = container.streams.video[0]

    def frames() -> Iterator[Frame]:
        start: float | None = None
        number, convert = -1, FrameConverter(stream)
        with container:
            try:
                for number, picture in enumerate(container.decode(stream)):
                    start = picture.time if start is None else start
                    image = LoadedImage(convert(picture), name=name)
                    yield Frame(number, max(0.0, picture.time - start), image)
            except av.error.FFmpegError as error:
                raise OSError(
                    f"{name} gave no more pictures after {number + 1}: is it plugged in?"
                ) from error
        raise OSError(f"{name} gave no more pictures after {number + 1}: is it plugged in?")

    return Video(name, float(stream.average_rate or DEFAULT_FPS), None, True, frames)


def _directshow_name(index: int) -> str:
    """The name by which DirectShow (Windows) knows a camera."""
    found = [d for d in pyav().enumerate_input_devices("dshow") if "video" in d.media_types]
    if index >= len(found):
        raise ValueError(f"{len(found)} cameras found")
    return f"video={found[index].name}"


def open_stream(address: str, fps: float | None = None) -> Video:
    """A video at an address that FFmpeg reads: RTSP, RTMP, SRT, UDP, HLS, HTTP (files and MJPEG cameras).

    `live` is true unless it has a known length, as a file on a web server has: such a file can be read again
    from its beginning. fps: as in `open_video`. Raises ValueError if there is no video at the address,
    OSError if it cannot be reached within 10 s or, while reading, is silent for 20 s.
    """
    name = without_password(address)
    first = _connect(address, name)
    try:
        stream = video_stream(first, name)
    except ValueError:
        first.close()
        raise
    rate, length = fps or frame_rate(stream), first.duration
    count = stream.frames or (round(length / pyav().time_base * frame_rate(stream)) if length else None)
    live = not length or urlsplit(address).scheme.lower() in _ALWAYS_LIVE
    unused = [first]  # the first iteration goes on with this connection

    def frames() -> Iterator[Frame]:
        number = 0
        with unused.pop() if unused else _connect(address, name) as container:
            stream = video_stream(container, name)
            convert, clock = FrameConverter(stream), frame_clock(container, stream, name)
            try:
                for number, picture in enumerate(container.decode(stream)):
                    time = clock(picture.time) if fps is None else number / fps
                    yield Frame(number, time, LoadedImage(convert(picture), name=name))
            except pyav().error.FFmpegError as error:
                raise OSError(
                    f"{name} broke off after {number + 1} frames: {ffmpeg_reason(error)}"
                ) from error

    return Video(name, rate, None if live else count, live, frames)


def _connect(address: str, name: str) -> Any:
    av = pyav()
    options = {"rtsp_transport": "tcp"} if urlsplit(address).scheme.lower().startswith("rtsp") else {}
    try:
        return av.open(address, options=options, timeout=(OPEN_SECONDS, READ_SECONDS))
    except av.error.InvalidDataError as error:
        raise ValueError(f"there is no video at {name}: {ffmpeg_reason(error)}") from error
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise OSError(f"{name} cannot be read: {ffmpeg_reason(error)}") from error


def without_password(address: str) -> str:
    """The address for messages and records: without user and password."""
    parts = urlsplit(address)
    host = re.sub(r"^.*@", "", parts.netloc)
    return urlunsplit((parts.scheme, host, *parts[2:]))


def latest_frames(video: Video) -> Iterator[Frame]:
    """The newest frame of a video each time one is asked for; frames that came between are dropped.

    A thread reads the source. Frames keep their numbers, whose gaps tell how many were dropped. Ends with the
    video, and raises what reading it raised.
    """
    arrived = threading.Condition()
    newest: list[Frame] = []
    problem: list[BaseException] = []
    state = {"ended": False, "stop": False}

    def read() -> None:
        try:
            for frame in video:
                with arrived:
                    newest[:] = [frame]
                    arrived.notify()
                    if state["stop"]:
                        return
        except BaseException as error:  # handed to the reader of the frames
            problem.append(error)
        finally:
            with arrived:
                state["ended"] = True
                arrived.notify()

    thread = threading.Thread(target=read, daemon=True, name=f"read {video.name}")
    thread.start()
    try:
        while True:
            with arrived:
                arrived.wait_for(lambda: newest or state["ended"])
                if not newest:
                    break
                frame = newest.pop()
            yield frame
        if problem:
            raise problem[0]
    finally:
        state["stop"] = True
        thread.join(timeout=2)
