"""The pictures that several cameras took at the same moments."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ...preprocessing.image_files import IMAGE_SUFFIXES
from ...video.reader import natural_order


def find_moments(views: Sequence[Path]) -> tuple[list[list[Path]], list[str]]:
    """The pictures of each moment, one per view, and the name of each view: its file's stem, or its folder's.

    Raises:
        ValueError: there is one view only; files and folders are mixed; or folders hold other numbers of
            pictures.
        FileNotFoundError: a path does not exist.
    """
    for path in views:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist")
    if len(views) < 2:
        raise ValueError("several cameras are needed: give one picture, or one folder, per camera")
    folders = [path.is_dir() for path in views]
    names = [path.resolve().name if path.is_dir() else path.stem for path in views]
    if len(set(names)) < len(names):  # cam1/0001.jpg cam2/0001.jpg
        names = [path.resolve().parent.name for path in views]
    if len(set(names)) < len(names):
        raise ValueError(f"views need names of their own, as files or folders: got {', '.join(names)}")
    if not any(folders):
        return [list(views)], names
    if not all(folders):
        raise ValueError("give one picture per camera, or one folder per camera, not both")
    found = [
        sorted(
            (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES),
            key=lambda picture: natural_order(picture.name),
        )
        for folder in views
    ]
    counts = {name: len(pictures) for name, pictures in zip(names, found, strict=True)}
    if len(set(counts.values())) > 1 or not found[0]:
        told = ", ".join(f"{count} in {name}" for name, count in counts.items())
        raise ValueError(f"each folder must hold the pictures of the same moments, got {told}")
    return [list(moment) for moment in zip(*found, strict=True)], names
