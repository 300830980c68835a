"""What tests of training share: toy people in shards, and runs of a tiny network."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from multihmr.data.sample import Sample
from multihmr.data.webdataset import write_shard
from multihmr.geometry import default_intrinsics
from multihmr.training.config import TrainConfig

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def toy_sample() -> Callable[..., Sample]:
    """toy_sample(seed, people): a picture of noise with toy people somewhere before the camera."""

    def make(seed: int = 0, people: int = 2) -> Sample:
        rng = np.random.default_rng(seed)
        turns = torch.from_numpy(rng.normal(0, 0.4, (people, 3, 3)).astype(np.float32))
        return Sample(
            image=rng.integers(0, 255, (64, 64, 3), dtype=np.uint8),
            K=default_intrinsics(64, 64).numpy(),
            pose=torch.linalg.matrix_exp(turns - turns.mT)[:, None].repeat(1, 3, 1, 1).numpy(),
            shape=rng.uniform(0, 1, (people, 2)).astype(np.float32),
            expression=rng.uniform(0, 1, (people, 1)).astype(np.float32),
            translation=np.float32([[-0.8, 0.3, 4.0], [2.0, -1.2, 5.0], [0, 1, 6]])[:people],
            visibility=np.ones(people, np.float32),
            name=f"{seed:06d}",
            body="toy",
        )

    return make


@pytest.fixture(scope="session")
def shards(toy_sample: Callable[..., Sample], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nine pictures of none to three people."""
    folder = tmp_path_factory.mktemp("shards")
    write_shard(folder / "a.tar", [toy_sample(seed, seed % 4) for seed in range(9)])
    return folder


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums in the same order as in processes that have one thread."""
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(count)


@pytest.fixture
def config(shards: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """config(out, **flags): a run of some steps in the folder tmp_path/out."""

    def make(out: str = "run", **flags: object) -> TrainConfig:
        quick = {"steps": 3, "batch_size": 4, "warmup": 1, "precision": "fp32", "workers": 0, "log_every": 1}
        options = {"data": str(shards), "out": str(tmp_path / out), "device": "cpu", **quick, **flags}
        return TrainConfig(**options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def start() -> Iterator[Callable[..., list[subprocess.Popen]]]:
    """start(config, processes): as many processes that train together, as torchrun would start them."""
    started: list[subprocess.Popen] = []

    def run(config: TrainConfig, processes: int = 1) -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [sys.executable, str(TESTS / "training/learn.py"), json.dumps(asdict(config))]
        paths = {"PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]), "OMP_NUM_THREADS": "1"}
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        for rank in range(processes):
            place = {"RANK": str(rank), "LOCAL_RANK": str(rank), "TORCHELASTIC_RUN_ID": "test"}
            together = {**meeting, **place} if processes > 1 else {}
            started.append(subprocess.Popen(command, env={**os.environ, **paths, **together}))
        return started[-processes:]

    yield run
    for process in started:
        process.kill()
        process.wait()
