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
from toys import ToyBody

from multihmr.humans import Humans, project
from multihmr.model import Model

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


class StandIn(Model):
    """People stand `number` millimetres to the right of the camera, one metre behind each other."""

    family = "stand-in"

    def __init__(self, deaths: Path, seconds: float = 0.0) -> None:
        """deaths: where it is remembered who died. seconds: for each picture."""
        super().__init__(ToyBody())
        self.deaths, self.seconds = str(deaths), seconds
        self.config = SimpleNamespace(unpredicted=())
        self.backbone = SimpleNamespace(half_dtype=None)

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
            body="toy",
            topology=self.body.topology,
        )
