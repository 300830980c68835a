"""`RefinementPass`: a pass over the people of an image, in its pixels, after they were predicted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from ..humans import Humans
from ..preprocessing.image import LoadedImage
from .options import Camera
from .undistortion import Predict


class RefinementPass(ABC):
    """Base class of the passes that `predict` adds for limbs, hands and faces; made once for a call."""

    @abstractmethod
    def __call__(self, image: LoadedImage, humans: Humans) -> Humans:
        """The people of an image, refined where the image shows them well enough."""

    def after(self, predict: Predict) -> Predict:
        """What predicts images, and then refines the people whom it found."""

        def both(
            images: Sequence[LoadedImage], cameras: Sequence[Camera], boxes: Sequence[Any]
        ) -> list[Humans]:
            found = predict(images, cameras, boxes)
            return [self(image, humans) for image, humans in zip(images, found, strict=True)]

        return both
