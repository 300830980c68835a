"""Draws the pictures of docs/: coordinates.png, joints.png and joint_sets.png.

    python scripts/draw_docs.py

A mean person of the default body, through the package itself: what the pictures show is what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from measure_overlay import people
from PIL import Image, ImageDraw, ImageFont

from multihmr.bodies.loading import load_body
from multihmr.humans import Humans, project
from multihmr.visualization.draw import draw, painted_meshes, parallel_view
from multihmr.visualization.rasterizer import paint, resolve

DOCS = Path(__file__).resolve().parents[1] / "docs"
PAPER, INK, FAINT = (255, 255, 255), (40, 42, 48), (150, 152, 158)
RED, GREEN, BLUE = (204, 52, 44), (32, 138, 62), (36, 92, 204)
FRONT = np.eye(3)
SCALE = 2  # everything is drawn so many times as large, then made smaller: smooth lines
SETS = ("coco23", "openpose25", "smpl24", "h36m17")


class Sheet:
    """A picture to draw on, in units that become pixels."""

    def __init__(self, width: int, height: int) -> None:
        self.image = Image.new("RGB", (width * SCALE, height * SCALE), PAPER)

    @property
    def pen(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self.image)

    def line(self, points: Sequence[Sequence[float]], color: tuple, width: float = 1.0) -> None:
        self.pen.line([(x * SCALE, y * SCALE) for x, y in points], color, max(1, round(width * SCALE)))

    def dot(self, at: Sequence[float], color: tuple, radius: float = 3) -> None:
        x, y = at[0] * SCALE, at[1] * SCALE
        r = radius * SCALE
        self.pen.ellipse((x - r, y - r, x + r, y + r), color, PAPER, SCALE)

    def words(
        self, at: Sequence[float], text: str, color: tuple = INK, *, size: float = 13, anchor: str = "lm"
    ) -> None:
        font = ImageFont.load_default(size * SCALE)
        self.pen.text((at[0] * SCALE, at[1] * SCALE), text, color, font, anchor, align="left")

    def arrow(self, start: Sequence[float], end: Sequence[float], color: tuple, width: float = 2.5) -> None:
        a, b = np.array(start, float), np.array(end, float)
        along = (b - a) / np.linalg.norm(b - a)
        across = np.array([-along[1], along[0]])
        self.line([a, b - 8 * along], color, width)
        tip = [b, b - 11 * along + 5 * across, b - 11 * along - 5 * across]
        self.pen.polygon([tuple(SCALE * corner) for corner in tip], color)

    def paste(self, pixels: np.ndarray, left: int, top: int) -> None:
        self.image.paste(Image.fromarray(pixels), (left * SCALE, top * SCALE))

    def bodies(
        self, humans: Humans, axes: np.ndarray, scale: float, origin: Sequence[float], strength: float
    ) -> None:
        """The people along `axes`, `scale` units a metre, the camera at `origin`."""
        view = parallel_view(humans, axes, scale * SCALE, np.array(origin) * SCALE)
        index, color, _ = resolve(paint(painted_meshes(humans, view), self.image.size[::-1]), 1)
        pixels = np.array(self.image)
        flat = pixels.reshape(-1, 3)
        flat[index] = flat[index] * (1 - strength) + color * strength
        self.image = Image.fromarray(pixels)

    def bodies_within(
        self, humans: Humans, axes: np.ndarray, scale: float, origin: Sequence[float], box: Sequence[float]
    ) -> None:
        """The people, faintly, and only within a box: left, top, right, bottom."""
        corners = tuple(round(side * SCALE) for side in box)
        before = self.image.copy()
        self.bodies(humans, axes, scale, origin, 0.3)
        before.paste(self.image.crop(corners), corners[:2])
        self.image = before

    def save(self, name: str) -> None:
        size = (self.image.width // SCALE, self.image.height // SCALE)
        small = self.image.resize(size, Image.Resampling.BOX)
        small.quantize(192, dither=Image.Dither.NONE).save(DOCS / name, optimize=True)
        print(f"{DOCS / name}: {(DOCS / name).stat().st_size / 1000:.0f} kB")


def coordinates() -> None:
    """The image as given with its pixels, and the same people before the camera."""
    size, panel = (480, 640), 0.8
    K = np.array([[560, 0, 320], [0, 560, 240], [0, 0, 1]], np.float32)
    humans = people(load_body("anny"), [(-0.7, -0.5, 3.0), (0.95, -0.55, 3.5)], (0.5, -0.4), K=K, size=size)
    sheet = Sheet(1190, 500)
    _image_panel(sheet, humans, panel)
    _space_panel(sheet, humans)
    sheet.save("coordinates.png")


def _image_panel(sheet: Sheet, humans: Humans, scale: float) -> None:
    left, top = 46, 74
    height, width = humans.image_size
    picture = draw(humans, np.full((height, width, 3), 232, np.uint8), side_views=False, opacity=1.0)
    size = (round(width * scale * SCALE), round(height * scale * SCALE))
    sheet.paste(np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)), left, top)

    def at(xy: Sequence[float]) -> tuple[float, float]:
        return left + xy[0] * scale, top + xy[1] * scale

    sheet.words((left, 20), "In the image as given: pixels", size=17)
    sheet.arrow(at((0, 0)), at((150, 0)), RED)
    sheet.words(at((156, -14)), "x", RED, size=15)
    sheet.arrow(at((0, 0)), at((0, 150)), GREEN)
    sheet.words(at((-22, 150)), "y", GREEN, size=15)
    sheet.words(at((0, -16)), "(0, 0)", FAINT)
    sheet.words(at((width, height + 16)), f"({width}, {height})", FAINT, anchor="rm")
    x0, y0, x1, y1 = humans.boxes[0]
    sheet.line([at(c) for c in ((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0))], INK, 1.2)
    sheet.words(at((x0, y1 + 12)), "boxes[0]", INK)
    for point in (humans.translation[0], humans.pelvis[0]):
        sheet.dot(at(project(point, humans.K)), INK, 4)
    sheet.words(at((x0, y0 - 14)), "the head: project(translation[0], K)")
    middle = at(humans.K[:2, 2])
    sheet.line([(middle[0] - 7, middle[1]), (middle[0] + 7, middle[1])], BLUE, 1.5)
    sheet.line([(middle[0], middle[1] - 7), (middle[0], middle[1] + 7)], BLUE, 1.5)
    sheet.words((middle[0], middle[1] + 18), "(K[0, 2], K[1, 2])", BLUE, anchor="mm")


def _space_panel(sheet: Sheet, humans: Humans) -> None:
    forward = np.array([-0.62, 0.36, 0.70]) / np.linalg.norm([-0.62, 0.36, 0.70])
    right = np.cross([0, 1, 0], forward)
    right /= np.linalg.norm(right)
    axes, scale, origin = np.stack([right, np.cross(forward, right), forward]), 116, np.array([788, 346])

    def at(point: Sequence[float]) -> tuple[float, float]:
        x, y = origin + axes[:2] @ np.array(point, float) * scale
        return float(x), float(y)

    sheet.words((640, 20), "Before the camera: metres", size=17)
    height, width = humans.image_size
    rays = (
        np.array([[0, 0, 1], [width, 0, 1], [width, height, 1], [0, height, 1]]) @ np.linalg.inv(humans.K).T
    )
    for ray in rays:
        sheet.line([at((0, 0, 0)), at(1.1 * ray)], FAINT, 1)
    sheet.line([at(1.1 * rays[i % 4]) for i in range(5)], FAINT, 1)
    sheet.words((at(1.1 * rays[0])[0] - 6, at(1.1 * rays[0])[1] + 4), "the image", FAINT, anchor="rm")
    sheet.bodies(humans, axes, scale, origin, 1.0)
    head, pelvis = humans.translation[0], humans.pelvis[0]
    sheet.arrow(at((0, 0, 0)), at(head), INK, 1.5)
    sheet.dot(at(head), INK, 4)
    x, y, z = head
    sheet.words(
        (at(head)[0] - 6, at(head)[1] - 44), f"translation[0] = ({x:.1f}, {y:.1f}, {z:.1f})", anchor="mm"
    )
    sheet.words((at(head)[0] - 6, at(head)[1] - 28), "the head", anchor="mm")
    sheet.dot(at(pelvis), INK, 4)
    sheet.words((at(pelvis)[0] + 24, at(pelvis)[1]), "pelvis[0]")
    for axis, color, text in ((0, RED, "x, to the right"), (1, GREEN, "y, down"), (2, BLUE, "z, forward")):
        tip = np.eye(3)[axis] * 0.62
        sheet.arrow(at((0, 0, 0)), at(tip), color)
        beyond = np.array(at(tip)) + {0: (6, 12), 1: (0, 14), 2: (6, 12)}[axis]
        sheet.words(beyond, text, color, anchor="mm" if axis == 1 else "lm", size=14)
    sheet.dot(at((0, 0, 0)), INK, 6)
    sheet.words((at((0, 0, 0))[0] - 12, at((0, 0, 0))[1]), "the camera is the origin", anchor="rm")


def labelled(
    sheet: Sheet,
    points: np.ndarray,
    texts: Sequence[str],
    *,
    columns: tuple[float, float],
    rows: tuple[float, float],
) -> None:
    """Points (M, 2) with their texts in a column on each side, joined by thin lines."""
    order = np.argsort(points[:, 0], kind="stable")
    sides = order[: len(points) // 2], order[len(points) // 2 :]
    for x, members, anchor, gap in zip(columns, sides, ("rm", "lm"), (5, -5), strict=True):
        members = members[np.argsort(points[members, 1], kind="stable")]
        for y, i in zip(np.linspace(*rows, len(members)), members, strict=True):
            sheet.line([(x + gap, y), points[i]], (196, 198, 204), 0.7)
            sheet.words((x, y), texts[i], anchor=anchor, size=11.5)
    for point in points:
        sheet.dot(point, BLUE, 2.6)


def front_view() -> Humans:
    """The mean person of the default body, seen from the front, feet on the ground 3 m away."""
    K = np.array([[500, 0, 250], [0, 500, 250], [0, 0, 1]], np.float32)
    return people(load_body("anny"), [(0, 0, 3)], [0.0], K=K, size=(500, 500))


def joints() -> None:
    """All joints of the default body by number and name: the body, then its left hand and foot."""
    human, sheet = front_view(), Sheet(1190, 860)
    names = human.topology.joint_names
    fingers = [i for i, name in enumerate(names) if name.startswith(("finger", "metacarpal", "wrist"))]
    toes = [i for i, name in enumerate(names) if name.startswith(("toe", "foot"))]
    trunk = [i for i in range(len(names)) if i not in {*fingers, *toes} or names[i][:5] in ("wrist", "foot.")]
    sheet.words(
        (30, 22), "Joints of the default body (Anny): number and name in topology.joint_names", size=17
    )
    sheet.words((30, 44), "Its own right is on your left, as in a photograph. The body looks at you.", FAINT)
    _joint_panel(sheet, human, trunk, scale=425, columns=(120, 600), rows=(90, 820))
    _joint_panel(
        sheet,
        human,
        [i for i in fingers if names[i].endswith(".L")],
        scale=1650,
        columns=(805, 1095),
        rows=(90, 400),
    )
    _joint_panel(
        sheet,
        human,
        [i for i in toes if names[i].endswith(".L")],
        scale=1400,
        columns=(805, 1095),
        rows=(500, 830),
        tilt=1.1,
    )
    sheet.words((950, 68), "left hand", FAINT, anchor="mm")
    sheet.words((950, 470), "left foot, from above", FAINT, anchor="mm")
    sheet.save("joints.png")


def _joint_panel(
    sheet: Sheet,
    human: Humans,
    chosen: Sequence[int],
    *,
    scale: float,
    columns: tuple[float, float],
    rows: tuple[float, float],
    tilt: float = 0.0,
) -> None:
    """Some joints of one person between two columns of names; tilted, they are seen from farther above."""
    axes = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    points = human.joints[0, list(chosen)] @ axes[:2].T
    middle = (points.min(0) + points.max(0)) / 2
    origin = np.array([np.mean(columns), np.mean(rows)]) - middle * scale
    names = human.topology.joint_names
    sheet.bodies_within(human, axes, scale, origin, (columns[0], rows[0] - 24, columns[1], rows[1] + 24))
    labelled(sheet, origin + points * scale, [f"{i} {names[i]}" for i in chosen], columns=columns, rows=rows)


def joint_sets() -> None:
    """The named sets that `humans.keypoints` gives."""
    human, sheet = front_view(), Sheet(1190, 1050)
    sheet.words((30, 22), "humans.keypoints(...): the number and the name of each point", size=17)
    for number, name in enumerate(SETS):
        left, top = 600 * (number % 2), 50 + 500 * (number // 2)
        points = human.keypoints(name)
        scale, origin = 234, np.array([left + 290, top + 60])
        origin = origin - [0, human.vertices[0, :, 1].min() * scale]
        sheet.bodies_within(human, FRONT, scale, origin, (left + 110, top, left + 480, top + 490))
        flat = origin + points.xyz[0, :, :2] * scale
        for a, b in points.edges:
            sheet.line([flat[a], flat[b]], INK, 1.4)
        texts = [f"{i} {point}" for i, point in enumerate(points.names)]
        labelled(sheet, flat, texts, columns=(left + 150, left + 440), rows=(top + 50, top + 450))
        sheet.words((left + 290, top + 16), f'"{name}"', anchor="mm", size=15)
    sheet.save("joint_sets.png")


def main() -> None:
    coordinates()
    joints()
    joint_sets()


if __name__ == "__main__":
    main()
