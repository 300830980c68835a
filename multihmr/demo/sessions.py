"""What the page keeps of each visitor: pictures, the people in them, files to show. It knows no browser.

Everything of a visitor lies in one folder and one `Visit`; both go when the visit ends, or after an hour
without a sign of life. Nobody reaches the visit of another.
"""

from __future__ import annotations

import dataclasses
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
import torch
from PIL import Image

from ..hub.releases import DEFAULT, RELEASES, find_release
from ..humans import Humans
from ..model import load_model
from ..preprocessing.image import load_image
from ..storage.paths import cache_folder
from ..video.reader import open_video
from ..visualization.draw import draw, draw_plan
from .video import SUFFIXES as VIDEO_SUFFIXES
from .video import Film, Progress, watch, write_files

if TYPE_CHECKING:
    from ..bodies.base import Body
    from ..model import Model

LEAST_SCORE = 0.1  # below it people are mostly noise
MOST_PEOPLE = 60
MOST_PICTURES = 12
IDLE = 3600.0  # seconds
OVERLAY_SIDE = 1600  # pixels
PLAN_SIZE = (720, 480)  # pixels, width and height

_AGES = ((1 / 6, "baby"), (1 / 2, "child"), (5 / 6, "adult"), (math.inf, "old"))  # middles of Anny's anchors
_CAMERAS = {
    "given": "as you set it",
    "exif": "told by the picture's EXIF data",
    "predicted": "estimated by the network",
    "assumed": "assumed",
}


class Models:
    """The models that the page offers, loaded when asked for; the two used last stay in memory."""

    def __init__(
        self, first: str | None = None, *, device: str | None = None, smplx: str | None = None
    ) -> None:
        """first: a release, path or "hf:owner/repo" to start with; the rest as `load_model` takes it."""
        release = RELEASES[DEFAULT] if first is None else find_release(first)
        self.first = release.name if release else str(first)
        self.names = list(dict.fromkeys([self.first, *RELEASES]))
        self._options: dict[str, Any] = {"device": device, "smplx": smplx}
        self._loaded: OrderedDict[str, Model] = OrderedDict()
        self._lock = threading.Lock()

    def load(self, name: str) -> Model:
        """One of `names`; ValueError for any other, else what `load_model` raises."""
        if name not in self.names:  # a browser may send anything, but must not open any file
            raise ValueError(f"no model {name!r} on this page; it offers {', '.join(self.names)}")
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = load_model(name, **self._options)
            self._loaded.move_to_end(name)
            while len(self._loaded) > 2:
                self._loaded.popitem(last=False)
            return self._loaded[name]

    def licence_note(self, name: str) -> str:
        """Markdown: under which licences the people are that this model finds, and what is fetched for it."""
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
    """What the page shows of one picture: people, what they are drawn into, and the files to take away."""

    humans: Humans
    heights: np.ndarray
    overlay: Path
    side: Path
    above: Path
    glb: Path | None  # None: nobody is there
    take_away: tuple[Path | None, ...]  # overlay, GLB, NPZ, JSON
    film: Film | None = None  # of videos, whose overlay moves


class Look(NamedTuple):
    """How the network is to look: `fov` and `tiles` of `Model.predict`."""

    fov: float | None = None
    tiles: int = 1


@dataclass
class _Found:
    """The people of one picture, seen by one model in one way: as it finds them, and fainter ones."""

    humans: Humans
    threshold: float
    fainter: Humans | None = None


