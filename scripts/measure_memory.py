"""Does memory stay flat over a long video and over many pictures?

    OMP_NUM_THREADS=1 python scripts/measure_memory.py [--frames 1000] [--pictures 2000]

A film of noise is encoded and pictures are written into a temporary folder. `predict_video` and
`predict_many` run over them with a stand-in for the network that predicts two people in every image.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from multihmr.bodies.loading import load_body
from multihmr.humans import Humans
from multihmr.video.predict import predict_video
from multihmr.video.predict_many import predict_many
from multihmr.video.writer import VideoWriter

SIZE = (180, 320)


class StandIn:
    """Predicts the same people in every image."""

    def __init__(self, body: Any, people: Humans) -> None:
        self.body, self.threshold, self.people = body, 0.3, people

    def predict_batch(self, images: list[Any], Ks: Any = None, **_: Any) -> list[Humans]:
        return [self.people for _ in images]


def resident() -> float:
    """Megabytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1]) * 4096 / 1e6


def people_of(body: Any) -> Humans:
    """Two people 3 and 4 m away, in the mean pose."""
    from measure_tracking import true_frame

    return true_frame(body, 60).humans[:2]


def report(what: str, results: Any) -> None:
    warm, most = 0.0, 0.0
    for number, _ in enumerate(results, start=1):
        if number == 100:
            warm = most = resident()
        elif number % 50 == 0:
            most = max(most, resident())
    print(f"{what}: {number}, {warm:.0f} MB after 100, at most {most:.0f} MB after", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--pictures", type=int, default=2000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    body = load_body("anny")
    model = StandIn(body, people_of(body))
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        film = Path(folder) / "film.mp4"
        with VideoWriter(film, 30) as writer:
            for i in range(args.frames):
                writer.write(random.integers(0, 255, (*SIZE, 3), np.uint8), i / 30)
        report("frames of a film", predict_video(model, film))
        film.unlink()
        for i in range(args.pictures):
            Image.fromarray(random.integers(0, 255, (*SIZE, 3), np.uint8)).save(Path(folder) / f"{i:05}.jpg")
        report("pictures of a folder", predict_many(model, folder))
