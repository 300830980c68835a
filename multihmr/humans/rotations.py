"""Rotation matrices in numpy: from and to axis-angle vectors, to quaternions."""

from __future__ import annotations

import numpy as np


def rotvec_to_rotmat(rotvec: np.ndarray) -> np.ndarray:
    """(..., 3) axis times angle [rad] -> (..., 3, 3) float64, by Rodrigues' formula; NaN stays NaN."""
    v = np.asarray(rotvec, np.float64)
    angle = np.linalg.norm(v, axis=-1)[..., None, None]
    K = cross_matrices(v)
    half = np.sinc(angle / (2 * np.pi)) ** 2 / 2  # (1 - cos) / angle^2, exact at 0
    return np.eye(3) + np.sinc(angle / np.pi) * K + half * (K @ K)


def cross_matrices(v: np.ndarray) -> np.ndarray:
    """(..., 3) -> (..., 3, 3) matrices whose products with a vector are the cross products with it."""
    x, y, z = np.moveaxis(v, -1, 0)
    zero = np.zeros_like(x)
    return np.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*v.shape, 3)


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
