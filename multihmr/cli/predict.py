"""multihmr predict: the people in images, written to files."""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from ..preprocessing import image_files
from ..preprocessing.sources import STDIN, read_stdin, shorten, stem_of
from ..storage.paths import portable_name, same_name
from .arguments import (
    any_rotation_flag,
    body_out,
    body_out_flags,
    camera_flags,
    check_body_out,
    check_distortion,
    closeups_flag,
    distortion_flag,
    draw_flags,
    draw_options,
    file_path,
    flip_test_flag,
    formats,
    ground_options,
    ground_text,
    hands_and_faces_flag,
    known_heights,
    limbs_flag,
    load_chosen,
    loading_flags,
    model_name,
    output_flags,
    precision_options,
    prediction_options,
    rerun_flags,
    tiles_flag,
    wants_world,
    world_flags,
)
from .main import (
    EXPECTED,
    check_format_packages,
    clean,
    fail,
    format_error,
    open_rerun,
    people_text,
    plural,
    progress_bar,
)

if TYPE_CHECKING:
    from ..bodies.base import Body
    from ..humans import Humans
    from ..io.result_index import ResultIndex
    from ..model import Model
    from ..world.ground import Ground

Source = TypeVar("Source", bound="Path | str")

# what --format accepts -> ending of the file
FORMATS = {
    "overlay": "_overlay.jpg",
    "overlay-png": "_overlay.png",
    "glb": ".glb",
    "npz": ".npz",
    "json": ".json",
    "ply": ".ply",
    "obj": ".obj",
    "stl": ".stl",
    "csv": ".csv",
    "coco.json": ".coco.json",
    "bvh": ".bvh",
    "fbx": ".fbx",
    "usd": ".usd",
    "usda": ".usda",
    "usdc": ".usdc",
    "usdz": ".usdz",
    "rrd": ".rrd",
}
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)  # which the next image would meet, too
DEFAULT_FORMATS = "overlay,glb,npz,json"


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "paths",
        nargs="+",
        metavar="PATH",
        help="images, folders of images, globs, web addresses, data URIs, - for standard input, or .txt "
        "files that list such, one a line",
    )
    parser.add_argument(
        "--out", type=file_path, required=True, metavar="DIR", help="folder for the results (required)"
    )
    parser.add_argument(
        "--format",
        type=formats(FORMATS),
        default=DEFAULT_FORMATS,
        help=f"of {','.join(FORMATS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--no-recursive",
        action="store_true",
        help="leave out subfolders of folders (default: read them; the results mirror the tree)",
    )
    camera_flags(parser, "of the images")
    distortion_flag(parser)
    parser.add_argument(
        "--threshold", type=float, help="least score of a person, 0 to 1 (default: the model's own)"
    )
    parser.add_argument(
        "--max-people", type=int, metavar="N", help="keep the N best per image (default: all)"
    )
    tiles_flag(parser)
    flip_test_flag(parser)
    hands_and_faces_flag(parser)
    closeups_flag(parser)
    limbs_flag(parser)
    any_rotation_flag(parser)
    world_flags(parser)
    _size_flags(parser)
    draw_flags(parser)
    rerun_flags(parser, "NAME.rrd")
    output_flags(parser)
    body_out_flags(parser)
    loading_flags(parser)


def _size_flags(parser: argparse.ArgumentParser) -> None:
    """What tells how tall people are and how far away: known heights, and the floor."""
    parser.add_argument(
        "--no-one-floor",
        dest="one_floor",
        action="store_false",
        help="with --world: leave sizes and distances of people as predicted (default: make them agree with "
        "the floor that people stand on)",
    )
    parser.add_argument(
        "--known-heights",
        type=known_heights,
        metavar="M",
        help="how tall people are, in metres, which fixes size and distance: one height for all, or by "
        "number, nearest first: 1=1.80,3=1.65 (default: predicted)",
    )


