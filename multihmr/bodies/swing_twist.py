"""Swing-twist inverse kinematics: rotations from joint positions (swing) and predicted twists (HybrIK).

HybrIK (Li et al., CVPR 2021, sections 3.2 and 3.3), for every body here whose turns chain as G = G_parent D
and whose joints are p = p_parent + G_parent b: SMPL, SMPL-X and Anny, if b are bones of the identity pose. A
rotation D of a joint with one bone b is split into D = swing twist: the twist turns about b, the swing is the
smallest rotation that takes b to D b. A joint with several bones has no freedom left; the rotation that fits
them best is found, as in HybrIK for pelvis and chest. Bones are laid from the joint reconstructed so far, not
from the predicted one, so that errors do not add up ("adaptive").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .base import Body
from .topology import Topology

SHORTEST_BONE = 5e-3  # [m] shorter bones have no direction: Anny's hips begin at the root
FLATTEST = 0.1  # least ratio of the two spreads of a joint's bones that fix its rotation
TINY = 1e-10


def rest_joints(body: Body, shape_PS: Tensor, expression_PE: Tensor) -> Tensor:
    """(P, J, 3) joints of these people with all rotations the identity [m]: between them are the bones."""
    identity = torch.eye(3, dtype=shape_PS.dtype, device=shape_PS.device)
    pose = identity.expand(len(shape_PS), body.rotation_count, 3, 3)
    return body(pose, shape_PS, expression_PE).joints_PJ3


def shortest_rotation(source: Tensor, goal: Tensor) -> Tensor:
    """(..., 3), (..., 3) -> (..., 3, 3): the smallest rotations that take one direction to the other.

    For the unit vectors a and b it is c + [a x b] + k (a x b)(a x b)^T with c = a b and k = 1 / (1 + c), or
    (1 - c) / |a x b|^2, which keeps its digits where they are nearly opposite. Between opposite directions it
    is half a turn about some axis across them. A goal without length is taken for the source.
    """
    return _swing(_direction(source), goal)


def _swing(a: Tensor, goal: Tensor) -> Tensor:
    """`shortest_rotation` from the unit vectors a."""
    b = _unit(goal, a)
    v = torch.linalg.cross(a, b)
    c, s2 = (a * b).sum(-1), (v * v).sum(-1)
    opposite = (s2 < TINY) & (c < 0)
    k = torch.where(c < 0, 1 - c, 1) / torch.where(c < 0, torch.where(opposite, 1, s2), 1 + c)
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    near = c[..., None, None] * eye + _cross_matrix(v) + k[..., None, None] * _outer(v, v)
    across = torch.linalg.cross(a, eye[a.detach().abs().argmin(-1)])
    half_turn = 2 * _outer(across, across) / (across * across).sum(-1)[..., None, None] - eye
    return torch.where(opposite[..., None, None], half_turn, near)


def swing_twist(rotation: Tensor, bone: Tensor) -> tuple[Tensor, Tensor]:
    """(..., 3, 3) rotations of bones (..., 3) -> swings (..., 3, 3), and (cos, sin) (..., 2) of twists."""
    swing = shortest_rotation(bone, (rotation @ bone[..., None])[..., 0])
    about = swing.mT @ rotation
    axis = _direction(bone)
    cos = (about.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    axial = torch.stack(
        [
            about[..., 2, 1] - about[..., 1, 2],
            about[..., 0, 2] - about[..., 2, 0],
            about[..., 1, 0] - about[..., 0, 1],
        ],
        dim=-1,
    )
    return swing, torch.stack([cos, (axis * axial).sum(-1) / 2], dim=-1)


def twist_rotation(bone: Tensor, twist: Tensor) -> Tensor:
    """(..., 3) bones, (..., 2) of which the direction is (cos, sin) -> (..., 3, 3) turns about the bones."""
    return _twist(_direction(bone), twist)


def _twist(axis: Tensor, twist: Tensor) -> Tensor:
    """`twist_rotation` about unit vectors."""
    cos, sin = _direction(twist)[..., None, None].unbind(-3)
    eye = torch.eye(3, dtype=axis.dtype, device=axis.device)
    return cos * eye + sin * _cross_matrix(axis) + (1 - cos) * _outer(axis, axis)


class Limbs(nn.Module):
    """Joints of a body whose rotations are solved from joint positions, and how.

    joints   those requested and all above them, parents first: where these are must be known
    swings   joints with one bone among them: rotation from the place of its end and a twist
    fitted   joints with several bones that do not lie in one line: rotation from the places of their ends

    The others keep a given rotation: last joints of limbs, a root whose bones begin elsewhere (Anny's), or
    one with a single bone, whose rotation is without a reference from which a twist could be measured.
    """

    _pick_R: Tensor
    _swing_starts: Tensor
    _swing_ends: Tensor
    _joints: Tensor
    _parents: Tensor

    def __init__(self, topology: Topology, joints: Sequence[int], rest_J3: Tensor) -> None:
        """joints: their indices; rest_J3: of an average person, which decides which joints have a bone.

        ValueError: the body has no rotation for one of the joints.
        """
        super().__init__()
        parents, rotation_of = topology.parents, {j: r for r, j in enumerate(topology.pose_joints)}
        levels = _levels(joints, parents)
        self.joints = tuple(j for level in levels for j in level)
        fixed = [topology.joint_names[j] for j in self.joints if j not in rotation_of]
        if fixed:
            raise ValueError(f"body '{topology.name}' does not turn {', '.join(fixed)}; leave them out")
        bones = {j: _ends(j, [k for k in self.joints if parents[k] == j], rest_J3) for j in self.joints}
        bones |= {j: () for j in self.joints if parents[j] < 0 and len(bones[j]) == 1}
        self.swings = tuple(j for j in self.joints if len(bones[j]) == 1)
        self.fitted = tuple(j for j in self.joints if len(bones[j]) > 1)
        self.rotations = tuple(rotation_of[j] for j in self.joints)
        self._swing_rotations = [rotation_of[j] for j in self.swings]
        for name, index in (
            ("_swing_starts", self.swings),
            ("_swing_ends", [bones[j][0] for j in self.swings]),
            ("_joints", self.joints),
            ("_parents", [max(parents[j], 0) for j in self.joints]),
        ):
            self.register_buffer(name, torch.tensor(index, dtype=torch.long), persistent=False)
        self._levels = nn.ModuleList(
            self._level(level, levels[i - 1] if i else (), parents, bones, rotation_of)
            for i, level in enumerate(levels)
        )
        count = len(topology.pose_joints)
        found = {rotation: count + i for i, rotation in enumerate(self.rotations)}
        self.register_buffer(
            "_pick_R", torch.tensor([found.get(r, r) for r in range(count)]), persistent=False
        )

    def _level(
        self,
        level: Sequence[int],
        above: Sequence[int],
        parents: Sequence[int],
        bones: Mapping[int, tuple[int, ...]],
        rotation_of: Mapping[int, int],
    ) -> _Level:
        swings = [j for j in level if len(bones[j]) == 1]
        fitted = [j for j in level if len(bones[j]) > 1]
        free = [j for j in level if not bones[j]]
        sorted_by_kind = [*swings, *fitted, *free]
        return _Level(
            above=[above.index(parents[j]) for j in level] if above else [],
            swings=[level.index(j) for j in swings],
            ends=[bones[j][0] for j in swings],
            twists=[self.swings.index(j) for j in swings],
            fitted=[(level.index(j), j, list(bones[j])) for j in fitted],
            given=[rotation_of[j] for j in free],
            order=[sorted_by_kind.index(j) for j in level],
        )

    def twists(self, pose_PR33: Tensor, rest_PJ3: Tensor) -> Tensor:
        """(P, len(swings), 2): (cos, sin) of how much each of `swings` is twisted in a pose."""
        bones = rest_PJ3[:, self._swing_ends] - rest_PJ3[:, self._swing_starts]
        return swing_twist(pose_PR33[:, self._swing_rotations], bones)[1]

    def forward(self, goals_PJ3: Tensor, rest_PJ3: Tensor, twist_PT2: Tensor, given_PR33: Tensor) -> Tensor:
        """(P, R, 3, 3) the pose that brings the joints to their goals, as far as the bones reach.

        Args:
            goals_PJ3: where all joints of the body should be [m]; only `joints` are used, and only the
                ways between them count.
            rest_PJ3: of these people, as `rest_joints` gives them.
            twist_PT2: of `swings`; only the direction of the two numbers counts.
            given_PR33: the rotations that do not follow from joints; the others are not used.
        """
        bones_PT3 = rest_PJ3.index_select(1, self._swing_ends) - rest_PJ3.index_select(1, self._swing_starts)
        axes_PT3 = _direction(bones_PT3)
        twists_PT33 = _twist(axes_PT3, twist_PT2)
        offsets_PJ3 = rest_PJ3.index_select(1, self._joints) - rest_PJ3.index_select(1, self._parents)
        levels = list(cast(Iterable[_Level], self._levels))
        of_levels = offsets_PJ3.split([len(level.order) for level in levels], dim=1)
        turns, places, found = goals_PJ3, goals_PJ3, []
        for depth, (level, offsets) in enumerate(zip(levels, of_levels, strict=True)):
            if depth:
                turns_above = turns.index_select(1, level.above)
                places = places.index_select(1, level.above) + _turned(turns_above, offsets)
            else:
                places = goals_PJ3.index_select(1, self._joints[: len(level.order)])
                turns_above = torch.eye(3, dtype=places.dtype, device=places.device).expand(
                    *places.shape[:2], 3, 3
                )
            own = []
            if len(level.swings):
                ways = goals_PJ3.index_select(1, level.ends) - places.index_select(1, level.swings)
                ways = _turned(turns_above.index_select(1, level.swings).mT, ways)
                swings = _swing(axes_PT3.index_select(1, level.twists), ways)
                own.append(swings @ twists_PT33.index_select(1, level.twists))
            for i, joint, ends in level.fitted:
                bones = rest_PJ3[:, ends] - rest_PJ3[:, joint, None]
                ways = _turned(turns_above[:, i, None].mT, goals_PJ3[:, ends] - places[:, i, None])
                own.append(_fit(ways.mT @ bones)[:, None])
            own.append(given_PR33.index_select(1, level.given))
            found.append(torch.cat(own, dim=1).index_select(1, level.order))
            turns = turns_above @ found[-1]
        return torch.cat([given_PR33, *found], dim=1).index_select(1, self._pick_R)


class _Level(nn.Module):
    """The joints that are equally far from the root, by their places among them; others by their indices.

    above: of their parents in the level before; swings, ends, twists: of those with one bone, their places
    here, where that bone ends, their places in `Limbs.swings`; fitted: (place here, joint, ends) of those
    with several; given: rotations of the others; order: how the three kinds, one after the other, become
    these joints.
    """

    above: Tensor
    swings: Tensor
    ends: Tensor
    twists: Tensor
    given: Tensor
    order: Tensor

    def __init__(self, fitted: list[tuple[int, int, list[int]]], **indices: list[int]) -> None:
        super().__init__()
        self.fitted = fitted
        for name, index in indices.items():
            self.register_buffer(name, torch.tensor(index, dtype=torch.long), persistent=False)


def _levels(joints: Sequence[int], parents: Sequence[int]) -> list[tuple[int, ...]]:
    """The joints and all above them, by their distance from the root."""
    depths: dict[int, int] = {}
    for joint in joints:
        path = [joint]
        while parents[path[-1]] >= 0:
            path.append(parents[path[-1]])
        depths |= {j: depth for depth, j in enumerate(reversed(path))}
    return [tuple(sorted(j for j in depths if depths[j] == d)) for d in range(max(depths.values()) + 1)]


def _ends(joint: int, ends: list[int], rest_J3: Tensor) -> tuple[int, ...]:
    """Of the bones that begin at a joint, the ends of those that fix its rotation: none, one, or several."""
    ways = {end: (rest_J3[end] - rest_J3[joint]).float().cpu() for end in ends}
    ways = {end: way for end, way in ways.items() if float(way.norm()) > SHORTEST_BONE}
    if len(ways) > 1:
        spread = torch.linalg.svdvals(torch.stack(list(ways.values())))
        if spread[1] < FLATTEST * spread[0]:
            return (max(ways, key=lambda end: float(ways[end].norm())),)
    return tuple(ways)


def _fit(moments_P33: Tensor) -> Tensor:
    """(P, 3, 3) the rotations nearest to these matrices.

    Singular values are requested because roma (1.8) then leaves out a closed form, which is slower for the
    few people of a picture, and whose table it keeps as it was first made: after a prediction, for which
    PyTorch makes tensors without a gradient, nothing could be trained in the same process.
    """
    import roma  # here, because it takes as long to import as half of torch

    return roma.special_procrustes(moments_P33, return_singular_values=True)[0]


def _turned(turns: Tensor, vectors: Tensor) -> Tensor:
    return (turns @ vectors[..., None])[..., 0]


def _unit(vectors: Tensor, otherwise: Tensor) -> Tensor:
    """The directions, with a finite gradient; `otherwise` for vectors without length."""
    length2 = (vectors * vectors).sum(-1, keepdim=True)
    there = length2 > TINY
    return torch.where(there, vectors * torch.where(there, length2, 1).rsqrt(), otherwise)


def _direction(vectors: Tensor) -> Tensor:
    """`_unit`, the first axis for vectors without length."""
    first = torch.zeros_like(vectors)
    first[..., 0] = 1
    return _unit(vectors, first)


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[..., :, None] * b[..., None, :]


def _cross_matrix(v: Tensor) -> Tensor:
    """(..., 3) -> (..., 3, 3) skew-symmetric matrix of the cross product."""
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3))
