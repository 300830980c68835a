from __future__ import annotations

import numpy as np
import pytest
import torch
from toys import ToyBody

from multihmr.bodies.anny import Anny
from multihmr.bodies.measurements import hull_perimeter, measure, slice_mesh

# gender, age, muscle, weight, height, proportions; a man, a woman, heavy ones, a child
SHAPES = np.array(
    [
        (0, 0.68, 0.5, 0.5, 0.42, 0.5),
        (1, 0.68, 0.5, 0.5, 0.42, 0.5),
        (0, 0.68, 0.5, 1.0, 0.42, 0.5),
        (1, 0.68, 0.5, 1.0, 0.42, 0.5),
        (0.5, 0.33, 0.5, 0.5, 0.42, 0.5),
    ],
    np.float32,
)
# What Anthropometry of the package anny 0.6.2 gives for them: the length of a ring of 46 vertices, which is
# not level and follows the hollow of the back.
ANNY_WAIST = np.array([0.848, 0.732, 0.953, 0.814, 0.612])


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


def test_a_tape_around_a_cylinder_and_over_a_hollow() -> None:
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = 0.15 * np.stack([np.cos(angles), np.sin(angles)], 1)
    assert hull_perimeter(circle) == pytest.approx(2 * np.pi * 0.15, rel=1e-3)
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.2]], float)  # the last lies inside
    assert hull_perimeter(square) == pytest.approx(4, rel=1e-3)


def test_a_slice_crosses_edges_where_they_are_that_high() -> None:
    vertices = np.array([[0, 0, 0], [2, 0, 2], [0, 4, 4]], float)
    edges = np.array([[0, 1], [1, 2], [2, 0]])
    np.testing.assert_allclose(sorted(slice_mesh(vertices, edges, 1.0).tolist()), [[0, 1], [1, 0]])


@pytest.mark.slow
def test_measurements_are_those_of_the_package(body: Anny) -> None:
    found = measure(body, SHAPES)
    rest = body.rest(torch.from_numpy(SHAPES), torch.zeros(len(SHAPES), body.expression_count))
    np.testing.assert_allclose(found.height, rest[..., 2].amax(1) - rest[..., 2].amin(1), atol=1e-5)
    np.testing.assert_allclose(found.waist, ANNY_WAIST, rtol=0.04)


@pytest.mark.slow
def test_measurements_of_people_are_as_people_are(body: Anny) -> None:
    found = measure(body, SHAPES)
    man, woman, heavy_man, heavy_woman, child = range(5)
    assert found.height[man] == pytest.approx(1.82, abs=0.01)
    for name in ("chest", "waist", "hip"):
        girth = getattr(found, name)
        assert girth[heavy_man] > girth[man] + 0.02
        assert girth[heavy_woman] > girth[woman] + 0.02
        assert girth[child] < girth[woman]
    assert (found.waist < found.hip).all()
    np.testing.assert_allclose(found.inseam / found.height, 0.465, atol=0.03)
    np.testing.assert_allclose(found.arm_length / found.height, 0.295, atol=0.02)


@pytest.mark.slow
def test_a_known_height_scales_all(body: Anny) -> None:
    own, known = measure(body, SHAPES[:2]), measure(body, SHAPES[:2], height=1.7)
    np.testing.assert_allclose(known.height, 1.7, rtol=1e-6)
    np.testing.assert_allclose(known.waist / own.waist, 1.7 / own.height, rtol=1e-5)
    with pytest.raises(ValueError, match="height must be in metres, above 0, got -1"):
        measure(body, SHAPES, height=-1)


def test_what_cannot_be_measured_is_refused(body: Anny) -> None:
    assert measure(body, np.zeros((0, 6))).chest.shape == (0,)
    with pytest.raises(ValueError, match="not of 'toy'"):
        measure(ToyBody(), np.zeros((1, 2)))
    with pytest.raises(ValueError, match=r"shape must be \(N, 6\), got \(1, 5\)"):
        measure(body, np.zeros((1, 5)))
    with pytest.raises(ValueError, match="a body with all its vertices"):
        measure(body.with_vertices([0, 1, 2]), SHAPES)


@pytest.mark.slow
def test_people_measure_themselves(body: Anny) -> None:
    """The method of Humans, of fitted people."""
    from fitting.people import K, people

    from multihmr.fitting import fit

    humans = fit(people(body, 1, seed=3).pixels(), K, body=body)
    own = humans.measurements(body=body)
    np.testing.assert_array_equal(own.chest, measure(body, humans.shape).chest)
    assert humans.measurements(height=1.9).height == pytest.approx(1.9)
