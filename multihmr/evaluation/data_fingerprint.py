"""Fingerprints, by content, of the data that a model is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

# The assets folder whose pictures the figures of the bundled model cards were measured on.
REFERENCE_ASSETS = "f905cb52250df489"
CAPTURED_POSES = "cmu_poses_anny.npz"
# Folders below the assets that hold one of these are rendered from.
_ASSET_FILES = ("index.json", "*.mhclo", "*.mhmat", "*.bvh")
_NO_CONTENT = {".md", ".py", ".txt"}
_EDGE_BYTES = 1 << 20


def fingerprint_assets(folder: Path | None) -> str:
    """16 digits of the clothes, skins and poses that synthetic pictures are rendered with; "none" without.

    Args:
        folder: with MakeHuman's assets and the captured poses.
    """
    if folder is None:
        return "none"
    digest = hashlib.sha256()
    for path in _asset_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _asset_files(folder: Path) -> Iterator[Path]:
    """The files below `folder` that pictures are rendered from, in the order of their paths."""
    if (folder / CAPTURED_POSES).is_file():
        yield folder / CAPTURED_POSES
    for pack in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(next(pack.rglob(pattern), None) is not None for pattern in _ASSET_FILES):
            files = (path for path in pack.rglob("*") if path.is_file())
            yield from sorted(path for path in files if path.suffix.lower() not in _NO_CONTENT)


def fingerprint_shards(path: Path) -> str:
    """16 digits of a folder of shards, or of one: names, sizes, and the first and last megabyte of each."""
    digest = hashlib.sha256()
    for tar in sorted(path.glob("*.tar")) if path.is_dir() else [path]:
        size = tar.stat().st_size
        digest.update(f"{tar.name}\0{size}\0".encode())
        with tar.open("rb") as file:
            digest.update(file.read(_EDGE_BYTES))
            file.seek(max(0, size - _EDGE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()[:16]


def about_assets(folder: Path | None) -> str:
    """A warning on pictures rendered with these assets, if they are not the reference; else ""."""
    if folder is None:
        return (
            "the test pictures are rendered without MakeHuman's assets and captured motions, as no assets "
            "folder was found (--assets DIR): clothes are painted and poses built in, so figures do not "
            "compare with those of the model card"
        )
    found = fingerprint_assets(folder)
    if found == REFERENCE_ASSETS:
        return ""
    return (
        f"the test pictures are rendered with other assets ({folder}, fingerprint {found}) than those of the "
        f"model card ({REFERENCE_ASSETS}), so figures do not compare with it"
    )
