"""GLNet's adaptive matching and its losses at the global and the local stage.

Each crop shows one person or none. K of its pixels are positives: they should have a high score and predict
the person; all others should have a low score. Adaptive matching takes those of least cost

    L_match = -alpha (1 - p)^beta log p + w L_kpt2D
    L_all = l_cls L_cls + 1{positive} (l_2D L_2D + l_3D L_3D)

of the poster, which does not give alpha, beta and w: here 0.25 and 2 (RetinaNet, Lin et al. 2017) and 5 (the
share of boxes in DETR's cost, Carion et al. 2020), with L_kpt the mean L1 distance in crop sides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..bodies.swing_twist import rest_joints
from ..geometry import rot6d_to_rotmat
from ..networks.configs import GLNetConfig
from ..networks.detection import Centers
from ..networks.glnet import GLNet, GLNetOutput
from ..networks.glnet_stages import Pixels
from ..networks.joint_heatmaps import patch_middles
from .collate import chosen
from .losses import MultiHMRLoss
from .targets import Targets

ALPHA, BETA = 0.25, 2.0
KEYPOINT_COST = 5.0
# Of the costs of table 6, for which the poster gives no weights.
DEPTH_COST = 1.0  # of the difference of depth codes
ROTATION_COST = 1.0  # of the mean difference of entries of rotation matrices
FIXED_RADIUS = 0.1  # [crop sides] around the centre of a person, in which fixed matching has positives
BEYOND = 0.25  # [crop sides] outside of the crop, up to which keypoints count

# Terms of MultiHMRLoss that apply to each positive.
OF_PEOPLE = (
    *("offset", "pose", "shape", "expression", "depth", "vertices", "joints", "reprojection"),
    *("keypoints_2d", "keypoints_3d"),
)


@dataclass(frozen=True)
class StageWeights:
    """Weights of GLNet's stages and terms; terms that are not named here are weighted as in LossWeights."""

    global_stage: float = 0.5  # if there is a local stage; else as the local stage
    local_stage: float = 1.0
    score: float = 4.0
    # More than in LossWeights: with 4 it was less than a hundredth of the total loss, and little was learned.
    depth: float = 30.0
    keypoints: float = 20.0
    goals: float = 40.0
    twist: float = 1.0
    pair: float = 200.0  # distance of the heads of one person in paired crops, over the head's depth


@dataclass(frozen=True)
class Match:
    """The positives of each crop: indices of pixels, and weights that sum to 1 per person.

    Weights are 0 in crops without a person, and for padding.
    """

    index_BK: Tensor
    weight_BK: Tensor

    def rows(self) -> tuple[Tensor, Tensor]:
        """Crop and column of each positive."""
        crop_N, place_N = (self.weight_BK > 0).nonzero(as_tuple=True)
        return crop_N, place_N

    def spread(self, count: int) -> Match:
        """`count` of the positives of each crop, evenly from lowest to highest cost; all if there are fewer.

        A crop with fewer repeats some. The choice is deterministic, so that resumed runs are identical.
        """
        if count >= self.weight_BK.shape[1]:
            return self
        present_B1 = (self.weight_BK > 0).sum(1, keepdim=True)
        steps_S = torch.linspace(0, 1, count, device=self.index_BK.device)
        columns_BS = (steps_S * (present_B1 - 1).clamp(min=0)).round().long()
        weight_BS = (present_B1 > 0).float().expand(-1, count) / count
        return Match(self.index_BK.gather(1, columns_BS), weight_BS)


