"""Memory-mapped index of annotations: a data set of a million pictures opens instantly.

The file is a safetensors file. Per picture it has texts (all in one array of bytes, with the end of each),
arrays of fixed shape, and the end of its people's rows; per person it has arrays of fixed shape. Processes
that open the same file share its pages, and only what is read is in memory.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..storage.atomic import atomic_path

# field -> its type and the shape of one row: {"pose": ("f4", 53, 3)}
Fields = Mapping[str, tuple[Any, ...]]

_KINDS = {"F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U8": "|u1"}
_KINDS |= {"BOOL": "|b1", "F64": "<f8", "U16": "<u2"}
_NAMES = {np.dtype(kind): name for name, kind in _KINDS.items()}
_TEXTS = ("name", "image")
_CHUNK = 2048  # records kept as small arrays, whose overhead is ten times their content


@dataclass(frozen=True)
class Record:
    """Annotations of one picture.

    name     unique in the data set
    image    the picture's path below the root of the data set, with "/"
    people   field -> (N, ...) one row per person; fields and shapes as the reader declares them
    picture  field -> (...) values of the picture, such as "K" (3, 3)
    """

    name: str
    image: str
    people: Mapping[str, np.ndarray]
    picture: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(next(iter(self.people.values())))


class IndexWriter:
    """Collects records and writes them as one file."""

    def __init__(self, people: Fields, picture: Fields) -> None:
        self._people, self._picture = people, picture
        self._fields = {f"people.{k}": v for k, v in people.items()}
        self._fields |= {f"picture.{k}": v for k, v in picture.items()}
        self._fields |= {f"{text}.text": ("u1",) for text in _TEXTS}
        self._fields |= {f"{text}.ends": ("i8",) for text in _TEXTS} | {"people.ends": ("i8",)}
        self._waiting: dict[str, list[np.ndarray]] = {key: [] for key in self._fields}
        self._chunks: dict[str, list[np.ndarray]] = {key: [] for key in self._fields}
        self._ends = dict.fromkeys((*_TEXTS, "people"), 0)
        self._pictures = 0

    def checked(self, record: Record) -> Record:
        """The record with the declared fields in the declared types.

        Raises:
            ValueError: a field is missing or of another shape; the message names the sample.
        """
        parts: dict[str, dict[str, np.ndarray]] = {}
        for room, fields, count in (("people", self._people, (len(record),)), ("picture", self._picture, ())):
            given = getattr(record, room)
            parts[room] = {
                key: _checked(given.get(key), (*count, *shape), kind, f"{key} of sample '{record.name}'")
                for key, (kind, *shape) in fields.items()
            }
        return replace(record, people=parts["people"], picture=parts["picture"])

    def add(self, record: Record) -> None:
        """Add a record that `checked` returned."""
        rows: dict[str, np.ndarray] = {}
        for text in _TEXTS:
            content = getattr(record, text).encode()
            rows[f"{text}.text"] = np.frombuffer(content, np.uint8)
            rows[f"{text}.ends"] = self._advance(text, len(content))
        rows["people.ends"] = self._advance("people", len(record))
        rows |= {f"people.{key}": array for key, array in record.people.items()}
        rows |= {f"picture.{key}": array[None] for key, array in record.picture.items()}
        for key, array in rows.items():
            self._waiting[key].append(array)
        self._pictures += 1
        if self._pictures % _CHUNK == 0:
            self._pack()

    def write(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write the file atomically, with JSON `facts`."""
        self._pack()
        chunks = {key: self._chunks[key] for key in sorted(self._fields, key=self._widest_first)}
        header: dict[str, Any] = {"__metadata__": {"facts": json.dumps(facts)}}
        start = 0
        for key, parts in chunks.items():
            kind, *shape = self._fields[key]
            rows = sum(map(len, parts))
            end = start + rows * math.prod(shape) * np.dtype(kind).itemsize
            header[key] = {
                "dtype": _NAMES[np.dtype(kind)],
                "shape": [rows, *shape],
                "data_offsets": [start, end],
            }
            start = end
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as draft, open(draft, "wb") as file:
            words = json.dumps(header).encode()
            words += b" " * (-len(words) % 8)
            file.write(len(words).to_bytes(8, "little") + words)
            for parts in chunks.values():
                for part in parts:
                    file.write(part.data if part.size else b"")

    def _advance(self, room: str, count: int) -> np.ndarray:
        self._ends[room] += count
        return np.array([self._ends[room]], np.int64)

    def _widest_first(self, key: str) -> tuple[int, str]:
        """Sort key with which every array begins at a multiple of its item size."""
        return -np.dtype(self._fields[key][0]).itemsize, key

    def _pack(self) -> None:
        for key, arrays in self._waiting.items():
            if arrays:
                self._chunks[key].append(np.ascontiguousarray(np.concatenate(arrays)))
                arrays.clear()


class Index:
    """Records by number, from a file of `IndexWriter`; opening it reads only its header.

    Attributes:
        facts: JSON content given to `IndexWriter.write`.

    Raises:
        ValueError: the file is truncated or no index.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open(path, "rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length))
            self.facts: dict[str, Any] = json.loads(header.pop("__metadata__")["facts"])
            content = np.memmap(path, np.uint8, "r")
            self._arrays = {
                key: np.ndarray(
                    entry["shape"], _KINDS[entry["dtype"]], content, 8 + length + entry["data_offsets"][0]
                )
                for key, entry in header.items()
            }
            self._people_ends = self._arrays.pop("people.ends")
        except (ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
            raise ValueError(
                f"{path} is not a complete index ({error}); delete it, and it is made again"
            ) from error

    def __reduce__(self) -> tuple[Any, ...]:
        return Index, (self.path,)  # workers get the path, not the mapped content

    def __len__(self) -> int:
        return len(self._people_ends)

    @property
    def people(self) -> int:
        """Number of people in all pictures."""
        return int(self._people_ends[-1]) if len(self) else 0

    def __getitem__(self, i: int) -> Record:
        rows = slice(*_span(self._people_ends, i))
        parts: dict[str, dict[str, np.ndarray]] = {"people": {}, "picture": {}}
        for key, array in self._arrays.items():
            room, _, name = key.partition(".")
            if room in parts:
                parts[room][name] = np.array(array[rows] if room == "people" else array[i])
        name, image = (self._text(text, i) for text in _TEXTS)
        return Record(name, image, parts["people"], parts["picture"])

    def column(self, key: str) -> np.ndarray:
        """All rows of "people.FIELD" or "picture.FIELD", mapped."""
        return self._arrays[key]

    def _text(self, text: str, i: int) -> str:
        start, end = _span(self._arrays[f"{text}.ends"], i)
        return self._arrays[f"{text}.text"][start:end].tobytes().decode()


def _span(ends: np.ndarray, i: int) -> tuple[int, int]:
    return int(ends[i - 1]) if i else 0, int(ends[i])


def _checked(array: np.ndarray | None, shape: tuple[int, ...], kind: str, what: str) -> np.ndarray:
    if array is None:
        raise ValueError(f"{what} is missing; its annotations have another format than the reader's")
    if np.shape(array) != shape:
        raise ValueError(
            f"{what} must be {shape}, got {np.shape(array)}; its annotations have another format"
        )
    return np.asarray(array, kind)
