"""Predict many images in constant memory: folders, globs, lists, iterables, addresses and videos."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..humans import Humans
from ..preprocessing.image import LoadedImage, load_image
from ..preprocessing.image_files import VIDEO_SUFFIXES, find_images
from .predict import Predictor
from .reader import open_video

READERS = 4  # threads that decode
_STREAMS = ("rtsp://", "rtsps://", "rtmp://", "srt://", "udp://")


def predict_many(
    model: Predictor, source: Any, *, batch_size: int = 8, **options: Any
) -> Iterator[tuple[Any, Humans]]:
    """Yield (source, people) of each image in order; at most three batches are in memory.

    Args:
        model: predicts the batches.
        source: a folder (with its subfolders), a glob, a path, an address, a video, or an iterable of what
            `predict` takes. Of images in files the path is yielded, of frames of a video (path, number), of
            other images their number.
        batch_size: images that go through the network at once; threads decode the next ones meanwhile.
        **options: of `predict_batch`: fov, threshold, max_people, tiles.

    Raises ValueError or OSError for an image that cannot be read, as it is reached.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    loaded = _read_ahead(_readers(source), 2 * batch_size)
    while batch := list(islice(loaded, batch_size)):
        images = [image for _, image in batch]
        found = model.predict_batch(images, batch_size=len(images), **options)
        yield from zip((name for name, _ in batch), found, strict=True)


def _readers(source: Any) -> Iterator[tuple[Any, Callable[[], LoadedImage]]]:
    """(what is yielded for it, a function that reads it) of each image."""
    if isinstance(source, (str, os.PathLike)):
        text = str(source)
        if text.startswith(_STREAMS) or Path(text).suffix.lower() in VIDEO_SUFFIXES:
            for frame in open_video(source):
                yield (text, frame.number), partial(load_image, frame.image)
            return
        found = find_images([text])
        if found.bad:
            raise ValueError(found.bad[0][1])
        for image in found.images:
            yield image, partial(load_image, image)
        return
    if not isinstance(source, Iterable):
        raise ValueError(f"expected a path or an iterable of images, got {type(source).__name__}")
    for number, image in enumerate(source):
        name = image if isinstance(image, (str, os.PathLike)) else number
        yield name, partial(load_image, image)


def _read_ahead(
    readers: Iterable[tuple[Any, Callable[[], LoadedImage]]], count: int
) -> Iterator[tuple[Any, LoadedImage]]:
    """The images in order, up to `count` of which are read before they are asked for."""
    waiting: deque[tuple[Any, Future[LoadedImage]]] = deque()
    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as pool:
        try:
            for name, read in readers:
                waiting.append((name, pool.submit(read)))
                if len(waiting) >= count:
                    name, future = waiting.popleft()
                    yield name, future.result()
            while waiting:
                name, future = waiting.popleft()
                yield name, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
