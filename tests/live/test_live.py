"""multihmr live: the newest frame each time, and what receivers of each output get."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import roma
import torch
from clips import StandIn, picture, write_film
from toys import random_humans

from multihmr.bodies.anny import Anny
from multihmr.bodies.rig import TO_GLTF
from multihmr.cli.main import run
from multihmr.humans import Humans
from multihmr.io.rest_pose import with_rest_pose
from multihmr.live.osc import (
    MIRROR,
    OscOutput,
    VmcOutput,
    face_shapes,
    humanoid_bones,
    mirrored_quaternion,
    unity_names,
)
from multihmr.live.page import LivePage
from multihmr.live.records import JsonLines, WebSocketOutput, live_record
from multihmr.live.run import LiveFrame, predict_live, run_live
from multihmr.preprocessing.image import LoadedImage
from multihmr.video.frame import Frame, Video
from multihmr.video.reader import open_video
from multihmr.video.tracks import with_meshes

pytest.importorskip("av")


class SlowModel(StandIn):
    """Takes 0.1 s for an image."""

    def predict_batch(self, *args: Any, **options: Any) -> list[Humans]:
        time.sleep(0.1)
        return super().predict_batch(*args, **options)


def result_of(humans: Humans, number: int = 3) -> LiveFrame:
    image = LoadedImage(picture(humans.image_size), name="camera")
    return LiveFrame(Frame(number, number / 10, image), humans, dropped=2, latency=0.05)


@pytest.fixture(scope="module")
def anny() -> Anny:
    return Anny()


@pytest.fixture
def person(anny) -> Callable[..., Humans]:
    """person(n, ids): people of Anny in random poses, 2 to 3 m away."""

    def make(count: int = 1, ids: list[int] | None = None, seed: int = 0) -> Humans:
        humans = random_humans(anny, count)
        generator = torch.Generator().manual_seed(seed)
        pose = roma.rotvec_to_rotmat(0.4 * torch.randn(count, anny.rotation_count, 3, generator=generator))
        pose[:, 0] = pose[:, 0] @ anny.mean_pose_R33[0]
        changed = dataclasses.replace(
            humans, pose=pose.numpy(), track_ids=np.array(ids or range(1, count + 1))
        )
        return with_meshes(changed, anny)

    return make


# ---- the newest frame


@pytest.mark.slow
def test_a_camera_faster_than_the_network_drops_frames_and_does_not_lag():
    def frames() -> Iterator[Frame]:
        for frame in open_video([picture()] * 60):
            yield frame
            time.sleep(0.02)

    statistics = run_live(predict_live(SlowModel(), Video("camera", 50.0, None, True, frames), fov=60), [])
    assert 8 <= statistics.frames <= 20
    assert statistics.frames + statistics.dropped == 60  # the last frame is predicted
    assert statistics.people == {1, 2}
    assert 0.1 <= statistics.latency(95) < 0.25  # of a queue it would be more than 4 s
    assert "dropped; latency 0.1" in str(statistics)


@pytest.mark.slow
def test_a_file_is_played_at_its_own_speed():
    start = time.monotonic()
    results = list(predict_live(StandIn(), open_video([picture()] * 10, fps=20), fov=60))
    assert 0.45 <= time.monotonic() - start < 1.5
    assert results[-1].frame.number == 9
    assert all(result.humans.track_ids.tolist() == [1, 2] for result in results)


def test_a_source_that_breaks_off_ends_with_what_came():
    def frames() -> Iterator[Frame]:
        yield from open_video([picture()])
        time.sleep(0.2)
        raise OSError("unplugged")

    statistics = run_live(predict_live(StandIn(), Video("bad", 30.0, None, True, frames), fov=60), [])
    assert statistics.frames == 1
    assert str(statistics.problem) == "unplugged"


# ---- JSON


def test_lines_of_json_hold_the_people(make_humans, tmp_path):
    humans = make_humans((0.1, 0.2, 3.0), (1, 0, 4), track_ids=np.array([5, 8]))
    output = JsonLines(tmp_path / "people.jsonl")
    for number in range(3):
        output.send(result_of(humans, number))
        lines = (tmp_path / "people.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(lines) == number + 1  # at once
    output.close()
    record = json.loads(lines[-1])
    assert (record["frame"], record["dropped"], record["time"]) == (2, 2, 0.2)
    assert [person["track_id"] for person in record["people"]] == [5, 8]
    np.testing.assert_allclose(record["people"][0]["translation"], humans.translation[0], atol=1e-4)
    assert record["image"] == {"width": 160, "height": 120}


def test_websocket_clients_get_the_newest_frame(make_humans):
    client_module = pytest.importorskip("websockets.sync.client")
    humans = make_humans((0.1, 0.2, 3.0), track_ids=np.array([5]))
    server = WebSocketOutput(0)
    try:
        with client_module.connect(server.address) as client:
            time.sleep(0.1)
            server.send(result_of(humans, 7))
            assert json.loads(client.recv(timeout=5)) == live_record(result_of(humans, 7))
            start, nobody = time.monotonic(), result_of(humans[:0])
            for number in range(500):  # the client does not read: sending does not wait
                server.send(
                    dataclasses.replace(nobody, frame=dataclasses.replace(nobody.frame, number=number))
                )
            assert time.monotonic() - start < 4
            time.sleep(0.1)
            numbers = [json.loads(client.recv(timeout=5))["frame"]]
            while numbers[-1] != 499:
                numbers.append(json.loads(client.recv(timeout=5))["frame"])
            assert numbers == sorted(set(numbers))
    finally:
        server.close()


def test_pages_from_elsewhere_cannot_read_the_websocket():
    client_module = pytest.importorskip("websockets.sync.client")
    from websockets.exceptions import InvalidStatus

    server = WebSocketOutput(0)
    try:
        with pytest.raises(InvalidStatus, match="403"):
            client_module.connect(server.address, origin="https://example.com")
        with client_module.connect(server.address, origin="http://localhost:8080"):
            pass
    finally:
        server.close()


# ---- OSC and VMC


@contextlib.contextmanager
def receiver(ports: int = 1) -> Iterator[tuple[int, list[list[tuple[str, tuple[Any, ...]]]]]]:
    """(first port, messages by port) of OSC servers on free ports that follow each other."""
    dispatcher_module = pytest.importorskip("pythonosc.dispatcher")
    from pythonosc.osc_server import ThreadingOSCUDPServer

    got: list[list[tuple[str, tuple[Any, ...]]]] = [[] for _ in range(ports)]
    servers: list[Any] = []
    for first in range(49300, 60000, 16):
        with contextlib.suppress(OSError):
            for i in range(ports):
                dispatcher = dispatcher_module.Dispatcher()
                dispatcher.set_default_handler(lambda address, *values, i=i: got[i].append((address, values)))
                servers.append(ThreadingOSCUDPServer(("127.0.0.1", first + i), dispatcher))
            break
        for server in servers:
            server.server_close()
        servers = []
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield first, got
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("nothing came")


def test_osc_keypoints_arrive(make_humans):
    humans = make_humans((0.1, 0.2, 3.0), (1, 0, 4), track_ids=np.array([5, 8]))
    with receiver() as (port, (got,)):
        output = OscOutput("127.0.0.1", port)
        output.send(result_of(humans))
        wait_for(lambda: len(got) == 7)
        output.close()
    found = sorted(got, key=lambda message: (message[0], str(message[1])))
    assert found[0] == ("/multihmr/frame", (3, pytest.approx(0.3), 2))
    points = {values[:2]: values[2:] for address, values in got if address == "/multihmr/keypoint"}
    keypoints = humans.keypoints("coco17")
    np.testing.assert_allclose(points[(8, "middle")][:3], keypoints.xyz[1, 1], rtol=1e-6)
    np.testing.assert_allclose(points[(8, "middle")][3:], keypoints.xy[1, 1] / [160, 120], rtol=1e-6)
    people = {values[0]: values[1:] for address, values in got if address == "/multihmr/person"}
    np.testing.assert_allclose(people[5][1:], humans.translation[0], rtol=1e-6)


# the humanoid of Unity: which bone carries which
UNITY = {"Hips": "", "Spine": "Hips", "Chest": "Spine", "UpperChest": "Chest", "Neck": "UpperChest"}
UNITY |= {"Head": "Neck", "LeftEye": "Head", "RightEye": "Head"}
for side in ("Left", "Right"):
    UNITY |= {
        f"{side}UpperLeg": "Hips",
        f"{side}LowerLeg": f"{side}UpperLeg",
        f"{side}Foot": f"{side}LowerLeg",
    }
    UNITY |= {f"{side}Toes": f"{side}Foot", f"{side}Shoulder": "UpperChest"}
    UNITY |= {f"{side}UpperArm": f"{side}Shoulder", f"{side}LowerArm": f"{side}UpperArm"}
    UNITY |= {f"{side}Hand": f"{side}LowerArm"}
    for finger in ("Thumb", "Index", "Middle", "Ring", "Little"):
        UNITY |= {f"{side}{finger}Proximal": f"{side}Hand"}
        UNITY |= {f"{side}{finger}Intermediate": f"{side}{finger}Proximal"}
        UNITY |= {f"{side}{finger}Distal": f"{side}{finger}Intermediate"}


def turned(quaternion: np.ndarray, point: np.ndarray) -> np.ndarray:
    """A point turned by x, y, z, w as Unity does it; its formula is the same in a left-handed frame."""
    axis, w = quaternion[:3], quaternion[3]
    return point + 2 * np.cross(axis, np.cross(axis, point) + w * point)


def times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of quaternions x, y, z, w."""
    return np.array([*(a[3] * b[:3] + b[3] * a[:3] + np.cross(a[:3], b[:3])), a[3] * b[3] - a[:3] @ b[:3]])


