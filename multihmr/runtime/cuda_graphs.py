"""Whole predictions as CUDA graphs: recorded once for a number of pictures, then replayed.

Eager prediction launches some thousand small kernels one after the other, and waits for the GPU wherever the
number of people decides about a shape. Here every picture has the same number of slots for people
(`forward_fixed` of the network): pixels go up from pinned memory, are resized on the GPU, the graph runs,
people come down into pinned memory, and for these the CPU waits, once.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..geometry import project
from ..networks.backbones.base import Content
from ..networks.backbones.merged_padding import content_patches
from ..networks.base import OF_PEOPLE, Network
from ..postprocessing.to_humans import Detections
from ..preprocessing.letterbox import Letterbox
from .eager import contents_of, with_backbone
from .float8 import CAPABILITY, with_float8
from .gpu_resize import seen_through

SLOTS = 16  # people an image at first; more when more are there
MOST_RECORDINGS = 16  # each holds GPU memory, which many thresholds must not fill
ROUNDS = 3  # of warming up, in which libraries choose their kernels: a graph holds what they chose
PER_PERSON = (*OF_PEOPLE, "joints_2d", "outline")

RECORDED: dict[str, dict[str, bool]] = {
    "cudagraph": {},
    "cudagraph-compile": {"compiled": True},
    "cudagraph-float8": {"compiled": True, "float8": True},
}
"""backend -> how `Captured` is made."""


class PeopleNearestFirst(nn.Module):
    """(B, 3, S, S) windows and (B, 3, 3) cameras -> tensors by name, N people an image, nearest first.

    Those of PER_PERSON are (B, N, ...), of which the first `count` (B,) are people; `full` (B,) where slots
    were too few; `camera` (B, 3, 3).
    """

    def __init__(
        self, network: Network, people: int, threshold: float | None, content: Content | None = None
    ) -> None:
        super().__init__()
        self.network, self.people, self.threshold, self.content = network, people, threshold, content

    def forward(self, pixels: Tensor, K: Tensor) -> dict[str, Tensor]:
        said: Any = self.network.forward_fixed(  # type: ignore[operator]
            pixels,
            K,
            people=self.people,
            threshold=self.threshold,
            contents=None if self.content is None else [self.content] * len(pixels),
        )
        slots = said.centers
        K_P33 = said.K_B33[slots.image_index_P]
        points_PV2 = project(said.vertices_PV3, K_P33)
        flat = (
            *(slots.scores_P, said.pose_PR33, said.shape_PS, said.expression_PE, said.translation_P3),
            *(said.vertices_PV3, said.joints_PJ3, project(said.joints_PJ3, K_P33)),
            torch.stack([points_PV2.amin(1), points_PV2.amax(1)], dim=1),
        )
        distance_P = said.translation_P3.norm(dim=-1)
        distance_BN = torch.where(slots.mask_BQ.flatten(), distance_P, torch.inf).view_as(slots.mask_BQ)
        starts_B1 = torch.arange(len(distance_BN), device=distance_P.device)[:, None] * distance_BN.shape[1]
        order_BN = starts_B1 + distance_BN.argsort(dim=1, stable=True)
        answer = {name: tensor[order_BN] for name, tensor in zip(PER_PERSON, flat, strict=True)}
        return answer | {"count": slots.mask_BQ.sum(1), "full": slots.full_B, "camera": said.K_B33}


class Recording(NamedTuple):
    """A prediction of fixed shapes: write into `pixels` and `K`, `replay`, and read `answer`."""

    pixels: Tensor
    K: Tensor
    answer: dict[str, Tensor]
    host: dict[str, Tensor]  # what `answer` is copied to, in pinned memory
    replay: Callable[[], Any]


class CudaGraphRuntime:
    """The runtime of a `Model` with the backends of `RECORDED`: predictions recorded as CUDA graphs.

    One graph is recorded for each number of pictures (a power of two), of slots and each threshold that is
    asked for. If a picture shows more people than there are slots, a graph with twice as many is used, so
    that no person is lost. On a CPU, where there is nothing to record, all is computed each time: for tests.

    network: of family multihmr or multihmr-anny, in its final weights and precision; later ones are not seen.
    compiled: let torch.compile make the kernels that are recorded.
    float8: let the backbone's linear layers compute with 8-bit floats (float8.py).

    ValueError: models of this family have no forward of fixed shapes; or they, or the GPU, no 8-bit floats.
    """

    square = True  # one recording fits one shape

    def __init__(self, network: Network, *, compiled: bool = False, float8: bool = False) -> None:
        if not hasattr(network, "forward_fixed"):
            raise ValueError(
                f"a model of family {network.family!r} cannot be recorded, because it looks at one person's "
                "crop at a time; record the Multi-HMR that finds its people, or take backend='compile'"
            )
        self.size, self.device = network.config.image_size, network.device
        self._network, self._compiled = _in_half(network, float8=float8), compiled
        self._backbone: Any = network.backbone
        self._slots = SLOTS
        self._recordings: dict[tuple[int, int, float | None, Content | None], Recording] = {}
        self._pool: Any = None
        self._one_at_a_time = threading.Lock()

    def __call__(
        self,
        images: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
        threshold: float | None,
        max_people: int | None,
    ) -> list[Detections]:
        """The people of each of these (H, W, 3) uint8 images with its letterbox and camera (NaN
        where the network's own is wanted); the rest is as in `Model.predict`.
        """
        if self._network.backbone.padding == "whole":
            return self._predict(images, letterboxes, K_B33, threshold, max_people)
        found: dict[int, Detections] = {}
        patch = self._network.backbone.patch
        for content, which in _alike(contents_of(images, letterboxes), patch).items():
            some, boxes = [images[i] for i in which], [letterboxes[i] for i in which]
            people = self._predict(some, boxes, K_B33[which], threshold, max_people, content)
            found |= dict(zip(which, people, strict=True))
        return [found[i] for i in range(len(images))]

    def keypoint_maps(self, images_B3HW: Tensor) -> Tensor:
        maps: Tensor = self._backbone.keypoint_maps(images_B3HW)
        return maps

    def _predict(
        self,
        images: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
        threshold: float | None,
        max_people: int | None,
        content: Content | None = None,
    ) -> list[Detections]:
        """The people of images that are padded alike."""
        count = len(images)
        with self._one_at_a_time:
            while True:
                slots = self._slots if max_people is None else max(1, max_people)
                recording = self._recording(count, slots, threshold, content)
                self._run(recording, images, letterboxes, K_B33)
                if max_people is not None or not recording.host["full"][:count].any():
                    return [_seen(recording.host, i, max_people) for i in range(count)]
                self._slots *= 2

    def _run(
        self,
        recording: Recording,
        images: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
    ) -> None:
        with torch.inference_mode():
            recording.K[: len(images)].copy_(self._pinned(K_B33), non_blocking=True)
            for row, picture, letterbox in zip(recording.pixels, images, letterboxes, strict=False):
                source = self._pinned(torch.from_numpy(np.array(picture)))
                row.copy_(seen_through(letterbox, source.to(self.device, non_blocking=True)))
            recording.replay()
            for name, tensor in recording.answer.items():
                recording.host[name].copy_(tensor, non_blocking=True)
            if self.device.type == "cuda":
                torch.cuda.current_stream(self.device).synchronize()

    def _pinned(self, tensor: Tensor) -> Tensor:
        """In memory that the GPU reads by itself; torch keeps such blocks, and does not give one away again
        while it is read."""
        return tensor.pin_memory() if self.device.type == "cuda" else tensor

    def _recording(
        self, count: int, slots: int, threshold: float | None, content: Content | None
    ) -> Recording:
        batch = 1 << (count - 1).bit_length()
        key = batch, slots, threshold, content
        if key not in self._recordings:
            if len(self._recordings) == MOST_RECORDINGS:
                del self._recordings[next(iter(self._recordings))]  # the oldest
            self._recordings[key] = self._record(batch, slots, threshold, content)
        return self._recordings[key]

    @torch.inference_mode()
    def _record(self, batch: int, slots: int, threshold: float | None, content: Content | None) -> Recording:
        pixels = torch.zeros(batch, 3, self.size, self.size, device=self.device)
        K = torch.full((batch, 3, 3), torch.nan, device=self.device)
        graph: Callable[..., dict[str, Tensor]] = PeopleNearestFirst(self._network, slots, threshold, content)
        graph(pixels, K)  # bodies make on first use what they keep
        if self._compiled:
            graph = torch.compile(graph, dynamic=False)
        if self.device.type != "cuda":
            answer = graph(pixels, K)

            def compute() -> None:
                for name, tensor in graph(pixels, K).items():
                    answer[name].copy_(tensor)

            return Recording(pixels, K, answer, _like(answer, pinned=False), compute)
        with torch.cuda.device(self.device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(ROUNDS):
                    graph(pixels, K)
            torch.cuda.current_stream().wait_stream(aside)
            recorded = torch.cuda.CUDAGraph()
            with torch.cuda.graph(recorded, pool=self._pool):
                answer = graph(pixels, K)
            # Graphs run one after the other, and each answer is read before the next one runs.
            self._pool = recorded.pool()
        return Recording(pixels, K, answer, _like(answer, pinned=True), recorded.replay)


def _alike(contents: Sequence[Content], patch: int) -> dict[Content, list[int]]:
    """Rectangles of whole patches -> the images whose content they just hold."""
    alike: dict[Content, list[int]] = {}
    for i, content in enumerate(contents):
        left, top, right, bottom = (edge * patch for edge in content_patches(content, patch))
        alike.setdefault((left, top, right, bottom), []).append(i)
    return alike


def _like(answer: dict[str, Tensor], *, pinned: bool) -> dict[str, Tensor]:
    return {
        name: torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)
        for name, tensor in answer.items()
    }


def _seen(host: dict[str, Tensor], image: int, max_people: int | None) -> Detections:
    """Copies, because the next prediction writes to the same memory."""
    count = int(host["count"][image])
    if max_people is not None:
        count = min(count, max_people)
    people = {name: host[name][image, :count].numpy().copy() for name in PER_PERSON}
    for array in people.values():
        array.flags.writeable = False  # so that Humans takes it as it is
    flat = people.pop("joints_2d"), people.pop("outline")
    return Detections(people, host["camera"][image].clone(), flat)


def _in_half(network: Network, *, float8: bool) -> Network:
    """The same network, whose backbone holds the factors of its products in `half_dtype`, or in 8 bits.

    Autocast makes such copies in every prediction, and a graph would make them in every replay: of a ViT-L
    1.8 GB go through memory for that. With `half_dtype` what is computed stays the same.
    """
    dtype = network.backbone.half_dtype
    if float8:
        _check_float8(network)
    if dtype is None:
        return network
    backbone = copy.deepcopy(network.backbone)
    for part in backbone.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            part.to(dtype)
    if float8:
        with_float8(backbone)
    return with_backbone(network, backbone)


def _check_float8(network: Network) -> None:
    if network.backbone.half_dtype != torch.bfloat16:
        raise ValueError("products of 8-bit floats give bfloat16: take dtype=torch.bfloat16 with them")
    if network.device.type == "cuda" and torch.cuda.get_device_capability(network.device) < CAPABILITY:
        raise ValueError(
            f"{torch.cuda.get_device_name(network.device)} has no products of 8-bit floats; "
            "take backend='cudagraph-compile'"
        )
