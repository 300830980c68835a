"""One function per loss term, and their weighted sum for Multi-HMR (section 3.4 of the paper).

Every term is a mean over people (or cells, or images) and 0 for a perfect prediction; with nobody in the
batch the person terms are 0 and still connected to the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bodies.body import Body
from ..bodies.joints import PARTS, joint_parts
from ..geometry import project
from ..humans import Topology
from ..model import Predictions
from ..networks.reader import JointReading, patch_middles
from .targets import Targets, blobs, highest


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts. Metres, radians, matrix entries and window sides, so they differ a lot."""

    detection: float = 4.0
    offset: float = 1.0
    pose: float = 0.06
    shape: float = 2.0
    expression: float = 0.2
    depth: float = 4.0
    vertices: float = 40.0
    joints: float = 40.0
    reprojection: float = 20.0
    fov: float = 1.0
    # of networks that read joints off the patches
    joint_heatmap: float = 6.0
    joint_owner: float = 40.0
    joint_depth: float = 10.0
    joint_place: float = 40.0


# Fingers, toes and eyes are 64 of Anny's 104 joints and mostly a guess; counted in full they drown out what
# decides about a pose.
MINOR_JOINT_WEIGHT = 0.2


def joint_weights(topology: Topology) -> Tensor:
    """(J,) how much each joint counts in the losses: 1 on average, less for fingers, toes and eyes."""
    parts = joint_parts(topology)
    beyond = {j for part in PARTS for j in parts[part] if topology.joint_names[j] not in PARTS[part]}
    toes = {j for j, name in enumerate(topology.joint_names) if "toe" in name}
    weights_J = torch.ones(len(topology.joint_names))
    weights_J[sorted(beyond | toes)] = MINOR_JOINT_WEIGHT
    return weights_J / weights_J.mean()


def detection_loss(logits_Bhw: Tensor, heatmap_Bhw: Tensor) -> Tensor:
    """Penalty-reduced focal loss of CenterNet (Zhou et al. 2019, eq. 1; alpha 2, beta 4), per person."""
    log_p, log_not_p = F.logsigmoid(logits_Bhw), F.logsigmoid(-logits_Bhw)
    is_head = heatmap_Bhw == 1
    at_heads = (1 - log_p.exp()) ** 2 * log_p
    elsewhere = (1 - heatmap_Bhw) ** 4 * log_p.exp() ** 2 * log_not_p
    return -torch.where(is_head, at_heads, elsewhere).sum() / is_head.sum().clamp(min=1)


def l1(pred: Tensor, true: Tensor) -> Tensor:
    """Absolute differences summed over all but the people, mean over people."""
    return (pred - true).abs().flatten(1).sum(1).sum() / max(1, len(pred))


def points_loss(
    pred_PN3: Tensor, true_PN3: Tensor, pred_P3: Tensor, true_P3: Tensor, weights_N: Tensor | None = None
) -> Tensor:
    """L1 of points relative to a point of their body (the pelvis), summed over xyz, mean over points [m]."""
    difference = (pred_PN3 - pred_P3[:, None]) - (true_PN3 - true_P3[:, None])
    distance_PN = difference.abs().sum(-1)
    if weights_N is not None:
        distance_PN = distance_PN * weights_N
    return distance_PN.sum() / max(1, distance_PN.numel())


def reprojection_loss(pred_PJ3: Tensor, true_PJ2: Tensor, K_P33: Tensor, size: float) -> Tensor:
    """L1 of projected joints in window sides; joints outside the window say little and do not count."""
    error_PJ2 = (project(pred_PJ3, K_P33) - true_PJ2).abs() / size
    inside_PJ = ((true_PJ2 > 0) & (true_PJ2 < size)).all(-1)
    # Half a picture away is wrong enough: more would let one person rule the gradient.
    return (error_PJ2.clamp(max=0.5).sum(-1) * inside_PJ).sum() / inside_PJ.sum().clamp(min=1)


