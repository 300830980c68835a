"""Trace a network to a graph (torch.export) with a dynamic batch size and otherwise fixed shapes.

Needs torch alone. `torch.export` follows the network's own `forward_fixed`, so there is no second network.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .._version import __version__
from ..networks.backbones.base import Backbone, Features
from ..networks.backbones.merged_padding import MergedTokens, merge_padding
from ..networks.base import Network
from ..networks.multihmr import WINDOW_MULTIPLE

INPUTS = ("pixels", "K")
OUTPUTS = ("mask", "scores", "pose", "shape", "expression", "translation", "joints", "camera", "vertices")
MOST_PICTURES = 1024  # of a batch
MOST_SIDE = 64  # of windows, in multiples


class Traced(NamedTuple):
    """A graph and what its inputs and outputs are called."""

    program: torch.export.ExportedProgram
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class PeopleGraph(nn.Module):
    """(B, 3, S, S) windows and (B, 3, 3) cameras -> the tensors of OUTPUTS, N people an image.

    Without `vertices` all but the last.
    """

    def __init__(self, network: Network, *, people: int, threshold: float | None, vertices: bool) -> None:
        super().__init__()
        self.network, self.people, self.threshold, self.vertices = network, people, threshold, vertices

    def forward(self, pixels: Tensor, K: Tensor) -> tuple[Tensor, ...]:
        said: Any = self.network.forward_fixed(pixels, K, people=self.people, threshold=self.threshold)  # type: ignore[operator]
        mask_BN = said.centers.mask_BQ
        flat = [said.centers.scores_P, said.pose_PR33, said.shape_PS, said.expression_PE]
        flat += [said.translation_P3, said.joints_PJ3, said.vertices_PV3]
        scores, *parameters, joints, vertices = (x.unflatten(0, mask_BN.shape) for x in flat)
        answer = (mask_BN, scores, *parameters, joints, said.K_B33)
        return (*answer, vertices) if self.vertices else answer


class BackboneGraph(nn.Module):
    """(B, 3, S, S) images -> the features of the backbone as a tuple; for `backends`."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self._outputs(self.backbone.compute(pixels))

    def _outputs(self, features: Features) -> tuple[Tensor, ...]:
        fine = () if features.fine_BDhw is None else (features.fine_BDhw,)
        return (features.grid_BDhw, features.global_BD, *fine, *features.scales)


