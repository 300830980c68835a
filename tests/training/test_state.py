import resource

import pytest
import torch
from toys import tiny_network

from multihmr.training.config import TrainConfig
from multihmr.training.state import TrainState
from multihmr.training.trainer import Objective, train_step


def state_of(**changes) -> TrainState:
    return TrainState(tiny_network(**changes), TrainConfig(data="", precision="fp32", warmup=5))


@pytest.fixture
def full_disk():
    """Files may not grow beyond 100 kB."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def saved(tmp_path):
    state = state_of()
    state.step = 7
    state.save(tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


@pytest.mark.slow
def test_a_loaded_state_goes_on_alike(tmp_path, toy_sample):
    from multihmr.training.collate import collate

    batches = [[collate([toy_sample(seed)])] for seed in range(3)]
    state, resumed = state_of(), state_of(seed=7)
    train_step(state, Objective(state.model), batches[0])
    state.save(tmp_path / "checkpoint.pt")
    expected = [train_step(state, Objective(state.model), batch) for batch in batches[1:]]
    resumed.load(tmp_path / "checkpoint.pt")
    assert [train_step(resumed, Objective(resumed.model), batch) for batch in batches[1:]] == expected


def test_a_full_disk_leaves_the_checkpoint_of_before(saved, full_disk):
    state = state_of()
    state.step = 9
    with pytest.raises(
        OSError, match=r"of step 9 cannot be written .*checkpoint.pt .*the previous one is intact"
    ):
        state.save(saved)
    assert torch.load(saved, weights_only=True)["step"] == 7
    assert [path.name for path in saved.parent.iterdir()] == ["checkpoint.pt"]


def test_a_checkpoint_of_another_size_is_refused_with_both(saved):
    with pytest.raises(
        ValueError, match=r"hybrid_lite0 at 64 pixels \(\d.*but this run trains .* at 96 pixels"
    ):
        state_of(image_size=96).load(saved)


def test_a_damaged_checkpoint_is_said(saved):
    saved.write_bytes(saved.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"checkpoint.pt is damaged"):
        state_of().load(saved)
