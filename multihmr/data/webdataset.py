"""WebDataset shards: tars in which the files of one NAME are one Sample.

NAME.jpg        the picture
NAME.npz        fields of Sample that are arrays or texts, by their names, and extra arrays of the writer
NAME.mask.png   index of the visible person (8 bits), if known
NAME.depth.png  distance along the optical axis in millimetres (16 bits, 0 is no surface), if known
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
# Errors of decoding damaged files.
_DAMAGES = (OSError, ValueError, TypeError, KeyError, SyntaxError, EOFError, zipfile.BadZipFile, zlib.error)


FIELDS = (*CAMERA, *PEOPLE, *WORDS)


def write_shard(
    path: Path | str,
    samples: Iterable[Sample],
    more: Callable[[Sample], Mapping[str, np.ndarray]] | None = None,
) -> None:
    """Write a shard atomically.

    Args:
        path: of the tar.
        samples: its samples.
        more: extra arrays of a sample for its .npz, by name, for other software.
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
    """The samples of a folder of shards (or of one shard), by number.

    Raises:
        FileNotFoundError: there is no shard.
        ValueError: a file is truncated or no shard.
    """

    def __init__(self, root: str | Path, *, planes: bool = False, joints: bool = False) -> None:
        """
        Args:
            root: folder of shards, or one shard.
            planes: also read masks and depths.
            joints: use the 2D joints that `multihmr generate` wrote as keypoints of people without any.
        """
        root = Path(root)
        self.planes = planes
        self.joints = joints
        paths = sorted(root.glob("*.tar")) if root.is_dir() else [root]
        if not paths or not paths[0].is_file():
            raise FileNotFoundError(
                f"no shards (*.tar) in {root}; make some with: multihmr generate --out {root}, "
                f"or name pictures with COCO's labels coco@{root}"
            )
        self._members = [entry for path in paths for entry in _index(path)]

    def __len__(self) -> int:
        return len(self._members)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        """The sample of that number, or a list of samples for a slice.

        Raises:
            ValueError: it is damaged; the message names sample and file.
        """
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
    """(offset, size) of each sample's files in the tar, by ending."""
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
        raise ValueError(f"{path} is not a complete shard: {error}; write it again") from error
    for name, places in samples.items():
        if not {"jpg", "npz"} <= set(places):
            raise ValueError(f"{path} is not a complete shard: {name} lacks its .jpg or .npz; write it again")
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
