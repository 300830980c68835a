"""Multi-HMR: every person of a picture in one pass (Baradel et al., ECCV 2024, arXiv 2402.14654).

Legend of shape suffixes: B images, P people of the batch, Q people padded per image, N patches, h w grid,
D features, R rotations, S shape, E expression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..bodies.body import Body
from ..geometry import (
    DEFAULT_FOV_DEG,
    code_to_depth,
    released_code_to_depth,
    rot6d_to_rotmat,
    rotmat_to_rot6d,
)
from ..image import Window
from ..model import Model, Predictions, own_camera
from .attention import PerceptionLayer
from .backbones import create_backbone
from .centers import Centers, find_centers, pad_people
from .rays import RayEmbedding
from .reader import JointReader


@dataclass(frozen=True)
class MultiHMRConfig:
    """Everything that rebuilds the network around its weights; kept as JSON in the checkpoint."""

    backbone: str = "hybrid_lite0"
    body: str = "anny"
    image_size: int = 320  # side of the square that the network looks at [pixels]
    ray_bands: int = 16
    head_width: int = 384
    head_depth: int = 2
    head_count: int = 8  # attention heads of 32 channels
    head_mlp_width: int = 768
    read_joints: tuple[int, ...] = ()  # of the body, that the head reads off the patches (reader.py); none
    nms_kernel: int = 3
    threshold: float = 0.3  # score above which a cell is a person, when the caller does not say
    # Compute as the SMPL-X checkpoints of 2024 do, where weights cannot make up for the difference: rays with
    # rows and columns swapped, people who look at each other first, no norm at the end, the focal length in
    # the exponent of the depth, no camera of the network's own (60 degrees), their own resizing of pictures.
    released: bool = False
    unpredicted: tuple[str, ...] = ()  # joints and facial actions that never moved in training


class PerceptionHead(nn.Module):
    """Human Perception Head: what each person's cell knows, asked of the whole picture."""

    mean_pose: Tensor
    mean_shape: Tensor

    def __init__(self, config: MultiHMRConfig, context_width: int, grid_size: int, body: Body) -> None:
        super().__init__()
        width = config.head_width
        mean_pose = rotmat_to_rot6d(body.mean_pose_R33).flatten()
        self.register_buffer("mean_pose", mean_pose.clone())
        self.register_buffer("mean_shape", body.mean_shape_S.clone())
        # Learned per row and per column: where the query stands, and a mark on the cells with people.
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
            )
            for _ in range(config.head_depth)
        )
        self.norm = nn.Identity() if config.released else nn.LayerNorm(width)
        self.bounded = body.bounded
        self.to_pose = _small(nn.Linear(width, len(mean_pose)))
        self.to_shape = _small(nn.Linear(width, body.shape_count))
        self.to_expression = _small(nn.Linear(width, body.expression_count))
        self.to_depth = _small(nn.Linear(width, 1))
        # A person 4 m away under 60 degrees: where learning starts.
        nn.init.constant_(self.to_depth.bias, math.log(4.0))

    def forward(
        self, context_BDhw: Tensor, centers: Centers, known_PD: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """-> pose (P, R, 3, 3), shape (P, S), expression (P, E), depth code (P,).

        known_PD: what is known of each person beforehand, added to their token.
        """
        count = len(centers)
        query_PD = centers.gather(context_BDhw)
        query_PD = query_PD + self.query_rows[centers.row_P] + self.query_cols[centers.col_P]
        mean_D = torch.cat([self.mean_pose, self.mean_shape])
        token_PD = self.to_token(torch.cat([query_PD, mean_D.expand(count, -1)], dim=-1))
        if known_PD is not None:
            token_PD = token_PD + known_PD

        context_BDhw = context_BDhw.clone()
        context_BDhw[centers.image_index_P, :, centers.row_P, centers.col_P] += (
            self.mark_rows[centers.row_P] + self.mark_cols[centers.col_P]
        )
        context_BND = context_BDhw.flatten(2).transpose(1, 2)
        x_BQD, mask_BQ, slot_P = pad_people(token_PD, centers.image_index_P, len(context_BDhw))
        for layer in self.layers:
            x_BQD = layer(x_BQD, mask_BQ, context_BND)
        x_PD = self.norm(x_BQD[centers.image_index_P, slot_P])

        pose6d_PR6 = (self.to_pose(x_PD) + self.mean_pose).unflatten(-1, (-1, 6))
        shape_PS = self.to_shape(x_PD) + self.mean_shape
        expression_PE = self.to_expression(x_PD)
        if self.bounded:
            shape_PS, expression_PE = _limit(shape_PS), _limit(expression_PE)
        return rot6d_to_rotmat(pose6d_PR6), shape_PS, expression_PE, self.to_depth(x_PD)[:, 0]


class MultiHMR(Model):
    """ViT features, head centres, camera rays, Human Perception Head, body: the whole network.

    Args:
        config: its sizes.
        body: the parametric body that it drives; not part of the weights.
        pretrained: start the backbone from public weights (training only).
    """

    family = "multihmr"

    def __init__(self, config: MultiHMRConfig, body: Body, *, pretrained: bool = False) -> None:
        super().__init__(body)
        self.config = config
        self.backbone = create_backbone(config.backbone, image_size=config.image_size, pretrained=pretrained)
        width = self.backbone.width
        self.to_score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        nn.init.constant_(self.to_score[2].get_parameter("bias"), -4.6)  # one cell in a hundred holds a head
        self.to_offset = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.to_fov = (
            None
            if config.released
            else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        )
        self.rays = RayEmbedding(config.ray_bands, swapped=config.released)
        grid_size = config.image_size // self.backbone.patch
        joints = len(config.read_joints)
        fine = self.backbone.fine_width
        self.reader = JointReader(width, joints, config.head_width, fine) if joints else None
        self.head = PerceptionHead(config, width + self.rays.width, grid_size, body)

    def forward(
        self,
        images_B3HW: Tensor,
        K_B33: Tensor | None = None,
        *,
        centers: Centers | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
    ) -> Predictions:
        """Predictions for a batch of square windows, RGB in [0, 1].

        Args:
            images_B3HW: sides of `config.image_size` pixels.
            K_B33: intrinsics in pixels of these windows; where it is None or NaN the network's own is used.
            centers: the cells of the true people, in training; otherwise people are found in the heatmap.
            threshold: least score of a person; None takes the checkpoint's.
            max_people: keep the best of each image.
        """
        size = self.config.image_size
        if tuple(images_B3HW.shape[-2:]) != (size, size):
            raise ValueError(f"this network looks at {size}x{size} windows, got {tuple(images_B3HW.shape)}")
        features = self.backbone(images_B3HW)
        grid_BDhw = features.grid_BDhw
        cells_BhwD = grid_BDhw.movedim(1, -1)
        logits_Bhw = self.to_score(cells_BhwD)[..., 0]
        fov_B = self._fov(features.global_BD)
        K_B33 = own_camera(fov_B, K_B33, size)
        if centers is None:
            threshold = self.config.threshold if threshold is None else threshold
            centers = find_centers(
                self._scores(logits_Bhw),
                threshold=threshold,
                nms_kernel=self.config.nms_kernel,
                max_people=max_people,
            )
        rays_BDhw = self.rays(K_B33, *grid_BDhw.shape[-2:], self.backbone.patch)
        context_BDhw = torch.cat([grid_BDhw, rays_BDhw], dim=1)
        offset_P2 = self.to_offset(centers.gather(grid_BDhw))
        known_PD, reading = None, None
        if self.reader is not None:
            heads_P2 = centers.heads(offset_P2).detach() * self.backbone.patch / size
            known_PD, reading = self.reader(grid_BDhw, features.fine_BDhw, centers, heads_P2)
        *parameters, depth_code_P = self.head(context_BDhw, centers, known_PD)

        to_depth = released_code_to_depth if self.config.released else code_to_depth
        depth_P = to_depth(depth_code_P, K_B33[centers.image_index_P, 0, 0], size)
        return self.stand(
            tuple(parameters),
            depth_P,
            offset_P2,
            centers=centers,
            K_B33=K_B33,
            depth_code_P=depth_code_P,
            logits_Bhw=logits_Bhw,
            fov_B=fov_B,
            reading=reading,
        )

    def window(self, height: int, width: int) -> Window:
        if self.config.released:
            return Window.released(height, width, self.config.image_size)
        return super().window(height, width)

    @property
    def own_camera_source(self) -> str:
        return "assumed" if self.to_fov is None else "predicted"

    def _fov(self, global_BD: Tensor) -> Tensor:
        if self.to_fov is None:
            return global_BD.new_full((len(global_BD),), math.radians(DEFAULT_FOV_DEG))
        return math.pi * torch.sigmoid(self.to_fov(global_BD))[:, 0]

    def _scores(self, logits_Bhw: Tensor) -> Tensor:
        scores_Bhw = logits_Bhw.sigmoid()
        # Theirs are clamped before the maximum is looked for, so that two of 0.9999 side by side both stay.
        return scores_Bhw.clamp(1e-4, 1 - 1e-4) if self.config.released else scores_Bhw


def _small(linear: nn.Linear) -> nn.Linear:
    """Start near the mean: regression heads whose first answers are small corrections."""
    nn.init.normal_(linear.weight, std=0.002)
    nn.init.zeros_(linear.bias)
    return linear


def _limit(x: Tensor) -> Tensor:
    """Into [0, 1], where phenotypes and facial actions live; the gradient passes as if nothing were cut."""
    return x + (x.clamp(0, 1) - x).detach()
