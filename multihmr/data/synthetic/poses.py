"""Random poses of the Anny rig: captured ones, mixed, mirrored and perturbed, and procedural ones.

A pose is (104, 3, 3) local rotations in Anny's `local-ref` axes: relative to the reference pose, in the axes
of the body (z up, the person faces -y, left at +x), so that a bone's global rotation is the product of its
ancestors'. Positive rotations about x bend the trunk forward and the knee; negative ones lift the thigh.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .assets import files_below
from .bvh import rig_rotations
from .splits import captures_of_split, of_split
from .untrusted_text import inside

MIRROR = np.array([-1.0, 1, 1], np.float32)
LOWER_BODY = ("pelvis", "upperleg", "lowerleg", "foot", "toe")
ACROBATIC = ("gym", "fly", "prostrate", "Snorkel", "Swinging", "benchmark", "lie_")
CLIMBING = ("01_",)  # playground climbing: half of the captured frames, subsampled so as not to dominate


@dataclass(frozen=True)
class Pose:
    """rotations (104, 3, 3) with the root upright and facing -y; `stance` is "stand", "sit" or "other"."""

    rotations: np.ndarray
    stance: str


def turn(axis: np.ndarray | Sequence[float], angle: float) -> np.ndarray:
    """(3, 3) rotation about `axis` (need not be normalised) by `angle` [rad]."""
    x, y, z = (float(v) for v in axis)  # plain floats: ten times quicker than numpy on three numbers
    length = max(math.sqrt(x * x + y * y + z * z), 1e-12)
    x, y, z = x / length, y / length, z / length
    s, c = math.sin(angle), math.cos(angle)
    d = 1 - c
    rows = (
        (c + x * x * d, x * y * d - z * s, x * z * d + y * s),
        (y * x * d + z * s, c + y * y * d, y * z * d - x * s),
        (z * x * d - y * s, z * y * d + x * s, c + z * z * d),
    )
    return np.array(rows, np.float32)


def turn_between(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(3, 3) smallest rotation that takes direction a to direction b."""
    axis = np.cross(a, b)
    angle = np.arctan2(np.linalg.norm(axis), float(np.dot(a, b)))
    return turn(axis, float(angle)) if np.linalg.norm(axis) > 1e-9 else np.eye(3, dtype=np.float32)


def quaternions_to_matrices(q: np.ndarray) -> np.ndarray:
    """(..., 4) x, y, z, w -> (..., 3, 3) float32."""
    q = q.astype(np.float32)
    x, y, z, w = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def nearest_rotation(matrix: np.ndarray) -> np.ndarray:
    """The (..., 3, 3) rotations nearest to the given matrices, which mixing and products leave inexact."""
    u, _, v = np.linalg.svd(matrix)
    u[..., -1] *= np.linalg.det(u @ v)[..., None]
    return (u @ v).astype(np.float32)


