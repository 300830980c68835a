"""`Topology` of a body model: faces, joint names, skinning weights, keypoint sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, eq=False)
class KeypointSet:
    """M named points on a body, each the weighted mean of k vertices and m joints; k or m may be 0.

    vertex_indices (M, k) and joint_indices (M, m) int, vertex_weights and joint_weights the same in float32;
    the weights of a point sum to 1. `edges` are pairs of points that a drawing joins.
    """

    names: tuple[str, ...]
    vertex_indices: np.ndarray
    vertex_weights: np.ndarray
    edges: tuple[tuple[int, int], ...] = ()
    joint_indices: np.ndarray | None = None
    joint_weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        self._check_table("vertex_indices", "vertex_weights")
        if self.joint_indices is not None:
            self._check_table("joint_indices", "joint_weights")

    def _check_table(self, of_indices: str, of_weights: str) -> None:
        indices = np.asarray(getattr(self, of_indices))
        weights = np.asarray(getattr(self, of_weights), dtype=np.float32)
        if indices.ndim != 2 or indices.shape != weights.shape or len(indices) != len(self.names):
            raise ValueError(
                f"{of_indices} and {of_weights} must both be ({len(self.names)}, k), one row a name, "
                f"got {indices.shape} and {weights.shape}"
            )
        object.__setattr__(self, of_indices, frozen_array(indices, np.int64))
        object.__setattr__(self, of_weights, frozen_array(weights, np.float32))

    def points(self, vertices: np.ndarray, joints: np.ndarray | None = None) -> np.ndarray:
        """(N, V, 3) vertices and (N, J, 3) joints -> (N, M, 3) keypoints, in the same frame.

        ValueError if a point is made of joints and there are none.
        """
        points = np.einsum("nmkc,mk->nmc", vertices[:, self.vertex_indices], self.vertex_weights)
        if self.joint_indices is None or self.joint_weights is None:
            return points
        if joints is None:
            raise ValueError("these keypoints are made of joints, too: ask for points(vertices, joints)")
        return points + np.einsum("nmkc,mk->nmc", joints[:, self.joint_indices], self.joint_weights)


@dataclass(frozen=True, eq=False)
class Topology:
    """Topology of a body model, shared by all people: faces, joint names, parents, skin.

    faces (F, 3) int32; joint_names J; parents J (-1 for the root); uv (T, 2) in [0, 1] with faces_uv (F, 3);
    skin_indices and skin_weights (V, k): which joints move a vertex, and how much.

    pose_joints R: which joint each rotation of `Humans.pose` turns; all joints in order if not given.
    rest_pelvis (1 + S + E, 3), only of bodies whose rest shape is linear: (1, shape, expression) times it is
    where the pelvis lies before the body is posed [m]. Programs that turn the body about that point, not
    about the origin, need it to place the body where ours is.
    """

    name: str
    faces: np.ndarray
    joint_names: tuple[str, ...]
    parents: tuple[int, ...]
    keypoint_sets: Mapping[str, KeypointSet]
    shape_names: tuple[str, ...]
    expression_names: tuple[str, ...]
    uv: np.ndarray | None = None
    faces_uv: np.ndarray | None = None
    skin_indices: np.ndarray | None = None
    skin_weights: np.ndarray | None = None
    pose_joints: tuple[int, ...] = ()
    rest_pelvis: np.ndarray | None = None

    def __post_init__(self) -> None:
        faces = np.asarray(self.faces)
        if faces.ndim != 2 or faces.shape[1] != 3:
            raise ValueError(f"faces must be (F, 3) triangles, got {faces.shape}")
        if len(self.parents) != len(self.joint_names):
            raise ValueError(f"{len(self.joint_names)} joint names but {len(self.parents)} parents")
        object.__setattr__(self, "faces", frozen_array(faces, np.int32))
        object.__setattr__(self, "pose_joints", tuple(self.pose_joints or range(len(self.joint_names))))
        numbers = 1 + len(self.shape_names) + len(self.expression_names)
        if self.rest_pelvis is not None and np.shape(self.rest_pelvis) != (numbers, 3):
            raise ValueError(f"rest_pelvis must be ({numbers}, 3), got {np.shape(self.rest_pelvis)}")

    @property
    def pose_names(self) -> tuple[str, ...]:
        """R names of the joints that the rotations of a pose turn."""
        return tuple(self.joint_names[joint] for joint in self.pose_joints)

    def path(self, joint: int) -> tuple[int, ...]:
        """The joints from the root to this one; none for -1, the parent of the root."""
        joints: list[int] = []
        while joint >= 0:
            joints.insert(0, joint)
            joint = self.parents[joint]
        return tuple(joints)

    def __repr__(self) -> str:
        return f"Topology({self.name!r}, {len(self.faces)} faces, {len(self.joint_names)} joints)"


def frozen_array(array: Any, dtype: Any) -> np.ndarray:
    """A read-only array of that dtype; a writeable one is copied."""
    array = np.asarray(array, dtype=dtype)
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
