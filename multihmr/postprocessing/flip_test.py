"""Averages of the people found in an image and in its mirror image (flip test).

A network does not give the mirrored answer for a mirrored image. People are matched by place, as non-maximum
suppression does; rotations are averaged as matrices, projected back to rotations, distances by their
logarithm, and there is one camera for both.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import Body, posed
from ..bodies.keypoint_sets import mirror
from ..bodies.loading import float32_on_cpu
from ..geometry import same_place
from ..humans import Humans
from ..networks.base import OF_PEOPLE
from ..preprocessing.image import LoadedImage
from .tiling import APART

People = dict[str, np.ndarray]
LOWER_THRESHOLD = 0.5  # share of the threshold down to which both images are searched


def mirror_image(image: LoadedImage) -> LoadedImage:
    """The image with left and right exchanged."""
    return replace(image, pixels=np.ascontiguousarray(image.pixels[:, ::-1]))


def mirror_intrinsics(K: Tensor, width: int) -> Tensor:
    """(3, 3) intrinsics of the mirror image."""
    mirrored = K.clone()
    mirrored[0, 2] = width - K[0, 2]
    return mirrored


def mirror_people(people: People, body: Body) -> People:
    """The same people in the mirror, by the names in OF_PEOPLE but for vertices and joints."""
    pose, expression = mirror(people["pose"], people["expression"], body.topology)
    translation = people["translation"] * np.array([-1, 1, 1], np.float32)
    return people | {"pose": pose, "expression": expression, "translation": translation}


def mean_intrinsics(K: Tensor, other_K: Tensor) -> Tensor:
    """(3, 3) intrinsics with the geometric mean of both focal lengths; principal point of the first."""
    mean = K.clone()
    mean[[0, 1], [0, 1]] = (K[[0, 1], [0, 1]] * other_K[[0, 1], [0, 1]]).sqrt()
    return mean


def to_camera(people: People, K: Tensor, new_K: Tensor) -> People:
    """People in another camera: heads stay in their pixels, distances grow with the focal length."""
    scale = float(new_K[0, 0] / K[0, 0])
    return people | {"translation": people["translation"] * np.array([1, 1, scale], np.float32)}


def average(first: People, second: People, body: Body) -> People:
    """The mean of each person and their counterpart, with meshes; both in one camera and in one order."""
    import roma  # brings torch._dynamo, which takes as long to import as torch

    matrices = torch.from_numpy(first["pose"] + second["pose"])
    with float32_on_cpu():  # roma makes tensors without naming their device
        pose = roma.special_procrustes(matrices).numpy() if matrices.numel() else first["pose"]
    mean = {name: (first[name] + second[name]) / 2 for name in ("scores", "shape", "expression")}
    depth = np.sqrt(first["translation"][:, 2:] * second["translation"][:, 2:])
    rays = sum(people["translation"][:, :2] / people["translation"][:, 2:] for people in (first, second)) / 2
    mean["translation"] = np.concatenate([rays * depth, depth], axis=1).astype(np.float32)
    vertices, joints = posed(body, pose, mean["shape"], mean["expression"], mean["translation"])
    return mean | {"pose": pose, "vertices": vertices, "joints": joints}


def match(first: People, second: People) -> list[tuple[int, int]]:
    """(i, j) of people who are at the same place, best scores first, each once."""
    count = len(first["scores"])
    places = torch.from_numpy(np.concatenate([first["translation"], second["translation"]]))
    same = same_place(places, APART).numpy()[:count, count:]
    depths = first["translation"][:, None, 2], second["translation"][None, :, 2]
    sums = first["scores"][:, None] + second["scores"][None] - np.abs(np.log(depths[0] / depths[1]))
    pairs: list[tuple[int, int]] = []
    for i, j in zip(*np.unravel_index(np.argsort(-sums, axis=None), sums.shape), strict=True):
        if same[i, j] and all(i != a and j != b for a, b in pairs):
            pairs.append((int(i), int(j)))
    return pairs


def merge_mirrored(upright: Humans, mirrored: Humans, body: Body, threshold: float) -> tuple[People, Tensor]:
    """People of an image and K (3, 3), from what was found in it and in its mirror image.

    Scores are means of both, 0 where a person was not found; who is below the threshold goes.
    """
    width = upright.image_size[1]
    K = torch.from_numpy(upright.K.copy())
    other_K = mirror_intrinsics(torch.from_numpy(mirrored.K.copy()), width)
    mean_K = mean_intrinsics(K, other_K)
    first, second = ({name: getattr(humans, name) for name in OF_PEOPLE} for humans in (upright, mirrored))
    first = to_camera(first, K, mean_K)
    second = to_camera(mirror_people(second, body), other_K, mean_K)
    pairs = match(first, second)
    alone = [np.setdiff1d(np.arange(len(part["scores"])), index) for part, index in
             ((first, [i for i, _ in pairs]), (second, [j for _, j in pairs]))]  # fmt: skip
    both = average(pick(first, [i for i, _ in pairs]), pick(second, [j for _, j in pairs]), body)
    parts = [both]
    for part, row in zip((first, second), alone, strict=True):
        lone = pick(part, row)
        parts.append(average(lone, lone, body) | {"scores": lone["scores"] / 2})
    people = {name: np.concatenate([part[name] for part in parts]) for name in OF_PEOPLE}
    return pick(people, np.flatnonzero(people["scores"] >= threshold)), mean_K


def pick(people: People, rows: np.ndarray | list[int]) -> People:
    """The people at these indices."""
    index = np.asarray(rows, np.intp)
    return {name: array[index] for name, array in people.items()}
