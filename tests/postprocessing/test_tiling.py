"""Small people: parts of a picture are looked at again, and nobody is counted twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from toys import tiny_glnet_model

import multihmr
from multihmr.model import passes
from multihmr.postprocessing.tiling import OVERLAP, merge_tiles, tiles_of
from multihmr.preprocessing.options import MOST_TILES


@pytest.mark.parametrize("count", range(1, MOST_TILES + 1))
@pytest.mark.parametrize("size", [(480, 640), (640, 480), (500, 500), (100, 1600), (1, 1), (3, 1000)])
def test_parts_cover_the_picture_and_overlap(size, count):
    height, width = size
    tiles = tiles_of(height, width, count)
    seen = np.zeros(size, int)
    for x0, y0, x1, y1 in tiles:
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        seen[y0:y1, x0:x1] += 1
    assert seen.all()
    x0, _, x1, _ = tiles[0]
    side = max(tiles[0][2] - tiles[0][0], tiles[0][3] - tiles[0][1])
    assert all(tile[2] - tile[0] == min(side, width) for tile in tiles)
    assert all(tile[3] - tile[1] == min(side, height) for tile in tiles)
    columns = sorted({tile[0] for tile in tiles})
    rows = sorted({tile[1] for tile in tiles})
    for starts in (columns, rows):
        if len(starts) > 1:
            assert max(np.diff(starts)) <= (1 - OVERLAP) * side + 1
    if max(size) > 100:
        assert max(len(columns), len(rows)) == count


def test_one_part_is_the_picture():
    assert tiles_of(480, 640, 1) == [(0, 0, 640, 480)]


WHOLE = np.float32([[100, 0, 80], [0, 100, 60], [0, 0, 1]])  # of pictures of 160 x 120 pixels
LEFT, RIGHT = (0, 0, 100, 120), (60, 0, 160, 120)


@pytest.fixture
def once(make_humans):
    """once(whole, left, right): places of the people kept, and where each was found."""

    def keep(*places, scores=(None, None, None), tiles=(LEFT, RIGHT)):
        seen = []
        for at, tile, score in zip(places, ((0, 0), *tiles), scores, strict=True):
            K = WHOLE - np.float32([[0, 0, tile[0]], [0, 0, tile[1]], [0, 0, 0]])
            given = {} if score is None else {"scores": np.float32(score)}
            seen.append(make_humans(*at, radius=0.2, K=K, **given))
        owners = np.repeat(np.arange(3), [len(humans) for humans in seen])
        kept = merge_tiles(seen[0], seen[1:], tiles)
        return [(int(owners[i]), int(i - np.searchsorted(owners, owners[i]))) for i in kept]

    return keep


FAR_LEFT, MIDDLE, FAR_RIGHT = (-2.5, 0, 5), (0, 0, 5), (2.5, 0, 5)


def test_who_is_whole_in_a_part_is_taken_from_there(once):
    assert once([FAR_LEFT, FAR_RIGHT], [FAR_LEFT], []) == [(1, 0), (0, 1)]


def test_who_is_seen_in_two_parts_is_one_person_the_better_scored(once):
    nearer = (0, 0, 4.2)  # two looks do not agree about a depth
    assert once([], [MIDDLE], [nearer], scores=(None, [0.6], [0.8])) == [(2, 0)]
    assert once([], [MIDDLE], [nearer], scores=(None, [0.8], [0.6])) == [(1, 0)]


def test_the_better_view_is_kept_whole_picture_or_part(once):
    """A photograph's person of .89 became one of .62, 0.9 m farther away, with two tiles."""
    farther = (-2.9, 0, 5.8)
    assert once([FAR_LEFT], [farther], [], scores=([0.89], [0.62], None)) == [(0, 0)]
    assert once([FAR_LEFT], [farther], [], scores=([0.62], [0.89], None)) == [(1, 0)]
    assert once([FAR_LEFT], [farther], [], scores=([0.89], [0.85], None)) == [(1, 0)]  # more pixels, as sure


def test_two_people_side_by_side_stay_two(once):
    assert sorted(once([], [MIDDLE, (0.4, 0, 5)], [(0.8, 0, 5)])) == [(1, 0), (1, 1), (2, 0)]


def test_who_stands_close_behind_another_stays(once):
    """A part sees the nearer of two whom the whole picture tells apart: the farther one is not the same."""
    nearer, farther = (0, 0, 5), (0.25, 0, 6.3)
    assert sorted(once([nearer, farther], [(0, 0, 5.1)], [])) == [(0, 1), (1, 0)]


def test_who_is_cut_off_by_a_part_is_left_to_the_others(once):
    """Of these balls the head is in the middle of the picture, the root ten pixels below."""
    upper, lower = (0, 0, 160, 65), (0, 40, 160, 120)
    person = (0, 0, 2)
    assert once([person], [person], [], tiles=(upper, lower)) == [(0, 0)]
    assert once([], [person], [person], tiles=(upper, lower)) == [(2, 0)]
    assert once([], [person], [], tiles=(upper, lower)) == []


