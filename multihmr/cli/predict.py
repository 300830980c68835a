"""multihmr predict: the people in pictures, written to files."""

from __future__ import annotations

import argparse
import glob
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from ..preprocessing.sources import STDIN, is_elsewhere, read_list, read_stdin, shorten, stem_of
from .arguments import backend_flag, intrinsics, model_flags, tiles_flag
from .main import EXPECTED, clean, fail, format_error

if TYPE_CHECKING:
    from ..humans import Humans
    from ..model import Model

Source = TypeVar("Source", bound="Path | str")

# what --format knows -> the ending of the file
FORMATS = {
    "overlay": "_overlay.jpg",
    "overlay-png": "_overlay.png",
    "glb": ".glb",
    "npz": ".npz",
    "json": ".json",
    "ply": ".ply",
    "obj": ".obj",
}
DEFAULT_FORMATS = "overlay,glb,npz,json"
# what counts as a picture in a folder; files that are named are read whatever they are called
SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"} | {
    ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".tga"
}  # fmt: skip


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images, folders of images, globs, web addresses, data URIs, - for standard input, or .txt "
        "files that list such, one a line",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--format",
        type=_formats,
        default=DEFAULT_FORMATS,
        help=f"of {','.join(FORMATS)}; default: %(default)s",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--K", type=intrinsics, metavar="FX,FY,CX,CY", help="camera, in pixels of the pictures"
    )
    camera.add_argument("--fov", type=float, metavar="DEG", help="field of view over the longer side")
    parser.add_argument("--threshold", type=float, help="least score of a person, 0 to 1")
    parser.add_argument("--max-people", type=int, metavar="N", help="keep the N best per picture")
    tiles_flag(parser)
    parser.add_argument("--smplx", metavar="PATH", help="your SMPLX_NEUTRAL.npz, for models with that body")
    model_flags(parser)
    backend_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Predict each picture and write its files; bad ones are listed at the end, the rest is done."""
    images, bad = find_images(args.paths)
    asked, done = len(images) + len(bad), 0
    if images:
        from ..model import load_model

        args.out.mkdir(parents=True, exist_ok=True)
        model = load_model(args.model, device=args.device, smplx=args.smplx, backend=args.backend)
        names = output_names(images, args.out, args.format)
        bar = tqdm(images, unit="picture", disable=None if len(images) > 1 else True)
        try:
            for path in bar:
                try:
                    found = _predict_one(model, path, args.out / names[path], args)
                    tqdm.write(clean(f"{shorten(str(path))}: {found}"))
                    done += 1
                except EXPECTED as error:
                    bad.append((shorten(str(path)), format_error(error)))
        except KeyboardInterrupt:
            bar.close()
            return fail(f"stopped: {done} of {len(images)} pictures are done, in {args.out}", code=130)
    if bad:
        fail(f"{done} of {asked} done; these were not:")
        for name, reason in bad:
            print(clean(f"  {reason if name in reason else f'{name}: {reason}'}"), file=sys.stderr)
    return 1 if bad else 0


def _predict_one(model: Model, path: Path | str, stem: Path, args: argparse.Namespace) -> str:
    """Predict one image and write its files; the line to print."""
    from ..preprocessing.image import load_image

    # decoded once, for the network and for the overlay
    photo = load_image(read_stdin() if path == STDIN else path)
    options = {name: getattr(args, name) for name in ("fov", "threshold", "max_people", "tiles")}
    humans = model.predict(photo, args.K, **options)
    for form in args.format:
        target = stem.with_name(stem.name + FORMATS[form])
        if form.startswith("overlay"):
            _write_picture(humans.draw(photo), target)
        else:
            humans.save(target)
    return _people(humans)


def _write_picture(pixels: Any, path: Path) -> None:
    from PIL import Image

    Image.fromarray(pixels).save(path, quality=92)


def _people(humans: Humans) -> str:
    if not len(humans):
        return "nobody"
    distances = ", ".join(f"{distance:.1f}" for distance in humans.distances)
    return f"{len(humans)} {'person' if len(humans) == 1 else 'people'} at {distances} m"


def find_images(paths: Iterable[str]) -> tuple[list[Path | str], list[tuple[str, str]]]:
    """The images that files, folders (one level), globs, addresses and lists name, each once.

    Returns:
        Paths, and the texts of web addresses, data URIs and standard input; (path, reason) of the rest.
    """
    found: dict[Path | str, Path | str] = {}
    bad: list[tuple[str, str]] = []
    for text in _without_lists(paths, bad):
        if is_elsewhere(text):
            found.setdefault(text, text)
            continue
        path = Path(text)
        if path.is_dir():
            matches = [p for p in sorted(path.iterdir()) if _is_picture(p)]
            reason = f"{text} is a folder without pictures"
        elif path.exists() or not glob.has_magic(text):
            # a path that does not exist fails when it is read, like any bad file
            matches, reason = [path], ""
        else:
            matches = [p for p in map(Path, sorted(glob.glob(text, recursive=True))) if p.is_file()]
            reason = f"{text} matches nothing"
        if not matches:
            bad.append((text, reason))
        for match in matches:
            found.setdefault(match.resolve(), match)
    return list(found.values()), bad


def _without_lists(paths: Iterable[str], bad: list[tuple[str, str]]) -> Iterator[str]:
    """The same paths, each .txt file replaced by what it lists."""
    for text in paths:
        if not text.lower().endswith(".txt") or is_elsewhere(text):
            yield text
            continue
        try:
            yield from read_list(text)
        except (OSError, ValueError) as error:
            bad.append((text, format_error(error)))


def output_names(images: Sequence[Source], out: Path, formats: Sequence[str]) -> dict[Source, str]:
    """A name for each image's files: its stem, numbered where two would meet or an input be overwritten."""
    inputs = {path.resolve() for path in images if isinstance(path, Path)}
    names: dict[Source, str] = {}
    taken: set[str] = set()  # lower case: some file systems do not tell the two apart
    for path in images:
        stem = path.stem if isinstance(path, Path) else stem_of(path)
        name, number = stem, 1
        while name.lower() in taken or any((out / (name + FORMATS[f])).resolve() in inputs for f in formats):
            number += 1
            name = f"{stem}_{number}"
        taken.add(name.lower())
        names[path] = name
    return names


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(FORMATS)}")
    return list(dict.fromkeys(names))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
