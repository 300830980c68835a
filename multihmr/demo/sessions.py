"""State of the web demo per visitor: pictures, predicted people, files to show. Independent of the browser.

All files of a visitor are in one folder and belong to one `Session`; both are deleted when it ends, or after
an hour without use. A session cannot be reached from another one.
"""

from __future__ import annotations

import html
import math
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ..hub.releases import DEFAULT, RELEASES, find_release
from ..humans import Humans
from ..model import load_model
from ..preprocessing.image import load_image
from ..storage.paths import cache_folder
from ..video.reader import open_video
from ..visualization.draw import draw, draw_plan
from ..world.heights import heights
from .video import SUFFIXES as VIDEO_SUFFIXES
from .video import Progress, VideoResult, predict_video_file, write_files

if TYPE_CHECKING:
    from ..bodies.base import Body
    from ..model import Model

LEAST_SCORE = 0.1  # detections below it are mostly false
MOST_PEOPLE = 60
MOST_PICTURES = 12
IDLE = 3600.0  # seconds
OVERLAY_SIDE = 1600  # pixels
PLAN_SIZE = (720, 480)  # pixels, width and height

_AGES = (
    (1 / 6, "baby"),
    (1 / 2, "child"),
    (5 / 6, "adult"),
    (math.inf, "old"),
)  # between Anny's anchors
_CAMERAS = {
    "given": "as you set it",
    "exif": "from the picture's EXIF data",
    "predicted": "estimated by the network",
    "assumed": "assumed",
}


