"""Measure tracking (identity switches, MOT metrics) and smoothing (jitter, acceleration error).

    OMP_NUM_THREADS=1 python scripts/measure_tracking.py

Three people of known motion walk before a camera for 300 frames at 30 frames per second: two cross, one
occluding the other; two leave the picture and come back. Predictions are simulated by seeded noise on the
ground truth: jitter and drift of all rotations and of the positions, most in depth; shapes that vary between
frames; 2 % of the detections missed, some for several frames, and all occluded people. Needs no network.

MPJPE (about the pelvis) and absolute errors are means over 24 joints and all people; acceleration errors
[m/s^2] and jitter [m/s^3] as `multihmr.evaluation.metrics` defines them. With --memory N instead: N frames
through `Model.predict_video`'s own machinery with a stand-in for the network, and the memory that took.
"""

import argparse
import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import roma
import torch

from multihmr.bodies.loading import load_body
from multihmr.evaluation.metrics import acceleration_error, jitter
from multihmr.humans import Humans, project
from multihmr.video import tracker
from multihmr.video.predict import predict_video
from multihmr.video.tracker import Tracking, follow
from multihmr.video.tracks import with_meshes, without_meshes

FPS, FRAMES = 30, 300
K = np.array([[1000, 0, 640], [0, 1000, 360], [0, 0, 1]], np.float32)
SIZE = (720, 1280)
SWINGS = {  # bone -> (axis of the body, degrees at rest, degrees of the swing, phase in turns)
    "upperleg01.L": ("x", 0, 28, 0.0),
    "upperleg01.R": ("x", 0, 28, 0.5),
    "lowerleg01.L": ("x", 25, 25, 0.3),
    "lowerleg01.R": ("x", 25, 25, 0.8),
    "shoulder01.L": ("y", 35, 0, 0.0),
    "shoulder01.R": ("y", -35, 0, 0.0),
    "upperarm01.L": ("x", 0, 22, 0.5),
    "upperarm01.R": ("x", 0, 22, 0.0),
    "lowerarm01.L": ("x", -15, 12, 0.5),
    "lowerarm01.R": ("x", -15, 12, 0.0),
    "spine03": ("z", 0, 6, 0.25),
}
SHAPES = np.array(  # gender, age, muscle, weight, height, proportions
    [[0.1, 0.7, 0.7, 0.5, 0.7, 0.5], [0.9, 0.6, 0.4, 0.4, 0.4, 0.6], [0.5, 0.3, 0.5, 0.6, 0.5, 0.5]],
    np.float32,
)


class Truth(NamedTuple):
    """One frame: the people in it, and which of the three each is."""

    humans: Humans
    who: np.ndarray


def paths(frame: int) -> np.ndarray:
    """(3, 2) where the heads are, seen from above: x and z [m]."""
    t = frame / FPS
    first = (3.2 * np.sin(2 * np.pi * t / 10 - 1.2), 4.0 + 0.3 * np.sin(t))
    second = (-3.6 * np.sin(2 * np.pi * t / 9 - 1.0), 5.2 + 0.4 * np.cos(0.7 * t))
    third = (-1.0 + 0.4 * np.sin(0.5 * t), 6.5 - 2.4 * np.sin(np.pi * t / 10))
    return np.array([first, second, third])


def true_frame(body: Any, frame: int, *, cut: bool = True) -> Truth:
    """The people whose head and pelvis are in the picture."""
    at, before, after = (paths(frame + step) for step in (0, -1, 1))
    heading = np.arctan2(-(after - before)[:, 0], -(after - before)[:, 1])
    pose = body.mean_pose_R33[None].repeat(3, 1, 1, 1)
    turn = roma.rotvec_to_rotmat(
        torch.tensor(heading, dtype=torch.float32)[:, None] * torch.tensor([0.0, 1, 0])
    )
    pose[:, 0] = turn @ pose[:, 0]
    for bone, (axis, rest, swing, phase) in SWINGS.items():
        steps = frame / FPS * np.array([0.95, 1.05, 1.25]) + phase
        angle = np.radians(rest + swing * np.sin(2 * np.pi * steps))
        vector = torch.tensor(angle, dtype=torch.float32)[:, None] * torch.eye(3)["xyz".index(axis)]
        pose[:, body.topology.pose_names.index(bone)] = roma.rotvec_to_rotmat(vector)
    heights = np.full(3, -0.3 + 0.02 * np.sin(4 * np.pi * frame / FPS))
    bare = Humans.empty(topology=body.topology, K=K, K_source="given", image_size=SIZE)
    humans = people(bare, pose, SHAPES, np.stack([at[:, 0], heights, at[:, 1]], 1))
    humans = with_meshes(humans, body)
    pixels = project(np.stack([humans.translation, humans.pelvis]), K)
    inside = ((pixels > 0) & (pixels < np.array(SIZE[::-1]))).all((0, 2))
    inside |= not cut
    return Truth(humans[inside], np.flatnonzero(inside))


