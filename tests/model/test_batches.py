"""What `predict_batch` takes for each image, and how its errors name the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from toys import tiny_model

from multihmr.model import Model

K = np.array([[80.0, 0, 32], [0, 80, 24], [0, 0, 1]])


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny_model()


@pytest.fixture(scope="module")
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), dtype=np.uint8))


@pytest.mark.parametrize("kind", ["array", "tensor", "tuple", "generator"])
def test_cameras_may_come_in_any_sequence(model: Model, images: list[np.ndarray], kind: str) -> None:
    each = [K, K + np.diag([5, 5, 0]), K + np.diag([9, 9, 0])]
    forms: dict[str, Any] = {
        "array": np.stack(each),
        "tensor": torch.from_numpy(np.stack(each)),
        "tuple": tuple(each),
        "generator": (K for K in each),
    }
    found = model.predict_batch(images, forms[kind], batch_size=2)
    np.testing.assert_allclose([humans.K for humans in found], each, rtol=1e-6)
    assert [humans.K_source for humans in found] == ["given"] * 3


def test_boxes_and_cameras_may_be_none_for_some(model: Model, images: list[np.ndarray]) -> None:
    found = model.predict_batch(images, [None, K, None], [None] * 3)
    assert [humans.K_source for humans in found] == ["predicted", "given", "predicted"]


@pytest.mark.parametrize(
    ("Ks", "sentence"),
    [
        (K, r"Ks must hold one K \(or None\) per image; for one camera give \[K\] \* len\(images\)"),
        (K.tolist(), r"for one camera give \[K\] \* len\(images\)"),
        ([K], r"Ks must hold one entry \(or None\) per image: got 1 for 3 images"),
        (5, r"Ks must be a list with one entry \(or None\) per image, got 5"),
        ("K", "Ks must be a list with one entry"),
    ],
)
def test_wrong_cameras_for_several_images(
    model: Model, images: list[np.ndarray], Ks: Any, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        model.predict_batch(images, Ks)


def test_too_few_cameras_for_a_generator_of_images(model: Model, images: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"Ks must hold one entry \(or None\) per image: got 2, too few"):
        model.predict_batch((image for image in images), [K, K], batch_size=2)


def test_errors_name_the_image_of_a_batch(model: Model, images: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"^images\[2\]: K contains numbers that are not finite"):
        model.predict_batch(images, [None, None, K * np.nan], batch_size=2)
    with pytest.raises(ValueError, match=r"^images\[1\]: image must be a path.*got NoneType"):
        model.predict_batch([images[0], None, images[2]])  # type: ignore[list-item]
    with pytest.raises(FileNotFoundError, match=r"^images\[2\]: nobody.jpg does not exist"):
        model.predict_batch([*images[:2], "nobody.jpg"], batch_size=1)
    for alone in (lambda: model.predict("nobody.jpg"), lambda: model.predict_batch(["nobody.jpg"])):
        with pytest.raises(FileNotFoundError, match=r"^nobody.jpg does not exist"):
            alone()


def test_a_wrong_camera_of_one_image_is_told_as_such(model: Model, images: list[np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"^K must be \(3, 3\): .*; got \(3,\)"):
        model.predict(images[0], K=[500, 160, 120])
