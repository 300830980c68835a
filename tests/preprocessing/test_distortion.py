from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from toys import tiny_anny_model

from multihmr.model import Model
from multihmr.preprocessing.distortion import (
    Distortion,
    opencv_intrinsics,
    undistort_boxes,
    undistort_image,
)
from multihmr.preprocessing.image import LoadedImage

CALIBRATED = np.array([[600, 0, 330], [0, 610, 235], [0, 0, 1.0]])  # as OpenCV gives it
K = opencv_intrinsics(CALIBRATED)
RAYS = np.array(
    [
        [0.16435402478574512, -0.27625594348335564],
        [-0.5508317712765664, -0.580166837365765],
        [0.3759242870403269, 0.495306692733266],
        [0.0523499897585075, 0.5220869085453218],
        [0.0, 0.0],
    ]
)
# By cv2.projectPoints and cv2.fisheye.projectPoints of OpenCV 4.
LENSES = {
    "barrel": (
        Distortion.of([-0.28, 0.07, 0.0011, -0.0008, 0.01]),
        [[426.1987, 71.9477], [48.7078, -65.4875], [534.051, 508.6707], [359.5632, 531.7026], [330.5, 235.5]],
    ),
    "pincushion": (
        Distortion.of([0.15, -0.05, 0.0, 0.0, 0.002]),
        [
            [430.5884, 64.4616],
            [-25.1319, -145.3143],
            [567.4762, 552.9367],
            [363.0894, 565.9314],
            [330.5, 235.5],
        ],
    ),
    "rational": (
        Distortion.of([0.4, -0.1, 0.001, 0.001, 0.02, 0.5, 0.01, 0.003]),
        [
            [428.0752, 68.9253],
            [27.2259, -89.2698],
            [546.4632, 524.7142],
            [361.1314, 544.5721],
            [330.5, 235.5],
        ],
    ),
    "fisheye": (
        Distortion.of_fisheye([-0.05, 0.01, -0.002, 0.001]),
        [[425.4594, 73.2265], [57.5573, -56.7698], [529.353, 501.8695], [359.1038, 525.52], [330.5, 235.5]],
    ),
}


@pytest.mark.parametrize("name", LENSES)
def test_points_fall_where_opencv_puts_them_and_come_back(name: str) -> None:
    lens, pixels = LENSES[name]
    straight = RAYS @ K[:2, :2].T + K[:2, 2]
    np.testing.assert_allclose(lens.distort_points(straight, K), pixels, atol=1e-3)
    np.testing.assert_allclose(
        lens.undistort_points(lens.distort_points(straight, K), K), straight, atol=1e-6
    )


def test_beyond_where_the_lens_folds_over_nothing_comes_back() -> None:
    lens = Distortion.of([-0.3, 0, 0, 0])  # r - 0.3 r^3 is largest at 1.054
    assert lens.largest_radius == pytest.approx(1 / np.sqrt(0.9), abs=2e-3)
    edge = lens.distort_rays(np.array([[1.054, 0.0]]))
    np.testing.assert_allclose(lens.distort_rays(np.array([[5.0, 0.0]])), edge, atol=1e-3)
    assert np.isnan(lens.undistort_rays(np.array([[0.9, 0.0]]))).all()


def ramp(height: int, width: int) -> np.ndarray:
    """The colour of each pixel tells where it is."""
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    return (255 * np.stack(np.broadcast_arrays(x[None], y[:, None], 0.5), -1)).round().astype(np.uint8)


