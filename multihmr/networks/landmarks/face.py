"""Face landmark and facial action networks of MediaPipe (Google, Apache-2.0) in plain torch.

Grishchenko et al., "Attention Mesh: High-fidelity Face Mesh Prediction in Real-time", 2020 (the points), and
"Blendshapes GHUM: Real-time Monocular Facial Blendshape Prediction", 2023 (the actions). They were trained by
Google on photographs of faces. scripts/convert_mediapipe.py takes the weights out of face_landmarker.task; a
test compares the numbers with those of the original runtime.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.hybrid import Conv

FACE_POINTS = 478  # of MediaPipe's face mesh: 468, then five of each iris
CROP_SIDE = 256  # [pixels]
# Of each resolution: width between the convolutions of a block, width of its output, number of blocks. The
# first block of every resolution but the first halves the sides.
STAGES = ((8, 16, 4), (16, 32, 5), (32, 64, 5), (64, 128, 5), (64, 128, 5), (64, 128, 5), (64, 128, 5))
STEM_WIDTH = 16
# Facial actions of the output, in its order: ARKit's names, and none for the first, which is neutral.
ACTIONS = (
    "", "browDownLeft", "browDownRight", "browInnerUp", "browOuterUpLeft", "browOuterUpRight", "cheekPuff",
    "cheekSquintLeft", "cheekSquintRight", "eyeBlinkLeft", "eyeBlinkRight", "eyeLookDownLeft",
    "eyeLookDownRight", "eyeLookInLeft", "eyeLookInRight", "eyeLookOutLeft", "eyeLookOutRight",
    "eyeLookUpLeft", "eyeLookUpRight", "eyeSquintLeft", "eyeSquintRight", "eyeWideLeft", "eyeWideRight",
    "jawForward", "jawLeft", "jawOpen", "jawRight", "mouthClose", "mouthDimpleLeft", "mouthDimpleRight",
    "mouthFrownLeft", "mouthFrownRight", "mouthFunnel", "mouthLeft", "mouthLowerDownLeft",
    "mouthLowerDownRight", "mouthPressLeft", "mouthPressRight", "mouthPucker", "mouthRight",
    "mouthRollLower", "mouthRollUpper", "mouthShrugLower", "mouthShrugUpper", "mouthSmileLeft",
    "mouthSmileRight", "mouthStretchLeft", "mouthStretchRight", "mouthUpperUpLeft", "mouthUpperUpRight",
    "noseSneerLeft", "noseSneerRight",
)  # fmt: skip
# Points of the face mesh from which the actions are read, in their order
ACTION_POINTS = (
    0, 1, 4, 5, 6, 7, 8, 10, 13, 14, 17, 21, 33, 37, 39, 40, 46, 52, 53, 54, 55, 58, 61, 63, 65, 66, 67, 70,
    78, 80, 81, 82, 84, 87, 88, 91, 93, 95, 103, 105, 107, 109, 127, 132, 133, 136, 144, 145, 146, 148, 149,
    150, 152, 153, 154, 155, 157, 158, 159, 160, 161, 162, 163, 168, 172, 173, 176, 178, 181, 185, 191, 195,
    197, 234, 246, 249, 251, 263, 267, 269, 270, 276, 282, 283, 284, 285, 288, 291, 293, 295, 296, 297, 300,
    308, 310, 311, 312, 314, 317, 318, 321, 323, 324, 332, 334, 336, 338, 356, 361, 362, 365, 373, 374, 375,
    377, 378, 379, 380, 381, 382, 384, 385, 386, 387, 388, 389, 390, 397, 398, 400, 402, 405, 409, 415, 454,
    466, 468, 469, 470, 471, 472, 473, 474, 475, 476, 477,
)  # fmt: skip
TOKENS, TOKEN_WIDTH, MIXERS = 96, 64, 4
SCALE = 0.5  # of points whose mean distance from their middle is 1
NORM_EPS = 1e-6


class FaceOutput(NamedTuple):
    """What the network says of N crops."""

    points_N4783: Tensor  # x, y [crop pixels], z towards the camera is negative [about the same scale]
    presence_N: Tensor  # probability that the crop shows a face


class FaceLandmarks(nn.Module):
    """Crops (N, 3, 256, 256) of upright faces, 1.5 times as wide as them, RGB in [0, 1] -> FaceOutput."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = Conv(3, STEM_WIDTH, 3, stride=2)
        self.act_stem = nn.PReLU(STEM_WIDTH)
        self.blocks = nn.ModuleList(_blocks())
        out = STAGES[-1][1]
        self.to_presence = nn.Conv2d(out, 1, 2)
        self.to_points = nn.Conv2d(out, 3 * FACE_POINTS, 2)
        self.to(memory_format=torch.channels_last)

    def forward(self, crops_N3HW: Tensor) -> FaceOutput:
        x = self.act_stem(self.conv_stem(crops_N3HW.contiguous(memory_format=torch.channels_last)))
        for block in self.blocks:
            x = block(x)
        presence_N = self.to_presence(x).flatten().sigmoid()
        return FaceOutput(self.to_points(x).flatten(1).unflatten(1, (-1, 3)), presence_N)


