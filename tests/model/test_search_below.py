"""`search_below`: weak people do not end the search of an image, and cost no pass that finds nothing new."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from toys import ToyBody, random_humans, tiny_model

from multihmr.humans import Humans
from multihmr.model import passes
from multihmr.model.options import PredictOptions
from multihmr.preprocessing.image import LoadedImage

PEOPLE = random_humans(ToyBody(), 2)


def people(*scores: float) -> Humans:
    return dataclasses.replace(PEOPLE[: len(scores)], scores=np.float32(scores))


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Any:
    """predict(whole, closeup, in tiles, ...): scores of the people found, and the passes that ran."""

    def run(whole: Sequence[float], later: Sequence[float], **options: Any) -> tuple[list[float], list[str]]:
        ran = []

        def found_in(kind: str, scores: Sequence[float]) -> Any:
            def some(model: Any, images: Any, _: Any, options: PredictOptions) -> Any:
                ran.append(kind)
                found = people(*(score for score in scores if score >= (options.threshold or 0)))
                return [found] * len(images) if isinstance(images, list) else found

            return some

        monkeypatch.setattr(passes, "predict_whole_images", found_in("whole", whole))
        monkeypatch.setattr(passes, "predict_closeups", found_in("closeup", later))
        monkeypatch.setattr(passes, "predict_tiles", found_in("tiles", later))
        margin = 0.0 if options.get("tiles") else 0.25
        monkeypatch.setattr(passes, "closeup_margin", lambda model: margin)
        photo = LoadedImage(np.zeros((40, 60, 3), np.uint8))
        (found,) = tiny_model().predict_batch([photo], fov=60, any_rotation=False, threshold=0.15, **options)
        return sorted(np.round(found.scores.astype(float), 2).tolist(), reverse=True), ran

    return run


@pytest.mark.parametrize(("options", "later"), [({}, "closeup"), ({"tiles": "auto"}, "tiles")])
def test_weak_people_are_replaced_by_those_who_count(predict: Any, options: Any, later: str) -> None:
    below = options | {"search_below": 0.3}
    assert predict([0.2], [0.6, 0.2], **below) == ([0.6], ["whole", later])
    assert predict([0.2], [0.25], **below) == ([0.2], ["whole", later])
    assert predict([0.2], [], **below) == ([0.2], ["whole", later])
    assert predict([0.4, 0.2], [0.6], **below) == ([0.4, 0.2], ["whole"])
    # where nobody is seen at first, weak people of the second look stay: they may be tracked already
    assert predict([], [0.6, 0.2], **below) == ([0.6, 0.2], ["whole", later])
    assert predict([], [0.2], **below) == ([0.2], ["whole", later])


@pytest.mark.parametrize(("options", "later"), [({}, "closeup"), ({"tiles": "auto"}, "tiles")])
def test_without_it_any_person_ends_the_search(predict: Any, options: Any, later: str) -> None:
    assert predict([0.2], [0.6], **options) == ([0.2], ["whole"])
    assert predict([], [0.6], **options) == ([0.6], ["whole", later])


def test_it_is_a_score() -> None:
    with pytest.raises(ValueError, match="search_below is a score between 0 and 1, got 2"):
        tiny_model().predict_batch([np.zeros((40, 60, 3), np.uint8)], search_below=2)
