"""Flags shared by several commands, and parsers of their values."""

from __future__ import annotations

import argparse
import dataclasses
import math
import sys
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..storage.paths import user_path

if TYPE_CHECKING:
    from ..bodies.base import Body
    from ..model import Model


def file_path(text: str) -> Path:
    """A path; an empty name, which would be the current folder, is refused."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty name is no path; it may be an empty shell variable")
    return user_path(text)


def model_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="name of a release, path, or hf:owner/repo (default: the bundled model)"
    )


def model_flags(parser: argparse.ArgumentParser) -> None:
    model_flag(parser)
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps (default: the best one available)")


def model_name(args: argparse.Namespace) -> str:
    """The name or path of the model that the flags choose."""
    from ..hub.releases import DEFAULT

    return args.model or DEFAULT


def loading_flags(parser: argparse.ArgumentParser) -> None:
    """Which model, and how `load_model` loads it: of the commands that predict pictures and videos."""
    smplx_flag(parser)
    model_flags(parser)
    parser.add_argument(
        "--backend",
        default="eager",
        help="runtime: eager, compile, onnxruntime, openvino, openvino-int8, cudagraph, cudagraph-compile or "
        "cudagraph-float8 (default: %(default)s)",
    )
    parser.add_argument(
        "--calibrate",
        metavar="DIR",
        help="some hundred images or shards, for the first run of --backend openvino-int8 (default: none)",
    )
    image_size_flag(parser)
    padding_flag(parser)
    parser.add_argument(
        "--dtype",
        default="auto",
        help="precision of the backbone: auto (float16 on CUDA, else float32), fast, float32, float16 or "
        "bfloat16 (default: %(default)s)",
    )
    parser.add_argument(
        "--attention",
        default="torch",
        help="kernels of the attention of vision transformers: torch or xformers (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="that compute on the CPU (default: all cores)",
    )


def image_size_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image-size",
        type=positive,
        metavar="PIXELS",
        help="longer side of the network's input, a multiple of 32; smaller is faster, the size of training "
        "finds most people (default: as trained)",
    )


def padding_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--padding",
        default="whole",
        help="of networks on DINOv2: whole, or thin, which is faster and moves vertices by some millimetres, "
        "as measured on random weights (default: %(default)s)",
    )


def load_options(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of `loading_flags` as keyword arguments of `load_model`, without the model's name."""
    names = ("device", "smplx", "backend", "calibrate", "image_size", "padding", "dtype", "attention")
    return {name: getattr(args, name) for name in (*names, "threads")}


def chosen_load_options(args: argparse.Namespace) -> dict[str, Any]:
    """Those of `load_options` that are not as without flags, without the device."""
    plain = {"backend": "eager", "padding": "whole", "dtype": "auto", "attention": "torch"}
    options = load_options(args)
    return {name: value for name, value in options.items() if value != plain.get(name) and name != "device"}


def load_chosen(args: argparse.Namespace) -> Model:
    """The model that the flags of `loading_flags` choose."""
    from ..humans.keypoints import check_keypoint_set
    from ..model import load_model

    model = load_model(args.model, **load_options(args))
    if getattr(args, "keypoints", None) is not None and getattr(args, "body_out", None) is None:
        check_keypoint_set(args.keypoints, model.body.topology)  # before any work
    return model


def precision_options(args: argparse.Namespace) -> dict[str, Any]:
    """--padding and --dtype where they are set: they move vertices, and belong to what a result is of."""
    chosen = chosen_load_options(args)
    return {name: chosen[name] for name in ("padding", "dtype") if name in chosen}


def smplx_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--smplx", metavar="PATH", help="your SMPLX_NEUTRAL.npz, for models with that body (default: search)"
    )


def camera_flags(parser: argparse.ArgumentParser, pixels: str) -> None:
    """--K and --fov, of which one may be given; `pixels`: of which image K is."""
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--K",
        type=intrinsics,
        metavar="FX,FY,CX,CY",
        help=f"camera intrinsics in pixels {pixels} (default: EXIF, else predicted)",
    )
    camera.add_argument(
        "--fov",
        type=float,
        metavar="DEG",
        help="field of view over the longer side (default: EXIF, else predicted)",
    )


