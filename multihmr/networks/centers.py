"""From a heatmap of head centres to people, and people flat <-> padded.

All people of a batch stand in one flat list (P), ordered by image, row, column, whatever their number per
image; attention among the people of an image needs them padded (B, Q).
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

HEAD_RADIUS = 0.12  # metres


@dataclass(frozen=True)
class Centers:
    """The grid cells in which people are; all fields are (P,), integer but for the scores in [0, 1]."""

    image_index_P: Tensor
    row_P: Tensor
    col_P: Tensor
    scores_P: Tensor

    def __len__(self) -> int:
        return len(self.row_P)

    def gather(self, grid_BDhw: Tensor) -> Tensor:
        """(B, D, h, w) -> (P, D), what the grid holds in the cell of each person."""
        return grid_BDhw[self.image_index_P, :, self.row_P, self.col_P]

    def __getitem__(self, people: Tensor) -> Centers:
        """Only these people: a mask (P,) or their indices."""
        return Centers(*(getattr(self, field.name)[people] for field in fields(self)))

    def heads(self, offset_P2: Tensor) -> Tensor:
        """(P, 2) where the heads are [cells], by their offsets (x, y) from the middles of the cells."""
        return torch.stack([self.col_P, self.row_P], dim=-1) + 0.5 + offset_P2


def find_centers(
    scores_Bhw: Tensor, *, threshold: float, nms_kernel: int = 3, max_people: int | None = None
) -> Centers:
    """Cells that score at least `threshold` and no less than their neighbours (max-pool NMS of CenterNet).

    `max_people` keeps the best of each image.
    """
    height, width = scores_Bhw.shape[1:]
    pooled = F.max_pool2d(scores_Bhw[:, None], nms_kernel, stride=1, padding=nms_kernel // 2)[:, 0]
    pooled = pooled[:, :height, :width]  # even kernels give a row and a column more
    kept = torch.where(
        (scores_Bhw == pooled) & (scores_Bhw >= threshold), scores_Bhw, scores_Bhw.new_zeros(())
    )
    if max_people is not None and max_people < kept[0].numel():
        best = kept.flatten(1).topk(max_people, dim=1)
        kept = torch.zeros_like(kept).flatten(1).scatter(1, best.indices, best.values).view_as(kept)
    image_index_P, row_P, col_P = torch.nonzero(kept, as_tuple=True)
    return Centers(image_index_P, row_P, col_P, kept[image_index_P, row_P, col_P])


def different_people(
    translation_P3: Tensor, centers: Centers, *, apart: tuple[float, float], at_most: int | None = None
) -> Tensor:
    """(P,) booleans: the best-scored of those who stand in the same place, and all others.

    Two cells beside each other may show one person or two: which, is seen only when both are placed in space.
    `apart` says what makes two people: heads that far from each other across the line of sight [m], or, along
    it, depths whose ratio differs from 1 by that much. People of different images are different.
    """
    across, along = apart
    rays_P2 = translation_P3[:, :2] / translation_P3[:, 2:]
    depth_P = translation_P3[:, 2]
    across_PP = (rays_P2[:, None] - rays_P2).norm(dim=-1) * torch.minimum(depth_P[:, None], depth_P)
    along_PP = (depth_P[:, None] / depth_P).log().abs()
    same_PP = (across_PP < across) & (along_PP < math.log(1 + along))
    same_PP |= across_PP < min(HEAD_RADIUS, across)  # a head right behind another would not be seen
    same_PP &= centers.image_index_P[:, None] == centers.image_index_P
    alike, image = same_PP.cpu().numpy(), centers.image_index_P.tolist()
    kept: list[int] = []
    counts: Counter[int] = Counter()
    for person in centers.scores_P.argsort(descending=True, stable=True).tolist():
        full = at_most is not None and counts[image[person]] >= at_most
        if not full and not alike[person, kept].any():
            kept.append(person)
            counts[image[person]] += 1
    keep_P = torch.zeros_like(centers.scores_P, dtype=torch.bool)
    keep_P[kept] = True
    return keep_P


def pad_people(x_PD: Tensor, image_index_P: Tensor, image_count: int) -> tuple[Tensor, Tensor, Tensor]:
    """(P, D) -> (B, Q, D) padded with zeros, mask (B, Q) of real people, slot (P,) of each person in its row.

    `image_index_P` must ascend. Q is the largest number of people in one image, at least 1.
    """
    counts_B = torch.bincount(image_index_P, minlength=image_count)
    starts_B = counts_B.cumsum(0) - counts_B
    slot_P = torch.arange(len(image_index_P), device=x_PD.device) - starts_B[image_index_P]
    width = max(1, int(counts_B.max())) if len(counts_B) else 1
    padded_BQD = x_PD.new_zeros(image_count, width, x_PD.shape[1])
    padded_BQD[image_index_P, slot_P] = x_PD
    mask_BQ = torch.arange(width, device=x_PD.device) < counts_B[:, None]
    return padded_BQD, mask_BQ, slot_P
