"""Rerun the ablation table of Multi-HMR on synthetic data, at small scale and equal training cost.

    multihmr generate --out data/train --count 12000 --size 384
    multihmr generate --out data/closeups --count 4000 --size 384 --closeup --seed 7
    multihmr generate --out data/test --count 500 --seed 20000000 --split test
    python scripts/ablations/multihmr_ablations.py --data data/train --closeups data/closeups \\
        --test data/test --out runs/abl

The table is OUT/table.md and grows with each variant; the same command resumes an interrupted run.
`--only reference,iterative` trains only some variants, which VARIANTS defines. Those that start from
ImageNet's or DINOv2's weights fetch them from the Hugging Face Hub, except for the hybrid's.

All variants see the same pictures in the same order, and are measured on the same ones. Two seeds tell how
much of a difference is chance. The head that regresses joints from patch features is not in the paper and
is off.
(Baradel et al., ECCV 2024, section 4.2; theirs are 400,000 steps on BEDLAM and others.)
"""

from __future__ import annotations

import json
import logging
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from ablation_plan import FAILURES, AblationPlan, line, main, write_json

from multihmr.data.sample import Sample
from multihmr.data.webdataset import Shards
from multihmr.evaluation.report import People
from multihmr.evaluation.runner import evaluate
from multihmr.model import load_model
from multihmr.training.config import TrainConfig
from multihmr.training.trainer import train

log = logging.getLogger(__name__)

FOV_EDGES = (0.0, 45.0, 75.0, 180.0)  # degrees over the longer side
FIGURES = {  # what is kept of an evaluation -> heading, decimals
    "mpjpe": ("MPJPE", 1),
    "pa_mpjpe": ("PA-MPJPE", 1),
    "pve": ("PVE", 1),
    "hand_pa_pve": ("hands PA-PVE", 1),
    "head_percent": ("position %", 1),
    "head_m": ("position m", 2),
    "f1": ("F1", 3),
}


@dataclass(frozen=True)
class Variant:
    """How it differs from the reference: fields of TrainConfig and of the network's config."""

    network: str = ""
    backbone: str = ""
    init: str = ""
    scale: float = 1.0  # of the image size
    closeups: bool = False
    read_joints: bool = False  # as the default model does
    like: str = ""  # the variant than which it may cost no more: fewer or more steps than the plan's


