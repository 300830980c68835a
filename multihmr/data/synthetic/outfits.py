"""Random outfits: skins, hair and clothes of a wardrobe, with random colours and patterns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .textures import Texture, hsv_to_rgb, random_color, to_linear
from .wardrobe import TILES, Outfit, Paint, Wardrobe

UNDER_HATS = ("short01", "short02", "short04", "ponytail01", "long01")  # hair styles that fit under hats


def random_outfit(
    wardrobe: Wardrobe, rng: np.random.Generator, *, female: bool, child: bool, old: bool
) -> Outfit:
    """A random outfit: skin, clothes, hair and shoes with random colours and patterns."""
    if not wardrobe.entries:
        return _painted_outfit(wardrobe, rng, old=old)
    skin = _random_skin(wardrobe, rng, female=female, old=old)
    outfit = _random_clothes(wardrobe, rng, female=female, child=child)
    hair = _random_hair(wardrobe, rng, female=female, old=old)
    hair_color = _hair_color(rng, old=old)
    paints: dict[str, list[Paint]] = {}
    for name in outfit:
        count = int(wardrobe.garment(name).zone.max(initial=0)) + 1
        texture = wardrobe.asset_texture(name)
        paints[name] = [
            random_cloth(wardrobe, rng, texture, entry=wardrobe.entries[name]) for _ in range(count)
        ]
    for name in hair:
        if wardrobe.entries[name]["category"] == "hats":
            paints[name] = [random_cloth(wardrobe, rng, wardrobe.white(), entry=wardrobe.entries[name])]
        else:
            paints[name] = [
                Paint(wardrobe.asset_texture(name), flags=1, keep=0.1, color_a=hair_color, gloss=0.12)
            ]
    face = _random_face(wardrobe, rng, hair_color)
    return Outfit(skin, (*outfit, *hair, *face), paints | face)


def _random_face(
    wardrobe: Wardrobe, rng: np.random.Generator, hair_color: np.ndarray
) -> dict[str, list[Paint]]:
    """Eyebrows, eyes, eyelashes and teeth that the wardrobe has."""
    brows, eyes = _one_of(rng, wardrobe.names("eyebrows")), _one_of(rng, _plain_eyes(wardrobe))
    iris = _one_of(rng, wardrobe.names("iris"))
    face: dict[str, list[Paint]] = {}
    for name in brows:
        texture = wardrobe.asset_texture(name, 128)
        face[name] = [Paint(texture, flags=1, keep=0.2, color_a=hair_color * 0.6)]
    for name in eyes:
        face[name] = [Paint(wardrobe.asset_texture(iris[0] if iris else name, 256), gloss=0.25)]
    for name in wardrobe.names("eyelashes")[:1]:
        face[name] = [Paint(wardrobe.asset_texture(name, 128), flags=1)]
    for name in wardrobe.names("teeth")[:1]:
        face[name] = [Paint(wardrobe.asset_texture(name, 256), gloss=0.1)]
    return face


def _plain_eyes(wardrobe: Wardrobe) -> list[str]:
    """Eyes without a transparent cornea, which would need refraction."""
    eyes = wardrobe.names("eyes")
    return [name for name in eyes if "low" in name] or eyes


def _one_of(rng: np.random.Generator, names: Sequence[str]) -> list[str]:
    """One of the names in a list, or none if there are none."""
    return [str(rng.choice(names))] if names else []


def _random_skin(wardrobe: Wardrobe, rng: np.random.Generator, *, female: bool, old: bool) -> Paint:
    gender = "female" if female else "male"
    tone = str(rng.choice(["african", "asian", "caucasian"], p=[0.28, 0.27, 0.45]))
    entries = [wardrobe.entries[n] for n in wardrobe.names("skins", gender=gender)]
    if not entries:
        return Paint(
            wardrobe.white(), matrix=np.diag(to_linear(hsv_to_rgb(0.06, 0.4, rng.uniform(0.3, 0.9))))
        )
    fits = [a for a in entries if a.get("tone") in (tone, "unknown", None) and "suit" not in a["name"]]
    aged = [a for a in fits if (a.get("age", "young") not in ("young", "unknown")) == old]
    name = str(rng.choice(sorted(a["name"] for a in (aged or fits or entries))))
    gain = rng.uniform(0.75, 1.25) * (1 + rng.normal(0, 0.05, 3))
    if tone == "african":
        gain = gain * rng.uniform(1.0, 1.7)  # the pack's dark skins are darker than most
    return Paint(
        wardrobe.asset_texture(name),
        matrix=np.diag(gain).astype(np.float32),
        gloss=float(rng.uniform(0.0, 0.08)),
    )


def _random_clothes(wardrobe: Wardrobe, rng: np.random.Generator, *, female: bool, child: bool) -> list[str]:
    own = "female" if female != (rng.random() < 0.12) else "male"

    def some(slot: str, gender: str = own) -> list[str]:
        return wardrobe.names("clothes", slot=slot, gender=gender)

    suits, kind = some("suit"), rng.random()
    thin = [name for name in suits if "skinsuit" in name]
    thick = [name for name in suits if name not in thin]
    parted = [*_one_of(rng, some("top", "female")), *_one_of(rng, some("bottom") + some("skirt"))]
    dress = _one_of(rng, some("dress", "female")) if female else []
    outfit = _one_of(rng, thin if rng.random() < 0.1 and thin else thick or thin)
    if (kind >= 0.72 and len(parted) == 2) or not outfit:
        outfit = dress if kind >= 0.92 and dress else parted
    if rng.random() < 0.1:
        outfit = outfit + _one_of(rng, some("jacket"))
    if rng.random() < 0.5 and outfit and "skinsuit" not in outfit[0]:
        outfit = outfit + _one_of(rng, some("socks"))
    if rng.random() < 0.93:
        outfit = outfit + _one_of(rng, wardrobe.names("shoes"))
    return outfit


def _random_hair(wardrobe: Wardrobe, rng: np.random.Generator, *, female: bool, old: bool) -> list[str]:
    if not female and rng.random() < (0.3 if old else 0.1):
        return _one_of(rng, wardrobe.names("hats")) if rng.random() < 0.15 else []
    styles = wardrobe.names("hair", gender="female" if female else "male")
    if (not female and rng.random() < 0.15) or (female and rng.random() < 0.12):
        styles = wardrobe.names("hair")
    hair = _one_of(rng, styles)
    if rng.random() < 0.12 and hair and hair[0].startswith(UNDER_HATS):
        hair = hair + _one_of(rng, wardrobe.names("hats"))
    return hair


def _hair_color(rng: np.random.Generator, *, old: bool) -> np.ndarray:
    if rng.random() < (0.75 if old else 0.05):
        return to_linear(np.ones(3) * rng.uniform(0.45, 0.85))
    if rng.random() < 0.04:
        return to_linear(random_color(rng))
    palette = [(0.08, 0.5, 0.1), (0.07, 0.55, 0.22), (0.065, 0.6, 0.38), (0.1, 0.5, 0.72), (0.04, 0.7, 0.45)]
    h, s, v = palette[int(rng.choice(5, p=[0.38, 0.28, 0.17, 0.12, 0.05]))]
    return to_linear(hsv_to_rgb(h, s * rng.uniform(0.7, 1.1), v * rng.uniform(0.8, 1.25)))


def random_cloth(
    wardrobe: Wardrobe, rng: np.random.Generator, texture: Texture, *, entry: Mapping[str, Any]
) -> Paint:
    """Paint of a cloth: the texture's colours shifted, or its brightness with a new colour or pattern."""
    drawn = (entry.get("textures") or {}).get("diffuse") and not entry.get("recolour")
    if drawn and rng.random() < 0.3:
        gloss = float(rng.choice([0, 0, 0.03]))
        return Paint(texture, flags=int(bool(entry.get("alpha"))), matrix=_shift_colors(rng), gloss=gloss)
    pattern = int(rng.choice(5, p=[0.52, 0.14, 0.1, 0.06, 0.18]))
    share = float(rng.uniform(0.1, 0.9))
    color = to_linear(random_color(rng)) if pattern != 4 else np.ones(3, np.float32) * rng.uniform(0.5, 1)
    return Paint(
        texture,
        flags=int(bool(entry.get("alpha"))),
        keep=float(rng.choice([0.0, 0.0, 0.25])) if drawn else 0.0,
        pattern=pattern,
        print=wardrobe.tile(int(rng.integers(TILES))) if pattern == 4 else None,
        gloss=float(rng.choice([0, 0, 0, 0.05, 0.2])),
        frequency=float(np.exp(rng.uniform(np.log(4), np.log(60)))),
        angle=float(rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])),
        share=share,
        color_a=color,
        color_b=to_linear(random_color(rng)),
    )


