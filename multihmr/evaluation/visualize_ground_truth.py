"""Draw the ground truth of samples over their images, to check a data set before training on it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ..bodies.base import Body
from ..data.sample import Sample
from ..humans import project
from .ground_truth import by_gender
from .protocol_files import ProtocolFiles

COLORS = ((255, 99, 71), (64, 156, 255), (120, 220, 90), (255, 200, 60), (200, 120, 255), (60, 220, 210))
NEAR = 0.05  # metres; what is nearer to the camera is not drawn
_FAR = 1e5  # pixels; what is farther away is not drawn


class Bodies:
    """Bodies of samples, by name, gender and number of betas; `lacking`: those that could not be built."""

    def __init__(self, folder: Path, *folders: Path) -> None:
        """folder, folders: in which, or in whose bodies/, smplx/ and smpl/, the licensed files may lie."""
        self.files = ProtocolFiles(folder, *folders)
        self.lacking: dict[str, str] = {}
        self._load = lru_cache(maxsize=None)(self._built)

    def of(self, sample: Sample) -> Callable[[str], Body] | None:
        """Gender -> the body of a sample; None if the sample has no parameters or a file is not there."""
        if not sample.pose.shape[1]:
            return None
        genders = {"neutral"} if sample.gender is None else set(np.asarray(sample.gender).tolist())
        betas = sample.shape.shape[1]
        try:
            bodies = {gender: self._load(sample.body, gender, betas) for gender in genders}
        except (FileNotFoundError, ImportError) as error:
            self.lacking[sample.body] = str(error)
            return None
        return bodies.__getitem__

    def _built(self, name: str, gender: str, betas: int) -> Body:
        if name == "smpl":
            from ..bodies.smpl import SMPL

            return SMPL(self._file(f"SMPL_{gender.upper()}"), shape_count=betas)
        if name != "smplx":
            from ..bodies.loading import load_body

            return load_body(name)
        from ..bodies.smplx import SMPLX

        return SMPLX(self._file("SMPLX_NEUTRAL.npz"), shape_count=betas)

    def _file(self, name: str) -> Path:
        path = self.files.find(name)
        if path is None:
            raise FileNotFoundError(f"there is no {self.files.missing(name)}")
        return path


def draw_truth(sample: Sample, bodies: Bodies) -> np.ndarray:
    """(H, W, 3) uint8: each person's vertices as dots and bones as lines where body and camera are known, and
    the keypoints that the data set gives as white rings."""
    picture = Image.fromarray(sample.image).convert("RGB")
    body = bodies.of(sample) if np.isfinite(sample.K).all() else None
    if body is not None and len(sample):
        posed = by_gender(body, sample)
        placed = posed.placed.cpu().numpy()
        picture = _with_dots(picture, posed.vertices.cpu().numpy()[placed], sample.K)
        topology = body("neutral" if sample.gender is None else str(sample.gender[0])).topology
        bones = [(joint, topology.parents[joint]) for joint in topology.pose_joints]
        _draw_bones(picture, posed.joints.cpu().numpy()[placed], bones, sample.K)
    if sample.keypoints_3d is not None and np.isfinite(sample.K).all():
        if sample.keypoints_3d.shape[1] > 500:  # a mesh
            picture = _with_dots(picture, sample.keypoints_3d, sample.K)
        else:
            _draw_rings(picture, _visible_pixels(sample.keypoints_3d, sample.K))
    if sample.keypoints_2d is not None:
        _draw_rings(picture, sample.keypoints_2d)
    return np.asarray(picture)


def save_truth(samples: Sequence[Sample], out: Path, bodies: Bodies, count: int = 10) -> list[Path]:
    """Draw `count` samples, from the first to the last evenly, into a folder; the files."""
    out.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in sorted(set(np.linspace(0, len(samples) - 1, count).round().astype(int).tolist())):
        sample = samples[number]
        path = out / f"{number:07d}_{re.sub(r'[^A-Za-z0-9]+', '_', sample.name)[-80:]}.jpg"
        Image.fromarray(draw_truth(sample, bodies)).save(path, quality=92)
        paths.append(path)
    return paths


def _visible_pixels(points: np.ndarray, K: np.ndarray) -> np.ndarray:
    """(..., 3) points in the camera frame -> (..., 2) pixels, NaN for what is behind the camera."""
    return np.where(points[..., 2:] > NEAR, project(points, K), np.nan)


def _with_dots(picture: Image.Image, points: np.ndarray, K: np.ndarray) -> Image.Image:
    """Points (N, V, 3), far people first, each pixel that one falls on half in the person's colour."""
    pixels = np.array(picture)
    distance = [np.nanmedian(person[:, 2]) if np.isfinite(person).any() else 0 for person in points]
    for person in np.argsort(distance)[::-1]:
        xy = _visible_pixels(points[person], K)
        xy = np.floor(xy[np.isfinite(xy).all(1)])
        inside = ((xy >= 0) & (xy < picture.size)).all(1)
        columns, rows = np.unique(xy[inside].astype(int), axis=0).T
        pixels[rows, columns] = pixels[rows, columns] // 2 + np.array(COLORS[person % len(COLORS)]) // 2
    return Image.fromarray(pixels)


def _draw_bones(
    picture: Image.Image, joints: np.ndarray, bones: Sequence[tuple[int, int]], K: np.ndarray
) -> None:
    pen = ImageDraw.Draw(picture)
    width = max(1, round(max(picture.size) / 700))
    for person, xy in enumerate(_visible_pixels(joints, K)):
        color = tuple(channel // 2 + 127 for channel in COLORS[person % len(COLORS)])
        for joint, parent in bones:
            ends = xy[[joint, parent]]
            if parent >= 0 and np.abs(ends).max() < _FAR:  # false for NaN
                pen.line([tuple(end) for end in ends], fill=color, width=width)


def _draw_rings(picture: Image.Image, points: np.ndarray) -> None:
    pen = ImageDraw.Draw(picture)
    radius = max(2.0, max(picture.size) / 250)
    for x, y in points.reshape(-1, 2):
        if max(abs(x), abs(y)) < _FAR:  # false for NaN
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=(255, 255, 255))