VARIANTS = {
    "reference": Variant(),
    "iterative": Variant("head=iterative"),
    "alone": Variant("people_attention=no"),
    "no-camera": Variant("camera_embedding=none"),
    "linear-camera": Variant("camera_embedding=linear"),
    "random": Variant(init="random"),
    "hrnet-random": Variant(backbone="hrnet_w32", init="random"),
    "vit-s-random": Variant(backbone="dinov2_vits14", init="random"),
    "vit-b-random": Variant(backbone="dinov2_vitb14", init="random"),
    "hrnet-iterative": Variant("head=iterative", backbone="hrnet_w32"),
    "hrnet": Variant(backbone="hrnet_w32"),
    "vit-s-iterative": Variant("head=iterative", backbone="dinov2_vits14"),
    "vit-s-imagenet": Variant(backbone="dinov2_vits14", init="imagenet"),
    "vit-s": Variant(backbone="dinov2_vits14"),
    "vit-b": Variant(backbone="dinov2_vitb14"),
    "vit-l": Variant(backbone="dinov2_vitl14"),
    "closeups": Variant(closeups=True),
    "half-size": Variant(scale=0.5),
    "lite0-reading": Variant(read_joints=True),
    "lite2-reading": Variant(backbone="hybrid_lite2", read_joints=True, like="lite0-reading"),
    "vit-s-reading": Variant(backbone="dinov2_vits14", read_joints=True, like="lite0-reading"),
    "vit-s-random-reading": Variant(
        backbone="dinov2_vits14", init="random", read_joints=True, like="lite0-reading"
    ),
}
# The table: (what is asked, the answer, the variant that stands for it).
ROWS = (
    ("head", "iterative regressor, per token", "iterative"),
    ("head", "Human Perception Head", "reference"),
    ("self-attention among people", "without", "alone"),
    ("self-attention among people", "with", "reference"),
    ("camera embedding", "none", "no-camera"),
    ("camera embedding", "linear", "linear-camera"),
    ("camera embedding", "Fourier", "reference"),
    ("start of the hybrid", "random", "random"),
    ("start of the hybrid", "ImageNet", "reference"),
    ("backbone, random start", "HRNet-W32", "hrnet-random"),
    ("backbone, random start", "ViT-S/14", "vit-s-random"),
    ("backbone, random start", "ViT-B/14", "vit-b-random"),
    ("backbone and head", "HRNet-W32 (ImageNet), iterative", "hrnet-iterative"),
    ("backbone and head", "HRNet-W32 (ImageNet), HPH", "hrnet"),
    ("backbone and head", "ViT-S (DINOv2), iterative", "vit-s-iterative"),
    ("backbone and head", "ViT-S (ImageNet), HPH", "vit-s-imagenet"),
    ("backbone and head", "ViT-S (DINOv2), HPH", "vit-s"),
    ("backbone and head", "ViT-B (DINOv2), HPH", "vit-b"),
    ("backbone and head", "ViT-L (DINOv2), HPH", "vit-l"),
    ("close-ups (CUFFS)", "without", "reference"),
    ("close-ups (CUFFS)", "a third of the pictures", "closeups"),
    ("resolution", "half", "half-size"),
    ("resolution", "full", "reference"),
    ("backbone of the default, as many seconds", "hybrid Lite0 (ImageNet)", "lite0-reading"),
    ("backbone of the default, as many seconds", "hybrid Lite2 (ImageNet)", "lite2-reading"),
    ("backbone of the default, as many seconds", "ViT-S (DINOv2)", "vit-s-reading"),
    ("backbone of the default, as many seconds", "ViT-S (random)", "vit-s-random-reading"),
)
PACE_STEPS, SETTLED = 8, 3  # how many are timed, and how many of these are not counted


@dataclass(frozen=True)
class Plan(AblationPlan):
    """closeups: one more folder to learn from, for the variant that has close-ups. image_size: each backbone
    gets the nearest that it takes; a multiple of 224 is one for all.
    """

    known = VARIANTS

    closeups: str = ""


def run(plan: Plan, *, progress: bool | None = None) -> Path:
    """Train and measure what is not done yet; the path of the table, written anew after each variant.

    A run that was stopped goes on where it stood. Beside the table lies the same as JSON, and a folder for
    each variant and seed. A variant that cannot be trained stands in the table with its reason.

    Raises:
        ValueError: the folder holds results of other settings.
        FileNotFoundError: there are no shards where the plan says.
    """
    out = Path(plan.out)
    out.mkdir(parents=True, exist_ok=True)
    plan.check_settings(out / "settings.json")
    for folder in (plan.test, *plan.data.split(","), *filter(None, [plan.closeups])):
        Shards(folder)
    # All variants of a seed before the next seed: a run that is cut short has whole columns.
    for seed in plan.seeds:
        for name in plan.variants:
            _once(plan, name, seed, progress)
            table_path = write(plan, out)
    return table_path


