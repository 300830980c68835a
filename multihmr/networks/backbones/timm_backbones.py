"""Backbones by name; ViT (DINOv2) and HRNet through timm: images to a feature grid and a global feature."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..configs import MOVENETS
from .base import Backbone, Features
from .hybrid import HYBRIDS, Hybrid
from .movenet import HybridMoveNet

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class DINOv2(Backbone):
    """ViT-S/B/L-14 of DINOv2 without registers, through timm; `image_size` fixes its position table."""

    patch = 14
    vit: Any
    TIMM_NAMES: ClassVar[dict[str, str]] = {
        "dinov2_vits14": "vit_small_patch14_dinov2",
        "dinov2_vitb14": "vit_base_patch14_dinov2",
        "dinov2_vitl14": "vit_large_patch14_dinov2",
    }

    def __init__(self, name: str, *, image_size: int, pretrained: bool | str = False) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        timm = needed_timm(name)
        self.vit = timm.create_model(
            self.TIMM_NAMES[name],
            pretrained=pretrained is True,
            num_classes=0,
            img_size=image_size,
            dynamic_img_size=True,
        )
        self.width = self.vit.embed_dim
        if pretrained == "imagenet":
            self._load_imagenet(name, image_size)

    @torch.no_grad()
    def _load_imagenet(self, name: str, image_size: int) -> None:
        """The weights of a ViT/16 that learned the classes of ImageNet-21k, patches resampled to 14 pixels.

        Steiner et al., "How to train your ViT?", TMLR 2022. That ViT has no scales of layers, and saw pixels
        in [-1, 1].
        """
        timm = needed_timm(name)
        source = timm.create_model(
            self.TIMM_NAMES[name].replace("14_dinov2", "16_224.augreg_in21k_ft_in1k"),
            pretrained=True,
            num_classes=0,
            img_size=image_size,
            patch_size=self.patch,
        )
        weights = {
            key: torch.ones_like(value) for key, value in self.vit.state_dict().items() if ".ls" in key
        }
        self.vit.load_state_dict(weights | source.state_dict())
        patches = self.vit.patch_embed.proj
        patches.bias += (patches.weight * (self.mean - 0.5) / 0.5).sum((1, 2, 3))
        patches.weight *= self.std / 0.5

    def extract(self, images_B3HW: Tensor) -> Features:
        height, width = images_B3HW.shape[-2] // self.patch, images_B3HW.shape[-1] // self.patch
        tokens_BND = self.vit.forward_features(images_B3HW)
        grid_BDhw = tokens_BND[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        return Features(grid_BDhw, tokens_BND[:, 0])


def needed_timm(backbone: str) -> Any:
    """The package timm; ImportError with what to install where it is missing."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(f"the backbone {backbone} needs timm: pip install 'multihmr[timm]'") from error


HRNETS = ("hrnet_w32", "hrnet_w48")


class HRNet(Backbone):
    """HRNet's maps at strides 4 to 32 (Wang et al., TPAMI 2020), joined at stride 16: convolutions alone.

    The global feature is the mean of the grid. Any size that is a multiple of 32 works.
    """

    patch = 16
    stem: Any

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        timm = needed_timm(name)
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
