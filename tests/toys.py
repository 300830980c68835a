"""A body of 12 vertices and 3 joints, and a network small enough for tests of milliseconds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from multihmr.bodies.base import Body, BodyOutput, place
from multihmr.bodies.topology import KeypointSet, Topology
from multihmr.humans import Humans, project
from multihmr.model import Model, TopDownModel
from multihmr.networks.configs import GLNetConfig, MultiHMRAnnyConfig, MultiHMRConfig
from multihmr.networks.glnet import GLNet
from multihmr.networks.multihmr import MultiHMR
from multihmr.networks.multihmr_anny import MultiHMRAnny

NAMES = ("root", "spine", "head")


class ToyBody(Body):
    """Three rings of four vertices around a stick; each joint turns what lies above it."""

    name = "toy"
    center_joint = 2
    pelvis_joint = 0

    def __init__(self) -> None:
        super().__init__()
        heights = np.repeat([0.0, 0.5, 1.0], 4)
        around = np.tile([[0.2, 0.0], [0.0, 0.2], [-0.2, 0.0], [0.0, -0.2]], (3, 1))
        rest = np.stack([around[:, 0], -heights, around[:, 1]], axis=1).astype(np.float32)
        self.register_buffer("rest_V3", torch.from_numpy(rest), persistent=False)
        joints = torch.tensor([[0.0, 0, 0], [0, -0.5, 0], [0, -1.0, 0]])
        self.register_buffer("rest_joints_J3", joints, persistent=False)
        self.register_buffer("mean_shape_S", torch.full((2,), 0.5), persistent=False)
        self.register_buffer("mean_pose_R33", torch.eye(3).repeat(3, 1, 1), persistent=False)
        faces = [
            [a, b, c]
            for r in (0, 4)
            for a, b, c in ((r, r + 1, r + 4), (r + 1, r + 2, r + 5), (r + 2, r + 3, r + 6))
        ]
        self.topology = Topology(
            name="toy",
            faces=np.array(faces, dtype=np.int32),
            joint_names=NAMES,
            parents=(-1, 0, 1),
            keypoint_sets={
                "top": KeypointSet(("top",), np.array([[8, 9, 10, 11]]), np.full((1, 4), 0.25, np.float32))
            },
            shape_names=("size", "width"),
            expression_names=("smile",),
        )

    def with_vertices(self, indices: np.ndarray) -> ToyBody:
        return self

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        self.check_parameters(pose_PR33, shape_PS, expression_PE)
        size_P11 = (0.5 + shape_PS[:, :1])[:, None]
        rest_PV3 = self.rest_V3 * size_P11 * (1 + 0.1 * expression_PE[:, :1, None])
        joints_PJ3 = self.rest_joints_J3 * size_P11
        turn_P33, at_P3 = pose_PR33[:, 0], joints_PJ3[:, 0]
        vertices, joints = [], []
        for j in range(3):
            if j:
                at_P3 = at_P3 + torch.einsum("pab,pb->pa", turn_P33, joints_PJ3[:, j] - joints_PJ3[:, j - 1])
                turn_P33 = turn_P33 @ pose_PR33[:, j]
            joints.append(at_P3)
            local = rest_PV3[:, 4 * j : 4 * j + 4] - joints_PJ3[:, j, None]
            vertices.append(torch.einsum("pab,pvb->pva", turn_P33, local) + at_P3[:, None])
        return BodyOutput(torch.cat(vertices, dim=1), torch.stack(joints, dim=1))


def tiny_model(seed: int = 0, **changes: Any) -> Model:
    """`tiny_network` in a Model."""
    return Model(tiny_network(seed, **changes))


def tiny_network(seed: int = 0, **changes: Any) -> MultiHMR:
    """A hybrid at 64 pixels with the toy body, evaluating; `changes` of its config."""
    torch.manual_seed(seed)
    sizes = {"image_size": 64, "head_width": 32, "head_count": 2, "head_mlp_width": 32}
    options = {"body": "toy", "read_joints": (0, 1, 2), **sizes, **changes}
    return MultiHMR(MultiHMRConfig(**options), ToyBody()).eval()


def tiny_anny_model(seed: int = 0) -> Model:
    """`tiny_anny_network` in a Model."""
    return Model(tiny_anny_network(seed))


def tiny_anny_network(seed: int = 0) -> MultiHMRAnny:
    """The design of 2026 on the same backbone and body."""
    torch.manual_seed(seed)
    sizes = {"image_size": 64, "head_width": 64, "head_count": 2, "head_mlp_width": 32, "head_depth": 2}
    return MultiHMRAnny(MultiHMRAnnyConfig(backbone="hybrid_lite0", **sizes), ToyBody()).eval()


def tiny_glnet_model(seed: int = 0, **changes: Any) -> TopDownModel:
    """`tiny_glnet` in a Model that has no detector."""
    return TopDownModel(tiny_glnet(seed, **changes))


def tiny_glnet(seed: int = 0, **changes: Any) -> GLNet:
    """A hybrid at crops of 64 pixels with the toy body, evaluating; `changes` of its config."""
    torch.manual_seed(seed)
    parts = (((0, 1), (0, 1)), ((1, 2), (2,)))
    sizes = {"image_size": 64, "width": 32, "local_width": 32, "head_count": 2, "points": 2, "positives": 4}
    return GLNet(GLNetConfig(**{"body": "toy", "parts": parts, **sizes, **changes}), ToyBody()).eval()


def random_humans(body: Body, count: int) -> Humans:
    """`count` people of a body with random parameters, seen by a camera of focal 500."""
    generator = torch.Generator().manual_seed(0)
    pose = torch.linalg.qr(torch.randn(count, body.rotation_count, 3, 3, generator=generator))[0]
    pose = pose * torch.linalg.det(pose)[..., None, None]
    shape = torch.rand(count, body.shape_count, generator=generator)
    expression = torch.rand(count, body.expression_count, generator=generator)
    translation = torch.rand(count, 3, generator=generator) + torch.tensor([0, 0, 2.0])
    vertices, joints = place(body(pose, shape, expression), translation, body.center_joint)
    K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float32)
    return Humans(
        scores=np.linspace(0.9, 1 / 3, count),
        vertices=vertices.numpy(),
        joints=joints.numpy(),
        joints_2d=project(joints.numpy(), K),
        boxes=np.ones((count, 4)),
        translation=translation.numpy(),
        pelvis=joints[:, 0].numpy(),
        pose=pose.numpy(),
        shape=shape.numpy(),
        expression=expression.numpy(),
        K=K,
        K_source="given",
        image_size=(480, 640),
        body=body.name,
        topology=body.topology,
    )