class MultiHMRLoss(nn.Module):
    """Named terms, each already weighted; their sum is what training minimises."""

    joint_weights_J: Tensor

    def __init__(
        self,
        body: Body,
        image_size: int,
        read_joints: Sequence[int] = (),
        weights: LossWeights | None = None,
    ) -> None:
        super().__init__()
        self.read_joints = list(read_joints)
        self.pelvis_joint = body.pelvis_joint
        self.register_buffer("joint_weights_J", joint_weights(body.topology), persistent=False)
        self.pose_joints = list(body.topology.pose_joints)
        self.image_size = image_size
        self.weights = weights or LossWeights()

    def forward(self, pred: Predictions, true: Targets) -> dict[str, Tensor]:
        pelvis = (pred.joints_PJ3[:, self.pelvis_joint], true.joints_PJ3[:, self.pelvis_joint])
        K_P33 = true.K_B33[true.centers.image_index_P]
        weights_R11 = self.joint_weights_J[self.pose_joints, None, None]
        terms = {
            "detection": detection_loss(pred.logits_Bhw, true.heatmap_Bhw),
            "offset": l1(pred.offset_P2, true.offset_P2),
            "pose": l1(pred.pose_PR33 * weights_R11, true.pose_PR33 * weights_R11),
            "shape": l1(pred.shape_PS, true.shape_PS),
            "expression": l1(pred.expression_PE, true.expression_PE),
            "depth": l1(pred.depth_code_P[:, None], true.depth_code_P[:, None]),
            "vertices": points_loss(pred.vertices_PV3, true.vertices_PV3, *pelvis),
            "joints": points_loss(pred.joints_PJ3, true.joints_PJ3, *pelvis, self.joint_weights_J),
            "reprojection": reprojection_loss(pred.joints_PJ3, true.joints_2d_PJ2, K_P33, self.image_size),
            "fov": (pred.fov_B.log() - true.fov_B.log()).abs().mean(),
        }
        if pred.reading is not None:
            terms |= reading_losses(pred.reading, true, self.read_joints, self.image_size)
        return {name: weight * terms[name] for name, weight in asdict(self.weights).items() if name in terms}


def reading_losses(
    reading: JointReading, true: Targets, joints: Sequence[int], image_size: int
) -> dict[str, Tensor]:
    """What patches and people say about the body's `joints`, hidden ones too, that lie in the window.

    - joint_heatmap: focal loss per joint,
    - joint_owner: at a joint, the way to the head of its person (L1 [window sides]),
    - joint_depth: at a joint, how much further away it is than that head (L1 [m]),
    - joint_place: where the person looked for the joint (L1 [window sides]).
    """
    height, width, count = reading.logits_BhwJ.shape[1:]
    xyz_PJ3, places_PJ2 = true.joints_PJ3[:, joints], true.joints_2d_PJ2[:, joints] / image_size
    head_P2 = project(true.translation_P3[:, None], true.K_B33[true.centers.image_index_P])[:, 0] / image_size
    inside_PJ = ((places_PJ2 >= 0) & (places_PJ2 < 1)).all(-1) & (xyz_PJ3[..., 2] > 0)
    person, joint = inside_PJ.nonzero(as_tuple=True)
    image = true.centers.image_index_P[person]
    cells_N2 = places_PJ2[person, joint] * places_PJ2.new_tensor([width, height])
    col, row = cells_N2.long().unbind(-1)

    logits_BJhw = reading.logits_BhwJ.movedim(-1, 1)
    peaks_Nhw = blobs(cells_N2, height, width)
    heatmap_BJhw = highest(peaks_Nhw, image * count + joint, len(logits_BJhw) * count).view_as(logits_BJhw)
    heatmap_BJhw[image, joint, row, col] = 1
    middles_N2 = patch_middles(height, width, cells_N2.device)[row, col]
    behind_PJ = xyz_PJ3[..., 2] - true.translation_P3[:, None, 2]
    ways_PJ2 = places_PJ2 - head_P2[:, None]
    return {
        "joint_heatmap": detection_loss(logits_BJhw, heatmap_BJhw),
        "joint_owner": l1(reading.owner_BhwJ2[image, row, col, joint], head_P2[person] - middles_N2),
        "joint_depth": l1(
            reading.depth_BhwJ[image, row, col, joint][:, None], behind_PJ[person, joint, None]
        ),
        "joint_place": l1(reading.places_PJ2[person, joint], ways_PJ2[person, joint]),
    }
