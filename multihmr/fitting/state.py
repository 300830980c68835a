"""`State`, the optimised variables of a fit, and `Observations`, its data, for P people in a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from multihmr.fitting.skeleton import rotation_matrix

T = TypeVar("T", bound="_Rows")


class _Rows:
    """Dataclasses of tensors whose first axis are the P rows."""

    def rows(self: T, index: Tensor) -> T:
        """Those at an index or mask (..,)."""
        names = [field.name for field in fields(cast(Any, self))]
        return type(self)(**{name: getattr(self, name)[index] for name in names})

    def where(self: T, mask_P: Tensor, other: T) -> T:
        """Rows of `other` where the mask is true."""
        values = {}
        for field in fields(cast(Any, self)):
            mine, theirs = getattr(self, field.name), getattr(other, field.name)
            values[field.name] = torch.where(mask_P.view(-1, *[1] * (mine.ndim - 1)), theirs, mine)
        return type(self)(**values)


@dataclass(frozen=True)
class State(_Rows):
    """root_P33 turns the body into the frame of the world (the first camera's), pelvis_P3 is the root joint
    there [m], pose_PD coordinates of the pose (the prior's, then those of hands), face_PE strengths of the
    facial actions that are fitted, in [0, 1], shape_PS in [0, 1], component_P which Gaussian of the prior
    holds.
    """

    root_P33: Tensor
    pelvis_P3: Tensor
    pose_PD: Tensor
    face_PE: Tensor
    shape_PS: Tensor
    component_P: Tensor

    def replaced(self, index: Tensor, other: State) -> State:
        """With the rows of `other` in the places `index`."""
        values = {}
        for field in fields(self):
            values[field.name] = getattr(self, field.name).clone()
            values[field.name][index] = getattr(other, field.name)
        return State(**values)

    def moved(self, step_PN: Tensor) -> State:
        """By (P, 3 + 3 + D + E + S) increments: turn of the root in the world's axes, pelvis, pose, face and
        shape.

        Without those of the face (E = 0) it stays as it is.
        """
        count, shapes = self.pose_PD.shape[1], self.shape_PS.shape[1]
        actions = step_PN.shape[1] - 6 - count - shapes
        turn, shift, pose, face, shape = step_PN.split([3, 3, count, actions, shapes], 1)
        return State(
            rotation_matrix(turn) @ self.root_P33,
            self.pelvis_P3 + shift,
            self.pose_PD + pose,
            (self.face_PE + face).clamp(0, 1) if actions else self.face_PE,
            (self.shape_PS + shape).clamp(0, 1),
            self.component_P,
        )


@dataclass(frozen=True)
class Observations(_Rows):
    """Points of P people in V views and in space; a weight of 0 marks a missing point.

    K_PV33, R_PV33, t_PV3   cameras: pixels = K (R x + t)
    xy_PVM2, weight_PVM     pixels; weights are confidences, 0 to 1
    sigma_PVM               how far off points are [pixels]
    xyz_PM3, weight_PM      metres in the frame of the world
    sigma_PM                how far off these are [m]
    height_P                how tall people are [m]; NaN where that is not known
    """

    K_PV33: Tensor
    R_PV33: Tensor
    t_PV3: Tensor
    xy_PVM2: Tensor
    weight_PVM: Tensor
    sigma_PVM: Tensor
    xyz_PM3: Tensor
    weight_PM: Tensor
    sigma_PM: Tensor
    height_P: Tensor
