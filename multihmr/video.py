"""People over time, frame by frame: `predict_video`; and video files out, `VideoWriter`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from multihmr.frames import BT709, Frame, open_video, pyav
from multihmr.humans import Humans
from multihmr.image import Photo
from multihmr.sequence import stand
from multihmr.tracking import LIVE, Tracking, follow

if TYPE_CHECKING:
    from multihmr.model import Model

BATCH_MEGAPIXELS = 48  # of one batch: 8 frames of 1080p, one of 8K; memory does not follow the size
_CLOCK = 90_000  # ticks a second of files that are written: what varies in rate is shown when it happened


def predict_video(
    model: Model,
    source: Any,
    K: Any = None,
    *,
    fov: float | None = None,
    threshold: float | None = None,
    tiles: int = 1,
    batch_size: int = 8,
    tracking: Tracking | None = None,
) -> Iterator[Humans]:
    """`Model.predict_video`, which see."""
    video = open_video(source)
    chosen = tracking or (LIVE if video.live else Tracking())
    new = model.config.threshold if threshold is None else threshold
    size = 1 if video.live else batch_size
    predicted = predict_frames(model, video, K, fov=fov, threshold=new / 2, tiles=tiles, batch_size=size)
    named = follow(((frame.time, humans) for frame, humans in predicted), chosen, new=new)
    return (stand(humans, model.body) for humans in named)


def predict_frames(
    model: Model,
    frames: Iterable[Frame],
    K: Any = None,
    *,
    fov: float | None = None,
    threshold: float | None = None,
    tiles: int = 1,
    batch_size: int = 8,
    held: dict[tuple[int, int], np.ndarray] | None = None,
) -> Iterator[tuple[Frame, Humans]]:
    """What the model sees in each frame by itself, without identities; the camera is held.

    Where the network itself sees the camera, the median of the first batch counts for all frames of the same
    size: a person who stands still would else come and go with the field of view. `held` has those that are
    known already, by (height, width).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    held = {} if held is None else held
    for batch in _batches(frames, batch_size):
        photos = [frame.photo for frame in batch]

        def predict(photos: list[Photo] = photos) -> list[Humans]:
            Ks = [K if K is not None else held.get(photo.pixels.shape[:2]) for photo in photos]
            options: dict[str, Any] = {"fov": fov, "threshold": threshold, "tiles": tiles}
            return model.predict_batch(photos, Ks, batch_size=len(photos), **options)

        found = predict()
        seen = [humans for humans in found if humans.K_source == "predicted"]
        if seen:
            for size in {humans.image_size for humans in seen}:
                held[size] = np.median([humans.K for humans in seen if humans.image_size == size], axis=0)
            found = predict()
        for frame, humans in zip(batch, found, strict=True):
            own = K is None and fov is None and humans.image_size in held
            yield frame, replace(humans, K_source="predicted") if own else humans


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """As many frames as fit: not more than `size`, and one or `BATCH_MEGAPIXELS`, judged by the last one."""
    batch: list[Frame] = []
    try:
        for frame in frames:
            batch.append(frame)
            megapixels = frame.photo.pixels.size / 3e6
            if len(batch) == size or (len(batch) + 1) * megapixels > BATCH_MEGAPIXELS:
                yield batch
                batch = []
    except OSError:  # a webcam was unplugged: what it gave comes first
        if batch:
            yield batch
        raise
    if batch:
        yield batch


class VideoWriter:
    """Writes pictures to an H.264 file that all players show: `with VideoWriter(path, fps) as film`.

    The size is that of the first picture, made even; later ones of another size are fitted into it. The file
    has its name only when it is complete. ImportError without PyAV; OSError when the disk is full.
    """

    def __init__(self, path: Path, fps: float, *, quality: int = 20) -> None:
        """quality: x264's constant rate factor; 18 can hardly be told from the original, 28 is small."""
        self.path, self.fps, self.quality = Path(path), fps, quality
        self._unfinished = self.path.with_name(f".{self.path.name}.unfinished")
        self._stream: Any = None
        self._last = -1

    def __enter__(self) -> VideoWriter:
        self._container = pyav().open(str(self._unfinished), "w", format="mp4")
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
            if kind is None:
                self._unfinished.replace(self.path)
        finally:
            self._unfinished.unlink(missing_ok=True)
