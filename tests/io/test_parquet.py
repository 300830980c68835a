"""People as rows: what goes in comes out, and half a part is none."""

import dataclasses
import errno

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="it comes with the extra cluster")

import roma
import torch
from cluster_standin import Kite, StandIn

from multihmr.bodies.base import place
from multihmr.bodies.loading import load_body
from multihmr.humans import rotmat_to_rotvec
from multihmr.io.parquet import Parts, people_schema, people_table, pictures_table, read_people


@pytest.fixture
def found(tmp_path):
    """Pictures of 2, 0 and 1 people."""
    look = StandIn(tmp_path)._humans_of
    return [("a.jpg", None, look(1, 2)), ("b.tar/b.jpg", "b.tar", look(2, 0)), ("c.jpg", None, look(3, 1))]


def store(folder, found, number=0):
    parts = Parts(folder)
    tables = {"people": people_table(found, people_schema(Kite())), "pictures": pictures_table(found)}
    parts.write(number, tables)
    return parts


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_people_come_back_as_they_went_in(tmp_path, found, scheme):
    store(f"{scheme}{tmp_path}/out", found)
    for (name, humans), (name_before, _, before) in zip(
        read_people(f"{scheme}{tmp_path}/out", body=Kite()), found, strict=True
    ):
        assert (name, len(humans), humans.K_source) == (name_before, len(before), before.K_source)
        for field in ("vertices", "joints", "pelvis", "translation", "pose", "scores", "boxes", "K"):
            np.testing.assert_allclose(getattr(humans, field), getattr(before, field), atol=5e-4)
        np.testing.assert_allclose(humans.joints_2d, before.joints_2d, atol=0.05)


def test_which_hands_and_faces_were_found_comes_back(tmp_path, found):
    """Also beside pictures without people; files without the column say that they were not looked for."""
    refined = [[[True, False, True], [False, False, False]], np.zeros((0, 3)), [[False, True, False]]]
    looked = [
        (name, shard, dataclasses.replace(humans, refined=np.array(which, bool)))
        for (name, shard, humans), which in zip(found, refined, strict=True)
    ]
    parts = Parts(tmp_path / "out")
    table = people_table(looked, people_schema(Kite(), refined=True))
    parts.write(0, {"people": table, "pictures": pictures_table(looked)})
    for (_, humans), which in zip(read_people(tmp_path / "out", body=Kite()), refined, strict=True):
        np.testing.assert_array_equal(humans.refined, np.array(which, bool))
    store(tmp_path / "before", found)
    assert {humans.refined is None for _, humans in read_people(tmp_path / "before", body=Kite())} == {True}


@pytest.mark.slow
def test_rounding_moves_no_vertex_of_anny_by_half_a_millimetre(tmp_path):
    body, generator = load_body("anny"), torch.Generator().manual_seed(0)
    turns = 0.3 * torch.randn(8, body.rotation_count, 3, generator=generator)
    turns[:, 0] *= torch.pi / turns[:, 0].norm(dim=-1, keepdim=True) / 1.001  # where rounding is worst
    numbers = [torch.rand(8, n, generator=generator) for n in (body.shape_count, body.expression_count)]
    table = people_table([], people_schema(body))
    assert len(table) == 0
    rounded = torch.round(torch.tensor(rotmat_to_rotvec(roma.rotvec_to_rotmat(turns).numpy())) * 8192) / 8192
    at = torch.zeros(8, 3)
    one, two = (
        place(body(roma.rotvec_to_rotmat(pose), numbers[0], face), at, body.center_joint)
        for pose, face in ((turns, numbers[1]), (rounded, torch.round(numbers[1] * 8192) / 8192))
    )
    assert 0 < (one.vertices_PV3 - two.vertices_PV3).norm(dim=-1).max() < 0.5e-3


def test_only_the_pictures_that_are_asked_for(tmp_path, found):
    store(tmp_path, found[:2])
    store(tmp_path, found[2:], number=1)
    names = [name for name, _ in read_people(tmp_path, ["c.jpg", "a.jpg", "nowhere.jpg"], body=Kite())]
    assert names == ["a.jpg", "c.jpg"]


def test_many_people_are_posed_in_turns(tmp_path, monkeypatch, found):
    monkeypatch.setattr("multihmr.io.parquet.PEOPLE_AT_ONCE", 2)
    store(tmp_path, found * 3)
    counts = [len(humans) for _, humans in read_people(tmp_path, body=Kite())]
    assert counts == [2, 0, 1] * 3


def test_what_cannot_be_read_says_so(tmp_path, found):
    with pytest.raises(FileNotFoundError, match="holds no people"):
        next(read_people(tmp_path))
    parts = store(tmp_path, found)
    with pytest.raises(ValueError, match="people of body 'kite', got body 'anny'"):
        next(read_people(tmp_path, body=load_body("anny")))
    with pytest.raises(ValueError, match="no URL that can be read here"):
        Parts("nowhere://bucket/folder")
    (tmp_path / "people/part-000000.parquet").write_bytes(b"PAR1 cut short")
    with pytest.raises(ValueError, match=r"part-000000\.parquet is damaged"):
        parts.read("people", 0)


def test_half_a_part_is_removed_and_a_whole_one_stays(tmp_path, found):
    parts = store(tmp_path, found)
    parts.write(1, {"people": people_table(found, people_schema(Kite()))} | {"pictures": pictures_table([])})
    for number in (2, 3):
        store(tmp_path, found, number)
    (tmp_path / "pictures/part-000002.parquet").write_bytes(b"")
    (tmp_path / "people/part-000003.parquet").unlink()
    (tmp_path / "people/.part-000004.parquet.unfinished").write_bytes(b"half")
    assert parts.repair() == [0]
    assert sorted(p.name for p in tmp_path.rglob("*part*")) == ["part-000000.parquet"] * 2


class FullDisk:
    """A file system that has room for the beginning of a file."""

    def __init__(self, files):
        self.files = files

    def __getattr__(self, name):
        return getattr(self.files, name)

    def move(self, *paths):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_leaves_nothing_half_written(tmp_path, found):
    parts = Parts(tmp_path)
    parts.files = FullDisk(parts.files)
    with pytest.raises(OSError, match="No space left"):
        parts.write(0, {"people": people_table(found, people_schema(Kite()))})
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == []


def test_people_are_numbered_from_1_as_in_all_files(tmp_path, found):
    table = people_table(found, people_schema(Kite()))
    assert table["person"].to_pylist() == [1, 2, 1]
    assert found[0][2].numbers.tolist() == [1, 2]