@pytest.mark.parametrize("name", LENSES)
def test_pixels_of_an_undistorted_image_are_where_points_are(name: str) -> None:
    lens, _ = LENSES[name]
    image, new_K = undistort_image(LoadedImage(ramp(480, 640)), K, lens)
    assert image.pixels.shape == (480, 640, 3)
    at = np.array([[320, 240], [100, 120], [500, 300], [333, 401]])
    rays = (at + 0.5 - new_K[:2, 2]) / np.diag(new_K)[:2]
    source = lens.distort_points(rays @ K[:2, :2].T + K[:2, 2], K)
    shown = image.pixels[at[:, 1], at[:, 0], :2] / 255 * (640, 480)
    np.testing.assert_allclose(shown, source, atol=1.6)  # a level is 2.5 pixels
    # all of the original is there: its corners and sides lie within the new image
    edge = np.array(
        [[0, 0], [320, 0], [640, 0], [640, 240], [640, 480], [320, 480], [0, 480], [0, 240]], float
    )
    straight = lens.undistort_rays((edge - K[:2, 2]) / np.diag(K)[:2]) @ new_K[:2, :2].T + new_K[:2, 2]
    assert straight.min() > -0.5
    assert (straight < (640.5, 480.5)).all()


def test_no_distortion_changes_nothing() -> None:
    middle = np.array([[600, 0, 320], [0, 600, 240], [0, 0, 1.0]])
    image, new_K = undistort_image(LoadedImage(ramp(480, 640)), middle, Distortion.of([0, 0, 0, 0, 0]))
    np.testing.assert_allclose(new_K, middle, atol=1e-6)
    assert np.abs(image.pixels.astype(int) - ramp(480, 640)).max() <= 1


def test_boxes_hold_what_they_held() -> None:
    lens, _ = LENSES["barrel"]
    _, new_K = undistort_image(LoadedImage(ramp(480, 640)), K, lens)
    boxes = np.array([[20.0, 30, 200, 400], [300, 100, 420, 460]])
    moved = undistort_boxes(boxes, K, lens, new_K)
    inside = np.array([[20.0, 30], [110, 200], [200, 400]])
    xy = lens.undistort_rays((inside - K[:2, 2]) / np.diag(K)[:2]) @ new_K[:2, :2].T + new_K[:2, 2]
    assert (xy >= moved[0, :2] - 1e-6).all()
    assert (xy <= moved[0, 2:] + 1e-6).all()
    assert moved.shape == (2, 4)


def test_boxes_beyond_what_the_lens_shows() -> None:
    """Barrel distortion of -0.35 folds over at a ray of 0.976, which lies at 192 pixels from the middle."""
    lens = Distortion.of([-0.35, 0, 0, 0])
    camera = np.array([[300.0, 0, 320], [0, 300, 240], [0, 0, 1]])
    boxes = undistort_boxes(np.array([[0, 0, 640, 480], [300, 220, 340, 260]]), camera, lens, camera)
    edge = 300 * lens.largest_radius
    np.testing.assert_allclose(boxes[0], [320 - edge, 240 - edge, 320 + edge, 240 + edge], atol=1.5)
    np.testing.assert_allclose(boxes[1], [300, 220, 340, 260], atol=0.1)
    with pytest.raises(ValueError, match=r"box \(0, 0, 10, 10\) lies where a lens .* shows nothing"):
        undistort_boxes(np.array([[0, 0, 10, 10]]), camera, lens, camera)


@pytest.mark.parametrize("value", [[0.1, 0.2], [0.1] * 6, [np.nan] * 5, "k1", [[0.1] * 5, [0.2] * 5]])
def test_numbers_that_are_no_distortion(value: Any) -> None:
    with pytest.raises(ValueError, match="distortion must be"):
        Distortion.of(value)
    with pytest.raises(ValueError, match="distortion must be"):
        Distortion.of_fisheye([0.1] * 5)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_anny_model()


@pytest.mark.parametrize("name", ["barrel", "fisheye"])
def test_predictions_have_pixels_of_the_original_image(name: str, model: Model) -> None:
    lens, _ = LENSES[name]
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    humans = model.predict(pixels, K, threshold=0.0, max_people=3, distortion=lens)
    assert len(humans)
    assert (humans.image_size, humans.K_source) == ((480, 640), "given")
    np.testing.assert_allclose(humans.K, K, rtol=1e-6)
    x, y, z = np.moveaxis(humans.joints.astype(float), -1, 0)
    front = z > 0.2
    expected = lens.distort_rays(np.stack([x / z, y / z], -1)) @ K[:2, :2].T + K[:2, 2]
    np.testing.assert_allclose(humans.joints_2d[front], expected[front], atol=0.05)
    # the same people as in the undistorted image with its own camera
    straight, new_K = undistort_image(LoadedImage(pixels), K, lens)
    same = model.predict(straight.pixels, new_K, threshold=0.0, max_people=3)
    np.testing.assert_array_equal(humans.vertices, same.vertices)


