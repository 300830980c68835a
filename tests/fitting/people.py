"""People in known poses before known cameras, for the tests of fitting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.body_parts import body_joints
from multihmr.evaluation.metrics import pa_mpjpe
from multihmr.fitting.prior import load_prior
from multihmr.fitting.skeleton import rotation_matrix
from multihmr.humans import project

SIZE = (720, 1280)
K = np.array([[1100.0, 0, 640], [0, 1100, 360], [0, 0, 1]])


@dataclass(frozen=True)
class Truth:
    """N people in the frame of the first camera."""

    points: np.ndarray  # (N, M, 3) [m]
    joints: np.ndarray  # (N, 22, 3) [m]
    extrinsics: list[np.ndarray]

    def pixels(self, view: int = 0) -> np.ndarray:
        camera = self.extrinsics[view]
        return project(self.points @ camera[:, :3].T + camera[:, 3], K)


@torch.no_grad()
def people(body: Anny, count: int, seed: int, keypoint_set: str = "coco17") -> Truth:
    """Poses around those of the prior, facing the first of three cameras that stand 60 degrees apart."""
    rng = np.random.default_rng(seed)
    prior, names = load_prior(), list(body.topology.pose_names)
    rows = rng.choice(len(prior.exemplars), count, replace=False)
    z = prior.exemplars[rows] + rng.normal(0, 0.05, (count, prior.exemplars.shape[1]))
    pose = body.mean_pose_R33.repeat(count, 1, 1, 1)
    vectors = torch.from_numpy(prior.rotation_vectors(z))
    pose[:, [names.index(bone) for bone in prior.bones]] = rotation_matrix(vectors).float()
    shape = torch.from_numpy(rng.uniform(0.3, 0.7, (count, body.shape_count)).astype(np.float32))
    shape[:, 1] = 0.7
    output = body(pose, shape, torch.zeros(count, body.expression_count))
    place = np.array([0.1, 0.1, 4.0])
    joints = output.joints_PJ3.numpy()
    points = body.topology.keypoint_sets[keypoint_set].points(output.vertices_PV3.numpy(), joints)
    own = [names.index(name) for name in body_joints(body.topology)]
    cameras = []
    for angle in np.radians([0, 60, 120]):
        R = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
        cameras.append(np.concatenate([R, (place - R @ place)[:, None]], 1))
    return Truth(points + place, joints[:, own] + place, cameras)


def mean_pa_mpjpe(humans: object, truth: Truth) -> float:
    topology = humans.topology  # type: ignore[attr-defined]
    own = [topology.joint_names.index(name) for name in body_joints(topology)]
    fitted = torch.from_numpy(humans.joints[:, own].astype(np.float64))  # type: ignore[attr-defined]
    return float(pa_mpjpe(fitted, torch.from_numpy(truth.joints.astype(np.float64))).mean())
