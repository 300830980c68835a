"""Figures on photographs with labelled people, worked out by hand, and files that are in another format."""

from __future__ import annotations

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from multihmr.cli import main as cli
from multihmr.evaluation.photographs.measures import (
    SIGMAS,
    Detections,
    average_precision,
    joint_shares,
    match_photograph,
    on_ignored,
    torso_length,
)
from multihmr.evaluation.photographs.reader import (
    POINTS,
    LabelledPerson,
    find_annotations,
    read_photographs,
)
from multihmr.evaluation.photographs.run import LOW_THRESHOLD, data_name, measure_photographs
from multihmr.evaluation.runner import Plan, Protocol

AREA = 5000.0
# A person of 100 x 200 pixels; the torso's diagonals have 100 pixels: 60 across, 80 down.
PERSON = np.array(
    [
        *[(50, 10), (55, 5), (45, 5), (60, 10), (40, 10)],  # nose, eyes, ears
        *[(80, 40), (20, 40), (95, 80), (5, 80), (100, 110), (0, 110)],  # shoulders, elbows, wrists
        *[(80, 120), (20, 120), (80, 160), (20, 160), (80, 200), (20, 200)],  # hips, knees, ankles
    ],
    float,
)


def person(x: float = 0, y: float = 0, **options: Any) -> LabelledPerson:
    return LabelledPerson(PERSON + (x, y), np.array([x, y, 100, 200.0]), AREA, **options)


def detected(*people: tuple[float, float, float]) -> Detections:
    """Of people at (x, y) with a score."""
    places = np.reshape([p[:2] for p in people], (-1, 1, 2))
    boxes = np.concatenate([places[:, 0], np.tile([100.0, 200.0], (len(people), 1))], axis=1)
    return Detections(PERSON + places, boxes, np.array([p[2] for p in people]))


def oks_of_shift(distance: float) -> float:
    """OKS of PERSON where every point is this far off, by its definition."""
    terms = [math.exp(-(distance**2) / (2 * AREA * (2 * sigma) ** 2)) for sigma in SIGMAS]
    return sum(terms) / 17


# --- matching ----------------------------------------------------------------------------------------------


def test_each_person_is_found_once_by_the_surest_detection() -> None:
    match = match_photograph(detected((0, 0, 0.6), (2, 0, 0.9), (500, 0, 0.5)), [person(), person(300)])
    assert match.pairs == [(0, 0)]  # detections by falling score: 0 is the one at x = 2
    assert match.false == [1, 2]  # the second one of the same person, and the one of nobody
    assert (match.counts.found, match.counts.missed, match.counts.false) == (1, 1, 2)
    assert (match.counts.precision, match.counts.recall, match.counts.f1) == (1 / 3, 1 / 2, 2 / 5)


@pytest.mark.parametrize(
    ("points_off", "box_off", "found"),
    [
        (0, 1000, True),  # the points alone
        (1000, 0, True),  # the box alone
        (1000, 33, True),  # 67 of 133 columns: IoU .504
        (1000, 34, False),  # 66 of 134: IoU .493
        (1000, 1000, False),
    ],
)
def test_a_detection_is_right_by_its_points_or_by_its_box(
    points_off: float, box_off: float, found: bool
) -> None:
    one = detected((0, 0, 1))
    moved = Detections(one.xy + points_off, one.boxes + [[box_off, 0, 0, 0]], one.scores)
    assert match_photograph(moved, [person()]).counts.found == int(found)


def test_points_fit_down_to_an_oks_of_three_tenths() -> None:
    far = next(d for d in range(1, 100) if oks_of_shift(d) < 0.3)
    assert oks_of_shift(far - 1) >= 0.3
    for distance, found in ((far - 1, 1), (far, 0)):
        one = detected((distance, 0, 1))
        elsewhere = Detections(one.xy, one.boxes + [[1000, 0, 0, 0]], one.scores)
        assert match_photograph(elsewhere, [person()]).counts.found == found


