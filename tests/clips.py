"""Short films and a stand-in for a model, for the tests of videos."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from toys import ToyBody, random_humans

from multihmr.humans import Humans
from multihmr.preprocessing.image import LoadedImage

av = pytest.importorskip("av")
RED, GREY = (250, 0, 0), (90, 90, 90)


def picture(size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """Grey, the upper left quarter red."""
    pixels = np.full((*size, 3), GREY, np.uint8)
    pixels[: size[0] // 2, : size[1] // 2] = RED
    return pixels


def write_film(path: Path, pictures: list[np.ndarray], fps: int = 10, **settings: Any) -> Path:
    """By PyAV itself; settings: codec, pix_fmt, rotation, color_trc, tags of the stream's codec."""
    codec, rotation = settings.pop("codec", "libx264"), settings.pop("rotation", 0)
    pixel_format, source = settings.pop("pix_fmt", "yuv420p"), settings.pop("source", "rgb24")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = pixel_format
        for name, value in settings.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(rotation)
        for pixels in pictures:
            frame = av.VideoFrame.from_ndarray(pixels, format=source)
            space = "bt2020" if "color_trc" in settings else "itu601"
            frame = frame.reformat(format=pixel_format, dst_colorspace=space, dst_color_range="MPEG")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


class StandIn:
    """A model that sees the same two people in every picture; keeps what it was asked for."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.body, self.threshold, self.config = ToyBody(), 0.3, SimpleNamespace()
        self.stop_after = stop_after
        self.sizes: list[tuple[int, int]] = []
        self.Ks: list[Any] = []
        self._people = random_humans(self.body, 2)

    def predict_batch(self, photos: list[LoadedImage], Ks: list[Any], **options: Any) -> list[Humans]:
        return [self._predict(photo, K, options["fov"]) for photo, K in zip(photos, Ks, strict=True)]

    def _predict(self, photo: LoadedImage, K: Any, fov: float | None) -> Humans:
        if len(self.sizes) >= self.stop_after:
            raise KeyboardInterrupt
        self.sizes.append(photo.pixels.shape[:2])
        self.Ks.append(K)
        focal = 100.0 + len(self.Ks)
        camera = {"K": [[focal, 0, 32], [0, focal, 24], [0, 0, 1]], "K_source": "predicted"}
        if K is not None or fov is not None:
            camera = {"K": camera["K"] if K is None else K, "K_source": "given"}
        return dataclasses.replace(self._people, image_size=self.sizes[-1], **camera)
