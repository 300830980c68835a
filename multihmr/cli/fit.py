"""multihmr fit: meshes of people whose keypoints are known, as files and as shards to train on."""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..preprocessing.sources import shorten
from ..storage.paths import same_name
from .arguments import draw_flags, draw_options, file_path, intrinsics
from .main import (
    EXPECTED,
    check_format_packages,
    clean,
    counted,
    fail,
    format_error,
    people_text,
    plural,
    progress_bar,
)
from .predict import FORMATS, find_images, output_names

if TYPE_CHECKING:
    import numpy as np

    from ..data.orientation import StoredRaster
    from ..data.sample import Sample
    from ..fitting.keypoint_files import FileCamera, PictureKeypoints
    from ..fitting.results import FittedHumans
    from ..humans.distortion import Distortion
    from ..preprocessing.image import LoadedImage

SHARDS = "shards"
DEFAULT_FORMATS = ("overlay", "glb", "npz", "json", SHARDS)
SHARD_SIZE = 500  # pictures in one tar
# Of a picture's camera, in the order in which they are taken: what the summary says of each.
CAMERAS = {
    "K": "--K",
    "fov": "--fov",
    "file": "that of the keypoint file",
    "exif": "EXIF",
    "assumed": "60 degrees assumed",
}
MAX_ERROR = 0.08  # of a person's extent in the picture; who is farther off is no training example


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "points_path",  # --keypoints is what overlays show
        type=file_path,
        metavar="KEYPOINTS",
        help="COCO's .json, OpenPose's, or a folder of OpenPose's or of .coco.json",
    )
    parser.add_argument("pictures", nargs="+", metavar="PICTURES", help="pictures, or folders of pictures")
    parser.add_argument(
        "--out", type=file_path, required=True, metavar="DIR", help="folder for the results (required)"
    )
    parser.add_argument(
        "--format",
        type=_formats,
        default=",".join(DEFAULT_FORMATS),
        help=f"of {','.join((*FORMATS, SHARDS))} (default: %(default)s)",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--K",
        type=intrinsics,
        metavar="FX,FY,CX,CY",
        help="camera intrinsics in pixels of the pictures (default: the camera in KEYPOINTS, else EXIF, "
        "else --fov)",
    )
    camera.add_argument(
        "--fov",
        type=float,
        metavar="DEG",
        help="field of view over the longer side (default: the camera in KEYPOINTS, else EXIF, else 60 "
        "degrees)",
    )
    parser.add_argument(
        "--least",
        type=float,
        default=0.1,
        metavar="C",
        help="confidence from which on a point counts (default: %(default)s)",
    )
    parser.add_argument(
        "--max-error",
        type=float,
        default=MAX_ERROR,
        metavar="SHARE",
        help="mean distance of points, in shares of a person's extent, up to which a person is kept "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--height",
        type=float,
        metavar="M",
        help="how tall all people of the file are, in metres, which fixes their distance (default: unknown)",
    )
    draw_flags(parser)
    parser.add_argument(
        "--quiet", action="store_true", help="print errors only (default: progress and a summary)"
    )


def run(args: argparse.Namespace) -> int:
    """Fit the people of each picture and write its files; what is left out is counted by reason."""
    from ..bodies.loading import load_body
    from ..fitting.inputs import read_heights
    from ..fitting.keypoint_files import read_keypoints
    from ..humans.keypoints import check_keypoint_set
    from ..preprocessing.options import check_options

    check_options(args.fov, None, None)
    read_heights(args.height, 1)
    draw_options(args)
    if args.keypoints is not None:
        check_keypoint_set(args.keypoints, load_body("anny").topology)
    check_format_packages(args.format)
    found = read_keypoints(args.points_path, least=args.least)
    found_images, bad = find_images(args.pictures)
    images = [path for path in found_images if isinstance(path, Path)]
    bad += [(shorten(str(path)), "fit reads files alone") for path in found_images if path not in images]
    bad += [(shorten(str(path)), "does not exist") for path in images if not path.exists()]
    skipped = Counter(found.skipped)
    work = list(_matched(found.pictures, images, skipped))
    args.out.mkdir(parents=True, exist_ok=True)
    written = [form for form in args.format if form != SHARDS]
    names = output_names([path for path, _ in work], args.out, written)
    done: Counter[str] = Counter()
    samples = _fitted(work, names, args, skipped, done)
    if SHARDS in args.format:
        _write_shards(samples, args.out / SHARDS)
    else:
        for _ in samples:
            pass
    if not args.quiet:
        print(clean(f"{people_text(done['people'])} in {plural(done['pictures'], 'picture')}, in {args.out}"))
        if used := {label: done[label] for label in CAMERAS.values() if done[label]}:
            print("  camera: " + ", ".join(f"{label} ({plural(n, 'picture')})" for label, n in used.items()))
    for name, reason in bad:
        print(clean(f"  {reason if name in reason else f'{name}: {reason}'}"), file=sys.stderr)
    for reason, count in sorted(skipped.items()):
        print(clean(f"  left out: {counted(count, reason)}"), file=sys.stderr)
    if not done["pictures"]:
        return fail("nothing was fitted")
    return 1 if bad else 0