class Visit:
    """One visitor: pictures in a folder of their own, one of them chosen, and what was found in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pictures: list[Path] = []
        self.chosen = 0
        self.seen = time.monotonic()
        self.lock = threading.RLock()
        self._found: dict[tuple[Path, str, Look], _Found] = {}
        self._films: dict[tuple[Path, str, Look], Film] = {}
        self._shown: list[Path] = []
        self._count = 0
        folder.mkdir(mode=0o700)

    def take(self, files: Sequence[Path], *, keep: bool = False) -> None:
        """These pictures instead of those before; the files move here, or are copied with `keep`.

        The first is chosen. ValueError: there are too many, or one is gone.
        """
        if len(files) > MOST_PICTURES:
            for file in [] if keep else files:
                file.unlink(missing_ok=True)
            raise ValueError(f"{len(files)} files are too many at once; give at most {MOST_PICTURES}")
        self.forget()
        for file in dict.fromkeys(files):
            into = self._new_folder() / file.name
            try:
                shutil.copyfile(file, into) if keep else shutil.move(file, into)
            except FileNotFoundError:
                raise ValueError(f"{file.name} did not arrive whole; give it again") from None
            self.pictures.append(into)
            if not keep and not any(file.parent.iterdir()):
                file.parent.rmdir()  # each upload has a folder of its own

    def forget(self) -> None:
        """Delete every file and all that was found."""
        self.pictures, self.chosen = [], 0
        self._found, self._films, self._shown = {}, {}, []
        for path in self.folder.iterdir():
            shutil.rmtree(path, ignore_errors=True)

    @property
    def picture(self) -> Path:
        """The chosen one; ValueError if there is none, as after a long pause."""
        if not self.pictures:
            raise ValueError(
                "There is no picture: give one first. After an hour without use they are deleted."
            )
        return self.pictures[min(self.chosen, len(self.pictures) - 1)]

    def people(self, models: Models, name: str, *, threshold: float | None, look: Look) -> Humans:
        """Those in the chosen picture who score at least `threshold`; None takes the model's own.

        The network runs once for a picture, a model and a way to look; and once more when the threshold first
        goes below the model's own. People look at each other in the network, so that a run that lets more of
        them in moves the others (by 0.14 to 0.17 m in examples/images/astronaut.jpg); here those that the
        model finds by itself stay where they are, and those who score less join them.
        `predict(threshold=...)` instead runs the network anew.
        """
        model = models.load(name)
        key = (self.picture, name, look)
        options: dict[str, Any] = {**look._asdict(), "max_people": MOST_PEOPLE}
        if key not in self._found:
            humans = model.predict(self.picture, **options)
            self._found[key] = _Found(humans, model.threshold)
        found = self._found[key]
        if threshold is None or threshold == found.threshold:
            return found.humans
        if threshold > found.threshold:
            return found.humans[found.humans.scores >= threshold]
        if found.fainter is None:
            more = model.predict(self.picture, threshold=LEAST_SCORE, **options)
            found.fainter = more[more.scores < found.threshold]
        return joined(found.humans, found.fainter[found.fainter.scores >= threshold])

    def film(self, models: Models, name: str, *, look: Look, progress: Progress) -> Film:
        """Who is in the chosen video, at which the network looks once for a model and a way to look."""
        key = (self.picture, name, look)
        if key not in self._films:
            film = watch(self.picture, models.load(name), progress=progress, **look._asdict())
            self._films = {key: film}
        return self._films[key]

    def show(self, humans: Humans, body: Body) -> Shown:
        """Draw and write these people of the chosen picture, into a new folder of the visit."""
        out = self._folder_to_show()
        photo = load_image(self.picture)
        overlay = draw(humans, photo, side_views=False, max_side=OVERLAY_SIDE)
        written = _write(overlay, out / f"{self.picture.stem}_overlay.jpg")
        return self._shown_in(out, humans, body, written)

    def show_film(self, film: Film, body: Body, *, threshold: float, frame: int, progress: Progress) -> Shown:
        """One frame of the chosen video in 3D, and the files of all of it.

        People are those whose best score reaches the threshold.
        """
        who = film.who(threshold)
        if who not in film.files:
            files = write_files(film, who, body, self._new_folder(), progress)
        files = film.files[who]
        shown = self._shown_in(self._folder_to_show(), film.at(frame, who, body), body, files.overlay)
        shown.film, shown.take_away = film, (files.overlay, files.glb, files.npz, shown.take_away[-1])
        return shown

    def _shown_in(self, out: Path, humans: Humans, body: Body, overlay: Path) -> Shown:
        stem = self.picture.stem
        side = _write(draw_plan(humans, PLAN_SIZE, seen_from="side"), out / f"{stem}_side.png")
        above = _write(draw_plan(humans, PLAN_SIZE, seen_from="above"), out / f"{stem}_above.png")
        npz, numbers = (humans.save(out / f"{stem}{suffix}") for suffix in (".npz", ".json"))
        glb = humans.save(out / f"{stem}.glb") if len(humans) else None
        shown = Shown(humans, heights(humans, body), overlay, side, above, glb, (overlay, glb, npz, numbers))
        return shown

    @property
    def is_video(self) -> bool:
        """Whether the chosen file is called like one."""
        return self.picture.suffix.lower() in VIDEO_SUFFIXES

    def _folder_to_show(self) -> Path:
        out = self._new_folder()
        self._shown.append(out)
        while len(self._shown) > 3:  # the browser may still be fetching what it was shown last
            shutil.rmtree(self._shown.pop(0), ignore_errors=True)
        return out

    def thumbnails(self) -> list[tuple[Image.Image, str]]:
        """A small picture and the name of each."""
        return [(thumbnail(path), path.name) for path in self.pictures]

    def _new_folder(self) -> Path:
        self._count += 1
        folder = self.folder / f"{self._count}-{secrets.token_hex(8)}"
        folder.mkdir()
        return folder


class Visits:
    """The visits that go on now, each under the key that its browser session has."""

    def __init__(self, folder: Path) -> None:
        """folder: where each visit gets a folder with a name that cannot be guessed."""
        self._folder = folder
        self._visits: dict[str, Visit] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._visits)

    def of(self, key: str) -> Visit:
        """The visit of that key, begun if need be."""
        with self._lock:
            if key not in self._visits:
                self._visits[key] = Visit(self._folder / secrets.token_hex(16))
            self._visits[key].seen = time.monotonic()
            return self._visits[key]

    def end_idle(self) -> None:
        """End those that nobody has used for an hour."""
        with self._lock:
            for key, visit in list(self._visits.items()):
                if time.monotonic() - visit.seen > IDLE:
                    self._end(key)

    def end(self, key: str) -> None:
        """Forget the visit and delete its files; nothing if there is none."""
        with self._lock:
            self._end(key)

    def _end(self, key: str) -> None:
        visit = self._visits.pop(key, None)
        if visit is not None:
            shutil.rmtree(visit.folder, ignore_errors=True)


def joined(first: Humans, second: Humans) -> Humans:
    """The people of both, who are of the same picture, nearest first."""
    count = len(first)
    both: dict[str, Any] = {}
    for field in dataclasses.fields(Humans):
        mine = getattr(first, field.name)
        if isinstance(mine, np.ndarray) and field.name != "K" and mine.shape[:1] == (count,):
            both[field.name] = np.concatenate([mine, getattr(second, field.name)])
    people = dataclasses.replace(first, **both)
    return people[np.argsort(people.translation[:, 2], kind="stable")]


def heights(humans: Humans, body: Body) -> np.ndarray:
    """(N,) from sole to crown [m], of the body that stands upright with this shape."""
    if not len(humans):
        return np.zeros(0, np.float32)
    with torch.inference_mode():
        device = body.mean_shape_S.device
        pose = body.mean_pose_R33.expand(len(humans), -1, -1, -1)
        shape = torch.tensor(humans.shape, device=device)
        upright = body(pose, shape, shape.new_zeros(len(humans), body.expression_count))
        points = upright.vertices_PV3[:, np.unique(humans.topology.faces)]
        return (points[..., 1].amax(1) - points[..., 1].amin(1)).cpu().numpy()


def age_word(age: float) -> str:
    """Anny's phenotype in [0, 1] as a word: 0 is a baby, 1/3 a child, 2/3 a young adult, 1 an old person."""
    return next(word for limit, word in _AGES if age < limit)


