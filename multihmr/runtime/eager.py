"""Runtimes: the `Runtime` interface, which computes predictions, and `EagerRuntime`, torch itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.backbones.base import Backbone, Features
from ..networks.base import Network
from ..postprocessing.to_humans import Detections
from ..preprocessing.letterbox import Letterbox


class Runtime(Protocol):
    """Computes the people of a batch of images; `Model.runtime` is one.

    square: whether all windows must be squares, also of networks that take rectangles.
    """

    square: bool

    def __call__(
        self,
        images: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
        threshold: float | None,
        max_people: int | None,
    ) -> list[Detections]:
        """The people of each image.

        Args:
            images: (H, W, 3) uint8 RGB.
            letterboxes: how each becomes the input of the network.
            K_B33: intrinsics in pixels of the letterboxed images; NaN where the network's own are wanted.
            threshold: least score of a person; None takes the checkpoint's.
            max_people: keep the best of each image.
        """
        ...


class EagerRuntime:
    """Torch computes the network on its device; only people who are found cost anything after detection.

    Args:
        network: with the backbone replaced (`with_backbone`), another runtime computes that part.
        square: as `Runtime.square`.
    """

    def __init__(self, network: Network, *, square: bool = False) -> None:
        self.network = network
        self.square = square

    def __call__(
        self,
        images: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
        threshold: float | None,
        max_people: int | None,
    ) -> list[Detections]:
        network, device = self.network, self.network.device
        images_B3HW = torch.stack(
            [letterbox.to_tensor(image) for letterbox, image in zip(letterboxes, images, strict=True)]
        )
        predictions = network(
            images_B3HW.to(device), K_B33.to(device), threshold=threshold, max_people=max_people
        )
        used_B33 = predictions.K_B33.float().cpu()
        return [Detections(predictions.of_image(i), used_33) for i, used_33 in enumerate(used_B33)]


class ExternalBackbone(Backbone):
    """Stands for `source`, whose features another runtime computes; it has no weights and no gradient.

    run: (B, 3, H, W) RGB in [0, 1] -> Features.
    """

    def __init__(self, source: Backbone, run: Callable[[Tensor], Features]) -> None:
        nn.Module.__init__(self)
        self.patch, self.width = source.patch, source.width
        self.fine_width, self.scale_widths = source.fine_width, source.scale_widths
        self.half_dtype = source.half_dtype
        self.run = run

    def forward(self, images_B3HW: Tensor) -> Features:
        return self.run(images_B3HW)


def with_backbone(network: Network, backbone: nn.Module) -> Network:
    """A shallow copy of `network` with another backbone; all else is shared with it."""
    replaced = copy.copy(network)
    replaced._modules = {**network._modules, "backbone": backbone}
    return replaced
