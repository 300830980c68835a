"""Human Perception Head: regresses pose, shape, expression and depth of each detected person; and the
iterative regressor that the paper compares it with.

Both are made by (config, context_width, grid_size, body), take (context_BDhw, centers, known_PD), where
known_PD are additional features of each person, and return pose (P, R, 3, 3), shape (P, S),
expression (P, E) and depth code (P,).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor, nn

from ..bodies.base import Body
from ..geometry import rot6d_to_rotmat, rotmat_to_rot6d
from .attention import PerceptionLayer
from .detection import Centers

if TYPE_CHECKING:
    from .configs import MultiHMRConfig

FIRST_DEPTH_CODE = math.log(4.0)  # initial value: a person 4 m away under 60 degrees


class PerceptionHead(nn.Module):
    """Human Perception Head: queries of person cells attend to the image's tokens and each other."""

    mean_pose: Tensor
    mean_shape: Tensor

    def __init__(self, config: MultiHMRConfig, context_width: int, grid_size: int, body: Body) -> None:
        super().__init__()
        width = config.head_width
        mean_pose = rotmat_to_rot6d(body.mean_pose_R33).flatten()
        self.register_buffer("mean_pose", mean_pose.clone())
        self.register_buffer("mean_shape", body.mean_shape_S.clone())
        # Learned per row and per column: position embeddings of queries, and a mark on cells with people.
        self.query_rows = nn.Parameter(torch.randn(grid_size, context_width) * 0.02)
        self.query_cols = nn.Parameter(torch.randn(grid_size, context_width) * 0.02)
        self.mark_rows = nn.Parameter(torch.randn(grid_size, context_width) * 0.02)
        self.mark_cols = nn.Parameter(torch.randn(grid_size, context_width) * 0.02)
        self.to_token = nn.Linear(context_width + len(mean_pose) + body.shape_count, width)
        self.layers = nn.ModuleList(
            PerceptionLayer(
                width,
                context_width,
                head_count=config.head_count,
                head_width=32,
                mlp_width=config.head_mlp_width,
                people_first=config.released,
                people_attention=config.people_attention,
            )
            for _ in range(config.head_depth)
        )
        self.norm = nn.Identity() if config.released else nn.LayerNorm(width)
        self.bounded = body.bounded
        self.to_pose = small(nn.Linear(width, len(mean_pose)))
        self.to_shape = small(nn.Linear(width, body.shape_count))
        self.to_expression = small(nn.Linear(width, body.expression_count))
        self.to_depth = small(nn.Linear(width, 1))
        nn.init.constant_(self.to_depth.bias, FIRST_DEPTH_CODE)

    def forward(
        self, context_BDhw: Tensor, centers: Centers, known_PD: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        query_PD = centers.gather(context_BDhw)
        row_P, col_P = self._square_cells(centers, context_BDhw)
        query_PD = query_PD + self.query_rows[row_P] + self.query_cols[col_P]
        mean_D = torch.cat([self.mean_pose, self.mean_shape])
        token_PD = self.to_token(torch.cat([query_PD, mean_D.expand(query_PD.shape[0], -1)], dim=-1))
        if known_PD is not None:
            token_PD = token_PD + known_PD

        marks_PD = centers.mask_invalid(self.mark_rows[row_P] + self.mark_cols[col_P])
        cell_P = centers.row_P * context_BDhw.shape[-1] + centers.col_P
        context_BND = rearrange(context_BDhw.clone(), "b d h w -> b (h w) d")
        context_BND[centers.image_index_P, cell_P] += marks_PD
        x_BQD, mask_BQ, slot_P = centers.padded(token_PD, context_BND.shape[0])
        for layer in self.layers:
            x_BQD = layer(x_BQD, mask_BQ, context_BND)
        x_PD = self.norm(x_BQD[centers.image_index_P, slot_P])

        pose6d_PN = self.to_pose(x_PD) + self.mean_pose
        shape_PS = self.to_shape(x_PD) + self.mean_shape
        parameters = _parameters(pose6d_PN, shape_PS, self.to_expression(x_PD), bounded=self.bounded)
        return *parameters, self.to_depth(x_PD)[:, 0]

    def _square_cells(self, centers: Centers, context_BDhw: Tensor) -> tuple[Tensor, Tensor]:
        """Rows and columns (P,) in the square grid, in whose middle a rectangular window lies."""
        height, width = context_BDhw.shape[-2:]
        rows, cols = len(self.query_rows), len(self.query_cols)
        return centers.row_P + (rows - height) // 2, centers.col_P + (cols - width) // 2


class IterativeHead(nn.Module):
    """Iterative regressor: corrections of the mean person from each person's own cell.

    HMR's regressor (Kanazawa et al., CVPR 2018, section 3.2): one small network gets the cell and the
    numbers so far and predicts their correction, several times. There is no attention to the image or others.
    """

    mean: Tensor

    def __init__(self, config: MultiHMRConfig, context_width: int, grid_size: int, body: Body) -> None:
        super().__init__()
        mean_pose = rotmat_to_rot6d(body.mean_pose_R33).flatten()
        no_face = torch.zeros(body.expression_count)
        self.sizes = (len(mean_pose), body.shape_count, body.expression_count, 1)
        mean = torch.cat([mean_pose, body.mean_shape_S, no_face, torch.tensor([FIRST_DEPTH_CODE])])
        self.register_buffer("mean", mean)
        self.bounded = body.bounded
        self.iterations = config.iterations
        width = config.head_mlp_width
        self.to_token = nn.Linear(context_width, config.head_width)
        self.correct = nn.Sequential(
            nn.Linear(config.head_width + len(mean), width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.GELU(),
            small(nn.Linear(width, len(mean))),
        )

    def forward(
        self, context_BDhw: Tensor, centers: Centers, known_PD: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        token_PD = self.to_token(centers.gather(context_BDhw))
        if known_PD is not None:
            token_PD = token_PD + known_PD
        x_PN = self.mean.expand(token_PD.shape[0], -1)
        for _ in range(self.iterations):
            x_PN = x_PN + self.correct(torch.cat([token_PD, x_PN], dim=-1))
        pose6d_PN, shape_PS, expression_PE, depth_code_P1 = x_PN.split(self.sizes, dim=-1)
        parameters = _parameters(pose6d_PN, shape_PS, expression_PE, bounded=self.bounded)
        return *parameters, depth_code_P1[:, 0]


def _parameters(
    pose6d_PN: Tensor, shape_PS: Tensor, expression_PE: Tensor, *, bounded: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Regressed values as parameters of a body."""
    if bounded:
        shape_PS, expression_PE = limit(shape_PS), limit(expression_PE)
    return rot6d_to_rotmat(pose6d_PN.unflatten(-1, (-1, 6))), shape_PS, expression_PE


def small(linear: nn.Linear) -> nn.Linear:
    """Initialise a regression layer with small weights, so that training starts near the mean."""
    nn.init.normal_(linear.weight, std=0.002)
    nn.init.zeros_(linear.bias)
    return linear


def limit(x: Tensor) -> Tensor:
    """Clamp to [0, 1], the range of phenotypes and facial actions, with a straight-through gradient."""
    return x + (x.clamp(0, 1) - x).detach()
