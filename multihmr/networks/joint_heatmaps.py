"""Joint heatmaps: which patch shows which joint, grouped to people by offsets that point at their heads.

The Human Perception Head samples patches through attention, which must learn by itself where to attend. With
DINOv2 features it does; a small network trained on few images does not, and predicts arms and legs near the
mean. Here the attention has explicit supervised parts: each patch predicts which joints it shows, the offset
to the head of that person, and the depth of the joint relative to that head. For each joint, a person attends
to the patches that show it and point at their own head (bottom-up grouping as in PersonLab, Papandreou et al.
2018).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .detection import Centers

READ_WIDTH = 32  # features of a patch beside position, depth and confidence


@dataclass(frozen=True)
class JointReading:
    """Heatmaps of J joints over the patches, and the joints of each person by attention over them.

    Positions and offsets are (x, y) in sides of the input, depths in metres relative to the head.
    """

    logits_BhwJ: Tensor  # that the patch shows this joint of any person
    owner_BhwJ2: Tensor  # offset from the centre of the patch to that person's head
    depth_BhwJ: Tensor
    places_PJ2: Tensor  # offset from the person's head to the joint


class JointHead(nn.Module):
    """Patch features and people -> one vector per person that encodes their joints.

    `fine_width` is that of features at half the stride, which are added where a backbone has them: hands are
    smaller than patches.
    """

    def __init__(self, width: int, joint_count: int, out_width: int, fine_width: int = 0) -> None:
        super().__init__()
        self.joint_count = joint_count
        self.to_fine = nn.Conv2d(fine_width, width, 1) if fine_width else None
        if self.to_fine is not None:
            nn.init.zeros_(self.to_fine.weight)
        self.at_patches = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4 * joint_count))
        # Prior: few patches show a joint, as few show a head.
        nn.init.constant_(self.at_patches[2].get_parameter("bias")[:joint_count], -4.6)
        self.to_read = nn.Linear(width, READ_WIDTH)
        # Temperature of the attention, and tolerance of the offsets to a head [input sides].
        self.log_sharpness = nn.Parameter(torch.zeros(joint_count))
        self.log_tolerance = nn.Parameter(torch.full((joint_count,), -3.0))
        self.to_person = nn.Sequential(
            nn.Linear(joint_count * (READ_WIDTH + 4), 2 * out_width),
            nn.GELU(),
            nn.Linear(2 * out_width, out_width),
        )

    def forward(
        self, grid_BDhw: Tensor, fine_BDhw: Tensor | None, centers: Centers, heads_P2: Tensor
    ) -> tuple[Tensor, JointReading]:
        """-> (P, out_width) and the joints; heads_P2 are the positions of the heads [input sides]."""
        hidden_BhwD, read_BhwF = self._at_patches(grid_BDhw, fine_BDhw)
        answers_BhwC = self.at_patches[2](F.relu(hidden_BhwD))
        height, width = answers_BhwC.shape[1:3]
        logits_BhwJ = answers_BhwC[..., : self.joint_count]
        owner_BhwJ2 = answers_BhwC[..., self.joint_count : 3 * self.joint_count].unflatten(-1, (-1, 2))
        depth_BhwJ = answers_BhwC[..., 3 * self.joint_count :]

        middles_hw2 = patch_middles(height, width, grid_BDhw.device)
        pointed_BhwJ2 = middles_hw2[:, :, None] + owner_BhwJ2
        heads_BQ2, _, slot_P = centers.padded(heads_P2, grid_BDhw.shape[0])
        weights_BJQN = self._weights(logits_BhwJ, pointed_BhwJ2, heads_BQ2)

        # Features of patches are shared by all people of an image: no copy per person.
        middles_N2 = middles_hw2.flatten(0, 1)
        moments_BJQ4 = weights_BJQN @ torch.cat([middles_N2, middles_N2.square()], dim=-1)
        mean_BJQ2, square_BJQ2 = moments_BJQ4.split(2, dim=-1)
        spread_BJQ = (square_BJQ2 - mean_BJQ2.square()).sum(-1).clamp(min=0)
        evidence_BhwJ2 = torch.stack([depth_BhwJ, logits_BhwJ.sigmoid()], dim=-1)
        evidence_BJN2 = rearrange(evidence_BhwJ2, "b h w j two -> b j (h w) two")
        depth_BJQ, sure_BJQ = (weights_BJQN @ evidence_BJN2).unbind(-1)
        read_BNF = rearrange(read_BhwF, "b h w f -> b (h w) f")
        read_BMF = rearrange(weights_BJQN, "b j q n -> b (j q) n") @ read_BNF
        read_BJQF = rearrange(read_BMF, "b (j q) f -> b j q f", j=self.joint_count)

        # Factors scale all inputs to about the same size; attention spread over distant patches is uncertain.
        ways_BJQ2 = mean_BJQ2 - heads_BQ2[:, None]
        facts_BJQ2 = torch.stack([depth_BJQ, sure_BJQ - 20 * spread_BJQ], dim=-1)
        known_BJQF = torch.cat([read_BJQF, 4 * ways_BJQ2, facts_BJQ2], dim=-1)
        known_PJF = known_BJQF.transpose(1, 2)[centers.image_index_P, slot_P]
        places_PJ2 = ways_BJQ2.transpose(1, 2)[centers.image_index_P, slot_P]
        reading = JointReading(logits_BhwJ, owner_BhwJ2, depth_BhwJ, places_PJ2)
        return self.to_person(known_PJF.flatten(1)), reading

    def _at_patches(self, grid_BDhw: Tensor, fine_BDhw: Tensor | None) -> tuple[Tensor, Tensor]:
        """First layer of `at_patches` (B, h, w, D), before its ReLU, and `to_read` (B, h, w, READ_WIDTH).

        With fine features both are linear in upsampled coarse features plus `to_fine` of the fine ones.
        Upsampling commutes with linear layers, so they are applied to the four times fewer coarse patches,
        and as one matrix with `to_fine` to the fine ones.
        """
        first, read = cast(nn.Linear, self.at_patches[0]), self.to_read
        weight_ED = torch.cat([first.weight, read.weight])
        bias_E = torch.cat([first.bias, read.bias])
        said_BhwE = F.linear(grid_BDhw.movedim(1, -1), weight_ED, bias_E)
        if self.to_fine is not None and fine_BDhw is not None:
            coarse_BEhw = said_BhwE.movedim(-1, 1)
            said_BhwE = F.interpolate(coarse_BEhw, scale_factor=2, mode="bilinear").movedim(1, -1)
            fine_weight_EC = weight_ED @ self.to_fine.weight[..., 0, 0]
            fine_bias_E = None if self.to_fine.bias is None else weight_ED @ self.to_fine.bias
            said_BhwE = said_BhwE + F.linear(fine_BDhw.movedim(1, -1), fine_weight_EC, fine_bias_E)
        hidden_BhwD, read_BhwF = said_BhwE.split([len(first.weight), READ_WIDTH], dim=-1)
        return hidden_BhwD, read_BhwF

    def _weights(self, logits_BhwJ: Tensor, pointed_BhwJ2: Tensor, heads_BQ2: Tensor) -> Tensor:
        """(B, J, Q, N) weight of each patch for each joint of each person.

        Softmax of the joint's logit minus the squared distance between the position at which the patch points
        and the head. Of the expanded square only the mixed term needs both patch and head; the last term is
        the same for all patches.
        """
        precision_J = (-2 * self.log_tolerance).exp()
        own_BhwJ = logits_BhwJ * self.log_sharpness.exp() - pointed_BhwJ2.square().sum(-1) * precision_J / 2
        aim_BJ2N = rearrange(pointed_BhwJ2 * precision_J[:, None], "b h w j xy -> b j xy (h w)")
        own_BJ1N = rearrange(own_BhwJ, "b h w j -> b j 1 (h w)")
        return (own_BJ1N + heads_BQ2[:, None] @ aim_BJ2N).softmax(dim=-1)


def patch_middles(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width, 2) centres (x, y) of the patches, in longer sides of the input."""
    longer = max(height, width)
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / longer
    cols = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / longer
    y, x = torch.meshgrid(rows, cols, indexing="ij")
    return torch.stack([x, y], dim=-1)
