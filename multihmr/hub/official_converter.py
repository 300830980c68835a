"""Convert official Multi-HMR checkpoints (`.pt`) to the tensors of our networks, with all their quirks.

Sizes come from the tensors themselves. Each tensor is used or named: one missing or one too many is an error.

Folded into the weights: DINOv2's position table at the size of the checkpoint, constants that are added to
queries and answers, the order of the six numbers of a rotation, bones that are never turned, the sign of a
depth. What cannot be folded is `MultiHMRConfig.released`.

Source of the format: tests/parity and its interoperability notes, sections 2 to 8, written from the outside.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from ..geometry import DEFAULT_FOV_DEG, fov_to_focal
from .checkpoint import Checkpoint
from .official_reader import read_state
from .releases import LICENCE_URL, LICENCE_URL_ANNY

logger = logging.getLogger(__name__)

PATCH = 14
PRETRAINED_GRID = 37  # patches along a side in DINOv2's own position table
HEAD_WIDTH = 32
_BACKBONES = {384: "dinov2_vits14", 768: "dinov2_vitb14", 1024: "dinov2_vitl14"}


def read_official(path: str | os.PathLike[str]) -> Checkpoint:
    """Read an official `.pt`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: cut short, hostile, of another kind, or with tensors missing or left over, by name.
    """
    path = Path(path)
    state, args = read_state(path)
    return convert_state(state, args, path.name)


def convert_state(state: dict[str, Tensor], args: Mapping[str, Any], file: str) -> Checkpoint:
    """The tensors of an official checkpoint, and its training options by our names; `file` is for messages.

    Raises:
        ValueError: it is of another kind, or has tensors missing or left over, by name.
    """
    if "x_attention_head.decpose.weight" in state:
        return _smplx(_Tensors(state, file), args)
    if "dec_to_token.weight" in state:
        return _anny(_Tensors(state, file), args)
    raise ValueError(
        f"{file} is no Multi-HMR checkpoint: it has neither x_attention_head.decpose.weight (SMPL-X) "
        f"nor dec_to_token.weight (Anny) but {_some(state)}"
    )


class _Tensors:
    """The tensors of a file, each taken once."""

    def __init__(self, state: dict[str, Tensor], file: str) -> None:
        self.state, self.file = dict(state), file

    def take(self, key: str, *shape: int) -> Tensor:
        """ValueError if it is not there, or not of that shape."""
        if key not in self.state:
            raise ValueError(f"{self.file} lacks the tensor {key}; is it a Multi-HMR checkpoint, and whole?")
        tensor = self.state.pop(key)
        if shape and tuple(tensor.shape) != shape:
            raise ValueError(f"{self.file} has {key} of shape {tuple(tensor.shape)}, expected {shape}")
        return tensor

    def shape(self, key: str) -> tuple[int, ...]:
        if key not in self.state:
            raise ValueError(f"{self.file} lacks the tensor {key}; is it a Multi-HMR checkpoint, and whole?")
        return tuple(self.state[key].shape)

    def count(self, pattern: str) -> int:
        """Number of indices in the keys that match the group of `pattern`."""
        return len({match[1] for key in self.state if (match := re.match(pattern, key))})

    def linear(self, theirs: str, ours: str, out: int, into: int, *, bias: bool = True) -> Iterator[Any]:
        yield f"{ours}.weight", self.take(f"{theirs}.weight", out, into)
        if bias:
            yield f"{ours}.bias", self.take(f"{theirs}.bias", out)

    def norm(self, theirs: str, ours: str, width: int) -> Iterator[Any]:
        yield f"{ours}.weight", self.take(f"{theirs}.weight", width)
        yield f"{ours}.bias", self.take(f"{theirs}.bias", width)

    def mlp(self, theirs: str, ours: str, width: int, out: int) -> Iterator[Any]:
        """Two linear layers with a ReLU between."""
        yield from self.linear(f"{theirs}.0", f"{ours}.0", width, width)
        yield from self.linear(f"{theirs}.2", f"{ours}.2", out, width)

    def drop(self, *patterns: str) -> None:
        """Without effect on the numbers, or not the network's: see section 3 of the source."""
        for key in [key for key in self.state if any(re.fullmatch(p, key) for p in patterns)]:
            del self.state[key]

    def finish(self) -> None:
        if self.state:
            raise ValueError(
                f"{self.file} has {len(self.state)} tensors that have no place in Multi-HMR: "
                f"{_some(self.state)}"
            )


# --- parts


