"""Write the tracks of a video as files, one per person or one for all."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..storage.atomic import write_bytes, write_text
from ..video.tracks import Track, save_track
from ..world.ground import Ground
from .metadata import with_metadata
from .mot import mot_lines

TRACK_FORMATS = {
    "npz": "person_001.npz ...",
    "mot": "tracks.txt",
    "glb": "people.glb",
    "bvh": "person_001.bvh ...",
    "fbx": "people.fbx",
}


def write_tracks(
    tracks: Sequence[Track],
    folder: Path,
    formats: Collection[str],
    *,
    body: Any = None,
    bones: str | Mapping[str, str] | None = None,
    rest: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    ground: Ground | None = None,
) -> list[Path]:
    """Write tracks in these formats (of TRACK_FORMATS) and return the paths.

    Files of people of an earlier run (person_001.npz, person_001.bvh ...) are removed where their format is
    written anew; those of other formats stay.

    Args:
        body: the one that the tracks were predicted with; None loads it by its name.
        bones: names of bones in .glb, .bvh and .fbx, as in `save`.
        rest: rest pose of .glb, .bvh and .fbx, as in `save`.
        metadata: where the people come from; written into .npz and .glb, which can hold it.
        ground: people of .glb and .bvh stand upright on its floor, if the vertical is known.
    """
    from .save import save

    ground = ground if ground is not None and ground.up is not None else None
    for suffix in ("npz", "bvh"):
        for old in folder.glob(f"person_[0-9][0-9][0-9].{suffix}") if suffix in formats else ():
            old.unlink()
    written: list[Path] = []
    for track in tracks:
        stem = folder / f"person_{track.id:03}"
        if "npz" in formats:
            written.append(save_track(track, stem.with_suffix(".npz")))
        if "bvh" in formats:
            written.append(stem.with_suffix(".bvh"))
            save(track, written[-1], bones=bones, body=body, rest=rest, ground=ground)
    if "mot" in formats:
        written.append(write_text(folder / TRACK_FORMATS["mot"], "".join(mot_lines(tracks))))
    for form in ("glb", "fbx"):
        if form in formats and tracks:
            written.append(folder / TRACK_FORMATS[form])
            save(list(tracks), written[-1], bones=bones, body=body, rest=rest, ground=ground)
    for path in written if metadata else ():
        add_metadata(path, metadata or {})
    return written


def add_metadata(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write metadata into a result file, if its format can hold some."""
    content = path.read_bytes()
    changed = with_metadata(content, path.name, metadata)
    if changed != content:
        write_bytes(path, changed)
