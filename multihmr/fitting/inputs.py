"""Check the arguments of `fit` and convert them to Observations."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multihmr.fitting.point_sets import CONTOUR_NAMES, FACE_NAMES
from multihmr.fitting.state import Observations
from multihmr.geometry import default_intrinsics
from multihmr.humans import Keypoints
from multihmr.preprocessing.camera import check_intrinsics
from multihmr.world.heights import SHORTEST, TALLEST

SIGMA_SHARE, SIGMA_LEAST = (
    0.0075,
    1.0,
)  # how far off points are: share of a person's extent, at least so many pixels
SIGMA_SPACE = 0.005  # how far off points given in space are [m]
# How far off the 68 points of a face are: share of their own extent, at least so many pixels; those of the
# contour, which in pictures follow the outline of the head, so many times as far.
FACE_SHARE, FACE_LEAST, CONTOUR_TIMES = 0.02, 1.5, 2.5
# Pixels of the extent of a face: below the first its points do not count, above the second as they are.
FACE_FADE = (12.0, 24.0)
FEWEST_POINTS = 3
LARGEST_PERSON = 10.0  # metres between two points of one person; more are millimetres, or two people
SMALLEST_PERSON = 1.5  # pixels between two points of one person; less are shares of the picture's sides
# Up to so many points are outliers where a person's extent is so many times as large with them; a whole body
# has 30 times the extent of its eyes and nose.
OUTLIERS, OUTLIER_TIMES = 2, 40.0
DEFAULT_SIZE = (1000, 1000)  # of the picture, where points are given in space alone, without a camera


@dataclass(frozen=True)
class Inputs:
    """Checked inputs. K (3, 3) and image_size of the first camera; K_source as in Humans."""

    seen: Observations
    K: np.ndarray
    K_source: str
    image_size: tuple[int, int]


def read_inputs(
    keypoints_2d: Any,
    K: Any,
    keypoints_3d: Any,
    confidence: Any,
    extrinsics: Any,
    *,
    names: tuple[str, ...],
    kept: np.ndarray,
    sigma: Any,
    sigma_3d: float | None,
    image_size: tuple[int, int] | None,
    height: Any = None,
    sequence: bool = False,
) -> Inputs:
    """names: of the points that are used; kept: their places among those given. See `fit` for the rest."""
    if keypoints_2d is None and keypoints_3d is None:
        raise ValueError("give keypoints_2d, keypoints_3d or both")
    cameras = read_extrinsics(extrinsics)
    xy, weight = _points(keypoints_2d, confidence, 2, len(cameras), kept, extrinsics is not None)
    alone = keypoints_2d is None
    xyz, weight_3d = _points(keypoints_3d, confidence if alone else None, 3, 1, kept, False)
    people = len(xyz) if alone else len(xy)
    if not alone and keypoints_3d is not None and len(xyz) != people:
        raise ValueError(f"keypoints_3d has {len(xyz)} people but keypoints_2d has {people}")
    views = 0 if alone else len(cameras)
    if alone:
        xy, weight = np.zeros((people, 0, len(kept), 2)), np.zeros((people, 0, len(kept)))
    if keypoints_3d is None:
        xyz, weight_3d = np.zeros((people, 1, len(kept), 3)), np.zeros((people, 1, len(kept)))
    _check_values(xy, weight, "keypoints_2d", names)
    _check_values(xyz, weight_3d, "keypoints_3d", names)
    _check_counts(weight, weight_3d, people, sequence)
    _check_places(xy, weight, xyz, weight_3d)
    if len(cameras) == 1:
        _check_in_front(xyz[:, 0], weight_3d[:, 0], names)
    K_V33, source, size = _intrinsics(K, views, image_size)
    face = Face(names)
    weight = face.faded(xy, _without_outliers(xy, weight))
    sigma_NVM = _spreads_of_points(sigma, face, xy, weight)
    world = [_relative(camera, cameras[0]) for camera in cameras[:views]]
    R = np.stack([c[:, :3] for c in world]) if views else np.zeros((0, 3, 3))
    t = np.stack([c[:, 3] for c in world]) if views else np.zeros((0, 3))
    seen = Observations(
        K_PV33=_rows(K_V33[:views], people),
        R_PV33=_rows(R, people),
        t_PV3=_rows(t, people),
        xy_PVM2=_doubles(np.where(weight[..., None] > 0, xy, 0)),
        weight_PVM=_doubles(weight),
        sigma_PVM=_doubles(sigma_NVM),
        xyz_PM3=_doubles(np.where(weight_3d[:, 0, :, None] > 0, xyz[:, 0], 0)),
        weight_PM=_doubles(weight_3d[:, 0]),
        sigma_PM=_doubles(face.spreads_in_space(sigma_3d, people)),
        height_P=_doubles(read_heights(height, people)),
    )
    return Inputs(seen, K_V33[0].astype(np.float32), source, size)


def _points(
    points: Any, confidence: Any, width: int, views: int, kept: np.ndarray, several: bool
) -> tuple[np.ndarray, np.ndarray]:
    """(N, V, M, width) points and (N, V, M) confidences, those of the points that are used."""
    name = f"keypoints_{width}d"
    if points is None:
        return np.zeros((0, views, len(kept), width)), np.zeros((0, views, len(kept)))
    per_view = list(points) if several else [points]
    if len(per_view) != views:
        raise ValueError(f"{name} must have one array a view: {views} extrinsics, {len(per_view)} views")
    arrays = [_numbers(array, name) for array in per_view]
    arrays = [array[None] if array.ndim == 2 else array for array in arrays]
    expected = f"(M, {width}) or (N, M, {width}), or with the confidence as one more column"
    for array in arrays:
        if array.ndim != 3 or array.shape[2] not in (width, width + 1):
            raise ValueError(f"{name} must be {expected}, got {array.shape}")
        if array.shape != arrays[0].shape:
            raise ValueError(
                f"{name} must hold the same people in every view, got {arrays[0].shape} and {array.shape}; "
                "give confidence 0 to who is not seen"
            )
    whole = np.stack(arrays, 1)
    if whole.shape[2] <= kept.max():
        raise ValueError(f"{name} has {whole.shape[2]} points, the keypoint set has {kept.max() + 1} or more")
    unknown = np.isnan(whole[..., :width]).any(-1)
    weights = whole[..., width] if whole.shape[3] > width else np.ones(whole.shape[:3])
    if confidence is not None:
        weights = _numbers(confidence, "confidence")
        if several:
            weights = weights[:, None] if weights.ndim == 2 else weights
            weights = np.moveaxis(weights, 0, 1) if weights.ndim == 3 else weights
        else:
            weights = weights[None] if weights.ndim == 1 else weights
            weights = weights[:, None]
        if weights.shape != whole.shape[:3]:
            shape = "views, people, points" if several else "people, points"
            wanted = np.moveaxis(whole[..., 0], 0, 1).shape if several else whole[:, 0, :, 0].shape
            raise ValueError(f"confidence must be {wanted} ({shape}), got {np.shape(confidence)}")
    weights = np.where(unknown, 0.0, weights)
    if not np.isfinite(weights).all() or (weights < 0).any():
        raise ValueError("confidences must be numbers from 0 to 1, got one that is negative or not finite")
    return whole[:, :, kept, :width], np.minimum(weights[:, :, kept], 1.0)


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        return np.asarray(
            values.detach().cpu().double() if isinstance(values, Tensor) else values, np.float64
        )
    except (TypeError, ValueError):
        hint = f"; give its {'xyz' if '3d' in name else 'xy'}" if isinstance(values, Keypoints) else ""
        raise ValueError(f"{name} must be an array of numbers with equally long rows{hint}") from None


def _check_values(points: np.ndarray, weight: np.ndarray, name: str, names: tuple[str, ...]) -> None:
    bad = (weight > 0) & ~np.isfinite(points).all(-1)
    if bad.any():
        person, view, point = np.argwhere(bad)[0]
        where = f" in view {view}" if points.shape[1] > 1 else ""
        raise ValueError(
            f"{name} has a number that is not finite at {names[point]!r} of person {person}{where}; "
            "give unknown points the confidence 0"
        )


def _check_places(xy: np.ndarray, weight: np.ndarray, xyz: np.ndarray, weight_3d: np.ndarray) -> None:
    """ValueError where a person's points have no extent, or one that no person has."""
    extent_3d = _extents(xyz, weight_3d).max(1, initial=0)
    for person in np.flatnonzero(extent_3d > LARGEST_PERSON):
        raise ValueError(
            f"keypoints_3d of person {person} lie {extent_3d[person]:.3g} m apart; points must be in metres"
        )
    extent = _extents(xy, weight).max(1, initial=0)
    for person in np.flatnonzero((extent == 0) & (extent_3d == 0) & (weight > 0).any((1, 2))):
        raise ValueError(f"all points of person {person} lie in one place; a fit needs points of a body")
    for person in np.flatnonzero((extent > 0) & (extent < SMALLEST_PERSON)):
        raise ValueError(
            f"keypoints_2d of person {person} lie {extent[person]:.2g} pixels apart; points must be in "
            "pixels, not in shares of the picture"
        )


