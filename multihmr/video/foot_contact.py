"""Feet that do not slide: find when they stand, lock them by moving the root, and bend the legs for the rest.

A foot stands while it is slow and low. Its place during a contact is one unknown anchor; the root moves so
that feet stay at their anchors, the motion stays smooth, and people stay where they were seen: closely across
the view, where the image shows it, loosely along it, where distances are guessed. That is one sparse linear
least squares problem for a track. What then is left between feet and anchors, some millimetres to centimetres
where both feet stand, the hips, knees and ankles take.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bodies.base import posed
from ..bodies.body_parts import body_joints
from ..humans import Humans
from ..world.ground import Ground
from ..world.standing import ANKLES, HIPS, KNEES, TOES
from .tracks import Track, with_meshes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_CHUNK = 128  # frames whose bodies are computed at once


@dataclass(frozen=True)
class FootContact:
    """Options of `lock_feet`; lengths in metres, times in seconds.

    Attributes:
        slow: speed of a foot below which it begins to stand [m/s].
        fast: speed above which it stands no more [m/s].
        low: a foot that stands is at most so high over the lower one, or over the floor.
        shortest: time of a contact.
        across: standard deviation of where people are seen, across the view.
        along: the same along the view, relative to the distance.
        locked: standard deviation of a foot that stands.
        floor: standard deviation of the height of contacts over a known floor.
        acceleration: standard deviation of the root's acceleration [m/s^2].
        reach: most that a leg is bent or stretched to reach an anchor.
        blend: time before and after a contact over which the leg's correction fades.
    """

    slow: float = 0.6
    fast: float = 0.9
    low: float = 0.10
    shortest: float = 0.1
    across: float = 0.02
    along: float = 0.03
    locked: float = 0.004
    floor: float = 0.03
    acceleration: float = 12.0
    reach: float = 0.08
    blend: float = 0.1


@dataclass(frozen=True)
class _Legs:
    """Joints of a track's legs in the camera frame [m]: (T, 2, 3) each, and global rotations by joint."""

    hips: np.ndarray
    knees: np.ndarray
    ankles: np.ndarray
    balls: np.ndarray  # of the feet, which stay in place while the heel lifts


def lock_feet(
    track: Track, body: Any, *, ground: Ground | None = None, options: FootContact | None = None
) -> Track:
    """The track with feet that stay where they stand; of a camera that does not move.

    Args:
        track: of `collect`, smoothed.
        body: the one that the people were predicted with.
        ground: with a known floor, contacts lie on one level; with a known vertical, "low" is along it.
        options: thresholds and weights.

    Returns:
        The same frames; pose of the legs, translation and pelvis differ. Tracks of fewer than 4 frames, and
        those whose feet never stand, come back as they are.

    Raises:
        ImportError: SciPy is missing.
    """
    options = options or FootContact()
    if len(track) < 4:
        return track
    legs = _legs(track, body)
    contact = find_contacts(track, legs.balls, ground, options)
    if not contact.any():
        return track
    shift, anchors = _move_root(track, legs.balls, contact, ground, options)
    moved = dataclasses.replace(
        track,
        translation=(track.translation + shift).astype(np.float32),
        pelvis=(track.pelvis + shift).astype(np.float32),
    )
    left = anchors - (legs.balls + shift[:, None])
    left[~contact] = 0
    left = _faded(left, contact, track.times, options)
    return bend_legs(moved, _shifted(legs, shift), left)


def find_contacts(track: Track, balls: np.ndarray, ground: Ground | None, options: FootContact) -> np.ndarray:
    """(T, 2) bool: whether the left and the right foot stand; balls (T, 2, 3) of the feet [m]."""
    velocity = np.stack([_velocity(_steady_root(track, balls[:, foot]), track.times) for foot in (0, 1)], 1)
    speed = np.linalg.norm(velocity, axis=-1)
    up = np.array([0.0, -1, 0]) if ground is None or ground.up is None else ground.up
    level = balls @ up
    low = level < level.min(1, keepdims=True) + options.low
    contact = np.zeros(speed.shape, bool)
    for foot in (0, 1):
        standing = False
        for t in range(len(speed)):
            standing = speed[t, foot] < (options.fast if standing else options.slow) and bool(low[t, foot])
            contact[t, foot] = standing
        for first, last in _runs(contact[:, foot], track.times):
            if track.times[last] - track.times[first] < options.shortest:
                contact[first : last + 1, foot] = False
    return contact


