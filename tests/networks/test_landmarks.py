"""Landmark networks of hands and faces: the original runtime's numbers, and files that are something else."""

import hashlib
import io
import json
import runpy
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from multihmr.hub import landmarks
from multihmr.networks.landmarks.face import ACTION_POINTS, ACTIONS, FACE_POINTS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts" / "convert_mediapipe.py"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


@pytest.fixture(scope="module")
def original():
    """What the original runtime gives, by `scripts/convert_mediapipe.py --reference`."""
    with np.load(Path(__file__).parent / "landmarks.npz") as file:
        return dict(file)


def channels_first(crops):
    return torch.from_numpy(crops).permute(0, 3, 1, 2)


@torch.inference_mode()
def test_a_hand_has_the_points_of_the_original_runtime(script, original):
    said = landmarks.load_landmark_networks().hand(channels_first(script["test_inputs"]()["hand"]))
    # The weights have 8 bits; with those of the original the points are equal to 2e-4 pixels.
    np.testing.assert_allclose(said.points_N213[0].ravel(), original["hand0"], atol=1.0)
    np.testing.assert_allclose(said.world_N213[0].ravel(), original["hand3"], atol=0.002)
    assert said.presence_N.item() == pytest.approx(original["hand1"].item(), abs=0.02)
    assert said.right_N.item() == pytest.approx(original["hand2"].item(), abs=0.02)


@torch.inference_mode()
def test_a_face_has_the_points_and_actions_of_the_original_runtime(script, original):
    inputs, networks = script["test_inputs"](), landmarks.load_landmark_networks()
    said = networks.face(channels_first(inputs["face"]))
    np.testing.assert_allclose(said.points_N4783[0].ravel(), original["face0"], atol=1.2)
    assert said.presence_N.item() > 0.99
    points = torch.zeros(1, FACE_POINTS, 2)
    points[:, ACTION_POINTS] = torch.from_numpy(inputs["actions"])
    np.testing.assert_allclose(networks.actions(points)[0], original["actions0"], atol=0.03)
    # The astronaut smiles with closed jaw.
    seen = dict(zip(ACTIONS, networks.actions(said.points_N4783)[0].tolist(), strict=True))
    assert min(seen["mouthSmileLeft"], seen["mouthSmileRight"]) > 0.8
    assert max(seen["jawOpen"], seen["eyeBlinkLeft"], seen["mouthFrownLeft"]) < 0.2
    moved = networks.actions(3 * said.points_N4783 + 100)
    torch.testing.assert_close(moved[0], networks.actions(said.points_N4783)[0], atol=1e-4, rtol=0)


@torch.inference_mode()
def test_nothing_is_no_hand_and_no_face():
    networks = landmarks.load_landmark_networks()
    assert networks.hand(torch.full((1, 3, 224, 224), 0.5)).presence_N.item() < 0.1
    assert networks.face(torch.full((1, 3, 256, 256), 0.5)).presence_N.item() < 0.1


def test_actions_are_those_of_the_body():
    from multihmr.bodies.loading import load_body

    names = load_body("anny").topology.expression_names
    assert set(ACTIONS) - {""} == set(names) - {"tongueOut"}


def test_damaged_weights_are_named(tmp_path, monkeypatch):
    file = tmp_path / landmarks.FILE
    file.write_bytes(b"\x10" * 100)
    monkeypatch.setattr(landmarks, "bundled_file", lambda name: file)
    landmarks.load_landmark_networks.cache_clear()
    with pytest.raises(ValueError, match=r"is damaged.*install multihmr again"):
        landmarks.load_landmark_networks()
    landmarks.write_landmark_weights({"hand.conv_stem.weight": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="has other weights than HandLandmarks needs"):
        landmarks.load_landmark_networks()
    landmarks.load_landmark_networks.cache_clear()


@pytest.mark.parametrize(
    ("about", "sentence"),
    [
        ({"name": "left-pad", "version": "1.0.0"}, "is left-pad 1.0.0, expected @mediapipe/holistic"),
        (
            {"name": "@mediapipe/holistic", "version": "0.5.1675471629"},
            r"there is no .*loader\.js in the package",
        ),
    ],
)
def test_another_package_is_refused_in_one_sentence(script, tmp_path, about, sentence):
    file = tmp_path / "package.tgz"
    with tarfile.open(file, "w:gz") as package:
        text = json.dumps(about).encode()
        entry = tarfile.TarInfo("package/package.json")
        entry.size = len(text)
        package.addfile(entry, io.BytesIO(text))
    with pytest.raises(ValueError, match=sentence):
        script["read_package"](file)


def test_another_task_is_refused_in_one_sentence(script, tmp_path):
    file = tmp_path / "face_landmarker.task"
    file.write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"is no face_landmarker\.task"):
        script["read_task"](file)
    with zipfile.ZipFile(file, "w") as task:
        task.writestr("face_landmarks_detector.tflite", b"another")
    found = hashlib.sha256(b"another").hexdigest()[:12]
    with pytest.raises(ValueError, match=f"has sha256 {found}.*is another file"):
        script["read_task"](file)
