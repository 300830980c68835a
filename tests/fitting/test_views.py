from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from fitting.people import SIZE, K, Truth, mean_pa_mpjpe, people
from PIL import Image

from multihmr.bodies.anny import Anny
from multihmr.cli.main import run
from multihmr.fitting import FittedHumans, fit, fuse_views, predict_views
from multihmr.fitting.results import moved
from multihmr.fitting.views import match_views
from multihmr.humans import Distortion
from multihmr.model import Model as MultiHMRModel
from multihmr.postprocessing.to_humans import to_distorted_image
from multihmr.preprocessing.image import LoadedImage

PLACES = np.array([[-1.2, 0, 0], [0.1, 0, 0.8], [1.3, 0, -0.4]])


@pytest.fixture(scope="module")
def body() -> Anny:
    return Anny().eval()


@pytest.fixture(scope="module")
def truth(body: Anny) -> Truth:
    """Three people, apart from each other."""
    found = people(body, 3, seed=5)
    return dataclasses.replace(
        found, points=found.points + PLACES[:, None], joints=found.joints + PLACES[:, None]
    )


@pytest.fixture(scope="module")
def predictions(body: Anny, truth: Truth) -> list[FittedHumans]:
    """What one camera alone sees, with 4 pixels of noise, in another order in each view."""
    rng = np.random.default_rng(0)
    found = []
    for view in range(3):
        xy = np.roll(truth.pixels(view), view, axis=0)
        found.append(fit(xy + rng.normal(0, 4, xy.shape), K, body=body, image_size=SIZE))
    return found


@pytest.mark.slow
def test_people_are_matched_across_views(predictions: list[FittedHumans], truth: Truth) -> None:
    groups = match_views(predictions, truth.extrinsics)
    assert sorted(map(tuple, groups)) == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]


