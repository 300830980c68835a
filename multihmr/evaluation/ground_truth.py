"""Pose the true people of a sample in the camera frame, from the parameters of the data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import Body, place
from ..bodies.topology import Topology
from ..data.sample import PEOPLE, Sample
from ..data.transforms import on_pelvis


class Posed(NamedTuple):
    """True people in the camera frame [m].

    vertices (N, V, 3) and joints (N, J, 3): NaN where unknown. outline (N, J, 3): the joints, with unknown
    parameters replaced by the mean. placed (N,) bool: whether the translation is known, else the pelvis is in
    the origin.
    """

    vertices: Tensor
    joints: Tensor
    outline: Tensor
    placed: Tensor


@torch.no_grad()
def true_people(body: Body, sample: Sample) -> Posed:
    """Pose the people of a sample in the camera frame.

    Args:
        body: of the sample's parameters.
        sample: an expression that is not known is neutral; what follows from other NaN is NaN.

    Raises:
        ValueError: the parameters are not those of the body.
    """
    if not len(sample.translation):  # images without people may lack the body's trailing shapes
        return Posed(*(points[:0] for points in mean_person(body)))
    if sample.anchor == "transl":
        sample = on_pelvis(sample, body.topology)
    if sample.anchor == "transl":
        raise ValueError(
            f"sample '{sample.name}' places people by SMPL's transl, which body '{body.name}' does not have"
        )
    pose, shape, expression, translation = (
        torch.tensor(np.asarray(x), dtype=torch.float32, device=body.mean_shape_S.device)
        for x in (sample.pose, sample.shape, sample.expression, sample.translation)
    )
    if not expression.shape[1]:
        expression = expression.new_zeros(len(expression), body.expression_count)
    unknown, shapeless = pose.isnan().any(dim=-1).any(dim=-1), shape.isnan().any(dim=-1)
    pose = torch.where(unknown[..., None, None], body.mean_pose_R33, pose)
    shape = torch.where(shapeless[:, None], body.mean_shape_S, shape)
    placed = translation.isfinite().all(dim=-1)
    joint = body.center_joint if sample.anchor == "center" else body.pelvis_joint
    output = body(pose, shape, expression.nan_to_num())
    vertices, joints = place(output, torch.where(placed[:, None], translation, 0), joint)
    outline = joints.clone()
    if unknown.any() or shapeless.any():
        lost = (
            torch.from_numpy(x).to(joints.device)
            for x in _unknown_points(body.topology, unknown.cpu().numpy())
        )
        for points, gone in zip((vertices, joints), lost, strict=True):
            points[gone | shapeless[:, None]] = torch.nan
    return Posed(vertices, joints, outline, placed)


@torch.no_grad()
def mean_person(body: Body) -> Posed:
    """One person of the body's mean pose and shape with a neutral face, in the body's own frame."""
    shape = body.mean_shape_S[None]
    mean = body(body.mean_pose_R33[None], shape, shape.new_zeros(1, body.expression_count))
    placed = torch.zeros(1, dtype=torch.bool, device=shape.device)
    return Posed(mean.vertices_PV3, mean.joints_PJ3, mean.joints_PJ3, placed)


def by_gender(bodies: Callable[[str], Body], sample: Sample) -> Posed:
    """`true_people`, each with the body of their gender ("neutral" where the sample has none)."""
    genders = np.full(len(sample), "neutral") if sample.gender is None else np.asarray(sample.gender)
    if len(np.unique(genders)) < 2:
        return true_people(
            bodies(str(genders[0]) if len(genders) else "neutral"), replace(sample, gender=None)
        )
    arrays = {name: getattr(sample, name) for name in PEOPLE if name != "gender"}
    order: list[int] = []
    parts = []
    for gender in np.unique(genders):
        rows = np.flatnonzero(genders == gender)
        people: dict[str, Any] = {name: None if x is None else x[rows] for name, x in arrays.items()}
        parts.append(true_people(bodies(str(gender)), replace(sample, gender=None, **people)))
        order += rows.tolist()
    back = torch.as_tensor(np.argsort(order))
    return Posed(*(torch.cat(points)[back.to(points[0].device)] for points in zip(*parts, strict=True)))


def _unknown_points(topology: Topology, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, V), (N, J) bool: vertices and joints moved by an unknown rotation (N, R) or an unknown ancestor."""
    turned = np.zeros((len(unknown), len(topology.joint_names)), bool)
    turned[:, list(topology.pose_joints)] = unknown
    moved = np.zeros_like(turned)
    for joint, parent in enumerate(topology.parents):  # parents come before their children
        if parent >= 0:
            moved[:, joint] = turned[:, parent] | moved[:, parent]
    if topology.skin_indices is None or topology.skin_weights is None:
        raise ValueError(
            f"topology {topology.name!r} has no skinning weights, so what NaN joints move is unknown"
        )
    follows = (turned | moved)[:, topology.skin_indices] * topology.skin_weights
    return follows.sum(axis=-1) > 1e-3, moved