def position_table(table_1ND: Tensor, height: int, width: int) -> Tensor:
    """(1, 1 + 37 * 37, D) of DINOv2 -> (1, 1 + height * width, D), resized to another grid as DINOv2 does it.

    Bicubic without antialiasing, for scales that are 0.1 patches too large: DINOv2's guard against rounding.
    """
    side = PRETRAINED_GRID
    if (height, width) == (side, side):
        return table_1ND
    grid = rearrange(table_1ND[:, 1:], "1 (h w) d -> 1 d h w", h=side)
    scales = [(height + 0.1) / side, (width + 0.1) / side]
    resized = F.interpolate(grid, scale_factor=scales, mode="bicubic", align_corners=False)
    return torch.cat([table_1ND[:, :1], rearrange(resized, "1 d h w -> 1 (h w) d")], dim=1)


def _backbone(tensors: _Tensors, prefix: str, grid_size: int) -> tuple[str, int, dict[str, Tensor]]:
    """Its name, width and tensors: DINOv2 and timm call them alike."""
    width = tensors.shape(f"{prefix}cls_token")[-1]
    if width not in _BACKBONES:
        raise ValueError(f"{tensors.file} has a backbone of width {width}, known are {list(_BACKBONES)}")
    tensors.drop(re.escape(prefix) + "mask_token")
    found = {}
    for key in [key for key in tensors.state if key.startswith(prefix)]:
        found[f"backbone.vit.{key.removeprefix(prefix)}"] = tensors.take(key)
    table = "backbone.vit.pos_embed"
    if table not in found or tuple(found[table].shape) != (1, 1 + PRETRAINED_GRID**2, width):
        raise ValueError(f"{tensors.file} lacks {prefix}pos_embed of shape (1, 1370, {width})")
    found[table] = position_table(found[table], grid_size, grid_size)
    return _BACKBONES[width], width, found


def _layer(
    tensors: _Tensors, theirs: str, ours: str, *, width: int, context: int, inner: int, mlp: int
) -> Iterator[tuple[str, Tensor]]:
    """One layer of attention among people, attention to patches, and MLP."""
    yield from tensors.norm(f"{theirs}.0.norm", f"{ours}.norm_self", width)
    q, k, v = tensors.take(f"{theirs}.0.fn.to_qkv.weight", 3 * inner, width).chunk(3)
    yield f"{ours}.self_.to_q.weight", q
    yield f"{ours}.self_.to_kv.weight", torch.cat([k, v])
    yield from tensors.linear(f"{theirs}.0.fn.to_out.0", f"{ours}.self_.to_out", width, inner)
    yield from tensors.norm(f"{theirs}.1.norm", f"{ours}.norm_cross", width)
    yield from tensors.linear(f"{theirs}.1.fn.to_q", f"{ours}.cross.to_q", inner, width, bias=False)
    yield from tensors.linear(f"{theirs}.1.fn.to_kv", f"{ours}.cross.to_kv", 2 * inner, context, bias=False)
    yield from tensors.linear(f"{theirs}.1.fn.to_out.0", f"{ours}.cross.to_out", width, inner)
    yield from tensors.norm(f"{theirs}.2.norm", f"{ours}.norm_mlp", width)
    yield from tensors.linear(f"{theirs}.2.fn.net.0", f"{ours}.mlp.0", mlp, width)
    yield from tensors.linear(f"{theirs}.2.fn.net.3", f"{ours}.mlp.2", width, mlp)


def _check_args(args: Mapping[str, Any], known: Mapping[str, Any], file: str) -> None:
    """Options that change the arithmetic and leave no trace in the tensors: only the released values."""
    for name, value in known.items():
        given = args.get(name, value)
        if given != value:
            raise ValueError(
                f"{file} was trained with {name}={given!r}; only {value!r}, as in all releases, is known"
            )


def _check_size(args: Mapping[str, Any], size: int, file: str) -> None:
    given = args.get("img_size", size)
    given = given[0] if isinstance(given, (list, tuple)) else given
    if given != size:
        raise ValueError(f"{file} says that its pictures have {given} pixels, its tables are for {size}")


# --- SMPL-X


