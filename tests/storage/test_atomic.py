"""One atomic writer: whole or not at all, with the mode that the umask gives, for every kind of file."""

from __future__ import annotations

import dataclasses
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import ToyBody, random_humans

from multihmr.humans import Humans
from multihmr.storage.atomic import atomic_path, write_bytes, write_text


def toy_humans() -> Humans:
    return random_humans(ToyBody(), 2)


pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")


@pytest.fixture(params=[0o022, 0o077, 0o027], ids=lambda mask: f"{mask:03o}")
def mask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_new_files_have_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    assert mode(write_bytes(tmp_path / "a.bin", b"abc")) == 0o666 & ~mask
    assert mode(write_text(tmp_path / "a.txt", "ä→", sync=True)) == 0o666 & ~mask
    assert (tmp_path / "a.txt").read_bytes() == "ä→".encode()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.bin", "a.txt"]


def test_files_that_exist_keep_their_mode(tmp_path: Path, mask: int) -> None:
    path = write_bytes(tmp_path / "a.bin", b"abc")
    path.chmod(0o640)
    assert mode(write_bytes(path, b"def")) == 0o640
    assert path.read_bytes() == b"def"


def test_a_draft_replaced_by_a_library_gets_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    path = tmp_path / "a.bin"
    with atomic_path(path) as draft:  # what safetensors does: its own temporary file over ours
        other = tmp_path / "other"
        other.write_bytes(b"abc")
        other.chmod(0o600)
        other.replace(draft)
    assert mode(path) == 0o666 & ~mask


def _write_weights(folder: Path) -> Path:
    from multihmr.hub.checkpoint import Checkpoint, write_checkpoint

    checkpoint = Checkpoint("toy", "multihmr", {}, "anny", "MIT", {"a": torch.ones(3)}, {})
    return write_checkpoint(checkpoint, folder / "weights.safetensors")


def _write_shard(folder: Path) -> Path:
    from multihmr.data.webdataset import write_shard

    write_shard(folder / "shard.tar", [])
    return folder / "shard.tar"


def _write_index(folder: Path) -> Path:
    from multihmr.data.index import IndexWriter

    IndexWriter({}, {}).write(folder / "index.safetensors", {})
    return folder / "index.safetensors"


def _write_film(folder: Path) -> Path:
    pytest.importorskip("av")
    from multihmr.video.writer import VideoWriter

    with VideoWriter(folder / "film.mp4", 25) as film:
        film.write(np.zeros((32, 32, 3), np.uint8), 0.0)
    return folder / "film.mp4"


def _write_parquet(folder: Path) -> Path:
    pytest.importorskip("pyarrow")
    from multihmr.io.parquet import Parts, pictures_table

    parts = Parts(folder)
    parts._write(parts.path("pictures", 0), pictures_table([("a.jpg", None, toy_humans())]))
    return Path(parts.path("pictures", 0))


def _write_page(folder: Path) -> Path:
    from multihmr.visualization.notebook import Html

    return Html("<p>é</p>").save(folder / "people.html")


def _save(suffix: str) -> Callable[[Path], Path]:
    return lambda folder: toy_humans().save(folder / f"people{suffix}")


WRITERS: dict[str, Callable[[Path], Path]] = {
    **{suffix: _save(suffix) for suffix in (".glb", ".obj", ".ply", ".npz", ".json")},
    "weights": _write_weights,
    "shard": _write_shard,
    "index": _write_index,
    "film": _write_film,
    "parquet": _write_parquet,
    "page": _write_page,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_file_has_the_mode_of_the_umask(tmp_path: Path, mask: int, kind: str) -> None:
    tmp_path.chmod(0o700)
    assert mode(WRITERS[kind](tmp_path)) == 0o666 & ~mask


@pytest.mark.parametrize("kind", ["weights", "film", ".npz", "page"])
def test_nothing_but_the_file_is_left(tmp_path: Path, kind: str) -> None:
    path = WRITERS[kind](tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_what_was_there(tmp_path: Path) -> None:
    path = write_bytes(tmp_path / "a.bin", b"before")

    def fail() -> None:
        with atomic_path(path) as draft:
            draft.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_film_that_fails_leaves_no_file(tmp_path: Path) -> None:
    pytest.importorskip("av")
    from multihmr.video.writer import VideoWriter

    def fail() -> None:
        with VideoWriter(tmp_path / "film.mp4", 25) as film:
            film.write(np.zeros((32, 32, 3), np.uint8), 0.0)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_links_are_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target = write_bytes(tmp_path / "real/a.bin", b"before")
    link = tmp_path / "link.bin"
    link.symlink_to(target)
    write_bytes(link, b"after")
    assert link.is_symlink()
    assert target.read_bytes() == b"after"


def test_long_names_and_missing_folders(tmp_path: Path) -> None:
    assert write_bytes(tmp_path / ("ä" * 125 + ".bin"), b"abc").read_bytes() == b"abc"
    with pytest.raises(FileNotFoundError, match=r"cannot write 'a\.bin': there is no folder .*missing"):
        write_bytes(tmp_path / "missing/a.bin", b"abc")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        write_bytes(tmp_path, b"abc")


def test_threads_that_write_one_file_leave_one_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    contents = [bytes([i]) * 100_000 for i in range(8)]
    threads = [threading.Thread(target=write_bytes, args=(path, content)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents
    assert list(tmp_path.iterdir()) == [path]


def test_tracks_and_pieces_have_the_mode_of_the_umask(tmp_path: Path, mask: int) -> None:
    from multihmr.video.tracks import collect, save_track

    people = dataclasses.replace(toy_humans(), track_ids=np.arange(len(toy_humans())) + 1)
    track = collect([people])[0]
    assert mode(save_track(track, tmp_path / "track.npz")) == 0o666 & ~mask
