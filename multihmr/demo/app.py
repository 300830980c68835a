"""The page: pictures in, people out, in a browser. It shows what `visits` keeps; needs the extra `demo`.

`serving` puts it on an address. Nothing comes from elsewhere: no fonts, scripts or analytics.
"""

from __future__ import annotations

import html
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr

from .sessions import (
    IDLE,
    LEAST_SCORE,
    Look,
    Models,
    Shown,
    Visit,
    Visits,
    field_of_view,
    people_table,
    summary,
    thumbnail,
)

logger = logging.getLogger(__name__)

Values = dict[Any, Any]  # component -> what the visitor put there
Update = dict[Any, Any]  # component -> what it shows now

EXPECTED = (ValueError, OSError, ImportError)  # what a visitor can put right, said in a sentence
BAR = gr.Progress()  # shown for handlers that have it as an argument; knows by itself which visitor waits
CLOSER = 2  # tiles along the longer side of a picture that is looked at closer
_HERE = Path(__file__)
_VIEW = 420  # pixels, height of the overlay and of the 3D view
_VIEW_HTML = f"""<div class="view3d" style="height: {_VIEW}px"><span>3D, drag to turn</span>
<canvas tabindex="0" role="img" aria-label="People in 3D; drag or press arrow keys to turn"></canvas></div>"""
_VIEW_JS = ("view3d.js", "app.js")
_EMPTY = "Drop pictures or a video, use the webcam, or try an example."


