"""Draw the failures of the bundled model: the worst held-out pictures of each kind of error.

multihmr generate --out data/test --count 400 --seed 20000000 --split test
python scripts/draw_failures.py --data data/test --out docs/failures.jpg
"""

import argparse
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from draw_examples import DOCS, note
from PIL import Image, ImageDraw, ImageFont

from multihmr import load_model
from multihmr.data.sample import Sample
from multihmr.data.webdataset import Shards
from multihmr.evaluation.evaluator import COLUMNS
from multihmr.evaluation.report import SUMMARY_ERRORS, People
from multihmr.evaluation.runner import own_body_evaluator
from multihmr.humans import Humans
from multihmr.visualization.draw import draw

SIDE, CAPTION = 300, 24  # [pixels]
PA, HEAD = (SUMMARY_ERRORS.index(name) for name in ("pa_mpjpe", "head_percent"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="multihmr-anny-hybrid", help="default: %(default)s")
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--count", type=int, default=400, help="number of pictures (default: %(default)s)")
    parser.add_argument("--each", type=int, default=2, help="pictures per kind (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/failures.jpg"))
    args = parser.parse_args()
    model: Any = load_model(args.model)
    evaluator = own_body_evaluator(model.body)
    evaluated = []
    for sample in islice(Shards(args.data), args.count):
        humans = model.predict(sample.image, sample.K)
        table, counts = evaluator(sample, humans)
        people = People.of_table(table, [sample.name] * len(table), COLUMNS)
        evaluated.append((sample, humans, faults(people, counts.missed, counts.false)))
    panels: list[Image.Image] = []
    shown: set[str] = set()
    for kind in evaluated[0][2]:
        ranked = sorted(evaluated, key=lambda entry: -entry[2][kind][0])
        fresh = [entry for entry in ranked if entry[0].name not in shown][: args.each]
        shown |= {sample.name for sample, _, _ in fresh}
        panels += [panel(sample, humans, found[kind][1]) for sample, humans, found in fresh]
    sheet(panels, columns=4).save(args.out, quality=85, optimize=True, progressive=True)
    if args.out.resolve() == DOCS / "failures.jpg":
        note(args.out.name)
    print(f"{len(panels)} pictures in {args.out}")


def faults(people: People, missed: int, false: int) -> dict[str, tuple[float, str]]:
    """Kind of error -> its size and a caption; pose errors of clearly visible people only."""
    clear = people.found & (people.visibility > 0.7)
    pose = np.nanmax(np.where(clear, people.errors[:, PA], 0), initial=0)
    head = np.nanmax(np.where(people.found, people.errors[:, HEAD], 0), initial=0)
    return {
        "missed": (missed, f"{missed} of {len(people)} missed"),
        "false": (false, f"{false} where there is nobody"),
        "head": (head, f"a head {head:.0f} % of its distance off"),
        "pose": (pose, f"joints {pose:.0f} mm off (PA-MPJPE)"),
    }


def panel(sample: Sample, humans: Humans, words: str) -> Image.Image:
    """The overlay, the picture beside it, and a caption."""
    overlay = draw(humans, sample.image, side_views=False, opacity=0.75)
    result = Image.new("RGB", (2 * SIDE, SIDE + CAPTION), (255, 255, 255))
    for i, pixels in enumerate((sample.image, overlay)):
        result.paste(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (i * SIDE, 0))
    font = ImageFont.load_default(15)
    ImageDraw.Draw(result).text((6, SIDE + CAPTION // 2), words, (40, 42, 48), font, "lm")
    return result


def sheet(panels: list[Image.Image], *, columns: int) -> Image.Image:
    columns = max(1, columns // 2)
    width, height = panels[0].size
    result = Image.new("RGB", (columns * width, -(-len(panels) // columns) * height), (255, 255, 255))
    for i, picture in enumerate(panels):
        result.paste(picture, (i % columns * width, i // columns * height))
    return result


if __name__ == "__main__":
    main()