def places(messages: list[tuple[str, tuple[Any, ...]]]) -> dict[str, np.ndarray]:
    """Bone -> where it begins, as a receiver of VMC poses a humanoid: each bone in that above it."""
    root = np.array(next(values[1:4] for address, values in messages if address == "/VMC/Ext/Root/Pos"))
    bones = {
        values[0]: np.array(values[1:]) for address, values in messages if address == "/VMC/Ext/Bone/Pos"
    }
    at, turn = {"": root}, {"": np.array([0, 0, 0, 1.0])}
    for bone, above in UNITY.items():
        at[bone] = at[above] + turned(turn[above], bones[bone][:3])
        turn[bone] = times(turn[above], bones[bone][3:])
    return at


@pytest.mark.slow
def test_an_avatar_posed_by_vmc_stands_as_the_person(anny, person):
    humans = dataclasses.replace(person(1, [4]), shape=anny.mean_shape_S[None].numpy())
    humans = with_meshes(humans, anny)
    with receiver() as (port, (got,)):
        output = VmcOutput(anny, "127.0.0.1", port)
        output.send(result_of(humans))
        wait_for(lambda: any(address == "/VMC/Ext/Blend/Apply" for address, _ in got))
        output.close()
    names = unity_names("anny")
    assert {values[0] for address, values in got if address == "/VMC/Ext/Bone/Pos"} == set(UNITY)
    at = places(got)
    for ours, name in names.items():
        if name not in at:  # Anny has no bone for the jaw
            continue
        joint = humans.joints[0, humans.topology.joint_names.index(ours)]
        np.testing.assert_allclose(at[name], -joint, atol=2e-4)  # x left, y up, z to the camera
    hips = next(np.array(v[1:4]) for a, v in got if a == "/VMC/Ext/Bone/Pos" and v[0] == "Hips")
    assert hips[[0, 2]].tolist() == [0, 0]
    assert 0.9 < hips[1] < 1.1  # over the floor, of the mean adult
    assert [values for address, values in got if address == "/VMC/Ext/OK"] == [(1,)]
    shapes = {values[0]: values[1] for address, values in got if address == "/VMC/Ext/Blend/Val"}
    jaw = humans.topology.expression_names.index("jawOpen")
    assert shapes["JawOpen"] == pytest.approx(humans.expression[0, jaw])


