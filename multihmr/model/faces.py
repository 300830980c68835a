"""Local refinement of the faces of people who were found, in the pixels of the original image.

A network for faces (`networks.landmarks.face`) places 478 points in an upright crop of each face, and another
one reads the facial actions from them. The head turns towards where the points are, and the person moves to
where the face is seen, and as large as it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch

from ..bodies.anny import Anny
from ..bodies.base import Body
from ..bodies.swing_twist import shortest_rotation
from ..fitting.point_sets import FACE_NAMES, find_points
from ..humans import Humans, project, rotmat_to_rotvec, rotvec_to_rotmat
from ..networks.landmarks.face import ACTIONS, CROP_SIDE
from ..preprocessing.image import LoadedImage
from ..preprocessing.turned_crops import TurnedCrop

if TYPE_CHECKING:
    from ..hub.landmarks import LandmarkNetworks

LEAST_SIDE = 60.0  # [pixels] of a crop; of smaller faces nothing is read
LEAST_PRESENCE = 0.5
CROP_SCALE = 1.5  # sides of the crop over those of the box around a face, as MediaPipe cuts it
FOREHEAD = 0.35  # height of the forehead over that from the brows to the chin: the 68 points have none
FARTHEST = 0.35  # of the middle of a found face from that of the mesh, in sides of the first crop
MOST_LARGER = 2.0  # factor between the sizes of the two, either way
SAME_FACE = 0.3  # distance of the middles of two faces that are one, in sides of the crop
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


class FoundFace(NamedTuple):
    """A face that the network found.

    person      whose
    presence    score of the network, 0 to 1
    points      (478, 2) in pixels of the image
    crop        around these points
    away        of its middle from that of the mesh's face, in sides of the first crop
    """

    person: int
    presence: float
    points: np.ndarray
    crop: TurnedCrop
    away: float


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
        turned_by = {joint: r for r, joint in enumerate(body.topology.pose_joints)}
        self.joint = body.topology.joint_names.index("head")
        *self.above, self.head = (turned_by[joint] for joint in body.topology.path(self.joint))

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
def find_faces(
    image: LoadedImage, humans: Humans, body: FaceBody, networks: LandmarkNetworks
) -> list[FoundFace]:
    """The faces of people that are seen well enough, each once."""
    if not len(humans):
        return []
    points = body.points(humans.vertices)
    first = {i: crop for i in range(len(humans)) if (crop := first_crop(points[i], humans)) is not None}
    seen = _seen(image, first, first, networks)
    seen = _seen(image, {face.person: face.crop for face in seen}, first, networks)
    kept: list[FoundFace] = []
    for face in sorted(seen, key=lambda face: face.away):
        distances = (np.linalg.norm(face.crop.center - other.crop.center) for other in kept)
        if all(distance > SAME_FACE * face.crop.side for distance in distances):
            kept.append(face)
    return kept


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


@torch.inference_mode()
def with_expressions(
    humans: Humans, body: FaceBody, found: Sequence[FoundFace], networks: LandmarkNetworks
) -> np.ndarray:
    """(N, E) expressions of people, those of found faces as they are read from their points."""
    expression = np.array(humans.expression)
    points = torch.tensor(np.stack([face.points for face in found]), dtype=torch.float32)
    actions = networks.actions(points.to(_device(networks.actions))).cpu().numpy()
    expression[np.ix_([face.person for face in found], body.written)] = actions[:, body.read]
    return expression


def with_heads(
    humans: Humans, body: FaceBody, found: Sequence[FoundFace], points: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pose (N, R, 3, 3) and translation (N, 3) of people whose heads are turned and moved to found faces.

    Args:
        humans: the people.
        body: theirs.
        found: F faces.
        points: (F, 68, 3) of the mesh with the expressions of these faces, in the camera frame [m].
    """
    pose, translation = np.array(humans.pose), np.array(humans.translation)
    for face, own in zip(found, points[:, SAME_68].astype(np.float64), strict=True):
        seen = face.points[list(SAME_478)]
        turn = _share(head_turn(own, seen, humans.K))
        above = np.eye(3)
        for joint in body.above:
            above = above @ pose[face.person, joint]
        pose[face.person, body.head] = above.T @ turn @ above @ pose[face.person, body.head]
        joint = humans.joints[face.person, body.joint]
        turned = joint + (own - joint) @ turn.T
        way = face_place(turned, seen, humans.K) - turned.mean(0)
        translation[face.person] += MOVE_SHARE * way
    return pose, translation


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
        turn = rotvec_to_rotmat(step[:3]) @ turn
    return ray @ turn


def _share(turn: np.ndarray) -> np.ndarray:
    """`TURN_SHARE` of a rotation, by `MOST_TURN` at most."""
    vector = rotmat_to_rotvec(turn)
    angle = float(np.linalg.norm(vector))
    return rotvec_to_rotmat(vector * min(TURN_SHARE, MOST_TURN / max(angle, 1e-9)))


def _seen(
    image: LoadedImage,
    crops: Mapping[int, TurnedCrop],
    first: Mapping[int, TurnedCrop],
    networks: LandmarkNetworks,
) -> list[FoundFace]:
    """The faces in these crops that may be those of the meshes; all crops are one batch.

    Args:
        image: that is cropped.
        crops: person -> crop.
        first: person -> crop around the face of the mesh.
        networks: that see the crops.
    """
    if not crops:
        return []
    pixels = torch.from_numpy(np.stack([crop.cut(image.pixels) for crop in crops.values()]))
    output = networks.face(pixels.permute(0, 3, 1, 2).float().to(_device(networks.face)) / 255)
    points = output.points_N4783[..., :2].cpu().numpy().astype(np.float64)
    found = []
    for (person, crop), presence, xy in zip(crops.items(), output.presence_N.tolist(), points, strict=True):
        xy, start = crop.to_image(xy), first[person]
        around = face_crop(xy, EYES_478)
        away = float(np.linalg.norm(around.center - start.center)) / start.side
        likely = 1 / MOST_LARGER <= around.side / start.side <= MOST_LARGER and away <= FARTHEST
        if likely and presence >= LEAST_PRESENCE:
            found.append(FoundFace(person, presence, xy, around, away))
    return found


def _device(network: torch.nn.Module) -> torch.device:
    return next(network.parameters()).device
