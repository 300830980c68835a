"""Read poses and motions from .bvh files of MakeHuman's default rig."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .untrusted_text import numbers, read_text

MAX_JOINTS = 1000
MAX_FRAMES = 64  # taken from one file, evenly spread over a longer motion


class Motion(NamedTuple):
    """Joint names, parents (-1: the root), offsets (J, 3) and local rotations (frames, J, 3, 3)."""

    names: tuple[str, ...]
    parents: tuple[int, ...]
    offsets: np.ndarray
    rotations: np.ndarray

    def positions(self) -> np.ndarray:
        """(J, 3) joints of the rest pose, in the file's own axes and unit."""
        at = self.offsets.copy()
        for joint, parent in enumerate(self.parents):
            if parent >= 0:
                at[joint] += at[parent]
        return at


class _Joint(NamedTuple):
    name: str
    parent: int
    offset: list[float]
    channels: list[str]


def read_bvh(path: Path) -> Motion:
    """The motion in a .bvh file, of which at most MAX_FRAMES frames are kept.

    Raises:
        ValueError: it is malformed; the message names the file and the fault.
    """
    head, _, motion = read_text(path).partition("MOTION")
    try:
        joints = _joints(iter(head.split()), path)
    except (StopIteration, IndexError):
        raise ValueError(f"{path} has an incomplete hierarchy") from None
    allowed = {f"{axis}{kind}" for axis in "XYZ" for kind in ("position", "rotation")}
    if not joints or any(len(j.offset) != 3 or not allowed.issuperset(j.channels) for j in joints):
        raise ValueError(
            f"{path} has no hierarchy of joints with offsets and channels; a .bvh file begins with one"
        )
    count = sum(len(joint.channels) for joint in joints)
    frames = [words for line in motion.split("\n") if len(words := line.split()) == count > 2]
    if not frames:
        raise ValueError(f"{path} has no frame of {count} numbers, as its channels need")
    kept = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), MAX_FRAMES)).astype(int))
    values = np.stack([numbers(frames[k], path) for k in kept])
    offsets = np.array([joint.offset for joint in joints])
    names, parents = tuple(j.name for j in joints), tuple(j.parent for j in joints)
    return Motion(names, parents, offsets, _rotations(joints, values))


def _joints(words: Iterator[str], path: Path) -> list[_Joint]:
    """The hierarchy, parents first, without end sites."""
    joints: list[_Joint] = []
    open_: list[int] = []  # joints whose bracket is open; -2 for an end site
    last = -1
    for word in words:
        if word in ("ROOT", "JOINT"):
            parent = open_[-1] if open_ else -1
            joints.append(_Joint(next(words), parent, [], []))
            last = len(joints) - 1
            if last >= MAX_JOINTS:
                raise ValueError(f"{path} has more than {MAX_JOINTS} joints")
        elif word == "End":
            last = -2
        elif word == "{":
            open_.append(last)
        elif word == "}":
            open_.pop()
        elif word in ("OFFSET", "CHANNELS") and open_ and open_[-1] >= 0:
            count = 3 if word == "OFFSET" else int(numbers([next(words)], path)[0])
            values = [next(words) for _ in range(count)]
            joint = joints[open_[-1]]
            if word == "OFFSET":
                joint.offset.extend(numbers(values, path))
            else:
                joint.channels.extend(values)
    return joints


def _rotations(joints: list[_Joint], values: np.ndarray) -> np.ndarray:
    """(frames, J, 3, 3) product of the channels' rotations in the order of the file."""
    rotations = np.tile(np.eye(3), (len(values), len(joints), 1, 1))
    column = 0
    for k, joint in enumerate(joints):
        for channel in joint.channels:
            if channel.endswith("rotation"):
                axis = "XYZ".index(channel[0])
                rotations[:, k] = rotations[:, k] @ _turns(axis, np.radians(values[:, column]))
            column += 1
    return rotations


def _turns(axis: int, angles: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rotations by `angles` (N,) about one axis."""
    turns = np.zeros((len(angles), 3, 3))
    a, b = (axis + 1) % 3, (axis + 2) % 3
    turns[:, axis, axis] = 1
    turns[:, a, a] = turns[:, b, b] = np.cos(angles)
    turns[:, b, a] = np.sin(angles)
    turns[:, a, b] = -turns[:, b, a]
    return turns


# --- MakeHuman's default rig

LIMBS = [
    (f"{a}.{side}", f"{b}.{side}")
    for side in "LR"
    for a, b in (("upperarm01", "wrist"), ("upperleg01", "foot"))
]
MAX_REST_ANGLE = (
    20.0  # [degrees] between a limb's rest directions here and there; 4.5 at most in the CC0 poses
)
Y_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])  # axes of files with y up -> z up


def rig_rotations(path: Path, joint_names: Sequence[str], reference: np.ndarray) -> np.ndarray:
    """(frames, R, 3, 3) float32 local rotations of Anny's joints, identity for those the file lacks.

    Args:
        path: of the .bvh file.
        joint_names: of Anny.
        reference: (R, 3) Anny's joints in its reference pose [m].

    Raises:
        ValueError: the file is not of MakeHuman's default rig or has another rest pose, in which its
            rotations have another meaning.
    """
    motion = read_bvh(path)
    where = {name: k for k, name in enumerate(motion.names)}
    lacks = [name for name in ("root", "spine01", "head", *sum(LIMBS, ())) if name not in where]
    if lacks:
        raise ValueError(f"{path} is not of MakeHuman's default rig: it has no {', '.join(lacks)}")
    rest = motion.positions()
    upward = rest[where["head"]] - rest[where["root"]]
    axes = Y_UP if upward[1] > abs(upward[2]) else np.eye(3)
    index = {name: k for k, name in enumerate(joint_names)}
    for a, b in LIMBS:
        here, there = axes @ (rest[where[b]] - rest[where[a]]), reference[index[b]] - reference[index[a]]
        cosine = here @ there / max(float(np.linalg.norm(here) * np.linalg.norm(there)), 1e-12)
        if not cosine > np.cos(np.radians(MAX_REST_ANGLE)):
            raise ValueError(f"{path} has another rest pose than MakeHuman's default rig: see its {a}")
    rotations = np.tile(np.eye(3, dtype=np.float32), (len(motion.rotations), len(joint_names), 1, 1))
    both = [name for name in joint_names if name in where]
    rotations[:, [index[n] for n in both]] = axes @ motion.rotations[:, [where[n] for n in both]] @ axes.T
    return rotations
