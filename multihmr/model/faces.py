"""Local refinement of the faces of people who were found, in the pixels of the original image.

A network for faces (`networks.landmarks.face`) places 478 points in an upright crop of each face, and another
one reads the facial actions from them. The head turns towards where the points are, and the person moves to
where the face is seen, and as large as it is seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..bodies.anny import Anny
from ..bodies.base import Body
from ..bodies.swing_twist import shortest_rotation
from ..fitting.point_sets import FACE_NAMES, find_points
from ..humans import Humans, project
from ..networks.landmarks.face import ACTIONS, CROP_SIDE, FaceLandmarks, FacialActions
from ..preprocessing.image import LoadedImage
from ..preprocessing.turned_crops import TurnedCrop

LEAST_SIDE = 60.0  # [pixels] of a crop; of smaller faces nothing is read
LEAST_PRESENCE = 0.5
CROP_SCALE = 1.5  # sides of the crop over those of the box around a face, as MediaPipe cuts it
FOREHEAD = 0.35  # height of the forehead over that from the brows to the chin: the 68 points have none
FARTHEST = 0.35  # of the middle of a found face from that of the mesh, in sides of the first crop
# Corners of the eyes, right and left, in the 68 points and in MediaPipe's
EYES_68, EYES_478 = (36, 45), (33, 263)
NOSE_TIP, EARS = 30, (0, 16)  # in the 68 points
# The same places of a face in the 68 points and in MediaPipe's: corners of the eyes, tip and root of the
# nose, corners of the mouth, chin, ends of the brows
SAME_68 = (36, 39, 42, 45, 30, 27, 48, 54, 8, 17, 26, 21, 22)
SAME_478 = (33, 133, 362, 263, 1, 168, 61, 291, 152, 70, 300, 107, 336)
# Part of the turn to the points: what was predicted has other errors, of about the same size. The heads of
# 108 people of the renders for training were turned by 10.7 degrees from the true ones as predicted (median),
# by 5.5 with this part of the turn, and by 6.0 with all of it.
TURN_SHARE = 0.8
# Part of the way to where the face is seen, likewise: with it heads of 108 people of the renders for training
# are 5.0 % of their distance off (median), with all of it 5.4 %, without 6.1 %; bodies are as exact in the
# image as before with this part, and a fifth less so with all of it.
MOVE_SHARE = 0.5
STEPS, DAMPING = 12, 1e-4  # of the search for the turn
MOST_SCALE = 1.3  # factor on a distance
MOST_TURN = np.radians(45.0)  # of a head from where it was predicted


class Networks(Protocol):
    """What reads faces, as `hub.landmarks.LandmarkNetworks`."""

    @property
    def face(self) -> FaceLandmarks:
        """The network that places the points."""

    @property
    def actions(self) -> FacialActions:
        """The network that reads the actions from them."""


class FoundFace(NamedTuple):
    """A face that the network found.

    person      whose
    presence    score of the network, 0 to 1
    points      (478, 3) in pixels of the image; z as MediaPipe gives it, at the scale of the image
    actions     (52,) of `networks.landmarks.face.ACTIONS`
    """

    person: int
    presence: float
    points: np.ndarray
    actions: np.ndarray


class FaceBody:
    """Vertices of Anny that are the 68 points of a face, where its facial actions go, what turns its head.

    ValueError for another body.
    """

    _made: ClassVar[WeakKeyDictionary[Body, FaceBody]] = WeakKeyDictionary()

    def __init__(self, body: Body) -> None:
        if not isinstance(body, Anny):
            raise ValueError(
                f"hands_and_faces=True moves the faces of the body 'anny'; this model has '{body.name}'"
            )
        points, _ = find_points(body, "", FACE_NAMES)
        self.vertices, self.weights = points.vertex_indices, points.vertex_weights
        names = list(body.topology.expression_names)
        # the network's first action is "neutral"; Anny has none
        self.read = [i for i, name in enumerate(ACTIONS) if name in names]
        self.written = [names.index(ACTIONS[i]) for i in self.read]
        turned = list(body.topology.pose_joints)
        joint = body.topology.joint_names.index("head")
        self.head = turned.index(joint)
        self.above: list[int] = []
        while (joint := int(body.topology.parents[joint])) >= 0:
            self.above.insert(0, turned.index(joint))

    @classmethod
    def of(cls, body: Body) -> FaceBody:
        """That of a body, made once."""
        if body not in cls._made:
            cls._made[body] = cls(body)
        return cls._made[body]

    def points(self, vertices: np.ndarray) -> np.ndarray:
        """(N, 68, 3) points of the faces of meshes (N, V, 3)."""
        return (vertices[:, self.vertices] * self.weights[..., None]).sum(2)


@torch.inference_mode()
def find_faces(image: LoadedImage, humans: Humans, body: FaceBody, networks: Networks) -> list[FoundFace]:
    """The faces of people that are seen well enough, each once."""
    if not len(humans):
        return []
    points = body.points(humans.vertices)
    first = {i: crop for i in range(len(humans)) if (crop := first_crop(points[i], humans)) is not None}
    again = []
    for person, presence, found in _seen(image, list(first.items()), networks.face):
        crop = face_crop(found[:, :2], EYES_478)
        if presence >= LEAST_PRESENCE and _near(first[person], crop):
            again.append((person, crop))
    sure = [
        (person, presence, found)
        for person, presence, found in _seen(image, again, networks.face)
        if presence >= LEAST_PRESENCE and _near(first[person], face_crop(found[:, :2], EYES_478))
    ]
    sure = _each_once(sure, first)
    if not sure:
        return []
    stacked = torch.from_numpy(np.stack([found for _, _, found in sure])).float()
    actions = networks.actions(stacked.to(_device(networks.actions))).float().cpu().numpy()
    return [FoundFace(*seen, acted) for seen, acted in zip(sure, actions, strict=True)]


def first_crop(points: np.ndarray, humans: Humans) -> TurnedCrop | None:
    """The crop around the face of a mesh; None if it is turned away, small or outside the image.

    Args:
        points: (68, 3) in the camera frame [m].
        humans: for the image's size and camera.
    """
    ears = points[list(EARS)].mean(0)
    if (points[:, 2] <= 0.05).any() or np.linalg.norm(points[NOSE_TIP]) >= np.linalg.norm(ears):
        return None
    height, width = humans.image_size
    crop = face_crop(project(points, humans.K), EYES_68, forehead=FOREHEAD)
    inside = (crop.center > 0).all() and (crop.center < [width, height]).all()
    return crop if inside and crop.side >= LEAST_SIDE else None


def face_crop(points: np.ndarray, eyes: Sequence[int], forehead: float = 0.0) -> TurnedCrop:
    """The square around a face, eyes level, from points (M, 2) in pixels.

    Args:
        points: of the face.
        eyes: the outer corners of its right and left eye among them.
        forehead: what is to be added above them, as part of their height.
    """
    across = points[eyes[1]] - points[eyes[0]]
    length = float(np.linalg.norm(across))
    up = np.array([across[1], -across[0]]) / length if length > 0 else np.array([0.0, -1.0])
    turn = TurnedCrop(points[0], 1.0, up).turn
    level = points @ turn
    low, high = level.min(0), level.max(0)
    low[1] -= forehead * (high - low)[1]
    side = CROP_SCALE * max(float((high - low).max()), 1e-3)
    return TurnedCrop(turn @ ((low + high) / 2), side, up, CROP_SIDE)


def with_expressions(humans: Humans, body: FaceBody, found: Sequence[FoundFace]) -> np.ndarray:
    """(N, E) expressions of people, those of found faces as they were read."""
    expression = np.array(humans.expression)
    for face in found:
        expression[face.person, body.written] = face.actions[body.read]
    return expression


def turned_heads(
    humans: Humans, body: FaceBody, found: Sequence[FoundFace], vertices: np.ndarray
) -> np.ndarray:
    """(N, R, 3, 3) the pose of people with the heads of found faces turned towards their points.

    Args:
        humans: the people.
        body: theirs.
        found: faces.
        vertices: (N, V, 3) of the people with the expressions of these faces [m].
    """
    pose = np.array(humans.pose)
    for face in found:
        points = body.points(vertices[face.person][None])[0, list(SAME_68)].astype(np.float64)
        turn = head_turn(points, face.points[list(SAME_478), :2], humans.K)
        above = np.eye(3)
        for joint in body.above:
            above = above @ pose[face.person, joint]
        pose[face.person, body.head] = above.T @ _share(turn) @ above @ pose[face.person, body.head]
    return pose


def moved_people(
    humans: Humans, body: FaceBody, found: Sequence[FoundFace], vertices: np.ndarray
) -> np.ndarray:
    """(N, 3) places of people, nearer to where their faces are seen.

    Args:
        humans: the people.
        body: theirs.
        found: faces.
        vertices: (N, V, 3) of the people with their heads turned to these faces [m].
    """
    translation = np.array(humans.translation)
    for face in found:
        points = body.points(vertices[face.person][None])[0, list(SAME_68)].astype(np.float64)
        way = face_place(points, face.points[list(SAME_478), :2], humans.K) - points.mean(0)
        translation[face.person] += (MOVE_SHARE * way).astype(translation.dtype)
    return translation


def face_place(points: np.ndarray, seen: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(3,) where the middle of points of a face is, seen at these pixels and as large as they are [m].

    Args:
        points: (M, 3) of the mesh in the camera frame [m].
        seen: (M, 2) in pixels of the image.
        K: (3, 3) intrinsics.
    """
    own = project(points, K)
    sizes = [np.linalg.norm(pixels - pixels.mean(0)) for pixels in (own, seen)]
    scale = np.clip(sizes[0] / max(sizes[1], 1e-9), 1 / MOST_SCALE, MOST_SCALE)
    x, y = points[:, :2].mean(0) / points[:, 2].mean() + (seen - own).mean(0) / [K[0, 0], K[1, 1]]
    return float(points[:, 2].mean() * scale) * np.array([x, y, 1.0])


