"""Background images: pictures without people, against false detections."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...preprocessing.image import load_image
from ..sample import Sample
from ..synthetic.backgrounds import PICTURES


class BackgroundImages(Sequence[Sample]):
    """Pictures of a folder and its subfolders, as samples without people and with an unknown camera.

    People in them would be learned as background, so check them first. They are decoded each time they are
    sampled: a few hundred pixels per side are enough.

    Raises:
        FileNotFoundError: there are no pictures.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._paths = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in PICTURES)
        if not self._paths:
            raise FileNotFoundError(f"no pictures ({', '.join(PICTURES)}) in {folder}")

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        path = self._paths[index]
        return Sample(
            image=load_image(path).pixels,
            K=np.full((3, 3), np.nan, np.float32),
            pose=np.zeros((0, 0, 3, 3), np.float32),
            shape=np.zeros((0, 0), np.float32),
            expression=np.zeros((0, 0), np.float32),
            translation=np.zeros((0, 3), np.float32),
            visibility=np.zeros(0, np.float32),
            name=path.relative_to(self.folder).as_posix(),
        )
