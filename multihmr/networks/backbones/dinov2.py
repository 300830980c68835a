"""DINOv2's ViTs (Oquab et al., TMLR 2024) in plain torch, with timm's names of weights and numbers.

timm has them, but `import timm` takes as long as `import torch`, because it imports torchvision.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Backbone, Features, needed_timm
from .hybrid import Mlp, SelfAttention
from .merged_padding import MergedTokens

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NORM_EPS = 1e-6
FIRST_SCALE = 1e-5  # of layers, before training


class Size(NamedTuple):
    """Of a ViT."""

    width: int
    depth: int
    head_count: int


SIZES = {
    "dinov2_vits14": Size(384, 12, 6),
    "dinov2_vitb14": Size(768, 12, 12),
    "dinov2_vitl14": Size(1024, 24, 16),
}


class DINOv2(Backbone):
    """ViT-S/B/L-14 of DINOv2 without registers; `image_size` fixes its position table.

    pretrained: True downloads DINOv2's weights, "imagenet" those of a ViT/16 trained on ImageNet-21k, both
        through timm.
    """

    patch = 14
    thins = True
    TIMM_NAMES: ClassVar[dict[str, str]] = {
        "dinov2_vits14": "vit_small_patch14_dinov2",
        "dinov2_vitb14": "vit_base_patch14_dinov2",
        "dinov2_vitl14": "vit_large_patch14_dinov2",
    }

    def __init__(self, name: str, *, image_size: int, pretrained: bool | str = False) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        self.vit = VisionTransformer(SIZES[name], grid_size=image_size // self.patch, patch=self.patch)
        self.width = SIZES[name].width
        if pretrained == "imagenet":
            self._load_imagenet(name, image_size)
        elif pretrained:
            timm = needed_timm(f"the backbone {name}, to start from DINOv2's weights,")
            source = timm.create_model(
                self.TIMM_NAMES[name], pretrained=True, num_classes=0, img_size=image_size
            )
            self.vit.load_state_dict(source.state_dict())

    @torch.no_grad()
    def _load_imagenet(self, name: str, image_size: int) -> None:
        """The weights of a ViT/16 that learned the classes of ImageNet-21k, patches resampled to 14 pixels.

        Steiner et al., "How to train your ViT?", TMLR 2022. That ViT has no scales of layers, and saw pixels
        in [-1, 1].
        """
        timm = needed_timm(f"the backbone {name}, to start from ImageNet's weights,")
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
        assert patches.bias is not None
        patches.bias += (patches.weight * (self.mean - 0.5) / 0.5).sum((1, 2, 3))
        patches.weight *= self.std / 0.5

    def extract(self, images_B3HW: Tensor) -> Features:
        return self._features(images_B3HW, self.vit(images_B3HW))

    def extract_merged(self, images_B3HW: Tensor, merged: MergedTokens) -> Features:
        return self._features(images_B3HW, self.vit(images_B3HW, merged))

    def _features(self, images_B3HW: Tensor, tokens_BND: Tensor) -> Features:
        height, width = images_B3HW.shape[-2] // self.patch, images_B3HW.shape[-1] // self.patch
        grid_BDhw = tokens_BND[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        return Features(grid_BDhw, tokens_BND[:, 0])


class VisionTransformer(nn.Module):
    """(B, 3, H, W) normalised pixels -> (B, 1 + N, D) tokens: one of the whole image, then one per patch."""

    def __init__(self, size: Size, *, grid_size: int, patch: int) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.cls_token = nn.Parameter(torch.empty(1, 1, size.width))
        self.pos_embed = nn.Parameter(torch.empty(1, 1 + grid_size**2, size.width))
        self.patch_embed = PatchEmbed(size.width, patch)
        self.blocks = nn.Sequential(*(Block(size.width, size.head_count) for _ in range(size.depth)))
        self.norm = nn.LayerNorm(size.width, eps=NORM_EPS)
        self._initialize()

    def _initialize(self) -> None:
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        nn.init.normal_(self.cls_token, std=1e-6)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, x_B3HW: Tensor, merged: MergedTokens | None = None) -> Tensor:
        grid_BDhw = self.patch_embed(x_B3HW)
        height, width = grid_BDhw.shape[-2:]
        x_BND = grid_BDhw.flatten(2).transpose(1, 2)
        x_BND = torch.cat([self.cls_token.expand(x_BND.shape[0], -1, -1), x_BND], dim=1)
        x_BND = x_BND + resized_positions(self.pos_embed, self.grid_size, height, width)
        if merged is None:
            return self.norm(self.blocks(x_BND))
        first, *others = (cast(Block, block) for block in self.blocks)
        x_BND = first.attended(x_BND)
        x_BMD = x_BND[:, 1:][:, merged.members_M4].mean(2)
        x_BLD = torch.cat([x_BND[:, :1], x_BMD[:, merged.members_L4].mean(2)], dim=1)
        x_BLD = first.transformed(x_BLD)
        bias_L = torch.cat([merged.log_count_L.new_zeros(1), merged.log_count_L])
        for block in others:
            x_BLD = block(x_BLD, bias_L)
        x_BLD = self.norm(x_BLD)
        return torch.cat([x_BLD[:, :1], x_BLD[:, 1:][:, merged.token_N]], dim=1)


class PatchEmbed(nn.Module):
    """One token per patch of pixels."""

    def __init__(self, width: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Block(nn.Module):
    """Pre-norm ViT block whose two parts are scaled per channel (Touvron et al., "CaiT", ICCV 2021)."""

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS)
        self.attn = SelfAttention(width, head_count)
        self.ls1 = LayerScale(width)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width)
        self.ls2 = LayerScale(width)

    def forward(self, x_BND: Tensor, bias_N: Tensor | None = None) -> Tensor:
        return self.transformed(self.attended(x_BND, bias_N))

    def attended(self, x_BND: Tensor, bias_N: Tensor | None = None) -> Tensor:
        """The first part, in which tokens see each other."""
        return x_BND + self.ls1(self.attn(self.norm1(x_BND), bias_N))

    def transformed(self, x_BND: Tensor) -> Tensor:
        """The second part, of each token by itself."""
        return x_BND + self.ls2(self.mlp(self.norm2(x_BND)))


class LayerScale(nn.Module):
    """A learned factor per channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((width,), FIRST_SCALE))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def resized_positions(table_1ND: Tensor, grid_size: int, height: int, width: int) -> Tensor:
    """(1, 1 + height * width, D) embeddings of positions, from those of a square grid.

    Bicubic with antialiasing, as timm's `resample_abs_pos_embed`; the first, of the whole image, stays.
    """
    if (height, width) == (grid_size, grid_size):
        return table_1ND
    whole, square = table_1ND[:, :1], table_1ND[:, 1:].float()
    square = square.reshape(1, grid_size, grid_size, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(height, width), mode="bicubic", antialias=True)
    square = square.permute(0, 2, 3, 1).flatten(1, 2).to(table_1ND.dtype)
    return torch.cat([whole, square], dim=1)