def _matched(
    pictures: Sequence[PictureKeypoints], images: Sequence[Path], skipped: Counter[str]
) -> Iterator[tuple[Path, PictureKeypoints]]:
    """Each entry with its picture: by the whole name in the file, by the last part, or by the stem."""
    by_name: dict[str, list[Path]] = {}
    for path in images:
        for name in dict.fromkeys((same_name(path.name), same_name(path.stem))):
            by_name.setdefault(name, []).append(path)
    for entry in pictures:
        given = Path(entry.picture.replace("\\", "/"))
        found = by_name.get(same_name(given.name)) or by_name.get(same_name(given.stem), [])
        if not found and given.stem.isdecimal():  # COCO's results name pictures by their numbers
            found = by_name.get(f"{int(given.stem):012d}", [])
        found = _nearest(found, given)
        if len(found) == 1:
            yield found[0], entry
        elif found:
            skipped["pictures of which several have that name"] += 1
        else:
            skipped["pictures that are not there"] += 1


def _nearest(paths: list[Path], given: Path) -> list[Path]:
    """Those that share most of the given path's last parts."""

    def shared(path: Path) -> int:
        parts = [same_name(part) for part in (*path.parent.parts, path.name)][::-1]
        wanted = [same_name(part) for part in (*given.parent.parts, given.name)][::-1]
        folders = itertools.takewhile(
            lambda pair: pair[0] == pair[1], zip(parts[1:], wanted[1:], strict=False)
        )
        return 2 * len(list(folders)) + (parts[0] == wanted[0])

    most = max((shared(path) for path in paths), default=0)
    return [path for path in paths if shared(path) == most]


def _fitted(
    work: Sequence[tuple[Path, PictureKeypoints]],
    names: dict[Path, str],
    args: argparse.Namespace,
    skipped: Counter[str],
    done: Counter[str],
) -> Iterator[Sample]:
    """The samples of all pictures, whose files are written on the way."""
    bar = progress_bar(args, work, unit="picture")
    bar.disable = bar.disable or len(work) == 1
    for path, entry in bar:
        try:
            sample, camera = _fit_one(path, entry, args.out / names[path], args, skipped)
        except EXPECTED as error:
            skipped["pictures with an error"] += 1
            tqdm.write(clean(f"{path}: {format_error(error)}"), file=sys.stderr)
            continue
        if sample is not None:
            done["pictures"] += 1
            done["people"] += len(sample)
            done[CAMERAS[camera]] += 1
            yield sample


def _fit_one(
    path: Path, entry: PictureKeypoints, stem: Path, args: argparse.Namespace, skipped: Counter[str]
) -> tuple[Sample | None, str]:
    """Fit one picture and write its files; None if no person is left. Also which of CAMERAS it has."""
    from ..data.orientation import stored_raster
    from ..fitting import fit
    from ..postprocessing.to_humans import to_distorted_image
    from ..preprocessing.distortion import undistort_image
    from ..preprocessing.image import load_image

    photo = load_image(path)
    height, width = photo.pixels.shape[:2]
    size = (height, width)
    raster = stored_raster(path)
    if entry.size is not None and entry.size not in (size, raster.size):
        skipped["pictures of another size than the file says"] += 1
        return None, ""
    entry = _upright(entry, raster)
    camera, kind = _camera(photo, entry, args)
    lens = camera.distortion
    if lens is not None:
        entry = _undistorted(entry, camera.K, lens)
    people = fit(
        entry.xy,
        camera.K,
        confidence=entry.confidence,
        names=entry.names,
        image_size=size,
        height=args.height,
    )
    kept = _near_enough(people, entry, args.max_error)
    if not kept.all():
        skipped["people whose points no body shows"] += int((~kept).sum())
    people = dataclasses.replace(people, K_source=camera.source)[kept]
    if not len(people):
        return None, kind
    pinhole = people
    if lens is not None:
        people = dataclasses.replace(to_distorted_image(people, camera.K, lens), K_source=camera.source)
    for form in args.format:
        if form.startswith("overlay"):
            _write_overlay(people, photo, stem.with_name(stem.name + FORMATS[form]), draw_options(args))
        elif form != SHARDS:
            people.save(stem.with_name(stem.name + FORMATS[form]))
    if lens is not None and SHARDS in args.format:  # training takes pinhole cameras
        photo, K = undistort_image(photo, camera.K, lens)
        pinhole = dataclasses.replace(pinhole, K=K.astype("float32"))
    return sample_of(pinhole, photo.pixels, stem.name), kind


