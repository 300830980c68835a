"""How long to the first result of a fresh process, and how much slower with busy loops beside it?

    python scripts/measure_latency.py [--image examples/images/group.jpg] [--rounds 4] [--threads N]

For the bundled default and Multi-HMR on DINOv2 ViT-S/14 at 448 pixels with random weights, eager and with
OpenVINO (`--backend`). Start: wall time of a new process from its first statement to the first result,
imports and loading included; the first of `--rounds` + 1 compiles graphs where they are not cached, and
does not count. Busy: median wall time of predictions alone and with two endless loops as processes
beside, models in turn; the ratio's median over the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from multihmr import Model, load_model
from multihmr.bodies.loading import load_body
from multihmr.hub.loading import save_network
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.multihmr import MultiHMR

DEFAULT, VIT = "bundled default", "random ViT-S/14, 448"
BACKENDS = {"eager": {}, "openvino": {"backend": "openvino"}}
FAST = {"backend": "openvino", "dtype": "fast"}
PREDICTIONS = 6  # of each model in a round, alone and beside the loops
LOOPS = 2
FRESH = """
import sys, time
start = time.perf_counter()
from multihmr import load_model
options = {"threads": int(sys.argv[3])} if sys.argv[3] != "None" else {}
options |= dict(word.split("=") for word in sys.argv[4:])
model = load_model(sys.argv[1] or None, device="cpu", **options)
model.predict(sys.argv[2], threshold=0.0 if sys.argv[1] else None, max_people=3)
print(time.perf_counter() - start)
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--image", default="examples/images/group.jpg")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of a prediction; default: all cores")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        vit = Path(folder) / "vit.safetensors"
        save_network(
            MultiHMR(MultiHMRConfig(backbone="dinov2_vits14", image_size=448), load_body("anny")), vit
        )
        candidates = {
            (name, backend): (path, options)
            for name, path in ((DEFAULT, ""), (VIT, str(vit)))
            for backend, options in (BACKENDS | ({"openvino, fast": FAST} if not path else {})).items()
        }
        print("wall time of a fresh process to the first result [s], median")
        for key, (path, options) in candidates.items():
            times = [started(path, options, args) for _ in range(args.rounds + 1)]
            print(f"  {', '.join(key)}: {statistics.median(times[1:]):.2f} (the first: {times[0]:.2f})")
        models = {
            key: load_model(path or None, device="cpu", threads=args.threads, **options)
            for key, (path, options) in candidates.items()
        }
        slowdowns = busy(models, args)
    print(f"with {LOOPS} busy loops beside, times as long as alone, median [least, most]")
    for key, ratios in slowdowns.items():
        middle = statistics.median(ratios)
        print(f"  {', '.join(key)}: {middle:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]")


def started(path: str, options: dict[str, str], args: argparse.Namespace) -> float:
    words = [f"{name}={value}" for name, value in options.items()]
    run = subprocess.run(
        [sys.executable, "-c", FRESH, path, args.image, str(args.threads), *words],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    return float(run.stdout.split()[-1])


def busy(
    models: dict[tuple[str, str], Model], args: argparse.Namespace
) -> dict[tuple[str, str], list[float]]:
    medians(models, args.image)  # warm up
    ratios: dict[tuple[str, str], list[float]] = {key: [] for key in models}
    for _ in range(args.rounds):
        alone = medians(models, args.image)
        with loops():
            beside = medians(models, args.image)
        for key in models:
            ratios[key].append(beside[key] / alone[key])
    return ratios


@contextmanager
def loops() -> Iterator[None]:
    """Endless loops as processes, for the time of the block."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(LOOPS)]
    try:
        time.sleep(0.5)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def medians(models: dict[tuple[str, str], Model], image: str) -> dict[tuple[str, str], float]:
    """Median wall time of a prediction of each model [s]."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in models}
    for _ in range(PREDICTIONS):
        for key, model in models.items():
            start = time.perf_counter()
            model.predict(image, threshold=None if key[0] == DEFAULT else 0.0, max_people=3)
            times[key].append(time.perf_counter() - start)
    return {key: statistics.median(values) for key, values in times.items()}


if __name__ == "__main__":
    main()
