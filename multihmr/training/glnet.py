"""GLNet training objective: from a batch of person crops to weighted loss terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ..networks.glnet import GLNet
from .collate import Batch
from .glnet_loss import GLNetLoss, GLNetOutputs, hard_negatives, match
from .targets import Targets, make_targets
from .validity_masks import Dependencies


class GLNetObjective(nn.Module):
    """Weighted loss terms of a batch of crops, by name: `trainer.Objective` for GLNet."""

    def __init__(self, model: GLNet) -> None:
        super().__init__()
        self.model = model
        self.dependencies = Dependencies(model.body.topology)
        self.criterion = GLNetLoss(model)

    def targets(self, batch: Batch) -> Targets:
        return make_targets(batch, self.model.body, self.model.stride, self.dependencies)

    def forward(
        self, batch: Batch, true: Targets | None = None, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """true: `self.targets(batch)`, if computed already; counts: as for `GLNetLoss.forward`."""
        true, model = true or self.targets(batch), self.model
        pixels = model.encode(batch.images_B3HW(), batch.K_B33)
        matched = match(pixels, true, model)
        sampled = matched.spread(model.config.bodies)
        crop_N, place_N = sampled.rows()
        queries_BQ = sampled.index_BK
        if model.local_head is not None:
            # A quarter as many negatives, for the score of the local stage.
            negatives_BQ = hard_negatives(pixels, matched, max(1, queries_BQ.shape[1] // 4))
            queries_BQ = torch.cat([queries_BQ, negatives_BQ], dim=1)
        x_BQD, theta_BQC = model.global_stage(pixels, queries_BQ)
        index_N = sampled.index_BK[crop_N, place_N]
        global_output, local_output, local_logits_BQ = (
            model.decode(pixels, crop_N, index_N, theta_BQC[crop_N, place_N]),
            None,
            None,
        )
        if model.local_head is not None:
            theta_BQC, local_logits_BQ = model.local_stage(pixels, queries_BQ, x_BQD, theta_BQC)
            local_output = model.decode(pixels, crop_N, index_N, theta_BQC[crop_N, place_N])
        return self.criterion(
            GLNetOutputs(pixels, sampled, global_output, local_output, local_logits_BQ), matched, true, counts
        )
