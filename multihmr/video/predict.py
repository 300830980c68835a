"""Predict a video: people per frame (`predict_frames`), tracked (`predict_video`), or into a cache."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import numpy as np

from ..bodies.base import Body
from ..humans import Humans
from ..preprocessing.camera import check_intrinsics
from ..preprocessing.distortion import DistortionLike
from ..preprocessing.image import LoadedImage
from .frame import Frame, Video
from .prediction_cache import PredictionCache
from .reader import VideoSource, open_video
from .tracker import LIVE, Tracking, follow
from .tracks import with_meshes

BATCH_MEGAPIXELS = 48  # of one batch: 8 frames of 1080p, one of 8K; memory does not follow the size


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
        tiles: int | Literal["auto"] = 1,
        batch_size: int = 8,
        flip_test: bool = False,
        hands_and_faces: bool = False,
        distortion: DistortionLike | None = None,
        any_rotation: bool | Literal["auto"] = "auto",
        limbs: bool = True,
        search_below: float | None = None,
    ) -> list[Humans]:
        """The people of each image."""
        ...


def predict_video(
    model: Predictor,
    source: VideoSource,
    K: Any = None,
    *,
    fov: float | None = None,
    threshold: float | None = None,
    tiles: int | Literal["auto"] = 1,
    flip_test: bool = False,
    hands_and_faces: bool = False,
    limbs: bool = True,
    distortion: DistortionLike | None = None,
    batch_size: int = 8,
    tracking: Tracking | None = None,
) -> Iterator[Humans]:
    """People of each frame with `track_ids`, as `Model.predict_video` documents."""
    video = open_video(source)
    chosen = tracking or (LIVE if video.live else Tracking())
    new = model.threshold if threshold is None else threshold
    size = 1 if video.live else batch_size
    options: dict[str, Any] = {"fov": fov, "threshold": new / 2, "tiles": tiles, "flip_test": flip_test}
    options |= {"hands_and_faces": hands_and_faces, "limbs": limbs, "distortion": distortion}
    predicted = predict_frames(model, video, K, batch_size=size, least_score=new, **options)
    named = follow(((frame.time, humans) for frame, humans in predicted), chosen, new=new)
    return (with_meshes(humans, model.body) for humans in named)


def predict_into_cache(
    model: Predictor,
    video: Video,
    cache: PredictionCache,
    K: Any = None,
    *,
    fov: float | None = None,
    threshold: float | None = None,
    tiles: int | Literal["auto"] = 1,
    flip_test: bool = False,
    hands_and_faces: bool = False,
    limbs: bool = True,
    distortion: DistortionLike | None = None,
    batch_size: int = 8,
    count: int | None = None,
    progress: Callable[[], Any] = lambda: None,
) -> None:
    """Predict the frames of a video that the cache lacks; those done when it stops for any reason are kept.

    Args:
        threshold: least score of a new person; predictions of half of it are kept, for people who are
            tracked already (`follow`).
        count: only the first `count` frames of the video; None: all.
        progress: called after each frame.
    """
    new = model.threshold if threshold is None else threshold
    predicted = predict_frames(
        model,
        itertools.islice(video, cache.count, count),
        K,
        fov=fov,
        threshold=new / 2,
        tiles=tiles,
        flip_test=flip_test,
        hands_and_faces=hands_and_faces,
        limbs=limbs,
        distortion=distortion,
        batch_size=1 if video.live else batch_size,
        least_score=new,
        held=_held_cameras(cache, model),
    )
    try:
        for frame, humans in predicted:
            cache.add(frame.time, humans)
            progress()
    finally:
        cache.flush()
    if count is None or cache.count < count:
        cache.finish()


def _held_cameras(cache: PredictionCache, model: Predictor) -> dict[tuple[int, int], Any]:
    """The cameras that the network predicted in the frames that are done, by image size."""
    done = (humans for _, humans in cache.read(model.body.topology))
    return {humans.image_size: humans.K for humans in done if humans.K_source == "predicted"}


def predict_frames(
    model: Predictor,
    frames: Iterable[Frame],
    K: Any = None,
    *,
    fov: float | None = None,
    threshold: float | None = None,
    tiles: int | Literal["auto"] = 1,
    flip_test: bool = False,
    hands_and_faces: bool = False,
    limbs: bool = True,
    distortion: DistortionLike | None = None,
    batch_size: int = 8,
    least_score: float | None = None,
    held: dict[tuple[int, int], np.ndarray] | None = None,
) -> Iterator[tuple[Frame, Humans]]:
    """(frame, people) of each frame by itself, without identities; a predicted camera is held.

    Where the network predicts the camera, the median over the first batch is used for all frames of the same
    size: else a person at rest would move with the field of view.

    Args:
        least_score: of people who count as found, if it is above `threshold`: frames without any are searched
            once more, for people too near to fit in or with tiles="auto", also where a weaker one is kept.
        held: the cameras that are known already, by (height, width).
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    held = {} if held is None else held
    for batch in _batches(frames, batch_size):
        images = [frame.image for frame in batch]
        if K is not None:
            for image in images:
                check_intrinsics(K, *image.pixels.shape[:2])

        def predict(images: list[LoadedImage] = images) -> list[Humans]:
            Ks = [K if K is not None else held.get(image.pixels.shape[:2]) for image in images]
            options: dict[str, Any] = {"fov": fov, "threshold": threshold, "tiles": tiles}
            # Cameras are held upright and films say how they are turned; one frame may not lie otherwise
            # than the next because a person bends down.
            options["any_rotation"] = False
            if least_score is not None:
                options["search_below"] = least_score
            if flip_test:  # other predictors need not know it
                options["flip_test"] = True
            if hands_and_faces:
                options["hands_and_faces"] = True
            if not limbs:
                options["limbs"] = False
            if distortion is not None:
                options["distortion"] = distortion
            return model.predict_batch(images, Ks, batch_size=len(images), **options)

        found = predict()
        own = [humans for humans in found if humans.K_source == "predicted"]
        if own:
            for size in {humans.image_size for humans in own}:
                held[size] = np.median([humans.K for humans in own if humans.image_size == size], axis=0)
            found = predict()
        for frame, humans in zip(batch, found, strict=True):
            is_held = K is None and fov is None and humans.image_size in held
            yield frame, replace(humans, K_source="predicted") if is_held else humans


def _batches(frames: Iterable[Frame], size: int) -> Iterator[list[Frame]]:
    """Lists of at most `size` frames and, if more than one, of at most `BATCH_MEGAPIXELS`."""
    batch: list[Frame] = []
    try:
        for frame in frames:
            batch.append(frame)
            megapixels = frame.image.pixels.size / 3e6
            if len(batch) == size or (len(batch) + 1) * megapixels > BATCH_MEGAPIXELS:
                yield batch
                batch = []
    except OSError:  # a webcam was unplugged: what it gave comes first
        if batch:
            yield batch
        raise
    if batch:
        yield batch
