"""Local refinement of limbs: 2D keypoints from a crop of each person, in the pixels of the original image.

In the window of a whole image people are small. In crops of their own MoveNet, the first part of the bundled
model's backbone, places keypoints more exactly, and people are aligned with these once more
(networks/alignment). Top-down keypoint detectors work on crops for the same reason. People of a network
that finds no keypoints, as GLNet, are aligned with those that its detector's backbone finds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..bodies.body_parts import body_joints
from ..bodies.loading import float32_on_cpu
from ..bodies.topology import Topology
from ..humans import Humans, project
from ..networks.alignment.gauss_newton import Alignment
from ..networks.alignment.keypoints import Keypoints, find_keypoints
from ..networks.backbones.movenet import HybridMoveNet
from ..networks.detection import Centers
from ..postprocessing.quarter_turns import QuarterTurns, quarter_turns
from ..preprocessing.image import LoadedImage
from ..runtime.network_handle import NetworkHandle
from .refinement_pass import RefinementPass
from .whole_image import reposed

SIZE, MULTIPLE, LEAST_WIDTH = 256, 32, 128  # longer side of a crop, multiple and least of the sides [pixels]
MARGIN = 1.3  # side of a crop over that of the box around the joints
MOST_SCALE = 8.0  # pixels of a crop per pixel of the image; people who are smaller show nothing more
LEAST_SURE = 0.2  # confidence that the keypoints belong to this person, below which they are left alone
LEAST_DEPTH = 0.05  # [m]
MOST_CROPS = 8  # of a batch: each needs some 30 MB


@dataclass(frozen=True)
class PersonCrop:
    """A crop of one person, shown upright.

    Attributes:
        person: its row.
        box: x0, y0, x1, y1 of the crop in whole pixels of the image, which it may leave.
        turns: counterclockwise quarter turns after which the person stands.
        shape: (height, width) of the crop in its own pixels, after these turns.
        head: (2,) x, y of the head in pixels of the image.
    """

    person: int
    box: tuple[int, int, int, int]
    turns: int
    shape: tuple[int, int]
    head: np.ndarray

    @property
    def scale(self) -> float:
        """Pixels of the crop per pixel of the image."""
        return float(np.sqrt(np.abs(np.linalg.det(self._from_image))))

    def from_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the image -> pixels of the crop."""
        return points @ self._from_image[:2, :2].T + self._from_image[:2, 2]

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the crop -> pixels of the image."""
        return (points - self._from_image[:2, 2]) @ np.linalg.inv(self._from_image[:2, :2]).T

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 of an image (H, W, 3); black where it ends."""
        x0, y0, x1, y1 = self.box
        height, width = pixels.shape[:2]
        (left, right), (top, bottom) = np.clip([x0, x1], 0, width), np.clip([y0, y1], 0, height)
        part = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
        part[top - y0 : bottom - y0, left - x0 : right - x0] = pixels[top:bottom, left:right]
        # Of bytes torch computes this six times as fast as Pillow.
        resized = F.interpolate(
            torch.from_numpy(part).permute(2, 0, 1)[None], self._unturned, mode="bilinear", antialias=True
        )
        return np.rot90(resized[0].permute(1, 2, 0).numpy(), self.turns)

    @property
    def _unturned(self) -> tuple[int, int]:
        """(height, width) of the crop before it is turned."""
        height, width = self.shape
        return (width, height) if self.turns % 2 else (height, width)

    @cached_property
    def _from_image(self) -> np.ndarray:
        """(3, 3) homogeneous pixels of the image to those of the crop."""
        (x0, y0, x1, y1), (height, width) = self.box, self._unturned
        across, down = width / (x1 - x0), height / (y1 - y0)
        scaled = np.array([[across, 0, -across * x0], [0, down, -down * y0], [0, 0, 1]])
        return QuarterTurns.of(self.turns, height, width).pixels @ scaled


