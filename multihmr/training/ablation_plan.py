"""What the ablations of all networks share: a plan, its settings on disk, results of several seeds."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..storage.atomic import write_text

# What a variant may fail of without ending the run: weights that cannot be fetched, a loss gone wrong.
FAILURES = (OSError, ImportError, ValueError, RuntimeError, FloatingPointError)


@dataclass(frozen=True)
class AblationPlan:
    """What is trained on what, and measured on what.

    data, test: folders of shards. only: names of the known variants; all if empty. seeds: each variant is
    trained once with each. count: pictures to measure on.
    """

    known: ClassVar[Collection[str]]

    data: str
    test: str
    out: str
    steps: int = 3000
    batch_size: int = 16
    image_size: int = 224
    count: int = 500
    seeds: tuple[int, ...] = (0, 1)
    only: tuple[str, ...] = ()
    device: str = ""
    workers: int = 1

    def __post_init__(self) -> None:
        unknown = sorted(set(self.only) - set(self.known))
        if unknown:
            raise ValueError(f"no variant {', '.join(unknown)}; known: {', '.join(self.known)}")
        if not self.seeds or self.steps < 1 or self.count < 1:
            raise ValueError(
                f"an ablation needs seeds, steps and pictures, got seeds {self.seeds}, steps {self.steps}, "
                f"count {self.count}"
            )

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(name for name in self.known if name in (self.only or self.known))

    def check_settings(self, path: Path) -> None:
        """Results of other pictures, lengths or networks must not meet in one table.

        ValueError if the settings in `path`, which are written if there are none, are others.
        """
        free = ("out", "seeds", "only", "device", "workers")
        settings = {key: value for key, value in asdict(self).items() if key not in free}
        if not path.exists():
            write_json(path, settings)
            return
        there = json.loads(path.read_text(encoding="utf-8"))
        other = [f"{key} {there.get(key)!r}" for key, value in settings.items() if there.get(key) != value]
        if other:
            raise ValueError(f"{path.parent} holds results of {', '.join(other)}; choose another folder")

    def results(self, name: str) -> list[dict[str, Any]]:
        """What was measured of a variant, for each seed that is done."""
        paths = [Path(self.out) / name / str(seed) / "result.json" for seed in self.seeds]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_text(path, json.dumps(content, indent=1))


def line(cells: Sequence[str]) -> str:
    """A row of a table in markdown."""
    return f"| {' | '.join(cells)} |"