def test_distortion_needs_its_camera(model: Model) -> None:
    with pytest.raises(ValueError, match="distortion needs K"):
        model.predict(ramp(48, 64), distortion=[0.1, 0, 0, 0, 0])


def test_predict_takes_the_order_of_opencv(model: Model, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    by_file = model.predict(tmp_path / "a.png", threshold=0.0)
    by_array = model.predict(pixels[..., ::-1], threshold=0.0, channels="bgr")
    np.testing.assert_array_equal(by_array.vertices, by_file.vertices)
    assert not np.array_equal(model.predict(pixels[..., ::-1], threshold=0.0).vertices, by_file.vertices)


def test_all_pixels_of_people_are_those_of_the_lens(model: Model, tmp_path: Path) -> None:
    """Joints, boxes, keypoint sets, masks, drawings and files agree, also after saving and posing anew."""
    from multihmr import load_humans
    from multihmr.video.tracks import with_meshes

    lens, _ = LENSES["barrel"]
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    humans = model.predict(pixels, K, threshold=0.0, max_people=3, distortion=lens)
    pinhole = humans.vertices[..., :2] / humans.vertices[..., 2:] @ K[:2, :2].T + K[:2, 2]
    assert np.abs(pinhole - humans.project(humans.vertices)).max() > 5  # else this test says nothing
    xyz = humans.keypoints("top").xyz.astype(float)
    expected = lens.distort_rays(xyz[..., :2] / xyz[..., 2:]) @ K[:2, :2].T + K[:2, 2]
    np.testing.assert_allclose(humans.keypoints("top").xy, expected, atol=0.05)
    person = replace(humans[:1], translation=np.array([[0.6, -0.5, 3.0]]))
    person = with_meshes(person, model.body)  # in front of the camera, towards a corner
    y, x = np.nonzero(person.masks()[0])
    xy = person.project(person.vertices[0, np.unique(person.topology.faces)]).clip(0, (640, 480))
    outline = [*xy.min(0), *xy.max(0)]
    np.testing.assert_allclose([x.min(), y.min(), x.max() + 1, y.max() + 1], outline, atol=1.5)
    again = load_humans(humans.save(tmp_path / "people.npz"), model.body)
    assert again.distortion == lens
    anew = with_meshes(again, model.body)
    np.testing.assert_allclose(anew.joints_2d, humans.joints_2d, atol=0.05)
    np.testing.assert_allclose(anew.boxes, humans.boxes, atol=0.05)


def test_videos_are_predicted_through_the_lens(model: Model, tmp_path: Path) -> None:
    from multihmr.video.tracks import collect, load_track, save_track

    lens, _ = LENSES["barrel"]
    pixels = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    one = model.predict(pixels, K, threshold=0.1, distortion=lens)
    frames = list(model.predict_video([pixels] * 3, K, threshold=0.1, distortion=lens))
    assert [len(humans) for humans in frames] == [len(frames[0])] * 3
    assert len(frames[0])
    for humans in frames:
        assert humans.distortion == lens
        nearest = np.abs(one.boxes[None] - humans.boxes[:, None]).max(-1).min(1)
        assert nearest.max() < 2
    track = collect(frames)[0]
    again = load_track(save_track(track, tmp_path / "track.npz"), model.body)
    posed = next(again.humans(model.body))
    np.testing.assert_allclose(posed.boxes, track.boxes[:1], atol=1.5)
    pinhole = posed.joints[..., :2] / posed.joints[..., 2:] @ K[:2, :2].T + K[:2, 2]
    assert np.abs(pinhole - posed.joints_2d).max() > 2