def frames_of(tracks: Sequence[Track], frames: Iterable[Humans], body: Any) -> Iterator[Humans]:
    """The people of the tracks in each of these frames, with meshes; who is in a frame stays who is in it."""
    rows = {
        (track.id, int(frame)): (track, row) for track in tracks for row, frame in enumerate(track.frames)
    }
    for number, humans in enumerate(frames):
        if not len(humans) or humans.track_ids is None:
            yield with_meshes(humans, body)
            continue
        pairs = [rows[identity, number] for identity in humans.track_ids.tolist()]
        changed: dict[str, Any] = {
            name: np.stack([getattr(track, name)[row] for track, row in pairs])
            for name in ("pose", "translation", "pelvis")
        }
        shape = np.stack([track.shape for track, _ in pairs])
        yield with_meshes(dataclasses.replace(humans, **changed, shape=shape), body)


def _legs(track: Track, body: Any) -> _Legs:
    bones = body.with_vertices([0]) if hasattr(body, "with_vertices") else body
    joints = []
    for start in range(0, len(track), _CHUNK):
        part = slice(start, start + _CHUNK)
        shape = np.repeat(track.shape[None], len(track.pose[part]), 0)
        joints.append(
            posed(bones, track.pose[part], shape, track.expression[part], track.translation[part])[1]
        )
    J = np.concatenate(joints).astype(np.float64)
    names = body_joints(track.topology)
    index = [track.topology.joint_names.index(name) for name in names]
    return _Legs(*(J[:, [index[joint] for joint in pair]] for pair in (HIPS, KNEES, ANKLES, TOES)))


def _shifted(legs: _Legs, shift: np.ndarray) -> _Legs:
    return _Legs(*(getattr(legs, f.name) + shift[:, None] for f in dataclasses.fields(legs)))


def _steady_root(track: Track, points: np.ndarray) -> np.ndarray:
    """Points (T, 3) of the body if the root moved calmly: distances tremble more than all else."""
    root = track.translation.astype(np.float64)
    distance = np.linalg.norm(root, axis=1, keepdims=True)
    calm = _smoothed(root / distance, track.times, 0.05) * np.exp(
        _smoothed(np.log(distance), track.times, 0.3)
    )
    return calm + _smoothed(points - root, track.times, 0.04)


def _smoothed(values: np.ndarray, times: np.ndarray, sigma: float) -> np.ndarray:
    """(T, C) values, averaged over time with a Gaussian of that standard deviation [s]."""
    result = np.empty_like(values)
    for start in range(0, len(times), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = slice(*np.searchsorted(times, [times[start] - 3 * sigma, times[part][-1] + 3 * sigma]))
        weights = np.exp(-0.5 * ((times[part, None] - times[None, near]) / sigma) ** 2)
        # a local line rather than a mean, which lags at the ends
        offsets = times[None, near] - times[part, None]
        s0, s1, s2 = (np.sum(weights * offsets**k, 1) for k in range(3))
        lines = weights * (s2[:, None] - s1[:, None] * offsets)
        lines /= np.maximum(s0 * s2 - s1**2, 1e-18)[:, None]
        flat = weights / s0[:, None]
        lonely = (s0 * s2 - s1**2) < 1e-12
        result[part] = np.where(lonely[:, None], flat, lines) @ values[near]
    return result


def _velocity(points: np.ndarray, times: np.ndarray) -> np.ndarray:
    velocity: np.ndarray = np.gradient(points, times, axis=0)
    return velocity


def _runs(flags: np.ndarray, times: np.ndarray) -> list[tuple[int, int]]:
    """(first, last) of each run of True; a gap in time of over three frames ends one, too."""
    step = np.median(np.diff(times))
    breaks = np.append(np.diff(times) > 3 * step, True)
    runs, first = [], -1
    for t, flag in enumerate(flags):
        if flag and first < 0:
            first = t
        if first >= 0 and (not flag or breaks[t] or t == len(flags) - 1):
            last = t if flag else t - 1
            runs.append((first, last))
            first = -1
    return runs


def _move_root(
    track: Track, balls: np.ndarray, contact: np.ndarray, ground: Ground | None, options: FootContact
) -> tuple[np.ndarray, np.ndarray]:
    """(T, 3) how the root moves, and (T, 2, 3) the anchors of the feet that stand [m]."""
    from scipy.sparse import vstack
    from scipy.sparse.linalg import spsolve

    runs = [(foot, *run) for foot in (0, 1) for run in _runs(contact[:, foot], track.times)]
    count, width = len(track), 3 * (len(track) + len(runs))
    fixed = [_seen(track, width, options), _smooth(track, width, options)]
    fixed.append(_locked(balls, runs, count, width, options))
    floor_weights = np.ones(len(runs))
    solution = np.zeros(width)
    for _ in range(3):  # contacts on a step, or in the air, count less and less
        parts = list(fixed)
        if ground is not None and ground.known and len(runs) > 1:
            parts.append(_on_floor(balls, runs, count, width, ground, np.sqrt(floor_weights) / options.floor))
        A, b = vstack([part[0] for part in parts]).tocsc(), np.concatenate([part[1] for part in parts])
        solution = spsolve(A.T @ A, A.T @ b)
        if len(parts) == len(fixed):
            break
        anchors = solution[3 * count :].reshape(-1, 3)
        off = anchors @ ground.up if ground is not None and ground.up is not None else anchors[:, 1]
        off = (off - np.median(off)) / options.floor
        floor_weights = 1 / (1 + (off / 2) ** 2)
    shift, anchors = solution[: 3 * count].reshape(-1, 3), solution[3 * count :].reshape(-1, 3)
    places = np.zeros((count, 2, 3))
    for anchor, (foot, first, last) in zip(anchors, runs, strict=True):
        places[first : last + 1, foot] = anchor
    return shift, places


Equations = tuple["csr_matrix", np.ndarray]


def _rows(
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]], right: np.ndarray, width: int
) -> Equations:
    """Equations of (rows, columns, values)."""
    from scipy.sparse import coo_matrix

    rows, columns, values = (np.concatenate([entry[i].reshape(-1) for entry in entries]) for i in range(3))
    return coo_matrix((values, (rows, columns)), shape=(len(right), width)).tocsr(), right


