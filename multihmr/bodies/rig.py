"""Rig: the skeleton and skin of one body in its rest pose, as animation formats need it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .topology import Topology

TO_GLTF = np.array([1, -1, -1], np.float32)  # from y down, z forward to y up, z backward: half a turn about x


@dataclass(frozen=True, eq=False)
class Rig:
    """The body of one person with B bones before it is animated; metres, float32.

    topology     faces, parents and skin; the bones are the first B joints, the first is the root, and parents
                 come before their children
    offsets      (B, 3)     where a bone begins, in the frame of its parent
    binds        (B, 3, 4)  inverse bind matrices: from the rest shape into the frame of the bone
    vertices     (V, 3)     the rest shape
    morphs       (E, V, 3)  what each number of the expression adds to it
    axes         (R, 3, 3)  A, in which each rotation D of `Humans.pose` turns its bone: the rotation of the
                 node is A D A^T, and D A^T that of the root
    center       the bone that `Humans.translation` is the place of: the head
    bone_morphs  (E, B, 3)  how the expression moves the bones in the rest shape; None: it does not
    corrections  (9 (R - 1), V, 3)  what the entries of rotation - identity, of all but the root, add to the
                 rest shape; None: nothing
    bone_names, morph_names  B and E; as the topology has them if not given
    rest_turns   (B, 3, 3)  how the rest pose differs from the body's own (see io/rest_pose.py); None: not
    """

    topology: Topology
    offsets: np.ndarray
    binds: np.ndarray
    vertices: np.ndarray
    morphs: np.ndarray
    axes: np.ndarray
    center: int
    bone_morphs: np.ndarray | None = None
    corrections: np.ndarray | None = None
    bone_names: tuple[str, ...] = ()
    morph_names: tuple[str, ...] = ()
    rest_turns: np.ndarray | None = None

    def __post_init__(self) -> None:
        bones = len(self.offsets)
        object.__setattr__(self, "bone_names", self.bone_names or self.topology.joint_names[:bones])
        object.__setattr__(self, "morph_names", self.morph_names or self.topology.expression_names)
        shapes = {
            "offsets": (len(self.bone_names), 3),
            "binds": (bones, 3, 4),
            "morphs": (len(self.morph_names), len(self.vertices), 3),
            "axes": (len(self.topology.pose_joints), 3, 3),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} of a rig must be {shape}, got {getattr(self, name).shape}")
        if self.topology.skin_indices is None or self.topology.skin_weights is None:
            raise ValueError(f"a rig needs skinning weights, which body {self.topology.name!r} does not have")
        if any(parent >= bone for bone, parent in enumerate(self.parents)):
            raise ValueError("a rig must have parents before their children")

    @property
    def parents(self) -> tuple[int, ...]:
        """B numbers of the bones that carry each bone; -1 for the root."""
        return self.topology.parents[: len(self.offsets)]

    def rotations(self, pose: np.ndarray) -> np.ndarray:
        """(T, R, 3, 3) as in `Humans.pose` -> (T, B, 3, 3) of the nodes, each in the frame of its parent."""
        turned = self.axes @ pose @ self.axes.transpose(0, 2, 1)
        turned[:, 0] = TO_GLTF[:, None] * (pose[:, 0] @ self.axes[0].T)
        nodes = np.tile(np.eye(3, dtype=np.float32), (len(pose), len(self.parents), 1, 1))
        nodes[:, list(self.topology.pose_joints)] = turned
        if self.rest_turns is None:
            return nodes
        above = self.rest_turns[np.maximum(self.parents, 0)]
        above[0] = np.eye(3)
        return above @ nodes @ self.rest_turns.transpose(0, 2, 1)

    def places(self, rotations: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """(T, B, 3) where the bones begin, of (T, B, 3, 3) rotations and (T, B, 3) offsets of the nodes."""
        joints = offsets.copy()
        turns = rotations.copy()
        for bone, parent in enumerate(self.parents):
            if parent >= 0:
                joints[:, bone] = joints[:, parent] + (turns[:, parent] @ offsets[:, bone, :, None])[..., 0]
                turns[:, bone] = turns[:, parent] @ rotations[:, bone]
        return joints