@torch.no_grad()
def match(pixels: Pixels, true: Targets, model: GLNet) -> Match:
    """The positives of each crop, by adaptive matching or, with `matching=fixed`, around the person's centre.

    Raises:
        ValueError: a crop has more than one person in the targets.
    """
    config = model.config
    crop_P = true.centers.image_index_P
    if len(crop_P.unique()) < len(crop_P):
        raise ValueError("GLNet is trained on crops of one person; the targets of a crop have several")
    fixed = config.matching == "fixed"
    cost_PN = fixed_cost(pixels, true, config) if fixed else adaptive_cost(pixels, true, model)
    count = min(_count(config, pixels), cost_PN.shape[1])
    best = cost_PN.topk(count, dim=1, largest=False)
    positive_PK = torch.ones_like(best.values)
    if fixed:
        positive_PK = (best.values <= FIXED_RADIUS).float()
        positive_PK[:, 0] = 1
    crops = len(pixels.logits_Bhw)
    index_BK = best.indices.new_zeros(crops, count).index_copy(0, crop_P, best.indices)
    weight_PK = positive_PK / positive_PK.sum(1, keepdim=True)
    return Match(index_BK, weight_PK.new_zeros(crops, count).index_copy(0, crop_P, weight_PK))


def adaptive_cost(pixels: Pixels, true: Targets, model: GLNet) -> Tensor:
    """(P, N) cost of adaptive matching of each pixel of a person's crop: score and 2D keypoints, and if the
    config says so, depth and rotation."""
    crop_P, config = true.centers.image_index_P, model.config
    logits_PN = pixels.logits_Bhw.flatten(1)[crop_P]
    cost_PN = ALPHA * (1 - logits_PN.sigmoid()) ** BETA * -F.logsigmoid(logits_PN)
    error_PNM = keypoint_errors(pixels, true, config)
    counts_P1M = counted_keypoints(true, config)[:, None]
    mean_PN = (error_PNM * counts_P1M).sum(-1) / counts_P1M.sum(-1).clamp(min=1)
    cost_PN = cost_PN + KEYPOINT_COST * mean_PN
    if config.cost != "2d":
        rows_PNC = model.global_head.to_theta(pixels.features_BDhw[crop_P].flatten(2).transpose(1, 2))
        parts = (rows_PNC + model.theta.mean_C).split(model.theta.sizes, dim=-1)
        error_PN = (parts[3][..., 0] - true.depth_code_P[:, None]).abs()
        cost_PN = cost_PN + DEPTH_COST * error_PN * true.known.place_P[:, None]
        if config.cost == "2d+depth+rotation":
            cost_PN = cost_PN + ROTATION_COST * _rotation_errors(parts[0], true)
    return cost_PN


def _rotation_errors(pose_PND: Tensor, true: Targets) -> Tensor:
    """(P, N) mean absolute difference of the entries of relative rotations, without the root."""
    errors = []
    for r in range(1, true.pose_PR33.shape[1]):
        pred_PN33 = rot6d_to_rotmat(pose_PND[..., 6 * r : 6 * r + 6])
        error_PN = (pred_PN33 - true.pose_PR33[:, None, r]).abs().mean((-1, -2))
        errors.append(error_PN * true.known.pose_PR[:, r, None])
    known_P1 = true.known.pose_PR[:, 1:].sum(1, keepdim=True).clamp(min=1)
    return torch.stack(errors).sum(0) / known_P1 if errors else pose_PND.new_zeros(pose_PND.shape[:2])


def fixed_cost(pixels: Pixels, true: Targets, config: GLNetConfig) -> Tensor:
    """(P, N) distance of each pixel from the mean of the person's joints in the crop [crop sides]."""
    height, width = pixels.logits_Bhw.shape[1:]
    joints_PJ2 = true.joints_2d_PJ2 / config.image_size
    inside_PJ = (
        ((joints_PJ2 > 0) & (joints_PJ2 < 1)).all(-1) & true.known.joints_PJ & true.known.place_P[:, None]
    )
    total_P2 = (joints_PJ2 * inside_PJ[..., None]).sum(1)
    middle_P2 = torch.where(
        inside_PJ.any(1, keepdim=True), total_P2 / inside_PJ.sum(1, keepdim=True).clamp(min=1), 0.5
    )
    pixel_N2 = patch_middles(height, width, joints_PJ2.device).flatten(0, 1)
    return (pixel_N2 - middle_P2[:, None]).norm(dim=-1)


