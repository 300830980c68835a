"""Draw people: over the image, from the side and from above. numpy and PIL; no OpenGL, no display."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..bodies.topology import Topology
from ..humans import Humans
from ..preprocessing.image import read_image
from ..world.ground import Ground
from .annotate import annotate, draw_wireframe
from .floor import draw_floor
from .rasterizer import Mesh, paint, rasterize, resolve

if TYPE_CHECKING:
    from ..preprocessing.types import ImageLike

OPACITY = 0.7  # of meshes over an image: body and clothes can both be judged
NEAR = 0.05  # metres; what is nearer to the camera is not drawn
SAMPLES = 2  # per pixel and direction, averaged: clean edges
MAX_SIDE = 4096  # pixels of the overlay; more costs seconds and shows nothing
BAND = 1 << 22  # samples that are painted at once: a bound on memory
PLAN_SIDE = 2400  # samples of the side views
GRID_STEPS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 1000.0)  # metres

SIDE = np.array([[0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # seen from the camera's right: depth to the right
TOP = np.array([[1, 0, 0], [0, 0, -1], [0, 1, 0]])  # seen from above: depth upwards

_PAPER = (238, 238, 235)
_VIEWED = (252, 252, 250)
_GRID = (218, 218, 215)
_AXIS = (178, 178, 176)
_INK = (96, 98, 102)
_DARK = (44, 46, 52)


def draw(
    humans: Humans,
    image: ImageLike | None = None,
    *,
    side_views: bool = True,
    opacity: float = OPACITY,
    boxes: bool = False,
    keypoints: str | bool | None = None,
    scores: bool = False,
    ids: bool = False,
    wireframe: bool = False,
    ground: Ground | None = None,
    max_side: int = MAX_SIDE,
) -> np.ndarray:
    """(H', W', 3) uint8 picture of the people over `image`, with views from the side and from above.

    The nearest person hides those behind; people have the colours of `humans.colors`.

    Args:
        humans: of one image.
        image: what predict was given (path, PIL image, array, ...); None draws them before plain paper.
        side_views: add both views; without them the picture has the size of the image.
        opacity: of the meshes, 0 (only the image) to 1 (nothing of the image behind them); the default lets
            the person be seen through.
        boxes: draw the box of each person.
        keypoints: draw a keypoint set with its skeleton: "coco17" or another name; True is "coco17".
        scores: label each person with the confidence.
        ids: label each person with the number in tables and files, or the track id.
        wireframe: draw the visible edges of the triangles instead of the filled surface.
        ground: of `humans.ground()`: draw its floor as a grid of metres, if it is known.
        max_side: limit of the longer side of the overlay in pixels; a larger image is made smaller.

    Raises:
        ValueError: the image has not the size of the one in which the people were found, the opacity is not
            between 0 and 1, or the body has no such keypoint set.

    Examples:
        >>> picture = draw(humans, "street.jpg", opacity=0.5, keypoints="coco17", ids=True)
        >>> picture.dtype, picture.ndim
        (dtype('uint8'), 3)
    """
    if isinstance(opacity, (str, bytes)) or not 0 <= opacity <= 1:
        raise ValueError(f"opacity must be between 0 and 1, got {opacity!r}")
    pixels = _photo(humans, image)
    scale = _overlay_scale(humans.image_size, side_views, max_side)
    height, width = (max(1, round(side * scale)) for side in humans.image_size)
    same = (height, width) == humans.image_size
    pixels = pixels.copy() if same else _resized(pixels, (width, height))
    if ground is not None and ground.known:
        pixels = draw_floor(pixels, humans, ground)
    if wireframe:
        pixels = draw_wireframe(pixels, humans, depth_and_ids(humans)[0])
    else:
        _add_people(pixels, humans, scale, opacity)
    name = "coco17" if keypoints is True else keypoints or None
    if boxes or name or scores or ids:
        pixels = annotate(pixels, humans, boxes=boxes, keypoints=name, scores=scores, ids=ids)
    return _with_side_views(pixels, humans) if side_views else pixels


def draw_plan(humans: Humans, size: tuple[int, int], *, seen_from: str) -> np.ndarray:
    """(H, W, 3) uint8 picture of `size` (width, height), of the people, the camera and a grid in metres.

    seen_from: "side" (depth to the right) or "above" (depth upwards).
    """
    axes = {"side": SIDE, "above": TOP}[seen_from]
    return _Plan(humans, size, axes, max(10, round(0.038 * min(size)))).picture()


def depth_and_ids(humans: Humans) -> tuple[np.ndarray, np.ndarray]:
    """Depth (H, W) float32 [m] of each pixel, inf where there is no person; ids (H, W) int32.

    An id is the index of the person in `humans`, -1 where there is none. One sample, at the pixel's centre.
    """
    view = camera_view(humans, 1.0)
    count = humans.vertices.shape[1]
    faces = (humans.topology.faces + np.arange(len(humans))[:, None, None] * count).reshape(-1, 3)
    face, nearness = rasterize(view.xy.reshape(-1, 2), view.nearness.reshape(-1), faces, humans.image_size)
    with np.errstate(divide="ignore"):
        depth = np.where(face >= 0, 1 / nearness, np.inf).astype(np.float32)
    ids = np.where(face >= 0, face // max(1, len(humans.topology.faces)), -1).astype(np.int32)
    return depth, ids


@dataclass(frozen=True)
class View:
    """N people as projected for a viewer.

    xy (N, V, 2) in samples; nearness (N, V), greater is nearer, affine on the plane (1/depth in perspective,
    -depth in parallel projection), nan for points that cannot be drawn; facing (N, V, 3) unit vectors from
    the points to the viewer; axes (3, 3) the viewer's right, down and forward; camera frame.
    """

    xy: np.ndarray
    nearness: np.ndarray
    facing: np.ndarray
    axes: np.ndarray


def camera_view(humans: Humans, scale: float) -> View:
    """The people as the photograph shows them, with `scale` samples per pixel of the image as given."""
    points = humans.vertices
    depth = points[..., 2]
    with np.errstate(divide="ignore"):
        nearness = np.where(depth > NEAR, 1 / depth, np.float32(np.nan))
    distance = np.sqrt(np.einsum("nvc,nvc->nv", points, points))
    facing = points / -np.maximum(distance, np.float32(1e-6))[..., None]
    return View(humans.project(points) * np.float32(scale), nearness, facing, np.eye(3))


def parallel_view(humans: Humans, axes: np.ndarray, scale: float, origin: np.ndarray) -> View:
    """The people along `axes` (rows: right, down, forward), `scale` samples a metre, camera at `origin`."""
    points = humans.vertices @ axes.T.astype(np.float32)
    facing = np.broadcast_to(-axes[2].astype(np.float32), points.shape)
    return View(points[..., :2] * np.float32(scale) + np.float32(origin), -points[..., 2], facing, axes)


def _add_people(pixels: np.ndarray, humans: Humans, scale: float, opacity: float) -> None:
    """Paint the people over (H, W, 3) pixels, in place: the photograph, `scale` times as large as given."""
    meshes = painted_meshes(humans, camera_view(humans, scale * SAMPLES))
    left, right, top, bottom = _outline(meshes, pixels.shape[1] * SAMPLES, pixels.shape[0] * SAMPLES)
    flat = pixels.reshape(-1, 3)
    rows = max(1, BAND // max(1, (right - left) * SAMPLES**2))
    for first in range(top, bottom, rows):
        size = (min(rows, bottom - first), right - left)
        moved = [_moved(mesh, left * SAMPLES, first * SAMPLES) for mesh in meshes]
        index, color, cover = resolve(paint(moved, (size[0] * SAMPLES, size[1] * SAMPLES)), SAMPLES)
        index += index // size[1] * (pixels.shape[1] - size[1]) + first * pixels.shape[1] + left
        behind = flat.take(index, 0)
        color -= behind
        color *= (cover * np.float32(opacity))[:, None]
        color += behind
        color += np.float32(0.5)
        flat[index] = color.astype(np.uint8)


def _outline(meshes: list[Mesh], width: int, height: int) -> tuple[int, int, int, int]:
    """First and last (exclusive) column and row [pixels] of the bounding box of the meshes."""
    x, y = (
        np.concatenate([getattr(m, name)[np.isfinite(m.nearness)] for m in meshes] or [[]]) for name in "xy"
    )
    if not len(x):
        return 0, 0, 0, 0
    low = np.clip(np.floor(np.array([x.min(), y.min()])), 0, [width, height]) // SAMPLES
    high = -(-np.clip(np.ceil(np.array([x.max(), y.max()])), 0, [width, height]) // SAMPLES)
    return int(low[0]), int(high[0]), int(low[1]), int(high[1])


def _moved(mesh: Mesh, left: int, top: int) -> Mesh:
    """The mesh shifted to a picture with another corner [samples]."""
    return dataclasses.replace(mesh, x=mesh.x - np.float32(left), y=mesh.y - np.float32(top))


def painted_meshes(humans: Humans, view: View) -> list[Mesh]:
    """A coloured mesh per person; back faces are drawn only of open meshes and those around the camera."""
    topology = humans.topology
    faces = np.ascontiguousarray(topology.faces.T, np.intp)
    colors = shade(humans, view)
    return [
        Mesh(x, y, near, color, faces, two_sided=not (np.isfinite(near).all() and _is_closed(topology)))
        for (x, y), near, color in zip(view.xy.transpose(0, 2, 1), view.nearness, colors, strict=True)
    ]


@lru_cache(maxsize=8)
def _is_closed(topology: Topology) -> bool:
    """Whether every edge belongs to one triangle in each direction."""
    start, end = topology.faces.astype(np.int64), np.roll(topology.faces, -1, axis=1)
    count = topology.faces.max(initial=0) + 1
    there, back = np.sort((start * count + end).ravel()), np.sort((end * count + start).ravel())
    return np.array_equal(there, back)


def shade(humans: Humans, view: View) -> np.ndarray:
    """(N, 3, V) float32 colours 0 to 1 of the vertices, lit from the viewer.

    A warm key light over the viewer's left shoulder, light from the sky and some from the ground, a little
    gloss, and a rim that brightens where the surface turns away, so that limbs contrast with the trunk.
    """
    normals = humans.normals
    cosine = np.clip(np.einsum("nvc,nvc->nv", normals, view.facing), 0, 1)
    right, down, forward = view.axes.astype(np.float32)
    key = _unit(-0.55 * right - 0.75 * down - 0.75 * forward)
    lambert = np.maximum(normals @ key * np.float32(0.75) + np.float32(0.25), 0)
    sky = np.float32(0.5) - np.float32(0.5) * (normals @ down)
    with np.errstate(under="ignore"):  # of programs that let NumPy raise errors
        gloss = np.maximum(normals @ _unit(key - forward), 0) ** np.float32(28)
    shine = np.float32(0.10) * gloss + np.float32(0.28) * (1 - cosine) ** np.float32(3.5) * sky
    paint = (humans.colors / np.float32(255)) ** np.float32(2.2)
    light = [lambert * warm + sky * cool + 0.10 for warm, cool in ((0.80, 0.26), (0.78, 0.28), (0.74, 0.32))]
    linear = np.stack(light, 1) * paint[:, :, None] + shine[:, None]
    return (np.clip(linear, 0, 1) ** np.float32(1 / 2.2)).astype(np.float32)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def _photo(humans: Humans, image: Any) -> np.ndarray:
    """(H, W, 3) uint8 pixels of the image, read-only."""
    height, width = humans.image_size
    if image is None:
        return np.full((height, width, 3), _PAPER, np.uint8)
    pixels = read_image(image)
    if pixels.shape[:2] != humans.image_size:
        raise ValueError(
            f"image is {pixels.shape[1]}x{pixels.shape[0]} but these humans were found in {width}x{height}; "
            "give the image that predict was given"
        )
    return pixels


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.array(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0))


def _overlay_scale(size: tuple[int, int], side_views: bool, max_side: int) -> float:
    """How much a (height, width) photograph grows or shrinks: side views need 480 pixels to be read."""
    enough = 480 / (size[1] if _is_panorama(size) else size[0]) if side_views else 1.0
    return min(max(1.0, enough), max_side / max(size))


def _is_panorama(size: tuple[int, int]) -> bool:
    return size[1] > 2 * size[0]


def _with_side_views(photo: np.ndarray, humans: Humans) -> np.ndarray:
    """The photograph with both views to its right, or below a panorama."""
    height, width = photo.shape[:2]
    if _is_panorama((height, width)):
        half, tall = width // 2, width // 3
        canvas = np.full((height + tall, width, 3), _PAPER, np.uint8)
        boxes = [(0, height, half, tall), (half, height, width - half, tall)]
    else:
        upper, wide = round(height * 0.42), round(height * 0.62)
        canvas = np.full((height, width + wide, 3), _PAPER, np.uint8)
        boxes = [(width, 0, wide, upper), (width, upper, wide, height - upper)]
    canvas[:height, :width] = photo
    text = max(10, round(0.038 * min(boxes[0][2:])))
    for (x, y, w, h), axes in zip(boxes, (SIDE, TOP), strict=True):
        canvas[y : y + h, x : x + w] = _Plan(humans, (w, h), axes, text).picture()
    return canvas


class _Plan:
    """A parallel view with a metric grid, the camera and its field of view, drawn in samples."""

    def __init__(self, humans: Humans, size: tuple[int, int], axes: np.ndarray, text: int) -> None:
        """Size (width, height) and the height of the text in pixels."""
        self.humans, self.axes, self.pixels = humans, axes, size
        samples = min(SAMPLES, PLAN_SIDE / max(size))
        self.size = (max(1, round(samples * size[0])), max(1, round(samples * size[1])))
        self.text = samples * text
        self.line = max(1, round(samples))
        self.font = ImageFont.load_default(self.text)
        self.depth_axis = int(np.argmax(np.abs(axes[:2, 2])))  # of the picture: 0 to the right, 1 upwards
        low, high = _extent(humans, axes)
        margin = 2 * self.text
        free = np.maximum(np.array(self.size) - 2 * margin, 1)
        self.scale = float((free / (high - low)).min())
        self.origin = margin + (free - (high - low) * self.scale) / 2 - low * self.scale
        self.step = next((step for step in GRID_STEPS if step * self.scale > 3.4 * self.text), GRID_STEPS[-1])

    def picture(self) -> np.ndarray:
        picture = Image.new("RGB", self.size, _PAPER)
        pen = ImageDraw.Draw(picture)
        self._draw_grid(pen)
        self._draw_camera(pen)
        view = parallel_view(self.humans, self.axes, self.scale, self.origin)
        pixels = np.array(picture)
        index, color, _ = resolve(paint(painted_meshes(self.humans, view), self.size[::-1]), 1)
        pixels.reshape(-1, 3)[index] = color + 0.5
        picture = Image.fromarray(pixels)
        self._draw_words(ImageDraw.Draw(picture))
        return np.array(picture.resize(self.pixels, Image.Resampling.BOX))

    def _at(self, across: float, depth: float) -> tuple[float, float]:
        """Metres across the view and in depth, in the camera frame -> (x, y) on the picture."""
        right, down = self.axes[:2, 2] * depth
        right, down = (right, down + across) if self.depth_axis == 0 else (right + across, down)
        return float(self.origin[0] + right * self.scale), float(self.origin[1] + down * self.scale)

    def _draw_grid(self, pen: ImageDraw.ImageDraw) -> None:
        """The field of view in white, lines at whole steps from the camera."""
        edges = [self._at(1e3 * float(slope), 1e3) for slope in self._view_edges()]
        pen.polygon([self._at(0, 0), *edges], fill=_VIEWED)
        step = self.step * self.scale
        for x in np.arange(self.origin[0] % step, self.size[0], step):
            pen.line([(x, 0), (x, self.size[1])], fill=_GRID, width=self.line)
        for y in np.arange(self.origin[1] % step, self.size[1], step):
            pen.line([(0, y), (self.size[0], y)], fill=_GRID, width=self.line)
        for edge in edges:
            pen.line([self._at(0, 0), edge], fill=_AXIS, width=self.line)

    def _view_edges(self) -> np.ndarray:
        """(2,) lateral extent of the first and last ray of the image per metre of depth."""
        height, width = self.humans.image_size
        corners = np.array([[0, 0, 1], [width, height, 1]]) @ np.linalg.inv(self.humans.K).T
        return corners[:, 1 - self.depth_axis]

    def _draw_camera(self, pen: ImageDraw.ImageDraw) -> None:
        unit = 0.45 * self.text / self.scale
        case = [
            self._at(x * unit, z * unit) for x, z in ((-0.8, -2.2), (0.8, -2.2), (0.8, -0.3), (-0.8, -0.3))
        ]
        lens = [self._at(x * unit, z * unit) for x, z in ((0, -0.6), (0.8, 0.5), (-0.8, 0.5))]
        pen.polygon(case, fill=_DARK)
        pen.polygon(lens, fill=_DARK)

    def _draw_words(self, pen: ImageDraw.ImageDraw) -> None:
        """Draw the depth scale, the name of the view, and the number of people too far away to be shown."""
        width, height = self.size
        for i in range(1, 100):
            x, y = self._at(0, i * self.step)
            if self.depth_axis == 0 and x < width - 1.5 * self.text:
                pen.text((x, height - 0.5 * self.text), f"{i * self.step:g} m", _INK, self.font, "md")
            elif self.depth_axis == 1 and y > 2.4 * self.text:
                pen.text((0.6 * self.text, y), f"{i * self.step:g} m", _INK, self.font, "lm")
        title = "from the side" if self.depth_axis == 0 else "from above"
        lost = len(self.humans) - int(_is_near(self.humans).sum())
        title += f" ({lost} farther away)" if lost else ""
        pen.text((0.6 * self.text, 0.5 * self.text), title, _DARK, self.font, "la")
        pen.rectangle((0, 0, width - 1, height - 1), outline=_AXIS, width=self.line)


def _extent(humans: Humans, axes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners [m] (right, down) of the shown area: the camera and all people who are not far away."""
    points = np.zeros((1, 3))
    if len(humans):
        near = humans.vertices[_is_near(humans)]
        points = np.concatenate([points, near.min((0, 1))[None], near.max((0, 1))[None]])
    else:
        points = np.array([[-1.2, -0.8, 0], [1.2, 0.8, 3.5]])
    plane = points @ axes[:2].T
    return plane.min(0) - 0.1, plane.max(0) + 0.1


def _is_near(humans: Humans) -> np.ndarray:
    """(N,) whether a view that shows this person still shows the others well."""
    return humans.distances <= 3 * np.median(humans.distances) + 2 if len(humans) else np.ones(0, bool)


def with_ids(picture: np.ndarray, humans: Humans) -> np.ndarray:
    """The picture of the whole image with each person's id, in brackets where the person was interpolated."""
    return annotate(picture, humans, ids=True)


def person_masks(humans: Humans, *, occluded: bool = False) -> np.ndarray:
    """See `Humans.masks`."""
    if occluded:
        masks = [np.isfinite(depth_and_ids(humans[i])[0]) for i in range(len(humans))]
        return np.stack(masks) if masks else np.zeros((0, *humans.image_size), bool)
    ids = depth_and_ids(humans)[1]
    return ids == np.arange(len(humans))[:, None, None]
