"""Deformable attention: features sampled at a few learned offsets around a reference point, several scales.

F = DeformAttn(Q_k, P_k, V) of GLNet ("Global-to-Pixel Regression for Human Mesh Recovery", ECCV 2024), as Zhu
et al. define it ("Deformable DETR", ICLR 2021, section 4.1). Positions are (x, y) normalised by the sides of
the input, the same on maps of every size: (0, 0) is the top-left corner of the first cell, not its centre.

Only `grid_sample` touches the maps: CPU and CUDA have it with its gradient, torch.export keeps it. Where
Apple MPS lacks the gradient, PYTORCH_ENABLE_MPS_FALLBACK=1 lets the CPU do it; prediction needs none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn


def sample(map_BChw: Tensor, places_BQ2: Tensor) -> Tensor:
    """(B, Q, C) features of the map at positions (x, y) [input sides], bilinear; zeros outside.

    The centre of cell (row, col) is ((col + 0.5) / w, (row + 0.5) / h).
    """
    grid_BQ12 = (2 * places_BQ2 - 1)[:, :, None].to(map_BChw.dtype)
    found_BCQ1 = F.grid_sample(
        map_BChw, grid_BQ12, mode="bilinear", padding_mode="zeros", align_corners=False
    )
    return rearrange(found_BCQ1, "b c q 1 -> b q c")


class DeformableAttention(nn.Module):
    """Deformable attention: each query samples `points` learned offsets per level and head.

    Args:
        query_width: channels of the queries.
        value_widths: channels of each level's map.
        out_width: channels of what comes out; a multiple of `head_count`.
        head_count: heads, each with its own offsets, weights and share of the channels.
        points: sampling points per head and level. The cost of sampling is linear in them.
    """

    def __init__(
        self,
        query_width: int,
        value_widths: Sequence[int],
        out_width: int,
        *,
        head_count: int = 4,
        points: int = 4,
    ) -> None:
        super().__init__()
        if not value_widths or points < 1 or head_count < 1 or out_width % head_count:
            raise ValueError(
                f"deformable attention needs a level, a point and an out_width that head_count divides; got "
                f"{len(value_widths)} levels, {points} points, out_width {out_width}, head_count {head_count}"
            )
        self.head_count, self.points = head_count, points
        reads = head_count * len(value_widths) * points
        self.to_offset = nn.Linear(query_width, reads * 2)
        self.to_weight = nn.Linear(query_width, reads)
        self.to_value = nn.ModuleList(nn.Conv2d(width, out_width, 1) for width in value_widths)
        self.to_out = nn.Linear(out_width, out_width)
        self._reset_offsets()

    def _reset_offsets(self) -> None:
        """Initialise: equal weights, and head i samples 1, 2, ... cells away in the i-th direction."""
        nn.init.zeros_(self.to_offset.weight)
        nn.init.zeros_(self.to_weight.weight)
        nn.init.zeros_(self.to_weight.bias)
        angle_H = torch.arange(self.head_count) * (2 * math.pi / self.head_count)
        way_H2 = torch.stack([angle_H.cos(), angle_H.sin()], dim=-1)
        way_H2 = way_H2 / way_H2.abs().amax(dim=-1, keepdim=True)
        far_N = torch.arange(1, self.points + 1)
        offset_HLN2 = (way_H2[:, None, None] * far_N[:, None]).expand(-1, len(self.to_value), -1, -1)
        with torch.no_grad():
            self.to_offset.bias.copy_(offset_HLN2.flatten())

    def forward(self, queries_BQD: Tensor, places_BQ2: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """(B, Q, out_width) features sampled around the positions of the queries.

        Args:
            queries_BQD: (B, Q, query_width).
            places_BQ2: (x, y) in sides of the input; outside of [0, 1] features are zero.
            maps: a (B, C, h, w) for each level, of any size.

        ValueError: there are more or fewer maps than `value_widths`.
        """
        if len(maps) != len(self.to_value):
            raise ValueError(f"expected {len(self.to_value)} maps, one for each level, got {len(maps)}")
        sizes = (self.head_count, len(maps), self.points)
        offset_BQHLN2 = self.to_offset(queries_BQD).unflatten(-1, (*sizes, 2))
        weight_BQHLN = self.to_weight(queries_BQD).unflatten(-1, sizes).flatten(-2).softmax(-1)
        weight_BQHLN = weight_BQHLN.unflatten(-1, sizes[1:])
        out_BQHC = None
        for level, (to_value, map_BChw) in enumerate(zip(self.to_value, maps, strict=True)):
            cells_2 = places_BQ2.new_tensor([map_BChw.shape[-1], map_BChw.shape[-2]])
            places_BQHN2 = places_BQ2[:, :, None, None] + offset_BQHLN2[:, :, :, level] / cells_2
            sampled_BQHNC = self._sample_heads(to_value(map_BChw), places_BQHN2)
            part_BQHC = (weight_BQHLN[:, :, :, level, :, None] * sampled_BQHNC).sum(3)
            out_BQHC = part_BQHC if out_BQHC is None else out_BQHC + part_BQHC
        assert out_BQHC is not None, "there is at least one level"
        return self.to_out(rearrange(out_BQHC, "b q heads c -> b q (heads c)"))

    def _sample_heads(self, values_BChw: Tensor, places_BQHN2: Tensor) -> Tensor:
        """(B, Q, heads, points, C / heads): each head samples its own channels."""
        own_channels = rearrange(values_BChw, "b (heads c) h w -> (b heads) c h w", heads=self.head_count)
        own_places = rearrange(places_BQHN2, "b q heads n xy -> (b heads) (q n) xy")
        read = sample(own_channels, own_places)
        sizes = {"heads": self.head_count, "n": self.points}
        return rearrange(read, "(b heads) (q n) c -> b q heads n c", **sizes)
