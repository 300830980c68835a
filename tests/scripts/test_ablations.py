import json
from dataclasses import replace
from pathlib import Path

import multihmr_ablations as ablations
import numpy as np
import pytest
from multihmr_ablations import ROWS, VARIANTS, Plan, config_of, run

from multihmr.data.sample import Sample
from multihmr.data.webdataset import write_shard
from multihmr.evaluation.report import People
from multihmr.networks.backbones.hybrid import HYBRIDS
from multihmr.networks.backbones.timm_backbones import HRNETS, DINOv2
from multihmr.networks.configs import MultiHMRConfig
from multihmr.networks.human_perception_head import IterativeHead
from multihmr.training.build_model import build


def empty_sample(name: str = "0", focal: float = 100.0) -> Sample:
    shapes = {"pose": (0, 1, 3, 3), "shape": (0, 1), "expression": (0, 1), "translation": (0, 3)}
    people = {field: np.zeros(shape, np.float32) for field, shape in shapes.items()}
    K = np.float32([[focal, 0, 50], [0, focal, 40], [0, 0, 1]])
    return Sample(np.zeros((80, 100, 3), np.uint8), K, visibility=np.zeros(0), name=name, **people)


@pytest.fixture
def plan(tmp_path) -> Plan:
    write_shard(tmp_path / "a.tar", [empty_sample()])
    shards = str(tmp_path / "a.tar")
    return Plan(shards, shards, str(tmp_path / "out"), steps=100, only=("reference", "iterative"))


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """Names of variants and seeds in the order of training, which is only pretended."""
    runs: list[str] = []

    def pretend(config, *, progress):
        runs.append("/".join(Path(config.out).parts[-2:]))
        return Path(config.out)

    def measured(plan, weights, *, progress):
        error = 100.0 + 10 * int(weights.name) + 50 * (weights.parent.name == "iterative")
        figures = dict.fromkeys(ablations.FIGURES, error)
        by_fov = [error, None, 2 * error]
        facts = {"figures": figures, "position_by_fov": by_fov, "baseline_mpjpe": 300.0}
        return facts | {"parameters": 2_000_000, "people": 9}

    monkeypatch.setattr(ablations, "train", pretend)
    monkeypatch.setattr(ablations, "measure", measured)
    return runs


def test_each_variant_differs_from_the_reference_in_what_it_says(plan):
    plan = replace(plan, closeups="c", only=())
    configs = {name: config_of(plan, name, 0) for name in VARIANTS}
    kinds = {repr(replace(config, out="")) for config in configs.values()}
    assert len(kinds) == len(VARIANTS)
    for config in configs.values():
        MultiHMRConfig().changed(config.network)
        assert config.backbone in (*DINOv2.TIMM_NAMES, *HRNETS, *HYBRIDS)
        assert config.image_size % (14 if config.backbone.startswith("dinov2") else 32) == 0
        assert (config.steps, config.batch_size) == (plan.steps, plan.batch_size)
    assert configs["half-size"].image_size == 128
    assert configs["closeups"].data == f"{plan.data}:2.000000,c:1"


def test_switches_reach_the_network(plan):
    config = replace(config_of(plan, "iterative", 0), image_size=64, init="random")
    model = build(replace(config, network="head=iterative,camera_embedding=none"))
    assert isinstance(model.head, IterativeHead)
    assert model.rays.width == 0
    assert all(parameter.requires_grad for parameter in model.backbone.parameters())


def test_every_variant_has_a_row_and_every_row_a_variant():
    assert {name for _, _, name in ROWS} == set(VARIANTS)


def test_a_table_holds_means_and_what_seeds_make_of_them(plan, trained):
    path = run(plan)
    assert trained == ["reference/0", "iterative/0", "reference/1", "iterative/1"]
    lines = path.read_text(encoding="utf-8").splitlines()
    assert "| head | iterative regressor, per token | 155.0 ± 5.0 |" in lines[2]
    assert "| head | Human Perception Head | 105.0 ± 5.0 |" in lines[3]
    assert "| Fourier | 105.0 ± 5.0 | - | 210.0 ± 10.0 |" in lines
    assert "The mean person has MPJPE 300.0." in path.read_text(encoding="utf-8")
    rows = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["rows"]
    assert rows[0]["variant"] == "iterative"
    assert rows[0]["figures"]["mpjpe"] == [155.0, 5.0]


