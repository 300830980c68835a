"""Build the network that a training run starts from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from ..bodies.base import Body
from ..bodies.body_parts import body_joints
from ..bodies.loading import load_body
from ..bodies.topology import Topology
from ..model import load_model
from ..networks.backbones.hybrid import Hybrid
from ..networks.backbones.movenet import HybridMoveNet
from ..networks.base import Network
from ..networks.registry import FAMILIES
from ..networks.resize_embeddings import stretched
from .glnet_parts import guiding_parts

if TYPE_CHECKING:
    from .config import TrainConfig

# Values of `init` other than a model: where the backbone's weights come from.
STARTS: dict[str, bool | str] = {"": True, "random": False, "imagenet": "imagenet"}
TRAINED = ("multihmr", "glnet")  # families
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# Class names of backbone blocks whose activations can be recomputed in the backward pass.
_BLOCKS = {"Block", "DepthwiseSeparableConv", "InvertedResidual", "BasicBlock", "Bottleneck"}


def build(config: TrainConfig, keypoint_sets: Collection[str] | None = None) -> Network:
    """A new network, or that of `config.init`, of which one of another family gives only its backbone.

    Args:
        config: of the run.
        keypoint_sets: keypoint sets that the data have; None for all of the body. Each needs thousands of
            vertices, which are then kept in the body.

    Raises:
        ValueError: a name is unknown.
        FileNotFoundError: there is no SMPL-X file.
    """
    if config.precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {config.precision!r}")
    if config.family not in TRAINED:
        raise ValueError(f"family must be one of {', '.join(TRAINED)}, got {config.family!r}")
    network, make_config = cast(Any, FAMILIES[config.family])()
    started: Network | None = None
    if config.init not in STARTS:
        started = load_model(config.init, device="cpu", smplx=config.smplx or None).network
    if started is not None and started.family == config.family:
        body = started.body
        model_config = replace(started.config, image_size=config.image_size).changed(config.network)
    else:
        counted = {"shape_count": config.shape_count} if config.body == "smplx" else {}
        body = load_body(config.body, smplx=config.smplx or None, **cast(Any, counted))
        model_config = make_config(
            backbone=started.config.backbone if started is not None else config.backbone,
            body=config.body,
            image_size=config.image_size,
            **_joints(config, body.topology),
        )
        model_config = model_config.changed(config.network)
        if started is not None:  # untrained heads, though the backbone is trained
            names = (*body.topology.pose_names, *body.topology.expression_names)
            model_config = replace(model_config, unpredicted=names)
    few = cast(Any, body).with_vertices(vertex_sample(body, config.vertices, keypoint_sets))
    model = network(model_config, few, pretrained=STARTS.get(config.init, False))
    if started is not None:
        own = model.state_dict()
        taken = "" if started.family == config.family else "backbone."
        known = {
            name: value
            for name, value in started.state_dict().items()
            if name in own and name.startswith(taken)
        }
        # Modules that `network` adds to the model of `init` are new; those that it removes are dropped.
        model.load_state_dict(own | stretched(known, own))
    if isinstance(model.backbone, Hybrid) and config.init != "random":
        model.backbone.freeze(config.freeze_stages)
    if config.thaw_blocks:
        if not isinstance(model.backbone, HybridMoveNet):
            raise ValueError(
                f"--thaw-blocks is for MoveNet backbones, not {model_config.backbone}; see --freeze-stages"
            )
        model.backbone.thaw(config.thaw_blocks)
    model.backbone.half_dtype = PRECISIONS[config.precision]
    if config.gradient_checkpointing:
        checkpoint_gradients(model.backbone)
    return model


def _joints(config: TrainConfig, topology: Topology) -> dict[str, Any]:
    """Fields of the network's config that depend on the joints of the body."""
    if config.family == "glnet":
        return {"parts": guiding_parts(topology, whole_body=config.whole_body)}
    read = [topology.joint_names.index(name) for name in body_joints(topology)]
    return {"read_joints": tuple(read) if config.read_joints else ()}


def checkpoint_gradients(backbone: nn.Module) -> None:
    """Enable gradient checkpointing: recompute block activations in the backward pass."""
    for module in backbone.modules():
        if type(module).__name__ in _BLOCKS:
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


def vertex_sample(
    body: Body, count: int, keypoint_sets: Collection[str] | None = None, *, seed: int = 0
) -> np.ndarray:
    """Indices of vertices for the losses, sampled in proportion to the surface area around them.

    The mesh is fine at hands and face; sampling by area gives a square centimetre the same weight everywhere.

    Args:
        body: the full body.
        count: number of sampled vertices.
        keypoint_sets: sets of the body whose vertices are added; None for all.
        seed: of the sampling.
    """
    with torch.no_grad():
        vertices = body(
            body.mean_pose_R33[None], body.mean_shape_S[None], torch.zeros(1, body.expression_count)
        )
    corners_F33 = vertices.vertices_PV3[0].numpy()[body.topology.faces]
    edges = corners_F33[:, 1:] - corners_F33[:, :1]
    area_F = np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=-1)
    area_V = np.zeros(len(vertices.vertices_PV3[0]))
    np.add.at(area_V, body.topology.faces, area_F[:, None])
    rng = np.random.default_rng(seed)
    drawn = rng.choice(len(area_V), min(count, len(area_V)), replace=False, p=area_V / area_V.sum())
    named = [
        points.vertex_indices.ravel()
        for name, points in body.topology.keypoint_sets.items()
        if keypoint_sets is None or name in keypoint_sets
    ]
    return np.unique(np.concatenate([drawn, *named]))
