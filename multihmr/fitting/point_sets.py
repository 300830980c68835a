"""The points of a named set that a body can place: its own sets, joints, tips of fingers, the face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from multihmr.bodies.anny import Anny
from multihmr.bodies.keypoint_sets import KEYPOINT_SETS, keypoint_names
from multihmr.bodies.skinning import joined
from multihmr.bodies.topology import KeypointSet

FINGERS = ("thumb", "index", "middle", "ring", "pinky")
# OpenPose's hands, and names without a number for the tip, as in SMPL-X and COCO-WholeBody.
_SIDES = {"left": "L", "right": "R"}

# The 68 points of 300W (Sagonas et al., "300 Faces in-the-Wild Challenge", ICCV Workshops 2013), as
# COCO-WholeBody and OpenPose give them for faces. Their vertices were chosen on renders of the average face
# with MakeHuman's skins and eyebrows (the border of lips and the middle of the brow are painted there), and
# looked at from three sides, with open mouth, closed eyes, raised brows, and on a child. The jaw line is that
# of a face seen from the front: in pictures of turned heads annotators follow the outline, so these points
# count less.
FACE_NAMES = keypoint_names("coco133")[23:91]
CONTOUR_NAMES = FACE_NAMES[:17]

# Indices of MakeHuman's base mesh; a point of two vertices is their middle.
FACE_VERTICES: dict[str, tuple[int, ...]] = {
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
}  # fmt: skip


def find_points(
    body: Anny, keypoint_set: str, names: Sequence[str] | None = None
) -> tuple[KeypointSet, np.ndarray]:
    """The points of a set that the body can place, and their indices (M,) in the set.

    Args:
        body: whose vertices and joints they are made of.
        keypoint_set: one of `bodies.keypoint_sets.KEYPOINT_SETS`.
        names: instead of a set: names of points of any of the sets, or of joints of the body.

    Raises:
        ValueError: no such set; a name that no set has; or fewer than three points that the body can place.
    """
    if names is None and keypoint_set in body.topology.keypoint_sets:
        points = body.topology.keypoint_sets[keypoint_set]
        return points, np.arange(len(points.names))
    rows = _known_points(body)
    if names is None:
        wanted = list(keypoint_names(keypoint_set))
    else:
        wanted = list(names)
        everywhere = {name for known in KEYPOINT_SETS for name in keypoint_names(known)}
        unknown = [name for name in wanted if name not in everywhere | set(rows)]
        if unknown:
            raise ValueError(
                f"no point is called {unknown[0]!r}; names are those of the sets "
                f"{', '.join(KEYPOINT_SETS)} or of joints of the body {body.name!r}"
            )
    kept = [i for i, name in enumerate(wanted) if name in rows]
    if len(kept) < 3:
        raise ValueError(
            f"body {body.name!r} can place {len(kept)} of the {len(wanted)} points; a fit needs three or more"
        )
    return _joined_rows([wanted[i] for i in kept], rows), np.array(kept)


_Row = tuple[dict[int, float], dict[int, float]]  # vertices and joints with their weights


def _known_points(body: Anny) -> dict[str, _Row]:
    """Every named point that the body can place; the sets of COCO go first where a name has two meanings."""
    joints = {name: i for i, name in enumerate(body.topology.joint_names)}
    rows: dict[str, _Row] = {name: ({}, {i: 1.0}) for name, i in joints.items()}
    order = sorted(body.topology.keypoint_sets, key=lambda name: name.startswith("coco"))
    for name in order:
        points = body.topology.keypoint_sets[name]
        for i, point in enumerate(points.names):
            vertices = _weights(points.vertex_indices[i], points.vertex_weights[i])
            of_joints: dict[int, float] = {}
            if points.joint_indices is not None and points.joint_weights is not None:
                of_joints = _weights(points.joint_indices[i], points.joint_weights[i])
            rows[point] = (vertices, of_joints)
    rows |= _hand_points(body, joints, rows)
    rows |= _face_points(body)
    return rows


def _face_points(body: Anny) -> dict[str, _Row]:
    """The 68 points of a face (300W)."""
    place = {int(vertex): i for i, vertex in enumerate(body.base_vertices)}
    return {
        name: ({place[vertex]: 1 / len(vertices) for vertex in vertices}, {})
        for name, vertices in FACE_VERTICES.items()
    }


def _hand_points(body: Anny, joints: dict[str, int], rows: dict[str, _Row]) -> dict[str, _Row]:
    """The 21 points of a hand (Simon et al. 2017): the wrist, three joints and the tip of each finger."""
    tips = _finger_tips(body, joints)
    found: dict[str, _Row] = {}
    for side, letter in _SIDES.items():
        found[f"{side}_hand_root"] = rows[f"{side}_wrist"]
        for number, finger in enumerate(FINGERS, 1):
            for k in (1, 2, 3):
                found[f"{side}_{finger}{k}"] = ({}, {joints[f"finger{number}-{k}.{letter}"]: 1.0})
            tip: _Row = ({tips[f"finger{number}-3.{letter}"]: 1.0}, {})
            found[f"{side}_{finger}4"] = found[f"{side}_{finger}"] = tip
    return found


def _finger_tips(body: Anny, joints: dict[str, int]) -> dict[str, int]:
    """The vertex of each finger that lies farthest out along its last bone, in the average shape at rest."""
    mean, basis, weights = joined(body._patches)
    coefficients = body._shape_coefficients(body.mean_shape_S[None])
    rest = (
        mean + (coefficients[0] @ basis[: coefficients.shape[1]].flatten(1)).unflatten(0, (-1, 3))
    ).numpy()
    heads = (body._head_mean + coefficients[0] @ body._head_directions).view(-1, 3).numpy()
    tips = {}
    for name, joint in joints.items():
        if name.startswith("finger") and name[7:9] == "-3":
            own = np.flatnonzero(weights[:, joint].numpy() > 0.5)
            along = heads[joint] - heads[joints[name.replace("-3", "-2")]]
            tips[name] = int(own[((rest[own] - heads[joint]) @ along).argmax()])
    return tips


def _weights(indices: np.ndarray, weights: np.ndarray) -> dict[int, float]:
    total: dict[int, float] = {}
    for index, weight in zip(indices.tolist(), weights.tolist(), strict=True):
        if weight:
            total[index] = total.get(index, 0.0) + weight
    return total


def _joined_rows(names: Sequence[str], rows: dict[str, _Row]) -> KeypointSet:
    tables: list[np.ndarray] = []
    for part in (0, 1):
        width = max(max(len(rows[name][part]) for name in names), 1)
        indices, weights = np.zeros((len(names), width), np.int64), np.zeros((len(names), width), np.float32)
        for i, name in enumerate(names):
            for k, (index, weight) in enumerate(rows[name][part].items()):
                indices[i, k], weights[i, k] = index, weight
        tables += [indices, weights]
    return KeypointSet(tuple(names), tables[0], tables[1], (), tables[2], tables[3])
