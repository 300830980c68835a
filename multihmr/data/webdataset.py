"""Rendered pictures on disk: WebDataset tars in which files of one NAME make one Sample.

NAME.jpg        the picture
NAME.npz        the fields of Sample that are arrays or words, by their names, and what else the writer knows
NAME.mask.png   who is seen where (8 bits), where known
NAME.depth.png  distance along the optical axis in millimetres (16 bits, 0 is nothing), where known
"""

from __future__ import annotations

import io
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..storage.atomic import atomic_path
from .sample import CAMERA, PEOPLE, WORDS, Sample

JPEG_QUALITY = 92
# What decoding something else than was written ends in.
_DAMAGES = (OSError, ValueError, TypeError, KeyError, SyntaxError, EOFError, zipfile.BadZipFile, zlib.error)


FIELDS = (*CAMERA, *PEOPLE, *WORDS)


def write_shard(
    path: Path | str,
    samples: Iterable[Sample],
    more: Callable[[Sample], Mapping[str, np.ndarray]] | None = None,
) -> None:
    """A tar with the files of each sample; it gets its name only when it is complete.

    more: arrays that others than this package may want, by name, for the .npz; not read again here.
    """
    path = Path(path)
    with atomic_path(path) as draft, tarfile.open(draft, "w") as tar:
        for sample in samples:
            _add(tar, f"{sample.name}.jpg", _picture_bytes(sample.image, "JPEG", quality=JPEG_QUALITY))
            _add(tar, f"{sample.name}.npz", _npz_bytes(sample, more(sample) if more else {}))
            if sample.mask is not None:
                _add(tar, f"{sample.name}.mask.png", _picture_bytes(sample.mask, "PNG"))
            if sample.depth is not None:
                millimetres = np.nan_to_num(sample.depth * 1000).round().clip(0, 65535)
                _add(tar, f"{sample.name}.depth.png", _picture_bytes(millimetres.astype(np.uint16), "PNG"))


class Shards(Sequence[Sample]):
    """All samples of a folder of tars (or of one tar), by number; files are opened only to be read.

    Raises:
        FileNotFoundError: no tar there.
        ValueError: a tar is cut short or no shard; it is named.
    """

    def __init__(self, root: str | Path, *, planes: bool = False, joints: bool = False) -> None:
        """planes: read masks and depths too, where there are some. joints: give people without keypoints the
        2D joints of their body as such, where `multihmr generate` wrote them."""
        root = Path(root)
        self.planes = planes
        self.joints = joints
        paths = sorted(root.glob("*.tar")) if root.is_dir() else [root]
        if not paths or not paths[0].is_file():
            raise FileNotFoundError(
                f"no shards (*.tar) in {root}; make some with: multihmr generate --out {root}"
            )
        self._members = [entry for path in paths for entry in _index(path)]

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """ValueError, naming sample and file, for one that is damaged."""
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        path, name, places = self._members[index]
        try:
            return self._read(path, name, places)
        except _DAMAGES as error:
            raise ValueError(f"sample '{name}' in {path} is damaged ({error}); write it again") from error

    def _read(self, path: Path, name: str, places: dict[str, tuple[int, int]]) -> Sample:
        with open(path, "rb") as file:
            image = np.asarray(_open(file, places["jpg"]).convert("RGB"))
            with np.load(io.BytesIO(_read(file, places["npz"])), allow_pickle=False) as arrays:
                known = {field: arrays[field] for field in FIELDS if field in arrays}
                if self.joints and "joints_2d" in arrays and "keypoints_2d" not in known:
                    body = known.get("body", Sample.body)
                    known |= {"keypoints_2d": arrays["joints_2d"], "keypoint_set": body}
            if self.planes and "mask.png" in places:
                known["mask"] = np.asarray(_open(file, places["mask.png"]))
            if self.planes and "depth.png" in places:
                millimetres = np.asarray(_open(file, places["depth.png"])).astype(np.float32)
                known["depth"] = np.where(millimetres > 0, millimetres / 1000, np.nan).astype(np.float32)
        known |= {word: str(known[word]) for word in WORDS if word in known}
        return Sample(image=image, name=name, **known)


def _index(path: Path) -> list[tuple[Path, str, dict[str, tuple[int, int]]]]:
    """Where in the tar each sample's files lie: by their endings, as (offset, size)."""
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    length = path.stat().st_size
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.offset_data + member.size > length:
                    raise tarfile.ReadError("it ends within a file")
                name, _, ending = member.name.partition(".")
                samples.setdefault(name, {})[ending] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no complete shard: {error}; write it again") from error
    for name, places in samples.items():
        if not {"jpg", "npz"} <= set(places):
            raise ValueError(f"{path} is no complete shard: {name} lacks its .jpg or .npz; write it again")
    return [(path, name, places) for name, places in samples.items()]


def _open(file, place: tuple[int, int]) -> Image.Image:  # type: ignore[no-untyped-def]
    return Image.open(io.BytesIO(_read(file, place)))


def _read(file, place: tuple[int, int]) -> bytes:  # type: ignore[no-untyped-def]
    file.seek(place[0])
    return file.read(place[1])


def _picture_bytes(picture: np.ndarray, kind: str, **options: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()


def _npz_bytes(sample: Sample, more: Mapping[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    known = {k: np.asarray(getattr(sample, k)) for k in FIELDS if getattr(sample, k) is not None}
    arrays: dict[str, Any] = {**known, **more}
    del arrays["name"]
    np.savez_compressed(stream, **arrays)
    return stream.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)  # no time and no owner: the same samples give the same bytes
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))
