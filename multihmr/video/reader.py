"""Frames of video files, webcams, folders and whatever yields pictures, one after the other.

Files and webcams are read by PyAV (FFmpeg); folders and pictures in memory need none. Frames stand upright,
have square pixels and eight bits of ordinary (not HDR) colour.
"""

from __future__ import annotations

import math
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..preprocessing.image import LoadedImage, load_image

DEFAULT_FPS = 30.0  # of pictures that say nothing about time
MAX_BROKEN = 100  # packets in a row that cannot be decoded, after which a file is given up
PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".tga",
)  # fmt: skip
_PQ, _HLG = 16, 18  # transfer curves of HDR, ITU-T H.273 table 3
_UNKNOWN, _BT601, BT709 = 2, 5, 1  # matrices, table 4, and the primaries of BT.709, table 2
_SRGB = 13
# where webcams are found -> FFmpeg's name of the door, and of the camera with an index
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}:none"),
    "win32": ("dshow", ""),
}


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a video: its number from 0, seconds since the first one, and the picture, upright."""

    number: int
    time: float
    photo: LoadedImage


@dataclass(frozen=True, eq=False)
class Video:
    """Where frames come from; iterating reads them, from the beginning each time where that is possible.

    name; fps on average; count of frames, None where nobody knows; live: a webcam, which waits for nobody.
    """

    name: str
    fps: float
    count: int | None
    live: bool
    frames: Callable[[], Iterator[Frame]]

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()


def open_video(source: Any, *, fps: float | None = None) -> Video:
    """What can be read frame by frame:

    - a path of a video file: FFmpeg's formats, also GIF; rotation, frame times and HDR are respected;
    - a path of a folder: its pictures in the order of their numbers, `fps` (30) a second;
    - an int: the webcam with this index;
    - a Video, or anything that yields what `load_image` takes, `fps` (30) a second.

    Raises FileNotFoundError; ValueError when there are no pictures in it; ImportError without PyAV. What
    breaks off while it is read gives the frames until then and a warning; a webcam an OSError.
    """
    if fps is not None and not 0 < fps < 10_000:
        raise ValueError(f"fps must be between 0 and 10000 frames a second, got {fps}")
    if isinstance(source, Video):
        return source
    if isinstance(source, int):
        return _open_webcam(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if path.is_dir():
            return _open_folder(path, fps or DEFAULT_FPS)
        if not path.exists():
            raise FileNotFoundError(f"there is no video {path}; a webcam is a number, as in 0")
        return _open_file(path)
    if not isinstance(source, Iterable) or isinstance(source, (bytes, np.ndarray)):
        raise ValueError(
            "a video must be a path, the index of a webcam or an iterable of pictures, "
            f"got {type(source).__name__}; for one picture use predict"
        )
    rate = fps or DEFAULT_FPS
    count = len(source) if isinstance(source, Sized) else None

    def frames() -> Iterator[Frame]:
        for number, image in enumerate(source):
            yield Frame(number, number / rate, load_image(image))

    return Video("pictures", rate, count, False, frames)


def _open_folder(path: Path, fps: float) -> Video:
    names = [p for p in path.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    names.sort(key=lambda p: [int(word) if word.isdigit() else word for word in re.split(r"(\d+)", p.name)])
    if not names:
        raise ValueError(f"{path} is a folder without pictures")

    def frames() -> Iterator[Frame]:
        read = 0
        for number, name in enumerate(names):
            try:
                photo = load_image(name)
            except (ValueError, OSError) as error:
                warnings.warn(f"left out: {' '.join(str(error).split())}", stacklevel=2)
                continue
            read += 1
            yield Frame(number, number / fps, photo)
        if not read:
            raise ValueError(f"none of the {len(names)} pictures in {path} can be read")

    return Video(str(path), fps, len(names), False, frames)


def _open_file(path: Path) -> Video:
    with _opened(path) as container:
        stream = _video_stream(container, path)
        rate = float(stream.average_rate or stream.guessed_rate or 0)
        fps = rate if 0 < rate < 10_000 else DEFAULT_FPS
        length = _length(container, stream)
        count = stream.frames or (max(1, round(length * fps)) if length else None)

    def frames() -> Iterator[Frame]:
        with _opened(path) as container:
            yield from _decoded(container, _video_stream(container, path), path)

    return Video(str(path), fps, count, False, frames)


def _length(container: Any, stream: Any) -> float | None:
    """Seconds of pictures that the file promises; None where it does not say, or only with its sound."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.duration and not container.streams.audio:
        return float(container.duration / pyav().time_base)
    return None


