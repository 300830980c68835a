"""Multi-HMR on the Anny body as released in 2026 (`multiHMR_672_L_anny`), a second design of the same name.

Patches become tokens of 512 channels with sine positions; those at detected heads are the people, with
self-attention among them and cross-attention to all tokens in eight layers. Small MLPs then regress pose,
shape, position and depth per person. The camera does not enter the features; the network predicts its own.

Legend of shape suffixes: as in multihmr.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from ..bodies.base import Body
from ..geometry import code_to_depth, rot6d_to_rotmat
from ..preprocessing.letterbox import Letterbox
from .attention import PerceptionLayer
from .backbones.base import Content
from .backbones.timm_backbones import create_backbone
from .base import Network, Predictions, own_camera
from .configs import MultiHMRAnnyConfig
from .detection import Centers, find_centers, topk_centers


class _EncodedBatch(NamedTuple):
    """Encoder outputs of a batch of images, before detection."""

    grid_BDhw: Tensor
    logits_Bhw: Tensor
    fov_B: Tensor
    K_B33: Tensor  # that is used


class MultiHMRAnny(Network):
    """ViT features, head centres, eight layers of attention, regression MLPs, body.

    Args:
        config: its sizes.
        body: the parametric body that it drives; not part of the weights.
        pretrained: start the backbone from public weights (training only).
    """

    family = "multihmr-anny"
    positions_ND: Tensor

    def __init__(self, config: MultiHMRAnnyConfig, body: Body, *, pretrained: bool = False) -> None:
        super().__init__(body)
        self.config = config
        self.backbone = create_backbone(config.backbone, image_size=config.image_size, pretrained=pretrained)
        wide, width = self.backbone.width, config.head_width
        grid_size = config.image_size // self.backbone.patch
        self.to_score = _mlp(wide, 1)
        self.to_fov = _mlp(wide, 1)
        self.to_token = nn.Linear(wide, width)
        self.register_buffer("positions_ND", sine_grid(grid_size, width))
        self.layers = nn.ModuleList(
            PerceptionLayer(
                width,
                width,
                head_count=config.head_count,
                head_width=width // config.head_count,
                mlp_width=config.head_mlp_width,
                people_first=True,
            )
            for _ in range(config.head_depth)
        )
        self.to_offset = _mlp(width, 2)
        self.to_depth = _mlp(width, 1)
        self.to_pose = _mlp(width, 6 * body.rotation_count)
        self.to_shape = _mlp(width, body.shape_count)

    def letterbox(self, height: int, width: int, *, square: bool = False) -> Letterbox:
        """As the checkpoint was trained."""
        return Letterbox.official_2024(height, width, self.config.image_size)

    def forward(
        self,
        images_B3HW: Tensor,
        K_B33: Tensor | None = None,
        *,
        centers: Centers | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
        contents: Sequence[Content] | None = None,
    ) -> Predictions:
        """Predictions for a batch of square windows, RGB in [0, 1]; arguments as those of `MultiHMR`."""
        seen = self._encode(images_B3HW, K_B33, contents)
        if centers is None:
            rule = self._nms_args(threshold)
            centers = find_centers(seen.logits_Bhw.sigmoid(), max_people=max_people, **rule)
            if not len(centers) and not torch.is_grad_enabled():
                return self.empty(centers, K_B33=seen.K_B33, logits_Bhw=seen.logits_Bhw, fov_B=seen.fov_B)
        return self._refine_and_assemble(seen, centers)

    def forward_fixed(
        self,
        images_B3HW: Tensor,
        K_B33: Tensor | None = None,
        *,
        people: int,
        threshold: float | None = None,
        contents: Sequence[Content] | None = None,
    ) -> Predictions:
        """As `MultiHMR.forward_fixed`."""
        seen = self._encode(images_B3HW, K_B33, contents)
        return self._refine_and_assemble(
            seen, topk_centers(seen.logits_Bhw.sigmoid(), people, **self._nms_args(threshold))
        )

    def _nms_args(self, threshold: float | None) -> dict[str, Any]:
        """Threshold and NMS kernel, as `find_centers` and `topk_centers` take them."""
        return {
            "threshold": self.config.threshold if threshold is None else threshold,
            "nms_kernel": self.config.nms_kernel,
        }

    def _encode(
        self, images_B3HW: Tensor, K_B33: Tensor | None, contents: Sequence[Content] | None = None
    ) -> _EncodedBatch:
        size = self.config.image_size
        if tuple(images_B3HW.shape[-2:]) != (size, size):
            raise ValueError(f"this network takes {size}x{size} images, got {tuple(images_B3HW.shape)}")
        features = self.backbone(images_B3HW, contents)
        logits_Bhw = self.to_score(features.grid_BDhw.movedim(1, -1))[..., 0]
        fov_B = math.pi * torch.sigmoid(self.to_fov(features.global_BD))[:, 0]
        return _EncodedBatch(features.grid_BDhw, logits_Bhw, fov_B, own_camera(fov_B, K_B33, size))

    def _refine_and_assemble(self, seen: _EncodedBatch, centers: Centers) -> Predictions:
        """The people in these cells."""
        people_PD = self._attend(seen.grid_BDhw, centers)
        pose_PR33 = rot6d_to_rotmat(self.to_pose(people_PD).unflatten(-1, (-1, 6)))
        shape_PS = self.to_shape(people_PD).sigmoid()
        expression_PE = shape_PS.new_zeros(shape_PS.shape[0], self.body.expression_count)
        depth_code_P = self.to_depth(people_PD)[:, 0]
        focal_P = seen.K_B33[centers.image_index_P, 0, 0]
        return self.assemble(
            (pose_PR33, shape_PS, expression_PE),
            code_to_depth(depth_code_P, focal_P, self.config.image_size),
            self.to_offset(people_PD),
            centers=centers,
            K_B33=seen.K_B33,
            depth_code_P=depth_code_P,
            logits_Bhw=seen.logits_Bhw,
            fov_B=seen.fov_B,
        )

    def _attend(self, grid_BDhw: Tensor, centers: Centers) -> Tensor:
        """(P, D) features of people after self-attention among them and cross-attention to their image."""
        context_BND = self.to_token(rearrange(grid_BDhw, "b d h w -> b (h w) d")) + self.positions_ND
        token_PD = context_BND[centers.image_index_P, centers.row_P * grid_BDhw.shape[-1] + centers.col_P]
        x_BQD, mask_BQ, slot_P = centers.padded(token_PD, context_BND.shape[0])
        for layer in self.layers:
            x_BQD = layer(x_BQD, mask_BQ, context_BND)
        return x_BQD[centers.image_index_P, slot_P]


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))


def sine_grid(side: int, width: int) -> Tensor:
    """(side * side, width), row by row: sines and cosines of the column, then of the row."""
    frequencies = 10000.0 ** (-torch.arange(width // 4) / (width // 4))
    phases = torch.arange(side)[:, None] * frequencies
    waves = torch.cat([phases.sin(), phases.cos()], dim=1)
    of_col, of_row = waves.repeat(side, 1), waves.repeat_interleave(side, 0)
    return torch.cat([of_col, of_row], dim=1)