class LimbRefinement(RefinementPass):
    """The pass over crops of people that `predict(limbs=True)` adds.

    Args:
        model: whose people are refined.
        source: the model whose backbone finds the keypoints, for which `finds_keypoints` holds; by default
            the same.

    Raises:
        ValueError: the two have not the same body.
    """

    def __init__(self, model: NetworkHandle, source: NetworkHandle | None = None) -> None:
        self.model, self.source = model, source or model
        self.alignment: Alignment = cast(Any, self.source.network).alignment
        topology = model.body.topology
        if not same_parameters(topology, self.source.body.topology):
            raise ValueError(
                f"limbs must be aligned by a model of the same body: {self.source.body.name!r} has other "
                f"joints or parameters than {model.body.name!r}"
            )
        # Such a network has aligned its people with keypoints in the window of the whole image.
        self.aligned_before = self.source is model
        self.joints = [topology.joint_names.index(name) for name in body_joints(topology)]

    @torch.inference_mode()
    def __call__(self, image: LoadedImage, humans: Humans) -> Humans:
        """The people of an image; who is not seen better in a crop stays as they were predicted."""
        crops = self.crops(humans)
        if not crops:
            return humans
        with float32_on_cpu(), torch.autocast(torch.device(self.model.device).type, enabled=False):
            found = self._keypoints(image, crops)
            sure = (found.sure_P >= LEAST_SURE).tolist()
            kept = [number for number, is_sure in enumerate(sure) if is_sure]
            if not kept:
                return humans
            crops = [crops[number] for number in kept]
            rows = [crop.person for crop in crops]
            pose, translation = np.array(humans.pose), np.array(humans.translation)
            pose[rows], translation[rows] = self._aligned(humans, crops, found.of(torch.tensor(kept)))
            return reposed(self.model, image, humans, rows, pose=pose, translation=translation)

    def crops(self, humans: Humans) -> list[PersonCrop]:
        """Crops of the people who are larger in them than where their keypoints were found before."""
        if not len(humans):
            return []
        window = self.model.config.image_size / max(humans.image_size) if self.aligned_before else 0.0
        joints = humans.joints[:, self.joints]
        seen = (joints[..., 2] > LEAST_DEPTH).all(1)
        points = project(np.maximum(joints, [-np.inf, -np.inf, LEAST_DEPTH]), humans.K)
        heads = project(humans.translation[:, None], humans.K)[:, 0]
        turns = quarter_turns(humans)
        crops = []
        for person in np.flatnonzero(seen).tolist():
            crop = _crop(person, points[person], heads[person], int(turns[person]))
            if window <= crop.scale <= MOST_SCALE:
                crops.append(crop)
        return crops

    def _keypoints(self, image: LoadedImage, crops: Sequence[PersonCrop]) -> Keypoints:
        """Keypoints in pixels of the image times the scale of their crop; crops of one shape are a batch."""
        batches: dict[tuple[int, int], list[list[int]]] = {}
        for number, crop in enumerate(crops):
            alike = batches.setdefault(crop.shape, [[]])
            if len(alike[-1]) == MOST_CROPS:
                alike.append([])
            alike[-1].append(number)
        parts, order = [], []
        for numbers in chain.from_iterable(batches.values()):
            some = [crops[number] for number in numbers]
            pixels = np.stack([crop.cut(image.pixels) for crop in some])
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
            maps_PChw = self.source.runtime.keypoint_maps(images.to(self.source.device)).float().cpu()
            parts.append(_found(maps_PChw, some))
            order += numbers
        back = torch.tensor(order).argsort()
        return Keypoints(*(torch.cat(field)[back] for field in zip(*parts, strict=True)))

    def _aligned(
        self, humans: Humans, crops: Sequence[PersonCrop], found: Keypoints
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pose and translation of the people of these crops."""
        rows, device = [crop.person for crop in crops], self.source.device
        scale_P = torch.tensor([crop.scale for crop in crops], dtype=torch.float32)
        K_P33 = torch.tensor(humans.K, dtype=torch.float32).repeat(len(rows), 1, 1)
        K_P33[:, :2] *= scale_P[:, None, None]
        pose, shape, expression, heads = (
            torch.tensor(array[rows], dtype=torch.float32, device=device)
            for array in (humans.pose, humans.shape, humans.expression, humans.translation)
        )
        there = Keypoints(*(tensor.to(device) for tensor in found))
        for _ in range(1 if self.aligned_before else 2):  # twice in all
            pose, heads = self.alignment.aligned((pose, shape, expression), heads, there, K_P33.to(device))
        return pose.cpu().numpy(), heads.cpu().numpy()


def finds_keypoints(model: NetworkHandle) -> bool:
    """Whether the model's network finds keypoints, with which it aligns people."""
    aligned = getattr(model.network, "alignment", None) is not None
    return aligned and isinstance(model.network.backbone, HybridMoveNet)


def same_parameters(one: Topology, other: Topology) -> bool:
    """Whether parameters of one body are those of the other."""
    names = "joint_names", "pose_names", "shape_names", "expression_names"
    return all(getattr(one, name) == getattr(other, name) for name in names)


def _crop(person: int, points: np.ndarray, head: np.ndarray, turns: int) -> PersonCrop:
    """The crop around the (22, 2) joints of a person [pixels] who stands after so many quarter turns."""
    low, high = points.min(0), points.max(0)
    longest = float((high - low).max())
    side = MARGIN * max(longest, 1.0)
    sides = (high - low + (MARGIN - 1) * longest) * SIZE / side
    sides = np.clip(MULTIPLE * np.ceil(sides / MULTIPLE), LEAST_WIDTH, SIZE)  # across and down in the image
    reach = sides / 2 * side / SIZE
    x0, y0 = np.round((low + high) / 2 - reach).astype(int).tolist()
    x1, y1 = np.round((low + high) / 2 + reach).astype(int).tolist()
    width, height = (int(length) for length in (sides[::-1] if turns % 2 else sides))
    return PersonCrop(person, (x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)), turns, (height, width), head)


def _found(maps_PChw: Tensor, crops: Sequence[PersonCrop]) -> Keypoints:
    """Keypoints of the person of each crop, in pixels of the image times the scale of the crop."""
    number_P = torch.arange(len(crops))
    heads = np.stack([crop.from_image(crop.head) for crop in crops])
    centers = Centers(number_P, number_P, number_P, torch.ones(len(crops)))
    found = find_keypoints(maps_PChw, centers, torch.from_numpy(heads).float())
    points = found.xy_PK2.numpy()
    xy = [crop.to_image(points[number]) * crop.scale for number, crop in enumerate(crops)]
    return found._replace(xy_PK2=torch.from_numpy(np.stack(xy)).float())
