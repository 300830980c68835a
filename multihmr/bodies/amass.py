"""Body parameters by the names of AMASS and the smplx package: poses, trans, betas."""

from __future__ import annotations

from typing import Any

import numpy as np

from .topology import Topology

SMPLX_JOINTS = 55  # of the smplx package: root, body, jaw, eyes, hands


def amass_arrays(
    topology: Topology,
    *,
    body: str,
    rotvec: np.ndarray,
    shape: np.ndarray,
    expression: np.ndarray,
    pelvis: np.ndarray,
) -> dict[str, Any]:
    """Rows of poses and trans as AMASS's tools read them; camera frame, radians and metres.

    Args:
        topology: of the body.
        body: its name. Of "smplx", poses are the 165 numbers of its package, in its order, relative to the
            flat hand, and trans is what the package adds to its vertices, which it turns about the pelvis of
            the rest pose. Of other bodies, poses are in the order of `topology.pose_names`, and trans is
            the pelvis.
        rotvec: (T, R, 3) axis-angle.
        shape: (T, S). expression: (T, E). pelvis: (T, 3).
    """
    poses, trans = rotvec, pelvis
    if topology.rest_pelvis is not None and body == "smplx":
        poses = np.zeros((len(rotvec), SMPLX_JOINTS, 3), np.float32)
        poses[:, topology.pose_joints] = rotvec
        numbers = np.concatenate([np.ones((len(rotvec), 1)), shape, expression], axis=1)
        trans = (pelvis - numbers @ topology.rest_pelvis).astype(np.float32)
    width = int(np.prod(poses.shape[1:]))
    return {
        "poses": poses.reshape(-1, width),
        "trans": trans,
        "gender": "neutral",
        "surface_model_type": body,
    }
