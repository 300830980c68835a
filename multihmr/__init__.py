"""Every person in a photograph as a 3D whole-body mesh, in metres, in one pass.

from multihmr import load_model
humans = load_model().predict("street.jpg")
humans.save("street.glb")
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .export import load as load_humans
    from .export import save
    from .hub import list_models, load_model
    from .humans import Humans
    from .model import Model
    from .render import draw

__version__ = "0.3.0"

__all__ = ["Humans", "Model", "__version__", "draw", "list_models", "load_humans", "load_model", "save"]

# name -> (module, name there): imported when first asked for, so that `import multihmr` costs next to nothing
_DOORS = {
    "Humans": ("humans", "Humans"),
    "Model": ("model", "Model"),
    "draw": ("render", "draw"),
    "list_models": ("hub", "list_models"),
    "load_humans": ("export", "load"),
    "load_model": ("hub", "load_model"),
    "save": ("export", "save"),
}


def __getattr__(name: str) -> Any:
    if name not in _DOORS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _DOORS[name]
    value = getattr(import_module(f".{module}", __name__), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
