"""Web demo: layout and event handlers of the page, for the state in sessions.py; needs the extra `demo`.

server.py serves it. Nothing is loaded from other hosts: no fonts, scripts or analytics.
"""

from __future__ import annotations

import html
import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from .advice import advice
from .sessions import (
    IDLE,
    LEAST_SCORE,
    Cancelled,
    Models,
    PredictOptions,
    Replaced,
    Session,
    Sessions,
    Shown,
    Turns,
    field_of_view,
    people_table,
    remaining_time,
    summary,
    thumbnail,
)

if TYPE_CHECKING:
    from ..model import Model

logger = logging.getLogger(__name__)

Values = dict[Any, Any]  # component -> input value
Update = dict[Any, Any]  # component -> new value

EXPECTED = (ValueError, OSError, ImportError)  # shown to the visitor as one text
BAR = gr.Progress()  # shown for handlers that have it as an argument; finds the waiting visitor by itself
SMALL_PEOPLE_TILES = 2  # per side, for small people
_HERE = Path(__file__)
_VIEW = 420  # pixels, height of the overlay and of the 3D view
_VIEW_HTML = f"""<div class="view3d" hidden style="height: {_VIEW}px"><span>3D, drag to turn</span>
<canvas tabindex="0" role="img" aria-label="People in 3D; arrow keys turn, + and - zoom, 0 resets"></canvas>
<p hidden></p></div>"""
_VIEW_JS = ("view3d.js", "app.js")
_FOR_PROGRAMMERS = re.compile(
    r"; (`multihmr|give np\.|predict_video).*"
)  # advice that a visitor cannot follow
_VISITORS = 8  # who are answered at the same time; the network itself runs once at a time
_EMPTY = "Drop pictures or a video, use the webcam, or try an example."