def tiles_flag(parser: argparse.ArgumentParser) -> None:
    """--tiles N, or "auto"."""
    parser.add_argument(
        "--tiles",
        type=tile_count,
        default=1,
        metavar="N",
        help="also predict N tiles along each image, 2 to 8, for small people; slower; auto: two where no "
        "people are found (default: %(default)s)",
    )


def tile_count(text: str) -> int | str:
    """A whole number, or "auto"."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number or auto") from None


def flip_test_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--flip-test",
        action="store_true",
        help="predict the mirror image, too, and average both; twice the time (default: off)",
    )


def hands_and_faces_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hands-and-faces",
        action="store_true",
        help="look once more at each hand and face, in the pixels of the image: wrists, fingers, heads and "
        "facial expressions as they are seen there; some tenths of a second a person (default: off)",
    )


def closeups_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-closeups",
        action="store_true",
        help="do not predict images without people once more with a margin around them, for people too near "
        "to fit in (default: do, with models that are trained for it; twice the time where no people are)",
    )


def limbs_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--no-limbs",
        action="store_true",
        help="do not align limbs with keypoints from a crop of each person (default: do, with models that "
        "find keypoints; about a third of the time of the rest for each person)",
    )


def any_rotation_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--any-rotation",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="also predict each image turned by 90, 180 and 270 degrees and take the best of the four, for "
        "images that lie on their side, in four times the time; --no-any-rotation predicts none of them "
        "(default: %(default)s, one of them where the people found lie on their side or upside down)",
    )


def body_out_flags(parser: argparse.ArgumentParser, drawn: str = "") -> None:
    """--body-out and the file that it needs; `drawn`: what else the help says."""
    parser.add_argument(
        "--body-out",
        choices=("smplx", "smpl", "anny"),
        help="write the people as parameters of this body; smplx and smpl from your own file"
        f"{drawn} (default: the body of the model)",
    )
    parser.add_argument(
        "--smpl", metavar="PATH", help="your SMPL file, for --body-out smpl (default: not used)"
    )


def check_body_out(args: argparse.Namespace) -> None:
    """ValueError if --smpl is given without the body that it is for."""
    if args.smpl and args.body_out != "smpl":
        raise ValueError("--smpl is the file of --body-out smpl; give both")


def body_out(args: argparse.Namespace) -> Body | None:
    """The body that --body-out names, loaded; None without it."""
    if not args.body_out:
        return None
    from ..fitting.conversion import load_target

    return load_target(args.body_out, {"smplx": args.smplx, "smpl": args.smpl}.get(args.body_out))


def count_flag(parser: argparse.ArgumentParser, text: str) -> None:
    """--count N, the number of inputs to process; `text`: of what."""
    parser.add_argument("--count", type=positive, metavar="N", help=f"{text} (default: all)")


def batch_size_flag(parser: argparse.ArgumentParser, items: str) -> None:
    parser.add_argument(
        "--batch-size",
        type=positive,
        default=8,
        metavar="N",
        help=f"{items} per batch (default: %(default)s)",
    )


def output_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="predict anew what is done already (default: go on with the rest)",
    )
    parser.add_argument(
        "--quiet", action="store_true", help="print errors only (default: progress and a summary)"
    )


def world_flags(parser: argparse.ArgumentParser) -> None:
    """--world and what is known of the camera; any of them turns `wants_world` on."""
    parser.add_argument(
        "--world",
        action="store_true",
        help="meshes and bones upright, the floor at y = 0, from people who stand (default: camera frame)",
    )
    for name, text in (
        ("pitch", "the camera looks down by so many degrees (default: estimated; implies --world)"),
        ("roll", "the camera is turned clockwise by so many degrees (default: estimated; implies --world)"),
    ):
        parser.add_argument(f"--camera-{name}", type=float, metavar="DEG", help=text)
    parser.add_argument(
        "--camera-height",
        type=camera_height,
        metavar="M",
        help="of the camera over the floor, in metres (default: estimated; implies --world)",
    )


def wants_world(args: argparse.Namespace) -> bool:
    """Whether results are asked for in a world with a vertical axis."""
    return args.world or any(value is not None for value in ground_options(args).values())


def ground_options(args: argparse.Namespace) -> dict[str, float | None]:
    """The flags that `estimate_ground` takes."""
    names = {"camera_pitch": "camera_pitch", "camera_roll": "camera_roll", "floor": "camera_height"}
    return {option: getattr(args, name) for option, name in names.items()}


def camera_height(text: str) -> float:
    """Metres of the camera over the floor."""
    try:
        height = float(text)
    except ValueError:
        height = math.nan
    if not 0 < height < 1000:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected metres over the floor, above 0")
    return height


def ground_text(ground: Any) -> str:
    """A line about a `Ground`."""
    if ground.up is None:
        reason = ground.reason.replace("camera_pitch", "--camera-pitch").replace(
            "camera_roll", "--camera-roll"
        )
        return f"camera frame: {reason}"
    way = "down" if ground.camera_pitch >= 0 else "up"
    text = f"the camera looks {abs(ground.camera_pitch):.0f} degrees {way}"
    if ground.camera_height is None:
        return f"{text}; {ground.reason.replace('give floor', 'give --camera-height')}"
    return f"{text}, {ground.camera_height:.2f} m over the floor"


def known_heights(text: str) -> float | dict[int, float]:
    """1.80, or 1=1.80,3=1.65: number of a person and height in metres."""
    from ..world.heights import SHORTEST, TALLEST

    try:
        pairs = [part.split("=") for part in text.split(",")] if "=" in text else [["0", text]]
        heights = {int(number): float(height) for number, height in pairs}
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a height in metres, or 1=1.80,2=1.65 by person"
        ) from None
    if len(heights) < len(pairs):
        raise argparse.ArgumentTypeError(f"got {text!r}, which names a person twice")
    if not all(SHORTEST <= height <= TALLEST for height in heights.values()):
        raise argparse.ArgumentTypeError(
            f"got {text!r}, but heights are in metres, from {SHORTEST} to {TALLEST}"
        )
    return heights if "=" in text else heights[0]


def draw_flags(parser: argparse.ArgumentParser) -> None:
    """How people are drawn over pictures: the options of `multihmr.draw`."""
    parser.add_argument(
        "--opacity", type=float, metavar="SHARE", help="of meshes in overlays, 0 to 1 (default: 0.7)"
    )
    parser.add_argument(
        "--keypoints",
        nargs="?",
        const="coco17",
        type=set_name,
        metavar="SET",
        help="draw a keypoint set in overlays; without SET coco17 (default: none)",
    )
    for name, text in (
        ("boxes", "draw the boxes of people in overlays"),
        ("scores", "write the scores of people in overlays"),
        ("ids", "write the numbers of people in overlays; those of videos have them"),
        ("wireframe", "draw meshes in overlays as wireframes"),
    ):
        parser.add_argument(f"--{name}", action="store_true", help=f"{text} (default: not)")


def set_name(text: str) -> str:
    """The name of a keypoint set; a path that follows --keypoints is none."""
    if not text.replace("_", "").isalnum():
        raise argparse.ArgumentTypeError(
            f"got {text!r}, expected a keypoint set as coco17, or nothing: then name the inputs before it"
        )
    return text


def draw_options(args: argparse.Namespace) -> dict[str, Any]:
    """The drawing flags that are set, as options of `multihmr.draw`; ValueError if one is out of range."""
    names = ("opacity", "keypoints", "boxes", "scores", "ids", "wireframe")
    chosen = {name: getattr(args, name) for name in names if getattr(args, name) not in (None, False)}
    if not 0 <= chosen.get("opacity", 0) <= 1:
        raise ValueError(f"--opacity must be between 0 and 1, got {args.opacity:g}")
    return chosen


def distortion_flag(parser: argparse.ArgumentParser) -> None:
    """--distortion, of the lens whose camera matrix --K is."""
    parser.add_argument(
        "--distortion",
        type=numbers,
        metavar="K1,K2,P1,P2[,K3]",
        help="of the lens, as OpenCV calibrates it; needs --K (default: none)",
    )


def check_distortion(args: argparse.Namespace) -> None:
    """ValueError if --distortion is given without --K, or is none."""
    if args.distortion is None:
        return
    from ..humans.distortion import Distortion

    if args.K is None:
        raise ValueError("--distortion needs --K, the camera matrix that the lens was calibrated with")
    Distortion.of(args.distortion)


def numbers(text: str) -> list[float]:
    """Numbers joined by commas."""
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected numbers: 0.1,-0.05,0,0") from None


def rerun_flags(parser: argparse.ArgumentParser, file: str) -> None:
    """--rerun and --rerun-viewer; `file`: what is written."""
    parser.add_argument(
        "--rerun",
        action="store_true",
        help=f"also write {file}, a recording for the Rerun viewer; needs multihmr[rerun] (default: none)",
    )
    parser.add_argument(
        "--rerun-viewer",
        action="store_true",
        help="show the people in the window of the Rerun viewer while they are found (default: not)",
    )


def prediction_options(args: argparse.Namespace) -> dict[str, Any]:
    """The flags that `Model.predict_batch` and `predict_video` take."""
    options = {name: getattr(args, name) for name in ("K", "fov", "threshold", "tiles")}
    options |= {name: True for name in ("flip_test", "hands_and_faces") if getattr(args, name, False)}
    if hasattr(args, "any_rotation"):  # also where it is the default, which was another in version 0.4
        options["any_rotation"] = args.any_rotation
    if getattr(args, "distortion", None) is not None:
        options["distortion"] = args.distortion
    if hasattr(args, "no_limbs"):  # likewise
        options["limbs"] = not args.no_limbs
    return options | ({"closeups": False} if getattr(args, "no_closeups", False) else {})


def formats(known: Collection[str]) -> Callable[[str], list[str]]:
    """A parser of names from `known`, joined by commas."""

    def parse(text: str) -> list[str]:
        names = [name.strip().lower() for name in text.split(",") if name.strip()]
        if not names or not set(names) <= set(known):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(known)}")
        return list(dict.fromkeys(names))

    return parse


def add_fields(parser: argparse.ArgumentParser, config_class: type) -> None:
    """A flag for every field of a dataclass: --batch-size for batch_size, required without a default."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        flag = flag_of(field.name)
        kind = _plain(hints[field.name])
        required = field.default is dataclasses.MISSING
        text = field.metadata.get("help", "") + (" (required)" if required else " (default: %(default)s)")
        shared: dict[str, Any] = {"required": required, "help": text.strip()}
        if not required:
            shared["default"] = field.default
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **shared)
        else:
            parser.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **shared)


