"""Shared by the ablation scripts: the plan of a run, its settings on disk, command line and tables."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from multihmr.storage.atomic import write_text

HELP = {
    "data": "folders of training shards, comma separated",
    "test": "folder of test shards",
    "out": "output folder: the table, and one folder per variant",
    "closeups": "folder of shards of close-ups",
    "init": "model to start from, as in `multihmr train`",
    "network": "network settings shared by all variants, as in `multihmr train`",
    "vertices": "number of body vertices used by the losses",
    "count": "number of test pictures",
    "seeds": "comma-separated seeds; each variant is trained once per seed",
    "device": "cpu, cuda, cuda:1, mps",
    "workers": "number of data loading processes",
}
# Errors that skip a variant instead of ending the run: weights that cannot be fetched, a diverged loss.
FAILURES = (OSError, ImportError, ValueError, RuntimeError, FloatingPointError)


@dataclass(frozen=True)
class AblationPlan:
    """Which variants are trained and evaluated, and on which data.

    Attributes:
        data, test: folders of shards.
        only: names of variants to run; all of `known` if empty.
        seeds: each variant is trained once per seed.
        count: number of test pictures.
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
        """Refuse to mix results of different data, lengths or networks in one table.

        Writes the settings to `path` if there is no such file.

        Raises:
            ValueError: the settings in `path` differ from this plan's.
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
        """Results of a variant, one per finished seed."""
        paths = [Path(self.out) / name / str(seed) / "result.json" for seed in self.seeds]
        return [json.loads(path.read_text(encoding="utf-8")) for path in paths if path.exists()]


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, atomically."""
    write_text(path, json.dumps(content, indent=1))


def line(cells: Sequence[str]) -> str:
    """One row of a markdown table."""
    return f"| {' | '.join(cells)} |"


def main(plan: type[AblationPlan], run: Callable[[Any], Path], description: str | None) -> int:
    """Command line with one flag per field of the plan: runs it and prints the table."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in fields(plan):
        required = field.default is MISSING
        several = isinstance(field.default, tuple)
        text = (
            f"variants to run, of {','.join(plan.known)}"
            if field.name == "only"
            else HELP.get(field.name, "")
        )
        parser.add_argument(
            "--" + field.name.replace("_", "-"),
            required=required,
            default=",".join(map(str, field.default)) if several else None if required else field.default,
            type=str if several or required else type(field.default),
            help=text + ("" if required else " (default: %(default)s)"),
        )
    values = vars(parser.parse_args())
    values["seeds"] = tuple(int(seed) for seed in values["seeds"].split(","))
    values["only"] = tuple(name for name in values["only"].split(",") if name)
    logging.basicConfig(format="%(message)s")
    logging.getLogger("multihmr").setLevel(logging.INFO)
    try:
        path = run(plan(**values))
    except (ValueError, OSError, KeyboardInterrupt) as error:
        print(f"ablations: {error}", file=sys.stderr)
        return 1
    print(path.read_text(encoding="utf-8"))
    return 0
