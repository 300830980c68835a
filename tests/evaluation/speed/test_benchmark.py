from __future__ import annotations

import argparse
import dataclasses
import json
import re
import shlex
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import ToyBody, random_humans, tiny_anny_model, tiny_model

from multihmr.bodies.anny import Anny
from multihmr.cli import bench as bench_command
from multihmr.cli import main as cli
from multihmr.evaluation.speed import benchmark as speed
from multihmr.evaluation.speed import machine as speed_machine
from multihmr.evaluation.speed import memory as speed_memory
from multihmr.evaluation.speed import models as speed_models
from multihmr.evaluation.speed.machine import difference_mm
from multihmr.evaluation.speed.report import Speed, Spread, Timing, compared, table
from multihmr.evaluation.speed.stages import STAGES, Marks, Run, hooked
from multihmr.model import Model
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.multihmr import MultiHMR


def tiny() -> MultiHMR:
    return tiny_model(nms_kernel=1)  # every cell may be somebody


NOTHING = ("nothing", lambda: time.sleep(0.001))
QUICK = speed_models.Plan(people=(0, 3), rounds=2, draw=False, memory=False)


@pytest.fixture(scope="module")
def measured() -> Speed:
    return speed.bench({"tiny": tiny()}, QUICK, reference=NOTHING)


def timing(median: float, spread: float = 0.01, **changes: object) -> Timing:
    ratio = Spread(median * (1 - spread), median, median * (1 + spread))
    facts = {"name": "a", "size": 224, "dtype": "float32", "backend": "eager", "batch": 1, "people": 1}
    rest = {"found": 1.0, "operations": {"end to end": 4e9}, "difference_mm": (0.0, 0.0), "people_alone": 0}
    stages = {"end to end": Spread(1.0, 2.0, 3.0)}
    return Timing(**{**facts, **rest, "stages_ms": stages, "ratio": ratio, "memory_mb": None, **changes})  # type: ignore[arg-type]


def of(*timings: Timing, **changes: object) -> Speed:
    facts = {"reference": "r", "rounds": 2, "device": "d", "threads": 1, "torch": "2", "image": "i"}
    rest = {"reference_ms": Spread(1.0, 1.0, 1.0), "peak_gflops": {"float32": 4000.0}}
    return Speed(timings, **{**facts, **rest, **changes})  # type: ignore[arg-type]


def test_ratios_are_taken_within_rounds() -> None:
    slow = iter([1.0, 2.0, 4.0, 8.0, 16.0])  # a machine that becomes ever slower, the ratio stays 3
    drift = [0.0] * 5

    def reference() -> dict[str, float]:
        return {"end to end": drift[0]}

    def other() -> dict[str, float]:
        return {"end to end": 3 * drift[0]}

    rows = []
    for drift[0] in slow:
        rows += speed.interleaved([reference, other], 1)
    ratios = np.array([row[1]["end to end"] / row[0]["end to end"] for row in rows])
    assert Spread.of(ratios) == (3, 3, 3)


def test_every_round_calls_everything_once_and_warm_up_does_not_count() -> None:
    called: list[str] = []
    calls = [lambda name=name: {"end to end": float(called.append(name) or len(called))} for name in "abc"]  # type: ignore[misc, func-returns-value]
    rows = speed.interleaved(calls, 4)
    rounds = ["".join(called[i : i + 3]) for i in range(0, len(called), 3)]
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 1
    assert len(rows) == 4
    assert min(row[0]["end to end"] for row in rows) > 3 * speed.WARM_UP_ROUNDS


@pytest.mark.slow
def test_stages_are_told_apart_and_add_up(measured: Speed) -> None:
    three = measured.timings[1]
    assert set(three.stages_ms) == {*STAGES, "end to end"} - {"draw"}
    parts = Run(tiny(), speed.noise_picture(), people=2, batch=2)()
    whole = parts.pop("end to end")
    assert whole == pytest.approx(sum(parts.values()))
    assert min(parts.values()) >= 0
    assert parts["backbone"] > parts["to numpy"]