def _camera(photo: LoadedImage, entry: PictureKeypoints, args: argparse.Namespace) -> tuple[FileCamera, str]:
    """The camera of a picture, and which of CAMERAS it is: the first of them that there is."""
    from ..fitting.keypoint_files import FileCamera
    from ..geometry import default_intrinsics
    from ..preprocessing.camera import check_intrinsics

    size = photo.pixels.shape[:2]
    if args.K is None and args.fov is None and entry.camera is not None:
        try:
            K = check_intrinsics(entry.camera.K, *size)
        except ValueError as error:
            raise ValueError(f"its camera in the keypoint file: {error}") from None
        return dataclasses.replace(entry.camera, K=K), "file"
    given, source = photo.camera(args.K, fov=args.fov)
    if given is None:
        return FileCamera(default_intrinsics(*size).numpy(), "assumed"), "assumed"
    kind = "K" if args.K is not None else "fov" if args.fov is not None else "exif"
    return FileCamera(given.numpy(), source), kind


def _undistorted(entry: PictureKeypoints, K: np.ndarray, lens: Distortion) -> PictureKeypoints:
    """The entry with its points as a pinhole camera sees them; those that the lens shows nowhere unknown."""
    import numpy as np

    xy = lens.undistort_points(entry.xy, K)
    shown = np.isfinite(xy).all(-1)
    confidence = np.where(shown, entry.confidence, 0)
    return dataclasses.replace(entry, xy=np.where(shown[..., None], xy, 0), confidence=confidence)


def _upright(entry: PictureKeypoints, raster: StoredRaster) -> PictureKeypoints:
    """The entry with its points and camera in the upright picture, which is how pictures are read.

    Raises:
        ValueError: the picture has an EXIF orientation, and the file does not tell which raster it is for.
    """
    from ..bodies.keypoint_sets import mirror_order
    from ..data.orientation import MIRRORED, annotated_orientation, turn_intrinsics, turn_points

    orientation = 1 if entry.upright else annotated_orientation(raster, entry.size)
    xy, confidence = turn_points(entry.xy, orientation, raster.size), entry.confidence
    if orientation in MIRRORED:
        order = mirror_order(entry.names)
        xy, confidence = xy[:, order], confidence[:, order]
    camera = entry.camera
    if camera is not None and orientation != 1:
        if camera.distortion is not None or camera.K[0, 1]:
            raise ValueError(
                f"it has EXIF orientation {orientation}, and its camera in the keypoint file has skew or a "
                "distortion, which do not turn with it; give points and camera of the upright picture"
            )
        camera = dataclasses.replace(camera, K=turn_intrinsics(camera.K, orientation, raster.size))
    return dataclasses.replace(entry, xy=xy, confidence=confidence, size=None, camera=camera)


def _near_enough(people: FittedHumans, entry: PictureKeypoints, share: float) -> Any:
    """(N,) whose points, those of the face apart, lie near enough to those given."""
    import numpy as np

    of_body, of_face = np.asarray(people.errors_px), np.asarray(people.face_errors_px)
    errors = np.where(np.isnan(of_body), of_face, of_body)
    there = (entry.confidence > 0)[..., None]
    low = np.where(there, entry.xy, np.inf).min(1)
    high = np.where(there, entry.xy, -np.inf).max(1)
    return np.asarray(errors <= share * (high - low).max(-1))


def sample_of(people: FittedHumans, pixels: Any, name: str) -> Sample:
    """A training sample: joints and facial actions of which the points said nothing are unknown (NaN)."""
    import numpy as np

    from ..data.sample import Sample

    unknown = [
        people.topology.pose_names.index(n) for n in people.topology.pose_names if n in people.unpredicted
    ]
    pose = np.array(people.pose)
    pose[:, unknown] = np.nan
    expression = np.array(people.expression)
    expression[:, [name in people.unpredicted for name in people.topology.expression_names]] = np.nan
    expression[np.isnan(np.asarray(people.face_errors_px))] = np.nan
    return Sample(
        image=pixels,
        K=np.array(people.K),
        pose=pose,
        shape=np.array(people.shape),
        expression=expression,
        translation=np.array(people.translation),
        visibility=np.ones(len(people), np.float32),
        name=name,
        body=people.body,
    )


def _write_shards(samples: Iterator[Sample], folder: Path) -> None:
    """SHARD_SIZE pictures a tar: shards/fit-00000.tar and so on; old ones of this name go."""
    from ..data.webdataset import write_shard

    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("fit-*.tar"):
        old.unlink()
    for number in itertools.count():
        first = next(samples, None)
        if first is None:
            return
        group = itertools.chain([first], itertools.islice(samples, SHARD_SIZE - 1))
        write_shard(folder / f"fit-{number:05d}.tar", group)


def _write_overlay(people: FittedHumans, photo: Any, path: Path, drawing: dict[str, Any]) -> None:
    from PIL import Image

    Image.fromarray(people.draw(photo, **drawing)).save(path, quality=92)


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    known = (*FORMATS, SHARDS)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(known)}")
    return list(dict.fromkeys(names))
