"""People seen by several calibrated cameras: who is who across the views, and one body for each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from multihmr.fitting.fitter import fit
from multihmr.fitting.inputs import read_extrinsics
from multihmr.fitting.results import FittedHumans, moved
from multihmr.humans import Humans, nearest_first
from multihmr.postprocessing.to_humans import to_distorted_image
from multihmr.preprocessing.distortion import DistortionLike

# Points that tell people apart and are fitted: every network gives all of them, whether hidden or not.
POINTS = "coco17"
NEAREST = 0.1  # people are farther from a camera than this [m]
LEAST_WEIGHT = 0.05  # of a person in a view, whatever the score
# How much two predictions of one person differ, one standard deviation each: the angle at which rays to the
# same points pass each other [rad], the ratio of predicted and triangulated distances (log), points about
# their middle [m].
ANGLE_SIGMA, DISTANCE_SIGMA, POSE_SIGMA = 0.02, 0.2, 0.12
# Cameras nearer to each other than this share of a person's distance see nearly parallel rays, which tell no
# distance: it is the predicted one then.
NARROW = 3 * ANGLE_SIGMA
SAME_PERSON = 12.0  # sum of the three squares up to which two predictions may be of one person
NETWORK_SIGMA = 0.02  # of a person's extent: how far off the points are that networks see
SPACE_SIGMA = 0.08  # how far off their points in space are, relative to the pelvis [m]


@dataclass(frozen=True)
class ViewsResult:
    """N people seen by V cameras.

    views    V FittedHumans, one a camera, in its frame: the same N people in the same order, nearest to the
             first camera first
    sources  (V, N) which person of `predictions` each is in each view; -1 where that view does not see them
    predictions  what was predicted in each view alone
    """

    views: tuple[FittedHumans, ...]
    sources: np.ndarray
    predictions: tuple[Humans, ...]


def predict_views(
    model: Any,
    images: Sequence[Any],
    Ks: Sequence[Any],
    extrinsics: Sequence[Any],
    *,
    distortions: Sequence[DistortionLike | None] | None = None,
    threshold: float | None = None,
    least_views: int = 1,
) -> ViewsResult:
    """The people in pictures of one moment from several calibrated cameras.

    Args:
        model: a `Model` whose body is "anny".
        images: one per camera, as `model.predict` takes them.
        Ks: (3, 3) intrinsics of each, in pixels of its image.
        extrinsics: one (3, 4) or (4, 4) a camera, from the world into the camera [m].
        distortions: one or None a camera, of the lens, as `predict` takes it.
        threshold: least score of a person, as in `predict`.
        least_views: leave out who is seen by fewer cameras; 2 removes most false people.

    Raises:
        ValueError: there are not as many Ks and extrinsics as images, or one of them cannot be a camera.
    """
    lenses = [None] * len(images) if distortions is None else list(distortions)
    if not len(images) == len(Ks) == len(extrinsics) == len(lenses):
        raise ValueError(
            f"give one K and one extrinsics a picture: got {len(images)} pictures, {len(Ks)} Ks and "
            f"{len(extrinsics)} extrinsics" + (f", {len(lenses)} distortions" if distortions else "")
        )
    if any(lens is not None for lens in lenses):
        views = zip(images, Ks, lenses, strict=True)
        predictions = [model.predict(i, K, distortion=d, threshold=threshold) for i, K, d in views]
    else:
        predictions = model.predict_batch(list(images), list(Ks), threshold=threshold)
    return fuse_views(predictions, extrinsics, body=model.body, least_views=least_views)


def fuse_views(
    predictions: Sequence[Humans], extrinsics: Sequence[Any], *, body: Any = None, least_views: int = 1
) -> ViewsResult:
    """People that were predicted in each view alone, matched across the views and fitted to all of them.

    The arguments are those of `predict_views`; predictions come from any network with the body "anny".
    """
    seen, cameras = predictions, read_extrinsics(extrinsics)
    predictions = [dataclasses.replace(humans, distortion=None) for humans in seen]  # rays are straight
    if len(cameras) != len(predictions):
        raise ValueError(f"give one extrinsics a view: got {len(cameras)} for {len(predictions)} views")
    groups = match_views(predictions, cameras)
    groups = [group for group in groups if (group >= 0).sum() >= least_views]
    sources = np.array(groups, int).reshape(len(groups), len(predictions))
    first = _fit_groups(predictions, cameras, sources, body)
    order = nearest_first(first.translation)
    first, sources = first[order], sources[order]
    views = []
    for view, (camera, humans) in enumerate(zip(cameras, predictions, strict=True)):
        R = camera[:, :3] @ cameras[0][:, :3].T
        t = camera[:, 3] - R @ cameras[0][:, 3]
        scores = [humans.scores[s] if s >= 0 else 0.0 for s in sources[:, view]]
        mine = moved(first, R, t, K=humans.K, K_source=humans.K_source, image_size=humans.image_size)
        lens = seen[view].distortion
        mine = mine if lens is None else to_distorted_image(mine, humans.K, lens)
        ids = np.arange(1, len(first) + 1)
        views.append(dataclasses.replace(mine, scores=np.array(scores, np.float32), track_ids=ids))
    return ViewsResult(tuple(views), sources.T.copy(), tuple(seen))


def match_views(predictions: Sequence[Humans], cameras: Sequence[np.ndarray]) -> list[np.ndarray]:
    """(V,) indices of one person in each view, -1 where they are not seen; every prediction is in one group.

    Two predictions are of one person if the rays to their points meet, at the distances that were predicted,
    and their poses are alike: between cameras of one height the rays to any two standing people nearly meet.
    Pairs are joined from the most alike on, while no view is in a group twice and all pairs of the joined
    groups agree in the mean.
    """
    people = [
        (v, i, _sight(humans, i, cameras[v]))
        for v, humans in enumerate(predictions)
        for i in range(len(humans))
    ]
    costs = np.full((len(people), len(people)), np.inf)
    for a, (v, _, one) in enumerate(people):
        for b, (w, _, other) in enumerate(people[:a]):
            if v != w:
                costs[a, b] = costs[b, a] = difference(one, other)
    group = list(range(len(people)))
    members = {a: [a] for a in group}
    order = np.dstack(np.unravel_index(np.argsort(costs, axis=None, kind="stable"), costs.shape))[0]
    for a, b in order:
        if costs[a, b] > SAME_PERSON:
            break
        one, other = group[a], group[b]
        if one == other:
            continue
        pairs = costs[np.ix_(members[one], members[other])]
        if np.isfinite(pairs).all() and pairs.mean() <= SAME_PERSON:
            members[one] += members.pop(other)
            for member in members[one]:
                group[member] = one
    found = []
    for mine in members.values():
        row = np.full(len(predictions), -1)
        for member in mine:
            view, index, _ = people[member]
            row[view] = index
        found.append(row)
    return found


@dataclass(frozen=True)
class _Sight:
    """One prediction in the world: camera center (3,), unit rays to points (M, 3), points (M, 3) [m]."""

    center: np.ndarray
    rays: np.ndarray
    points: np.ndarray

    @property
    def distance(self) -> float:
        """Predicted distance from the camera [m]."""
        return float(np.median(np.linalg.norm(self.points - self.center, axis=1)))


def _sight(humans: Humans, i: int, camera: np.ndarray) -> _Sight:
    keypoints = humans[i].keypoints(POINTS)
    R, t = camera[:, :3], camera[:, 3]
    flat = np.concatenate([keypoints.xy[0], np.ones((len(keypoints.names), 1))], 1)
    rays = np.linalg.solve(humans.K.astype(np.float64), flat.T).T @ R
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    return _Sight(-R.T @ t, rays, (keypoints.xyz[0] - t) @ R)


def difference(one: _Sight, other: _Sight) -> float:
    """How unlike two predictions are: three squares, about 3 for one person; inf if rays meet behind."""
    base = other.center - one.center
    cos = (one.rays * other.rays).sum(1)
    sine2 = np.maximum(1 - cos**2, 1e-6)
    along_one = (one.rays @ base - cos * (other.rays @ base)) / sine2
    along_other = (cos * (one.rays @ base) - other.rays @ base) / sine2
    predicted = math.sqrt(one.distance * other.distance)
    if np.linalg.norm(base) < NARROW * predicted:
        along_one = along_other = np.full(len(cos), predicted)
    middle_one, middle_other = np.median(along_one), np.median(along_other)
    if min(middle_one, middle_other) < NEAREST:
        return float("inf")
    gap = one.center + along_one[:, None] * one.rays - other.center - along_other[:, None] * other.rays
    angle = np.median(np.linalg.norm(gap, axis=1)) / min(middle_one, middle_other)
    ratios = [np.log(middle / sight.distance) for middle, sight in ((middle_one, one), (middle_other, other))]
    about = [sight.points - sight.points.mean(0) for sight in (one, other)]
    pose = np.linalg.norm(about[0] - about[1], axis=1).mean()
    distance = np.mean(np.square(ratios)) / DISTANCE_SIGMA**2
    return float((angle / ANGLE_SIGMA) ** 2 + distance + (pose / POSE_SIGMA) ** 2)


def _fit_groups(
    predictions: Sequence[Humans], cameras: Sequence[np.ndarray], sources: np.ndarray, body: Any
) -> FittedHumans:
    """One body for each group, in the frame of the first camera.

    It is fitted to the points of all views and to the networks' 3D points about the pelvis.
    """
    people, views = sources.shape
    xy, confidence = np.zeros((views, people, 17, 2)), np.zeros((views, people, 17))
    space = np.full((views, people, 17, 3), np.nan)  # in the frame of the first camera
    for v, humans in enumerate(predictions):
        points = humans.keypoints(POINTS)
        R = cameras[0][:, :3] @ cameras[v][:, :3].T
        t = cameras[0][:, 3] - R @ cameras[v][:, 3]
        for n in np.flatnonzero(sources[:, v] >= 0):
            source = sources[n, v]
            xy[v, n], space[v, n] = points.xy[source], points.xyz[source] @ R.T + t
            confidence[v, n] = max(float(humans.scores[source]), LEAST_WEIGHT)
    first = predictions[0]
    return fit(
        list(xy),
        np.stack([humans.K for humans in predictions]),
        _mean_in_space(space, xy, predictions, cameras),
        confidence=confidence,
        extrinsics=cameras,
        body=body,
        image_size=first.image_size,
        sigma=_extents(xy).T * NETWORK_SIGMA,
        sigma_3d=SPACE_SIGMA,
    )


def _mean_in_space(
    space: np.ndarray, xy: np.ndarray, predictions: Sequence[Humans], cameras: Sequence[np.ndarray]
) -> np.ndarray:
    """(N, M, 3) mean of the views' points (V, N, M, 3) [m], put where the rays of all views meet.

    A single view knows its people's places only as far as it knows how large they are.
    """
    seen_V = ~np.isnan(space[..., 0, 0])
    mean = np.zeros(space.shape[1:])
    for n in range(space.shape[1]):
        mine = np.flatnonzero(seen_V[:, n]).tolist()
        about = space[mine, n] - space[mine, n].mean(1, keepdims=True)
        middle = space[mine, n].mean(1).mean(0)
        if len(mine) > 1:
            at = (middle - cameras[0][:, 3]) @ cameras[0][:, :3]
            middle = _meeting_point(
                [xy[v, n] for v in mine], [predictions[v].K for v in mine], [cameras[v] for v in mine], at
            )
            middle = cameras[0][:, :3] @ middle + cameras[0][:, 3]
        mean[n] = about.mean(0) + middle
    return mean


def _meeting_point(
    xy: Sequence[np.ndarray], Ks: Sequence[np.ndarray], cameras: Sequence[np.ndarray], predicted: np.ndarray
) -> np.ndarray:
    """(3,) the point of the world nearest to the rays to the middles of the points in all views [m].

    Where rays are nearly parallel, as of one camera given twice, its distance is that of `predicted` (3,).
    """
    A, b = np.zeros((3, 3)), np.zeros(3)
    for points, K, camera in zip(xy, Ks, cameras, strict=True):
        ray = np.linalg.solve(K.astype(np.float64), np.append(points.mean(0), 1.0)) @ camera[:, :3]
        ray = ray / np.linalg.norm(ray)
        across = np.eye(3) - np.outer(ray, ray)
        A += across
        b += across @ (-camera[:, :3].T @ camera[:, 3])
    if np.linalg.eigvalsh(A)[0] < 0.5 * NARROW**2:
        weight = (ANGLE_SIGMA / DISTANCE_SIGMA) ** 2
        A, b = A + weight * np.eye(3), b + weight * predicted
    return np.linalg.solve(A, b)


def _extents(xy: np.ndarray) -> np.ndarray:
    """(V, N) longer sides of the boxes around points (V, N, M, 2), at least one pixel."""
    return np.maximum((xy.max(2) - xy.min(2)).max(-1, initial=0), 1.0)
