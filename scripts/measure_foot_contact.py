"""How far do feet slide while they stand, before and after `multihmr video --foot-contact`?

    OMP_NUM_THREADS=1 python scripts/measure_foot_contact.py --assets shared/assets

Four people move, one at a time, before a camera that looks 8 degrees down from 1.5 m: three with captured
motions (CMU), one with a simulated gait, at 30 frames a second. Their root follows from the lower foot, which
does not move. What a network would say is made of the truth by the noise of measure_tracking.py. Tracks are
smoothed as by `multihmr video`; gravity and the floor are estimated from them. Foot skate: mean displacement
of the balls of the feet from frame to frame [mm] while the true foot stands (moves by less than 5 mm). MPJPE
is about the pelvis, "absolute" is not; accelerations as in `multihmr.evaluation.metrics`. Needs no network.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import measure_tracking as tracking
import numpy as np
import torch

from multihmr.bodies.loading import load_body
from multihmr.data.synthetic.poses import quaternions_to_matrices, turn
from multihmr.evaluation.metrics import acceleration_error, foot_skate, jitter
from multihmr.humans import Humans
from multihmr.video.foot_contact import lock_feet
from multihmr.video.tracker import follow
from multihmr.video.tracks import Track, collect, with_meshes
from multihmr.world import Ground, estimate_ground
from multihmr.world.standing import up_of

FPS, CAPTURED_FPS = 30, 20
STANDS = 0.005  # [m] per frame, of a true foot that stands
PITCH, HEIGHT = 8.0, 1.5
MOST = 120  # frames of a video
CLIPS = (  # of the captured motions, without the gaps that leaving out similar frames made: name, frames
    ("02_08", 0, 80),  # steps of a swordsman
    ("02_07", 164, 210),
    ("li2018/train/directing_traffic_directing_traffic_4", 268, 330),
)


def motions(assets: Path, body: Any) -> list[np.ndarray]:
    """Poses (T, R, 3, 3) at FPS, upright, facing -y of the body: captured ones, and a simulated gait."""
    poses = []
    with np.load(assets / "cmu_poses_anny.npz", allow_pickle=False) as data:
        names = [str(name) for name in data["source_names"]]
        bones = [body.topology.pose_names.index(str(name)) for name in data["bone_names"]]
        for name, first, last in CLIPS:
            captured = data["quat_xyzw"][data["source"] == names.index(name)][first:last].astype(np.float32)
            captured /= np.linalg.norm(captured, axis=-1, keepdims=True)
            for t in range(1, len(captured)):  # q and -q are one rotation
                captured[t] *= np.sign((captured[t] * captured[t - 1]).sum(-1, keepdims=True))
            times = np.arange(0, (len(captured) - 1) / CAPTURED_FPS, 1 / FPS) * CAPTURED_FPS
            weights = np.exp(-0.5 * ((times[:, None] - np.arange(len(captured))) / 0.7) ** 2)  # no kinks
            smooth = np.einsum("ts,sbc->tbc", weights / weights.sum(1, keepdims=True), captured)
            pose = np.tile(np.eye(3, dtype=np.float32), (len(times), body.rotation_count, 1, 1))
            pose[:, bones] = quaternions_to_matrices(smooth)
            poses.append(pose[:MOST])
    gait = np.stack([tracking.true_frame(body, frame, cut=False).humans.pose[0] for frame in range(MOST)])
    gait[:, 0] = np.eye(3)
    return [*poses, gait]


def walk(
    body: Any, pose: np.ndarray, shape: np.ndarray, yaw: float, start: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Pose and head (T, 3) in a world with z up whose floor is at 0, of a walk without sliding feet."""
    pose = pose.copy()
    pose[:, 0] = turn((0, 0, 1), yaw) @ pose[:, 0]
    with torch.no_grad():
        shapes = torch.from_numpy(np.repeat(shape[None], len(pose), 0))
        out = body(torch.from_numpy(pose), shapes, torch.zeros(len(pose), body.expression_count))
    joints, lowest = out.joints_PJ3.numpy(), out.vertices_PV3[..., 2].amin(1).numpy()
    balls = joints[:, [body.topology.joint_names.index(f"toe3-1.{side}") for side in "LR"]]
    root, stance = np.zeros((len(pose), 3)), int(balls[0, :, 2].argmin())
    for t in range(1, len(pose)):
        root[t] = root[t - 1] - (balls[t, stance] - balls[t - 1, stance])
        if balls[t, 1 - stance, 2] < balls[t, stance, 2] - 0.005:
            stance = 1 - stance
    root[:, 2] = -lowest
    head = joints[:, body.center_joint] + root
    head[:, :2] += start - head[:, :2].mean(0)
    return pose, head


