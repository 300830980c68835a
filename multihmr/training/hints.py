"""What patches are asked besides, in training only: which joints they see, whose, and how the person stands.

The head asks the patches through attention, and attention that has learned nothing yet passes hardly any
gradient on. These small linear questions reach every patch directly, so that features of limbs come within
thousands of pictures. Their answers are no part of a model and are dropped at its export.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from .losses import detection_loss
from .targets import Targets, blobs, highest


@dataclass(frozen=True)
class HintWeights:
    """How much each term counts beside those of `LossWeights`."""

    hint_heatmap: float = 2.0
    hint_owner: float = 20.0
    hint_depth: float = 5.0
    hint_joints: float = 20.0


class Hints(nn.Module):
    """Asks (B, D, h, w) features for the joints of the body; the terms are 0 for perfect answers.

    - hint_heatmap: a heatmap for each joint, hidden ones too (focal loss per joint in the window),
    - hint_owner: at a joint, the way to the head of its person (L1 [window sides]),
    - hint_depth: at a joint, how much further away it is than that head (L1 [m]),
    - hint_joints: at a head, where the joints are from there (L1 over xyz, mean over joints [m]).
    """

    joints_J: Tensor

    def __init__(self, width: int, joints: Sequence[int], weights: HintWeights | None = None) -> None:
        super().__init__()
        self.weights = weights or HintWeights()
        self.register_buffer("joints_J", torch.tensor(joints), persistent=False)
        self.at_joints = _mlp(width, 4 * len(joints))
        self.at_heads = _mlp(width, 3 * len(joints))
        nn.init.constant_(cast(Tensor, self.at_joints[2].bias)[: len(joints)], -4.6)  # as the heads' heatmap

    def forward(self, features_BDhw: Tensor, true: Targets, patch: int) -> dict[str, Tensor]:
        """Weighted terms by name."""
        count = len(self.joints_J)
        cells_BhwD = features_BDhw.movedim(1, -1)
        answers_BhwC = self.at_joints(cells_BhwD)
        logits_BJhw = answers_BhwC[..., :count].movedim(-1, 1)

        xyz_PJ3 = true.joints_PJ3[:, self.joints_J]
        cells_PJ2 = true.joints_2d_PJ2[:, self.joints_J] / patch
        grid = torch.tensor(logits_BJhw.shape[:-3:-1], device=cells_PJ2.device)  # (w, h)
        inside_PJ = ((cells_PJ2 >= 0) & (cells_PJ2 < grid)).all(-1) & (xyz_PJ3[..., 2] > 0)
        person, joint = inside_PJ.nonzero(as_tuple=True)
        image = true.centers.image_index_P[person]
        at_N2 = cells_PJ2[person, joint]
        col, row = at_N2.long().unbind(-1)

        peaks_Nhw = blobs(at_N2, *logits_BJhw.shape[-2:])
        heatmap_BJhw = highest(peaks_Nhw, image * count + joint, len(logits_BJhw) * count).view_as(
            logits_BJhw
        )
        heatmap_BJhw[image, joint, row, col] = 1

        said_NJ3 = answers_BhwC[image, row, col, count:].unflatten(-1, (count, 3))
        said_N3 = said_NJ3[torch.arange(len(joint), device=joint.device), joint]
        head_P2 = torch.stack([true.centers.col_P, true.centers.row_P], dim=-1) + 0.5 + true.offset_P2
        owner_N2 = (head_P2[person] - at_N2) / grid
        behind_N = (xyz_PJ3[..., 2] - true.translation_P3[:, None, 2])[person, joint]

        from_head_PJ3 = self.at_heads(true.centers.gather(features_BDhw)).unflatten(-1, (count, 3))
        error_PJ3 = from_head_PJ3 - (xyz_PJ3 - true.translation_P3[:, None])
        number = max(1, len(joint))
        terms = {
            "hint_heatmap": detection_loss(logits_BJhw, heatmap_BJhw),
            "hint_owner": (said_N3[:, :2] - owner_N2).abs().sum() / number,
            "hint_depth": (said_N3[:, 2] - behind_N).abs().clamp(max=3).sum() / number,
            "hint_joints": error_PJ3.abs().sum(-1).sum() / max(1, error_PJ3[..., 0].numel()),
        }
        return {name: getattr(self.weights, name) * term for name, term in terms.items()}


def _mlp(width: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, out))
