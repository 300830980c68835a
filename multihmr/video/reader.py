"""Read frames of video files, streams, webcams, folders of pictures and iterables of images.

Files, streams and webcams are read by PyAV (FFmpeg); folders and images in memory need none. Frames are
upright 8-bit sRGB with square pixels (frame_pixels.py), and their times rise (frame_times.py).
"""

from __future__ import annotations

import glob
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeAlias, Union

import numpy as np
from PIL import Image

from ..preprocessing.image import LoadedImage, load_image
from ..storage.paths import user_path
from .ffmpeg import (
    DEFAULT_FPS,
    FrameStamps,
    ffmpeg_reason,
    frame_clock,
    frame_count,
    frame_rate,
    open_container,
    pyav,
    video_stream,
)
from .frame import Frame, IncompleteVideo, Video
from .frame_pixels import FrameConverter
from .live import open_stream, open_webcam

GIF_FPS = 10  # of animations that do not tell it
MAX_BROKEN = 100  # packets in a row that cannot be decoded, after which a file is given up
PICTURES = (
    ".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff",
    ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".tga",
)  # fmt: skip
VIDEOS = (
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp",
    ".wmv", ".flv", ".ogv", ".h264", ".264", ".h265", ".265", ".hevc", ".mxf", ".vob", ".gif",
)  # fmt: skip


# What `open_video` takes; the items of an iterable are what `load_image` takes.
VideoSource: TypeAlias = Union[str, "os.PathLike[str]", int, Video, Iterable[Any]]


def is_address(source: object) -> bool:
    """Whether this is text of the form scheme://..., the address of a stream or of a file elsewhere."""
    return isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", source) is not None


def open_video(source: VideoSource, *, fps: float | None = None) -> Video:
    """Open a video; frames are decoded while iterating.

    Args:
        source: one of

            - path of a video file: FFmpeg's formats, also GIF; rotation, mirroring, frame times, colour
              tags and HDR are respected;
            - address of a stream or of a file elsewhere: "rtsp://...", "http://...", "srt://...";
            - path of a folder: its pictures in the order of the numbers in their names;
            - int: the webcam with this index;
            - a Video (returned as it is), or an iterable of what `load_image` takes.
        fps: frames a second; None takes the times of a file, and 30 for pictures. For a file it replaces
            the times that it holds.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it has no pictures, or `fps` is out of range.
        ImportError: PyAV is missing.
        OSError: a webcam or stream cannot be opened.

    While iterating, a file that breaks off gives its frames until there and an IncompleteVideo warning; a
    webcam or stream that breaks off raises OSError.
    """
    if fps is not None and not 0 < fps < 10_000:
        raise ValueError(f"fps must be between 0 and 10000 frames a second, got {fps}")
    if isinstance(source, Video):
        return source
    if isinstance(source, int):
        return open_webcam(source)
    if isinstance(source, str) and is_address(source):
        return open_stream(source, fps)
    if isinstance(source, (str, os.PathLike)):
        if not str(source).strip():
            raise ValueError(f"an empty name is no video, got {source!r}")
        path = user_path(source)
        if path.is_dir():
            return _open_folder(path, fps or DEFAULT_FPS)
        if not path.exists():
            raise FileNotFoundError(_no_video(path))
        return _open_file(path, fps)
    if not isinstance(source, Iterable) or isinstance(source, (bytes, np.ndarray)):
        raise ValueError(
            "a video must be a path, the index of a webcam or an iterable of pictures, or an address, "
            f"got {type(source).__name__}; for one picture use predict"
        )
    rate = fps or DEFAULT_FPS
    count = len(source) if isinstance(source, Sized) else None

    def frames() -> Iterator[Frame]:
        for number, image in enumerate(source):
            yield Frame(number, number / rate, load_image(image))

    return Video("pictures", rate, count, False, frames)


def _no_video(path: Path) -> str:
    """The sentence on a path that does not exist; patterns of frames, as FFmpeg takes them, get advice."""
    is_pattern = glob.has_magic(path.name) or re.search(r"%0?\d*d", path.name) is not None
    if is_pattern and path.parent.is_dir() and pictures_in(path.parent):
        return f"{path} is a pattern; give the folder, {path.parent}, whose pictures are the frames"
    return f"there is no video {path}; a webcam is a number, as in 0"


def pictures_in(folder: Path) -> list[Path]:
    """The picture files of a folder in the order of the numbers in their names: 2.jpg before 10.jpg."""
    names = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and not p.name.startswith(".")]
    return sorted(names, key=lambda path: natural_order(path.name))


def natural_order(name: str) -> list[str | int]:
    """Sort key of a file name in which runs of digits count as numbers."""
    return [int(word) if word.isdecimal() else word for word in re.split(r"(\d+)", name)]


