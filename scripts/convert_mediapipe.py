"""Convert MediaPipe's hand and face landmark networks (networks/landmarks) into the file that multihmr ships.

    pip install tflite
    npm pack @mediapipe/holistic@0.5.1675471629
    url=https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1
    curl -O $url/face_landmarker.task
    python scripts/convert_mediapipe.py --package mediapipe-holistic-*.tgz --task face_landmarker.task

Both are Google's, under Apache-2.0. Matrices and kernels get 8 bits and a scale a row, as in the checkpoints.
`--reference` also writes what the original runtime (pip install ai-edge-litert) gives for the crops of the
test, tests/networks/landmarks.npz.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import zipfile
from pathlib import Path

import numpy as np
import torch
from npm_package import open_package
from PIL import Image
from torch import Tensor

from multihmr.hub.checkpoint import packed
from multihmr.hub.landmarks import FILE, PARTS, write_landmark_weights

PACKAGE, VERSION = "@mediapipe/holistic", "0.5.1675471629"
ASSETS = "package/holistic_solution_packed_assets"
HAND = "/third_party/mediapipe/modules/hand_landmark/hand_landmark_full.tflite"
FACE, ACTIONS = "face_landmarks_detector.tflite", "face_blendshapes.tflite"
SHA256 = {
    HAND: "8c026882c9ec059ce0f8e75266bee5a9a23c341a40e0000df755374d3d1b9b68",
    FACE: "c7d54204ce0448474c7f3fa9af494787c0965cbdd6f20fc72867e43046bd43d5",
    ACTIONS: "4f36dded049db18d76048567439b2a7f58f1daabc00d78bfe8f3ad396a2d2082",
}
# Operators with weights of their own. A CONCATENATION's is the token that the facial actions are read from.
LEARNED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "PRELU", "MUL", "CONCATENATION")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--package", type=Path, required=True, metavar="TGZ", help=f"{PACKAGE}-{VERSION}.tgz")
    parser.add_argument("--task", type=Path, required=True, metavar="TASK", help="face_landmarker.task")
    parser.add_argument("--out", type=Path, default=Path("weights") / FILE, metavar="FILE")
    parser.add_argument("--reference", type=Path, metavar="NPZ", help="write the original runtime's numbers")
    args = parser.parse_args()
    try:
        graphs = {"hand": read_package(args.package), **read_task(args.task)}
        state = {f"{part}.{name}": v for part in PARTS for name, v in convert(part, graphs[part]).items()}
    except (ValueError, OSError) as error:
        raise SystemExit(f"convert_mediapipe: {error}") from error
    exact = tuple(name for name in state if "depthwise" in name or ".to_" in name)  # with 16 bits
    write_landmark_weights(packed({name: value.half() for name, value in state.items()}, exact), args.out)
    print(f"{sum(map(torch.numel, state.values())) / 1e6:.1f} M numbers in {args.out}")
    if args.reference:
        np.savez_compressed(args.reference, **reference(graphs))


def read_package(path: Path) -> bytes:
    """The hand network in the npm package. ValueError: it is another package or version."""
    with open_package(path, PACKAGE, VERSION) as read:
        loader = read(f"{ASSETS}_loader.js").decode()
        place = re.search(rf'"{re.escape(HAND)}", *"start": *(\d+), *"end": *(\d+)', loader)
        if place is None:
            raise ValueError(f"there is no {HAND} in {path}: it is another package")
        data = read(f"{ASSETS}.data")[int(place[1]) : int(place[2])]
    return checked(data, HAND, path)


def read_task(path: Path) -> dict[str, bytes]:
    """The face's networks in face_landmarker.task. ValueError: it is another file."""
    try:
        with zipfile.ZipFile(path) as task:
            return {
                part: checked(task.read(name), name, path)
                for part, name in (("face", FACE), ("actions", ACTIONS))
            }
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{path} is no face_landmarker.task: {error}") from error


def checked(data: bytes, name: str, path: Path) -> bytes:
    found = hashlib.sha256(data).hexdigest()
    if found != SHA256[name]:
        raise ValueError(
            f"{name} in {path} has sha256 {found[:12]}..., expected {SHA256[name][:12]}...: it is another "
            "file than the one that was checked"
        )
    return data


