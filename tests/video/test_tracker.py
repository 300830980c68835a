from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from multihmr.humans import Humans
from multihmr.video.tracker import LIVE, Tracker, Tracking, follow

FPS = 30
STILL = Tracking(smoothing=None)
Place = tuple[float, float, float]


@pytest.fixture
def crowd(make_humans) -> Callable[..., Humans]:
    """crowd({size: place}): balls whose shape is their size, as is the offset of their joints."""

    def make(people: dict[float, Place], **fields) -> Humans:
        shape = np.array(list(people)).reshape(-1, 1)
        return make_humans(*people.values(), shape=shape, **fields)

    return make


def timed(frames: Iterable[Humans], fps: float = FPS) -> list[tuple[float, Humans]]:
    return [(i / fps, humans) for i, humans in enumerate(frames)]


def ids_of(result: Iterable[Humans]) -> list[dict[float, int]]:
    """{size: id} of each frame."""
    return [dict(zip(np.round(h.shape[:, 0], 3).tolist(), h.track_ids.tolist(), strict=True)) for h in result]


def test_two_who_cross_keep_their_ids(crowd):
    x = np.linspace(-1, 1, 60)
    frames = [crowd({0.3: (a, 0, 3), 0.5: (-a, 0, 3.6)}) for a in x]
    ids = ids_of(follow(timed(frames), STILL))
    assert len({tuple(sorted(frame.items())) for frame in ids}) == 1
    assert sorted(ids[0].values()) == [1, 2]


def test_order_of_people_does_not_matter(crowd):
    frames = [crowd({0.3: (a, 0, 3), 0.5: (-a, 0, 3.6)}) for a in np.linspace(-1, 1, 40)]
    shuffled = [humans[[1, 0]] if i % 3 == 1 else humans for i, humans in enumerate(frames)]
    assert ids_of(follow(timed(shuffled), STILL)) == ids_of(follow(timed(frames), STILL))


def test_nearest_comes_first_and_frames_in_are_frames_out(crowd):
    frames = [crowd({0.5: (0.5, 0, 5), 0.3: (-0.5, 0, 2)})] * 3 + [crowd({})] * 2
    result = list(follow(timed(frames), STILL))
    assert [len(humans) for humans in result] == [2, 2, 2, 0, 0]
    assert result[0].translation[0, 2] == 2
    assert result[4].track_ids.shape == result[4].filled.shape == (0,)


def test_who_leaves_and_comes_back_has_the_same_id(crowd):
    wobble = np.random.default_rng(0).normal(0, 0.01, 100)

    def at(i: int) -> Humans:
        people = {0.5 + wobble[i]: (-0.5, 0, 3.0)}
        if not 30 <= i < 75:
            people[0.3 + wobble[-i]] = (0.8, 0, 3.0)
        return crowd(people)

    result = list(follow(timed(at(i) for i in range(100)), STILL))
    assert [len(humans) for humans in result] == [2] * 30 + [1] * 45 + [2] * 25
    by_side = [{t[0] > 0: i for t, i in zip(h.translation, h.track_ids, strict=True)} for h in result]
    assert by_side[99] == by_side[0]


def test_a_stranger_of_another_shape_gets_another_id(crowd):
    wobble = np.random.default_rng(0).normal(0, 0.01, 100)
    frames = [
        crowd({(0.3 if i < 40 else 0.6) + wobble[i]: (0.8, 0, 3.0)}) if not 40 <= i < 80 else crowd({})
        for i in range(100)
    ]
    ids = [h.track_ids.tolist() for h in follow(timed(frames), STILL)]
    assert (ids[0], ids[99]) == ([1], [2])


def test_who_was_away_for_longer_than_memory_is_a_stranger(crowd):
    frames = [crowd({0.3: (0, 0, 3)}) if not 30 <= i < 95 else crowd({}) for i in range(100)]
    ids = [h.track_ids.tolist() for h in follow(timed(frames), dataclasses.replace(STILL, memory=2.0))]
    assert (ids[0], ids[99]) == ([1], [2])


def test_small_gaps_are_filled_and_marked(crowd):
    x = np.linspace(0, 1, 30)
    frames = [crowd({0.3: (x[i], 0, 3)} if i not in (10, 11, 12) else {}) for i in range(30)]
    result = list(follow(timed(frames), STILL))
    assert [bool(h.filled[0]) for h in result] == [i in (10, 11, 12) for i in range(30)]
    assert {h.track_ids[0] for h in result} == {1}
    np.testing.assert_allclose([h.translation[0, 0] for h in result], x, atol=1e-6)
    assert result[11].scores[0] == 0


def test_long_gaps_and_ends_are_not_filled(crowd):
    there = [i < 5 or 17 <= i < 25 for i in range(30)]
    frames = [crowd({0.3: (0, 0, 3)} if seen else {}) for seen in there]
    assert [len(h) == 1 for h in follow(timed(frames), STILL)] == there


