"""Validity masks of partly annotated data: some lack hands, shapes, cameras, or all but 2D keypoints.

Missing annotations are NaN. `fill_missing` replaces them by values with which the body can be run, and
`ValidMask` says which of the resulting targets are true all the same; losses mask the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

from ..bodies.base import Body
from ..bodies.body_parts import PARTS, joint_parts
from ..bodies.topology import Topology
from ..data.sample import ANCHORS
from ..geometry import default_intrinsics
from .collate import Batch

MIN_SKIN_WEIGHT = 0.05  # of a joint, for a vertex to depend on it


@dataclass(frozen=True)
class ValidMask:
    """Which targets are valid, as booleans; where False, the target follows from a filled-in value.

    A joint's position in its body is valid if the shape is known, and all rotations above it; a vertex's if
    all rotations that move it are. In the head, the expression must be known, too.
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


def valid_mask(batch: Batch, body: Body, dependencies: Dependencies | None = None) -> ValidMask:
    """The valid mask of a batch, by its NaN. Infinite numbers count as known: they are a mistake.

    Args:
        batch: before `fill_missing`.
        body: that the batch will be run with.
        dependencies: of the body's topology; computed if not given.
    """
    dependencies = dependencies or Dependencies(body.topology).to(batch.K_B33.device)
    pose_PR = ~batch.pose_PR33.isnan().flatten(2).any(-1)
    shape_PS, expression_PE = ~batch.shape_PS.isnan(), ~batch.expression_PE.isnan()
    unknown_PR, no_face_P1 = (~pose_PR).float(), ~expression_PE.all(1, keepdim=True)
    has_shape_P1 = shape_PS.all(1, keepdim=True)
    joints_PJ = (
        has_shape_P1 & (unknown_PR @ dependencies.joints_RJ == 0) & ~(no_face_P1 & dependencies.face_J)
    )
    vertices_PV = (
        has_shape_P1 & (unknown_PR @ dependencies.vertices_RV == 0) & ~(no_face_P1 & dependencies.face_V)
    )
    camera_B = ~batch.K_B33.isnan().flatten(1).any(1)
    at_head_P = batch.anchor_P == ANCHORS.index("center")
    there_P = ~batch.translation_P3.isnan().any(1) & (at_head_P | joints_PJ[:, body.center_joint])
    return ValidMask(
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


def fill_missing(batch: Batch, body: Body) -> Batch:
    """The batch with NaN replaced: an average body in its mean pose, 4 m away, a field of view of 60°."""
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


class Dependencies(nn.Module):
    """Which joints and vertices of a body depend on which rotations (1 or 0), and on the expression.

    Buffers, so that they are freed with the objective that owns them and follow it to its device.
    """

    joints_RJ: Tensor
    vertices_RV: Tensor
    face_J: Tensor  # booleans
    face_V: Tensor

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        joints = len(topology.joint_names)
        turns_RJ = np.eye(joints, dtype=np.float32)[list(topology.pose_joints)]  # a rotation turns its joint
        moves_RJ = np.zeros_like(turns_RJ)
        for joint, parent in enumerate(topology.parents):
            if parent >= 0:
                moves_RJ[:, joint] = turns_RJ[:, parent]  # ... and so moves and turns all joints below it
                turns_RJ[:, joint] = np.maximum(turns_RJ[:, joint], turns_RJ[:, parent])
        parts = joint_parts(topology) if topology.expression_names else {}
        head_J = np.isin(np.arange(joints), parts.get("head", ()))
        face_J = head_J & ~np.isin(topology.joint_names, PARTS["head"])  # that joint is not on the skin
        if topology.skin_indices is None or topology.skin_weights is None:
            # Without skinning weights every rotation may move every vertex: one column stands for all.
            vertices_RV, face_V = np.ones((len(turns_RJ), 1), np.float32), np.full(1, head_J.any())
        else:
            strong = topology.skin_weights > MIN_SKIN_WEIGHT
            vertices_RV = (turns_RJ[:, topology.skin_indices] * strong).max(-1).astype(np.float32)
            face_V = (head_J[topology.skin_indices] & strong).any(-1)
        arrays = {"joints_RJ": moves_RJ, "vertices_RV": vertices_RV, "face_J": face_J, "face_V": face_V}
        for name, array in arrays.items():
            self.register_buffer(name, torch.from_numpy(array), persistent=False)