def _decoded(container: Any, stream: Any, path: Path) -> Iterator[Frame]:
    """All frames of a file that can be had; a warning says which cannot."""
    av = pyav()
    number, start, time, broken, broken_at = 0, None, -1.0, 0, 0
    packets, upright = container.demux(stream), _Upright(stream)
    while True:
        try:
            packet = next(packets)
            decoded = packet.decode()
            broken_at = 0
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            broken, broken_at, trouble = broken + 1, broken_at + 1, error
            if broken_at > MAX_BROKEN or not isinstance(error, av.error.InvalidDataError):
                warnings.warn(f"{path} breaks off after frame {number}: {_reason(trouble)}", stacklevel=2)
                break
            continue
        for picture in decoded:
            now = picture.time if picture.time is not None else time + 1 / 30
            start = now if start is None else start
            time = max(now - start, math.nextafter(time, math.inf), 0.0)
            yield Frame(number, time, LoadedImage(upright(picture), name=path.name))
            number += 1
    if not number:
        raise ValueError(f"{path} has no frames that can be read" + ("" if not broken else "; it is damaged"))
    length = _length(container, stream) or 0.0
    if broken or time < 0.98 * length - 0.2:
        of = f" of {length:.1f}" if length else ""
        warnings.warn(
            f"{path} is damaged or cut short: {number} frames could be read, {time:.1f}{of} seconds",
            stacklevel=2,
        )


def _open_webcam(index: int) -> Video:
    av = pyav()
    name = f"webcam {index}"
    kind, pattern = _CAMERAS.get(sys.platform, _CAMERAS["linux"])
    if index < 0:
        raise ValueError(f"a webcam has an index of 0 or more, got {index}")
    try:
        device = pattern.format(index) if pattern else _directshow_name(index)
        container = av.open(device, format=kind)
    except (OSError, ValueError) as error:
        raise OSError(f"there is no {name}, or another program uses it: {_reason(error)}") from error
    stream = container.streams.video[0]

    def frames() -> Iterator[Frame]:
        start: float | None = None
        number, upright = -1, _Upright(stream)
        with container:
            try:
                for number, picture in enumerate(container.decode(stream)):
                    start = picture.time if start is None else start
                    yield Frame(
                        number, max(0.0, picture.time - start), LoadedImage(upright(picture), name=name)
                    )
            except av.error.FFmpegError as error:
                raise OSError(
                    f"{name} gave no more pictures after {number + 1}: is it plugged in?"
                ) from error
        raise OSError(f"{name} gave no more pictures after {number + 1}: is it plugged in?")

    return Video(name, float(stream.average_rate or DEFAULT_FPS), None, True, frames)


def _directshow_name(index: int) -> str:
    """Windows knows cameras by name."""
    found = [d for d in pyav().enumerate_input_devices("dshow") if "video" in d.media_types]
    if index >= len(found):
        raise ValueError(f"{len(found)} cameras found")
    return f"video={found[index].name}"


def _opened(path: Path) -> Any:
    av = pyav()
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: 0 bytes")
    try:
        return av.open(str(path))
    except av.error.FFmpegError as error:
        if isinstance(error, (FileNotFoundError, PermissionError)):
            raise
        raise ValueError(f"{path} is no video or is cut short: {_reason(error)}") from error


def _video_stream(container: Any, path: Path) -> Any:
    """The first stream of moving pictures; the cover of a song is none."""
    cover = pyav().stream.Disposition.attached_pic
    for stream in container.streams.video:
        if not stream.disposition & cover and stream.codec_context is not None:
            stream.thread_type = "AUTO"
            return stream
    raise ValueError(
        f"{path} has sound but no pictures" if container.streams.audio else f"{path} has no pictures"
    )


class _Upright:
    """Makes (H, W, 3) uint8 sRGB of decoded frames: square pixels, turned as they are to be shown."""

    def __init__(self, stream: Any) -> None:
        self.aspect = stream.sample_aspect_ratio
        # one for all frames: to prepare the table for HDR takes seconds, to use it 15 ms (1280 x 720)
        self.reformatter = pyav().video.reformatter.VideoReformatter()

    def __call__(self, picture: Any) -> np.ndarray:
        # untagged pictures have the colours of HDTV from 720 lines on, those of DVD below: what players do
        matrix = picture.colorspace
        if matrix == _UNKNOWN:
            matrix = BT709 if picture.height >= 720 else _BT601
        options: dict[str, Any] = {"format": "rgb24", "src_colorspace": matrix, "dst_color_range": "JPEG"}
        if self.aspect and self.aspect != 1:
            options["width"] = max(1, round(picture.width * float(self.aspect)))
        if picture.color_trc in (_PQ, _HLG):
            options |= {"dst_color_trc": _SRGB, "dst_color_primaries": BT709}
        pixels = self.reformatter.reformat(picture, **options).to_ndarray()
        quarter_turns = round(picture.rotation / 90)
        return np.ascontiguousarray(np.rot90(pixels, quarter_turns)) if quarter_turns % 4 else pixels


def pyav() -> Any:
    """The package that reads and writes videos."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise ImportError("videos need PyAV: pip install 'multihmr[video]'") from error
    return av


def _reason(error: BaseException) -> str:
    """What FFmpeg says, without numbers and repeated names."""
    text = getattr(error, "strerror", None) or str(error)
    return " ".join(str(text).split()) or type(error).__name__
