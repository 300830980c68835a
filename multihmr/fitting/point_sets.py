"""The points of a named set that a body can place: its own sets, joints, tips of fingers, the face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multihmr.bodies.anny import Anny
from multihmr.bodies.keypoint_sets import KEYPOINT_SETS, keypoint_names
from multihmr.bodies.topology import KeypointSet

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
_TIPS = tuple(f"{side}_{finger}4" for side in ("left", "right") for finger in FINGERS)

# The 68 points of 300W, of which those of the jaw's contour are less certain, see bodies/keypoint_sets.py.
FACE_NAMES = keypoint_names("coco133")[23:91]
CONTOUR_NAMES = FACE_NAMES[:17]


def find_points(
    body: Anny, keypoint_set: str, names: Sequence[str] | None = None
) -> tuple[KeypointSet, np.ndarray]:
    """The points of a set that the body can place, and their indices (M,) in the set.

    Args:
        body: whose vertices and joints they are made of.
        keypoint_set: one of `bodies.keypoint_sets.KEYPOINT_SETS`.
        names: instead of a set: names of points of any of the sets, or of joints of the body.

    Raises:
        ValueError: no such set; a name that no set has; or fewer than three points that the body can place.
    """
    if names is None and keypoint_set in body.topology.keypoint_sets:
        points = body.topology.keypoint_sets[keypoint_set]
        return points, np.arange(len(points.names))
    rows = _known_points(body)
    if names is None:
        wanted = list(keypoint_names(keypoint_set))
    else:
        wanted = list(names)
        everywhere = {name for known in KEYPOINT_SETS for name in keypoint_names(known)}
        unknown = [name for name in wanted if name not in everywhere | set(rows)]
        if unknown:
            raise ValueError(
                f"no point is called {unknown[0]!r}; names are those of the sets "
                f"{', '.join(KEYPOINT_SETS)} or of joints of the body {body.name!r}"
            )
    kept = [i for i, name in enumerate(wanted) if name in rows]
    if len(kept) < 3:
        raise ValueError(
            f"body {body.name!r} can place {len(kept)} of the {len(wanted)} points; a fit needs three or more"
        )
    return _joined_rows([wanted[i] for i in kept], rows), np.array(kept)


_Row = tuple[dict[int, float], dict[int, float]]  # vertices and joints with their weights


def _known_points(body: Anny) -> dict[str, _Row]:
    """Every named point that the body can place; the sets of COCO go first where a name has two meanings."""
    joints = {name: i for i, name in enumerate(body.topology.joint_names)}
    rows: dict[str, _Row] = {name: ({}, {i: 1.0}) for name, i in joints.items()}
    order = sorted(body.topology.keypoint_sets, key=lambda name: name.startswith("coco"))
    for name in order:
        points = body.topology.keypoint_sets[name]
        for i, point in enumerate(points.names):
            vertices = _weights(points.vertex_indices[i], points.vertex_weights[i])
            of_joints: dict[int, float] = {}
            if points.joint_indices is not None and points.joint_weights is not None:
                of_joints = _weights(points.joint_indices[i], points.joint_weights[i])
            rows[point] = (vertices, of_joints)
    # OpenPose's and SMPL-X's names of the tips.
    rows |= {name[:-1]: rows[name] for name in _TIPS if name in rows}
    return rows


def _weights(indices: np.ndarray, weights: np.ndarray) -> dict[int, float]:
    total: dict[int, float] = {}
    for index, weight in zip(indices.tolist(), weights.tolist(), strict=True):
        if weight:
            total[index] = total.get(index, 0.0) + weight
    return total


def _joined_rows(names: Sequence[str], rows: dict[str, _Row]) -> KeypointSet:
    tables: list[np.ndarray] = []
    for part in (0, 1):
        width = max(max(len(rows[name][part]) for name in names), 1)
        indices, weights = np.zeros((len(names), width), np.int64), np.zeros((len(names), width), np.float32)
        for i, name in enumerate(names):
            for k, (index, weight) in enumerate(rows[name][part].items()):
                indices[i, k], weights[i, k] = index, weight
        tables += [indices, weights]
    return KeypointSet(tuple(names), tables[0], tables[1], (), tables[2], tables[3])
