"""People over time, frame by frame: `predict_video`; and video files out, `VideoWriter`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np

from ..bodies.base import Body
from ..humans import Humans
from ..preprocessing.image import LoadedImage
from .reader import Frame, open_video
from .tracker import LIVE, Tracking, follow
from .tracks import with_meshes

BATCH_MEGAPIXELS = 48  # of one batch: 8 frames of 1080p, one of 8K; memory does not follow the size
_CLOCK = 90_000  # ticks a second of files that are written: what varies in rate is shown when it happened


class Predictor(Protocol):
    """What predicts the frames: a `multihmr.Model`."""

    @property
    def body(self) -> Body:
        """The parametric body of the people."""
        ...

    @property
    def threshold(self) -> float:
        """Least score of a person where none is asked for."""
        ...

    def predict_batch(
        self,
        images: Iterable[Any],
        Ks: Sequence[Any] | None = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        tiles: int = 1,
        batch_size: int = 8,
    ) -> list[Humans]:
        """The people of each image."""
        ...


def predict_video(
    model: Predictor,
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
    new = model.threshold if threshold is None else threshold
    size = 1 if video.live else batch_size
    predicted = predict_frames(model, video, K, fov=fov, threshold=new / 2, tiles=tiles, batch_size=size)
    named = follow(((frame.time, humans) for frame, humans in predicted), chosen, new=new)
    return (with_meshes(humans, model.body) for humans in named)


def predict_frames(
    model: Predictor,
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

        def predict(photos: list[LoadedImage] = photos) -> list[Humans]:
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
