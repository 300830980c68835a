import json
import math
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from toys import ToyBody, tiny_network

from multihmr.data.webdataset import Shards, write_shard
from multihmr.training import trainer
from multihmr.training.build_model import checkpoint_gradients
from multihmr.training.collate import collate
from multihmr.training.config import TrainConfig
from multihmr.training.state import TrainState
from multihmr.training.targets import make_targets
from multihmr.training.trainer import Objective, train, train_step

NO_GLOO = not torch.distributed.is_gloo_available()


def state_of(**flags) -> TrainState:
    return TrainState(tiny_network(), TrainConfig(data="", precision="fp32", **flags))


def losses(config) -> list[float]:
    """The total at each step; steps that were done twice count as they were done last."""
    lines = (Path(config.out) / "log.jsonl").read_text(encoding="utf-8").splitlines()
    notes = {note["step"]: note["total"] for note in map(json.loads, lines)}
    return [notes[step] for step in sorted(notes)]


def learn(config) -> list[float]:
    """Train here, and what the loss was at each step."""
    train(config, model=tiny_network(), progress=False)
    return losses(config)


def mean_gradient(config) -> torch.Tensor:
    """Of the run's steps. Weights would tell less: steps of Adam forget how large gradients are."""
    optimizer = torch.load(Path(config.out) / "checkpoint.pt", weights_only=True)["optimizer"]
    return torch.cat([moments["exp_avg"].flatten() for moments in optimizer["state"].values()])


@pytest.mark.slow
def test_overfitting_one_image_recovers_count_place_and_pose(toy_sample):
    state = state_of(steps=70, lr=3e-3, warmup=10)
    state.model.backbone.freeze(4)
    batch, objective = collate([toy_sample()]), Objective(state.model)
    for _ in range(70):
        train_step(state, objective, [batch])
    pred = state.model.eval()(batch.images_B3HW(), batch.K_B33, threshold=0.5)
    true = make_targets(batch, ToyBody(), 16)
    assert len(pred.centers) == 2
    order = [pred.translation_P3[:, 0].argsort(), true.translation_P3[:, 0].argsort()]
    place_error = (pred.translation_P3[order[0]] - true.translation_P3[order[1]]).norm(dim=-1)
    joint_error = (pred.joints_PJ3[order[0]] - true.joints_PJ3[order[1]]).norm(dim=-1)
    assert place_error.max() < 0.25
    assert joint_error.mean() < 0.25


