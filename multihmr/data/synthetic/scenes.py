"""Random scenes: positions, poses and shapes of people, and the camera. Parameters only, no meshes.

World: z up, metres, the ground at z = 0; the camera points roughly along +y. A person's pose[0] is the
rotation of the body in the world; `position` is that of the body's origin, the root joint.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from .poses import PoseSampler, turn

PEOPLE_WEIGHTS = (0.05, 0.26, 0.28, 0.2, 0.12, 0.05, 0.04)  # of 0, 1, ... 6 people
CLOSEUP_WEIGHTS = (0.0, 0.5, 0.33, 0.17)
CROWDS = 0.15  # share of the other pictures with 7 to 15 people
SHOE_SOLE = 0.012  # [m] height of feet above the ground
NEAREST, FARTHEST = 0.45, 18.0  # range of head distances [m]
FACIAL_PAIRS = ("browDown", "eyeBlink", "mouthSmile", "mouthFrown", "eyeSquint", "eyeWide", "cheekSquint",
                "browOuterUp", "mouthStretch", "mouthUpperUp", "mouthLowerDown", "mouthDimple", "noseSneer",
                "mouthPress")  # fmt: skip
# height phenotype by age (anny's calibration to WHO growth charts): mean at these ages
AGE_ANCHORS = (0.0, 0.05, 0.215, 0.415, 0.67)
HEIGHT_MEANS = (0.25, 0.46, 0.34, 0.42, 0.38)

PlaceBody = Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Person:
    """Body parameters, position of the root joint, and the seed of skin and clothes."""

    pose: np.ndarray  # (R, 3, 3)
    shape: np.ndarray  # (S,)
    expression: np.ndarray  # (E,)
    position: np.ndarray  # (3,) [m]
    stance: str  # "stand", "sit" or "other"
    look_seed: int
    joints: np.ndarray  # (J, 3) in the world, kept because placing needed them [m]

    @property
    def female(self) -> bool:
        return bool(self.shape[0] > 0.5)

    @property
    def child(self) -> bool:
        return bool(self.shape[1] < 0.5)

    @property
    def old(self) -> bool:
        return bool(self.shape[1] > 0.86)


@dataclass(frozen=True)
class Camera:
    """K (3, 3) in pixels, rotation (3, 3) from world to camera, position (3,) [m], size (height, width)."""

    K: np.ndarray
    rotation: np.ndarray
    position: np.ndarray
    size: tuple[int, int]

    @property
    def extrinsics(self) -> np.ndarray:
        """(3, 4) float32 from the world to the camera [m]."""
        moved = -self.rotation @ self.position
        return np.concatenate([self.rotation, moved[:, None]], axis=1).astype(np.float32)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """World points (..., 3) -> pixels (..., 2) and depths (...); pixels are invalid at depths <= 0."""
        p = (points - self.position) @ self.rotation.T
        z = np.maximum(p[..., 2], 1e-3)
        xy = p[..., :2] / z[..., None] * self.K[0, 0] + self.K[:2, 2]
        return xy, p[..., 2]

    def shows(self, point: np.ndarray, margin: float = 0.01) -> bool:
        """Whether a world point is in the frame, at least `margin` of the image size from its border."""
        xy, depth = self.project(point)
        size = np.array(self.size[::-1])
        return bool(depth > 0.2 and (xy > margin * size).all() and (xy < (1 - margin) * size).all())


@dataclass(frozen=True)
class Scene:
    """People, camera, framing, and the seed of everything else in the picture."""

    people: tuple[Person, ...]
    camera: Camera
    framing: str  # "closeup", "portrait", "upper", "whole", "far" or "crowd"
    seed: int


class SceneSampler:
    """Samples random scenes.

    place_body(pose, shape, expression) -> (joints (N, J, 3), lowest z (N,)) in the body's own frame [m]
    """

    def __init__(
        self,
        poses: PoseSampler,
        place_body: PlaceBody,
        *,
        head_joint: int,
        expression_names: tuple[str, ...],
        size: int = 448,
    ) -> None:
        self.poses, self.place_body, self.head, self.size = poses, place_body, head_joint, size
        self.expression_names = expression_names
        names = poses.names
        fine = ("finger", "metacarpal", "toe", "eye")
        self._solid = np.array([not n.startswith(fine) for n in names])
        trunk = ("root", "pelvis", "spine", "clavicle", "shoulder", "neck", "head", "upperleg")
        self._radius = np.where([n.startswith(trunk) for n in names], 0.15, 0.075)[self._solid]
        self.side = {s: [names.index(f"{n}.{s}") for n in ("wrist", "foot", "lowerleg01")] for s in "LR"}

    def sample(self, rng: np.random.Generator, *, closeup: bool = False) -> Scene:
        """A random scene; people who would intersect others or whose head is out of frame are left out."""
        if closeup:
            count, framing = int(rng.choice(len(CLOSEUP_WEIGHTS), p=CLOSEUP_WEIGHTS)), "closeup"
        elif rng.random() < CROWDS:
            count, framing = int(rng.integers(7, 16)), "crowd"
        else:
            count = int(rng.choice(len(PEOPLE_WEIGHTS), p=PEOPLE_WEIGHTS))
            framing = _random_framing(rng, count)
        people = self._random_people(rng, count, framing)
        camera = self._random_camera(rng, people[0] if people else None, framing)
        arranged = self._arrange(rng, people, camera, framing)
        kept = tuple(p for p in arranged if self._presentable(p, camera))
        return Scene(kept, camera, framing, int(rng.integers(1 << 62)))

    def _presentable(self, person: Person, camera: Camera) -> bool:
        head = person.joints[self.head]
        distance = float(np.linalg.norm(head - camera.position))
        nearest = float(np.linalg.norm(person.joints[self._solid] - camera.position, axis=1).min())
        return NEAREST < distance < FARTHEST and nearest > 0.3 and camera.shows(head)

    def _shows_hands(self, person: Person, camera: Camera) -> bool:
        """Whether both hands are in the frame and no further away than the centre of the trunk."""
        wrists = person.joints[[self.side["L"][0], self.side["R"][0]]]
        trunk = (person.joints[0] + person.joints[self.head]) / 2
        nearer = camera.project(wrists)[1] < camera.project(trunk)[1] + 0.1
        return bool(nearer.all() and all(camera.shows(wrist) for wrist in wrists))

    # --- people

    def _random_people(self, rng: np.random.Generator, count: int, framing: str) -> list[Person]:
        if count == 0:
            return []
        drawn = [self.poses.sample(rng, calm=framing == "portrait" and k == 0) for k in range(count)]
        shapes = np.stack([random_shape(rng, adult=framing == "portrait" and k == 0) for k in range(count)])
        faces = np.stack([self._random_expression(rng) for _ in range(count)])
        poses = np.stack([p.rotations for p in drawn])
        joints, lowest = self.place_body(poses, shapes, faces)
        people = []
        for k in range(count):
            position = np.array([0, 0, SHOE_SOLE - lowest[k]])
            seed = int(rng.integers(1 << 62))
            person = Person(
                poses[k], shapes[k], faces[k], position, drawn[k].stance, seed, joints[k] + position
            )
            people.append(person)
        return people

    def _random_expression(self, rng: np.random.Generator) -> np.ndarray:
        face = np.zeros(len(self.expression_names), np.float32)
        if rng.random() < 0.25:
            return face
        at = {n: i for i, n in enumerate(self.expression_names)}
        for _ in range(int(rng.integers(1, 6))):
            pair, strength = str(rng.choice(FACIAL_PAIRS)), rng.uniform(0.1, 0.9)
            if f"{pair}Left" in at:
                face[at[f"{pair}Left"]] = strength
                face[at[f"{pair}Right"]] = np.clip(strength + rng.normal(0, 0.15), 0, 1)
        if rng.random() < 0.35:
            for name in ("mouthSmileLeft", "mouthSmileRight"):
                face[at[name]] = rng.uniform(0.3, 0.9)
        if rng.random() < 0.35:
            face[at["jawOpen"]] = rng.beta(1.2, 4)
        for name in rng.choice(self.expression_names, 2):
            if name != "tongueOut":
                face[at[str(name)]] = max(face[at[str(name)]], rng.uniform(0, 0.4))
        return face

    def _turned(self, person: Person, yaw: float, xy: np.ndarray) -> Person:
        """The person rotated by `yaw` about the vertical and moved so that the trunk is above `xy`."""
        z = turn((0, 0, 1), yaw)
        joints = (person.joints - person.position) @ z.T
        center = (joints[0, :2] + joints[self.head, :2]) / 2
        position = np.array([xy[0] - center[0], xy[1] - center[1], person.position[2]])
        pose = person.pose.copy()
        pose[0] = z @ pose[0]
        return replace(person, pose=pose, position=position, joints=joints + position)

    def _free(self, person: Person, others: list[Person]) -> bool:
        """Whether the person intersects none of the others, by spheres along the bones."""
        a = person.joints[self._solid]
        for other in others:
            b = other.joints[self._solid]
            gap = np.linalg.norm(a[:, None] - b[None], axis=2) - self._radius[:, None] - self._radius[None]
            flat = np.linalg.norm(person.joints[0, :2] - other.joints[0, :2])
            if gap.min() < 0 or flat < 0.3:
                return False
        return True

    # --- camera

    def _random_camera(self, rng: np.random.Generator, subject: Person | None, framing: str) -> Camera:
        """A camera that frames the subject, who will be at the origin, as `framing` says."""
        fov = math.radians(
            float(np.clip(rng.normal(58, 15), 25, 110) if rng.random() < 0.6 else rng.uniform(25, 110))
        )
        top = float(subject.joints[:, 2].max()) + 0.12 if subject else 1.7
        low = 0.0
        share = rng.uniform(0.55, 0.95)
        if framing == "portrait":
            low, share = top - rng.uniform(0.38, 0.8), rng.uniform(0.6, 1.05)
        elif framing == "upper":
            low, share = top - min(rng.uniform(0.8, 1.2), top * 0.75), rng.uniform(0.7, 1.05)
        elif framing == "closeup":
            low = 0.0 if rng.random() < 0.6 else top - min(rng.uniform(0.85, 1.15), top * 0.75)
            share = rng.uniform(0.7, 0.98)
        elif framing == "far":
            share = float(np.exp(rng.uniform(math.log(0.17), math.log(0.42))))
        elif framing == "crowd":
            share = rng.uniform(0.4, 0.8)
        low = min(low, top - 0.3)
        if framing == "closeup":  # as in CUFFS people are about 2.5 m away, whatever the lens
            distance = float(np.clip(rng.normal(2.5, 0.4), 1.5, 3.6))
            fov = 2 * math.atan(max(top - low, 0.6) / share / 2 / distance)
            fov = float(np.clip(fov, math.radians(25), math.radians(110)))
        distance = (top - low) / share / (2 * math.tan(fov / 2))
        distance = float(np.clip(distance, 0.65, 11.0))
        height = _camera_height(rng, framing, top)
        aim = np.array([rng.normal(0, 0.1) * distance * math.tan(fov / 2), 0.0, (top + low) / 2])
        aim[2] += rng.normal(0, 0.1) * distance * math.tan(fov / 2)
        rise = float(np.clip(height - aim[2], -0.9 * distance, 0.9 * distance))
        position = np.array([0.0, -math.sqrt(max(distance**2 - rise**2, 0.1)), max(aim[2] + rise, 0.15)])
        roll = rng.normal(0, 0.03) if rng.random() < 0.8 else rng.normal(0, 0.2)
        return Camera(
            self._intrinsics(rng, fov), _look_at(position, aim, roll), position, (self.size, self.size)
        )

    def _intrinsics(self, rng: np.random.Generator, fov: float) -> np.ndarray:
        focal = self.size / (2 * math.tan(fov / 2))
        center = np.full(2, self.size / 2)
        if rng.random() < 0.1:  # a crop off the centre of a larger picture
            center = center + rng.normal(0, 0.05, 2) * self.size
        return np.array([[focal, 0, center[0]], [0, focal, center[1]], [0, 0, 1]], np.float32)

    # --- positions

    def _arrange(
        self, rng: np.random.Generator, people: list[Person], camera: Camera, framing: str
    ) -> list[Person]:
        """Place the first person near the origin, the others free of intersections and in the frame."""
        layout = str(rng.choice(["row", "scatter", "behind", "facing"], p=[0.35, 0.35, 0.2, 0.1]))
        arranged: list[Person] = []
        for k, person in enumerate(people):
            for attempt in range(14):
                xy = np.zeros(2) if k == 0 else self._spot(rng, arranged, camera, layout, framing)
                moved = self._turned(person, self._yaw(rng, camera, xy, layout, framing, k), xy)
                wanted = framing == "closeup" and k == 0 and attempt < 13
                hidden = wanted and not self._shows_hands(moved, camera)
                if self._presentable(moved, camera) and self._free(moved, arranged) and not hidden:
                    arranged.append(moved)
                    break
                if k == 0 and not self._presentable(moved, camera):
                    camera_shift = (
                        moved.joints[self.head, :2] * -0.5
                    )  # a bent subject: move it, not the camera
                    moved = self._turned(person, rng.uniform(-math.pi, math.pi), camera_shift)
                    if self._presentable(moved, camera):
                        arranged.append(moved)
                        break
        return arranged

    def _spot(
        self, rng: np.random.Generator, arranged: list[Person], camera: Camera, layout: str, framing: str
    ) -> np.ndarray:
        anchor = arranged[int(rng.integers(len(arranged)))].joints[0, :2] if arranged else np.zeros(2)
        if layout in ("row", "facing") and rng.random() < 0.85:
            side = rng.choice([-1.0, 1.0]) * rng.uniform(0.4, 1.0)
            return anchor + np.array([side, rng.normal(0, 0.2 if layout == "row" else 0.5)])
        if layout == "behind" and rng.random() < 0.85:
            away = anchor - camera.position[:2]
            away = away / max(float(np.linalg.norm(away)), 1e-6)
            return anchor + away * rng.uniform(0.35, 1.6) + np.array([-away[1], away[0]]) * rng.normal(0, 0.4)
        near = max(0.8, -camera.position[1] * (0.5 if framing == "crowd" else 0.75))
        depth = float(np.exp(rng.uniform(math.log(near), math.log(max(near * 1.3, min(11.0, near * 4))))))
        half = camera.size[1] / (2 * float(camera.K[0, 0])) * depth
        return camera.position[:2] + np.array([rng.uniform(-half, half), depth])

    def _yaw(
        self, rng: np.random.Generator, camera: Camera, xy: np.ndarray, layout: str, framing: str, order: int
    ) -> float:
        """The person's rotation about the vertical; 0 faces -y, roughly the camera."""
        to_camera = camera.position[:2] - xy
        toward = math.atan2(to_camera[0], -to_camera[1])  # the yaw that faces the camera
        if framing == "closeup":
            return toward + rng.normal(0, 0.7)
        if framing == "portrait" and order == 0:
            return toward + rng.normal(0, 0.3 if rng.random() < 0.8 else 0.8)
        if layout == "facing" and order > 0:
            return math.atan2(-xy[0], xy[1] + 1e-6) + rng.normal(0, 0.3)
        if rng.random() < (0.8 if layout == "row" else 0.55):
            return toward + rng.normal(0, 0.45)
        return float(rng.uniform(-math.pi, math.pi))


