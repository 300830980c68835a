"""What was predicted of a video, on disk in pieces, written as it comes: a run that ended early goes on.

A folder with `source.json` (of what, and whether all of it) and `000000.npz`, `000064.npz` ... named by their
first frame: people without meshes, as the network saw them, before anybody was followed or smoothed.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ..bodies.topology import Topology
from ..humans import Humans, project
from ..storage.atomic import write_bytes
from .tracks import without_faces, without_meshes

PIECE = 64  # frames
_PEOPLE = ("scores", "boxes", "translation", "pelvis", "pose", "shape", "expression", "joints")


class Pieces:
    """The frames of one video that were done so far, in order; a folder that may be there already.

    facts: whatever tells one prediction from another (video, model, camera), by name; what json can hold.
    Raises ValueError when the folder holds predictions of other facts, or is damaged.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.folder, self.facts = folder, facts
        folder.mkdir(parents=True, exist_ok=True)
        self._note = folder / "source.json"
        stored = self._read_note()
        self.complete = bool(stored.get("complete"))
        for name, value in facts.items():
            if stored and stored.get(name) != value:
                raise ValueError(
                    f"{folder} holds predictions with {name} {stored.get(name)!r}, not {value!r}: "
                    "give another --out, or delete the folder to begin anew"
                )
        self._waiting: list[tuple[float, Humans]] = []
        self._files = self._whole_files()
        if not stored:
            self._write_note()

    def _read_note(self) -> dict[str, Any]:
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(f"{self._note} is damaged: delete {self.folder} to begin anew") from error

    def _write_note(self) -> None:
        write_bytes(self._note, json.dumps(self.facts | {"complete": self.complete}, indent=1).encode())

    def _whole_files(self) -> list[tuple[Path, int]]:
        """(file, frames in it) as far as each begins where the one before ended."""
        files, first = [], 0
        while (path := self.folder / f"{first:06}.npz").is_file():
            frames = len(_read(path)["times"])
            files.append((path, frames))
            first += frames
        return files

    @property
    def count(self) -> int:
        """How many frames are safely on disk."""
        return sum(frames for _, frames in self._files)

    def add(self, time: float, humans: Humans) -> None:
        """The next frame; written with others when enough have come."""
        self._waiting.append((time, without_meshes(humans)))
        if len(self._waiting) >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what has come; OSError where that cannot be, and then it is lost."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            path = self.folder / f"{self.count:06}.npz"
            write_bytes(path, _packed(waiting))
            self._files.append((path, len(waiting)))

    def finish(self) -> None:
        """The video has no more frames."""
        self.flush()
        self.complete = True
        self._write_note()

    def read(self, topology: Topology) -> Iterator[tuple[float, Humans]]:
        """(seconds, people without meshes) of each frame; topology: that of the body."""
        for path, _ in self._files:
            yield from _unpacked(_read(path), topology)


def _packed(frames: list[tuple[float, Humans]]) -> bytes:
    people = [humans for _, humans in frames]
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(humans, name) for humans in people]) for name in _PEOPLE
    }
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        times=np.array([time for time, _ in frames], np.float64),
        counts=np.array([len(humans) for humans in people]),
        K=np.stack([humans.K for humans in people]),
        K_sources=np.array([humans.K_source for humans in people], np.str_),
        image_sizes=np.array([humans.image_size for humans in people]),
        body=people[0].body,
        unpredicted=np.array(people[0].unpredicted, np.str_),
        **arrays,
    )
    return buffer.getvalue()


def _unpacked(stored: dict[str, Any], topology: Topology) -> Iterator[tuple[float, Humans]]:
    ends = np.cumsum(stored["counts"])
    for i, (end, count) in enumerate(zip(ends, stored["counts"], strict=True)):
        people = {name: stored[name][end - count : end] for name in _PEOPLE}
        height, width = stored["image_sizes"][i].tolist()
        humans = Humans(
            **people,
            vertices=np.zeros((count, 0, 3)),
            joints_2d=project(people["joints"], stored["K"][i]),
            K=stored["K"][i],
            K_source=str(stored["K_sources"][i]),
            image_size=(height, width),
            body=str(stored["body"]),
            topology=without_faces(topology),
            unpredicted=tuple(map(str, stored["unpredicted"])),
        )
        yield float(stored["times"][i]), humans


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: delete it and those after it, and run again") from error
