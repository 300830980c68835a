"""What the page keeps of each visitor: without a browser and without gradio."""

from __future__ import annotations

import json
import math
import shutil
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import ToyBody, tiny_model

from multihmr.cli import main as cli
from multihmr.demo import sessions
from multihmr.demo import video as videos
from multihmr.demo.advice import advice
from multihmr.demo.sessions import Models, PredictOptions, Session, Sessions
from multihmr.humans import Humans
from multihmr.model import Model


class Counting(Models):
    """One tiny model under every name, and how often it ran."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model, self.runs = model, 0
        self.model.network.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.runs += 1

    def load(self, name: str) -> Model:
        return self.model


@pytest.fixture(scope="module")
def model() -> Model:
    model = tiny_model(threshold=0.5)
    model.network.to_score[2].bias.data.fill_(0.0)  # scores around the threshold
    return model


@pytest.fixture
def models(model: Model) -> Counting:
    return Counting(model)


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "street.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def session(tmp_path: Path, picture: Path) -> Session:
    session = Session(tmp_path / "session")
    session.take([picture], keep=True)
    return session


def test_the_models_own_threshold_gives_what_predict_gives(
    session: Session, models: Counting, picture: Path
) -> None:
    humans = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50))
    expected = models.model.predict(picture, fov=50)
    assert len(humans) > 1
    np.testing.assert_array_equal(humans.vertices, expected.vertices)


def test_the_threshold_moves_without_running_the_network_again(session: Session, models: Counting) -> None:
    own = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=None))
    higher = float(np.median(own.scores))
    few = session.people(models, "any", threshold=higher, options=PredictOptions(fov=None))
    assert 0 < len(few) < len(own)
    assert (few.scores >= higher).all()
    assert models.runs == 1


def test_fainter_people_join_those_that_stay_where_they_are(session: Session, models: Counting) -> None:
    own = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=None))
    for threshold in (0.3, 0.2):
        more = session.people(models, "any", threshold=threshold, options=PredictOptions(fov=None))
    assert len(more) > len(own)
    assert models.runs == 2
    assert (np.diff(more.distances) >= 0).all()
    np.testing.assert_array_equal(more[more.scores >= 0.5].vertices, own.vertices)


def test_another_field_of_view_runs_the_network(session: Session, models: Counting) -> None:
    near, far = (
        session.people(models, "any", threshold=0.5, options=PredictOptions(fov=fov)) for fov in (90, 30)
    )
    assert models.runs == 2
    assert near.K[0, 0] < far.K[0, 0]


def test_a_closer_look_is_that_of_predict(session: Session, models: Counting, picture: Path) -> None:
    far = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50))
    close = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50, tiles=2))
    expected = models.model.predict(picture, fov=50, tiles=2, max_people=sessions.MOST_PEOPLE)
    np.testing.assert_array_equal(close.vertices, expected.vertices)
    assert len(close) != len(far)
    assert session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50)) is far


def test_what_is_shown_can_be_taken_away(session: Session, models: Counting) -> None:
    humans = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50))
    shown = session.show(humans, models.model.body)
    names = [path.name for path in shown.take_away if path]
    assert names == ["street_overlay.jpg", "street.glb", "street.npz", "street.json"]
    assert len(json.loads(shown.take_away[3].read_text(encoding="utf-8"))["people"]) == len(humans)
    with Image.open(shown.side) as plan:
        assert plan.size == sessions.PLAN_SIZE
    assert sessions.field_of_view(humans) == pytest.approx(50, abs=0.1)
    assert sessions.summary(shown) == f"{len(humans)} people found. Field of view 50°, as you set it."


@pytest.mark.slow
def test_old_results_are_deleted(session: Session, models: Counting) -> None:
    humans = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50))
    for _ in range(4):
        shown = session.show(humans, models.model.body)
    assert len(list(session.folder.rglob("street.glb"))) == 3
    assert shown.glb in session.folder.rglob("street.glb")


def test_nobody_is_said(session: Session, models: Counting) -> None:
    shown = session.show(
        session.people(models, "any", threshold=1.0, options=PredictOptions(fov=50)), models.model.body
    )
    assert sessions.summary(shown).startswith("No people found. ")
    assert shown.glb is None


def test_advice_names_the_score_at_which_somebody_is_seen(session: Session, models: Counting) -> None:
    options = PredictOptions(fov=50)
    everybody = session.people(models, "any", threshold=sessions.LEAST_SCORE, options=options)
    best = session.best_fainter(models, "any", threshold=1.0, options=options)
    assert best == pytest.approx(everybody.scores.max())
    lowest = float(everybody.scores.min())
    assert session.best_fainter(models, "any", threshold=lowest, options=options) is None
    assert "Set “Least score” to 0.31:" in advice(None, 0, 0.45, 0.319, tiles=False)
    assert "A lower score does not help: nothing reaches 0.10." in advice(None, 0, 0.45, None, tiles=False)
    assert "small people" in advice(None, 0, 0.45, None, tiles=False)
    assert "small people" not in advice(None, 0, 0.45, None, tiles=True)


def test_advice_for_a_video_leads_to_the_first_frame_with_people(session: Session, models: Counting) -> None:
    humans = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50))
    seen = replace(humans, track_ids=np.arange(len(humans)))
    people = [seen[:0], seen[:0], seen]
    video = videos.VideoResult(session.picture, 10.0, [0.0, 0.1, 0.2], people, cut=False)
    assert "The first frame with people is 2:" in advice(video, 0, 0.5, None, tiles=False)
    best = math.floor(float(humans.scores.max()) * 100) / 100
    assert f"Set “Least score” to {best:.2f}" in advice(video, 0, 1.0, None, tiles=False)
    nobody = videos.VideoResult(session.picture, 10.0, [0.0], people[:1], cut=False)
    assert "No people found in this video" in advice(nobody, 0, 0.5, None, tiles=False)
    assert "score" not in advice(nobody, 0, 0.5, None, tiles=False)  # a lower one finds no more in videos


def test_two_visitors_share_nothing_and_leave_nothing(tmp_path: Path, picture: Path) -> None:
    guests = Sessions(tmp_path)
    guests.of("a").take([picture], keep=True)
    with pytest.raises(ValueError, match="There is no picture"):
        _ = guests.of("b").picture
    assert guests.of("a").folder.stat().st_mode & 0o077 == 0
    folder = guests.of("a").folder
    guests.end("a")
    assert not folder.exists()
    assert len(guests) == 1


def test_idle_visits_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guests = Sessions(tmp_path)
    folder = guests.of("a").folder
    now = guests.of("a").used
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now + sessions.IDLE + 1)
    guests.of("b")
    guests.end_idle()
    assert not folder.exists()
    assert len(guests) == 1


def test_uploads_move_into_the_visit(tmp_path: Path, picture: Path, session: Session) -> None:
    upload = tmp_path / "upload" / "new.png"
    upload.parent.mkdir()
    picture.rename(upload)
    session.take([upload, upload])
    assert [path.name for path in session.pictures] == ["new.png"]
    assert not upload.parent.exists()
    assert not list(session.folder.rglob("street.png"))
    with pytest.raises(ValueError, match="was not uploaded completely"):
        session.take([upload])


def test_too_many_files_are_refused_and_deleted(session: Session, picture: Path) -> None:
    with pytest.raises(ValueError, match="at most 12"):
        session.take([picture] + [Path(f"{i}.png") for i in range(12)])
    assert not picture.exists()


def test_table_of_people(make_humans: Callable[..., Humans]) -> None:
    table = sessions.people_table(make_humans((0, 0, 2), (3, 0, 4)), np.array([1.8, 1.1]))
    rows = table.split("<tr>")[2:]
    assert "2.00 m" in rows[0]
    assert "5.00 m" in rows[1]
    assert "1.10 m" in rows[1]
    assert "rgb(72, 152, 214)" in rows[1]


def test_height_is_that_of_the_body_upright(session: Session, models: Counting) -> None:
    humans = session.people(models, "any", threshold=0.5, options=PredictOptions(fov=50))
    expected = (0.5 + humans.shape[:, 0]) * 1.0  # the toy is a stick of one metre
    np.testing.assert_allclose(sessions.heights(humans, body=ToyBody()), expected, rtol=1e-5)


def test_age_words() -> None:
    assert [sessions.age_word(age) for age in (0, 1 / 3, 2 / 3, 1)] == ["baby", "child", "adult", "old"]


def test_licences_are_said() -> None:
    offered = Models()
    assert "also commercially" in offered.licence_note("multihmr-anny-hybrid")
    for name in ("multiHMR_896_L", "multiHMR_672_L_anny"):
        assert "For non-commercial purposes only" in offered.licence_note(name)
    assert "SMPL-X" in offered.licence_note("multiHMR_896_L")


def test_only_models_of_the_page_are_loaded() -> None:
    with pytest.raises(ValueError, match=r"no model '/etc/passwd' on this page; it offers multihmr-anny"):
        Models().load("/etc/passwd")


@pytest.mark.slow
def test_people_of_a_film(tmp_path: Path, models: Counting, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("av", reason="needs PyAV")
    pytest.importorskip("scipy", reason="tracking needs SciPy")
    from multihmr.video.writer import VideoWriter

    with VideoWriter(tmp_path / "walk.mp4", 10) as writer:
        for number in range(4):
            writer.write(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8), number / 10)
    monkeypatch.setattr(videos, "save", lambda tracks, path, body: path)  # the toy has no rig
    session = Session(tmp_path / "session")
    session.take([tmp_path / "walk.mp4"])
    said: list[float] = []
    tell = {"progress": lambda done, doing: said.append(done)}
    result = session.video_result(models, "any", options=PredictOptions(fov=50), **tell)
    shown = session.show_video(result, models.model.body, threshold=0.0, frame=2, **tell)
    assert len(result.people) == 4
    assert len(shown.humans) == len(result.people[2]) > 0
    assert [path.suffix for path in shown.take_away if path] == [".mp4", ".glb", ".zip", ".json"]
    assert sessions.summary(shown).startswith("4 frames, ")
    assert shown.take_away[-1] is not None
    assert shown.take_away[-1].stem.endswith("_frame_2")  # the one file that is of one frame
    assert said == sorted(said)
    runs = models.runs
    session.show_video(
        session.video_result(models, "any", options=PredictOptions(fov=50), **tell),
        models.model.body,
        threshold=1,
        frame=0,
        **tell,
    )
    assert models.runs == runs


def test_share_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["demo", "--share"]) == 1
    assert "keeps them on the machine" in capsys.readouterr().err


def test_a_missing_gradio_says_the_cure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "gradio", None)
    for name in ("app", "server"):
        monkeypatch.delitem(__import__("sys").modules, f"multihmr.demo.{name}", raising=False)
    assert cli.run(["demo"]) == 1
    assert "the demo needs gradio: pip install 'multihmr[demo]'" in capsys.readouterr().err


@pytest.mark.filterwarnings("default")  # what gradio imports warns of things that are theirs to change
def test_a_taken_port_and_a_foreign_host_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("gradio", reason="needs gradio", exc_type=ImportError)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert cli.run(["demo", "--no-browser", "--port", str(port)]) == 1
    assert f"cannot be served at 127.0.0.1, port {port}" in capsys.readouterr().err
    assert cli.run(["demo", "--no-browser", "--host", "192.0.2.1"]) == 1
    assert "cannot be served at 192.0.2.1" in capsys.readouterr().err


def test_a_cancelled_video_stops_at_its_next_frame(tmp_path: Path, models: Counting) -> None:
    pytest.importorskip("av", reason="needs PyAV")
    pytest.importorskip("scipy", reason="tracking needs SciPy")
    from multihmr.video.writer import VideoWriter

    with VideoWriter(tmp_path / "walk.mp4", 10) as writer:
        for number in range(6):
            writer.write(np.zeros((60, 80, 3), np.uint8), number / 10)
    session = Session(tmp_path / "session")
    session.take([tmp_path / "walk.mp4"])
    texts: list[str] = []

    session.begin(new=True)
    run = session.run

    def progress(done: float, text: str) -> None:
        session.check_cancelled(run)
        texts.append(text)
        if len(texts) == 3:
            session.cancel()

    with pytest.raises(sessions.Cancelled):
        session.video_result(models, "any", options=PredictOptions(fov=50), progress=progress)
    assert texts == ["reading the film", "frame 1 of 6", "frame 2 of 6"]
    session.begin(new=False)
    session.check_cancelled(session.run)  # raises nothing
    result = session.video_result(models, "any", options=PredictOptions(fov=50), progress=lambda *_: None)
    assert len(result.people) == 6


def test_a_run_ends_after_another_file_or_the_end_of_the_session(tmp_path: Path) -> None:
    guests = Sessions(tmp_path)
    session = guests.of("a")
    session.begin(new=True)
    first = session.run
    session.begin(new=False)  # another setting lets the video go on
    session.check_cancelled(first)
    session.begin(new=True)
    with pytest.raises(sessions.Replaced):
        session.check_cancelled(first)
    second = session.run
    session.check_cancelled(second)
    guests.end("a")
    with pytest.raises(sessions.Replaced):
        session.check_cancelled(second)


def test_a_file_given_while_another_runs_replaces_it(tmp_path: Path, picture: Path) -> None:
    """The page still lists the first, which was moved away."""
    session = Session(tmp_path / "session")
    one, two = (Path(shutil.copy(picture, tmp_path / f"{name}.png")) for name in ("one", "two"))
    session.take([one])
    session.take([one, two])
    assert [path.name for path in session.pictures] == ["two.png"]
    with pytest.raises(ValueError, match=r"two\.png was not uploaded completely"):
        session.take([two])


def test_turns_are_given_in_order() -> None:
    turns, order = sessions.Turns(), list[str]()
    waiting = threading.Event()

    def other() -> None:
        waiting.set()
        with turns:
            order.append("picture")

    with turns:
        thread = threading.Thread(target=other)
        thread.start()
        waiting.wait(5)
        time.sleep(0.1)  # until it waits for its turn
    with turns:  # the next frame of a video waits for the picture
        order.append("frame")
    thread.join(5)
    assert order == ["picture", "frame"]


@pytest.mark.parametrize(
    ("elapsed", "done", "text"),
    [(0.5, 0.5, ""), (10, 0.005, ""), (10, 0.5, ", about 0:10 left"), (100, 0.4, ", about 2:30 left")],
)
def test_the_remaining_time_is_estimated_once_it_can_be(elapsed: float, done: float, text: str) -> None:
    assert sessions.remaining_time(elapsed, done) == text


@pytest.mark.filterwarnings("ignore")
def test_visitors_get_sentences_without_folders_and_without_advice_for_the_owner(session: Session) -> None:
    pytest.importorskip("gradio", reason="needs gradio", exc_type=ImportError)
    from multihmr.demo.app import _for_visitors

    picture = session.picture
    damaged = ValueError(f"{picture} is cut short")
    assert _for_visitors(damaged, session) == "street.png is cut short"  # names keep their case
    assert _for_visitors(ValueError("there is no picture"), session) == "There is no picture"
    video = ValueError(
        f"{picture} is no picture: it is a video; `multihmr video` and predict_video read those"
    )
    assert _for_visitors(video, session) == "street.png is no picture: it is a video"
    missing = ImportError("videos need PyAV: pip install 'multihmr[video]'")
    assert "pip" not in _for_visitors(missing, session)
    assert "whose owner can install" in _for_visitors(missing, session)
