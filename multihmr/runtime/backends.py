"""Other runtimes for `load_model(backend=...)`.

Most compute the backbone, which costs most of a prediction. Windows, people and bodies stay with torch, so
that only people who are there cost anything, and results are those of eager prediction to the rounding of the
backbone. What a runtime needs is made when a model is first loaded for it and kept in a folder, under a name
that tells weights, size and versions. On a GPU whole predictions can be recorded instead (cuda_graphs.py).
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .._version import __version__
from ..networks import backbones
from ..networks.backbones.base import PADDINGS, Backbone, Features
from ..networks.backbones.merged_padding import MergedTokens
from ..networks.base import Network
from ..storage.atomic import atomic_path
from ..storage.download import locked
from .cuda_graphs import RECORDED, CudaGraphRuntime
from .eager import EagerRuntime, ExternalBackbone, Runtime, with_backbone
from .export import write_onnx
from .int8 import check_int8, quantized
from .openvino_cache import compiled_graph, digest_of_files
from .openvino_graph import fuse_wide_layers
from .optional_imports import needed
from .trace import trace_backbone, trace_blocks, trace_stem

USUAL_PICTURE = (480, 640)  # (height, width) for whose windows torch.compile compiles first: most are of 4:3
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
WHOLE, KEYPOINTS = "", "keypoints"
PARTS = {WHOLE: trace_backbone, "stem": trace_stem, "blocks": trace_blocks}  # of a backbone, as graphs
PRECISIONS = {None: "f32", torch.bfloat16: "bf16"}  # half_dtype -> what OpenVINO calls it


def check_backend(name: str, *, device: str, calibrate: object = None) -> None:
    """ValueError or ImportError if no model can have this backend on that type of device."""
    known = ("eager", *BACKENDS, *RECORDED)
    if name not in known:
        raise ValueError(f"backend must be one of {', '.join(known)}, got {name!r}")
    if calibrate is not None and name != "openvino-int8":
        raise ValueError(f"calibrate is for backend 'openvino-int8'; leave it away with {name!r}")
    if name in RECORDED and device != "cuda":
        raise ValueError(
            f"backend {name!r} records what an NVIDIA GPU does, got device {device!r}; take device='cuda'"
        )
    if name in BACKENDS and name != "compile":
        if device != "cpu":
            raise ValueError(
                f"backend {name!r} computes on the CPU, got device {device!r}; "
                "take device='cpu', or backend='compile' or 'cudagraph'"
            )
        needed(name.removesuffix("-int8"))


def set_padding(network: Network, padding: str) -> None:
    """Let the backbone compute padding as `load_model(padding=...)` says; ValueError if it cannot."""
    if padding not in PADDINGS:
        raise ValueError(f"padding must be 'whole' or 'thin', got {padding!r}")
    if padding == "thin" and (network.top_down or not network.backbone.thins):
        raise ValueError(
            "padding='thin' is for networks on DINOv2 that see whole pictures; "
            f"leave it away with one of family {network.family!r} on {network.config.backbone}"
        )
    network.backbone.padding = padding  # type: ignore[assignment]


def make_runtime(
    network: Network, name: str, *, folder: Path, calibrate: str | os.PathLike[str] | None = None
) -> Runtime:
    """The runtime of that name for `network`, which stays as it is.

    Args:
        network: in its final weights and precision; later changes have no effect on the runtime.
        name: "eager", or one of BACKENDS or RECORDED, checked by `check_backend`.
        folder: where graphs are kept.
        calibrate: pictures for "openvino-int8", as `int8.pictures` takes them; None takes what was made
            with some earlier.

    Raises:
        ValueError: the runtime has not this precision or cannot be prepared; or models of this family
            cannot be recorded.
        ImportError: a package is missing.
    """
    if name == "eager":
        return EagerRuntime(network)
    if name in RECORDED:
        return CudaGraphRuntime(network, **RECORDED[name])
    functions = BACKENDS[name](network, folder, calibrate)
    backbone = ExternalBackbone(network.backbone, *functions)
    return EagerRuntime(with_backbone(network, backbone), square=name == "openvino-int8")


class BackboneFunctions(NamedTuple):
    """What another runtime computes of a backbone.

    Attributes:
        features: as `Backbone.compute`.
        keypoint_maps: as `HybridMoveNet.keypoint_maps`; None of other backbones.
    """

    features: Callable[..., Features]
    keypoint_maps: Callable[[Tensor], Tensor] | None = None


def _compiled(network: Network, folder: Path, calibrate: object) -> BackboneFunctions:
    """torch.compile, which keeps what it makes in its own cache."""
    run: Callable[..., Features] = torch.compile(network.backbone.compute, dynamic=False)
    try:
        with torch.inference_mode():
            run(torch.zeros(1, 3, *network.letterbox(*USUAL_PICTURE).shape, device=network.device))
    except RuntimeError as error:  # no compiler, or one that cannot do it
        raise ValueError(f"torch.compile cannot be used here: {_first_line(error)}") from error
    return BackboneFunctions(run, getattr(network.backbone, "keypoint_maps", None))


def _onnxruntime(network: Network, folder: Path, calibrate: object) -> BackboneFunctions:
    if network.backbone.half_dtype is not None:
        raise ValueError("backend 'onnxruntime' computes in float32; leave `dtype` away, or take 'openvino'")
    runtime: Any = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    key = _key(network)

    def part(of: str) -> Run:
        file = str(_stored(network, folder, key, of))
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    return _functions(network, part(WHOLE), partial(part, KEYPOINTS))


def _openvino(network: Network, folder: Path, calibrate: object) -> BackboneFunctions:
    key, backbone = _key(network), network.backbone
    half, threads = backbone.half_dtype, torch.get_num_threads()

    def part(of: str, half: torch.dtype | None) -> Run:
        return _openvino_run(
            half, partial(_stored, network, folder, key, of), folder, _name(key, of), threads
        )

    keypoints = partial(part, KEYPOINTS, half if backbone.half_stem else None)
    if half is None or backbone.half_stem:
        return _functions(network, part(WHOLE, half), keypoints)
    stem, blocks = part("stem", None), part("blocks", half)  # a graph has one precision

    def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        tokens, *maps = stem(arrays)
        return [*blocks([tokens]), *maps]

    return _functions(network, run, keypoints)


def _openvino_int8(
    network: Network, folder: Path, calibrate: str | os.PathLike[str] | None
) -> BackboneFunctions:
    check_int8(network)
    onnx = _stored(network, folder, _key(network))
    file = onnx.with_name(f"{onnx.stem}-int8.xml")
    if calibrate is not None:
        graph = quantized(onnx, network, calibrate)
        with locked(file):
            needed("openvino").save_model(graph, str(file), compress_to_fp16=False)
    elif not file.exists():
        raise ValueError(
            "backend 'openvino-int8' must see pictures once, to know how large numbers get: "
            "load_model(..., backend='openvino-int8', calibrate='FOLDER') with some hundred of your kind"
        )
    name = f"{file.stem}-{digest_of_files(file, file.with_suffix('.bin'))}"
    run = _openvino_run(network.backbone.half_dtype, lambda: file, folder, name, torch.get_num_threads())
    return _functions(network, run)


BACKENDS: dict[str, Callable[..., BackboneFunctions]] = {
    "compile": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino-int8": _openvino_int8,
}
"""name -> what makes, of (network, folder, calibrate), the functions of the runtime."""


def _openvino_run(
    half: torch.dtype | None, source: Callable[[], Path], folder: Path, name: str, threads: int
) -> Run:
    """`source` makes the graph's file, `name` changes with what the graph depends on."""
    change = fuse_wide_layers if half is None else None
    compiled = compiled_graph(source, folder, name, _settings(half), threads=threads, change=change)
    return lambda arrays: list(compiled(list(arrays), share_inputs=True).values())


