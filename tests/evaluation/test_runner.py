"""Benchmarks on miniatures of toy bodies: the truth fed back, and errors planted whose size is known."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import roma
import torch

from multihmr.bodies.base import Body
from multihmr.cli import main as cli
from multihmr.data.sample import Sample
from multihmr.evaluation import data_fingerprint
from multihmr.evaluation import runner as suite
from multihmr.evaluation.benchmarks import BENCHMARKS
from multihmr.evaluation.correspondence import PANOPTIC_SHIFT
from multihmr.evaluation.evaluator import ERRORS
from multihmr.evaluation.results import BenchmarkResult, table
from multihmr.evaluation.runner import Plan, Protocol, measure
from multihmr.humans import Humans, project

from .conftest import HAND, ToyModel, people, scene

MESHES = [
    scene(0, [(0, 0, 3), (1.5, 0, 5)], "TS1/0"),
    scene(1, [], "TS1/1"),
    scene(2, [(-1, 0, 2.5)], "TS2/0"),
    scene(3, [(-2, 0, 6), (0, 0, 7), (2.5, 0, 9)], "TS2/1"),
]
Answer = Callable[[Sample], Humans]


def truth(body: Body) -> Answer:
    return lambda s: people(body, s.pose, s.shape, s.translation)


def points_only(body: Body, keypoint_set: str, shift: tuple[float, float, float] = (0, 0, 0)) -> list[Sample]:
    """The same people as a data set of joints knows them; all but the middle of the hips moved by `shift`."""
    samples = []
    for sample in MESHES:
        points = truth(body)(sample).keypoints(keypoint_set)
        move = np.array([[0.0] * 3 if name == "mid_hip" else shift for name in points.names], np.float32)
        known = {"keypoints_3d": points.xyz + move, "keypoints_2d": points.xy, "keypoint_set": keypoint_set}
        samples.append(replace(sample, pose=np.zeros((len(sample), 0, 3, 3), np.float32), **known))
    return samples


def move(humans: Humans, shift: tuple[float, float, float]) -> Humans:
    joints = humans.joints + np.float32(shift)
    return replace(
        humans,
        vertices=humans.vertices + np.float32(shift),
        joints=joints,
        joints_2d=project(joints, humans.K),
    )


def turn(humans: Humans, degrees: float) -> Humans:
    """Each person about the vertical through the pelvis."""
    R = roma.rotvec_to_rotmat(torch.tensor([0, math.radians(degrees), 0])).numpy()
    root = humans.joints[:, :1]
    joints = (humans.joints - root) @ R.T + root
    return replace(humans, joints=joints, vertices=(humans.vertices - root) @ R.T + root)


@pytest.fixture
def score(body: Body, monkeypatch: pytest.MonkeyPatch) -> Callable[..., BenchmarkResult]:
    """score(data, answer, samples=MESHES): a benchmark whose samples are these."""

    def run(
        data: str, answer: Answer, samples: list = MESHES, assets: Path | None = None, **options: Any
    ) -> BenchmarkResult:
        monkeypatch.setattr(suite, "open_samples", lambda *_: samples)
        model: Any = ToyModel(body, MESHES, lambda s: answer(s))
        return measure(model, Plan(data, protocol=Protocol(batch_size=3), assets=assets), **options)

    return run


def test_frames_of_sequences_have_motion_figures(score: Any, body: Body) -> None:
    frames = [replace(MESHES[0], name=f"film/{t:05}") for t in range(5)]
    figures = score("bedlam-val", lambda sample: truth(body)(MESHES[0]), frames).figures
    assert figures["acceleration_error"] == pytest.approx(0, abs=0.01)
    assert figures["true_jitter"] == pytest.approx(0, abs=0.01)
    assert "jitter" not in score("bedlam-val", truth(body)).figures


# --- meshes ------------------------------------------------------------------------------------------------


def test_the_truth_fed_back_is_perfect(score: Any, body: Body) -> None:
    result = score("bedlam-val", truth(body))
    figures = result.figures
    assert (figures["f1"], figures["precision"], figures["recall"]) == (1, 1, 1)
    measured = [name for name in ERRORS if not math.isnan(figures[name])]
    assert set(ERRORS) - set(measured) == {"pck", "auc", "pck_absolute"}
    assert max(figures[name] for name in measured) < 0.01
    assert figures["fb_pve"] < 0.01
    assert (result.images, result.counts.found, result.counts.missed) == (4, 6, 0)


def test_a_person_missing_costs_recall_and_nothing_else(score: Any, body: Body) -> None:
    result = score("agora-val", lambda s: truth(body)(s)[1:] if s.name == "TS2/1" else truth(body)(s))
    figures = result.figures
    assert figures["recall"] == pytest.approx(5 / 6)
    assert figures["precision"] == 1
    assert figures["f1"] == pytest.approx(10 / 11)
    assert figures["mpjpe"] < 0.01


def test_a_person_twice_costs_precision_and_nothing_else(score: Any, body: Body) -> None:
    figures = score("agora-val", lambda s: truth(body)(s)[[0, 0]] if len(s) == 1 else truth(body)(s)).figures
    assert figures["precision"] == pytest.approx(6 / 7)
    assert figures["recall"] == 1
    assert figures["f1"] == pytest.approx(12 / 13)
    assert figures["mpjpe"] < 0.01


def test_a_turn_by_ten_degrees_is_a_chord_of_each_radius(score: Any, body: Body) -> None:
    figures = score("bedlam-val", lambda s: turn(truth(body)(s), 10)).figures
    chords = {"mpjpe": [], "pve": []}
    for sample in MESHES:
        humans = truth(body)(sample)
        for person in range(len(humans)):
            for name, points in (("mpjpe", humans.joints[person, :22]), ("pve", humans.vertices[person])):
                away = (points - humans.joints[person, 0])[:, [0, 2]]
                chords[name].append(2000 * math.sin(math.radians(5)) * np.linalg.norm(away, axis=1).mean())
    for name, values in chords.items():
        assert figures[name] == pytest.approx(np.mean(values), rel=1e-4)
    assert figures["pa_mpjpe"] < 0.01
    assert figures["mrpe"] < 0.01


def test_a_shift_by_five_centimetres_is_one_of_the_place_alone(score: Any, body: Body) -> None:
    figures = score("bedlam-val", lambda s: move(truth(body)(s), (0.03, 0, 0.04))).figures
    for name in ("mrpe", "camera_mpjpe", "camera_pve"):
        assert figures[name] == pytest.approx(50, abs=0.01)
    assert figures["depth"] == pytest.approx(40, abs=0.01)
    for name in ("mpjpe", "pa_mpjpe", "pve", "pa_pve", "hand_pve", "face_pve"):
        assert figures[name] < 0.01


def test_hands_off_by_a_centimetre_are_errors_of_hands(score: Any, body: Body) -> None:
    def off(sample: Sample) -> Humans:
        humans = truth(body)(sample)
        vertices = humans.vertices.copy()
        vertices[:, HAND] += np.float32([0.01, 0, 0])  # left
        vertices[:, 5:10] -= np.float32([0, 0, 0.01])  # right
        return replace(humans, vertices=vertices)

    figures = score("ehf", off).figures
    assert figures["hand_pve"] == pytest.approx(10, abs=0.01)
    assert figures["pve"] == pytest.approx(10 * 10 / 20, abs=0.01)  # 10 of 20 vertices
    assert figures["fb_pve"] == pytest.approx(20 / 3, abs=0.01)
    for name in ("hand_pa_pve", "face_pve", "body_pve", "mpjpe"):
        assert figures[name] < 0.01


# --- joints ------------------------------------------------------------------------------------------------


def test_mupots_counts_all_people_and_those_matched(score: Any, body: Body) -> None:
    samples = points_only(body, "mupots17")
    assert score("mupots", truth(body), samples).figures["all_pck"] == 1
    missing = score("mupots", lambda s: truth(body)(s)[1:], samples).figures
    assert missing["pck"] == 1
    # TS1 has two people, one found; TS2 four, two found: the mean is over sequences
    assert missing["all_pck"] == missing["all_auc"] / missing["auc"] == (1 / 2 + 2 / 4) / 2


def test_mupots_forgives_the_size_and_not_the_place(score: Any, body: Body) -> None:
    samples = points_only(body, "mupots17")

    def larger(sample: Sample) -> Humans:
        humans = truth(body)(sample)
        root = humans.keypoints("mupots17").xyz[:, 14:15]
        return replace(
            humans, joints=1.1 * (humans.joints - root) + root, vertices=1.1 * (humans.vertices - root) + root
        )

    figures = score("mupots", larger, samples).figures
    assert figures["all_pck"] == figures["all_pck_absolute"] == 1
    assert figures["mpjpe"] > 10
    figures = score("mupots", lambda s: move(truth(body)(s), (0, 0, 0.2)), samples).figures
    assert (figures["all_pck"], figures["all_pck_absolute"]) == (1, 0)


def test_panoptic_gives_150_mm_for_who_was_missed(score: Any, body: Body) -> None:
    back = tuple(-x for x in PANOPTIC_SHIFT)
    samples = points_only(body, "panoptic19", back)
    result = score("panoptic", lambda s: truth(body)(s)[1:] if s.name == "TS2/1" else truth(body)(s), samples)
    assert result.figures["mpjpe"] < 0.01
    assert result.figures["all_mpjpe"] == pytest.approx(150 / 6, abs=0.01)
    assert any("Human3.6M" in note for note in result.notes)


def test_human36m_compares_fourteen_joints(score: Any, body: Body) -> None:
    samples = points_only(body, "h36m17")
    for sample in samples:
        sample.keypoints_3d[:, 7] += 1.0  # the spine is not among them
        if len(sample):
            sample.keypoints_3d[0, 3] = np.nan  # a joint that nobody knows
    figures = score("h36m", lambda s: move(truth(body)(s), (0, 0, 0.05)), samples).figures
    assert figures["mpjpe"] < 0.01
    assert figures["mrpe"] == pytest.approx(50, abs=0.01)


# --- what is not known -------------------------------------------------------------------------------------


def test_unknown_hands_shapes_and_places_are_left_out(score: Any, body: Body) -> None:
    samples = [
        replace(s, pose=s.pose.copy(), shape=s.shape.copy(), translation=s.translation.copy()) for s in MESHES
    ]
    samples[0].pose[0, 1] = np.nan  # the left hand of one, the shape of another: a child of AGORA's
    samples[2].shape[0] = np.nan
    result = score("agora-val", lambda s: turn_hand(truth(body)(s)), samples)
    rows = dict(zip(result.columns, result.table.T, strict=True))
    assert rows["found"].tolist() == [1] * 6
    assert np.isnan(rows["mpjpe"]).tolist() == [False, False, True, False, False, False]
    assert np.isnan(rows["left_hand_pve"]).tolist() == [True, False, True, False, False, False]
    assert rows["pve"][0] < 0.01
    assert rows["left_hand_pve"][1] > 1
    assert any("1 of the people found" in line for line in table([result]).splitlines())


def turn_hand(humans: Humans) -> Humans:
    vertices = humans.vertices.copy()
    vertices[:, HAND] += np.float32([0.1, 0, 0])
    return replace(humans, vertices=vertices)


def test_people_without_camera_and_place_are_told_by_their_keypoints(score: Any, body: Body) -> None:
    samples = []
    for sample in MESHES:
        xy = truth(body)(sample).keypoints("coco17").xy
        nowhere = np.full((len(sample), 3), np.nan, np.float32)
        unknown = {"K": np.full((3, 3), np.nan, np.float32), "translation": nowhere, "anchor": "pelvis"}
        samples.append(replace(sample, keypoints_2d=xy, keypoint_set="coco17", **unknown))
    figures = score("ubody", truth(body), samples).figures
    assert figures["f1"] == 1
    assert figures["pve"] < 0.01
    assert math.isnan(figures["mrpe"])


# --- runs --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_gives_the_same(score: Any, body: Body, tmp_path: Path) -> None:
    def answer(sample: Sample) -> Humans:
        return move(truth(body)(sample), (0.01 * sample.image[0, 0, 0], 0, 0))

    whole = score("bedlam-val", answer, out=tmp_path / "whole")

    class Killed(ToyModel):
        def predict_batch(self, images: list, *args: Any, **options: Any) -> list[Humans]:
            if self.asked:
                raise KeyboardInterrupt
            return super().predict_batch(images, *args, **options)

    plan, out = Plan("bedlam-val", protocol=Protocol(batch_size=3)), tmp_path / "killed"
    network: Any = Killed(body, MESHES, answer)
    network.__class__.__name__ = "ToyModel"
    with pytest.raises(KeyboardInterrupt):
        measure(network, plan, out=out)
    with next(out.glob("done-*.jsonl")).open("a", encoding="utf-8") as file:
        file.write('{"batch": 1, "pictures": [{"na')  # killed while it wrote
    again: Any = ToyModel(body, MESHES, answer)
    resumed = measure(again, plan, out=out)
    assert again.asked[0] == 3  # the first batch was done; the rest are drawings
    np.testing.assert_equal(resumed.figures, whole.figures)
    assert (out / "people.csv").read_text(encoding="utf-8") == (tmp_path / "whole/people.csv").read_text(
        encoding="utf-8"
    )


def test_shares_of_several_processes_make_the_whole(score: Any, body: Body, tmp_path: Path) -> None:
    whole = score("bedlam-val", truth(body))
    network: Any = ToyModel(body, MESHES, truth(body))
    run = suite.EvaluationRun(Plan("bedlam-val", protocol=Protocol(batch_size=1)), network)
    for rank in (2, 0, 1):
        run.work(tmp_path, rank, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"done-{rank}.jsonl" for rank in range(3)]
    done = suite._done(tmp_path)
    assert sorted(done) == [0, 1, 2, 3]
    assert [len(done[i][0].people) for i in range(4)] == [2, 0, 1, 3]
    assert sum(p.counts["found"] for batch in done.values() for p in batch) == whole.counts.found


@pytest.mark.nightly
def test_two_processes_give_the_same_to_the_last_bit(tmp_path: Path) -> None:
    from multihmr.bodies.anny import Anny
    from multihmr.data.webdataset import write_shard
    from multihmr.model import save_model
    from multihmr.networks.configs import MultiHMRConfig
    from multihmr.networks.multihmr import MultiHMR

    torch.manual_seed(0)
    model = MultiHMR(MultiHMRConfig(image_size=64, head_width=32, head_depth=1, head_count=1), Anny()).eval()
    save_model(model, tmp_path / "tiny.safetensors")
    rng = np.random.default_rng(0)
    samples = [
        replace(
            scene(i, [(0, 0, 3), (1, 0, 4)]),
            image=rng.integers(0, 255, (480, 640, 3)).astype(np.uint8),
            pose=model.body.mean_pose_R33.repeat(2, 1, 1, 1).numpy(),
            shape=np.full((2, model.body.shape_count), 0.5, np.float32),
            expression=np.zeros((2, model.body.expression_count), np.float32),
            body="anny",
        )
        for i in range(5)
    ]
    write_shard(tmp_path / "a.tar", samples)
    plan = Plan(str(tmp_path), protocol=Protocol(batch_size=2, threshold=0.0))
    one, two = (measure(str(tmp_path / "tiny.safetensors"), plan, devices=["cpu"] * n) for n in (1, 2))
    np.testing.assert_array_equal(one.table, two.table)
    assert one.figures == two.figures


def test_a_process_that_was_killed_is_told() -> None:
    killed = SimpleNamespace(join=lambda: None, exitcode=-9)
    with pytest.raises(ChildProcessError, match=r"cuda:1 ended with signal 9; start the same command again"):
        suite._wait_for([killed], ["cuda:0", "cuda:1"])


def test_another_evaluation_is_not_mixed_in(score: Any, body: Body, tmp_path: Path) -> None:
    score("bedlam-val", truth(body), out=tmp_path)
    with pytest.raises(ValueError, match=r"another evaluation .*pictures 4, now 3"):
        score("bedlam-val", truth(body), MESHES[:3], out=tmp_path)


def test_pictures_that_cannot_be_read_are_counted_and_told(score: Any, body: Body, tmp_path: Path) -> None:
    class Broken(list):
        def __getitem__(self, index: Any) -> Any:
            if index == 2:
                raise ValueError("sample 'TS2/0' of toys has no picture: cut short")
            return super().__getitem__(index)

    result = score("bedlam-val", truth(body), Broken(MESHES), out=tmp_path)
    assert (result.images, result.counts.found, len(result.skipped)) == (3, 5, 1)
    assert "pictures skipped: 1; the first" in table([result])
    assert "cut short" in (tmp_path / "pictures.csv").read_text(encoding="utf-8")


def test_files_of_a_score(score: Any, body: Body, tmp_path: Path) -> None:
    def worse(sample: Sample) -> Humans:
        return truth(body)(sample)[: 1 if sample.name == "TS2/1" else None]

    score("ehf", worse, out=tmp_path)
    facts = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert facts["counts"]["missed"] == 2
    assert facts["figures"]["pck"] is None
    assert {p["method"] for p in facts["published"]} == {"Multi-HMR", "OSX", "Hand4Whole"}
    rows = list(csv.DictReader((tmp_path / "pictures.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["missed"] for row in rows] == ["0", "0", "0", "2"]
    assert len((tmp_path / "people.csv").read_text(encoding="utf-8").splitlines()) == 1 + 6
    assert min(path.name for path in (tmp_path / "worst").iterdir()) == "00_TS2_1.jpg"
    assert "| ehf | PVE mm ↓ | **0.0** | 44.2 [1] |" in (tmp_path / "table.md").read_text(encoding="utf-8")


def test_the_result_tells_label_unit_and_scale_of_its_figures(score: Any, body: Body, tmp_path: Path) -> None:
    score("agora-val", truth(body), out=tmp_path)
    facts = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert facts["figure_labels"]["recall"] == {"label": "recall", "unit": "%", "scale": 100.0}
    assert facts["figure_labels"]["nmve"] == {"label": "NMVE", "unit": "mm", "scale": 1.0}
    assert set(BENCHMARKS["agora-val"].figures) <= set(facts["figure_labels"])


def assets_in(folder: Path, content: bytes = b"v 0 0 0") -> Path:
    (folder / "pack").mkdir(parents=True)
    (folder / "pack" / "index.json").write_text("{}", encoding="utf-8")
    (folder / "pack" / "shirt.npz").write_bytes(content)
    return folder


def test_the_assets_of_synthetic_pictures_have_a_fingerprint(tmp_path: Path) -> None:
    assets = assets_in(tmp_path / "a")
    fingerprint = data_fingerprint.fingerprint_assets(assets)
    (assets / "README.md").write_text("is not rendered", encoding="utf-8")
    assert data_fingerprint.fingerprint_assets(assets) == fingerprint
    assert data_fingerprint.fingerprint_assets(assets_in(tmp_path / "b")) == fingerprint
    assert data_fingerprint.fingerprint_assets(assets_in(tmp_path / "c", b"v 1 0 0")) != fingerprint
    assert data_fingerprint.fingerprint_assets(None) == "none"


def test_other_assets_or_none_are_told(
    score: Any, body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from multihmr.data.synthetic import dataset

    monkeypatch.setattr(dataset, "find_assets", lambda assets: assets)
    with pytest.warns(UserWarning, match="without MakeHuman's assets"):
        result = score("synth-test", truth(body))
    assert result.settings["data_fingerprint"] == "none"
    assert any("painted" in note for note in result.notes)
    assets = assets_in(tmp_path / "assets")
    with pytest.warns(UserWarning, match=f"other assets .*{data_fingerprint.fingerprint_assets(assets)}"):
        result = score("synth-test", truth(body), assets=assets, out=tmp_path / "out")
    assert "other assets" in (tmp_path / "out" / "table.md").read_text(encoding="utf-8")
    fingerprint = data_fingerprint.fingerprint_assets(assets)
    monkeypatch.setattr(data_fingerprint, "REFERENCE_ASSETS", fingerprint)
    assert score("synth-test", truth(body), assets=assets).notes == ()
    facts = json.loads((tmp_path / "out" / "result.json").read_text(encoding="utf-8"))
    assert facts["settings"]["data_fingerprint"] == fingerprint


def test_other_shards_of_the_same_name_are_another_evaluation(body: Body, tmp_path: Path) -> None:
    from multihmr.data.webdataset import write_shard

    model: Any = ToyModel(body, MESHES, truth(body))
    plan = Plan(str(tmp_path / "shards"))
    (tmp_path / "shards").mkdir()
    jpeg = [replace(s, image=np.full((480, 640, 3), s.image[0, 0, 0], np.uint8)) for s in MESHES]
    write_shard(tmp_path / "shards" / "a.tar", jpeg[:2])
    measure(model, plan, out=tmp_path / "out")
    write_shard(tmp_path / "shards" / "a.tar", [replace(jpeg[0], name="other"), jpeg[1]])
    with pytest.raises(ValueError, match=r"another evaluation .*data_fingerprint"):
        measure(model, plan, out=tmp_path / "out")


def test_our_own_protocol_keeps_its_baseline_and_groups(score: Any, body: Body, tmp_path: Path) -> None:
    result = score("shards of toys", truth(body), out=tmp_path)
    assert result.result.baseline_all.mpjpe > 50
    assert result.figures["mpjpe"] < 0.01
    assert result.figures["f1"] == 1
    assert "mean pose at the true place" in (tmp_path / "table.md").read_text(encoding="utf-8")
    assert "own" in json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))


def test_the_command_measures_what_it_can_and_tells_the_rest(
    body: Body, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = ToyModel(body, MESHES, truth(body))
    monkeypatch.setattr(suite, "named_model", lambda name, device=None, loading=None: ("toy", toy))
    real = suite.open_samples
    monkeypatch.setattr(suite, "open_samples", lambda d, *rest: MESHES if d == "ehf" else real(d, *rest))
    command = ["evaluate", "--data", "ehf,agora-val", "--out", str(tmp_path), "--device", "cpu"]
    assert cli.run(command) == 1
    shown = capsys.readouterr()
    assert "| ehf | PVE mm ↓ | **0.0** |" in shown.out
    assert "1 of 2 measured; these were not:" in shown.err
    assert "agora-val: give the folder of agora-val with --root DIR" in shown.err
    assert len(json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))) == 1
    assert cli.run(["evaluate", "--data", "agora-val"]) == 1


def test_a_name_that_is_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="known: 3dpw-test, ehf"):
        suite.open_samples("3dpw", None)
    with pytest.raises(FileNotFoundError, match=r"(?s)--root DIR.*register at"):
        suite.open_samples("ehf", None)
    with pytest.raises(FileNotFoundError, match="multihmr generate"):
        suite.open_samples(str(tmp_path), None)