def config_of(plan: Plan, name: str, seed: int) -> TrainConfig:
    """How a variant is trained. ValueError: it wants close-ups and the plan has none."""
    variant = VARIANTS[name]
    data = plan.data
    if variant.closeups:
        if not plan.closeups:
            raise ValueError("no folder of close-ups was given; multihmr generate --closeup makes them")
        folders = plan.data.split(",")
        data = ",".join([*(f"{folder}:{2 / len(folders):.6f}" for folder in folders), f"{plan.closeups}:1"])
    return TrainConfig(
        data=data,
        out=str(Path(plan.out) / name / str(seed)),
        backbone=variant.backbone or "hybrid_lite0",
        image_size=_image_size(plan, variant),
        network=variant.network,
        init=variant.init,
        steps=plan.steps,
        batch_size=plan.batch_size,
        warmup=max(1, min(300, plan.steps // 10)),
        read_joints=variant.read_joints,
        workers=plan.workers,
        seed=seed,
        device=plan.device,
    )


def _image_size(plan: Plan, variant: Variant) -> int:
    step = 14 if variant.backbone.startswith("dinov2") else 32
    return max(1, round(plan.image_size * variant.scale / step)) * step


def _once(plan: Plan, name: str, seed: int, progress: bool | None) -> None:
    """Train and measure one variant with one seed, if that is not done."""
    folder = Path(plan.out) / name / str(seed)
    if (folder / "result.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    log.info("%s, seed %d", name, seed)
    try:
        config = _at_equal_cost(plan, name, config_of(plan, name, seed))
        with _Stopwatch(folder / "seconds.json") as watch:
            weights = train(config, progress=progress)
        result = measure(plan, weights, progress=progress)
    except FAILURES as error:
        log.warning("%s, seed %d: not run: %s", name, seed, error)
        write_json(folder / "failure.json", {"reason": " ".join(str(error).split())})
        return
    (folder / "failure.json").unlink(missing_ok=True)
    write_json(folder / "result.json", result | {"seconds": watch.seconds, "config": asdict(config)})


def _at_equal_cost(plan: Plan, name: str, config: TrainConfig) -> TrainConfig:
    """With so many steps that a variant takes as long as the one that it is `like`."""
    if not VARIANTS[name].like:
        return config
    path = Path(config.out) / "pace.json"
    if not path.exists():
        other = config_of(plan, VARIANTS[name].like, config.seed)
        pace, other_pace = _pace(config), _pace(other)
        write_json(path, {"steps": max(1, round(plan.steps * pace / other_pace))})
    steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
    return replace(config, steps=steps, warmup=max(1, min(300, steps // 10)))


def _pace(config: TrainConfig) -> float:
    """Pictures a second once training goes; the best, for other work on the machine slows single steps."""
    with tempfile.TemporaryDirectory() as out:
        train(replace(config, out=out, steps=PACE_STEPS, log_every=1), progress=False)
        notes = (Path(out) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return max(json.loads(note)["pictures_per_second"] for note in notes[SETTLED:])


def measure(plan: Plan, weights: Path, *, progress: bool | None = None) -> dict[str, Any]:
    """FIGURES of a model on the test pictures, the position error by field of view, and its size."""
    model = load_model(str(weights), device=plan.device or None)
    fovs: dict[str, float] = {}
    samples = _with_fov(islice(Shards(plan.test), plan.count), fovs)
    result = evaluate(model, samples, progress=bool(progress))
    figures = {name: getattr(result.figures, name) for name in FIGURES if name != "f1"} | {"f1": result.f1}
    return {
        "figures": {name: _known(value) for name, value in figures.items()},
        "position_by_fov": _position_by_fov(result.people, fovs),
        "baseline_mpjpe": _known(result.baseline_all.mpjpe),
        "people": result.counts.found + result.counts.missed,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def _with_fov(samples: Iterable[Sample], fovs: dict[str, float]) -> Iterator[Sample]:
    """The samples; on their way the field of view over the longer side [degrees] is noted by name."""
    for sample in samples:
        longer = max(sample.image.shape[:2])
        fovs[sample.name] = math.degrees(2 * math.atan(longer / (2 * float(sample.K[0, 0]))))
        yield sample


def _position_by_fov(people: People, fovs: dict[str, float]) -> list[float | None]:
    """Median position error [% of the distance] of those found, for each range of FOV_EDGES."""
    fov = np.array([fovs[name] for name in people.image], dtype=float)
    medians = []
    for low, high in pairwise(FOV_EDGES):
        errors = people.errors[people.found & (fov >= low) & (fov < high), -1]
        medians.append(_known(float(np.median(errors)) if len(errors) else math.nan))
    return medians


class _Stopwatch:
    """Seconds spent inside, summed in a file over all times that a run was stopped and went on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds = json.loads(path.read_text(encoding="utf-8"))["seconds"] if path.exists() else 0.0

    def __enter__(self) -> _Stopwatch:
        self._start = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.seconds += time.monotonic() - self._start
        write_json(self.path, {"seconds": self.seconds})


def write(plan: Plan, out: Path) -> Path:
    """table.md and table.json of what is done in `out`; the path of the first."""
    results = {name: plan.results(name) for name in plan.variants}
    rows = [
        {"question": question, "answer": answer, "variant": name, **_summary(results[name])}
        for question, answer, name in ROWS
        if name in results and (results[name] or _failure(plan, out, name))
    ]
    for row in rows:
        done = results[row["variant"]]
        if not done:
            row["failure"] = _failure(plan, out, row["variant"])
        elif VARIANTS[row["variant"]].like:
            row["answer"] += f", {done[0]['config']['steps']} steps"
    write_json(out / "table.json", {"plan": asdict(plan), "rows": rows})
    path = out / "table.md"
    path.write_text(table(rows, plan), encoding="utf-8")
    return path


def table(rows: Sequence[dict[str, Any]], plan: Plan) -> str:
    """Markdown: all figures by question, then the position error by field of view of the camera rows."""
    heading = ["", "", *(title for title, _ in FIGURES.values()), "M parameters", "minutes", "runs"]
    lines = [*_head(heading)]
    for row in rows:
        if "failure" in row:
            lines.append(line([row["question"], row["answer"], f"not run: {row['failure']}"]))
            continue
        figures = [_cell(row["figures"][name], digits) for name, (_, digits) in FIGURES.items()]
        cost = [f"{row['parameters'] / 1e6:.1f}", f"{row['seconds'] / 60:.1f}", str(row["runs"])]
        lines.append(line([row["question"], row["answer"], *figures, *cost]))
    cameras = [row for row in rows if row["question"] == "camera embedding" and "failure" not in row]
    if cameras:
        edges = list(pairwise(FOV_EDGES))
        lines += ["", *_head(["position %, by field of view", *(f"{a:.0f}-{b:.0f}°" for a, b in edges)])]
        for row in cameras:
            lines.append(line([row["answer"], *(_cell(by, 1) for by in row["position_by_fov"])]))
    lines += ["", _caption(rows, plan), ""]
    return "\n".join(lines)


def _caption(rows: Sequence[dict[str, Any]], plan: Plan) -> str:
    done = [row for row in rows if "failure" not in row]
    mean = f" The mean person has MPJPE {done[0]['baseline_mpjpe']:.1f}." if done else ""
    return (
        f"{plan.steps} steps of {plan.batch_size} pictures of {plan.image_size} pixels; measured on "
        f"{plan.count} pictures with the true camera. Errors in mm over the people found, means; of the "
        f"position, medians. ± is half the range over seeds.{mean}"
    )


def _summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Figures of all seeds as (mean, half the range); the rest as means."""
    if not results:
        return {}
    bins = zip(*(result["position_by_fov"] for result in results), strict=True)
    return {
        "figures": {name: _spread([r["figures"][name] for r in results]) for name in FIGURES},
        "position_by_fov": [_spread(list(values)) for values in bins],
        "parameters": results[0]["parameters"],
        "people": results[0]["people"],
        "baseline_mpjpe": results[0]["baseline_mpjpe"],
        "seconds": float(np.mean([result["seconds"] for result in results])),
        "runs": len(results),
    }


def _spread(values: Sequence[float | None]) -> tuple[float, float] | None:
    known = [value for value in values if value is not None]
    return (float(np.mean(known)), (max(known) - min(known)) / 2) if known else None


def _failure(plan: Plan, out: Path, name: str) -> str:
    paths = [out / name / str(seed) / "failure.json" for seed in plan.seeds]
    return next(
        (json.loads(path.read_text(encoding="utf-8"))["reason"] for path in paths if path.exists()), ""
    )


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _cell(spread: Sequence[float] | None, digits: int) -> str:
    if spread is None:
        return "-"
    mean, half = spread
    return f"{mean:.{digits}f}" + (f" ± {half:.{digits}f}" if half else "")


def _head(titles: Sequence[str]) -> list[str]:
    return [line(titles), line(["---"] * len(titles))]


if __name__ == "__main__":
    sys.exit(main(Plan, run, __doc__))
