"""Base network: computes `Predictions`, the raw outputs of a batch, from image tensors and intrinsics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..bodies.base import Body, place
from ..geometry import fov_to_focal, intrinsics, unproject
from ..preprocessing.letterbox import Letterbox
from .backbones.base import Backbone
from .detection import Centers
from .joint_heatmaps import JointReading

# Fields of Humans that a network predicts; the others follow from these and the camera.
OF_PEOPLE = ("scores", "pose", "shape", "expression", "translation", "vertices", "joints")


@dataclass(frozen=True)
class Predictions:
    """Raw outputs of a network for a batch of images: torch, differentiable, all people in one flat list.

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
    fov_B: Tensor  # predicted field of view over the side of the input [rad]
    K_B33: Tensor  # that was used
    reading: JointReading | None = None  # of networks with a joint heatmap head
    coarse_PJ3: Tensor | None = None  # of networks with local refinement: joints of the coarse estimate

    def of_image(self, index: int) -> dict[str, np.ndarray]:
        """numpy arrays of the people of one image, nearest first."""
        mine = self.centers.image_index_P == index
        mine = mine.nonzero()[:, 0]
        mine = mine[self.translation_P3[mine].norm(dim=-1).argsort(stable=True)]
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


class Network(nn.Module):
    """Base class of the network families: computes `Predictions` from image tensors and intrinsics.

    A network knows tensors only; `multihmr.model.Model` holds one and predicts `Humans` of pictures.
    Subclasses set `family`, `config` and `backbone`, and define `forward`.

    Args:
        body: the parametric body that the network drives; its tensors are not part of the checkpoint.
    """

    family: str
    config: Any
    backbone: Backbone
    top_down: bool = False  # whether the input is the crop of one person rather than a whole picture

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    def letterbox(self, height: int, width: int, *, square: bool = False) -> Letterbox:
        """The transform from an image of `height` x `width` pixels to the network's input.

        square: pad it to a square also where the network takes rectangles.
        """
        return Letterbox.whole(height, width, self.config.image_size)

    @property
    def own_camera_source(self) -> str:
        """`Humans.K_source` of an image whose camera the network chose."""
        return "predicted"

    def assemble(
        self,
        parameters: tuple[Tensor, Tensor, Tensor],
        depth_P: Tensor,
        offset_P2: Tensor,
        *,
        centers: Centers,
        K_B33: Tensor,
        depth_code_P: Tensor,
        logits_Bhw: Tensor,
        fov_B: Tensor,
        reading: JointReading | None = None,
        coarse_PJ3: Tensor | None = None,
    ) -> Predictions:
        """Predictions of people with these (pose, shape, expression), each with the head on its ray.

        depth_P of the heads [m]; offset_P2 from the middles of their cells to the heads [cells]; the rest
        goes into Predictions as it is.
        """
        translation_P3 = self.head_positions(depth_P, offset_P2, centers, K_B33)
        body = place(self.body(*parameters), translation_P3, self.body.center_joint)
        pose_PR33, shape_PS, expression_PE = parameters
        return Predictions(
            centers=centers,
            pose_PR33=pose_PR33,
            shape_PS=shape_PS,
            expression_PE=expression_PE,
            offset_P2=offset_P2,
            translation_P3=translation_P3,
            vertices_PV3=body.vertices_PV3,
            joints_PJ3=body.joints_PJ3,
            depth_code_P=depth_code_P,
            logits_Bhw=logits_Bhw,
            fov_B=fov_B,
            K_B33=K_B33,
            reading=reading,
            coarse_PJ3=coarse_PJ3,
        )

    def empty(self, centers: Centers, *, K_B33: Tensor, logits_Bhw: Tensor, fov_B: Tensor) -> Predictions:
        """Predictions of pictures without people; `centers` is empty."""
        body, zeros = self.body, logits_Bhw.new_zeros
        counts = (body.rotation_count, 3, 3), (body.shape_count,), (body.expression_count,)
        pose_PR33, shape_PS, expression_PE = (zeros(0, *count) for count in counts)
        return self.assemble(
            (pose_PR33, shape_PS, expression_PE),
            zeros(0),
            zeros(0, 2),
            centers=centers,
            K_B33=K_B33,
            depth_code_P=zeros(0),
            logits_Bhw=logits_Bhw,
            fov_B=fov_B,
        )

    def head_positions(self, depth_P: Tensor, offset_P2: Tensor, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P, 3) where heads are [m] that lie at these depths [m] and offsets from their cells [cells]."""
        head_P12 = centers.heads(offset_P2)[:, None] * self.backbone.patch
        return unproject(head_P12, depth_P[:, None], K_B33[centers.image_index_P])[:, 0]


def own_camera(fov_B: Tensor, K_B33: Tensor | None, size: int | tuple[int, int]) -> Tensor:
    """(B, 3, 3) the cameras given, where there are none those of this field of view [rad]: square pixels,
    principal point in the middle of windows of `size` pixels, the side of squares or (height, width).

    The field of view spans the longer side.
    """
    height, width = (size, size) if isinstance(size, int) else size
    middle_B2 = torch.stack([torch.full_like(fov_B, width / 2), torch.full_like(fov_B, height / 2)], dim=-1)
    own_B33 = intrinsics(fov_to_focal(fov_B, float(max(height, width))), middle_B2)
    return own_B33 if K_B33 is None else torch.where(K_B33.isnan(), own_B33, K_B33)
