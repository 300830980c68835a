from __future__ import annotations

import base64
import io
import json
import re
import shutil
import struct

import numpy as np
import pytest
import trimesh
from PIL import Image

from multihmr.io.meshes import humans_to_view
from multihmr.visualization.notebook import show


def test_the_page_holds_the_picture_and_the_people(make_humans, tmp_path):
    humans = make_humans((0.5, 0, 2), (-0.4, 0.2, 3))
    page = show(humans, np.full((120, 160, 3), 200, np.uint8))
    source = re.search(r"src='data:image/jpeg;base64,([^']+)'", page.html)[1]
    assert Image.open(io.BytesIO(base64.b64decode(source))).size == (160, 120)
    model = base64.b64decode(re.search(r"base64_data=&quot;([^&]+)&quot;", page.html)[1])
    assert model == humans_to_view(humans)
    assert page._repr_html_() == page.html
    assert page.html in page.save(tmp_path / "people.html").read_text(encoding="utf-8")


def test_the_page_asks_nothing_of_the_internet(make_humans):
    html = show(make_humans((0, 0, 2))).html
    assert not re.findall(r"(?:src|href)=(?:'|&quot;|\")\s*(?:https?:)?//", html)
    assert not re.findall(r"import\s*\(|importScripts|fetch\(&quot;http", html)


def test_nobody_is_a_picture_alone(make_humans):
    html = show(make_humans()).html
    assert "iframe" not in html
    assert "no people" in html


@pytest.mark.parametrize("places", [[(0, 0, 2)], [(-3, 0, 9), (2, 1, 4)]])
def test_everybody_is_in_sight_of_the_camera(make_humans, places):
    humans = make_humans(*places)
    content = humans_to_view(humans)
    (length,) = struct.unpack("<I", content[12:16])
    tree = json.loads(content[20 : 20 + length])
    meshes = trimesh.load(io.BytesIO(content), file_type="glb", process=False).to_mesh()
    camera = np.array(tree["nodes"][0]["translation"])
    offsets = meshes.vertices - camera
    cosines = offsets @ -camera / np.linalg.norm(offsets, axis=1) / np.linalg.norm(camera)
    assert np.degrees(np.arccos(cosines)).max() <= np.degrees(tree["cameras"][0]["perspective"]["yfov"]) / 2
    first = humans.translation.mean(0) * [1, -1, -1]
    assert np.dot(camera, -first) > 0  # from the side where the camera of the picture stood


@pytest.mark.slow
def test_a_browser_shows_the_people_and_turns_them_offline(make_humans, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    path = show(make_humans((0.5, 0, 2), (-0.4, 0.2, 3))).save(tmp_path / "people.html")
    flags = [
        "--no-sandbox",
        "--use-angle=swiftshader",
        "--enable-unsafe-swiftshader",
        "--ignore-gpu-blocklist",
    ]
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=chromium, args=flags)
        page = browser.new_page(viewport={"width": 700, "height": 300})
        page.context.set_offline(True)
        page.goto(path.as_uri())
        view = page.locator("iframe")
        view.content_frame.locator("canvas").wait_for()
        at_first = seen(page, view, lambda pixels: pixels.std() > 10)
        box = view.bounding_box()
        page.mouse.move(box["x"] + 100, box["y"] + 100)
        page.mouse.down()
        page.mouse.move(box["x"] + 200, box["y"] + 120, steps=4)
        page.mouse.up()
        seen(page, view, lambda pixels: np.abs(pixels - at_first).mean() > 1)
        browser.close()


def seen(page, view, is_it) -> np.ndarray:
    """(H, W, 3) of the view, as soon as it is so; not all browsers are quick."""
    for _ in range(60):
        pixels = np.asarray(Image.open(io.BytesIO(view.screenshot())).convert("RGB"), np.float32)
        if is_it(pixels):
            return pixels
        page.wait_for_timeout(500)
    raise AssertionError("the view did not come to show what it should")
