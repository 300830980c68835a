"""Corresponding points on the surfaces of two bodies, found from their meshes and the names of their joints.

No table of correspondences is shipped: those that exist are licensed with the bodies. Both bodies are brought
into one pose and shape, first by the joints that both have by name, then by closest points on
the surfaces, which are found anew as the bodies come nearer (iterative closest points, Besl and McKay 1992;
with normals as in Rusinkiewicz and Levoy 2001).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from multihmr.bodies.body_parts import BODY_JOINTS
from multihmr.bodies.topology import Topology
from multihmr.humans import vertex_normals

NORMAL_LENGTH = 0.06  # m that a turn of a normal by one radian counts in a distance
FARTHEST = 0.04  # m between surfaces in the same pose; what is farther apart has no counterpart
LEAST_COSINE = 0.6  # of the normals of corresponding points
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
LIMBS = ("torso", "head", "arm", "leg", "hand", "foot", *FINGERS)
# Which limbs may correspond where skinning weights draw the border elsewhere; each with itself, too.
NEIGHBOURS = {
    ("torso", "head"), ("torso", "arm"), ("torso", "leg"), ("arm", "hand"), ("leg", "foot"),
    *(("hand", finger) for finger in FINGERS),
}  # fmt: skip
_LIMB_OF = {
    "hip": "leg", "knee": "leg", "ankle": "foot", "foot": "foot",
    "shoulder": "arm", "elbow": "arm", "wrist": "hand", "head": "head",
}  # fmt: skip


@dataclass(frozen=True)
class SurfaceMatch:
    """C points that two bodies share: vertices of the one, points within triangles of the other.

    vertices  (C,) of the target body
    corners   (C, 3) vertices of the source body around each point
    weights   (C, 3) of the corners, adding up to 1
    offsets   (C, 3) from the source's point to the target's, of neutral average people, in the axes of the
              source's triangle [m]
    face      (C,) whether the point is on the head, where only changes from `offsets` tell of the expression
    distance  (C,) how far the two average surfaces are apart there [m]
    """

    vertices: np.ndarray
    corners: np.ndarray
    weights: np.ndarray
    offsets: np.ndarray
    face: np.ndarray
    distance: np.ndarray

    def points(self, vertices_PV3: Tensor) -> Tensor:
        """(P, C, 3) the points on source bodies with these vertices [m]."""
        weights = torch.from_numpy(self.weights).to(vertices_PV3)
        corners = vertices_PV3[:, torch.from_numpy(self.corners)]
        return (corners * weights[..., None]).sum(2)

    def neutral_points(self, vertices_PV3: Tensor) -> Tensor:
        """(P, C, 3) where the target's points would be if bodies differed as the average ones do."""
        frames = triangle_frames(vertices_PV3[:, torch.from_numpy(self.corners)])
        offsets = torch.from_numpy(self.offsets).to(vertices_PV3)
        return self.points(vertices_PV3) + (frames @ offsets[..., None])[..., 0]


def shared_joints(source: Topology, target: Topology) -> tuple[tuple[str, ...], list[int], list[int]]:
    """Names (those of SMPL-X) and indices in both bodies of the joints of their skeletons that both have."""
    ours, theirs = named_joints(source), named_joints(target)
    names = tuple(name for name in ours if name in theirs)
    return names, [ours[name] for name in names], [theirs[name] for name in names]


def named_joints(topology: Topology) -> dict[str, int]:
    """Names of SMPL-X -> indices of the joints that bodies share: 22 of the body, and fingers."""
    place = {name: i for i, name in enumerate(topology.joint_names)}
    found: dict[str, int] = {}
    for names in BODY_JOINTS.values():
        if set(names) <= set(place):
            found |= {word: place[name] for word, name in zip(BODY_JOINTS["smplx"], names, strict=True)}
    for side, letter in (("left", "L"), ("right", "R")):
        for number, finger in enumerate(FINGERS, 1):
            for k in (1, 2, 3):
                for name in (f"{side}_{finger}{k}", f"finger{number}-{k}.{letter}"):
                    if name in place:
                        found[f"{side}_{finger}{k}"] = place[name]
    return found


def limb_of_joints(topology: Topology) -> list[str]:
    """For each joint the limb that it moves, with its side: "left_arm", "torso", "right_thumb"."""
    shared = {index: name for name, index in named_joints(topology).items()}
    limbs: list[str] = []
    for joint, parent in enumerate(topology.parents):
        if joint in shared:
            side, _, part = shared[joint].rpartition("_")
            part = _LIMB_OF.get(part, part.rstrip("123"))
            side = f"{side}_" if part not in ("head", "torso") and part in LIMBS else ""
            limbs.append(f"{side}{part}" if part in LIMBS else "torso")
        else:
            limbs.append(limbs[parent] if parent >= 0 else "torso")
    return limbs