def _check_in_front(xyz: np.ndarray, weight: np.ndarray, names: tuple[str, ...]) -> None:
    behind = (weight > 0) & ~(xyz[..., 2] > 0)
    if behind.any():
        person, point = np.argwhere(behind)[0]
        raise ValueError(
            f"keypoints_3d has {names[point]!r} of person {person} behind the camera, at z = "
            f"{xyz[person, point, 2]:.3g} m; points must be in the camera's frame: x right, y down, z forward"
        )


def _check_counts(weight: np.ndarray, weight_3d: np.ndarray, people: int, sequence: bool) -> None:
    known = (weight > 0).any(1).sum(1) if weight.shape[1] else np.zeros(people, int)
    known = np.maximum(known, (weight_3d[:, 0] > 0).sum(1))
    if sequence and (known >= FEWEST_POINTS).any():
        return  # frames may have none
    for person in np.flatnonzero(known < FEWEST_POINTS):
        raise ValueError(
            f"person {person} has {known[person]} points with a confidence above 0; a fit needs "
            f"{FEWEST_POINTS} or more"
        )


def _intrinsics(
    K: Any, views: int, image_size: tuple[int, int] | None
) -> tuple[np.ndarray, str, tuple[int, int]]:
    """(V, 3, 3), or (1, 3, 3) without views; where it is from; (height, width) of the first picture."""
    if K is None:
        if views:
            raise ValueError("K is missing: give the (3, 3) intrinsics in pixels that the points are in")
        assumed = image_size or DEFAULT_SIZE
        return default_intrinsics(*assumed).numpy()[None].astype(np.float64), "assumed", assumed
    array = _numbers(K, "K")
    array = np.repeat(array[None], max(views, 1), 0) if array.ndim == 2 else array
    if array.shape != (max(views, 1), 3, 3):
        raise ValueError(f"K must be (3, 3), or one a view ({max(views, 1)}, 3, 3), got {array.shape}")
    size: tuple[int, int] | None = image_size
    if size is None and np.isfinite(array[0]).all():  # the middle is where cameras look
        size = (max(round(2 * array[0, 1, 2]), 1), max(round(2 * array[0, 0, 2]), 1))
    for i, one in enumerate(array):
        height, width = (size or DEFAULT_SIZE) if i == 0 else (2 * one[1, 2], 2 * one[0, 2])
        check_intrinsics(one, height, width)
    return array, "given", (int((size or DEFAULT_SIZE)[0]), int((size or DEFAULT_SIZE)[1]))


