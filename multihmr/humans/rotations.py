"""Rotation matrices in numpy: to axis-angle vectors and quaternions."""

from __future__ import annotations

import numpy as np


def rotmat_to_rotvec(rotmat: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices -> (..., 3) axis times angle [rad, 0 to pi], exact at 0 and at pi."""
    q = rotmat_to_quaternion(rotmat)
    sine = np.linalg.norm(q[..., 1:], axis=-1, keepdims=True)
    angle = 2 * np.arctan2(sine, q[..., :1])
    scale = np.where(sine < 1e-12, 2.0, angle / np.maximum(sine, 1e-12))
    return (q[..., 1:] * scale).astype(np.float32)


def rotmat_to_quaternion(rotmat: np.ndarray) -> np.ndarray:
    """(..., 3, 3) rotation matrices -> (..., 4) unit quaternions (w, x, y, z), w >= 0, float64.

    The largest component is computed first, so that nothing small is divided by (Shepperd, "Quaternion from
    rotation matrix", 1978).
    """
    R = np.asarray(rotmat, dtype=np.float64)
    xx, yy, zz = R[..., 0, 0], R[..., 1, 1], R[..., 2, 2]
    wx, wy, wz = R[..., 2, 1] - R[..., 1, 2], R[..., 0, 2] - R[..., 2, 0], R[..., 1, 0] - R[..., 0, 1]
    xy, xz, yz = R[..., 0, 1] + R[..., 1, 0], R[..., 0, 2] + R[..., 2, 0], R[..., 1, 2] + R[..., 2, 1]
    rows = [  # row i is the quaternion (w, x, y, z) times 4 of its own component i
        np.stack([1 + xx + yy + zz, wx, wy, wz], -1),
        np.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
        np.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
        np.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
    ]
    candidates = np.stack(rows, -2)
    largest = np.argmax(np.diagonal(candidates, axis1=-2, axis2=-1), -1)
    q = np.take_along_axis(candidates, largest[..., None, None], -2)[..., 0, :]
    return q * np.where(q[..., :1] < 0, -1, 1) / np.linalg.norm(q, axis=-1, keepdims=True)