def _shift_colors(rng: np.random.Generator) -> np.ndarray:
    """(3, 3) turn of the hue about the grey axis, with saturation and brightness changed."""
    angle = rng.uniform(-np.pi, np.pi)
    c, s = np.cos(angle), np.sin(angle)
    third, root = (1 - c) / 3, s / np.sqrt(3)
    turn = np.array(
        [
            [c + third, third - root, third + root],
            [third + root, c + third, third - root],
            [third - root, third + root, c + third],
        ]
    )
    grey, saturation = np.full((3, 3), 1 / 3), rng.uniform(0.3, 1.3)
    return ((turn * saturation + grey * (1 - saturation)) * rng.uniform(0.6, 1.6)).astype(np.float32)


def _painted_outfit(wardrobe: Wardrobe, rng: np.random.Generator, *, old: bool) -> Outfit:
    white = wardrobe.white()
    tone = rng.random()
    skin = Paint(white, matrix=np.diag(to_linear(hsv_to_rgb(0.06, 0.35 + 0.3 * tone, 0.95 - 0.65 * tone))))
    cloth = lambda: random_cloth(wardrobe, rng, white, entry={})  # noqa: E731
    top, bottom = cloth(), cloth()
    sleeves = top if rng.random() < 0.5 else skin
    thighs = bottom if rng.random() < 0.85 else skin
    shanks = thighs if rng.random() < 0.8 else skin
    hair = Paint(white, keep=0.0, color_a=_hair_color(rng, old=old))
    iris = Paint(white, matrix=np.diag(to_linear(hsv_to_rgb(rng.uniform(0.05, 0.6), 0.6, 0.25))))
    paints = [skin, top, sleeves, bottom, thighs, shanks, cloth(), hair, Paint(white), iris]
    return Outfit(skin, (), {"painted": paints})
