"""Pure tensor geometry: pinhole cameras, rotations, depth codes.

Camera frame everywhere: x right, y down, z forward (OpenCV), metres. Points are (x, y) in pixels, where the
centre of the top-left pixel is (0.5, 0.5). All functions broadcast over leading dimensions.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

DEFAULT_FOV_DEG = 60.0
HEAD_RADIUS = 0.12  # metres


def fov_to_focal(fov: Tensor | float, size: Tensor | float) -> Tensor:
    """Focal length in pixels that shows the angle `fov` [rad] over `size` pixels."""
    return _tensor(size, like=fov) / (2 * torch.tan(_tensor(fov, like=size) / 2))


def focal_to_fov(focal: Tensor | float, size: Tensor | float) -> Tensor:
    """Angle of view [rad] over `size` pixels with a focal length of `focal` pixels."""
    return 2 * torch.atan(_tensor(size, like=focal) / (2 * _tensor(focal, like=size)))


def _tensor(value: Tensor | float, *, like: Tensor | float) -> Tensor:
    """`value` as a tensor; a number with dtype and device of `like`, or float32 on the CPU."""
    if isinstance(value, Tensor):
        return value
    if isinstance(like, Tensor):
        dtype = like.dtype if like.is_floating_point() else torch.float32
        return like.new_full((), value, dtype=dtype)  # made on the device, also while a graph is recorded
    return torch.as_tensor(value, dtype=torch.float32, device="cpu")


def intrinsics(focal: Tensor | float, center: Tensor) -> Tensor:
    """(..., 3, 3) intrinsics with square pixels: focal (...,), principal point (..., 2) [pixels]."""
    focal = torch.as_tensor(focal, dtype=center.dtype, device=center.device).expand(center.shape[:-1])
    K = torch.zeros(*center.shape[:-1], 3, 3, dtype=center.dtype, device=center.device)
    K[..., 0, 0] = focal
    K[..., 1, 1] = focal
    K[..., :2, 2] = center
    K[..., 2, 2] = 1
    return K


def default_intrinsics(height: int, width: int, fov_deg: float = DEFAULT_FOV_DEG) -> Tensor:
    """(3, 3) float32 intrinsics of an image whose longer side spans `fov_deg` degrees."""
    focal = fov_to_focal(math.radians(fov_deg), max(height, width))
    return intrinsics(focal, torch.tensor([width / 2, height / 2], dtype=torch.float32, device="cpu"))


def project(points: Tensor, K: Tensor) -> Tensor:
    """(..., N, 3) points in front of the camera [m] -> (..., N, 2) pixels; K is (..., 3, 3).

    Depths below 1 mm are clamped, so that the gradient stays finite for points at or behind the camera.
    """
    rays = points[..., :2] / points[..., 2:].clamp(min=1e-3)
    return rays @ K[..., :2, :2].transpose(-1, -2) + K[..., None, :2, 2]


def pixel_rays(xy: Tensor, K: Tensor) -> Tensor:
    """(..., N, 2) pixels -> (..., N, 2), the (x, y) of their camera rays at depth 1. K is (..., 3, 3)."""
    centred = xy - K[..., None, :2, 2]
    y = centred[..., 1] / K[..., None, 1, 1]
    x = (centred[..., 0] - K[..., None, 0, 1] * y) / K[..., None, 0, 0]
    return torch.stack([x, y], dim=-1)


def unproject(xy: Tensor, depth: Tensor, K: Tensor) -> Tensor:
    """(..., N, 2) pixels at depth (..., N) [m] along the optical axis -> (..., N, 3) points [m]."""
    rays = pixel_rays(xy, K)
    return torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1) * depth[..., None]


def rot6d_to_rotmat(rot6d: Tensor) -> Tensor:
    """(..., 6) -> (..., 3, 3): the first two columns of the matrix, one after the other, orthonormalised.

    Zhou et al., "On the continuity of rotation representations in neural networks", CVPR 2019. Written out
    and not roma's, which every prediction would wait for: its version 1.8 imports torch's compiler.
    """
    first, second = rot6d.unflatten(-1, (2, 3)).unbind(-2)  # type: ignore[no-untyped-call]
    x = F.normalize(first, dim=-1, eps=1e-8)
    y = F.normalize(second - (x * second).sum(-1, keepdim=True) * x, dim=-1, eps=1e-8)
    return torch.stack([x, y, torch.linalg.cross(x, y)], dim=-1)


def rotmat_to_rot6d(rotmat: Tensor) -> Tensor:
    """(..., 3, 3) -> (..., 6): the first two columns, one after the other."""
    return rotmat[..., :2].transpose(-1, -2).flatten(-2)


def depth_to_code(depth: Tensor, focal: Tensor, size: Tensor | float) -> Tensor:
    """Log of the depth [m] that the person would have if the image of side `size` pixels showed 60 degrees.

    An image does not distinguish a near person with a short lens from a far one with a long lens; dividing
    the focal length out leaves what the pixels do show (Multi-HMR, focal normalisation).
    """
    return torch.log(depth.clamp(min=1e-3) * _reference_focal(size) / focal)


def code_to_depth(code: Tensor, focal: Tensor, size: Tensor | float) -> Tensor:
    """Inverse of `depth_to_code`; codes are clamped to depths from 1 cm to 10 km."""
    return torch.exp(code.clamp(-4.6, 9.2)) * focal / _reference_focal(size)


def released_code_to_depth(code: Tensor, focal: Tensor, size: Tensor | float) -> Tensor:
    """Depth [m, 0 to 50] of the SMPL-X checkpoints of 2024, in which the focal ratio multiplies the code.

    That is an exponent where `code_to_depth` has a factor: the two agree at 60 degrees alone.
    """
    return (torch.exp(code * focal / _reference_focal(size)) - 1e-10).clamp(0, 50)


def _reference_focal(size: Tensor | float) -> Tensor:
    return fov_to_focal(math.radians(DEFAULT_FOV_DEG), size)


def same_place(translation_P3: Tensor, nms_3d_distance: tuple[float, float]) -> Tensor:
    """(..., P, 3) heads [m] -> (..., P, P) whether two are too near each other to be of two people.

    nms_3d_distance: heads of two people are at least so far from each other across the line of sight [m], or
    their depths have a ratio that differs from 1 by at least so much.
    """
    across, along = nms_3d_distance
    rays_P2 = translation_P3[..., :2] / translation_P3[..., 2:]
    depth_P = translation_P3[..., 2]
    shorter_PP = torch.minimum(depth_P[..., None], depth_P[..., None, :])
    across_PP = (rays_P2[..., None, :] - rays_P2[..., None, :, :]).norm(dim=-1) * shorter_PP
    along_PP = (depth_P[..., None] / depth_P[..., None, :]).log().abs()
    same_PP = (across_PP < across) & (along_PP < math.log(1 + along))
    same_PP |= across_PP < min(HEAD_RADIUS, across)  # a head right behind another is hidden
    return same_PP
