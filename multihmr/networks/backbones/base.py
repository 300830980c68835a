"""`Backbone`: base class of the image backbones, with half precision."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from ...storage.telemetry import disable_telemetry
from .features import Content as Content
from .features import Features as Features

if TYPE_CHECKING:
    from .merged_padding import MergedTokens

PADDINGS = ("whole", "thin")


class Backbone(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> Features, computed in `half_dtype` (None: float32).

    Sides must be multiples of `patch`. The pixels' mean and deviation are those of the pretraining.
    """

    patch: int
    width: int
    fine_width: int = 0  # of the features at half the stride
    scale_widths: tuple[int, ...] = ()
    exact: tuple[str, ...] = ()  # beginnings of names of weights that a small checkpoint keeps as they are
    half_dtype: torch.dtype | None = None
    padding: Literal["whole", "thin"] = "whole"  # "thin": one token for sixteen of padding
    thins: bool = False  # whether it can do that
    splits: bool = False  # whether `stem_tokens` and `features_of` exist, whose precisions can differ
    half_stem: bool = True  # of those that split: whether `half_dtype` holds for the stem too
    mean: Tensor
    std: Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images_B3HW: Tensor, contents: Sequence[Content] | None = None) -> Features:
        """contents: where the windows show their images; without it, and with "whole", nothing is merged."""
        if self.padding == "whole" or contents is None:
            return self.compute(images_B3HW)
        from .merged_padding import by_padding

        return by_padding(images_B3HW, contents, self.patch, self.compute)

    def compute(self, images_B3HW: Tensor, merged: MergedTokens | None = None) -> Features:
        """Features of images of which the same patches are padding."""
        x = self.normalized(images_B3HW)
        with torch.autocast(x.device.type, dtype=self.half_dtype, enabled=self.half_dtype is not None):
            features = self.extract(x) if merged is None else self.extract_merged(x, merged)
        fine_BDhw = None if features.fine_BDhw is None else features.fine_BDhw.float()
        scales = tuple(scale.float() for scale in features.scales)
        return Features(features.grid_BDhw.float(), features.global_BD.float(), fine_BDhw, scales)

    def normalized(self, images_B3HW: Tensor) -> Tensor:
        """Pixels in [0, 1] as the pretraining had them."""
        return (images_B3HW - self.mean) / self.std

    @property
    def map_widths(self) -> tuple[int, ...]:
        """Channels of `Features.maps`."""
        return self.scale_widths or ((self.fine_width, self.width) if self.fine_width else (self.width,))

    def extract(self, images_B3HW: Tensor) -> Features:
        """Of normalised pictures, at any precision."""
        raise NotImplementedError

    def stem_tokens(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The first part of `extract` where `splits`: tokens, then fine features and a scale of Features."""
        raise NotImplementedError

    def features_of(self, tokens_BDhw: Tensor) -> tuple[Tensor, Tensor]:
        """The second part, where `splits`: grid and global features of these tokens."""
        raise NotImplementedError

    def extract_merged(self, images_B3HW: Tensor, merged: MergedTokens) -> Features:
        """`extract` with fewer tokens, of backbones that have `thins`."""
        raise NotImplementedError


def needed_timm(what: str) -> Any:
    """The package timm, which `what` needs; ImportError with what to install where it is missing."""
    disable_telemetry()  # of huggingface_hub, which timm imports
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        raise ImportError(f"{what} needs timm: pip install 'multihmr[timm]'") from error
