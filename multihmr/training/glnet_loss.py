"""What GLNet learns from: which pixels answer for a person (matching), and how wrong they are at both stages.

Each crop holds one person, or nobody. K of its pixels are positives: they should have a high score and say
who the person is; all others should have a low score. Which ones: those of least cost

    L_match = -alpha (1 - p)^beta log p + w L_kpt2D
    L_all = l_cls L_cls + 1{positive} (l_2D L_2D + l_3D L_3D)

of the poster. It is silent about alpha, beta and w: here 0.25 and 2 (RetinaNet, Lin et al. 2017) and 5 (the
share of boxes in DETR's cost, Carion et al. 2020), with L_kpt the mean L1 distance in window sides.
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
COST_OF_KEYPOINTS = 5.0
# In the costs of table 6; the poster names them without weights.
COST_OF_DEPTH = 1.0  # of the difference of depth codes
COST_OF_ROTATION = 1.0  # of the mean difference of entries of rotation matrices
FIXED_RADIUS = 0.1  # [window sides] around the middle of a person, within which fixed matching has positives
BEYOND = 0.25  # [window sides] outside of the crop, up to which keypoints count

# Terms of MultiHMRLoss that a pixel answers for.
OF_PEOPLE = (
    *("offset", "pose", "shape", "expression", "depth", "vertices", "joints", "reprojection"),
    *("keypoints_2d", "keypoints_3d"),
)


@dataclass(frozen=True)
class StageWeights:
    """How much the stages and the terms of GLNet count; those not named here as in LossWeights."""

    first: float = 0.5  # of the glance, where there is a second look
    second: float = 1.0
    score: float = 4.0
    # More than in LossWeights: with 4 it was less than a hundredth of the whole loss, and little was learned.
    depth: float = 30.0
    keypoints: float = 20.0
    goals: float = 40.0
    twist: float = 1.0
    apart: float = 200.0  # heads of one person in two crops, in distances to it; of data with such crops


@dataclass(frozen=True)
class Match:
    """The positives of each crop: numbers of pixels, and their weights, which sum to 1 a person.

    Weights are 0 where the crop shows nobody, and for pixels that only fill the table.
    """

    index_BK: Tensor
    weight_BK: Tensor

    def rows(self) -> tuple[Tensor, Tensor]:
        """Crops and places in the table of the positives."""
        crop_N, place_N = (self.weight_BK > 0).nonzero(as_tuple=True)
        return crop_N, place_N

    def spread(self, count: int) -> Match:
        """`count` of the positives of each crop, from the cheapest to the dearest; all if there are no more.

        Where a crop has fewer, some stand for two. Which ones is no matter of chance: a run that was stopped
        goes on as if it had not been.
        """
        if count >= self.weight_BK.shape[1]:
            return self
        there_B1 = (self.weight_BK > 0).sum(1, keepdim=True)
        steps_S = torch.linspace(0, 1, count, device=self.index_BK.device)
        columns_BS = (steps_S * (there_B1 - 1).clamp(min=0)).round().long()
        weight_BS = (there_B1 > 0).float().expand(-1, count) / count
        return Match(self.index_BK.gather(1, columns_BS), weight_BS)


@torch.no_grad()
def match(pixels: Pixels, true: Targets, model: GLNet) -> Match:
    """Which pixels are positives. ValueError: a crop with more than one person in the truth."""
    config = model.config
    crop_P = true.centers.image_index_P
    if len(crop_P.unique()) < len(crop_P):
        raise ValueError("GLNet learns from crops with one person; several people are in the truth of one")
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
    """(P, N) how little each pixel of a person's crop is the one to answer: score and 2D keypoints, and with
    `cost` depth and rotation."""
    crop_P, config = true.centers.image_index_P, model.config
    logits_PN = pixels.logits_Bhw.flatten(1)[crop_P]
    cost_PN = ALPHA * (1 - logits_PN.sigmoid()) ** BETA * -F.logsigmoid(logits_PN)
    error_PNM = keypoint_errors(pixels, true, config)
    counts_P1M = counted_keypoints(true, config)[:, None]
    mean_PN = (error_PNM * counts_P1M).sum(-1) / counts_P1M.sum(-1).clamp(min=1)
    cost_PN = cost_PN + COST_OF_KEYPOINTS * mean_PN
    if config.cost != "2d":
        rows_PNC = model.global_head.to_theta(pixels.features_BDhw[crop_P].flatten(2).transpose(1, 2))
        parts = (rows_PNC + model.theta.mean_C).split(model.theta.sizes, dim=-1)
        off_PN = (parts[3][..., 0] - true.depth_code_P[:, None]).abs()
        cost_PN = cost_PN + COST_OF_DEPTH * off_PN * true.known.place_P[:, None]
        if config.cost == "2d+depth+rotation":
            cost_PN = cost_PN + COST_OF_ROTATION * _rotation_errors(parts[0], true)
    return cost_PN


def _rotation_errors(pose_PND: Tensor, true: Targets) -> Tensor:
    """(P, N) mean difference of entries of the relative rotations; the root's depends on the camera."""
    errors = []
    for r in range(1, true.pose_PR33.shape[1]):
        said_PN33 = rot6d_to_rotmat(pose_PND[..., 6 * r : 6 * r + 6])
        off_PN = (said_PN33 - true.pose_PR33[:, None, r]).abs().mean((-1, -2))
        errors.append(off_PN * true.known.pose_PR[:, r, None])
    known_P1 = true.known.pose_PR[:, 1:].sum(1, keepdim=True).clamp(min=1)
    return torch.stack(errors).sum(0) / known_P1 if errors else pose_PND.new_zeros(pose_PND.shape[:2])


