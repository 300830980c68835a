"""Base network: computes `Predictions`, the raw outputs of a batch, from image tensors and intrinsics."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from ..geometry import fov_to_focal, intrinsics

if TYPE_CHECKING:
    from .detection import Centers
    from .joint_heatmaps import JointReading


# Fields of Humans that a network says; the others follow from these and the camera.
OF_PEOPLE = ("scores", "pose", "shape", "expression", "translation", "vertices", "joints")


@dataclass(frozen=True)
class Predictions:
    """What a network says about a batch of windows: torch, differentiable, all people in one flat list.

    Metres, in the camera frame of each window; pixels are those of the window.
    """

    centers: Centers  # image, row, column and score of each person
    pose_PR33: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    depth_code_P: Tensor  # see geometry.depth_to_code
    offset_P2: Tensor  # (x, y) from the middle of the cell to the head [cells]
    translation_P3: Tensor  # the head joint
    vertices_PV3: Tensor
    joints_PJ3: Tensor
    logits_Bhw: Tensor  # of the heatmap of heads
    fov_B: Tensor  # that the network sees over the side of its window [rad]
    K_B33: Tensor  # that was used
    reading: JointReading | None = None  # of networks that read joints off the patches
    coarse_PJ3: Tensor | None = None  # of networks that look twice: the joints of the first answer

    def of_image(self, index: int) -> dict[str, np.ndarray]:
        """numpy arrays of the people of one image, nearest first."""
        mine = self.centers.image_index_P == index
        mine = mine.nonzero()[:, 0]
        mine = mine[self.translation_P3[mine, 2].argsort(stable=True)]
        tensors = (
            self.centers.scores_P,
            self.pose_PR33,
            self.shape_PS,
            self.expression_PE,
            self.translation_P3,
            self.vertices_PV3,
            self.joints_PJ3,
        )
        return {
            name: tensor[mine].float().cpu().numpy() for name, tensor in zip(OF_PEOPLE, tensors, strict=True)
        }


def fingerprint(model: Any) -> str:
    """16 digits that change with the weights and the config of a model, that is with what it predicts."""
    digest = hashlib.sha256(repr(getattr(model, "config", None)).encode())
    state = model.state_dict() if isinstance(model, nn.Module) else {}
    for name, tensor in sorted(state.items()):
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(name.encode() + content.numpy().tobytes())
    return digest.hexdigest()[:16]


def own_camera(fov_B: Tensor, K_B33: Tensor | None, size: int) -> Tensor:
    """(B, 3, 3) the cameras given, where there are none those of this field of view [rad]: square pixels,
    principal point in the middle of windows of `size` pixels."""
    middle_B2 = fov_B.new_full((fov_B.shape[0], 2), size / 2)
    own_B33 = intrinsics(fov_to_focal(fov_B, float(size)), middle_B2)
    return own_B33 if K_B33 is None else torch.where(K_B33.isnan(), own_B33, K_B33)
