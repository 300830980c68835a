"""Which assets and captured motions people of the training set may have, and which those of the test set.

Each asset is in one of the two by its name alone, so that adding others moves none. Where a kind has nothing
for one side (one pair of trousers, say) both wear it.
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
    """ValueError unless it is "train", "test" or "all"."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    return split


def is_for_test(name: str) -> bool:
    """One name in four, by its checksum."""
    return zlib.crc32(f"{_SALT} {name}".encode()) % 4 == 0


def of_split(names: Iterable[str], split: str) -> list[str]:
    """Those of `split`; all of them if it would have none."""
    names = list(names)
    if check_split(split) == "all":
        return names
    return [name for name in names if is_for_test(name) == (split == "test")] or names


def entries_of_split(entries: Mapping[str, Mapping[str, Any]], split: str) -> dict[str, Mapping[str, Any]]:
    """A wardrobe's entries by name, cut down to a split; eyes, teeth and lashes belong to all."""
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
    """(C,) booleans for the names of captured clips: which are of `split`.

    Tested on subject 03 of the CMU database and on the clips that Li et al. (2018) keep for testing, whose
    conversion does not name the subjects.
    """
    tested = np.array([str(name).startswith(("03_", "li2018/test/")) for name in sources], dtype=bool)
    return {"train": ~tested, "test": tested, "all": np.ones_like(tested)}[check_split(split)]