def run(args: argparse.Namespace) -> int:
    """Predict each image and write its files; failures are listed at the end, the rest is done."""
    from ..io.result_index import ResultIndex
    from ..preprocessing.options import check_options
    from ..world.ground import estimate_ground

    check_options(args.fov, args.threshold, args.max_people, args.tiles)
    check_body_out(args)
    estimate_ground([], **ground_options(args))  # its numbers are checked before any work
    draw_options(args)
    check_distortion(args)
    if args.rerun and "rrd" not in args.format:
        args.format = [*args.format, "rrd"]
    check_format_packages(args.format)
    numbers = [form for form in ("csv", "rrd") if form in args.format]
    if numbers and wants_world(args) and not args.quiet:
        print(f"{', '.join(numbers)}: in the camera frame, also with --world", file=sys.stderr)
    viewer = open_rerun(args)
    index = ResultIndex(args.out)
    found = image_files.find_images(
        args.paths, recursive=not args.no_recursive, skip=[*index.outputs(), index.path]
    )
    asked = len(found.images) + len(found.bad)
    run = _Run(args, index, bad=list(found.bad), viewer=viewer)
    run.body_out = body_out(args)
    if found.images:
        args.out.mkdir(parents=True, exist_ok=True)
        model = load_chosen(args)
        names = output_names(found.images, args.out, args.format, roots=found.roots, taken=index.names())
        try:
            run.predict_all(model, found.images, names)
        except KeyboardInterrupt:
            return fail(
                f"stopped: {run.done} of {len(found.images)} pictures are done, in {args.out}; "
                "the same command goes on with the rest",
                code=130,
            )
    run.summary(asked, found.passed_over)
    if run.bad:
        fail(f"{run.done} of {asked} done; these were not:")
        for name, reason in run.bad:
            print(clean(f"  {reason if name in reason else f'{name}: {reason}'}"), file=sys.stderr)
    return 1 if run.bad else 0