class Models:
    """The models that the page offers, loaded on first use; the last two stay in memory."""

    def __init__(self, first: str | None = None, **options: Any) -> None:
        """first: initial model, a release, path or "hf:owner/repo"; the options are those of `load_model`."""
        release = RELEASES[DEFAULT] if first is None else find_release(first)
        self.first = release.name if release else str(first)
        self.names = list(dict.fromkeys([self.first, *RELEASES]))
        self._options = options
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, name: str) -> Model:
        """The model of that name.

        Raises:
            ValueError: it is not one of `names`.
            Errors of `load_model`.
        """
        if name not in self.names:  # a request must not open arbitrary files
            raise ValueError(f"no model {name!r} on this page; it offers {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_model(name, **self._options)
            self._loaded.move_to_end(name)
            while len(self._loaded) > 2:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def licence_note(self, name: str) -> str:
        """Licence of a model's weights and body as Markdown, and the size of its download."""
        release = find_release(name)
        if release is None:
            model = self.load(name)
            return f"**{Path(name).name}**: licence of the weights “{model.licence}”; body {model.body.name}."
        if not release.licence_url:
            return (
                f"**{release.licence}** weights, body Anny (CC0): what it makes of your pictures may be used "
                "for anything, also commercially."
            )
        body = {
            "smplx": "the [SMPL-X body](https://smpl-x.is.tue.mpg.de/modellicense.html) has its authors' own",
            "anny-163": "the Anny body is CC0",
        }[release.body]
        weights = f"weights under [NAVER's licence]({release.licence_url})"
        note = f"**For non-commercial purposes only**: {weights}; {body}."
        there = (cache_folder() / "models" / f"{release.name}.safetensors").exists()
        return note if there else f"{note} The first use fetches {release.size_label}."


@dataclass
class Shown:
    """Result of one picture or video frame: people, drawings, and files to download."""

    humans: Humans
    heights: np.ndarray
    overlay: Path
    side: Path
    above: Path
    glb: Path | None  # None without people
    take_away: tuple[Path | None, ...]  # overlay, GLB, NPZ, JSON
    video: VideoResult | None = None  # for videos, whose overlay is a video
    threshold: float = 0.0  # least score of the people of a video
    frame: int = 0  # of the video


class PredictOptions(NamedTuple):
    """Options of a prediction: `fov`, `tiles` and `hands_and_faces` of `Model.predict`."""

    fov: float | None = None
    tiles: int = 1
    hands_and_faces: bool = False


@dataclass
class _Found:
    """People of one picture, model and options: above its threshold, and those of lower scores."""

    humans: Humans
    threshold: float
    fainter: Humans | None = None


class Cancelled(Exception):
    """The visitor cancelled the running video."""


class Replaced(Cancelled):
    """The visitor gave another file, deleted all, or left: the result is not shown."""


class Turns:
    """Lock that is given in the order in which it was asked for: videos take it for each frame anew."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._last, self._current = 0, 0

    def __enter__(self) -> None:
        with self._changed:
            mine, self._last = self._last, self._last + 1
            self._changed.wait_for(lambda: self._current == mine)

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._current += 1
            self._changed.notify_all()


class Session:
    """One visitor: pictures in a folder of their own, the chosen one, and its people."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: list[Path] = []
        self.chosen = 0
        self.used = time.monotonic()
        self.lock = threading.RLock()
        self.ended = False
        self.settings: tuple[Any, ...] | None = None  # of the page, of what is shown; None at first
        # Uploads of the run before, which the page still lists while it goes on.
        self._taken: set[Path] = set()
        self._found: dict[tuple[Path, str, PredictOptions], _Found] = {}
        self._videos: dict[tuple[Path, str, PredictOptions], VideoResult] = {}
        self._shown: list[Path] = []
        self._count = 0
        self._wanted, self._cancelled = 0, -1  # number of the newest run, and of the one that was cancelled
        folder.mkdir(mode=0o700)

    def take(self, files: Sequence[Path], *, keep: bool = False) -> None:
        """Replace the pictures; the files are moved here, or copied with `keep`. The first is chosen.

        Raises:
            ValueError: there are too many, or one does not exist.
        """
        if len(files) > MOST_PICTURES:
            for file in [] if keep else files:
                file.unlink(missing_ok=True)
            raise ValueError(f"{len(files)} files are too many at once; give at most {MOST_PICTURES}")
        files = [file for file in files if file.exists() or file not in self._taken] or files
        self.forget()
        self._taken = set(files)
        for file in dict.fromkeys(files):
            into = self._new_folder() / file.name
            try:
                shutil.copyfile(file, into) if keep else shutil.move(file, into)
            except FileNotFoundError:
                raise ValueError(f"{file.name} was not uploaded completely; upload it again") from None
            self.pictures.append(into)
            if not keep and not any(file.parent.iterdir()):
                file.parent.rmdir()  # each upload has a folder of its own

    def forget(self) -> None:
        """Delete all files and results."""
        self.pictures, self.chosen = [], 0
        self._found, self._videos, self._shown = {}, {}, []
        for path in self.folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    @property
    def picture(self) -> Path:
        """The chosen picture.

        Raises:
            ValueError: there is none, as after an hour without use.
        """
        if not self.pictures:
            raise ValueError(
                "There is no picture: upload one first. Pictures are deleted after an hour without use."
            )
        return self.pictures[min(self.chosen, len(self.pictures) - 1)]

    def people(
        self, models: Models, name: str, *, threshold: float | None, options: PredictOptions
    ) -> Humans:
        """People in the chosen picture who score at least `threshold`; None is the model's own.

        The network runs once per picture, model and options, and once more when the threshold first goes
        below the model's own. People interact by self-attention, so that a run with more of them moves the
        others (by 0.14 to 0.17 m in examples/images/astronaut.jpg); here those above the model's threshold
        keep their positions, and those of lower scores are added. `predict(threshold=...)` instead runs the
        network again.
        """
        model = models.load(name)
        key = (self.picture, name, options)
        arguments: dict[str, Any] = {**options._asdict(), "max_people": MOST_PEOPLE}
        if key not in self._found:
            humans = model.predict(self.picture, **arguments)
            self._found[key] = _Found(humans, model.threshold)
        found = self._found[key]
        if threshold is None or threshold == found.threshold:
            return found.humans
        if threshold > found.threshold:
            return found.humans[found.humans.scores >= threshold]
        if found.fainter is None:
            more = model.predict(self.picture, threshold=LEAST_SCORE, **arguments)
            found.fainter = more[more.scores < found.threshold]
        return joined(found.humans, found.fainter[found.fainter.scores >= threshold])

    def best_fainter(
        self, models: Models, name: str, *, threshold: float, options: PredictOptions
    ) -> float | None:
        """Best score below the threshold in the chosen picture; None if none reaches `LEAST_SCORE`."""
        for least in (None, LEAST_SCORE):  # the second may run the network
            scores = self.people(models, name, threshold=least, options=options).scores
            if (scores < threshold).any():
                return float(scores[scores < threshold].max())
        return None

    def video_result(
        self,
        models: Models,
        name: str,
        *,
        options: PredictOptions,
        progress: Progress,
        turns: Turns | None = None,
    ) -> VideoResult:
        """People in the chosen video, predicted once per model and options."""
        key = (self.picture, name, options)
        if key not in self._videos:
            result = predict_video_file(
                self.picture, models.load(name), progress=progress, turns=turns, **options._asdict()
            )
            self._videos = {key: result}
        return self._videos[key]

    def show(self, humans: Humans, body: Body) -> Shown:
        """Drawings and files of people in the chosen picture, in a new folder of the session."""
        out = self._folder_to_show()
        photo = load_image(self.picture)
        overlay = draw(humans, photo, side_views=False, max_side=OVERLAY_SIDE)
        written = _write(overlay, out / f"{self.picture.stem}_overlay.jpg")
        return self._shown_in(out, humans, body, written)

    def show_video(
        self, result: VideoResult, body: Body, *, threshold: float, frame: int, progress: Progress
    ) -> Shown:
        """One frame of the chosen video in 3D, and the files of the whole video.

        With the people whose best score reaches the threshold.
        """
        who, frame = result.who(threshold), min(frame, len(result.people) - 1)
        if who not in result.files:
            files = write_files(result, who, body, self._new_folder(), progress)
        files = result.files[who]
        shown = self._shown_in(self._folder_to_show(), result.at(frame, who, body), body, files.overlay)
        shown.threshold, shown.frame, numbers = threshold, frame, shown.take_away[-1]
        if numbers is not None:  # the other files are of all frames
            numbers = numbers.rename(numbers.with_stem(f"{numbers.stem}_frame_{frame}"))
        shown.video, shown.take_away = result, (files.overlay, files.glb, files.npz, numbers)
        return shown

    def _shown_in(self, out: Path, humans: Humans, body: Body, overlay: Path) -> Shown:
        stem = self.picture.stem
        side = _write(draw_plan(humans, PLAN_SIZE, seen_from="side"), out / f"{stem}_side.png")
        above = _write(draw_plan(humans, PLAN_SIZE, seen_from="above"), out / f"{stem}_above.png")
        npz, numbers = (humans.save(out / f"{stem}{suffix}") for suffix in (".npz", ".json"))
        glb = humans.save(out / f"{stem}.glb") if len(humans) else None
        files = (overlay, glb, npz, numbers)
        return Shown(humans, heights(humans, body=body), overlay, side, above, glb, files)

    @property
    def has_video(self) -> bool:
        """Whether the chosen file is a video, by its name."""
        return bool(self.pictures) and is_video(self.picture)

    def begin(self, *, new: bool) -> None:
        """Before a prediction: of a `new` file, which ends the running one, or with other settings."""
        if new or self._cancelled == self._wanted:
            self._wanted += 1

    @property
    def run(self) -> int:
        """Number of the newest run, for `check_cancelled`."""
        return self._wanted

    def cancel(self) -> None:
        """Stop the newest run: a video at its next frame."""
        self._cancelled = self._wanted

    def check_cancelled(self, run: int) -> None:
        """Raises Cancelled after `cancel`, or Replaced once another file was given or the session ended."""
        if self.ended or run != self._wanted:
            raise Replaced
        if run == self._cancelled:
            raise Cancelled

    def _folder_to_show(self) -> Path:
        out = self._new_folder()
        self._shown.append(out)
        while len(self._shown) > 3:  # the browser may still be loading the last ones
            shutil.rmtree(self._shown.pop(0), ignore_errors=True)
        return out

    def thumbnails(self) -> list[tuple[Image.Image, str]]:
        """Thumbnail and name of each file."""
        return [(thumbnail(path), path.name) for path in self.pictures]

    def _new_folder(self) -> Path:
        self._count += 1
        folder = self.folder / f"{self._count}-{secrets.token_hex(8)}"
        folder.mkdir()
        return folder


class Sessions:
    """The open sessions, by the key of their browser session."""

    def __init__(self, folder: Path) -> None:
        """folder: in which each session gets a folder with an unguessable name."""
        self._folder = folder
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._sessions)

    def of(self, key: str) -> Session:
        """The session of that key, opened if needed."""
        with self._lock:
            if key not in self._sessions:
                self._sessions[key] = Session(self._folder / secrets.token_hex(16))
            self._sessions[key].used = time.monotonic()
            return self._sessions[key]

    def end_idle(self) -> None:
        """End sessions without use for an hour."""
        with self._lock:
            for key, session in list(self._sessions.items()):
                if time.monotonic() - session.used > IDLE:
                    self._end(key)

    def end(self, key: str) -> None:
        """End a session and delete its files; without effect if there is none."""
        with self._lock:
            self._end(key)

    def _end(self, key: str) -> None:
        session = self._sessions.pop(key, None)
        if session is not None:
            session.ended = True
            shutil.rmtree(session.folder, ignore_errors=True)


