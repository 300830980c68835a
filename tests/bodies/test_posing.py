import numpy as np
import pytest
import torch
from toys import ToyBody

from multihmr.bodies.base import place, posed


def parameters(body, people):
    rng = np.random.default_rng(0)
    turns = torch.from_numpy(rng.normal(0, 0.4, (people, 3, 3)).astype(np.float32))
    pose = torch.linalg.matrix_exp(turns - turns.mT)[:, None].repeat(1, body.rotation_count, 1, 1)
    shape = rng.uniform(0, 1, (people, body.shape_count)).astype(np.float32)
    expression = rng.uniform(0, 1, (people, body.expression_count)).astype(np.float32)
    return pose.numpy(), shape, expression, rng.normal(0, 2, (people, 3)).astype(np.float32)


@pytest.mark.parametrize("people", [0, 3])
def test_posed_is_the_body_with_its_head_at_the_translation(people):
    body = ToyBody()
    pose, shape, expression, translation = parameters(body, people)
    vertices, joints = posed(body, pose, shape, expression, translation)
    output = body(*map(torch.from_numpy, (pose, shape, expression)))
    expected = place(output, torch.from_numpy(translation), body.center_joint)
    np.testing.assert_allclose(vertices, expected.vertices_PV3.numpy(), atol=1e-6)
    np.testing.assert_allclose(joints, expected.joints_PJ3.numpy(), atol=1e-6)
    assert vertices.dtype == joints.dtype == np.float32
    np.testing.assert_allclose(joints[:, body.center_joint], translation, atol=1e-6)


def test_posed_names_the_dtype_of_its_tensors():
    """Neither the host program's default dtype nor float64 parameters change what comes out."""
    body = ToyBody()
    given = parameters(body, 2)
    before = posed(body, *given)
    torch.set_default_dtype(torch.float64)
    try:
        after = posed(body, *(array.astype(np.float64) for array in given[:3]), given[3])
    finally:
        torch.set_default_dtype(torch.float32)
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)
