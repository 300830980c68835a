"""Write videos: `VideoWriter` encodes frames with their own times."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..storage.atomic import atomic_path
from .predict import _CLOCK
from .reader import BT709, pyav

if TYPE_CHECKING:
    pass


class VideoWriter:
    """Writes pictures to an H.264 file that all players show: `with VideoWriter(path, fps) as film`.

    The size is that of the first picture, made even; later ones of another size are fitted into it. The file
    has its name only when it is complete. ImportError without PyAV; OSError when the disk is full.
    """

    def __init__(self, path: Path, fps: float, *, quality: int = 20) -> None:
        """quality: x264's constant rate factor; 18 can hardly be told from the original, 28 is small."""
        self.path, self.fps, self.quality = Path(path), fps, quality
        self._draft = atomic_path(self.path)
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        draft = self._draft.__enter__()
        try:
            self._container = pyav().open(str(draft), "w", format="mp4")
        except BaseException:
            self._draft.__exit__(*sys.exc_info())
            raise
        return self

    def write(self, pixels: np.ndarray, time: float) -> None:
        """(H, W, 3) uint8 RGB, shown from `time` on [s]; times rise."""
        av = pyav()
        if self._stream is None:
            self._stream = self._container.add_stream(
                "libx264", rate=Fraction(self.fps).limit_denominator(1001)
            )
            self._stream.width, self._stream.height = (
                max(2, side - side % 2) for side in pixels.shape[1::-1]
            )
            self._stream.pix_fmt = "yuv420p"
            context = self._stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = 1
            self._stream.options = {"crf": str(self.quality), "preset": "veryfast"}
            context.time_base = Fraction(1, _CLOCK)
        frame = av.VideoFrame.from_ndarray(self._fitted(pixels), format="rgb24")
        self._last = max(self._last + 1, round(time * _CLOCK))
        frame.pts, frame.time_base = self._last, Fraction(1, _CLOCK)
        frame = frame.reformat(format="yuv420p", dst_colorspace=BT709, dst_color_range="MPEG")
        self._container.mux(self._stream.encode(frame))

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
            self._container.close()
        except BaseException:
            self._draft.__exit__(*sys.exc_info())
            raise
        self._draft.__exit__(kind, error, trace)
