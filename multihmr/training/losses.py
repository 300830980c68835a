"""Loss terms (detection, parameters, mesh, reprojection), and their sum for Multi-HMR (section 3.4).

A term is the sum of the valid errors divided by their number. A step may consist of several batches, on one
or many processes; all of them divide by the numbers of the whole step, so that the partition does not matter.
Every term is 0 for a perfect prediction; where nothing is valid it is 0 and still connected to the network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bodies.base import Body
from ..bodies.body_parts import PARTS, joint_parts
from ..bodies.topology import Topology
from ..geometry import project
from ..networks.base import Predictions
from ..networks.joint_heatmaps import JointReading, patch_middles
from .targets import Targets, blobs, highest


@dataclass(frozen=True)
class LossWeights:
    """Weight of each loss term; units differ (metres, matrix entries, picture sides), hence the range."""

    detection: float = 4.0
    offset: float = 1.0
    pose: float = 0.06
    shape: float = 2.0
    rest_joints: float = 0.0
    expression: float = 0.2
    depth: float = 4.0
    vertices: float = 40.0
    joints: float = 40.0
    reprojection: float = 20.0
    # for data with keypoints
    keypoints_2d: float = 20.0
    keypoints_3d: float = 40.0
    fov: float = 1.0
    # for networks with a joint heatmap head
    joint_heatmap: float = 6.0
    joint_owner: float = 40.0
    joint_depth: float = 10.0
    joint_place: float = 40.0
    # for networks with refinement: the coarse prediction, weighted less than the refined one
    coarse_joints: float = 10.0
    coarse_reprojection: float = 5.0


# Fingers, toes and eyes are 64 of Anny's 104 joints and mostly uncertain; with full weight they would
# dominate the joints that matter for a pose.
MINOR_JOINT_WEIGHT = 0.2


def joint_weights(topology: Topology) -> Tensor:
    """(J,) weight of each joint in the losses: 1 on average, less for fingers, toes and eyes."""
    parts = joint_parts(topology)
    beyond = {j for part in PARTS for j in parts[part] if topology.joint_names[j] not in PARTS[part]}
    toes = {j for j, name in enumerate(topology.joint_names) if "toe" in name}
    weights_J = torch.ones(len(topology.joint_names))
    weights_J[sorted(beyond | toes)] = MINOR_JOINT_WEIGHT
    return weights_J / weights_J.mean()


def focal_errors(logits: Tensor, heatmap: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CenterNet (Zhou et al. 2019, eq. 1; alpha 2, beta 4) of each cell.

    The loss is their sum divided by the number of peaks, the cells where the heatmap is 1.
    """
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    at_peaks = (1 - log_p.exp()) ** 2 * log_p
    elsewhere = (1 - heatmap) ** 4 * log_p.exp() ** 2 * log_not_p
    return -torch.where(heatmap == 1, at_peaks, elsewhere)


def l1_errors(pred: Tensor, true: Tensor) -> Tensor:
    """(P, N) absolute differences of N quantities (P, N, ...), times N: their mean is the sum per person."""
    return (pred - true).abs().flatten(2).sum(-1) * pred.shape[1]


def points_errors(pred_PN3: Tensor, true_PN3: Tensor, pred_P3: Tensor, true_P3: Tensor) -> Tensor:
    """(P, N) L1 distance of root-relative points, summed over xyz [m]."""
    return ((pred_PN3 - pred_P3[:, None]) - (true_PN3 - true_P3[:, None])).abs().sum(-1)


def pixel_errors(pred_PN3: Tensor, true_PN2: Tensor, K_P33: Tensor, size: float) -> Tensor:
    """(P, N) L1 reprojection error in picture sides."""
    error_PN2 = (project(pred_PN3, K_P33) - true_PN2).abs() / size
    # Clamped at half a picture: beyond it one person would dominate the gradient.
    return error_PN2.clamp(max=0.5).sum(-1)


