"""multihmr video: who is in a video, followed from frame to frame, and the files to take away.

First everything is predicted, in pieces that stay in DIR/predictions: a run that was stopped goes on there,
and other formats of the same video need no network. Then people are followed, drawn and written.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from ..io.mot import mot_lines
from ..visualization.draw import with_ids
from .arguments import backend_flag, intrinsics, model_flags, tiles_flag
from .main import clean, fail

if TYPE_CHECKING:
    from ..humans import Humans
    from ..model import Model
    from ..video.prediction_cache import Pieces
    from ..video.reader import Frame, Video
    from ..video.tracks import Track

# what --format knows -> what it is
FORMATS = {
    "overlay": "overlay.mp4",
    "npz": "person_001.npz ...",
    "mot": "tracks.txt",
    "glb": "people.glb",
    "bvh": "person_001.bvh ...",
}
OVERLAY_SIDE = 1920  # pixels of its longer side, at most
LOOKAHEAD = 300  # frames: nobody waits for these, and shapes are the surer


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", help="a video, a folder of pictures, or the index of a webcam, as 0")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--format",
        type=_formats,
        default=",".join(FORMATS),
        help=f"of {','.join(FORMATS)}; default: all",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument("--K", type=intrinsics, metavar="FX,FY,CX,CY", help="camera, in pixels of the video")
    camera.add_argument("--fov", type=float, metavar="DEG", help="field of view over the longer side")
    parser.add_argument("--threshold", type=float, help="least score of somebody new, 0 to 1")
    tiles_flag(parser)
    parser.add_argument("--fps", type=float, help="frames a second of a folder of pictures; default: 30")
    parser.add_argument("--frames", type=int, metavar="N", help="only the first N frames")
    parser.add_argument("--batch-size", type=int, default=8, help="frames at once; default: %(default)s")
    parser.add_argument("--no-smoothing", action="store_true", help="leave motion as it was predicted")
    parser.add_argument(
        "--bones", metavar="NAMES", help="names of bones in .glb and .bvh: mixamo, vrm, smplx"
    )
    parser.add_argument("--smplx", metavar="PATH", help="your SMPLX_NEUTRAL.npz, for models with that body")
    model_flags(parser)
    backend_flag(parser)


def run(args: argparse.Namespace) -> int:
    """Predict, follow and write; what is wrong with the video is said at the end."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        code = _run(args)
    troubles = list(dict.fromkeys(str(w.message) for w in caught if issubclass(w.category, UserWarning)))
    for trouble in troubles:
        fail(trouble)
    return code or int(bool(troubles))


def _run(args: argparse.Namespace) -> int:
    from ..model import load_model
    from ..video.prediction_cache import Pieces
    from ..video.reader import open_video

    source = int(args.source) if args.source.isdigit() else Path(args.source)
    video = open_video(source, fps=args.fps)
    model = load_model(args.model, device=args.device, smplx=args.smplx, backend=args.backend)
    args.out.mkdir(parents=True, exist_ok=True)
    pieces = Pieces(args.out / "predictions", _facts(args, source, model))
    if video.live and pieces.count:
        raise ValueError(f"{args.out} already holds a recording; give another --out")
    try:
        if not pieces.complete:
            _predict(model, video, pieces, args)
        if video.live:
            video = open_video(args.out / "recording.mp4")
        if not pieces.count:
            raise ValueError(f"{video.name} has no frames")
        tracks = _write(model, video, pieces, args)
    except KeyboardInterrupt:
        total = "" if video.count is None else f" of {video.count}"
        goes_on = f"the same command goes on after {pieces.count}{total} frames"
        return fail(f"stopped; what is done is kept in {args.out}, {goes_on}", code=130)
    print(clean(f"{args.source}: {pieces.count} frames, {_people(tracks)}; files in {args.out}"))
    return 0


def _facts(args: argparse.Namespace, source: Any, model: Model) -> dict[str, Any]:
    """What a prediction depends on."""
    size = source.stat().st_size if isinstance(source, Path) and source.is_file() else None
    return {
        "video": args.source if isinstance(source, int) else str(source.resolve()),
        "bytes": size,
        "model": args.model or "default",
        "body": model.body.name,
        "K": args.K,
        "fov": args.fov,
        "threshold": args.threshold,
        "tiles": args.tiles,
        "frames": args.frames,
    }