class _Run:
    """One run over many images: what is done, what failed, and the index of the results."""

    def __init__(
        self, args: argparse.Namespace, index: ResultIndex, bad: list[tuple[str, str]], viewer: Any = None
    ) -> None:
        self.args, self.index, self.bad, self.viewer = args, index, bad, viewer
        self.recording: Any = None  # for the viewer
        self.options: dict[str, Any] = {}  # of Model.predict
        self.done = self.skipped = self.people = self.empty = 0
        self.seconds = 0.0
        self.body_out: Body | None = None
        self._printing = not args.quiet

    def predict_all(
        self, model: Model, images: Sequence[Path | str], names: Mapping[Path | str, str]
    ) -> None:
        from ..io.metadata import provenance
        from ..video.prediction_cache import model_fingerprint

        args, start = self.args, time.monotonic()
        self.options = prediction_options(args) | {"max_people": args.max_people}
        options = self.options | precision_options(args)
        if args.known_heights is not None:
            given = args.known_heights  # by number as JSON has it, which the index is compared with
            options["known_heights"] = (
                {str(k): v for k, v in given.items()} if isinstance(given, dict) else given
            )
        if wants_world(args):
            options |= {"world": True, "one_floor": args.one_floor} | ground_options(args)
        if args.body_out:
            options |= {"body_out": args.body_out}
        if draw_options(args):
            options["draw"] = draw_options(args)
        threshold = args.threshold if args.threshold is not None else getattr(model, "threshold", None)
        metadata = provenance("", model_name(args), model_fingerprint(model), options, threshold=threshold)
        bar = progress_bar(args, images, unit="picture")
        bar.disable = bar.disable or len(images) == 1
        with contextlib.ExitStack() as stack:
            if self.viewer is not None:
                from ..visualization.rerun_recording import record

                self.recording = stack.enter_context(record(viewer=self.viewer))
            self._predict_each(model, bar, names, metadata)
        self.seconds = time.monotonic() - start

    def _predict_each(
        self, model: Model, bar: Iterable[Any], names: Mapping[Any, str], metadata: Mapping[str, Any]
    ) -> None:
        for path in bar:
            row = dict(metadata) | {"source": str(path) if isinstance(path, Path) else shorten(path)}
            try:
                self._predict_one(model, path, names[path], row)
            except EXPECTED as error:
                if getattr(error, "errno", None) in DISK_FULL:
                    left = f"{self.done} done; the same command goes on with the rest"
                    raise OSError(f"{format_error(error)} in {self.args.out} ({left})") from error
                self.bad.append((shorten(str(path)), format_error(error)))
                self.index.add({"input": row["source"], "error": format_error(error)})

    def _predict_one(self, model: Model, path: Path | str, name: str, metadata: dict[str, Any]) -> None:
        """Predict one image and write its files, unless that was done before."""
        from ..io.result_index import file_fingerprint
        from ..preprocessing.image import load_image

        args, content = self.args, file_fingerprint(path)
        expected = [name + FORMATS[form] for form in args.format if form not in ("bvh", "fbx")]
        if not args.overwrite and self.index.is_done(metadata["source"], content, metadata, expected):
            self.done, self.skipped = self.done + 1, self.skipped + 1
            return
        # decoded once, for the network and for the overlay
        image = load_image(read_stdin() if path == STDIN else path)
        humans = model.predict(image, **self.options)
        humans, ground = self._placed(humans, model)
        if self.recording is not None:
            humans.to_rerun(image, recording=self.recording, frame=self.done)
        more = {} if ground is None else {"world": world_facts(humans, ground, model.body)}
        if self.body_out is not None:
            humans = humans.to_body(self.body_out, source=model.body)
        drawn: dict[str, Any] = {"ground": ground, "drawing": draw_options(args)}
        written = write_results(humans, image, args.out / name, args.format, metadata | more, **drawn)
        outputs = [file.relative_to(args.out).as_posix() for file in written]
        found = {"input": metadata["source"], "name": name, "outputs": outputs, "people": len(humans)}
        self.index.add(found | {"input_fingerprint": content} | metadata)
        self.done, self.people = self.done + 1, self.people + len(humans)
        self.empty += not len(humans)
        text = f"{shorten(str(path))}: {self._people(humans)}{_about_others(image)}"
        self._print(text if ground is None or not len(humans) else f"{text}; {ground_text(ground)}")

    def _placed(self, humans: Humans, model: Any) -> tuple[Humans, Ground | None]:
        """The people with sizes as given or as the floor tells them, and the ground, if it is asked for."""
        from ..world.one_floor import fit_one_floor

        args = self.args
        known = args.known_heights if len(humans) else None
        if not wants_world(args) or not args.one_floor:
            if known is not None:
                humans = humans.with_heights(known, body=model.body)
            return humans, humans.ground(**ground_options(args)) if wants_world(args) else None
        options = ground_options(args)
        given = options["camera_pitch"], options["camera_roll"], options["floor"]
        return fit_one_floor(humans, None, given, known, model.body)

    def _people(self, humans: Humans) -> str:
        if len(humans):
            text = f"{people_text(len(humans))} at {', '.join(f'{d:.1f}' for d in humans.distances)} m"
            errors = getattr(humans, "errors_mm", None)
            if errors is None:
                return text
            return f"{text}, as {humans.body} within {', '.join(f'{e:.1f}' for e in errors)} mm"
        tiles = "" if self.args.tiles != 1 else "--tiles 2 or auto for small people, "
        turned = "" if self.args.any_rotation is True else "--any-rotation if the picture lies on its side, "
        return (
            f"{people_text(0)}; try {tiles}{turned}--threshold 0.15 for uncertain ones, or --fov for an "
            "unusual lens"
        )

    def _print(self, text: str) -> None:
        """A line on standard output, until its reader ends, as `head -1` does; the work goes on."""
        if not self._printing:
            return
        try:
            tqdm.write(clean(text))
            sys.stdout.flush()
        except BrokenPipeError:
            self._printing = False
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())

    def summary(self, asked: int, passed_over: Counter[str]) -> None:
        """What was done, if that was more than one image."""
        kinds = [plural(count, kind) for kind, count in sorted(passed_over.items())]
        if kinds:
            hint = "; multihmr video reads videos" if passed_over["video"] else ""
            self._print(f"passed over: {', '.join(kinds)}{hint}")
        if asked == 1:
            if self.skipped:
                self._print("done before with the same model and options; --overwrite predicts it anew")
            return
        new = self.done - self.skipped
        if not self.done:  # what went wrong follows
            return
        parts = [f"{plural(new, 'picture')} with {people_text(self.people)}"] if new else []
        if self.empty and self.people:
            parts.append(f"{self.empty} of them without people")
        if self.skipped:
            parts.append(f"{self.skipped} done before (--overwrite predicts them anew)")
        if new and self.seconds > 0:
            rate = new / self.seconds
            parts.append(f"{rate:.1f} a second" if rate >= 1 else f"{1 / rate:.1f} s each")
        self._print(f"{', '.join(parts)}; files in {self.args.out}, listed in {self.index.path}")


def _about_others(image: Any) -> str:
    """What is said of a file with several pictures, of which the first was read."""
    if image.count < 2:
        return ""
    film = "" if image.name.lower().endswith((".tif", ".tiff")) else ", multihmr video reads all"
    return f" (in the first of {image.count} pictures in this file{film})"


