"""How tall people are, and people whose height is known: their body and their distance follow."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..bodies.base import Body, posed
from ..bodies.loading import load_body_of_people
from ..humans import Humans

SHORTEST, TALLEST = 0.3, 2.8  # [m] that a given height may be
TOLERANCE = 0.002  # [m] between a given height and that of the body
NEAR_ENDS = 0.03  # part of the height of an average person, within which the ends of all others are
STEP = 0.05  # of a shape parameter, to see how the height follows it

KnownHeights = float | Mapping[int, float] | Sequence[float] | np.ndarray


@torch.no_grad()
def heights(humans: Humans, *, body: Any = None) -> np.ndarray:
    """(N,) height [m] of each person from the soles to the top of the head, upright, without shoes and hair.

    Args:
        humans: of any body.
        body: the one that the people were predicted with (`model.body`); None loads it by name.
    """
    if not len(humans):
        return np.zeros(0, np.float32)
    return _heights(_ends(_body(humans, body)), humans.shape)


def heights_of_shapes(body: Body, shape: np.ndarray) -> np.ndarray:
    """(N,) heights [m] of people of these shapes (N, S), as `heights`."""
    return _heights(_ends(body), shape)


def with_heights(humans: Humans, known: KnownHeights, *, body: Any = None) -> Humans:
    """People of known height: shape, distance and mesh change, the place in the image stays.

    A picture shows sizes and distances only up to a common factor, which a network guesses. A known height
    tells it: who is 5 % taller than predicted is 5 % farther away. Of Anny, the phenotype "height" changes;
    of SMPL-X, the betas change along the direction that changes the height most.

    Args:
        humans: of one image.
        known: height [m] of all people, or of some by number (`humans.numbers`: track ids, else from 1), or
            (N,) with NaN for unknown ones. Others stay as they are.
        body: the one that the people were predicted with (`model.body`); None loads it by name.

    Returns:
        The same people in the same order.

    Raises:
        ValueError: a height is out of range, or there is no such person.

    Examples:
        >>> taller = with_heights(humans, {1: 1.85})
        >>> round(float(taller.height_m[0]), 2)
        1.85
    """
    wanted = wanted_heights(humans, known)
    rows = np.flatnonzero(np.isfinite(wanted))
    if not len(rows):
        return humans
    body = _body(humans, body)
    ends = _ends(body)
    before = _heights(ends, humans.shape)
    shape = humans.shape.copy()
    shape[rows] = _shapes_of_height(ends, shape[rows], wanted[rows])
    after = _heights(ends, shape)
    for i in rows[np.abs(after - wanted)[rows] > 0.01]:
        warnings.warn(
            f"person {humans.numbers[i]} cannot be {wanted[i]:.2f} m tall with body {humans.body!r} and this "
            f"age, gender and build: {after[i]:.2f} m is the nearest",
            stacklevel=3,
        )
    translation = humans.translation * (after / before)[:, None]
    vertices, joints = posed(body, humans.pose, shape, humans.expression, translation)
    if humans.vertices.shape[1] != vertices.shape[1]:
        vertices = np.zeros((len(humans), 0, 3), np.float32)
    return dataclasses.replace(
        humans,
        shape=shape,
        translation=translation,
        vertices=vertices,
        joints=joints,
        joints_2d=humans.project(joints),
        pelvis=joints[:, body.pelvis_joint],
    )


_ENDS: WeakKeyDictionary[Body, Body] = WeakKeyDictionary()


def _ends(body: Body) -> Body:
    """The body with only the vertices near its soles and crown, enough to measure heights; made once.

    Helper vertices of anny-163, which are no part of the mesh, are left out.
    """
    part: Callable[[np.ndarray], Body] | None = getattr(body, "with_vertices", None)
    if part is None:
        return body
    if body not in _ENDS:
        y = _upright(body, body.mean_shape_S.cpu().numpy()[None])[0]
        on_faces = np.unique(body.topology.faces)
        y = y[on_faces]
        margin = NEAR_ENDS * np.ptp(y)
        _ENDS[body] = part(on_faces[(y < y.min() + margin) | (y > y.max() - margin)])
    return _ENDS[body]


def _heights(body: Body, shape: np.ndarray) -> np.ndarray:
    return np.ptp(_upright(body, shape), axis=1)


@torch.no_grad()
def _upright(body: Body, shape: np.ndarray) -> np.ndarray:
    """(N, V) y of the vertices of people who stand upright, arms at rest [m]."""
    device = body.mean_pose_R33.device
    shape_NS = torch.tensor(shape, dtype=torch.float32, device=device)
    pose = torch.eye(3, dtype=torch.float32, device=device).repeat(len(shape), body.rotation_count, 1, 1)
    pose[:, 0] = body.mean_pose_R33[0]  # upright in a camera frame, whose y points downwards
    face = torch.zeros(len(shape), body.expression_count, dtype=torch.float32, device=device)
    y: np.ndarray = body(pose, shape_NS, face).vertices_PV3[..., 1].cpu().numpy()
    return y


def _shapes_of_height(body: Body, shape: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """(M, S) shapes as near to these as the body allows whose people are `wanted` (M,) metres tall."""
    direction = np.zeros_like(shape)
    names = body.topology.shape_names
    if "height" in names:
        direction[:, names.index("height")] = 1
    else:
        single = np.eye(shape.shape[1], dtype=np.float32) * STEP
        slopes = [(_heights(body, shape + step) - _heights(body, shape)) / STEP for step in single]
        direction = np.stack(slopes, 1)
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    result = shape.copy()
    for _ in range(12):  # secants; the height is nearly linear in the shape
        steps = [result, result + STEP * direction, result - STEP * direction]  # as one batch
        now, more, less = np.split(_heights(body, np.concatenate(steps)), 3)
        error = wanted - now
        if (np.abs(error) < TOLERANCE / 4).all():
            break
        slope = (more - less) / (2 * STEP)
        result += (error / np.maximum(slope, 1e-3))[:, None] * direction
        if body.bounded:
            result = result.clip(0, 1)
    return result


def wanted_heights(humans: Humans, known: KnownHeights) -> np.ndarray:
    """(N,) heights [m], NaN where unknown."""
    wanted = np.full(len(humans), np.nan)
    if isinstance(known, Mapping):
        for number, height in known.items():
            rows = np.flatnonzero(humans.numbers == number)
            if not len(rows):
                numbers = ", ".join(map(str, humans.numbers.tolist())) or "none"
                raise ValueError(
                    f"known_heights names person {number!r}; the numbers of the people are {numbers}"
                )
            if not isinstance(height, (int, float, np.number)) or np.isnan(height):
                raise ValueError(f"the height of person {number} must be a number of metres, got {height!r}")
            wanted[rows] = height
    else:
        values = np.asarray(known, np.float64)
        if values.ndim > 1 or (values.ndim == 1 and len(values) != len(humans)):
            raise ValueError(
                f"known_heights must be one height, one for each of the {len(humans)} people, or a dict "
                f"from their numbers to heights; got shape {values.shape}"
            )
        wanted[:] = values
    wrong = ~np.isnan(wanted) & ~((wanted >= SHORTEST) & (wanted <= TALLEST))
    if wrong.any():
        raise ValueError(
            f"heights are in metres, from {SHORTEST} to {TALLEST}, got {wanted[np.argmax(wrong)]:g}"
        )
    return wanted


def _body(humans: Humans, body: Any) -> Body:
    if body is None:
        body = _load(humans.body, humans.shape.shape[1])
    if body.name != humans.body:
        raise ValueError(
            f"the people are of body {humans.body!r}, got body {body.name!r}; give the one they were "
            "made with"
        )
    return body  # type: ignore[no-any-return]


@lru_cache(maxsize=2)
def _load(name: str, shape_count: int | None) -> Body:
    """A body takes about half a second to load."""
    return load_body_of_people(name, shape_count=shape_count)
