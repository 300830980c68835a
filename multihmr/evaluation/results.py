"""Result of a benchmark: figures, the images and people behind them, and the table with published figures."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .benchmarks import BENCHMARKS
from .photographs.result import PhotographResult
from .published import FIGURES, METHODS, PUBLISHED, figure_labels, published
from .report import Counts, Result, no_nan
from .report import table as result_table

_OWN_FIGURES = ("mpjpe", "pa_mpjpe", "pve", "pa_pve", "hand_pa_pve", "head_m", "f1", "precision", "recall")
_MOTION_FIGURES = ("acceleration_error", "jitter", "true_jitter")  # of data with sequences


_ASCII = str.maketrans({"↓": "(lower is better)", "↑": "(higher is better)", "–": "-", "×": "x", "±": "+-"})


@dataclass(frozen=True)
class ImageResult:
    """Result of one image.

    Attributes:
        name: of the sample.
        people: a row of `Evaluator.columns` for each true person that counts.
        counts: fields of `Counts`.
        badness: summed MPJPE [mm], and 1000 for each person missed or predicted falsely.
        skipped: why the image could not be used; "" if it was.
        motion: of frames of a sequence, `motion.motion_rows`.
    """

    name: str
    people: list[list[float]] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    badness: float = 0.0
    skipped: str = ""
    motion: list[list[Any]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class BenchmarkResult:
    """Result of a model on a benchmark.

    Attributes:
        data: name of the benchmark or of the folder of shards.
        model: name of the model.
        settings: the options of the run, and fingerprints of weights and data.
        counts: people found, missed, predicted falsely, ignored.
        figures: by the names of `published.FIGURES`; nan where there is none.
        pictures: every image.
        columns: C names of the columns of `table`.
        table: (T, C) all true people that count.
        names: T names of the samples they are in.
        notes: what could not be compared, and why.
        bins: depth error by distance and age.
        result: with baseline and groups, where the people are of the model's own body.
    """

    data: str
    model: str
    settings: dict[str, Any]
    counts: Counts
    figures: dict[str, float]
    pictures: list[ImageResult]
    columns: Sequence[str]
    table: np.ndarray
    names: list[str]
    notes: tuple[str, ...] = ()
    bins: dict[str, Any] = field(default_factory=dict)
    result: Result | None = None

    @property
    def images(self) -> int:
        """ImageResults that were used."""
        return len(self.pictures) - len(self.skipped)

    @property
    def skipped(self) -> list[ImageResult]:
        return [picture for picture in self.pictures if picture.skipped]

    def to_dict(self) -> dict[str, Any]:
        """All but the results of single pictures, ready for JSON: None where a figure is undefined."""
        facts = {
            "model": self.model,
            "data": self.data,
            "images": self.images,
            "skipped": len(self.skipped),
            "settings": self.settings,
            "counts": asdict(self.counts),
            "figures": self.figures,
            "figure_labels": figure_labels(self.figures),
            "depth": self.bins,
            "notes": list(self.notes),
            "published": [asdict(p) for p in PUBLISHED if p.benchmark == self.data],
        }
        detail = {} if self.result is None else {"own": self.result.to_dict()}
        return no_nan(facts | detail)

    def save(self, folder: Path) -> None:
        """Writes result.json, table.md, pictures.csv (one row a picture) and people.csv (one a person)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(
            json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        (folder / "table.md").write_text(table([self]) + "\n", encoding="utf-8")
        with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["image", *self.columns])
            for name, row in zip(self.names, self.table, strict=True):
                writer.writerow([name, *(f"{x:.6g}" for x in row)])
        with (folder / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            counted = ("found", "missed", "false", "ignored")
            writer.writerow(["image", *counted, "badness", *self.columns, "skipped"])
            for picture in self.pictures:
                means = _means(np.array(picture.people, float).reshape(-1, len(self.columns)))
                counts = (picture.counts.get(key, 0) for key in counted)
                badness = f"{picture.badness:.6g}"
                writer.writerow(
                    [picture.name, *counts, badness, *(f"{x:.6g}" for x in means), picture.skipped]
                )


def save_all(results: Sequence[BenchmarkResult | PhotographResult], folder: Path) -> None:
    """Writes table.md and results.json of several benchmarks."""
    (folder / "table.md").write_text(table(results) + "\n", encoding="utf-8")
    dicts = [result.to_dict() for result in results]
    (folder / "results.json").write_text(
        json.dumps(dicts, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )


def table(results: Sequence[BenchmarkResult | PhotographResult]) -> str:
    """All results beside the published figures, as markdown that is also readable as plain text."""
    benchmarks = [result for result in results if isinstance(result, BenchmarkResult)]
    photographs = [result.table() for result in results if isinstance(result, PhotographResult)]
    return "\n\n".join([*([_benchmark_table(benchmarks)] if benchmarks else []), *photographs])


def _benchmark_table(results: Sequence[BenchmarkResult]) -> str:
    lines = [
        "| benchmark | figure | ours | " + " | ".join(METHODS) + " |",
        "|---" * (3 + len(METHODS)) + "|",
    ]
    sources: dict[str, int] = {}
    for result in results:
        for figure in figures_of(result):
            lines.append(_row(result, figure, sources))
    lines += ["", *(line for result in results for line in _footnotes(result))]
    if sources:
        lines += ["", "Published figures, as printed there, not measured by us:"]
        lines += [f"[{number}] {source}" for source, number in sources.items()]
    details = [result_table(result.result) for result in results if result.result is not None]
    return "\n".join(lines + [part for text in details for part in ("", text)])


def in_encoding(text: str, encoding: str | None) -> str:
    """The text with characters that an encoding lacks replaced: arrows and dashes by ASCII."""
    encoding = encoding or "utf-8"
    try:
        text.encode(encoding)
        return text
    except (UnicodeEncodeError, LookupError):
        replaced = text.translate(_ASCII)
        return replaced.encode("ascii", "backslashreplace").decode("ascii")


def figures_of(result: BenchmarkResult) -> tuple[str, ...]:
    """Names of the figures of the table: the benchmark's, or for other data all that were measured."""
    names = BENCHMARKS[result.data].figures if result.data in BENCHMARKS else _OWN_FIGURES
    own = () if result.data in BENCHMARKS else names
    optional = (*own, *_MOTION_FIGURES)
    known = {name for name in optional if np.isfinite(result.figures.get(name, np.nan))}
    return tuple(name for name in (*names, *_MOTION_FIGURES) if name not in optional or name in known)


def _row(result: BenchmarkResult, name: str, sources: dict[str, int]) -> str:
    figure = FIGURES[name]
    arrow = "↓" if figure.lower_is_better else "↑"
    value = result.figures.get(name, np.nan) * figure.scale
    digits = 3 if figure.unit in ("", "m") else 1
    cells = [result.data, f"{figure.label} {figure.unit}".strip() + f" {arrow}"]
    cells.append(f"**{value:.{digits}f}**" if np.isfinite(value) else "–")
    for method in METHODS:
        entry = published(result.data, name, method)
        if entry is None:
            cells.append("")
            continue
        source = f"{method}{', ' if entry.variant else ''}{entry.variant}: {entry.source}"
        cells.append(f"{entry.value:g} [{sources.setdefault(source, len(sources) + 1)}]")
    return "| " + " | ".join(cells) + " |"


def _footnotes(result: BenchmarkResult) -> list[str]:
    """Lines below the table: counts, camera, notes and skipped images."""
    c = result.counts
    camera = "given" if result.settings.get("protocol", {}).get("given_camera", True) else "predicted"
    lines = [
        f"{result.data}: model `{result.model}`, {result.images} pictures, {c.found} people found, "
        f"{c.missed} missed, {c.false} false, {c.ignored} that need not be found; camera {camera}."
    ]
    if result.data in BENCHMARKS:
        lines[0] += f" {BENCHMARKS[result.data].description}."
    lines += [f"- {note}." for note in result.notes]
    if "mpjpe" in result.columns:
        found, errors = (result.table[:, result.columns.index(name)] for name in ("found", "mpjpe"))
        unknown = int((np.isnan(errors) & (found > 0)).sum())
        if unknown:
            lines.append(
                f"- {unknown} of the people found count as such, but their true joints are not known."
            )
    if result.skipped:
        first = result.skipped[0]
        lines.append(f"- pictures skipped: {len(result.skipped)}; the first, {first.name}: {first.skipped}")
    return lines


def _means(rows: np.ndarray) -> list[float]:
    """Mean of the known values of each column, nan without any."""
    return [float(c[~np.isnan(c)].mean()) if (~np.isnan(c)).any() else float("nan") for c in rows.T]
