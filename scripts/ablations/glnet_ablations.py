"""Rerun the ablations of GLNet's poster on crops of synthetic people with known boxes, at small scale.

    multihmr generate --out data/train --count 12000 --size 384
    multihmr generate --out data/test --count 500 --seed 20000000 --split test
    python scripts/ablations/glnet_ablations.py --data data/train --test data/test --out runs/glnet

The table is OUT/table.md and grows with each variant; the same command resumes an interrupted run.
`--only baseline,local,matching,both` trains only the rows of table 2; VARIANTS defines the variants.
`--network decomposed=yes` sets that for all of them.

All variants see the same crops in the same order, and are measured on the same people. The rows are those
of tables 2, 3 and 6 and the sweep of K, with the poster's figures beside ours: theirs are of HRNet-W32 on
3DPW, trained on photographs, so that only the order can be compared. The poster's other tables are of the
decomposed network; ours are of `--network`, by default without decomposition.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ablation_plan import FAILURES, AblationPlan, line, main, write_json

from multihmr.bodies.body_parts import body_joints
from multihmr.data.person_crops import clear_people, person_boxes
from multihmr.data.sample import Sample
from multihmr.data.webdataset import Shards
from multihmr.evaluation import metrics
from multihmr.evaluation.ground_truth import true_people
from multihmr.model import load_model
from multihmr.training.config import TrainConfig
from multihmr.training.trainer import train

log = logging.getLogger(__name__)

VARIANTS = {
    "baseline": "local=no,matching=fixed",
    "local": "matching=fixed",
    "matching": "local=no",
    "both": "",
    "decomposed": "decomposed=yes",
    "layout": "layout=yes",
    "roi": "guidance=roi",
    "depth": "cost=2d+depth",
    "rotation": "cost=2d+depth+rotation",
    "k1": "positives=1",
    "k10": "positives=10",
    "k50": "positives=50",
    "k100": "positives=100",
}
# (table, row, variant, PA-MPJPE, MPJPE and PVE of the poster on 3DPW; None where it names none)
ROWS: tuple[tuple[str, str, str, tuple[float | None, ...]], ...] = (
    ("2", "baseline", "baseline", (49.6, 76.9, 88.0)),
    ("2", "+ local encoding", "local", (43.7, 74.3, 82.3)),
    ("2", "+ adaptive matching", "matching", (43.5, 73.1, 81.2)),
    ("2", "+ both", "both", (40.8, 68.7, 79.7)),
    ("2", "+ decomposition", "decomposed", (39.7, 66.3, 77.7)),
    ("", "both, and told how keypoints lie", "layout", (None, None, None)),
    ("3", "squares of fixed size", "roi", (None, None, None)),
    ("3", "2D keypoints", "both", (39.7, 66.3, 77.7)),
    ("6", "score, 2D keypoints", "both", (39.7, 66.3, 77.7)),
    ("6", "and depth", "depth", (42.3, 70.4, 80.2)),
    ("6", "and rotation", "rotation", (41.2, 71.3, 80.6)),
    ("K", "1", "k1", (None, None, 81.1)),
    ("K", "10", "k10", (None, None, 77.5)),
    ("K", "20", "both", (None, None, 77.7)),
    ("K", "50", "k50", (None, None, 77.9)),
    ("K", "100", "k100", (None, None, 79.5)),
)
FIGURES = ("pa_mpjpe", "mpjpe", "pve", "position_percent")


@dataclass(frozen=True)
class Plan(AblationPlan):
    """network: settings that all variants have before their own. init: as in TrainConfig; a Multi-HMR lends
    the backbone that it has trained already, which shows in fewer steps what the rest is worth.
    """

    known = VARIANTS

    image_size: int = 256
    count: int = 200
    seeds: tuple[int, ...] = (0,)
    backbone: str = "hybrid_lite0"
    init: str = ""
    network: str = ""
    vertices: int = 200  # K people learn from a crop, so their meshes are a cost


def config_of(plan: Plan, name: str, seed: int) -> TrainConfig:
    """How a variant is trained."""
    return TrainConfig(
        data=plan.data,
        out=str(Path(plan.out) / name / str(seed)),
        family="glnet",
        backbone=plan.backbone,
        init=plan.init,
        image_size=plan.image_size,
        network=",".join(filter(None, (plan.network, VARIANTS[name]))),
        steps=plan.steps,
        batch_size=plan.batch_size,
        warmup=max(1, min(300, plan.steps // 10)),
        vertices=plan.vertices,
        workers=plan.workers,
        seed=seed,
        device=plan.device,
    )


def run(plan: Plan, *, progress: bool | None = None) -> Path:
    """Train and measure what is not done yet; the path of the table, written anew after each variant.

    A run that was stopped goes on where it stood. A variant that cannot be trained is noted in the log.

    FileNotFoundError: there are no shards where the plan says. ValueError: `out` holds another plan.
    """
    out = Path(plan.out)
    out.mkdir(parents=True, exist_ok=True)
    plan.check_settings(out / "settings.json")
    for folder in (plan.test, *plan.data.split(",")):
        Shards(folder)
    path = write(plan, out)
    for seed in plan.seeds:
        for name in plan.variants:
            done = out / name / str(seed) / "result.json"
            if not done.exists():
                try:
                    weights = train(config_of(plan, name, seed), progress=progress)
                    model = load_model(str(weights), device=plan.device or None)
                    figures = measure(model, islice(Shards(plan.test, joints=True), plan.count))
                except FAILURES as error:
                    log.warning("%s, seed %d: not run: %s", name, seed, error)
                    continue
                write_json(done, figures)
            path = write(plan, out)
    return path


def measure(model: Any, samples: Iterable[Sample]) -> dict[str, float]:
    """FIGURES over all who are seen well (means; of the position the median), and how many "people" that is.

    Errors in mm; of the position in % of the distance. With the true boxes and cameras.
    """
    body = model.body
    names = body.topology.joint_names
    compared = [names.index(name) for name in body_joints(body.topology)]
    errors: list[torch.Tensor] = []
    for sample in samples:
        boxes = person_boxes(sample)
        clear = clear_people(sample, boxes)
        if not clear:
            continue
        humans = model.predict(sample.image, sample.K, np.array([boxes[n] for n in clear]))
        true = true_people(body, sample)
        vertices, joints = (torch.from_numpy(x.copy()) for x in (humans.vertices, humans.joints))
        true_vertices, true_joints = true.vertices[clear].cpu(), true.joints[clear].cpu()
        pelvis = (joints[:, body.pelvis_joint], true_joints[:, body.pelvis_joint])
        heads = joints[:, body.center_joint], true_joints[:, body.center_joint]
        errors.append(
            torch.stack(
                [
                    metrics.pa_mpjpe(joints[:, compared], true_joints[:, compared]),
                    metrics.mpjpe(joints[:, compared], true_joints[:, compared], 0),
                    metrics.pve(vertices, true_vertices, *pelvis),
                    100 * (heads[0] - heads[1]).norm(dim=-1) / heads[1].norm(dim=-1),
                ],
                dim=1,
            )
        )
    if not errors:
        raise ValueError("nobody in the pictures is seen well enough to be measured on")
    table_P4 = torch.cat(errors)
    figures = dict(zip(FIGURES, table_P4.nanmean(0).tolist(), strict=True))
    figures["position_percent"] = float(table_P4[:, 3].nanmedian())
    return figures | {"people": float(len(table_P4))}


def write(plan: Plan, out: Path) -> Path:
    """table.md of what is done in `out`; its path."""
    heading = (
        "table",
        "",
        *("PA-MPJPE", "MPJPE", "PVE", "position %"),
        "poster: PA-MPJPE",
        "MPJPE",
        "PVE",
        "runs",
    )
    lines = [line(heading), line(["---"] * len(heading))]
    for table, row, name, poster in ROWS:
        results = plan.results(name)
        if name not in plan.variants or not results:
            continue
        ours = [_spread([result[figure] for result in results]) for figure in FIGURES]
        theirs = ["" if number is None else f"{number:.1f}" for number in poster]
        lines.append(line([table, row, *ours, *theirs, str(len(results))]))
    people = [result["people"] for name in plan.variants for result in plan.results(name)]
    lines += [
        "",
        f"{plan.steps} steps of {plan.batch_size} crops of {plan.image_size} pixels, {plan.backbone}"
        f"{f' of {plan.init}' if plan.init else ''}; "
        f"measured on {max(people, default=0):.0f} people with true boxes and cameras. Errors in mm, means; "
        "of the position, medians. ± is half the range over seeds.",
        "",
    ]
    path = out / "table.md"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _spread(values: Sequence[float]) -> str:
    half = (max(values) - min(values)) / 2
    return f"{np.mean(values):.1f}" + (f" ± {half:.1f}" if half else "")


if __name__ == "__main__":
    sys.exit(main(Plan, run, __doc__))
