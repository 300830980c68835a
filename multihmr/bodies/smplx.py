"""SMPL-X (Pavlakos et al. 2019) from the user's own SMPLX_NEUTRAL.npz, through the `smplx` package.

Both are under non-commercial licences of their authors, so neither comes with this package. Frame: y up, the
person faces z, the left hand is at +x, the pelvis in the origin, metres.

The package gives the rigid chain of the joints and the order of the 127 joints; its model class is not used,
because it unpickles whatever the file holds. The numbers are those of its forward pass with
`use_pca=False, flat_hand_mean=True` and no face contour, turned about the pelvis: R(V - J0).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .base import Body, BodyOutput, part_of_topology
from .keypoint_sets import keypoint_sets
from .rig import Rig
from .smplx_reader import EXPRESSIONS, JOINTS, SMPLXFile, read_smplx
from .topology import Topology

try:
    from smplx.joint_names import JOINT_NAMES
    from smplx.lbs import batch_rigid_transform
    from smplx.vertex_ids import vertex_ids
    from smplx.vertex_joint_selector import VertexJointSelector
except ImportError as error:
    raise ImportError(
        "the SMPL-X body needs the package smplx, whose licence is non-commercial: "
        "pip install 'multihmr[smplx]'"
    ) from error

LANDMARKS = 51
BODY_ROTATIONS = 22  # the root and 21 joints of the body

# The 53 rotations are those of a Multi-HMR checkpoint: body, left hand, right hand, jaw. Eyes point ahead.
POSE_JOINTS = (*range(BODY_ROTATIONS), *range(25, JOINTS), 22)
EYES = (23, 24)

_LOWER_LIP = {
    *("left_mouth_4", "left_mouth_5", "mouth_bottom", "right_mouth_4", "right_mouth_5"),
    *("left_lip_3", "lip_bottom", "right_lip_3"),
}


class SMPLX(Body):
    """53 posed joints, betas as shape, 10 expression components; 10475 vertices, 127 joints.

    pose        (P, 53, 3, 3) rotations: 0 the root, 1-21 body, 22-36 left hand, 37-51 right hand, 52 jaw;
                hands without PCA, relative to the flat hand; `topology.pose_names` names them
    shape       (P, shape_count) betas, each about -3 to 3, 0 is the mean
    expression  (P, 10), 0 is neutral
    joints      55 of the skeleton, 21 vertices (nose, eyes, ears, feet, finger tips), 51 facial landmarks

    No buffer is part of a checkpoint. Arithmetic is float32, also under autocast. On a GPU leave
    `torch.set_float32_matmul_precision` at "highest": TF32 keeps three digits, which costs millimetres.
    """

    _rest_joints_J3: Tensor
    _joint_directions_KJ3: Tensor
    _point_weights_M3: Tensor
    _identity: Tensor
    _surface: _Points
    _corners: _Points

    name = "smplx"
    bounded = False
    center_joint = 15
    pelvis_joint = 0

    def __init__(self, path: Path | str, *, shape_count: int = 10, gendered: bool = False) -> None:
        """path: SMPLX_NEUTRAL.npz (or .pkl) of version 1.1; shape_count: 10 or 11, as the network has it.
        gendered: also accept the female or male file, for ground truth; networks predict the neutral body.

        FileNotFoundError if there is no such file, ValueError in one sentence if it is another body or
        damaged; no code in it is executed.
        """
        super().__init__()
        file = read_smplx(Path(path), shape_count, gendered=gendered)
        self._parents = file.parents  # numpy: reading a tensor on a GPU synchronises for each joint
        regress = file.regressor.astype(np.float64)
        rest_joints = regress @ file.template
        joint_directions = np.einsum("jv,vck->kjc", regress, file.directions, optimize=True)
        corners, point_weights = _points_beyond_the_skeleton(file)
        self.topology = _topology(file, np.concatenate([rest_joints[None, 0], joint_directions[:, 0]]))
        buffers = {
            "mean_shape_S": torch.zeros(shape_count),
            "mean_pose_R33": torch.eye(3).repeat(len(POSE_JOINTS), 1, 1),
            "_rest_joints_J3": torch.from_numpy(rest_joints.astype(np.float32)),
            "_joint_directions_KJ3": torch.from_numpy(joint_directions.astype(np.float32)),
            "_point_weights_M3": torch.from_numpy(point_weights),
            "_identity": torch.eye(3),
        }
        buffers["mean_pose_R33"][0] = torch.diag(torch.tensor([1.0, -1.0, -1.0]))  # y down, facing -z
        for name, tensor in buffers.items():
            self.register_buffer(name, tensor, persistent=False)
        self._surface = _Points(*_tables(file))
        self._corners = self._surface.part(torch.from_numpy(corners.reshape(-1)))

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        """Vertices and joints in the frame of the body [m]; ValueError for parameters of a wrong shape."""
        self.check_parameters(pose_PR33, shape_PS, expression_PE)
        if not len(pose_PR33):  # which the package's chain cannot do in torch 2.5: pose one person, keep none
            neutral = (self.mean_pose_R33[None], self.mean_shape_S[None], shape_PS.new_zeros(1, EXPRESSIONS))
            given = (pose_PR33, shape_PS, expression_PE)
            posed = self(*(torch.cat(pair) for pair in zip(given, neutral, strict=True)))
            return BodyOutput(posed.vertices_PV3[:0], posed.joints_PJ3[:0])
        with torch.autocast(pose_PR33.device.type, enabled=False):
            turns_PJ33 = self._turns(pose_PR33.float())
            linear_PK = torch.cat([shape_PS, expression_PE], 1).float()
            corrections = turns_PJ33[:, 1:] - self._identity
            corrections_PK = torch.cat([corrections[:, :22], corrections[:, 24:]], 1).flatten(1)
            rest_PJ3 = self._rest_joints_J3 + torch.tensordot(linear_PK, self._joint_directions_KJ3, 1)
            pelvis_P13 = rest_PJ3[:, :1]
            joints_PJ3, carry_PJ44 = batch_rigid_transform(turns_PJ33, rest_PJ3 - pelvis_P13, self._parents)
            moved = (torch.cat([linear_PK, corrections_PK], 1), carry_PJ44[:, :, :3], pelvis_P13)
            corners_PM33 = self._corners(*moved).unflatten(1, (-1, 3))
            points_PM3 = (corners_PM33 * self._point_weights_M3[..., None]).sum(2)
            return BodyOutput(self._surface(*moved), torch.cat([joints_PJ3, points_PM3], 1))

    def rigs(self, shapes: np.ndarray) -> list[Rig]:
        """Bones, skin and expression for each of the (P, S) shapes; the nodes turn as the joints do."""
        count, above = shapes.shape[1], np.maximum(self.topology.parents[:JOINTS], 0)
        joint_directions = self._joint_directions_KJ3.cpu().numpy()
        mean, basis = (
            points.cpu().numpy().reshape(-1, len(self._surface.weights), 3)
            for points in (self._surface.mean, self._surface.basis)
        )
        rest = mean[0] + np.tensordot(shapes, basis[:count], 1)
        joints = self._rest_joints_J3.cpu().numpy() + np.tensordot(shapes, joint_directions[:count], 1)
        identity = np.tile(np.eye(3, dtype=np.float32), (JOINTS, 1, 1))
        # corrections come in the order of the skeleton, without root and eyes; poses have the jaw last
        corrections = basis[count + EXPRESSIONS :].reshape(-1, 9, *basis.shape[1:])
        order = [joint - (1 if joint < EYES[0] else 3) for joint in POSE_JOINTS[1:]]
        return [
            Rig(
                topology=self.topology,
                offsets=joints[i] - joints[i, above],
                binds=np.concatenate([identity, -joints[i, :, :, None]], 2),
                vertices=rest[i],
                morphs=basis[count : count + EXPRESSIONS],
                axes=identity[: len(POSE_JOINTS)],
                center=self.center_joint,
                bone_morphs=joint_directions[count:],
                corrections=corrections[order].reshape(-1, *basis.shape[1:]),
            )
            for i in range(len(shapes))
        ]

    def with_vertices(self, indices: Sequence[int] | np.ndarray | Tensor) -> SMPLX:
        """The same body with only these vertices, in this order, for losses and metrics on few points.

        Joints and parameters are unchanged; faces and keypoint sets that use other vertices are dropped.
        """
        kept = np.array(indices.tolist() if isinstance(indices, Tensor) else indices, dtype=np.int64)
        body = copy.copy(self)
        surface = self._surface.part(torch.from_numpy(kept).to(self._identity.device))
        body._modules = {"_surface": surface, "_corners": self._corners}
        body._buffers = dict(self._buffers)
        body.topology = part_of_topology(self.topology, kept)
        return body

    def _turns(self, pose_PR33: Tensor) -> Tensor:
        """(P, 55, 3, 3): the rotation of each joint of the skeleton, in its order."""
        eyes_P233 = self._identity.expand(len(pose_PR33), len(EYES), 3, 3)
        body, hands, jaw = pose_PR33.split([BODY_ROTATIONS, 30, 1], 1)
        return torch.cat([body, jaw, eyes_P233, hands], 1)


class _Points(nn.Module):
    """Vertices of the rest shape with their K blend shapes (shape and pose) and skinning weights."""

    mean: Tensor
    basis: Tensor
    weights: Tensor

    def __init__(self, mean_V3: Tensor, basis_KV3: Tensor, weights_VJ: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean_V3.flatten(), persistent=False)
        self.register_buffer("basis", basis_KV3.flatten(1), persistent=False)
        self.register_buffer("weights", weights_VJ, persistent=False)

    def part(self, kept: Tensor) -> _Points:
        mean, basis = self.mean.unflatten(0, (-1, 3)), self.basis.unflatten(1, (-1, 3))
        return _Points(mean[kept], basis[:, kept], self.weights[kept])

    def forward(self, numbers_PK: Tensor, carry_PJ34: Tensor, origin_P13: Tensor) -> Tensor:
        """(P, V, 3) posed points: linear blend skinning about `origin`."""
        rest_PV3 = torch.addmm(self.mean, numbers_PK, self.basis).unflatten(1, (-1, 3)) - origin_P13
        blend_PV34 = (self.weights @ carry_PJ34.flatten(2)).unflatten(2, (3, 4))
        x, y, z, translation = blend_PV34.unbind(3)
        moved = torch.addcmul(translation, x, rest_PV3[..., :1])
        moved = torch.addcmul(moved, y, rest_PV3[..., 1:2])
        return torch.addcmul(moved, z, rest_PV3[..., 2:])


def _tables(file: SMPLXFile) -> tuple[Tensor, Tensor, Tensor]:
    """mean_V3, basis_KV3 and weights_VJ; without the corrections for the eyes, which never turn."""
    eyes = [9 * (eye - 1) + i for eye in EYES for i in range(9)]
    used = np.setdiff1d(np.arange(file.corrections.shape[2]), eyes)
    basis_VCK = np.concatenate([file.directions, file.corrections[:, :, used]], 2)
    basis_KV3 = torch.from_numpy(basis_VCK).permute(2, 0, 1).contiguous()
    return torch.tensor(file.template), basis_KV3, torch.tensor(file.weights)


def _points_beyond_the_skeleton(file: SMPLXFile) -> tuple[np.ndarray, np.ndarray]:
    """Three vertices (M, 3) and their weights for each joint after the 55th: vertices, then landmarks."""
    single = VertexJointSelector(vertex_ids["smplx"]).extra_joints_idxs.numpy()
    corners = np.concatenate([np.repeat(single[:, None], 3, 1), file.faces[file.landmark_faces]])
    first = np.tile(np.array([1, 0, 0], np.float32), (len(single), 1))
    return corners, np.concatenate([first, file.landmark_weights])


def _topology(file: SMPLXFile, rest_pelvis: np.ndarray) -> Topology:
    names = tuple(JOINT_NAMES[: JOINTS + len(vertex_ids["smplx"]) + LANDMARKS])
    skeleton = file.parents.tolist()
    beyond = [names.index(_parent_of(name, names)) for name in names[JOINTS:]]
    movers = int((file.weights != 0).sum(1).max())
    strongest = np.argsort(-file.weights, axis=1, kind="stable")[:, :movers]
    return Topology(
        name="smplx",
        faces=file.faces,
        joint_names=names,
        parents=(*skeleton, *beyond),
        keypoint_sets=keypoint_sets(names, head_top=int(file.template[:, 1].argmax())),
        shape_names=tuple(f"beta_{i}" for i in range(file.directions.shape[2] - EXPRESSIONS)),
        expression_names=tuple(f"expression_{i}" for i in range(EXPRESSIONS)),
        uv=file.uv,
        faces_uv=file.faces_uv,
        skin_indices=strongest,
        skin_weights=np.take_along_axis(file.weights, strongest, 1),
        pose_joints=POSE_JOINTS,
        rest_pelvis=rest_pelvis.astype(np.float32),
    )


def _parent_of(name: str, names: Sequence[str]) -> str:
    """The joint of the skeleton that a point on the skin moves with, found by the point's name."""
    if f"{name}3" in names[:JOINTS]:
        return f"{name}3"  # the tip of a finger is a child of its last joint
    side = name.partition("_")[0]
    if name.endswith("toe"):
        return f"{side}_foot"
    if name.endswith("heel"):
        return f"{side}_ankle"
    return "jaw" if name in _LOWER_LIP else "head"