def _count(config: GLNetConfig, pixels: Pixels) -> int:
    """Positives per crop: K, or for fixed matching at most as many pixels as its circle has."""
    height, width = pixels.logits_Bhw.shape[1:]
    circle = math.ceil(4 * FIXED_RADIUS**2 * height * width)
    return max(1, circle) if config.matching == "fixed" else config.positives


def keypoint_errors(pixels: Pixels, true: Targets, config: GLNetConfig) -> Tensor:
    """(P, N, M) L1 error of the keypoints predicted by each pixel of a person's crop [crop sides]."""
    assert pixels.keypoints_BhwM2 is not None, "encode(..., keypoints=True) predicts them"
    pred_PNM2 = pixels.keypoints_BhwM2.flatten(1, 2)[true.centers.image_index_P]
    true_PM2 = true.joints_2d_PJ2[:, list(config.keypoints)] / config.image_size
    return (pred_PNM2 - true_PM2[:, None]).abs().sum(-1)


def counted_keypoints(true: Targets, config: GLNetConfig) -> Tensor:
    """(P, M) keypoints that are known and in the crop or not far outside."""
    keypoints, known = list(config.keypoints), true.known
    places_PM2 = true.joints_2d_PJ2[:, keypoints] / config.image_size
    near_PM = ((places_PM2 > -BEYOND) & (places_PM2 < 1 + BEYOND)).all(-1)
    before_PM = true.joints_PJ3[:, keypoints, 2] > 0
    return near_PM & before_PM & known.joints_PJ[:, keypoints] & known.place_P[:, None]


def hard_negatives(pixels: Pixels, matched: Match, count: int) -> Tensor:
    """(B, count) pixels of each crop with the highest scores that are not positives."""
    logits_BN = pixels.logits_Bhw.detach().flatten(1).clone()
    crop_N, place_N = matched.rows()
    logits_BN[crop_N, matched.index_BK[crop_N, place_N]] = -math.inf
    return logits_BN.topk(count, dim=1).indices