class PoseSampler:
    """Random poses from `assets` (cmu_poses_anny.npz, makehuman_cc0/poses) if given, and procedural ones.

    .bvh files with MakeHuman's default rig are added from all its folders; `refused` has the reasons for the
    others. `reference` (104, 3) are the joints of an average adult in the reference pose.
    """

    def __init__(
        self,
        joint_names: Sequence[str],
        reference: np.ndarray,
        assets: Path | None = None,
        *,
        split: str = "all",
    ) -> None:
        self.names = list(joint_names)
        self.index = {name: i for i, name in enumerate(self.names)}
        self.reference = np.asarray(reference, np.float64)
        swap = {".L": ".R", ".R": ".L"}
        self._mirrored = [self.index[n[:-2] + swap.get(n[-2:], n[-2:])] for n in self.names]
        self._lower = np.array([n.startswith(LOWER_BODY) for n in self.names])
        self._captured: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._posed: np.ndarray | None = None
        self._posed_names: list[str] = []
        if assets is not None and (assets / "cmu_poses_anny.npz").is_file():
            self._read_captured(assets / "cmu_poses_anny.npz", split)
        if assets is not None and (assets / "makehuman_cc0/poses/poses_anny_local_ref.npz").is_file():
            self._read_posed(assets / "makehuman_cc0/poses/poses_anny_local_ref.npz", split)
        self.refused: dict[str, str] = {}
        if assets is not None:
            self._read_motions(assets, split)

    def _read_captured(self, path: Path, split: str) -> None:
        with np.load(path, allow_pickle=False) as d:
            bones = np.array([self.index[str(n)] for n in d["bone_names"]])
            climbing = np.array([str(n).startswith(CLIMBING) for n in d["source_names"]])[d["source"]]
            weight = np.where(climbing, 0.35, 1.0) * captures_of_split(d["source_names"], split)[d["source"]]
            self._captured = d["quat_xyzw"], bones, weight / weight.sum()

    def _read_posed(self, path: Path, split: str) -> None:
        with np.load(path, allow_pickle=False) as d:
            order = [list(d["bone_names"]).index(n) for n in self.names]
            every = [str(n) for n in d["pose_names"]]
            self._posed_names = of_split(every, split)
            rows = [every.index(n) for n in self._posed_names]
            self._posed = quaternions_to_matrices(d["quat_xyzw"][rows][:, order])

    def _read_motions(self, folder: Path, split: str) -> None:
        """Add the .bvh files outside prepared packs."""
        read: dict[str, np.ndarray] = {}
        for path in files_below(folder, (".bvh",)):
            name = path.relative_to(folder).with_suffix("").as_posix()
            try:
                read[name] = rig_rotations(inside(folder, f"{name}{path.suffix}"), self.names, self.reference)
            except (ValueError, OSError) as error:
                self.refused[name] = str(error)
        if self.refused:
            shown = "; ".join(list(self.refused.values())[:3])
            warnings.warn(f"unusable poses in {folder}: {len(self.refused)} ({shown})", stacklevel=3)
        kept = of_split(read, split)
        if kept:
            before = self._posed if self._posed is not None else read[kept[0]][:0]
            self._posed = np.concatenate([before, *(read[name] for name in kept)])
            # the last part of the name has the stance, as in "poses/standing01"
            self._posed_names += [name.split("/")[-1] for name in kept for _ in read[name]]

    def sample(self, rng: np.random.Generator, *, calm: bool = False) -> Pose:
        """A random pose; `calm` excludes poses that are implausible in a portrait."""
        kind = rng.random()
        if kind < (0.3 if calm else 0.68) and self._captured is not None:
            pose = self._capture(rng)
            if calm and self._lean(pose) > 0.3:
                pose = self._standing(rng)
        elif kind < (0.4 if calm else 0.78) and self._posed is not None:
            pose = self._artist(rng, calm=calm)
        elif kind < 0.9 or calm:
            pose = self._standing(rng) if rng.random() < 0.75 else self._sitting(rng)
        else:
            low = (self._sitting, self._crouching, self._lying)
            pose = low[int(rng.choice(3, p=[0.45, 0.35, 0.2]))](rng)
        rotations = pose.rotations.copy()
        if rng.random() < 0.5:
            rotations = self.mirror(rotations)
        self._perturb(rotations, rng, calm=calm)
        self._look_around(rotations, rng)
        self.bend_hands(rotations, rng)
        return Pose(nearest_rotation(rotations), pose.stance)

    def _lean(self, pose: Pose) -> float:
        """Angle [rad] of the chest to the vertical."""
        chest = pose.rotations[0]
        for name in ("spine05", "spine04", "spine03", "spine02", "spine01"):
            chest = chest @ pose.rotations[self.index[name]]
        return float(np.arccos(np.clip(chest[2, 2], -1, 1)))

    def mirror(self, rotations: np.ndarray) -> np.ndarray:
        """The pose with left and right exchanged."""
        return rotations[self._mirrored] * MIRROR[:, None] * MIRROR[None, :]

    def _capture(self, rng: np.random.Generator) -> Pose:
        assert self._captured is not None
        quaternions, bones, weight = self._captured
        rotations = np.tile(np.eye(3, dtype=np.float32), (len(self.names), 1, 1))
        first, second = rng.choice(len(quaternions), 2, p=weight)
        rotations[bones] = quaternions_to_matrices(quaternions[first])
        other = rotations.copy()
        other[bones] = quaternions_to_matrices(quaternions[second])
        mix = rng.random()
        if mix < 0.25:  # legs of one pose, trunk and arms of another
            upper = ~self._lower
            upper[0] = False
            rotations[upper] = other[upper]
        elif mix < 0.35:
            rotations = nearest_rotation(rotations + other * rng.uniform(0.2, 0.8))
        return Pose(rotations, "stand" if rotations[0][2, 2] > 0.8 else "other")

    def _artist(self, rng: np.random.Generator, *, calm: bool) -> Pose:
        assert self._posed is not None
        allowed = [
            k
            for k, n in enumerate(self._posed_names)
            if not calm or n.startswith(("standing", "akimbo", "sit"))
        ]
        if not allowed:
            return self._standing(rng)
        rare = np.array([0.25 if self._posed_names[k].startswith(ACROBATIC) else 1.0 for k in allowed])
        k = int(rng.choice(allowed, p=rare / rare.sum()))
        name = self._posed_names[k]
        rotations = self._posed[k].copy()
        upright = name.startswith(("standing", "akimbo", "tpose", "run", "fight", "dance"))
        if upright and rng.random() < 0.4 and self._captured is not None:
            other = self._capture(rng).rotations
            rotations[self._lower] = other[self._lower]
        stance = "stand" if upright else "sit" if name in ("sitting", "Sit_01A") else "other"
        return Pose(rotations, stance)

    def _neutral(self) -> np.ndarray:
        return np.tile(np.eye(3, dtype=np.float32), (len(self.names), 1, 1))

    def _standing(self, rng: np.random.Generator) -> Pose:
        r = self._neutral()
        self._trunk(r, rng, forward=rng.normal(0.03, 0.08))
        for side in ("L", "R"):
            sign = 1 if side == "L" else -1
            swing, bend = rng.normal(0, 0.15), abs(rng.normal(0, 0.15))
            self._leg(r, side, flex=swing + bend / 2, spread=sign * rng.normal(-0.13, 0.08), knee=bend)
        self._arms(r, rng)
        return Pose(r, "stand")

    def _sitting(self, rng: np.random.Generator) -> Pose:
        r = self._neutral()
        self._trunk(r, rng, forward=rng.normal(0.05, 0.15))
        for side in ("L", "R"):
            sign = 1 if side == "L" else -1
            flex = rng.normal(1.45, 0.12)
            self._leg(r, side, flex=flex, spread=sign * rng.normal(-0.05, 0.15), knee=rng.normal(1.45, 0.2))
        self._arms(r, rng)
        return Pose(r, "sit")

    def _crouching(self, rng: np.random.Generator) -> Pose:
        r = self._neutral()
        depth = rng.uniform(0.5, 1.0)
        self._trunk(r, rng, forward=0.5 * depth + rng.normal(0, 0.15))
        one_knee = rng.random() < 0.35
        for side in ("L", "R"):
            sign = 1 if side == "L" else -1
            flex, knee = 1.9 * depth + rng.normal(0, 0.1), 2.2 * depth + rng.normal(0, 0.1)
            if one_knee and side == "L":
                flex, knee = rng.normal(0.1, 0.15), rng.normal(1.6, 0.15)
            self._leg(r, side, flex=flex, spread=sign * rng.normal(0.05, 0.15), knee=knee)
        self._arms(r, rng)
        return Pose(r, "other")

    def _lying(self, rng: np.random.Generator) -> Pose:
        """Random lying pose: on the back, the belly or a side."""
        r = (self._standing if rng.random() < 0.6 else self._crouching)(rng).rotations.copy()
        roll = float(rng.choice([0.0, math.pi, math.pi / 2, -math.pi / 2]) + rng.normal(0, 0.2))
        r[0] = turn((0, 1, 0), roll) @ turn((1, 0, 0), -math.pi / 2) @ r[0]
        return Pose(r, "other")

    def _leg(self, r: np.ndarray, side: str, *, flex: float, spread: float, knee: float) -> None:
        """[rad]: `flex` lifts the thigh, `spread` < 0 moves a left thigh outwards, `knee` bends the knee."""
        flex, knee = float(np.clip(flex, -0.4, 2.2)), float(np.clip(knee, 0, 2.5))
        r[self.index[f"upperleg01.{side}"]] = turn((0, 1, 0), -spread) @ turn((1, 0, 0), -flex)
        r[self.index[f"lowerleg01.{side}"]] = turn((1, 0, 0), knee)
        # the sole stays about level while the shin is not far from upright
        r[self.index[f"foot.{side}"]] = turn((1, 0, 0), float(np.clip(flex - knee, -0.6, 0.5)))

    def _trunk(self, r: np.ndarray, rng: np.random.Generator, *, forward: float) -> None:
        side, twist = rng.normal(0, 0.08), rng.normal(0, 0.12)
        for name, share in (("spine04", 0.3), ("spine03", 0.3), ("spine02", 0.25), ("spine01", 0.15)):
            bend = turn((1, 0, 0), forward * share) @ turn((0, 1, 0), side * share)
            r[self.index[name]] = bend @ turn((0, 0, 1), twist * share)

    def _look_around(self, r: np.ndarray, rng: np.random.Generator) -> None:
        yaw, nod, tilt = rng.normal(0, 0.25), rng.normal(0.0, 0.15), rng.normal(0, 0.08)
        yaw, nod = float(np.clip(yaw, -0.9, 0.9)), float(np.clip(nod, -0.5, 0.5))
        for name, share in (("neck01", 0.25), ("neck02", 0.25), ("neck03", 0.2), ("head", 0.3)):
            more = turn((0, 0, 1), yaw * share) @ turn((1, 0, 0), nod * share) @ turn((0, 1, 0), tilt * share)
            r[self.index[name]] = r[self.index[name]] @ more

    def _arms(self, r: np.ndarray, rng: np.random.Generator) -> None:
        both = rng.random() < 0.35  # both arms alike
        drawn = [self._arm_directions(rng) for _ in range(2)]
        for k, side in enumerate(("L", "R")):
            upper, fore = drawn[0 if both else k]
            flip = MIRROR if side == "R" else 1.0
            self._arm(r, side, upper * flip, fore * flip, rng)

    def _arm_directions(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Directions of a left upper arm and forearm in the trunk's axes."""
        kinds = [
            # upper arm, forearm
            ((0.18, 0.0, -1.0), (0.1, -0.2, -1.0)),  # hanging
            ((0.45, 0.35, -0.9), (-0.7, -0.75, -0.35)),  # hand on the hip
            ((0.15, -0.1, -1.0), (-0.65, -0.75, 0.15)),  # crossed, or holding something
            ((0.2, -0.4, -0.9), (-0.35, -0.4, 1.0)),  # hand at the face
            ((0.3, -0.9, -0.1), (0.1, -1.0, 0.2)),  # reaching to the front
            ((1.0, 0.0, 0.1), (0.9, -0.2, 0.5)),  # out to the side, waving
            ((0.35, -0.1, 1.0), (-0.2, -0.2, 1.0)),  # up
            ((0.3, -0.3, -0.9), (0.0, -1.0, -0.2)),  # lap
        ]
        k = int(rng.choice(len(kinds), p=[0.3, 0.12, 0.13, 0.1, 0.1, 0.08, 0.05, 0.12]))
        upper, fore = (np.asarray(d) + rng.normal(0, 0.16, 3) for d in kinds[k])
        return upper / np.linalg.norm(upper), fore / np.linalg.norm(fore)

    def _arm(
        self, r: np.ndarray, side: str, upper: np.ndarray, fore: np.ndarray, rng: np.random.Generator
    ) -> None:
        shoulder, elbow, wrist = (
            self.reference[self.index[f"{n}.{side}"]] for n in ("upperarm01", "lowerarm01", "wrist")
        )
        a, b = elbow - shoulder, wrist - elbow
        a, b = a / np.linalg.norm(a), b / np.linalg.norm(b)
        swing = turn_between(a, upper)
        # twist the upper arm so that the elbow's hinge can bring the forearm into its direction
        bent, wanted = swing @ b, fore
        flat = [v - upper * np.dot(v, upper) for v in (bent, wanted)]
        angle = np.arctan2(np.dot(upper, np.cross(flat[0], flat[1])), np.dot(flat[0], flat[1]))
        twist = turn(upper, float(np.clip(angle, -1.7, 1.7)))
        whole = twist @ swing
        hinge, had = np.cross(a, b), np.arctan2(np.linalg.norm(np.cross(a, b)), np.dot(a, b))
        flexion = float(np.clip(np.arccos(np.clip(np.dot(upper, fore), -1, 1)), 0.03, 2.4) - had)
        lift = float(np.clip(upper[2], -1, 1)) * 0.25 + 0.1  # the shoulder blade goes up with the arm
        sign = 1 if side == "L" else -1
        shrug = turn((0, 1, 0), -sign * max(lift, 0.0))
        r[self.index[f"clavicle.{side}"]] = shrug
        r[self.index[f"upperarm01.{side}"]] = shrug.T @ whole
        r[self.index[f"lowerarm01.{side}"]] = turn(hinge, flexion)
        r[self.index[f"lowerarm02.{side}"]] = turn(b, float(rng.uniform(-0.9, 0.9)))
        r[self.index[f"wrist.{side}"]] = turn(rng.normal(size=3), float(rng.normal(0, 0.25)))

    def _perturb(self, r: np.ndarray, rng: np.random.Generator, *, calm: bool) -> None:
        strength = rng.choice([0.02, 0.06, 0.12]) if not calm else 0.03
        for i, name in enumerate(self.names):
            if name.startswith(("finger", "metacarpal", "toe", "eye")):
                continue
            scale = 0.4 if name.startswith(("spine", "root", "pelvis", "neck")) else 1.0
            r[i] = r[i] @ turn(rng.normal(size=3), float(rng.normal(0, strength * scale)))
        for side in ("L", "R"):
            i = self.index[f"wrist.{side}"]
            r[i] = r[i] @ turn(rng.normal(size=3), float(np.clip(rng.normal(0, 0.3), -0.7, 0.7)))
            i = self.index[f"eye.{side}"]
            r[i] = turn((0, 0, 1), float(rng.normal(0, 0.12))) @ turn((1, 0, 0), float(rng.normal(0, 0.06)))

    def bend_hands(self, r: np.ndarray, rng: np.random.Generator) -> None:
        """Random hands: a shared curl, each finger's own, spread and thumb; some blended with posed ones."""
        first = _hand_style(rng)
        for side in ("L", "R"):
            style = first if rng.random() < 0.4 else _hand_style(rng)
            self._bend_hand(r, side, style, rng)
            if self._posed is not None and rng.random() < 0.3:
                self._blend_hand(r, side, rng)

    def _blend_hand(self, r: np.ndarray, side: str, rng: np.random.Generator) -> None:
        """Blend with two of the pack's posed hands, of either side."""
        assert self._posed is not None
        fingers = [i for n, i in self.index.items() if n.startswith("finger") and n.endswith(side)]
        mixed = r[fingers] * rng.uniform(0, 0.5)
        for k in rng.choice(len(self._posed), 2):
            hands = self._posed[k] if rng.random() < 0.5 else self.mirror(self._posed[k])
            mixed = mixed + hands[fingers] * rng.uniform(0.2, 1)
        r[fingers] = nearest_rotation(mixed)

    def _bend_hand(self, r: np.ndarray, side: str, style: np.ndarray, rng: np.random.Generator) -> None:
        sign = 1.0 if side == "L" else -1.0
        at = {n: self.reference[self.index[f"{n}.{side}"]] for n in ("wrist", "finger2-1", "finger5-1")}
        across = at["finger5-1"] - at["finger2-1"]  # from the index finger to the little finger
        out = (at["finger2-1"] + at["finger5-1"]) / 2 - at["wrist"]
        palm = -sign * np.cross(out, across)  # normal of the palm
        for finger in range(2, 6):
            knuckle, middle = (self.reference[self.index[f"finger{finger}-{k}.{side}"]] for k in (1, 2))
            axis = np.cross(middle - knuckle, palm)
            curl = float(style[finger - 1])
            limits = (1.45, 1.65, 1.1)
            for k in range(3):
                flexion = curl * limits[k] * rng.uniform(0.75, 1.1) - 0.25
                more = turn(axis, float(np.clip(flexion, -0.35, limits[k])))
                if k == 0:
                    spread = (finger - 3.4) * float(style[5]) * (1 - min(curl, 1.0))
                    more = turn(palm, spread * -sign) @ more
                r[self.index[f"finger{finger}-{k + 1}.{side}"]] = more
        base, tip = (self.reference[self.index[f"finger1-{k}.{side}"]] for k in (1, 3))
        axis = np.cross(tip - base, across)
        for k, limit in enumerate((0.5, 0.8, 1.1)):
            more = turn(axis, float(np.clip(style[0] * limit * rng.uniform(0.6, 1.1) - 0.15, -0.3, limit)))
            if k == 0:
                more = (
                    turn(palm, float(rng.normal(0, 0.15))) @ turn(across, float(rng.normal(0, 0.15))) @ more
                )
            r[self.index[f"finger1-{k + 1}.{side}"]] = more


def _hand_style(rng: np.random.Generator) -> np.ndarray:
    """(6,) curl in [0, 1] of thumb, index, middle, ring and little finger, then the spread [rad]."""
    kind = rng.random()
    curl = np.full(5, rng.uniform(0.1, 0.45))
    if kind < 0.15:  # open
        curl[:] = rng.uniform(0.0, 0.15)
    elif kind < 0.32:  # fist
        curl[:] = rng.uniform(0.8, 1.0)
    elif kind < 0.4:  # pointing
        curl[:] = rng.uniform(0.7, 1.0)
        curl[1] = 0.05
    elif kind < 0.52:  # grip
        curl[:] = rng.uniform(0.45, 0.75)
    elif kind < 0.65:  # any
        curl = rng.uniform(0, 1, 5)
    curl = np.clip(curl + rng.normal(0, 0.06, 5), 0, 1)
    return np.append(curl, rng.uniform(-0.02, 0.18))
