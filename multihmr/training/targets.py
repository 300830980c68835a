"""Batch -> what the network should have said, as tensors on its device.

The names are those of `Predictions`, so that every loss reads `pred.x` against `true.x`. What the data do not
know is filled in, so that the body can be run; `known` says what is not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..bodies.base import Body, BodyOutput
from ..bodies.topology import Topology
from ..data.sample import ANCHORS
from ..data.transforms import HEAD_POINTS
from ..geometry import depth_to_code, focal_to_fov, project
from ..networks.detection import Centers
from .collate import Batch, chosen
from .validity_masks import Known, fill, what_is_known

NEAREST = 0.05  # [m] before the camera; whose head is nearer, or behind it, is not in the picture


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
    points_2d_PM2: Tensor  # keypoints as the data set gives them, pixels of the window
    points_3d_PM3: Tensor
    keypoint_sets: tuple[tuple[str, int], ...]
    fov_B: Tensor
    K_B33: Tensor
    known: Known
    heads_B: Tensor  # whether it is known of all people in a picture where their head is
    everybody_BJ: Tensor  # ... and their joint J
    left_out: int  # people without a target: their head is nowhere, or nothing of them is in the window
    views: int  # as in Batch


@torch.no_grad()
def make_targets(batch: Batch, body: Body, patch: int) -> Targets:
    """Run the body once on the truth and write down where the heatmap should peak.

    ValueError: people of the batch cannot be placed with this body, or have keypoints that it does not give.
    """
    size = batch.images_BHW3.shape[1]
    for name, _ in batch.keypoint_sets:
        point_names(body.topology, name)
    known, batch = what_is_known(batch, body), fill(batch, body)
    placed = _stand(batch, body)
    head_P3 = placed.joints_PJ3[:, body.center_joint]
    known = replace(
        known,
        place_P=known.place_P & (head_P3[:, 2] > NEAREST),
        vertices_PV=known.vertices_PV.expand(placed.vertices_PV3.shape[:2]),
    )
    head_P2 = _heads(batch, placed, known, body)
    everybody_BJ = _everybody(known.joints_PJ & known.place_P[:, None], batch)
    inside_P, has_head_P = _in_window(batch, placed, known, body), ~head_P2.isnan().any(-1)
    heads_B = _everybody((has_head_P | ~inside_P)[:, None], batch)[:, 0]
    kept = (has_head_P & inside_P).nonzero()[:, 0]
    left_out = len(head_P2) - len(kept)
    batch, known = chosen(batch, kept), chosen(known, kept)
    placed, head_P2 = BodyOutput(*(points[kept] for points in placed)), head_P2[kept] / patch

    index_P, K_P33 = batch.image_index_P, batch.K_B33[batch.image_index_P]
    grid_size = size // patch
    cell_P2 = assign_cells(head_P2, index_P, grid_size)
    translation_P3 = placed.joints_PJ3[:, body.center_joint]
    return Targets(
        centers=Centers(index_P, cell_P2[:, 1], cell_P2[:, 0], torch.ones_like(translation_P3[:, 0])),
        heatmap_Bhw=_heatmap(head_P2, cell_P2, index_P, (len(batch), grid_size, grid_size)),
        pose_PR33=batch.pose_PR33,
        shape_PS=batch.shape_PS,
        expression_PE=batch.expression_PE,
        depth_code_P=depth_to_code(translation_P3[:, 2], K_P33[:, 0, 0], size),
        offset_P2=head_P2 - (cell_P2 + 0.5),
        translation_P3=translation_P3,
        vertices_PV3=placed.vertices_PV3,
        joints_PJ3=placed.joints_PJ3,
        joints_2d_PJ2=project(placed.joints_PJ3, K_P33),
        points_2d_PM2=batch.points_2d_PM2,
        points_3d_PM3=batch.points_3d_PM3,
        keypoint_sets=batch.keypoint_sets,
        fov_B=focal_to_fov(batch.K_B33[:, 0, 0], size),
        K_B33=batch.K_B33,
        known=known,
        heads_B=heads_B,
        everybody_BJ=everybody_BJ,
        left_out=left_out,
        views=batch.views,
    )


def point_names(topology: Topology, keypoint_set: str) -> tuple[str, ...]:
    """Names of the points of a set, which may be the body's own joints, under the body's name.

    ValueError: the body does not give them.
    """
    if keypoint_set == topology.name:
        return topology.joint_names
    if keypoint_set not in topology.keypoint_sets:
        known = ", ".join((topology.name, *sorted(topology.keypoint_sets)))
        raise ValueError(
            f"the data have keypoints of set '{keypoint_set}', which body '{topology.name}' does not give; "
            f"it gives {known}"
        )
    return topology.keypoint_sets[keypoint_set].names


def _stand(batch: Batch, body: Body) -> BodyOutput:
    """Everybody where their anchor is."""
    output = body(batch.pose_PR33, batch.shape_PS, batch.expression_PE)
    by_transl_P = batch.anchor_P == ANCHORS.index("transl")
    joint_P = torch.where(batch.anchor_P == ANCHORS.index("center"), body.center_joint, body.pelvis_joint)
    goal_P3 = batch.translation_P3
    if body.topology.rest_pelvis is not None:
        one_P1 = torch.ones_like(batch.shape_PS[:, :1])
        numbers_PK = torch.cat([one_P1, batch.shape_PS, batch.expression_PE], dim=1)
        rest_P3 = numbers_PK @ torch.tensor(body.topology.rest_pelvis).to(numbers_PK)
        goal_P3 = goal_P3 + rest_P3 * by_transl_P[:, None]
    elif by_transl_P.any():
        name = batch.names[int(batch.image_index_P[by_transl_P][0])]
        raise ValueError(
            f"people of sample '{name}' stand at SMPL's translation, which body '{body.name}' does not have; "
            "train a model of their body"
        )
    people = torch.arange(len(joint_P), device=joint_P.device)
    shift_P13 = (goal_P3 - output.joints_PJ3[people, joint_P])[:, None]
    return BodyOutput(output.vertices_PV3 + shift_P13, output.joints_PJ3 + shift_P13)


def _heads(batch: Batch, placed: BodyOutput, known: Known, body: Body) -> Tensor:
    """(P, 2) pixels of the heads: of the placed bodies, else the middle of the keypoints on it, else NaN."""
    exact_P2 = project(placed.joints_PJ3[:, body.center_joint, None], batch.K_B33[batch.image_index_P])[:, 0]
    on_head_M: list[bool] = []
    for keypoint_set, _ in batch.keypoint_sets:
        names = point_names(body.topology, keypoint_set)
        wanted = HEAD_POINTS if keypoint_set != body.name else (names[body.center_joint],)
        on_head_M += [name in wanted for name in names]
    use_PM1 = (known.points_2d_PM & torch.tensor(on_head_M, dtype=torch.bool).to(exact_P2.device))[..., None]
    middle_P2 = (batch.points_2d_PM2 * use_PM1).sum(1) / use_PM1.sum(1)  # 0 / 0 is NaN
    return torch.where(known.place_P[:, None], exact_P2, middle_P2)


def _in_window(batch: Batch, placed: BodyOutput, known: Known, body: Body) -> Tensor:
    """(P,) whether any point that is known of a person lies in the window."""
    size = batch.images_BHW3.shape[1]
    joints_PJ2 = project(placed.joints_PJ3, batch.K_B33[batch.image_index_P])
    joints_PJ = known.joints_PJ & known.place_P[:, None] & (placed.joints_PJ3[..., 2] > NEAREST)
    joints_PJ[:, body.center_joint] = known.place_P
    xy_PN2 = torch.cat([joints_PJ2, batch.points_2d_PM2], dim=1)
    counts_PN = torch.cat([joints_PJ, known.points_2d_PM], dim=1)
    return (counts_PN & (xy_PN2 >= 0).all(-1) & (xy_PN2 < size).all(-1)).any(1)


def _everybody(known_PJ: Tensor, batch: Batch) -> Tensor:
    """(B, J) whether it is known of everybody in a picture; True where there is nobody."""
    known_BJ = torch.ones(len(batch), known_PJ.shape[1], device=known_PJ.device)
    index_PJ = batch.image_index_P[:, None].expand_as(known_PJ)
    return known_BJ.scatter_reduce_(0, index_PJ, known_PJ.float(), "amin") > 0


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
