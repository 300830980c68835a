"""Named joint sets, the parts of a body, its mirror image: whatever follows from names and skinning weights.

Names on the left and right are told apart as the free bodies do: "wrist.L", "left_wrist" or "eyeBlinkLeft".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from multihmr.humans import KeypointSet, Topology

COCO17_EDGES = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
    (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
COCO23_EDGES = (*COCO17_EDGES, (15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22))

# The joints of MPJPE and of matching: the 22 body joints of SMPL-X (AGORA's B-MPJPE). The first is the
# pelvis, on which each side is centred. Fingers, toes and eyes, 68 of 104 bones, would outvote the body; the
# ball of the foot is the only toe bone here. A bone's position is where it begins: `lowerleg01` is the knee.
BODY_JOINTS: dict[str, tuple[str, ...]] = {
    "anny": (
        *("root", "upperleg01.L", "upperleg01.R", "spine03", "lowerleg01.L", "lowerleg01.R", "spine02"),
        *("foot.L", "foot.R", "spine01", "toe3-1.L", "toe3-1.R", "neck01", "clavicle.L", "clavicle.R"),
        *("head", "upperarm01.L", "upperarm01.R", "lowerarm01.L", "lowerarm01.R", "wrist.L", "wrist.R"),
    ),
    "smplx": (
        *("pelvis", "left_hip", "right_hip", "spine1", "left_knee", "right_knee", "spine2", "left_ankle"),
        *("right_ankle", "spine3", "left_foot", "right_foot", "neck", "left_collar", "right_collar", "head"),
        *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow", "left_wrist", "right_wrist"),
    ),
}

# A part is a joint with all that hangs on it. "body" is the rest.
PARTS = {"left_hand": "wrist.L", "right_hand": "wrist.R", "head": "head"}

_SIDES = ((".L", ".R"), ("left_", "right_"), ("Left", "Right"))
_MIRROR_SIGNS = ((1.0, -1.0, -1.0), (-1.0, 1.0, 1.0), (-1.0, 1.0, 1.0))  # M R M of M = diag(-1, 1, 1)

Array = TypeVar("Array", Tensor, np.ndarray)


def coco_keypoint_sets(keypoints: KeypointSet) -> dict[str, KeypointSet]:
    """The sets "coco17" and, with toes and heels, "coco23"; 23 keypoints in the order of COCO-WholeBody."""
    body = KeypointSet(
        keypoints.names[:17], keypoints.vertex_indices[:17], keypoints.vertex_weights[:17], COCO17_EDGES
    )
    return {"coco17": body, "coco23": dataclasses.replace(keypoints, edges=COCO23_EDGES)}


def body_joints(topology: Topology) -> tuple[str, ...]:
    """Names of the 22 joints that are compared for this body."""
    for names in BODY_JOINTS.values():
        if set(names) <= set(topology.joint_names):
            return names
    raise ValueError(
        f"body {topology.name!r} has none of the known joint sets ({', '.join(BODY_JOINTS)}); "
        "add its joint names to BODY_JOINTS"
    )


def joint_parts(topology: Topology) -> dict[str, np.ndarray]:
    """Indices of the joints of "left_hand", "right_hand", "head" (from `PARTS` on) and "body"."""
    part_of = ["body"] * len(topology.joint_names)
    starts = {joint: part for part, joint in PARTS.items()}
    for joint, (name, parent) in enumerate(zip(topology.joint_names, topology.parents, strict=True)):
        part_of[joint] = starts.get(name, part_of[parent] if parent >= 0 else "body")
    return {part: np.flatnonzero(np.array(part_of) == part) for part in (*PARTS, "body")}


def vertex_parts(topology: Topology) -> dict[str, np.ndarray]:
    """Indices of the vertices that the joints of each part of `joint_parts` move by more than half.

    "head" is the whole head with the scalp. ValueError if the topology has no skinning weights.
    """
    if topology.skin_indices is None or topology.skin_weights is None:
        raise ValueError(f"topology {topology.name!r} has no skinning weights to tell its parts by")
    parts = {}
    for part, joints in joint_parts(topology).items():
        belongs = np.isin(topology.skin_indices, joints)
        parts[part] = np.flatnonzero((topology.skin_weights * belongs).sum(1) > 0.5)
    return parts


def mirror_order(names: Sequence[str]) -> list[int]:
    """For each name the index of its counterpart on the other side, or its own if it has no side."""
    place = {name: index for index, name in enumerate(names)}
    return [place.get(_other_side(name), index) for index, name in enumerate(names)]


def mirror(pose: Array, expression: Array, topology: Topology) -> tuple[Array, Array]:
    """Parameters of the same person in a mirror: x becomes -x, left becomes right; the shape stays.

    pose (..., R, 3, 3) of rotations in axes of which x points sideways, as Anny's; the root's may also lead
    into a camera frame, whose picture is then flipped. expression (..., E). Arrays or tensors.

    The vertices are then the mirrored ones up to the asymmetry of Anny's skeleton: 0.7 mm on average and up
    to 6 mm where all 104 joints are turned at random.
    """
    swapped = pose[..., mirror_order(topology.joint_names), :, :]
    if isinstance(swapped, Tensor):
        signs = torch.tensor(_MIRROR_SIGNS, dtype=swapped.dtype, device=swapped.device)
    else:
        signs = np.array(_MIRROR_SIGNS, dtype=swapped.dtype)
    return swapped * signs, expression[..., mirror_order(topology.expression_names)]


def _other_side(name: str) -> str:
    for left, right in _SIDES:
        for here, there in ((left, right), (right, left)):
            if name.startswith(here):
                return there + name.removeprefix(here)
            if name.endswith(here):
                return name.removesuffix(here) + there
    return name