def score_errors(logits: Tensor, positive: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017) of each pixel."""
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    missed = ALPHA * (1 - log_p.exp()) ** BETA * -log_p
    wrong = (1 - ALPHA) * log_p.exp() ** BETA * -log_not_p
    return torch.where(positive, missed, wrong)


class GLNetOutputs(NamedTuple):
    """Outputs of a network for a batch of crops.

    pixels          score and keypoints of all pixels
    sampled         the positives that were decoded
    global_output   people of these positives after the global stage
    local_output    the same after the local stage, None without one
    local_logits_BQ scores of the local stage, of these positives and of some negatives
    """

    pixels: Pixels
    sampled: Match
    global_output: GLNetOutput
    local_output: GLNetOutput | None
    local_logits_BQ: Tensor | None


class GLNetLoss(nn.Module):
    """Weighted loss terms of GLNet, by name; those of the local stage are called `local_...`.

    As in MultiHMRLoss they are sums divided by the numbers of the whole step, so that a step can consist of
    several batches. The weights of a person's positives sum to 1: people count the same.
    """

    def __init__(self, model: GLNet, weights: StageWeights | None = None) -> None:
        super().__init__()
        self.config = model.config
        self.of_people = MultiHMRLoss(model.body, model.config.image_size)
        self.weights = weights or StageWeights()
        self.limbs = model.theta.limbs
        self.skeleton = model.theta.skeleton if self.limbs is not None else None

    def counts(self, true: Targets) -> dict[str, Tensor]:
        """Normaliser of each term."""
        counts = {"score": true.K_B33.new_tensor(float(len(true.K_B33)))}
        counts |= {name: mask.sum() for name, mask in self._counted(true).items()}
        local = {f"local_{name}": count for name, count in counts.items()} if self.config.local else {}
        counts |= {"keypoints": counted_keypoints(true, self.config).sum()} | local
        if true.views == 2:
            counts["pair"] = _of_crops(true, true.known.place_P).unflatten(0, (-1, 2)).all(1).sum()
        return counts

    def forward(
        self, outputs: GLNetOutputs, matched: Match, true: Targets, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """counts: `self.counts`, summed over all batches of the step; by default of this batch alone."""
        counts = counts or self.counts(true)
        positive_BN, shares_B1 = self._positives(outputs.pixels, matched)
        errors_BN = score_errors(outputs.pixels.logits_Bhw.flatten(1), positive_BN)
        terms = {"score": self.weights.score * (errors_BN / shares_B1).sum() / counts["score"].clamp(min=1)}
        terms["keypoints"] = self._keypoints(outputs.pixels, matched, true) / counts["keypoints"].clamp(min=1)
        rows = _Rows.of(outputs.sampled, true)
        factor = self.weights.global_stage if outputs.local_output is not None else self.weights.local_stage
        terms |= self._stage(outputs.global_output, rows, true, counts, "", factor)
        if outputs.local_output is not None and outputs.local_logits_BQ is not None:
            terms |= self._stage(outputs.local_output, rows, true, counts, "local_", self.weights.local_stage)
            positive_BS = outputs.sampled.weight_BK > 0
            others = outputs.local_logits_BQ.shape[1] - positive_BS.shape[1]
            errors_BQ = (
                score_errors(outputs.local_logits_BQ, F.pad(positive_BS, (0, others))) / positive_BS.shape[1]
            )
            terms["local_score"] = self.weights.score * errors_BQ.sum() / counts["local_score"].clamp(min=1)
        if true.views == 2:
            pair = self._pair_distance(outputs.local_output or outputs.global_output, outputs.sampled, true)
            terms["pair"] = self.weights.pair * pair / counts["pair"].clamp(min=1)
        return terms

    def _pair_distance(self, output: GLNetOutput, sampled: Match, true: Targets) -> Tensor:
        """Sum over paired crops of the distance of their predicted heads, over the true head distance."""
        crop_N, place_N = sampled.rows()
        translation_N3 = output.people.translation_P3
        head_BK3 = translation_N3.new_zeros(*sampled.index_BK.shape, 3)
        head_BK3 = head_BK3.index_put((crop_N, place_N), translation_N3)
        counts_BK = (sampled.weight_BK > 0) & _of_crops(true, true.known.place_P)[:, None]
        both_TK = counts_BK[0::2] & counts_BK[1::2]
        depth_T1 = _of_crops(true, true.translation_P3.norm(dim=-1))[0::2, None]
        distance_TK = (head_BK3[0::2] - head_BK3[1::2]).norm(dim=-1) / depth_T1.clamp(min=1e-3)
        return (torch.where(both_TK, distance_TK, 0.0).sum(1) / both_TK.sum(1).clamp(min=1)).sum()

    def _positives(self, pixels: Pixels, matched: Match) -> tuple[Tensor, Tensor]:
        """(B, N) whether a pixel is positive; (B, 1) their number, or K in a crop without a person."""
        logits_BN = pixels.logits_Bhw.flatten(1)
        crop_N, place_N = matched.rows()
        positive_BN = torch.zeros_like(logits_BN, dtype=torch.bool)
        positive_BN[crop_N, matched.index_BK[crop_N, place_N]] = True
        counts_B1 = positive_BN.sum(1, keepdim=True)
        return positive_BN, torch.where(counts_B1 > 0, counts_B1, matched.index_BK.shape[1])

    def _keypoints(self, pixels: Pixels, matched: Match, true: Targets) -> Tensor:
        """Weighted sum of the keypoint errors of the positives."""
        crop_P = true.centers.image_index_P
        errors_PNM = keypoint_errors(pixels, true, self.config)
        index_PKM = matched.index_BK[crop_P][..., None].expand(-1, -1, errors_PNM.shape[2])
        errors_PM = (errors_PNM.gather(1, index_PKM) * matched.weight_BK[crop_P][..., None]).sum(1)
        counted_PM = counted_keypoints(true, self.config)
        return self.weights.keypoints * torch.where(counted_PM, errors_PM, 0.0).sum()

    def _stage(
        self,
        output: GLNetOutput,
        rows: _Rows,
        true: Targets,
        counts: Mapping[str, Tensor],
        prefix: str,
        factor: float,
    ) -> dict[str, Tensor]:
        weights = asdict(self.of_people.weights) | asdict(self.weights)
        targets = rows.targets(true, output.people.centers)
        errors = self.of_people.errors(output.people, targets) | self._limb_errors(output, true, rows)
        terms = {}
        for name, mask in self._counted(true).items():
            known = torch.where(mask[rows.person_N], errors[name], 0.0)
            total = (known[..., None].flatten(1).sum(1) * rows.weight_N).sum()
            terms[prefix + name] = factor * weights[name] * total / counts[prefix + name].clamp(min=1)
        return terms

    def _limb_errors(self, output: GLNetOutput, true: Targets, rows: _Rows) -> dict[str, Tensor]:
        """Errors of the joints that rotations are solved from (root-relative L1 [m]), and of twists."""
        decoded = output.meaning
        if self.limbs is None or self.skeleton is None:
            return {}
        assert decoded.goals_NJ3 is not None, "networks with limbs predict goals"
        assert decoded.twist_NT2 is not None, "networks with limbs predict twists"
        joints = list(self.limbs.joints)
        goals_PL3 = true.joints_PJ3[:, joints] - true.joints_PJ3[:, joints[:1]]
        rest_PJ3 = rest_joints(self.skeleton, true.shape_PS, true.expression_PE)
        twist_PT2 = self.limbs.twists(true.pose_PR33, rest_PJ3)
        return {
            "goals": (decoded.goals_NJ3[:, joints] - goals_PL3[rows.person_N]).abs().sum(-1),
            "twist": (decoded.twist_NT2 - twist_PT2[rows.person_N]).abs().sum(-1),
        }

    def _counted(self, true: Targets) -> dict[str, Tensor]:
        """Masks of the valid errors, for each term that this network has."""
        everything = self.of_people.counted(true)
        counted = {name: everything[name] for name in OF_PEOPLE}
        if self.limbs is not None:
            turned = [self.limbs.rotations[self.limbs.joints.index(j)] for j in self.limbs.swings]
            counted["goals"] = true.known.joints_PJ[:, list(self.limbs.joints)]
            counted["twist"] = true.known.pose_PR[:, turned] & true.known.shape_PS.all(1, keepdim=True)
        return counted


def _of_crops(true: Targets, value_P: Tensor) -> Tensor:
    """(B,) value of the person in each crop; 0 in crops without one."""
    return value_P.new_zeros(len(true.K_B33)).index_copy(0, true.centers.image_index_P, value_P)


class _Rows(NamedTuple):
    """The positives of all crops in one list: index of their person, and their weights."""

    person_N: Tensor
    weight_N: Tensor

    @classmethod
    def of(cls, matched: Match, true: Targets) -> _Rows:
        crop_N, place_N = matched.rows()
        crop_P = true.centers.image_index_P
        person_B = crop_P.new_zeros(len(matched.index_BK)).index_copy(
            0, crop_P, torch.arange(len(crop_P), device=crop_P.device)
        )
        return cls(person_B[crop_N], matched.weight_BK[crop_N, place_N])

    def targets(self, true: Targets, centers: Centers) -> Targets:
        """The targets repeated for each positive, with the head offset from its own pixel."""
        head_N2 = true.centers.heads(true.offset_P2)[self.person_N]
        repeated = chosen(true, self.person_N)
        return replace(
            repeated,
            centers=centers,
            offset_P2=head_N2 - centers.heads(torch.zeros_like(head_N2)),
            known=chosen(true.known, self.person_N),
        )
