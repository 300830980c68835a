"""Result of a model on photographs: figures, a table, and files with every picture."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..report import Counts, no_nan
from .measures import JOINT_GROUPS, PCK_DISTANCES, joint_shares


@dataclass(frozen=True)
class PhotographFigures:
    """Figures on photographs.

    Attributes:
        counts: in photographs with labelled people: found, missed, detected falsely, ignored.
        ap: average precision over all scores, from 0.05, as `measures.average_precision` gives it.
        ap_at_threshold: the same of the people at or above the threshold alone.
        joints: group of `JOINT_GROUPS` -> shares of joints of people found within 0.1 and 0.2 torsos.
        false_without_people: detections in photographs without people.
        any_without_people: photographs without people that have one.
    """

    counts: Counts
    ap: Mapping[str, float]
    ap_at_threshold: Mapping[str, float]
    joints: Mapping[str, Mapping[str, float]]
    false_without_people: int
    any_without_people: int

    def to_dict(self) -> dict[str, Any]:
        rates = {name: getattr(self.counts, name) for name in ("precision", "recall", "f1")}
        return asdict(self) | rates


@dataclass(frozen=True, eq=False)
class PhotographResult:
    """Result of a model on photographs with labelled people.

    Attributes:
        data: name of the data.
        model: name of the model.
        settings: options of the run, and fingerprints of weights and data.
        figures: see there.
        with_people: photographs with labelled people, over which counts, AP and PCK are.
        without_people: photographs without.
        threshold: least score of a person in `figures.counts`.
        pictures: of each photograph its name, counts, whether it has people, and PCK.
        skipped: reason -> how many pictures and people were left out.
    """

    data: str
    model: str
    settings: dict[str, Any]
    figures: PhotographFigures
    with_people: int
    without_people: int
    threshold: float
    pictures: Sequence[Mapping[str, Any]]
    skipped: Counter[str] = field(default_factory=Counter)

    def to_dict(self) -> dict[str, Any]:
        """All but the single pictures, ready for JSON: None where a figure is undefined."""
        return no_nan(
            {
                "model": self.model,
                "data": self.data,
                "photographs_with_people": self.with_people,
                "photographs_without_people": self.without_people,
                "threshold": self.threshold,
                "settings": self.settings,
                "figures": self.figures.to_dict(),
                "skipped": dict(self.skipped),
            }
        )

    def save(self, folder: Path) -> None:
        """Writes result.json, table.md and pictures.csv (one row a picture)."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "result.json").write_text(
            json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n", encoding="utf-8"
        )
        (folder / "table.md").write_text(self.table() + "\n", encoding="utf-8")
        with (folder / "pictures.csv").open("w", newline="", encoding="utf-8") as file:
            columns = ("image", "labelled", "found", "missed", "false", "ignored", "pck_0.1", "pck_0.2")
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(self.pictures)

    def table(self) -> str:
        """The figures as markdown that is also readable as plain text."""
        figures, counts = self.figures, self.figures.counts
        lines = [
            "| data | threshold | precision | recall | F1 | AP50, AP at the threshold "
            "| AP50, AP over all scores | false detections in photographs without people |",
            "|---|---|---|---|---|---|---|---|",
            f"| {self.data} | {self.threshold:g} | "
            + " | ".join(_number(value) for value in (counts.precision, counts.recall, counts.f1))
            + "".join(
                f" | {_number(ap['ap50'])}, {_number(ap['ap'])}"
                for ap in (figures.ap_at_threshold, figures.ap)
            )
            + f" | {figures.false_without_people} in {figures.any_without_people} of {self.without_people} |",
            "",
            "| % of joints | " + " | ".join(JOINT_GROUPS) + " |",
            "|---" * (1 + len(JOINT_GROUPS)) + "|",
        ]
        for limit in PCK_DISTANCES:
            values = [100 * figures.joints[group][f"pck_{limit}"] for group in JOINT_GROUPS]
            row = " | ".join(_number(value, 1) for value in values)
            lines.append(f"| within {limit} of the torso, of people found | {row} |")
        photographs = "photograph" if self.with_people == 1 else "photographs"
        lines += [
            "",
            f"{self.data}: model `{self.model}`, {self.with_people} {photographs} with labelled people "
            f"({counts.found} found, {counts.missed} missed, {counts.false} false, {counts.ignored} that "
            f"need not be found), {self.without_people} without.",
        ]
        lines += [f"- left out: {count}, {reason}." for reason, count in self.skipped.items()]
        return "\n".join(lines)


def picture_row(name: str, labelled: bool, counts: Counts, distances: np.ndarray) -> dict[str, Any]:
    """A row of pictures.csv; `distances` as in `PhotographMatch`."""
    shares = joint_shares(distances)["all"]
    return {
        "image": name,
        "labelled": int(labelled),
        **asdict(counts),
        **{f"pck_{limit}": f"{shares[f'pck_{limit}']:.6g}" for limit in PCK_DISTANCES},
    }


def _number(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "–"