def joined(first: Humans, second: Humans) -> Humans:
    """The people of both, who are of the same image, nearest first."""
    return Humans.concatenate([first, second]).nearest_first()


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its name."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def remaining_time(elapsed: float, done: float) -> str:
    """ ", about 2:05 left" after so many seconds for the share `done`; "" while it cannot be estimated."""
    if elapsed < 1 or done < 0.01:
        return ""
    seconds = round(elapsed * (1 - done) / done)
    return f", about {seconds // 60}:{seconds % 60:02d} left"


def age_word(age: float) -> str:
    """Anny's phenotype in [0, 1] as a word: 0 is a baby, 1/3 a child, 2/3 a young adult, 1 an old person."""
    return next(word for limit, word in _AGES if age < limit)


def summary(shown: Shown) -> str:
    """Number of people, and the camera, in one sentence."""
    humans = shown.humans
    people = {0: "No people found", 1: "1 person found"}.get(len(humans), f"{len(humans)} people found")
    if shown.video is not None:
        frames, number = len(shown.video.people), len(shown.video.who(shown.threshold))
        people = f"{frames} {'frame' if frames == 1 else 'frames'}"
        people += f"{' (the first; the rest was left out)' if shown.video.cut else ''}, "
        people += f"{number or 'no'} {'person' if number == 1 else 'people'}"
        people += " in all; below, one frame in 3D" if number else ""
    return f"{people}. Field of view {field_of_view(humans):.0f}°, {_CAMERAS[humans.K_source]}."


