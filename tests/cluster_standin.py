"""A model for tests of the cluster: it sees what stands in the first pixels, and dies when told to.

In a file of its own, because the workers of Ray import it by its name.
"""

from __future__ import annotations

import io
import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from multihmr.bodies.base import Body, BodyOutput
from multihmr.bodies.topology import Topology
from multihmr.humans import Humans, project
from multihmr.model import Model
from multihmr.networks.base import Network

FINE, DIES_ONCE, ALWAYS_DIES, FAILS = range(4)
K = np.array([[50, 0, 16], [0, 50, 16], [0, 0, 1]], np.float32)


def picture(number: int, people: int = 1, fate: int = FINE) -> bytes:
    """A PNG of 32x32 that shows so many people, and what becomes of the worker that looks at it."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[0, 0] = people, fate, 1  # a last 1 marks it as one of these
    pixels[0, 1] = number // 256, number % 256, 0
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


class Kite(Body):
    """Four corners and three joints. Unlike toys.ToyBody it imports no network, which takes seconds."""

    name = "kite"
    center_joint, pelvis_joint = 2, 0
    mean_shape_S, mean_pose_R33 = torch.full((2,), 0.5), torch.eye(3).repeat(3, 1, 1)

    def __init__(self) -> None:
        super().__init__()
        corners = torch.tensor([[0.0, 0, 0], [0.3, -0.7, 0], [0, -1, 0.1], [-0.3, -0.7, 0]])
        self.register_buffer("corners_V3", corners, persistent=False)
        names = {"joint_names": ("root", "spine", "head"), "parents": (-1, 0, 1), "keypoint_sets": {}}
        names |= {"shape_names": ("size", "width"), "expression_names": ("smile",)}
        self.topology = Topology("kite", np.array([[0, 1, 2], [0, 2, 3]]), **names)

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        size_P11 = (0.5 + shape_PS.sum(1) + 0.1 * expression_PE[:, 0])[:, None, None]
        turn_P33 = pose_PR33[:, 0] @ pose_PR33[:, 1] @ pose_PR33[:, 2]
        vertices_PV3 = torch.einsum("pab,vb->pva", turn_P33, self.corners_V3) * size_P11
        return BodyOutput(vertices_PV3, vertices_PV3[:, :3])


class StandIn(Model):
    """People stand `number` millimetres to the right of the camera, one metre behind each other."""

    def __init__(self, deaths: Path, seconds: float = 0.0) -> None:
        """deaths: where it is remembered who died. seconds: for each picture."""
        network = Network(Kite())
        network.family = "stand-in"
        network.config = SimpleNamespace(unpredicted=())
        network.backbone = SimpleNamespace(half_dtype=None)
        super().__init__(network)
        self.deaths, self.seconds = str(deaths), seconds

    def predict_batch(self, images: Any, Ks: Any = None, **options: Any) -> list[Humans]:
        return [self._look(getattr(image, "pixels", image)) for image in images]

    def _look(self, pixels: np.ndarray) -> Humans:
        time.sleep(self.seconds)
        people, fate, _ = pixels[0, 0].tolist() if pixels[0, 0, 2] == 1 else (0, FINE, 0)
        number = int(pixels[0, 1, 0]) * 256 + int(pixels[0, 1, 1])
        if fate in (DIES_ONCE, ALWAYS_DIES):
            grave = Path(self.deaths, f"{number}.{len(list(Path(self.deaths).glob(f'{number}.*')))}")
            if fate == ALWAYS_DIES or grave.suffix == ".0":
                grave.touch()
                os._exit(1)
        if fate == FAILS:
            raise RuntimeError("planted")
        return self._humans_of(number, people)

    def _humans_of(self, number: int, people: int) -> Humans:
        rng = np.random.default_rng(number)
        at = np.stack([np.full(people, number / 1000), np.zeros(people), 2.0 + np.arange(people)], 1)
        pose = np.linalg.qr(rng.normal(size=(people, 3, 3, 3)))[0]
        pose *= np.linalg.det(pose)[..., None, None]
        shape, expression = rng.random((people, 2)), rng.random((people, 1))
        tensors = [torch.tensor(array, dtype=torch.float32) for array in (pose, shape, expression)]
        vertices, joints = (points.numpy() for points in self.body(*tensors))
        shift = (at - joints[:, self.body.center_joint])[:, None].astype(np.float32)
        return Humans(
            scores=np.linspace(0.9, 0.5, people),
            vertices=vertices + shift,
            joints=joints + shift,
            joints_2d=project(joints + shift, K),
            boxes=np.tile([1, 2, 3, 4], (people, 1)),
            translation=at,
            pelvis=(joints + shift)[:, 0],
            pose=pose,
            shape=shape,
            expression=expression,
            K=K,
            K_source="given",
            image_size=(32, 32),
            body="kite",
            topology=self.body.topology,
        )
