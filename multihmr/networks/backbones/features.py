"""`Features`: the output of image backbones."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

Content = tuple[int, int, int, int]  # left, top, right, bottom: pixels of a window that show the image


class Features(NamedTuple):
    """Feature maps of a batch of images, float32."""

    grid_BDhw: Tensor
    global_BD: Tensor
    fine_BDhw: Tensor | None = None  # of other width, at half the stride, where the backbone has it
    scales: tuple[Tensor, ...] = ()  # its own maps from fine to coarse, where they are others than these two

    @property
    def maps(self) -> tuple[Tensor, ...]:
        """Feature maps of all scales, fine to coarse, `Backbone.map_widths` wide, for sampling."""
        if self.scales:
            return self.scales
        return (self.grid_BDhw,) if self.fine_BDhw is None else (self.fine_BDhw, self.grid_BDhw)