def _seen(track: Track, width: int, options: FootContact) -> Equations:
    """The root stays where it was seen, across and along the view; less so where it was interpolated."""
    count = len(track)
    root = track.translation.astype(np.float64)
    distance = np.linalg.norm(root, axis=1)
    ray = root / distance[:, None]
    outer = ray[:, :, None] * ray[:, None, :]
    whitening = (np.eye(3) - outer) / options.across + outer / (options.along * distance)[:, None, None]
    whitening *= np.where(track.filled, 0.3, 1.0)[:, None, None]
    t = np.arange(count)
    rows = np.broadcast_to((3 * t)[:, None, None] + np.arange(3)[None, :, None], (count, 3, 3))
    columns = np.broadcast_to((3 * t)[:, None, None] + np.arange(3)[None, None, :], (count, 3, 3))
    return _rows([(rows, columns, whitening)], np.zeros(3 * count), width)


def _smooth(track: Track, width: int, options: FootContact) -> Equations:
    """The root accelerates little, as it moves afterwards."""
    root, times = track.translation.astype(np.float64), track.times
    before, after = np.diff(times)[:-1], np.diff(times)[1:]
    usual = np.median(np.diff(times))
    middle = np.flatnonzero((before < 3 * usual) & (after < 3 * usual)) + 1
    h0, h1 = before[middle - 1], after[middle - 1]
    factors = [2 / (h0 * (h0 + h1)), -2 / (h0 * h1), 2 / (h1 * (h0 + h1))]
    axis, rows = np.arange(3), 3 * np.arange(len(middle))[:, None] + np.arange(3)
    entries, now = [], np.zeros((len(middle), 3))
    for step, factor in zip((-1, 0, 1), factors, strict=True):
        values = np.repeat(factor[:, None] / options.acceleration, 3, 1)
        entries.append((rows, 3 * (middle + step)[:, None] + axis, values))
        now += values * root[middle + step]
    return _rows(entries, -now.reshape(-1), width)


def _locked(
    balls: np.ndarray, runs: Sequence[tuple[int, int, int]], count: int, width: int, options: FootContact
) -> Equations:
    """Feet that stand are at their anchors."""
    entries, right, start = [], [], 0
    for k, (foot, first, last) in enumerate(runs):
        t = np.arange(first, last + 1)
        rows = start + np.arange(3 * len(t)).reshape(-1, 3)
        weight = np.full(rows.shape, 1 / options.locked)
        entries.append((rows, 3 * t[:, None] + np.arange(3), weight))
        entries.append((rows, np.broadcast_to(3 * (count + k) + np.arange(3), rows.shape), -weight))
        right.append((-balls[t, foot] / options.locked).reshape(-1))
        start += rows.size
    return _rows(entries, np.concatenate(right), width)


def _on_floor(
    balls: np.ndarray,
    runs: Sequence[tuple[int, int, int]],
    count: int,
    width: int,
    ground: Ground,
    weights: np.ndarray,
) -> Equations:
    """Anchors have one level, which the median of the contacts has at first."""
    assert ground.up is not None
    levels = np.array([np.median(balls[first : last + 1, foot] @ ground.up) for foot, first, last in runs])
    rows = np.repeat(np.arange(len(runs))[:, None], 3, 1)
    columns = 3 * (count + np.arange(len(runs)))[:, None] + np.arange(3)
    return _rows([(rows, columns, weights[:, None] * ground.up)], weights * np.median(levels), width)


