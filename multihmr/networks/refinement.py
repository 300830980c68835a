"""Local refinement of each person: the local stage of GLNet within the single pass of Multi-HMR.

GLNet ("Global-to-Pixel Regression for Human Mesh Recovery", ECCV 2024) predicts a person from the whole
crop, projects the joints of that estimate, samples features around them, and predicts a residual:
Theta = Theta_0 + Delta Theta. Here Theta_0 comes from the Human Perception Head. The combination is not
published; the choices made here are commented where they are made.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from einops import rearrange
from torch import Tensor, nn

from ..bodies.base import Body, place
from ..geometry import project, rot6d_to_rotmat, rotmat_to_rot6d
from .backbones.base import Features
from .deformable_attention import DeformableAttention
from .detection import Centers

WIDTH = 96  # features of a joint
NEAREST = 0.05  # [m] least depth at which joints are projected


class CoarseParams(NamedTuple):
    """Regressed parameters of P people, before placement in space."""

    pose_PR33: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    depth_code_P: Tensor
    offset_P2: Tensor  # [cells]

    def of(self, people: Tensor) -> CoarseParams:
        """Only these people: a mask (P,) or their indices."""
        return CoarseParams(*(field[people] for field in self))


class Refinement(nn.Module):
    """Refinement: samples feature maps at the projected joints of coarse people and regresses corrections.

    Initialised to predict 0, so that it can be added to a trained network.

    Args:
        joints: of the body, around which features are sampled.
        body: whose joints they are.
        map_widths: channels of the sampled maps, `Backbone.map_widths`.
        grid_width: channels of the detection grid.
    """

    no_turn_6: Tensor

    def __init__(
        self, joints: Sequence[int], body: Body, *, map_widths: Sequence[int], grid_width: int
    ) -> None:
        super().__init__()
        self.joints = list(joints)
        # Joints only: computing all vertices takes most of a body's time.
        self.skeleton: Body = cast(Any, body).with_vertices([0])
        turned_by = {joint: r for r, joint in enumerate(body.topology.pose_joints)}
        self.rotations = [turned_by.get(joint, 0) for joint in self.joints]
        self.mark_JD = nn.Parameter(torch.randn(len(self.joints), WIDTH) * 0.02)
        self.to_person = nn.Linear(grid_width, WIDTH)
        self.to_query = nn.Linear(2 + 1 + 9, WIDTH)
        self.look = DeformableAttention(WIDTH, map_widths, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 2 * WIDTH, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.among_joints = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.counts = (6 * body.rotation_count, body.shape_count, 1, 2)
        self.to_change = nn.Sequential(
            nn.Linear(len(self.joints) * WIDTH, 256), nn.GELU(), nn.Linear(256, sum(self.counts))
        )
        nn.init.zeros_(self.to_change[2].get_parameter("weight"))
        nn.init.zeros_(self.to_change[2].get_parameter("bias"))
        self.register_buffer("no_turn_6", rotmat_to_rot6d(torch.eye(3)), persistent=False)

    def joints_of(self, guess: CoarseParams, translation_P3: Tensor) -> Tensor:
        """(P, J, 3) joints of the coarse estimate with the heads at these positions [m]."""
        bare = self.skeleton(guess.pose_PR33, guess.shape_PS, torch.zeros_like(guess.expression_PE))
        return place(bare, translation_P3, self.skeleton.center_joint).joints_PJ3

    def forward(
        self,
        guess: CoarseParams,
        joints_PJ3: Tensor,
        places_PJ2: Tensor,
        features: Features,
        centers: Centers,
    ) -> CoarseParams:
        """The coarse estimate plus the predicted residual.

        joints_PJ3 are those of `joints_of`, places_PJ2 their projections [input sides]. Sampling positions
        are detached: else the coarse joints would be trained to move to where refinement is easy.
        """
        depth_PJ1 = (joints_PJ3[..., 2] - joints_PJ3[:, self.skeleton.center_joint, None, 2])[..., None]
        way_PJ2 = places_PJ2 - places_PJ2[:, self.skeleton.center_joint, None]
        turns_PJ9 = guess.pose_PR33[:, self.rotations].flatten(2)
        # The factor scales them to about the same size.
        facts = [4 * way_PJ2[:, self.joints], depth_PJ1[:, self.joints], turns_PJ9]
        query_PJD = self.to_query(torch.cat(facts, dim=-1).detach()) + self.mark_JD
        query_PJD = query_PJD + self.to_person(centers.gather(features.grid_BDhw))[:, None]
        places_PJ2 = _by_axis(places_PJ2[:, self.joints].detach(), features)
        found_PJD = self._sample(query_PJD, places_PJ2, features, centers)
        change_PN = self.to_change(self.among_joints(query_PJD + found_PJD).flatten(1))
        turn_PN, shape_PS, depth_P1, offset_P2 = change_PN.split(self.counts, dim=1)
        turn_PR33 = rot6d_to_rotmat(turn_PN.unflatten(1, (-1, 6)) + self.no_turn_6)
        return CoarseParams(
            turn_PR33 @ guess.pose_PR33,
            guess.shape_PS + shape_PS,
            guess.expression_PE,
            guess.depth_code_P + depth_P1[:, 0],
            guess.offset_P2 + offset_P2,
        )

    def _sample(self, query_PJD: Tensor, places_PJ2: Tensor, features: Features, centers: Centers) -> Tensor:
        """(P, J, D) features sampled around the positions; all people of an image at once."""
        joints, width = query_PJD.shape[1:]
        asked_PN = torch.cat([query_PJD.flatten(1), places_PJ2.flatten(1)], dim=1)
        asked_BQN, _, slot_P = centers.padded(asked_PN, features.grid_BDhw.shape[0])
        query_BQD = rearrange(asked_BQN[..., : joints * width], "b q (j d) -> b (q j) d", j=joints)
        places_BQ2 = rearrange(asked_BQN[..., joints * width :], "b q (j xy) -> b (q j) xy", j=joints)
        found_BQD = self.look(query_BQD, places_BQ2, features.maps)
        found_BQJD = rearrange(found_BQD, "b (q j) d -> b q j d", j=joints)
        return found_BQJD[centers.image_index_P, slot_P]


def _by_axis(places_PJ2: Tensor, features: Features) -> Tensor:
    """Places in longer sides of the window -> x in its width and y in its height, as maps are sampled."""
    height, width = features.grid_BDhw.shape[-2:]
    longer = max(height, width)
    x, y = places_PJ2.unbind(-1)
    return torch.stack([x * (longer / width), y * (longer / height)], dim=-1)


def in_window(joints_PJ3: Tensor, K_P33: Tensor, size: float) -> Tensor:
    """(P, J, 2) projected joints [m], in sides of the input; depths are at least NEAREST."""
    depth_PJ1 = joints_PJ3[..., 2:].clamp(min=NEAREST)
    return project(torch.cat([joints_PJ3[..., :2], depth_PJ1], dim=-1), K_P33) / size
