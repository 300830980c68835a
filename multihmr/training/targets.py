"""Training targets: from a batch of annotations to the values that the network should predict.

Field names are those of `Predictions`, so that every loss compares `pred.x` with `true.x`. Missing
annotations are filled in, so that the body can be run; `known` says which targets are valid.
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
from .validity_masks import Dependencies, ValidMask, fill_missing, valid_mask

NEAREST = 0.05  # [m] smallest depth of a head in front of the camera


@dataclass(frozen=True)
class Targets:
    """Ground truth of a batch, with the field names of `Predictions`."""

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
    known: ValidMask
    heads_B: Tensor  # whether the head positions of all people in a picture are known
    everybody_BJ: Tensor  # ... and those of their joint J
    window: tuple[int, int]  # (height, width) of the pictures [pixels]
    left_out: int  # people without a target: no head position, or entirely outside the picture
    views: int  # as in Batch


@torch.no_grad()
def make_targets(batch: Batch, body: Body, patch: int, dependencies: Dependencies | None = None) -> Targets:
    """Targets of a batch: meshes of the true parameters, the detection heatmap and offsets, coded depths.

    Args:
        batch: on the body's device.
        body: that the network predicts.
        patch: side of a heatmap cell in pixels.
        dependencies: of the body's topology, kept by the objective; computed if not given.

    Raises:
        ValueError: people cannot be placed with this body, or have keypoints that it does not have.
    """
    window = (height, width) = batch.images_BHW3.shape[1:3]
    size = max(window)
    for name, _ in batch.keypoint_sets:
        point_names(body.topology, name)
    known, batch = valid_mask(batch, body, dependencies), fill_missing(batch, body)
    placed = _place_people(batch, body)
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
    grid_shape = (height // patch, width // patch)
    cell_P2 = assign_cells(head_P2, index_P, grid_shape)
    translation_P3 = placed.joints_PJ3[:, body.center_joint]
    return Targets(
        centers=Centers(index_P, cell_P2[:, 1], cell_P2[:, 0], torch.ones_like(translation_P3[:, 0])),
        heatmap_Bhw=_heatmap(head_P2, cell_P2, index_P, (len(batch), *grid_shape)),
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
        window=(height, width),
        views=batch.views,
    )


def point_names(topology: Topology, keypoint_set: str) -> tuple[str, ...]:
    """Names of the points of a keypoint set; the body's own joints are the set with the body's name.

    Raises:
        ValueError: the body does not have the set.
    """
    if keypoint_set == topology.name:
        return topology.joint_names
    if keypoint_set not in topology.keypoint_sets:
        known = ", ".join((topology.name, *sorted(topology.keypoint_sets)))
        raise ValueError(
            f"the data have keypoints of set '{keypoint_set}', which body '{topology.name}' does not "
            f"have; it has {known}"
        )
    return topology.keypoint_sets[keypoint_set].names


def _place_people(batch: Batch, body: Body) -> BodyOutput:
    """The bodies of all people at the positions of their anchors."""
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
            f"people of sample '{name}' are placed by SMPL's transl, which body '{body.name}' does not have; "
            "train a model with their body"
        )
    people = torch.arange(len(joint_P), device=joint_P.device)
    shift_P13 = (goal_P3 - output.joints_PJ3[people, joint_P])[:, None]
    return BodyOutput(output.vertices_PV3 + shift_P13, output.joints_PJ3 + shift_P13)


def _heads(batch: Batch, placed: BodyOutput, known: ValidMask, body: Body) -> Tensor:
    """(P, 2) head positions in pixels: of the placed bodies, else the mean of head keypoints, else NaN."""
    exact_P2 = project(placed.joints_PJ3[:, body.center_joint, None], batch.K_B33[batch.image_index_P])[:, 0]
    on_head_M: list[bool] = []
    for keypoint_set, _ in batch.keypoint_sets:
        names = point_names(body.topology, keypoint_set)
        wanted = HEAD_POINTS if keypoint_set != body.name else (names[body.center_joint],)
        on_head_M += [name in wanted for name in names]
    use_PM1 = (known.points_2d_PM & torch.tensor(on_head_M, dtype=torch.bool).to(exact_P2.device))[..., None]
    middle_P2 = (batch.points_2d_PM2 * use_PM1).sum(1) / use_PM1.sum(1)  # 0 / 0 is NaN
    return torch.where(known.place_P[:, None], exact_P2, middle_P2)


def _in_window(batch: Batch, placed: BodyOutput, known: ValidMask, body: Body) -> Tensor:
    """(P,) whether any known point of a person lies in the picture."""
    height, width = batch.images_BHW3.shape[1:3]
    joints_PJ2 = project(placed.joints_PJ3, batch.K_B33[batch.image_index_P])
    joints_PJ = known.joints_PJ & known.place_P[:, None] & (placed.joints_PJ3[..., 2] > NEAREST)
    joints_PJ[:, body.center_joint] = known.place_P
    xy_PN2 = torch.cat([joints_PJ2, batch.points_2d_PM2], dim=1)
    counts_PN = torch.cat([joints_PJ, known.points_2d_PM], dim=1)
    ends_2 = torch.tensor([width, height], device=xy_PN2.device)
    return (counts_PN & (xy_PN2 >= 0).all(-1) & (xy_PN2 < ends_2).all(-1)).any(1)


def _everybody(known_PJ: Tensor, batch: Batch) -> Tensor:
    """(B, J) whether it is known for all people of a picture; True in pictures without people."""
    known_BJ = torch.ones(len(batch), known_PJ.shape[1], device=known_PJ.device)
    index_PJ = batch.image_index_P[:, None].expand_as(known_PJ)
    return known_BJ.scatter_reduce_(0, index_PJ, known_PJ.float(), "amin") > 0


def assign_cells(head_P2: Tensor, image_index_P: Tensor, grid_shape: tuple[int, int]) -> Tensor:
    """The (col, row) heatmap cell of each head; a second head in a cell gets the nearest free cell.

    grid_shape: (rows, columns) of the heatmap.

    The official code drops the second person of a cell from training; here the offset head learns to point
    to it from the neighbouring cell.
    """
    rows, cols = grid_shape
    last_2 = torch.tensor([cols - 1, rows - 1], device=head_P2.device)
    cells_P2 = head_P2.floor().long().clamp(min=0).minimum(last_2)
    taken: set[tuple[int, int, int]] = set()
    result = cells_P2.clone()
    for person, (image, (col, row)) in enumerate(zip(image_index_P.tolist(), cells_P2.tolist(), strict=True)):
        if (image, col, row) in taken:
            x, y = head_P2[person].tolist()
            free = [
                ((c + 0.5 - x) ** 2 + (r + 0.5 - y) ** 2, c, r)
                for c in range(max(0, col - 3), min(cols, col + 4))
                for r in range(max(0, row - 3), min(rows, row + 4))
                if (image, c, r) not in taken
            ]
            _, col, row = min(free, default=(0.0, col, row))
            result[person] = torch.tensor([col, row])
        taken.add((image, col, row))
    return result


def _heatmap(head_P2: Tensor, cell_P2: Tensor, image_index_P: Tensor, shape: tuple[int, int, int]) -> Tensor:
    """CenterNet's detection target: 1 in the cell of each head, a Gaussian in the cells around it."""
    heatmap_Bhw = highest(blobs(head_P2, *shape[1:]), image_index_P, shape[0])
    heatmap_Bhw[image_index_P, cell_P2[:, 1], cell_P2[:, 0]] = 1
    return heatmap_Bhw


def highest(maps_Nhw: Tensor, index_N: Tensor, count: int) -> Tensor:
    """(count, h, w): map i is the pixelwise maximum of the maps with index i, 0 where there is none."""
    out = maps_Nhw.new_zeros(count, *maps_Nhw.shape[1:])
    return out.scatter_reduce_(0, index_N[:, None, None].expand_as(maps_Nhw), maps_Nhw, "amax")


def blobs(at_N2: Tensor, height: int, width: int) -> Tensor:
    """(N, 2) positions [cells] -> (N, height, width) Gaussians around them, below 1 everywhere."""
    cols = torch.arange(width, device=at_N2.device) + 0.5
    rows = torch.arange(height, device=at_N2.device) + 0.5
    distance_Nhw = (cols - at_N2[:, :1])[:, None, :] ** 2 + (rows - at_N2[:, 1:])[:, :, None] ** 2
    # A deviation of 0.6 cells: a head on the edge between two cells lets the second one score 0.7 unpunished.
    return torch.exp(-distance_Nhw / (2 * 0.6**2)).clamp(max=0.99)
