"""Every person in a photograph as a 3D whole-body mesh, in metres, in one pass.

from multihmr import load_model
humans = load_model().predict("street.jpg")
humans.save("street.glb")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._deprecated import install
from ._version import __version__

if TYPE_CHECKING:
    from .hub.releases import list_models
    from .humans import Humans
    from .io.save import load as load_humans
    from .io.save import save
    from .model import Model, load_model
    from .visualization.draw import draw

__all__ = ["Humans", "Model", "__version__", "draw", "list_models", "load_humans", "load_model", "save"]

install()

# name -> (module, name there): imported on first use, so that `import multihmr` costs next to nothing
_LAZY_EXPORTS = {
    "Humans": ("humans", "Humans"),
    "Model": ("model", "Model"),
    "draw": ("visualization.draw", "draw"),
    "list_models": ("hub.releases", "list_models"),
    "load_humans": ("io.save", "load"),
    "load_model": ("model", "load_model"),
    "save": ("io.save", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY_EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY_EXPORTS[name]
    value = getattr(import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
