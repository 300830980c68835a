import math

import pytest
import roma
import torch

from multihmr import geometry


@pytest.fixture
def K():
    return torch.tensor([[500.0, 3.0, 320.0], [0.0, 480.0, 200.0], [0.0, 0.0, 1.0]])


def test_unproject_undoes_project(K):
    points = torch.randn(7, 3) + torch.tensor([0.0, 0.0, 5.0])
    back = geometry.unproject(geometry.project(points, K), points[:, 2], K)
    torch.testing.assert_close(back, points, atol=1e-4, rtol=1e-4)


def test_one_camera_per_batch_element(K):
    points = torch.rand(2, 4, 3) + 1
    both = geometry.project(points, torch.stack([K, 2 * K]))
    torch.testing.assert_close(both[1], geometry.project(points[1], 2 * K))


def test_projection_behind_the_camera_stays_finite(K):
    points = torch.tensor([[0.1, 0.2, -1.0], [0.0, 0.0, 0.0]], requires_grad=True)
    geometry.project(points, K).sum().backward()
    assert points.grad.isfinite().all()


@pytest.mark.parametrize("fov_deg", [25.0, 60.0, 120.0])
def test_field_of_view_and_focal_length_are_inverse(fov_deg):
    focal = geometry.fov_to_focal(math.radians(fov_deg), 640)
    assert math.degrees(geometry.focal_to_fov(focal, 640)) == pytest.approx(fov_deg, rel=1e-5)


def test_default_camera_sees_60_degrees_over_the_longer_side():
    K = geometry.default_intrinsics(300, 400)
    edge = geometry.pixel_rays(torch.tensor([[400.0, 150.0]]), K)
    assert math.degrees(math.atan(edge[0, 0])) == pytest.approx(30, abs=1e-4)
    assert K[:2, 2].tolist() == [200.0, 150.0]


def test_6d_of_a_rotation_gives_it_back():
    rotations = roma.random_rotmat(50)
    back = geometry.rot6d_to_rotmat(geometry.rotmat_to_rot6d(rotations))
    torch.testing.assert_close(back, rotations, atol=1e-5, rtol=0)


def test_any_6d_is_a_rotation_with_finite_gradient():
    rot6d = torch.randn(20, 6, requires_grad=True)
    rotations = geometry.rot6d_to_rotmat(rot6d)
    eye = torch.eye(3).expand(20, 3, 3)
    torch.testing.assert_close(rotations @ rotations.transpose(1, 2), eye, atol=1e-5, rtol=0)
    assert (torch.linalg.det(rotations.detach()) > 0).all()
    rotations.sum().backward()
    assert rot6d.grad.isfinite().all()


@pytest.mark.parametrize("angle", [0.0, math.pi])
def test_6d_gradients_at_no_turn_and_at_half_a_turn(angle):
    start = roma.rotvec_to_rotmat(torch.tensor([angle, 0.0, 0.0]))
    rot6d = geometry.rotmat_to_rot6d(start).requires_grad_()
    geometry.rot6d_to_rotmat(rot6d).sum().backward()
    assert rot6d.grad.isfinite().all()


def test_depth_code_and_depth_are_inverse():
    depth, focal = torch.tensor([0.4, 3.0, 30.0]), torch.tensor([200.0, 400.0, 900.0])
    code = geometry.depth_to_code(depth, focal, 448)
    torch.testing.assert_close(geometry.code_to_depth(code, focal, 448), depth)


def test_depth_code_does_not_see_the_lens():
    """Twice as far through twice the lens is the same picture, hence the same code."""
    near = geometry.depth_to_code(torch.tensor(2.0), torch.tensor(300.0), 448)
    far = geometry.depth_to_code(torch.tensor(4.0), torch.tensor(600.0), 448)
    torch.testing.assert_close(near, far)
    middle = geometry.fov_to_focal(math.radians(60), 448)
    torch.testing.assert_close(
        geometry.depth_to_code(torch.tensor(2.0), middle, 448).exp(), torch.tensor(2.0)
    )
