"""Batch: samples as tensors, with the people of all pictures in one flat list."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..data.sample import ANCHORS, Sample

Record = TypeVar("Record", bound=Any)


@dataclass(frozen=True)
class Batch:
    """Samples of one image size as tensors.

    Fields are those of `Sample`, NaN where unknown. Keypoints of several sets are concatenated (M is the
    total number of points); for each person those of the other sets are NaN. keypoint_sets has the name and
    number of points of each set.
    """

    images_BHW3: Tensor  # uint8
    K_B33: Tensor
    image_index_P: Tensor
    pose_PR33: Tensor
    shape_PS: Tensor
    expression_PE: Tensor
    translation_P3: Tensor
    anchor_P: Tensor  # index in data.sample.ANCHORS
    points_2d_PM2: Tensor
    points_3d_PM3: Tensor
    keypoint_sets: tuple[tuple[str, int], ...]
    names: tuple[str, ...]  # of the samples
    views: int = 1  # consecutive pictures that show the same people at the same places
    dropped: tuple[str, ...] = ()  # why samples could not be read, one sentence each; others took their place

    def __len__(self) -> int:
        return len(self.names)

    def to(self, device: torch.device) -> Batch:
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Batch:
        return self._each(Tensor.pin_memory)

    def images_B3HW(self) -> Tensor:
        """RGB in [0, 1], as networks take it."""
        return self.images_BHW3.movedim(-1, 1).float() / 255

    def single(self, index: int) -> Batch:
        """The batch of only one of its samples."""
        one = slice(index, index + 1)
        mine = chosen(self, (self.image_index_P == index).nonzero()[:, 0])
        return replace(
            mine,
            images_BHW3=self.images_BHW3[one],
            K_B33=self.K_B33[one],
            image_index_P=torch.zeros_like(mine.image_index_P),
            names=self.names[one],
            views=1,
        )

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {k: change(v) for k, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **changed)


def chosen(record: Record, rows: Tensor) -> Record:
    """A dataclass of tensors with only these people: fields whose shape suffix begins with P are indexed."""
    people = [field.name for field in fields(record) if field.name.rpartition("_")[2].startswith("P")]
    return replace(record, **{name: getattr(record, name)[rows] for name in people})


def collate(samples: Sequence[Sample], *, views: int = 1) -> Batch:
    """Stack samples whose pictures have one size; any number of them may be without people.

    Args:
        samples: of one batch.
        views: as `Batch.views`.

    Raises:
        ValueError: two samples have different numbers of points for the same keypoint set.
    """
    counts = torch.tensor([len(sample) for sample in samples])

    def people(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([getattr(sample, name) for sample in samples])).float()

    sets = _keypoint_sets(samples)
    anchors = torch.tensor([ANCHORS.index(sample.anchor) for sample in samples])
    return Batch(
        images_BHW3=torch.from_numpy(np.stack([sample.image for sample in samples])),
        K_B33=torch.from_numpy(np.stack([sample.K for sample in samples])).float(),
        image_index_P=torch.repeat_interleave(torch.arange(len(samples)), counts),
        pose_PR33=people("pose"),
        shape_PS=people("shape"),
        expression_PE=people("expression"),
        translation_P3=people("translation"),
        anchor_P=torch.repeat_interleave(anchors, counts),
        points_2d_PM2=_concatenated(samples, "keypoints_2d", sets),
        points_3d_PM3=_concatenated(samples, "keypoints_3d", sets),
        keypoint_sets=tuple(sets.items()),
        names=tuple(sample.name for sample in samples),
        views=views,
    )


def _keypoint_sets(samples: Sequence[Sample]) -> dict[str, int]:
    """Number of points of each keypoint set in the samples, sorted by name."""
    sets: dict[str, int] = {}
    for sample in samples:
        for points in (sample.keypoints_2d, sample.keypoints_3d):
            if points is not None and len(points):
                count = sets.setdefault(sample.keypoint_set, points.shape[1])
                if count != points.shape[1]:
                    raise ValueError(
                        f"sample '{sample.name}' has {points.shape[1]} points of keypoint set "
                        f"'{sample.keypoint_set}', others have {count}; give the two sets two names"
                    )
    return dict(sorted(sets.items()))


def _concatenated(samples: Sequence[Sample], field: str, sets: dict[str, int]) -> Tensor:
    """(P, M, 2 or 3) points of all sets, NaN where a person's sample has another set."""
    rows = []
    for sample in samples:
        row = np.full((len(sample), sum(sets.values()), int(field[-2])), np.nan, np.float32)
        points = getattr(sample, field)
        if points is not None and len(points):
            before = sum(count for name, count in sets.items() if name < sample.keypoint_set)
            row[:, before : before + points.shape[1]] = points
        rows.append(row)
    return torch.from_numpy(np.concatenate(rows))
