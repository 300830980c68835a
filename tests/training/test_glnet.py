from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from toys import ToyBody, tiny_glnet

from multihmr.bodies.swing_twist import rest_joints
from multihmr.data.sample import Sample
from multihmr.data.webdataset import write_shard
from multihmr.geometry import default_intrinsics
from multihmr.model import load_model
from multihmr.training.build_model import build
from multihmr.training.collate import collate
from multihmr.training.config import TrainConfig
from multihmr.training.glnet import GLNetObjective
from multihmr.training.glnet_loss import (
    GLNetLoss,
    GLNetOutputs,
    Match,
    _Rows,
    adaptive_cost,
    hard_negatives,
    match,
)
from multihmr.training.state import TrainState
from multihmr.training.targets import make_targets
from multihmr.training.trainer import Objective, objective_of, train, train_step


def crop_of(seed: int = 0, people: int = 1, side: int = 64) -> Sample:
    """A crop of noise, or a larger picture, that a toy person fills."""
    rng = np.random.default_rng(seed)
    turns = torch.from_numpy(rng.normal(0, 0.3, (people, 3, 3)).astype(np.float32))
    head = np.float32([0.05, -0.45, 1.6]) + rng.uniform(-0.1, 0.1, (people, 3)).astype(np.float32)
    return Sample(
        image=rng.integers(0, 255, (side, side, 3), dtype=np.uint8),
        K=default_intrinsics(side, side).numpy(),
        pose=torch.linalg.matrix_exp(turns - turns.mT)[:, None].repeat(1, 3, 1, 1).numpy(),
        shape=rng.uniform(0.3, 0.7, (people, 2)).astype(np.float32),
        expression=rng.uniform(0, 1, (people, 1)).astype(np.float32),
        translation=head,
        visibility=np.ones(people, np.float32),
        name=f"{seed:06d}",
        body="toy",
    )


def seen(model, *samples: Sample):
    """Pixels and targets of some crops."""
    batch = collate(samples)
    return model.encode(batch.images_B3HW(), batch.K_B33), make_targets(batch, ToyBody(), model.stride)


def believing(model, pixels, true, cells: list[int], crop: int = 0):
    """The pixels, of which these know the keypoints and all others are far off; all have the same score."""
    wanted = true.joints_2d_PJ2[crop, list(model.config.keypoints)] / model.config.image_size
    said = torch.full_like(pixels.keypoints_BhwM2, 5.0)
    said.flatten(1, 2)[crop, cells] = wanted
    return dataclasses.replace(pixels, keypoints_BhwM2=said, logits_Bhw=torch.zeros_like(pixels.logits_Bhw))


def test_those_who_know_the_keypoints_are_positives():
    model = tiny_glnet()
    pixels, true = seen(model, crop_of(), crop_of(1))
    matched = match(believing(model, pixels, true, [3, 17, 40, 63], crop=1), true, model)
    assert sorted(matched.index_BK[1].tolist()) == [3, 17, 40, 63]
    assert matched.weight_BK.tolist() == [[0.25] * 4] * 2


@pytest.mark.slow
def test_of_equals_the_better_scored_is_positive():
    model = tiny_glnet(positives=1)
    pixels, true = seen(model, crop_of())
    pixels = believing(model, pixels, true, [3, 17])
    pixels.logits_Bhw.flatten()[17] = 1.0
    assert match(pixels, true, model).index_BK.tolist() == [[17]]


def test_some_of_the_positives_speak_for_all_from_the_cheapest_to_the_dearest():
    index_BK = torch.arange(14).view(2, 7)
    spoken = Match(index_BK, torch.tensor([[1 / 7] * 7, [1 / 3] * 3 + [0] * 4])).spread(3)
    assert spoken.index_BK.tolist() == [[0, 3, 6], [7, 8, 9]]
    torch.testing.assert_close(spoken.weight_BK.sum(1), torch.ones(2))
    nobody = Match(index_BK, torch.zeros(2, 7)).spread(3)
    assert not nobody.weight_BK.any()
    assert spoken.spread(5) is spoken


