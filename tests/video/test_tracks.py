from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toys import ToyBody, random_humans

from multihmr.humans import Humans
from multihmr.video.tracks import Track, collect, load_track, save_track, with_meshes, without_meshes


@pytest.fixture(scope="module")
def crowd() -> list[Humans]:
    """Person 3 in frames 0, 1, 2 (filled in 1), person 7 in frame 2."""
    two = random_humans(ToyBody(), 2)
    one = dataclasses.replace(two[:1], track_ids=[3])
    both = dataclasses.replace(two, track_ids=[3, 7], shape=np.tile(two.shape[:1], (2, 1)))
    return [one, dataclasses.replace(one, filled=[True]), both]


def test_collect_gives_one_track_an_identity(crowd):
    first, second = collect(crowd, fps=10)
    assert (first.id, second.id) == (3, 7)
    assert (first.frames.tolist(), second.frames.tolist()) == ([0, 1, 2], [2])
    np.testing.assert_allclose(first.times, [0, 0.1, 0.2])
    assert first.filled.tolist() == [False, True, False]
    np.testing.assert_array_equal(second.pose[0], crowd[2].pose[1])


def test_a_track_makes_the_meshes_again(crowd):
    for track, row in zip(collect(crowd), (0, 1), strict=True):
        again = list(track.humans(ToyBody()))[-1]
        truth = with_meshes(crowd[2][row], ToyBody())
        for field in dataclasses.fields(Humans):
            if field.name not in ("topology", "filled", "track_ids"):
                np.testing.assert_array_equal(getattr(again, field.name), getattr(truth, field.name))


def test_standing_undoes_laying_meshes_away(crowd):
    people = crowd[2]
    light = without_meshes(people)
    assert light.vertices.size == 0
    again = with_meshes(light, ToyBody())
    np.testing.assert_allclose(again.vertices[0], people.vertices[0], atol=1e-6)
    assert len(with_meshes(light[[]], ToyBody())) == 0


def test_tracks_are_cut_and_asked_for_frames(crowd):
    track = collect(crowd)[0]
    assert track[~track.filled].frames.tolist() == [0, 2]
    assert [one.frames.tolist() for one in track] == [[0], [1], [2]]
    assert track.at(2).frames.tolist() == [2]
    with pytest.raises(ValueError, match="person 3 is not in frame 9"):
        track.at(9)


def test_npz_rebuilds_a_track(crowd, tmp_path):
    track = collect(crowd, fps=29.97)[0]
    again = load_track(save_track(track, tmp_path / "person.npz"), ToyBody())
    for field in dataclasses.fields(Track):
        if field.name != "topology":
            np.testing.assert_array_equal(getattr(again, field.name), getattr(track, field.name))


def test_npz_has_the_names_of_amass(crowd, tmp_path):
    with np.load(save_track(collect(crowd)[0], tmp_path / "a.npz"), allow_pickle=False) as stored:
        assert stored["poses"].shape == (3, 9)
        assert stored["trans"].shape == (3, 3)
        assert str(stored["surface_model_type"]) == "toy"
        assert float(stored["mocap_frame_rate"]) == 30


def test_what_is_no_track_is_refused(crowd, tmp_path):
    path = crowd[0].save(tmp_path / "people.npz")
    with pytest.raises(ValueError, match="must have the format 'multihmr-track-1'"):
        load_track(path, ToyBody())
    path.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged or no"):
        load_track(path, ToyBody())
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_track(tmp_path / "away.npz", ToyBody())


def test_wrong_tracks_say_which_field(crowd):
    track = collect(crowd)[0]
    with pytest.raises(ValueError, match=r"scores of a track must be \(3\), got \(2,\)"):
        dataclasses.replace(track, scores=[1, 1])
    with pytest.raises(ValueError, match="must increase"):
        dataclasses.replace(track, frames=[0, 0, 1])
    with pytest.raises(ValueError, match="people of frame 0 have no track_ids"):
        collect([random_humans(ToyBody(), 1)])


def test_amass_rows_are_at_the_mocap_frame_rate(tmp_path):
    """A film of varying rate whose person is away for 0.4 s: rows every 1/10 s, as the .bvh has them."""
    times = np.array([2.0, 2.1, 2.3, 2.7, 2.8])
    people = [dataclasses.replace(p, track_ids=np.array([1])) for p in random_humans(ToyBody(), 5)]
    track = collect(people, fps=10, times=times)[0]
    with np.load(save_track(track, tmp_path / "a.npz"), allow_pickle=False) as stored:
        assert stored["mocap_rows"].tolist() == [0, 1, 1, 2, 2, 2, 2, 3, 4]
        np.testing.assert_array_equal(stored["trans"], track.pelvis[stored["mocap_rows"]])
        assert len(stored["poses"]) == 9  # from 2.0 to 2.8 s
        assert float(stored["mocap_start_time"]) == 2.0
        np.testing.assert_array_equal(stored["times"], times)
