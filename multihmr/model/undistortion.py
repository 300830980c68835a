"""Predictions of images from a lens with distortion, on undistorted copies of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from ..humans import Humans
from ..postprocessing.to_humans import to_distorted_image
from ..preprocessing.boxes import check_boxes
from ..preprocessing.distortion import Distortion, undistort_boxes, undistort_image
from ..preprocessing.image import LoadedImage
from .options import Camera

Predict = Callable[[Sequence[LoadedImage], Sequence[Camera], Sequence[Any]], list[Humans]]


def predict_undistorted(
    predict: Predict,
    images: Sequence[LoadedImage],
    cameras: Sequence[Camera],
    boxes: Sequence[Any],
    lens: Distortion,
) -> list[Humans]:
    """`predict` on undistorted images; the people are given in pixels of the original ones.

    Args:
        predict: images, cameras and one table of boxes or None per image -> one Humans per image.
        images: of the lens.
        cameras: with the K that the lens was calibrated with.
        boxes: one (N, 4) table in pixels of its image, or None, per image.
        lens: its distortion.

    Raises:
        ValueError: a K is None, or a table of boxes cannot be used.
    """
    straight, straight_cameras, straight_boxes = [], [], []
    for image, (K, _), table in zip(images, cameras, boxes, strict=True):
        if K is None:
            raise ValueError("distortion needs K, the camera matrix that the lens was calibrated with")
        pinhole, new_K = undistort_image(image, K.numpy(), lens)
        straight.append(pinhole)
        straight_cameras.append((torch.from_numpy(new_K).float(), "given"))
        if table is not None:
            table = undistort_boxes(check_boxes(table, *image.pixels.shape[:2]), K.numpy(), lens, new_K)
        straight_boxes.append(table)
    found = predict(straight, straight_cameras, straight_boxes)
    return [
        to_distorted_image(humans, K.numpy(), lens)
        for humans, (K, _) in zip(found, cameras, strict=True)
        if K is not None
    ]
