"""Points and surfaces in numpy: projection into pixels, order by distance, vertex normals."""

from __future__ import annotations

import numpy as np


def nearest_first(translation: np.ndarray) -> np.ndarray:
    """(N,) order of heads at (N, 3) [m] by their distance from the camera; equal ones keep their order."""
    return np.argsort(np.linalg.norm(translation, axis=-1), kind="stable")


def project(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(..., 3) points in the camera frame [m] -> (..., 2) pixels, by K (3, 3). Depths are at least 1 mm."""
    rays = points[..., :2] / np.maximum(points[..., 2:], 1e-3)
    return rays @ K[:2, :2].T + K[:2, 2]


def vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """(N, V, 3) vertices and (F, 3) triangles -> (N, V, 3) unit normals; 0 where there is no triangle."""
    corners = faces.reshape(-1).astype(np.min_scalar_type(vertices.shape[1]))  # 16 bits are sorted at once
    order = np.argsort(corners, kind="stable")
    corners = corners[order]
    first = np.flatnonzero(np.concatenate([corners[:1] == corners[:1], corners[1:] != corners[:-1]]))
    points = corners[first]
    around = order // 3  # the triangles of the first vertex, then of the next
    a, b, c = np.ascontiguousarray(faces.T, np.intp)
    normals = np.zeros((len(vertices), 3, vertices.shape[1]), np.float32)
    for normal, values in zip(normals, vertices, strict=True):  # one by one: what fits into a cache
        start = np.ascontiguousarray(values.T)
        (ux, uy, uz), (vx, vy, vz) = (start.take(end, 1) - start.take(a, 1) for end in (b, c))
        for axis, turn in enumerate((uy * vz - uz * vy, uz * vx - ux * vz, ux * vy - uy * vx)):
            normal[axis, points] = np.add.reduceat(turn.take(around), first)
    normals /= np.maximum(np.sqrt((normals**2).sum(1, keepdims=True)), 1e-20)
    return np.ascontiguousarray(normals.transpose(0, 2, 1))