def test_fixed_matching_takes_the_middle_of_the_person():
    model = tiny_glnet(matching="fixed")
    pixels, true = seen(model, crop_of())
    matched = match(pixels, true, model)
    crop_N, place_N = matched.rows()
    index_N = matched.index_BK[crop_N, place_N]
    at = torch.stack([index_N % 8, index_N // 8], -1) * 8 + 4.0
    middle = true.joints_2d_PJ2[0].mean(0)
    assert ((at - middle).norm(dim=-1) < 0.1 * 64 + 8).all()
    torch.testing.assert_close(matched.weight_BK.sum(1), torch.ones(1))


@pytest.mark.slow
def test_costs_of_depth_and_rotation_come_on_top():
    models = [tiny_glnet(cost=cost) for cost in ("2d", "2d+depth", "2d+depth+rotation")]
    pixels, true = seen(models[0], crop_of())
    flat, deep, turned = (adaptive_cost(pixels, true, model) for model in models)
    index = torch.arange(64)[None]
    meaning = (
        models[0]
        .decode(
            pixels, torch.zeros(64, dtype=torch.long), index[0], models[0].global_stage(pixels, index)[1][0]
        )
        .meaning
    )
    torch.testing.assert_close(deep - flat, (meaning.depth_code_N - true.depth_code_P).abs()[None])
    off = (meaning.pose_NR33[:, 1:] - true.pose_PR33[:, 1:]).abs().mean((1, 2, 3))
    torch.testing.assert_close(turned - deep, off[None], atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_hard_negatives_are_the_best_scored_others():
    model = tiny_glnet(positives=2)
    pixels, true = seen(model, crop_of())
    pixels = believing(model, pixels, true, [3, 17])
    pixels.logits_Bhw.flatten()[:] = torch.arange(64.0)
    matched = match(pixels, true, model)
    assert sorted(matched.index_BK[0].tolist()) != [62, 63]
    others = hard_negatives(pixels, matched, 3).tolist()[0]
    expected = [i for i in range(63, 0, -1) if i not in matched.index_BK[0].tolist()][:3]
    assert others == expected


def test_two_people_in_the_truth_of_a_crop_are_refused():
    model = tiny_glnet()
    pixels, true = seen(model, crop_of(people=2))
    with pytest.raises(ValueError, match="crops of one person"):
        match(pixels, true, model)


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_perfect_answer_costs_nothing(decomposed):
    model = tiny_glnet(decomposed=decomposed)
    pixels, true = seen(model, crop_of(), crop_of(1))
    matched = match(pixels, true, model)
    crop_N, place_N = matched.rows()
    index_N = matched.index_BK[crop_N, place_N]
    answer = model.decode(pixels, crop_N, index_N, model.theta.mean_C.expand(len(crop_N), -1))
    truth = _Rows.of(matched, true).targets(true, answer.people.centers)
    names = {field.name for field in dataclasses.fields(truth)} - {"centers"}
    same = {f.name: getattr(truth, f.name) for f in dataclasses.fields(answer.people) if f.name in names}
    meaning = answer.meaning
    if decomposed:
        rest = rest_joints(model.theta.skeleton, truth.shape_PS, truth.expression_PE)
        twist = model.theta.limbs.twists(truth.pose_PR33, rest)
        goals = truth.joints_PJ3 - truth.joints_PJ3[:, :1]
        meaning = dataclasses.replace(meaning, goals_NJ3=goals, twist_NT2=twist)
    answer = answer._replace(people=dataclasses.replace(answer.people, **same), meaning=meaning)
    wanted = true.joints_2d_PJ2[:, None, None, list(model.config.keypoints)] / 64
    sure = torch.full((2, 64), -30.0).scatter(1, matched.index_BK, 30.0).view(2, 8, 8)
    pixels = dataclasses.replace(pixels, logits_Bhw=sure, keypoints_BhwM2=wanted.expand(-1, 8, 8, -1, -1))
    again = torch.tensor([[30.0] * 4 + [-30.0]] * 2)
    terms = GLNetLoss(model)(GLNetOutputs(pixels, matched, answer, answer, again), matched, true)
    assert {"score", "local_score", "keypoints", "joints", "local_joints"} <= set(terms)
    assert ("twist" in terms) == decomposed
    assert all(term.item() == pytest.approx(0, abs=1e-4) for term in terms.values()), terms


@pytest.mark.slow
@pytest.mark.parametrize("people", [0, 1])
@pytest.mark.parametrize("switches", [{}, {"local": False}, {"decomposed": True}, {"matching": "fixed"}])
def test_losses_and_gradients_are_finite_with_anybody_and_nobody(people, switches):
    model = tiny_glnet(**switches).train()
    terms = GLNetObjective(model)(collate([crop_of(people=people), crop_of(1, people=0)]))
    torch.stack(list(terms.values())).sum().backward()
    assert all(term.isfinite() for term in terms.values())
    assert terms["score"] > 0
    assert (terms["joints"] > 0) == bool(people)
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_the_second_stage_weighs_more():
    """At first it says what the first one says."""
    model = tiny_glnet()
    for layer in (*model.local_head.move_parts, model.local_head.move_whole[2]):
        torch.nn.init.zeros_(layer.weight)
    terms = GLNetObjective(model)(collate([crop_of()]))
    assert terms["local_joints"].item() == pytest.approx(2 * terms["joints"].item(), rel=1e-4)


@pytest.mark.slow
def test_the_pair_term_is_the_distance_of_heads_in_paired_crops():
    """Zero for pairs of equal crops; else the mean distance of the predictions, over the true depth."""
    model = tiny_glnet()
    objective = GLNetObjective(model)
    same = collate([crop_of(), crop_of(), crop_of(1), crop_of(2, people=0)], views=2)
    assert objective(same)["pair"].item() == 0

    K = crop_of().K
    K[[0, 1], [0, 1]] *= 1.2
    longer_lens = dataclasses.replace(crop_of(), K=K)
    other = collate([crop_of(), longer_lens], views=2)
    term = objective(other)["pair"]
    pixels, true = model.encode(other.images_B3HW(), other.K_B33), objective.targets(other)
    spoken = match(pixels, true, model)
    index_BK = spoken.index_BK
    x_BQD, theta_BQC = model.global_stage(pixels, index_BK)
    theta_BQC, _ = model.local_stage(pixels, index_BK, x_BQD, theta_BQC)
    heads = [
        model.decode(pixels, torch.full((4,), crop), index_BK[crop], theta_BQC[crop]).people.translation_P3
        for crop in (0, 1)
    ]
    apart = (heads[0] - heads[1]).norm(dim=-1).mean() / true.translation_P3[0].norm()
    assert term.item() == pytest.approx(200 * apart.item(), rel=1e-4)
    assert "pair" not in objective(collate([crop_of(), crop_of()]))


@pytest.mark.slow
@pytest.mark.parametrize("switches", [{}, {"local": False}, {"matching": "fixed"}])
def test_paired_crops_cut_into_batches_are_the_same_step(switches):
    def state() -> TrainState:
        return TrainState(tiny_glnet(**switches), TrainConfig(data="", precision="fp32"))

    whole, cut = state(), state()
    samples = [crop_of(seed) for seed in (0, 1, 2, 3)] + [crop_of(4, people=0), crop_of(4)]
    terms = train_step(whole, objective_of(whole.model), [collate(samples, views=2)])
    parts = [collate(samples[:2], views=2), collate(samples[2:], views=2)]
    assert terms["pair"] > 0
    assert train_step(cut, objective_of(cut.model), parts) == pytest.approx(terms, rel=1e-4)


def test_paired_crops_need_a_glnet(tmp_path: Path):
    with pytest.raises(ValueError, match="--paired-crops are two crops of one person; take --family glnet"):
        train(TrainConfig(data="data", out=str(tmp_path), paired_crops=True))


@pytest.mark.slow
def test_a_step_may_be_cut_into_batches():
    def state() -> TrainState:
        return TrainState(tiny_glnet(), TrainConfig(data="", precision="fp32"))

    whole, cut = state(), state()
    samples = [crop_of(0), crop_of(1), crop_of(2, people=0)]
    terms = train_step(whole, objective_of(whole.model), [collate(samples)])
    parts = [collate(samples[:1]), collate(samples[1:])]
    assert train_step(cut, objective_of(cut.model), parts) == pytest.approx(terms, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("decomposed", [False, True])
def test_overfitting_one_crop_recovers_place_pose_and_keypoints(decomposed):
    model = tiny_glnet(decomposed=decomposed)
    model.backbone.requires_grad_(False)
    state = TrainState(model, TrainConfig(data="", precision="fp32", steps=45, lr=2e-3, warmup=5))
    batch, objective = collate([crop_of()]), objective_of(model)
    for _ in range(45):
        train_step(state, objective, [batch])
    pixels, true = seen(model.eval(), crop_of())
    pred = model(batch.images_B3HW(), batch.K_B33)
    assert (pred.translation_P3 - true.translation_P3).norm() < 0.15
    assert (pred.joints_PJ3 - true.joints_PJ3).norm(dim=-1).mean() < 0.15
    assert pred.centers.scores_P > 0.2
    said_M2 = pixels.keypoints_BhwM2[0, pred.centers.row_P, pred.centers.col_P]
    assert (said_M2 - true.joints_2d_PJ2 / 64).abs().max() < 0.15


@pytest.mark.slow
def test_training_goes_through_the_same_door(tmp_path: Path):
    """Of pictures with people, boxes are made and crops learned from; the file says what it is."""
    (tmp_path / "data").mkdir()
    write_shard(tmp_path / "data/a.tar", [crop_of(seed, side=200) for seed in range(4)])
    quick = {"steps": 2, "batch_size": 2, "warmup": 1, "precision": "fp32", "workers": 0, "log_every": 1}
    config = TrainConfig(
        data=str(tmp_path / "data"), out=str(tmp_path / "run"), device="cpu", paired_crops=True, **quick
    )
    path = train(config, model=tiny_glnet(), progress=False)
    with safe_open(path, "pt") as file:
        assert file.metadata()["family"] == "glnet"
        assert json.loads(file.metadata()["config"])["positives"] == 4
    notes = [
        json.loads(line) for line in (tmp_path / "run/log.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert notes[-1]["local_joints"] > 0
    assert notes[-1]["pair"] > 0


@pytest.mark.slow
def test_a_run_builds_the_family_that_it_names():
    config = TrainConfig(
        data="", family="glnet", image_size=64, init="random", network="local=no,positives=50"
    )
    model = build(config)
    assert (model.family, model.config.local, model.config.positives) == ("glnet", False, 50)
    assert len(model.config.parts) == 6
    assert isinstance(objective_of(model), GLNetObjective)
    assert not isinstance(objective_of(model), Objective)
    with pytest.raises(ValueError, match="family must be one of multihmr, glnet, got 'glnett'"):
        build(dataclasses.replace(config, family="glnett"))


@pytest.mark.slow
def test_a_model_of_another_family_lends_its_backbone():
    model = build(TrainConfig(data="", family="glnet", image_size=64, init="multihmr-anny-hybrid"))
    lender = load_model(device="cpu").backbone.state_dict()
    assert model.family == "glnet"
    assert "jaw" in " ".join(model.config.unpredicted)
    for name, value in model.backbone.state_dict().items():
        torch.testing.assert_close(value, lender[name])
