"""How examples/images/walk.mp4 was made: a woman makes signs, a man comes nearer; by our ray tracer.

    python scripts/make_clip.py [examples/images/walk.mp4]

Needs multihmr[synthetic,video] and the assets of `multihmr generate` (../shared/assets): the clothes are
MakeHuman's (CC0), the motions those of the CMU motion capture database (README.md, Licences). 2.4 seconds.
"""

import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from multihmr.data.synthetic.dataset import SyntheticScenes, find_assets
from multihmr.data.synthetic.poses import nearest_rotation, quaternions_to_matrices, turn
from multihmr.data.synthetic.scenes import Camera, Person, Scene

FPS, FRAMES, SIZE = 20, 48, (360, 480)
CAMERA = Camera(
    K=np.array([[450.0, 0, 240], [0, 450.0, 180], [0, 0, 1]]),
    rotation=np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]),  # looks along +y, level
    position=np.array([0.0, -3.0, 1.1]),
    size=SIZE,
)
SHAPES = np.array([[0.9, 0.68, 0.5, 0.45, 0.42, 0.5], [0.05, 0.7, 0.6, 0.5, 0.5, 0.5]], np.float32)
MOTIONS = ("li2018/train/basketball_signal_basketball_signal_1", "li2018/train/walking_extra_walking_50")
STARTS = (10, 30)  # frames into them
LOOKS = (1, 51)  # seeds of skin and clothes
PLACE = 24  # seed of wall, ground and light


def motion(number: int, names: tuple[str, ...]) -> np.ndarray:
    """(FRAMES, R, 3, 3) rotations of one person in the frame of the body, who faces the camera."""
    with np.load(find_assets() / "cmu_poses_anny.npz") as file:
        source = list(file["source_names"]).index(MOTIONS[number])
        rows = np.flatnonzero(file["source"] == source)[STARTS[number] :][:FRAMES]
        bones = [names.index(name) for name in file["bone_names"]]
        turns = quaternions_to_matrices(file["quat_xyzw"][rows].astype(np.float32))
    pose = np.tile(np.eye(3, dtype=np.float32), (FRAMES, len(names), 1, 1))
    pose[:, bones] = turns
    smooth = np.stack([pose[max(0, t - 1) : t + 2].mean(0) for t in range(FRAMES)])
    return nearest_rotation(smooth)


def person(
    scenes: SyntheticScenes, number: int, pose: np.ndarray, at: tuple[float, float], yaw: float
) -> Person:
    """Somebody whose feet are on the ground at `at`, turned by `yaw` about the vertical."""
    pose = pose.copy()
    pose[0] = turn((0, 0, 1), yaw) @ pose[0]
    shape, face = SHAPES[number], np.zeros(scenes.body.expression_count, np.float32)
    joints, lowest = scenes.sampler.place_body(pose[None], shape[None], face[None])
    position = np.array([*at, 0.012 - lowest[0]])
    position[:2] -= joints[0, 0, :2]
    return Person(pose, shape, face, position, "stand", LOOKS[number], joints[0] + position)


class Still:
    """The surroundings of one scene, which stay while people move."""

    def __init__(self, surroundings: Any, scene: Scene) -> None:
        self.made = surroundings.make(scene, np.random.default_rng(scene.seed))

    def make(self, scene: Scene, rng: np.random.Generator) -> Any:
        return self.made


def frames() -> list[np.ndarray]:
    scenes = SyntheticScenes(seed=7)
    names = scenes.body.topology.joint_names
    signs, steps = motion(0, names), motion(1, names)
    pictures = []
    for t in range(FRAMES):
        people = (
            person(scenes, 0, signs[t], (-0.45, 0.0), 0.1),
            person(scenes, 1, steps[t], (1.7 - 0.02 * t, 2.4 - 0.046 * t), -0.4),
        )
        scene = Scene(people, CAMERA, "whole", seed=PLACE)
        if not pictures:
            scenes.renderer.surroundings = Still(scenes.renderer.surroundings, scene)
        pictures.append(scenes.renderer.render(scene).image)
    return pictures


def write(pictures: list[np.ndarray], path: Path) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=Fraction(FPS))
        stream.height, stream.width = SIZE
        stream.pix_fmt, stream.options = "yuv420p", {"crf": "27", "preset": "veryslow"}
        for picture in pictures:
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(frames(), Path(sys.argv[1] if len(sys.argv) > 1 else "examples/images/walk.mp4"))