def test_who_is_cut_off_by_the_picture_is_as_good_as_whole(once):
    lowest = (0, 1.1, 2)
    assert once([lowest], [], [lowest], tiles=((0, 0, 160, 65), (0, 40, 160, 120))) == [(2, 0)]


def test_a_head_behind_somebody_is_no_head(once):
    """What the whole picture knows stays, though, and so does who stands beside."""
    near, behind, beside = (-0.2, 0, 1), (-1.0, 0, 3), (-1.8, 0, 3)
    assert once([near], [behind], []) == [(0, 0)]
    assert once([near], [(-0.6, 0, 3)], []) == [(0, 0)]
    assert sorted(once([near], [beside], [])) == [(0, 0), (1, 0)]
    assert sorted(once([near, behind], [behind], [])) == [(0, 0), (1, 0)]


def test_nobody_anywhere(once):
    assert once([], [], []) == []


@pytest.fixture(scope="module")
def model():
    return multihmr.load_model(device="cpu")


@pytest.fixture(scope="module")
def street():
    """Her portrait, 80 pixels high, in the corner of a large picture with nobody else."""
    data = pytest.importorskip("skimage.data", reason="its pictures come with scikit-image")
    picture = np.full((720, 1280, 3), 128, np.uint8)
    picture[500:580, 1000:1080] = np.asarray(Image.fromarray(data.astronaut()).resize((80, 80)))
    return picture


K = np.float32([[1100, 0, 640], [0, 1100, 360], [0, 0, 1]])


@pytest.mark.slow
def test_small_people_are_found_in_parts_where_they_are(model, street):
    assert len(model.predict(street, K)) == 0
    humans = model.predict(street, K, tiles=4)
    assert len(humans) == 1
    face = humans.keypoints("coco17").xy[0, :5].mean(0)
    assert np.abs(face - (1035, 518)).max() < 8
    assert humans.K_source == "given"
    assert humans.image_size == (720, 1280)
    np.testing.assert_array_equal(humans.K, K)
    x = humans.joints @ K.T
    np.testing.assert_allclose(humans.joints_2d, x[..., :2] / x[..., 2:], atol=0.01)


@pytest.mark.slow
def test_people_that_the_whole_picture_shows_are_not_counted_again(model):
    data = pytest.importorskip("skimage.data", reason="its pictures come with scikit-image")
    whole, closer = (model.predict(data.astronaut(), tiles=tiles) for tiles in (1, 2))
    assert len(whole) == len(closer) == 1
    assert closer.K_source == "predicted"
    np.testing.assert_array_equal(closer.K, whole.K)
    assert np.linalg.norm(closer.translation - whole.translation) < 0.25 * whole.distances[0]


@pytest.mark.slow
def test_more_tiles_make_nobody_worse(model):
    """Whatever their number, everybody of the whole picture stays, but for `PREFERENCE` as well scored."""
    picture = Path(__file__).parents[2] / "examples/images/group.jpg"
    whole = model.predict(picture)
    for tiles in (2, 3, 5):
        tiled = model.predict(picture, tiles=tiles)
        apart = np.linalg.norm(whole.translation[:, None] - tiled.translation, axis=2)
        nearest = apart.argmin(1)
        assert (apart.min(1) < 0.25 * whole.distances).all()
        assert len(set(nearest.tolist())) == len(whole)
        assert (tiled.scores[nearest] > whole.scores - 0.1).all()


@pytest.mark.slow
def test_tiles_auto_looks_closer_where_nobody_is_found(model, street, monkeypatch):
    runs = []
    real = passes.predict_whole_images
    monkeypatch.setattr(
        passes,
        "predict_whole_images",
        lambda model, images, *a: runs.append(len(images)) or real(model, images, *a),
    )
    auto = model.predict(street, K, tiles="auto")
    expected = model.predict(street, K, tiles=2)
    assert len(expected) == 1
    np.testing.assert_array_equal(auto.vertices, expected.vertices)
    runs.clear()
    assert len(model.predict(Path(__file__).parents[2] / "examples/images/group.jpg", tiles="auto")) == 3
    assert runs == [1]  # somebody was found at once


@pytest.mark.slow
def test_batches_and_limits(model, street):
    pictures = [street, np.zeros((1, 1, 3), np.uint8)]
    both = model.predict_batch(pictures, [K, None], tiles=4, batch_size=3)
    assert [len(humans) for humans in both] == [1, 0]
    assert len(model.predict(street, K, tiles=4, max_people=0)) == 0
    for tiles in (0, MOST_TILES + 1):
        with pytest.raises(ValueError, match=f"parts .* 1 to {MOST_TILES}, or 'auto', got {tiles}"):
            model.predict(street, tiles=tiles)


def test_a_glnet_finds_people_in_parts_too():
    asked = {}

    class Finder:
        def predict_batch(self, images, Ks, **options):
            asked.update(options)
            raise InterruptedError

    glnet = tiny_glnet_model()
    glnet.load_detector = lambda device: Finder()
    with pytest.raises(InterruptedError):
        glnet.predict(np.zeros((64, 64, 3), np.uint8), tiles=3, limbs=False)
    assert asked["tiles"] == 3
