"""Predictions of a video on disk, written while it is predicted, so that a run that was stopped goes on.

A folder with `source.json` (what was predicted, and whether all of it) and `000000.npz`, `000064.npz` ...
named by their first frame: people without meshes, as predicted, before tracking and smoothing.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bodies.topology import Topology
from ..humans import Humans
from ..humans.distortion import distortion_arrays, stored_distortion
from ..storage.atomic import write_bytes
from ..storage.fingerprint import fingerprint
from .live import without_password
from .reader import VideoSource, is_address, pictures_in
from .tracks import without_faces, without_meshes

CHUNK = 64  # frames in a file
_PEOPLE = ("scores", "boxes", "translation", "pelvis", "pose", "shape", "expression", "joints")
_BLOCK = 1 << 20  # bytes hashed at a time


def source_fingerprint(source: VideoSource) -> str | None:
    """16 digits that change with the content of a video file or a folder of pictures (names and contents).

    Addresses and webcams have none but their name; None for pictures in memory.
    """
    if isinstance(source, int):
        return f"webcam {source}"
    if isinstance(source, str) and is_address(source):
        return without_password(source)
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source)
    digest = hashlib.sha256()
    for file in pictures_in(path) if path.is_dir() else [path]:
        if path.is_dir() and not file.is_file():  # a broken link: the reader says that it is left out
            continue
        if path.is_dir():
            digest.update(f"\0{file.name}\0{file.stat().st_size}\0".encode(errors="surrogateescape"))
        with file.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]


def model_fingerprint(model: Any) -> str:
    """Digits that change with what a model predicts: weights and configs of its network and its detector."""
    parts = [model] if getattr(model, "detector", None) is None else [model, model.detector]
    return "+".join(map(fingerprint, parts))


_FINGERPRINTS = {
    "video fingerprint": "of another video",
    "model fingerprint": "of a model with other weights",
}


def prediction_identity(model: Any, source: VideoSource, **options: Any) -> dict[str, Any]:
    """Everything that the predictions of a video depend on: contents of video and model, options by name."""
    return {
        "video fingerprint": source_fingerprint(source),
        "model fingerprint": model_fingerprint(model),
        "body": model.body.name,
        **options,
    }


class PredictionCache:
    """The frames of one video that were predicted so far, in order.

    Args:
        folder: made if there is none; may hold predictions of an earlier run.
        identity: whatever tells one prediction from another, by name (`prediction_identity`); values that
            JSON can hold.
        notes: what else to record, as the path of the video; not compared.
        overwrite: delete what the folder holds.

    Raises:
        ValueError: the folder holds predictions of another identity, or is damaged.
    """

    def __init__(
        self,
        folder: Path,
        identity: Mapping[str, Any],
        *,
        notes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        self.folder, self.identity, self.notes = Path(folder), dict(identity), dict(notes or {})
        if overwrite and (self.folder / "source.json").is_file():
            shutil.rmtree(self.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._note = self.folder / "source.json"
        stored = self._read_note() if (self.folder / f"{0:06}.npz").is_file() else {}  # nothing is kept
        self.complete = bool(stored.get("complete"))
        self._check(stored)
        self._waiting: list[tuple[float, Humans]] = []
        self._files = self._whole_files()
        if not stored:
            self._write_note()

    def _check(self, stored: dict[str, Any]) -> None:
        for name, value in self.identity.items():
            if not stored or stored.get(name) == value:
                continue
            if name in _FINGERPRINTS and stored.get(name) and value:
                raise ValueError(
                    f"{self.folder} holds predictions {_FINGERPRINTS[name]}: choose another --out, or "
                    "--overwrite to start over"
                )
            if name not in stored:
                was = f"with an unknown {name} (of an older version)"
            else:
                was = f"without {name}" if stored[name] is None else f"with {name} {stored[name]!r}"
            now = f"and {name} is not given now" if value is None else f"not {value!r}"
            raise ValueError(
                f"{self.folder} holds predictions {was}, {now}: choose another --out, or "
                "--overwrite to start over"
            )

    def _read_note(self) -> dict[str, Any]:
        try:
            return json.loads(self._note.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise ValueError(f"{self._note} is damaged: delete {self.folder} to start over") from error

    def _write_note(self) -> None:
        note = {**self.notes, **self.identity, "complete": self.complete}
        write_bytes(self._note, json.dumps(note, indent=1).encode())

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
        """Number of frames on disk."""
        return sum(frames for _, frames in self._files)

    def add(self, time: float, humans: Humans) -> None:
        """Append the next frame; frames are written in chunks."""
        self._waiting.append((time, without_meshes(humans)))
        if len(self._waiting) >= CHUNK:
            self.flush()

    def flush(self) -> None:
        """Write the frames that wait; if that fails (OSError) they are dropped."""
        waiting, self._waiting = self._waiting, []
        if waiting:
            path = self.folder / f"{self.count:06}.npz"
            write_bytes(path, _packed(waiting))
            self._files.append((path, len(waiting)))

    def finish(self) -> None:
        """Record that the video has no more frames."""
        self.flush()
        self.complete = True
        self._write_note()

    def has(self, count: int | None) -> bool:
        """Whether the first `count` frames are there, or all that the video has; None: all."""
        return self.complete or (count is not None and self.count >= count)

    def read(self, topology: Topology) -> Iterator[tuple[float, Humans]]:
        """(seconds, people without meshes) of each frame on disk; topology: that of the body."""
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
        **distortion_arrays(people[0].distortion),
        **arrays,
        **_refined(people),
    )
    return buffer.getvalue()


def _refined(people: list[Humans]) -> dict[str, Any]:
    """Which hands and faces were found, and how far people moved for it, if they were looked for."""
    arrays: dict[str, Any] = {}
    for name in ("refined", "moved"):
        found = [value for humans in people if (value := getattr(humans, name)) is not None]
        if len(found) == len(people):
            arrays[name] = np.concatenate(found)
    return arrays


def _unpacked(stored: dict[str, Any], topology: Topology) -> Iterator[tuple[float, Humans]]:
    ends = np.cumsum(stored["counts"])
    for i, (end, count) in enumerate(zip(ends, stored["counts"], strict=True)):
        people = {name: stored[name][end - count : end] for name in _PEOPLE}
        height, width = stored["image_sizes"][i].tolist()
        humans = Humans(
            **people,
            vertices=np.zeros((count, 0, 3)),
            joints_2d=np.zeros((*people["joints"].shape[:2], 2)),
            K=stored["K"][i],
            K_source=str(stored["K_sources"][i]),
            image_size=(height, width),
            body=str(stored["body"]),
            topology=without_faces(topology),
            unpredicted=tuple(map(str, stored["unpredicted"])),
            distortion=stored_distortion(stored),
            **{n: stored[n][end - count : end] for n in ("refined", "moved") if n in stored},
        )
        joints_2d = humans.project(humans.joints)
        yield float(stored["times"][i]), replace(humans, joints_2d=joints_2d)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged: delete it and those after it, and run again") from error