@pytest.mark.slow
def test_a_t_pose_is_at_rest_and_a_raised_arm_turns_about_z(anny, person):
    """Of who faces the camera no bone is turned; raising the left arm is -90 degrees about z."""
    humans = person()
    rig = with_rest_pose(anny.rigs(humans.shape)[0], "t-pose")
    turns = rig.rest_turns
    parents = np.maximum(rig.parents, 0)
    local = np.einsum(
        "bji,bjk->bik", turns[parents], turns
    )  # what the body's own rest pose lacks of a T-pose
    local[0] = turns[0]
    raised = local.copy()
    arm = rig.bone_names.index("upperarm01.L")
    quarter = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1]])  # about +z of a right-handed frame: +x goes up
    raised[arm] = turns[parents[arm]].T @ quarter @ turns[arm]
    for wanted, expected in ((local, [0, 0, 0, 1]), (raised, [0, 0, -np.sqrt(0.5), np.sqrt(0.5)])):
        nodes = wanted[list(rig.topology.pose_joints)]
        pose = rig.axes.transpose(0, 2, 1) @ nodes @ rig.axes
        pose[0] = (TO_GLTF[:, None] * nodes[0]) @ rig.axes[0]
        posed = dataclasses.replace(humans, pose=pose[None])
        bones = {name: turn for name, _, turn in humanoid_bones(posed, rig, np.zeros(3))}
        turn = bones.pop("LeftUpperArm")
        np.testing.assert_allclose(turn * np.sign(turn[3]), expected, atol=1e-5)
        for name, other in bones.items():
            np.testing.assert_allclose(other * np.sign(other[3]), [0, 0, 0, 1], atol=1e-5, err_msg=name)
    np.testing.assert_allclose(turned(turn, np.array([-1.0, 0, 0])), [0, 1, 0], atol=1e-5)  # the hand goes up