def people(like: Humans, pose: Any, shape: np.ndarray, translation: np.ndarray) -> Humans:
    """Those people before the camera of `like`, without meshes."""
    count, bare = len(shape), without_meshes(like)
    joints = np.zeros((count, len(like.topology.joint_names), 3))
    zero = {"boxes": np.zeros((count, 4)), "pelvis": np.zeros((count, 3)), "joints_2d": joints[..., :2]}
    return dataclasses.replace(
        bare,
        **zero,
        joints=joints,
        vertices=np.zeros((count, 0, 3)),
        scores=np.full(count, 0.9),
        pose=np.asarray(pose),
        shape=shape,
        translation=translation,
        expression=np.zeros((count, len(like.topology.expression_names))),
    )


class Noise:
    """Simulated prediction noise; jitter is new in each frame, drift lasts about half a second.

    strength 1: 1.5 degrees of jitter and as much of drift in every bone, 2 % each of the distance, 6 mm of
    jitter across the view, 0.05 of jitter in shapes that go from 0 to 1.
    """

    def __init__(self, rotations: int, strength: float, seed: int = 0) -> None:
        self.strength = strength
        self.random = np.random.default_rng(seed)
        self.drift = np.zeros((3, rotations, 3))
        self.depth_drift = np.zeros(3)
        self.blind = np.zeros(3, int)  # remaining frames of a missed detection

    def __call__(self, truth: Truth, body: Any) -> tuple[Humans, np.ndarray]:
        """The people found, and who each is."""
        normal, keep = self.random.normal, np.exp(-1 / (0.5 * FPS))
        fresh = np.sqrt(1 - keep**2)
        self.drift = keep * self.drift + fresh * normal(0, np.radians(1.5), self.drift.shape)
        self.depth_drift = keep * self.depth_drift + fresh * normal(0, 0.02, 3)
        burst = self.random.random(3) < 0.005
        self.blind = np.maximum(self.blind - 1, burst * self.random.integers(2, 8, 3))
        missed = (self.random.random(3) < 0.02) | (self.blind > 0)
        humans, who = truth
        found = ~missed[who] & ~hidden(humans)
        humans, who = humans[found], who[found]
        vectors = self.strength * (self.drift[who] + normal(0, np.radians(1.5), self.drift[who].shape))
        turned = roma.rotvec_to_rotmat(torch.tensor(vectors, dtype=torch.float32)).numpy()
        far = np.exp(self.strength * (self.depth_drift[who] + normal(0, 0.02, len(who))))[:, None]
        at = (humans.translation + self.strength * normal(0, 0.006, (len(who), 3)) * [1, 1, 0]) * far
        shape = humans.shape + self.strength * normal(0, 0.05, humans.shape.shape)
        return with_meshes(people(humans, humans.pose @ turned, shape, at), body), who


def hidden(humans: Humans) -> np.ndarray:
    """(N,) whether the head lies within the middle of a nearer person's box."""
    head, result = project(humans.translation, K), np.zeros(len(humans), bool)
    for i in range(len(humans)):
        for j in range(len(humans)):
            low, high = humans.boxes[j, [0, 2]] @ [[0.75, 0.25], [0.25, 0.75]]
            nearer = humans.translation[j, 2] < humans.translation[i, 2] - 0.1
            result[i] |= nearer and low < head[i, 0] < high
    return result


def keypoints(humans: Humans) -> np.ndarray:
    return humans.keypoints("smpl24").xyz