def fixed_cost(pixels: Pixels, true: Targets, config: GLNetConfig) -> Tensor:
    """(P, N) how far each pixel is from the middle of what is seen of the person [window sides]."""
    height, width = pixels.logits_Bhw.shape[1:]
    joints_PJ2 = true.joints_2d_PJ2 / config.image_size
    seen_PJ = (
        ((joints_PJ2 > 0) & (joints_PJ2 < 1)).all(-1) & true.known.joints_PJ & true.known.place_P[:, None]
    )
    total_P2 = (joints_PJ2 * seen_PJ[..., None]).sum(1)
    middle_P2 = torch.where(
        seen_PJ.any(1, keepdim=True), total_P2 / seen_PJ.sum(1, keepdim=True).clamp(min=1), 0.5
    )
    at_N2 = patch_middles(height, width, joints_PJ2.device).flatten(0, 1)
    return (at_N2 - middle_P2[:, None]).norm(dim=-1)


def _count(config: GLNetConfig, pixels: Pixels) -> int:
    """Columns of the table: K, or as many pixels as the circle of fixed matching can hold."""
    height, width = pixels.logits_Bhw.shape[1:]
    circle = math.ceil(4 * FIXED_RADIUS**2 * height * width)
    return max(1, circle) if config.matching == "fixed" else config.positives


def keypoint_errors(pixels: Pixels, true: Targets, config: GLNetConfig) -> Tensor:
    """(P, N, M) L1 of the keypoints that each pixel of a person's crop believes in [window sides]."""
    assert pixels.keypoints_BhwM2 is not None, "encode(..., keypoints=True) finds them"
    said_PNM2 = pixels.keypoints_BhwM2.flatten(1, 2)[true.centers.image_index_P]
    wanted_PM2 = true.joints_2d_PJ2[:, list(config.keypoints)] / config.image_size
    return (said_PNM2 - wanted_PM2[:, None]).abs().sum(-1)


def counted_keypoints(true: Targets, config: GLNetConfig) -> Tensor:
    """(P, M) those that are known and lie in the crop or not far outside."""
    keypoints, known = list(config.keypoints), true.known
    places_PM2 = true.joints_2d_PJ2[:, keypoints] / config.image_size
    near_PM = ((places_PM2 > -BEYOND) & (places_PM2 < 1 + BEYOND)).all(-1)
    before_PM = true.joints_PJ3[:, keypoints, 2] > 0
    return near_PM & before_PM & known.joints_PJ[:, keypoints] & known.place_P[:, None]


def hard_negatives(pixels: Pixels, matched: Match, count: int) -> Tensor:
    """(B, count) the best-scored pixels of each crop that are no positives."""
    logits_BN = pixels.logits_Bhw.detach().flatten(1).clone()
    crop_N, place_N = matched.rows()
    logits_BN[crop_N, matched.index_BK[crop_N, place_N]] = -math.inf
    return logits_BN.topk(count, dim=1).indices


