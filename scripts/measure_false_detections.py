"""Count false detections in pictures without people.

    apt-get download lomiri-wallpapers-16.04 mate-backgrounds plasma-workspace-wallpapers
    for package in *.deb; do dpkg-deb -x $package unpacked; done
    python scripts/measure_false_detections.py --debian unpacked

The pictures are those of scikit-image and, with --debian, the photographs in three packages of wallpapers
(scenes, flowers, food, animals; drawings are left out); or all of your own folders.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from multihmr import load_model
from multihmr.data.datasets.background import BackgroundImages

SCIKIT_IMAGE = """
    binary_blobs brick cell checkerboard chelsea clock coffee coins colorwheel grass gravel horse
    hubble_deep_field immunohistochemistry logo moon page retina rocket shepp_logan_phantom text
"""
LOMIRI = """
    Bridge Dragonfly Picture_0B Picture_1A Wine aitzgorri free friends greentock life picosdeeuropa seeding
    sunset
"""
MATE = """
    Aqua Blinds Dune FreshFlower Garden GreenMeadow LadyBird RainDrops Storm TwoWings Wood YellowFlower
"""
PLASMA = """
    BytheWater ColdRipple ColorfulCups DarkestHour EveningGlow FallenLeaf Grey Kite OneStandsOut Path
    summer_1am
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="folders of pictures without people")
    parser.add_argument("--debian", type=Path, help="folder of the unpacked packages, / if installed")
    parser.add_argument("--model", default="multihmr-anny-hybrid", help="default: %(default)s")
    parser.add_argument("--threshold", type=float, help="detection threshold (default: the model's)")
    parser.add_argument("--tiles", type=int, default=1, help="as in Model.predict (default: %(default)s)")
    args = parser.parse_args()
    model = load_model(args.model)
    count, seen = 0, 0
    for name, picture in pictures(args.folders, args.debian):
        humans = model.predict(picture, threshold=args.threshold, tiles=args.tiles)
        count += 1
        seen += len(humans) > 0
        if len(humans):
            print(f"{name}: {', '.join(f'{s:.2f}' for s in humans.scores)}")
    print(f"{seen} of {count} pictures without people show somebody")


def pictures(folders: list[Path], debian: Path | None) -> Iterator[tuple[str, np.ndarray | Path]]:
    """Names and pictures of the folders, or without any of scikit-image and the packages."""
    if folders:
        for folder in folders:
            yield from ((f"{folder}/{sample.name}", sample.image) for sample in BackgroundImages(folder))
        return
    yield from ((f"skimage.data.{name}", scikit_image(name)) for name in SCIKIT_IMAGE.split())
    if debian is not None:
        shared = debian / "usr/share"
        patterns = [f"backgrounds/{name}_by_*.jpg" for name in LOMIRI.split()]
        patterns += [f"backgrounds/mate/nature/{name}.jpg" for name in MATE.split()]
        patterns += [f"wallpapers/{name}/contents/images/2560x1600.jpg" for name in PLASMA.split()]
        for pattern in patterns:
            found = sorted(shared.glob(pattern))
            if not found:
                raise FileNotFoundError(f"no {pattern} in {shared}; unpack the three packages there")
            yield str(found[0].relative_to(shared)), found[0]


def scikit_image(name: str) -> np.ndarray:
    """As (H, W, 3) bytes."""
    import skimage.data

    drawn = {"rng": 0} if name == "binary_blobs" else {}  # or it would be random
    x = np.asarray(getattr(skimage.data, name)(**drawn))
    if x.dtype != np.uint8:
        x = (x / x.max() * 255).astype(np.uint8)
    return np.array(Image.fromarray(x).convert("RGB"))


if __name__ == "__main__":
    main()
