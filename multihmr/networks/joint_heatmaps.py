"""Where are the joints, and whose: a head that reads a person's limbs off the patches.

The Human Perception Head asks the patches through attention, which must find out by itself what to look for.
DINOv2 features have seen enough for that; a small network trained on a laptop has not, and leaves arms and
legs near the mean. Here the attention is spelled out, so that every part of it can be taught directly: each
patch says which joints it shows, in which direction the head of that person lies, and how much further away
than that head the joint is. A person reads, for each joint, the patches that show it and point at their own
head (as bottom-up pose estimation groups joints, e.g. PersonLab, Papandreou et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from .detection import Centers

READ_WIDTH = 32  # numbers that are read of a patch besides place, distance and certainty


@dataclass(frozen=True)
class JointReading:
    """Heatmaps of J joints over the patches, and the joints that each person reads from them.

    Places and ways are (x, y) in sides of the window, depths in metres beyond the head.
    """

    logits_BhwJ: Tensor  # that the patch shows this joint of somebody
    owner_BhwJ2: Tensor  # the way from the middle of the patch to that person's head
    depth_BhwJ: Tensor
    places_PJ2: Tensor  # the way from the person's head to the joint


class JointHead(nn.Module):
    """Patch features and people -> one vector a person of everything that is known of their joints.

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
        # Few patches show a joint, as few show a head.
        nn.init.constant_(self.at_patches[2].get_parameter("bias")[:joint_count], -4.6)
        self.to_read = nn.Linear(width, READ_WIDTH)
        # How sharply joints are told apart, and how far patches may miss a head [window sides].
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
        """-> (P, out_width) and the reading; heads_P2 are where people's heads are [window sides]."""
        if self.to_fine is not None and fine_BDhw is not None:
            grid_BDhw = F.interpolate(grid_BDhw, scale_factor=2, mode="bilinear") + self.to_fine(fine_BDhw)
        height, width = grid_BDhw.shape[-2:]
        cells_BhwD = grid_BDhw.movedim(1, -1)
        answers_BhwC = self.at_patches(cells_BhwD)
        logits_BhwJ = answers_BhwC[..., : self.joint_count]
        owner_BhwJ2 = answers_BhwC[..., self.joint_count : 3 * self.joint_count].unflatten(-1, (-1, 2))
        depth_BhwJ = answers_BhwC[..., 3 * self.joint_count :]

        middles_hw2 = patch_middles(height, width, grid_BDhw.device)
        pointed_BhwJ2 = middles_hw2[:, :, None] + owner_BhwJ2
        heads_BQ2, _, slot_P = centers.padded(heads_P2, grid_BDhw.shape[0])
        weights_BJQN = self._weights(logits_BhwJ, pointed_BhwJ2, heads_BQ2)

        # All that patches say is looked up where it lies: no person has a copy of it.
        middles_N2 = middles_hw2.flatten(0, 1)
        moments_BJQ4 = weights_BJQN @ torch.cat([middles_N2, middles_N2.square()], dim=-1)
        mean_BJQ2, square_BJQ2 = moments_BJQ4.split(2, dim=-1)
        spread_BJQ = (square_BJQ2 - mean_BJQ2.square()).sum(-1).clamp(min=0)
        evidence_BhwJ2 = torch.stack([depth_BhwJ, logits_BhwJ.sigmoid()], dim=-1)
        evidence_BJN2 = rearrange(evidence_BhwJ2, "b h w j two -> b j (h w) two")
        depth_BJQ, sure_BJQ = (weights_BJQN @ evidence_BJN2).unbind(-1)
        read_BND = rearrange(self.to_read(cells_BhwD), "b h w d -> b (h w) d")
        read_BMF = rearrange(weights_BJQN, "b j q n -> b (j q) n") @ read_BND
        read_BJQF = rearrange(read_BMF, "b (j q) f -> b j q f", j=self.joint_count)

        # The factors bring all numbers to about the same size; patches far apart agree on nothing.
        ways_BJQ2 = mean_BJQ2 - heads_BQ2[:, None]
        facts_BJQ2 = torch.stack([depth_BJQ, sure_BJQ - 20 * spread_BJQ], dim=-1)
        known_BJQF = torch.cat([read_BJQF, 4 * ways_BJQ2, facts_BJQ2], dim=-1)
        known_PJF = known_BJQF.transpose(1, 2)[centers.image_index_P, slot_P]
        places_PJ2 = ways_BJQ2.transpose(1, 2)[centers.image_index_P, slot_P]
        reading = JointReading(logits_BhwJ, owner_BhwJ2, depth_BhwJ, places_PJ2)
        return self.to_person(known_PJF.flatten(1)), reading

    def _weights(self, logits_BhwJ: Tensor, pointed_BhwJ2: Tensor, heads_BQ2: Tensor) -> Tensor:
        """(B, J, Q, N) weight of each patch for each joint of each person.

        By how surely a patch shows the joint, less the square of how far it misses the head, whose mixed term
        alone needs both patch and head, and whose last term is the same for all patches.
        """
        precision_J = (-2 * self.log_tolerance).exp()
        own_BhwJ = logits_BhwJ * self.log_sharpness.exp() - pointed_BhwJ2.square().sum(-1) * precision_J / 2
        aim_BJ2N = rearrange(pointed_BhwJ2 * precision_J[:, None], "b h w j xy -> b j xy (h w)")
        own_BJ1N = rearrange(own_BhwJ, "b h w j -> b j 1 (h w)")
        return (own_BJ1N + heads_BQ2[:, None] @ aim_BJ2N).softmax(dim=-1)


def patch_middles(height: int, width: int, device: torch.device) -> Tensor:
    """(height, width, 2) the middles (x, y) of the patches, in longer sides of the window."""
    longer = max(height, width)
    rows = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) / longer
    cols = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) / longer
    y, x = torch.meshgrid(rows, cols, indexing="ij")
    return torch.stack([x, y], dim=-1)
