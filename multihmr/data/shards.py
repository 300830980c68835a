"""Rendered pictures on disk: WebDataset tars in which NAME.jpg and NAME.npz make one Sample."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from .sample import ARRAYS, Sample

JPEG_QUALITY = 92


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


class Shards(Sequence[Sample]):
    """All samples of a folder of tars (or of one tar), by number; files are opened only to be read.

    Raises:
        FileNotFoundError: no tar there.
        ValueError: a tar is cut short or no shard; it is named.
    """

    def __init__(self, root: str | Path) -> None:
        root = Path(root)
        paths = sorted(root.glob("*.tar")) if root.is_dir() else [root]
        if not paths or not paths[0].is_file():
            raise FileNotFoundError(
                f"no shards (*.tar) in {root}; make some with: multihmr synth --out {root}"
            )
        self._members = [entry for path in paths for entry in _index(path)]

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path, name, picture, truth = self._members[index]
        with open(path, "rb") as file:
            image = np.asarray(Image.open(io.BytesIO(_read(file, picture))).convert("RGB"))
            with np.load(io.BytesIO(_read(file, truth)), allow_pickle=False) as arrays:
                people = {field: arrays[field] for field in arrays.files}
        return Sample(image=image, name=name, **people)


def _index(path: Path) -> list[tuple[Path, str, tuple[int, int], tuple[int, int]]]:
    """Where in the tar each sample's two files lie, as (offset, size)."""
    try:
        with tarfile.open(path) as tar:
            places = {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}
        length = path.stat().st_size
        if any(offset + size > length for offset, size in places.values()):
            raise tarfile.ReadError("it ends within a file")
        names = [name[: -len(".jpg")] for name in places if name.endswith(".jpg")]
        return [(path, name, places[f"{name}.jpg"], places[f"{name}.npz"]) for name in names]
    except (tarfile.TarError, KeyError) as error:
        raise ValueError(f"{path} is no complete shard: {error}; write it again") from error


def _read(file, place: tuple[int, int]) -> bytes:  # type: ignore[no-untyped-def]
    file.seek(place[0])
    return file.read(place[1])


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
