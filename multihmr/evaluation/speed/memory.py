"""Peak memory of a prediction: resident, in a process of its own that has done nothing else.

    python -m multihmr.evaluation.speed.memory '{"file": null, "dtype": "float32", ...}'

writes one line of JSON. Imports nothing heavy by itself, so that torch's own share can be measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Request:
    """A prediction whose memory is measured.

    Attributes:
        file: what load_model takes.
        dtype, backend: names, as load_model takes them.
        people: how many to force; None leaves it to the model.
        batch: images at once.
        threads: of torch.
        image: path of an image; None is noise of 640x480.
        padding: as load_model takes it.
    """

    file: str | None
    dtype: str
    backend: str
    people: int | None
    batch: int
    threads: int
    image: str | None = None
    padding: str = "whole"


def peak_of_prediction(request: Request) -> dict[str, float] | None:
    """Measure the peak memory of a prediction in a fresh process on the CPU.

    Args:
        request: the prediction.

    Returns:
        Megabytes (1e6 bytes) resident at most up to each of: "torch" imported, model "loaded", two times
        "predict". None where the system does not provide it.

    Raises:
        RuntimeError: the process failed; its last output is in the message.
    """
    image = None if request.image is None else str(Path(request.image).absolute())
    is_file = request.file and Path(request.file).exists()
    file = str(Path(str(request.file)).absolute()) if is_file else request.file
    facts = json.dumps(asdict(replace(request, image=image, file=file)))
    command = [sys.executable, "-m", __name__, facts]
    above = Path(__file__).parents[3]  # where this very package is imported from
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=above, encoding="utf-8")
    if done.returncode:
        raise RuntimeError(f"measuring memory in a process of its own failed: {done.stderr[-500:]}")
    measured: dict[str, float] | None = json.loads(done.stdout.splitlines()[-1])
    return measured


def highest_mb() -> float | None:
    """Peak memory of this process so far [1e6 bytes].

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


def _measure(request: Request) -> dict[str, float | None]:
    import torch

    torch.set_num_threads(request.threads)
    peaks = {"torch": highest_mb()}
    from .machine import noise_picture
    from .models import load
    from .stages import Run

    model = load(request.file, request.dtype, request.backend, device="cpu", padding=request.padding)
    peaks["loaded"] = highest_mb()
    image = noise_picture() if request.image is None else request.image
    run = Run(model, image, people=request.people, batch=request.batch)
    for _ in range(2):
        run.predict()
    return peaks | {"predict": highest_mb()}


if __name__ == "__main__":
    measured = _measure(Request(**json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(None if None in measured.values() else measured) + "\n")
