"""How fast are predictions of several checkouts, or of one with several options, beside each other?

    git worktree add ../v0.4.0 COMMIT
    python scripts/compare_checkouts.py ../v0.4.0 . ".;backend=openvino;dtype=fast" [--seconds 120]

Each candidate is a folder with the package, and options of `load_model` behind semicolons; `limbs=False` is
one of `predict`. Every one gets a
process of its own, with one thread; in each round all predict the image once, in random order. Printed: the
median CPU time of `predict`, and how many times as fast as the first candidate, median and quartiles over
the rounds. CPU time and rounds make figures of a machine that others keep busy comparable.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WORKER = """
import sys, time
import numpy as np
import torch
from PIL import Image
torch.set_num_threads(1)
from multihmr import load_model
with Image.open(sys.argv[1]) as file:
    image = np.asarray(file.convert("RGB").resize((1280, 720)))
options = dict(option.split("=") for option in sys.argv[2:])
options = {name: int(value) if value.isdecimal() else value for name, value in options.items()}
of_predict = {"limbs": False} if options.pop("limbs", "True") == "False" else {}
model = load_model(device="cpu", **options)
for _ in range(3):
    found = len(model.predict(image, **of_predict))
print(found, flush=True)
for _ in sys.stdin:
    start = time.process_time()
    model.predict(image, **of_predict)
    print(time.process_time() - start, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("candidates", nargs="+", metavar="FOLDER[;OPTION=VALUE...]")
    parser.add_argument("--image", type=Path, default=Path("examples/images/group.jpg"))
    parser.add_argument("--seconds", type=float, default=120.0)
    args = parser.parse_args()
    workers = {candidate: started(candidate, args.image) for candidate in args.candidates}
    for candidate, worker in workers.items():
        people = answer(worker)
        if not people:
            for other in workers.values():
                other.kill()
            sys.exit(f"{candidate} ended before its first prediction; its message is above")
        print(f"{candidate}: {people} people in the image")
    times = measure(list(workers.values()), args.seconds)
    for worker in workers.values():
        worker.communicate()
    for candidate, own in zip(workers, times, strict=True):
        low, middle, high = np.percentile(times[0] / own, [25, 50, 75])
        median = 1000 * np.median(own)
        print(
            f"{candidate}: {median:.0f} ms, {middle:.2f} [{low:.2f}, {high:.2f}] times as fast as the first"
        )
    print(f"{len(times[0])} rounds")


def started(candidate: str, image: Path) -> subprocess.Popen[str]:
    folder, *options = candidate.split(";")
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(image.resolve()), *options],
        env=os.environ | {"PYTHONPATH": str(Path(folder).resolve()), "OMP_NUM_THREADS": "1"},
        cwd=folder,  # comes before PYTHONPATH
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def answer(worker: subprocess.Popen[str]) -> str:
    assert worker.stdout is not None
    return worker.stdout.readline().strip()


def measure(workers: list[subprocess.Popen[str]], seconds: float) -> np.ndarray:
    """(candidates, rounds) CPU time of a prediction [s]."""
    rounds = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        row = np.zeros(len(workers))
        for i in random.sample(range(len(workers)), len(workers)):
            stdin = workers[i].stdin
            assert stdin is not None
            stdin.write("\n")
            stdin.flush()
            row[i] = float(answer(workers[i]))
        rounds.append(row)
    return np.array(rounds).T


if __name__ == "__main__":
    main()
