"""What a batch knows of its people: data sets leave out hands, shapes, cameras, or all but 2D keypoints.

Where something is missing it is NaN. `fill` puts in what lets the body run, and `Known` says which of the
targets that come out are true all the same, so that losses can leave the others out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import Body
from ..bodies.body_parts import PARTS, joint_parts
from ..bodies.topology import Topology
from ..data.sample import ANCHORS
from ..geometry import default_intrinsics
from .collate import Batch

MOVES = 0.05  # least share of a joint in a vertex that goes where it goes


@dataclass(frozen=True)
class Known:
    """Which targets are true, as booleans: what they stand beside is filled in where they are False.

    A joint's place in its body is known where the shape is, and all rotations above it; a vertex's where all
    rotations that move it are. In the head, the expression must be known, too.
    """

    camera_B: Tensor
    place_P: Tensor  # of the head in the camera frame, with a known camera
    pose_PR: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    joints_PJ: Tensor
    vertices_PV: Tensor
    points_2d_PM: Tensor
    points_3d_PM: Tensor


def what_is_known(batch: Batch, body: Body) -> Known:
    """By the NaN in a batch that `fill` has not seen. Infinite numbers are known, and a mistake."""
    pose_PR = ~batch.pose_PR33.isnan().flatten(2).any(-1)
    shape_PS, expression_PE = ~batch.shape_PS.isnan(), ~batch.expression_PE.isnan()
    movers = _movers(body.topology, batch.K_B33.device)
    unknown_PR, no_face_P1 = (~pose_PR).float(), ~expression_PE.all(1, keepdim=True)
    has_shape_P1 = shape_PS.all(1, keepdim=True)
    joints_PJ = has_shape_P1 & (unknown_PR @ movers.joints_RJ == 0) & ~(no_face_P1 & movers.face_J)
    vertices_PV = has_shape_P1 & (unknown_PR @ movers.vertices_RV == 0) & ~(no_face_P1 & movers.face_V)
    camera_B = ~batch.K_B33.isnan().flatten(1).any(1)
    at_head_P = batch.anchor_P == ANCHORS.index("center")
    there_P = ~batch.translation_P3.isnan().any(1) & (at_head_P | joints_PJ[:, body.center_joint])
    return Known(
        camera_B=camera_B,
        place_P=there_P & camera_B[batch.image_index_P],
        pose_PR=pose_PR,
        shape_PS=shape_PS,
        expression_PE=expression_PE,
        joints_PJ=joints_PJ,
        vertices_PV=vertices_PV,
        points_2d_PM=~batch.points_2d_PM2.isnan().any(-1),
        points_3d_PM=~batch.points_3d_PM3.isnan().any(-1),
    )


def fill(batch: Batch, body: Body) -> Batch:
    """The batch without NaN: an average body in its mean pose, 4 m away, under 60 degrees."""
    size = batch.images_BHW3.shape[1]
    ahead_3 = torch.tensor([0.0, 0.0, 4.0])
    return replace(
        batch,
        K_B33=_filled(batch.K_B33, default_intrinsics(size, size)),
        pose_PR33=_filled(batch.pose_PR33, body.mean_pose_R33),
        shape_PS=_filled(batch.shape_PS, body.mean_shape_S),
        expression_PE=_filled(batch.expression_PE, torch.zeros(())),
        translation_P3=_filled(batch.translation_P3, ahead_3),
        points_2d_PM2=_filled(batch.points_2d_PM2, torch.zeros(())),
        points_3d_PM3=_filled(batch.points_3d_PM3, torch.zeros(())),
    )


def _filled(tensor: Tensor, value: Tensor) -> Tensor:
    return torch.where(tensor.isnan(), value.to(tensor), tensor)


class _Movers(NamedTuple):
    """Who depends on what: joints and vertices on rotations (1 where they do) and on the expression."""

    joints_RJ: Tensor
    vertices_RV: Tensor
    face_J: Tensor  # booleans
    face_V: Tensor


@lru_cache(maxsize=8)
def _movers(topology: Topology, device: torch.device) -> _Movers:
    joints = len(topology.joint_names)
    turns_RJ = np.eye(joints, dtype=np.float32)[list(topology.pose_joints)]  # a rotation turns its joint ...
    moves_RJ = np.zeros_like(turns_RJ)
    for joint, parent in enumerate(topology.parents):
        if parent >= 0:
            moves_RJ[:, joint] = turns_RJ[:, parent]  # ... and so moves and turns all that hang on it
            turns_RJ[:, joint] = np.maximum(turns_RJ[:, joint], turns_RJ[:, parent])
    parts = joint_parts(topology) if topology.expression_names else {}
    head_J = np.isin(np.arange(joints), parts.get("head", ()))
    face_J = head_J & ~np.isin(topology.joint_names, PARTS["head"])  # that joint is not on the skin
    if topology.skin_indices is None or topology.skin_weights is None:
        # Nobody knows what moves a vertex: one column stands for all.
        vertices_RV, face_V = np.ones((len(turns_RJ), 1), np.float32), np.full(1, head_J.any())
    else:
        strong = topology.skin_weights > MOVES
        vertices_RV = (turns_RJ[:, topology.skin_indices] * strong).max(-1)
        face_V = (head_J[topology.skin_indices] & strong).any(-1)
    arrays = (moves_RJ, vertices_RV.astype(np.float32), face_J, face_V)
    return _Movers(*(torch.from_numpy(array).to(device) for array in arrays))
