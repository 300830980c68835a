from __future__ import annotations

import numpy as np
import pytest

from multihmr.io.coordinate_frames import FRAMES, camera_to_frame, frame_to_camera


@pytest.mark.parametrize("frame", FRAMES)
def test_there_and_back(make_humans, frame):
    humans = make_humans((0.5, -0.2, 3), (-1, 0.4, 2))
    there = humans.in_frame(frame)
    np.testing.assert_allclose(frame_to_camera(there.vertices, frame), humans.vertices, rtol=3e-7)
    np.testing.assert_array_equal(there.translation, humans.translation @ there.matrix.T)


def test_up_and_forward_are_where_each_program_has_them():
    up, forward = np.array([0, -1, 0]), np.array([0, 0, 1])
    axes = {
        "opengl": ([0, 1, 0], [0, 0, -1]),
        "blender": ([0, 0, 1], [0, 1, 0]),
        "unity": ([0, 1, 0], [0, 0, 1]),
        "unreal": ([0, 0, 100], [100, 0, 0]),
    }
    for frame, (theirs_up, theirs_forward) in axes.items():
        np.testing.assert_array_equal(camera_to_frame(up, frame), theirs_up)
        np.testing.assert_array_equal(camera_to_frame(forward, frame), theirs_forward)


@pytest.mark.parametrize("frame", FRAMES)
def test_normals_by_the_formula_point_outwards_everywhere(make_humans, frame):
    """(b - a) x (c - a), as every program computes it; it is the hand that differs."""
    there = make_humans((0, 0, 3)).in_frame(frame)
    a, b, c = there.vertices[0][there.faces.T]
    outwards = (np.cross(b - a, c - a) * (a - there.translation[0])).sum(-1)
    assert (outwards > -1e-6).all()
    assert outwards.max() > 0


def test_an_unknown_frame_lists_the_known(make_humans):
    with pytest.raises(ValueError, match="no frame 'maya': there are opencv, opengl, blender, unity, unreal"):
        make_humans().in_frame("maya")
