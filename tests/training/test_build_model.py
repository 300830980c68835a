import pytest
import torch

from multihmr import load_model
from multihmr.training.build_model import build
from multihmr.training.config import TrainConfig


@pytest.mark.slow
def test_what_is_added_to_a_trained_network_starts_anew_and_the_rest_stays():
    bundled = load_model(device="cpu")
    model = build(
        TrainConfig(data="", init="multihmr-anny-hybrid", image_size=96, network="refine=yes")
    ).eval()
    assert model.config.refine
    assert not bundled.config.refine
    own = model.state_dict()
    assert all(
        torch.equal(own[name], value)
        for name, value in bundled.state_dict().items()
        if "rows" not in name and "cols" not in name
    )
    assert not own["refinement.to_change.2.weight"].any()
