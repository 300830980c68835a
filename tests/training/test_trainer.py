import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import ToyBody, tiny_model

from multihmr.data.sample import Sample
from multihmr.data.shards import Shards, write_shard
from multihmr.geometry import default_intrinsics
from multihmr.training import trainer
from multihmr.training.targets import collate, make_targets
from multihmr.training.trainer import Objective, TrainConfig, TrainState, train_step


def toy_sample(seed: int = 0, people: int = 2) -> Sample:
    """A picture of noise with toy people somewhere before the camera."""
    rng = np.random.default_rng(seed)
    turns = torch.from_numpy(rng.normal(0, 0.4, (people, 3, 3)).astype(np.float32))
    return Sample(
        image=rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
        K=default_intrinsics(64, 64).numpy(),
        pose=torch.linalg.matrix_exp(turns - turns.transpose(-1, -2))[:, None].repeat(1, 3, 1, 1).numpy(),
        shape=rng.uniform(0, 1, (people, 2)).astype(np.float32),
        expression=rng.uniform(0, 1, (people, 1)).astype(np.float32),
        translation=np.float32([[-0.8, 0.3, 4.0], [2.0, -1.2, 5.0], [0, 1, 6]])[:people],
        visibility=np.ones(people, np.float32),
        name=f"{seed:06d}",
    )


def state_of(config: TrainConfig, seed: int = 0) -> TrainState:
    return TrainState(tiny_model(seed), config)


def test_overfitting_one_image_recovers_count_place_and_pose():
    config = TrainConfig(data="", steps=220, batch_size=1, lr=3e-3, warmup=10, half=False)
    state = state_of(config)
    batch, objective = collate([toy_sample()]), Objective(state.model)
    for _ in range(config.steps):
        train_step(state, objective, batch)
    model = state.model.eval()
    pred = model(batch.images_B3HW(), batch.K_B33, threshold=0.5)
    true = make_targets(batch, ToyBody(), 16)
    assert len(pred.centers) == 2
    order = [pred.translation_P3[:, 0].argsort(), true.translation_P3[:, 0].argsort()]
    place_error = (pred.translation_P3[order[0]] - true.translation_P3[order[1]]).norm(dim=-1)
    joint_error = (pred.joints_PJ3[order[0]] - true.joints_PJ3[order[1]]).norm(dim=-1)
    assert place_error.max() < 0.25
    assert joint_error.mean() < 0.25


def test_a_resumed_run_has_the_identical_next_loss(tmp_path):
    config = TrainConfig(data="", steps=20, warmup=5, half=False)
    batches = [collate([toy_sample(seed)]) for seed in range(4)]
    state = state_of(config)
    for batch in batches[:2]:
        train_step(state, Objective(state.model), batch)
    state.save(tmp_path / "checkpoint.pt")
    uninterrupted = [train_step(state, Objective(state.model), batch) for batch in batches[2:]]
    resumed = state_of(config, seed=7)
    resumed.load(tmp_path / "checkpoint.pt")
    assert [train_step(resumed, Objective(resumed.model), batch) for batch in batches[2:]] == uninterrupted


def test_a_number_gone_wrong_names_the_term():
    state = state_of(TrainConfig(data="", half=False))
    batch = collate([toy_sample()])
    batch.expression_PE[0, 0] = math.nan
    with pytest.raises(FloatingPointError, match="expression"):
        train_step(state, Objective(state.model), batch)


def test_the_stream_repeats_itself_and_never_repeats_a_view(tmp_path):
    write_shard(tmp_path / "a.tar", [toy_sample(seed) for seed in range(3)])
    stream = trainer.Stream([Shards(tmp_path)], 64, ToyBody().topology, seed=3)
    np.testing.assert_array_equal(stream[4].image, stream[4].image)
    first = [stream[g] for g in range(3)]
    again = [stream[g] for g in range(3, 6)]
    assert {s.name for s in first} == {s.name for s in again} == {"000000", "000001", "000002"}
    assert not any((a.image == b.image).all() for a in first for b in again)


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs torch with gloo")
def test_two_processes_learn_what_one_would(tmp_path):
    """Each process sees its half of every step, and both end with the mean gradient and equal weights."""
    context = torch.multiprocessing.get_context("spawn")
    workers = [context.Process(target=_learn_in_two, args=(rank, tmp_path)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    (weights, gradient), (other_weights, _) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)
    )
    torch.testing.assert_close(weights, other_weights, atol=0, rtol=0)
    alone = state_of(TrainConfig(data="", half=False))
    train_step(alone, Objective(alone.model), collate([toy_sample(seed) for seed in range(2)]))
    torch.testing.assert_close(gradient, alone.model.head.to_pose.weight.grad, atol=1e-5, rtol=1e-3)


def _learn_in_two(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    state = state_of(TrainConfig(data="", half=False))
    shared = trainer.Processes(rank, 2).share(Objective(state.model))
    train_step(state, shared, collate([toy_sample(rank)]))
    weight = state.model.head.to_pose.weight
    torch.save((weight.detach(), weight.grad), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_processes_must_share_a_step_evenly(tmp_path):
    config = TrainConfig(data=str(tmp_path), batch_size=3)
    with pytest.raises(ValueError, match="2 processes cannot share 3 pictures"):
        trainer._batches(config, tiny_model(), 0, trainer.Processes(0, 2))


def test_learning_rate_warms_up_and_falls():
    state = state_of(TrainConfig(data="", steps=100, warmup=10))
    factors = []
    for state.step in range(100):
        factors.append(state.learning_rate_factor())
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.02


def test_exporting_writes_the_average_and_leaves_the_trained_weights_alone(tmp_path):
    state = state_of(TrainConfig(data="", half=False))
    name = "to_score.0.weight"
    before = state.model.state_dict()[name].clone()
    state.ema[name] = before + 1
    trainer.export(state, tmp_path / "weights.safetensors")
    torch.testing.assert_close(state.model.state_dict()[name], before)
    written = load_file(tmp_path / "weights.safetensors")[name].float()
    torch.testing.assert_close(written, before + 1, atol=1e-3, rtol=1e-3)


def test_shards_give_back_what_was_written(tmp_path):
    samples = [toy_sample(seed, people) for seed, people in enumerate((2, 0, 3))]
    write_shard(tmp_path / "a.tar", samples)
    shards = Shards(tmp_path)
    assert [len(shards[i]) for i in range(len(shards))] == [2, 0, 3]
    np.testing.assert_allclose(shards[2].pose, samples[2].pose)
    with pytest.raises(FileNotFoundError, match="multihmr synth"):
        Shards(tmp_path / "nowhere")