def flag_of(field: str) -> str:
    """--batch-size for batch_size."""
    return "--" + field.replace("_", "-")


def current_flags(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """The arguments with flags of older versions under their present names; each is noted on stderr.

    Args:
        argv: words of a command line.
        renamed: old flag -> new flag, with their dashes; `--no-` forms are derived.
    """
    every = dict(renamed) | {f"--no-{old[2:]}": f"--no-{new[2:]}" for old, new in renamed.items()}
    words = []
    for word in argv:
        flag, equals, value = word.partition("=")
        if flag in every:
            print(f"multihmr: {flag} is now {every[flag]}", file=sys.stderr)
        words.append(every.get(flag, flag) + equals + value)
    return words


def _plain(hint: Any) -> type:
    """float for `float | None`; the type itself otherwise."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if hint not in (bool, int, float, str, Path):
        raise TypeError(f"a flag cannot be made of {hint}")
    return hint


def words(text: str) -> list[str]:
    """Names joined by commas."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("got nothing, expected names joined by commas")
    return words


def intrinsics(text: str) -> list[list[float]]:
    """fx,fy,cx,cy -> (3, 3) intrinsics."""
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected four numbers: fx,fy,cx,cy") from None
    if not all(map(math.isfinite, (fx, fy, cx, cy))) or min(fx, fy) <= 0:
        raise argparse.ArgumentTypeError(
            f"got {text!r}, but focal lengths are pixels above 0, all four finite"
        )
    return [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]


def ints(text: str) -> list[int]:
    """Whole numbers joined by commas."""
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers: 1,10") from None


def port(text: str) -> int:
    """A port to listen on; 0 takes a free one."""
    if not (text.isascii() and text.isdecimal() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a port, 0 to 65535")
    return int(text)


def positive(text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isascii() and text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)
