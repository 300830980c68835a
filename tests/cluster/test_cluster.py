"""A data set, workers that die and a run that is killed: every picture gets one answer."""

import io
import os
import socket
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="it is the extra cluster")

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from cluster_standin import ALWAYS_DIES, DIES_ONCE, FAILS, K, Kite, StandIn, picture

from multihmr.cli import main as cli
from multihmr.cluster import Settings, predict_dataset
from multihmr.cluster import datasource as inputs
from multihmr.cluster.datasource import find_inputs
from multihmr.cluster.run import _RAY_ENVIRONMENT, _locked, _ray, _same_as_before
from multihmr.cluster.worker import Pool, pack
from multihmr.cluster.writer import Report, ResultWriter
from multihmr.io.parquet import BAD, SHARDS, Parts, people_schema, people_table, pictures_table, read_people

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # sockets of Ray


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def names_in(folder, kind):
    parts = Parts(folder)
    return [name for n in parts.numbers(kind) for name in parts.read(kind, n)["picture"].to_pylist()]


def answer(pictures=(), shards=(), bad=(), look=None):
    """What a worker sends, of one person a picture: (name, shard), (shard, count), (name, shard, reason)."""
    found = [(name, shard, look._humans_of(1, 1)) for name, shard in pictures]
    tables = {
        "people": people_table(found, people_schema(Kite())),
        "pictures": pictures_table(found),
        "bad": pa.Table.from_pylist([dict(zip(BAD.names, row, strict=True)) for row in bad], BAD),
        "shards": pa.Table.from_pylist([dict(zip(SHARDS.names, row, strict=True)) for row in shards], SHARDS),
    }
    return {kind: pack(table) for kind, table in tables.items()} | {"seconds": 1.0}


# what lies in files