def report(name: str, results: list[tuple[Humans, np.ndarray]], truths: list[Truth]) -> None:
    """Errors of the people present, in millimetres; identity switches."""
    aligned, absolute, depth = [], [], []
    lines = np.full((2, 3, len(truths), 24, 3), np.nan)  # ours and theirs, by person and frame
    for frame, ((humans, who), truth) in enumerate(zip(results, truths, strict=True)):
        for i, person in enumerate(who.tolist()):
            true = truth.humans[truth.who == person]
            ours, theirs = keypoints(humans[i])[0], keypoints(true)[0]
            absolute.append(np.linalg.norm(ours - theirs, axis=-1).mean())
            depth.append(abs(ours[0, 2] - theirs[0, 2]))
            aligned.append(np.linalg.norm((ours - ours[0]) - (theirs - theirs[0]), axis=-1).mean())
            lines[:, person, frame] = ours, theirs
    pred, true = torch.from_numpy(lines)
    motion = [acceleration_error(pred, true, FPS), jitter(pred, FPS), jitter(true, FPS)]
    numbers = [1000 * float(np.mean(values)) for values in (aligned, absolute, depth)]
    numbers += [float(values.nanmean()) for values in motion]
    text = "  ".join(f"{number:9.1f}" for number in numbers)
    print(f"{name:24}{text}  {len(aligned):6}")


def owners(humans: Humans, truth: Truth, limit: float = 0.7) -> np.ndarray:
    """(N,) index of the nearest of the three people; -1: none is near."""
    who = np.full(len(humans), -1)
    for i in range(len(humans)):
        gaps = np.linalg.norm((truth.humans.pelvis - humans.pelvis[i]) * [1, 1, 0.3], axis=1)
        if len(gaps) and gaps.min() < limit:
            who[i] = truth.who[gaps.argmin()]
    return who


def switches(results: list[tuple[Humans, np.ndarray]]) -> tuple[int, dict[int, list[int]]]:
    """How often a person has another id than before, and the ids that each had."""
    had: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for humans, who in results:
        for person, identity in zip(who.tolist(), humans.track_ids.tolist(), strict=True):
            if person >= 0 and (not had[person] or had[person][-1] != identity):
                had[person].append(identity)
    return sum(len(ids) - 1 for ids in had.values()), had


def measure(seed: int, strength: float, truths: list[Truth], body: Any) -> None:
    noise = Noise(body.rotation_count, strength, seed)
    raw = [noise(truth, body) for truth in truths]
    there, found = sum(len(truth.who) for truth in truths), sum(len(who) for _, who in raw)
    print(f"\nnoise {strength:g}, seed {seed}: {there} people in {len(truths)} frames, {found} of them found")
    times = (frame / FPS for frame in range(len(truths)))
    followed = [with_meshes(humans, body) for humans in follow(zip(times, (h for h, _ in raw), strict=True))]
    named = [(humans, owners(humans, truth)) for humans, truth in zip(followed, truths, strict=True)]
    count, had = switches(named)
    print(f"switches: {count}; ids of the three: {had}; filled: {sum(int(h.filled.sum()) for h in followed)}")
    columns = ("MPJPE", "absolute", "depth", "accel", "jitter", "of truth")
    print(f"{'mm, m/s^2, m/s^3':24}{'  '.join(f'{name:>9}' for name in columns)}  {'people':>6}")
    report("as predicted", raw, truths)
    seen = [(h[(who >= 0) & ~h.filled], who[(who >= 0) & ~h.filled]) for h, who in named]
    report("followed and smoothed", seen, truths)
    report("with filled gaps", [(h[who >= 0], who[who >= 0]) for h, who in named], truths)


class Duplicates:
    """Predicts people twice for 10 to 90 frames: 6 cm beside, about 10 % deeper, in another pose."""

    def __init__(self, rotations: int, seed: int) -> None:
        self.random, self.rotations = np.random.default_rng(seed), rotations
        self.left = np.zeros(3, int)  # remaining frames of a duplicate

    def __call__(self, humans: Humans, who: np.ndarray, body: Any) -> Humans:
        """The people, and the second predictions of some."""
        begins = self.random.random(3) < 0.02
        self.left = np.maximum(self.left - 1, begins * self.random.integers(10, 90, 3))
        chosen = humans[self.left[who] > 0]
        count, normal = len(chosen), self.random.normal
        vectors = normal(0, np.radians(5), (count, self.rotations, 3))
        pose = chosen.pose @ roma.rotvec_to_rotmat(torch.tensor(vectors, dtype=torch.float32)).numpy()
        deeper = np.exp(normal(0.1, 0.03, (count, 1)))
        at = (chosen.translation + normal(0, 0.06, (count, 3)) * [1, 1, 0]) * deeper
        twins = with_meshes(people(chosen, pose, chosen.shape + normal(0, 0.1, chosen.shape.shape), at), body)
        twins = dataclasses.replace(twins, scores=np.full(count, 0.5))
        return Humans.concatenate([humans, twins])


