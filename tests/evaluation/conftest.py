"""A body of 20 vertices with Anny's joint names, and scenes of such people: all that the protocol needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import roma
import torch
from torch import Tensor

from multihmr.bodies.base import Body, BodyOutput, place
from multihmr.bodies.body_parts import BODY_JOINTS
from multihmr.bodies.keypoint_sets import keypoint_sets
from multihmr.bodies.topology import KeypointSet, Topology
from multihmr.data.sample import Sample
from multihmr.humans import Humans, project

K = np.array([[500, 0, 320], [0, 500, 240], [0, 0, 1]], np.float32)
JOINTS = (*BODY_JOINTS["anny"], "finger1-1.L")
FACE = ("nose", "left_eye", "right_eye", "left_ear", "right_ear")
HAND = slice(0, 5)  # vertices of the left hand; the next five are the right one's


class ToyBody(Body):
    """Random points in a box of a person's size; rotation 0 turns all, 1 the left hand; shape scales."""

    name = "toy"
    center_joint = JOINTS.index("head")
    pelvis_joint = 0

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        size = torch.tensor([0.5, 1.7, 0.3])
        self.register_buffer("joints_J3", (torch.rand(len(JOINTS), 3, generator=generator) - 0.5) * size)
        self.register_buffer("vertices_V3", (torch.rand(20, 3, generator=generator) - 0.5) * size)
        self.register_buffer("mean_shape_S", torch.tensor([1.0, 0.5]))
        self.register_buffer("mean_pose_R33", torch.eye(3).repeat(2, 1, 1))
        left, right, finger = (JOINTS.index(name) for name in ("wrist.L", "wrist.R", "finger1-1.L"))
        parents = tuple(left if i == finger else -1 if i == 0 else 0 for i in range(len(JOINTS)))
        head = self.center_joint
        bones = np.array([left, left, finger, finger, finger] + [right] * 5 + [head] * 4 + [0] * 6)[:, None]
        skin = KeypointSet(FACE, np.arange(10, 10 + len(FACE))[:, None], np.ones((len(FACE), 1)))
        sets = keypoint_sets(JOINTS, skin, head_top=15)
        self.topology = Topology(
            "toy", np.array([[0, 1, 2]]), JOINTS, parents, sets, ("size", "age"), ("smile",),
            skin_indices=bones, skin_weights=np.ones((20, 1), np.float32), pose_joints=(0, left),
        )  # fmt: skip

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        self.check_parameters(pose_PR33, shape_PS, expression_PE)
        scale_P = shape_PS[:, :1, None]
        vertices_PV3 = self.vertices_V3.repeat(len(pose_PR33), 1, 1)
        vertices_PV3[:, HAND] = vertices_PV3[:, HAND] @ pose_PR33[:, 1].mT
        turn = pose_PR33[:, 0].mT
        return BodyOutput(scale_P * vertices_PV3 @ turn, scale_P * self.joints_J3 @ turn)


def scene(seed: int, places: Sequence[tuple[float, float, float]], name: str = "") -> Sample:
    """Random people at these places, all visible; the first pixel tells the scene."""
    generator = torch.Generator().manual_seed(seed)
    n = len(places)
    image = np.zeros((480, 640, 3), np.uint8)
    image[0, 0] = seed
    return Sample(
        image=image,
        K=K,
        pose=roma.random_rotmat((n, 2), generator=generator).numpy(),
        shape=(torch.rand(n, 2, generator=generator) * 0.4 + 0.8).numpy(),
        expression=np.zeros((n, 1), np.float32),
        translation=np.array(places, np.float32).reshape(n, 3),
        visibility=np.ones(n, np.float32),
        name=name or f"scene {seed}",
        body="toy",
    )


@torch.no_grad()
def people(body: Body, pose: np.ndarray, shape: np.ndarray, translation: np.ndarray) -> Humans:
    """Humans with these parameters, as a model would predict them."""
    given = [torch.from_numpy(np.asarray(x, np.float32)) for x in (pose, shape, translation)]
    expression = torch.zeros(len(pose), 1)
    output = place(body(given[0], given[1], expression), given[2], body.center_joint)
    joints = output.joints_PJ3.numpy()
    return Humans(
        scores=np.ones(len(pose)), vertices=output.vertices_PV3.numpy(), joints=joints,
        joints_2d=project(joints, K), boxes=np.zeros((len(pose), 4)), translation=translation,
        pelvis=joints[:, 0], pose=pose, shape=shape, expression=expression.numpy(), K=K, K_source="given",
        image_size=(480, 640), body="toy", topology=body.topology,
    )  # fmt: skip


class ToyModel:
    """Predicts what `answer(sample)` gives for the samples that it knows by their first pixel."""

    def __init__(self, body: Body, samples: Sequence[Any], answer: Callable[[Any], Humans]) -> None:
        self.body = body
        self._answers = {int(sample.image[0, 0, 0]): answer(sample) for sample in samples}
        self.Ks: list[Any] = []
        self.asked: list[int] = []

    def predict_batch(self, images: list, Ks: list | None = None, **_: Any) -> list[Humans]:
        self.Ks.append(Ks)
        self.asked += [int(image[0, 0, 0]) for image in images]
        return [self._answers[int(image[0, 0, 0])] for image in images]


@pytest.fixture(scope="session")
def body() -> ToyBody:
    return ToyBody()
