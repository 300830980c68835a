import dataclasses

import pytest

from multihmr.cli.arguments import current_flags
from multihmr.cli.train import RENAMED_FLAGS
from multihmr.data.mixture import open_sources
from multihmr.training.config import RENAMED, TrainConfig

OLD = {
    "backbone_lr": 0.25,
    "clip": 9.0,
    "ema": 0.5,
    "recompute": True,
    "zoom": 0.1,
    "person": 0.2,
    "roll": 0.3,
    "cover": 0.4,
    "twins": True,
}


def test_old_names_of_fields_are_read_from_saved_configurations():
    assert set(OLD) == set(RENAMED)
    config = TrainConfig.from_dict({"data": "d", **OLD})
    values = dataclasses.asdict(config)
    assert {new: values[new] for new in RENAMED.values()} == {RENAMED[old]: v for old, v in OLD.items()}
    assert TrainConfig.from_dict(values) == config


@pytest.mark.parametrize("old", sorted(RENAMED))
def test_old_names_of_fields_are_read_with_a_warning(old):
    with pytest.warns(DeprecationWarning, match=rf"TrainConfig\.{old} is now {RENAMED[old]}"):
        config = TrainConfig("d", **{old: OLD[old]})
    assert getattr(config, RENAMED[old]) == OLD[old]
    with pytest.warns(DeprecationWarning, match=rf"TrainConfig\.{old} is now {RENAMED[old]}"):
        assert getattr(config, old) == OLD[old]
    with pytest.warns(DeprecationWarning, match=old):
        assert dataclasses.replace(config, **{old: 2 * OLD[old]}) != config


def test_unknown_and_doubled_fields_are_refused():
    with pytest.raises(ValueError, match="has no field speed"):
        TrainConfig.from_dict({"data": "d", "speed": 2})
    with pytest.raises(ValueError, match="ema and ema_decay are one field"):
        TrainConfig.from_dict({"data": "d", "ema": 0.5, "ema_decay": 0.6})
    with pytest.raises(AttributeError, match="speed"):
        _ = TrainConfig("d").speed


def test_old_flags_are_read_and_noted(capsys):
    words = current_flags(["--ema", "0.5", "--clip=9", "--no-recompute", "--data", "clip"], RENAMED_FLAGS)
    expected = "--ema-decay 0.5 --grad-clip-norm=9 --no-gradient-checkpointing --data clip"
    assert words == expected.split()
    assert capsys.readouterr().err.splitlines() == [
        "multihmr: --ema is now --ema-decay",
        "multihmr: --clip is now --grad-clip-norm",
        "multihmr: --no-recompute is now --no-gradient-checkpointing",
    ]


def test_old_spellings_of_sources_are_read(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for word in ("background", "nobody"):
        (source,) = open_sources(f"{word}@{tmp_path}")
        assert len(source.samples) == 1