def test_a_mirrored_rotation_turns_mirrored_points():
    rotation = roma.random_rotmat(1).numpy()[0].astype(np.float64)
    point = np.array([0.3, -0.5, 0.8])
    there = turned(mirrored_quaternion(rotation), point * MIRROR)
    np.testing.assert_allclose(there, (rotation @ point) * MIRROR, atol=1e-6)


@pytest.mark.slow
def test_each_person_keeps_a_port(anny, person):
    two = person(2, [4, 9])
    with receiver(2) as (port, got):
        output = VmcOutput(anny, "127.0.0.1", port, people=2)
        output.send(result_of(two))
        wait_for(lambda: all(any(a == "/VMC/Ext/Blend/Apply" for a, _ in messages) for messages in got))
        before = places(got[1])["Head"]
        for messages in got:
            messages.clear()
        output.send(result_of(two[1:]))  # 4 left; 9 keeps the second port
        wait_for(lambda: any(a == "/VMC/Ext/Blend/Apply" for a, _ in got[1]))
        assert not got[0]
        np.testing.assert_allclose(places(got[1])["Head"], before)
        output.close()


def test_packets_are_small_enough_to_travel_whole(anny, person):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.settimeout(2)
        output = VmcOutput(anny, "127.0.0.1", listener.getsockname()[1])
        output.send(result_of(person()))
        sizes = []
        with contextlib.suppress(TimeoutError):
            while True:
                sizes.append(len(listener.recv(65536)))
                listener.settimeout(0.2)
        output.close()
    assert len(sizes) > 1
    assert max(sizes) <= 1400


def test_nobody_listens_and_nothing_happens(anny, person):
    output = VmcOutput(anny, "127.0.0.1", 9)
    for _ in range(3):
        output.send(result_of(person()))
    output.close()