class Graph:
    """Operators of a .tflite file in their order, and its constants."""

    def __init__(self, data: bytes) -> None:
        import tflite
        from tflite.utils import opcode2name

        self.model = tflite.Model.GetRootAsModel(data, 0)
        self.graph = self.model.Subgraphs(0)
        operators = [self.graph.Operators(i) for i in range(self.graph.OperatorsLength())]
        self.operators = [
            (opcode2name(self.model.OperatorCodes(op.OpcodeIndex()).BuiltinCode()), op) for op in operators
        ]
        self.halves = {  # number of a constant -> number of its source with 16 bits
            int(op.OutputsAsNumpy()[0]): int(op.InputsAsNumpy()[0])
            for name, op in self.operators
            if name == "DEQUANTIZE"
        }

    def constant(self, number: int) -> np.ndarray | None:
        """The constant of this number, or None if it is computed."""
        dtype = np.float16 if number in self.halves else np.float32
        tensor = self.graph.Tensors(self.halves.get(number, number))
        data = self.model.Buffers(tensor.Buffer()).DataAsNumpy()
        if isinstance(data, int):
            return None
        shape = tensor.ShapeAsNumpy() if tensor.ShapeLength() else ()
        return data.view(dtype).reshape(shape).astype(np.float32)

    def learned(self) -> list[tuple[str, list[np.ndarray]]]:
        """Kind and weights of the operators that have some, in their order."""
        found = []
        for kind, op in self.operators:
            if kind in LEARNED:
                there = [self.constant(int(i)) for i in op.InputsAsNumpy()]
                weights = [value for value in there if value is not None]
                if kind == "MUL":  # without scalars, which are no weights
                    weights = [value for value in weights if value.size > 1]
                if weights:
                    found.append((kind, weights))
        return found


def convert(part: str, data: bytes) -> dict[str, Tensor]:
    """The weights of a part by name. ValueError: the graph has other layers than the network here."""
    network = PARTS[part]()
    layers = Graph(data).learned()
    tokens = [values[0] for kind, values in layers if kind == "CONCATENATION"]
    state = {"class_token": tokens[0]} if tokens else {}
    layers = [layer for layer in layers if layer[0] != "CONCATENATION"]
    modules = [
        (name, module)
        for name, module in network.named_modules()
        if list(module.parameters(recurse=False)) and not list(module.children())
    ]
    if part == "face":  # its first of three outputs, which nothing here uses
        del layers[-3]
    if len(layers) != len(modules):
        raise ValueError(
            f"the graph of {part} has {len(layers)} layers with weights, expected {len(modules)}"
        )
    for (name, module), (kind, values) in zip(modules, layers, strict=True):
        for (parameter, _), value in zip(module.named_parameters(), values, strict=True):
            if kind == "DEPTHWISE_CONV_2D" and value.ndim == 4:
                value = value.transpose(3, 0, 1, 2)
            elif value.ndim == 4:
                value = value.transpose(0, 3, 1, 2)
            state[f"{name}.{parameter}"] = value
    wanted = network.state_dict()
    for name, value in state.items():
        if value.size != wanted[name].numel():
            raise ValueError(
                f"{part}: {name} has shape {value.shape} in the graph, expected {tuple(wanted[name].shape)}"
            )
    return {name: torch.from_numpy(value.copy()).view(wanted[name].shape) for name, value in state.items()}


def reference(graphs: dict[str, bytes]) -> dict[str, np.ndarray]:
    """Outputs of the original runtime for `test_inputs`, by part and number of the output."""
    from ai_edge_litert.interpreter import Interpreter

    result: dict[str, np.ndarray] = {}
    for part, image in test_inputs().items():
        runtime = Interpreter(model_content=graphs[part], num_threads=1)
        runtime.allocate_tensors()
        runtime.set_tensor(runtime.get_input_details()[0]["index"], image)
        runtime.invoke()
        for n, output in enumerate(runtime.get_output_details()):
            result[f"{part}{n}"] = runtime.get_tensor(output["index"]).reshape(-1).astype(np.float32)
    return result


def test_inputs() -> dict[str, np.ndarray]:
    """An input for each network: a hand, a face, and points."""
    points = np.random.default_rng(0).normal(size=(1, 146, 2)).astype(np.float32)
    return {
        "hand": crop("group.jpg", (361, 211), 74, 73, 224),
        "face": crop("astronaut.jpg", (224, 115), 165, 0, 256),
        "actions": points,
    }


def crop(name: str, center: tuple[float, float], side: float, degrees: float, pixels: int) -> np.ndarray:
    """(1, pixels, pixels, 3) in [0, 1]: a square of an example image, turned anticlockwise."""
    image = Image.open(Path(__file__).parents[1] / "examples" / "images" / name).convert("RGB")
    turn = np.radians(degrees)
    axes = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) * side / pixels
    start = np.array(center) - axes @ [pixels / 2, pixels / 2]
    rows = np.column_stack([axes, start]).ravel()
    cut = image.transform((pixels, pixels), Image.Transform.AFFINE, tuple(rows), Image.Resampling.BILINEAR)
    return np.asarray(cut, np.float32)[None] / 255


if __name__ == "__main__":
    main()
