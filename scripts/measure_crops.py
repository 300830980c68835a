"""Measure a GLNet on person crops: errors with true boxes, consistency between crops, and time.

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/measure_crops.py --data data/test --count 200

First the errors with true boxes and cameras, as in the ablations, of the GLNet and of the mean person. Then
two crops per person, with boxes up to a quarter larger or smaller and shifted by up to a twelfth of a side:
the distance of the two predicted heads in % of their depth. Last, on one thread, the time of the network with
the body and of its backbone alone, for one, four and eight crops, in turns.
"""

import argparse
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from multihmr import load_model
from multihmr.data.person_crops import SCALE, SHIFT, clear_people, longer_side, person_boxes
from multihmr.data.sample import Sample
from multihmr.data.webdataset import Shards

sys.path.append(str(Path(__file__).parent / "ablations"))

from glnet_ablations import measure


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="glnet-anny-hybrid", help="default: %(default)s")
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--count", type=int, default=200, help="number of pictures (default: %(default)s)")
    args = parser.parse_args()
    model: Any = load_model(args.model)

    def samples() -> Iterable[Sample]:
        return islice(Shards(args.data, joints=True), args.count)

    ours, mean = measure(model, samples()), measure(MeanPerson(model.body), samples())
    print(f"| {ours['people']:.0f} people | PA-MPJPE | MPJPE | PVE | position % |\n|---|---|---|---|---|")
    cells = [f"{ours[name]:.1f}" for name in ("pa_mpjpe", "mpjpe", "pve", "position_percent")]
    print(f"| {args.model} | {' | '.join(cells)} |")
    cells = [f"{mean[name]:.1f}" for name in ("pa_mpjpe", "mpjpe", "pve")]
    print(f"| mean person | {' | '.join(cells)} | |")
    apart = two_crops(model, samples())
    quantiles = ", ".join(f"{100 * q:.0f} %: {np.quantile(apart, q):.2f}" for q in (0.5, 0.75, 0.9))
    print(f"two crops of {len(apart)} people: heads apart [% of the distance], quantiles {quantiles}")
    for crops in (1, 4, 8):
        whole, backbone = (1000 * seconds for seconds in times(model, crops))
        print(f"{crops} crops: {whole:.1f} ms, backbone {backbone:.1f} ms, {whole / backbone:.2f} x")


class MeanPerson:
    """Predicts the mean person for every box; the position does not matter for root-relative errors."""

    def __init__(self, body: Any) -> None:
        self.body = body
        parameters = (body.mean_pose_R33, body.mean_shape_S, torch.zeros(body.expression_count))
        with torch.no_grad():
            stands = body(*(parameter[None] for parameter in parameters))
        self.joints, self.vertices = stands.joints_PJ3.numpy(), stands.vertices_PV3.numpy()

    def predict(self, image: Any, K: Any, boxes: np.ndarray) -> SimpleNamespace:
        everybody = (points.repeat(len(boxes), 0) for points in (self.joints, self.vertices))
        return SimpleNamespace(**dict(zip(("joints", "vertices"), everybody, strict=True)))


def two_crops(model: Any, samples: Iterable[Sample]) -> np.ndarray:
    """(P,) distance between the heads of two predictions per person [% of the head's distance]."""
    rng = np.random.default_rng(0)
    apart = []
    for sample in samples:
        boxes = person_boxes(sample)
        people = clear_people(sample, boxes)
        if people:
            drawn = [[jittered(boxes[n], rng, sample.image.shape) for n in people] for _ in range(2)]
            one, other = (model.predict(sample.image, sample.K, np.array(table)) for table in drawn)
            off = np.linalg.norm(one.translation - other.translation, axis=-1)
            apart.append(100 * off / np.linalg.norm(one.translation, axis=-1))
    return np.concatenate(apart)


@torch.inference_mode()
def times(model: Any, crops: int, rounds: int = 25) -> np.ndarray:
    """Median seconds of CPU time of the whole network and of its backbone, one thread each, in turns."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    side = model.config.image_size
    images_B3HW = torch.rand(crops, 3, side, side)
    taken = np.empty((rounds + 3, 2))  # three to warm up
    for row in taken:
        for i, network in enumerate((model, model.backbone)):
            start = time.process_time()
            network(images_B3HW)
            row[i] = time.process_time() - start
    torch.set_num_threads(threads)
    return np.median(taken[3:], axis=0)


def jittered(box: Any, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """The box, randomly scaled and shifted, clipped to the picture."""
    middle = (box[:2] + box[2:]) / 2 + longer_side(box) * rng.uniform(-SHIFT, SHIFT, 2)
    half = (box[2:] - box[:2]) / 2 * np.exp(rng.uniform(-np.log(SCALE), np.log(SCALE)))
    limit = np.array([shape[1], shape[0]])
    return np.concatenate([(middle - half).clip(0, limit - 1), (middle + half).clip(1, limit)])


if __name__ == "__main__":
    main()
