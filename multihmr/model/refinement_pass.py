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
        """What predicts images, and then refines the people whom it found.

        Refinement moves people, so that another may be the nearest; people of given boxes keep their order.
        """

        def both(
            images: Sequence[LoadedImage], cameras: Sequence[Camera], boxes: Sequence[Any]
        ) -> list[Humans]:
            result = []
            for image, table, humans in zip(images, boxes, predict(images, cameras, boxes), strict=True):
                refined = self(image, humans)
                result.append(refined if table is not None else refined.nearest_first())
            return result

        return both
