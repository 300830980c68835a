"""Network outputs of one image -> `Humans` in pixels of the image as given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import Body
from ..geometry import project
from ..humans import Humans
from ..networks.base import OF_PEOPLE
from ..preprocessing.boxes import boxes_around
from ..preprocessing.distortion import Distortion

People = TypeVar("People", bound=Humans)


class Detections(NamedTuple):
    """The people of one letterboxed image in numpy, nearest first.

    people      arrays by the names in `networks.base.OF_PEOPLE`
    K           (3, 3) intrinsics that were used, in pixels of the letterboxed image
    projected   if known, in pixels of the letterboxed image: joints (N, J, 2), and the corners of the boxes
                around the vertices (N, 2, 2)
    """

    people: dict[str, np.ndarray]
    K: Tensor
    projected: tuple[np.ndarray, np.ndarray] | None = None


def people_of(humans: Humans) -> dict[str, np.ndarray]:
    """Copies of the arrays by the names in `networks.base.OF_PEOPLE`, as `to_humans` takes them."""
    return {name: np.array(getattr(humans, name)) for name in OF_PEOPLE}


def to_humans(
    people: dict[str, Any],
    body: Body,
    *,
    K: Tensor,
    K_source: str,
    image_size: tuple[int, int],
    unpredicted: tuple[str, ...] = (),
    projected: Sequence[np.ndarray] | None = None,
) -> Humans:
    """`Humans` of the arrays in `people`, whose order is kept.

    Args:
        people: arrays by the names in `networks.base.OF_PEOPLE`.
        body: the parametric body that the parameters belong to.
        K: (3, 3) intrinsics in pixels of the image.
        K_source: where K came from, one of `humans.K_SOURCES`.
        image_size: (height, width) in pixels.
        unpredicted: names of joints and expressions that the checkpoint never moves.
        projected: joints (N, J, 2) and the corners of the boxes (N, 2, 2) in pixels of the image where they
            are known already; None projects joints and vertices with K.
    """
    if projected is None:
        projected = [project(torch.from_numpy(people[name]), K).numpy() for name in ("joints", "vertices")]
    joints_2d, outline = projected
    return Humans(
        **people,
        joints_2d=joints_2d,
        boxes=boxes_around(outline, image_size),
        pelvis=people["joints"][:, body.pelvis_joint],
        track_ids=None,
        K=K.numpy(),
        K_source=K_source,
        image_size=image_size,
        body=body.name,
        topology=body.topology,
        unpredicted=unpredicted,
    )


def to_distorted_image(humans: People, K: np.ndarray, distortion: Distortion) -> People:
    """People predicted in an undistorted image, with their pixels in the original one.

    Args:
        humans: of `preprocessing.distortion.undistort_image`; 3D stays as it is.
        K: (3, 3) camera matrix of the original image.
        distortion: of its lens.

    Returns:
        The same people, `joints_2d` and `boxes` in pixels of the original image, with its K.
    """
    humans = replace(humans, K=K, K_source="given", distortion=distortion)
    boxes = humans.boxes
    if len(humans):
        boxes = boxes_around(humans.project(humans.vertices), humans.image_size)
    return replace(humans, joints_2d=humans.project(humans.joints), boxes=boxes)
