"""Index of a folder of assets: category, gender and age of each, and which are refused and why.

It may hold prepared packs (folders with an index.json, as makehuman_cc0) and files in MakeHuman's formats, as
its community shares them: clothes/NAME/x.mhclo, hair/..., skins/NAME/x.mhmat. Category, gender and age come
from folder names, the files' `tag` lines and their names; otherwise the kind of a garment is guessed from the
body parts it is bound to, which is noted in `doubts`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .makehuman import Material, Mhclo, bound_clothes, read_clothes, read_mhclo, read_mhmat
from .textures import check_picture
from .untrusted_text import inside, named_file

KINDS = (
    "clothes",
    "hair",
    "eyes",
    "eyebrows",
    "eyelashes",
    "teeth",
    "tongue",
    "skins",
)  # MakeHuman's folders
NOT_WORN = ("proxymeshes", "genitals")
REGIONS = ("head", "torso", "arms", "hands", "hips", "thighs", "shanks", "feet")
WORDS = {
    # words of names and tags -> category (and slot) within clothes/; the first match counts
    "beards": "beard moustache mustache goatee stubble sideburns",
    "accessories": "glasses sunglasses eyeglasses goggles mask masks jewelry jewellery earring earrings ring "
    "necklace bracelet bracelets piercing nails fingernails toenail toenails glove gloves belt bag backpack "
    "weapon weapons sword gun horns wings tail tie scarf crown tiara watch equipment cornea pubic nipple",
    "underwear": "underwear underpants bra panties panty briefs boxers lingerie bikini thong string corset "
    "swimsuit swimwear",
    "stockings": "stocking stockings tights pantyhose leggings",
    "socks": "sock socks",
    "shoes": "shoe shoes boot boots sneaker sneakers sandal sandals heel heels footwear slippers loafers",
    "hats": "hat hats cap caps helmet helmets beret fedora bonnet beanie turban headwear sombrero",
    "dress": "dress dresses gown robe kimono",
    "skirt": "skirt skirts miniskirt kilt",
    "bottom": "pants trousers jeans shorts slacks capri trunks",
    "jacket": "jacket coat cardigan blazer vest waistcoat parka hoodie",
    "top": "shirt tshirt top tops blouse sweater pullover tunic tank jersey turtleneck",
    "suit": "suit overall overalls jumpsuit bodysuit uniform costume outfit catsuit dungarees",
}
SLOTS = ("stockings", "socks", "dress", "skirt", "bottom", "jacket", "top", "suit")  # the rest are categories
GENDERS = {"female": "female woman women girl lady ladies", "male": "male man men boy gentleman"}
AGES = {
    "young": "young teen teenager child kid baby",
    "middleage": "middleage middleaged",
    "old": "old elderly",
}
TONES = {"african": "african", "asian": "asian", "caucasian": "caucasian european"}
UNNATURAL = {"toon", "alien", "zombie", "robot", "elf", "furry", "animal", "demon", "monster"}

CAPTURED_POSES = "cmu_poses_anny.npz"
# Folders below the assets that hold one of these are rendered from.
_ASSET_FILES = ("index.json", "*.mhclo", "*.mhmat", "*.bvh")
_NO_CONTENT = {".md", ".py", ".txt"}


@dataclass
class Assets:
    """Usable assets, and notes on the others.

    entries  by name, as in a pack's index.json, each with the `root` folder of its files
    refused  name or path -> one sentence on why it is not used
    doubts   name or path -> one sentence on what was guessed
    """

    entries: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    doubts: dict[str, str] = field(default_factory=dict)

    def add(self, entry: Mapping[str, Any]) -> None:
        if entry["name"] in self.entries:
            raise ValueError(f"there is another asset named {entry['name']}, which is used")
        self.entries[entry["name"]] = entry


def read_assets(folder: Path, regions: np.ndarray) -> Assets:
    """All assets below a folder; bad ones are refused by name.

    Args:
        folder: of packs or MakeHuman files.
        regions: (19158,) index into REGIONS of each base vertex.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no assets folder {folder}")
    folder, assets = folder.resolve(), Assets()
    for path in files_below(folder, ("index.json", ".mhclo", ".mhmat")):
        try:
            if path.name == "index.json":
                _add_pack(assets, path)
            elif path.suffix.lower() == ".mhclo":
                assets.add(_clothes_entry(assets, folder, path, regions))
            else:
                _add_material(assets, folder, path)
        except (ValueError, OSError) as error:
            assets.refused[path.relative_to(folder).as_posix()] = str(error)
    return assets


