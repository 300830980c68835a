"""Which synthetic pictures: rendered into shards, or while a network learns from them."""

from __future__ import annotations

import contextlib
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

from ..sample import Sample
from ..webdataset import write_shard
from .dataset import SyntheticScenes, find_assets


@dataclass(frozen=True)
class Recipe:
    """Which pictures: the arguments of `SyntheticScenes`, light to send to other processes."""

    seed: int
    size: int = 448
    split: str = "train"
    closeups: float | None = None
    assets: Path | None = None
    backgrounds: Path | None = None
    device: str = "cpu"

    def scenes(self) -> SyntheticScenes:
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "seed"}
        return SyntheticScenes(self.seed, **options)


def write_shards(
    out_dir: Path | str,
    count: int,
    recipe: Recipe,
    *,
    per_shard: int = 500,
    workers: int = 2,
    progress: bool = False,
) -> list[Path]:
    """Render `count` pictures into OUT/SEED-00000.tar ...; shards that exist are kept, so it can be resumed.

    Processes are spawned, each with one thread. Give training and test sets different seeds: picture i of
    seed s is always the same, and no two seeds share pictures.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    recipe = replace(recipe, assets=find_assets(recipe.assets))
    shards = [(k, min(per_shard, count - k * per_shard)) for k in range(-(-count // per_shard))]
    paths = [out_dir / f"{recipe.seed}-{k:05d}.tar" for k, _ in shards]
    jobs = [
        (path, recipe, k * per_shard, number)
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


_done: Any = None  # where a worker process says that a picture is ready


def _start(done: Any) -> None:
    global _done
    _done = done
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


_made: dict[Recipe, SyntheticScenes] = {}  # one generator a process: textures are decoded once


def _scenes(recipe: Recipe) -> SyntheticScenes:
    if recipe not in _made:
        _made.clear()
        _made[recipe] = recipe.scenes()
    return _made[recipe]


class Rendered(Sequence[Sample]):
    """The first `count` pictures of a recipe, each rendered when it is asked for, in whatever process asks.

    Training on these never sees a picture twice. On a CPU a picture costs a third of a second of a core.
    """

    def __init__(self, recipe: Recipe, count: int = 1_000_000) -> None:
        self.recipe = replace(recipe, assets=find_assets(recipe.assets))
        self._numbers = range(count)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        numbers = self._numbers[index]  # IndexError beyond the last
        if isinstance(numbers, range):
            return [self[i] for i in numbers]
        return _scenes(self.recipe)[numbers]


def _write_one(job: tuple[Path, Recipe, int, int], bar: Any = None) -> Path:
    path, recipe, first, number = job
    scenes = _scenes(recipe)

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
    """(rows * side, columns * side, 3) uint8: the pictures side by side, to look at."""
    tiles = [
        np.asarray(Image.fromarray(s.image).resize((side, side), Image.Resampling.LANCZOS)) for s in samples
    ]
    tiles += [np.full((side, side, 3), 255, np.uint8)] * (-len(tiles) % columns)
    rows = [np.concatenate(tiles[k : k + columns], axis=1) for k in range(0, len(tiles), columns)]
    return np.concatenate(rows, axis=0)
