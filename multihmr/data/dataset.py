"""PoseDataset: base class of the readers of published data sets, from annotations on disk to a Sample.

A reader of one data set has a description (`about`), the files it needs, and a method that turns one
annotation file into records. Annotations are scanned once, into an index file that later opens instantly
(data/index.py); pictures are decoded when their sample is read.
"""

from __future__ import annotations

import hashlib
import logging
import os
import pickle
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from filelock import FileLock
from tqdm import tqdm

from ..bodies.keypoint_sets import keypoint_names, mirror_order
from ..humans import rotvec_to_rotmat
from ..preprocessing.image import read_image
from .index import Fields, Index, IndexWriter, Record
from .orientation import MIRRORED, annotated_orientation, stored_raster, turn_points
from .sample import PEOPLE, Sample

GENDERS = ("neutral", "female", "male")  # the index stores their numbers
NEAREST = 0.05  # [m] people whose anchor has a smaller depth are left out
_FORMAT = 1  # version of index files

# Fields of each person in data sets with SMPL fits; for SMPL-X see `smplx_fields`.
SMPL_FIELDS: Fields = {
    "pose": ("f4", 24, 3),
    "shape": ("f4", 10),
    "translation": ("f4", 3),
    "gender": ("u1",),
    "keypoints_3d": ("f4", 24, 3),
    "keypoints_2d": ("f4", 24, 2),
}


def smplx_fields(shape_count: int) -> Fields:
    """Fields of each person in data sets with SMPL-X fits of so many betas."""
    return {
        "pose": ("f4", 53, 3),
        "shape": ("f4", shape_count),
        "expression": ("f4", 10),
        "translation": ("f4", 3),
    }


# Errors of scanning a file of another format, or a truncated one.
_FORMAT_ERRORS = (
    ValueError, KeyError, TypeError, IndexError, AttributeError, EOFError, zipfile.BadZipFile, zlib.error,
    pickle.UnpicklingError,
)  # fmt: skip

log = logging.getLogger("multihmr")


@dataclass(frozen=True)
class DatasetInfo:
    """Description of a data set, and how to get it.

    name      on the command line
    title     of its authors
    licence   terms of use
    register  address where its files are distributed
    files     needed files
    tree      expected folder layout, several lines
    size      on disk
    citation  the paper
    """

    name: str
    title: str
    licence: str
    register: str
    files: tuple[str, ...]
    tree: str
    size: str
    citation: str

    def how_to_get(self) -> str:
        """Instructions for getting the data set, several lines."""
        files = "\n".join(f"  {file}" for file in self.files)
        tree = "\n".join(f"  {line}" for line in self.tree.splitlines())
        return (
            f"{self.title}: {self.licence}\nregister at {self.register}\ndownload\n{files}\n({self.size}) "
            f"and arrange the files as\n{tree}"
        )


