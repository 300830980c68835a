"""The arrays of `Humans`: their shapes, and the checks and conversions when one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..bodies.topology import Topology, frozen_array

K_SOURCES = ("given", "exif", "predicted", "assumed")
# arrays that may be None: their type, and their shape for each person
PER_PERSON: dict[str, tuple[type, tuple[int, ...]]] = {
    "track_ids": (np.int64, ()),
    "filled": (np.bool_, ()),
    "refined": (np.bool_, (3,)),
    "moved": (np.float32, (3,)),
}
REFINED = ("left_hand", "right_hand", "face")  # the columns of `Humans.refined`

# Trailing shape of every per-person array; a letter is any length, the same wherever it appears.
SHAPES: dict[str, tuple[str | int, ...]] = {
    "scores": (),
    "vertices": ("V", 3),
    "joints": ("J", 3),
    "joints_2d": ("J", 2),
    "boxes": (4,),
    "translation": (3,),
    "pelvis": (3,),
    "pose": ("R", 3, 3),
    "shape": ("S",),
    "expression": ("E",),
}


def checked_arrays(arrays: Mapping[str, Any], topology: Topology) -> dict[str, np.ndarray]:
    """The arrays of `Humans` by name, read-only and of their type; those that are None are left out.

    Args:
        arrays: by the names of `SHAPES` and `PER_PERSON`, and "K".
        topology: of the body, whose names give the lengths J, S and E.

    Raises:
        ValueError: an array has another length or shape, or numbers that are not finite; it is named.
    """
    named = {"J": topology.joint_names, "S": topology.shape_names, "E": topology.expression_names}
    lengths = {letter: len(names) for letter, names in named.items() if names}
    checked = {}
    for name, trailing in SHAPES.items():
        array = checked[name] = frozen_array(arrays[name], np.float32)
        count = lengths.setdefault("N", len(array) if array.ndim else -1)
        _check_shape(name, array, ("N", *trailing), lengths)
        finite = np.isfinite(array.reshape(count, -1)).all(1) if array.size else np.ones(count, bool)
        if not finite.all():
            raise ValueError(
                f"{name} of person {int(np.argmin(finite))} contains numbers that are not finite"
            )
    for name, (dtype, trailing) in PER_PERSON.items():
        if arrays[name] is not None:
            checked[name] = frozen_array(arrays[name], dtype)
            _check_shape(name, checked[name], ("N", *trailing), lengths)
    checked["K"] = frozen_array(arrays["K"], np.float32)
    _check_shape("K", checked["K"], (3, 3), lengths)
    if len(topology.faces) and topology.faces.max() >= lengths["V"]:
        raise ValueError(
            f"topology.faces uses vertex {topology.faces.max()} but vertices has only {lengths['V']}"
        )
    return checked


def empty_arrays(
    topology: Topology,
    vertex_count: int | None = None,
    rotation_count: int | None = None,
    shape_count: int | None = None,
    expression_count: int | None = None,
) -> dict[str, Any]:
    """The arrays of `SHAPES` of length 0; a count that is None is that of the topology."""
    counts = {
        "J": len(topology.joint_names),
        "V": int(topology.faces.max(initial=-1)) + 1 if vertex_count is None else vertex_count,
        "R": len(topology.pose_joints) if rotation_count is None else rotation_count,
        "S": len(topology.shape_names) if shape_count is None else shape_count,
        "E": len(topology.expression_names) if expression_count is None else expression_count,
    }
    return {
        name: np.zeros([0, *(n if isinstance(n, int) else counts[n] for n in trailing)], np.float32)
        for name, trailing in SHAPES.items()
    }


def concatenated_arrays(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The arrays of all people of one or more `parts`, in their order.

    Args:
        parts: arrays by the names of `SHAPES` and `PER_PERSON`; parts of length 0 may lack the latter.

    Raises:
        ValueError: only some parts have an array of `PER_PERSON`. It may be `refined` or `moved`: where hands
            and faces were not looked for, none were found.
    """
    arrays: dict[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in SHAPES}
    for name, (dtype, trailing) in PER_PERSON.items():
        counted = [part for i, part in enumerate(parts) if len(part["scores"]) or i == 0]
        values = [part[name] for part in counted]
        if name in ("refined", "moved") and any(value is not None for value in values):
            nothing: list[np.ndarray] = [
                np.zeros((len(part["scores"]), *trailing), dtype) for part in counted
            ]
            values = [none if value is None else value for value, none in zip(values, nothing, strict=True)]
        missing = [value is None for value in values]
        if any(missing) and not all(missing):
            raise ValueError(f"only some of the parts have {name}; give all of them, or none")
        arrays[name] = None if all(missing) else np.concatenate(values)
    return arrays


def _check_shape(
    name: str, array: np.ndarray, expected: tuple[str | int, ...], lengths: dict[str, int]
) -> None:
    """Letters in `expected` take the length that they had first, kept in `lengths`."""
    sizes = tuple(
        lengths.setdefault(e, n) if isinstance(e, str) else e
        for e, n in zip(expected, array.shape, strict=False)
    )
    if array.ndim == len(expected) and array.shape == sizes:
        return
    form = "(" + ", ".join(map(str, expected)) + ("," if len(expected) == 1 else "") + ")"
    if array.ndim == len(expected) and expected[0] == "N" and len(array) != lengths["N"]:
        raise ValueError(f"{name} has {len(array)} people but scores has {lengths['N']}")
    known = ", ".join(f"{e}={lengths[e]}" for e in dict.fromkeys(expected) if e in lengths)
    raise ValueError(f"{name} must be {form}" + (f" with {known}" if known else "") + f", got {array.shape}")


def people_text(count: int) -> str:
    """How many people, as in "3 people", "1 person" and "no people"."""
    return {0: "no people", 1: "1 person"}.get(count, f"{count} people")
