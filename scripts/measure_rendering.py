"""Measure how many synthetic pictures one core renders per second.

    python scripts/measure_rendering.py --assets ../shared/assets

The whole cost of a picture is measured: sampling the scene, posing and dressing the people, ray tracing with
shadows and antialiasing, sensor simulation, ground truth. Textures and fitted clothes are cached, as in a
long run, so each picture is rendered once before. CPU time of one process with one thread, so that other work
on the machine matters little.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from multihmr.data.synthetic.dataset import SyntheticScenes


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--assets", type=Path, help="folder of MakeHuman's assets and captured poses")
    parser.add_argument("--size", type=int, default=448, help="picture side in pixels (default: %(default)s)")
    parser.add_argument("--people", type=int, default=3, help="people per picture (default: %(default)s)")
    parser.add_argument("--count", type=int, default=20, help="number of pictures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the median (default: %(default)s)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scenes = SyntheticScenes(5, args.size, assets=args.assets)
    chosen = [i for i in range(50 * args.count) if len(scenes.scene(i).people) == args.people]
    chosen = [i for i in chosen[: 2 * args.count] if len(scenes[i]) == args.people][: args.count]
    seconds = []
    for _ in range(args.rounds):
        start = time.process_time()
        for i in chosen:
            _ = scenes[i]
        seconds.append((time.process_time() - start) / len(chosen))
    median = float(np.median(seconds))
    print(
        f"{len(chosen)} pictures of {args.size} pixels with {args.people} people: "
        f"{1000 * median:.0f} ms of CPU time each, {1 / median:.1f} a second and core"
    )


if __name__ == "__main__":
    main()