def test_folders_globs_and_urls_mean_the_same_files(tmp_path):
    wanted = ["a.jpg", "deep/b.PNG", "deep/down/c.jpg", "deep/s.tar", "t.parquet"]
    for name in [*wanted, "notes.txt", ".hidden.jpg", "_parts/d.jpg", "out/people/part-000000.parquet"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()

    def found(*sources):
        groups = find_inputs([str(source) for source in sources], besides=f"{tmp_path}/out")
        return sorted(os.path.relpath(path, tmp_path) for g in groups for path in g.pictures + g.shards)

    assert found(tmp_path, tmp_path / "a.jpg") == found(f"file://{tmp_path}") == wanted
    assert found(f"{tmp_path}/**/*.jpg") == ["a.jpg", "deep/down/c.jpg"]
    assert found(f"{tmp_path}/d*/?.[Pp]NG") == ["deep/b.PNG"]
    assert found(tmp_path / "notes.txt") == ["notes.txt"]


def test_sources_that_are_not_there_or_empty_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.jpg does not exist"):
        find_inputs([f"{tmp_path}/nothing.jpg"])
    for source in (tmp_path, tmp_path / "*.jpg"):
        with pytest.raises(FileNotFoundError, match=r"has no pictures .* shards .* or tables"):
            find_inputs([str(source)])


def test_names_that_no_table_can_store_are_refused(tmp_path):
    with (
        open(os.fsencode(tmp_path) + b"/a\xff.jpg", "wb"),
        pytest.raises(ValueError, match=r"not UTF-8 .* rename it"),
    ):
        find_inputs([str(tmp_path)])


def test_a_shard_gives_its_pictures_and_nothing_else(tmp_path):
    members = [
        ("1.jpg", b"one"),
        ("1.json", b"{}"),
        ("1.mask.png", b"no"),
        ("sub/2.PNG", b"two"),
        ("1.jpg", b"x"),
    ]
    write_tar(tmp_path / "s.tar", members)
    with open(tmp_path / "s.tar", "rb") as file:
        assert [m[:2] for m in inputs._in_tar(file)] == [
            ("1.jpg", b"one"),
            ("sub/2.PNG", b"two"),
            ("1.jpg", b"x"),
        ]


@pytest.mark.parametrize("as_struct", [False, True])
def test_a_table_gives_its_rows_with_their_cameras(tmp_path, as_struct):
    images = [{"bytes": data, "path": "x"} if as_struct else data for data in (b"one", b"two", None)]
    pq.write_table(
        pa.table({"id": [1, 2, 3], "image": images, "K": [K.tolist(), None, None]}), tmp_path / "t"
    )
    rows = list(inputs._in_table(tmp_path / "t", None))
    assert [row[:3] for row in rows] == [
        ("0", b"one", None),
        ("1", b"two", None),
        ("2", None, "the row has no bytes"),
    ]
    assert (rows[0][3], rows[1][3]) == (K.reshape(-1).tolist(), None)


def test_a_table_without_a_clear_column_says_which_there_are(tmp_path):
    pq.write_table(pa.table({"id": [1], "left": [b"l"], "right": [b"r"]}), tmp_path / "t")
    with pytest.raises(ValueError, match=r"these do: left, right .* name it with --column"):
        list(inputs._in_table(tmp_path / "t", None))
    with pytest.raises(ValueError, match="no column 'id' of bytes; columns: id, left, right"):
        list(inputs._in_table(tmp_path / "t", "id"))
    assert [row[1] for row in inputs._in_table(tmp_path / "t", "right")] == [b"r"]


# who works and who writes


def test_workers_take_all_gpus_else_all_cpus():
    assert Pool.of({"CPU": 16, "GPU": 2}, None, None) == Pool(2, 8, True)
    assert Pool.of({"CPU": 16}, None, None) == Pool(16, 1, False)
    assert Pool.of({"CPU": 16}, None, 4) == Pool(4, 4, False)
    assert Pool.of({"CPU": 2}, 1, 2).claims["num_cpus"] < 2  # room for readers
    with pytest.raises(ValueError, match="3 workers of 1 threads are more than Ray has: 2 CPUs"):
        Pool.of({"CPU": 2}, 3, None)


def test_what_arrives_twice_is_kept_once(tmp_path):
    look, writer = StandIn(tmp_path), ResultWriter(Parts(tmp_path))
    writer.plain = 2
    writer.take(answer([("a", None), ("b", None)], look=look))
    writer.take(answer([("b", None)], bad=[("c", None, "broken")], look=look))
    writer.close()
    assert names_in(tmp_path, "pictures") == names_in(tmp_path, "people") == ["a", "b"]
    assert (writer.report.pictures, writer.report.people, writer.report.bad) == (2, 2, 1)


def test_a_shard_is_done_when_its_last_picture_came_in_whatever_order(tmp_path):
    look, writer = StandIn(tmp_path), ResultWriter(Parts(tmp_path))
    writer.shards = {"s.tar", "t.tar"}
    writer.take(answer([("s.tar/1", "s.tar")], [("s.tar", 2), ("t.tar", 1)], look=look))
    assert writer.shards == {"s.tar", "t.tar"}
    writer.take(answer(bad=[("s.tar/2", "s.tar", "broken")]))
    writer.close()
    assert (writer.shards, writer.report.missing) == ({"t.tar"}, 1)
    again = ResultWriter(Parts(tmp_path))
    assert (again.report.before, again.sizes, again.counts["s.tar"]) == (2, {"s.tar": 2}, 2)


def test_a_full_disk_says_what_is_kept(tmp_path):
    look, writer = StandIn(tmp_path), ResultWriter(Parts(tmp_path))
    writer.take(answer([("a", None)], look=look))
    writer.parts.root = "/proc/nowhere"
    with pytest.raises(OSError, match=r"cannot write into .* 0 pictures of this run are kept: free space"):
        writer.write()


def test_a_backend_that_there_is_not_is_refused_before_ray_starts(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(1))
    with pytest.raises(ValueError, match="backend must be one of eager, compile"):
        predict_dataset(
            tmp_path, tmp_path / "out", model=StandIn(tmp_path), settings=Settings(backend="cuckoo")
        )
    assert not ray.is_initialized()


def test_other_options_and_a_second_run_are_refused(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/bad.jpg").touch()
    run = [tmp_path / "in", tmp_path / "out"]
    look = StandIn(tmp_path)
    parts = Parts(tmp_path / "out")
    _same_as_before(parts, look, Settings(fov=60))
    with pytest.raises(ValueError, match=r"another model or other options \(fov was 60, is now None\)"):
        predict_dataset(*run, model=look)
    with _locked(parts), pytest.raises(BlockingIOError, match="another run is writing into"):
        predict_dataset(*run, model=look, settings=Settings(fov=60))
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        predict_dataset(*run, model=look, settings=Settings(batch_size=0))


def test_an_address_where_nobody_listens_is_told_at_once():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with (
        pytest.raises(ConnectionError, match=f"no Ray cluster answers at 127.0.0.1:{port}"),
        _ray(f"127.0.0.1:{port}"),
    ):
        pass


@pytest.mark.parametrize(("missing", "code"), [(0, 0), (3, 1)])
def test_the_command_says_what_was_done(monkeypatch, capsys, missing, code):
    report = Report(20, 30, 7, 5, missing, seconds=10, busy=16, workers=2, reasons=["a.jpg: broken"] * 5)
    monkeypatch.setattr("multihmr.cluster.predict_dataset", lambda *_, settings, **__: report)
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: None)
    assert cli.run(["cluster", "in", "--out", "out", "--workers", "2"]) == code
    said = capsys.readouterr()
    assert said.out.startswith("20 pictures, 30 people, 7 bad inputs; 5 done earlier; 10 s, 2.00 pictures")
    assert "and 2 more: see out/bad" in said.err
    assert ("3 inputs without a result" in said.err) == bool(missing)


def test_without_ray_the_command_says_what_to_install(monkeypatch, capsys):
    for name in [name for name in sys.modules if name.startswith("multihmr.cluster")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.run(["cluster", "in", "--out", "out"]) == 1
    assert "this needs ray: pip install 'multihmr[cluster]'" in capsys.readouterr().err


# all of it, on one Ray of two CPUs


@pytest.fixture(scope="module")
def cluster():
    """Its address."""
    path = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])  # where workers find the stand-in
    ours = {**_RAY_ENVIRONMENT, "PYTHONPATH": path}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
    context = ray.init(
        num_cpus=2,
        object_store_memory=100 * 2**20,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    yield context.address_info["address"]
    ray.shutdown()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


@pytest.fixture
def deaths(tmp_path):
    folder = tmp_path / "deaths"
    folder.mkdir()
    return folder


@pytest.mark.slow
def test_every_input_gets_one_answer_whatever_dies(cluster, tmp_path, deaths):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    fates = {7: DIES_ONCE, 23: ALWAYS_DIES, 31: FAILS}
    for number in range(40):
        (source / f"{number}.png").write_bytes(picture(number, number % 3, fates.get(number, 0)))
    for name, content in {"empty #1.jpg": b"", "text.jpg": b"no picture"}.items():
        (source / name).write_bytes(content)
    write_tar(source / "s.tar", [(f"{n}.png", picture(n)) for n in range(40, 50)])
    (source / "cut.tar").write_bytes((source / "s.tar").read_bytes()[:4000])
    pq.write_table(
        pa.table(
            {
                "image": [picture(n) for n in range(50, 60)],
                "K": [np.diag([0.1, 0.1, 1]).tolist()] + [K.tolist()] * 9,
            }
        ),
        source / "t.parquet",
    )
    report = predict_dataset(source, out, model=StandIn(deaths), settings=Settings(batch_size=4))

    bad = {
        name.removeprefix(f"{source}/"): row
        for name, row in zip(names_in(out, "bad"), reasons(out), strict=True)
    }
    assert sorted(bad) == ["23.png", "31.png", "cut.tar", "empty #1.jpg", "t.parquet/0", "text.jpg"]
    assert "its worker died 3 times over it" in bad["23.png"]
    assert bad["31.png"] == "the network failed on it: RuntimeError: planted"
    assert "cannot be read, or not to its end" in bad["cut.tar"]
    assert "K has a focal length" in bad["t.parquet/0"]
    assert len(list(deaths.iterdir())) == 4

    done = names_in(out, "pictures")
    cut = [name for name in done if "cut.tar" in name]
    assert len(done) == len(set(done)) == 38 + 10 + 9 + len(cut)
    assert 0 < len(cut) < 10
    people = dict(read_people(out, body=Kite()))
    for number in range(40):
        if number not in (23, 31):
            humans = people[f"{source}/{number}.png"]
            assert len(humans) == number % 3
            np.testing.assert_allclose(humans.translation[:, 0], number / 1000)
    assert (report.pictures, report.bad, report.missing) == (len(done), 6, 0)

    again = predict_dataset(source, out, model=StandIn(deaths), settings=Settings(workers=1))
    assert (again.pictures, again.before, again.missing) == (0, len(done) + 6, 0)
    assert sorted(names_in(out, "pictures")) == sorted(done)
    assert len(names_in(out, "bad")) == 6


def reasons(folder):
    parts = Parts(folder)
    return [reason for n in parts.numbers("bad") for reason in parts.read("bad", n)["reason"].to_pylist()]


KILLED = """
import sys
from cluster_standin import Kite, StandIn
from multihmr.cluster import Settings, predict_dataset

predict_dataset(sys.argv[1], sys.argv[2], model=StandIn(sys.argv[3], 0.05),
                settings=Settings(address=sys.argv[4], batch_size=2, workers=1, save_every=0))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_where_it_was(cluster, tmp_path, deaths, monkeypatch):
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for number in range(30):
        (source / f"{number}.png").write_bytes(picture(number, 2) + bytes(2**18))  # four a block
    write_tar(source / "s.tar", [(f"{n}.png", picture(n) + bytes(2**18)) for n in range(30, 60)])
    driver = subprocess.Popen([sys.executable, "-c", KILLED, str(source), str(out), str(deaths), cluster])
    try:
        while len(Parts(out).numbers("pictures")) < 2:
            assert driver.poll() is None, "it ended before it was killed"
            time.sleep(0.05)
    finally:
        driver.kill()
        driver.wait()
    before = len(names_in(out, "pictures"))
    settings = Settings(batch_size=4, workers=1)
    report = predict_dataset(source, out, model=StandIn(deaths), settings=settings)
    done = names_in(out, "pictures")
    assert 0 < before < 60
    assert (report.before, report.pictures, report.missing) == (before, 60 - before, 0)
    assert len(done) == len(set(done)) == 60
    assert len(names_in(out, "people")) == 30 * 2 + 30
