"""One pass of a network over each image of a batch: letterbox, runtime, `Humans` in pixels of the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import posed
from ..humans import Humans
from ..postprocessing.to_humans import Detections, people_of, to_humans
from ..preprocessing.image import LoadedImage
from ..preprocessing.letterbox import Letterbox
from ..runtime.network_handle import NetworkHandle
from .options import Camera, PredictOptions


@torch.inference_mode()
def predict_whole_images(
    model: NetworkHandle, images: Sequence[LoadedImage], cameras: Sequence[Camera], options: PredictOptions
) -> list[Humans]:
    """The people of a batch of images, each of which goes through the network once.

    Of `options`, `threshold` and `max_people` count. Where a camera is None, the network predicts it.
    """
    letterboxes = [
        model.network.letterbox(*image.pixels.shape[:2], square=model.runtime.square) for image in images
    ]
    unknown_33 = torch.full((3, 3), math.nan, dtype=torch.float32, device="cpu")
    K_B33 = torch.stack(
        [
            unknown_33 if K is None else letterbox.intrinsics(K)
            for letterbox, (K, _) in zip(letterboxes, cameras, strict=True)
        ]
    )
    detected = _run_batches(model, [image.pixels for image in images], letterboxes, K_B33, options)
    result = []
    for image, letterbox, (K, source), found in zip(images, letterboxes, cameras, detected, strict=True):
        if K is None:
            K, source = letterbox.image_intrinsics(found.K), model.network.own_camera_source
        projected = None
        if found.projected is not None:
            projected = [letterbox.inverse_points(points) for points in found.projected]
        result.append(assemble_humans(model, found.people, image, K, source, projected))
    return result


def _run_batches(
    model: NetworkHandle,
    images: Sequence[np.ndarray],
    letterboxes: Sequence[Letterbox],
    K_B33: Tensor,
    options: PredictOptions,
) -> list[Detections]:
    """What the runtime finds in each image; those whose windows have the same shape are one batch."""
    batches: dict[tuple[int, int], list[int]] = {}
    for i, letterbox in enumerate(letterboxes):
        batches.setdefault(letterbox.shape, []).append(i)
    detected: dict[int, Detections] = {}
    for rows in batches.values():
        found = model.runtime(
            [images[i] for i in rows],
            [letterboxes[i] for i in rows],
            K_B33[rows],
            options.threshold,
            options.max_people,
        )
        detected.update(zip(rows, found, strict=True))
    return [detected[i] for i in range(len(images))]


def assemble_humans(
    model: NetworkHandle,
    people: dict[str, np.ndarray],
    image: LoadedImage,
    K: Tensor,
    K_source: str,
    projected: Sequence[np.ndarray] | None = None,
) -> Humans:
    """`Humans` of the model's body from arrays by the names in `networks.base.OF_PEOPLE`; see `to_humans`."""
    height, width = image.pixels.shape[:2]
    return to_humans(
        people,
        model.body,
        K=K,
        K_source=K_source,
        image_size=(height, width),
        unpredicted=model.config.unpredicted,
        projected=projected,
    )


def reposed(
    model: NetworkHandle, image: LoadedImage, humans: Humans, rows: Sequence[int], **parameters: np.ndarray
) -> Humans:
    """The people with other parameters, which differ from theirs in some rows."""
    people = people_of(humans) | parameters
    some = (people[name][rows] for name in ("pose", "shape", "expression", "translation"))
    people["vertices"][rows], people["joints"][rows] = posed(model.body, *some)
    return assemble_humans(model, people, image, torch.tensor(humans.K), humans.K_source)
