"""Training and test people share nothing that could be learnt by heart."""

from __future__ import annotations

import numpy as np
import pytest

from multihmr.data.synthetic.splits import captures_of_split, entries_of_split, of_split

NAMES = [f"asset {i}" for i in range(200)]


def test_every_name_is_in_one_split_and_stays_there() -> None:
    train, test = of_split(NAMES, "train"), of_split(NAMES, "test")
    assert sorted(train + test) == sorted(NAMES)
    assert 25 < len(test) < 75
    assert of_split([*NAMES, "a new one"], "train")[: len(train)] == train


def test_one_pair_of_trousers_is_worn_by_all() -> None:
    assert of_split(["trousers"], "train") == of_split(["trousers"], "test") == ["trousers"]


def test_entries_are_split_within_their_kind() -> None:
    entries = {n: {"category": "clothes", "slot": "suit", "gender": "male"} for n in NAMES}
    entries["teeth"] = {"category": "teeth", "gender": "any"}
    train, test = entries_of_split(entries, "train"), entries_of_split(entries, "test")
    assert set(train) & set(test) == {"teeth"}
    assert set(train) | set(test) == set(entries) == set(entries_of_split(entries, "all"))


def test_captured_clips_are_split_by_subject() -> None:
    clips = np.array(["01_04", "03_01", "03_02", "li2018/train/walking_1", "li2018/test/walking_1"])
    assert captures_of_split(clips, "test").tolist() == [False, True, True, False, True]
    assert not (captures_of_split(clips, "train") & captures_of_split(clips, "test")).any()


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="validation"):
        of_split(NAMES, "validation")