class StemGraph(nn.Module):
    """(B, 3, H, W) images -> what `Backbone.stem_tokens` gives, of backbones that split."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        return self.backbone.stem_tokens(self.backbone.normalized(pixels))


class BlocksGraph(StemGraph):
    """(B, D, h, w) tokens of the stem -> what `Backbone.features_of` makes of them."""

    def forward(self, tokens: Tensor) -> tuple[Tensor, ...]:
        return self.backbone.features_of(tokens)


class MergedBackboneGraph(BackboneGraph):
    """`BackboneGraph` of (B, 3, S, S) images and the tensors of `MergedTokens`."""

    def forward(self, pixels: Tensor, *merged: Tensor) -> tuple[Tensor, ...]:
        return self._outputs(self.backbone.compute(pixels, MergedTokens(*merged)))


def trace_people(network: Network, *, people: int, threshold: float | None, vertices: bool) -> Traced:
    """The whole network as a graph.

    ValueError: models of this family have no forward of fixed shapes; or `people` is 0.
    """
    if not hasattr(network, "forward_fixed"):
        raise ValueError(
            f"a model of family {network.family!r} cannot be exported, because it takes one person's crop "
            "at a time; export the Multi-HMR that finds its people, or use load_model(backend=...)"
        )
    if people < 1:
        raise ValueError(f"people is how many an image can show at most, 1 or more, got {people}")
    graph = PeopleGraph(network, people=people, threshold=threshold, vertices=vertices)
    unknown = torch.full((2, 3, 3), torch.nan)
    with _in_float32(network):
        program = _traced(graph, (letterboxes(network.config.image_size), unknown))
    return Traced(program, INPUTS, OUTPUTS if vertices else OUTPUTS[:-1])


def _takes_rectangles(network: Network) -> bool:
    """Whether its windows have several shapes, all of which one graph takes."""
    return network.letterbox(1, 2).rectangle_shape is not None


def trace_backbone(network: Network) -> Traced:
    """What costs most of a network, as a graph for all shapes of its windows."""
    backbone = network.backbone
    pixels, graph = letterboxes(_example_shape(network)), BackboneGraph(backbone)
    names: tuple[str, ...] = INPUTS[:1]
    merged: tuple[Tensor, ...] = ()
    if backbone.padding == "thin":
        side = network.config.image_size // backbone.patch
        merged = merge_padding(side, side, (0, side // 2, side, side))
        graph, names = MergedBackboneGraph(backbone), (*names, *MergedTokens._fields)
    with _in_float32(network):
        program = _traced(graph, (pixels,), merged, sides=_sides(network, WINDOW_MULTIPLE))
    more = len(program.graph_signature.user_outputs) - 2
    return Traced(program, names, ("grid", "global", *(f"map{i}" for i in range(more))))


def trace_stem(network: Network) -> Traced:
    """The first part of a backbone that splits, for all shapes of its windows."""
    pixels, sides = letterboxes(_example_shape(network)), _sides(network, WINDOW_MULTIPLE)
    with _in_float32(network):
        program = _traced(StemGraph(network.backbone), (pixels,), sides=sides)
    return Traced(program, INPUTS[:1], ("tokens", "fine", "heads"))


def trace_blocks(network: Network) -> Traced:
    """The second part of a backbone that splits, behind `trace_stem`."""
    backbone = network.backbone
    grid = (side // backbone.patch for side in _example_shape(network))
    tokens, sides = torch.rand(2, backbone.width, *grid), _sides(network, WINDOW_MULTIPLE // backbone.patch)
    with _in_float32(network):
        program = _traced(BlocksGraph(backbone), (tokens,), sides=sides)
    return Traced(program, ("tokens",), ("grid", "global"))


def _example_shape(network: Network) -> tuple[int, int]:
    """(height, width) of windows to trace with.

    Where sides stay open they must differ from each other and from the batch of two, and be 1 at no stride:
    torch.export would take them for the same or for fixed.
    """
    size = network.config.image_size
    return (3 * WINDOW_MULTIPLE, 5 * WINDOW_MULTIPLE) if _takes_rectangles(network) else (size, size)


def _sides(network: Network, multiple: int) -> dict[int, Any]:
    """The sides of a graph's (B, C, height, width) input that change with the window, by their place.

    multiple: of which they are.
    """
    if not _takes_rectangles(network):
        return {}
    return {
        2 + place: multiple * torch.export.Dim(name, min=1, max=MOST_SIDE)
        for place, name in enumerate(("rows", "columns"))
    }


def letterboxes(size: int | tuple[int, int], count: int = 2) -> Tensor:
    """(count, 3, height, width) noise; `size` is the side of a square, or (height, width)."""
    height, width = (size, size) if isinstance(size, int) else size
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


def _traced(
    graph: nn.Module,
    inputs: Sequence[Tensor],
    merged: Sequence[Tensor] = (),
    *,
    sides: Mapping[int, Any] | None = None,
) -> torch.export.ExportedProgram:
    """inputs: of a batch of any size. merged: MergedTokens of any number. sides: further sizes of the inputs
    that are open, by their place."""
    batch = torch.export.Dim("batch", min=1, max=MOST_PICTURES)
    shapes: list[Any] = [{0: batch, **(sides or {})} for _ in inputs]
    if merged:
        tokens, later = (
            {0: torch.export.Dim(name, min=2, max=len(merged[-1]))} for name in ("tokens", "later")
        )
        shapes.append((tokens, later, later, {}))  # a tuple for *merged
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch to itself
        return torch.export.export(
            graph.eval(),
            (*inputs, *merged),
            dynamic_shapes=tuple(shapes),
            strict=False,
        )


@contextmanager
def _in_float32(network: Network) -> Iterator[None]:
    """Meanwhile the backbone computes in float32."""
    backbone = network.backbone
    kept, backbone.half_dtype = backbone.half_dtype, None
    try:
        yield
    finally:
        backbone.half_dtype = kept


def facts(
    network: Network, *, people: int, threshold: float | None, vertices: bool, licence: str = "unknown"
) -> dict[str, str]:
    """Metadata of an exported file, as text and JSON."""
    letterbox, topology = network.letterbox(1, 1), network.body.topology
    known: dict[str, Any] = {
        "image_size": network.config.image_size,
        "padding": letterbox.padding,  # grey level around a picture that is not square
        "window": "released" if letterbox.reducing_gap is None else "whole",  # names since version 0.3
        "people": people,
        "threshold": network.config.threshold if threshold is None else threshold,
        "apart": getattr(network.config, "nms_3d_distance", None),  # done in the graph
        "own_camera": network.own_camera_source,  # where K is NaN
        "joint_names": topology.joint_names,
        "parents": topology.parents,
        "pose_names": topology.pose_names,
        "shape_names": topology.shape_names,
        "expression_names": topology.expression_names,
        "unpredicted": network.config.unpredicted,
        "center_joint": network.body.center_joint,
        "pelvis_joint": network.body.pelvis_joint,
    }
    if vertices:
        known["faces"] = topology.faces.tolist()
    words = {
        "family": network.family,
        "body": network.body.name,
        "licence": licence,
        "multihmr": __version__,
    }
    return words | {name: json.dumps(value) for name, value in known.items()}
