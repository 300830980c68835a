"""How quick is `multihmr cluster` here, and does it lose or repeat anything when it is killed?

    python scripts/measure_cluster.py --out runs/cluster                  2000 pictures of 224 pixels
    python scripts/measure_cluster.py --out runs/cluster --count 200      to try it

One worker, two workers (pictures per second, and their ratio); a run that is killed with SIGKILL and started
again; a run one of whose workers is killed. The last two must have the rows of the second, each once. What
was measured lies in OUT/measured.json; the same again starts from nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from multihmr.cluster import Report, Settings, predict_dataset
from multihmr.io.parquet import Parts

IMAGES = Path(__file__).parents[1] / "examples/images"
SIZE = 224


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=2000, help="pictures; default: %(default)s")
    parser.add_argument("--model", help="default: the bundled one")
    parser.add_argument("--workers", type=int, default=2, help="compared with one; default: %(default)s")
    args = parser.parse_args()
    shutil.rmtree(args.out, ignore_errors=True)
    pictures = args.out / "pictures"
    write_pictures(pictures, args.count)
    found: dict[str, Any] = {
        "count": args.count,
        "size": SIZE,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    for workers in (1, args.workers):
        found[f"{workers} workers"] = measure(pictures, args.out / f"{workers}", args.model, workers)
        print(json.dumps(found[f"{workers} workers"]), flush=True)
    one, several = (found[f"{workers} workers"]["working_rate"] for workers in (1, args.workers))
    found["ratio"] = round(several / one, 2)
    expected = tables(args.out / f"{args.workers}")
    command = [sys.executable, "-m", "multihmr", "cluster", str(pictures), "--workers", str(args.workers)]
    command += ["--save-every", "5"]
    command += ["--model", args.model] if args.model else []
    for name, kill in (("run killed", kill_run), ("worker killed", kill_worker)):
        found[name] = kill(command, args.out / name.replace(" ", "-"), args.count) | compare(
            expected, tables(args.out / name.replace(" ", "-")), args.count
        )
        print(name, json.dumps(found[name]), flush=True)
    (args.out / "measured.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    print(f"{args.workers} workers do {found['ratio']} times what one does; all in {args.out}/measured.json")


def write_pictures(folder: Path, count: int) -> None:
    """Square crops of the example pictures, some of them mirrored, all of one size."""
    folder.mkdir(parents=True)
    sources = [Image.open(path).convert("RGB") for path in sorted(IMAGES.glob("*.jpg"))]
    rng = np.random.default_rng(0)
    for number in range(count):
        source = sources[number % len(sources)]
        side = int(rng.integers(min(source.size) // 2, min(source.size) + 1))
        left, top = (int(rng.integers(0, length - side + 1)) for length in source.size)
        crop = source.resize((SIZE, SIZE), Image.Resampling.BICUBIC, (left, top, left + side, top + side))
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop
        crop.save(folder / f"{number:06d}.jpg", quality=92)


def measure(pictures: Path, out: Path, model: str | None, workers: int) -> dict[str, float]:
    """Rates of one run: with the time to start, and from the first answer to the last."""
    answers: list[tuple[float, int]] = []

    def watch(report: Report) -> None:
        answers.append((time.monotonic(), report.pictures))

    report = predict_dataset(pictures, out, model=model, settings=Settings(workers=workers), watch=watch)
    (start, first), (end, last) = answers[0], answers[-1]
    people = sum(part.stat().st_size for part in (out / "people").iterdir())
    return {
        "pictures": report.pictures,
        "people": report.people,
        "seconds": round(report.seconds, 1),
        "rate": round(report.rate, 2),
        "working_rate": round((last - first) / max(end - start, 1e-9), 2),
        "rate_of_worker": round(report.rate_of_worker, 2),
        "bytes_a_person": round(people / max(report.people, 1)),
    }


def kill_run(command: list[str], out: Path, count: int) -> dict[str, int]:
    """SIGKILL for the process that writes, once a part is there; then the same command again."""
    process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
    wait_for(lambda: Parts(out).numbers("pictures"), process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = len(tables(out)["pictures"])
    subprocess.run([*command, "--out", str(out)], check=True)
    return {"done_when_killed": done}


def kill_worker(command: list[str], out: Path, count: int) -> dict[str, int]:
    """SIGKILL for one worker, some seconds after they began to predict."""
    process = subprocess.Popen([*command, "--out", str(out)])
    wait_for(lambda: working(process.pid), process)
    time.sleep(5)
    victim = working(process.pid)[0]
    os.kill(victim, signal.SIGKILL)
    assert process.wait() == 0, "the run did not end well"
    return {"killed": victim}


def working(parent: int) -> list[int]:
    """Process ids of workers under `parent` that have a picture before them."""
    parents, names = {}, {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int(
                    (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
                )
                names[int(entry.name)] = (entry / "cmdline").read_text(encoding="utf-8")
            except (OSError, ValueError):
                continue
    mine = {parent}
    while more := {pid for pid, its_parent in parents.items() if its_parent in mine} - mine:
        mine |= more
    return sorted(pid for pid in mine if "MapWorker" in names[pid] and ".submit" in names[pid])


def wait_for(there: Callable[[], Any], process: subprocess.Popen[bytes]) -> None:
    while not there():
        assert process.poll() is None, "the run ended before it could be killed: take more pictures"
        time.sleep(0.2)


def tables(out: Path) -> dict[str, pa.Table]:
    parts = Parts(out)
    return {
        kind: pa.concat_tables([parts.read(kind, number) for number in parts.numbers(kind)])
        for kind in ("pictures", "people")
    }


def compare(expected: dict[str, pa.Table], found: dict[str, pa.Table], count: int) -> dict[str, int]:
    """How many rows are lost or there twice; how many pictures have other people than without a kill."""
    names = found["pictures"]["picture"].to_pylist()
    people = {
        key: {(row["picture"], row["person"]): row["translation"] for row in table["people"].to_pylist()}
        for key, table in (("expected", expected), ("found", found))
    }
    far = [
        key
        for key in people["expected"].keys() & people["found"].keys()
        if np.abs(np.subtract(people["expected"][key], people["found"][key])).max() > 1e-3
    ]
    return {
        "lost": count - len(set(names)),
        "twice": len(names) - len(set(names)) + len(found["people"]) - len(people["found"]),
        "people_lost": len(people["expected"].keys() - people["found"].keys()),
        "people_added": len(people["found"].keys() - people["expected"].keys()),
        "people_elsewhere": len(far),
    }


if __name__ == "__main__":
    main()
