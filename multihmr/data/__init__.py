"""Pictures with true people in them, from files and from the renderer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import PoseDataset

# name -> the module beside this one and the reader in it, imported when it is asked for
DATASETS = {
    "3dpw": ("threedpw", "ThreeDPW"),
    "agora": ("agora", "Agora"),
    "bedlam": ("bedlam", "Bedlam"),
    "coco": ("coco", "Coco"),
    "coco-feet": ("coco", "CocoFeet"),
    "coco-wholebody": ("coco", "CocoWholeBody"),
    "cuffs": ("cuffs", "Cuffs"),
    "ehf": ("ehf", "Ehf"),
    "h36m": ("h36m", "H36M"),
    "hi4d": ("hi4d", "Hi4D"),
    "mupots": ("mupots", "MuPoTS"),
    "panoptic": ("panoptic", "Panoptic"),
    "ubody": ("ubody", "UBody"),
}


def dataset_class(name: str) -> type[PoseDataset]:
    """The reader of a data set; ValueError with the known names for another."""
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; known are {', '.join(sorted(DATASETS))}")
    module, reader = DATASETS[name]
    return getattr(importlib.import_module(f".datasets.{module}", __name__), reader)
