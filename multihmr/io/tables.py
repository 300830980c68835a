"""People as tables: one row per person, as columns, a pandas.DataFrame or CSV text."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ..humans import Humans
from ..humans.fields import REFINED
from ..world.placement import InWorld

if TYPE_CHECKING:
    from pandas import DataFrame


def humans_to_columns(
    humans: Humans,
    keypoints: str | None = "coco17",
    *,
    place: Callable[[np.ndarray], np.ndarray] = lambda points: points,
    unit: str = "m",
) -> dict[str, np.ndarray]:
    """Column name -> (N,) values; units end the name: _m in metres, camera frame, _px in image pixels.

    place: gives points of another frame for those of the camera, in its unit.
    """
    columns: dict[str, Any] = {
        "person": humans.numbers,
        "score": humans.scores,
        "distance_m": humans.distances,
        **_split("head", place(humans.translation), unit),
        **_split("pelvis", place(humans.pelvis), unit),
        **{f"box_{corner}_px": humans.boxes[:, i] for i, corner in enumerate(("x0", "y0", "x1", "y1"))},
    }
    if humans.filled is not None:
        columns["filled"] = humans.filled
    if humans.refined is not None:
        columns |= {f"refined_{name}": humans.refined[:, i] for i, name in enumerate(REFINED)}
    for i, name in enumerate(humans.topology.shape_names):
        columns[f"shape_{name}"] = humans.shape[:, i]
    if keypoints is not None and (keypoints != "coco17" or keypoints in humans.topology.keypoint_sets):
        points = humans.keypoints(keypoints)
        for i, name in enumerate(points.names):
            columns |= _split(name, place(points.xyz[:, i]), unit) | _split(name, points.xy[:, i], "px")
    return columns


def humans_to_pandas(humans: Humans, keypoints: str | None = "coco17") -> DataFrame:
    """See `Humans.to_pandas`."""
    try:
        from pandas import DataFrame
    except ImportError as error:
        raise ImportError(
            "to_pandas needs pandas: pip install 'multihmr[tables]'; .csv files do without"
        ) from error
    return DataFrame(humans_to_columns(humans, keypoints))


def humans_to_csv(humans: Humans) -> bytes:
    """The same table as CSV (UTF-8, header line, comma, lines end with a newline)."""
    return columns_to_csv(humans_to_columns(humans))


def world_to_csv(world: InWorld) -> bytes:
    """The table of `humans_to_csv` with places of the world, how tall people are, and what is under them."""
    columns = humans_to_columns(world.humans, place=world.from_camera, unit=world.unit)
    columns |= {"height_m": world.height_m, "over_floor_m": world.over_floor}
    return columns_to_csv(columns)


def columns_to_csv(columns: dict[str, np.ndarray]) -> bytes:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*(map(_text, column.tolist()) for column in columns.values()), strict=True))
    return stream.getvalue().encode("utf-8")


def _split(name: str, points: np.ndarray, unit: str) -> dict[str, np.ndarray]:
    """(N, 2 or 3) points as one column for each axis."""
    return {f"{name}_{axis}_{unit}": points[:, i] for i, axis in enumerate("xyz"[: points.shape[1]])}


def _text(value: Any) -> str:
    """Seven significant digits, which is what float32 holds."""
    return f"{value:.7g}" if isinstance(value, float) else str(value)
