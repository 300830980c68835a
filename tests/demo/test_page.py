"""The page in Chromium, with the bundled model: what a visitor does and sees. No other machine is asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trimesh
from PIL import Image

from multihmr.model import Model

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'multihmr[demo]'")
sync_api = pytest.importorskip("playwright.sync_api", reason="the browser test needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("no Chromium here: apt-get install chromium", allow_module_level=True)

# gradio and what it is built on warn of things that are theirs to change, in threads of their own
pytestmark = pytest.mark.filterwarnings("ignore")

EXAMPLES = Path(__file__).parents[2] / "examples" / "images"
WAIT = 120_000  # milliseconds; a busy machine takes longer than a minute for a film
FLAGS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"]
FLAGS += ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def runs() -> list[str]:
    return []


@pytest.fixture(scope="module")
def served(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Model, Path]]:
    """Address of the page, its model, and the folder in which it keeps files."""
    import tempfile

    from multihmr.demo.server import running
    from multihmr.demo.sessions import Models

    models = Models(device="cpu", image_size=256)  # takes half of the time
    model = models.load(models.first)
    hook = model.network.register_forward_hook(lambda *_: runs.append("run"))
    folder = tmp_path_factory.mktemp("temporary")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    try:
        with running(models, largest=1) as url:
            yield url, model, folder
        assert not list(folder.glob("multihmr-*"))
    finally:
        tempfile.tempdir = before
        hook.remove()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def session(browser: Any, served: tuple[str, Model, Path]) -> Iterator[Callable[..., Any]]:
    """session(width, height): the page in a browser of its own, in which no other address answers."""
    contexts, outside = [], []

    def only_here(route: Any) -> None:
        if route.request.url.startswith((served[0], "data:", "blob:")):
            return route.continue_()
        outside.append(route.request.url)
        return route.abort()

    def open_page(width: int = 1280, height: int = 1000) -> Any:
        contexts.append(browser.new_context(viewport={"width": width, "height": height}))
        contexts[-1].set_default_timeout(WAIT)
        contexts[-1].route("**/*", only_here)
        page = contexts[-1].new_page()
        page.goto(served[0])
        page.wait_for_selector("#files input[type=file]", state="attached")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert outside == []


def give(page: Any, *paths: Path) -> None:
    page.set_input_files("#files input[type=file]", [str(path) for path in paths])


def download(page: Any, what: str) -> Path:
    with page.expect_download() as waiting:
        page.click(f"#get-{what}")
    return Path(waiting.value.path())


def turned(page: Any) -> bytes:
    return page.locator("#view canvas").screenshot()


@pytest.mark.slow
def test_a_picture_becomes_people_to_turn_and_take_away(
    session: Callable[..., Any], served: tuple[str, Model, Path]
) -> None:
    page = session()
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("table.people td")
    page.wait_for_selector("#view canvas[data-shown$='.glb']")
    page.wait_for_function("document.querySelector('#overlay img')?.naturalWidth > 0")
    assert page.locator("table.people tbody tr").count() == 1

    before = turned(page)
    box = page.locator("#view canvas").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.down()
    page.mouse.move(box["x"] + 320, box["y"] + 200)
    page.mouse.up()
    assert turned(page) != before
    page.dblclick("#view canvas")
    assert turned(page) == before

    expected = served[1].predict(EXAMPLES / "astronaut.jpg")
    scene = trimesh.load(download(page, "glb"), file_type="glb", process=False)
    (mesh,) = scene.geometry.values()
    np.testing.assert_allclose(mesh.vertices, expected.vertices[0] * (1, -1, -1), atol=1e-4)
    assert np.load(download(page, "npz"))["scores"] == pytest.approx(expected.scores, abs=1e-5)


@pytest.mark.slow
def test_the_threshold_is_moved_without_running_the_network(
    session: Callable[..., Any], runs: list[str]
) -> None:
    page = session()
    page.click("#examples button.thumbnail-item >> nth=0")
    page.wait_for_selector("table.people td")
    before = len(runs)
    slider = page.locator("#threshold input[type=range]")
    slider.fill("0.95")
    slider.dispatch_event("pointerup")
    page.wait_for_selector("#status :text('No people found')")
    assert len(runs) == before


@pytest.mark.slow
def test_the_page_is_used_by_keyboard(session: Callable[..., Any], runs: list[str]) -> None:
    """Fields that the Tab key leaves change nothing, and what has the focus is seen."""
    page = session()
    for _ in range(16):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('#page input, #page canvas')"):
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.wait_for_timeout(1000)
    assert "Drop pictures" in page.inner_text("#status")
    page.focus("#examples button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#status :text('estimated by the network')")
    before = len(runs)
    page.focus("#threshold input[type=number]")
    for _ in range(6):
        page.keyboard.press("Tab")
    page.wait_for_timeout(1000)
    assert "estimated by the network" in page.inner_text("#status")  # not "as you set it"
    assert page.locator("#automatic input").is_checked()
    assert len(runs) == before
    page.fill("#fov input[type=number]", "70")
    page.keyboard.press("Tab")
    page.wait_for_selector("#status :text('70°, as you set it')")


@pytest.mark.slow
def test_a_model_that_is_not_there_is_said_without_folders(
    session: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MULTIHMR_HOME", str(tmp_path / "home"))
    page = session()
    page.click("#model input")
    page.click("[role=option]:has-text('multiHMR_672_S')")
    page.wait_for_selector("#status [role=alert]")
    said = page.inner_text("#status")
    assert said.startswith("The model multiHMR_672_S cannot be used here: SMPL-X is licensed by its authors")
    assert "/" not in said
    assert "--" not in said


@pytest.mark.slow
def test_bad_files_are_told_in_a_sentence(session: Callable[..., Any], tmp_path: Path) -> None:
    page = session()
    for name, content, sentence in (
        ("letter.jpg", b"Dear Sir or Madam", "letter.jpg is no picture of a known format"),
        ("cut.jpg", (EXAMPLES / "astronaut.jpg").read_bytes()[:20_000], "cut.jpg is cut short or damaged"),
        ("clip.mp4", b"no frames in here", "clip.mp4"),
    ):
        (tmp_path / name).write_bytes(content)
        give(page, tmp_path / name)
        page.wait_for_selector(f"#status [role=alert]:has-text('{sentence}')")
        said = page.inner_text("#status")
        assert "Traceback" not in said
        assert "/tmp" not in said
        page.wait_for_selector("#files input[type=file]", state="attached")
    (tmp_path / "huge.jpg").write_bytes(bytes(1_500_000))
    give(page, tmp_path / "huge.jpg")
    page.wait_for_selector(":text('exceed the maximum allowed size of 1.0 Mb')")


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_a_picture_without_people_is_said_to_have_none(
    session: Callable[..., Any], tmp_path: Path, width: int
) -> None:
    """With advice; nothing of the people of the picture before is left to see or to download."""
    page = session(width, 844)
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("table.people td")
    sky = np.linspace((90, 140, 220), (210, 225, 240), 240).astype(np.uint8)[:, None].repeat(320, 1)
    Image.fromarray(sky).save(tmp_path / "sky.png")
    give(page, tmp_path / "sky.png")
    page.wait_for_selector("#status :text('No people found')")
    page.wait_for_selector("table.people", state="detached")  # no heads of columns without a row
    assert not page.locator("#get-glb").is_visible() or page.locator("#get-glb").is_disabled()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_selector("#advice :text('nothing reaches 0.10')")
    assert page.inner_text("#advice h2") == "No people found in this picture"
    for empty in ("#view canvas", "#side", "#above"):
        assert not page.locator(empty).is_visible()
    assert page.evaluate(CONTRAST) == []
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("#view canvas[data-shown$='.glb']")
    assert not page.locator("#advice").is_visible()


@pytest.mark.slow
def test_without_webgl_the_page_says_so(session: Callable[..., Any]) -> None:
    page = session()
    page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    page.reload()
    page.wait_for_selector("#files input[type=file]", state="attached")
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("#view p:text('This browser shows no 3D. Download the GLB below')")
    assert not page.locator("#view span").is_visible()  # "drag to turn"
    words, panel = page.locator("#view p").bounding_box(), page.locator("#view .view3d").bounding_box()
    assert panel["y"] <= words["y"]
    assert words["y"] + words["height"] <= panel["y"] + panel["height"]


@pytest.mark.slow
def test_3d_is_drawn_again_after_the_browser_dropped_it(session: Callable[..., Any]) -> None:
    """Phones drop WebGL of pages in the background."""
    page = session()
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("#view canvas[data-shown$='.glb']")
    page.focus("#view canvas")
    before = turned(page)
    lose = "canvas => canvas.getContext('webgl').getExtension('WEBGL_lose_context').loseContext()"
    page.evaluate(f"({lose})(document.querySelector('#view canvas'))")
    page.wait_for_timeout(300)
    page.wait_for_selector("#view canvas[data-shown$='.glb']")
    page.focus("#view canvas")
    assert turned(page) == before
    page.keyboard.press("+")
    assert turned(page) != before
    page.keyboard.press("0")
    assert turned(page) == before


@pytest.mark.slow
def test_3d_that_cannot_be_loaded_is_said(session: Callable[..., Any]) -> None:
    page = session()
    page.route("**/*.glb", lambda route: route.abort())
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("#view p:text('The 3D people could not be loaded.')")


@pytest.mark.slow
def test_the_page_fits_a_phone(session: Callable[..., Any]) -> None:
    page = session(390, 844)
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("#view canvas[data-shown$='.glb']")
    page.wait_for_selector("table.people td")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for part in ("#overlay", "#view canvas", "#side", "table.people", "#threshold", "#closer", "#model"):
        box = page.locator(part).bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["width"] > 280


@pytest.mark.slow
def test_visitors_share_nothing_and_leave_nothing(
    session: Callable[..., Any], served: tuple[str, Model, Path]
) -> None:
    mine, yours = session(), session()
    give(mine, EXAMPLES / "astronaut.jpg")
    mine.wait_for_selector("table.people td")
    slider = yours.locator("#threshold input[type=range]")
    slider.fill("0.3")
    slider.dispatch_event("pointerup")
    yours.wait_for_selector("#status :text('There is no picture')")
    assert yours.locator("table.people").count() == 0

    stored = list(served[2].rglob("astronaut.glb"))
    assert stored
    mine.close()
    for _ in range(100):
        if not any(path.exists() for path in stored):
            break
        yours.wait_for_timeout(100)
    assert not any(path.exists() for path in stored)


@pytest.mark.slow
def test_the_webcam_takes_a_picture(session: Callable[..., Any]) -> None:
    page = session()
    page.click("button[role=tab]:has-text('Webcam')")
    page.click("#webcam button:has-text('Click to Access Webcam')")
    page.wait_for_function("document.querySelector('#webcam video')?.videoWidth > 0")  # the camera is on
    page.click("#webcam button[aria-label='capture photo']")
    page.wait_for_selector("#status :text('found')")


@pytest.mark.slow
def test_a_video_becomes_people_frame_by_frame(session: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("av", reason="videos need PyAV")
    pytest.importorskip("scipy", reason="tracking needs SciPy")
    from multihmr.preprocessing.image import read_image
    from multihmr.video.writer import VideoWriter

    with VideoWriter(tmp_path / "walk.mp4", 10) as writer:
        for number in range(3):
            writer.write(read_image(EXAMPLES / "astronaut.jpg"), number / 10)
    page = session()
    give(page, tmp_path / "walk.mp4")
    page.wait_for_selector("#film video", state="attached")
    page.wait_for_selector("#status :text('3 frames, 1 person in all')")
    assert page.locator("#frame input[type=range]").get_attribute("max") == "2"
    animated = trimesh.load(download(page, "glb"), file_type="glb")
    assert len(animated.geometry) == 1


@pytest.mark.slow
def test_a_running_video_can_be_cancelled(
    session: Callable[..., Any], served: tuple[str, Model, Path], runs: list[str], tmp_path: Path
) -> None:
    """Meanwhile the result of the picture before is hidden, and progress names frames."""
    pytest.importorskip("av", reason="videos need PyAV")
    pytest.importorskip("scipy", reason="tracking needs SciPy")
    from multihmr.video.writer import VideoWriter

    with VideoWriter(tmp_path / "long.mp4", 10) as writer:
        for number in range(200):
            writer.write(np.full((120, 160, 3), number, np.uint8), number / 10)
    page = session()
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("table.people td")
    give(page, tmp_path / "long.mp4")
    page.wait_for_selector("#status :text-matches('frame [0-9]+ of 200')")
    assert "found" not in page.inner_text("#status")  # what was said before lies not under the progress
    assert not page.locator("#results").is_visible()
    page.click("#cancel")
    page.wait_for_selector("#status :text('Cancelled.')")
    assert not page.locator("#cancel").is_visible()
    assert not page.locator("#results").is_visible()

    give(page, tmp_path / "long.mp4")
    page.wait_for_selector("#status :text-matches('frame [0-9]+ of 200')")
    other = session(390)
    give(other, EXAMPLES / "astronaut.jpg")
    other.wait_for_selector("table.people td")  # between frames of the video
    assert "of 200" in page.inner_text("#status")
    give(page, EXAMPLES / "astronaut.jpg")  # in place of the video
    page.wait_for_selector("#status :text('1 person found')")

    give(page, tmp_path / "long.mp4")
    page.wait_for_selector("#status :text-matches('frame [0-9]+ of 200')")
    at_reload = len(runs)
    page.reload()
    page.wait_for_selector("#files input[type=file]", state="attached")
    for _ in range(300):
        if not list(served[2].rglob("long.mp4")):
            break
        page.wait_for_timeout(100)
    before = 0
    while before < len(runs):  # what was begun ends
        before = len(runs)
        page.wait_for_timeout(1500)
    assert len(runs) < at_reload + 15  # of 25 and more: the video no longer runs


CONTRAST = """() => {
  const channels = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const luminance = rgb => {
    const [r, g, b] = rgb.map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const background = e => {
    for (; e; e = e.parentElement) {
      const [r, g, b, a = 1] = channels(getComputedStyle(e).backgroundColor);
      if (a > .99) return [r, g, b];
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility({visibilityProperty: true, opacityProperty: true}) || e.disabled) continue;
    if (e.closest('canvas, svg, script, style, video')) continue;
    const style = getComputedStyle(e);
    const pair = [channels(style.color).slice(0, 3), background(e)].map(luminance).sort((a, b) => b - a);
    const large = parseFloat(style.fontSize) >= 24;
    const ratio = (pair[0] + .05) / (pair[1] + .05);
    if (ratio < (large ? 3 : 4.5)) found.push([e.textContent.trim(), style.color, ratio.toFixed(2)]);
  }
  return found;
}"""


@pytest.mark.slow
def test_texts_have_the_contrast_of_wcag_aa(session: Callable[..., Any]) -> None:
    page = session()
    give(page, EXAMPLES / "astronaut.jpg")
    page.wait_for_selector("table.people td")
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        page.evaluate(f"document.body.classList.toggle('dark', {str(scheme == 'dark').lower()})")
        page.add_style_tag(content="* {transition: none !important}")
        assert page.evaluate(CONTRAST) == [], scheme