def score_errors(logits: Tensor, positive: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017) of each pixel; the mean number of positives is in the weights."""
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    missed = ALPHA * (1 - log_p.exp()) ** BETA * -log_p
    wrong = (1 - ALPHA) * log_p.exp() ** BETA * -log_not_p
    return torch.where(positive, missed, wrong)


class Said(NamedTuple):
    """What a network said of a batch: of all pixels, of some of the positives at both stages, and again of
    the scores of these and of some others."""

    pixels: Pixels
    spoken: Match
    first: GLNetOutput
    second: GLNetOutput | None
    again_BQ: Tensor | None


class GLNetLoss(nn.Module):
    """Named terms, each already weighted; those of the second stage are called `again_...`.

    Like those of MultiHMRLoss they are sums divided by the numbers of the whole step, so that a step can be
    cut into batches. The positives of a person share their weight: people count the same.
    """

    def __init__(self, model: GLNet, weights: StageWeights | None = None) -> None:
        super().__init__()
        self.config = model.config
        self.of_people = MultiHMRLoss(model.body, model.config.image_size)
        self.weights = weights or StageWeights()
        self.limbs = model.theta.limbs
        self.skeleton = model.theta.skeleton if self.limbs is not None else None

    def counts(self, true: Targets) -> dict[str, Tensor]:
        """What the errors of each term are divided by."""
        counts = {"score": true.K_B33.new_tensor(float(len(true.K_B33)))}
        counts |= {name: mask.sum() for name, mask in self._counted(true).items()}
        again = {f"again_{name}": count for name, count in counts.items()} if self.config.local else {}
        counts |= {"keypoints": counted_keypoints(true, self.config).sum()} | again
        if true.views == 2:
            counts["apart"] = _of_crops(true, true.known.place_P).unflatten(0, (-1, 2)).all(1).sum()
        return counts

    def forward(
        self, said: Said, matched: Match, true: Targets, counts: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        """counts: `self.counts`, summed over all batches of the step; by default this batch is all of it."""
        counts = counts or self.counts(true)
        positive_BN, shares_B1 = self._positives(said.pixels, matched)
        errors_BN = score_errors(said.pixels.logits_Bhw.flatten(1), positive_BN)
        terms = {"score": self.weights.score * (errors_BN / shares_B1).sum() / counts["score"].clamp(min=1)}
        terms["keypoints"] = self._keypoints(said.pixels, matched, true) / counts["keypoints"].clamp(min=1)
        rows = _Rows.of(said.spoken, true)
        factor = self.weights.first if said.second is not None else self.weights.second
        terms |= self._stage(said.first, rows, true, counts, "", factor)
        if said.second is not None and said.again_BQ is not None:
            terms |= self._stage(said.second, rows, true, counts, "again_", self.weights.second)
            positive_BS = said.spoken.weight_BK > 0
            others = said.again_BQ.shape[1] - positive_BS.shape[1]
            errors_BQ = score_errors(said.again_BQ, F.pad(positive_BS, (0, others))) / positive_BS.shape[1]
            terms["again_score"] = self.weights.score * errors_BQ.sum() / counts["again_score"].clamp(min=1)
        if true.views == 2:
            apart = self._apart(said.second or said.first, said.spoken, true)
            terms["apart"] = self.weights.apart * apart / counts["apart"].clamp(min=1)
        return terms

    def _apart(self, answer: GLNetOutput, spoken: Match, true: Targets) -> Tensor:
        """Sum over the pairs of crops of how far apart they see the head, in true distances."""
        crop_N, place_N = spoken.rows()
        translation_N3 = answer.people.translation_P3
        head_BK3 = translation_N3.new_zeros(*spoken.index_BK.shape, 3)
        head_BK3 = head_BK3.index_put((crop_N, place_N), translation_N3)
        counts_BK = (spoken.weight_BK > 0) & _of_crops(true, true.known.place_P)[:, None]
        both_TK = counts_BK[0::2] & counts_BK[1::2]
        distance_T1 = _of_crops(true, true.translation_P3.norm(dim=-1))[0::2, None]
        apart_TK = (head_BK3[0::2] - head_BK3[1::2]).norm(dim=-1) / distance_T1.clamp(min=1e-3)
        return (torch.where(both_TK, apart_TK, 0.0).sum(1) / both_TK.sum(1).clamp(min=1)).sum()

    def _positives(self, pixels: Pixels, matched: Match) -> tuple[Tensor, Tensor]:
        """(B, N) which pixels are; (B, 1) how many, or of nobody's crop how many it would have."""
        logits_BN = pixels.logits_Bhw.flatten(1)
        crop_N, place_N = matched.rows()
        positive_BN = torch.zeros_like(logits_BN, dtype=torch.bool)
        positive_BN[crop_N, matched.index_BK[crop_N, place_N]] = True
        counts_B1 = positive_BN.sum(1, keepdim=True)
        return positive_BN, torch.where(counts_B1 > 0, counts_B1, matched.index_BK.shape[1])

    def _keypoints(self, pixels: Pixels, matched: Match, true: Targets) -> Tensor:
        """Weighted sum of the errors of the keypoints that positives believe in."""
        crop_P = true.centers.image_index_P
        errors_PNM = keypoint_errors(pixels, true, self.config)
        index_PKM = matched.index_BK[crop_P][..., None].expand(-1, -1, errors_PNM.shape[2])
        errors_PM = (errors_PNM.gather(1, index_PKM) * matched.weight_BK[crop_P][..., None]).sum(1)
        counted_PM = counted_keypoints(true, self.config)
        return self.weights.keypoints * torch.where(counted_PM, errors_PM, 0.0).sum()

    def _stage(
        self,
        answer: GLNetOutput,
        rows: _Rows,
        true: Targets,
        counts: Mapping[str, Tensor],
        prefix: str,
        factor: float,
    ) -> dict[str, Tensor]:
        everything = asdict(self.of_people.weights) | asdict(self.weights)
        wanted = rows.targets(true, answer.people.centers)
        errors = self.of_people.errors(answer.people, wanted) | self._limb_errors(answer, true, rows)
        terms = {}
        for name, mask in self._counted(true).items():
            known = torch.where(mask[rows.person_N], errors[name], 0.0)
            total = (known[..., None].flatten(1).sum(1) * rows.weight_N).sum()
            terms[prefix + name] = factor * everything[name] * total / counts[prefix + name].clamp(min=1)
        return terms

    def _limb_errors(self, answer: GLNetOutput, true: Targets, rows: _Rows) -> dict[str, Tensor]:
        """Of the joints that rotations follow from (L1 from the root [m]), and of the twists."""
        meaning = answer.meaning
        if self.limbs is None or self.skeleton is None:
            return {}
        assert meaning.goals_NJ3 is not None, "networks with limbs say goals"
        assert meaning.twist_NT2 is not None, "networks with limbs say twists"
        joints = list(self.limbs.joints)
        goals_PL3 = true.joints_PJ3[:, joints] - true.joints_PJ3[:, joints[:1]]
        rest_PJ3 = rest_joints(self.skeleton, true.shape_PS, true.expression_PE)
        twist_PT2 = self.limbs.twists(true.pose_PR33, rest_PJ3)
        return {
            "goals": (meaning.goals_NJ3[:, joints] - goals_PL3[rows.person_N]).abs().sum(-1),
            "twist": (meaning.twist_NT2 - twist_PT2[rows.person_N]).abs().sum(-1),
        }

    def _counted(self, true: Targets) -> dict[str, Tensor]:
        """Which errors of people count, for each term that this network has."""
        everything = self.of_people.counted(true)
        counted = {name: everything[name] for name in OF_PEOPLE}
        if self.limbs is not None:
            turned = [self.limbs.rotations[self.limbs.joints.index(j)] for j in self.limbs.swings]
            counted["goals"] = true.known.joints_PJ[:, list(self.limbs.joints)]
            counted["twist"] = true.known.pose_PR[:, turned] & true.known.shape_PS.all(1, keepdim=True)
        return counted


def _of_crops(true: Targets, value_P: Tensor) -> Tensor:
    """(B,) what is said of the person in each crop; 0 where there is nobody."""
    return value_P.new_zeros(len(true.K_B33)).index_copy(0, true.centers.image_index_P, value_P)


class _Rows(NamedTuple):
    """The positives of all crops in one list: whose they are, and their weights."""

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

    def targets(self, true: Targets, asked: Centers) -> Targets:
        """The truth once for each positive, whose way to the head begins at its own pixel."""
        head_N2 = true.centers.heads(true.offset_P2)[self.person_N]
        repeated = chosen(true, self.person_N)
        return replace(
            repeated,
            centers=asked,
            offset_P2=head_N2 - asked.heads(torch.zeros_like(head_N2)),
            known=chosen(true.known, self.person_N),
        )
