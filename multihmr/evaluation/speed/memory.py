"""How much memory a prediction takes at most: resident, in a process of its own that has done nothing else.

    python -m multihmr.evaluation.speed.memory '{"file": null, "dtype": "float32", ...}'

writes one line of JSON. Imports nothing heavy by itself, so that what torch takes can be told.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Asked:
    """A prediction. file: what load_model takes; image: path of a picture, None is noise of 640x480."""

    file: str | None
    dtype: str
    backend: str
    people: int | None
    batch: int
    threads: int
    image: str | None = None


def peak_of_prediction(asked: Asked) -> dict[str, float] | None:
    """Megabytes (1e6 bytes) resident at most in a fresh process on the CPU, up to each of: "torch" imported,
    model "loaded", two times "predict". None where the system does not tell.
    """
    image = None if asked.image is None else str(Path(asked.image).absolute())
    file = str(Path(asked.file).absolute()) if asked.file and Path(asked.file).exists() else asked.file
    facts = json.dumps(asdict(replace(asked, image=image, file=file)))
    command = [sys.executable, "-m", __name__, facts]
    above = Path(__file__).parents[3]  # where this very package is imported from
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=above, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"measuring memory in a process of its own failed: {done.stderr[-500:]}")
    measured: dict[str, float] | None = json.loads(done.stdout.splitlines()[-1])
    return measured


def highest_mb() -> float | None:
    """The most that this process ever held in memory [1e6 bytes].

    Not getrusage's ru_maxrss: on Linux that begins with what the process held that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    with suppress(ImportError):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # macOS: in bytes
    return None


def _measure(asked: Asked) -> dict[str, float | None]:
    import torch

    torch.set_num_threads(asked.threads)
    peaks = {"torch": highest_mb()}
    from .machine import noise_picture
    from .models import load
    from .stages import Trial

    model = load(asked.file, asked.dtype, asked.backend, device="cpu")
    peaks["loaded"] = highest_mb()
    image = noise_picture() if asked.image is None else asked.image
    trial = Trial(model, image, people=asked.people, batch=asked.batch)
    for _ in range(2):
        trial.predict()
    return peaks | {"predict": highest_mb()}


if __name__ == "__main__":
    measured = _measure(Asked(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(None if None in measured.values() else measured) + "\n")