def _predict(model: Model, video: Video, pieces: Pieces, args: argparse.Namespace) -> None:
    """What the model sees in the frames that are not done yet; what is done when it stops is kept."""
    from ..video.predict import predict_frames

    total = video.count if args.frames is None else min(args.frames, video.count or args.frames)
    bar = tqdm(total=total, initial=pieces.count, unit="frame", disable=None, desc="predict")
    frames = itertools.islice(_recorded(video, args.out), pieces.count, args.frames)
    new = model.threshold if args.threshold is None else args.threshold
    found = predict_frames(
        model,
        frames,
        args.K,
        fov=args.fov,
        tiles=args.tiles,
        threshold=new / 2,  # who is already there may have half the score of somebody new
        batch_size=1 if video.live else args.batch_size,
        held=_held(pieces, model),
    )
    try:
        for frame, humans in found:
            pieces.add(frame.time, humans)
            bar.update()
        pieces.finish()
    except OSError as error:
        if not video.live:
            pieces.flush()
            done = f"{pieces.count} frames are kept; the same command goes on"
            raise OSError(f"{error.strerror or error} ({done})") from error
        fail(str(error))
    except KeyboardInterrupt:
        if not video.live:
            raise
    finally:
        bar.close()
        pieces.flush()


def _held(pieces: Pieces, model: Model) -> dict[tuple[int, int], Any]:
    """The cameras that the network saw in the frames that are done."""
    done = (humans for _, humans in pieces.read(model.body.topology))
    return {humans.image_size: humans.K for humans in done if humans.K_source == "predicted"}


def _recorded(video: Video, out: Path) -> Iterator[Frame]:
    """The frames; those of a webcam are written to a file, because they come but once."""
    if not video.live:
        yield from video
        return
    from ..video.writer import VideoWriter

    with VideoWriter(out / "recording.mp4", video.fps) as film:
        for frame in video:
            film.write(frame.photo.pixels, frame.time)
            yield frame


def _write(model: Model, video: Video, pieces: Pieces, args: argparse.Namespace) -> list[Track]:
    """Follow the people and write the files."""
    from ..io.save import save
    from ..video.one_euro import Smoothing
    from ..video.tracker import Tracking, follow
    from ..video.tracks import collect, save_track, with_meshes

    smoothing = None if args.no_smoothing else Smoothing()
    tracking = Tracking(lookahead=LOOKAHEAD, smoothing=smoothing)
    new = model.threshold if args.threshold is None else args.threshold
    topology = model.body.topology
    named = follow(pieces.read(topology), tracking, new=new)
    people: Iterator[Humans] = (with_meshes(humans, model.body) for humans in named)
    if "overlay" in args.format:
        people = _drawn(video, people, args.out / FORMATS["overlay"])
    bar = tqdm(people, total=pieces.count, unit="frame", disable=None, desc="follow and draw")
    times = (time for time, _ in pieces.read(topology))
    tracks = collect(bar, video.fps, times=times)
    for old in (*args.out.glob("person_[0-9][0-9][0-9].npz"), *args.out.glob("person_[0-9][0-9][0-9].bvh")):
        old.unlink()
    for track in tracks:
        name = args.out / f"person_{track.id:03}"
        if "npz" in args.format:
            save_track(track, name.with_suffix(".npz"))
        if "bvh" in args.format:
            save(track, name.with_suffix(".bvh"), bones=args.bones, body=model.body)
    if "mot" in args.format:
        (args.out / FORMATS["mot"]).write_text("".join(mot_lines(tracks)), encoding="utf-8")
    if "glb" in args.format and tracks:
        save(tracks, args.out / FORMATS["glb"], bones=args.bones, body=model.body)
    return tracks


def _drawn(video: Video, people: Iterable[Humans], path: Path) -> Iterator[Humans]:
    """The same people, who are drawn over their frames on the way."""
    from ..video.writer import VideoWriter
    from ..visualization.draw import draw

    with VideoWriter(path, video.fps) as film:
        for humans, frame in zip(people, video, strict=False):
            picture = draw(humans, frame.photo, side_views=False, max_side=OVERLAY_SIDE)
            film.write(with_ids(picture, humans), frame.time)
            yield humans


def _people(tracks: list[Track]) -> str:
    return {0: "nobody", 1: "1 person"}.get(len(tracks), f"{len(tracks)} people")


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(FORMATS)}")
    return list(dict.fromkeys(names))