@pytest.mark.slow
def test_accumulated_batches_are_one_step(toy_sample):
    """Two people in one picture and none in the other count as in one batch of both."""
    whole, cut = state_of(), state_of()
    samples = [toy_sample(seed, people) for seed, people in enumerate((2, 0, 1, 3))]
    terms = train_step(whole, Objective(whole.model), [collate(samples)])
    parts = [collate(samples[:1]), collate(samples[1:2]), collate(samples[2:])]
    assert train_step(cut, Objective(cut.model), parts) == pytest.approx(terms, rel=1e-5)
    for one, other in zip(whole.model.parameters(), cut.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=2e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(NO_GLOO, reason="needs torch with gloo")
@pytest.mark.usefixtures("one_thread")
def test_two_processes_learn_what_one_does_with_twice_the_batches(config, start):
    flags = {"steps": 2, "grad_clip_norm": 1e9, "lr": 1e-5}
    alone, together = config("alone", accumulate=2, **flags), config("together", **flags)
    processes = start(together, 2)
    expected = learn(alone)
    assert [process.wait(60) for process in processes] == [0, 0]
    assert losses(together) == pytest.approx(expected, rel=1e-4)
    difference = mean_gradient(together) - mean_gradient(alone)
    assert difference.norm() < 1e-3 * mean_gradient(alone).norm()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_killed_run_goes_on_as_if_nothing_had_happened(config, start):
    """Killed anywhere by the hardest signal, with other workers afterwards."""
    killed = config("killed", steps=10, save_seconds=0.0, workers=2)
    [process] = start(killed)
    expected = learn(config("whole", steps=10))
    log, enough = Path(killed.out) / "log.jsonl", np.random.default_rng().integers(2, 7)
    while not log.exists() or len(log.read_text(encoding="utf-8").splitlines()) < enough:
        time.sleep(0.002)
        assert process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    saved = torch.load(Path(killed.out) / "checkpoint.pt", weights_only=True)["step"]
    assert 1 <= saved < 10
    assert learn(replace(killed, workers=0, save_seconds=60.0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_a_stop_signal_finishes_the_step_and_saves(config, monkeypatch):
    def step_and_hear(state, *others):
        terms = train_step(state, *others)
        if state.step == 2:
            signal.raise_signal(signal.SIGTERM)
        return terms

    monkeypatch.setattr(trainer, "train_step", step_and_hear)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt, match=r"after step 2 of 30, which is saved in .*checkpoint.pt"):
        train(config(steps=30), model=tiny_network(), progress=False)
    assert signal.getsignal(signal.SIGTERM) is before
    assert torch.load(Path(config().out) / "checkpoint.pt", weights_only=True)["step"] == 2


@pytest.mark.slow
def test_defaults_of_the_host_program_do_not_disturb(config):
    """float64, and a device on which nothing can be computed."""
    network = tiny_network()
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        weights = train(config(steps=2), model=network, progress=False)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
    assert weights.is_file()


# the signal handler may raise inside a callback of the import system, where Python ignores it
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_killed_reader_of_pictures_is_said(config, monkeypatch):
    """Workers are children of this process; the one that reads kills itself as a lack of memory would."""
    monkeypatch.setattr(Shards, "__getitem__", lambda *_: signal.raise_signal(signal.SIGKILL))
    monkeypatch.setattr(trainer, "check_sources", lambda *_, **__: None)
    with pytest.raises(ChildProcessError, match=r"died \(DataLoader worker .*\); .*fewer --workers"):
        train(config(workers=1), model=tiny_network(), progress=False)


@pytest.mark.slow
def test_a_number_gone_wrong_names_term_and_sample(toy_sample):
    state = state_of()
    batch = collate([toy_sample(0), toy_sample(1)])
    batch.expression_PE[3, 0] = math.inf
    with pytest.raises(FloatingPointError, match=r"term expression.* because of '000001'; repair"):
        train_step(state, Objective(state.model), [batch])


def test_spoilt_weights_are_blamed_on_nobody(toy_sample):
    state = state_of()
    state.model.head.to_depth.bias.data.fill_(math.nan)
    with pytest.raises(
        FloatingPointError, match=r"depth.* lower the learning rate, or .* '000000', '000001'"
    ):
        train_step(state, Objective(state.model), [collate([toy_sample(0), toy_sample(1)])])


def exploding(state: TrainState) -> torch.nn.Parameter:
    """A weight of the network whose gradient is always infinite."""
    weight = state.model.head.to_depth.weight
    weight.register_hook(lambda gradient: gradient + math.inf)
    return weight


@pytest.mark.slow
def test_an_infinite_gradient_names_the_samples(toy_sample):
    state = state_of()
    exploding(state)
    with pytest.raises(FloatingPointError, match=r"gradient is not finite at step 0, .* this step: '000004'"):
        train_step(state, Objective(state.model), [collate([toy_sample(4)])])


@pytest.mark.slow
def test_in_fp16_a_step_with_infinite_gradients_is_left_out(toy_sample):
    state = TrainState(tiny_network(), TrainConfig(data="", precision="fp16"))
    weight, scale = exploding(state), state.scaler.get_scale()
    before = weight.detach().clone()
    train_step(state, Objective(state.model), [collate([toy_sample()])])
    torch.testing.assert_close(weight.detach(), before, atol=0, rtol=0)
    assert state.scaler.get_scale() < scale


@pytest.mark.slow
def test_a_sample_of_another_body_is_refused_at_once(config, toy_sample, tmp_path):
    write_shard(tmp_path / "foreign.tar", [replace(toy_sample(), body="smplx")])
    with pytest.raises(ValueError, match=r"foreign.tar cannot .* body 'smplx', the model has 'toy'"):
        train(config(data=str(tmp_path / "foreign.tar")), model=tiny_network(), progress=False)


def test_learning_rate_warms_up_and_falls():
    state = state_of(steps=100, warmup=10)
    factors = []
    for state.step in range(100):
        factors.append(state.learning_rate_factor())
    assert factors[0] == pytest.approx(0.1)
    assert max(factors) == pytest.approx(1.0)
    assert factors[-1] < 0.02


@pytest.mark.slow
def test_recomputing_changes_no_gradient(toy_sample):
    plain, thrifty = state_of(), state_of()
    calls = []
    checkpoint_gradients(thrifty.model.backbone)
    thrifty.model.backbone.blocks[0].norm1.register_forward_hook(lambda *_: calls.append(1))
    for state in (plain, thrifty):
        train_step(state, Objective(state.model), [collate([toy_sample()])])
    assert len(calls) == 2
    for one, other in zip(plain.model.parameters(), thrifty.model.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.slow
def test_the_journal_notes_speed_and_waiting(config):
    learn(config())
    last = json.loads((Path(config().out) / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["step"] == 3
    assert last["pictures_per_second"] > 0
    assert 0 < last["waiting"] < 1


def test_exporting_writes_the_average_and_leaves_the_trained_weights_alone(tmp_path):
    state = state_of()
    name = "to_score.0.weight"
    before = state.model.state_dict()[name].clone()
    state.ema[name] = before + 1
    trainer.export(state, tmp_path / "weights.safetensors")
    torch.testing.assert_close(state.model.state_dict()[name], before)
    written = load_file(tmp_path / "weights.safetensors")[name].float()
    torch.testing.assert_close(written, before + 1, atol=1e-3, rtol=1e-3)


def test_what_nobody_moved_is_said_of_the_weights(toy_sample, tmp_path):
    state, batch = state_of(), collate([toy_sample()])
    batch.pose_PR33[:, 1] = torch.eye(3)
    batch.pose_PR33[:, 2] = math.nan
    state.record_motion([batch])
    assert state.unmoved_names() == ("spine", "head")
    trainer.export(state, tmp_path / "weights.safetensors")
    assert state.model.config.unpredicted == ("spine", "head")


def unknown_camera(sample):
    return replace(sample, K=np.full((3, 3), np.nan, np.float32))


@pytest.mark.slow
def test_mirror_weight_teaches_one_field_of_view_for_a_picture_and_its_mirror_image(toy_sample):
    state = state_of(steps=30, lr=3e-3, warmup=1, mirror_weight=1.0)
    objective = Objective(state.model, mirror_weight=1.0)
    lopsided = toy_sample(0, 0)
    lopsided.image[:, :32] = np.random.default_rng(0).integers(0, 256, lopsided.image[:, :32].shape)
    batch = collate([unknown_camera(lopsided)])
    images = batch.images_B3HW()

    def apart() -> float:
        fov = state.model.field_of_view(torch.cat([images, images.flip(-1)])).log()
        return float((fov[0] - fov[1]).abs())

    torch.nn.init.normal_(state.model.to_fov[2].weight, std=3.0)
    with torch.no_grad():
        before = apart()
    terms = train_step(state, objective, [batch])
    assert terms["mirror"] == pytest.approx(before, rel=0.05)
    for _ in range(29):
        train_step(state, objective, [batch])
    with torch.no_grad():
        assert apart() < before / 3


@pytest.mark.slow
def test_known_cameras_have_no_mirror_loss(toy_sample):
    state = state_of()
    terms = train_step(state, Objective(state.model, mirror_weight=1.0), [collate([toy_sample()])])
    assert terms["mirror"] == 0
    mixed = collate([toy_sample(), unknown_camera(toy_sample(1, 0)), unknown_camera(toy_sample(2, 0))])
    whole = train_step(state_of(), Objective(state_of().model, mirror_weight=1.0), [mixed])
    assert whole["mirror"] > 0


def test_distillation_counts_pictures_of_all_batches_of_a_step(toy_sample):
    state = state_of()
    state.model.backbone.drift_B = torch.tensor([0.2])  # as a thawed MoveNet sets it
    batches = [collate([toy_sample()]), collate([toy_sample(1, 0)])]
    terms = train_step(state, Objective(state.model, distillation_weight=20.0), batches)
    assert terms["distillation"] == pytest.approx(20 * (0.2 + 0.2) / 2)


def test_mirror_weight_needs_a_network_that_predicts_the_camera():
    from toys import tiny_glnet

    with pytest.raises(ValueError, match="--mirror-weight is for networks that predict the camera"):
        trainer.objective_of(tiny_glnet(), mirror_weight=1.0)
    with pytest.raises(ValueError, match="--no-shape-from-mesh is for --family multihmr"):
        trainer.objective_of(tiny_glnet(), shape_from_mesh=False)


def test_the_objective_says_whether_the_shape_learns_from_the_mesh():
    for wanted in (True, False):
        objective = trainer.objective_of(tiny_network(), shape_from_mesh=wanted)
        assert objective.model.shape_from_mesh == wanted
        assert (objective.criterion.weights.rest_joints > 0) != wanted
