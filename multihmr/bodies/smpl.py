"""SMPL (Loper et al. 2015) from the user's own file, in plain torch: the true body of 3DPW and others.

The file is licensed by its authors (https://smpl.is.tue.mpg.de) and never comes with this package. No network
here predicts SMPL; it is used for ground truth only. Frame: y up, the person faces z, metres, turned
about the pelvis, which lies in the origin: R(V - J0).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .base import Body, BodyOutput
from .keypoint_sets import keypoint_names, keypoint_sets
from .model_files import READ_ERRORS, to_array, unpickle
from .topology import Topology

SITE = "https://smpl.is.tue.mpg.de"
VERTICES, JOINTS = 6890, 24
_SHAPES = {
    "v_template": (VERTICES, 3),
    "posedirs": (VERTICES, 3, 9 * (JOINTS - 1)),
    "J_regressor": (JOINTS, VERTICES),
    "weights": (VERTICES, JOINTS),
    "kintree_table": (2, JOINTS),
}


class SMPL(Body):
    """24 rotations, betas as shape, no expression; 6890 vertices, 24 joints.

    FileNotFoundError if there is no such file; ValueError in one sentence if it is no SMPL or damaged.
    No code in the file is executed.
    """

    _template_V3: Tensor
    _directions_V3S: Tensor
    _corrections_KV3: Tensor
    _rest_joints_J3: Tensor
    _joint_directions_J3S: Tensor
    _weights_VJ: Tensor

    name = "smpl"
    bounded = False
    center_joint = 15
    pelvis_joint = 0

    def __init__(self, path: Path | str, *, shape_count: int = 10) -> None:
        super().__init__()
        arrays = _read(Path(path), shape_count)
        regress = arrays["J_regressor"].astype(np.float64)
        directions = arrays["shapedirs"][:, :, :shape_count]
        rest = regress @ arrays["v_template"]
        joint_directions = np.einsum("jv,vcs->jcs", regress, directions, optimize=True)
        self._parents = [-1, *arrays["kintree_table"][0][1:].astype(int).tolist()]
        buffers = {
            "mean_shape_S": np.zeros(shape_count),
            "mean_pose_R33": np.tile(np.eye(3), (JOINTS, 1, 1)),
            "_template_V3": arrays["v_template"],
            "_directions_V3S": directions,
            "_corrections_KV3": arrays["posedirs"].transpose(2, 0, 1),
            "_rest_joints_J3": rest,
            "_joint_directions_J3S": joint_directions,
            "_weights_VJ": arrays["weights"],
        }
        buffers["mean_pose_R33"][0] = np.diag([1, -1, -1])  # y down, facing -z
        for name, array in buffers.items():
            tensor = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))
            self.register_buffer(name, tensor, persistent=False)
        at_rest = np.concatenate([rest[:1].astype(np.float32), joint_directions[0].T.astype(np.float32)])
        self.topology = _topology(arrays, self._parents, at_rest)

    def forward(self, pose_PR33: Tensor, shape_PS: Tensor, expression_PE: Tensor) -> BodyOutput:
        """Vertices and joints in the frame of the body [m]; ValueError for parameters of a wrong shape."""
        self.check_parameters(pose_PR33, shape_PS, expression_PE)
        rest_PJ3 = self._rest_joints_J3 + torch.einsum("jcs,ps->pjc", self._joint_directions_J3S, shape_PS)
        turns, places = [pose_PR33[:, 0]], [torch.zeros_like(rest_PJ3[:, 0])]
        for joint, parent in enumerate(self._parents[1:], start=1):
            bone_P31 = (rest_PJ3[:, joint] - rest_PJ3[:, parent])[..., None]
            places.append(places[parent] + (turns[parent] @ bone_P31)[..., 0])
            turns.append(turns[parent] @ pose_PR33[:, joint])
        turns_PJ33, joints_PJ3 = torch.stack(turns, 1), torch.stack(places, 1)
        bent_PK = (pose_PR33[:, 1:] - torch.eye(3, dtype=pose_PR33.dtype, device=pose_PR33.device)).flatten(1)
        flat_PV3 = self._template_V3 + torch.einsum("vcs,ps->pvc", self._directions_V3S, shape_PS)
        flat_PV3 = flat_PV3 + torch.einsum("kvc,pk->pvc", self._corrections_KV3, bent_PK)
        shift_PJ3 = joints_PJ3 - (turns_PJ33 @ rest_PJ3[..., None])[..., 0]
        turn_PV33 = torch.einsum("vj,pjab->pvab", self._weights_VJ, turns_PJ33)
        shift_PV3 = torch.einsum("vj,pja->pva", self._weights_VJ, shift_PJ3)
        return BodyOutput((turn_PV33 @ flat_PV3[..., None])[..., 0] + shift_PV3, joints_PJ3)


def _read(path: Path, shape_count: int) -> dict[str, np.ndarray]:
    how = f"register at {SITE} and take its SMPL for Python, version 1.1.0 with three genders"
    if not path.is_file():
        raise FileNotFoundError(f"there is no SMPL file {path}: {how}")
    try:
        with path.open("rb") as file:
            is_zip = file.read(2) == b"PK"
            file.seek(0)
            stored: Any = np.load(file, allow_pickle=False) if is_zip else unpickle(file)
            keys = (*_SHAPES, "shapedirs", "f")
            missing = [key for key in keys if key not in stored]
            if missing:
                raise ValueError(f"it lacks {', '.join(missing)}")
            arrays = {key: stored[key] if is_zip else to_array(stored[key]) for key in keys}
        _check(arrays, shape_count)
    except READ_ERRORS as error:
        reason = (str(error) or type(error).__name__).rstrip(".")
        raise ValueError(f"{path} cannot be used as SMPL: {reason}; {how}") from error
    return arrays


def _check(arrays: dict[str, np.ndarray], shape_count: int) -> None:
    for key, shape in _SHAPES.items():
        if arrays[key].shape != shape:
            raise ValueError(f"its {key} has the shape {arrays[key].shape}, expected {shape}")
    directions, faces = arrays["shapedirs"], arrays["f"]
    if directions.shape[:2] != (VERTICES, 3) or directions.shape[2] < shape_count:
        raise ValueError(f"its shapedirs is {directions.shape}, expected ({VERTICES}, 3, {shape_count})")
    if faces.ndim != 2 or faces.shape[1] != 3 or faces.min() < 0 or faces.max() >= VERTICES:
        raise ValueError("its f are no triangles of its vertices")
    if not all(np.isfinite(arrays[key]).all() for key in (*_SHAPES, "shapedirs")):
        raise ValueError("it has numbers that are not finite")
    parents = arrays["kintree_table"][0]
    if not all(0 <= parents[joint] < joint for joint in range(1, JOINTS)):
        raise ValueError("its kintree_table has joints before their parents")


def _topology(arrays: dict[str, np.ndarray], parents: list[int], rest_pelvis: np.ndarray) -> Topology:
    weights = arrays["weights"].astype(np.float32)
    strongest = np.argsort(-weights, axis=1, kind="stable")[:, : int((weights != 0).sum(1).max())]
    names = keypoint_names("smpl24")
    return Topology(
        name="smpl",
        faces=arrays["f"].astype(np.int64),
        joint_names=names,
        parents=tuple(parents),
        keypoint_sets=keypoint_sets(names, head_top=int(arrays["v_template"][:, 1].argmax())),
        shape_names=tuple(f"beta_{i}" for i in range(len(rest_pelvis) - 1)),
        expression_names=(),
        skin_indices=strongest,
        skin_weights=np.take_along_axis(weights, strongest, 1),
        rest_pelvis=rest_pelvis,
    )
