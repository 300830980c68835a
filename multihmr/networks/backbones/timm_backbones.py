"""Backbones by name; HRNet through timm: images to a feature grid and a global feature."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..configs import MOVENETS
from .base import Backbone, Features, needed_timm
from .dinov2 import IMAGENET_MEAN, IMAGENET_STD, DINOv2
from .hybrid import HYBRIDS, Hybrid
from .movenet import HybridMoveNet

HRNETS = ("hrnet_w32", "hrnet_w48")


class HRNet(Backbone):
    """HRNet's maps at strides 4 to 32 (Wang et al., TPAMI 2020), joined at stride 16: convolutions alone.

    The global feature is the mean of the grid. Any size that is a multiple of 32 works.
    """

    patch = 16
    stem: Any

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        timm = needed_timm(f"the backbone {name}")
        self.stem = timm.create_model(
            name, pretrained=pretrained, features_only=True, feature_location="", out_indices=(1, 2, 3, 4)
        )
        channels = self.stem.feature_info.channels()
        self.width = 12 * channels[0]  # of w32 as wide as ViT-S
        self.fine_width = channels[1]
        self.scale_widths = tuple(channels)
        self.from4 = nn.Conv2d(channels[0], self.width, 4, stride=4)
        self.from8 = nn.Conv2d(channels[1], self.width, 2, stride=2)
        self.from16 = nn.Conv2d(channels[2], self.width, 1)
        self.from32 = nn.Conv2d(channels[3], self.width, 1)
        self.norm = nn.LayerNorm(self.width)

    def extract(self, images_B3HW: Tensor) -> Features:
        scales = x4, x8, x16, x32 = self.stem(images_B3HW)
        x32 = F.interpolate(self.from32(x32), size=x16.shape[-2:], mode="bilinear")
        grid = self.from4(x4) + self.from8(x8) + self.from16(x16) + x32
        grid = self.norm(grid.movedim(1, -1)).movedim(-1, 1)
        return Features(grid, grid.mean((2, 3)), x8, tuple(scales))


def create_backbone(name: str, *, image_size: int, pretrained: bool | str = False) -> Backbone:
    """The backbone of that name: 'dinov2_vits14', 'dinov2_vitb14', 'dinov2_vitl14', 'hrnet_w32', 'hrnet_w48',
    'hybrid_lite0', 'hybrid_lite2', 'hybrid_movenet_multipose', 'hybrid_movenet_thunder' or
    'hybrid_movenet_lightning'.

    `pretrained` starts from public weights and is asked for by training only: True from the backbone's own,
    DINOv2's for its ViTs and ImageNet's for the others; "imagenet" from ImageNet's for all.

    Raises:
        ValueError: the name is unknown, or `image_size` no multiple of what the backbone needs.
    """
    known = (*DINOv2.TIMM_NAMES, *HRNETS, *HYBRIDS, *MOVENETS)
    if name not in known:
        raise ValueError(f"no backbone {name!r}; known: {', '.join(known)}")
    if pretrained not in (True, False, "imagenet"):
        raise ValueError(f"pretrained must be True, False or 'imagenet', got {pretrained!r}")
    multiple = DINOv2.patch if name in DINOv2.TIMM_NAMES else 32
    if image_size % multiple:
        raise ValueError(f"{name} takes image sizes that are multiples of {multiple}, got {image_size}")
    if name in DINOv2.TIMM_NAMES:
        return DINOv2(name, image_size=image_size, pretrained=pretrained)
    if name in HRNETS:
        return HRNet(name, pretrained=bool(pretrained))
    if name in MOVENETS:
        return HybridMoveNet(name.removeprefix("hybrid_movenet_"), pretrained=bool(pretrained))
    return Hybrid(name.removeprefix("hybrid_"), pretrained=bool(pretrained))
