"""How a GLNet is trained: the network to start with, and what a step makes of a batch of crops."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..networks.glnet import GLNet
from .collate import Batch
from .glnet_loss import GLNetLoss, Said, hard_negatives, match
from .targets import Targets, make_targets


class GLNetObjective(nn.Module):
    """Batch of crops in, weighted loss terms by name out: as `trainer.Objective`, for GLNet."""

    def __init__(self, model: GLNet) -> None:
        super().__init__()
        self.model = model
        self.criterion = GLNetLoss(model)

    def targets(self, batch: Batch) -> Targets:
        return make_targets(batch, self.model.body, self.model.stride)

    def forward(
        self, batch: Batch, true: Targets | None = None, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """true: `self.targets`, if they are there already; counts: as `GLNetLoss.forward` takes them."""
        true, model = true or self.targets(batch), self.model
        pixels = model.encode(batch.images_B3HW(), batch.K_B33)
        matched = match(pixels, true, model)
        spoken = matched.spread(model.config.bodies)
        crop_N, place_N = spoken.rows()
        asked_BQ = spoken.index_BK
        if model.local_head is not None:
            # A quarter as many others, so that the second score has something to tell them from.
            others_BQ = hard_negatives(pixels, matched, max(1, asked_BQ.shape[1] // 4))
            asked_BQ = torch.cat([asked_BQ, others_BQ], dim=1)
        x_BQD, theta_BQC = model.global_stage(pixels, asked_BQ)
        index_N = spoken.index_BK[crop_N, place_N]
        first, second, again_BQ = (
            model.decode(pixels, crop_N, index_N, theta_BQC[crop_N, place_N]),
            None,
            None,
        )
        if model.local_head is not None:
            theta_BQC, again_BQ = model.local_stage(pixels, asked_BQ, x_BQD, theta_BQC)
            second = model.decode(pixels, crop_N, index_N, theta_BQC[crop_N, place_N])
        return self.criterion(Said(pixels, spoken, first, second, again_BQ), matched, true, counts)