def _faded(left: np.ndarray, contact: np.ndarray, times: np.ndarray, options: FootContact) -> np.ndarray:
    """(T, 2, 3) corrections of the feet: capped, and fading before and after each contact."""
    size = np.linalg.norm(left, axis=-1, keepdims=True)
    capped = left * np.minimum(1, options.reach / np.maximum(size, 1e-9))
    result = capped.copy()
    for foot in (0, 1):
        for first, last in _runs(contact[:, foot], times):
            for t in range(len(times)):
                gap = max(times[first] - times[t], times[t] - times[last])
                if 0 < gap < options.blend and not contact[t, foot]:
                    edge = first if t < first else last
                    share = 0.5 + 0.5 * np.cos(np.pi * gap / options.blend)
                    result[t, foot] += share * capped[edge, foot]
    return result


def bend_legs(track: Track, legs: _Legs, moves: np.ndarray) -> Track:
    """The track with each foot moved by `moves` (T, 2, 3) [m] by hip and knee; feet keep their turn."""
    pose = track.pose.astype(np.float64)
    topology = track.topology
    names = body_joints(topology)
    above = {name: topology.joint_names[max(parent, 0)] for name, parent in
             zip(topology.joint_names, topology.parents, strict=True)}  # fmt: skip
    lateral = legs.hips[:, 1] - legs.hips[:, 0]
    for foot in (0, 1):
        hip, knee, ankle = (names[joints[foot]] for joints in (HIPS, KNEES, ANKLES))
        over_hip, over_knee, over_ankle = (_global(track, pose, above[name]) for name in (hip, knee, ankle))
        own = _global(track, pose, ankle)
        h, k, a = legs.hips[:, foot], legs.knees[:, foot], legs.ankles[:, foot]
        knee_turn, hip_turn = _two_bones(h, k, a, a + moves[:, foot], lateral)
        i, j, m = (topology.pose_names.index(name) for name in (hip, knee, ankle))
        still = np.abs(moves[:, foot]).max(1) < 1e-6
        new = pose.copy()
        new[:, i] = _T(over_hip) @ hip_turn @ over_hip @ pose[:, i]
        new[:, j] = _T(over_knee) @ knee_turn @ over_knee @ pose[:, j]
        new[:, m] = _T(hip_turn @ knee_turn @ over_ankle) @ own
        pose = np.where(still[:, None, None, None], pose, new)
    return dataclasses.replace(track, pose=pose.astype(np.float32))


def _two_bones(
    hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray, target: np.ndarray, lateral: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(T, 3, 3) rotations about the knee and then the hip, in the camera frame, that lead to targets."""
    thigh, shin, wanted = hip - knee, ankle - knee, target - hip
    upper, lower = np.linalg.norm(thigh, axis=1), np.linalg.norm(shin, axis=1)
    reach = np.clip(np.linalg.norm(wanted, axis=1), np.abs(upper - lower) + 1e-4, (upper + lower) * 0.9995)

    def opening(length: np.ndarray) -> np.ndarray:
        return np.arccos(np.clip((upper**2 + lower**2 - length**2) / (2 * upper * lower), -1, 1))

    now = opening(np.linalg.norm(ankle - hip, axis=1))
    axis = np.cross(thigh, shin)
    bent = np.linalg.norm(axis, axis=1) > 0.02 * upper * lower
    axis = _unit(np.where(bent[:, None], axis, lateral))  # a straight leg bends as knees do
    knee_turn = _about(axis, opening(reach) - now)
    reached = knee + (knee_turn @ shin[..., None])[..., 0] - hip
    cross = np.cross(_unit(reached), _unit(wanted))
    angle = np.arctan2(np.linalg.norm(cross, axis=1), (_unit(reached) * _unit(wanted)).sum(1))
    return knee_turn, _about(_unit(cross), angle)


def _global(track: Track, pose: np.ndarray, name: str) -> np.ndarray:
    """(T, 3, 3) rotation of a joint in the camera frame."""
    topology = track.topology
    rotation = np.broadcast_to(np.eye(3), (len(pose), 3, 3))
    for joint in topology.path(topology.joint_names.index(name)):
        if joint in topology.pose_joints:
            rotation = rotation @ pose[:, topology.pose_joints.index(joint)]
    return rotation


def _about(axis: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """(T, 3, 3) rotations about unit axes (T, 3) by angles (T,) [rad] (Rodrigues)."""
    x, y, z = axis.T
    zero = np.zeros_like(x)
    cross = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], 1).reshape(-1, 3, 3)
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return np.eye(3) + sine * cross + (1 - cosine) * cross @ cross


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _T(rotations: np.ndarray) -> np.ndarray:
    return np.swapaxes(rotations, -1, -2)
