"""Result of `multihmr bench`: as tables, as JSON, and compared with an earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ...storage.atomic import write_text
from .stages import STAGES

FORMAT = 2
Key = tuple[str, int, str, str, int, int | None]


class Spread(NamedTuple):
    """Median and quartiles over the rounds."""

    low: float
    median: float
    high: float

    @classmethod
    def of(cls, values: np.ndarray) -> Spread:
        return cls(*(float(x) for x in np.quantile(values, (0.25, 0.5, 0.75))))


@dataclass(frozen=True)
class Timing:
    """Timing of one configuration.

    Attributes:
        name, size, dtype, backend: of the configuration; size is the side of the network's input [pixels].
        batch: images at once.
        people: requested number; None: as found.
        found: number that was predicted in an image; a heatmap with few peaks may keep it below `people`.
        stages_ms: of each stage and "end to end", for the whole batch.
        ratio: end to end to the reference.
        operations: floating-point ones, of the batch.
        difference_mm: largest and mean between its vertices and those of eager float32.
        people_alone: people that only one of the two has.
        memory_mb: peak; on a CPU also once torch was imported and the model loaded.
        speedup: time of the same model in eager float32 divided by this one's, within the same rounds; None
            where that was not timed.
        difference_99_mm: 99th percentile of the distances between vertices.
    """

    name: str
    size: int
    dtype: str
    backend: str
    batch: int
    people: int | None
    found: float
    stages_ms: Mapping[str, Spread]
    ratio: Spread
    operations: Mapping[str, float]
    difference_mm: tuple[float, float]
    people_alone: int
    memory_mb: Mapping[str, float] | None
    speedup: Spread | None = None
    difference_99_mm: float | None = None

    @property
    def key(self) -> Key:
        return self.name, self.size, self.dtype, self.backend, self.batch, self.people

    @property
    def label(self) -> list[str]:
        """The first cells of its row."""
        requested = "found" if self.people is None else self.people
        people = f"{self.found:g}" if requested == self.found else f"{self.found:g} ({requested})"
        return [self.name, str(self.size), self.dtype, self.backend, str(self.batch), people]

    def gflops(self, stage: str) -> float | None:
        """Billions of floating-point operations a second of a stage; None if it was not timed by itself."""
        if stage not in self.stages_ms or stage not in self.operations:
            return None
        return self.operations[stage] / self.stages_ms[stage].median / 1e6


@dataclass(frozen=True)
class Speed:
    """Timings of one run, with machine and settings."""

    timings: tuple[Timing, ...]
    reference: str
    reference_ms: Spread
    peak_gflops: Mapping[str, float]  # of the machine, by precision
    rounds: int
    device: str
    threads: int
    torch: str
    image: str

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    def save(self, path: str | Path) -> None:
        """Write JSON; a file that is there is replaced as a whole."""
        write_text(path, json.dumps(self.to_dict(), indent=2) + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Speed:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else.
        """
        try:
            facts = json.loads(Path(path).read_text(encoding="utf-8"))
            if facts.pop("format") != FORMAT:
                raise ValueError
            facts["timings"] = tuple(_timing(row) for row in facts["timings"])
            facts["reference_ms"] = Spread(*facts["reference_ms"])
            return cls(**facts)
        except (ValueError, KeyError, TypeError, AttributeError):
            raise ValueError(
                f"{path} was not written by `multihmr bench --json` of this version; measure anew"
            ) from None


def _timing(row: dict[str, Any]) -> Timing:
    row["stages_ms"] = {stage: Spread(*spread) for stage, spread in row["stages_ms"].items()}
    row["ratio"] = Spread(*row["ratio"])
    row["difference_mm"] = tuple(row["difference_mm"])
    if row.get("speedup") is not None:
        row["speedup"] = Spread(*row["speedup"])
    return Timing(**row)


_LABEL = ["model", "size", "precision", "backend", "batch", "people"]


def table(speed: Speed) -> str:
    """The result as markdown that is also readable as plain text."""
    peaks = ", ".join(f"{peak:.0f} GFLOP/s in {dtype}" for dtype, peak in speed.peak_gflops.items())
    return "\n".join(
        [
            f"{speed.device}, {speed.threads} threads, torch {speed.torch}, {speed.image}; medians of "
            f"{speed.rounds} interleaved rounds. Matrix products here: {peaks}.",
            f"Ratios to {speed.reference}, which took {speed.reference_ms.median:.1f} ms "
            f"({speed.reference_ms.low:.1f} to {speed.reference_ms.high:.1f}).",
            "",
            *_ends(speed),
            "",
            "Milliseconds of each stage, medians; `draw` comes after predict and is not part of end to end.",
            "",
            *_stages(speed.timings),
        ]
    )


