"""Write videos: `VideoWriter` encodes frames with their own times and copies the sound of the source."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..storage.atomic import atomic_path
from .ffmpeg import open_container, pyav, video_stream
from .frame import Frame, Video
from .frame_pixels import BT709

_TICKS = 90_000  # a second, of the time base of written files: a variable frame rate is kept
_MP4_SOUND = {"aac", "mp3", "ac3", "eac3", "alac"}  # copied as they are; others become AAC
_SOUND_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000}  # of AAC [Hz]


class VideoWriter:
    """Writes pictures to an H.264 .mp4 that all players show: `with VideoWriter(path, fps) as writer`.

    The size is that of the first picture, made even; later ones of another size are fitted into it. The file
    appears under its name only when it is complete.

    Args:
        path: of the .mp4.
        fps: frames a second on average; each frame has a time of its own.
        quality: x264's constant rate factor; 18 can hardly be told from the original, 28 is small.
        sound: a video whose first audio stream is copied, up to the last frame written; None: no sound.
            Files without sound, or whose sound cannot be read, give none.

    Raises ImportError without PyAV, OSError when the disk is full.
    """

    def __init__(self, path: Path, fps: float, *, quality: int = 20, sound: Path | None = None) -> None:
        self.path, self.fps, self.quality = Path(path), fps, quality
        self._open = contextlib.ExitStack()  # the draft of the file, its container, the source of the sound
        self._stream: Any = None
        self._source = sound
        self._sound: _Sound | None = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        with contextlib.ExitStack() as opened:
            draft = opened.enter_context(atomic_path(self.path))
            self._container = pyav().open(str(draft), "w", format="mp4")
            opened.callback(self._container.close)
            self._open = opened.pop_all()
        return self

    def write(self, pixels: np.ndarray, time: float) -> None:
        """(H, W, 3) uint8 RGB, shown from `time` on [s]; times rise."""
        if self._stream is None:
            self._open_streams(pixels)
        frame = pyav().VideoFrame.from_ndarray(self._fitted(pixels), format="rgb24")
        self._last = max(self._last + 1, round(time * _TICKS))
        frame.pts, frame.time_base = self._last, Fraction(1, _TICKS)
        frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range="MPEG")
        self._container.mux(self._stream.encode(frame))
        if self._sound is not None:
            self._sound.copy_until(self._last / _TICKS)

    def _open_streams(self, pixels: np.ndarray) -> None:
        rate = Fraction(self.fps).limit_denominator(1001)
        self._stream = self._container.add_stream("libx264", rate=rate)
        self._stream.width, self._stream.height = (max(2, side - side % 2) for side in pixels.shape[1::-1])
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = context.color_primaries = context.color_trc = BT709
        context.color_range = 1
        self._stream.options = {"crf": str(self.quality), "preset": "veryfast"}
        context.time_base = Fraction(1, _TICKS)
        if self._source is not None:
            self._sound = _Sound.open(self._source, self._container)
            if self._sound is not None:
                self._open.callback(self._sound.close)

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        size = (self._stream.height, self._stream.width)
        if pixels.shape[:2] == size:
            return pixels
        if all(0 <= now - wanted <= 1 for now, wanted in zip(pixels.shape[:2], size, strict=True)):
            return np.ascontiguousarray(pixels[: size[0], : size[1]])
        from PIL import Image, ImageOps

        return np.asarray(ImageOps.pad(Image.fromarray(pixels), size[::-1]))

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None and self._stream is not None:
                self._container.mux(self._stream.encode(None))
                if self._sound is not None:
                    self._sound.copy_until(self._last / _TICKS + 1 / self.fps)
                    self._sound.finish()
        except BaseException:
            self._open.__exit__(*sys.exc_info())
            raise
        self._open.__exit__(kind, error, trace)


class _Sound:
    """The audio stream of a file, copied packet by packet, or encoded as AAC where .mp4 does not take it."""

    def __init__(self, source: Any, stream: Any, container: Any) -> None:
        self._source, self._container = source, container
        pictures = source.streams.video[0]
        self._start = float((pictures.start_time or 0) * pictures.time_base)
        self._copied = stream.codec_context.name in _MP4_SOUND
        if self._copied:
            self._stream = container.add_stream_from_template(stream)
        else:
            rate = stream.codec_context.sample_rate
            self._stream = container.add_stream("aac", rate=rate if rate in _SOUND_RATES else 48_000)
            self._resampler = pyav().AudioResampler(
                format="fltp", layout="stereo", rate=self._stream.codec_context.sample_rate
            )
        self._packets = self._items(stream)
        self._next = next(self._packets, None)

    @classmethod
    def open(cls, path: Path, container: Any) -> _Sound | None:
        """Of the first audio stream of a file; None if it has none that can be read."""
        source = open_container(path)
        if source.streams.audio:
            with contextlib.suppress(pyav().error.FFmpegError, ValueError):
                video_stream(source, str(path))
                return cls(source, source.streams.audio[0], container)
        source.close()
        return None

    def _items(self, stream: Any) -> Iterator[Any]:
        """Packets, or frames to encode, from the first picture on, with timestamps that begin at it."""
        start = round(self._start / stream.time_base)
        with contextlib.suppress(pyav().error.FFmpegError):  # sound that breaks off ends there
            for packet in self._source.demux(stream):
                for item in [packet] if self._copied else packet.decode():
                    if item.pts is not None and item.pts >= start:
                        item.pts -= start
                        if self._copied:
                            item.dts = item.pts
                        yield item

    def copy_until(self, time: float) -> None:
        """Write the sound before `time` [s]."""
        while self._next is not None and float(self._next.pts * self._next.time_base) < time:
            self._write(self._next)
            self._next = next(self._packets, None)

    def _write(self, item: Any) -> None:
        if self._copied:
            item.stream = self._stream
            self._container.mux(item)
            return
        for frame in self._resampler.resample(item):
            self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds."""
        if not self._copied:
            self._container.mux(self._stream.encode(None))

    def close(self) -> None:
        self._source.close()


def recorded(video: Video, path: Path) -> Iterator[Frame]:
    """The frames of a live video, each written to the file `path` before it is given: it comes only once."""
    with VideoWriter(path, video.fps) as writer:
        for frame in video:
            writer.write(frame.image.pixels, frame.time)
            yield frame
