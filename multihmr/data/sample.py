"""Sample: one picture with the true people in it; and shards of them as tar files (WebDataset)."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ARRAYS = ("K", "pose", "shape", "expression", "translation", "visibility")
JPEG_QUALITY = 92


@dataclass(frozen=True)
class Sample:
    """A picture, its camera and its N people.

    image        (H, W, 3) uint8
    K            (3, 3) float32 intrinsics in pixels of this image
    pose         (N, R, 3, 3) float32; pose[:, 0] turns the body into the camera frame
    shape        (N, S), expression (N, E) float32
    translation  (N, 3) float32 head joint in the camera frame [m]
    visibility   (N,) float32 share of the person's vertices whose pixel shows this person
    """

    image: np.ndarray
    K: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    translation: np.ndarray
    visibility: np.ndarray
    name: str

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(f"image must be (H, W, 3) uint8, got {self.image.dtype} {self.image.shape}")
        counts = {f: len(getattr(self, f)) for f in ARRAYS if f != "K"}
        if len(set(counts.values())) > 1:
            raise ValueError(f"sample '{self.name}' has arrays for different numbers of people: {counts}")

    def __len__(self) -> int:
        return len(self.translation)


def write_shard(path: Path | str, samples: Iterable[Sample]) -> None:
    """A tar with NAME.jpg and NAME.npz for each sample; it gets its name only when it is complete."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with tarfile.open(unfinished, "w") as tar:
            for sample in samples:
                _add(tar, f"{sample.name}.jpg", _jpeg_bytes(sample.image))
                _add(tar, f"{sample.name}.npz", _npz_bytes(sample))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def read_shard(path: Path | str) -> Iterator[Sample]:
    """The samples of a shard in order. ValueError naming the file when it is cut short or no shard."""
    try:
        _check_end(Path(path))
        with tarfile.open(path) as tar:
            picture: tuple[str, np.ndarray] | None = None
            for member in tar:
                stem, _, kind = member.name.rpartition(".")
                stream = tar.extractfile(member)
                if stream is None:
                    continue
                if kind == "jpg":
                    with Image.open(io.BytesIO(stream.read())) as image:
                        picture = stem, np.array(image.convert("RGB"))
                elif kind == "npz" and picture is not None and picture[0] == stem:
                    with np.load(io.BytesIO(stream.read()), allow_pickle=False) as d:
                        yield Sample(image=picture[1], name=stem, **{k: d[k] for k in ARRAYS})
    except (tarfile.TarError, OSError, KeyError) as error:
        raise ValueError(f"{path} is no complete shard: {error}; write it again") from error


def _check_end(path: Path) -> None:
    """A tar ends with two blocks of zeros; tarfile itself does not notice a cut between members."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - 2 * tarfile.BLOCKSIZE, 0))
        if file.read() != bytes(2 * tarfile.BLOCKSIZE):
            raise tarfile.ReadError("it is cut short")


def _jpeg_bytes(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=JPEG_QUALITY)
    return stream.getvalue()


def _npz_bytes(sample: Sample) -> bytes:
    stream = io.BytesIO()
    arrays: dict[str, Any] = {k: np.asarray(getattr(sample, k), np.float32) for k in ARRAYS}
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # no time and no owner: the same samples give the same bytes
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


assert {f.name for f in fields(Sample)} == {"image", "name", *ARRAYS}