def field_of_view(humans: Humans) -> float:
    """Field of view over the longer side of the picture [degrees]."""
    height, width = humans.image_size
    side, focal = (width, humans.K[0, 0]) if width >= height else (height, humans.K[1, 1])
    return math.degrees(2 * math.atan(side / (2 * float(focal))))


def people_table(humans: Humans, heights: np.ndarray) -> str:
    """HTML table of people with their colour in the drawings; people of videos by their track id."""
    if not len(humans):
        return ""
    numbers = range(1, len(humans) + 1) if humans.track_ids is None else humans.track_ids.tolist()
    names = humans.topology.shape_names
    rows = []
    for i, (score, distance, color) in enumerate(
        zip(humans.scores, humans.distances, humans.colors, strict=True)
    ):
        age = "–"
        if "age" in names:
            value = float(humans.shape[i, names.index("age")])
            age = f"{age_word(value)} <small>{value:.2f}</small>"
        swatch = f'<i style="background: rgb({color[0]}, {color[1]}, {color[2]})"></i>'
        cells = (f"{swatch}{numbers[i]}", f"{distance:.2f} m", f"{heights[i]:.2f} m", age, f"{score:.2f}")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    heads = {
        "Person": "nearest first",
        "Distance": "from the camera to the head",
        "Height": "standing upright, from sole to crown",
        "Age": "phenotype of the body: 0 baby, 0.33 child, 0.67 adult, 1 old",
        "Score": "confidence of the detection, 0 to 1",
    }
    head = "".join(f'<th title="{html.escape(text)}">{name}</th>' for name, text in heads.items())
    return f'<table class="people"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _write(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path, quality=92)
    return path


def thumbnail(path: Path) -> Image.Image:
    """Thumbnail of at most 160 pixels per side; grey for unreadable files."""
    try:
        if is_video(path):
            photo = next(iter(open_video(path))).image
        else:
            photo = load_image(path)
        picture = Image.fromarray(photo.pixels)
    except (ValueError, OSError, ImportError, StopIteration):
        return Image.new("RGB", (160, 120), (200, 200, 200))
    picture.thumbnail((160, 160))
    return picture
