from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from PIL import Image, ImageFilter

from multihmr.visualization import draw as render
from multihmr.visualization.draw import depth_and_ids, draw
from multihmr.visualization.rasterizer import Mesh, paint, rasterize, resolve

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


SQUARE = np.array([[0, 1, 2], [0, 2, 3]]).T  # clockwise: it turns away


def square(left, top, side, *, near, color, faces=SQUARE[::-1], two_sided=False):
    """A mesh of two triangles; nearness and colour (3,), or those of its four corners."""
    x, y = np.float32([left, left + side, left + side, left]), np.float32([top, top, top + side, top + side])
    colors = np.broadcast_to(np.reshape(np.float32(color), (3, -1)), (3, 4))
    return Mesh(x, y, np.broadcast_to(np.float32(near), 4), colors, faces, two_sided)


def shown(*meshes, size=(16, 16), samples=1):
    """(H, W, 4): colour and cover of every pixel."""
    pixels, colors, cover = resolve(paint(meshes, size), samples)
    picture = np.zeros((size[0] // samples, size[1] // samples, 4))
    picture.reshape(-1, 4)[pixels] = np.column_stack([colors, cover])
    return picture


def test_colours_run_evenly_over_a_triangle_to_its_last_sample():
    red = [0, 1, 1, 0]
    picture = shown(square(-100, -50, 400, near=1, color=[red, [1] * 4, [0] * 4]), size=(300, 200))
    truth = 255 * (np.arange(200) + 100.5) / 400
    np.testing.assert_allclose(picture[..., 0], np.broadcast_to(truth, (300, 200)), atol=6)  # of 255
    assert abs(picture[..., 0] - truth).mean() < 2
    assert (picture[..., 1] == 255).all()
    assert (picture[..., 2] == 0).all()


def test_what_crosses_is_cut_where_it_crosses():
    """Blue rises towards the viewer to the right, red lies flat: they are as near in the middle."""
    flat = square(0, 0, 16, near=0.5, color=(1, 0, 0))
    slope = square(0, 0, 16, near=[0, 1, 1, 0], color=(0, 0, 1))
    for order in ((flat, slope), (slope, flat)):
        picture = shown(*order)
        assert (picture[:, :8, 0] == 255).all()
        assert (picture[:, 8:, 2] == 255).all()


def test_what_turns_away_is_painted_only_if_it_may_be_seen():
    away = {"near": 1, "color": (1, 1, 1), "faces": SQUARE}
    assert not shown(square(0, 0, 16, **away)).any()
    assert shown(square(0, 0, 16, **away, two_sided=True)).all()


@pytest.mark.parametrize("samples", [1, 2, 4])
def test_cover_is_the_share_of_a_pixel(samples):
    picture = shown(square(0, 0, 1, near=1, color=(1, 1, 1)), size=(samples, samples), samples=samples)
    assert picture[0, 0, 3] == pytest.approx(1 / samples**2)
    assert (picture[0, 0, :3] == 255).all()


def test_a_picture_painted_in_bands_is_the_same(make_humans, monkeypatch):
    humans = make_humans((0, 0, 2), (0.6, 0, 3))
    whole = draw(humans, GREY, side_views=False)
    monkeypatch.setattr(render, "BAND", 1000)
    assert abs(draw(humans, GREY, side_views=False).astype(int) - whole).max() <= 1


def test_an_open_surface_shows_its_inside(make_humans, ball_topology):
    depth = make_humans((0, 0, 2)).vertices[0][ball_topology.faces].mean(1)[:, 2]
    bowl = dataclasses.replace(ball_topology, faces=ball_topology.faces[depth > 2])
    picture = draw(make_humans((0, 0, 2), topology=bowl), GREY, side_views=False)
    assert (picture[60, 80] != 128).any()


def test_what_is_left_out_of_a_closed_surface_is_hidden(make_humans, ball_topology, monkeypatch):
    corners = [144, 150, 156, 162]  # on the ball's equator; its poles are 0 and 287
    faces = [
        f for a, b in zip(corners, corners[1:] + corners[:1], strict=True) for f in ((b, a, 0), (a, b, 287))
    ]
    humans = make_humans((0.1, 0.2, 2), topology=dataclasses.replace(ball_topology, faces=faces))
    assert render._is_closed(humans.topology)
    closed = draw(humans, GREY, side_views=False)
    monkeypatch.setattr(render, "_is_closed", lambda topology: False)
    assert (closed == draw(humans, GREY, side_views=False)).all()
    assert (closed[68, 85] != 128).any()


def test_a_surface_is_closed_if_every_edge_has_two_sides(ball_topology):
    faces = np.array([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]])
    solid, open_, turned = faces, faces[:3], np.concatenate([faces[:3], faces[3:, ::-1]])
    said = [render._is_closed(dataclasses.replace(ball_topology, faces=f)) for f in (solid, open_, turned)]
    assert said == [True, False, False]


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


def test_the_default_lets_the_person_be_seen_through(make_humans):
    image = np.zeros((120, 160, 3), np.uint8)
    image[:, ::2] = 255  # stripes
    picture = draw(make_humans((0, 0, 2)), image, side_views=False)
    middle = picture[60, 74:86].astype(int)
    assert np.abs(np.diff(middle, axis=0)).min() > 40  # the stripes are still there
    opaque = draw(make_humans((0, 0, 2)), image, side_views=False, opacity=1.0)[60, 74:86].astype(int)
    assert np.abs(np.diff(opaque, axis=0)).max() < 20
    with pytest.raises(ValueError, match=r"opacity must be between 0 and 1, got 1\.5"):
        draw(make_humans((0, 0, 2)), image, opacity=1.5)
    with pytest.raises(ValueError, match=r"opacity must be between 0 and 1, got 'half'"):
        draw(make_humans((0, 0, 2)), image, opacity="half")  # type: ignore[arg-type]


def test_boxes_have_the_colour_and_the_place_of_the_person(make_humans):
    humans = make_humans((0, 0, 2))
    plain, boxed = (draw(humans, GREY, side_views=False, boxes=on) for on in (False, True))
    changed = np.argwhere((plain != boxed).any(-1))
    x0, y0, x1, y1 = humans.boxes[0]
    np.testing.assert_allclose(changed.min(0), [y0, x0], atol=1.5)
    np.testing.assert_allclose(changed.max(0), [y1, x1], atol=1.5)
    np.testing.assert_array_equal(boxed[round(y0), round(x0)], humans.colors[0])


@pytest.mark.parametrize("options", [{"ids": True}, {"scores": True}, {"keypoints": "poles"}])
def test_labels_and_keypoints_are_drawn_near_the_person(make_humans, options):
    humans = make_humans((0, 0, 2), (0.6, 0, 2))
    plain, labelled = (draw(humans, GREY, side_views=False, **what) for what in ({}, options))
    changed = (plain != labelled).any(-1)
    for x0, y0, x1, y1 in humans.boxes.round().astype(int):
        assert changed[max(y0 - 16, 0) : y1 + 2, x0 - 6 : x1 + 6].any()
    assert not changed[:, :40].any()


def test_labels_differ_by_number(make_humans):
    pictures = [
        draw(make_humans((0, 0, 2), track_ids=[n]), GREY, side_views=False, ids=True) for n in (1, 13)
    ]
    assert (pictures[0] != pictures[1]).any()  # 13 has the colour of 1


def test_a_wireframe_shows_edges_and_hides_what_is_behind(make_humans):
    humans = make_humans((0, 0, 2), (0, 0, 4))
    picture = draw(humans, GREY, side_views=False, wireframe=True)
    colors = {tuple(color) for color in picture.reshape(-1, 3).tolist()}
    assert tuple(humans.colors[0].tolist()) in colors
    assert tuple(humans.colors[1].tolist()) not in colors  # behind the first
    alone = draw(humans[1:], GREY, side_views=False, wireframe=True)
    assert (alone != GREY).any()


def test_an_unknown_keypoint_set_is_named(make_humans):
    with pytest.raises(ValueError, match=r"no keypoint set 'h36m17' for body 'ball'; known: "):
        draw(make_humans((0, 0, 2)), GREY, side_views=False, keypoints="h36m17")


def test_labels_of_people_who_stand_close_do_not_overlap() -> None:
    from multihmr.visualization.annotate import _free_place, _overlap

    taken: list[tuple[float, float, float, float]] = []
    for x, y in [(50, 40), (55, 40), (60, 42), (52, 38), (50, 12), (48, 100)]:
        place = _free_place(x, y, 20, 12, 100, taken)
        assert 12 <= place <= 100
        box = (x - 20, place - 12, x + 20, place)
        assert not any(_overlap(box, other) for other in taken)
        taken.append(box)
    assert taken[0][3] == 40  # alone it is where it belongs
    assert _free_place(50, 40, 100, 12, 30, [(0, 0, 200, 200)]) == 40  # no room: where it belongs
