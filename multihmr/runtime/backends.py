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
from typing import Any

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
from .openvino_cache import compiled_graph, digest_of_files, is_compiled
from .openvino_graph import fuse_wide_layers
from .optional_imports import needed
from .trace import trace_backbone, trace_blocks, trace_stem

USUAL_PICTURE = (480, 640)  # (height, width) whose graph is made when a model is loaded: most are of 4:3
Shape = tuple[int, int]  # (height, width) of a window [pixels]
Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]
WHOLE = ""
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
    backbone = ExternalBackbone(network.backbone, BACKENDS[name](network, folder, calibrate))
    return EagerRuntime(with_backbone(network, backbone), square=name == "openvino-int8")


def _compiled(network: Network, folder: Path, calibrate: object) -> Callable[..., Features]:
    """torch.compile, which keeps what it makes in its own cache."""
    run: Callable[..., Features] = torch.compile(network.backbone.compute, dynamic=False)
    try:
        with torch.inference_mode():
            run(torch.zeros(1, 3, *network.letterbox(*USUAL_PICTURE).shape, device=network.device))
    except RuntimeError as error:  # no compiler, or one that cannot do it
        raise ValueError(f"torch.compile cannot be used here: {_first_line(error)}") from error
    return run


def _onnxruntime(network: Network, folder: Path, calibrate: object) -> Callable[..., Features]:
    if network.backbone.half_dtype is not None:
        raise ValueError("backend 'onnxruntime' computes in float32; leave `dtype` away, or take 'openvino'")
    runtime: Any = needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    key = _key(network)

    def make(shape: Shape) -> Run:
        file = str(_stored(network, folder, key, shape))
        session = runtime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        names = [value.name for value in session.get_inputs()]
        return lambda arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    return _features(network, make)


def _openvino(network: Network, folder: Path, calibrate: object) -> Callable[..., Features]:
    key, backbone = _key(network), network.backbone
    half, threads = backbone.half_dtype, torch.get_num_threads()
    if half is None or backbone.half_stem:
        parts = {WHOLE: half}
    else:
        parts = {"stem": None, "blocks": half}  # a graph has one precision

    def part(of: str, shape: Shape) -> Run:
        source = partial(_stored, network, folder, key, shape, of)
        return _openvino_run(parts[of], source, folder, _name(key, shape, of), threads)

    def make(shape: Shape) -> Run:
        if WHOLE in parts:
            return part(WHOLE, shape)
        stem, blocks = part("stem", shape), part("blocks", shape)

        def run(arrays: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
            tokens, *maps = stem(arrays)
            return [*blocks([tokens]), *maps]

        return run

    # What has been compiled is read when a picture needs it: many are not of the usual shape.
    usual = network.letterbox(*USUAL_PICTURE).shape
    ready = (is_compiled(folder, _name(key, usual, of), _settings(dtype)) for of, dtype in parts.items())
    return _features(network, make, now=not all(ready))


def _openvino_int8(
    network: Network, folder: Path, calibrate: str | os.PathLike[str] | None
) -> Callable[..., Features]:
    check_int8(network)
    square = network.letterbox(*USUAL_PICTURE, square=True).shape
    onnx = _stored(network, folder, _key(network), square)
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
    half, threads = network.backbone.half_dtype, torch.get_num_threads()
    return _features(
        network, lambda _: _openvino_run(half, lambda: file, folder, name, threads), first=square
    )


BACKENDS: dict[str, Callable[..., Callable[..., Features]]] = {
    "compile": _compiled,
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "openvino-int8": _openvino_int8,
}
"""name -> what makes, of (network, folder, calibrate), a function from windows to features."""


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


def _features(
    network: Network, make: Callable[[Shape], Run], *, first: Shape | None = None, now: bool = True
) -> Callable[..., Features]:
    """What `trace_backbone` gives, as features.

    Args:
        network: whose backbone is computed.
        make: the graph for one shape of window, made when a picture needs it.
        first: the shape whose graph is made now, so that a missing package is reported when the model is
            loaded; by default that of USUAL_PICTURE.
        now: False leaves it until a picture needs it.
    """
    backbone: Backbone = network.backbone
    graphs: dict[Shape, Run] = {}
    one_at_a_time = threading.Lock()

    def graph_for(shape: Shape) -> Run:
        with one_at_a_time:
            if shape not in graphs:
                graphs[shape] = make(shape)
            return graphs[shape]

    if now:
        graph_for(first or network.letterbox(*USUAL_PICTURE).shape)

    def see(images_B3HW: Tensor, merged: MergedTokens | None = None) -> Features:
        run = graph_for((images_B3HW.shape[2], images_B3HW.shape[3]))
        pixels = np.ascontiguousarray(images_B3HW.numpy(), np.float32)
        arrays = run([pixels, *(() if merged is None else (tensor.numpy() for tensor in merged))])
        grid_BDhw, global_BD, *rest = (torch.from_numpy(array) for array in arrays)
        fine_BDhw = rest.pop(0) if backbone.fine_width else None
        return Features(grid_BDhw, global_BD, fine_BDhw, tuple(rest))

    return see


def _stored(network: Network, folder: Path, key: str, shape: Shape, part: str = WHOLE) -> Path:
    """The backbone for windows of this shape as ONNX in `folder`, made now if it is not there.

    key: `_key` of the network, whose weights take seconds to hash where they are large. part: of PARTS.
    """
    file = folder / f"{_name(key, shape, part)}.onnx"
    if file.exists():
        return file
    for package in ("onnx", "onnxscript"):
        needed(package)
    with locked(file):
        if not file.exists():  # another process was first
            with atomic_path(file) as draft:
                write_onnx(PARTS[part](network, shape), draft, {"multihmr": __version__})
    return file


def _key(network: Network) -> str:
    """A name that changes with everything that the graphs of a network depend on but the window's shape."""
    known = hashlib.sha256(f"{__version__} {torch.__version__} {_code()} {network.config}".encode())
    known.update(network.backbone.padding.encode())
    for name, value in network.backbone.state_dict().items():
        known.update(name.encode())
        known.update(value.detach().cpu().contiguous().numpy().tobytes())
    return f"{type(network.backbone).__name__.lower()}-{known.hexdigest()[:16]}"


def _name(key: str, shape: Shape, part: str = WHOLE) -> str:
    """Of the graph of that part for one shape of window."""
    height, width = shape
    return "-".join(filter(None, [key, f"{width}x{height}", part]))


@cache
def _code() -> str:
    """Digest of the code that is traced: in development it changes while the version stays."""
    folders = (Path(backbones.__file__).parent, Path(__file__).parent)
    return digest_of_files(*sorted(chain.from_iterable(folder.glob("*.py") for folder in folders)))


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