def files_below(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    """Files below a folder with these endings, sorted, ignoring case; of packs only their index.json.

    Links to other folders are followed only to packs.
    """
    found = []
    for place, folders, names in os.walk(folder):
        linked = [Path(place, name, "index.json") for name in folders if Path(place, name).is_symlink()]
        names += [str(path.relative_to(place)) for path in linked if path.is_file()]
        folders.sort()
        if "index.json" in names:
            folders.clear()
            names = ["index.json"]
        found += [Path(place, name) for name in sorted(names) if name.lower().endswith(endings)]
    return found


def fingerprint_assets(folder: Path | None) -> str:
    """16 digits of the clothes, skins and poses that synthetic pictures are rendered with; "none" without.

    Args:
        folder: with MakeHuman's assets and the captured poses.
    """
    if folder is None:
        return "none"
    digest = hashlib.sha256()
    for path in _asset_files(folder):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _asset_files(folder: Path) -> Iterator[Path]:
    """The files below `folder` that pictures are rendered from, in the order of their paths."""
    if (folder / CAPTURED_POSES).is_file():
        yield folder / CAPTURED_POSES
    for pack in sorted(path for path in folder.iterdir() if path.is_dir()):
        if any(next(pack.rglob(pattern), None) is not None for pattern in _ASSET_FILES):
            files = (path for path in pack.rglob("*") if path.is_file())
            yield from sorted(path for path in files if path.suffix.lower() not in _NO_CONTENT)


# --- prepared packs


def _add_pack(assets: Assets, index: Path) -> None:
    try:
        content = json.loads(index.read_text(encoding="utf-8"))["assets"]
        named = [(str(entry["name"]), str(entry["category"]), entry) for entry in content]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{index} is not the index of a prepared pack: {error!r}") from error
    for name, category, entry in named:
        try:
            if "mesh" in entry:
                read_clothes(inside(index.parent, entry["mesh"]))
            for file in (entry.get("textures") or {}).values():
                if file and Path(file).suffix:  # not "any of the iris entries"
                    check_picture(inside(index.parent, file))
            assets.add({"gender": "any", **entry, "category": category, "root": str(index.parent)})
        except (ValueError, TypeError, AttributeError, OSError) as error:
            assets.refused[name] = str(error)


# --- MakeHuman's own files


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """Lower-case words of names and tags: "Female_Tshirt01" -> female, tshirt."""
    return frozenset(re.findall(r"[^\W\d_]+", " ".join(texts).lower()))


def _match(table: Mapping[str, str], words: frozenset[str], *, ends: bool = False) -> list[str]:
    """Values of the words in a table; with `ends` also of longer words with that ending: "worksuit"."""
    found = []
    for meaning, text in table.items():
        known = set(text.split())
        long = tuple(word for word in known if len(word) > 3) if ends else ()
        if words & known or any(word.endswith(long) for word in words):
            found.append(meaning)
    return found


def _kind(folder: Path, path: Path) -> tuple[str, str]:
    """MakeHuman's folder that a file is in, and its name below it, without the suffix."""
    parts = path.relative_to(folder.parent).parts
    for k in range(len(parts) - 2, -1, -1):
        if parts[k].lower() in KINDS + NOT_WORN:
            return parts[k].lower(), "/".join([*parts[k:-1], path.stem])
    allowed = ", ".join(KINDS)
    raise ValueError(f"{path} is in none of MakeHuman's folders ({allowed}), which give the kind of an asset")


def _clothes_entry(assets: Assets, folder: Path, path: Path, regions: np.ndarray) -> dict[str, Any]:
    kind, name = _kind(folder, path)
    if kind in NOT_WORN + ("skins",):
        raise ValueError(f"{path} is of {kind}, which cannot be worn")
    file = inside(folder, str(path.relative_to(folder)))
    content = read_mhclo(file)
    clothes = bound_clothes(file, content, folder)
    words = words_of([*content.tags, path.stem, path.parent.name, content.words.get("name", "")])
    category, slot, doubt = kind, None, ""
    if kind == "clothes":
        share = np.bincount(regions[clothes.bind_indices].reshape(-1), minlength=len(REGIONS))
        category, slot, doubt = _sort(words, dict(zip(REGIONS, share / share.sum(), strict=True)), path)
    entry: dict[str, Any] = {"name": name, "category": category}
    entry |= {"mesh": file.relative_to(folder).as_posix()}
    entry |= {"slot": slot} if slot else {}
    entry |= {"vertices": len(clothes.vertices), "quads": len(clothes.quads), "z_depth": clothes.z_depth}
    entry |= _material_entry(folder, file, content)
    gender = _only(_match(GENDERS, words))
    if gender is None and category in ("clothes", "hair", "underwear"):
        doubt += "no tag gives its gender; anyone wears it. "
    _note(assets, name, doubt, entry.pop("missing"))
    return entry | {"gender": gender or "any", "root": str(folder)}


def _only(found: list[str]) -> str | None:
    return found[0] if len(found) == 1 else None


def _note(assets: Assets, name: str, *doubts: str) -> None:
    if any(doubts):
        assets.doubts[name] = " ".join(doubts).strip()


def _sort(words: frozenset[str], share: Mapping[str, float], path: Path) -> tuple[str, str | None, str]:
    """Category, slot and doubt of an asset in clothes/, by its words and its share of bindings per region."""
    torso, legs = share["torso"] + share["arms"], share["thighs"] + share["shanks"]
    fits = {
        "beards": share["head"] > 0.5,
        "underwear": True,
        "hats": share["head"] > 0.5,
        "shoes": share["feet"] > 0.2 and torso < 0.2,
        "socks": share["feet"] > 0.2 and torso < 0.2,
        "stockings": legs > 0.3 and torso < 0.2,
        "dress": torso > 0.25,
        "skirt": legs > 0.1 and torso < 0.6,
        "bottom": legs > 0.1 and torso < 0.6,
        "jacket": torso > 0.5,
        "top": torso > 0.5,
        "suit": torso > 0.25 and legs > 0.08,
    }
    named = _match(WORDS, words, ends=True)
    # a dress with a belt is a dress; a necklace alone is not a dress, whatever it is bound to
    fits["accessories"] = not set(named) & set(SLOTS)
    meaning = next((m for m in named if fits[m]), None)
    doubt = ""
    if meaning is None and set(named) <= set(SLOTS):
        shaped = {"suit": fits["suit"], "top": torso > 0.5, "bottom": legs > 0.3 and share["feet"] < 0.3}
        meaning = next((m for m, is_so in shaped.items() if is_so), None)
        doubt = f"no tag tells what it is; taken as {meaning} by the parts of the body it is bound to. "
    if meaning is None:
        most = max(share, key=share.__getitem__)
        reason = f"its tags say {', '.join(named)}" if named else "no tag gives its kind"
        raise ValueError(f"{path} cannot be classified: it is worn at the {most} and {reason}")
    return ("clothes", meaning, doubt) if meaning in SLOTS else (meaning, None, doubt)


def _material_entry(folder: Path, file: Path, clothes: Mhclo) -> dict[str, Any]:
    """Fields of an entry that follow from its material, and "missing", a sentence on missing files."""
    material, missing = file, "it has no material. "
    entry: dict[str, Any] = {"textures": {}, "alpha": False, "two_sided": False, "tags": list(clothes.tags)}
    if "material" in clothes.words:
        found = named_file(file, clothes.words["material"], folder)
        missing = f"there is no {clothes.words['material']}. " if found is None else ""
        if found is not None:
            material = found
            entry |= _painted(folder, material, read_mhmat(material))
            missing = entry["missing"]
    licence, author = (clothes.words.get(k, "unknown") for k in ("license", "author"))
    return entry | {"tags": list(clothes.tags), "licence": licence, "author": author, "missing": missing}


def _painted(folder: Path, file: Path, material: Material) -> dict[str, Any]:
    """Entries of a material.

    Raises:
        ValueError: a picture is outside of the folder, unreadable, or a decompression bomb.
    """
    textures, missing = {}, ""
    for use, name in material.pictures.items():
        picture = named_file(file, name, folder)
        if picture is None:
            missing += f"there is no picture {name}. "
        else:
            check_picture(picture)
            textures[use] = picture.relative_to(folder).as_posix()
    return {
        "textures": textures,
        "alpha": material.alpha,
        "two_sided": material.two_sided,
        "color": list(material.color),
        "tags": list(material.tags),
        "missing": missing,
    }


def _add_material(assets: Assets, folder: Path, path: Path) -> None:
    """Add a skin or an iris; materials of clothes are read with their .mhclo."""
    kind, name = _kind(folder, path)
    if kind not in ("skins", "eyes"):
        return
    file = inside(folder, str(path.relative_to(folder)))
    material = read_mhmat(file)
    entry = {
        "name": name,
        "category": "iris" if kind == "eyes" else "skins",
        "gender": "any",
        "root": str(folder),
    }
    entry |= _painted(folder, file, material)
    doubt = entry.pop("missing")
    if "diffuse" not in entry["textures"]:
        raise ValueError(f"{path} has no picture: {doubt or 'it names no diffuseTexture'}")
    if kind == "skins":
        words = words_of([*material.tags, path.stem, path.parent.name])
        if words & UNNATURAL:
            raise ValueError(f"{path} is not a natural skin ({', '.join(sorted(words & UNNATURAL))})")
        tables = {"gender": GENDERS, "age": AGES, "tone": TONES}
        found = {key: _only(_match(table, words)) for key, table in tables.items()}
        entry |= {"gender": found["gender"] or "any", "age": found["age"] or "unknown"}
        entry["tone"] = found["tone"] or "unknown"
        missing = [key for key, value in found.items() if value is None]
        doubt += f"no tag gives its {' and '.join(missing)}. " if missing else ""
    _note(assets, name, doubt)
    assets.add(entry)
