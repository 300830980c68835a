"""Fitted people as `Humans`, with how far each is from the points that were given."""

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


@dataclass(frozen=True, eq=False)
class FittedHumans(Humans):
    """`Humans` that were fitted to points.

    errors_px  (N,) mean distance of the given points from the fitted ones, over all views [pixels]; NaN
    without errors_mm  (N,) the same of points given in space [mm]; NaN without
    """

    errors_px: np.ndarray | None = None
    errors_mm: np.ndarray | None = None

    def __getitem__(self, index: int | slice | list[int] | np.ndarray) -> FittedHumans:
        """As of `Humans`."""
        chosen = super().__getitem__(index)
        assert isinstance(chosen, FittedHumans)
        rows = [] if isinstance(index, list) and not index else index
        errors: dict[str, Any] = {}
        for name in ("errors_px", "errors_mm"):
            values = getattr(self, name)
            if values is not None:
                picked = np.arange(len(self))[np.asarray(rows, int) if rows == [] else rows]
                errors[name] = values[np.atleast_1d(picked)]
        return dataclasses.replace(chosen, **errors)


@torch.no_grad()
def assemble(
    body: Anny,
    pose_PR33: torch.Tensor,
    shape_PS: torch.Tensor,
    pelvis_P3: torch.Tensor,
    *,
    K: np.ndarray,
    image_size: tuple[int, int],
    **fields: Any,
) -> FittedHumans:
    """The people with these parameters, whose pelvis stands at pelvis_P3 [m] in the camera's frame.

    fields: scores, K_source, unpredicted, errors_px, errors_mm, track_ids.
    """
    people = len(pose_PR33)
    expression = torch.zeros(people, body.expression_count)
    output = place(
        body(pose_PR33.float(), shape_PS.float(), expression), pelvis_P3.float(), body.pelvis_joint
    )
    K_33 = torch.from_numpy(np.array(K, np.float32))
    joints_2d = project(output.joints_PJ3, K_33)
    outline = project(output.vertices_PV3, K_33)
    height, width = image_size
    if people:
        boxes = torch.cat([outline.amin(1), outline.amax(1)], 1).clamp(min=0)
        boxes = torch.minimum(boxes, torch.tensor([width, height, width, height]))
    else:
        boxes = torch.zeros(0, 4)
    return FittedHumans(
        vertices=output.vertices_PV3.numpy(),
        joints=output.joints_PJ3.numpy(),
        joints_2d=joints_2d.numpy(),
        boxes=boxes.numpy(),
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
