"""Local refinement of hands and faces of people who were found, in the pixels of the original image.

A network for hands (`networks.landmarks.hand`) sees a turned crop of each hand, and wrist and fingers turn to
where it finds them. Joints up to the wrist stay in their places. Faces are in faces.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from ..bodies.base import Body, posed
from ..bodies.loading import float32_on_cpu
from ..bodies.swing_twist import shortest_rotation, swing_twist, twist_rotation
from ..humans import Humans, project, rotmat_to_rotvec, rotvec_to_rotmat
from ..networks.landmarks.hand import HandOutput
from ..preprocessing.image import LoadedImage
from ..preprocessing.turned_crops import CROP_SCALE, TurnedCrop, hand_crop
from ..runtime.network_handle import NetworkHandle
from .faces import FaceBody, FoundFace, find_faces, with_expressions, with_heads
from .hand_pose import HandBody, HandBones, Side, fit_hands_either_way
from .refinement_pass import RefinementPass
from .whole_image import reposed

if TYPE_CHECKING:
    from ..hub.landmarks import LandmarkNetworks

LEAST_SIDE = 40.0  # [pixels] of a crop; hands in smaller ones are left alone
LEAST_PRESENCE = 0.5
WORTH_A_LOOK = 0.05  # presence in a first crop, from which on a better crop is cut
FARTHEST = 0.7  # of the found wrist from that of the mesh, in lengths of the forearm
SAME_HAND = 0.5  # mean distance of the points of two hands that are one, in lengths of the palm
MOST_SWING, MOST_TWIST = np.radians(85.0), np.radians(110.0)  # of the wrist; 99 % of the poses of training
TWIST_OF_FOREARM = 0.5  # part of the hand's turn about the forearm that its lower bone takes over

HandNetwork = Callable[[Tensor], HandOutput]  # crops (N, 3, H, W) in [0, 1]; a network for hands


class FoundHand(NamedTuple):
    """A hand that a network found.

    person, side    whose
    presence        score of the network, 0 to 1
    points          (21, 2) in pixels of the image
    turned          (21, 3) [m] in the axes of the crop, z away from the viewer
    crop            where it was seen
    away            of its wrist from that of the mesh, in lengths of the forearm
    """

    person: int
    side: int
    presence: float
    points: np.ndarray
    turned: np.ndarray
    crop: TurnedCrop
    away: float


@dataclass(frozen=True)
class Arms:
    """Where the arms of N people are in an image.

    Attributes:
        hands: (N, 2, 21, 3) points of both hands in the camera frame [m].
        pixels: (N, 2, 21, 2) the same in pixels.
        elbows: (N, 2, 2) in pixels.
        forearms: (N, 2) their lengths in pixels, as if seen from the side.
        reaches: (N, 2) lengths from the wrist to the second joint of the middle finger in pixels, likewise.
    """

    hands: np.ndarray
    pixels: np.ndarray
    elbows: np.ndarray
    forearms: np.ndarray
    reaches: np.ndarray

    @classmethod
    def of(cls, humans: Humans, body: HandBody) -> Arms:
        """Those of people as they were predicted."""
        joints, hands = body.points(humans.pose, humans.shape)
        shift = humans.joints[:, :1] - joints[:, :1]
        joints, hands = joints + shift, hands + shift[:, None]
        elbows = joints[:, [side.above[-2] for side in body.sides]]
        wrists = hands[:, :, 0]
        scale = float(humans.K[0, 0]) / np.maximum(wrists[..., 2], 1e-3)
        ways = np.diff(hands[:, :, [0, 9, 10]], axis=2)
        return cls(
            hands=hands,
            pixels=project(hands, humans.K),
            elbows=project(elbows, humans.K),
            forearms=scale * np.linalg.norm(wrists - elbows, axis=-1),
            reaches=scale * np.linalg.norm(ways, axis=-1).sum(-1),
        )


class DetailRefinement(RefinementPass):
    """The pass over hands and faces that `predict(hands_and_faces=True)` adds; made once for a call.

    ValueError for a model whose body is not Anny.
    """

    @float32_on_cpu()
    def __init__(self, model: NetworkHandle) -> None:
        from ..hub.landmarks import load_landmark_networks

        self.model = model
        self.hands, self.faces = HandBody.of(model.body), FaceBody.of(model.body)
        self.networks = load_landmark_networks(str(model.device))

    def _network(self, crops_N3HW: Tensor) -> HandOutput:
        return cast(HandOutput, self.networks.hand(crops_N3HW.to(self.model.device)))

    def __call__(self, image: LoadedImage, humans: Humans) -> Humans:
        """The people of an image; whose hands or face is not seen well keeps them as they were predicted."""
        with float32_on_cpu(), torch.autocast(torch.device(self.model.device).type, enabled=False):
            return self._refined(image, humans)

    def _refined(self, image: LoadedImage, humans: Humans) -> Humans:
        faces = find_faces(image, humans, self.faces, self.networks)
        before = humans.translation
        humans = with_faces(self.model, image, humans, self.faces, faces, self.networks)
        way = humans.translation - before
        hands = find_hands(image, humans, self.hands, self._network)
        moved = with_hands(self.model, image, humans, self.hands, hands)
        fixed = _without_hands(humans.unpredicted, self.model.body, self.hands.sides)
        return replace(moved, refined=_found(len(humans), faces, hands), moved=way, unpredicted=fixed)


def _found(count: int, faces: Sequence[FoundFace], hands: Sequence[FoundHand]) -> np.ndarray:
    """(N, 3) whether the left hand, the right hand and the face of each of `count` people were found."""
    refined = np.zeros((count, 3), bool)
    for hand in hands:
        refined[hand.person, hand.side] = True
    refined[[face.person for face in faces], 2] = True
    return refined


def with_faces(
    model: NetworkHandle,
    image: LoadedImage,
    humans: Humans,
    body: FaceBody,
    found: Sequence[FoundFace],
    networks: LandmarkNetworks,
) -> Humans:
    """The people with their facial actions, and their heads turned and moved, as found."""
    if not found:
        return humans
    rows = [face.person for face in found]
    expression = with_expressions(humans, body, found, networks)
    acting, _ = posed(
        model.body, humans.pose[rows], humans.shape[rows], expression[rows], humans.translation[rows]
    )
    pose, translation = with_heads(humans, body, found, body.points(acting))
    return reposed(model, image, humans, rows, pose=pose, translation=translation, expression=expression)


@torch.inference_mode()
def find_hands(image: LoadedImage, humans: Humans, body: HandBody, network: HandNetwork) -> list[FoundHand]:
    """The hands of people that are seen well enough, each once."""
    if not len(humans):
        return []
    arms = Arms.of(humans, body)
    searched = [
        (person, side, crop)
        for person in range(len(humans))
        for side in range(2)
        for crop in first_crops(arms, person, side, humans.image_size)
    ]
    best: dict[tuple[int, int], FoundHand] = {}
    for seen in _seen(image, searched, arms, network):
        key = seen.person, seen.side
        if seen.presence > WORTH_A_LOOK and (key not in best or seen.presence > best[key].presence):
            best[key] = seen
    again = [(person, side, hand_crop(seen.points)) for (person, side), seen in best.items()]
    again = [row for row in again if row[2].side >= LEAST_SIDE]
    sure = [
        seen
        for seen in _seen(image, again, arms, network)
        if seen.presence >= LEAST_PRESENCE and seen.away <= FARTHEST
    ]
    return _each_once(sure)


def first_crops(arms: Arms, person: int, side: int, image_size: tuple[int, int]) -> list[TurnedCrop]:
    """Where a hand may be: around that of the mesh, and where the forearm points, if large and in view.

    Of 83 hands on photographs, 24 are found with either alone, 28 with both, 29 with larger ones, too.
    """
    height, width = image_size
    points, reach = arms.pixels[person, side], float(arms.reaches[person, side])
    if (arms.hands[person, side, :, 2] <= 0.05).any() or CROP_SCALE * reach < LEAST_SIDE:
        return []
    if ((points.mean(0) < 0) | (points.mean(0) > [width, height])).any():
        return []
    crop = hand_crop(points)
    crop = replace(crop, side=max(crop.side, CROP_SCALE * reach))
    crops = [crop]
    way = points[0] - arms.elbows[person, side]
    length = float(np.linalg.norm(way))
    if length > 0.2 * arms.forearms[person, side]:
        up = way / length
        crops.append(TurnedCrop(points[0] + 0.5 * reach * up, 1.2 * CROP_SCALE * reach, up))
    return crops


def _seen(
    image: LoadedImage, searched: Sequence[tuple[int, int, TurnedCrop]], arms: Arms, network: HandNetwork
) -> list[FoundHand]:
    """What the network sees in each crop, all of which are one batch."""
    if not searched:
        return []
    pixels = np.stack([crop.cut(image.pixels) for _, _, crop in searched])
    output = network(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)
    points, presence, _, world = (tensor.cpu().numpy().astype(np.float64) for tensor in output)
    found = []
    for i, (person, side, crop) in enumerate(searched):
        # The pixels are more exact than the metres: they take the place of x and y.
        x, y = points[i, :, :2], world[i, :, :2]
        x, y = x - x.mean(0), y - y.mean(0)
        scale = np.linalg.norm(y) / max(float(np.linalg.norm(x)), 1e-6)
        turned = np.concatenate([x * scale, world[i, :, 2:]], axis=1)
        own = crop.to_image(points[i, :, :2])
        away = float(np.linalg.norm(own[0] - arms.pixels[person, side, 0]) / arms.forearms[person, side])
        found.append(FoundHand(person, side, float(presence[i]), own, turned, crop, away))
    return found


def _each_once(found: Sequence[FoundHand]) -> list[FoundHand]:
    """Of those at the same place only the one that is nearest to its arm."""
    kept: list[FoundHand] = []
    for hand in sorted(found, key=lambda hand: hand.away):
        palm = np.linalg.norm(hand.points[9] - hand.points[0])
        distances = [np.linalg.norm(hand.points - other.points, axis=-1).mean() for other in kept]
        if all(distance > SAME_HAND * palm for distance in distances):
            kept.append(hand)
    return kept


def with_hands(
    model: NetworkHandle, image: LoadedImage, humans: Humans, body: HandBody, found: Sequence[FoundHand]
) -> Humans:
    """The people with their hands as found."""
    if not found:
        return humans
    rows = sorted({hand.person for hand in found})
    return reposed(model, image, humans, rows, pose=turned_hands(humans, body, found))


def _without_hands(names: tuple[str, ...], body: Body, sides: Sequence[Side]) -> tuple[str, ...]:
    """Names of joints that never move, but for the fingers, which now do."""
    fingers = {body.topology.joint_names[j] for side in sides for j in side.fingers.ravel()}
    return tuple(name for name in names if name not in fingers)


def turned_hands(humans: Humans, body: HandBody, found: Sequence[FoundHand]) -> np.ndarray:
    """(N, R, 3, 3) the pose of people with wrists and fingers of the hands that were found."""
    pose = np.array(humans.pose)
    for number, (side, bones) in enumerate(zip(body.sides, body.bones(pose, humans.shape), strict=True)):
        here = [hand for hand in found if hand.side == number]
        if not here:
            continue
        rows = np.array([hand.person for hand in here])
        own = HandBones(*(array[rows] for array in bones))
        fit = fit_hands_either_way(side, own, np.stack([hand.turned for hand in here]))
        turns = np.stack([_to_camera(hand, humans.K) for hand in here]) @ fit.turns
        pose[np.ix_(rows, side.fingers.ravel())] = fit.fingers.reshape(len(rows), 15, 3, 3)
        pose[rows] = _turned_wrists(pose[rows], side, turns, _forearm(body, side))
    return pose


def _to_camera(hand: FoundHand, K: np.ndarray) -> np.ndarray:
    """(3, 3) from the axes of a crop, seen along the ray through the hand, to those of the camera."""
    turn = np.eye(3)
    turn[:2, :2] = hand.crop.turn
    x, y = hand.points.mean(0)
    ahead = np.array([0.0, 0.0, 1.0])
    ray = np.array([(x - K[0, 2]) / K[0, 0], (y - K[1, 2]) / K[1, 1], 1.0])
    return shortest_rotation(torch.from_numpy(ahead), torch.from_numpy(ray)).numpy() @ turn


def _forearm(body: HandBody, side: Side) -> np.ndarray:
    """(3,) the way of the lower bone of the forearm to the wrist, at the identity pose of an average body."""
    shape = body.tips.mean_shape_S.cpu().numpy()[None]
    joints, _ = body.points(
        np.eye(3, dtype=np.float32)[None, None].repeat(body.tips.rotation_count, 1), shape
    )
    return joints[0, side.wrist] - joints[0, side.above[-1]]


def _turned_wrists(pose: np.ndarray, side: Side, turns: np.ndarray, forearm: np.ndarray) -> np.ndarray:
    """(H, R, 3, 3) poses whose hands are turned (H, 3, 3) in the camera, as far as wrists can.

    The turn about the forearm is shared with its lower bone, as skin and bones do it.
    """
    above = np.eye(3)
    for joint in side.above[:-1]:
        above = above @ pose[:, joint]
    bone = torch.from_numpy(forearm.astype(np.float64)).expand(len(pose), 3)
    place, _ = swing_twist(torch.from_numpy(pose[:, side.above[-1]].astype(np.float64)), bone)
    wanted = place.mT @ torch.from_numpy(above.swapaxes(-1, -2) @ turns)
    swing, twist = swing_twist(wanted, bone)
    angle = torch.atan2(twist[:, 1], twist[:, 0]).clamp(-MOST_TWIST, MOST_TWIST)
    half = TWIST_OF_FOREARM * angle
    lower = twist_rotation(bone, torch.stack([half.cos(), half.sin()], -1))
    whole = twist_rotation(bone, torch.stack([angle.cos(), angle.sin()], -1))
    result = pose.copy()
    result[:, side.above[-1]] = (place @ lower).numpy()
    result[:, side.wrist] = (lower.mT @ _limited(swing) @ whole).numpy()
    return result


def _limited(swing: Tensor) -> Tensor:
    """(H, 3, 3) rotations, those by more than `MOST_SWING` only so far."""
    vectors = rotmat_to_rotvec(swing.numpy())
    angle = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return torch.from_numpy(rotvec_to_rotmat(vectors * np.minimum(1, MOST_SWING / np.maximum(angle, 1e-9))))
