"""Geometric transforms of samples: crop and rotate (`warp`), mirror (`flip`), occlude; annotations follow.

Pixels move through a `Letterbox`, so that K follows. 3D annotations change only if the camera rotates (`warp`
with an angle) or the world is mirrored (`flip`).
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..bodies.keypoint_sets import KEYPOINT_SETS, mirror, mirror_order
from ..bodies.topology import Topology
from ..geometry import project
from ..preprocessing.letterbox import Letterbox
from .sample import Sample

HEAD_POINTS = ("head", "nose", "head_top", "left_eye", "right_eye", "left_ear", "right_ear")


def warp(sample: Sample, letterbox: Letterbox, angle: float = 0.0) -> Sample:
    """Crop a sample, after rotating its camera about the optical axis.

    K and everything in pixels follow the crop; people, in camera coordinates, follow only the rotation. A
    longer focal length is a crop around the principal point. `joint_visibility` is kept where only the body
    could tell which joints have left the crop.

    Args:
        sample: with the anchor "center" or "pelvis" if the camera rotates.
        letterbox: crop of the rotated picture.
        angle: [rad]; positive rotates the picture clockwise.

    Raises:
        ValueError: the letterbox mirrors (`flip` does that), or a sample with SMPL's `transl` is rotated.
    """
    if letterbox.flip:
        raise ValueError("warp() takes no mirroring letterbox: left and right must change too; use flip()")
    turn = _turn_pixels(sample, angle)
    changes: dict[str, Any] = {"image": _pixels(sample.image, letterbox, turn, angle)}
    changes["K"] = letterbox.intrinsics(sample.K.astype(np.float64)).astype(np.float32)
    if sample.mask is not None:
        changes["mask"] = _nearest(sample.mask, letterbox, turn, outside=0)
        changes["visibility"] = _still_seen(sample, changes["mask"], letterbox.scale[0] * letterbox.scale[1])
    if sample.depth is not None:
        changes["depth"] = _nearest(sample.depth, letterbox, turn, outside=np.nan)
    if sample.keypoints_2d is not None:
        changes["keypoints_2d"] = letterbox.points(_turn(sample.keypoints_2d, turn)).astype(np.float32)
    moved = dataclasses.replace(_turn_people(sample, angle) if angle else sample, **changes)
    height, width = letterbox.shape
    return _mark_joints(moved, 0, 0, width, height, inside=True)


def flip(sample: Sample, topology: Topology) -> Sample:
    """Mirror a sample: left and right are exchanged in picture, camera, pose, hands and face.

    People with SMPL's `transl` are off by twice the x of their rest pelvis, some millimetres.

    Args:
        sample: any.
        topology: of the sample's body.

    Raises:
        ValueError: left and right of the body or of a keypoint set are unknown.
    """
    width = sample.image.shape[1]
    K = sample.K.copy()
    K[0, 1] *= -1
    K[0, 2] = width - K[0, 2]
    sides = np.array([-1, 1, 1], np.float32)
    changes: dict[str, Any] = {"K": K, "translation": sample.translation * sides}
    for name in ("image", "mask", "depth"):
        if getattr(sample, name) is not None:
            changes[name] = np.ascontiguousarray(getattr(sample, name)[:, ::-1])
    topology = _topology_of(sample, topology)
    order = mirror_order(_point_names(sample, topology))
    if sample.keypoints_2d is not None:
        moved = sample.keypoints_2d[:, order] * sides[:2]
        changes["keypoints_2d"] = moved + np.array([width, 0], np.float32)
    if sample.keypoints_3d is not None:
        changes["keypoints_3d"] = sample.keypoints_3d[:, order] * sides
    if sample.world_to_camera is not None:  # the world is mirrored, too: its z still points up
        changes["world_to_camera"] = sides[:, None] * sample.world_to_camera * np.append(sides, np.float32(1))
    return dataclasses.replace(sample, **changes, **_mirror_body(sample, topology))


def occlude(sample: Sample, patch: np.ndarray, x0: int, y0: int) -> Sample:
    """Occlude a sample by a patch (h, w, 3) uint8 with its top left pixel at (x0, y0).

    There the mask becomes 0 and the depth unknown. `visibility` is updated if there is a mask;
    `joint_visibility` if the joints are among the keypoints, else it becomes None.
    """
    y1, x1 = y0 + patch.shape[0], x0 + patch.shape[1]
    changes: dict[str, Any] = {"image": sample.image.copy()}
    changes["image"][y0:y1, x0:x1] = patch
    if sample.mask is not None:
        changes["mask"] = sample.mask.copy()
        changes["mask"][y0:y1, x0:x1] = 0
        changes["visibility"] = _still_seen(sample, changes["mask"], 1.0)
    if sample.depth is not None:
        changes["depth"] = sample.depth.copy()
        changes["depth"][y0:y1, x0:x1] = np.nan
    covered = dataclasses.replace(sample, **changes)
    if _has_joints(covered):
        return _mark_joints(covered, x0, y0, x1, y1, inside=False)
    return dataclasses.replace(covered, joint_visibility=None)


def on_pelvis(sample: Sample, topology: Topology) -> Sample:
    """Samples with SMPL's `transl` converted to the anchor "pelvis", which can be rotated and mirrored.

    Only if the rest pelvis follows from the body's shape; others are returned unchanged.
    """
    numbers = [np.ones((len(sample), 1), np.float32), sample.shape, sample.expression]
    parameters = np.concatenate(numbers, axis=1)
    known = sample.body == topology.name and topology.rest_pelvis is not None
    neutral = sample.gender is None or bool((sample.gender == "neutral").all())
    if sample.anchor != "transl" or not known or not neutral:
        return sample
    rest: Any = topology.rest_pelvis
    if parameters.shape[1] != len(rest):
        return sample
    # An unknown expression does not move the pelvis.
    translation = sample.translation + np.nan_to_num(parameters) @ rest
    return dataclasses.replace(sample, translation=translation.astype(np.float32), anchor="pelvis")


def heads_of(sample: Sample, angle: float = 0.0) -> np.ndarray:
    """(N, 2) head positions in pixels after a camera rotation; for unknown heads that of the anchor, else
    NaN."""
    turn = _turn_pixels(sample, angle)
    at = project(torch.from_numpy(sample.translation), torch.from_numpy(sample.K)).numpy().astype(float)
    at[~(sample.translation[:, 2] > 0)] = np.nan
    if sample.keypoints_2d is None:
        return _turn(at, turn)
    names = _set_names(sample.keypoint_set)
    points = sample.keypoints_2d[:, [i for i, name in enumerate(names) if name in HEAD_POINTS]]
    known = np.isfinite(points).all(-1)
    middle = np.where(known[..., None], points, 0).sum(1) / np.maximum(known.sum(1), 1)[:, None]
    better = known.any(1) & ((sample.anchor != "center") | np.isnan(at).any(1))
    return _turn(np.where(better[:, None], middle, at), turn)


def turned_points(sample: Sample, angle: float, points: np.ndarray) -> np.ndarray:
    """(..., 2) pixels after a camera rotation by `angle` [rad]."""
    return _turn(points, _turn_pixels(sample, angle))


def _turn_pixels(sample: Sample, angle: float) -> np.ndarray:
    """(2, 3) affine map of pixels for a camera rotation about its axis: K R K^-1.

    Without a K the picture rotates about its centre.
    """
    height, width = sample.image.shape[:2]
    K = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    if np.isfinite(sample.K).all():
        K = sample.K.astype(float)
    return (K @ _rotation(angle) @ np.linalg.inv(K))[:2]


def _rotation(angle: float) -> np.ndarray:
    cos, sin = math.cos(angle), math.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])


def _turn_people(sample: Sample, angle: float) -> Sample:
    if sample.anchor == "transl" and len(sample):
        raise ValueError(
            f"sample '{sample.name}' places people by SMPL's transl, which cannot be rotated; "
            "give the position of the pelvis (anchor 'pelvis'), or augment without rotation"
        )
    turn = _rotation(angle).astype(np.float32)
    pose = sample.pose.copy()
    pose[:, :1] = turn @ pose[:, :1]
    points = None if sample.keypoints_3d is None else sample.keypoints_3d @ turn.T
    world = sample.world_to_camera
    return dataclasses.replace(
        sample,
        pose=pose,
        translation=sample.translation @ turn.T,
        keypoints_3d=points,
        world_to_camera=None if world is None else turn @ world,
    )


def _pixels(image: np.ndarray, letterbox: Letterbox, turn: np.ndarray, angle: float) -> np.ndarray:
    """(height, width, 3) the rotated and cropped picture."""
    if not angle:
        return letterbox.apply(image)
    # First an upright crop that contains the rotated one, at its scale, which shrinks without aliasing.
    height, width = letterbox.shape
    corners = np.array([[0, 0], [1, 0], [0, 1], [1, 1]]) * (float(width), float(height))
    corners = letterbox.inverse_points(corners)
    corners = _turn_back(corners, turn)
    (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
    upright = Letterbox.box(x0, y0, x1, y1, math.ceil(max(x1 - x0, y1 - y0) * letterbox.scale[0]))
    start, right, down = upright.points(corners)[:3]
    along, across = (right - start) / width, (down - start) / height
    affine = (along[0], across[0], start[0], along[1], across[1], start[1])
    turned = Image.fromarray(upright.apply(image)).transform(
        (width, height),
        Image.Transform.AFFINE,
        affine,
        Image.Resampling.BICUBIC,
        fillcolor=(letterbox.padding,) * 3,
    )
    return np.array(turned)


def _turn(xy: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return xy @ turn[:, :2].T + turn[:, 2]


def _turn_back(xy: np.ndarray, turn: np.ndarray) -> np.ndarray:
    return (xy - turn[:, 2]) @ np.linalg.inv(turn[:, :2]).T


def _nearest(plane: np.ndarray, letterbox: Letterbox, turn: np.ndarray, *, outside: float) -> np.ndarray:
    """(height, width) nearest-neighbour crop of a plane of labels or depths."""
    rows, cols = (np.arange(length) + 0.5 for length in letterbox.shape)
    xy = np.stack(np.meshgrid(cols, rows), axis=-1)
    col, row = np.moveaxis(np.floor(_turn_back(letterbox.inverse_points(xy), turn)).astype(int), -1, 0)
    height, width = plane.shape
    there = (col >= 0) & (col < width) & (row >= 0) & (row < height)
    values = plane[row.clip(0, height - 1), col.clip(0, width - 1)]
    return np.where(there, values, np.array(outside, plane.dtype))


def _still_seen(sample: Sample, mask: np.ndarray, area: float) -> np.ndarray:
    """(N,) visibility after the mask changed to `mask`, in which an old pixel covers `area` pixels."""
    assert sample.mask is not None
    count = len(sample) + 1
    before = np.bincount(sample.mask.ravel(), minlength=count)[1:count] * area
    after = np.bincount(mask.ravel(), minlength=count)[1:count]
    share = np.minimum(after / np.maximum(before, 1e-6), 1)
    return (sample.visibility * np.where(before > 0, share, 1)).astype(np.float32)


def _has_joints(sample: Sample) -> bool:
    """Whether its keypoints are the joints of its body."""
    joints, points = sample.joint_visibility, sample.keypoints_2d
    return (
        joints is not None
        and points is not None
        and sample.keypoint_set == sample.body
        and points.shape[1] == joints.shape[1]
    )


def _mark_joints(sample: Sample, x0: int, y0: int, x1: int, y1: int, *, inside: bool) -> Sample:
    """Mark joints outside of the box as not visible, or with `inside=False` those in it."""
    if not _has_joints(sample):
        return sample
    points: Any = sample.keypoints_2d
    within = ((points >= (x0, y0)) & (points < (x1, y1))).all(-1)
    visible = sample.joint_visibility & (within if inside else ~within)
    return dataclasses.replace(sample, joint_visibility=visible)


def _set_names(keypoint_set: str) -> list[str]:
    return [point.split("=")[0] for point in KEYPOINT_SETS.get(keypoint_set, "").split()]


def _point_names(sample: Sample, topology: Topology) -> list[str]:
    """Names of the sample's keypoints, from which left and right follow."""
    points = sample.keypoints_2d if sample.keypoints_2d is not None else sample.keypoints_3d
    if points is None:
        return []
    own = list(topology.joint_names) if sample.keypoint_set == topology.name else []
    names = _set_names(sample.keypoint_set) or own
    if len(names) != points.shape[1]:
        raise ValueError(
            f"sample '{sample.name}' has {points.shape[1]} keypoints of set '{sample.keypoint_set}', whose "
            "left and right are unknown; name its points in KEYPOINT_SETS, or do not flip"
        )
    return names