class PoseDataset(Sequence[Sample], ABC):
    """The samples of one split of a data set, by number.

    A subclass defines
      about           a DatasetInfo
      splits          names of the splits, the default first
      needed          glob below the root -> instruction if there is no such file; "{split}" is the split
      people_fields   fields stored per person: {"pose": ("f4", 53, 3), "translation": ("f4", 3)}. Fields of
                      Sample by their names, with the pose as rotation vectors and the gender as an index of
                      GENDERS ("u1",); others are for its own `sample`
      picture_fields  fields stored per picture beside K; with "annotated_size" (height, width), 2D points of
                      pictures with an EXIF orientation are turned with them (data/orientation.py)
      required        people fields that must be finite: people with NaN there are left out and counted
      body, anchor, keypoint_set   those of its samples
    and implements `annotation_files` and `scan`. It extends `sample` if more than decoding is needed, and
    `unusable` if other people are to be left out.

    Attributes:
        records: the Index of its pictures: `records[i]` is a Record, `records.people` their number.
        skipped: reason -> number of people or pictures left out for it; logged at every start.

    Raises:
        FileNotFoundError: files are missing; the message names them and where to get them.
        ValueError: there is no such split, or annotations have another format; file and sample are named.
    """

    about: ClassVar[DatasetInfo]
    splits: ClassVar[tuple[str, ...]]
    needed: ClassVar[Mapping[str, str]]
    people_fields: ClassVar[Fields]
    picture_fields: ClassVar[Fields] = {}
    required: ClassVar[tuple[str, ...]] = ("pose", "translation")
    body: ClassVar[str] = "smplx"
    anchor: ClassVar[str] = "transl"
    keypoint_set: ClassVar[str] = ""

    def __init__(
        self, root: str | Path, split: str | None = None, *, cache: str | Path | None = None
    ) -> None:
        """
        Args:
            root: folder of the data set.
            split: the first of `splits` if not given.
            cache: folder of the index file; .multihmr in the root if not given.
        """
        self.root = Path(root)
        self.split = split or self.splits[0]
        missing = self.missing(self.root, self.split)
        if missing:
            where = f"multihmr data check {self.about.name} {self.root}"
            raise FileNotFoundError(f"{'; '.join(missing)}. For instructions run: {where}")
        folder = Path(cache) if cache else self.root / ".multihmr"
        self.records = self._open_index(folder / f"{self.about.name}-{self.split}.index")
        self.skipped: Counter[str] = Counter(self.records.facts["skipped"])
        for reason, count in self.skipped.items():
            log.warning("%s %s: %d left out: %s", self.about.name, self.split, count, reason)

    @classmethod
    def missing(cls, root: str | Path, split: str | None = None) -> list[str]:
        """Files missing below the root, each with an instruction.

        Raises:
            ValueError: there is no such split.
        """
        split = split or cls.splits[0]
        if split not in cls.splits:
            raise ValueError(f"{cls.about.name} has the splits {', '.join(cls.splits)}, got {split!r}")
        root = Path(root)
        if not root.is_dir():
            return [f"there is no folder {root}: register at {cls.about.register} and download its files"]
        patterns = {pattern.format(split=split): cure for pattern, cure in cls.needed.items()}
        return [
            f"{root / pattern} is not there: {cure.format(split=split)}"
            for pattern, cure in patterns.items()
            if next(root.glob(pattern), None) is None
        ]

    @abstractmethod
    def annotation_files(self) -> Sequence[Path]:
        """Annotation files of this split; all are scanned again when one changes."""

    def also_read(self) -> Sequence[Path]:
        """Other files that `scan` reads; all are scanned again when one changes."""
        return ()

    @abstractmethod
    def scan(self, path: Path) -> Iterator[Record]:
        """Records of the pictures of one annotation file.

        People with NaN in required fields or behind the camera may be included: the caller leaves them out.
        What the reader itself leaves out it counts in `self.skipped`.
        """

    def sample(self, record: Record, image: np.ndarray) -> Sample:
        """The sample of a record and its picture (H, W, 3) uint8."""
        count = len(record)
        people: dict[str, Any] = {key: value for key, value in record.people.items() if key in PEOPLE}
        pose = rotvec_to_rotmat(people.get("pose", np.zeros((count, 0, 3), np.float32)))
        people["pose"] = pose.astype(np.float32)
        if "gender" in people:
            people["gender"] = np.array(GENDERS)[people["gender"]]
        defaults: dict[str, Any] = {
            "shape": np.zeros((count, 0), np.float32),
            "expression": np.zeros((count, 0), np.float32),
            "translation": np.full((count, 3), np.nan, np.float32),
            "visibility": np.ones(count, np.float32),
        }
        return Sample(
            image=image,
            K=record.picture["K"],
            name=record.name,
            body=self.body,
            anchor=self.anchor,
            keypoint_set=self.keypoint_set,
            **(defaults | people),
        )

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """The sample of that number, or a list of samples for a slice.

        Raises:
            ValueError, FileNotFoundError: the picture cannot be read; the message names file and sample.
        """
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        record = self.records[range(len(self))[index]]
        image = self.read_picture(record)
        return self.sample(self._turned_upright(record), image)

    def _turned_upright(self, record: Record) -> Record:
        """The record with its 2D points in the upright picture, which is how pictures are read."""
        size = record.picture.get("annotated_size")
        annotated = None if size is None or (size < 1).any() else (int(size[0]), int(size[1]))
        raster = stored_raster(self.root / record.image)
        try:
            orientation = annotated_orientation(raster, annotated)
        except ValueError as error:
            raise ValueError(f"{self.root / record.image} cannot be used: {error}") from error
        if orientation == 1:
            return record
        if set(record.people) != {"keypoints_2d"}:
            raise ValueError(
                f"{self.root / record.image} has EXIF orientation {orientation}, by which its 3D annotations "
                "cannot be turned; save it without EXIF orientation"
            )
        points = turn_points(record.people["keypoints_2d"], orientation, raster.size)
        if orientation in MIRRORED:
            points = points[:, mirror_order(keypoint_names(self.keypoint_set))]
        return replace(record, people={"keypoints_2d": points})

    def read_picture(self, record: Record) -> np.ndarray:
        """The picture of a record, upright: (H, W, 3) uint8 RGB."""
        try:
            return read_image(self.root / record.image)
        except (OSError, ValueError) as error:
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            raise kind(
                f"sample '{record.name}' of {self.about.name} has no picture: {error}; "
                "unpack its archive again"
            ) from error

    def _open_index(self, path: Path) -> Index:
        """The index file if it exists and belongs to these annotations; else a new one."""
        belongs_to = self._fingerprint()
        index = _existing(path, belongs_to)
        if index is None:
            _make_folder(path.parent)
            with FileLock(path.with_name(path.name + ".lock")):  # made by one process of a training run
                index = _existing(path, belongs_to)
                if index is None:
                    self._write_index(path, belongs_to)
                    index = Index(path)
        return index

    def _fingerprint(self) -> str:
        """Hash of the annotation files' sizes and times, the fields of the reader and the format."""
        files = (*self.annotation_files(), *self.also_read())
        stats = [(str(path.relative_to(self.root)), path.stat()) for path in files]
        facts = [
            _FORMAT,
            sorted(self.people_fields.items()),
            sorted(self.picture_fields.items()),
            [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats],
        ]
        return hashlib.sha256(repr(facts).encode()).hexdigest()

    def _write_index(self, path: Path, belongs_to: str) -> None:
        self.skipped = Counter()
        writer = IndexWriter(self.people_fields, {"K": ("f4", 3, 3), **self.picture_fields})
        there = _Folders(self.root)
        for file in tqdm(self.annotation_files(), desc=f"index of {self.about.name}", disable=None):
            try:
                for record in self.scan(file):
                    if record.image not in there:
                        self.skipped[f"missing pictures (once they are there, delete {path})"] += 1
                        continue
                    kept = self._usable(writer.checked(record))
                    if kept is not None:
                        writer.add(kept)
            except _FORMAT_ERRORS as error:
                reason = f"it lacks {error}" if isinstance(error, KeyError) else error
                raise ValueError(
                    f"{file} does not have the format of {self.about.title}: {reason}; download it again"
                ) from error
        writer.write(path, {"belongs_to": belongs_to, "skipped": self.skipped})

    def unusable(self, record: Record) -> Mapping[str, np.ndarray]:
        """People of a picture to leave out: reason -> (N,) bool."""
        reasons = {}
        for key in self.required:
            values = record.people[key]
            broken = ~np.isfinite(values).all(tuple(range(1, values.ndim)))
            reasons[f"people with NaN or infinity in their {key}"] = broken
        if "translation" in record.people:
            reasons["people behind the camera"] = record.people["translation"][:, 2] < NEAREST
        return reasons

    def _usable(self, record: Record) -> Record | None:
        """The record with only the usable people; None if it had people and none is usable."""
        keep = np.ones(len(record), bool)
        for reason, who in self.unusable(record).items():
            self._count(reason, keep & who)
            keep &= ~who
        if keep.all():
            return record
        if not keep.any():
            self.skipped["pictures without usable people"] += 1
            return None
        return replace(record, people={key: value[keep] for key, value in record.people.items()})

    def _count(self, reason: str, who: np.ndarray) -> None:
        if who.any():
            self.skipped[reason] += int(who.sum())


class _Folders:
    """Existence of files, by listing each folder once: testing a million files takes minutes."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._names: dict[str, set[str]] = {}

    def __contains__(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        if folder not in self._names:
            place = self._root / folder
            self._names[folder] = set(os.listdir(place)) if place.is_dir() else set()
        return name in self._names[folder]


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        writable = os.access(folder, os.W_OK)
    except OSError:
        writable = False
    if not writable:
        raise ValueError(f"{folder} is not writable; choose another folder for the index (cache)")


def _existing(path: Path, belongs_to: str) -> Index | None:
    if not path.is_file():
        return None
    try:
        index = Index(path)
    except ValueError:  # of another version, or truncated by a full disk
        return None
    return index if index.facts.get("belongs_to") == belongs_to else None
