"""Many images in constant memory."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clips import StandIn, picture, write_film
from PIL import Image

from multihmr.humans import Humans
from multihmr.preprocessing.image import LoadedImage
from multihmr.video.predict_many import _read_ahead, predict_many


class Model(StandIn):
    """Keeps how many images each batch had."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []

    def predict_batch(self, images: list[Any], Ks: Any = None, **options: Any) -> list[Humans]:
        self.batches.append(len(images))
        return super().predict_batch(images, [None] * len(images), fov=options.get("fov"))


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("b.png", "a.png", "sub/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(picture()).save(tmp_path / name)
    return tmp_path


def test_folders_globs_lists_and_videos(folder):
    def names(source: Any) -> list[Any]:
        result = list(predict_many(Model(), source, batch_size=2))
        assert all(len(humans) == 2 for _, humans in result)
        return [name for name, _ in result]

    assert names(folder) == [folder / "a.png", folder / "b.png", folder / "sub" / "c.png"]
    assert names(str(folder / "*.png")) == [folder / "a.png", folder / "b.png"]
    assert names([folder / "b.png", str(folder / "a.png")]) == [folder / "b.png", str(folder / "a.png")]
    assert names(picture() for _ in range(3)) == [0, 1, 2]
    assert names(folder.glob("*.png").__iter__()) != []
    film = write_film(folder / "film.mp4", [picture()] * 3)
    assert names(film) == [(str(film), 0), (str(film), 1), (str(film), 2)]


def test_an_endless_source_is_read_three_batches_ahead_at_most():
    read = 0

    def endless() -> Any:
        nonlocal read
        while True:
            read += 1
            yield picture()

    model = Model()
    stream = predict_many(model, endless(), batch_size=4, fov=50)
    for _ in range(9):
        next(stream)
    assert model.batches == [4, 4, 4]
    assert read <= 12 + 8
    stream.close()


def test_what_cannot_be_read_says_so(folder):
    with pytest.raises(ValueError, match="matches nothing"):
        list(predict_many(Model(), str(folder / "*.gif")))
    with pytest.raises(ValueError, match="expected a path or an iterable of images, got int"):
        list(predict_many(Model(), 3))
    for one in (np.zeros((8, 8, 3), np.uint8), torch.zeros(3, 8, 8), b"\xff\xd8"):
        with pytest.raises(ValueError, match=r"expected several images, got one as .*; use predict for it"):
            list(predict_many(Model(), one))
    with pytest.raises(ValueError, match="batch_size must be at least 1"):
        list(predict_many(Model(), folder, batch_size=0))


def test_a_bad_image_is_raised_skipped_or_returned(folder):
    (folder / "ab.png").write_bytes(b"no image")
    names = ["a.png", "ab.png", "b.png", "sub/c.png"]

    def found(source: Any, **options: Any) -> list[tuple[Any, Any]]:
        return list(predict_many(Model(), source, batch_size=2, **options))

    for source in (folder, [folder / name for name in names]):
        given = iter(predict_many(Model(), source, batch_size=2))
        assert next(given)[0] == folder / "a.png"
        with pytest.raises(ValueError, match=r"ab\.png"):
            list(given)
        assert [path.name for path, _ in found(source, on_error="skip")] == ["a.png", "b.png", "c.png"]
        results = found(source, on_error="return")
        assert [path for path, _ in results] == [folder / name for name in names]
        assert isinstance(results[1][1], ValueError)
        assert all(len(humans) == 2 for i, (_, humans) in enumerate(results) if i != 1)
    missing = found([folder / "nothing.png", folder / "a.png"], on_error="return")
    assert isinstance(missing[0][1], FileNotFoundError)
    with pytest.raises(ValueError, match="on_error must be one of raise, skip, return"):
        predict_many(Model(), folder, on_error="ignore")


def test_one_camera_took_all_images():
    seen: list[Any] = []

    class Calibrated(Model):
        def predict_batch(self, images: list[Any], Ks: Any = None, **options: Any) -> list[Humans]:
            seen.append((Ks, options))
            return super().predict_batch(images, **options)

    K = np.float32([[90, 0, 32], [0, 90, 24], [0, 0, 1]])
    list(predict_many(Calibrated(), (picture() for _ in range(3)), K, batch_size=2, threshold=0.4))
    assert [(len(Ks), options["threshold"]) for Ks, options in seen] == [(2, 0.4), (1, 0.4)]
    assert all(each is K for Ks, _ in seen for each in Ks)
    seen.clear()
    list(predict_many(Calibrated(), [picture()]))
    assert seen[0][0] is None


def test_reading_ahead_may_end_in_one_of_its_own_threads() -> None:
    """As where the garbage collector ends what was left early: a thread cannot wait for itself."""
    image, errors = LoadedImage(np.zeros((4, 4, 3), np.uint8)), []
    may_end, ended = threading.Event(), threading.Event()

    def ending() -> LoadedImage:
        may_end.wait(10)
        try:
            ahead.close()
        except RuntimeError as error:
            errors.append(error)
        ended.set()
        return image

    ahead = _read_ahead([(0, lambda: image), (1, ending), (2, lambda: image)], 2)
    assert next(ahead) == (0, image)
    may_end.set()
    assert ended.wait(10)
    assert not errors
    assert list(ahead) == []
