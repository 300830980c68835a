"""Generation of synthetic pictures: into shards, or on the fly during training."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import queue
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from ...bodies.loading import float32_on_cpu
from ..sample import Sample
from ..webdataset import write_shard
from .dataset import SyntheticScenes, about_assets, find_assets

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class GenerationConfig:
    """Arguments of `SyntheticScenes`, cheap to send to other processes."""

    seed: int
    size: int = 448
    split: str = "train"
    closeups: float | None = None
    assets: Path | None = None
    backgrounds: Path | None = None
    device: str = "cpu"

    def scenes(self) -> SyntheticScenes:
        """The data set with these arguments."""
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "seed"}
        return SyntheticScenes(self.seed, **options)


@float32_on_cpu()
def write_shards(
    out_dir: Path | str,
    count: int,
    config: GenerationConfig,
    *,
    per_shard: int = 500,
    workers: int = 2,
    progress: bool = False,
) -> list[Path]:
    """Render pictures into shards OUT/SEED-00000.tar ...; shards that exist are kept, so it can be resumed.

    Picture i of seed s is always the same, and no two seeds share pictures: use different seeds for training
    and test sets.

    Args:
        out_dir: output folder, made if needed.
        count: number of pictures.
        config: which pictures.
        per_shard: pictures per shard.
        workers: number of spawned processes, with one thread each.
        progress: show a progress bar on a terminal.

    Returns:
        Paths of all shards.

    Raises:
        FileNotFoundError: a folder of the configuration does not exist.
        ImportError: the extra "synthetic" is not installed.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    config = replace(config, assets=find_assets(config.assets))
    shards = [(k, min(per_shard, count - k * per_shard)) for k in range(-(-count // per_shard))]
    paths = [out_dir / f"{config.seed}-{k:05d}.tar" for k, _ in shards]
    jobs = [
        (path, config, k * per_shard, number)
        for path, (k, number) in zip(paths, shards, strict=True)
        if not path.exists()
    ]
    bar = tqdm(total=count, unit="picture", disable=None if progress else True)
    bar.update(count - sum(number for *_, number in jobs))
    if workers <= 1 or len(jobs) <= 1:
        for job in jobs:
            _write_one(job, bar)
    else:
        context = multiprocessing.get_context("spawn")
        with context.Manager() as manager:
            done = manager.Queue()
            with context.Pool(min(workers, len(jobs)), _start, (done,)) as pool:
                waiting = pool.map_async(_write_one, jobs, chunksize=1)
                while not waiting.ready() or not done.empty():
                    with contextlib.suppress(queue.Empty):
                        bar.update(done.get(timeout=0.5))
                waiting.get()  # raises what a worker raised
    bar.close()
    return paths


_done: Any = None  # queue on which a worker process reports each picture


def _start(done: Any) -> None:
    global _done
    _done = done
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


_made: dict[GenerationConfig, SyntheticScenes] = {}  # one generator a process: textures are decoded once


def _scenes(config: GenerationConfig) -> SyntheticScenes:
    if config not in _made:
        _made.clear()
        _made[config] = config.scenes()
    return _made[config]


class RenderedDataset(Sequence[Sample]):
    """Pictures rendered when they are read, in the process that reads them: training never repeats one.

    On a CPU a picture costs a third of a second of a core. Which assets it is made of is logged.
    """

    def __init__(self, config: GenerationConfig, count: int = 1_000_000) -> None:
        self.config = replace(config, assets=find_assets(config.assets))
        level = logging.WARNING if self.config.assets is None else logging.INFO
        _log.log(level, "synthetic pictures: %s", about_assets(self.config.assets))
        self._numbers = range(count)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        numbers = self._numbers[index]  # IndexError beyond the last
        if isinstance(numbers, range):
            return [self[i] for i in numbers]
        return _scenes(self.config)[numbers]


def _write_one(job: tuple[Path, GenerationConfig, int, int], bar: Any = None) -> Path:
    path, config, first, number = job
    scenes = _scenes(config)

    def rendered() -> Iterator[Sample]:
        for i in range(first, first + number):
            yield scenes[i]
            if bar is not None:
                bar.update()
            elif _done is not None:
                _done.put(1)

    write_shard(path, rendered(), scenes.truth)
    return path


def contact_sheet(samples: Iterable[Sample], *, columns: int = 8, side: int = 224) -> np.ndarray:
    """(rows * side, columns * side, 3) uint8: thumbnails of the pictures in a grid."""
    tiles = [
        np.asarray(Image.fromarray(s.image).resize((side, side), Image.Resampling.LANCZOS)) for s in samples
    ]
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)