def _topology_of(sample: Sample, topology: Topology) -> Topology:
    """The given topology, except for SMPL, of which only joint names are known."""
    if sample.body != "smpl":
        return topology
    names = tuple(_set_names("smpl24"))
    return Topology("smpl", np.zeros((0, 3)), names, (-1,) * len(names), {}, (), ())


def _mirror_body(sample: Sample, topology: Topology) -> dict[str, Any]:
    """pose, expression and joint_visibility of the mirrored people, of those that the sample has."""
    names = {
        "pose": topology.pose_names,
        "expression": topology.expression_names,
        "joint_visibility": topology.joint_names,
    }
    arrays = {field: getattr(sample, field) for field in names}
    there = {f: array for f, array in arrays.items() if array is not None and array.shape[1]}
    for field, array in there.items():
        if array.shape[1] != len(names[field]):
            raise ValueError(
                f"{field} of sample '{sample.name}' has {array.shape[1]} columns of body '{sample.body}', "
                f"but body '{topology.name}' has {len(names[field])}; give the topology of its own body"
            )
    pose, expression = mirror(
        arrays["pose"] if "pose" in there else np.zeros((0, len(topology.pose_names), 3, 3)),
        arrays["expression"] if "expression" in there else np.zeros((0, len(topology.expression_names))),
        topology,
    )
    mirrored = {"pose": pose, "expression": expression}
    if "joint_visibility" in there:
        mirrored["joint_visibility"] = there["joint_visibility"][:, mirror_order(topology.joint_names)]
    return {field: mirrored[field] for field in there}