def _smplx(tensors: _Tensors, args: Mapping[str, Any]) -> Checkpoint:
    head = "x_attention_head."
    grid_size, context = tensors.shape(f"{head}cross_queries_x")
    size = grid_size * PATCH
    _check_size(args, size, tensors.file)
    _check_args(
        args,
        {
            "person_center": "head",
            "nearness": True,
            "camera_embedding": "geometric",
            "camera_embedding_max_resolution": 64,
        },
        tensors.file,
    )
    backbone, width, out = _backbone(tensors, "backbone.encoder.", grid_size)
    betas = tensors.shape(f"{head}decshape.weight")[0]
    bands, rest = divmod(context - width - 3, 6)
    if rest:
        raise ValueError(f"{tensors.file} has {context} numbers a patch where 3 + 6 n + {width} are expected")
    transformer = f"{head}transformer.transformer.layers."
    depth = tensors.count(re.escape(transformer) + r"(\d+)\.")
    wide = tensors.shape(f"{head}transformer.to_token_embedding.weight")[0]
    inner = tensors.shape(f"{transformer}0.1.fn.to_q.weight")[0]
    mlp = tensors.shape(f"{transformer}0.2.fn.net.0.weight")[0]

    out |= dict(tensors.mlp("mlp_classif", "to_score", width, 1))
    out |= dict(tensors.mlp("mlp_offset", "to_offset", width, 2))
    for theirs, ours in (("queries", "query"), ("values", "mark")):
        # Theirs called rows x, here and in the rays.
        out[f"head.{ours}_rows"] = tensors.take(f"{head}cross_{theirs}_x", grid_size, context)
        out[f"head.{ours}_cols"] = tensors.take(f"{head}cross_{theirs}_y", grid_size, context)
    for j in range(depth):
        sizes = {"width": wide, "context": context, "inner": inner, "mlp": mlp}
        out |= dict(_layer(tensors, f"{transformer}{j}", f"head.layers.{j}", **sizes))
    out |= _smplx_ends(tensors, head, wide, context, betas)
    _warn_of_trained_body(tensors)
    # A body model that the trainer wrote along (licensed data, never passed on), and what has no effect.
    tensors.drop(r"smpl_layer\..*", re.escape(head) + "init_betas_kid")
    tensors.finish()
    config = {
        "backbone": backbone,
        "body": "smplx",
        "image_size": size,
        "ray_bands": bands,
        "head_width": wide,
        "head_depth": depth,
        "head_count": inner // HEAD_WIDTH,
        "head_mlp_width": mlp,
        "released": True,
        "unpredicted": ("left_eye_smplhf", "right_eye_smplhf"),
    }
    return Checkpoint(
        file=tensors.file,
        family="multihmr",
        config=config,
        body="smplx",
        licence=f"NAVER Multi-HMR licence, non-commercial: {LICENCE_URL}",
        tensors=out,
        body_options={"shape_count": betas},
    )


def _warn_of_trained_body(tensors: _Tensors) -> None:
    """The public trainer lets some pose parameters of the body drift, by mistake, and saves them."""
    names = r"smpl_layer\..*\.(global_orient|leye_pose|reye_pose|transl)"
    drifted = [k for k, v in tensors.state.items() if re.fullmatch(names, k) and (v.abs() > 1e-6).any()]
    if drifted:
        logger.warning(
            "%s turned its own body model in training (%s); vertices here are those without that",
            tensors.file,
            ", ".join(drifted),
        )


def _smplx_ends(tensors: _Tensors, head: str, wide: int, context: int, betas: int) -> dict[str, Tensor]:
    """From the query to the token, and from the token to the answers, with their constants folded in."""
    pose = tensors.take(f"{head}init_body_pose", 1, 318)[0]
    shape = tensors.take(f"{head}init_betas", 1, betas)[0]
    camera = tensors.take(f"{head}init_cam", 1, 3)[0]
    expression = tensors.take(f"{head}init_expression", 1, 10)[0]
    into = f"{head}transformer.to_token_embedding"
    weight = tensors.take(f"{into}.weight", wide, context + 318 + betas + 3)
    position = tensors.take(f"{head}transformer.pos_embedding", 1, 1, wide)[0, 0]
    out = {
        # Theirs to the last number: the constants of the mean person are an opaque part of the checkpoint.
        "head.mean_pose": pose,
        "head.mean_shape": shape,
        "head.to_token.weight": weight[:, :-3],
        "head.to_token.bias": tensors.take(f"{into}.bias", wide) + weight[:, -3:] @ camera + position,
    }
    out |= dict(tensors.linear(f"{head}decpose", "head.to_pose", 318, wide))
    out |= dict(tensors.linear(f"{head}decshape", "head.to_shape", betas, wide))
    out |= dict(tensors.linear(f"{head}decexpression", "head.to_expression", 10, wide))
    out["head.to_expression.bias"] = out["head.to_expression.bias"] + expression
    # Of three camera numbers only the first, the depth, is used.
    out["head.to_depth.weight"] = tensors.take(f"{head}deccam.weight", 3, wide)[:1]
    out["head.to_depth.bias"] = tensors.take(f"{head}deccam.bias", 3)[:1] + camera[:1]
    return out


