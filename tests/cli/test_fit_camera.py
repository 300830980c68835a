"""Which camera `multihmr fit` takes: --K or --fov, that of the keypoint file, EXIF, or 60 degrees."""

from __future__ import annotations

import dataclasses
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
from fitting.people import SIZE, K, people
from PIL import Image

from multihmr.bodies.anny import Anny
from multihmr.cli import main as cli
from multihmr.cli.fit import _camera, _upright
from multihmr.data.orientation import StoredRaster
from multihmr.data.webdataset import Shards
from multihmr.fitting import FittedHumans, fit
from multihmr.fitting.keypoint_files import FileCamera, PictureKeypoints, read_keypoints
from multihmr.humans.distortion import Distortion
from multihmr.io.save import load
from multihmr.postprocessing.to_humans import to_distorted_image
from multihmr.preprocessing.image import LoadedImage

LENS = Distortion((-0.2, 0.05, 0.002, -0.001, 0.0))


@pytest.fixture(scope="module")
def fitted() -> FittedHumans:
    truth = people(Anny().eval(), 1, seed=3)
    return dataclasses.replace(fit(truth.pixels(), K, image_size=SIZE), K_source="exif")


def entry(camera: FileCamera | None) -> PictureKeypoints:
    return PictureKeypoints("a.jpg", ("nose",), np.zeros((1, 1, 2)), np.ones((1, 1)), SIZE, camera)


def test_what_the_user_gives_comes_first_then_the_file_then_exif() -> None:
    photo = LoadedImage(np.zeros((*SIZE, 3), np.uint8), focal=777.0)
    of_file = FileCamera(K, "predicted")
    by_hand = np.array([[500.0, 0, 300], [0, 500, 300], [0, 0, 1]])

    def chosen(K=None, fov=None, camera=of_file, photo=photo):  # type: ignore[no-untyped-def]
        found, kind = _camera(photo, entry(camera), Namespace(K=K, fov=fov))
        return round(float(found.K[0, 0])), found.source, kind

    assert chosen(K=by_hand) == (500, "given", "K")
    assert chosen(fov=90.0) == (round(max(SIZE) / 2), "given", "fov")
    assert chosen() == (round(K[0, 0]), "predicted", "file")
    assert chosen(camera=None) == (777, "exif", "exif")
    unknown = dataclasses.replace(photo, focal=None)
    assert chosen(camera=None, photo=unknown)[1:] == ("assumed", "assumed")
    with pytest.raises(ValueError, match="its camera in the keypoint file: K has its principal point"):
        chosen(camera=FileCamera(K + [[0, 0, 5000], [0, 0, 0], [0, 0, 0]]))


@pytest.mark.slow
def test_a_saved_coco_file_brings_its_camera(
    fitted: FittedHumans, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", SIZE[::-1], "gray").save(tmp_path / "a.jpg")
    file = fitted.save(tmp_path / "a.jpg.coco.json")
    command = ["fit", str(file), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out"), "--format", "npz"]
    assert cli.run(command) == 0
    assert "camera: that of the keypoint file (1 picture)" in capsys.readouterr().out
    again = load(tmp_path / "out/a.npz")
    np.testing.assert_allclose(again.K, fitted.K, atol=1e-3)
    assert again.K_source == "exif"
    np.testing.assert_allclose(again.translation, fitted.translation, rtol=0.1, atol=0.1)
    with Image.open(tmp_path / "a.jpg") as picture:  # the file says that it is of the upright picture
        exif = Image.Exif()
        exif[0x0112] = 3
        picture.transpose(Image.Transpose.ROTATE_180).save(tmp_path / "a.jpg", exif=exif)
    assert cli.run([*command, "--fov", "90"]) == 0
    assert "camera: --fov (1 picture)" in capsys.readouterr().out
    assert load(tmp_path / "out/a.npz").K[0, 0] == pytest.approx(max(SIZE) / 2)


@pytest.mark.slow
def test_the_distortion_of_the_file_is_taken_into_account(fitted: FittedHumans, tmp_path: Path) -> None:
    Image.new("RGB", SIZE[::-1], "gray").save(tmp_path / "a.jpg")
    bent = to_distorted_image(fitted, fitted.K, LENS)
    assert np.abs(bent.joints_2d - fitted.joints_2d).max() > 3
    file = bent.save(tmp_path / "a.jpg.coco.json")
    command = ["fit", str(file), str(tmp_path / "a.jpg"), "--out", str(tmp_path / "out")]
    assert cli.run([*command, "--format", "npz,shards,overlay"]) == 0
    again = load(tmp_path / "out/a.npz")
    assert again.distortion == LENS
    np.testing.assert_allclose(again.translation, fitted.translation, rtol=0.1, atol=0.1)
    xy = again.keypoints("coco17").xy - bent.keypoints("coco17").xy
    assert np.linalg.norm(xy, axis=-1).mean() < 3
    (sample,) = Shards(tmp_path / "out/shards")  # of a pinhole camera
    assert abs(sample.K[0, 0] - K[0, 0]) > 1


def test_a_camera_turns_with_the_picture() -> None:
    stored = FileCamera(np.array([[500.0, 0, 100], [0, 600, 200], [0, 0, 1]]))
    turned = _upright(dataclasses.replace(entry(stored), size=(448, 360)), StoredRaster(6, (448, 360)))
    assert turned.camera is not None
    # the points (x, y) of a picture 448 high go to (448 - y, x)
    assert turned.camera.K.tolist() == [[600, 0, 248], [0, 500, 100], [0, 0, 1]]
    bent = dataclasses.replace(entry(dataclasses.replace(stored, distortion=LENS)), size=(448, 360))
    with pytest.raises(ValueError, match="skew or a distortion, which do not turn with it"):
        _upright(bent, StoredRaster(6, (448, 360)))


def test_what_is_no_camera_is_refused_and_names_of_cameras_are_passed_over(tmp_path: Path) -> None:
    image = {"id": 1, "file_name": "a.jpg"}
    person = {"image_id": 1, "category_id": 1, "keypoints": [5, 6, 2] * 17}
    path = tmp_path / "points.json"

    def read(camera: object) -> FileCamera | None:
        content = {"images": [{**image, "camera": camera}], "annotations": [person]}
        path.write_text(json.dumps(content), encoding="utf-8")
        return read_keypoints(path).pictures[0].camera

    assert read("GoPro 7") is None
    given = read({"K": K.tolist()})
    assert given is not None
    np.testing.assert_array_equal(given.K, K)
    assert (given.source, given.distortion) == ("given", None)
    for wrong, said in (
        ({"K": [1, 2, 3]}, r"no readable camera of a\.jpg: K must be \(3, 3\) finite numbers"),
        ({"K": K.tolist(), "distortion": [0.1]}, "a distortion is stored as model"),
        ({"K": K.tolist(), "distortion": {"model": "opencv", "coefficients": [1]}}, "finite numbers k1"),
        ({"K": "wide"}, "no readable camera"),
    ):
        with pytest.raises(ValueError, match=said):
            read(wrong)
