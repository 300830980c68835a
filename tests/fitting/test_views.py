from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from fitting.people import SIZE, K, Truth, mean_pa_mpjpe, people

from multihmr.bodies.anny import Anny
from multihmr.fitting import FittedHumans, fit, fuse_views, predict_views
from multihmr.fitting.views import match_views
from multihmr.model import Model as MultiHMRModel

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
    assert (np.diff(fused.translation[:, 2]) >= 0).all()


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
