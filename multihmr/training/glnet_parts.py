"""Body parts of GLNet's keypoint-guided local encoding: guiding keypoints and refined rotations of each part.

The division of GLNet's figure 3 ("The divided parts and corresponding parts relevant points") is a drawing
without numbers; this one follows the limbs.
"""

from __future__ import annotations

import numpy as np

from ..bodies.body_parts import body_joints, joint_parts
from ..bodies.topology import Topology

# Per part, indices into BODY_JOINTS: the guiding joints, and the refined joints, with all below them.
_BODY = (
    ((0, 1, 2, 3, 6, 9, 12, 16, 17), (0, 3, 6, 9, 13, 14)),  # trunk
    ((9, 12, 15), (12, 15)),  # head
    ((13, 16, 18, 20), (16, 18, 20)),  # left arm
    ((14, 17, 19, 21), (17, 19, 21)),  # right arm
    ((0, 1, 4, 7, 10), (1, 4, 7, 10)),  # left leg
    ((0, 2, 5, 8, 11), (2, 5, 8, 11)),  # right leg
)

Part = tuple[tuple[int, ...], tuple[int, ...]]


def guiding_parts(topology: Topology, *, whole_body: bool = False) -> tuple[Part, ...]:
    """(guiding joints, refined rotations) of each part; every rotation belongs to one part.

    Args:
        topology: of the body.
        whole_body: hands and face are parts of their own, guided by all their joints.

    Raises:
        ValueError: the body has none of the known joint sets.
    """
    names, parents = list(topology.joint_names), topology.parents
    own = [names.index(name) for name in body_joints(topology)]
    owner = {own[place]: part for part, (_, moved) in enumerate(_BODY) for place in moved}
    reads = [tuple(own[place] for place in guides) for guides, _ in _BODY]
    if whole_body:
        of_parts = joint_parts(topology)
        for part, wrist in (("left_hand", own[20]), ("right_hand", own[21]), ("head", own[15])):
            members = np.asarray(of_parts[part]).tolist()
            reads.append(tuple(dict.fromkeys([wrist, *members])))
            owner |= dict.fromkeys(members, len(reads) - 1)
    moves: list[list[int]] = [[] for _ in reads]
    for rotation, joint in enumerate(topology.pose_joints):
        at = joint
        while at not in owner and parents[at] >= 0:
            at = parents[at]
        moves[owner.get(at, 0)].append(rotation)
    return tuple((guides, tuple(moved)) for guides, moved in zip(reads, moves, strict=True))