def true_videos(assets: Path, body: Any) -> list[list[tracking.Truth]]:
    """A person in each, who walks across the view or towards the camera."""
    up = up_of(0.0, np.radians(PITCH))
    rotation, offset = Ground(up, HEIGHT, "given", "given").camera_to_level()
    to_level = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0.0]])  # of a world with z up, y ahead
    bare = Humans.empty(topology=body.topology, K=tracking.K, K_source="given", image_size=tracking.SIZE)
    videos = []
    ways = [(0.6, (0.0, 4.5)), (-1.2, (0.0, 5.5)), (0.2, (0.0, 5.0)), (np.pi / 2, (0.0, 5.0))]
    for i, (captured, (yaw, start)) in enumerate(zip(motions(assets, body), ways, strict=True)):
        pose, head = walk(body, captured, tracking.SHAPES[i % 3], yaw, np.array(start))
        pose[:, 0] = rotation.T @ to_level @ pose[:, 0]
        at, shape = (head @ to_level.T - offset) @ rotation, tracking.SHAPES[[i % 3]]
        frames = []
        for t in range(len(pose)):
            person = tracking.people(bare, pose[t : t + 1].astype(np.float32), shape, at[t : t + 1])
            frames.append(tracking.Truth(with_meshes(person, body), np.array([i % 3])))
        videos.append(frames)
    return videos


def report(name: str, tracks: list[Track], videos: list[list[tracking.Truth]], body: Any) -> None:
    """Errors of the only track of each video."""
    toes = [body.topology.joint_names.index(f"toe3-1.{side}") for side in "LR"]
    rows = []
    for track, truths in zip(tracks, videos, strict=True):
        pairs = [
            (humans, truths[frame].humans)
            for frame, humans in zip(track.frames.tolist(), track.humans(body), strict=True)
        ]
        ours, theirs = (
            torch.from_numpy(np.stack([tracking.keypoints(pair[k])[0] for pair in pairs])) for k in (0, 1)
        )
        feet, true_feet = (
            torch.from_numpy(np.stack([pair[k].joints[0, toes] for pair in pairs])) for k in (0, 1)
        )
        centred = (ours - ours[:, :1]) - (theirs - theirs[:, :1])
        stands = torch.zeros(true_feet.shape[:-1], dtype=torch.bool)
        stands[1:] = (true_feet[1:] - true_feet[:-1]).norm(dim=-1) < STANDS
        row = [1000 * centred.norm(dim=-1).mean(), 1000 * (ours - theirs).norm(dim=-1).mean()]
        row += [acceleration_error(ours, theirs, FPS).mean()]
        row += [jitter(points, FPS).mean() for points in (ours, theirs)]
        rows.append([*row, foot_skate(feet, stands), foot_skate(true_feet, stands)])
    numbers = np.array(rows, float).mean(0)
    print(f"{name:26}" + "  ".join(f"{number:9.1f}" for number in numbers))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, default=Path("shared/assets"))
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--noise", type=float, nargs="+", default=[1.0, 0.5])
    args = parser.parse_args()
    torch.set_num_threads(1)
    body = load_body("anny")
    videos = true_videos(args.assets, body)
    print(f"{sum(map(len, videos))} frames of {len(videos)} videos")
    columns = ("MPJPE", "absolute", "accel", "jitter", "of truth", "skate", "of truth")
    print(f"{'mm, m/s^2, m/s^3, mm':26}" + "  ".join(f"{name:>9}" for name in columns))
    for strength in args.noise:
        for seed in range(args.seeds):
            tracks, grounds = [], []
            for truths in videos:
                noise = tracking.Noise(body.rotation_count, strength, seed)
                raw = [noise(truth, body)[0] for truth in truths]
                times = [frame / FPS for frame in range(len(truths))]
                followed = list(follow(zip(times, raw, strict=True)))
                grounds.append(estimate_ground(with_meshes(humans, body) for humans in followed[::3]))
                tracks.append(max(collect(followed, FPS), key=len))
            print(f"noise {strength:g}, seed {seed}")
            report("smoothed", tracks, videos, body)
            report("feet locked", [lock_feet(t, body) for t in tracks], videos, body)
            locked = [lock_feet(t, body, ground=g) for t, g in zip(tracks, grounds, strict=True)]
            report("feet locked, floor known", locked, videos, body)


if __name__ == "__main__":
    main()
