"""Corresponding points of true and predicted people: meshes of one body, or joints that two bodies share.

The body of a data set may differ from that of the model. If they are the same, meshes are compared; otherwise
only the joints that both bodies name, and a note says what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import Body
from ..bodies.body_parts import body_joints, vertex_parts
from ..bodies.keypoint_sets import keypoint_names
from ..bodies.topology import Topology
from ..data.sample import Sample
from ..humans import Humans
from .ground_truth import by_gender, mean_person
from .protocol_files import SMPL_VERTICES, ProtocolFiles

SMPLX_VERTEX_SET = "smplx-vertices"  # what EHF calls its keypoints
NECK, WRISTS = 12, (20, 21)  # among the 22 joints of the body
# The 14 points that 3DPW, Human3.6M and Panoptic are measured on, by their names in "h36m17".
LIMBS = (
    *("right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"),
    *("right_wrist", "right_elbow", "right_shoulder", "left_shoulder", "left_elbow", "left_wrist", "thorax"),
)
# Panoptic's joints but the pelvis are moved by this before they are compared [m, camera]: those of Human3.6M
# lie lower (Jiang et al., "Coherent reconstruction of multiple humans", CVPR 2020).
PANOPTIC_SHIFT = (0.0, 0.06, 0.03)


@dataclass(frozen=True)
class Points:
    """N people as points in the camera frame [m]; unknown values are NaN.

    joints (N, J, 3); root (N, 3) on which each is centred. With a mesh: vertices (N, V, 3), mesh_root (N, 3)
    on which they are centred, and part_roots (N, 3, 3), those of left hand, right hand and face.
    placed (N,) bool, whether the translation is known; else the root is in the origin. None: all known.
    outline (N, J, 3): approximate joints without NaN, used to match people. None: `joints`.
    joints_2d (N, J, 2) pixels for the same, if the data set gives them.
    head (N, 3): the joint that the model places people by, where both sides have the same body.
    """

    joints: Tensor
    root: Tensor
    vertices: Tensor | None = None
    mesh_root: Tensor | None = None
    part_roots: Tensor | None = None
    placed: Tensor | None = None
    outline: Tensor | None = None
    joints_2d: Tensor | None = None
    head: Tensor | None = None

    def __len__(self) -> int:
        return len(self.root)

    def rows(self, rows: np.ndarray) -> Points:
        """Only these people, in this order."""
        index = torch.as_tensor(rows, dtype=torch.long, device=self.root.device)
        there = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name) is not None}
        return Points(**{name: points[index] for name, points in there.items()})

    def moved(self, shift: Tensor) -> Points:
        """The same people, each moved by (N, 3) [m]; one person may be moved to N places."""

        def placed(points: Tensor | None) -> Tensor | None:
            return None if points is None else points + shift.reshape(-1, *[1] * (points.ndim - 2), 3)

        return Points(
            self.joints + shift[:, None],
            self.root + shift,
            placed(self.vertices),
            placed(self.mesh_root),
            placed(self.part_roots),
            head=placed(self.head),
        )


@dataclass(frozen=True)
class Parts:
    """Which of the V vertices make a part: hands (2, V), left and right, face (V,), body (V,) the rest."""

    hands: Tensor
    face: Tensor
    body: Tensor


@dataclass(frozen=True)
class Comparison:
    """Converts true and predicted people to the same J joints and, if both have the mesh, V vertices.

    notes: deviations from the benchmark's protocol and their reasons, one sentence each.
    shape_names: of the true body's shape parameters, if the truth is given by parameters.
    mean_person: one person of mean pose and shape, if both sides have the same body.
    """

    joint_names: tuple[str, ...]
    truth: Callable[[Sample], Points]
    prediction: Callable[[Humans], Points]
    parts: Parts | None = None
    notes: tuple[str, ...] = ()
    shape_names: tuple[str, ...] = ()
    mean_person: Points | None = None


def meshes(
    body: Body,
    truth_bodies: Callable[[str], Body],
    files: ProtocolFiles,
    regressor: np.ndarray | None = None,
) -> Comparison:
    """The 22 joints and all vertices of people of the model's own mesh; truth_bodies: by gender.

    regressor (J, V): where the first 22 joints of both sides come from, if not from the skeletons.
    """
    rows = joint_rows(body.topology)
    parts, notes = mesh_parts(body.topology, files)
    regress = None if regressor is None else _tensor(regressor[:22], body)

    def points(vertices: Tensor, joints: Tensor, head: Tensor) -> Points:
        joints = joints[:, rows] if regress is None else regressed(regress, vertices)
        return replace(_mesh_points(vertices, joints), head=head)

    def truth(sample: Sample) -> Points:
        posed = by_gender(truth_bodies, sample)
        people = points(posed.vertices, posed.joints, posed.joints[:, body.center_joint])
        return replace(people, placed=posed.placed, outline=posed.outline[:, rows])

    def prediction(humans: Humans) -> Points:
        return points(*(_tensor(x, body) for x in (humans.vertices, humans.joints, humans.translation)))

    mean = mean_person(body)
    return Comparison(
        body_joints(body.topology),
        truth,
        prediction,
        parts,
        notes,
        tuple(body.topology.shape_names),
        points(mean.vertices, mean.joints, mean.joints[:, body.center_joint]),
    )


def true_meshes(body: Body, regressor: np.ndarray, files: ProtocolFiles) -> Comparison:
    """SMPL-X by its vertices themselves, which the sample gives as keypoints_3d (EHF).

    regressor (J, 10475): SMPL-X's own, which gives the 22 joints of both sides.
    """
    regress = _tensor(regressor[:22], body)

    def truth(sample: Sample) -> Points:
        vertices = _tensor(_keypoints_3d(sample, SMPLX_VERTEX_SET), body)
        return _mesh_points(vertices, regressed(regress, vertices))

    if body.name == "smplx":
        return replace(meshes(body, lambda gender: body, files, regressor), truth=truth)
    own = _own_joints(body, joint_rows(body.topology))
    return Comparison(body_joints(body.topology), truth, own, notes=(_other_mesh("smplx", body),))


def named_joints(body: Body, truth_bodies: Callable[[str], Body]) -> Comparison:
    """The 22 joints that two different bodies both have; their skeletons differ by some centimetres."""
    truth_topology = truth_bodies("neutral").topology
    true_rows = joint_rows(truth_topology)

    def truth(sample: Sample) -> Points:
        posed = by_gender(truth_bodies, sample)
        joints = posed.joints[:, true_rows]
        return Points(joints, joints[:, 0], placed=posed.placed, outline=posed.outline[:, true_rows])

    prediction = _own_joints(body, joint_rows(body.topology))
    note = _other_mesh(truth_topology.name, body)
    names = body_joints(body.topology)
    return Comparison(names, truth, prediction, notes=(note,), shape_names=tuple(truth_topology.shape_names))


def _other_mesh(truth: str, body: Body) -> str:
    return (
        f"vertices (PVE, hands, face): not compared, the truth is body '{truth}', the model's is "
        f"'{body.name}'; joints are those of the same name, which differ between the two by centimetres"
    )


def _own_joints(body: Body, rows: Sequence[int]) -> Callable[[Humans], Points]:
    def prediction(humans: Humans) -> Points:
        joints = _tensor(humans.joints, body)[:, list(rows)]
        return Points(joints, joints[:, 0])

    return prediction


def keypoints(body: Body, keypoint_set: str, names: Sequence[str] = (), root: str = "pelvis") -> Comparison:
    """The points `names` (all if none are given) of a set that the data set gives in 3D, around `root`.

    ValueError if the model's body has no such set.
    """
    known = keypoint_names(keypoint_set)
    names = tuple(names) or known
    columns, center = [known.index(name) for name in names], known.index(root)
    if keypoint_set not in body.topology.keypoint_sets:
        raise ValueError(f"body {body.name!r} has no keypoint set {keypoint_set!r}")
    note = f"joints are the body's own by the names of '{keypoint_set}', which lie some centimetres off"

    def truth(sample: Sample) -> Points:
        joints = _tensor(_keypoints_3d(sample, keypoint_set), body)
        return Points(joints[:, columns], joints[:, center], joints_2d=_pixels(sample, columns, body))

    def prediction(humans: Humans) -> Points:
        joints = _tensor(humans.keypoints(keypoint_set).xyz, body)
        return Points(joints[:, columns], joints[:, center])

    return Comparison(names, truth, prediction, notes=(note,))


def human36m(body: Body, files: ProtocolFiles, truth: Callable[[Sample], Points], head: bool) -> Comparison:
    """The limbs, and the top of the head if `head`, of Human3.6M's joints around its pelvis.

    truth: gives them in this order. Those of the model are regressed from SMPL's vertices, as published
    figures are, where it predicts SMPL-X and the files are there; else they are the body's own by name.
    """
    names = (*LIMBS, "head_top") if head else LIMBS
    known = keypoint_names("h36m17")
    columns = [known.index(name) for name in names]
    exact = body.name == "smplx" and files.smplx_to_smpl is not None and files.h36m_regressor is not None
    notes: tuple[str, ...] = ()
    if not exact:
        lacking = files.missing("smplx2smpl.pkl", "J_regressor_h36m.npy")
        why = (
            f"there is no {lacking}" if body.name == "smplx" else f"no file leads from '{body.name}' to SMPL"
        )
        notes = (f"the model's joints are its own by name, up to centimetres off Human3.6M's, as {why}",)
    regress = None if not exact else _tensor(files.h36m_regressor, body)
    to_smpl = files.smplx_to_smpl if exact else None

    def prediction(humans: Humans) -> Points:
        if to_smpl is None or regress is None:
            joints = _tensor(humans.keypoints("h36m17").xyz, body)
            return Points(joints[:, columns], joints[:, 0])
        vertices = _tensor(_mapped(to_smpl, humans.vertices), body)
        joints = regressed(regress, vertices)
        return Points(joints[:, columns], joints[:, 0], vertices, _tensor(humans.pelvis, body))

    return Comparison(names, truth, prediction, notes=notes)


def smpl_people(body: Body, files: ProtocolFiles) -> Comparison:
    """3DPW: people of SMPL, each by the model of their gender, against the 14 joints of Human3.6M.

    Without the licensed files the 24 SMPL joints of the data set are compared instead, and a note says so.
    """
    lacking = files.missing("SMPL_FEMALE", "SMPL_MALE", "J_regressor_h36m.npy")
    if lacking:
        comparison = keypoints(body, "smpl24")
        note = f"the 14 joints of Human3.6M and PVE, as published: not computed, there is no {lacking}"
        return replace(comparison, notes=(note, *comparison.notes))
    regress = _tensor(files.h36m_regressor, body)
    columns = [keypoint_names("h36m17").index(name) for name in (*LIMBS, "head_top")]

    @lru_cache
    def smpl(gender: str) -> Body:
        from ..bodies.smpl import SMPL

        path = files.find(f"SMPL_{gender.upper()}")
        if path is None:
            raise FileNotFoundError(f"there is no {files.missing(f'SMPL_{gender.upper()}')}")
        return SMPL(path).to(body.mean_shape_S.device)

    def truth(sample: Sample) -> Points:
        posed = by_gender(smpl, sample)
        joints = regressed(regress, posed.vertices)
        return Points(joints[:, columns], joints[:, 0], posed.vertices, posed.joints[:, 0])

    comparison = human36m(body, files, truth, head=True)
    if comparison.notes:
        comparison = replace(comparison, notes=(*comparison.notes, "PVE: not computed, for the same reason"))
    return comparison


def human36m_keypoints(body: Body, files: ProtocolFiles) -> Comparison:
    """Human3.6M: its own joints, those 14 that papers compare."""
    known = keypoint_names("h36m17")
    columns = [known.index(name) for name in (*LIMBS, "head_top")]

    def truth(sample: Sample) -> Points:
        joints = _tensor(_keypoints_3d(sample, "h36m17"), body)
        return Points(joints[:, columns], joints[:, 0], joints_2d=_pixels(sample, columns, body))

    return human36m(body, files, truth, head=True)


def panoptic(body: Body, files: ProtocolFiles) -> Comparison:
    """CMU Panoptic: 13 joints around the pelvis and the pelvis itself, which counts as one without error."""
    known = keypoint_names("panoptic19")
    columns = [known.index({"thorax": "neck"}.get(name, name)) for name in LIMBS]
    middle = known.index("mid_hip")
    shift = torch.tensor(PANOPTIC_SHIFT, device=body.mean_shape_S.device)

    def with_pelvis(points: Points) -> Points:
        return replace(points, joints=torch.cat([points.joints, points.root[:, None]], dim=1))

    def truth(sample: Sample) -> Points:
        joints = _tensor(_keypoints_3d(sample, "panoptic19"), body)
        pixels = _pixels(sample, [*columns, middle], body)
        return replace(with_pelvis(Points(joints[:, columns] + shift, joints[:, middle])), joints_2d=pixels)

    comparison = human36m(body, files, truth, head=False)
    return replace(
        comparison,
        joint_names=(*LIMBS, "pelvis"),
        prediction=lambda humans: with_pelvis(comparison.prediction(humans)),
    )


def mesh_parts(topology: Topology, files: ProtocolFiles) -> tuple[Parts | None, tuple[str, ...]]:
    """Vertex masks of hands, face and the rest: of SMPL-X from its authors' lists, if the user has them, else
    from the skinning weights, and a note says so."""
    if topology.skin_weights is None:
        return None, ()
    count = len(topology.skin_weights)
    found = files.part_vertices() if topology.name == "smplx" else None
    notes: tuple[str, ...] = ()
    if found is None:
        parts = vertex_parts(topology)
        found = parts["left_hand"], parts["right_hand"], parts["head"]
        if topology.name == "smplx":
            notes = (
                "hands and face: the vertices that wrists and head move, as there is no "
                f"{files.missing_part_vertices()}; figures may differ a little from published ones",
            )
    if not all(len(part) for part in found):
        return None, notes
    masks = torch.zeros(3, count, dtype=torch.bool)
    for mask, part in zip(masks, found, strict=True):
        mask[torch.from_numpy(np.asarray(part, np.int64))] = True
    return Parts(masks[:2], masks[2], ~masks.any(dim=0)), notes


def joint_rows(topology: Topology) -> list[int]:
    """Indices of the 22 compared joints among all joints of a body."""
    return [topology.joint_names.index(name) for name in body_joints(topology)]


def regressed(regress: Tensor, vertices: Tensor) -> Tensor:
    """(N, J, 3) joints from (N, V, 3) vertices by (J, V); NaN where one of their vertices is not known."""
    joints = torch.einsum("jv,nvc->njc", regress, vertices.nan_to_num())
    if vertices.isnan().any():
        unknown = vertices.isnan().any(dim=-1).to(vertices.dtype)
        joints[torch.einsum("jv,nv->nj", (regress != 0).to(vertices.dtype), unknown) > 0] = torch.nan
    return joints


def _mesh_points(vertices: Tensor, joints: Tensor) -> Points:
    return Points(joints, joints[:, 0], vertices, joints[:, 0], joints[:, [*WRISTS, NECK]])


def _keypoints_3d(sample: Sample, keypoint_set: str = "") -> np.ndarray:
    points = sample.keypoints_3d
    if points is None or (keypoint_set and sample.keypoint_set != keypoint_set):
        wanted = f"keypoints_3d of the set '{keypoint_set}'" if keypoint_set else "keypoints_3d"
        raise ValueError(f"sample '{sample.name}' has no {wanted}; its keypoints are {sample.keypoint_set!r}")
    return points


def _pixels(sample: Sample, columns: Sequence[int], body: Body) -> Tensor | None:
    points = sample.keypoints_2d
    return None if points is None else _tensor(points, body)[:, list(columns)]


def _mapped(to_smpl: tuple[np.ndarray, np.ndarray, np.ndarray], vertices: np.ndarray) -> np.ndarray:
    """(N, 10475, 3) vertices of SMPL-X -> (N, 6890, 3) of SMPL."""
    rows, columns, weights = to_smpl
    mapped = np.zeros((SMPL_VERTICES, len(vertices), 3), np.float32)
    np.add.at(mapped, rows, vertices.swapaxes(0, 1)[columns] * weights[:, None, None])
    return mapped.swapaxes(0, 1)


def _tensor(array: Any, body: Body) -> Tensor:
    return torch.as_tensor(np.array(array, np.float32), device=body.mean_shape_S.device)