def world_facts(humans: Humans, ground: Ground, body: Any) -> dict[str, Any]:
    """The ground, and each person's number, height and place in the world (y up), for metadata."""
    from ..world.placement import in_world

    if ground.up is None:
        return ground.to_dict()
    world = in_world(humans, ground=ground, one_floor=False, body=body)
    people = [
        {
            "number": int(number),
            "height_m": round(float(world.height_m[i]), 3),
            "pelvis_m": [round(float(value), 4) for value in world.pelvis[i]],
            "over_floor_m": None if ground.camera_height is None else round(float(world.over_floor[i]), 3),
        }
        for i, number in enumerate(humans.numbers)
    ]
    return ground.to_dict() | {"axes": "x right, y up, z to the camera, floor at y = 0", "persons": people}


def write_results(
    humans: Humans,
    image: Any,
    stem: Path,
    chosen: Iterable[str],
    metadata: Mapping[str, Any] | None = None,
    *,
    ground: Ground | None = None,
    drawing: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Write the people of an image in formats (keys of FORMATS) to files named `stem` and return their paths.

    A .bvh holds one person, so there is one per person: stem_001.bvh ... metadata: written into the files
    that can hold it. ground: meshes and bones stand upright on its floor, if the vertical is known, and it is
    drawn into overlays.
    """
    from ..io.save import MESHES, RIGGED
    from ..io.track_files import add_metadata

    written: list[Path] = []
    placed: dict[str, Any] = {} if ground is None or ground.up is None else {"ground": ground}
    stem.parent.mkdir(parents=True, exist_ok=True)
    for form in chosen:
        target = stem.with_name(stem.name + FORMATS[form])
        if form.startswith("overlay"):
            _write_image(humans.draw(image, ground=ground, **(drawing or {})), target)
            written.append(target)
        elif form == "rrd":
            from ..visualization.rerun_recording import record

            with record(target) as recording:
                humans.to_rerun(image, recording=recording)
            written.append(target)
        elif form == "bvh":
            for number in range(len(humans)):
                written.append(stem.with_name(f"{stem.name}_{number + 1:03}.bvh"))
                humans[number].save(written[-1], **placed)
        elif form != "fbx" or len(humans):  # Blender writes no file without people
            humans.save(target, **(placed if target.suffix in (*MESHES, *RIGGED) else {}))
            written.append(target)
    for path in written if metadata else ():
        add_metadata(path, metadata or {})
    return written


def _write_image(pixels: Any, path: Path) -> None:
    from PIL import Image

    from ..storage.atomic import atomic_path

    with atomic_path(path) as draft:
        Image.fromarray(pixels).save(draft, "PNG" if path.suffix == ".png" else "JPEG", quality=92)


def find_images(paths: Iterable[str]) -> tuple[list[Path | str], list[tuple[str, str]]]:
    """The images that paths name, and (path, reason) of the rest; see `preprocessing.image_files`."""
    found = image_files.find_images(paths)
    return found.images, found.bad


def output_names(
    images: Sequence[Source],
    out: Path,
    formats: Sequence[str],
    *,
    roots: Mapping[Any, Path] | None = None,
    taken: Mapping[str, str] | None = None,
) -> dict[Source, str]:
    """A name for each image's files, relative to `out`.

    Its stem, below the subfolders in which it lies in the folder that was named, as every system can have it
    (`portable_name`), and numbered where two would meet or an input be overwritten.

    Args:
        roots: image -> the folder that was named.
        taken: input -> name of earlier runs, which stays.
    """
    inputs = {path.resolve() for path in images if isinstance(path, Path)}
    roots, earlier = roots or {}, taken or {}
    names: dict[Source, str] = {}
    used = {same_name(name) for name in earlier.values()}
    for path in images:
        if str(path) in earlier:
            names[path] = earlier[str(path)]
            continue
        stem = path.stem if isinstance(path, Path) else stem_of(path)
        if isinstance(path, Path) and path in roots:
            stem = path.relative_to(roots[path]).with_name(stem).as_posix()
        stem = portable_name(stem)
        name, number = stem, 1
        while same_name(name) in used or any(
            (out / (name + FORMATS[f])).resolve() in inputs for f in formats
        ):
            number += 1
            name = f"{stem}_{number}"
        used.add(same_name(name))
        names[path] = name
    return names
