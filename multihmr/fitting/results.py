"""Fitted people as `Humans`, with their fitting errors."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.base import place
from multihmr.geometry import project
from multihmr.humans import Humans
from multihmr.humans import project as project_points
from multihmr.preprocessing.boxes import boxes_around


@dataclass(frozen=True, eq=False, repr=False)
class FittedHumans(Humans):
    """`Humans` that were fitted to points.

    errors_px  (N,) mean distance of the given points of body and hands from the fitted ones, over all views
               [pixels]; NaN without
    errors_mm  (N,) the same of points given in space [mm]; NaN without
    face_errors_px  (N,) that of the 68 points of the face in pictures [pixels]; NaN without
    """

    errors_px: np.ndarray | None = None
    errors_mm: np.ndarray | None = None
    face_errors_px: np.ndarray | None = None

    def __getitem__(self, index: int | slice | list[int] | np.ndarray) -> FittedHumans:
        """As of `Humans`."""
        chosen = super().__getitem__(index)
        assert isinstance(chosen, FittedHumans)
        empty = isinstance(index, list) and not index
        rows = np.atleast_1d(np.arange(len(self))[np.zeros(0, int) if empty else index])
        errors: dict[str, Any] = {}
        for name in ("errors_px", "errors_mm", "face_errors_px"):
            values = getattr(self, name)
            errors[name] = None if values is None else values[rows]
        return dataclasses.replace(chosen, **errors)


def moved(
    humans: FittedHumans,
    R: np.ndarray,
    t: np.ndarray,
    *,
    K: np.ndarray,
    K_source: str,
    image_size: tuple[int, int],
) -> FittedHumans:
    """The same people in the frame of another camera: points become R x + t [m]."""
    points = {
        name: (getattr(humans, name) @ R.T + t).astype(np.float32)
        for name in ("vertices", "joints", "translation", "pelvis")
    }
    pose = np.array(humans.pose)
    pose[:, 0] = R @ pose[:, 0]
    boxes = boxes_around(project_points(points["vertices"], K), image_size)
    joints_2d = project_points(points["joints"], K)
    return dataclasses.replace(
        humans,
        **points,
        pose=pose,
        joints_2d=joints_2d,
        boxes=boxes,
        K=K,
        K_source=K_source,
        image_size=image_size,
    )


@torch.no_grad()
def assemble(
    body: Anny,
    pose_PR33: torch.Tensor,
    shape_PS: torch.Tensor,
    expression_PE: torch.Tensor,
    pelvis_P3: torch.Tensor,
    *,
    K: np.ndarray,
    image_size: tuple[int, int],
    **fields: Any,
) -> FittedHumans:
    """The people with these parameters, whose pelvis stands at pelvis_P3 [m] in the camera's frame.

    fields: scores, K_source, unpredicted, errors_px, errors_mm, face_errors_px, track_ids.
    """
    expression = expression_PE.float()
    output = place(
        body(pose_PR33.float(), shape_PS.float(), expression), pelvis_P3.float(), body.pelvis_joint
    )
    K_33 = torch.from_numpy(np.array(K, np.float32))
    joints_2d = project(output.joints_PJ3, K_33)
    boxes = boxes_around(project(output.vertices_PV3, K_33).numpy(), image_size)
    return FittedHumans(
        vertices=output.vertices_PV3.numpy(),
        joints=output.joints_PJ3.numpy(),
        joints_2d=joints_2d.numpy(),
        boxes=boxes,
        translation=output.joints_PJ3[:, body.center_joint].numpy(),
        pelvis=output.joints_PJ3[:, body.pelvis_joint].numpy(),
        pose=pose_PR33.float().numpy(),
        shape=shape_PS.float().numpy(),
        expression=expression.numpy(),
        K=K,
        image_size=image_size,
        body=body.name,
        topology=body.topology,
        **fields,
    )
