"""Measure how the time of a prediction grows with people, tokens and batch size: JSON and plots.

    python scripts/measure_speed.py OUT [--threads 2] [--rounds 3] [--device cuda] [--small]

Writes OUT/people.json, OUT/tokens.json and OUT/batch.json, one after the other, then OUT/speed_people.png,
OUT/speed_tokens.png and OUT/speed_batch.png. What is there is kept: a stopped run resumes, and plots
can be drawn anew without measuring. Every point is a run of `multihmr.evaluation.speed.benchmark.bench` with
its own reference and the machine's own matrix products; `--small` is a rehearsal of seconds.

Two models: the bundled one, and Multi-HMR on DINOv2 ViT-S/14 with random weights, as fast as with others. The
picture is noise of 1280x720. So that exactly as many people are predicted as requested, none are
suppressed; the bundled model then regresses four cells for each person, the most that it ever does.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from multihmr.evaluation.speed.benchmark import bench
from multihmr.evaluation.speed.machine import noise_picture, threads
from multihmr.evaluation.speed.models import (
    VIT_S,
    Config,
    Plan,
    files_of,
    load,
    random_name,
    resized,
)
from multihmr.hub.releases import DEFAULT

VIT = random_name(*VIT_S)
PEOPLE_SIZE = 448  # of the input in which people are counted: the bundled model's own has 196 cells
NO_SUPPRESSION = (1e-6, 1e-6)  # metres and ratio of depths: MultiHMRConfig.nms_3d_distance

# per measure and model: what is varied
FULL = {
    "people": {DEFAULT: [0, 1, 3, 10, 30, 100, 190], VIT: [0, 1, 3, 10, 30, 100, 200]},
    "tokens": {DEFAULT: [256, 448, 672, 896, 1280], VIT: [252, 448, 672, 896, 1288]},
    "batch": {DEFAULT: [1, 2, 4, 8, 16, 32, 64], VIT: [1, 2, 4, 8, 16]},
}
SMALL = {
    "people": {DEFAULT: [0, 3, 10], VIT: [1]},
    "tokens": {DEFAULT: [224, 256], VIT: [224]},
    "batch": {DEFAULT: [1, 2], VIT: [1]},
}
STRIDE = {DEFAULT: 16, VIT: 14}
COLOURS = {DEFAULT: "#ec6e54", VIT: "#4898d6"}
NOT_TIMED = (math.nan,) * 3
TITLES = {
    "people": "people in the picture",
    "tokens": "tokens (patches of the input)",
    "batch": "images at once",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="few points, to see whether it runs")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    points = SMALL if args.small else FULL
    with threads(args.threads), tempfile.TemporaryDirectory() as folder:
        files = files_of(None, [VIT_S], folder=Path(folder))
        for measure in points:
            for name, values in points[measure].items():
                for value in values:
                    once(
                        args.out / f"{measure}.json",
                        f"{name} {value}",
                        lambda m=measure, n=name, v=value: point(
                            m,
                            config_of(m, n, v, files[n], device=args.device, folder=Path(folder)),
                            v,
                            args.rounds,
                        ),
                    )
    for measure in points:
        plot(json.loads((args.out / f"{measure}.json").read_text(encoding="utf-8")), measure, args.out)


def once(file: Path, key: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Add a measurement to the JSON under its key, if it is not there already."""
    known = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if key in known:
        report(f"{file.stem} {key}: measured before")
        return
    start = time.perf_counter()
    known[key] = measure()
    part = file.with_suffix(".part")
    part.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    part.replace(file)
    ends = known[key]["timing"]["stages_ms"]["end to end"]
    report(f"{file.stem} {key}: {ends[1]:.1f} ms; took {time.perf_counter() - start:.0f} s")


def config_of(measure: str, name: str, value: int, file: str | None, *, device: str, folder: Path) -> Config:
    """The model, in the size that this point needs."""
    size = {"people": PEOPLE_SIZE, "tokens": value, "batch": None}[measure]
    model = load(file if size is None else resized(file, size, folder), device=device)
    if model.config.nms_3d_distance is not None and measure == "people":
        model.network.config = dataclasses.replace(model.config, nms_3d_distance=NO_SUPPRESSION)
    elif measure == "people":
        model.network.config = dataclasses.replace(model.config, nms_kernel=1)
    return Config(name, model.config.image_size, "float32", "eager", model, model)


def point(measure: str, model: Config, value: int, rounds: int) -> dict[str, Any]:
    """One point of a plot: a timing, and what the machine did meanwhile."""
    people = value if measure == "people" else 3
    batch = value if measure == "batch" else 1
    plan = Plan(people=(people,), batches=(batch,), rounds=rounds, draw=False, memory=False)
    speed = bench([model], plan, image=noise_picture(720, 1280))
    facts = speed.to_dict()
    return {"value": value, "name": model.name, "timing": facts.pop("timings")[0], **facts}


def plot(points: dict[str, Any], measure: str, out: Path) -> None:
    """Milliseconds of a picture against what was varied, both logarithmic but for people."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5.6, 3.6), dpi=100)
    for name in dict.fromkeys(facts["name"] for facts in points.values()):
        mine = sorted((f for f in points.values() if f["name"] == name), key=lambda f: f["value"])
        x = [(f["value"] // STRIDE[name]) ** 2 if measure == "tokens" else f["value"] for f in mine]
        for stage, style in (("end to end", "o-"), ("backbone", "--"), ("body", "x:")):
            if measure != "people" and stage == "body":
                continue
            y = [f["timing"]["stages_ms"].get(stage, NOT_TIMED)[1] / f["timing"]["batch"] for f in mine]
            axes.plot(x, y, style, color=COLOURS[name], label=f"{name}, {stage}", markersize=4, linewidth=1.2)
    axes.set_yscale("log")
    if measure == "people":
        axes.set_ylim(bottom=1)  # the body of no people costs microseconds
    else:
        axes.set_xscale("log", base=2)
    facts = next(iter(points.values()))
    axes.set_xlabel(TITLES[measure])
    axes.set_ylabel("ms a picture (median)")
    axes.set_title(f"{facts['device']}, threads: {facts['threads']}, float32, eager", fontsize=9)
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(out / f"speed_{measure}.png", pil_kwargs={"optimize": True})
    pyplot.close(figure)


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
