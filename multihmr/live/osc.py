"""People as OSC messages: plain keypoints for patches (TouchDesigner, Max, Unreal), and VMC for avatars.

VMC (Virtual Motion Capture protocol, https://protocol.vmc.info) is OSC over UDP that VSeeFace, Warudo, VNyan,
Unity (EVMC4U), Unreal (VMC4UE) and Blender add-ons receive: rotations of the bones of Unity's humanoid,
against a T-pose with all bones along the axes, and values of face shapes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..bodies.rig import TO_GLTF, Rig
from ..humans import Humans, rotmat_to_quaternion
from ..io.bone_names import bone_names
from ..io.rest_pose import with_rest_pose
from .run import LiveFrame

PACKET = 1400  # bytes of one UDP packet, at most: what networks carry whole
# VRM's names for the bones of the thumb are one joint nearer to the hand than Unity's
_THUMB = {"ThumbMetacarpal": "ThumbProximal", "ThumbProximal": "ThumbIntermediate"}
# a frame of a left-handed scene in which people before the camera face +z: glTF's, mirrored
MIRROR = np.array([-1, 1, 1], np.float32)
_SETTLING = (1, 10, 30)  # sights after which the bones are made anew from the shape, which settles

Message = tuple[str, tuple[Any, ...]]


class OscSender:
    """Sends messages to one address as OSC bundles that fit into a UDP packet."""

    def __init__(self, host: str, port: int) -> None:
        try:
            from pythonosc.udp_client import UDPClient
        except ImportError as error:
            raise ImportError("OSC and VMC need python-osc: pip install 'multihmr[live]'") from error
        try:
            self._client = UDPClient(host, port)
        except OSError as error:
            raise OSError(f"{host}:{port} is no address to send OSC to: {error.strerror}") from error

    def send(self, messages: Iterable[Message]) -> None:
        """Send the messages, in order, in as few packets as they fit in."""
        from pythonosc.osc_bundle_builder import IMMEDIATELY, OscBundleBuilder
        from pythonosc.osc_message_builder import OscMessageBuilder

        bundle, size = OscBundleBuilder(IMMEDIATELY), 16
        for address, values in messages:
            builder = OscMessageBuilder(address)
            for value in values:
                builder.add_arg(value)
            message = builder.build()
            if size > 16 and size + message.size + 4 > PACKET:
                self._send(bundle)
                bundle, size = OscBundleBuilder(IMMEDIATELY), 16
            bundle.add_content(message)
            size += message.size + 4
        if size > 16:
            self._send(bundle)

    def _send(self, bundle: Any) -> None:
        with contextlib.suppress(ConnectionError):  # no receiver yet
            self._client.send(bundle.build())

    def close(self) -> None:
        """Close the socket."""
        self._client._sock.close()


class OscOutput:
    """Sends the keypoints of all people, in metres (camera frame) and in the image.

    /multihmr/frame     number, time [s], people
    /multihmr/person    track id, score, x, y, z of the head [m]
    /multihmr/keypoint  track id, name, x, y, z [m], u, v in shares of the image's width and height
    """

    def __init__(self, host: str, port: int, keypoints: str = "coco17") -> None:
        self._sender, self.keypoints = OscSender(host, port), keypoints

    def send(self, result: LiveFrame) -> None:
        """Send one frame."""
        humans = result.humans
        height, width = humans.image_size
        messages: list[Message] = [
            ("/multihmr/frame", (result.frame.number, float(result.frame.time), len(humans)))
        ]
        has_points = self.keypoints in humans.topology.keypoint_sets
        points = humans.keypoints(self.keypoints) if has_points else None
        for i, number in enumerate(humans.numbers.tolist()):
            place = humans.translation[i].tolist()
            messages.append(("/multihmr/person", (number, float(humans.scores[i]), *place)))
            if points is None:
                continue
            for name, xyz, xy in zip(points.names, points.xyz[i], points.xy[i], strict=True):
                values = (number, name, *xyz.tolist(), *(xy / [width, height]).tolist())
                messages.append(("/multihmr/keypoint", values))
        self._sender.send(messages)

    def close(self) -> None:
        """Close the socket."""
        self._sender.close()


@dataclasses.dataclass
class _Avatar:
    """One person as the receiver knows them."""

    rig: Rig
    origin: np.ndarray  # (3,) where the person first stood, in the scene [m]
    sights: int = 0


class VmcOutput:
    """Sends the motion of one or more people by VMC: the first person to `port`, others to the ports above.

    A new person takes the first free port and keeps it. A person's origin (/VMC/Ext/Root/Pos) is the floor
    under the first place of the hips, in a left-handed frame with the camera in its origin, y up, in which
    people who look into the camera face +z; the hips move from there.
    """

    def __init__(self, body: Any, host: str, port: int, *, people: int = 1) -> None:
        if people < 1:
            raise ValueError(f"VMC is sent for at least 1 person, got {people}")
        self.body = body
        self._senders = [OscSender(host, port + i) for i in range(people)]
        self._ports: list[int | None] = [None] * people  # track id of whom each is for
        self._avatars: dict[int, _Avatar] = {}

    def send(self, result: LiveFrame) -> None:
        """Send the pose of all people with a port."""
        humans = result.humans
        there = humans.numbers.tolist()
        self._ports = [number if number in there else None for number in self._ports]
        for number in there:
            if number not in self._ports and None in self._ports:
                self._ports[self._ports.index(None)] = number
        for number, sender in zip(self._ports, self._senders, strict=True):
            if number is not None:
                person = humans[there.index(number)]
                sender.send(self._messages(person, number, float(result.frame.time)))
        self._avatars = {n: a for n, a in self._avatars.items() if n in self._ports}

    def _messages(self, person: Humans, number: int, time: float) -> list[Message]:
        avatar = self._avatar(person, number)
        messages: list[Message] = [("/VMC/Ext/OK", (1,)), ("/VMC/Ext/T", (time,))]
        root = (*(avatar.origin * MIRROR).tolist(), 0.0, 0.0, 0.0, 1.0)
        messages.append(("/VMC/Ext/Root/Pos", ("root", *root)))
        for name, place, turn in humanoid_bones(person, avatar.rig, avatar.origin):
            messages.append(("/VMC/Ext/Bone/Pos", (name, *place.tolist(), *turn.tolist())))
        shapes = face_shapes(person)
        messages += [("/VMC/Ext/Blend/Val", shape) for shape in shapes.items()]
        return [*messages, ("/VMC/Ext/Blend/Apply", ())] if shapes else messages

    def _avatar(self, person: Humans, number: int) -> _Avatar:
        avatar = self._avatars.get(number)
        sights = avatar.sights + 1 if avatar else 1
        if avatar is None or sights in _SETTLING:
            rig = with_rest_pose(self.body.rigs(person.shape)[0], "t-pose")
            if avatar is None:
                floor = np.array([0, rig.offsets[0, 1] - rig.vertices[:, 1].min(), 0])
                avatar = _Avatar(rig, person.joints[0, 0] * TO_GLTF - floor)
            avatar = _Avatar(rig, avatar.origin)
        avatar.sights = sights
        self._avatars[number] = avatar
        return avatar

    def close(self) -> None:
        """Close the sockets."""
        for sender in self._senders:
            sender.close()


def humanoid_bones(person: Humans, rig: Rig, origin: np.ndarray) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """(name in Unity, (3,) place [m], (4,) rotation x, y, z, w) of each bone of Unity's humanoid.

    Both are in the frame of the bone above in the humanoid; of the hips, from `origin`. Left-handed axes.

    Args:
        person: one person.
        rig: of this person, in a T-pose.
        origin: (3,) in the frame of glTF's scenes.
    """
    names = unity_names(person.body)
    local = rig.rotations(person.pose)[0]
    turns, places = local.copy(), np.zeros((len(local), 3), np.float32)
    places[0] = person.joints[0, 0] * TO_GLTF - origin
    above: dict[int, int] = {}  # bone -> the nearest bone above that the humanoid has, -1 for the hips
    for bone, parent in enumerate(rig.parents):
        if parent >= 0:
            turns[bone] = turns[parent] @ local[bone]
            places[bone] = places[parent] + turns[parent] @ rig.offsets[bone]
            above[bone] = parent if rig.bone_names[parent] in names else above[parent]
        else:
            above[bone] = -1
    bones = []
    for bone, ours in enumerate(rig.bone_names):
        if ours in names:
            parent = above[bone]
            turn, place = turns[bone], places[bone]
            if parent >= 0:
                turn, place = turns[parent].T @ turn, turns[parent].T @ (place - places[parent])
            bones.append((names[ours], place * MIRROR, mirrored_quaternion(turn)))
    return bones


def mirrored_quaternion(rotation: np.ndarray) -> np.ndarray:
    """(3, 3) rotation of a right-handed frame -> (4,) x, y, z, w of the same in the frame mirrored in x."""
    w, x, y, z = rotmat_to_quaternion(rotation)
    return np.array([x, -y, -z, w])


def unity_names(body: str) -> dict[str, str]:
    """Our bone -> the name in Unity's HumanBodyBones."""
    names = {}
    for ours, vrm in bone_names(body, "vrm").items():
        name = vrm[0].upper() + vrm[1:]
        for old, new in _THUMB.items():
            if name.endswith(old):
                name = name.removesuffix(old) + new
                break
        names[ours] = name
    return names


def face_shapes(person: Humans) -> dict[str, float]:
    """ARKit's face shapes ("JawOpen", 0 to 1), as avatars with "perfect sync" have them; {} without a face.

    Shapes that the model does not predict are left out.
    """
    names = person.topology.expression_names
    if "jawOpen" not in names:
        return {}
    return {
        name[0].upper() + name[1:]: float(np.clip(value, 0, 1))
        for name, value in zip(names, person.expression[0], strict=True)
        if name not in person.unpredicted
    }
