"""Rendered pictures on disk: WebDataset tars in which NAME.jpg and NAME.npz make one Sample."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from .sample import Sample


class Shards(Sequence[Sample]):
    """All samples of a folder of tars (or of one tar), by number; files are opened only to be read.

    Raises:
        FileNotFoundError: no tar there.
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
    with tarfile.open(path) as tar:
        places = {member.name: (member.offset_data, member.size) for member in tar if member.isfile()}
    names = [name[: -len(".jpg")] for name in places if name.endswith(".jpg")]
    return [(path, name, places[f"{name}.jpg"], places[f"{name}.npz"]) for name in names]


def _read(file, place: tuple[int, int]) -> bytes:  # type: ignore[no-untyped-def]
    file.seek(place[0])
    return file.read(place[1])