# --- Anny


def _anny(tensors: _Tensors, args: Mapping[str, Any]) -> Checkpoint:
    count, width = tensors.shape("dec_pos_emb")
    grid_size = math.isqrt(count)
    size = grid_size * PATCH
    _check_size(args, size, tensors.file)
    _check_args(args, {"person_center": "head", "simple_depth_encoding": 1}, tensors.file)
    backbone, wide, out = _backbone(tensors, "encoder.backbone.", grid_size)
    layers = "decoder.transformer.layers."
    depth = tensors.count(re.escape(layers) + r"(\d+)\.")
    inner = tensors.shape(f"{layers}0.1.fn.to_q.weight")[0]
    mlp = tensors.shape(f"{layers}0.2.fn.net.0.weight")[0]
    heads = int(args.get("xat_heads", 16))  # leaves no trace in the tensors
    if inner != width or width % heads:
        raise ValueError(
            f"{tensors.file} has attention {inner} wide in {heads} heads, its tokens are {width}"
        )

    out |= dict(tensors.mlp("encoder.mlp_det", "to_score", wide, 1))
    out |= dict(tensors.mlp("encoder.mlp_fov_unique", "to_fov", wide, 1))
    if abs(tensors.take("encoder.fov_max", 1).item() - math.pi) > 1e-5:
        raise ValueError(f"{tensors.file} has a largest field of view other than pi, which is not known")
    out |= dict(tensors.linear("dec_to_token", "to_token", width, wide))
    out["positions_ND"] = tensors.take("dec_pos_emb", grid_size**2, width)
    for j in range(depth):
        sizes = {"width": width, "context": width, "inner": inner, "mlp": mlp}
        out |= dict(_layer(tensors, f"{layers}{j}", f"layers.{j}", **sizes))
    out |= dict(tensors.mlp("mlp_offset", "to_offset", width, 2))
    out |= dict(tensors.mlp("mlp_shape", "to_shape", width, tensors.shape("mlp_shape.2.weight")[0]))
    # Theirs is the focal length over the depth; ours is the depth under 60 degrees.
    out |= dict(tensors.mlp("mlp_dist", "to_depth", width, 1))
    reference = fov_to_focal(math.radians(DEFAULT_FOV_DEG), float(size)).log()
    out["to_depth.2.weight"] = -out["to_depth.2.weight"]
    out["to_depth.2.bias"] = reference - out["to_depth.2.bias"]
    turned = tensors.take("useful_rotmat")[0] > 0.5
    out |= _anny_pose(tensors, turned, width)
    tensors.drop("eye", r"body_model\.anchors\..*")
    tensors.finish()
    config = {
        "backbone": backbone,
        "image_size": size,
        "head_width": width,
        "head_depth": depth,
        "head_count": heads,
        "head_mlp_width": mlp,
        "unpredicted": tuple(_names_of_anny(turned)),
    }
    return Checkpoint(
        file=tensors.file,
        family="multihmr-anny",
        config=config,
        body="anny-163",
        licence=f"NAVER Multi-HMR Anny licence, non-commercial: {LICENCE_URL_ANNY}",
        tensors=out,
    )


def _anny_pose(tensors: _Tensors, turned_R: Tensor, width: int) -> dict[str, Tensor]:
    """Theirs writes the two columns of a rotation as a 3 x 2 matrix, ours one after the other."""
    count = 6 * len(turned_R)
    order = rearrange(torch.arange(count), "(joint row column) -> (joint column row)", row=3, column=2)
    mean = tensors.take("init_body_pose", 1, count)[0]
    first = tensors.take("mlp_pose.0.weight", width, width + count)
    weight, bias = tensors.take("mlp_pose.2.weight", count, width), tensors.take("mlp_pose.2.bias", count)
    weight, answer = weight[order], (bias + mean)[order]
    still = ~turned_R.repeat_interleave(6)
    weight[still] = 0
    answer[still] = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(int((~turned_R).sum()))
    return {
        "to_pose.0.weight": first[:, :width].contiguous(),
        "to_pose.0.bias": tensors.take("mlp_pose.0.bias", width) + first[:, width:] @ mean,
        "to_pose.2.weight": weight,
        "to_pose.2.bias": answer,
    }


def _names_of_anny(turned_R: Tensor) -> Iterator[str]:
    from safetensors import safe_open

    from ..bodies.anny163 import ASSET

    with safe_open(ASSET, "pt") as file:
        names = json.loads(file.metadata()["facts"])["joint_names"]
    return (name for name, moves in zip(names, turned_R.tolist(), strict=True) if not moves)


def _some(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