def test_hooks_leave_no_trace_and_copies_of_a_body_set_no_marks() -> None:
    model = tiny()
    marks = Marks(torch.device("cpu"))
    with hooked(model, marks):
        model.body._forward_hooks.copy()
        twin = ToyBody()
        twin._forward_pre_hooks = model.body._forward_pre_hooks
        twin(model.body.mean_pose_R33[None], model.body.mean_shape_S[None], torch.zeros(1, 1))
        assert marks.seconds() == {}
        assert not marks._marks
    assert not model.body._forward_hooks
    assert not model.backbone._forward_pre_hooks


def test_the_people_asked_for_are_predicted(measured: Speed) -> None:
    assert [(t.people, t.found) for t in measured.timings] == [(0, 0), (3, 3)]
    assert all(t.difference_mm == (0, 0) and t.people_alone == 0 for t in measured.timings)
    assert "| tiny" in table(measured)
    assert "3 (found)" not in table(measured)


def test_two_pictures_are_twice_the_operations() -> None:
    plan = dataclasses.replace(QUICK, people=(1,), batches=(1, 2), rounds=1)
    one, two = speed.bench({"tiny": tiny()}, plan, reference=NOTHING).timings
    assert two.operations["backbone"] == 2 * one.operations["backbone"] > 1e7
    assert one.operations["end to end"] > one.operations["backbone"]


def test_operations_of_a_product() -> None:
    count, multiply = speed_machine.matrix_multiply(torch.device("cpu"), torch.float32)
    assert speed_machine.operations(multiply)[0] == count == 2 * 1024**3
    q = torch.rand(1, 2, 10, 4)
    attend = torch.nn.functional.scaled_dot_product_attention
    expected = 2 * (2 * 2 * 10 * 10 * 4), 0
    assert speed_machine.operations(lambda: attend(q, q, q), "nothing") == expected


def test_differences_are_told_in_millimetres_and_people_who_are_missing() -> None:
    humans = tiny().predict(speed.noise_picture(), fov=60, threshold=0, max_people=3)
    moved = dataclasses.replace(humans, vertices=humans.vertices + np.float32([0, 0, 0.002]))
    most, mean, alone = difference_mm([humans], [moved[np.array([2, 0, 1])]])
    assert most == pytest.approx(2, rel=1e-3) == mean
    assert alone == 0
    assert difference_mm([humans], [humans[:1]]) == (0, 0, 2)
    assert difference_mm([humans[:0]], [humans[:0]]) == (0, 0, 0)


