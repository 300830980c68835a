"""What is to be measured on a GPU, in the order in which it matters, for machines lent for minutes.

    python scripts/measure_gpu.py runs/gpu --minutes 9                 # on the GPU
    python scripts/measure_gpu.py runs/gpu --minutes 9 --only synth    # one of the parts
    python scripts/measure_gpu.py runs/gpu --device cpu                # a rehearsal: the same commands, small

Each part runs in processes of its own, with a limit to their time, so that one that fails or hangs takes
nothing from the others; what it prints goes to OUT/PART.txt as well. Parts that are there are not run again.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

MULTIHMR = [sys.executable, "-m", "multihmr"]
FRESH = """
import sys, time
start = time.perf_counter()
from multihmr import load_model
model = load_model(device=sys.argv[1], backend=sys.argv[2])
humans = model.predict("examples/images/group.jpg")
print(f"{sys.argv[2]}: {time.perf_counter() - start:.1f} s from the first import to {len(humans)} people")
"""


def parts(device: str, out: Path, assets: str | None) -> dict[str, tuple[int, list[list[str]]]]:
    """name -> seconds at most, commands."""
    gpu = device != "cpu"
    vits = "dinov2_vitl14@896,dinov2_vits14@448" if gpu else "dinov2_vits14@224"
    rounds, dtype = ("30", "bfloat16") if gpu else ("1", "float32")
    first, second, third = (
        ("eager,cudagraph", "cudagraph-compile", "cudagraph-float8") if gpu else ("eager",) * 3
    )

    def bench(name: str, backends: str, people: str, batch: str) -> list[str]:
        plan = ["--backend", backends, "--people", people, "--batch", batch, "--dtype", dtype]
        rest = ["--device", device, "--rounds", rounds, "--no-draw", "--json", str(out / f"{name}.json")]
        return [*MULTIHMR, "bench", "--vit", vits, "--image", "examples/images/group.jpg", *plan, *rest]

    fresh = [first.split(",")[-1], second]
    workers = [] if gpu else ["--workers", "2"]
    count = "2000" if gpu else "16"
    synth = [*MULTIHMR, "generate", "--count", count, "--per-shard", "50" if gpu else "4", "--seed", "7"]
    synth += ["--assets", assets] if assets else []
    learn = ["--data", str(out / "on_cpu"), "--device", device, "--out", str(out / "train")]
    learn += ["--init", "random"]  # its speed does not need what was pretrained
    learn += ["--steps", "300", "--batch-size", "64"] if gpu else ["--steps", "2", "--batch-size", "2"]
    return {
        "tests": (
            120,
            [[sys.executable, "-m", "pytest", "-q", "-k", "gpu", "tests/runtime/test_cuda_graphs.py"]],
        ),
        "recorded": (120, [bench("recorded", first, "1,10", "1,16" if gpu else "1,2")]),
        "compiled": (400, [bench("compiled", second, "10", "1,16" if gpu else "1")]),
        "crowd": (90, [bench("crowd", first.split(",")[-1], "1,100" if gpu else "1,3", "1")]),
        "float8": (300, [bench("float8", third, "10", "1")]),
        "fresh": (120, [[sys.executable, "-c", FRESH, device, backend] for backend in (*fresh, *fresh)]),
        "synth": (
            180,
            [
                [*synth, "--out", str(out / "on_cpu"), *workers],
                [*synth, "--out", str(out / "on_gpu"), "--device", device],
            ],
        ),
        "train": (120, [[*MULTIHMR, "train", *learn]]),
    }


def run(name: str, seconds: int, commands: list[list[str]], out: Path) -> None:
    """The commands one after the other, and what they took."""
    said = []
    for command in commands:
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=seconds,
                encoding="utf-8",
            )
            text, end = done.stdout, f"exit {done.returncode}"
        except subprocess.TimeoutExpired as error:
            text, end = (error.stdout or b"").decode(errors="replace"), f"stopped after {seconds} s"
        took = time.perf_counter() - start
        said.append(f"$ {' '.join(command)}\n{text}\n[{end}, {took:.1f} s]\n")
        print(said[-1], flush=True)
    (out / f"{name}.txt").write_text("\n".join(said), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="folder for what is measured")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu for a rehearsal; default: %(default)s")
    parser.add_argument("--assets", help="folder of clothes, skins and poses for synth, which dresses people")
    parser.add_argument("--minutes", type=float, default=60, help="no part begins after; default: 60")
    parser.add_argument("--only", default="", help="names of parts, with commas; default: all")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    known = parts(args.device, args.out, args.assets)
    asked = args.only.split(",") if args.only else list(known)
    unknown = set(asked) - set(known)
    if unknown:
        parser.error(f"there are no parts {', '.join(sorted(unknown))}; known: {', '.join(known)}")
    end = time.monotonic() + 60 * args.minutes
    for name in asked:
        if (args.out / f"{name}.txt").exists():
            print(f"{name}: is there")
        elif time.monotonic() > end:
            print(f"{name}: no time left; run this again")
        else:
            run(name, known[name][0], known[name][1], args.out)


if __name__ == "__main__":
    main()
