"""multihmr views: the people that several calibrated cameras see at once, written to files."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..arguments import (
    draw_flags,
    draw_options,
    file_path,
    formats,
    load_chosen,
    loading_flags,
    model_name,
    positive,
    precision_options,
)
from ..main import check_format_packages, clean, fail, people_text, plural, progress_bar
from ..predict import DEFAULT_FORMATS, FORMATS, write_results
from .moments import find_moments

if TYPE_CHECKING:
    from ...humans import Humans
    from ...model import Model
    from ...preprocessing.calibration import Camera


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "views",
        nargs="+",
        type=file_path,
        metavar="VIEW",
        help="one picture per camera, or one folder of pictures per camera, of which the first ones were "
        "taken at one moment, then the second ones, and so on",
    )
    parser.add_argument(
        "--cameras",
        nargs="+",
        type=file_path,
        required=True,
        metavar="FILE",
        help="calibration: JSON, OpenCV's YAML, or TOML of Pose2Sim and anipose; K, R and t (world to "
        "camera) of each camera, by the names of the views or in their order (required)",
    )
    parser.add_argument(
        "--out", type=file_path, required=True, metavar="DIR", help="folder for the results (required)"
    )
    parser.add_argument(
        "--unit", choices=("m", "cm", "mm"), default="m", help="of t in the files (default: %(default)s)"
    )
    parser.add_argument(
        "--format",
        type=formats(FORMATS),
        default=DEFAULT_FORMATS,
        help=f"of {','.join(FORMATS)}, for each view (default: %(default)s)",
    )
    parser.add_argument(
        "--threshold", type=float, help="least score of a person, 0 to 1 (default: the model's own)"
    )
    parser.add_argument(
        "--least-views",
        type=positive,
        default=1,
        metavar="N",
        help="leave out who is seen by fewer cameras; 2 removes most false people (default: %(default)s)",
    )
    draw_flags(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="print errors only (default: progress and a summary)"
    )
    loading_flags(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and fuse the views of each moment, and write the files of each view."""
    from ...io.result_index import ResultIndex
    from ...preprocessing.calibration import choose_cameras, read_cameras
    from ...preprocessing.options import check_options

    check_options(None, args.threshold, None)
    draw_options(args)
    check_format_packages(args.format)
    moments, names = find_moments(args.views)
    if args.least_views > len(names):
        raise ValueError(f"--least-views {args.least_views} of {plural(len(names), 'view')} keeps nobody")
    cameras = choose_cameras(read_cameras(args.cameras, unit=args.unit), names)
    model = load_chosen(args)
    index = ResultIndex(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    bar = progress_bar(args, moments, unit="moment")
    bar.disable = bar.disable or len(moments) == 1
    counts: list[int] = []
    try:
        for pictures in bar:
            counts.append(_predict_moment(model, pictures, names, cameras, args, index))
    except KeyboardInterrupt:
        return fail(f"stopped: {len(counts)} of {len(moments)} moments are done, in {args.out}", code=130)
    if len(moments) > 1 and not args.quiet:
        print(clean(f"{plural(len(moments), 'moment')}; files in {args.out}, listed in {index.path}"))
    return 0


def _predict_moment(
    model: Model,
    pictures: Sequence[Path],
    names: Sequence[str],
    cameras: Sequence[Camera],
    args: argparse.Namespace,
    index: Any,
) -> int:
    """Predict the people of one moment and write the files of each view; returns the number of people."""
    from ...io.metadata import provenance
    from ...preprocessing.image import load_image
    from ...video.prediction_cache import model_fingerprint

    images = [load_image(picture) for picture in pictures]
    sized = [camera.for_image(*image.pixels.shape[:2]) for camera, image in zip(cameras, images, strict=True)]
    result = model.predict_views(
        images,
        [camera.K for camera in sized],
        [camera.extrinsics for camera in sized],
        distortions=[camera.distortion for camera in sized],
        threshold=args.threshold,
        least_views=args.least_views,
    )
    options = {"least_views": args.least_views} | precision_options(args)
    if draw_options(args):
        options["draw"] = draw_options(args)
    threshold = model.threshold if args.threshold is None else args.threshold
    drawing = {"ids": True} | draw_options(args)
    for i, (picture, humans, camera) in enumerate(zip(pictures, result.views, sized, strict=True)):
        name = names[i] if picture == args.views[i] else f"{names[i]}/{picture.stem}"
        metadata = provenance(
            str(picture), model_name(args), model_fingerprint(model), options, threshold=threshold
        )
        metadata["camera"] = _camera_facts(camera)
        written = write_results(humans, images[i], args.out / name, args.format, metadata, drawing=drawing)
        outputs = [path.relative_to(args.out).as_posix() for path in written]
        index.add({"input": str(picture), "name": name, "outputs": outputs, "people": len(humans)} | metadata)
    if not args.quiet:
        tqdm.write(clean(f"{' '.join(picture.name for picture in pictures)}: {_people(result, names)}"))
    return len(result.views[0])


def _camera_facts(camera: Camera) -> Mapping[str, Any]:
    """Name and place of a camera, to bring its people into the world of the calibration."""
    return {"name": camera.name, "world_to_camera": camera.extrinsics.round(6).tolist()}


def _people(result: Any, names: Sequence[str]) -> str:
    """How many people, at which distance from the first camera, and who sees them."""
    people: Humans = result.views[0]
    if not len(people):
        return f"{people_text(0)}; try --threshold 0.15 for uncertain ones, or --least-views 1"
    seen = []
    for number, distance, sources in zip(people.numbers, people.distances, result.sources.T, strict=True):
        views = " ".join(name for name, source in zip(names, sources, strict=True) if source >= 0)
        seen.append(f"{number} at {distance:.1f} m ({views})")
    return f"{people_text(len(people))}: {', '.join(seen)}"