def test_what_is_written_is_read(measured: Speed, tmp_path: Path) -> None:
    measured.save(tmp_path / "speed.json")
    assert Speed.load(tmp_path / "speed.json") == measured
    (tmp_path / "other.json").write_text(json.dumps({"timings": []}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"other.json was not written by `multihmr bench --json`"):
        Speed.load(tmp_path / "other.json")


def test_slower_faster_or_no_telling() -> None:
    was = of(timing(1.0), timing(1.0, people=2), timing(1.0, 0.2, people=3), timing(1.0, people=4))
    now = of(timing(1.1), timing(0.9, people=2), timing(1.1, people=3), timing(1.0, people=5))
    lines = compared(was, now).splitlines()
    assert "+10.0 %" in lines[2]
    assert lines[2].endswith("slower            |")
    assert "faster" in lines[3]
    assert "same within noise" in lines[4]
    assert lines[-2:] == [
        "only then: a 224 float32 eager, batch 1, people 4",
        "only now: a 224 float32 eager, batch 1, people 5",
    ]


def test_a_busier_machine_is_no_slower_model() -> None:
    busy = timing(1.0, stages_ms={"end to end": Spread(10.0, 20.0, 30.0)})
    assert "same within noise" in compared(of(timing(1.0)), of(busy))


@pytest.mark.parametrize(("field", "value"), [("device", "other"), ("threads", 2), ("image", "other")])
def test_other_circumstances_are_not_compared(field: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"cannot be compared: {field} was .* and is .*; measure both alike"):
        compared(of(timing(1.0)), of(timing(1.0), **{field: value}))


def test_runs_without_anything_in_common_are_not_compared() -> None:
    with pytest.raises(ValueError, match="nothing in common"):
        compared(of(timing(1.0)), of(timing(1.0, dtype="bfloat16")))


@pytest.mark.slow
def test_another_size_keeps_what_was_learned(tmp_path: Path) -> None:
    config = MultiHMRConfig(image_size=224, head_width=32, head_depth=1, head_count=1)
    source = str(speed_models.save_model(MultiHMR(config, Anny()), tmp_path / "tiny.safetensors"))
    larger = speed_models.load(speed_models.resized(source, 320, tmp_path), device="cpu")
    assert larger.config.image_size == 320
    head = larger.network.head.get_parameter("query_rows")
    old = speed_models.load(source, device="cpu").network.head.get_parameter("query_rows")
    assert head.shape[0] == 20
    assert head.mean().item() == pytest.approx(old.mean().item(), abs=1e-3)
    assert len(larger.predict(speed.noise_picture(), threshold=0, max_people=2)) == 2


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    request = speed_memory.Request(None, "float32", "eager", people=1, batch=1, threads=1)
    memory = speed_memory.peak_of_prediction(request)
    if memory is None:
        pytest.skip("this system does not tell how much memory a process held")
    assert 50 < memory["torch"] < memory["loaded"] <= memory["predict"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--dtype", "int4"], "a precision is one of float32, float16, bfloat16, got int4"),
        (["--batch", "0"], "batches, sizes and rounds begin at 1"),
        (["--people=-1"], "people at 0"),
        (["--size", "225", "--no-vit"], "multiples of 32, got 225"),
        (["--image", "nowhere.jpg"], "nowhere.jpg does not exist"),
        (["--compare", "nowhere.json"], "nowhere.json does not exist"),
        (["--threads", "0"], "a thread at least, got 0"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    flags: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["bench", *flags]) == 1
    assert sentence in capsys.readouterr().err


@pytest.mark.slow
def test_blocks_of_random_networks_count(tmp_path: Path) -> None:
    """Else no precision would be seen to move anybody."""
    config = MultiHMRConfig(backbone="dinov2_vits14", image_size=56, body="anny")
    model = speed_models.load(speed_models.random_model(config, tmp_path), device="cpu")
    picture = torch.rand(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model.backbone(picture).grid_BDhw
        model.backbone.get_submodule("vit.blocks.5").mlp.fc1.weight *= 0.9
        assert (model.backbone(picture).grid_BDhw - before).abs().mean() > 1e-4


def test_nothing_to_time_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a model"):
        speed.bench({})


def test_rows_are_told_and_kept_as_they_come() -> None:
    lines: list[str] = []
    kept: list[Speed] = []
    plan = dataclasses.replace(QUICK, people=(1, 2))
    progress = speed.Progress(lines.append, kept.append)
    measured = speed.bench({"tiny": tiny()}, plan, reference=NOTHING, progress=progress)
    size = tiny().config.image_size
    assert lines[:2] == [
        f"tiny at {size}, float32, eager: {people} people, 0 mm off eager float32" for people in (1, 2)
    ]
    medians = ", ".join(f"{t.stages_ms['end to end'].median:.0f}" for t in measured.timings)
    assert lines[2].startswith("round 1 of 2: medians so far ")
    assert lines[3] == f"round 2 of 2: medians so far {medians} ms, in the order above"
    assert [speed_so_far.rounds for speed_so_far in kept] == [1, 2]
    assert kept[-1] == measured


def test_a_run_that_is_stopped_prints_and_keeps_its_rounds(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, progress: speed.Progress, **__: object) -> Speed:
        progress.tell("round 1 of 20")
        progress.keep(of(timing(2.0)))
        raise KeyboardInterrupt

    monkeypatch.setattr(speed, "run", stopped)
    assert cli.run(["bench", "--json", str(tmp_path / "speed.json")]) == 130
    said = capsys.readouterr()
    assert said.err == "round 1 of 20\nmultihmr: stopped\n"
    assert said.out == table(of(timing(2.0))) + "\n"
    assert Speed.load(tmp_path / "speed.json") == of(timing(2.0))


@pytest.mark.slow
def test_the_command_prints_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "WARM_UP_ROUNDS", 1)
    here = {"device": speed_machine.device_name(torch.device("cpu")), "threads": torch.get_num_threads()}
    pictures = {"reference": "bare dinov2_vits14 448 float32", "image": "array (480, 640, 3)"}
    old, new = str(tmp_path / "old.json"), str(tmp_path / "new.json")
    of(timing(9.0, name="multihmr-anny-hybrid", size=352), **here, **pictures).save(old)
    flags = ["--no-vit", "--no-memory", "--rounds", "1", "--people", "found,1", "--device", "cpu"]
    assert cli.run(["bench", *flags, "--json", new, "--compare", old]) == 0
    printed = capsys.readouterr().out
    assert "Matrix products here" in printed
    assert printed.endswith("only now: multihmr-anny-hybrid 352 float32 eager, batch 1, people found\n")
    assert len(Speed.load(new).timings) == 2


@pytest.mark.parametrize("make", [tiny_model, tiny_anny_model])
def test_a_picture_without_people_leaves_early(make: Callable[[], Model]) -> None:
    """And says what the network says that goes on: shapes, heatmap, camera."""
    model = make().eval().requires_grad_(False)
    picture = torch.rand(2, 3, *[model.config.image_size] * 2)
    whole = model(picture, threshold=1.0)
    with torch.inference_mode():
        early = model(picture, threshold=1.0)
        seconds = Run(model, speed.noise_picture(), people=0, batch=1)()
    assert set(seconds) == {"decode", "letterbox", "backbone", "detection", "body", "to numpy", "end to end"}
    for name, expected in early.of_image(0).items():
        assert expected.shape == whole.of_image(0)[name].shape, name
    torch.testing.assert_close((early.logits_Bhw, early.K_B33), (whole.logits_Bhw, whole.K_B33))


def test_the_page_on_speed_tells_the_stages_and_commands_as_they_are() -> None:
    page = (Path(__file__).parents[3] / "docs" / "speed.md").read_text(encoding="utf-8")
    table = page.partition("| stage |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([a-z ]+) \|", table, flags=re.MULTILINE) == list(STAGES)
    commands = re.findall(r"^multihmr bench(.*?)(?:#|$)", page, flags=re.MULTILINE)
    parser = argparse.ArgumentParser()
    bench_command.add_flags(parser)
    assert len([parser.parse_args(shlex.split(flags)) for flags in commands]) >= 6


@pytest.mark.slow
def test_every_way_of_computing_stands_beside_eager_float32(tmp_path: Path) -> None:
    model = tiny()
    other = speed_models.Config("tiny", 64, "bfloat16", "eager", model, model)
    eager = speed_models.Config("tiny", 64, "float32", "eager", model, model)
    plan = speed_models.Plan(people=(2,), rounds=3, draw=False, memory=False)
    measured = speed.bench([other, eager], plan, reference=NOTHING)
    first, second = measured.timings
    assert second.speedup == Spread(1.0, 1.0, 1.0)
    assert first.speedup is not None
    assert 0.2 < first.speedup.median < 5  # the same work
    assert (first.difference_mm, first.difference_99_mm) == ((0.0, 0.0), 0.0)
    shown = table(measured)
    assert "| times eager float32" in shown
    assert "1.00 [1.00, 1.00]" in shown
    measured.save(tmp_path / "speed.json")
    assert Speed.load(tmp_path / "speed.json").timings[0].speedup == first.speedup
    alone = speed.bench([other], plan, reference=NOTHING)
    assert alone.timings[0].speedup is None


def test_results_of_earlier_versions_are_read(tmp_path: Path) -> None:
    facts = of(timing(1.0)).to_dict()
    for row in facts["timings"]:
        del row["speedup"], row["difference_99_mm"]
    (tmp_path / "old.json").write_text(json.dumps(facts), encoding="utf-8")
    assert Speed.load(tmp_path / "old.json").timings[0].speedup is None


def test_distances_of_vertices_have_a_percentile() -> None:
    humans = random_humans(ToyBody(), 2)
    moved = dataclasses.replace(humans, vertices=humans.vertices + np.float32([0.003, 0, 0]))
    distances, alone = speed_machine.vertex_distances([humans], [moved])
    assert distances.shape == humans.vertices.shape[:2]
    np.testing.assert_allclose(distances, 3, atol=1e-3)
    assert alone == 0
    assert speed_machine.vertex_distances([humans], [moved[:1]])[1] == 1
