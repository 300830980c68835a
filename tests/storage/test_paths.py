from __future__ import annotations

import pytest

from multihmr.storage.paths import plain_reason, portable_name, same_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("holiday 2024", "holiday 2024"),
        ("CON", "CON_"),
        ("nul.tar", "nul_.tar"),
        ("aux .x", "aux_.x"),
        ("Com1", "Com1_"),
        ("console", "console"),
        ("a/prn/b", "a/prn_/b"),
        ("12:30?*", "12_30__"),
        ("trailing. . ", "trailing"),
        ("...", "_"),
        ("a\nb\tc", "a_b_c"),
        ("caf\udce9", "caf_"),
        ("\u00fc" * 200, "\u00fc" * 75),
        ("%d", "%d"),
    ],
)
def test_names_that_every_system_can_have(name: str, expected: str) -> None:
    assert portable_name(name) == expected
    assert portable_name(expected) == expected


def test_names_that_are_one_on_some_system() -> None:
    assert same_name("CAF\u00c9") == same_name("cafe\u0301")
    assert same_name("a") != same_name("b")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("[Errno 111] Connection refused", "connection refused"),
        ("<urlopen error [Errno -2] Name or service not known>", "name or service not known"),
        ("[WinError 10061] No connection could be made.\nmore", "no connection could be made"),
        ("SSL: wrong version", "SSL: wrong version"),
        ("", "OSError"),
    ],
)
def test_reasons_of_systems_have_no_numbers(message: str, reason: str) -> None:
    assert plain_reason(OSError(message)) == reason
