"""Result on people of the model's own body: per person, in groups, as a table and as JSON."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from . import metrics
from .published import figure_labels

SUMMARY_ERRORS = ("mpjpe", "pa_mpjpe", "pve", "pa_pve", "hand_pa_pve", "head_m", "head_percent")


@dataclass(frozen=True)
class Counts:
    """People found, missed, and predicted where there is none; `ignored`: true people too hidden to count."""

    found: int
    missed: int
    false: int
    ignored: int = 0

    @property
    def precision(self) -> float:
        return metrics.precision(self.found, self.false)

    @property
    def recall(self) -> float:
        return metrics.recall(self.found, self.missed)

    @property
    def f1(self) -> float:
        return metrics.f1(self.found, self.false, self.missed)


@dataclass(frozen=True)
class Figures:
    """3D errors over a number of people: five means in mm, and the medians of the head's position error.

    Attributes:
        people: how many.
        mpjpe: over the body's main joints, pelvis-centred [mm].
        pa_mpjpe: the same after the best similarity.
        pve: over all vertices, pelvis-centred [mm].
        pa_pve: the same after the best similarity.
        hand_pa_pve: per hand, each aligned by itself [mm]; nan where the body names no hands.
        head_m: distance between heads in the camera frame, not aligned [m], median.
        head_percent: the same [% of the true distance].
    """

    people: int
    mpjpe: float
    pa_mpjpe: float
    pve: float
    pa_pve: float
    hand_pa_pve: float
    head_m: float
    head_percent: float

    @classmethod
    def of(cls, errors: np.ndarray) -> Figures:
        """From one row of `SUMMARY_ERRORS` per person, (N, 7)."""
        if not len(errors):
            return cls(0, *[math.nan] * len(SUMMARY_ERRORS))
        middles = [*errors[:, :5].mean(axis=0), *np.median(errors[:, 5:], axis=0)]
        return cls(len(errors), *[float(x) for x in middles])


@dataclass(frozen=True, eq=False)
class People:
    """All T true people that count, one row each, in the order of the images.

    Attributes:
        image: name of the image.
        distance: of the head from the camera [m].
        visibility: share that is visible, 0 to 1.
        crowd: people that count in that image.
        age: age parameter of the body, nan where it has none.
        head_inside: whether the head is in the image.
        found: whether a prediction matched.
        errors: (T, 7) in the order of `SUMMARY_ERRORS`, nan where missed.
        baseline: (T, 7) the same of the mean pose and shape, facing the camera, put at the true place.
    """

    image: np.ndarray
    distance: np.ndarray
    visibility: np.ndarray
    crowd: np.ndarray
    age: np.ndarray
    head_inside: np.ndarray
    found: np.ndarray
    errors: np.ndarray
    baseline: np.ndarray

    def __len__(self) -> int:
        return len(self.image)

    @classmethod
    def of_table(cls, table: np.ndarray, names: Sequence[str], columns: Sequence[str]) -> People:
        """From the rows (T, C) of an `Evaluator`, their columns, and the name of each person's image."""
        column = {name: table[:, i] for i, name in enumerate(columns)}
        return cls(
            image=np.array(names),
            distance=column["head_distance"],
            visibility=column["visibility"],
            crowd=column["crowd"],
            age=column["age"],
            head_inside=column["head_inside"] > 0,
            found=column["found"] > 0,
            errors=np.stack([column[name] for name in SUMMARY_ERRORS], axis=1),
            baseline=np.stack([column[f"baseline_{name}"] for name in SUMMARY_ERRORS], axis=1),
        )


@dataclass(frozen=True)
class Group:
    """People of one bin: their number, the share found, and the errors of those found."""

    name: str
    people: int
    recall: float
    model: Figures
    baseline: Figures


