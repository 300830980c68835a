"""Base class of parametric bodies: (pose, shape, expression) -> vertices and joints; placement in space."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .rig import Rig
from .topology import Topology


class BodyOutput(NamedTuple):
    """vertices_PV3 and joints_PJ3 of P people [m]."""

    vertices_PV3: Tensor
    joints_PJ3: Tensor


class Body(nn.Module, ABC):
    """A parametric body of V vertices and J joints, moved by R rotations, S shape and E expression numbers.

    name             in files and checkpoints
    topology         faces, names, parents, keypoint sets (numpy, for drawing and export)
    center_joint     index of the head, which detection and translation refer to
    pelvis_joint     index of the joint that `pose[0]` turns around
    mean_shape_S     shape of an average person; initial estimate of networks
    mean_pose_R33    upright, facing an OpenCV camera
    bounded          whether shape and expression lie in [0, 1]

    `pose[0]` is the root's rotation and multiplies from the left: forward(A @ pose[0], ...) turns all points
    of forward(pose[0], ...) by A around the pelvis joint. To predict it in the camera frame is enough to
    orient the person there.
    """

    name: str
    topology: Topology
    center_joint: int
    pelvis_joint: int
    mean_shape_S: Tensor
    mean_pose_R33: Tensor
    bounded: bool = True

    @property
    def rotation_count(self) -> int:
        return self.mean_pose_R33.shape[0]

    @property
    def shape_count(self) -> int:
        return self.mean_shape_S.shape[0]

    @property
    def expression_count(self) -> int:
        return len(self.topology.expression_names)

    @abstractmethod
    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        """Vertices and joints in the body's own frame [m]."""

    def rigs(self, shapes: np.ndarray) -> list[Rig]:
        """Bones, skin and face for each of the (P, S) shapes, for programs that animate them.

        ValueError if this body has none.
        """
        raise ValueError(f"body {self.name!r} has no rig: save its people without one, as .glb or .npz")

    def check_parameters(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> None:
        """ValueError by name if one of the three has not the shape that this body takes."""
        people = pose_PR33.shape[0]
        expected = {
            "pose": (pose_PR33, (people, self.rotation_count, 3, 3)),
            "shape": (shape_PS, (people, self.shape_count)),
            "expression": (expression_PE, (people, self.expression_count)),
        }
        for name, (tensor, size) in expected.items():
            if tuple(tensor.shape) != size:
                raise ValueError(
                    f"{name} of body '{self.name}' must be {size} for {people} people, "
                    f"got {tuple(tensor.shape)}; give one row a person"
                )


def place(output: BodyOutput, translation_P3: Tensor, center_joint: int) -> BodyOutput:
    """Translate people so that joint `center_joint` lies exactly on translation_P3 [m]."""
    joints_PJ3 = output.joints_PJ3 - output.joints_PJ3[:, center_joint, None]
    vertices_PV3 = output.vertices_PV3 + (translation_P3 - output.joints_PJ3[:, center_joint])[:, None]
    return BodyOutput(vertices_PV3, joints_PJ3 + translation_P3[:, None])


def part_of_topology(topology: Topology, kept: np.ndarray) -> Topology:
    """Topology of a body with only the vertices `kept`, in this order, without faces and keypoints of others.

    ValueError if the topology has no skinning weights, by which the number of vertices is known.
    """
    if topology.skin_indices is None or topology.skin_weights is None:
        raise ValueError(f"topology {topology.name!r} has no skinning weights")
    place = np.full(len(topology.skin_indices), -1)
    place[kept] = np.arange(len(kept))
    whole = (place[topology.faces] >= 0).all(1)
    sets = {
        name: dataclasses.replace(points, vertex_indices=place[points.vertex_indices])
        for name, points in topology.keypoint_sets.items()
        if (place[points.vertex_indices] >= 0).all()
    }
    return dataclasses.replace(
        topology,
        faces=place[topology.faces[whole]],
        faces_uv=None if topology.faces_uv is None else topology.faces_uv[whole],
        keypoint_sets=sets,
        skin_indices=topology.skin_indices[kept],
        skin_weights=topology.skin_weights[kept],
    )


def posed(
    body: Body, pose: np.ndarray, shape: np.ndarray, expression: np.ndarray, translation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Meshes and joints of people from their parameters, as `Humans` stores them.

    Args:
        body: the body model of the parameters, on any device.
        pose: (N, R, 3, 3) rotation matrices.
        shape: (N, S) shape coefficients.
        expression: (N, E) expression coefficients.
        translation: (N, 3) position of the body's center joint, the head, in the camera frame [m].

    Returns:
        vertices (N, V, 3) and joints (N, J, 3) float32 in the camera frame [m].

    Raises:
        ValueError: an array does not have the shape that the body takes.
    """
    device = next((tensor.device for tensor in body.buffers()), torch.device("cpu"))
    with torch.inference_mode():
        given = (
            torch.tensor(array, dtype=torch.float32, device=device) for array in (pose, shape, expression)
        )
        vertices, joints = (points.float().cpu().numpy() for points in body(*given))
    shift = (translation - joints[:, body.center_joint])[:, None]
    return vertices + shift, joints + shift