def _settings(half: torch.dtype | None) -> dict[str, Any]:
    """How OpenVINO compiles for that precision."""
    if half not in PRECISIONS:
        raise ValueError(f"OpenVINO computes in float32 or bfloat16 on a CPU, got dtype={half}")
    return {"INFERENCE_PRECISION_HINT": PRECISIONS[half], "PERFORMANCE_HINT": "LATENCY"}


def _functions(network: Network, run: Run, keypoints: Callable[[], Run] | None = None) -> BackboneFunctions:
    """The functions of a runtime that takes and gives numpy arrays.

    Args:
        network: whose backbone is computed.
        run: computes what `trace_backbone` gives.
        keypoints: makes what computes `KEYPOINTS`, when the first crop asks for it.
    """
    backbone: Backbone = network.backbone
    one_at_a_time = threading.Lock()
    made: list[Run] = []

    def features(images_B3HW: Tensor, merged: MergedTokens | None = None) -> Features:
        arrays = run(
            [_array(images_B3HW), *(() if merged is None else (tensor.numpy() for tensor in merged))]
        )
        grid_BDhw, global_BD, *rest = (torch.from_numpy(array) for array in arrays)
        fine_BDhw = rest.pop(0) if backbone.fine_width else None
        return Features(grid_BDhw, global_BD, fine_BDhw, tuple(rest))

    def keypoint_maps(images_B3HW: Tensor) -> Tensor:
        assert keypoints is not None
        with one_at_a_time:
            if not made:
                made.append(keypoints())
        (maps,) = made[0]([_array(images_B3HW)])
        return torch.from_numpy(maps)

    return BackboneFunctions(features, keypoint_maps if hasattr(backbone, "keypoint_maps") else None)


