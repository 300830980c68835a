"""Person detection: peaks of the head-centre heatmap, NMS, and lists of people flat <-> padded.

All people of a batch stand in one flat list (P), ordered by image, row, column, whatever their number per
image; attention among the people of an image needs them padded (B, Q). Graphs of fixed shapes have
`FixedCenters` instead: Q cells of each image, best first, and a mask of those that are people.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from ..geometry import same_place


@dataclass(frozen=True)
class Centers:
    """Grid cells of the detected people; all fields are (P,), integer but for the scores in [0, 1]."""

    image_index_P: Tensor
    row_P: Tensor
    col_P: Tensor
    scores_P: Tensor

    def __len__(self) -> int:
        return len(self.row_P)

    def gather(self, grid_BDhw: Tensor) -> Tensor:
        """(B, D, h, w) -> (P, D), the features in the cell of each person."""
        return grid_BDhw[self.image_index_P, :, self.row_P, self.col_P]

    def __getitem__(self, people: Tensor) -> Centers:
        """Only these people: a mask (P,) or their indices."""
        return Centers(*(getattr(self, field.name)[people] for field in fields(self)))

    def padded(self, x_PD: Tensor, image_count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(P, D) -> (B, Q, D), mask (B, Q) of people, slot (P,) of each of the list, as `pad_people`."""
        return pad_people(x_PD, self.image_index_P, image_count)

    def mask_invalid(self, x_PD: Tensor) -> Tensor:
        """x_PD with zeros in rows without a person; here every row is a person."""
        return x_PD

    def heads(self, offset_P2: Tensor) -> Tensor:
        """(P, 2) head positions (x, y) [cells]: cell centres plus the offsets."""
        return torch.stack([self.col_P, self.row_P], dim=-1).to(offset_P2.dtype) + 0.5 + offset_P2


@dataclass(frozen=True)
class FixedCenters(Centers):
    """Q cells of each image, whatever the number of people in it: P is B * Q, image by image.

    Rows of the flat list outside of mask_BQ are undefined. full_B marks images with more detections than
    slots.
    """

    mask_BQ: Tensor
    full_B: Tensor

    def __getitem__(self, people: Tensor) -> Centers:
        raise TypeError("the number of slots is fixed; take some of each image with `picked`")

    def padded(self, x_PD: Tensor, image_count: int) -> tuple[Tensor, Tensor, Tensor]:
        slot_P = torch.arange(self.mask_BQ.shape[1], device=x_PD.device).expand_as(self.mask_BQ).flatten()
        return x_PD.unflatten(0, self.mask_BQ.shape), self.mask_BQ, slot_P

    def mask_invalid(self, x_PD: Tensor) -> Tensor:
        return torch.where(self.mask_BQ.flatten()[:, None], x_PD, x_PD.new_zeros(()))

    def picked(self, slot_BN: Tensor, mask_BN: Tensor, full_B: Tensor) -> tuple[FixedCenters, Tensor]:
        """Select slots of each image, with a new mask; and their indices (B * N,) into the old flat list.

        full_B: images in which people were dropped because there were too few slots.
        """
        starts_B1 = torch.arange(slot_BN.shape[0], device=slot_BN.device)[:, None] * self.mask_BQ.shape[1]
        kept_P = (starts_B1 + slot_BN).flatten()
        image_P, row_P, col_P = self.image_index_P[kept_P], self.row_P[kept_P], self.col_P[kept_P]
        return FixedCenters(
            image_P, row_P, col_P, self.scores_P[kept_P], mask_BN, self.full_B | full_B
        ), kept_P