def head_turn(points: np.ndarray, seen: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(3, 3) the rotation in the camera frame after which points of a face project to where they are seen.

    Under a weak perspective along the ray through the face, at any place and size, by Gauss-Newton steps.
    What MediaPipe says of the depth of its points is not used: with it, heads would look down by 6 degrees,
    for its faces have another relief than Anny's.

    Args:
        points: (M, 3) of the mesh in the camera frame [m].
        seen: (M, 2) in pixels of the image.
        K: (3, 3) intrinsics.
    """
    focal, center = np.array([K[0, 0], K[1, 1]], np.float64), K[:2, 2]
    x, y = (seen.mean(0) - center) / focal
    ways = torch.from_numpy(np.array([[0.0, 0.0, 1.0], [x, y, 1.0]]))
    ray = shortest_rotation(*ways).numpy()
    aim, own = (seen - seen.mean(0)) / focal, points - points.mean(0)
    turn = ray.T.copy()  # from the camera's axes to those along the ray
    for _ in range(STEPS):
        turned = own @ turn.T
        scale = (turned[:, :2] * aim).sum() / (turned[:, :2] ** 2).sum()
        turns = np.cross(np.eye(3)[:, None], turned[None])[..., :2]  # (3, M, 2)
        jacobian = np.concatenate([scale * turns, turned[None, :, :2]]).reshape(4, -1).T
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(
            normal + DAMPING * np.diag(np.diag(normal)), jacobian.T @ (aim - scale * turned[:, :2]).ravel()
        )
        turn = _rotation(step[:3]) @ turn
    return ray @ turn


def _rotation(vector: np.ndarray) -> np.ndarray:
    """(3, 3) of a rotation vector [rad]."""
    import roma  # brings torch._dynamo, which takes as long to import as torch

    return roma.rotvec_to_rotmat(torch.from_numpy(vector)).numpy()


def _share(turn: np.ndarray) -> np.ndarray:
    """`TURN_SHARE` of a rotation, by `MOST_TURN` at most."""
    import roma

    vector = roma.rotmat_to_rotvec(torch.from_numpy(turn)).numpy()
    angle = float(np.linalg.norm(vector))
    return _rotation(vector * min(TURN_SHARE, MOST_TURN / max(angle, 1e-9)))


def _near(first: TurnedCrop, crop: TurnedCrop) -> bool:
    away = np.linalg.norm(crop.center - first.center) / first.side
    return bool(away <= FARTHEST and 0.5 <= crop.side / first.side <= 2)


def _each_once(
    seen: Sequence[tuple[int, float, np.ndarray]], first: dict[int, TurnedCrop]
) -> list[tuple[int, float, np.ndarray]]:
    """Of faces at one place only that which is nearest to its head."""
    crops = [face_crop(found[:, :2], EYES_478) for _, _, found in seen]
    away = [
        float(np.linalg.norm(crop.center - first[person].center)) / first[person].side
        for crop, (person, _, _) in zip(crops, seen, strict=True)
    ]
    kept: list[int] = []
    for i in np.argsort(away, kind="stable").tolist():
        if all(np.linalg.norm(crops[i].center - crops[k].center) > 0.3 * crops[k].side for k in kept):
            kept.append(i)
    return [seen[i] for i in sorted(kept)]


def _seen(
    image: LoadedImage, looks: Sequence[tuple[int, TurnedCrop]], network: FaceLandmarks
) -> list[tuple[int, float, np.ndarray]]:
    """Person, presence and points (478, 3) in pixels of the image of each crop; all are one batch."""
    if not looks:
        return []
    pixels = torch.from_numpy(np.stack([crop.cut(image.pixels) for _, crop in looks]))
    output = network(pixels.permute(0, 3, 1, 2).float().to(_device(network)) / 255)
    points = output.points_N4783.float().cpu().numpy().astype(np.float64)
    result = []
    for (person, crop), presence, found in zip(looks, output.presence_N.tolist(), points, strict=True):
        depth = found[:, 2:] * (crop.side / crop.size)
        result.append((person, presence, np.concatenate([crop.to_image(found[:, :2]), depth], axis=1)))
    return result


def _device(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device
