from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file

from multihmr.data.index import Index, IndexWriter, Record

PEOPLE = {"pose": ("f4", 53, 3), "shape": ("f4", 11), "gender": ("u1",)}
PICTURE = {"K": ("f4", 3, 3)}


def record(number: int) -> Record:
    """With number % 3 people; all that it holds can be told from its number."""
    count = number % 3
    people = {
        "pose": np.full((count, 53, 3), number),
        "shape": np.full((count, 11), -number),
        "gender": np.arange(count),
    }
    return Record(f"picture {number}", f"é/{number}.png", people, {"K": np.full((3, 3), number)})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("index") / "many.index"
    writer = IndexWriter(PEOPLE, PICTURE)
    for number in range(5000):
        writer.add(writer.checked(record(number)))
    writer.write(path, {"made": "today"})
    return path


@pytest.mark.parametrize("number", [0, 1, 2, 2047, 2048, 4999])
def test_what_went_in_comes_out(written, number):
    back, given = Index(written)[number], record(number)
    assert (back.name, back.image, len(back)) == (given.name, given.image, number % 3)
    for key in PEOPLE:
        np.testing.assert_array_equal(back.people[key], given.people[key])
    np.testing.assert_array_equal(back.picture["K"], given.picture["K"])


def test_columns_and_facts(written):
    index = Index(written)
    assert (len(index), index.people, index.facts) == (5000, 4999, {"made": "today"})
    assert index.column("people.shape").shape == (4999, 11)


def test_it_is_mapped_not_read(written):
    """Opening and one record cost some kB and milliseconds, whatever the size of the file."""
    tracemalloc.start()
    start = time.perf_counter()
    assert Index(written)[4321].name == "picture 4321"
    seconds = time.perf_counter() - start
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert written.stat().st_size > 3_000_000
    assert peak < 200_000
    assert seconds < 1


def test_any_reader_of_safetensors_reads_it(written):
    arrays = load_file(written)
    assert arrays["people.pose"].shape == (4999, 53, 3)
    assert arrays["picture.K"][7, 0, 0] == 7


def test_nobody_and_nothing(tmp_path):
    writer = IndexWriter(PEOPLE, PICTURE)
    writer.write(tmp_path / "empty.index", {})
    assert (len(Index(tmp_path / "empty.index")), Index(tmp_path / "empty.index").people) == (0, 0)
    writer.add(writer.checked(record(0)))
    writer.write(tmp_path / "nobody.index", {})
    assert len(Index(tmp_path / "nobody.index")[0]) == 0


@pytest.mark.parametrize("length", [0, 5, 300, 10_000])
def test_cut_short(written, tmp_path, length):
    (tmp_path / "short.index").write_bytes(written.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"short\.index is not a complete index"):
        Index(tmp_path / "short.index")