def test_shapes_that_are_not_predicted_are_not_sent(person):
    humans = dataclasses.replace(person(), unpredicted=("jawOpen",))
    assert "JawOpen" not in face_shapes(humans)
    assert len(face_shapes(humans)) == 51


# ---- the page


def fetch(address: str, host: str | None = None) -> tuple[int, bytes]:
    request = urllib.request.Request(address, headers={"Host": host} if host else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read(200_000) if "stream" not in address else answer.read(500)
    except urllib.error.HTTPError as error:
        return error.code, b""


def test_the_page_shows_pictures_and_state(make_humans):
    humans = make_humans((0.1, 0.2, 3.0), track_ids=np.array([5]))
    page = LivePage()
    try:
        assert json.loads(fetch(f"{page.address}/state.json")[1]) == {"frame": None}
        page.send(result_of(humans, 12))
        assert b"stream.mjpg" in fetch(page.address + "/")[1]
        assert json.loads(fetch(f"{page.address}/state.json")[1])["people"] == 1
        status, start = fetch(f"{page.address}/stream.mjpg")
        assert status == 200
        assert b"Content-Type: image/jpeg" in start
        assert b"\xff\xd8" in start
        assert fetch(f"{page.address}/", host="evil.example:80")[0] == 403
        with pytest.raises(OSError, match=r"cannot listen on port \d+: it is taken; choose another$"):
            LivePage(int(page.address.rpartition(":")[2]))
    finally:
        page.close()


# ---- the command


@pytest.mark.slow
def test_the_command_sends_and_sums_up(tmp_path, monkeypatch, capsys):
    film = write_film(tmp_path / "film.mp4", [picture()] * 10)
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: StandIn())
    lines = tmp_path / "people.jsonl"
    with receiver() as (port, (got,)):
        words = ["--jsonl", str(lines), "--osc", f"127.0.0.1:{port}", "--port", "0", "--fov", "60"]
        assert run(["live", str(film), *words]) == 0
        wait_for(lambda: ("/multihmr/frame", 9) in [(a, v[0]) for a, v in got])
    out = capsys.readouterr().out
    assert "page: http://127.0.0.1:" in out
    assert "dropped; latency 0.0" in out
    assert "2 people" in out
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert records[-1]["frame"] == 9
    assert len(records) + sum(record["dropped"] for record in records) == 10


def test_json_on_standard_output_is_alone_there(tmp_path, monkeypatch, capsys):
    film = write_film(tmp_path / "film.mp4", [picture()] * 3)
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: StandIn())
    assert run(["live", str(film), "--jsonl", "-", "--no-page", "--fov", "60"]) == 0
    captured = capsys.readouterr()
    assert all(json.loads(line)["format"] == "multihmr-live-1" for line in captured.out.splitlines())
    assert "latency" in captured.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nothing.mp4"], "there is no video nothing.mp4"),
        (["rtsp://127.0.0.1:9/x"], "cannot be read"),
        (["7"], "there is no webcam 7"),
        (["0", "--seconds", "0"], "--seconds must be greater than 0"),
        (["0", "--fov", "300"], "fov"),
    ],
)
def test_what_cannot_be_done_is_said_before_a_model_is_loaded(words, said, monkeypatch, capsys):
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: pytest.fail("loaded"))
    assert run(["live", *words]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("text", ["39539x", "127.0.0.1:", "host:0", "host:70000"])
def test_addresses_are_checked(text, capsys):
    with pytest.raises(SystemExit):
        run(["live", "--vmc", text])
    assert "expected HOST:PORT" in capsys.readouterr().err


def test_a_taken_port_of_the_websocket_is_said():
    from multihmr.live.records import WebSocketOutput

    pytest.importorskip("websockets")
    output = WebSocketOutput(0)
    try:
        with pytest.raises(
            OSError, match=r"the WebSocket cannot listen on port \d+: it is taken; choose another$"
        ):
            WebSocketOutput(int(output.address.rpartition(":")[2]))
    finally:
        output.close()