def _blocks() -> Iterator[Bottleneck]:
    width = STEM_WIDTH
    for n, (narrow, out_width, count) in enumerate(STAGES):
        for k in range(count):
            yield Bottleneck(width, narrow, out_width, halves=n > 0 and k == 0)
            width = out_width


class Bottleneck(nn.Module):
    """Residual block: 1x1 (or 2x2 with stride 2) reduction, depthwise convolution, 1x1 expansion."""

    def __init__(self, in_width: int, narrow: int, out_width: int, *, halves: bool) -> None:
        super().__init__()
        side = 2 if halves else 1
        self.halves, self.added = halves, out_width - in_width
        self.reduce = nn.Conv2d(in_width, narrow, side, stride=side)
        self.act_reduce = nn.PReLU(narrow)
        self.depthwise = Conv(narrow, narrow, 3, groups=narrow)
        self.expand = nn.Conv2d(narrow, out_width, 1)
        self.act = nn.PReLU(out_width)

    def forward(self, x: Tensor) -> Tensor:
        new = self.expand(self.depthwise(self.act_reduce(self.reduce(x))))
        if self.halves:
            x = F.max_pool2d(x, 2)
        if self.added:
            x = F.pad(x, (0, 0, 0, 0, 0, self.added))
        return self.act(x + new)


class FacialActions(nn.Module):
    """Points of faces (N, 478, 2 or more), at any scale -> (N, 52) of `ACTIONS` in [0, 1].

    An MLP-Mixer (Tolstikhin et al., NeurIPS 2021) whose tokens are mixtures of the points.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mix_points = nn.Linear(len(ACTION_POINTS), TOKENS)
        self.to_token = nn.Linear(2, TOKEN_WIDTH)
        self.class_token = nn.Parameter(torch.zeros(1, 1, TOKEN_WIDTH))
        self.mixers = nn.ModuleList(Mixer(TOKENS + 1, TOKEN_WIDTH) for _ in range(MIXERS))
        self.to_actions = nn.Linear(TOKEN_WIDTH, len(ACTIONS))

    def forward(self, points_NM3: Tensor) -> Tensor:
        x_NM2 = points_NM3[:, ACTION_POINTS, :2]
        x_NM2 = x_NM2 - x_NM2.mean(1, keepdim=True)
        x_NM2 = x_NM2 * (SCALE / x_NM2.norm(dim=-1, keepdim=True).mean(1, keepdim=True))
        x_NTD = self.to_token(self.mix_points(x_NM2.transpose(1, 2)).transpose(1, 2))
        x_NTD = torch.cat([self.class_token.expand(len(x_NTD), -1, -1), x_NTD], dim=1)
        for mixer in self.mixers:
            x_NTD = mixer(x_NTD)
        return self.to_actions(x_NTD[:, 0]).sigmoid()


class Mixer(nn.Module):
    """Block of an MLP-Mixer: an MLP over the tokens, then one over the channels."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.norm_tokens = nn.LayerNorm(width, eps=NORM_EPS, bias=False)
        self.mix_tokens = nn.Sequential(nn.Linear(tokens, 384), nn.ReLU(), nn.Linear(384, tokens))
        self.norm_channels = nn.LayerNorm(width, eps=NORM_EPS, bias=False)
        self.mix_channels = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Linear(256, width))

    def forward(self, x_NTD: Tensor) -> Tensor:
        mixed_NDT = self.mix_tokens(self.norm_tokens(x_NTD).transpose(1, 2))
        x_NTD = x_NTD + mixed_NDT.transpose(1, 2)
        return x_NTD + self.mix_channels(self.norm_channels(x_NTD))