def test_detections_of_people_who_need_not_be_found_are_not_false() -> None:
    crowd = LabelledPerson(np.full((17, 2), np.nan), np.array([400, 0, 400, 200.0]), 1000.0, True, True)
    few = LabelledPerson(np.full((17, 2), np.nan), np.array([0, 0, 40, 100.0]), 1000.0, False, True)
    found = detected((500, 0, 1), (0, 0, 0.9), (340, 0, 0.8), (751, 0, 0.7))
    # inside the crowd; around the partly labelled person; 40 of 100 columns, and 49 of 100, in the crowd
    assert on_ignored(found, [crowd, few]).tolist() == [True, True, False, False]
    counts = match_photograph(found, [crowd, few]).counts
    assert (counts.found, counts.missed, counts.false, counts.ignored) == (0, 0, 2, 2)


# --- average precision -------------------------------------------------------------------------------------


def test_average_precision_of_three_detections_of_two_people() -> None:
    """Right, wrong, right by falling score: precision 1 up to a recall of a half, then 2/3."""
    photographs = [
        (detected((0, 0, 0.9), (500, 500, 0.8)), [person()]),
        (detected((0, 0, 0.7)), [person()]),
    ]
    expected = (51 * 1 + 50 * 2 / 3) / 101  # recalls 0 to .5, then .51 to 1
    figures = average_precision(photographs)
    assert figures == {"ap50": pytest.approx(expected), "ap": pytest.approx(expected)}


def test_average_precision_over_oks_counts_the_thresholds_that_are_reached() -> None:
    off = next(d for d in np.arange(0, 50, 0.1) if oks_of_shift(d) < 0.73)  # reaches .5 to .7 of ten
    figures = average_precision([(detected((off, 0, 1)), [person()])])
    assert figures == {"ap50": pytest.approx(1), "ap": pytest.approx(0.5)}


def test_a_detection_of_a_crowd_does_not_lower_average_precision() -> None:
    crowd = LabelledPerson(np.full((17, 2), np.nan), np.array([400, 0, 400, 200.0]), 1000.0, True, True)
    figures = average_precision([(detected((500, 0, 1), (0, 0, 0.5)), [person(), crowd])])
    assert figures["ap50"] == pytest.approx(1)
    assert math.isnan(average_precision([(detected((0, 0, 1)), [crowd])])["ap"])


# --- joints ------------------------------------------------------------------------------------------------


def test_shares_of_joints_within_a_tenth_and_a_fifth_of_the_torso() -> None:
    assert torso_length(person()) == pytest.approx(100)
    xy = PERSON.copy()
    xy[POINTS.index("left_wrist")] += (0, 15)
    xy[POINTS.index("right_knee")] += (25, 0)
    xy[POINTS.index("nose")] += (6, 8)  # 10 pixels: just within
    labelled = person()
    labelled.xy[POINTS.index("left_ear")] = np.nan  # not labelled, not counted
    found = Detections(xy[None], np.array([[0, 0, 100, 200.0]]), np.ones(1))
    shares = joint_shares(match_photograph(found, [labelled]).distances)
    assert shares["head"] == {"pck_0.1": 1, "pck_0.2": 1, "joints": 4}
    assert shares["torso"] == {"pck_0.1": 1, "pck_0.2": 1, "joints": 4}
    assert shares["arms"] == {"pck_0.1": 0.75, "pck_0.2": 1, "joints": 4}
    assert shares["legs"] == {"pck_0.1": 0.75, "pck_0.2": 0.75, "joints": 4}
    assert shares["all"] == {"pck_0.1": 14 / 16, "pck_0.2": 15 / 16, "joints": 16}


def test_without_a_labelled_torso_its_length_follows_from_the_box() -> None:
    unknown = person()
    unknown.xy[11:13] = np.nan
    assert torso_length(unknown) == pytest.approx(0.45 * 200)
    seen_from_above = person()
    seen_from_above.xy[11:13] = seen_from_above.xy[[6, 5]] + (1, 0)
    assert torso_length(seen_from_above) == pytest.approx(0.2 * 200)