def _open_folder(path: Path, fps: float) -> Video:
    names = pictures_in(path)
    if not names:
        raise ValueError(f"{path} is a folder without pictures")

    def frames() -> Iterator[Frame]:
        read = 0
        for number, name in enumerate(names):
            try:
                image = load_image(name)
            except (ValueError, OSError) as error:
                warnings.warn(f"left out: {' '.join(str(error).split())}", IncompleteVideo, stacklevel=2)
                continue
            read += 1
            yield Frame(number, number / fps, image)
        if not read:
            raise ValueError(f"none of the {len(names)} pictures in {path} can be read")

    return Video(str(path), fps, len(names), False, frames)


def _open_animation(path: Path, fps: float | None) -> Video | None:
    """An animation that FFmpeg cannot decode, through Pillow; None for other files.

    Those are WebP, and GIF of 1987, which knows no durations: all of its frames are one packet. Browsers show
    ten of those a second.
    """
    with path.open("rb") as file:
        is_gif = file.read(6) == b"GIF87a"
    if not is_gif and path.suffix.lower() != ".webp":
        return None
    with Image.open(path) as image:
        count = getattr(image, "n_frames", 1)
        if count < 2:
            return None
        image.load()
        usual = 1000 / (GIF_FPS if is_gif else DEFAULT_FPS)
        rate = fps or 1000 / max(float(image.info.get("duration") or usual), 1.0)

    def frames() -> Iterator[Frame]:
        time = 0.0
        with Image.open(path) as image:
            for number in range(count):
                image.seek(number)
                image.load()
                picture = LoadedImage(load_image(image.copy()).pixels, name=path.name)
                yield Frame(number, number / fps if fps else time, picture)
                time += max(float(image.info.get("duration") or 1000 / rate), 1.0) / 1000

    return Video(str(path), rate, count, False, frames)


def _open_file(path: Path, fps: float | None) -> Video:
    animation = _open_animation(path, fps)
    if animation is not None:
        return animation
    with open_container(path) as container:
        stream = video_stream(container, str(path))
        rate = fps or frame_rate(stream)
        length = _duration(container, stream)
        count = frame_count(container, stream, length)

    def frames() -> Iterator[Frame]:
        with open_container(path) as container:
            yield from _decode(container, video_stream(container, str(path)), path, fps)

    return Video(str(path), rate, count, False, frames)


def _duration(container: Any, stream: Any) -> float | None:
    """Seconds of pictures that the file promises; None where it does not say, or only with its sound."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        # Matroska's ends count from 0 and not from the first picture.
        first = float((stream.start_time or 0) * stream.time_base)
        return max(3600 * hours + 60 * minutes + seconds - first, 0.0)
    if container.duration and not container.streams.audio:
        return float(container.duration / pyav().time_base)
    return None


def _decode(container: Any, stream: Any, path: Path, fps: float | None) -> Iterator[Frame]:
    """All frames of a file that can be decoded; a warning tells which cannot."""
    av = pyav()
    number, broken, broken_at, first, time, shown = 0, 0, 0, 0.0, 0.0, 0.0
    packets, convert = container.demux(stream), FrameConverter(stream)
    clock, stamp = frame_clock(container, stream, str(path)), FrameStamps(stream)
    while True:
        try:
            packet = next(packets)
            stamp.read(packet)
            decoded = packet.decode()
            broken_at = 0
        except StopIteration:
            break
        except av.error.FFmpegError as error:
            broken, broken_at = broken + 1, broken_at + 1
            if broken_at > MAX_BROKEN or not isinstance(error, av.error.InvalidDataError):
                warnings.warn(
                    f"{path} breaks off after frame {number}: {ffmpeg_reason(error)}",
                    IncompleteVideo,
                    stacklevel=2,
                )
                break
            continue
        for picture in decoded:
            timestamp = stamp.of(picture)
            first = timestamp or 0.0 if not number else first
            time = clock(timestamp)
            yield Frame(
                number, time if fps is None else number / fps, LoadedImage(convert(picture), name=path.name)
            )
            number += 1
            shown = float((picture.duration or 0) * stream.time_base)
    if not number:
        raise ValueError(f"{path} has no frames that can be read" + ("" if not broken else "; it is damaged"))
    length = _duration(container, stream) or 0.0
    if stream.start_time is None:  # then the duration may count from 0
        length = max(length - max(first, 0.0), 0.0)
    if clock.joined:  # then the duration is a difference of timestamps of several files
        length = 0.0
    if broken or time + shown < 0.98 * length - 0.2:
        of = f" of {length:.1f}" if length else ""
        warnings.warn(
            f"{path} is damaged or cut short: {number} frames could be read, {time:.1f}{of} seconds",
            IncompleteVideo,
            stacklevel=2,
        )