def test_faint_people_are_followed_but_not_begun(crowd):
    def frame(score: float) -> Humans:
        return crowd({0.3: (0, 0, 3)}, scores=[score])

    begun = list(follow(timed([frame(0.9), frame(0.2), frame(0.2)]), STILL, new=0.3))
    assert [h.track_ids.tolist() for h in begun] == [[1], [1], [1]]
    assert [len(h) for h in follow(timed([frame(0.2), frame(0.9)]), STILL, new=0.3)] == [0, 1]


@pytest.mark.slow
def test_shape_is_held_and_motion_is_calmer(crowd):
    random = np.random.default_rng(0)
    frames = [crowd({0.3 + random.normal(0, 0.02): (0, 0, 3 + random.normal(0, 0.1))}) for _ in range(60)]
    result = list(follow(timed(frames)))
    assert len({float(h.shape[0, 0]) for h in result}) == 1
    assert float(result[0].shape[0, 0]) == pytest.approx(0.3, abs=0.01)
    assert np.std([h.translation[0, 2] for h in result]) < 0.06


def test_the_clock_counts_not_the_frames(crowd):
    """Two metres a second are the same person at 30 frames a second, and another after a jump."""
    steps = [crowd({0.3: (2 * i / 30, 0, 3)}) for i in range(20)]
    assert {h.track_ids[0] for h in follow(timed(steps), STILL)} == {1}
    jump = [crowd({0.3: (0, 0, 3)}), crowd({0.3: (1.9, 0, 3)})]
    tracker = Tracker()
    assert [tracker(humans, time).tolist() for time, humans in timed(jump)] == [[0], [1]]
    tracker = Tracker()
    assert [tracker(humans, time).tolist() for time, humans in timed(jump, fps=1.5)] == [[0], [0]]


def test_live_people_come_at_once(crowd):
    taken = []

    def frames() -> Iterable[tuple[float, Humans]]:
        for i in range(5):
            taken.append(i)
            yield i / FPS, crowd({0.3: (0, 0, 3)})

    stream = follow(frames(), LIVE)
    next(stream)
    assert taken == [0]


def test_no_more_frames_are_held_than_the_lookahead(crowd):
    taken = []

    def frames() -> Iterable[tuple[float, Humans]]:
        for i in range(50):
            taken.append(i)
            yield i / FPS, crowd({})

    next(follow(frames(), Tracking(lookahead=12)))
    assert len(taken) == 13


def test_what_was_seen_is_forgotten(crowd):
    """Somebody else or somebody who came back, second by second: nothing piles up."""
    from multihmr.video.tracker import _Follower

    follower = _Follower(Tracking(lookahead=2, fill=2, memory=3.0, smoothing=None), 0.0)
    for second in range(100):
        follower.take(float(second), crowd({0.3: ((second * 7) % 5 - 2.0, 0, 3)}))
        if len(follower.ahead) > 2:
            follower.give()
    assert max(len(follower.known), len(follower.ids), len(follower.tracker.seen)) < 12


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="must not be negative"):
        Tracking(memory=-1)
    with pytest.raises(ValueError, match="gaps of 20 frames cannot be filled with a lookahead of 10"):
        Tracking(lookahead=10, fill=20)


def doubled(crowd: Callable[..., Humans], *, first: int, last: int, passing: bool = False) -> list[Humans]:
    """60 frames of somebody, who is predicted twice from `first` on, 5 cm beside and a tenth deeper."""
    frames = []
    for i in range(60):
        people: dict[float, Place] = {0.3: (0.5, 0, 3.0)}
        if first <= i < last:
            x = 0.55 if not passing else -1 + i / 20
            people[0.301] = (x, 0, 3.3 if not passing else 3.5)
        frames.append(crowd(people, scores=[0.9, 0.6][: len(people)]))
    return frames


def test_a_second_prediction_of_somebody_tracked_is_no_new_person(crowd):
    result = list(follow(timed(doubled(crowd, first=10, last=60)), STILL, new=0.3))
    assert [h.track_ids.tolist() for h in result] == [[1]] * 60


def test_two_tracks_in_the_same_place_are_one(crowd):
    """Apart in the first frame, so that both are born."""
    frames = doubled(crowd, first=0, last=60)
    frames[0] = crowd({0.3: (0.5, 0, 3.0), 0.301: (1.2, 0, 3.3)}, scores=[0.9, 0.6])
    ids = [h.track_ids.tolist() for h in follow(timed(frames), STILL, new=0.3)]
    assert ids == [[1]] * 60  # nothing of the second is left, since the frames were not given yet
    live = [h.track_ids.tolist() for h in follow(timed(frames), Tracking(0, 0, smoothing=None), new=0.3)]
    assert live[0] == [1, 2]
    assert live[-30:] == [[1]] * 30


def test_who_passes_before_somebody_stays(crowd):
    result = list(follow(timed(doubled(crowd, first=0, last=60, passing=True)), STILL, new=0.3))
    assert [len(h) for h in result] == [2] * 60
    assert {i for h in result for i in h.track_ids.tolist()} == {1, 2}