def _array(images_B3HW: Tensor) -> np.ndarray:
    return np.ascontiguousarray(images_B3HW.numpy(), np.float32)


def _stored(network: Network, folder: Path, key: str, part: str = WHOLE) -> Path:
    """The backbone as ONNX in `folder`, made now if it is not there.

    key: `_key` of the network, whose weights take seconds to hash where they are large. part: of PARTS, or
    KEYPOINTS.
    """
    file = folder / f"{_name(key, part)}.onnx"
    if file.exists():
        return file
    for package in ("onnx", "onnxscript"):
        needed(package)
    with locked(file):
        if not file.exists():  # another process was first
            with atomic_path(file) as draft:
                if part == KEYPOINTS:
                    _write_keypoints(_stored(network, folder, key, _part_with_keypoints(folder, key)), draft)
                else:
                    write_onnx(PARTS[part](network), draft, {"multihmr": __version__})
    return file


def _part_with_keypoints(folder: Path, key: str) -> str:
    """A part of PARTS that contains KEYPOINTS: the stem where it has been traced, to trace nothing anew."""
    return "stem" if (folder / f"{_name(key, 'stem')}.onnx").exists() else WHOLE


def _write_keypoints(source: Path, file: Path) -> None:
    """The part of the graph in `source` that its last output needs: the maps of MoveNet's heads."""
    onnx: Any = needed("onnx")
    whole = onnx.load(str(source))
    pixels, maps = whole.graph.input[0].name, whole.graph.output[-1].name
    onnx.save(onnx.utils.Extractor(whole).extract_model([pixels], [maps]), str(file))


def _key(network: Network) -> str:
    """A name that changes with everything that the graphs of a network depend on but the window's shape."""
    known = hashlib.sha256(f"{__version__} {torch.__version__} {_code()} {network.config}".encode())
    known.update(network.backbone.padding.encode())
    for name, value in network.backbone.state_dict().items():
        known.update(name.encode())
        known.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"{type(network.backbone).__name__.lower()}-{known.hexdigest()[:16]}"


def _name(key: str, part: str = WHOLE) -> str:
    """Of the graph of that part."""
    return "-".join(filter(None, [key, part]))


@cache
def _code() -> str:
    """Digest of the code that is traced: in development it changes while the version stays."""
    folders = (Path(backbones.__file__).parent, Path(__file__).parent)
    return digest_of_files(*sorted(chain.from_iterable(folder.glob("*.py") for folder in folders)))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
