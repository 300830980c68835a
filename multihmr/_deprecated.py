"""Module paths of version 0.3, still importable for one version with a DeprecationWarning."""

from __future__ import annotations

import importlib
import sys
import warnings
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# old path -> new path, both below multihmr
MOVED = {
    "bone_names": "io.bone_names",
    "boxes": "preprocessing.boxes",
    "checkpoint": "hub.checkpoint",
    "convert": "hub.official_converter",
    "coordinates": "io.coordinate_frames",
    "download": "storage.download",
    "export": "io.save",
    "formats": "io",
    "frames": "video.reader",
    "graphs": "runtime",
    "image": "preprocessing.image",
    "notebook": "visualization.notebook",
    "page": "demo",
    "parquet": "io.parquet",
    "pieces": "video.prediction_cache",
    "raster": "visualization.rasterizer",
    "releases": "hub.releases",
    "render": "visualization.draw",
    "rigs": "io.animation",
    "sequence": "video.tracks",
    "sharing": "hub.huggingface",
    "smoothing": "video.one_euro",
    "tiles": "postprocessing.tiling",
    "tracking": "video.tracker",
    "bodies.body": "bodies.base",
    "bodies.joints": "bodies.keypoint_sets",
    "evaluation.benchmark": "evaluation.runner",
    "formats.bvh": "io.bvh",
    "formats.gltf": "io.gltf",
    "formats.meshes": "io.meshes",
    "formats.records": "io.records",
    "graphs.backends": "runtime.backends",
    "graphs.formats": "runtime.export",
    "networks.hybrid": "networks.backbones.hybrid",
}

# public names that are elsewhere now, by the module of version 0.3 that had them and still exists
MOVED_NAMES = {
    "hub": {
        "FAMILIES": "networks.registry",
        "RELEASES": "hub.releases",
        "cache_folder": "storage.paths",
        "find_smplx": "bodies.loading",
        "list_models": "hub.releases",
        "load_body": "bodies.loading",
        "load_model": "model",
        "read_metadata": "hub.checkpoint",
        "save_model": "model",
    },
    "humans": {"KeypointSet": "bodies.topology"},
    "model": {"Predictions": "networks.base", "fingerprint": "storage.fingerprint"},
}


def moved_name(module: str, name: str) -> Any:
    """A public name that `module` had in version 0.3, with a warning; AttributeError for others."""
    new = MOVED_NAMES.get(module.partition(".")[2], {}).get(name)
    if new is None:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    warnings.warn(
        f"{module}.{name} is now {__package__}.{new}.{name}; the old path goes in version 0.5",
        DeprecationWarning,
        stacklevel=3,
    )
    return getattr(importlib.import_module(f"{__package__}.{new}"), name)


class MovedModules(MetaPathFinder, Loader):
    """Finds modules under their old paths; their attributes are looked up in the new module."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        package, _, old = fullname.partition(".")
        if package != __package__ or old not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=any(name.startswith(old + ".") for name in MOVED))

    def exec_module(self, module: ModuleType) -> None:
        old = module.__name__
        new = f"{__package__}.{MOVED[old.partition('.')[2]]}"
        warnings.warn(
            f"{old} is now {new}; the old path goes in version 0.5", DeprecationWarning, stacklevel=2
        )
        moved = importlib.import_module(new)
        module.__doc__ = moved.__doc__
        module.__getattr__ = lambda name: getattr(moved, name)  # type: ignore[method-assign]


def install() -> None:
    """Let `import` find the old paths, after all real modules."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())
