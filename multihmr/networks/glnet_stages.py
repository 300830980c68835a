"""The two stages of GLNet: global stage for every pixel, keypoint-guided local encoding for the best.

Legend of shape suffixes: B crops, D features, h w grid, Q queried pixels, M keypoints, C columns of a
row of numbers (glnet_parameters.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .backbones.base import Backbone, Features
from .camera_embedding import RayEmbedding
from .deformable_attention import DeformableAttention, sample
from .glnet_parameters import Theta
from .human_perception_head import small
from .joint_heatmaps import patch_middles

if TYPE_CHECKING:
    from .configs import GLNetConfig

PARTS_WIDTH = 256  # features of a body part
ROI_SIDE = 1 / 8  # [input sides] of the squares that fixed pooling averages
LEAST_EXTENT = 0.01  # [input sides] least extent of a set of keypoints
ROI_POINTS = 4  # along their sides


@dataclass(frozen=True)
class Pixels:
    """Global stage of the pixels of a batch of crops; the rest of Theta is for queried pixels only."""

    features_BDhw: Tensor
    logits_Bhw: Tensor  # that this pixel is the best one of its crop
    keypoints_BhwM2: Tensor | None  # [input sides]; None where they are computed for queried pixels only
    maps: tuple[Tensor, ...]  # of the backbone, each (B, C, h, w), for the local stage
    K_B33: Tensor


class OfPixel(nn.Conv2d):
    """1 x 1 convolution as a matrix product with channels-last output, which on a CPU makes what follows
    faster, resizing ten times (torch 2.15)."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__(in_width, out_width, 1)

    def forward(self, x_BDhw: Tensor) -> Tensor:
        return F.linear(x_BDhw.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class GlobalStage(nn.Module):
    """Global stage: features of every pixel with context of the crop and its camera, and predictions.

    The paper leaves open how features become global. Here the backbone's global feature is added to every
    pixel, beside its own attention, and a convolution mixes neighbours.
    """

    def __init__(self, config: GLNetConfig, backbone: Backbone, keypoint_count: int, theta: Theta) -> None:
        super().__init__()
        width = config.width
        self.stride = backbone.patch // 2 if backbone.fine_width else backbone.patch
        self.rays = RayEmbedding(kind=config.camera_embedding)
        self.from_grid = OfPixel(backbone.width, width)
        self.from_fine = OfPixel(backbone.fine_width, width) if backbone.fine_width else None
        self.from_whole = nn.Linear(backbone.width, width)
        self.from_rays = OfPixel(self.rays.width, width) if self.rays.width else None
        # A bottleneck: at full width two such convolutions cost more than the small backbone.
        self.mix = nn.Sequential(
            nn.GroupNorm(8, width),
            nn.GELU(),
            OfPixel(width, width // 2),
            nn.GELU(),
            nn.Conv2d(width // 2, width // 2, 3, padding=1),
            nn.GELU(),
            OfPixel(width // 2, width),
        )
        self.norm = nn.GroupNorm(8, width)
        self.to_score = nn.Linear(width, 1)
        nn.init.constant_(self.to_score.bias, -4.6)  # prior: one pixel in a hundred
        self.to_keypoints = _two_layers(width, width, 2 * keypoint_count)
        self.to_theta = _two_layers(width, 2 * width, theta.width)

    def forward(self, features: Features, K_B33: Tensor, *, keypoints: bool = True) -> Pixels:
        x_BDhw = self._gather(features, K_B33)
        cells_BhwD = x_BDhw.movedim(1, -1)
        height, width = x_BDhw.shape[-2:]
        middles_hw2 = patch_middles(height, width, x_BDhw.device)
        return Pixels(
            features_BDhw=x_BDhw,
            logits_Bhw=self.to_score(cells_BhwD)[..., 0],
            keypoints_BhwM2=self.keypoints(cells_BhwD, middles_hw2) if keypoints else None,
            maps=features.maps,
            K_B33=K_B33,
        )

    def keypoints(self, x_D: Tensor, middles_2: Tensor) -> Tensor:
        """(..., M, 2) keypoints [input sides] that pixels with these features (..., D) and centres (..., 2)
        predict."""
        return middles_2[..., None, :] + self.to_keypoints(x_D).unflatten(-1, (-1, 2))

    def _gather(self, features: Features, K_B33: Tensor) -> Tensor:
        """(B, D, h, w) features of each pixel."""
        x_BDhw = self.from_grid(features.grid_BDhw) + self.from_whole(features.global_BD)[:, :, None, None]
        if self.from_fine is not None:
            assert features.fine_BDhw is not None, "a backbone with a fine_width gives fine features"
            size = features.fine_BDhw.shape[-2:]
            x_BDhw = F.interpolate(x_BDhw, size=size, mode="bilinear") + self.from_fine(features.fine_BDhw)
        if self.from_rays is not None:
            x_BDhw = x_BDhw + self.from_rays(self.rays(K_B33, *x_BDhw.shape[-2:], self.stride))
        return self.norm(x_BDhw + self.mix(x_BDhw))


class LocalStage(nn.Module):
    """Local stage: keypoint-guided local encoding, which corrects the parameters of a pixel.

    Q_k, the query of keypoint k, is the pixel's feature and a learned embedding of k; P_k is the position of
    k that the pixel predicts; V are the backbone's maps of all scales. Body parts take the features of their
    own keypoints and correct their own rotations; shape and position are corrected from the features of all
    parts. The keypoints of all parts are sampled at once.
    """

    def __init__(self, config: GLNetConfig, map_widths: Sequence[int], theta: Theta, face: int) -> None:
        """face: index of the part that corrects the expression."""
        super().__init__()
        width = config.local_width
        self.keypoints = config.keypoints
        self.to_query = nn.Linear(config.width, width)
        self.mark_MD = nn.Parameter(torch.randn(len(self.keypoints), width) * 0.02)
        look = {"keypoints": DeformableAttention, "roi": FixedPooling}[config.guidance]
        options = {"head_count": config.head_count, "points": config.points}
        self.look = look(width, map_widths, width, **options)
        self.norm = nn.LayerNorm(width)
        self.reads = [[self.keypoints.index(joint) for joint in reads] for reads, _ in config.parts]
        self.moves = [theta.columns_of(moved) for _, moved in config.parts]
        self.moves[face] = self.moves[face] + theta.expression_columns
        self.read_parts = nn.ModuleList(
            nn.Sequential(nn.Linear((len(reads) + 1) * width + len(moves), PARTS_WIDTH), nn.GELU())
            for reads, moves in zip(self.reads, self.moves, strict=True)
        )
        lie = 2 * len(self.keypoints) + 1
        self.hear_layout = (
            nn.ModuleList(nn.Linear(lie, PARTS_WIDTH) for _ in self.reads) if config.layout else None
        )
        self.move_parts = nn.ModuleList(small(nn.Linear(PARTS_WIDTH, len(moves))) for moves in self.moves)
        whole = [*theta.shape_columns, *theta.place_columns]
        together = PARTS_WIDTH * len(self.reads)
        self.move_whole = _two_layers(together, PARTS_WIDTH, len(whole))
        self.to_score = nn.Linear(together, 1)
        columns = [*chain.from_iterable(self.moves), *whole]
        self.order = [columns.index(column) for column in range(theta.width)]

    def forward(
        self, x_BQD: Tensor, theta_BQC: Tensor, places_BQM2: Tensor, maps: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Corrected rows (B, Q, C), and logits (B, Q) by which the best pixel is chosen.

        Sampling positions are detached: keypoints would be trained to move to where refinement is easy.
        """
        pixel_BQD = self.to_query(x_BQD)
        query_BND = rearrange(pixel_BQD[:, :, None] + self.mark_MD, "b q m d -> b (q m) d")
        found_BND = self.look(query_BND, rearrange(places_BQM2.detach(), "b q m xy -> b (q m) xy"), maps)
        known_BQMD = rearrange(
            self.norm(query_BND + found_BND), "b (q m) d -> b q m d", m=len(self.keypoints)
        )
        rows = [
            torch.cat([known_BQMD[:, :, reads].flatten(2), pixel_BQD, theta_BQC[..., moves].detach()], -1)
            for reads, moves in zip(self.reads, self.moves, strict=True)
        ]
        known = self._parts(rows, places_BQM2)
        changes = [move(part) for move, part in zip(self.move_parts, known, strict=True)]
        together_BQD = torch.cat(known, dim=-1)
        change_BQC = torch.cat([*changes, self.move_whole(together_BQD)], dim=-1)[..., self.order]
        return theta_BQC + change_BQC, self.to_score(together_BQD)[..., 0]

    def _parts(self, rows: Sequence[Tensor], places_BQM2: Tensor) -> list[Tensor]:
        """(B, Q, PARTS_WIDTH) features of each body part from its sampled features."""
        if self.hear_layout is None:
            return [read(row) for read, row in zip(self.read_parts, rows, strict=True)]
        layout_BQL = layout_of(places_BQM2).detach()
        parts = zip(self.read_parts, self.hear_layout, rows, strict=True)
        return [read[1](read[0](row) + hear(layout_BQL)) for read, hear, row in parts]  # type: ignore[index]


class FixedPooling(nn.Module):
    """RoI pooling: mean over a fixed square around each position, the baseline of deformable attention.

    Samples ROI_POINTS x ROI_POINTS positions of each level; the queries are not used.
    """

    around_N2: Tensor

    def __init__(
        self, query_width: int, value_widths: Sequence[int], out_width: int, *, head_count: int, points: int
    ) -> None:
        super().__init__()
        self.to_value = nn.ModuleList(nn.Conv2d(width, out_width, 1) for width in value_widths)
        self.to_out = nn.Linear(out_width, out_width)
        offsets = (patch_middles(ROI_POINTS, ROI_POINTS, torch.device("cpu")) - 0.5) * ROI_SIDE
        self.register_buffer("around_N2", offsets.flatten(0, 1), persistent=False)

    def forward(self, queries_BQD: Tensor, places_BQ2: Tensor, maps: Sequence[Tensor]) -> Tensor:
        """(B, Q, out_width), as `DeformableAttention.forward`."""
        points_BN2 = (places_BQ2[:, :, None] + self.around_N2).flatten(1, 2)
        read = [
            sample(to_value(map_BChw), points_BN2)
            for to_value, map_BChw in zip(self.to_value, maps, strict=True)
        ]
        mean_BQC = torch.stack(read).mean(0).unflatten(1, (-1, len(self.around_N2))).mean(2)
        return self.to_out(mean_BQC)


def layout_of(places_M2: Tensor) -> Tensor:
    """(..., 2 M + 1) positions relative to their mean in units of their extent, and the log of the extent."""
    ways_M2 = places_M2 - places_M2.mean(-2, keepdim=True)
    extent_11 = ways_M2.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=LEAST_EXTENT)
    return torch.cat([(ways_M2 / extent_11).flatten(-2), extent_11.flatten(-2).log()], dim=-1)


def _two_layers(width: int, hidden: int, out: int) -> nn.Sequential:
    """Two-layer perceptron, initialised to outputs near 0."""
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), small(nn.Linear(hidden, out)))
