"""Flags that several commands share, and how their words are read."""

from __future__ import annotations

import argparse
import dataclasses
import sys
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def model_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model", help="name of a release, path, or hf:owner/repo; default: the bundled model"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best there is")


def backend_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend",
        default="eager",
        help="what computes: eager, compile, onnxruntime, openvino, cudagraph, cudagraph-compile, or "
        "cudagraph-float8; default: %(default)s",
    )


def tiles_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tiles",
        type=int,
        default=1,
        metavar="N",
        help="2 or more: also look at so many parts along each picture, for small people; slower",
    )


def add_fields(parser: argparse.ArgumentParser, config_class: type) -> None:
    """A flag for every field of a dataclass: --batch-size for batch_size, required without a default."""
    hints = typing.get_type_hints(config_class)
    for field in dataclasses.fields(config_class):
        flag = flag_of(field.name)
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
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("got nothing, expected names joined by commas")
    return words


def intrinsics(text: str) -> list[list[float]]:
    try:
        fx, fy, cx, cy = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected four numbers: fx,fy,cx,cy") from None
    return [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]


def ints(text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected whole numbers: 1,10") from None
