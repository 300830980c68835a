"""Environment of synthetic scenes: ground, walls, sky or a background picture, objects, and light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .poses import turn
from .scenes import Scene
from .splits import of_split
from .textures import Texture, hsv_to_rgb, procedural_backdrop, read_texture, surface_color, to_linear
from .wardrobe import TILES, Paint, Part, Wardrobe

BACKDROPS = 120
PICTURES = (".jpg", ".jpeg", ".png", ".webp")
GROUND, CATCHER = 2, 4  # flags of kernels.Material


@dataclass(frozen=True)
class Light:
    """Lighting: direction to the sun and its colour, ambient light from above and below, a lamp, the sky."""

    sun_direction: np.ndarray
    sun: np.ndarray
    sky: np.ndarray
    bounce: np.ndarray
    lamp_position: np.ndarray
    lamp: np.ndarray
    horizon: np.ndarray
    zenith: np.ndarray
    backdrop: Texture | None
    backdrop_window: np.ndarray  # (4,) u, v of the lower left corner in the picture, extent in u and v
    contacts: np.ndarray  # (C, 3) contact shadows of feet and objects on the ground: x, y, radius


class Environment:
    """Builds the environment of scenes; pictures in `folder` are used as backgrounds and on walls."""

    def __init__(
        self, wardrobe: Wardrobe, *, seed: int, folder: Path | None = None, split: str = "all"
    ) -> None:
        self.wardrobe, self.textures, self._seed = wardrobe, wardrobe.textures, seed
        self._pictures: list[Path] = []
        if folder is not None:
            found = {p.name: p for p in sorted(folder.rglob("*")) if p.suffix.lower() in PICTURES}
            if not found:
                raise FileNotFoundError(
                    f"{folder} has no pictures ({', '.join(PICTURES)}) to use as backgrounds"
                )
            self._pictures = [found[name] for name in of_split(found, split)]

    def make(self, scene: Scene, rng: np.random.Generator) -> tuple[list[Part], Light]:
        """Meshes around the people of a scene, and the light."""
        # Real pictures are more useful than procedural ones, where there are any.
        shares = [0.23, 0.2, 0.57] if self._pictures else [0.34, 0.3, 0.36]
        kind = str(rng.choice(["open", "room", "backdrop"], p=shares))
        parts: list[Part] = []
        if kind == "backdrop":
            if rng.random() < 0.75 and scene.camera.position[2] > 0.25:
                parts.append(self._ground(rng, flags=CATCHER))
        else:
            parts.append(self._ground(rng, flags=GROUND))
            parts += self._walls(scene, rng, room=kind == "room")
        parts += self._seats(scene, rng)
        things, footprints = self._things(scene, rng)
        light = _random_light(scene, rng, indoors=kind == "room", contacts=_contacts(scene) + footprints)
        if kind == "backdrop" or rng.random() < 0.3:
            picture = self._backdrop(rng)
            light = _with_backdrop(light, picture, rng)
        return parts + things, light

    def _backdrop(self, rng: np.random.Generator) -> Texture:
        if self._pictures and rng.random() < 0.85:
            path = self._pictures[int(rng.integers(len(self._pictures)))]
            return self.textures.named(str(path), lambda: read_texture(path, 512))
        k = int(rng.integers(BACKDROPS))
        make = lambda: procedural_backdrop(np.random.default_rng([self._seed, 8, k]))  # noqa: E731
        return self.textures.named(f"backdrop {k}", make)

    def _surface(self, rng: np.random.Generator) -> Paint:
        """Random surface paint: a tile in its own colours at random brightness, or a plain colour."""
        if rng.random() < 0.2:
            return Paint(self.wardrobe.white(), matrix=np.diag(to_linear(surface_color(rng))))
        texture = self.wardrobe.tile(int(rng.integers(TILES)))
        return Paint(texture, matrix=(np.eye(3) * rng.uniform(0.5, 1.3)).astype(np.float32))

    def _ground(self, rng: np.random.Generator, *, flags: int) -> Part:
        paint = self._surface(rng)
        paint = Paint(paint.texture, flags=flags, matrix=paint.matrix)
        return _quad(
            np.array([-80, -80, 0]), np.array([160, 0, 0]), np.array([0, 160, 0]), paint, rng.uniform(0.4, 4)
        )

    def _walls(self, scene: Scene, rng: np.random.Generator, *, room: bool) -> list[Part]:
        spots = np.array([p.joints[:, :2].reshape(-1, 2) for p in scene.people]).reshape(-1, 2)
        spots = np.concatenate([spots, scene.camera.position[None, :2]])
        low, high = spots.min(0) - rng.uniform(0.3, 2.5, 2), spots.max(0) + rng.uniform(0.3, 3.5, 2)
        height = rng.uniform(2.4, 3.5) if room else rng.uniform(1, 12)
        if not room:
            if rng.random() < 0.35:
                return []
            high[1] += rng.uniform(0, 12)
            low[0], high[0] = low[0] - rng.uniform(0, 20), high[0] + rng.uniform(0, 20)
        paint, tile = self._surface(rng), rng.uniform(0.4, 3)
        (x0, y0), (x1, y1), up = low, high, np.array([0, 0, height])
        parts = [_quad(np.array([x0, y1, 0]), np.array([x1 - x0, 0, 0]), up, paint, tile)]
        if room:
            side = paint if rng.random() < 0.7 else self._surface(rng)
            parts.append(_quad(np.array([x0, y0, 0]), np.array([0, y1 - y0, 0]), up, side, tile))
            parts.append(_quad(np.array([x1, y0, 0]), np.array([0, y1 - y0, 0]), up, side, tile))
        for _ in range(int(rng.integers(0, 5))):  # doors, windows, posters
            size = np.array([rng.uniform(0.2, 1.6), rng.uniform(0.2, min(2.2, height))])
            left, foot = (
                rng.uniform(x0, max(x1 - size[0], x0 + 0.1)),
                rng.choice([0.0, rng.uniform(0, height)]),
            )
            texture = (
                self._backdrop(rng) if rng.random() < 0.6 else self.wardrobe.tile(int(rng.integers(TILES)))
            )
            corner = np.array([left, y1 - 0.02, min(foot, height - size[1])])
            parts.append(
                _quad(corner, np.array([size[0], 0, 0]), np.array([0, 0, size[1]]), Paint(texture), None)
            )
        return parts

    def _seats(self, scene: Scene, rng: np.random.Generator) -> list[Part]:
        parts = []
        for person in scene.people:
            if person.stance == "sit" and person.joints[0, 2] > 0.25:
                root, yaw = person.joints[0], math.atan2(person.pose[0][1, 0], person.pose[0][0, 0])
                top = root[2] - 0.115 * (person.joints[:, 2].max() - root[2]) / 0.75
                size = np.array([rng.uniform(0.36, 0.6), rng.uniform(0.3, 0.42), top])
                paint, back = self._surface(rng), turn((0, 0, 1), yaw) @ np.array([0, 0.06, 0])
                parts += _box(np.array([*(root[:2] + back[:2]), top / 2]), size, yaw, paint)
        return parts

    def _things(
        self, scene: Scene, rng: np.random.Generator
    ) -> tuple[list[Part], list[tuple[float, float, float]]]:
        """Boxes, cylinders and balls on the ground, some of them occluding a person."""
        parts: list[Part] = []
        prints: list[tuple[float, float, float]] = []
        eye = scene.camera.position
        count = int(rng.choice([0, 1, 2, 3, 5, 8], p=[0.3, 0.2, 0.18, 0.15, 0.1, 0.07]))
        for _ in range(count):
            size = np.exp(rng.uniform(np.log(0.12), np.log(1.3), 3))
            if rng.random() < 0.15:
                size = np.array([0.06, 0.06, 3.0]) * rng.uniform(0.6, 2)  # poles and trunks
            if scene.people and rng.random() < 0.3:
                person = scene.people[int(rng.integers(len(scene.people)))]
                head = person.joints[:, :2].mean(0)
                xy = eye[:2] + (head - eye[:2]) * rng.uniform(0.45, 0.8) + rng.normal(0, 0.3, 2)
                size[2] = min(size[2], rng.uniform(0.3, 1.1))
            else:
                depth = np.exp(rng.uniform(np.log(1.2), np.log(12)))
                xy = eye[:2] + np.array([rng.uniform(-0.7, 0.7) * depth, depth])
            reach = float(np.hypot(size[0], size[1])) / 2
            gaps = [np.linalg.norm(p.joints[:, :2] - xy, axis=1).min() for p in scene.people]
            if np.linalg.norm(xy - eye[:2]) < reach + 0.35 or (gaps and min(gaps) < reach + 0.12):
                continue
            center = np.array([xy[0], xy[1], size[2] / 2])
            parts += self._thing(center, size, rng)
            prints.append((float(xy[0]), float(xy[1]), reach * 0.9))
        return parts, prints

    def _thing(self, center: np.ndarray, size: np.ndarray, rng: np.random.Generator) -> list[Part]:
        paint, yaw = self._surface(rng), rng.uniform(0, math.pi)
        kind = rng.random()
        if kind < 0.55:
            return _box(center, size, yaw, paint)
        return [_round(center, size, paint, ball=kind > 0.8)]


def _quad(corner: np.ndarray, along: np.ndarray, up: np.ndarray, paint: Paint, tile: float | None) -> Part:
    """A rectangle; its texture repeats every `tile` metres, or covers it once."""
    vertices = np.stack([corner, corner + along, corner + along + up, corner + up]).astype(np.float32)
    wide, high = (np.linalg.norm(along) / tile, np.linalg.norm(up) / tile) if tile else (1.0, 1.0)
    uv = np.array([[0, 0], [wide, 0], [wide, high], [0, high]], np.float32)
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    return Part(vertices, faces, uv[faces], np.zeros(2, np.int64), [paint])


def _box(center: np.ndarray, size: np.ndarray, yaw: float, paint: Paint) -> list[Part]:
    parts = []
    z = turn((0, 0, 1), yaw)
    x, y, up = z[:, 0] * size[0], z[:, 1] * size[1], np.array([0, 0, size[2]])
    low = center - (x + y + up) / 2
    for corner, along, rise in (
        (low, x, up),
        (low + x, y, up),
        (low + x + y, -x, up),
        (low + y, -y, up),
        (low + up, x, y),
    ):
        parts.append(_quad(corner, along, rise, paint, _once(size)))
    return parts


def _once(size: np.ndarray) -> float:
    """Metres per texture repeat for an object of this size, so that the texture shows about once."""
    return float(max(size.max(), 0.2))


def _round(center: np.ndarray, size: np.ndarray, paint: Paint, *, ball: bool) -> Part:
    """An upright cylinder with its lid, or an ellipsoid."""
    a, rows = np.linspace(0, 2 * np.pi, 21), np.linspace(0, 1, 9 if ball else 4)
    if ball:
        radius, height = np.sin(rows * np.pi), -np.cos(rows * np.pi)
    else:
        radius, height = np.array([1, 1, 1, 0.0]), np.array([-1, 1, 1, 1.0])
    ring = np.stack([np.cos(a), np.sin(a)], -1)
    grid = np.concatenate(
        [radius[:, None, None] * ring[None], np.broadcast_to(height[:, None, None], (len(rows), len(a), 1))],
        -1,
    )
    vertices = (grid * size / 2 + center).reshape(-1, 3).astype(np.float32)
    uv = np.stack(np.meshgrid(a / np.pi, rows), -1).reshape(-1, 2).astype(np.float32)
    i, j = (
        g.reshape(-1) for g in np.meshgrid(np.arange(len(rows) - 1), np.arange(len(a) - 1), indexing="ij")
    )
    k, n = i * len(a) + j, len(a)
    faces = np.concatenate([np.stack([k, k + 1, k + n + 1], 1), np.stack([k, k + n + 1, k + n], 1)])
    return Part(vertices, faces, uv[faces], np.zeros(len(faces), np.int64), [paint])


def _contacts(scene: Scene) -> list[tuple[float, float, float]]:
    """Contact shadows of feet, knees, hips and hands close to the ground."""
    spots = []
    for person in scene.people:
        low = person.joints[person.joints[:, 2] < 0.3]
        for x, y, _ in low[:: max(1, len(low) // 4)][:6]:
            spots.append((float(x), float(y), 0.2))
    return spots


def _random_light(
    scene: Scene, rng: np.random.Generator, *, indoors: bool, contacts: Sequence[tuple[float, float, float]]
) -> Light:
    azimuth, elevation = rng.uniform(-math.pi, math.pi), math.radians(rng.uniform(18, 78))
    direction = np.array(
        [
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ]
    )
    direct = rng.uniform(0.0, 0.45) if indoors or rng.random() < 0.35 else rng.uniform(0.4, 0.8)
    warm = hsv_to_rgb(rng.uniform(0.05, 0.13), rng.uniform(0, 0.3), 1.0)
    cool = hsv_to_rgb(rng.uniform(0.52, 0.65), rng.uniform(0, 0.25), 1.0)
    ambient = (warm if indoors else cool) * (1 - direct)
    bounce = ambient * rng.uniform(0.35, 0.8) * hsv_to_rgb(rng.random(), rng.uniform(0, 0.25), 1.0)
    forward = scene.camera.rotation[2]
    place = scene.camera.position + forward * rng.uniform(0, 3) + rng.normal(0, 1.5, 3)
    strength = rng.uniform(0.3, 2.5) if rng.random() < 0.35 else 0.0
    overcast = rng.random() < 0.4
    zenith = hsv_to_rgb(
        rng.uniform(0.55, 0.63), 0.05 if overcast else rng.uniform(0.2, 0.7), rng.uniform(0.5, 1)
    )
    return Light(
        sun_direction=direction,
        sun=warm * direct * 1.5,
        sky=ambient,
        bounce=bounce,
        lamp_position=np.array([place[0], place[1], np.clip(place[2], 0.5, 3.0)]),
        lamp=hsv_to_rgb(rng.random(), rng.uniform(0, 0.4), strength),
        horizon=to_linear(hsv_to_rgb(0.58, rng.uniform(0, 0.2), rng.uniform(0.7, 1))),
        zenith=to_linear(zenith),
        backdrop=None,
        backdrop_window=np.array([0, 0, 1, 1.0]),
        contacts=np.asarray(contacts, np.float32).reshape(-1, 3),
    )


def _with_backdrop(light: Light, picture: Texture, rng: np.random.Generator) -> Light:
    extent = rng.uniform(0.45, 1.0)
    u, v = rng.uniform(0, 1 - extent, 2)
    window = np.array([u, v, extent, extent])
    if rng.random() < 0.5:
        window[0], window[2] = u + extent, -extent
    fields = {**light.__dict__, "backdrop": picture, "backdrop_window": window}
    return Light(**fields)