def limb_of_vertices(topology: Topology) -> np.ndarray:
    """(V,) the limb that moves each vertex most."""
    names = limb_of_joints(topology)
    kinds = sorted(set(names))
    place = np.array([kinds.index(name) for name in names])
    assert topology.skin_indices is not None
    assert topology.skin_weights is not None
    share = np.zeros((len(topology.skin_indices), len(kinds)))
    rows = np.arange(len(share))[:, None]
    np.add.at(share, (rows, place[topology.skin_indices]), topology.skin_weights)
    return np.array(kinds)[share.argmax(1)]


def closest_points(
    points: np.ndarray,
    normals: np.ndarray,
    limbs: np.ndarray,
    vertices: np.ndarray,
    vertex_limbs: np.ndarray,
    faces: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For points (M, 3) the nearest ones of a surface, by place, normal and limb.

    Returns:
        corners (M, 3) and weights (M, 3) of the points on the surface, and which are any good (M,): of the
        same or a neighbouring limb, nearer than FARTHEST, and facing the same way.
    """
    import trimesh

    surface_normals = vertex_normals(vertices[None].astype(np.float32), faces)[0]
    features = np.concatenate([vertices, NORMAL_LENGTH * surface_normals], 1).astype(np.float32)
    wanted = np.concatenate([points, NORMAL_LENGTH * normals], 1).astype(np.float32)
    used = np.zeros(len(vertices), bool)
    used[faces] = True  # Anny163 has vertices of clothes' helpers, which no face uses
    nearest = np.full(len(points), -1)
    for limb in np.unique(limbs):
        rows = np.flatnonzero(limbs == limb)
        there = np.flatnonzero(used & np.isin(vertex_limbs, list(_near(limb))))
        if len(there):
            table = torch.from_numpy(features[there])
            for part in np.array_split(rows, max(1, len(rows) // 1000)):
                distance = torch.cdist(torch.from_numpy(wanted[part]), table)
                nearest[part] = there[distance.argmin(1).numpy()]
    around = incident_faces(faces, len(vertices))[nearest]  # (M, k), -1 where there are fewer
    triangles = vertices[faces[around.clip(min=0)]]  # (M, k, 3, 3)
    count, most = around.shape
    flat = triangles.reshape(-1, 3, 3).astype(np.float64)
    on = trimesh.triangles.closest_point(flat, np.repeat(points, most, 0).astype(np.float64))
    far = np.linalg.norm(on.reshape(count, most, 3) - points[:, None], axis=-1)
    best = np.where(around >= 0, far, np.inf).argmin(1)
    chosen = np.arange(count) * most + best
    weights = trimesh.triangles.points_to_barycentric(flat[chosen], on[chosen])
    weights = np.nan_to_num(weights, nan=1 / 3).clip(0, 1)
    weights /= weights.sum(1, keepdims=True)
    corners = faces[around[np.arange(count), best].clip(min=0)]
    facing = (surface_normals[nearest] * normals).sum(1) > LEAST_COSINE
    good = (nearest >= 0) & facing & (far[np.arange(count), best] < FARTHEST)
    return corners, weights.astype(np.float32), good


def incident_faces(faces: np.ndarray, count: int) -> np.ndarray:
    """(V, k) the triangles around each of `count` vertices, -1 where there are fewer than k."""
    corners = faces.reshape(-1)
    order = np.argsort(corners, kind="stable")
    number = np.bincount(corners, minlength=count)
    first = np.cumsum(number) - number
    table = np.full((count, max(int(number.max(initial=0)), 1)), -1)
    within = np.arange(len(corners)) - first[corners[order]]
    table[corners[order], within] = order // 3
    return table


def triangle_frames(corners: Tensor) -> Tensor:
    """(..., 3, 3) axes of triangles with corners (..., 3, 3): along an edge, across it, outwards."""
    along = torch.nn.functional.normalize(corners[..., 1, :] - corners[..., 0, :], dim=-1)
    second = corners[..., 2, :] - corners[..., 0, :]
    out = torch.nn.functional.normalize(torch.linalg.cross(along, second), dim=-1)
    return torch.stack([along, torch.linalg.cross(out, along), out], -1)


def _near(limb: str) -> set[str]:
    """The limb and its neighbours, on the same side or in the middle."""
    side, _, part = limb.rpartition("_")
    found = {limb}
    for a, b in NEIGHBOURS:
        for this, other in ((a, b), (b, a)):
            if part == this:
                if other in ("torso", "head") or not side:
                    found |= {other, f"left_{other}", f"right_{other}"}
                else:
                    found.add(f"{side}_{other}")
    return found
