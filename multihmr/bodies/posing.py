"""Posing a body from stored parameters: numpy arrays in, vertices and joints in the camera frame out."""

from __future__ import annotations

import numpy as np
import torch

from .base import Body


def posed(
    body: Body, pose: np.ndarray, shape: np.ndarray, expression: np.ndarray, translation: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Meshes and joints of people whose parameters are known, as `Humans` stores them.

    Args:
        body: the body model of the parameters, on any device.
        pose: (N, R, 3, 3) rotation matrices.
        shape: (N, S) shape coefficients.
        expression: (N, E) expression coefficients.
        translation: (N, 3) position of the body's center joint, the head, in the camera frame [m].

    Returns:
        vertices (N, V, 3) and joints (N, J, 3) float32 in the camera frame [m].

    Raises:
        ValueError: an array does not have the shape that the body takes.
    """
    device = next((tensor.device for tensor in body.buffers()), torch.device("cpu"))
    with torch.inference_mode():
        given = (
            torch.tensor(array, dtype=torch.float32, device=device) for array in (pose, shape, expression)
        )
        vertices, joints = (points.float().cpu().numpy() for points in body(*given))
    shift = (translation - joints[:, body.center_joint])[:, None]
    return vertices + shift, joints + shift
