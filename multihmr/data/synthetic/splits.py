"""Train and test split of assets and captured motions.

The split of an asset follows from its name alone, so that adding others moves none. A kind of asset of which
one split would have none (a single pair of trousers) is used by both.
"""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

SPLITS = ("train", "test", "all")
# Chosen so that the CC0 pack's test side has at least a suit, a skin and a hair style of each gender, and a
# quarter of everything else.
_SALT = 331
SPLIT_CATEGORIES = ("clothes", "shoes", "hats", "hair", "skins", "eyebrows")


def check_split(split: str) -> str:
    """The split.

    Raises:
        ValueError: it is none of "train", "test" and "all".
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def is_for_test(name: str) -> bool:
    """Whether a name is of the test split: one in four, by checksum."""
    return zlib.crc32(f"{_SALT} {name}".encode()) % 4 == 0


def of_split(names: Iterable[str], split: str) -> list[str]:
    """Names of the split; all of them if it would have none."""
    names = list(names)
    if check_split(split) == "all":
        return names
    return [name for name in names if is_for_test(name) == (split == "test")] or names


def entries_of_split(entries: Mapping[str, Mapping[str, Any]], split: str) -> dict[str, Mapping[str, Any]]:
    """Entries of a wardrobe in a split; eyes, teeth and eyelashes are in all."""
    kinds: dict[tuple[Any, ...], list[str]] = defaultdict(list)
    for name, entry in entries.items():
        kinds[entry["category"], entry.get("slot"), entry["gender"]].append(name)
    kept = {
        name
        for kind, names in kinds.items()
        for name in (of_split(names, split) if kind[0] in SPLIT_CATEGORIES else names)
    }
    return {name: entry for name, entry in entries.items() if name in kept}


def captures_of_split(sources: np.ndarray, split: str) -> np.ndarray:
    """(C,) whether captured clips, given by name, are of the split.

    The test split has subject 03 of the CMU database and the test clips of Li et al. (2018), whose conversion
    does not name the subjects.
    """
    tested = np.array([str(name).startswith(("03_", "li2018/test/")) for name in sources], dtype=bool)
    return {"train": ~tested, "test": tested, "all": np.ones_like(tested)}[check_split(split)]
