"""Find images: files, folders with their subfolders, globs, addresses and lists of them."""

from __future__ import annotations

import glob
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..storage.paths import plain_reason
from .sources import is_elsewhere, path_of, read_list, shorten

# what counts as an image in a folder; files that are named are read whatever their suffix
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"} | {
    ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".tga"
}  # fmt: skip
VIDEO_SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp",
    ".wmv", ".flv", ".ogv", ".h264", ".264", ".h265", ".265", ".hevc", ".mxf", ".vob",
}  # fmt: skip
_OVERLAY = re.compile(r"(.+)_overlay$")


@dataclass
class FoundImages:
    """What a list of paths names.

    Attributes:
        images: paths, and texts of web addresses, data URIs and standard input; each once.
        bad: (path, reason) of what names no image.
        roots: the folder in which an image was found, if a folder was named.
        passed_over: number of other files in the folders, by kind: "video", "overlay", "other file", and of
            links to folders, which are not followed.
    """

    images: list[Path | str] = field(default_factory=list)
    bad: list[tuple[str, str]] = field(default_factory=list)
    roots: dict[Path | str, Path] = field(default_factory=dict)
    passed_over: Counter[str] = field(default_factory=Counter)


def find_images(paths: Iterable[str], *, recursive: bool = True, skip: Iterable[Path] = ()) -> FoundImages:
    """The images that files, folders, globs, addresses and .txt lists name.

    Args:
        paths: as on a command line.
        recursive: also those in subfolders of folders; links to folders are not followed.
        skip: files that are no inputs, as results written into one of the folders: left out of folders and
            globs, and where several paths are given, as shells expand globs.
    """
    paths = list(paths)
    found, seen = FoundImages(), set[object]()
    skipped = {path.resolve() for path in skip}
    for text in _without_lists(paths, found.bad):
        try:
            matches = _matches(text, recursive, skipped, found)
            keys = [image if isinstance(image, str) else image.resolve() for image, _ in matches]
        except (OSError, RuntimeError) as error:  # a name that is too long, a link that leads to itself
            reason = getattr(error, "strerror", None) or "its links lead in a circle"
            found.bad.append((text, f"{shorten(text, 100)} cannot be read: {reason}"))
            continue
        is_pattern = len(paths) > 1 or len(matches) > 1
        for (image, root), key in zip(matches, keys, strict=True):
            if is_pattern and key in skipped:
                found.passed_over["overlay" if _OVERLAY.match(Path(image).stem) else "result"] += 1
            elif key not in seen:
                seen.add(key)
                found.images.append(image)
                if root is not None:
                    found.roots[image] = root
    return found


def _matches(
    text: str, recursive: bool, skipped: set[Path], found: FoundImages
) -> list[tuple[Path | str, Path | None]]:
    """(image, folder in which it was found) of one argument."""
    if is_elsewhere(text):
        return [(text, None)]
    if not text.strip():
        found.bad.append((repr(text), "an empty name is no image; it may be an empty shell variable"))
        return []
    try:
        path = path_of(text)
    except ValueError as error:
        found.bad.append((text, str(error)))
        return []
    matches: list[tuple[Path | str, Path | None]]
    if path.is_dir():
        matches = [(image, path) for image in _in_folder(path, recursive, skipped, found.passed_over)]
        reason = f"{text} is a folder without pictures"
    elif path.exists() or not glob.has_magic(text):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            found.bad.append((text, f"{text} is a video: multihmr video {shlex.quote(text)} --out DIR"))
            return []
        # a path that does not exist fails when it is read, like any bad file
        return [(path, None)]
    else:
        matches = [(p, None) for p in map(Path, sorted(glob.glob(text, recursive=True))) if p.is_file()]
        reason = f"{text} matches nothing"
    if not matches:
        found.bad.append((text, reason))
    return matches


def _in_folder(folder: Path, recursive: bool, skipped: set[Path], passed_over: Counter[str]) -> list[Path]:
    """The images of a folder, sorted; other files are counted."""
    everything = sorted(folder.rglob("*") if recursive else folder.iterdir())
    files = [p for p in everything if p.is_file()]
    broken = sum(1 for p in everything if p.is_symlink() and not p.exists())
    if broken:
        passed_over["broken link"] += broken
    linked = sum(1 for p in everything if recursive and p.is_symlink() and p.is_dir())
    if linked:  # they may lead in a circle
        passed_over["linked folder"] += linked
    visible = [p for p in files if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    stems = {(p.parent, p.stem) for p in visible if is_image(p)}
    images = []
    for path in visible:
        overlay = _OVERLAY.match(path.stem)
        if path.suffix.lower() in VIDEO_SUFFIXES:
            passed_over["video"] += 1
        elif path.resolve() in skipped or (overlay and (path.parent, overlay[1]) in stems):
            passed_over["overlay" if overlay else "result"] += 1
        elif is_image(path):
            images.append(path)
        else:
            passed_over["other file"] += 1
    return images


def is_image(path: Path) -> bool:
    """Whether the suffix is one of an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def _without_lists(paths: Iterable[str], bad: list[tuple[str, str]]) -> Iterator[str]:
    """The same paths, each .txt file replaced by what it lists."""
    for text in paths:
        if not text.lower().endswith(".txt") or is_elsewhere(text):
            yield text
            continue
        try:
            yield from read_list(text)
        except FileNotFoundError:
            bad.append((text, f"{text} does not exist"))
        except OSError as error:
            bad.append((text, f"{text} cannot be read: {plain_reason(error.strerror or error)}"))
        except ValueError as error:
            bad.append((text, " ".join(str(error).split())))
