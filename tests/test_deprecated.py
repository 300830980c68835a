"""Public module paths of version 0.3 still import, with a DeprecationWarning where the module moved."""

from __future__ import annotations

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from multihmr._deprecated import MOVED, MOVED_NAMES

ROOT = Path(__file__).parents[1]
# (old module, a public name there, where it is now)
OLD_PATHS = [
    ("frames", "open_video", "video.reader"),
    ("tracking", "Tracking", "video.tracker"),
    ("export", "save", "io.save"),
    ("export", "load", "io.save"),
    ("sequence", "collect", "video.tracks"),
    ("sequence", "load_track", "video.tracks"),
    ("parquet", "read_people", "io.parquet"),
    ("render", "draw", "visualization.draw"),
    ("coordinates", "camera_to_frame", "io.coordinate_frames"),
    ("bodies.body", "Body", "bodies.base"),
    ("formats.gltf", "clips_to_glb", "io.gltf"),
]
# public names of 0.3 whose modules have kept their path
KEPT_NAMES = [
    ("humans", "Humans"),
    ("humans", "Topology"),
    ("training.trainer", "TrainConfig"),
    ("training.trainer", "train"),
    ("model", "Model"),
    ("video", "VideoWriter"),
]


@pytest.mark.parametrize(("old", "name", "new"), OLD_PATHS, ids=lambda value: value)
def test_moved_modules_import_with_a_warning(old: str, name: str, new: str) -> None:
    if old == "parquet":
        pytest.importorskip("pyarrow")
    sys.modules.pop(f"multihmr.{old}", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if "." in old:
            importlib.import_module(f"multihmr.{old.partition('.')[0]}")  # warns on its own account
    with pytest.warns(DeprecationWarning, match=rf"multihmr\.{old} is now multihmr\.{new}; .*version 0\.5"):
        moved = importlib.import_module(f"multihmr.{old}")
    assert getattr(moved, name) is getattr(importlib.import_module(f"multihmr.{new}"), name)


@pytest.mark.parametrize(
    ("module", "name", "new"),
    [(module, name, new) for module, names in MOVED_NAMES.items() for name, new in names.items()],
    ids=lambda value: value,
)
def test_moved_names_are_found_with_a_warning(module: str, name: str, new: str) -> None:
    old = importlib.import_module(f"multihmr.{module}")
    if name in vars(old):
        assert vars(old)[name] is getattr(importlib.import_module(f"multihmr.{new}"), name)
        return  # the module uses it itself
    with pytest.warns(
        DeprecationWarning, match=rf"multihmr\.{module}\.{name} is now multihmr\.{new}\.{name}"
    ):
        found = getattr(old, name)
    assert found is getattr(importlib.import_module(f"multihmr.{new}"), name)


@pytest.mark.parametrize("module", MOVED_NAMES)
def test_names_that_never_were_are_missing(module: str) -> None:
    with pytest.raises(AttributeError, match=rf"module 'multihmr\.{module}' has no attribute 'nothing'"):
        importlib.import_module(f"multihmr.{module}").nothing  # noqa: B018


@pytest.mark.parametrize(("module", "name"), KEPT_NAMES, ids=lambda value: value)
def test_kept_modules_have_their_public_names(module: str, name: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        assert hasattr(importlib.import_module(f"multihmr.{module}"), name)


@pytest.mark.parametrize("new", sorted(set(MOVED.values())))
def test_the_table_names_modules_that_there_are(new: str) -> None:
    assert importlib.util.find_spec(f"multihmr.{new}") is not None


def test_a_from_import_warns_and_works() -> None:
    sys.modules.pop("multihmr.frames", None)
    with pytest.warns(DeprecationWarning, match=r"multihmr\.frames is now multihmr\.video\.reader"):
        from multihmr.frames import open_video
    assert open_video is importlib.import_module("multihmr.video.reader").open_video


def test_an_unknown_module_is_as_missing_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'multihmr\.nothing'"):
        importlib.import_module("multihmr.nothing")


def test_the_package_runs_as_a_program() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "multihmr", "--version"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        encoding="utf-8",
    )
    assert done.stdout.startswith("multihmr ")
    assert not done.stderr