class Page:
    """The components of the page and what happens when they are used; one object for all visitors."""

    def __init__(self, models: Models, folder: Path, examples: list[Path]) -> None:
        """folder: for the files of visits, within the one that gradio serves."""
        self.models, self.visits, self.example_files = models, Visits(folder), examples
        with gr.Blocks(
            title="multihmr", analytics_enabled=False, delete_cache=(600, int(IDLE))
        ) as self.blocks:
            gr.Markdown(
                "# multihmr\nEvery person in a photograph, in 3D. Your pictures stay on the machine that "
                "shows this page and are deleted when you close it.",
                elem_id="title",
            )
            with gr.Row(elem_id="page", equal_height=False):
                with gr.Column(scale=1, min_width=290, elem_id="left"):
                    self._build_input()
                    self._build_settings()
                with gr.Column(scale=3, min_width=320, elem_id="right"):
                    self._build_results()
            self._connect()

    def _build_input(self) -> None:
        with gr.Column(elem_id="input"):
            with gr.Tabs():
                with gr.Tab("Pictures"):
                    self.files = gr.File(
                        file_count="multiple", label="Pictures", height=170, show_label=False, elem_id="files"
                    )
                with gr.Tab("Webcam"):
                    self.webcam = gr.Image(
                        sources=["webcam"], type="filepath", height=240, show_label=False, elem_id="webcam"
                    )
            self.examples = gr.Gallery(
                [(thumbnail(path), None) for path in self.example_files],
                label="Examples",
                show_label=False,
                columns=3,
                height=None,
                object_fit="cover",
                allow_preview=False,
                interactive=False,
                visible=bool(self.example_files),
                buttons=[],
                elem_id="examples",
            )

    def _build_settings(self) -> None:
        threshold = self.models.load(self.models.first).threshold
        with gr.Column(elem_id="settings"):
            with gr.Group():
                self.threshold = gr.Slider(
                    LEAST_SCORE,
                    0.95,
                    value=threshold,
                    step=0.01,
                    label="Least score",
                    info="Lower shows fainter people",
                    buttons=[],
                    elem_id="threshold",
                )
                self.fov = gr.Slider(
                    20,
                    120,
                    value=60,
                    step=1,
                    label="Field of view, degrees",
                    info="Over the longer side; it decides distances",
                    buttons=[],
                    elem_id="fov",
                )
                self.automatic = gr.Checkbox(
                    True, label="Field of view found automatically", elem_id="automatic"
                )
                self.closer = gr.Checkbox(
                    False,
                    label="Look closer",
                    info="For people who are small in the picture; slower",
                    elem_id="closer",
                )
            with gr.Group():
                self.model = gr.Dropdown(
                    [(Path(name).name, name) for name in self.models.names],
                    value=self.models.first,
                    label="Model",
                    filterable=False,
                    elem_id="model",
                )
            self.licence = gr.Markdown(self.models.licence_note(self.models.first), elem_id="licence")
            self.forget = gr.Button("Delete my pictures", size="sm", variant="secondary", elem_id="forget")

    def _build_results(self) -> None:
        self.status = gr.HTML(_said(_EMPTY), elem_id="status")
        self.strip = gr.Gallery(
            visible=False,
            columns=8,
            height=110,
            show_label=False,
            allow_preview=False,
            elem_id="strip",
            buttons=[],
        )
        with gr.Column(visible=False, elem_id="results") as self.results:
            with gr.Row():
                shared: dict[str, Any] = {"interactive": False, "buttons": [], "min_width": 300}
                self.overlay = gr.Image(
                    label="People in the picture", height=_VIEW, elem_id="overlay", **shared
                )
                self.film = gr.Video(
                    label="People in the video", height=_VIEW, elem_id="film", visible=False, **shared
                )
                with gr.Column(min_width=300):
                    self.view = gr.HTML(
                        "",
                        html_template=_VIEW_HTML,
                        js_on_load="".join(_HERE.with_name(name).read_text("utf-8") for name in _VIEW_JS),
                        padding=False,
                        elem_id="view",
                    )
            self.frame = gr.Slider(
                0, 1, value=0, step=1, label="Frame", visible=False, buttons=[], elem_id="frame"
            )
            with gr.Row():
                self.side = gr.Image(label="From the side", elem_id="side", **shared)
                self.above = gr.Image(label="From above", elem_id="above", **shared)
            self.table = gr.HTML(elem_id="table")
            with gr.Row():
                self.downloads = [
                    gr.DownloadButton(
                        f"Download {what}", size="sm", min_width=130, elem_id=f"get-{what.lower()}"
                    )
                    for what in ("overlay", "GLB", "NPZ", "JSON")
                ]

    def _connect(self) -> None:
        settings = {self.threshold, self.fov, self.automatic, self.closer, self.model, self.frame}
        shown = [self.status, self.strip, self.results, self.overlay, self.view, self.side, self.above]
        shown += [self.table, *self.downloads, self.files, self.fov, self.automatic, self.threshold]
        shown += [self.licence, self.film, self.frame]
        for event, act, given in (
            (self.files.upload, self.take, {self.files}),
            (self.webcam.input, self.snap, {self.webcam}),
            (self.examples.select, self.take_example, set()),
            (self.strip.select, self.choose, set()),
            (self.threshold.release, self.look, set()),
            (self.frame.release, self.look, set()),
            (self.fov.release, self.set_fov, set()),
            (self.automatic.input, self.look, set()),
            (self.closer.input, self.look, set()),
            (self.model.input, self.change_model, set()),
            (self.forget.click, self.delete, set()),
        ):
            event(
                act,
                settings | given,  # a set: what is given comes as one dict
                shown,
                concurrency_id="network",
                concurrency_limit=1,
                show_progress="full",
                show_progress_on=self.status,
                api_visibility="private",
            )
        self.blocks.unload(self.leave)

    def take(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """Pictures were dropped."""
        paths = [Path(file) for file in given[self.files] or []]
        return self._answer(request, given, lambda visit: visit.take(paths))

    def snap(self, given: Values, request: gr.Request) -> Update:
        """A picture was taken with the webcam."""
        paths = [Path(given[self.webcam])] if given[self.webcam] else []
        return self._answer(request, given, lambda visit: visit.take(paths))

    def take_example(
        self, given: Values, request: gr.Request, event: gr.SelectData, bar: Any = BAR
    ) -> Update:
        path = self.example_files[int(event.index)]
        return self._answer(request, given, lambda visit: visit.take([path], keep=True))

    def choose(self, given: Values, request: gr.Request, event: gr.SelectData, bar: Any = BAR) -> Update:
        """One of several pictures was clicked."""
        return self._answer(request, given, lambda visit: setattr(visit, "chosen", int(event.index)))

    def look(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """A setting changed: show the same picture anew."""
        return self._answer(request, given)

    def set_fov(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """The visitor's own field of view, which ends the automatic one."""
        return self._answer(request, given | {self.automatic: False}) | {self.automatic: False}

    def change_model(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """Another model, with its own threshold."""
        name = given[self.model]
        note = self.models.licence_note(name)
        try:
            threshold = self.models.load(name).threshold
        except EXPECTED as error:
            return {self.status: _said(str(error), bad=True), self.licence: note}
        answer = self._answer(request, given | {self.threshold: threshold})
        return answer | {self.threshold: threshold, self.licence: note}

    def delete(self, given: Values, request: gr.Request) -> Update:
        self.visits.end(_key(request))
        return self._nothing("Your pictures are deleted.")

    def leave(self, request: gr.Request) -> None:
        """The tab was closed."""
        self.visits.end(_key(request))

    def _answer(
        self, request: gr.Request, given: Values, act: Callable[[Visit], None] | None = None
    ) -> Update:
        """What the page shows after `act`: the people in the chosen picture, or one sentence."""
        visit = self.visits.of(_key(request))
        with visit.lock:
            try:
                if act is not None:
                    act(visit)
                shown = self._look(visit, given)
            except EXPECTED as error:
                return self._nothing(_without_folders(str(error), visit), visit, bad=True)
            except Exception:
                logger.exception("the page could not answer")
                sentence = "Something went wrong; the terminal in which this page was started says what."
                return self._nothing(sentence, visit, bad=True)
            update = self._update(shown) | self._strip(visit)
            seen = round(field_of_view(shown.humans))
            return update | ({self.fov: seen} if given[self.automatic] else {})

    def _look(self, visit: Visit, given: Values) -> Shown:
        """The people in the chosen picture or video, as the settings want them."""
        name, threshold = given[self.model], float(given[self.threshold])
        look = Look(
            fov=None if given[self.automatic] else float(given[self.fov]),
            tiles=CLOSER if given[self.closer] else 1,
        )
        body = self.models.load(name).body
        if not visit.is_video:
            return visit.show(visit.people(self.models, name, threshold=threshold, look=look), body)

        def progress(done: float, doing: str) -> None:
            BAR(done, desc=doing)

        film = visit.film(self.models, name, look=look, progress=progress)
        return visit.show_film(
            film, body, threshold=threshold, frame=int(given[self.frame]), progress=progress
        )

    def _update(self, shown: Shown) -> Update:
        film = shown.film
        return {
            self.status: _said(summary(shown)),
            self.results: gr.update(visible=True),
            self.overlay: gr.update(value=None if film else str(shown.overlay), visible=film is None),
            self.film: gr.update(value=str(shown.overlay) if film else None, visible=film is not None),
            self.frame: gr.update(maximum=len(film.people) - 1, visible=True)
            if film
            else gr.update(value=0, visible=False),
            self.view: shown.glb.as_posix() if shown.glb else "",
            self.side: str(shown.side),
            self.above: str(shown.above),
            self.table: people_table(shown.humans, shown.heights),
            self.files: None,
        } | {
            button: gr.update(value=str(file) if file else None, interactive=bool(file))
            for button, file in zip(self.downloads, shown.take_away, strict=True)
        }

    def _nothing(self, sentence: str, visit: Visit | None = None, *, bad: bool = False) -> Update:
        update: Update = {self.status: _said(sentence, bad=bad), self.results: gr.update(visible=False)}
        update |= {self.files: None, self.view: "", self.table: ""}
        return update | (self._strip(visit) if visit else {self.strip: gr.update(value=None, visible=False)})

    def _strip(self, visit: Visit) -> Update:
        """Small pictures to choose among, where there are several."""
        several = len(visit.pictures) > 1
        thumbnails = visit.thumbnails() if several else None
        return {self.strip: gr.update(value=thumbnails, visible=several, selected_index=visit.chosen)}


def _said(sentence: str, *, bad: bool = False) -> str:
    kind = ' class="bad" role="alert"' if bad else ' role="status"'
    return f"<div{kind}>{html.escape(sentence)}</div>"


def _without_folders(sentence: str, visit: Visit) -> str:
    """The visitor's file has a name, but its place on this machine is nobody's business."""
    for path in visit.pictures:
        sentence = sentence.replace(f"{path.parent}{os.sep}", "")
    return sentence[:1].upper() + sentence[1:]


def _key(request: gr.Request) -> str:
    return str(request.session_hash)
