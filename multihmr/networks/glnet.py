"""GLNet: global stage of every pixel of a crop, local stage around the keypoints of the best one.

"Global-to-Pixel Regression for Human Mesh Recovery" (Xiao, He, Yu, ECCV 2024); there is no public code, and
the poster, which holds where texts differ, leaves much open. Chosen here, with a comment at each place:
the grid of stride 8, how features become global (glnet_stages.py), the parts (training/glnet_parts.py), the
row of parameters (glnet_parameters.py), that only queried pixels predict more than a score and keypoints, and
how people are placed in camera space.

Legend of shape suffixes: B crops, Q queried pixels of each, N = B Q, D features, h w grid, M
keypoints, C columns of a row of numbers, R rotations.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import torch
from einops import rearrange
from torch import Tensor

from ..bodies.base import Body
from ..geometry import code_to_depth, default_intrinsics, focal_to_fov, unproject
from .backbones.timm_backbones import create_backbone
from .base import Network, Predictions
from .configs import GLNetConfig
from .detection import Centers
from .glnet_parameters import DecodedParams, Theta, crop_rotation
from .glnet_stages import GlobalStage, LocalStage, Pixels
from .joint_heatmaps import patch_middles


class GLNetOutput(NamedTuple):
    """Predictions of N pixels, one person each, and their decoded parameters."""

    people: Predictions
    meaning: DecodedParams


class GLNet(Network):
    """A backbone, the global stage of every pixel, the local stage of the best one, and the body.

    Args:
        config: its sizes.
        body: the parametric body that it drives; not part of the weights.
        pretrained: start the backbone from public weights (training only): its own, or those of "imagenet".

    ValueError: the parts do not move every rotation of the body once.
    """

    family = "glnet"
    renamed_parameters: ClassVar[dict[str, str]] = {"at_a_glance": "global_head", "around": "local_head"}
    top_down = True

    def __init__(self, config: GLNetConfig, body: Body, *, pretrained: bool | str = False) -> None:
        super().__init__(body)
        _check_parts(config, body)
        self.config = config
        self.backbone = create_backbone(config.backbone, image_size=config.image_size, pretrained=pretrained)
        turned = [joint for joint in config.keypoints if joint in body.topology.pose_joints]
        self.theta = Theta(body, turned, decomposed=config.decomposed)
        self.global_head = GlobalStage(config, self.backbone, len(config.keypoints), self.theta)
        face = max(i for i, (guides, _) in enumerate(config.parts) if body.center_joint in guides)
        self.local_head = (
            LocalStage(config, self.backbone.map_widths, self.theta, face) if config.local else None
        )

    @property
    def stride(self) -> int:
        """Stride of the grid in pixels of the crop."""
        return self.global_head.stride

    def encode(self, images_B3HW: Tensor, K_B33: Tensor | None = None, *, keypoints: bool = True) -> Pixels:
        """Global stage for all pixels of crops, RGB in [0, 1]; without K_B33 a field of view of 60
        degrees is assumed.

        keypoints: predict those of all pixels, for matching; `local_stage` predicts those of its own pixels.
        """
        size = self.config.image_size
        if tuple(images_B3HW.shape[-2:]) != (size, size):
            raise ValueError(f"this network takes {size}x{size} crops, got {tuple(images_B3HW.shape)}")
        assumed_B33 = default_intrinsics(size, size).to(images_B3HW).expand(len(images_B3HW), 3, 3)
        K_B33 = assumed_B33 if K_B33 is None else torch.where(K_B33.isnan(), assumed_B33, K_B33)
        return self.global_head(self.backbone(images_B3HW), K_B33, keypoints=keypoints)

    def global_stage(self, pixels: Pixels, index_BQ: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, Q, D) of the pixels with these indices, and their parameters Theta_0 (B, Q, C)."""
        x_BQD = _picked(rearrange(pixels.features_BDhw, "b d h w -> b (h w) d"), index_BQ)
        return x_BQD, self.global_head.to_theta(x_BQD) + self.theta.mean_C

    def local_stage(
        self, pixels: Pixels, index_BQ: Tensor, x_BQD: Tensor, theta_BQC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Theta = Theta_0 + Delta Theta (B, Q, C), and logits (B, Q) by which the best pixel is chosen."""
        assert self.local_head is not None, "this network has no local stage"
        height, width = pixels.logits_Bhw.shape[1:]
        middles_BQ2 = patch_middles(height, width, x_BQD.device).flatten(0, 1)[index_BQ]
        places_BQM2 = self.global_head.keypoints(x_BQD, middles_BQ2)
        return self.local_head(x_BQD, theta_BQC, places_BQM2, pixels.maps)

    def decode(self, pixels: Pixels, crop_N: Tensor, index_N: Tensor, theta_NC: Tensor) -> GLNetOutput:
        """Decode parameter rows to people, in the cameras of their crops.

        crop_N, index_N: crop and pixel index of each row.
        """
        size, width = self.config.image_size, pixels.logits_Bhw.shape[2]
        scores_N = pixels.logits_Bhw.flatten(1)[crop_N, index_N].sigmoid()
        meaning = self.theta(theta_NC, crop_rotation(pixels.K_B33, size)[crop_N])
        focal_B = pixels.K_B33[:, 0, 0]
        people = self.assemble(
            (meaning.pose_NR33, meaning.shape_NS, meaning.expression_NE),
            code_to_depth(meaning.depth_code_N, focal_B[crop_N], size),
            meaning.head_N2 * width,
            centers=Centers(crop_N, index_N // width, index_N % width, scores_N),
            K_B33=pixels.K_B33,
            depth_code_P=meaning.depth_code_N,
            logits_Bhw=pixels.logits_Bhw,
            fov_B=focal_to_fov(focal_B, size),
        )
        return GLNetOutput(people, meaning)

    def forward(self, images_B3HW: Tensor, K_B33: Tensor | None = None) -> Predictions:
        """One person for each crop: the prediction of its best pixel.

        Args:
            images_B3HW: crops, RGB in [0, 1], sides of `config.image_size` pixels.
            K_B33: intrinsics in pixels of these crops; where it is None or NaN, 60 degrees are assumed.
        """
        pixels = self.encode(images_B3HW, K_B33, keypoints=False)
        index_BQ = pixels.logits_Bhw.flatten(1).topk(self.config.candidates).indices
        x_BQD, theta_BQC = self.global_stage(pixels, index_BQ)
        if self.local_head is not None:
            theta_BQC, logits_BQ = self.local_stage(pixels, index_BQ, x_BQD, theta_BQC)
            best_B1 = logits_BQ.argmax(1, keepdim=True)
            index_BQ, theta_BQC = index_BQ.gather(1, best_B1), _picked(theta_BQC, best_B1)
        crop_B = torch.arange(len(images_B3HW), device=index_BQ.device)
        return self.decode(pixels, crop_B, index_BQ[:, 0], theta_BQC[:, 0]).people

    @property
    def own_camera_source(self) -> str:
        return "assumed"

    def head_positions(self, depth_P: Tensor, offset_P2: Tensor, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P, 3) head positions [m] from depths [m] and offsets from their grid cells [cells]."""
        head_P12 = centers.heads(offset_P2)[:, None] * self.stride
        return unproject(head_P12, depth_P[:, None], K_B33[centers.image_index_P])[:, 0]


def _picked(x_BND: Tensor, index_BQ: Tensor) -> Tensor:
    """(B, N, D) -> (B, Q, D), the rows with these indices."""
    return x_BND.gather(1, index_BQ[..., None].expand(-1, -1, x_BND.shape[-1]))


def _check_parts(config: GLNetConfig, body: Body) -> None:
    moved = sorted(rotation for _, rotations in config.parts for rotation in rotations)
    if moved != list(range(body.rotation_count)):
        raise ValueError(
            f"the parts must move each of the {body.rotation_count} rotations of body '{body.name}' once; "
            f"they move {len(moved)}, {len(set(moved))} different ones"
        )
    if body.center_joint not in config.keypoints:
        raise ValueError(
            f"no part of body '{body.name}' is guided by its head; add joint {body.center_joint}"
        )
