"""Draws the pictures of docs/ that show what the bundled default predicts, and notes which weights drew them.

    python scripts/draw_examples.py astronaut
    python scripts/draw_examples.py demo                                # needs Chromium and playwright
    python scripts/draw_examples.py blender --blender-python PYTHON     # a Python that has bpy
    python scripts/draw_examples.py photographs --photos FOLDER         # the development photographs
    python scripts/draw_examples.py hands_and_faces --photos FOLDER     # those with large hands and faces

docs/figures.json has, for each picture, the first 16 digits of the sha256 of the weights that drew it; a test
fails where the bundled weights are others.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from multihmr import load_model
from multihmr.hub.releases import DEFAULT, RELEASES
from multihmr.humans import Humans
from multihmr.model.faces import find_faces
from multihmr.model.hands_and_faces import DetailRefinement, find_hands
from multihmr.preprocessing.image import load_image

ROOT = Path(__file__).resolve().parents[1]
DOCS, IMAGES = ROOT / "docs", ROOT / "examples/images"
NOTED = DOCS / "figures.json"
JPEG = {"quality": 85, "optimize": True, "progressive": True}
CHROMIUM_FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
SHOWN, COLUMNS, CELL = 24, 6, 220  # of the sheet of photographs, pixels
# Licences that allow changed copies to be shared under another one
FREE = ("CC BY 2.0", "CC BY 4.0", "MIT", "No known copyright restrictions", "United States Government Work")


def note(name: str) -> None:
    """Remember that docs/`name` shows the bundled default as it is now."""
    noted = json.loads(NOTED.read_text(encoding="utf-8")) if NOTED.exists() else {}
    noted[name] = RELEASES[DEFAULT].sha256[:16]
    NOTED.write_text(json.dumps(noted, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def astronaut(args: argparse.Namespace) -> None:
    """The README's picture: the portrait with its overlay, side and top view."""
    image = IMAGES / "astronaut.jpg"
    picture = load_model(device="cpu").predict(image).draw(image)
    Image.fromarray(picture).save(DOCS / "astronaut.jpg", **JPEG)
    note("astronaut.jpg")


def demo(args: argparse.Namespace) -> None:
    """A screenshot of the page of `multihmr demo` with a picture of several people."""
    from playwright.sync_api import sync_playwright

    from multihmr.demo.server import running
    from multihmr.demo.sessions import Models

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with running(Models(device="cpu")) as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.set_default_timeout(120_000)
        page.goto(url)
        page.wait_for_selector("#files input[type=file]", state="attached")
        page.set_input_files("#files input[type=file]", [str(IMAGES / "group.jpg")])
        page.wait_for_selector("table.people td")
        page.wait_for_selector("#view canvas[data-shown$='.glb']")
        page.wait_for_function("document.querySelector('#overlay img')?.naturalWidth > 0")
        page.wait_for_timeout(3000)  # the views from the side and from above are loaded by then
        page.screenshot(path=str(DOCS / "demo.jpg"), type="jpeg", quality=JPEG["quality"], full_page=True)
        browser.close()
    note("demo.jpg")