def mot_metrics(results: list[Humans], truths: list[Truth]) -> dict[str, float]:
    """CLEAR MOT and identity metrics (motmetrics); a match is within 0.7 m, of which depth counts by 0.3."""
    import motmetrics

    accumulator = motmetrics.MOTAccumulator(auto_id=True)
    for humans, truth in zip(results, truths, strict=True):
        steps = (truth.humans.pelvis[:, None] - humans.pelvis[None]) * [1, 1, 0.3]
        distances = np.linalg.norm(steps, axis=-1).astype(float)
        distances[distances > 0.7] = np.nan
        accumulator.update(truth.who.tolist(), humans.track_ids.tolist(), distances)
    names = ["mota", "idf1", "num_switches", "num_false_positives", "num_misses", "num_fragmentations"]
    summary = motmetrics.metrics.create().compute(accumulator, metrics=names)
    return {name: float(summary[name].iloc[0]) for name in names}


def measure_duplicates(seed: int, truths: list[Truth], body: Any) -> None:
    """MOT metrics where people are predicted twice, without and with the rules against duplicates."""
    noise, twice = Noise(body.rotation_count, 1.0, seed), Duplicates(body.rotation_count, seed)
    raw = [twice(*noise(truth, body), body) for truth in truths]
    extra = sum(len(humans) for humans in raw) - sum(len(truth.who) for truth in truths)
    print(f"\nduplicates, seed {seed}: {extra:+} people more than there are")
    rules = ("_same_place", "_boxes_coincide")
    for name in ("before", "after"):
        with ExitStack() as changed:
            for rule in rules if name == "before" else ():
                changed.enter_context(mock.patch.object(tracker, rule, no_pairs))
            times = (frame / FPS for frame in range(len(truths)))
            followed = list(follow(zip(times, raw, strict=True), Tracking(lookahead=60), new=0.3))
        tracks = {identity for humans in followed for identity in humans.track_ids.tolist()}
        text = "  ".join(f"{key} {value:.4g}" for key, value in mot_metrics(followed, truths).items())
        print(f"{name:8} tracks {len(tracks)}  {text}")


def no_pairs(humans: Humans) -> np.ndarray:
    """(N, N) bool: no two people are the same."""
    return np.zeros((len(humans), len(humans)), bool)


class StandIn:
    """Sees one and the same walk in any pictures, over and over."""

    def __init__(self, body: Any, truths: list[Truth]) -> None:
        self.body, self.threshold = body, 0.3
        self.humans, self.count = [truth.humans[:1] for truth in truths], 0

    def predict_batch(self, photos: list[Any], Ks: Any = None, **_: Any) -> list[Humans]:
        self.count += len(photos)
        return [self.humans[(self.count + i) % len(self.humans)] for i in range(len(photos))]


def resident() -> float:
    """Megabytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    return pages * 4096 / 1e6


def memory(frames: int, body: Any) -> None:
    picture = np.zeros((*SIZE, 3), np.uint8)
    model: Any = StandIn(body, [true_frame(body, frame) for frame in range(30)])
    stream = predict_video(model, (picture.copy() for _ in range(frames)), K=K)
    for number, _ in enumerate(stream, start=1):
        if number in (100, 1000) or number % 2000 == 0:
            print(f"{number:6} frames: {resident():.0f} MB", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--first-seed", type=int, default=0, help="the tracker's settings are from 0 and 1")
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 0.25])
    parser.add_argument(
        "--duplicates", action="store_true", help="MOT metrics where people are predicted twice"
    )
    parser.add_argument("--memory", type=int, metavar="N", default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    body = load_body("anny")
    if args.memory:
        memory(args.memory, body)
    elif args.duplicates:
        truths = [true_frame(body, frame) for frame in range(FRAMES)]
        for seed in range(args.first_seed, args.first_seed + args.seeds):
            measure_duplicates(seed, truths, body)
    else:
        truths = [true_frame(body, frame) for frame in range(FRAMES)]
        for strength in args.noise:
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                measure(seed, strength, truths, body)
