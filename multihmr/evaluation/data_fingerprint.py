"""Fingerprints, by content, of the data that a model is evaluated on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from ..data.synthetic.assets import fingerprint_assets

# The assets folder whose pictures the figures of the bundled model cards were measured on.
REFERENCE_ASSETS = "f905cb52250df489"
_EDGE_BYTES = 1 << 20


def fingerprint_shards(path: Path) -> str:
    """16 digits of a folder of shards, or of one: names, sizes, and the first and last megabyte of each."""
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    return fingerprint_files((shard.name, shard) for shard in shards)


def fingerprint_files(files: Iterable[tuple[str, Path]]) -> str:
    """16 digits of files under these names: names, sizes, and the first and last megabyte of each."""
    digest = hashlib.sha256()
    for name, path in files:
        size = path.stat().st_size
        digest.update(f"{name}\0{size}\0".encode())
        with path.open("rb") as file:
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
