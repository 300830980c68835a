"""Data sets with ground truth: readers of published ones, shards, rendered scenes, augmentation."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import PoseDataset

# name -> module in datasets/ and class in it, imported when first used
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
    """The reader class of a data set.

    Raises:
        ValueError: the name is unknown; the message lists the known ones.
    """
    if name not in DATASETS:
        raise ValueError(f"no data set {name!r}; known are {', '.join(sorted(DATASETS))}")
    module, reader = DATASETS[name]
    return getattr(importlib.import_module(f".datasets.{module}", __name__), reader)
