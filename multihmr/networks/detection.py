"""From a heatmap of head centres to people, and people flat <-> padded.

All people of a batch stand in one flat list (P), ordered by image, row, column, whatever their number per
image; attention among the people of an image needs them padded (B, Q). Graphs of fixed shapes have `Slots`
instead: Q cells of each image, best first, and a mask of those that are people.
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

    def padded(self, x_PD: Tensor, image_count: int) -> tuple[Tensor, Tensor, Tensor]:
        """(P, D) -> (B, Q, D), mask (B, Q) of people, slot (P,) of each of the list, as `pad_people`."""
        return pad_people(x_PD, self.image_index_P, image_count)

    def mask_invalid(self, x_PD: Tensor) -> Tensor:
        """x_PD with zeros in rows without a person; here every row is a person."""
        return x_PD

    def heads(self, offset_P2: Tensor) -> Tensor:
        """(P, 2) where the heads are [cells], by their offsets (x, y) from the middles of the cells."""
        return torch.stack([self.col_P, self.row_P], dim=-1).to(offset_P2.dtype) + 0.5 + offset_P2


@dataclass(frozen=True)
class FixedCenters(Centers):
    """Q cells of each image, whatever the number of people in it: P is B * Q, image by image.

    In the rows of the flat list that mask_BQ does not have are numbers without meaning. full_B tells the
    images in which more cells were people than there are slots.
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
        """Only these slots of each image, masked anew; and their places (B * N,) in the list as it was.

        full_B: the images in which somebody was left out for want of slots.
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
    """Cells that score at least `threshold` and no less than their neighbours (max-pool NMS of CenterNet).

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
    """The scores of cells that `find_centers` finds, 0 elsewhere."""
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

    Two cells beside each other may show one person or two: which, is seen only when both are placed in space.
    `nms_3d_distance` says what makes two people: heads that far from each other across the line of sight
    [m], or, along it, depths whose ratio differs from 1 by that much. People of different images differ.
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
    """What `nms_3d` keeps, in `at_most` slots an image, best first; and where these were.

    Whether somebody stays depends on those with better scores alone. Each round settles one more slot, at
    least, so after as many rounds as there are slots all are settled, whoever is in whose place.
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
