"""Runtimes: the `Runtime` interface, which computes predictions, and `EagerRuntime`, torch itself."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..networks.backbones.base import Backbone, Content, Features
from ..networks.backbones.merged_padding import by_padding
from ..networks.base import Network
from ..postprocessing.to_humans import Detections
from ..preprocessing.letterbox import Letterbox
from .spinning import limit_spinning_if_busy


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

    def keypoint_maps(self, images_B3HW: Tensor) -> Tensor:
        """`HybridMoveNet.keypoint_maps` of crops, of networks with that backbone."""
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
        if device.type == "cpu":
            limit_spinning_if_busy()
        images_B3HW = torch.stack(
            [letterbox.to_tensor(image) for letterbox, image in zip(letterboxes, images, strict=True)]
        )
        options: dict[str, Any] = {"threshold": threshold, "max_people": max_people}
        if network.backbone.padding == "thin":
            options["contents"] = contents_of(images, letterboxes)
        predictions = network(images_B3HW.to(device), K_B33.to(device), **options)
        used_B33 = predictions.K_B33.float().cpu()
        return [Detections(predictions.of_image(i), used_33) for i, used_33 in enumerate(used_B33)]

    def keypoint_maps(self, images_B3HW: Tensor) -> Tensor:
        backbone: Any = self.network.backbone
        maps: Tensor = backbone.keypoint_maps(images_B3HW)
        return maps


def contents_of(images: Sequence[np.ndarray], letterboxes: Sequence[Letterbox]) -> list[Content]:
    """Where the letterboxes show their (H, W, 3) images."""
    return [letterbox.content(*image.shape[:2]) for letterbox, image in zip(letterboxes, images, strict=True)]


class ExternalBackbone(Backbone):
    """Stands for `source`, whose features another runtime computes; it has no weights and no gradient.

    run: (B, 3, H, W) RGB in [0, 1] and, with "thin", the tokens that are merged -> Features.
    keypoint_maps: as that of HybridMoveNet, of sources that are one.
    """

    def __init__(
        self,
        source: Backbone,
        run: Callable[..., Features],
        keypoint_maps: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self.patch, self.width = source.patch, source.width
        self.fine_width, self.scale_widths = source.fine_width, source.scale_widths
        self.half_dtype, self.padding = source.half_dtype, source.padding
        self.run = run
        if keypoint_maps is not None:
            self.keypoint_maps = keypoint_maps

    def forward(self, images_B3HW: Tensor, contents: Sequence[Content] | None = None) -> Features:
        if self.padding == "whole":
            return self.run(images_B3HW)
        height, width = images_B3HW.shape[-2:]
        contents = [(0, 0, width, height)] * len(images_B3HW) if contents is None else contents
        return by_padding(images_B3HW, contents, self.patch, self.run)


def with_backbone(network: Network, backbone: nn.Module) -> Network:
    """A shallow copy of `network` with another backbone; all else is shared with it."""
    replaced = copy.copy(network)
    replaced._modules = {**network._modules, "backbone": backbone}
    return replaced
