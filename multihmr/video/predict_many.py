"""Predict many images in constant memory: folders, globs, lists, iterables, addresses and videos."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ..humans import Humans
from ..preprocessing.image import LoadedImage, load_image
from ..preprocessing.image_files import VIDEO_SUFFIXES, find_images
from ..preprocessing.types import IntrinsicsLike
from .predict import Predictor
from .reader import open_video

OnError: TypeAlias = Literal["raise", "skip", "return"]
READERS = 4  # threads that decode
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "srt://", "udp://")


def predict_many(
    model: Predictor,
    source: Any,
    K: IntrinsicsLike | None = None,
    *,
    batch_size: int = 8,
    on_error: OnError = "raise",
    **options: Any,
) -> Iterator[tuple[Any, Humans | Exception]]:
    """Yield (source, people) of each image in order; at most three batches are in memory.

    Args:
        model: predicts the batches.
        source: a folder (with its subfolders), a glob, a path, an address, a video, or an iterable of what
            `predict` takes. Of images in files the path is yielded, of frames of a video (path, number), of
            other images their number.
        K: (3, 3) intrinsics in pixels of the one camera that took all images; None: as in `predict`.
        batch_size: images that go through the network at once; threads decode the next ones meanwhile.
        on_error: what happens to an image that cannot be read: "raise" ends the iteration with its ValueError
            or OSError, "skip" leaves it out, "return" yields the error in place of the people.
        **options: of `predict_batch`: fov, threshold, max_people, tiles, distortion.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    if on_error not in ("raise", "skip", "return"):
        raise ValueError(f"on_error must be one of raise, skip, return, got {on_error!r}")
    return _predict_batches(model, source, K, batch_size, on_error, options)


def _predict_batches(
    model: Predictor,
    source: Any,
    K: IntrinsicsLike | None,
    batch_size: int,
    on_error: OnError,
    options: dict[str, Any],
) -> Iterator[tuple[Any, Humans | Exception]]:
    loaded = _read_ahead(_readers(source, on_error), 2 * batch_size)
    while batch := list(islice(loaded, batch_size)):
        images = [image for _, image in batch if isinstance(image, LoadedImage)]
        given = options if K is None else options | {"Ks": [K] * len(images)}
        found = iter(model.predict_batch(images, batch_size=len(images), **given) if images else ())
        for name, image in batch:
            if isinstance(image, LoadedImage):
                yield name, next(found)
            elif on_error == "raise":
                raise image
            elif on_error == "return":
                yield name, image


def _readers(source: Any, on_error: OnError) -> Iterator[tuple[Any, Callable[[], LoadedImage]]]:
    """(what is yielded for it, a function that reads it) of each image."""
    if isinstance(source, (str, os.PathLike)):
        text = str(source)
        if text.startswith(_STREAMS) or Path(text).suffix.lower() in VIDEO_SUFFIXES:
            for frame in open_video(source):
                yield (text, frame.number), partial(load_image, frame.image)
            return
        found = find_images([text])
        if found.bad and (on_error == "raise" or not found.images):
            raise ValueError(found.bad[0][1])
        if on_error == "return":
            for path, reason in found.bad:
                yield path, partial(_fail, reason)
        for image in found.images:
            yield image, partial(load_image, image)
        return
    if not isinstance(source, Iterable):
        raise ValueError(f"expected a path or an iterable of images, got {type(source).__name__}")
    if isinstance(source, (bytes, bytearray)) or getattr(source, "ndim", 4) < 4:
        raise ValueError(f"expected several images, got one as {type(source).__name__}; use predict for it")
    for number, image in enumerate(source):
        name = image if isinstance(image, (str, os.PathLike)) else number
        yield name, partial(load_image, image)


def _fail(reason: str) -> LoadedImage:
    raise ValueError(reason)


def _loaded(read: Callable[[], LoadedImage]) -> LoadedImage | Exception:
    """The image, or why it cannot be read."""
    try:
        return read()
    except (ValueError, OSError) as error:
        return error


def _read_ahead(
    readers: Iterable[tuple[Any, Callable[[], LoadedImage]]], count: int
) -> Iterator[tuple[Any, LoadedImage | Exception]]:
    """The images in order, up to `count` of which are read before they are asked for."""
    waiting: deque[tuple[Any, Future[LoadedImage | Exception]]] = deque()
    pool = ThreadPoolExecutor(READERS, thread_name_prefix="read")
    try:
        for name, read in readers:
            waiting.append((name, pool.submit(_loaded, read)))
            if len(waiting) >= count:
                name, future = waiting.popleft()
                yield name, future.result()
        while waiting:
            name, future = waiting.popleft()
            yield name, future.result()
    finally:
        # Without waiting: if an iteration is left early the garbage collector may end this, in a thread of
        # the pool, which cannot wait for itself.
        pool.shutdown(wait=False, cancel_futures=True)
