"""A traced network -> a file: ONNX, torch.export's own, OpenVINO's: which writer needs what.

What a reader must know (`trace.facts`) is in all of them: metadata_props of ONNX, rt_info "multihmr" of
OpenVINO, the extra file facts.json of torch.export.
"""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from ..bodies.loading import float32_on_cpu
from ..networks.base import Network
from .int8 import check_int8, quantized
from .optional_imports import needed, quiet
from .trace import Traced, facts, trace_people

FACTS = "facts.json"
OLDEST_TORCH = "2.7"  # what older ones write as ONNX fails in onnxruntime (2.6) or in OpenVINO too (2.5)
SCOPES = "pkg.torch.onnx.name_scopes"
AROUND = r"people\.\d+.*"  # names of what is no part of the backbone


class Exportable(Protocol):
    """A `multihmr.Model`, as far as an exported file describes it."""

    network: Network
    licence: str


@float32_on_cpu()
def export_model(
    model: Exportable,
    path: str | Path,
    *,
    people: int = 20,
    threshold: float | None = None,
    vertices: bool = False,
    calibrate: str | Path | None = None,
) -> Path:
    """Write `model` as one graph, from letterboxed pixels to people, and return the path.

    Inputs: "pixels" (B, 3, S, S) float32 in [0, 1], RGB, windows as `Model.window` makes them; "K" (B, 3, 3)
    float32, cameras in pixels of these windows, NaN where the network's own is wanted. Outputs: "mask" (B, N)
    of the rows that hold a person, best-scored first; for each of the N "scores", "pose", "shape",
    "expression", "translation" (of the head, metres), "joints" (metres) and, if asked for, "vertices";
    "camera" (B, 3, 3), the one that was used. Rows without a person hold meaningless numbers.

    Args:
        model: a `multihmr.Model` of family multihmr or multihmr-anny, on the CPU.
        path: of the file, whose ending says what it is: .onnx, .pt2 (torch.export's), or .xml (OpenVINO's,
            with the weights beside it, as .bin).
        people: N, at most that many in one picture.
        threshold: least score of a person; None takes the checkpoint's. It is fixed in the file.
        vertices: whether the file gives them too; the body's shape is then part of it.
        calibrate: a folder of pictures like those that it will see, for a backbone of 8 bits
            (OpenVINO's alone).

    Raises:
        ValueError: this model has no such graph, or an option is wrong.
        ImportError: what writes the format is missing; the sentence says what to install.
        OSError: the file cannot be written.
    """
    network, path = model.network, Path(path)
    suffix, write, packages = FORMATS[format_of(path)]
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a score between 0 and 1, got {threshold}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder; make it first")
    if calibrate is not None and suffix != ".xml":
        raise ValueError(f"8 bits are for format 'openvino' alone, got {path.name!r}; take FILE.xml")
    if calibrate is not None:
        check_int8(network)
    if network.device.type != "cpu":
        raise ValueError(f"the model must be on the CPU, got {network.device}; load it with device='cpu'")
    for package in packages if calibrate is None else (*packages, "nncf"):
        needed(package)
    options: dict[str, Any] = {"people": people, "threshold": threshold, "vertices": vertices}
    traced, known = trace_people(network, **options), facts(network, **options, licence=model.licence)
    if calibrate is None:
        write(traced, path, known)
    else:
        write_openvino(traced, path, known, lambda onnx: quantized(onnx, network, calibrate, kept=AROUND))
    return path


def format_of(path: Path, asked: str | None = None) -> str:
    """The name in FORMATS that the path ends in; ValueError if it is none, or not the one asked for."""
    if asked is not None and asked not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, got {asked!r}")
    endings = [suffix for name, (suffix, *_) in FORMATS.items() if asked in (None, name)]
    for name, (suffix, *_) in FORMATS.items():
        if suffix == path.suffix and suffix in endings:
            return name
    raise ValueError(f"the file to write must end in {' or '.join(endings)}, got {path.name!r}; rename it")


def write_torch_export(traced: Traced, path: Path, known: Mapping[str, str]) -> None:
    """For torch.export.load, which needs neither this package nor its dependencies."""
    # Traced, it has blocks of autocast, which torch.export.load (2.15) refuses; it is the same without them.
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch to itself
        program = traced.program.run_decompositions({})
        torch.export.save(program, path, extra_files={FACTS: json.dumps(dict(known))})


def write_onnx(traced: Traced, path: Path, known: Mapping[str, str]) -> None:
    if torch.__version__ < OLDEST_TORCH:
        raise ImportError(
            f"graphs need torch {OLDEST_TORCH} or newer, this is {torch.__version__}: "
            "pip install 'multihmr[export]'"
        )
    with torch.no_grad(), warnings.catch_warnings(), quiet("torch.onnx", "onnxscript", "onnx_ir"):
        warnings.simplefilter("ignore")  # of torch to itself
        program: Any = torch.onnx.export(traced.program, (), dynamo=True, verbose=False, optimize=False)
    graph = program.model.graph
    for number, node in enumerate(graph):
        # What int8.py goes by; and torch's notes on where a node comes from tell the paths of this machine.
        part = "backbone" if "backbone" in node.metadata_props.get(SCOPES, "") else "people"
        node.name = f"{part}.{number}"
        node.metadata_props.clear()
        for place, value in enumerate(node.outputs):
            value.name = f"v{number}.{place}"  # else some have the names of outputs
    for values, names in ((graph.inputs, traced.inputs), (graph.outputs, traced.outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    program.model.metadata_props.update(known)
    program.save(str(path), external_data=False)


def write_openvino(
    traced: Traced, path: Path, known: Mapping[str, str], convert: Callable[[Path], Any] | None = None
) -> None:
    """convert: of an ONNX file to an openvino.Model; None reads it as it is."""
    openvino: Any = needed("openvino")
    with tempfile.TemporaryDirectory() as folder:
        onnx = Path(folder) / "graph.onnx"
        write_onnx(traced, onnx, known)
        network = convert(onnx) if convert else openvino.Core().read_model(str(onnx))
        for name, value in known.items():
            network.set_rt_info(value, ["multihmr", name])
        openvino.save_model(network, str(path), compress_to_fp16=False)


Write = Callable[[Traced, Path, Mapping[str, str]], None]
ONNX = ("onnx", "onnxscript")
# name -> what its files end in, what writes them, the packages that this needs
FORMATS: dict[str, tuple[str, Write, tuple[str, ...]]] = {
    "onnx": (".onnx", write_onnx, ONNX),
    "torch-export": (".pt2", write_torch_export, ()),
    "openvino": (".xml", write_openvino, (*ONNX, "openvino")),
}
