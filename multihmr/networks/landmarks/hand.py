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
from ..backbones.movenet import Inverted

HAND_POINTS = 21  # in the order of Simon et al., CVPR 2017: the wrist, then four points of each finger
STEM_WIDTH, FIRST_WIDTH, OUT_WIDTH = 24, 16, 1152


class Step(NamedTuple):
    """Inverted residual: output width (0: without the projection to it), kernel, stride, expansion."""

    width: int
    kernel: int
    stride: int
    expansion: int = 6


STEPS = (
    Step(24, 3, 2, 4), Step(24, 3, 1), Step(40, 5, 2), Step(40, 5, 1), Step(80, 3, 2), Step(80, 3, 1),
    Step(80, 3, 1), Step(112, 5, 1), Step(112, 5, 1), Step(112, 5, 1), Step(192, 5, 2), Step(192, 5, 1),
    Step(192, 5, 1), Step(192, 5, 1), Step(0, 3, 1),
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
        widths = [FIRST_WIDTH, *(step.width for step in STEPS)]
        self.steps = nn.ModuleList(
            Inverted(width, step.width, step.stride, step.expansion, step.kernel)
            for width, step in zip(widths, STEPS, strict=False)
        )
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
