"""Samples -> what the network should have said, as tensors on its device.

The names are those of `Predictions`, so that every loss reads `pred.x` against `true.x`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from ..bodies.body import Body, place
from ..data.sample import Sample
from ..geometry import depth_to_code, focal_to_fov, project
from ..networks.centers import Centers


@dataclass(frozen=True)
class Batch:
    """Samples of one window size, their people in one flat list; plain tensors, light to send to a device."""

    images_BHW3: Tensor  # uint8
    K_B33: Tensor
    image_index_P: Tensor
    pose_PR33: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    translation_P3: Tensor

    def to(self, device: torch.device) -> Batch:
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def images_B3HW(self) -> Tensor:
        """RGB in [0, 1], as networks take it."""
        return self.images_BHW3.movedim(-1, 1).float() / 255


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples whose pictures are all of one size; any of them, or all, may hold nobody."""
    counts = [len(sample.translation) for sample in samples]

    def people(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(sample, name) for sample in samples])).float()

    return Batch(
        images_BHW3=torch.from_numpy(np.stack([sample.image for sample in samples])),
        K_B33=torch.from_numpy(np.stack([sample.K for sample in samples])).float(),
        image_index_P=torch.repeat_interleave(torch.arange(len(samples)), torch.tensor(counts)),
        pose_PR33=people("pose"),
        shape_PS=people("shape"),
        expression_PE=people("expression"),
        translation_P3=people("translation"),
    )


@dataclass(frozen=True)
class Targets:
    """The truth in the words of `Predictions`."""

    centers: Centers
    heatmap_Bhw: Tensor  # 1 in the cells of heads, a small Gaussian around the head beside them
    pose_PR33: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    depth_code_P: Tensor
    offset_P2: Tensor
    translation_P3: Tensor
    vertices_PV3: Tensor
    joints_PJ3: Tensor
    joints_2d_PJ2: Tensor  # pixels of the window
    fov_B: Tensor
    K_B33: Tensor


@torch.no_grad()
def make_targets(batch: Batch, body: Body, patch: int) -> Targets:
    """Run the body once on the truth and write down where the heatmap should peak."""
    size = batch.images_BHW3.shape[1]
    grid_size = size // patch
    index_P, K_P33 = batch.image_index_P, batch.K_B33[batch.image_index_P]
    placed = place(
        body(batch.pose_PR33, batch.shape_PS, batch.expression_PE), batch.translation_P3, body.center_joint
    )
    head_P2 = project(batch.translation_P3[:, None], K_P33)[:, 0] / patch
    cell_P2 = assign_cells(head_P2, index_P, grid_size)
    return Targets(
        centers=Centers(index_P, cell_P2[:, 1], cell_P2[:, 0], torch.ones_like(batch.translation_P3[:, 0])),
        heatmap_Bhw=_heatmap(head_P2, cell_P2, index_P, (len(batch.K_B33), grid_size, grid_size)),
        pose_PR33=batch.pose_PR33,
        shape_PS=batch.shape_PS,
        expression_PE=batch.expression_PE,
        depth_code_P=depth_to_code(batch.translation_P3[:, 2], K_P33[:, 0, 0], size),
        offset_P2=head_P2 - (cell_P2 + 0.5),
        translation_P3=batch.translation_P3,
        vertices_PV3=placed.vertices_PV3,
        joints_PJ3=placed.joints_PJ3,
        joints_2d_PJ2=project(placed.joints_PJ3, K_P33),
        fov_B=focal_to_fov(batch.K_B33[:, 0, 0], size),
        K_B33=batch.K_B33,
    )


def assign_cells(head_P2: Tensor, image_index_P: Tensor, grid_size: int) -> Tensor:
    """The (col, row) cell of each head [cells]; who finds his own taken gets the nearest free one beside it.

    The first release dropped the second person of a cell from training without a word; here nobody is lost:
    the offset head learns to point from the neighbouring cell.
    """
    cells_P2 = head_P2.floor().long().clamp(0, grid_size - 1)
    taken: set[tuple[int, int, int]] = set()
    result = cells_P2.clone()
    for person, (image, (col, row)) in enumerate(zip(image_index_P.tolist(), cells_P2.tolist(), strict=True)):
        if (image, col, row) in taken:
            x, y = head_P2[person].tolist()
            free = [
                ((c + 0.5 - x) ** 2 + (r + 0.5 - y) ** 2, c, r)
                for c in range(max(0, col - 3), min(grid_size, col + 4))
                for r in range(max(0, row - 3), min(grid_size, row + 4))
                if (image, c, r) not in taken
            ]
            _, col, row = min(free, default=(0.0, col, row))
            result[person] = torch.tensor([col, row])
        taken.add((image, col, row))
    return result


def _heatmap(head_P2: Tensor, cell_P2: Tensor, image_index_P: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """CenterNet's target: 1 in the cell of each head; neighbours count less the nearer the head is."""
    heatmap_Bhw = highest(blobs(head_P2, *shape[1:]), image_index_P, shape[0])
    heatmap_Bhw[image_index_P, cell_P2[:, 1], cell_P2[:, 0]] = 1
    return heatmap_Bhw


def highest(maps_Nhw: Tensor, index_N: Tensor, count: int) -> Tensor:
    """(count, h, w): map i is the pixelwise highest of those with index i, 0 where there is none."""
    out = maps_Nhw.new_zeros(count, *maps_Nhw.shape[1:])
    return out.scatter_reduce_(0, index_N[:, None, None].expand_as(maps_Nhw), maps_Nhw, "amax")


def blobs(at_N2: Tensor, height: int, width: int) -> Tensor:
    """(N, 2) places [cells] -> (N, height, width) Gaussians around them, below 1 everywhere."""
    cols = torch.arange(width, device=at_N2.device) + 0.5
    rows = torch.arange(height, device=at_N2.device) + 0.5
    distance_Nhw = (cols - at_N2[:, :1])[:, None, :] ** 2 + (rows - at_N2[:, 1:])[:, :, None] ** 2
    # A deviation of 0.6 cells: a head on the edge between two cells lets the second one score 0.7 unpunished.
    return torch.exp(-distance_Nhw / (2 * 0.6**2)).clamp(max=0.99)
