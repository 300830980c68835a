"""`PredictOptions`: the options of `predict_batch` that every pass over an image needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..preprocessing.options import check_any_rotation, check_options, check_switches

Camera = tuple[Tensor | None, str]  # (3, 3) intrinsics in pixels of an image, or None, and their K_source


@dataclass(frozen=True)
class PredictOptions:
    """Options of `predict_batch` beside images, cameras and boxes.

    Raises:
        ValueError: an option is outside of its range; the sentence names it.
    """

    threshold: float | None
    max_people: int | None
    tiles: int | Literal["auto"]
    batch_size: int
    any_rotation: bool | Literal["auto"] = "auto"
    flip_test: bool = False
    closeups: bool = True
    hands_and_faces: bool = False
    limbs: bool = True
    search_below: float | None = None

    def __post_init__(self) -> None:
        check_options(
            None, self.threshold, self.max_people, self.tiles, self.batch_size, search_below=self.search_below
        )
        check_any_rotation(self.any_rotation)
        switches = ("flip_test", "closeups", "hands_and_faces", "limbs")
        check_switches(**{name: getattr(self, name) for name in switches})