@dataclass(frozen=True, eq=False)
class Result:
    """Result of an evaluation on people of the model's own body.

    Errors are over the people found, `baseline` over exactly the same ones, `baseline_all` over all people
    that count. `groups` has the same by distance, visibility and so on.
    """

    model: str
    data: str
    images: int
    settings: dict[str, Any]
    counts: Counts
    figures: Figures
    baseline: Figures
    baseline_all: Figures
    groups: dict[str, tuple[Group, ...]]
    people: People

    @property
    def precision(self) -> float:
        return self.counts.precision

    @property
    def recall(self) -> float:
        return self.counts.recall

    @property
    def f1(self) -> float:
        return self.counts.f1

    def to_dict(self) -> dict[str, Any]:
        """All but the results of single people, ready for JSON: None where a figure is undefined."""
        counts = asdict(self.counts) | {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        named = {"figures": self.figures, "baseline": self.baseline, "baseline_all": self.baseline_all}
        return no_nan(
            {"model": self.model, "data": self.data, "images": self.images, "settings": self.settings}
            | {"counts": counts, "figure_labels": figure_labels(SUMMARY_ERRORS)}
            | {name: asdict(figures) for name, figures in named.items()}
            | {"groups": {name: [asdict(group) for group in groups] for name, groups in self.groups.items()}}
        )

    def save(self, folder: str | Path) -> None:
        """Writes result.json, table.md and people.csv (one row per true person) into `folder`."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(
            json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        (folder / "table.md").write_text(table(self) + "\n", encoding="utf-8")
        with (folder / "people.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            single = [f.name for f in fields(People)[:-2]]
            writer.writerow([*single, *SUMMARY_ERRORS, *(f"baseline_{name}" for name in SUMMARY_ERRORS)])
            people = self.people
            for i in range(len(people)):
                numbers = [*people.errors[i], *people.baseline[i]]
                writer.writerow(
                    [*(getattr(people, name)[i] for name in single), *(f"{x:.4g}" for x in numbers)]
                )


def summarise(
    people: People, counts: Counts, *, model: str, data: str, images: int, settings: dict[str, Any]
) -> Result:
    """The result of an evaluation from its single people."""
    return Result(
        model=model,
        data=data,
        images=images,
        settings=settings,
        counts=counts,
        figures=Figures.of(people.errors[people.found]),
        baseline=Figures.of(people.baseline[people.found]),
        baseline_all=Figures.of(people.baseline),
        groups=_groups(people),
        people=people,
    )


def table(result: Result) -> str:
    """The result as markdown that is also readable as plain text."""
    c, percent = result.counts, "{:.1%}".format
    lines = [
        f"Model `{result.model}` on `{result.data}`: {result.images} pictures, "
        f"{c.found + c.missed} people that count ({c.ignored} too hidden). "
        f"Camera {'given' if result.settings.get('given_camera', True) else 'predicted'}.",
        "",
        f"Precision {percent(c.precision)}, recall {percent(c.recall)}, **F1 {c.f1:.3f}** "
        f"({c.found} found, {c.missed} missed, {c.false} false).",
        "",
        "| | people | MPJPE mm | PA-MPJPE mm | PVE mm | PA-PVE mm | hand PA-PVE mm | head, median |",
        "|---|---|---|---|---|---|---|---|",
        _row("model, people found", result.figures),
        _row("mean pose at the true place, same people", result.baseline),
        _row("mean pose at the true place, all people", result.baseline_all),
    ]
    for name, groups in result.groups.items():
        lines += [
            "",
            f"| {name} | people | recall | MPJPE mm | PA-MPJPE mm | PVE mm | PA-PVE mm | hand PA-PVE mm "
            "| head, median |",
            "|---|---|---|---|---|---|---|---|---|",
            *(_row(group.name, group.model, f"{group.people} | {group.recall:.1%}") for group in groups),
        ]
    return "\n".join(lines).replace("nan%", "–").replace("nan", "–")


def _row(name: str, figures: Figures, people: str | None = None) -> str:
    numbers = [getattr(figures, error) for error in SUMMARY_ERRORS[:5]]
    cells = [name, people or str(figures.people), *(f"{x:.1f}" for x in numbers)]
    return "| " + " | ".join([*cells, f"{figures.head_m:.3f} m = {figures.head_percent:.1f} %"]) + " |"


def _groups(people: People) -> dict[str, tuple[Group, ...]]:
    """Groups of the same people by distance, visibility and other attributes; empty bins are left out."""
    d, v, c, a, h = people.distance, people.visibility, people.crowd, people.age, people.head_inside
    cuts = {
        "distance": {"under 2 m": d < 2, "2 to 4 m": (d >= 2) & (d < 4), "4 to 8 m": (d >= 4) & (d < 8)}
        | {"8 m and more": d >= 8},
        "visible share": {"under 30 %": v < 0.3, "30 to 70 %": (v >= 0.3) & (v < 0.7)}
        | {"70 % and more": v >= 0.7},
        "head": {"in the picture": h, "outside": ~h},
        "people in the picture": {"1": c == 1, "2 or 3": (c > 1) & (c < 4), "4 to 6": (c > 3) & (c < 7)}
        | {"7 and more": c > 6},
        # Anny's age: 0 is a baby, 1/3 a child, 2/3 a young adult, 1 an old person.
        "age": {
            "children (age under 0.5)": a < 0.5,
            "adults": (a >= 0.5) & (a < 0.85),
            "old (0.85 on)": a >= 0.85,
        },
    }
    return {
        cut: tuple(_group(name, people, mask) for name, mask in bins.items() if mask.any())
        for cut, bins in cuts.items()
        if any(mask.any() for mask in bins.values())
    }


def _group(name: str, people: People, mask: np.ndarray) -> Group:
    found = mask & people.found
    return Group(
        name,
        int(mask.sum()),
        float(found.sum() / mask.sum()),
        Figures.of(people.errors[found]),
        Figures.of(people.baseline[found]),
    )


def no_nan(value: Any) -> Any:
    """A value for JSON: None in place of numbers that are not finite."""
    if isinstance(value, dict):
        return {key: no_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [no_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