def summary(shown: Shown) -> str:
    """How many people, and by which camera."""
    humans = shown.humans
    people = {0: "Nobody found", 1: "1 person found"}.get(len(humans), f"{len(humans)} people found")
    hint = "" if len(humans) else "; a lower threshold shows fainter ones, a closer look small ones"
    if shown.film is not None:
        frames = len(shown.film.people)
        number = len(shown.film.who(0.0))
        people = (
            f"{frames} frames{' (the first, the rest was left out)' if shown.film.cut else ''}, {number} "
        )
        people += f"{'person' if number == 1 else 'people'} in all; below, one frame in 3D"
        hint = ""
    return f"{people}{hint}. Field of view {field_of_view(humans):.0f}°, {_CAMERAS[humans.K_source]}."


def field_of_view(humans: Humans) -> float:
    """Degrees over the longer side of the picture."""
    height, width = humans.image_size
    side, focal = (width, humans.K[0, 0]) if width >= height else (height, humans.K[1, 1])
    return math.degrees(2 * math.atan(side / (2 * float(focal))))


def people_table(humans: Humans, heights: np.ndarray) -> str:
    """HTML: a row for each person, in the colour of the drawings; people of videos by their number."""
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
        "Score": "how sure the network is, 0 to 1",
    }
    head = "".join(f'<th title="{html.escape(says)}">{name}</th>' for name, says in heads.items())
    return f'<table class="people"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _write(pixels: np.ndarray, path: Path) -> Path:
    Image.fromarray(pixels).save(path, quality=92)
    return path


def thumbnail(path: Path) -> Image.Image:
    """At most 160 pixels a side; grey for what is no picture."""
    try:
        if path.suffix.lower() in VIDEO_SUFFIXES:
            photo = next(iter(open_video(path))).image
        else:
            photo = load_image(path)
        picture = Image.fromarray(photo.pixels)
    except (ValueError, OSError, ImportError, StopIteration):
        return Image.new("RGB", (160, 120), (200, 200, 200))
    picture.thumbnail((160, 160))
    return picture
