"""Animated rigs: `Clip` holds the motion of one person's bones, skin and face (`Rig`) for export.

A rig is in the frame of glTF's characters: y up, the person faces z, the left hand is at +x, metres. A
clip moves it in the frame of glTF's scenes: the camera in the origin, looking along -z, y up. Linear blend
skinning by nodes that rotate as in the clip gives the vertices of `Humans`. numpy only.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ..bodies.rig import TO_GLTF, Rig
from ..humans import PALETTE, Humans
from ..video.tracks import Track
from .bone_names import bone_names
from .rest_pose import with_rest_pose

# SMPL-X adds corrections to its rest shape that depend on the pose. A clip has as many morph targets for them
# as keep the worst vertex of its worst frame within this.
CORRECTION_ERROR = 2e-4  # [m]
_CHUNK = 64  # frames whose corrections are compared at once: 10475 vertices take 8 MB


class Motion(NamedTuple):
    """pose (T, R, 3, 3), expression (T, E) and translation (T, 3) of one person, as in `Humans`."""

    pose: np.ndarray
    expression: np.ndarray
    translation: np.ndarray


@dataclass(frozen=True, eq=False)
class Clip:
    """Animation of one person over T keyframes.

    rotations  (T, B, 3, 3)  of the nodes, in the frame of their parents
    offsets    (T, B, 3)     of the nodes likewise [m]; the root's is its place in the scene
    weights    (T, M)        of the rig's morph targets
    times      (T,)          seconds, rising
    shown      from when to when the person is there [s]
    facts      about the person, for programs that read them
    """

    rig: Rig
    rotations: np.ndarray
    offsets: np.ndarray
    weights: np.ndarray
    times: np.ndarray
    shown: tuple[tuple[float, float], ...] = ((0.0, np.inf),)
    name: str = "person"
    color: np.ndarray = dataclasses.field(default_factory=lambda: PALETTE[0])
    facts: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def renamed(self, bones: str | Mapping[str, str] | None) -> Clip:
        """The same with other names for bones: a standard's, or a dict from ours to yours; None: our own.

        ValueError if two bones would have the same name, or the standard is unknown.
        """
        names = bone_names(self.rig.topology.name, bones) if isinstance(bones, str) else bones or {}
        renamed = tuple(names.get(name, name) for name in self.rig.bone_names)
        twice = sorted({name for name in renamed if renamed.count(name) > 1})
        if twice:
            raise ValueError(f"two bones would have the name {twice[0]!r}; give each its own")
        return dataclasses.replace(self, rig=dataclasses.replace(self.rig, bone_names=renamed))

    def joints(self) -> np.ndarray:
        """(T, B, 3) where the bones begin, in the scene [m]."""
        return self.rig.places(self.rotations, self.offsets)


def animate(rig: Rig, motion: Motion, times: np.ndarray) -> Clip:
    """The clip of a rig that moves so; corrections of the pose become morph targets of the clip's rig.

    Where the expression moves bones in the rest shape (SMPL-X), their inverse bind matrices cannot follow, so
    the nodes do: from J to J + d, a vertex of the bone moves by d - R d less than the bone's own turn gives.
    """
    rotations = rig.rotations(motion.pose)
    moved = np.zeros((len(times), len(rig.parents), 3), np.float32)
    if rig.bone_morphs is not None:
        moved += np.einsum("te,ebc->tbc", motion.expression, rig.bone_morphs)
    above = np.maximum(rig.parents, 0)
    bones = rig.offsets + moved - moved[:, above]
    bones[:, 0] = 0
    root = motion.translation * TO_GLTF - rig.places(rotations, bones)[:, rig.center]
    offsets = rig.offsets + moved - (rotations @ moved[..., None])[..., 0]
    offsets[:, 0] = root - (rotations[:, 0] @ moved[:, 0, :, None])[..., 0]
    rig, corrections = _corrected(rig, motion.pose)
    weights = np.concatenate([motion.expression, corrections], 1)
    return Clip(rig, rotations, offsets, weights, np.asarray(times, np.float64))


def person_names(humans: Humans) -> list[str]:
    """N names of nodes and objects in files: person_1, ..."""
    return [f"person_{number}" for number in humans.numbers.tolist()]


def person_facts(humans: Humans, i: int) -> dict[str, float]:
    """Score and track id of person `i`, as files keep them."""
    facts: dict[str, float] = {"score": round(float(humans.scores[i]), 4)}
    if humans.track_ids is not None:
        facts["track_id"] = int(humans.track_ids[i])
    return facts


def humans_to_clips(humans: Humans, body: Any, rest: str | None = None) -> list[Clip]:
    """One clip of a single moment for each person of an image.

    Args:
        body: the body of these people.
        rest: rest pose of the rigs, see `with_rest_pose`.

    Raises:
        ValueError: the people are of another body.
    """
    _check_body(body, humans.body)
    clips = []
    for i, rig in enumerate(body.rigs(humans.shape) if len(humans) else []):
        motion = Motion(humans.pose[i, None], humans.expression[i, None], humans.translation[i, None])
        clip = animate(with_rest_pose(rig, rest), motion, np.zeros(1))
        name, facts = person_names(humans)[i], person_facts(humans, i)
        clips.append(dataclasses.replace(clip, name=name, color=humans.colors[i], facts=facts))
    return clips


def tracks_to_clips(tracks: Sequence[Track], body: Any, rest: str | None = None) -> list[Clip]:
    """One clip for each person of a video, in the video's own time.

    Args:
        body: the body of these people.
        rest: rest pose of the rigs, see `with_rest_pose`.

    Raises:
        ValueError: a track is of another body, has no frames, times that do not rise, or numbers that are not
            finite.
    """
    for track in tracks:
        _check_body(body, track.body)
        _check_track(track)
    shapes = [track.shape for track in tracks]
    clips = []
    for rig, track in zip(body.rigs(np.stack(shapes)) if shapes else [], tracks, strict=True):
        motion = Motion(track.pose, track.expression, track.translation)
        clip = animate(with_rest_pose(rig, rest), motion, track.times)
        facts = {"track_id": track.id, "fps": track.fps}
        color = PALETTE[(track.id - 1) % len(PALETTE)]
        name = f"person_{track.id}"
        clips.append(dataclasses.replace(clip, shown=_shown(track), name=name, color=color, facts=facts))
    return clips


def _check_body(body: Any, name: str) -> None:
    if body.name != name:
        raise ValueError(
            f"the people are of body {name!r}, got body {body.name!r}; give the one they were made with"
        )


def _check_track(track: Track) -> None:
    if not len(track):
        raise ValueError(f"track {track.id} has no frames, so nothing to animate; leave it out")
    if (np.diff(track.times) <= 0).any():
        raise ValueError(f"times of track {track.id} must rise from frame to frame")
    for name in ("pose", "shape", "expression", "translation", "times"):
        if not np.isfinite(getattr(track, name)).all():
            raise ValueError(f"{name} of track {track.id} contains numbers that are not finite")


def _shown(track: Track) -> tuple[tuple[float, float], ...]:
    """From when to when the person is there: a frame lasts until the next, or 1 / fps."""
    gaps = np.flatnonzero(np.diff(track.frames) > 1)
    first, last = np.append(0, gaps + 1), np.append(gaps, len(track) - 1)
    starts, ends = track.times[first], track.times[last] + 1 / track.fps
    return tuple(zip(starts.tolist(), ends.tolist(), strict=True))


def _corrected(rig: Rig, pose: np.ndarray) -> tuple[Rig, np.ndarray]:
    """The rig with morph targets for its corrections over these poses, and their (T, C) weights.

    The corrections of T frames lie in few directions: the largest principal ones, until none misses more than
    CORRECTION_ERROR.
    """
    if rig.corrections is None or not rig.corrections.any():
        rig = dataclasses.replace(rig, corrections=None)
        return rig, np.zeros((len(pose), 0), np.float32)
    bends = (pose[:, 1:] - np.eye(3, dtype=np.float32)).reshape(len(pose), -1)
    table = rig.corrections.reshape(len(rig.corrections), -1)
    values, vectors = np.linalg.eigh((table @ table.T).astype(np.float64))
    scale = np.sqrt(np.maximum(values, values[-1] * 1e-10))
    left, strengths, right = np.linalg.svd((bends @ vectors) * scale, full_matrices=False)
    targets = ((right / scale) @ vectors.T @ table).astype(np.float32)
    weights = (left * strengths).astype(np.float32)
    count = _enough(weights, targets)
    sizes = np.abs(weights[:, :count]).max(0, initial=1e-12)
    names = tuple(f"correction_{i}" for i in range(count))
    morphs = (targets[:count] * sizes[:, None]).reshape(count, -1, 3).astype(np.float32)
    morphs, names = np.concatenate([rig.morphs, morphs]), rig.morph_names + names
    rig = dataclasses.replace(rig, morph_names=names, morphs=morphs, corrections=None)
    return rig, (weights[:, :count] / sizes).astype(np.float32)


def _enough(weights: np.ndarray, targets: np.ndarray) -> int:
    """How many of the targets (C, 3 V), strongest first, leave no vertex off by CORRECTION_ERROR."""
    low, high = 0, len(targets)
    while low < high:
        middle = (low + high) // 2
        if _worst(weights[:, middle:], targets[middle:]) > CORRECTION_ERROR:
            low = middle + 1
        else:
            high = middle
    return low


def _worst(weights: np.ndarray, targets: np.ndarray) -> float:
    chunks = (weights[i : i + _CHUNK] @ targets for i in range(0, len(weights), _CHUNK))
    return max(float(np.linalg.norm(c.reshape(len(c), -1, 3), axis=-1).max()) for c in chunks)
