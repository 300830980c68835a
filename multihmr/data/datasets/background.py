"""Pictures that show nobody, for networks that see people where there are none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ...preprocessing.image import load_image
from ..sample import Sample
from ..synthetic.backgrounds import PICTURES


class BackgroundImages(Sequence[Sample]):
    """The pictures of a folder and of those in it, with no people and no camera that is known.

    Whoever is in them all the same is learned to be nobody, so look at them first. They are read as often as
    they are drawn: a few hundred pixels a side are enough.

    FileNotFoundError: there are no pictures.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._paths = sorted(p for p in self.folder.rglob("*") if p.suffix.lower() in PICTURES)
        if not self._paths:
            raise FileNotFoundError(f"no pictures ({', '.join(PICTURES)}) in {folder} that could show nobody")

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