def test_variants_of_equal_cost_take_as_long(plan, monkeypatch):
    paces = {"hybrid_lite0": 30.0, "hybrid_lite2": 20.0}
    steps: dict[str, list[int]] = {backbone: [] for backbone in paces}

    def pretend(config, *, progress):
        steps[config.backbone].append(config.steps)
        notes = [
            json.dumps({"pictures_per_second": pace}) for pace in [1.0] * 3 + [paces[config.backbone]] * 5
        ]
        Path(config.out).mkdir(parents=True, exist_ok=True)
        (Path(config.out) / "log.jsonl").write_text("\n".join(notes), encoding="utf-8")
        return Path(config.out)

    measured = {"figures": dict.fromkeys(ablations.FIGURES), "position_by_fov": [None] * 3}
    measured |= {"parameters": 1, "people": 1, "baseline_mpjpe": 300.0}
    monkeypatch.setattr(ablations, "train", pretend)
    monkeypatch.setattr(ablations, "measure", lambda *_, **__: measured)
    table = run(replace(plan, only=("lite0-reading", "lite2-reading"), seeds=(0,))).read_text(
        encoding="utf-8"
    )
    assert steps == {"hybrid_lite0": [100, 8], "hybrid_lite2": [8, 67]}
    assert "hybrid Lite2 (ImageNet), 67 steps" in table


def test_what_is_done_is_not_done_again(plan, trained):
    run(plan)
    run(replace(plan, seeds=(0, 1, 2)))
    assert trained[4:] == ["reference/2", "iterative/2"]


def test_a_variant_that_fails_says_why_and_is_tried_again(plan, trained, monkeypatch):
    plan = replace(plan, only=("reference", "closeups"), seeds=(0,))
    text = run(plan).read_text(encoding="utf-8")
    assert "a third of the pictures | not run: no folder of close-ups was given" in text
    assert "| 105.0" not in text
    assert trained == ["reference/0"]

    def no_weights(config, *, progress):
        raise OSError("no weights\nthere")

    plan = replace(plan, only=("vit-s",))
    pretend = ablations.train
    monkeypatch.setattr(ablations, "train", no_weights)
    assert "not run: no weights there" in run(plan).read_text(encoding="utf-8")
    monkeypatch.setattr(ablations, "train", pretend)
    assert "not run" not in run(plan).read_text(encoding="utf-8")


def test_results_of_other_settings_do_not_meet(plan, trained):
    run(plan)
    with pytest.raises(ValueError, match="holds results of steps 100; choose another folder"):
        run(replace(plan, steps=200))


def test_plans_that_mean_nothing_are_refused(plan):
    with pytest.raises(ValueError, match="no variant vit-x; known: reference"):
        replace(plan, only=("vit-x",))
    with pytest.raises(ValueError, match="seeds"):
        replace(plan, seeds=())
    with pytest.raises(FileNotFoundError, match="multihmr generate"):
        run(replace(plan, data="nowhere"))


def test_time_is_summed_over_interruptions(tmp_path, monkeypatch):
    moments = iter([0.0, 5.0, 100.0, 103.0])
    monkeypatch.setattr(ablations.time, "monotonic", lambda: next(moments))
    with pytest.raises(KeyboardInterrupt), ablations._Stopwatch(tmp_path / "s.json"):
        raise KeyboardInterrupt
    with ablations._Stopwatch(tmp_path / "s.json") as watch:
        pass
    assert watch.seconds == 8.0


def test_position_errors_are_told_apart_by_field_of_view():
    fovs: dict[str, float] = {}
    samples = [empty_sample("narrow", 200), empty_sample("wide", 40), empty_sample("wider", 30)]
    assert list(ablations._with_fov(samples, fovs)) == samples
    assert fovs["narrow"] == pytest.approx(2 * np.degrees(np.arctan(50 / 200)))
    errors = np.tile(np.float64([[3], [1], [2], [9]]), 7)
    names = np.array(["narrow", "narrow", "wider", "wide"])
    ones = [np.ones(4)] * 4
    found = np.array([True, True, True, False])
    people = People(names, *ones, found, found, errors, errors)
    assert ablations._position_by_fov(people, fovs) == [2.0, None, 2.0]
