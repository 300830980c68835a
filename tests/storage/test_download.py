from __future__ import annotations

import errno
import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPResponse
from pathlib import Path
from types import SimpleNamespace

import pytest
from shelf import Shelf, open_shelf

from multihmr.storage import download as module
from multihmr.storage.download import download

DATA = random.Random(0).randbytes(10240)
OTHER = DATA[::-1]


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(module, "PAUSE_S", 0.0)
    monkeypatch.setattr(module, "CHUNK", 1000)
    with open_shelf() as shelf:
        yield shelf


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "x.pt"


def left(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir() if path.suffix != ".lock")


def leave_part(shelf: Shelf, target: Path, size: int, **fields: object) -> str:
    """x.pt.part with the first `size` bytes of DATA, as an interrupted call leaves it."""
    url = shelf.put("x.pt", DATA, send=[size], **fields)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ATTEMPTS", 1)
        with pytest.raises(ConnectionError):
            download([url], target)
    assert left(target) == ["x.pt.part", "x.pt.part.json"]
    assert target.with_name("x.pt.part").stat().st_size == size
    shelf.asked.clear()
    return url


def test_a_file_is_fetched_once(shelf: Shelf, target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url, sha256 = shelf.put("x.pt", DATA), hashlib.sha256(DATA).hexdigest()
    for _ in range(2):
        assert download([url], target, sha256=sha256, size=len(DATA), starts=(b"no", DATA[:2])) == target
    assert target.read_bytes() == DATA
    assert left(target) == ["x.pt"]
    assert len(shelf.asked) == 1
    assert capsys.readouterr().err == ""  # no bar where nobody looks


def test_a_broken_answer_is_continued(shelf: Shelf, target: Path) -> None:
    url = shelf.put("x.pt", DATA, send=[3000, 1500])
    assert download([url], target).read_bytes() == DATA
    assert shelf.ranges == ["", "bytes=3000-", "bytes=4500-"]


def test_a_file_that_always_breaks_off(shelf: Shelf, target: Path) -> None:
    url = shelf.put("x.pt", DATA, send=[1000] * module.ATTEMPTS)
    with pytest.raises(ConnectionError, match=r"breaks off after 4000 of 10240 bytes, in each of 4 attempts"):
        download([url], target)
    assert left(target) == ["x.pt.part", "x.pt.part.json"]
    assert download([url], target).read_bytes() == DATA
    assert shelf.ranges[-1] == "bytes=4000-"
    assert left(target) == ["x.pt"]


def test_a_server_that_falls_silent(shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.05)
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    url = shelf.put("x.pt", DATA, pause_s=0.3)
    with pytest.raises(ConnectionError, match=r"breaks off .*timed out"):
        download([url], target)


@pytest.mark.parametrize(
    ("fields", "ranges"),
    [
        ({}, ["bytes=3000-"]),  # the server sees by If-Range that it must send all
        ({"if_range": False}, ["bytes=3000-", ""]),  # we see it by the ETag of what it sends
        ({"ranges": False}, ["bytes=3000-"]),
    ],
)
def test_a_changed_file_starts_anew(
    fields: dict[str, bool], ranges: list[str], shelf: Shelf, target: Path
) -> None:
    url = leave_part(shelf, target, 3000)
    shelf.put("x.pt", OTHER, etag='"2"', **fields)
    assert download([url], target).read_bytes() == OTHER
    assert shelf.ranges == ranges


def test_a_changed_file_that_is_shorter_starts_anew(shelf: Shelf, target: Path) -> None:
    url = leave_part(shelf, target, 3000)
    shelf.put("x.pt", OTHER[:2000], etag='"2"', if_range=False)
    assert download([url], target).read_bytes() == OTHER[:2000]


def test_a_server_without_ranges_starts_anew(shelf: Shelf, target: Path) -> None:
    url = leave_part(shelf, target, 3000, ranges=False)
    assert download([url], target).read_bytes() == DATA


@pytest.mark.parametrize(
    ("fields", "asked"),
    [
        ({"etag": "", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, "bytes=3000-"),
        ({"etag": 'W/"1"', "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, "bytes=3000-"),
        ({"etag": 'W/"1"'}, ""),  # weak: other bytes may have the same
        ({"etag": ""}, ""),
    ],
)
def test_only_a_known_version_is_continued(
    fields: dict[str, str], asked: str, shelf: Shelf, target: Path
) -> None:
    url = leave_part(shelf, target, 3000, **fields)
    assert download([url], target).read_bytes() == DATA
    assert shelf.ranges == [asked]


def test_a_part_of_another_address_is_not_continued(shelf: Shelf, target: Path) -> None:
    leave_part(shelf, target, 3000)
    assert download([shelf.put("mirror.pt", OTHER)], target).read_bytes() == OTHER


def test_a_part_whose_notes_are_damaged_starts_anew(shelf: Shelf, target: Path) -> None:
    url = leave_part(shelf, target, 3000)
    for notes in ("", "[]", '{"url": 3}'):
        target.with_name("x.pt.part.json").write_text(notes, encoding="utf-8")
        assert download([url], target).read_bytes() == DATA
        target.rename(target.with_name("x.pt.part"))
    assert shelf.ranges == ["", "", ""]


def test_a_part_that_is_whole_needs_no_server(shelf: Shelf, target: Path) -> None:
    url = leave_part(shelf, target, 3000)
    target.with_name("x.pt.part").write_bytes(DATA)
    assert download([url], target).read_bytes() == DATA
    assert not shelf.asked


def test_the_next_address_is_asked(shelf: Shelf, target: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}/x.pt"
    bad = [
        refused,
        shelf.url("missing.pt"),
        shelf.put("ill.pt", status=500),
        shelf.put("page.pt", b"<html>sign in</html>", kind="text/html; charset=utf-8"),
        shelf.put("page2.pt", b"<html>sign in</html>"),
        shelf.put("empty.pt"),
        shelf.put("loop.pt", to="loop.pt"),
    ]
    with pytest.raises(ConnectionError) as caught:
        download(bad, target, starts=[DATA[:2]])
    said = str(caught.value)
    reasons = ["cannot be reached", "answers 404", "answers 500", "sends a web page", "sends something else"]
    for url, reason in zip(bad, [*reasons, "sends an empty file", "answers 302"], strict=True):
        assert f"{url} {reason}" in said
    assert said.startswith("x.pt cannot be fetched: ")
    assert "\n" not in said
    assert left(target) == []
    assert download([*bad, shelf.put("x.pt", DATA)], target, starts=[DATA[:2]]).read_bytes() == DATA


def test_redirects_are_followed_also_in_the_middle(shelf: Shelf, target: Path) -> None:
    shelf.put("real.pt", DATA, send=[3000])
    assert download([shelf.put("x.pt", to="/real.pt")], target).read_bytes() == DATA
    assert shelf.asked[2:] == [("/x.pt", "bytes=3000-"), ("/real.pt", "bytes=3000-")]


@pytest.mark.parametrize(
    ("expected", "sentence"),
    [
        ({"sha256": "00ff"}, f"sha256 {hashlib.sha256(DATA).hexdigest()} where 00ff was expected"),
        ({"size": 99}, "sends 10240 bytes where 99 were expected"),
        ({"starts": [b"PK"]}, "sends something else"),
    ],
)
def test_a_wrong_file_is_removed(
    expected: dict[str, object], sentence: str, shelf: Shelf, target: Path
) -> None:
    with pytest.raises(ConnectionError, match=sentence):
        download([shelf.put("x.pt", DATA)], target, **expected)
    assert left(target) == []


def test_ctrl_c_leaves_a_part_to_continue(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, read, chunks = shelf.put("x.pt", DATA), module._read, []

    def interrupted(response: HTTPResponse) -> bytes:
        chunks.append(read(response))
        if len(chunks) == 4:
            raise KeyboardInterrupt
        return chunks[-1]

    with monkeypatch.context() as patch:
        patch.setattr(module, "_read", interrupted)
        with pytest.raises(KeyboardInterrupt):
            download([url], target)
    assert left(target) == ["x.pt.part", "x.pt.part.json"]
    assert download([url], target).read_bytes() == DATA
    assert shelf.ranges == ["", "bytes=3000-"]


def test_a_disk_that_fills_up_is_left_without_the_part(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no room for 0\.0 MB in .* free some, or"):
        download([shelf.put("x.pt", DATA)], target)
    assert left(target) == []


def test_a_full_disk_is_seen_before_the_first_byte(
    shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=len(DATA) - 1))
    monkeypatch.setattr(module, "_read", lambda _: pytest.fail("read"))
    with pytest.raises(OSError, match="no room"):
        download([shelf.put("x.pt", DATA)], target)
    assert left(target) == []


def test_a_folder_that_cannot_be_written(shelf: Shelf, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = shelf.put("x.pt", DATA)
    target.parent.write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(OSError, match=r"cannot be written to .*cache .*set MULTIHMR_HOME"):
        download([url], target)

    def forbidden(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", forbidden)
    with pytest.raises(PermissionError, match=r"\(Permission denied\): set MULTIHMR_HOME"):
        download([url], target)
    assert not shelf.asked


PROCESS = (
    "import sys; from pathlib import Path\n"
    "from multihmr.storage.download import *\ntarget = Path(sys.argv[1])\n"
)


def process(code: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROCESS + code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, encoding="utf-8")


@pytest.mark.slow
def test_two_processes_fetch_once(shelf: Shelf, target: Path) -> None:
    url = shelf.put("x.pt", DATA, pause_s=0.3)
    code = "print('go', flush=True); print(len(download(sys.argv[2:], target).read_bytes()))"
    runs = [process(code, target, url) for _ in range(2)]
    assert [run.communicate(timeout=30)[0].split() for run in runs] == [["go", "10240"]] * 2
    assert len(shelf.asked) == 1


def test_threads_fetch_once(shelf: Shelf, target: Path) -> None:
    url = shelf.put("x.pt", DATA, pause_s=0.1)
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(lambda _: download([url], target), range(4))) == {target}
    assert len(shelf.asked) == 1


def test_the_lock_of_a_dead_process_holds_nobody(shelf: Shelf, target: Path) -> None:
    url = shelf.put("x.pt", DATA)
    code = "import time\nwith locked(target): print('held', flush=True); time.sleep(60)"
    with process(code, target) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.send_signal(signal.SIGKILL)
    assert download([url], target).read_bytes() == DATA
