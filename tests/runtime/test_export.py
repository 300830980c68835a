"""Files for other programs and other runtimes: they say what torch says, nobody in the picture or many."""

import dataclasses
import json
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from toys import tiny_glnet_model, tiny_model, tiny_network

from multihmr.cli import main as cli
from multihmr.geometry import default_intrinsics
from multihmr.model import load_model
from multihmr.networks.configs import MultiHMRConfig
from multihmr.runtime import backends, export
from multihmr.runtime import optional_imports as packages
from multihmr.runtime.backends import check_backend, make_runtime
from multihmr.runtime.export import export_model, format_of, write_onnx, write_openvino, write_torch_export
from multihmr.runtime.int8 import check_int8, pictures
from multihmr.runtime.trace import facts, trace_backbone, trace_people

pytestmark = pytest.mark.slow  # the module fixtures alone take seconds

PEOPLE, PICTURES = 3, 20
FIELDS = {
    "scores": "centers.scores_P",
    "pose": "pose_PR33",
    "shape": "shape_PS",
    "expression": "expression_PE",
    "translation": "translation_P3",
    "joints": "joints_PJ3",
    "vertices": "vertices_PV3",
}


def package(name):
    """An optional package; the test is skipped without it."""
    try:
        return packages.needed(name)
    except ImportError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def letterboxes():
    """20 pictures; the camera of every other one is known."""
    pixels = torch.rand(PICTURES, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    K = torch.full((PICTURES, 3, 3), torch.nan)
    K[::2] = default_intrinsics(64, 64, 50.0)
    return pixels, K


@pytest.fixture(scope="module")
def model(letterboxes):
    """With a threshold that leaves half of the pictures empty."""
    model = tiny_model(nms_3d_distance=(0.2, 0.2))
    with torch.no_grad():
        best = model(letterboxes[0], max_people=1, threshold=0.0).centers.scores_P
    model.network.config = dataclasses.replace(model.config, threshold=float(best.sort().values[9:11].mean()))
    return model


@pytest.fixture(scope="module")
def traced(model):
    options = {"people": PEOPLE, "threshold": None, "vertices": True}
    return trace_people(model.network, **options), facts(model.network, **options)


@pytest.fixture(scope="module")
def onnx_file(traced, tmp_path_factory):
    package("onnxscript")
    file = tmp_path_factory.mktemp("graphs") / "people.onnx"
    write_onnx(traced[0], file, traced[1])
    return file


def with_torch(traced, folder, pixels, K):
    write_torch_export(traced[0], folder / "people.pt2", traced[1])
    said = {"facts.json": ""}
    program = torch.export.load(folder / "people.pt2", extra_files=said)
    assert json.loads(said["facts.json"]) == traced[1]
    return dict(zip(traced[0].outputs, program.module()(pixels, K), strict=True))


def with_onnxruntime(traced, folder, pixels, K):
    runtime = package("onnxruntime")
    session = runtime.InferenceSession(folder / "people.onnx", providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == traced[1]
    said = session.run(None, {"pixels": pixels.numpy(), "K": K.numpy()})
    return {output.name: array for output, array in zip(session.get_outputs(), said, strict=True)}


def with_openvino(traced, folder, pixels, K):
    openvino = package("openvino")
    if not (folder / "people.xml").exists():
        with pytest.MonkeyPatch.context() as patch:  # it begins with the file that there is already: 10 s
            patch.setattr(
                export, "write_onnx", lambda traced, path, known: shutil.copy(folder / "people.onnx", path)
            )
            write_openvino(traced[0], folder / "people.xml", traced[1])
    network = openvino.Core().read_model(folder / "people.xml")
    assert network.get_rt_info(["multihmr", "family"]).value == "multihmr"
    compiled = openvino.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return {output.any_name: array for output, array in compiled([pixels.numpy(), K.numpy()]).items()}


# Undoing autocast for torch.export takes 20 s.
@pytest.mark.parametrize(
    "runtime", [pytest.param(with_torch, marks=pytest.mark.nightly), with_onnxruntime, with_openvino]
)
@torch.no_grad()
def test_files_say_what_forward_says(runtime, model, traced, letterboxes, onnx_file):
    expected = model(*letterboxes, max_people=PEOPLE)
    order = torch.argsort(expected.centers.image_index_P * 2 - expected.centers.scores_P, stable=True)
    said = {name: np.asarray(x) for name, x in runtime(traced, onnx_file.parent, *letterboxes).items()}
    there = said["mask"]
    assert there.shape == (PICTURES, PEOPLE)
    assert 5 <= there.any(1).sum() <= 15, "some pictures should be empty, and some not"
    assert np.nonzero(there)[0].tolist() == expected.centers.image_index_P[order].tolist()
    for name, field in FIELDS.items():
        source = expected.centers if "." in field else expected
        wanted = getattr(source, field.removeprefix("centers."))[order].numpy()
        np.testing.assert_allclose(said[name][there], wanted, rtol=1e-3, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(said["camera"], expected.K_B33.numpy(), rtol=1e-4, atol=1e-4)
    alone = runtime(traced, onnx_file.parent, *(x[:1] for x in letterboxes))
    np.testing.assert_allclose(np.asarray(alone["joints"]), said["joints"][:1], rtol=1e-3, atol=1e-4)


def test_nothing_is_computed_in_place_in_a_traced_backbone():
    """Torch takes 0.2 s to undo each for ONNX; with ReLU6 in place the default took thrice as long."""
    program = trace_backbone(tiny_network()).program
    graphs = [module.graph for module in program.graph_module.modules() if hasattr(module, "graph")]
    names = {getattr(node.target, "__name__", "") for graph in graphs for node in graph.nodes}
    assert "relu6.default" in names
    assert not [name for name in names if name.partition(".")[0].endswith("_")]


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    """The folder of graphs, in which the second backend finds the ONNX file that the first has made."""
    return tmp_path_factory.mktemp("backends")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_backend_predicts_as_torch_does_and_is_made_once(name, graphs):
    package("onnxscript"), package(name)
    model = tiny_model()
    noise = [np.random.default_rng(i).integers(0, 256, (48, 64, 3), dtype=np.uint8) for i in range(3)]
    options = {"threshold": 0.0, "max_people": 2}
    expected = model.predict_batch(noise, **options)
    made = []
    for _ in range(2):
        model.runtime = make_runtime(model.network, name, folder=graphs)
        found = model.predict_batch(noise, **options)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-4)
        made.append({file: file.stat().st_mtime_ns for file in graphs.glob("*.onnx")})
    assert len(made[0]) == 1
    assert made[0] == made[1]
    assert model(torch.rand(1, 3, 64, 64), threshold=0.0).vertices_PV3.requires_grad  # still learns, in torch


def test_torch_that_is_too_old_for_graphs_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("multihmr.runtime.export.OLDEST_TORCH", "99.1")
    with pytest.raises(ImportError, match=r"graphs need torch 99.1 or newer, this is .*multihmr\[export\]"):
        write_onnx(trace_backbone(tiny_network()), tmp_path / "a.onnx", {})


@pytest.mark.slow
def test_one_graph_serves_windows_and_crops_of_all_shapes(tmp_path, monkeypatch):
    package("onnxscript"), package("onnxruntime"), package("openvino")
    model = tiny_model(backbone="hybrid_movenet_multipose", rectangular=True)
    traced, trace = [], backends.PARTS[backends.WHOLE]
    monkeypatch.setitem(backends.PARTS, backends.WHOLE, lambda network: traced.append(1) or trace(network))
    shapes = [(64, 64), (64, 32), (60, 64), (32, 64), (30, 64)]
    noise = [np.random.default_rng(i).integers(0, 256, (*s, 3), dtype=np.uint8) for i, s in enumerate(shapes)]
    crops = [torch.rand(count, 3, *shape) for count, *shape in ((1, 256, 160), (2, 128, 256), (2, 256, 160))]
    options = {"threshold": 0.0, "max_people": 2}
    expected = model.predict_batch(noise, **options)
    for name in ("onnxruntime", "openvino", "openvino"):  # again: read from its file
        model.runtime = make_runtime(model.network, name, folder=tmp_path)
        for one, other in zip(expected, model.predict_batch(noise, **options), strict=True):
            np.testing.assert_allclose(one.vertices, other.vertices, atol=1e-4)
        for images in crops:
            with torch.inference_mode():
                maps = model.backbone.keypoint_maps(images)
                found = model.runtime.keypoint_maps(images)
            torch.testing.assert_close(found, maps, rtol=1e-3, atol=1e-3)
    assert traced == [1]


@pytest.mark.parametrize(("half_stem", "of_keypoints"), [(True, torch.bfloat16), (False, None)])
def test_keypoints_of_crops_have_the_precision_of_the_convolutions(
    half_stem, of_keypoints, tmp_path, monkeypatch
):
    """In bfloat16 they move people by 3 cm, more than dtype="fast" may."""
    package("openvino")
    network = tiny_network(backbone="hybrid_movenet_multipose", rectangular=True)
    network.backbone.half_dtype, network.backbone.half_stem = torch.bfloat16, half_stem
    halves = {}

    def run(half, source, folder, name, threads):
        halves[name.rpartition("-")[2]] = half
        return lambda arrays: [np.zeros((len(arrays[0]), 86, 32, 32), np.float32)]

    monkeypatch.setattr(backends, "_openvino_run", run)
    make_runtime(network, "openvino", folder=tmp_path).keypoint_maps(torch.rand(1, 3, 128, 128))
    assert halves[backends.KEYPOINTS] is of_keypoints


def test_other_weights_are_another_graph(tmp_path):
    from multihmr.runtime.backends import _key

    one, other = tiny_network(0), tiny_network(1)
    assert _key(one) == _key(tiny_network(0))
    assert _key(one) != _key(other)


@pytest.mark.nightly
def test_torch_compile_predicts_as_torch_does(tmp_path):
    model, noise = tiny_model(), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    expected = model.predict(noise, threshold=0.0, max_people=2)
    model.runtime = make_runtime(model.network, "compile", folder=tmp_path)
    found = model.predict(noise, threshold=0.0, max_people=2)
    np.testing.assert_allclose(found.vertices, expected.vertices, atol=1e-4)


@pytest.mark.slow
def test_the_example_needs_no_torch(onnx_file, monkeypatch, capsys):
    package("onnxruntime")
    example = Path(__file__).parents[2] / "examples/predict_without_torch.py"
    if not example.exists():
        pytest.skip("not in a checkout")
    monkeypatch.setattr(sys, "argv", [str(example), str(onnx_file)])
    runpy.run_path(str(example))
    assert "people" in capsys.readouterr().out
    assert "torch" not in example.read_text(encoding="utf-8").replace("without_torch", "")


def test_pictures_to_calibrate_with_come_from_files_and_shards(tmp_path):
    import io
    import tarfile

    with pytest.raises(ValueError, match="holds no pictures"):
        pictures(tmp_path)
    (tmp_path / "a.jpg").write_bytes(b"one")
    with tarfile.open(tmp_path / "b.tar", "w") as tar:
        for name in ("x.jpg", "x.mask.png", "x.npz", "y.jpg"):
            info = tarfile.TarInfo(name)
            info.size = len(name)
            tar.addfile(info, io.BytesIO(name.encode()))
    assert sorted(pictures(tmp_path)) == [b"one", b"x.jpg", b"y.jpg"]
    assert len(pictures(tmp_path, 2)) == 2


def test_what_cannot_be_exported_is_said_in_a_sentence(tmp_path):
    model = tiny_model()
    for wrong, message in (
        ({"path": "a.txt"}, "must end in .onnx or .pt2 or .xml, got 'a.txt'"),
        ({"path": "a.pt2", "people": 0}, "1 or more, got 0"),
        ({"path": "a.pt2", "threshold": 3}, "between 0 and 1, got 3"),
        ({"path": "a.onnx", "calibrate": tmp_path}, "openvino"),
    ):
        with pytest.raises(ValueError, match=message):
            export_model(model, tmp_path / wrong.pop("path"), **wrong)
    with pytest.raises(FileNotFoundError, match="make it first"):
        export_model(model, tmp_path / "no" / "a.onnx")
    with pytest.raises(ValueError, match="'glnet' cannot be exported"):
        export_model(tiny_glnet_model(), tmp_path / "a.pt2")
    assert format_of(Path("a.xml")) == format_of(Path("a.xml"), "openvino") == "openvino"
    for path, asked, message in (("a.onnx", "tflite", "one of onnx"), ("a.onnx", "openvino", "end in .xml")):
        with pytest.raises(ValueError, match=message):
            format_of(Path(path), asked)
    assert not list(tmp_path.iterdir())


def test_backends_that_cannot_be_are_said_in_a_sentence(monkeypatch):
    for options, message in (
        ({"name": "tensorrt", "device": "cpu"}, "one of eager, compile"),
        ({"name": "openvino", "device": "cuda"}, "computes on the CPU"),
        ({"name": "compile", "device": "cpu", "calibrate": "x"}, "openvino-int8"),
    ):
        with pytest.raises(ValueError, match=message):
            check_backend(options.pop("name"), **options)

    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(packages.importlib, "import_module", missing)
    with pytest.raises(ImportError, match="this needs openvino: pip install 'multihmr\\[export\\]'"):
        check_backend("openvino", device="cpu")


def test_the_default_refuses_8_bits(tmp_path):
    for package in ("openvino", "nncf", "onnx"):
        pytest.importorskip(package)
    with pytest.raises(ValueError, match="8 bits are not for networks on hybrid_"):
        load_model(backend="openvino-int8", calibrate=tmp_path)
    with pytest.raises(ValueError, match="8 bits are not for networks on hybrid_"):
        export_model(load_model(device="cpu"), tmp_path / "people.xml", calibrate=tmp_path)


def test_8_bits_are_for_networks_on_dinov2():
    check_int8(SimpleNamespace(config=MultiHMRConfig(backbone="dinov2_vits14")))
    with pytest.raises(ValueError, match="people move by decimetres"):
        check_int8(load_model(device="cpu").network)


def test_the_command_makes_the_folder_before_it_loads_the_model(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: seen.append(True) or tiny_model())
    monkeypatch.setattr("multihmr.runtime.export.export_model", lambda _, path, **__: path)
    assert cli.run(["export", "--out", str(tmp_path / "deep/er/people.onnx")]) == 0
    assert seen
    assert (tmp_path / "deep/er").is_dir()
    (tmp_path / "file").touch()
    seen.clear()
    assert cli.run(["export", "--out", str(tmp_path / "file/people.onnx")]) == 1
    assert not seen


def test_the_command_line_says_what_it_wants(capsys, tmp_path):
    assert cli.run(["export", "--out", str(tmp_path / "a.txt")]) == 1
    assert "must end in" in capsys.readouterr().err
    assert cli.run(["export", "--out", str(tmp_path / "a.xml"), "--int8"]) == 1
    assert "go together" in capsys.readouterr().err
