"""multihmr video: track the people of videos and write files: overlay, tracks, motion.

First everything is predicted into DIR/predictions, so that a run that was stopped goes on there, and other
formats of the same video need no network. Then people are tracked, drawn and written.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..storage.paths import portable_name, same_name
from .arguments import (
    batch_size_flag,
    body_out,
    body_out_flags,
    camera_flags,
    check_body_out,
    check_distortion,
    count_flag,
    distortion_flag,
    draw_flags,
    draw_options,
    file_path,
    flip_test_flag,
    formats,
    ground_options,
    ground_text,
    hands_and_faces_flag,
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
    from ..video.frame import Video
    from ..video.prediction_cache import PredictionCache
    from ..video.tracks import Track
    from ..world.ground import StanceCollector

# what --format accepts -> the file written
FORMATS = {
    "overlay": "overlay.mp4",
    "npz": "person_001.npz ...",
    "mot": "tracks.txt",
    "glb": "people.glb",
    "bvh": "person_001.bvh ...",
}
MORE_FORMATS = {"rrd": "people.rrd", "fbx": "people.fbx"}  # written only where they are asked for
RENAMED_FLAGS = {"--frames": "--count"}
LOOKAHEAD = 300  # frames: results are not needed at once, and shapes become more certain


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="videos, folders of videos or of pictures, addresses (rtsp://, http://), or the index of a "
        "webcam, as 0",
    )
    parser.add_argument(
        "--out",
        type=file_path,
        required=True,
        metavar="DIR",
        help="folder for the results; of several videos, one folder each in it (required)",
    )
    parser.add_argument(
        "--format",
        type=formats(FORMATS | MORE_FORMATS),
        default=",".join(FORMATS),
        help=f"of {','.join(FORMATS | MORE_FORMATS)} (default: %(default)s)",
    )
    camera_flags(parser, "of the video")
    distortion_flag(parser)
    parser.add_argument(
        "--threshold", type=float, help="least score of a new person, 0 to 1 (default: that of the model)"
    )
    tiles_flag(parser)
    flip_test_flag(parser)
    hands_and_faces_flag(parser)
    limbs_flag(parser)
    parser.add_argument(
        "--fps",
        type=float,
        help="frames a second (default: the times of a video; 30 for a folder of pictures)",
    )
    count_flag(parser, "only the first N frames")
    batch_size_flag(parser, "frames")
    _motion_flags(parser)
    parser.add_argument(
        "--no-sound",
        action="store_true",
        help="write the overlay without the video's sound (default: with it)",
    )
    _rig_flags(parser)
    world_flags(parser)
    draw_flags(parser)
    rerun_flags(parser, "people.rrd")
    output_flags(parser)
    body_out_flags(parser, "; the overlay shows the body of the model")
    loading_flags(parser)


def _rig_flags(parser: argparse.ArgumentParser) -> None:
    """Flags of files with bones."""
    parser.add_argument(
        "--bones",
        metavar="NAMES",
        help="names of bones in .glb and .bvh: mixamo, vrm, smplx (default: the body's own)",
    )
    parser.add_argument(
        "--rest",
        choices=("t-pose", "a-pose"),
        help="rest pose of .glb and .bvh, for retargeting (default: the body's own)",
    )


def _motion_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--foot-contact",
        action="store_true",
        help="keep feet in place while they stand, by moving the body and bending the legs; for a camera "
        "that does not move (default: off)",
    )
    parser.add_argument(
        "--no-smoothing", action="store_true", help="keep the motion as predicted (default: smooth)"
    )


def run(args: argparse.Namespace) -> int:
    """Predict, track and write each video; problems of the videos are listed at the end."""
    sources = find_sources(args.sources)
    check_options(args)
    args.body_out_body = body_out(args)
    if args.rerun and "rrd" not in args.format:
        args.format = [*args.format, "rrd"]
    check_format_packages(args.format)
    args.viewer = open_rerun(args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        code = _run_all(sources, args)
    incomplete = 0
    for category, message in dict.fromkeys((w.category, str(w.message)) for w in caught):
        if issubclass(category, UserWarning):
            incomplete |= category.__name__ == "IncompleteVideo"
            fail(message)
    return code or int(incomplete)


def find_sources(texts: list[str]) -> list[tuple[str | int | Path, str]]:
    """(source for `open_video`, folder for its results or "") of each video that the arguments name."""
    from ..video.reader import PICTURES, VIDEOS, is_address, natural_order

    sources: list[str | int | Path] = []
    in_folder = False
    for text in texts:
        if not text.strip():
            raise ValueError("an empty name is no video; it may be an empty shell variable")
        path = Path(text)
        if is_address(text):
            sources.append(text)
        elif not path.exists() and text.isascii() and text.isdecimal():
            sources.append(int(text))
        elif not path.exists() and (found := _films_of_glob(text)):
            sources += found
            in_folder = True
        elif path.is_dir() and not any(p.suffix.lower() in PICTURES for p in path.iterdir()):
            videos = [p for p in path.iterdir() if p.suffix.lower() in VIDEOS and not p.name.startswith(".")]
            videos.sort(key=lambda video: natural_order(video.name))
            sources += videos or [path]
            in_folder = in_folder or bool(videos)
        else:
            sources.append(path)
    if len(sources) == 1 and not in_folder:
        return [(sources[0], "")]
    return list(zip(sources, _folder_names(sources), strict=True))


def _films_of_glob(text: str) -> list[Path]:
    """The video files that a glob matches, which shells leave to programs if it is quoted."""
    from ..video.reader import VIDEOS, natural_order

    matches = map(Path, glob.glob(text, recursive=True)) if glob.has_magic(text) else ()
    return sorted((p for p in matches if p.suffix.lower() in VIDEOS), key=lambda p: natural_order(str(p)))


def _folder_names(sources: list[str | int | Path]) -> list[str]:
    """A name for the results of each video: its stem, numbered where two would meet."""
    names: list[str] = []
    for source in sources:
        text = f"webcam_{source}" if isinstance(source, int) else Path(str(source).rstrip("/")).stem
        stem = portable_name(text or "video")
        name, number = stem, 1
        while same_name(name) in (same_name(other) for other in names):
            number += 1
            name = f"{stem}_{number}"
        names.append(name)
    return names


def check_options(args: argparse.Namespace) -> None:
    """Refuse options that cannot be used before anything is loaded; ValueError."""
    from ..io.bone_names import STANDARDS
    from ..preprocessing.options import check_options as check
    from ..world.ground import estimate_ground

    estimate_ground([], **ground_options(args))
    check(args.fov, args.threshold, None, args.tiles)
    draw_options(args)
    check_body_out(args)
    check_distortion(args)
    if args.bones is not None and args.bones not in STANDARDS:
        raise ValueError(f"--bones must be one of {', '.join(STANDARDS)}, got {args.bones!r}")
    if args.fps is not None and not 0 < args.fps < 10_000:
        raise ValueError(f"--fps must be between 0 and 10000 frames a second, got {args.fps}")


def _run_all(sources: list[tuple[str | int | Path, str]], args: argparse.Namespace) -> int:
    from ..io.result_index import ResultIndex
    from ..video.reader import open_video

    if len(sources) == 1:  # said before a model is loaded
        open_video(sources[0][0], fps=args.fps)
    model = load_chosen(args)
    failed = 0
    index = ResultIndex(args.out)
    for source, name in sources:
        try:
            code = _run_one(model, source, args.out / name, args, index)
        except EXPECTED as error:
            if args.out.is_dir():
                index.add({"input": str(source), "error": format_error(error)})
            if len(sources) == 1:
                raise
            code, failed = fail(f"{source}: {format_error(error)}"), failed + 1
        if code == 130:
            return code
    if len(sources) > 1 and not args.quiet:
        print(f"{len(sources) - failed} of {len(sources)} videos done")
    return int(bool(failed))


def _run_one(
    model: Model, source: str | int | Path, out: Path, args: argparse.Namespace, index: ResultIndex
) -> int:
    from ..video.prediction_cache import PredictionCache, prediction_identity
    from ..video.reader import open_video

    video = open_video(source, fps=args.fps)
    out.mkdir(parents=True, exist_ok=True)
    options = prediction_options(args) | precision_options(args)
    identity = prediction_identity(model, source, **options, fps=args.fps)
    notes = {"video": video.name, "model": model_name(args)}
    cache = PredictionCache(out / "predictions", identity, notes=notes, overwrite=args.overwrite)
    if video.live and cache.count:
        raise ValueError(f"{out} already holds a recording; choose another --out")
    try:
        if not cache.has(args.count):
            _predict(model, video, cache, out, args)
        if video.live:
            video = open_video(out / "recording.mp4")
        if not cache.count:
            raise ValueError(f"{video.name} has no frames")
        tracks, written, metadata = _write(model, video, cache, out, args)
    except KeyboardInterrupt:
        total = "" if video.count is None else f" of {video.count}"
        goes_on = f"the same command goes on after {cache.count}{total} frames"
        return fail(f"stopped; what is done is kept in {out}, {goes_on}", code=130)
    frames = cache.count if args.count is None else min(args.count, cache.count)
    outputs = [path.relative_to(args.out).as_posix() for path in written]
    found: dict[str, Any] = {
        "input": video.name if video.live else str(source),
        "name": out.name,
        "outputs": outputs,
    }
    found |= {"input_fingerprint": cache.identity.get("video fingerprint")}
    index.add(found | {"frames": frames, "people": len(tracks)} | metadata)
    if not args.quiet:
        hint = "" if tracks else _hint_without_people(args)
        print(clean(f"{source}: {plural(frames, 'frame')}, {people_text(len(tracks))}{hint}; files in {out}"))
    return 0


def _hint_without_people(args: argparse.Namespace) -> str:
    """What else can be tried; each needs predictions anew."""
    tiles = "--tiles 2 or auto for small people, " if args.tiles == 1 else ""
    return f" (with --overwrite try {tiles}--threshold 0.15 for uncertain ones, or --fov for an unusual lens)"


def _predict(model: Model, video: Video, cache: PredictionCache, out: Path, args: argparse.Namespace) -> None:
    """Predict the frames that are missing, with a progress bar."""
    from ..video.predict import predict_into_cache
    from ..video.writer import recorded

    total = video.count if args.count is None else min(args.count, video.count or args.count)
    bar = progress_bar(args, total=total, initial=cache.count, unit="frame", desc="predict")
    if video.live:
        live = video
        video = dataclasses.replace(live, frames=lambda: recorded(live, out / "recording.mp4"))
    options = prediction_options(args)
    try:
        predict_into_cache(
            model, video, cache, **options, batch_size=args.batch_size, count=args.count, progress=bar.update
        )
    except OSError as error:
        if not video.live:
            done = f"{plural(cache.count, 'frame')} kept; the same command goes on"
            raise OSError(f"{error.strerror or error} ({done})") from error
        fail(str(error))
    except KeyboardInterrupt:  # ends a recording
        if not video.live:
            raise
    finally:
        bar.close()


def _with_locked_feet(
    model: Model,
    people: Iterator[Any],
    stances: StanceCollector,
    times: list[float],
    fps: float,
    args: argparse.Namespace,
) -> Iterator[Any]:
    """The people of all frames with feet that do not slide; tracks all frames before it gives the first."""
    from ..video.foot_contact import frames_of, lock_feet
    from ..video.tracks import collect, without_meshes

    bar = progress_bar(args, people, total=len(times), unit="frame", desc="track")
    frames = [without_meshes(humans) for humans in bar]
    ground = stances.ground(**ground_options(args))
    tracks = [lock_feet(t, model.body, ground=ground) for t in collect(frames, fps, times=times)]
    return frames_of(tracks, frames, model.body)


def _write(
    model: Model, video: Video, cache: PredictionCache, out: Path, args: argparse.Namespace
) -> tuple[list[Track], list[Path], dict[str, Any]]:
    """Track the people and write the files; returns tracks, files and their metadata."""
    from ..io.metadata import provenance
    from ..io.track_files import write_tracks
    from ..video.one_euro import Smoothing
    from ..video.tracker import Tracking, follow
    from ..video.tracks import collect, with_meshes
    from ..visualization.overlay_video import write_overlay
    from ..world.ground import StanceCollector

    tracking = Tracking(lookahead=LOOKAHEAD, smoothing=None if args.no_smoothing else Smoothing())
    threshold = model.threshold if args.threshold is None else args.threshold
    topology = model.body.topology
    times = [time for time, _ in itertools.islice(cache.read(topology), args.count)]
    named = follow(itertools.islice(cache.read(topology), args.count), tracking, new=threshold)
    people: Iterator[Any] = (with_meshes(humans, model.body) for humans in named)
    stances = StanceCollector()
    if wants_world(args) or args.foot_contact:
        people = stances.watch(people)
    if args.foot_contact:
        people = _with_locked_feet(model, people, stances, times, video.fps, args)
    if "overlay" in args.format:
        sound = Path(video.name) if Path(video.name).is_file() and not args.no_sound else None
        drawing = draw_options(args) | {"ids": True}
        people = write_overlay(video, people, out / FORMATS["overlay"], sound=sound, **drawing)
    if "rrd" in args.format or args.viewer is not None:
        people = _recorded(video, people, out, args)
    bar = progress_bar(args, people, total=len(times), unit="frame", desc="track and draw")
    tracks = collect(bar, video.fps, times=times)
    ground = stances.ground(**ground_options(args)) if wants_world(args) else None
    if ground is not None and not args.quiet:
        print(clean(ground_text(ground)))
    settings = {"smoothing": not args.no_smoothing, "foot_contact": args.foot_contact}
    settings |= {"body_out": args.body_out} if args.body_out else {}
    metadata = provenance(
        video.name,
        model_name(args),
        cache.identity["model fingerprint"],
        prediction_options(args) | precision_options(args) | settings,
        threshold=threshold,
    )
    if ground is not None:
        metadata["world"] = ground.to_dict()
    body = args.body_out_body or model.body
    if args.body_out_body is not None:
        tracks = _converted(tracks, body, model, args)
    options = {"body": body, "bones": args.bones, "rest": args.rest}
    options |= {"metadata": metadata, "ground": ground}
    written = write_tracks(tracks, out, args.format, **options)
    others = [out / name for form, name in (FORMATS | MORE_FORMATS).items() if form in args.format]
    others = [path for path in others if path.is_file() and path not in written]
    return tracks, [*others, *written], metadata


def _converted(tracks: list[Track], body: Body, model: Model, args: argparse.Namespace) -> list[Track]:
    """The tracks as parameters of another body; prints how far the surfaces are apart."""
    from ..fitting.track_conversion import track_to_body

    bar = progress_bar(args, total=sum(map(len, tracks)), unit="person", desc=f"as {body.name}")
    converted = []
    for track in tracks:
        converted.append(track_to_body(track, body, source=model.body, progress=bar.update))
        error = float(converted[-1].errors_mm.mean()) if len(track) else 0.0
        if not args.quiet:
            tqdm.write(f"person {track.id} as {body.name} within {error:.1f} mm")
    bar.close()
    return list(converted)


def _recorded(
    video: Video, people: Iterator[Humans], out: Path, args: argparse.Namespace
) -> Iterator[Humans]:
    """The people of each frame unchanged, logged to Rerun."""
    from ..visualization.rerun_recording import record

    path = out / MORE_FORMATS["rrd"] if "rrd" in args.format else None
    with record(path, args.viewer) as recording:
        for humans, frame in zip(people, video, strict=False):
            humans.to_rerun(frame.image, recording=recording, frame=frame.number, time=frame.time)
            yield humans