@pytest.mark.slow
def test_all_views_together_are_better_than_one(
    predictions: list[FittedHumans], truth: Truth, body: Anny
) -> None:
    result = fuse_views(predictions, truth.extrinsics, body=body)
    order = result.sources[0]  # view 0 has the people in the order of the truth
    fused = result.views[0]
    same = dataclasses.replace(truth, joints=truth.joints[order])
    assert mean_pa_mpjpe(fused, same) < 0.8 * mean_pa_mpjpe(predictions[0], truth)
    alone = np.linalg.norm(predictions[0].pelvis - truth.joints[:, 0], axis=1).mean()
    together = np.linalg.norm(fused.pelvis - same.joints[:, 0], axis=1).mean()
    assert together < 0.04 < alone
    for view, humans in enumerate(result.views):  # each in its own camera's frame
        shown = humans.keypoints("coco17").xy
        assert np.abs(shown - truth.pixels(view)[order]).mean() < 8
        np.testing.assert_array_equal(humans.track_ids, [1, 2, 3])
    assert (np.diff(fused.distances) >= 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("apart", [0.0, 0.06])
def test_cameras_too_near_to_each_other_to_tell_distances(
    predictions: list[FittedHumans], truth: Truth, body: Anny, apart: float
) -> None:
    """One camera given twice, and a stereo pair: the same people, where they were predicted, not twice."""
    cameras = [truth.extrinsics[0], truth.extrinsics[0].copy()]
    cameras[1][0, 3] -= apart
    aside = np.array([-apart, 0, 0])
    again = moved(predictions[0][[2, 0, 1]], np.eye(3), aside, K=K, K_source="given", image_size=SIZE)
    result = fuse_views([predictions[0], again], cameras, body=body)
    assert sorted(map(tuple, result.sources.T)) == [(0, 1), (1, 2), (2, 0)]
    alone = predictions[0].pelvis[result.sources[0]]
    np.testing.assert_allclose(result.views[0].pelvis, alone, atol=0.3)
    assert result.views[0].errors_px is not None
    assert result.views[0].errors_px.max() < 12


@pytest.mark.slow
def test_who_is_seen_once_stays_unless_two_views_are_asked_for(
    predictions: list[FittedHumans], truth: Truth, body: Anny
) -> None:
    fewer = [predictions[0], predictions[1][[0, 1]], predictions[2][[]]]
    result = fuse_views(fewer, truth.extrinsics, body=body)
    assert result.sources.shape == (3, 3)
    assert (result.sources[2] == -1).all()
    assert sorted((result.sources[1] >= 0).tolist()) == [False, True, True]
    assert len(fuse_views(fewer, truth.extrinsics, body=body, least_views=2).views[0]) == 2


def test_nobody_and_wrong_numbers_of_cameras(predictions: list[FittedHumans], truth: Truth) -> None:
    nobody = [humans[[]] for humans in predictions]
    assert len(fuse_views(nobody, truth.extrinsics).views[2]) == 0
    with pytest.raises(ValueError, match="got 2 for 3 views"):
        fuse_views(predictions, truth.extrinsics[:2])
    with pytest.raises(ValueError, match="got 3 pictures, 1 Ks and 2 extrinsics"):
        predict_views(None, [1, 2, 3], [K], truth.extrinsics[:2])


@pytest.mark.slow
def test_predict_views_asks_the_model_for_each_view(
    predictions: list[FittedHumans], truth: Truth, body: Anny
) -> None:
    class Model:
        def predict_batch(self, images: list[object], Ks: list[object], *, threshold: float) -> object:
            assert (images, Ks, threshold) == (["a", "b", "c"], [1, 2, 3], 0.4)
            return predictions

    Model.body = body  # type: ignore[attr-defined]
    result = predict_views(Model(), ["a", "b", "c"], [1, 2, 3], truth.extrinsics, threshold=0.4)
    assert len(result.views) == 3
    method = MultiHMRModel.predict_views(Model(), ["a", "b", "c"], [1, 2, 3], truth.extrinsics, threshold=0.4)  # type: ignore[arg-type]
    np.testing.assert_array_equal(method.views[1].vertices, result.views[1].vertices)


@pytest.mark.slow
def test_a_lens_with_distortion_changes_pixels_alone(
    predictions: list[FittedHumans], truth: Truth, body: Anny
) -> None:
    lens = Distortion.of([-0.2, 0.05, 0, 0])
    bent = [predictions[0], to_distorted_image(predictions[1], predictions[1].K, lens), predictions[2]]
    straight = fuse_views(predictions, truth.extrinsics, body=body)
    fused = fuse_views(bent, truth.extrinsics, body=body)
    np.testing.assert_allclose(fused.views[1].vertices, straight.views[1].vertices, atol=1e-4)
    pixels = lens.distort_points(straight.views[1].joints_2d, predictions[1].K)
    np.testing.assert_allclose(fused.views[1].joints_2d, pixels, atol=0.1)
    assert [humans.distortion for humans in fused.views] == [None, lens, None]


@pytest.mark.slow
def test_the_command_writes_the_same_people_for_each_camera(
    predictions: list[FittedHumans], truth: Truth, body: Anny, tmp_path: Path, monkeypatch, capsys
) -> None:
    class Model:
        threshold = 0.3

        def predict_batch(self, images: list[LoadedImage], Ks: list[np.ndarray], **_: object) -> object:
            shown = [int(image.pixels[0, 0, 0]) for image in images]  # which camera it is from
            for K_given in Ks:
                np.testing.assert_allclose(K_given, K)
            return [predictions[view] for view in shown]

    Model.body = body  # type: ignore[attr-defined]
    Model.predict_views = MultiHMRModel.predict_views  # type: ignore[attr-defined]
    monkeypatch.setattr("multihmr.model.load_model", lambda *_, **__: Model())
    monkeypatch.setattr("multihmr.video.prediction_cache.model_fingerprint", lambda _: "f")
    cameras = {}
    for view, name in enumerate("abc"):
        camera = np.asarray(truth.extrinsics[view], float)
        opencv = np.array(K, float) - [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
        cameras[name] = {"K": opencv.tolist(), "R": camera[:, :3].tolist(), "t": camera[:, 3].tolist()}
        (tmp_path / name).mkdir()
        for moment in range(2):
            Image.fromarray(np.full((*SIZE, 3), view, np.uint8)).save(tmp_path / name / f"{moment}.png")
    (tmp_path / "rig.json").write_text(json.dumps(cameras), encoding="utf-8")
    words = ["--cameras", str(tmp_path / "rig.json"), "--out", str(tmp_path / "out"), "--format", "json"]
    assert run(["views", *(str(tmp_path / name) for name in "cab"), *words]) == 0  # cameras go by names
    told = capsys.readouterr().out
    assert told.splitlines()[0].startswith("0.png 0.png 0.png: 3 people: 1 at")
    assert "(c a b)" in told
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in tmp_path.glob("out/*/*"))
    assert written == [f"{name}/{moment}.json" for name in "abc" for moment in range(2)]
    heads = {}
    for view, name in enumerate("abc"):
        content = json.loads((tmp_path / "out" / name / "1.json").read_text(encoding="utf-8"))
        people = np.array([person["translation"] for person in content["people"]])
        camera = np.asarray(truth.extrinsics[view], float)
        heads[name] = (people - camera[:, 3]) @ camera[:, :3]  # in the world of the calibration
    np.testing.assert_allclose(heads["a"], heads["b"], atol=1e-3)
    np.testing.assert_allclose(heads["a"], heads["c"], atol=1e-3)
    # one picture per camera, mixed with a folder, or other numbers of pictures
    pictures = [str(tmp_path / name / "0.png") for name in "abc"]
    assert run(["views", *pictures, *words[:2], "--out", str(tmp_path / "one"), "--format", "json"]) == 0
    assert sorted(path.name for path in (tmp_path / "one").glob("*.json")) == ["a.json", "b.json", "c.json"]
    (tmp_path / "a/0.png").unlink()
    for views, sentence in (
        (["a", "b", "c"], "each folder must hold the pictures of the same moments, got 1 in a, 2 in b"),
        (["a", "b/0.png", "c"], "not both"),
        (["a"], "several cameras are needed"),
        (["a", "d"], "does not exist"),
    ):
        assert run(["views", *(str(tmp_path / view) for view in views), *words]) == 1
        assert sentence in capsys.readouterr().err
