"""What does predict(flip_test=True) gain? On rendered pictures with the true camera.

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/measure_flip_test.py data/test --count 100 [--no-limbs]

People found are matched with true ones by the nearest head in the image. PA-MPJPE and MPJPE (about the
pelvis) over 22 body joints [mm], the relative error of the distance, how many are found, and seconds for a
picture. Mirror images: `measure_views.py`, with and without --flip-test.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from measure_ground import pairs, true_humans

from multihmr import load_model
from multihmr.bodies.body_parts import body_joints
from multihmr.data.webdataset import Shards
from multihmr.evaluation.metrics import pa_mpjpe


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="shards of `multihmr generate`")
    parser.add_argument("--count", type=int, default=100, help="pictures (default: %(default)s)")
    parser.add_argument("--model", help="default: the bundled model")
    parser.add_argument(
        "--no-limbs", action="store_true", help="predict with limbs=False (default: limbs=True, as predict)"
    )
    args = parser.parse_args()
    model, samples = load_model(args.model, device="cpu"), Shards(args.folder)
    topology = model.body.topology
    joints = [topology.joint_names.index(name) for name in body_joints(topology)]
    for flip in (False, True):
        aligned, centred, distances, seconds = [], [], [], 0.0
        found = there = 0
        for i in range(min(args.count, len(samples))):
            sample = samples[i]
            true = true_humans(sample, model)
            start = time.perf_counter()
            humans = model.predict(sample.image, sample.K, flip_test=flip, limbs=not args.no_limbs)
            seconds += time.perf_counter() - start
            found, there = found + len(humans), there + len(true)
            for one, other in pairs(humans, true):
                ours, theirs = (torch.from_numpy(h.joints[k, joints].copy()) for h, k in
                                ((humans, one), (true, other)))  # fmt: skip
                aligned.append(float(pa_mpjpe(ours[None], theirs[None])))
                centred.append(1000 * float(((ours - ours[0]) - (theirs - theirs[0])).norm(dim=-1).mean()))
                distances.append(abs(np.log(humans.distances[one] / true.distances[other])))
        print(
            f"flip_test={flip!s:5}  PA-MPJPE {np.mean(aligned):.1f} mm  MPJPE {np.mean(centred):.1f} mm  "
            f"distance {100 * np.median(distances):.1f} %  {found} found, {len(aligned)} of {there} people  "
            f"{seconds / min(args.count, len(samples)):.2f} s a picture"
        )


if __name__ == "__main__":
    main()
