"""2D keypoints of detected people, from the outputs of a MoveNet backbone.

As MoveNet decodes them (model card of MoveNet.MultiPose, 2021): a person's centre regresses the approximate
position of each keypoint, and the keypoint's heatmap nearby refines it. 2D keypoints lift to 3D alike in
rendered images and in photographs, so that they transfer from one to the other.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..backbones.movenet import KEYPOINTS, Pose, cells, people_of
from ..detection import Centers

CELL = 4  # pixels of the window
# Largest distance of the detected head from the face that a centre predicts, in sizes of that person.
FACE_TOLERANCE = 0.12
# Search radius around the regressed position of a keypoint, likewise; and its minimum [cells].
SEARCH, LEAST_SEARCH = 0.12, 2.0
HIDDEN_WIDTH = 512


class Keypoints(NamedTuple):
    """K keypoints of P people."""

    xy_PK2: Tensor  # pixels of the window; may lie outside of it
    scores_PK: Tensor  # in [0, 1]
    sure_P: Tensor  # in [0, 1], confidence that the person exists
    size_P: Tensor  # of the person, as regressed from its centre [pixels]

    def of(self, people: Tensor) -> Keypoints:
        """Only these people: a mask (P,) or their indices."""
        return Keypoints(*(said[people] for said in self))

    @property
    def evidence_P(self) -> Tensor:
        """(P,) in [0, 1]: mean score of the five best keypoints."""
        return self.scores_PK.topk(5, dim=1).values.mean(1)


@torch.no_grad()
def find_keypoints(maps_BChw: Tensor, centers: Centers, heads_P2: Tensor) -> Keypoints:
    """Keypoints of the people with heads at (x, y) [pixels], from MoveNet's outputs."""
    pose = Pose.of(maps_BChw)
    height, width = maps_BChw.shape[-2:]
    weight_BN, face_BN2, size_BN = people_of(pose)
    image_P = centers.image_index_P
    head_P2 = heads_P2.flip(-1) / CELL  # row, column
    # The centre of each person: best score and face nearest to the head.
    miss_PN = (face_BN2[image_P] - head_P2[:, None]).square().sum(-1)
    miss_PN = miss_PN / (FACE_TOLERANCE * size_BN[image_P] + 1).square()
    sure_P, best_P = (weight_BN[image_P] * torch.exp(-miss_PN / 2)).max(1)
    size_P = size_BN[image_P, best_P]
    grid_N2 = cells(height, width, head_P2)
    expected_PK2 = grid_N2[best_P][:, None] + pose.regress_BK2hw.flatten(3)[image_P, :, :, best_P]
    # Each keypoint: best cell of its heatmap, weighted by the distance from the regressed position.
    reach_P = (SEARCH * size_P + LEAST_SEARCH)[:, None, None]
    row_PKh = _near(expected_PK2[..., :1], height, reach_P)
    col_PKw = _near(expected_PK2[..., 1:], width, reach_P)
    heat_PKhw = pose.heatmap_BKhw.sigmoid()[image_P]
    cell_PK = (heat_PKhw * row_PKh[..., None] * col_PKw[:, :, None]).flatten(2).argmax(-1)
    scores_PK = heat_PKhw.flatten(2).gather(2, cell_PK[..., None])[..., 0]
    offset_BKN2 = pose.offset_BK2hw.flatten(3).transpose(2, 3)
    number_K = torch.arange(cell_PK.shape[1], device=cell_PK.device)
    found_PK2 = grid_N2[cell_PK] + offset_BKN2[image_P[:, None], number_K, cell_PK]
    # Keypoints without a peak keep the regressed position.
    trust_PK1 = (scores_PK / 0.1).clamp(max=1)[..., None]
    xy_PK2 = (trust_PK1 * found_PK2 + (1 - trust_PK1) * expected_PK2).flip(-1) * CELL
    return Keypoints(xy_PK2, scores_PK, sure_P.sqrt(), size_P * CELL)


def _near(expected_PK1: Tensor, count: int, reach: Tensor) -> Tensor:
    """(P, K, count) in (0, 1]: weight of each row or column by its distance from the regressed one."""
    places = torch.arange(count, device=expected_PK1.device, dtype=expected_PK1.dtype)
    return torch.exp(-((places - expected_PK1) / reach).square() / 2).clamp(min=1e-6)


class KeypointReader(nn.Module):
    """Encoder of keypoints and camera -> one vector per person.

    Initialised to output 0, so that it can be added to a trained network.
    """

    def __init__(self, out_width: int) -> None:
        super().__init__()
        facts = KEYPOINTS * 5 + 6
        self.to_person = nn.Sequential(
            nn.Linear(facts, HIDDEN_WIDTH),
            nn.GELU(),
            nn.Linear(HIDDEN_WIDTH, HIDDEN_WIDTH),
            nn.GELU(),
            nn.Linear(HIDDEN_WIDTH, out_width),
        )
        nn.init.zeros_(self.to_person[4].get_parameter("weight"))
        nn.init.zeros_(self.to_person[4].get_parameter("bias"))

    def forward(self, found: Keypoints, heads_P2: Tensor, K_P33: Tensor, size: float) -> Tensor:
        """-> (P, out_width). heads_P2 and keypoints are in pixels of a window of side `size`."""
        focal_P2 = torch.stack([K_P33[:, 0, 0], K_P33[:, 1, 1]], dim=-1)
        middle_P2 = K_P33[:, :2, 2]
        rays_PK2 = (found.xy_PK2 - middle_P2[:, None]) / focal_P2[:, None]
        ways_PK2 = (found.xy_PK2 - heads_P2[:, None]) / found.size_P[:, None, None]
        facts = [
            4 * ways_PK2.clamp(-3, 3).flatten(1),
            rays_PK2.clamp(-3, 3).flatten(1),
            2 * found.scores_PK,
            ((heads_P2 - middle_P2) / focal_P2),
            found.sure_P[:, None],
            (found.size_P / focal_P2[:, 0]).log()[:, None],
            (found.size_P / size).log()[:, None],
            (focal_P2[:, :1] / size).log(),
        ]
        return self.to_person(torch.cat(facts, dim=1))