def read_extrinsics(extrinsics: Any) -> list[np.ndarray]:
    """(3, 4) world to camera of each view; the identity for one view without."""
    if extrinsics is None:
        return [np.eye(3, 4)]
    cameras = []
    for i, camera in enumerate(extrinsics):
        array = _numbers(camera, "extrinsics")
        if array.shape not in ((3, 4), (4, 4)):
            raise ValueError(
                f"extrinsics must be (3, 4) or (4, 4) world-to-camera, got {array.shape} in view {i}"
            )
        R = array[:3, :3]
        if not np.isfinite(array).all() or np.abs(R @ R.T - np.eye(3)).max() > 1e-3 or np.linalg.det(R) < 0:
            raise ValueError(f"extrinsics of view {i} hold no rotation: its first three columns must be one")
        cameras.append(array[:3])
    if not cameras:
        raise ValueError("extrinsics must hold one matrix a view, got none")
    return cameras


def _relative(camera: np.ndarray, first: np.ndarray) -> np.ndarray:
    """(3, 4) from the first camera's frame to another's."""
    R = camera[:, :3] @ first[:, :3].T
    return np.concatenate([R, (camera[:, 3] - R @ first[:, 3])[:, None]], 1)


def _sigmas(sigma: Any, shape: tuple[int, ...]) -> np.ndarray:
    array = _numbers(sigma, "sigma")
    if not (np.isfinite(array).all() and (array > 0).all()):
        raise ValueError(f"sigma must be above 0, got {sigma}")
    try:
        return np.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"sigma must be one number or {shape}, got {array.shape}") from None