def _ends(speed: Speed) -> list[str]:
    heads = ["end to end ms", "quartiles ms", "images/s", "ratio", "times eager float32"]
    heads += ["GFLOP/s (of peak)", "backbone GFLOP/s", "off eager float32, mm: most, 99 %, mean", "memory MB"]
    rows = []
    for timing in speed.timings:
        low, middle, high = timing.stages_ms["end to end"]
        peak = speed.peak_gflops[timing.dtype]
        cells = [f"{middle:.1f}", f"{low:.1f} to {high:.1f}", f"{1000 * timing.batch / middle:.1f}"]
        cells += [f"{timing.ratio.median:.2f}", _speedup(timing.speedup)]
        cells += [_rate(timing.gflops("end to end"), peak)]
        cells += [_rate(timing.gflops("backbone"), peak), _difference(timing), _memory(timing)]
        rows.append(timing.label + cells)
    return _markdown(_LABEL + heads, rows)


def _stages(timings: Sequence[Timing]) -> list[str]:
    stages = [stage for stage in STAGES if any(stage in timing.stages_ms for timing in timings)]
    rows = [
        timing.label + [f"{timing.stages_ms[s].median:.1f}" if s in timing.stages_ms else "" for s in stages]
        for timing in timings
    ]
    return _markdown(_LABEL + stages, rows)


def _rate(gflops: float | None, peak: float) -> str:
    return "" if gflops is None else f"{gflops:.0f} ({100 * gflops / peak:.0f} %)"


def _speedup(speedup: Spread | None) -> str:
    return "" if speedup is None else f"{speedup.median:.2f} [{speedup.low:.2f}, {speedup.high:.2f}]"


def _difference(timing: Timing) -> str:
    most, mean = timing.difference_mm
    between = "" if timing.difference_99_mm is None else f"{timing.difference_99_mm:.2g}, "
    alone = f"; {timing.people_alone} people in one alone" if timing.people_alone else ""
    return f"{most:.2g}, {between}{mean:.2g}{alone}"


def _memory(timing: Timing) -> str:
    if timing.memory_mb is None:
        return ""
    before = timing.memory_mb.get("torch")
    own = f"{timing.memory_mb['predict']:.0f}"
    return own if before is None else f"{own} (torch {before:.0f})"


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns as wide as their widest cell, so that a terminal shows them straight."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return [line(heads), line(["-" * width for width in widths]), *map(line, rows)]


def compared(old: Speed, new: Speed) -> str:
    """Changes of speed since an earlier run, as a table.

    Ratios to the reference are compared, not times, so that a machine that is busier today does not count.
    Where the quartiles of the two ratios overlap, the difference is noise.

    Raises:
        ValueError: the two runs are not of the same machine, threads, image and reference, or have nothing
            in common.
    """
    for field in ("device", "threads", "image", "reference"):
        was, now = getattr(old, field), getattr(new, field)
        if was != now:
            raise ValueError(
                f"the two runs cannot be compared: {field} was {was!r} and is {now!r}; measure both alike"
            )
    before = {timing.key: timing for timing in old.timings}
    both = [timing for timing in new.timings if timing.key in before]
    if not both:
        raise ValueError(
            "the two runs have nothing in common: no model was timed in both with the same input size, "
            "precision, backend, batch and people"
        )
    heads = ["ratio was", "is", "change", "noise", "verdict"]
    lines = _markdown(_LABEL + heads, [_change(before[timing.key], timing) for timing in both])
    if old.torch != new.torch:
        lines = [f"torch was {old.torch} and is {new.torch}.", "", *lines]
    return "\n".join(lines + _left_out(old, new))


def _change(was: Timing, now: Timing) -> list[str]:
    factor = now.ratio.median / was.ratio.median
    low, high = now.ratio.low / was.ratio.high, now.ratio.high / was.ratio.low
    verdict = "slower" if low > 1 else "faster" if high < 1 else "same within noise"
    if was.found != now.found:
        verdict += f", but {was.found:g} people were found then"
    return [
        *now.label,
        f"{was.ratio.median:.3f}",
        f"{now.ratio.median:.3f}",
        f"{100 * (factor - 1):+.1f} %",
        f"{100 * (low - 1):+.0f} to {100 * (high - 1):+.0f} %",
        verdict,
    ]


def _left_out(old: Speed, new: Speed) -> list[str]:
    """Lines on configurations that only one of the runs timed."""
    first, second = ([timing.key for timing in speed.timings] for speed in (old, new))
    alone = [f"only then: {_words(key)}" for key in first if key not in second]
    alone += [f"only now: {_words(key)}" for key in second if key not in first]
    return ["", *alone] if alone else []


def _words(key: Key) -> str:
    *first, batch, people = key
    return f"{' '.join(map(str, first))}, batch {batch}, people {'found' if people is None else people}"