def find_centers(
    scores_Bhw: Tensor, *, threshold: float, nms_kernel: int = 3, max_people: int | None = None
) -> Centers:
    """Detect people: cells that score at least `threshold` and are local maxima (max-pool NMS of CenterNet).

    `max_people` keeps the best of each image.
    """
    kept = _peaks(scores_Bhw, threshold, nms_kernel)
    if max_people is not None and max_people < kept[0].numel():
        best = kept.flatten(1).topk(max_people, dim=1)
        kept = torch.zeros_like(kept).flatten(1).scatter(1, best.indices, best.values).view_as(kept)
    image_index_P, row_P, col_P = torch.nonzero(kept, as_tuple=True)
    return Centers(image_index_P, row_P, col_P, kept[image_index_P, row_P, col_P])


def topk_centers(scores_Bhw: Tensor, count: int, *, threshold: float, nms_kernel: int = 3) -> FixedCenters:
    """As `find_centers` with `max_people=count`, in shapes that do not depend on the content."""
    kept = _peaks(scores_Bhw, threshold, nms_kernel)
    batch, _, width = kept.shape
    best = kept.flatten(1).topk(min(count, kept[0].numel()), dim=1)
    image_BQ = torch.arange(batch, device=kept.device)[:, None].expand_as(best.indices)
    cell_P = best.indices.flatten()
    row_P = torch.div(cell_P, width, rounding_mode="floor")
    mask_BQ = best.values > 0
    full_B = (kept > 0).flatten(1).sum(1) > mask_BQ.shape[1]
    return FixedCenters(
        image_BQ.flatten(), row_P, cell_P - width * row_P, best.values.flatten(), mask_BQ, full_B
    )


def _peaks(scores_Bhw: Tensor, threshold: float, nms_kernel: int) -> Tensor:
    """Scores of the cells that are local maxima above the threshold, 0 elsewhere."""
    height, width = scores_Bhw.shape[1:]
    pooled = F.max_pool2d(scores_Bhw[:, None], nms_kernel, stride=1, padding=nms_kernel // 2)[:, 0]
    pooled = pooled[:, :height, :width]  # even kernels give a row and a column more
    return torch.where(
        (scores_Bhw == pooled) & (scores_Bhw >= threshold), scores_Bhw, scores_Bhw.new_zeros(())
    )


def nms_3d(
    translation_P3: Tensor,
    centers: Centers,
    *,
    nms_3d_distance: tuple[float, float],
    at_most: int | None = None,
) -> Tensor:
    """3D non-maximum suppression: (P,) booleans, of people at the same place only the best-scored is kept.

    Neighbouring cells may show one person or two, which only their positions in space tell. `nms_3d_distance`
    are the distances from which they count as two: of the heads across the line of sight [m], and along it as
    |ratio of depths - 1|. People of different images are never suppressed by each other.
    """
    same_PP = same_place(translation_P3, nms_3d_distance)
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


def nms_3d_fixed(
    translation_P3: Tensor, slots: FixedCenters, *, nms_3d_distance: tuple[float, float], at_most: int
) -> tuple[FixedCenters, Tensor]:
    """`nms_3d` in fixed shapes: `at_most` slots per image, best first; and their former indices.

    Whether a person is kept depends only on people with better scores. Each iteration decides at least one
    more slot, so that after as many iterations as slots all are decided.
    """
    batch, count = slots.mask_BQ.shape
    same_BQQ = same_place(translation_P3.unflatten(0, (batch, count)), nms_3d_distance)
    better_QQ = torch.ones(count, count, dtype=torch.bool, device=same_BQQ.device).tril(-1)
    rivals_BQQ = (same_BQQ & better_QQ).to(translation_P3.dtype)
    keep_BQ = slots.mask_BQ
    for _ in range(count - 1):
        beaten_BQ1 = rivals_BQQ @ keep_BQ.to(rivals_BQQ.dtype)[..., None]
        keep_BQ = slots.mask_BQ & (beaten_BQ1[..., 0] < 0.5)
    scores_BQ = slots.scores_P.unflatten(0, (batch, count))
    best = torch.where(keep_BQ, scores_BQ, scores_BQ.new_zeros(())).topk(min(at_most, count), dim=1)
    return slots.picked(best.indices, best.values > 0, keep_BQ.sum(1) > at_most)


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
