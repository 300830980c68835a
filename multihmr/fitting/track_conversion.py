"""Tracks of one body as tracks of another, `track_to_body`: one shape a person, pose and face by frame."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..bodies.base import Body, posed
from ..bodies.loading import float32_on_cpu
from ..video.tracks import Track
from .conversion import AT_ONCE, Conversion, conversion_of, load_target, source_body, to_body

SHAPE_FRAMES = 8  # of a track, evenly spread, that its shape is fitted to


@dataclass(frozen=True, eq=False, repr=False)
class ConvertedTrack(Track):
    """`Track` of another body, with how far each frame is from the one before the conversion.

    Attributes:
        errors_mm: (T,) mean distance of corresponding points of the two surfaces [mm].
        converted_from: name of the body before.
    """

    errors_mm: Any = None
    converted_from: str = ""

    def __getitem__(self, index: int | slice | np.ndarray) -> ConvertedTrack:
        """As of `Track`."""
        chosen = super().__getitem__(index)
        assert isinstance(chosen, ConvertedTrack)
        rows = np.atleast_1d(np.arange(len(self))[index])
        return dataclasses.replace(chosen, errors_mm=self.errors_mm[rows])


@float32_on_cpu()
@torch.no_grad()
def track_to_body(
    track: Track,
    body: str | Body,
    *,
    file: str | os.PathLike[str] | None = None,
    source: Body | None = None,
    progress: Callable[[int], Any] | None = None,
) -> ConvertedTrack:
    """The same person as parameters of another body; see `track_to_body`."""
    path = None if file is None else Path(file)
    target = body if isinstance(body, Body) else load_target(body, path)
    source = source or source_body(track.body, len(track.shape), target, path)
    if source.name != track.body:
        raise ValueError(f"the track is of body {track.body!r}, got source {source.name!r}")
    if not len(track):
        raise ValueError("a track without frames cannot be converted")
    kept = {field.name: getattr(track, field.name) for field in dataclasses.fields(Track)}
    if target.name == track.body and target.shape_count == len(track.shape):
        return ConvertedTrack(**kept, errors_mm=np.zeros(len(track), np.float32), converted_from=track.body)
    rows = np.unique(np.linspace(0, len(track) - 1, SHAPE_FRAMES).round().astype(int))
    shaped = [to_body(humans, target, source=source) for humans in track[rows].humans(source)]
    shape = np.median([humans.shape[0] for humans in shaped], axis=0).astype(np.float32)
    unpredicted = shaped[0].unpredicted
    conversion = conversion_of(source, target, unpredicted).with_shape(torch.from_numpy(shape))
    parts = []
    for first in range(0, len(track), AT_ONCE):
        parts.append(_fit(track[first : first + AT_ONCE], source, conversion))
        if progress is not None:
            progress(len(parts[-1]["errors_mm"]))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    kept |= {"shape": shape, "body": target.name, "topology": target.topology, "unpredicted": unpredicted}
    return ConvertedTrack(**kept | columns, converted_from=track.body)


def _fit(track: Track, source: Body, conversion: Conversion) -> dict[str, np.ndarray]:
    """What changes in each frame of a short track."""
    target = conversion.target
    count = len(track)
    shape = np.repeat(track.shape[None], count, 0)
    vertices = torch.from_numpy(posed(source, track.pose, shape, track.expression, track.translation)[0])
    state = conversion.fit(vertices)
    pose, shape, expression = (
        part.numpy() for part in (state.pose_PR33, state.shape_PS, state.expression_PE)
    )
    found, joints = posed(target, pose, shape, expression, np.zeros((count, 3), np.float32))
    shift = (state.root_P3.numpy() - joints[:, target.pelvis_joint])[:, None]
    match = conversion.match
    far = np.linalg.norm((found + shift)[:, match.vertices] - match.points(vertices).numpy(), axis=-1)
    return {
        "pose": pose,
        "expression": expression,
        "translation": (joints + shift)[:, target.center_joint],
        "pelvis": (joints + shift)[:, target.pelvis_joint],
        "errors_mm": 1000 * far.mean(1),
    }
