"""Body joints for metrics and body parts (hands, head, body) by joint and by vertex."""

from __future__ import annotations

import numpy as np

from .topology import Topology

# The joints of MPJPE and of matching: the 22 body joints of SMPL-X (AGORA's B-MPJPE). The first is the
# pelvis, on which each side is centred. Fingers, toes and eyes, 68 of 104 bones, would dominate the mean; the
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


# A part is a joint, by its name in any body, with all its descendants. "body" is the rest.
PARTS = {
    "left_hand": ("wrist.L", "left_wrist"),
    "right_hand": ("wrist.R", "right_wrist"),
    "head": ("head",),
}


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
    starts = {joint: part for part, joints in PARTS.items() for joint in joints}
    for joint, (name, parent) in enumerate(zip(topology.joint_names, topology.parents, strict=True)):
        part_of[joint] = starts.get(name, part_of[parent] if parent >= 0 else "body")
    return {part: np.flatnonzero(np.array(part_of) == part) for part in (*PARTS, "body")}


def vertex_parts(topology: Topology) -> dict[str, np.ndarray]:
    """Indices of the vertices that the joints of each part of `joint_parts` move by more than half.

    "head" is the whole head with the scalp. ValueError if the topology has no skinning weights.
    """
    if topology.skin_indices is None or topology.skin_weights is None:
        raise ValueError(f"topology {topology.name!r} has no skinning weights, which define its parts")
    parts = {}
    for part, joints in joint_parts(topology).items():
        belongs = np.isin(topology.skin_indices, joints)
        parts[part] = np.flatnonzero((topology.skin_weights * belongs).sum(1) > 0.5)
    return parts