def _random_framing(rng: np.random.Generator, count: int) -> str:
    names = ("portrait", "upper", "whole", "far", "crowd")
    weights = {0: (0.1, 0.2, 0.4, 0.2, 0.1), 1: (0.4, 0.22, 0.28, 0.1, 0), 2: (0.22, 0.28, 0.35, 0.15, 0)}
    return str(rng.choice(names, p=weights.get(count, (0.1, 0.22, 0.33, 0.12, 0.23))))


def _camera_height(rng: np.random.Generator, framing: str, top: float) -> float:
    if framing == "portrait" or rng.random() < 0.35:
        return float(max(top - 0.1 + rng.normal(0, 0.12), 0.3))
    kind = rng.random()
    if kind < 0.55:
        return float(rng.uniform(1.2, 1.75))
    return float(rng.uniform(0.3, 1.1)) if kind < 0.78 else float(rng.uniform(1.8, 2.6))


def _look_at(position: np.ndarray, aim: np.ndarray, roll: float) -> np.ndarray:
    """(3, 3) rotation from world (z up) to a camera (x right, y down, z forward) pointing at `aim`."""
    forward = aim - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1.0))
    right = right / np.linalg.norm(right)
    level = np.stack([right, np.cross(forward, right), forward])
    return np.asarray(turn((0, 0, 1), roll) @ level, np.float64)


def random_shape(rng: np.random.Generator, *, adult: bool) -> np.ndarray:
    """(6,) gender, age, muscle, weight, height, proportions."""
    kind = rng.random()
    if adult or kind < 0.74:
        age = rng.uniform(0.62, 0.86)
    elif kind < 0.83:
        age = rng.uniform(0.86, 1.0)
    elif kind < 0.93:
        age = rng.uniform(0.33, 0.62)
    else:
        age = rng.uniform(0.12, 0.33)
    gender = float(np.clip(rng.beta(0.35, 0.35), 0, 1))
    height = float(np.interp(age, AGE_ANCHORS, HEIGHT_MEANS)) + rng.normal(0, 0.09)
    muscle, weight = np.clip(rng.normal(0.5, 0.2), 0.05, 0.95), np.clip(rng.normal(0.48, 0.22), 0.03, 1)
    shape = [gender, age, muscle, weight, np.clip(height, 0.05, 0.95), rng.uniform(0.1, 0.9)]
    return np.asarray(shape, np.float32)
