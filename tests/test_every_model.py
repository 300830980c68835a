"""Every bundled model goes through everything that takes a model, or gives one clear sentence."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from multihmr import list_models, load_model
from multihmr.cli import main as cli
from multihmr.evaluation.speed.stages import Run
from multihmr.model import Model, TopDownModel
from multihmr.preprocessing.image import load_image
from multihmr.runtime.cuda_graphs import CudaGraphRuntime
from multihmr.runtime.export import export_model

IMAGES = Path(__file__).parents[1] / "examples/images"
BUNDLED = [release.name for release in list_models() if not release.urls]


@pytest.fixture(scope="module", params=BUNDLED)
def model(request) -> Model:
    return load_model(request.param, device="cpu")


@pytest.mark.slow
def test_both_families_are_bundled() -> None:
    assert {type(load_model(name, device="cpu")) for name in BUNDLED} == {Model, TopDownModel}


@pytest.mark.slow
def test_predict_and_its_options(model: Model) -> None:
    one = model.predict(IMAGES / "astronaut.jpg")
    batch = model.predict_batch(
        (path for path in [IMAGES / "astronaut.jpg", IMAGES / "group.jpg"]), tiles=2, batch_size=2
    )
    assert [len(one), *map(len, batch)] == [1, 1, 3]
    assert {humans.K_source for humans in (one, *batch)} <= {"predicted", "exif"}
    assert 0 < model.threshold < 1
    assert len(model.fingerprint) == 16


@pytest.mark.slow
def test_a_video(model: Model) -> None:
    pixels = load_image(IMAGES / "astronaut.jpg").pixels
    frames = list(model.predict_video([pixels] * 3))
    assert [humans.track_ids.tolist() for humans in frames if humans.track_ids is not None] == [[1]] * 3


@pytest.mark.slow
def test_the_video_command(model: Model, tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir()
    for number in range(2):
        (tmp_path / "frames" / f"{number}.jpg").write_bytes((IMAGES / "astronaut.jpg").read_bytes())
    name = "glnet-anny-hybrid" if isinstance(model, TopDownModel) else BUNDLED[0]
    out = tmp_path / "out"
    code = cli.run(
        [
            "video",
            str(tmp_path / "frames"),
            "--out",
            str(out),
            "--model",
            name,
            "--device",
            "cpu",
            "--format",
            "npz",
        ]
    )
    assert code == 0
    assert list(out.rglob("*.npz"))


@pytest.mark.slow
def test_bench_times_it(model: Model) -> None:
    picture = load_image(IMAGES / "astronaut.jpg").pixels
    seconds = Run(model, picture, people=None, batch=1)()
    assert seconds["end to end"] > 0


@pytest.mark.slow
def test_it_travels_to_the_workers_of_a_cluster(model: Model) -> None:
    again = pickle.loads(pickle.dumps(model))
    picture = np.zeros((64, 64, 3), np.uint8)
    assert type(again) is type(model)
    assert again.fingerprint == model.fingerprint
    assert len(again.predict(picture)) == len(model.predict(picture)) == 0


@pytest.mark.slow
def test_it_is_exported_or_says_why_not(model: Model, tmp_path: Path) -> None:
    if not isinstance(model, TopDownModel):
        return  # tests/runtime/test_export.py
    for suffix in (".pt2", ".onnx"):
        with pytest.raises((ValueError, ImportError), match=r"cannot be exported|needs onnx"):
            export_model(model, tmp_path / f"people{suffix}")
    with pytest.raises(ValueError, match="'glnet' cannot be recorded, because"):
        CudaGraphRuntime(model.network)


@pytest.mark.slow
def test_boxes_are_for_models_of_crops(model: Model) -> None:
    box = [[100, 10, 400, 512]]
    if isinstance(model, TopDownModel):
        assert len(model.predict(IMAGES / "astronaut.jpg", boxes=box)) == 1
    else:
        with pytest.raises(ValueError, match="finds the people itself and takes no boxes"):
            model.predict(IMAGES / "astronaut.jpg", boxes=box)
