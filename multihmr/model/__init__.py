"""The predicting models: `Model`, `TopDownModel`, `load_model` and `save_model`.

A `Network` (networks/) computes tensors from tensors. A `Model` holds one and does the rest: it reads images,
resolves cameras, letterboxes, lets a runtime compute the network, and makes `Humans` of what comes out.

base            `Model`: the public methods
top_down        `TopDownModel`: a network of one person's crop, with boxes or a detector
loading         `load_model`, `save_model`
preparation     a network made ready: device, precision, window, runtime
whole_image     one pass of the network over each image
passes          further passes: mirror image, margin, tiles, quarter turns
undistortion    predictions through a lens with distortion
options         the options that all of these share
summary         the text of print(model)
"""

from __future__ import annotations

from typing import Any

from .._deprecated import moved_name
from .base import Model
from .loading import load_model, save_model
from .top_down import TopDownModel

__all__ = ["Model", "TopDownModel", "load_model", "save_model"]


def __getattr__(name: str) -> Any:
    return moved_name(__name__, name)
