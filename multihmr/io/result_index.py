"""index.jsonl: which result files belong to which input; a JSON object per line, appended during a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NAME = "index.jsonl"


class ResultIndex:
    """The index of a folder of results; the last line of an input counts.

    A line has "input", "name" (of its result files, without suffixes), "outputs" (relative to the folder),
    "input_fingerprint" (of its content; None if it is no file), "people", and the metadata of the results
    (model, fingerprint, version, threshold, options); or "input" and "error".
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / NAME
        self.rows: dict[str, dict[str, Any]] = {}
        if self.path.is_file():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                    self.rows[row["input"]] = row
                except (ValueError, KeyError, TypeError):  # cut short when a run was ended
                    continue

    def outputs(self) -> list[Path]:
        """All result files that are listed."""
        return [self.folder / name for row in self.rows.values() for name in row.get("outputs", ())]

    def names(self) -> dict[str, str]:
        """Input -> the name that its results have."""
        return {source: row["name"] for source, row in self.rows.items() if "name" in row}

    def is_done(
        self, source: str, fingerprint: str | None, metadata: Mapping[str, Any], outputs: Iterable[str]
    ) -> bool:
        """Whether these outputs exist, made from the same content by the same model with the same options."""
        row = self.rows.get(source)
        if row is None or fingerprint is None or row.get("input_fingerprint") != fingerprint:
            return False
        wanted = json.loads(json.dumps(dict(metadata)))
        if any(wanted[key] != row.get(key) for key in ("model_fingerprint", "threshold", "options")):
            return False
        listed = set(row.get("outputs", ()))
        return all(name in listed and (self.folder / name).is_file() for name in outputs)

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line for row["input"]; outputs listed before that still exist stay listed."""
        row = dict(row)
        if "outputs" in row:
            before = self.rows.get(row["input"], {})
            same = before.get("model_fingerprint") == row.get("model_fingerprint")
            kept = [name for name in before.get("outputs", ()) if same and (self.folder / name).is_file()]
            row["outputs"] = list(dict.fromkeys([*kept, *row["outputs"]]))
        self.rows[row["input"]] = row
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(row) + "\n")


def file_fingerprint(path: Path | str) -> str | None:
    """16 digits that change with the content of a file; None if it is no file."""
    if not isinstance(path, Path) or not path.is_file():
        return None
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:16]
