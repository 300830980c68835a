from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from multihmr.raster import rasterize
from multihmr.render import depth_and_ids, draw

GREY = np.full((120, 160, 3), 128, np.uint8)


def test_nearest_hides_farthest_in_any_order(make_humans):
    for places, near in ((((0, 0, 2), (0.1, 0, 4)), 0), (((0.1, 0, 4), (0, 0, 2)), 1)):
        depth, ids = depth_and_ids(make_humans(*places))
        assert ids[60, 80] == near
        assert depth[60, 80] == pytest.approx(1.7, abs=0.02)


def test_a_ball_covers_its_outline_and_no_more(make_humans):
    depth, ids = depth_and_ids(make_humans((0, 0, 2), radius=0.5))
    y, x = np.mgrid[:120, :160] + 0.5
    distance = np.hypot(x - 80, y - 60)
    radius = 100 * 0.5 / np.sqrt(2**2 - 0.5**2)  # of the cone that touches the ball
    assert (ids[distance < radius - 1] == 0).all()
    assert (ids[distance > radius + 0.5] == -1).all()
    assert np.isinf(depth[ids < 0]).all()


def test_depth_of_a_tilted_sheet_is_exact_and_without_gaps():
    """Triangles of all forms, reaching beyond the picture on every side."""
    a = np.arange(11 * 11).reshape(11, 11)
    grid = np.stack(np.meshgrid(np.arange(11), np.arange(11)), -1).reshape(-1, 2) * 16.0 - 20
    xy = grid + np.random.default_rng(0).uniform(-5, 5, grid.shape)
    corners = (a[:-1, :-1], a[:-1, 1:], a[1:, 1:]), (a[:-1, :-1], a[1:, 1:], a[1:, :-1])
    faces = np.concatenate([np.stack(corner, -1).reshape(-1, 3) for corner in corners])
    nearness = 0.5 + 1e-3 * xy[:, 0] - 2e-3 * xy[:, 1]
    face, near = rasterize(xy, nearness, faces, (110, 120))
    y, x = np.mgrid[:110, :120] + 0.5
    assert (face >= 0).all()
    np.testing.assert_allclose(near, 0.5 + 1e-3 * x - 2e-3 * y, atol=1e-5)


def test_people_at_and_behind_the_camera_are_left_out(make_humans):
    humans = make_humans((0, 0, 0.1), (0, 0, -3), (0, 0, 3))
    _, ids = depth_and_ids(humans[[1, 2]])
    assert set(np.unique(ids)) == {-1, 1}
    assert draw(humans, side_views=False).dtype == np.uint8  # the camera stands inside a person


def test_overlay_keeps_the_photograph_where_nobody_is(make_humans):
    humans = make_humans((0, 0, 2), (0.6, 0, 3))
    picture = draw(humans, GREY, side_views=False)
    assert picture.shape == GREY.shape
    _, ids = depth_and_ids(humans)
    seen = Image.fromarray((ids >= 0).astype(np.uint8) * 255)
    outside = np.asarray(seen.filter(ImageFilter.MaxFilter(5))) == 0
    inside = np.asarray(seen.filter(ImageFilter.MinFilter(5))) > 0
    assert (picture[outside] == 128).all()
    assert (picture[inside] != 128).any(-1).all()


def test_edges_are_mixed(make_humans):
    picture = draw(make_humans((0, 0, 2)), np.zeros_like(GREY), side_views=False, opacity=1.0)
    row = picture[60].max(-1)
    assert ((row > 0) & (row < 0.75 * row.max())).any()  # a pixel half covered
    assert len(np.unique(row)) > 5


@pytest.mark.parametrize("size", [(1, 1), (20, 15), (120, 160), (300, 90), (60, 400)])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_side_views_stand_beside_images_of_any_form(make_humans, size, count):
    places = [(0, 0, 2), (0.5, 0, 3), (-1, 0.2, 50)][:count]
    picture = draw(make_humans(*places, image_size=size), np.zeros((*size, 3), np.uint8))
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert max(picture.shape) >= 480


def test_side_and_top_view_put_people_where_they_are(make_humans):
    """Right of the camera is right in the view from above; the farther stands higher there."""
    humans = make_humans((-1, 0, 3), (1, 0, 5))
    picture = draw(humans, np.zeros_like(GREY)).astype(int)
    top = picture[210:, 660:]  # 640x480 of photograph, then panels of 298x202 and 298x278
    rows, columns = [], []
    for color in humans.colors.astype(int):
        hue = top - top.mean(-1, keepdims=True), color - color.mean()
        match = (hue[0] * hue[1]).sum(-1) / (np.linalg.norm(hue[0], axis=-1) + 20) / np.linalg.norm(hue[1])
        found = np.argwhere(match > 0.7 * match.max())
        rows.append(np.median(found[:, 0]))
        columns.append(np.median(found[:, 1]))
    assert columns[0] < columns[1]
    assert rows[0] > rows[1]


def test_large_images_are_drawn_smaller(make_humans):
    humans = make_humans((0, 0, 2), image_size=(300, 500))
    assert draw(humans, side_views=False, max_side=100).shape == (60, 100, 3)


def test_another_image_is_refused(make_humans):
    with pytest.raises(ValueError, match="image is 200x100 but these humans were found in 160x120"):
        draw(make_humans((0, 0, 2)), np.zeros((100, 200, 3), np.uint8))