class Page:
    """Components and event handlers of the page; one object for all visitors."""

    def __init__(self, models: Models, folder: Path, examples: list[Path]) -> None:
        """folder: for the files of sessions, inside the one that gradio serves."""
        self.models, self.sessions, self.example_files = models, Sessions(folder), examples
        self.turns = Turns()
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
        self.initial = (models.load(models.first).threshold, 60, True, False, False, models.first, 0)

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
                    label="Find small people",
                    info="Predict tiles of the picture as well; slower",
                    elem_id="closer",
                )
                self.hands = gr.Checkbox(
                    False,
                    label="Refine hands and faces",
                    info="Fingers and expressions as the picture shows them; slower",
                    elem_id="hands",
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
        self.status = gr.HTML(_status(_EMPTY), elem_id="status")
        self.cancel_button = gr.Button("Cancel", size="sm", visible=False, elem_id="cancel")
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
                self.video = gr.Video(
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
                    self.advice = gr.HTML(visible=False, elem_id="advice")
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
        settings: set[Any] = {self.threshold, self.fov, self.automatic, self.closer, self.hands, self.model}
        settings.add(self.frame)
        shown = [self.status, self.strip, self.results, self.overlay, self.view, self.side, self.above]
        shown += [self.table, *self.downloads, self.files, self.fov, self.automatic, self.threshold]
        shown += [self.licence, self.video, self.frame, self.cancel_button, self.advice]
        for event, begin, act, given in (
            (self.files.upload, self.begin_new, self.take, {self.files}),
            (self.webcam.input, self.begin_new, self.snap, {self.webcam}),
            (self.examples.select, self.begin_new, self.take_example, set()),
            (self.strip.select, self.begin_new, self.choose, set()),
            (self.threshold.release, self.begin_update, self.refresh, set()),
            (self.frame.release, self.begin_update, self.refresh, set()),
            (self.fov.release, self.begin_update, self.set_fov, set()),
            (self.automatic.input, self.begin_update, self.refresh, set()),
            (self.closer.input, self.begin_update, self.refresh, set()),
            (self.hands.input, self.begin_update, self.refresh, set()),
            (self.model.input, self.begin_update, self.change_model, set()),
        ):
            event(
                begin,
                settings if begin == self.begin_update else None,
                [self.status, self.results, self.cancel_button, self.table],
                queue=False,
                show_progress="hidden",
                api_visibility="private",
            )
            event(
                act,
                settings | given,  # a set: values are passed as one dict
                shown,
                concurrency_id="network",
                concurrency_limit=_VISITORS,
                trigger_mode="multiple",  # another file ends the running one; gradio would drop it
                show_progress="full",
                show_progress_on=self.status,
                api_visibility="private",
            )
        self.forget.click(self.delete, settings, shown, queue=False, api_visibility="private")
        self.cancel_button.click(self.cancel, None, self.cancel_button, queue=False, api_visibility="private")
        self.blocks.unload(self.leave)

    def begin_new(self, request: gr.Request) -> Update:
        """Another file is about to be predicted: hide the results of the last one."""
        self.sessions.of(_key(request)).begin(new=True)
        hidden = {self.status: _status(""), self.results: gr.update(visible=False), self.table: ""}
        return hidden | {self.cancel_button: gr.update(visible=True, value="Cancel", interactive=True)}

    def begin_update(self, given: Values, request: gr.Request) -> Update:
        """The same file is about to be predicted with other settings."""
        session = self.sessions.of(_key(request))
        if self._unchanged(session, given):
            return {self.status: gr.skip()}
        session.begin(new=False)
        button = gr.update(visible=session.has_video, value="Cancel", interactive=True)
        return {self.status: _status(""), self.cancel_button: button}

    def cancel(self, request: gr.Request) -> Any:
        """Cancel the visitor's running prediction: a video at its next frame."""
        self.sessions.of(_key(request)).cancel()
        return gr.update(value="Cancelling", interactive=False)

    def take(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """Pictures or a video were uploaded."""
        paths = [Path(file) for file in given[self.files] or []]
        return self._respond(request, given, lambda session: session.take(paths))

    def snap(self, given: Values, request: gr.Request) -> Update:
        """A webcam picture was taken."""
        paths = [Path(given[self.webcam])] if given[self.webcam] else []
        return self._respond(request, given, lambda session: session.take(paths))

    def take_example(
        self, given: Values, request: gr.Request, event: gr.SelectData, bar: Any = BAR
    ) -> Update:
        path = self.example_files[int(event.index)]
        return self._respond(request, given, lambda session: session.take([path], keep=True))

    def choose(self, given: Values, request: gr.Request, event: gr.SelectData, bar: Any = BAR) -> Update:
        """One of several pictures was selected."""
        return self._respond(request, given, lambda session: setattr(session, "chosen", int(event.index)))

    def refresh(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """A setting was changed, or only left by the Tab key: update the same picture."""
        if self._unchanged(self.sessions.of(_key(request)), given):
            return {self.status: gr.skip()}
        return self._respond(request, given)

    def set_fov(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """The field of view was set, which ends the automatic one; or only left by the Tab key."""
        if self._unchanged(self.sessions.of(_key(request)), given):
            return {self.status: gr.skip()}
        return self._respond(request, given | {self.automatic: False}) | {self.automatic: False}

    def change_model(self, given: Values, request: gr.Request, bar: Any = BAR) -> Update:
        """Another model was selected: use its own threshold."""
        if self._unchanged(self.sessions.of(_key(request)), given):
            return {self.status: gr.skip()}
        name = given[self.model]
        note = self.models.licence_note(name)
        try:
            threshold = self._load(name).threshold
        except EXPECTED as error:
            session = self.sessions.of(_key(request))
            return self._nothing(str(error), session, bad=True) | {self.licence: note}
        update = self._respond(request, given | {self.threshold: threshold})
        return update | {self.threshold: threshold, self.licence: note}

    def delete(self, given: Values, request: gr.Request) -> Update:
        self.sessions.end(_key(request))
        return self._nothing("Your pictures are deleted.")

    def leave(self, request: gr.Request) -> None:
        """The browser tab was closed."""
        self.sessions.end(_key(request))

    def _respond(
        self, request: gr.Request, given: Values, act: Callable[[Session], None] | None = None
    ) -> Update:
        """Update of the page after `act`: the people in the chosen file, or one sentence."""
        session = self.sessions.of(_key(request))
        run = session.run
        session.settings = (None,)  # until something is shown, all settings are new
        with session.lock:
            try:
                if act is not None:
                    session.check_cancelled(run)
                    act(session)
                    given = given | {self.frame: 0}
                shown = self._predict(session, given, run)
                update = self._update(shown) | self._advice(session, shown, given)
            except Replaced:
                return {self.strip: gr.skip()}
            except Cancelled:
                return self._nothing("Cancelled.", session)
            except EXPECTED as error:
                return self._nothing(_for_visitors(error, session), session, bad=True)
            except Exception:
                logger.exception("a request of the page failed")
                text = "Something went wrong; the terminal in which this page was started has the details."
                return self._nothing(text, session, bad=True)
            update |= self._strip(session) | {self.cancel_button: gr.update(visible=False)}
            fov = round(field_of_view(shown.humans)) if given[self.automatic] else given[self.fov]
            session.settings = self._values(given | {self.fov: fov, self.frame: shown.frame})
            return update | {self.fov: fov}

    def _load(self, name: str) -> Model:
        """The model, or an error for visitors: without folders and advice, which are logged."""
        try:
            return self.models.load(name)
        except EXPECTED as error:
            logger.warning("the page cannot load %s: %s", name, error)
            reason = str(error).partition(": ")[0].partition("; ")[0]
            raise ValueError(
                f"The model {Path(name).name} cannot be used here: {reason}. Choose another one."
            ) from None

    def _values(self, given: Values) -> tuple[Any, ...]:
        return tuple(
            given[setting]
            for setting in (
                self.threshold, self.fov, self.automatic, self.closer, self.hands, self.model, self.frame
            )
        )  # fmt: skip

    def _unchanged(self, session: Session, given: Values) -> bool:
        """Whether what is shown has these settings: gradio calls a number released that the Tab key left."""
        return self._values(given) == (session.settings or self.initial)

    def _options(self, given: Values) -> PredictOptions:
        return PredictOptions(
            fov=None if given[self.automatic] else float(given[self.fov]),
            tiles=SMALL_PEOPLE_TILES if given[self.closer] else 1,
            hands_and_faces=bool(given[self.hands]),
        )

    def _predict(self, session: Session, given: Values, run: int) -> Shown:
        """The people in the chosen picture or video, with the settings of the page."""
        name, threshold, options = given[self.model], float(given[self.threshold]), self._options(given)
        body = self._load(name).body
        if not session.has_video:
            with self.turns:
                people = session.people(self.models, name, threshold=threshold, options=options)
            session.check_cancelled(run)
            return session.show(people, body)

        started = time.monotonic()

        def progress(done: float, text: str) -> None:
            session.check_cancelled(run)
            BAR(done, desc=f"{text}{remaining_time(time.monotonic() - started, done)}")

        result = session.video_result(self.models, name, options=options, progress=progress, turns=self.turns)
        return session.show_video(
            result, body, threshold=threshold, frame=int(given[self.frame]), progress=progress
        )

    def _advice(self, session: Session, shown: Shown, given: Values) -> Update:
        """What can be tried without people, in the place of the 3D view; else nothing."""
        if len(shown.humans):
            return {self.advice: gr.update(value="", visible=False)}
        options, threshold, fainter = self._options(given), float(given[self.threshold]), None
        if shown.video is None:
            with self.turns:
                fainter = session.best_fainter(
                    self.models, given[self.model], threshold=threshold, options=options
                )
        text = advice(shown.video, shown.frame, threshold, fainter, tiles=options.tiles > 1)
        return {self.advice: gr.update(value=text, visible=True)}

    def _update(self, shown: Shown) -> Update:
        result = shown.video
        return {
            self.status: _status(summary(shown)),
            self.results: gr.update(visible=True),
            self.overlay: gr.update(value=None if result else str(shown.overlay), visible=result is None),
            self.video: gr.update(value=str(shown.overlay) if result else None, visible=result is not None),
            self.frame: gr.update(
                value=shown.frame, maximum=len(result.people) - 1, visible=bool(result.who(shown.threshold))
            )
            if result
            else gr.update(value=0, visible=False),
            self.view: shown.glb.as_posix() if shown.glb else "",
            self.side: gr.update(value=str(shown.side), visible=shown.glb is not None),
            self.above: gr.update(value=str(shown.above), visible=shown.glb is not None),
            self.table: people_table(shown.humans, shown.heights),
            self.files: None,
        } | {
            button: gr.update(value=str(file) if file else None, interactive=bool(file))
            for button, file in zip(self.downloads, shown.take_away, strict=True)
        }

    def _nothing(self, text: str, session: Session | None = None, *, bad: bool = False) -> Update:
        update: Update = {self.status: _status(text, bad=bad), self.results: gr.update(visible=False)}
        update |= {self.cancel_button: gr.update(visible=False)}
        update |= {self.files: None, self.view: "", self.table: "", self.advice: ""}
        return update | (
            self._strip(session) if session else {self.strip: gr.update(value=None, visible=False)}
        )

    def _strip(self, session: Session) -> Update:
        """Thumbnails, if there are several files."""
        several = len(session.pictures) > 1
        thumbnails = session.thumbnails() if several else None
        return {self.strip: gr.update(value=thumbnails, visible=several, selected_index=session.chosen)}


def _status(text: str, *, bad: bool = False) -> str:
    kind = ' class="bad" role="alert"' if bad else ' role="status"'
    return f"<div{kind}>{html.escape(text)}</div>"


def _for_visitors(error: Exception, session: Session) -> str:
    """One sentence about an error: without folders of this machine, and without advice for its owner."""
    if isinstance(error, ImportError):
        logger.warning("the page lacks a package: %s", error)
        kind = "videos" if session.has_video else "such files"
        return (
            f"This page cannot read {kind}: a package is missing on its server, whose owner can install it."
        )
    text = _FOR_PROGRAMMERS.sub("", str(error))
    for path in session.pictures:
        text = text.replace(f"{path.parent}{os.sep}", "")
    named = any(text.startswith(path.name) for path in session.pictures)
    return text if named else text[:1].upper() + text[1:]


def _key(request: gr.Request) -> str:
    return str(request.session_hash)
