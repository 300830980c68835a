"""Does a photograph say the same in a mirror, and when it is turned? For a folder of photographs.

    python scripts/measure_views.py FOLDER [--list development.txt] [--[no-]any-rotation] [--flip-test]

Mirrored: the median over people of the relative difference of the two distances of the head. Turned by 90,
180 and 270 degrees: the share of those found upright who are found there.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from multihmr import load_model
from multihmr.humans import Humans
from multihmr.preprocessing.image import load_image

NEAR = 0.35  # of the longer side of the smaller box: so near heads are the same person's


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--list", type=Path, help="of the files to take, relative to FOLDER; default: all")
    parser.add_argument("--model", default="multihmr-anny-hybrid")
    parser.add_argument("--flip-test", action="store_true", help="predict with flip_test=True")
    parser.add_argument("--starting", default="", help="only files whose path starts so")
    parser.add_argument(
        "--any-rotation",
        action=argparse.BooleanOptionalAction,
        default="auto",
        help="of predict for turned photographs (default: %(default)s)",
    )
    args = parser.parse_args()
    model = load_model(args.model, device="cpu")
    names = (
        [line.strip() for line in args.list.read_text(encoding="utf-8").splitlines()]
        if args.list
        else sorted(p.relative_to(args.folder).as_posix() for p in args.folder.rglob("*.jpg"))
    )
    ratios: list[float] = []
    upright, turned = 0, {1: 0, 2: 0, 3: 0}
    for name in names:
        if not name or name.startswith("#") or not name.startswith(args.starting):
            continue
        pixels = load_image(args.folder / name).pixels
        height, width = pixels.shape[:2]
        people = model.predict(pixels, flip_test=args.flip_test)
        if not len(people):
            continue
        heads = head_pixels(people)
        mirrored = model.predict(np.ascontiguousarray(pixels[:, ::-1]), flip_test=args.flip_test)
        theirs = head_pixels(mirrored)
        theirs[:, 0] = width - theirs[:, 0]
        for one, other in pairs(people, heads, theirs):
            ratios.append(abs(np.log(people.translation[one, 2] / mirrored.translation[other, 2])))
        upright += len(people)
        for turns in turned:
            seen = model.predict(
                np.ascontiguousarray(np.rot90(pixels, turns)),
                any_rotation=args.any_rotation,
                flip_test=args.flip_test,
            )
            places = turned_back(head_pixels(seen), turns, height, width)
            turned[turns] += len(pairs(people, heads, places))
    print(f"mirrored: median difference of distance {100 * np.median(ratios):.1f} % ({len(ratios)} people)")
    for turns, count in turned.items():
        print(
            f"turned by {90 * turns} degrees: {count} of {upright} found "
            f"({100 * count / max(upright, 1):.0f} %)"
        )


def head_pixels(people: Humans) -> np.ndarray:
    points = people.translation @ people.K.T
    return points[:, :2] / points[:, 2:]


def turned_back(xy: np.ndarray, turns: int, height: int, width: int) -> np.ndarray:
    """Pixels of np.rot90(picture, turns) in the picture of height x width itself."""
    x, y = xy.T
    if turns == 1:
        return np.stack([width - y, x], axis=1)
    if turns == 2:
        return np.stack([width - x, height - y], axis=1)
    return np.stack([y, height - x], axis=1)


def pairs(people: Humans, heads: np.ndarray, others: np.ndarray) -> list[tuple[int, int]]:
    """Who is who: nearest heads first, each once, if they are near for people of that size."""
    if not len(heads) or not len(others):
        return []
    sizes = (people.boxes[:, 2:] - people.boxes[:, :2]).max(1)
    far = np.linalg.norm(heads[:, None] - others[None], axis=2) / sizes[:, None]
    found = []
    while far.min() < NEAR:
        one, other = np.unravel_index(far.argmin(), far.shape)
        found.append((int(one), int(other)))
        far[one], far[:, other] = np.inf, np.inf
    return found


if __name__ == "__main__":
    main()