def blender(args: argparse.Namespace) -> None:
    """The people of examples/images/walk.mp4 as Blender renders the exported animation."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["multihmr", "video", str(IMAGES / "walk.mp4"), "--out", folder, "--format", "glb"]
        subprocess.run([sys.executable, "-m", *command], check=True)
        script = Path(__file__).with_name("render_in_blender.py")
        picture = Path(folder, "walk.png")
        glb = next(Path(folder).glob("*.glb"))
        subprocess.run([args.blender_python, str(script), str(glb), str(picture)], check=True)
        with Image.open(picture) as image:
            image.convert("RGB").save(DOCS / "walk_in_blender.jpg", **JPEG)
    note("walk_in_blender.jpg")


def free_photographs(folder: Path) -> tuple[list[str], dict[str, dict[str, str]]]:
    """Files of the development photographs whose licence allows a changed copy, and the sources of all."""
    listed = json.loads((folder / "development.json").read_text(encoding="utf-8"))["photos"]
    with (folder / "ATTRIBUTION.tsv").open(encoding="utf-8", newline="") as file:
        sources = {row["file"]: row for row in csv.DictReader(file, delimiter="\t")}
    return [photo["file"] for photo in listed if sources[photo["file"]]["licence"] in FREE][:SHOWN], sources


def photographs(args: argparse.Namespace) -> None:
    """The development photographs with the people found in them, and whose photographs they are."""
    chosen, sources = free_photographs(args.photos)
    count = len(chosen)
    listed = (args.photos / "development.txt").read_text(encoding="utf-8").split("\n")
    without = (name for name in listed if name.startswith("nobody/") and sources[name]["licence"] in FREE)
    chosen = [*chosen, *itertools.islice(without, SHOWN - count)]
    rows = -(-len(chosen) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * CELL, rows * CELL), "white")
    model, pen, font = load_model(device="cpu"), ImageDraw.Draw(sheet), ImageFont.load_default(15)
    lines = []
    for number, name in enumerate(chosen):
        picture = model.predict(args.photos / name).draw(args.photos / name, side_views=False)
        small = Image.fromarray(np.asarray(picture))
        small.thumbnail((CELL - 6, CELL - 6))
        x, y = number % COLUMNS * CELL, number // COLUMNS * CELL
        sheet.paste(small, (x + (CELL - small.width) // 2, y + (CELL - small.height) // 2))
        pen.text((x + 6, y + 4), str(number + 1), "white", font, stroke_width=2, stroke_fill="black")
        source = sources[name]
        who = source["author"] or "author named at"
        lines.append(f"{number + 1}. {who} {source['page']} ({source['licence']})")
    sheet.save(DOCS / "photographs.jpg", **JPEG)
    (DOCS / "photographs.md").write_text(
        PAGE.format(count=count, shown=len(chosen), lines="\n".join(lines)), encoding="utf-8"
    )
    note("photographs.jpg")


def hands_and_faces(args: argparse.Namespace) -> None:
    """Hands and faces of the development photographs without and with their refinement, none left out.

    Shown are hands that the network is sure of and whose crop has 70 pixels, and faces.
    """
    model = load_model(device="cpu")
    refine = DetailRefinement(model)
    rows = []
    for path in [
        IMAGES / "astronaut.jpg",
        *(args.photos / name for name in free_photographs(args.photos)[0]),
    ]:
        image, plain = load_image(path), model.predict(path)
        refined = refine(image, plain)
        hands = find_hands(image, plain, refine.hands, refine._network)
        crops = [hand.crop for hand in hands if hand.presence > 0.8 and hand.crop.side >= 70]
        faces = find_faces(image, plain, refine.faces, refine.networks)
        crops += [face.crop for face in faces]
        rows += [_three(image.pixels, (plain, refined), crop.center, 0.7 * crop.side) for crop in crops]
    sheet = Image.new("RGB", (2 * 3 * CELL + 12, -(-len(rows) // 2) * CELL), "white")
    for number, row in enumerate(rows):
        sheet.paste(row, (number % 2 * (3 * CELL + 12), number // 2 * CELL))
    sheet.save(DOCS / "hands_and_faces.jpg", **JPEG)
    note("hands_and_faces.jpg")


def _three(
    pixels: np.ndarray, people: tuple[Humans, Humans], center: np.ndarray, reach: float
) -> Image.Image:
    """A part of an image as it is and with the people as they are predicted by both, side by side."""
    height, width = pixels.shape[:2]
    x0, y0 = np.clip(center - reach, 0, [width, height]).astype(int)
    x1, y1 = np.clip(center + reach, 0, [width, height]).astype(int)
    part = Image.fromarray(pixels[y0:y1, x0:x1])
    scale = (CELL - 6) / max(part.size)
    part = part.resize((round(part.width * scale), round(part.height * scale)))
    row = Image.new("RGB", (3 * CELL, CELL), "white")
    row.paste(part, (0, 0))
    for column, humans in enumerate(people, 1):
        K = humans.K.copy()
        K[:2, 2] -= [x0, y0]
        K[:2] *= scale
        shown = replace(humans, K=K, image_size=(part.height, part.width))
        row.paste(
            Image.fromarray(shown.draw(np.asarray(part), opacity=0.85, side_views=False)), (column * CELL, 0)
        )
    return row


PAGE = """# Photographs

What the bundled default makes of photographs that it was not trained on, one after the other, none left out:
the {count} development photographs with human labels whose licence allows a changed copy under another one,
and the first of those without people. Its threshold was chosen with them in view.

![{shown} photographs with the people that were found](photographs.jpg)

The photographs, each made smaller and drawn over:

{lines}

`python scripts/draw_examples.py photographs --photos FOLDER` draws this page.
"""

PICTURES: dict[str, Callable[[argparse.Namespace], None]] = {
    "astronaut": astronaut,
    "demo": demo,
    "blender": blender,
    "photographs": photographs,
    "hands_and_faces": hands_and_faces,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("pictures", nargs="+", choices=PICTURES)
    parser.add_argument("--photos", type=Path, help="folder of development.json and ATTRIBUTION.tsv")
    parser.add_argument("--blender-python", default="python3", help="a Python that has bpy")
    args = parser.parse_args()
    for name in args.pictures:
        PICTURES[name](args)


if __name__ == "__main__":
    main()
