"""Theta: the parameters that a pixel predicts for its person, as one vector, and their decoding.

The local stage predicts Theta = Theta_0 + Delta Theta (GLNet), for all components: 6D
rotations, shape, expression, depth, position of the head, and with `decomposed` joints and twists, from which
rotations follow as in HybrIK (bodies/swing_twist.py).

A crop does not show where in the image it lies, although the perspective depends on it: a person at the edge
is seen from the side. So the root rotation and the joints are predicted for a camera directed at the centre
of the crop, and are rotated into the true camera here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..bodies.base import Body
from ..bodies.swing_twist import Limbs, rest_joints, shortest_rotation
from ..geometry import pixel_rays, rot6d_to_rotmat, rotmat_to_rot6d
from .human_perception_head import limit

FIRST_DEPTH_CODE = 0.7  # initial value: a person 2 m away fills a crop of 60 degrees


@dataclass(frozen=True)
class DecodedParams:
    """Decoded parameters of the body, in the camera of the crop."""

    pose_NR33: Tensor
    shape_NS: Tensor
    expression_NE: Tensor
    depth_code_N: Tensor
    head_N2: Tensor  # from the centre of the pixel [input sides]
    goals_NJ3: Tensor | None = None  # predicted joints of the limbs, from the root [m]; else zeros
    twist_NT2: Tensor | None = None  # not normalised


class Theta(nn.Module):
    """Layout of the parameter vector, and its decoding.

    Args:
        body: whose parameters they are.
        joints: with `decomposed`, those whose positions are predicted, and their ancestors.
        decomposed: rotations of limbs follow from joints and twists (swing_twist.Limbs).
    """

    mean_C: Tensor

    def __init__(self, body: Body, joints: Sequence[int] = (), *, decomposed: bool = False) -> None:
        super().__init__()
        self.bounded = body.bounded
        mean = [
            rotmat_to_rot6d(body.mean_pose_R33).flatten(),
            body.mean_shape_S,
            torch.zeros(body.expression_count),
            torch.tensor([FIRST_DEPTH_CODE, 0.0, 0.0]),
        ]
        self.limbs: Limbs | None = None
        if decomposed:
            # Joints only: computing all vertices takes most of a body's time.
            few = getattr(body, "with_vertices", None)
            self.skeleton: Body = cast(Any, few)([0]) if few else body
            mean += self._mean_limbs(body, joints)
        self.sizes = [len(part) for part in mean]
        self.register_buffer("mean_C", torch.cat(mean).clone(), persistent=False)

    @torch.no_grad()
    def _mean_limbs(self, body: Body, joints: Sequence[int]) -> list[Tensor]:
        """Joint positions and twists of the mean person."""
        average = (body.mean_shape_S[None], torch.zeros(1, body.expression_count))
        rest_1J3 = rest_joints(self.skeleton, *average)
        self.limbs = Limbs(body.topology, joints, rest_1J3[0])
        upright_J3 = self.skeleton(body.mean_pose_R33[None], *average).joints_PJ3[0, list(self.limbs.joints)]
        twist_1T2 = self.limbs.twists(body.mean_pose_R33[None], rest_1J3)
        return [(upright_J3 - upright_J3[:1]).flatten(), twist_1T2.flatten()]

    @property
    def width(self) -> int:
        """Length of the vector."""
        return len(self.mean_C)

    def columns_of(self, rotations: Sequence[int]) -> list[int]:
        """The columns that parameterise these rotations of the body."""
        columns = [6 * r + i for r in rotations for i in range(6)]
        if self.limbs is not None:
            of_goals = sum(self.sizes[:4])
            of_twists = of_goals + self.sizes[4]
            mine = [
                j for j, r in zip(self.limbs.joints, self.limbs.rotations, strict=True) if r in set(rotations)
            ]
            columns += [of_goals + 3 * self.limbs.joints.index(j) + i for j in mine for i in range(3)]
            twisted = [self.limbs.swings.index(j) for j in mine if j in self.limbs.swings]
            columns += [of_twists + 2 * t + i for t in twisted for i in range(2)]
        return columns

    @property
    def shape_columns(self) -> list[int]:
        return list(range(self.sizes[0], sum(self.sizes[:2])))

    @property
    def expression_columns(self) -> list[int]:
        return list(range(sum(self.sizes[:2]), sum(self.sizes[:3])))

    @property
    def place_columns(self) -> list[int]:
        """Those of depth and head position."""
        return list(range(sum(self.sizes[:3]), sum(self.sizes[:4])))

    def forward(self, theta_NC: Tensor, turn_N33: Tensor) -> DecodedParams:
        """turn_N33: rotations to the camera of the crop, by `crop_rotation`."""
        parts = theta_NC.float().split(self.sizes, dim=1)
        pose_NR33 = rot6d_to_rotmat(parts[0].unflatten(1, (-1, 6)))
        shape_NS, expression_NE = parts[1], parts[2]
        if self.bounded:
            shape_NS, expression_NE = limit(shape_NS), limit(expression_NE)
        goals_NJ3, twist_NT2 = None, None
        if self.limbs is not None:
            joints_NL3 = parts[4].unflatten(1, (-1, 3))
            joints = torch.tensor(self.limbs.joints, device=joints_NL3.device)
            rest_NJ3 = rest_joints(self.skeleton, shape_NS, expression_NE)
            goals_NJ3 = torch.zeros_like(rest_NJ3).index_copy(1, joints, joints_NL3 - joints_NL3[:, :1])
            twist_NT2 = parts[5].unflatten(1, (-1, 2))
            pose_NR33 = self.limbs(goals_NJ3, rest_NJ3, twist_NT2, pose_NR33)
            goals_NJ3 = goals_NJ3 @ turn_N33.mT
        return DecodedParams(
            torch.cat([turn_N33[:, None] @ pose_NR33[:, :1], pose_NR33[:, 1:]], dim=1),
            shape_NS,
            expression_NE,
            depth_code_N=parts[3][:, 0],
            head_N2=parts[3][:, 1:],
            goals_NJ3=goals_NJ3,
            twist_NT2=twist_NT2,
        )


def crop_rotation(K_B33: Tensor, size: int) -> Tensor:
    """(B, 3, 3) rotations from cameras whose axes pass through the middle of the crop to its own."""
    middle_B12 = K_B33.new_full((len(K_B33), 1, 2), size / 2)
    ray_B2 = pixel_rays(middle_B12, K_B33)[:, 0]
    ray_B3 = torch.cat([ray_B2, torch.ones_like(ray_B2[:, :1])], dim=1)
    ahead_B3 = torch.zeros_like(ray_B3)
    ahead_B3[:, 2] = 1
    return shortest_rotation(ahead_B3, ray_B3)