class MultiHMRLoss(nn.Module):
    """Weighted loss terms of Multi-HMR, by name; training minimises their sum.

    Args:
        body: that the network predicts.
        image_size: side of the network input in pixels.
        read_joints: joints that the network's joint heatmap head predicts.
        weights: of the terms.
    """

    joint_weights_J: Tensor

    def __init__(
        self,
        body: Body,
        image_size: int,
        read_joints: Sequence[int] = (),
        weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        self.weights = weights or LossWeights()
        self.read_joints = list(read_joints)
        self.pelvis_joint = body.pelvis_joint
        self.skeleton = cast(Any, body).with_vertices(np.arange(1)) if self.weights.rest_joints else None
        self.topology = body.topology
        self.keypoints = KeypointRegressor(body.topology)
        self.register_buffer("joint_weights_J", joint_weights(body.topology), persistent=False)
        self.pose_joints = list(body.topology.pose_joints)
        self.image_size = image_size

    def forward(
        self, pred: Predictions, true: Targets, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """
        Args:
            pred: the network's predictions.
            true: targets of the same batch.
            counts: `self.counts`, summed over all batches of the step; by default of this batch alone.
        """
        counts = counts or self.counts(true)
        errors, counted = self.errors(pred, true), self.counted(true)
        return {
            name: weight * torch.where(counted[name], errors[name], 0.0).sum() / counts[name].clamp(min=1)
            for name, weight in asdict(self.weights).items()
            if name in errors
        }

    def counts(self, true: Targets) -> dict[str, Tensor]:
        """Normaliser of each term: the number of valid errors, or of peaks for heatmaps."""
        counts = {name: mask.sum() for name, mask in self.counted(true).items()}
        counts["detection"] = (true.heatmap_Bhw == 1).sum()
        # Of the trainer's own terms: counted here, where processes sum what they divide by.
        counts["mirror"] = (~true.known.camera_B).sum()
        counts["pictures"] = torch.tensor(len(true.known.camera_B), device=true.known.camera_B.device)
        if self.read_joints:
            everybody_PJ = true.everybody_BJ[true.centers.image_index_P][:, self.read_joints]
            counts["joint_heatmap"] = (self._joints_read(true) & everybody_PJ).sum()
        return counts

    def errors(self, pred: Predictions, true: Targets) -> dict[str, Tensor]:
        """Elementwise errors of each term, valid or not."""
        weights_J = self.joint_weights_J
        weights_R11 = weights_J[self.pose_joints, None, None]
        pelvis = (pred.joints_PJ3[:, self.pelvis_joint], true.joints_PJ3[:, self.pelvis_joint])
        K_P33 = pred.K_B33[true.centers.image_index_P]  # the true one, where there is one
        points_PM3 = self.keypoints(true.keypoint_sets, pred.vertices_PV3, pred.joints_PJ3)
        errors = {
            "detection": focal_errors(pred.logits_Bhw, true.heatmap_Bhw),
            "offset": l1_errors(pred.offset_P2[:, None], true.offset_P2[:, None]),
            "pose": l1_errors(pred.pose_PR33 * weights_R11, true.pose_PR33 * weights_R11),
            "shape": l1_errors(pred.shape_PS[..., None], true.shape_PS[..., None]),
            "expression": l1_errors(pred.expression_PE[..., None], true.expression_PE[..., None]),
            "depth": (pred.depth_code_P - true.depth_code_P).abs(),
            "vertices": points_errors(pred.vertices_PV3, true.vertices_PV3, *pelvis),
            "joints": points_errors(pred.joints_PJ3, true.joints_PJ3, *pelvis) * weights_J,
            "reprojection": pixel_errors(pred.joints_PJ3, true.joints_2d_PJ2, K_P33, self.image_size),
            "keypoints_2d": pixel_errors(points_PM3, true.points_2d_PM2, K_P33, self.image_size),
            "keypoints_3d": points_errors(
                points_PM3,
                true.points_3d_PM3,
                mean_of_known(points_PM3, true.known.points_3d_PM),
                mean_of_known(true.points_3d_PM3, true.known.points_3d_PM),
            ),
            "fov": (pred.fov_B.log() - true.fov_B.log()).abs(),
        }
        if self.skeleton is not None:
            rest_PJ3, true_PJ3 = self._rest_joints(pred.shape_PS), self._rest_joints(true.shape_PS)
            pelvis_P3 = (rest_PJ3[:, self.pelvis_joint], true_PJ3[:, self.pelvis_joint])
            errors["rest_joints"] = points_errors(rest_PJ3, true_PJ3, *pelvis_P3) * weights_J
        if pred.coarse_PJ3 is not None:
            coarse_PJ3, coarse_pelvis_P3 = pred.coarse_PJ3, pred.coarse_PJ3[:, self.pelvis_joint]
            coarse_PJ = points_errors(coarse_PJ3, true.joints_PJ3, coarse_pelvis_P3, pelvis[1])
            errors["coarse_joints"] = coarse_PJ * weights_J
            errors["coarse_reprojection"] = pixel_errors(
                coarse_PJ3, true.joints_2d_PJ2, K_P33, self.image_size
            )
        if pred.reading is not None:
            errors |= reading_errors(pred.reading, true, self.read_joints, self.image_size)
        return errors

    def _rest_joints(self, shape_PS: Tensor) -> Tensor:
        """(P, J, 3) joints of these shapes in the rest pose [m]."""
        assert self.skeleton is not None
        people = len(shape_PS)
        rest_PR33 = torch.eye(3, device=shape_PS.device).expand(people, self.skeleton.rotation_count, 3, 3)
        return self.skeleton(
            rest_PR33, shape_PS, shape_PS.new_zeros(people, self.skeleton.expression_count)
        ).joints_PJ3

    def counted(self, true: Targets) -> dict[str, Tensor]:
        """Masks of the valid errors: of known targets, and for 2D points of those in the picture."""
        known = true.known
        own_PM = self._own_joints(true)
        counted = {
            "detection": (true.heatmap_Bhw == 1) | true.heads_B[:, None, None],
            "offset": known.place_P[:, None],
            "pose": known.pose_PR,
            "shape": known.shape_PS,
            "rest_joints": known.shape_PS.all(1, keepdim=True).expand(-1, len(self.joint_weights_J)),
            "expression": known.expression_PE,
            "depth": known.place_P,
            "vertices": known.vertices_PV,
            "joints": known.joints_PJ,
            "reprojection": known.joints_PJ
            & known.place_P[:, None]
            & _inside(true.joints_2d_PJ2, true.window),
            "keypoints_2d": known.points_2d_PM
            & ~(own_PM & known.place_P[:, None])
            & _inside(true.points_2d_PM2, true.window),
            "keypoints_3d": known.points_3d_PM & ~own_PM,
            "fov": known.camera_B,
        }
        counted |= {f"coarse_{name}": counted[name] for name in ("joints", "reprojection")}
        if self.read_joints:
            read_PJ = self._joints_read(true)
            everybody_BJ11 = true.everybody_BJ[:, self.read_joints, None, None]
            counted |= {"joint_heatmap": everybody_BJ11, "joint_owner": read_PJ}
            counted |= {"joint_depth": read_PJ, "joint_place": read_PJ}
        return counted

    def _own_joints(self, true: Targets) -> Tensor:
        """(P, M) keypoints that are joints of the body, which the joint terms compare already."""
        known_PJ = true.known.joints_PJ
        return torch.cat(
            [
                known_PJ if name == self.topology.name else known_PJ.new_zeros(len(known_PJ), count)
                for name, count in true.keypoint_sets
            ]
            or [known_PJ[:, :0]],
            dim=1,
        )

    def _joints_read(self, true: Targets) -> Tensor:
        """(P, J) which of `read_joints` are in the picture and known."""
        known = true.known
        xy_PJ2 = true.joints_2d_PJ2[:, self.read_joints]
        inside_PJ = _inside(xy_PJ2, true.window)
        before_PJ = true.joints_PJ3[:, self.read_joints, 2] > 0
        return inside_PJ & before_PJ & known.joints_PJ[:, self.read_joints] & known.place_P[:, None]


def _inside(xy_PN2: Tensor, window: tuple[int, int]) -> Tensor:
    """(P, N) points in pictures of (height, width) pixels."""
    height, width = window
    return ((xy_PN2 > 0) & (xy_PN2 < xy_PN2.new_tensor([width, height]))).all(-1)


class KeypointRegressor(nn.Module):
    """Keypoint sets of a body as linear combinations of its vertices and joints.

    The matrices of a set are made when it is first used. They are buffers, so that they are freed with the
    loss that owns them.
    """

    def __init__(self, topology: Topology) -> None:
        super().__init__()
        self.topology = topology

    def forward(self, sets: Sequence[tuple[str, int]], vertices_PV3: Tensor, joints_PJ3: Tensor) -> Tensor:
        """(P, M, 3) points of keypoint sets of the topology, concatenated; its own name means its joints."""
        points = [joints_PJ3[:, :0]]
        for name, _ in sets:
            if name == self.topology.name:
                points.append(joints_PJ3)
            else:
                of_vertices_MV, of_joints_MJ = self._matrices(name, vertices_PV3, joints_PJ3)
                points.append(of_vertices_MV @ vertices_PV3 + of_joints_MJ @ joints_PJ3)
        return torch.cat(points, dim=1)

    def _matrices(self, name: str, vertices_PV3: Tensor, joints_PJ3: Tensor) -> tuple[Tensor, Tensor]:
        """(M, V) and (M, J): weight of each vertex and joint in each point."""
        names = (f"{name}_MV", f"{name}_MJ")
        if names[0] not in self._buffers:
            points = self.topology.keypoint_sets[name]
            rows, device = len(points.names), joints_PJ3.device
            of_vertices = torch.zeros(rows, vertices_PV3.shape[1])
            of_joints = torch.zeros(rows, joints_PJ3.shape[1])
            pairs = [(of_vertices, points.vertex_indices, points.vertex_weights)]
            if points.joint_indices is not None and points.joint_weights is not None:
                pairs.append((of_joints, points.joint_indices, points.joint_weights))
            for matrix, indices, weights in pairs:
                matrix.scatter_add_(1, torch.tensor(indices), torch.tensor(weights))
            self.register_buffer(names[0], of_vertices.to(device), persistent=False)
            self.register_buffer(names[1], of_joints.to(device), persistent=False)
        return self.get_buffer(names[0]), self.get_buffer(names[1])


def mean_of_known(points_PM3: Tensor, known_PM: Tensor) -> Tensor:
    """(P, 3) mean of the known points, 0 without any."""
    total_P3 = (points_PM3 * known_PM[..., None]).sum(1)
    return total_P3 / known_PM.sum(1, keepdim=True).clamp(min=1)


def reading_errors(
    reading: JointReading, true: Targets, joints: Sequence[int], image_size: int
) -> dict[str, Tensor]:
    """Errors of the joint heatmap head for `joints` in the picture, occluded ones included.

    - joint_heatmap (B, J, h, w): focal loss per joint,
    - joint_owner (P, J): offset from a joint to the head of its person (L1 [picture sides]),
    - joint_depth (P, J): depth of a joint relative to that head (L1 [m]),
    - joint_place (P, J): 2D position of the joint for its person (L1 [picture sides]).
    """
    height, width, count = reading.logits_BhwJ.shape[1:]
    xyz_PJ3, places_PJ2 = true.joints_PJ3[:, joints], true.joints_2d_PJ2[:, joints] / image_size
    index_P = true.centers.image_index_P
    head_P12 = project(true.translation_P3[:, None], true.K_B33[index_P]) / image_size
    cells_PJ2 = places_PJ2 * max(height, width)
    inside_PJ = ((cells_PJ2 >= 0) & (cells_PJ2 < cells_PJ2.new_tensor([width, height]))).all(-1)
    inside_PJ &= xyz_PJ3[..., 2] > 0
    limit_2 = torch.tensor([width, height], device=index_P.device) - 1
    col_PJ, row_PJ = cells_PJ2.long().clamp(min=0).minimum(limit_2).unbind(-1)
    at_PJ = (index_P[:, None], row_PJ, col_PJ, torch.arange(count, device=index_P.device))

    logits_BJhw = reading.logits_BhwJ.movedim(-1, 1)
    person, joint = inside_PJ.nonzero(as_tuple=True)
    peaks_Nhw = blobs(cells_PJ2[person, joint], height, width)
    slot_N = index_P[person] * count + joint
    heatmap_BJhw = highest(peaks_Nhw, slot_N, len(logits_BJhw) * count).view_as(logits_BJhw)
    heatmap_BJhw[index_P[person], joint, row_PJ[person, joint], col_PJ[person, joint]] = 1
    owner_PJ2 = head_P12 - patch_middles(height, width, index_P.device)[row_PJ, col_PJ]
    behind_PJ = xyz_PJ3[..., 2] - true.translation_P3[:, None, 2]
    return {
        "joint_heatmap": focal_errors(logits_BJhw, heatmap_BJhw),
        "joint_owner": (reading.owner_BhwJ2[at_PJ] - owner_PJ2).abs().sum(-1),
        "joint_depth": (reading.depth_BhwJ[at_PJ] - behind_PJ).abs(),
        "joint_place": (reading.places_PJ2 - (places_PJ2 - head_P12)).abs().sum(-1),
    }