def read_heights(height: Any, people: int) -> np.ndarray:
    """(N,) known heights [m], NaN where unknown."""
    if height is None:
        return np.full(people, np.nan)
    array = _numbers(height, "height")
    if array.ndim > 1 or (array.ndim == 1 and len(array) != people):
        raise ValueError(f"height must be one number or one for each of {people} people, got {array.shape}")
    wrong = ~np.isnan(array) & ~((array >= SHORTEST) & (array <= TALLEST))
    if wrong.any():
        bad = float(np.atleast_1d(array)[np.atleast_1d(wrong)][0])
        raise ValueError(f"heights are in metres, from {SHORTEST} to {TALLEST}, got {bad:g}")
    return np.broadcast_to(array, people)


class Face:
    """How the 68 points of a face count among the M points of these names."""

    def __init__(self, names: Sequence[str]) -> None:
        self.is_face_M = np.isin(names, FACE_NAMES)
        self.times_M = np.where(np.isin(names, CONTOUR_NAMES), CONTOUR_TIMES, 1.0)

    def faded(self, xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(N, V, M) weights, those of faces of a few pixels less or 0: there they tell nothing but noise."""
        share = np.clip((self._extents(xy, weight) - FACE_FADE[0]) / (FACE_FADE[1] - FACE_FADE[0]), 0, 1)
        return np.where(self.is_face_M, weight * share[..., None], weight)

    def spreads(self, xy: np.ndarray, weight: np.ndarray, sigma_NV: np.ndarray) -> np.ndarray:
        """(N, V, M) standard deviations [pixels]: sigma_NV (N, V), and those of faces by their own extent."""
        own = np.maximum(FACE_SHARE * self._extents(xy, weight), FACE_LEAST)
        own = np.minimum(own, sigma_NV)[..., None] * self.times_M
        return np.where(self.is_face_M, own, sigma_NV[..., None])

    def spreads_in_space(self, sigma: Any, people: int) -> np.ndarray:
        """(N, M) standard deviations of points in space [m]."""
        return _sigmas(SIGMA_SPACE if sigma is None else sigma, (people,))[:, None] * self.times_M

    def _extents(self, xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
        """(N, V) longer sides of the boxes around the faces' points [pixels], 0 without."""
        return _extents(xy, np.where(self.is_face_M, weight, 0))


def _spreads_of_points(sigma: Any, face: Face, xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, V, M) standard deviations [pixels]: those given, (N, V), or by the extents of people and faces."""
    if sigma is None:
        return face.spreads(xy, weight, _spreads(xy, weight))
    return np.repeat(_sigmas(sigma, weight.shape[:2])[..., None], weight.shape[2], 2)


def _spreads(xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, V) standard deviations [pixels] that follow from how large people are in the picture."""
    return np.maximum(SIGMA_SHARE * _extents(xy, weight), SIGMA_LEAST)


def _without_outliers(xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, V, M) weights, 0 for the few points that lie farther from all others than any part of a body."""
    whole = _extents(xy, weight)
    if not (whole > 0).any():
        return weight
    known = np.where((weight > 0)[..., None], xy, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # who has no points in a view has no middle there
        distance = np.abs(known - np.nanmedian(known, 2, keepdims=True)).max(-1)
    farthest = np.argsort(np.where(weight > 0, distance, -1.0), 2)[..., -OUTLIERS:]
    others = weight.copy()
    for column in farthest.transpose(2, 0, 1)[::-1]:  # one by one, from the farthest on
        fewer = others.copy()
        np.put_along_axis(fewer, column[..., None], 0.0, 2)
        far = _extents(xy, others) > OUTLIER_TIMES * np.maximum(_extents(xy, fewer), 1.0)
        enough = (fewer > 0).sum(2) >= FEWEST_POINTS
        others = np.where((far & enough)[..., None], fewer, others)
    return others


def _extents(xy: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(N, V) longer sides of the boxes around the points [pixels]."""
    there = (weight > 0)[..., None]
    low = np.where(there, xy, np.inf).min(2, initial=np.inf)
    high = np.where(there, xy, -np.inf).max(2, initial=-np.inf)
    return np.where(low <= high, high - low, 0).max(-1, initial=0)


def _rows(array: np.ndarray, people: int) -> Tensor:
    return _doubles(array).expand(people, *array.shape)


def _doubles(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(array, np.float64))