# --- files and runs ----------------------------------------------------------------------------------------


class StubModel:
    """Predicts, from a table by file name, the people (x, y, score) at or above a threshold."""

    threshold = 0.5

    def __init__(self, people: dict[str, list[tuple[float, float, float]]]) -> None:
        self.people, self.asked = people, []

    def predict_batch(self, paths: list[Path], *, threshold: float, **options: Any) -> list[Any]:
        self.asked += [(path.name, threshold) for path in paths]
        self.options = options
        if any(path.read_bytes()[-2:] != b"\xff\xd9" for path in paths):
            raise ValueError("a picture is cut short")
        return [self._humans([p for p in self.people[path.name] if p[2] >= threshold]) for path in paths]

    def _humans(self, people: list[tuple[float, float, float]]) -> Any:
        found = detected(*people)
        corners = np.concatenate([found.boxes[:, :2], found.boxes[:, :2] + found.boxes[:, 2:]], axis=1)
        return _Humans(found.xy, corners, found.scores)


class _Humans:
    def __init__(self, xy: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> None:
        self.xy, self.boxes, self.scores = xy, boxes, scores

    def __len__(self) -> int:
        return len(self.scores)

    def keypoints(self, name: str) -> Any:
        assert name == "coco17"
        return SimpleNamespace(xy=self.xy)


PEOPLE = {
    "two.jpg": [(1, 0, 0.9), (200, 0, 0.3)],
    "one.jpg": [(0, 0, 0.8), (400, 200, 0.6)],
    "empty.jpg": [(0, 0, 0.7), (100, 0, 0.2)],
    "clear.jpg": [(0, 0, 0.4)],
}


def annotation(number: int, image: int, x: float = 0, **other: Any) -> dict[str, Any]:
    keypoints = [value for px, py in PERSON + (x, 0) for value in (px, py, 2)]
    return {"id": number, "image_id": image, "category_id": 1, "bbox": [x, 0, 100, 200], "area": AREA,
            "iscrowd": 0, "keypoints": keypoints} | other  # fmt: skip


@pytest.fixture
def coco(tmp_path: Path) -> Path:
    """A folder in COCO's format: two pictures with people (2 and 1), two without."""
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    (folder / "images").mkdir()
    images = []
    for number, name in enumerate(PEOPLE):
        Image.new("RGB", (640, 480)).save(folder / "images" / name)
        images.append({"id": number, "file_name": name, "width": 640, "height": 480})
    content = {
        "images": images,
        "categories": [{"id": 1, "name": "person", "keypoints": list(POINTS)}, {"id": 3, "name": "car"}],
        "annotations": [
            annotation(0, 0), annotation(1, 0, 200), annotation(2, 1),
            annotation(3, 2, category_id=3),
        ],
    }  # fmt: skip
    write(folder, content)
    return folder


def write(folder: Path, content: Any) -> None:
    (folder / "annotations/person_keypoints_default.json").write_text(json.dumps(content), encoding="utf-8")


def content_of(folder: Path) -> Any:
    return json.loads((folder / "annotations/person_keypoints_default.json").read_text(encoding="utf-8"))


def measured(folder: Path, model: Any = None, out: Path | None = None, **options: Any) -> Any:
    plan = Plan(f"coco@{folder}", protocol=Protocol(**options))
    return measure_photographs(model or StubModel(PEOPLE), plan, out=out)


def test_figures_of_four_photographs(coco: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = measured(coco, out=out)
    figures = result.figures
    # at .5: found in two.jpg and one.jpg, one of two missed, one false in one.jpg
    assert (figures.counts.found, figures.counts.missed, figures.counts.false) == (2, 1, 1)
    assert figures.counts.f1 == pytest.approx(2 / 3)
    # by score right .9, right .8, wrong .6 and, from the low threshold, right .3: recalls 1/3, 2/3, 1
    assert figures.ap["ap50"] == pytest.approx((67 + 34 * 3 / 4) / 101)
    assert figures.ap_at_threshold["ap50"] == pytest.approx(67 / 101)
    assert figures.joints["all"] == {"pck_0.1": 1, "pck_0.2": 1, "joints": 34}
    assert (result.without_people, figures.false_without_people, figures.any_without_people) == (2, 1, 1)
    assert result.skipped == {"annotation of something else than a person": 1}
    stored = json.loads((out / "result.json").read_text(encoding="utf-8"))
    assert stored["figures"]["f1"] == pytest.approx(2 / 3)
    assert stored["threshold"] == 0.5
    assert len(stored["settings"]["weights"]) == len(stored["settings"]["data_fingerprint"]) == 16
    assert "| 1 in 1 of 2 |" in (out / "table.md").read_text(encoding="utf-8")
    assert len((out / "pictures.csv").read_text(encoding="utf-8").splitlines()) == 5


def test_a_run_goes_on_with_what_is_missing_and_refuses_other_data(coco: Path, tmp_path: Path) -> None:
    first, again = StubModel(PEOPLE), StubModel(PEOPLE)
    before = measured(coco, first, tmp_path / "out").figures
    lines = (tmp_path / "out/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "out/predictions.jsonl").write_text("\n".join(lines[:3]) + "\n" + lines[3][:20], "utf-8")
    assert measured(coco, again, tmp_path / "out").figures == before
    assert again.asked == [("clear.jpg", 0.5), ("clear.jpg", LOW_THRESHOLD)]
    write(coco, content_of(coco) | {"annotations": []})
    with pytest.raises(ValueError, match="holds another evaluation"):
        measured(coco, again, tmp_path / "out")


def test_options_of_prediction_reach_the_model(coco: Path) -> None:
    model = StubModel(PEOPLE)
    measured(coco, model, threshold=0.2, tiles=2, flip_test=True, any_rotation=True, closeups=False,
             hands_and_faces=True)  # fmt: skip
    assert model.options == {"tiles": 2, "flip_test": True, "any_rotation": True, "closeups": False,
                             "hands_and_faces": True, "batch_size": 8}  # fmt: skip
    assert {threshold for _, threshold in model.asked} == {0.2, LOW_THRESHOLD}


def test_pictures_and_people_that_cannot_be_used_are_counted_by_reason(coco: Path) -> None:
    (coco / "images/clear.jpg").unlink()
    cut = coco / "images/empty.jpg"
    cut.write_bytes(cut.read_bytes()[:-40])
    content = content_of(coco)
    content["annotations"][1]["keypoints"] = [1, 2, 2] * 5
    content["annotations"].append(annotation(9, 77))
    write(coco, content)
    result = measured(coco)
    assert result.skipped == {
        "picture file missing": 1,
        "picture that cannot be read": 1,
        "annotation of something else than a person": 1,
        "keypoints are not 17 times x, y, v: the person is ignored": 1,
        "annotation of a picture that is not listed": 1,
    }
    assert (result.figures.counts.missed, result.figures.counts.ignored) == (0, 1)


def test_points_in_another_order_and_people_with_few_points(coco: Path) -> None:
    content = content_of(coco)
    names = [*POINTS[1:], POINTS[0]]
    content["categories"][0]["keypoints"] = names
    rows = np.array(content["annotations"][0]["keypoints"]).reshape(17, 3)
    rows[5:] = 0
    moved = [rows[POINTS.index(name)] for name in names]
    content["annotations"] = [content["annotations"][0] | {"keypoints": np.concatenate(moved).tolist()}]
    write(coco, content)
    (first,) = read_photographs(coco / "annotations/person_keypoints_default.json").photographs[0].people
    np.testing.assert_array_equal(first.xy[:5], PERSON[:5])
    assert np.isnan(first.xy[5:]).all()
    assert not first.ignored
    rows[2:] = 0
    content["annotations"][0]["keypoints"] = [v for name in names for v in rows[POINTS.index(name)].tolist()]
    write(coco, content)
    (first,) = read_photographs(coco / "annotations/person_keypoints_default.json").photographs[0].people
    assert first.ignored


def test_labels_of_the_stored_picture_are_turned_with_it(coco: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: upright it is 480 wide and 640 high
    Image.new("RGB", (640, 480)).save(coco / "images/one.jpg", exif=exif)
    (turned,) = read_photographs(coco / "annotations/person_keypoints_default.json").photographs[1].people
    np.testing.assert_allclose(turned.box, [480 - 200, 0, 200, 100])
    np.testing.assert_allclose(turned.xy[0], [480 - 1 - 10, 50])  # of the stored pixel (50, 10)


def test_labels_that_say_upright_are_of_the_picture_as_it_is_read(coco: Path) -> None:
    """As files of this package do; of a square picture nothing else tells."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (640, 640)).save(coco / "images/one.jpg", exif=exif)
    content = content_of(coco)
    content["images"] = [image | {"width": 640, "height": 640} for image in content["images"]]
    file = coco / "annotations/person_keypoints_default.json"
    one = next(image for image in content["images"] if image["file_name"].endswith("one.jpg"))
    write(coco, content | {"images": [one]})
    said = r"none of the 1 pictures .* picture with an EXIF orientation .* \(1\)$"
    with pytest.raises(ValueError, match=said):
        read_photographs(file)
    write(coco, content | {"images": [one | {"upright": True}]})
    (photograph,) = read_photographs(file).photographs
    np.testing.assert_allclose(photograph.people[0].box, [0, 0, 100, 200])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, "it has no list 'images'"),
        ({"annotations": {}}, "it has no list 'annotations'"),
        ({"images": []}, "has no images to measure on"),
        ({"images": [{"id": 1}]}, "every image needs an id and a file_name"),
        ({"images": [{"id": 1, "file_name": "x.jpg"}]}, "none of the 1 pictures .* can be used: .* x.jpg"),
        ({"categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}]}, "COCO's 17 points"),
    ],
)
def test_another_format_is_one_sentence(coco: Path, change: Any, message: str) -> None:
    write(coco, content_of(coco) | change)
    with pytest.raises(ValueError, match=message) as caught:
        measured(coco)
    assert "\n" not in str(caught.value)


def test_sources_of_photographs(coco: Path, tmp_path: Path) -> None:
    file = coco / "annotations/person_keypoints_default.json"
    for data in (f"coco@{coco}", f"coco-default@{coco}", f"coco@{file}", str(coco), str(file)):
        assert find_annotations(data) == file
        assert data_name(data) in ("coco", "default")
    assert find_annotations("synth-test") is None
    assert find_annotations(str(tmp_path)) is None
    file.with_name("person_keypoints_val2017.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match="splits default, val2017; choose one, as in coco-SPLIT@"):
        find_annotations(f"coco@{coco}")
    with pytest.raises(FileNotFoundError, match="has no annotations/person_keypoints_train"):
        find_annotations(f"coco-train@{coco}")
    with pytest.raises(FileNotFoundError, match="no folder or COCO file nowhere"):
        find_annotations("coco@nowhere")
    file.write_text("[", encoding="utf-8")
    with pytest.raises(ValueError, match="is no JSON"):
        read_photographs(file)


@pytest.mark.slow
def test_the_command_prints_and_stores_the_figures(
    coco: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["evaluate", "--data", f"coco@{coco}", "--count", "2", "--out", str(tmp_path / "out"),
                "--any-rotation", "--no-closeups"]) == 0  # fmt: skip
    assert "2 photographs with labelled people (0 found, 3 missed" in capsys.readouterr().out
    (stored,) = json.loads((tmp_path / "out/results.json").read_text(encoding="utf-8"))
    assert stored["settings"]["protocol"]["any_rotation"]
    assert not stored["settings"]["protocol"]["closeups"]
    assert stored["figures"]["recall"] == 0
