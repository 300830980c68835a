"""One person's motion as .bvh: named bones, metres, y up, in the scene of glTF with the camera in the origin.

The rest pose is the identity of `Humans.pose` unless the clip has another, so the rotations in the file are
those of the pose. The root moves through the scene; every other bone only rotates.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from ..video.tracks import rows_at_rate
from .animation import Clip

_PLACE = "Xposition Yposition Zposition"
_TURN = "Zrotation Xrotation Yrotation"  # as most programs write: first about y, then x, then z
_TIP = 0.5  # length of a last bone, as a share of the bone before it: its end is not known
_SHORTEST = 0.01  # [m] of a tip, for programs that drop bones without length


def clip_to_bvh(clip: Clip, fps: float) -> bytes:
    """The file of one person; 1 / fps seconds a frame, from the first moment of the clip to the last.

    The format has no absence: a person who is away keeps the last pose until coming back. Where the
    expression moves bones (SMPL-X), they stay as in the neutral face.
    """
    moments = rows_at_rate(clip.times, fps)
    count = len(moments)
    angles = rotmat_to_zxy(clip.rotations[moments])
    rows = np.concatenate([clip.offsets[moments, 0], _steady(np.degrees(angles)).reshape(count, -1)], 1)
    lines = [
        "HIERARCHY",
        *_bone(clip, 0, "ROOT", ""),
        "MOTION",
        f"Frames: {count}",
        f"Frame Time: {1 / fps:.9g}",
    ]
    lines += [" ".join(f"{number:.6f}" for number in row) for row in rows[:, _order(clip)].tolist()]
    return ("\n".join(lines) + "\n").encode()


def rotmat_to_zxy(rotmat: np.ndarray) -> np.ndarray:
    """(..., 3, 3) -> (..., 3) angles about z, x, y [rad]: rotmat = Rz Rx Ry; y is 0 where x is 90 degrees."""
    R = np.asarray(rotmat, np.float64)
    cosine = np.hypot(R[..., 2, 0], R[..., 2, 2])
    locked = cosine < 1e-6
    z = np.where(locked, np.arctan2(R[..., 1, 0], R[..., 0, 0]), np.arctan2(-R[..., 0, 1], R[..., 1, 1]))
    y = np.where(locked, 0, np.arctan2(-R[..., 2, 0], R[..., 2, 2]))
    return np.stack([z, np.arctan2(R[..., 2, 1], cosine), y], -1)


def _steady(degrees: np.ndarray) -> np.ndarray:
    """(T, B, 3) angles -> the same rotations without jumps; z, x, y equals z + 180, 180 - x, y + 180."""
    steady = degrees.copy()
    for before, now in pairwise(steady):
        ways = np.stack([now, now * [1, -1, 1] + 180])
        ways += 360 * np.round((before - ways) / 360)
        other_is_nearer = np.argmin(np.abs(ways - before).sum(-1), 0)[:, None]
        now[:] = np.where(other_is_nearer, ways[1], ways[0])
    return steady


def _bone(clip: Clip, bone: int, kind: str, indent: str) -> Iterator[str]:
    """The lines of a bone and all below it."""
    at = clip.rig.offsets[bone] if bone else np.zeros(3)
    channels = f"3 {_TURN}" if bone else f"6 {_PLACE} {_TURN}"
    yield f"{indent}{kind} {'_'.join(clip.rig.bone_names[bone].split())}"  # a blank would end the name
    yield f"{indent}{{"
    yield f"{indent}  {_offset(at)}"
    yield f"{indent}  CHANNELS {channels}"
    children = [child for child, parent in enumerate(clip.rig.parents) if parent == bone]
    for child in children:
        yield from _bone(clip, child, "JOINT", indent + "  ")
    if not children:
        length = float(np.linalg.norm(at))
        tip = at * max(_TIP, _SHORTEST / length) if length > 1e-6 else np.array([0, _SHORTEST, 0])
        yield from (f"{indent}  {line}" for line in ("End Site", "{", f"  {_offset(tip)}", "}"))
    yield f"{indent}}}"


def _offset(at: np.ndarray) -> str:
    return "OFFSET " + " ".join(f"{number:.6f}" for number in at)


def _order(clip: Clip) -> np.ndarray:
    """Columns of the motion as the hierarchy names them: bone after bone, each followed by all below it."""
    parents = clip.rig.parents
    order: list[int] = []

    def visit(bone: int) -> None:
        order.append(bone)
        for child, parent in enumerate(parents):
            if parent == bone:
                visit(child)

    visit(0)
    return np.concatenate([np.arange(3)] + [3 + 3 * bone + np.arange(3) for bone in order])
