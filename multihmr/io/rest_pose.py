"""T-pose and A-pose as the rest pose of a rig, for retargeting: `save(..., rest="t-pose")`.

Only arms and legs differ from the rest pose of the body. Joints of an animation are the same as without;
vertices that several bones move differ by what linear blend skinning makes of the new rest shape.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from ..bodies.rig import Rig
from .bone_names import bone_names

RESTS = ("t-pose", "a-pose")
_ARM_ANGLES = {"t-pose": 0.0, "a-pose": 45.0}  # degrees below the horizontal
# By names of SMPL-X: where a segment begins and ends; a leg points down, and the foot stays as it is.
_ARM = (("shoulder", "elbow"), ("elbow", "wrist"), ("wrist", "middle1"))
_LEG = (("hip", "knee"), ("knee", "ankle"))


def with_rest_pose(rig: Rig, rest: str | None) -> Rig:
    """The rig in another rest pose, moved by the same poses; None: as it is.

    Args:
        rest: "t-pose" (arms along x) or "a-pose" (arms 45 degrees lower); legs point straight down in both.

    Raises:
        ValueError: the rest pose is unknown, or the body has no names for its limbs.
    """
    if rest is None:
        return rig
    if rest not in RESTS:
        raise ValueError(f"rest must be one of {', '.join(RESTS)} or None, got {rest!r}")
    turns = _rest_turns(rig, _ARM_ANGLES[rest])
    offsets = rig.offsets.copy()
    for bone, parent in enumerate(rig.parents):
        if parent >= 0:
            offsets[bone] = turns[parent] @ rig.offsets[bone]
    joints = _joints(rig, offsets)
    # a vertex v is at G (bind v) + joint in the new rest pose, for each of its bones, blended by weights
    binds = turns @ rig.binds
    binds[:, :, 3] += joints
    blend = _blend(rig, binds)
    vertices = np.einsum("vab,vb->va", blend[..., :3], rig.vertices) + blend[..., 3]
    corrections, bone_morphs = rig.corrections, rig.bone_morphs
    if corrections is not None:
        corrections = np.einsum("vab,cvb->cva", blend[..., :3], corrections).astype(np.float32)
    if bone_morphs is not None:
        bone_morphs = np.einsum("bij,ebj->ebi", turns, bone_morphs).astype(np.float32)
    identity = np.tile(np.eye(3, 4, dtype=np.float32), (len(offsets), 1, 1))
    identity[:, :, 3] = -joints
    return dataclasses.replace(
        rig,
        offsets=offsets,
        binds=identity,
        vertices=vertices.astype(np.float32),
        morphs=np.einsum("vab,evb->eva", blend[..., :3], rig.morphs).astype(np.float32),
        corrections=corrections,
        bone_morphs=bone_morphs,
        rest_turns=turns,
    )


def _rest_turns(rig: Rig, arm_angle: float) -> np.ndarray:
    """(B, 3, 3) how far each bone is turned from the rest pose of the body to the new one, in its frame."""
    ours = {theirs: name for name, theirs in bone_names(rig.topology.name, "smplx").items()}
    names, joints = list(rig.topology.joint_names), _joints(rig, rig.offsets)
    down = np.radians(arm_angle)
    aims: dict[int, tuple[int, np.ndarray]] = {}
    fixed = set()
    for side, sign in (("left", 1.0), ("right", -1.0)):
        arm = np.array([sign * np.cos(down), -np.sin(down), 0.0])
        for (start, end), aim in [(s, arm) for s in _ARM] + [(s, np.array([0.0, -1.0, 0.0])) for s in _LEG]:
            first, last = (names.index(ours[f"{side}_{part}"]) for part in (start, end))
            aims[first] = (last, aim)
        fixed.add(names.index(ours[f"{side}_ankle"]))
    turns = np.tile(np.eye(3), (len(joints), 1, 1))
    for bone, parent in enumerate(rig.parents):
        if parent >= 0 and bone not in fixed:
            turns[bone] = turns[parent]
        if bone in aims:
            last, aim = aims[bone]
            turns[bone] = _least_turn(turns[bone] @ (joints[last] - joints[bone]), aim) @ turns[bone]
    return turns.astype(np.float32)


def _joints(rig: Rig, offsets: np.ndarray) -> np.ndarray:
    """(B, 3) where the bones begin when no node is turned."""
    joints = offsets.astype(np.float64)
    for bone, parent in enumerate(rig.parents):
        if parent >= 0:
            joints[bone] += joints[parent]
    return joints


def _blend(rig: Rig, transforms: np.ndarray) -> np.ndarray:
    """(V, 3, 4) the transforms (B, 3, 4) of the bones of each vertex, by their weights."""
    topology = rig.topology
    assert topology.skin_indices is not None, "a Rig has skinning weights"
    assert topology.skin_weights is not None, "a Rig has skinning weights"
    weights = topology.skin_weights / topology.skin_weights.sum(1, keepdims=True)
    return np.einsum("vk,vkab->vab", weights, transforms[topology.skin_indices])


def _least_turn(start: np.ndarray, aim: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation by the least angle from the direction of `start` to the unit vector `aim`."""
    start = start / np.linalg.norm(start)
    axis, cosine = np.cross(start, aim), float(start @ aim)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + cross + cross @ cross / (1 + cosine)
