"""The network that a training run starts with."""

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
from ..networks.base import Network
from ..networks.registry import FAMILIES
from ..networks.resize_embeddings import stretched
from .glnet_parts import guiding_parts

if TYPE_CHECKING:
    from .config import TrainConfig

# What `init` may say instead of naming a model: where the backbone's weights come from.
STARTS: dict[str, bool | str] = {"": True, "random": False, "imagenet": "imagenet"}
TRAINED = ("multihmr", "glnet")  # families
PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
# Parts of backbones, by the names of their classes, whose insides can be computed twice.
_BLOCKS = {"Block", "DepthwiseSeparableConv", "InvertedResidual", "BasicBlock", "Bottleneck"}


def build(config: TrainConfig, keypoint_sets: Collection[str] | None = None) -> Network:
    """A new network, or the one of `init` at another image size; one of another family lends its backbone.

    keypoint_sets: those of the body that the data have; None is all. Each has thousands of vertices, which
    then belong to those that the body gives.

    ValueError: a name is unknown. FileNotFoundError: no SMPL-X.
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
        if started is not None:  # a network that has said nothing yet, though its backbone has seen people
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
        # What `network` adds to the model of `init` starts anew, what it takes away is forgotten.
        model.load_state_dict(own | stretched(known, own))
    if isinstance(model.backbone, Hybrid) and config.init != "random":
        model.backbone.freeze(config.freeze_stages)
    model.backbone.half_dtype = PRECISIONS[config.precision]
    if config.gradient_checkpointing:
        recompute(model.backbone)
    return model


def _joints(config: TrainConfig, topology: Topology) -> dict[str, Any]:
    """Fields of the network's config that say which joints of this body it looks at."""
    if config.family == "glnet":
        return {"parts": guiding_parts(topology, whole_body=config.whole_body)}
    read = [topology.joint_names.index(name) for name in body_joints(topology)]
    return {"read_joints": tuple(read) if config.read_joints else ()}


def recompute(backbone: nn.Module) -> None:
    """Forget what blocks computed and compute it again for the gradients: more time, less memory."""
    for module in backbone.modules():
        if type(module).__name__ in _BLOCKS:
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)  # type: ignore[method-assign]


def vertex_sample(
    body: Body, count: int, keypoint_sets: Collection[str] | None = None, *, seed: int = 0
) -> np.ndarray:
    """Vertices for the losses, spread over the surface: each is drawn with the area around it.

    The mesh is fine at hands and face; drawing by area makes a square centimetre count the same everywhere.
    Those that these of the body's keypoints are made of (None: all) come along.
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
