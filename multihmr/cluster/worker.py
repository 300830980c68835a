"""Ray worker: a model copy in its own process that turns rows of pictures into rows of tables."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
import torch

from ..io.parquet import BAD, SHARDS, Found, people_schema, people_table, pictures_table
from ..preprocessing.camera import check_intrinsics
from ..preprocessing.image import LoadedImage, load_image
from ..runtime.backends import check_backend, make_runtime
from ..storage.paths import cache_folder

if TYPE_CHECKING:
    from ..humans import Humans
    from ..model import Model

TRIES = 2  # of a single picture after its worker died


@dataclass(frozen=True)
class Pool:
    """Number of workers, their threads, and the resources that they claim.

    On CPUs workers claim nine tenths of theirs from Ray, which leaves room for readers.
    """

    workers: int
    threads: int
    gpu: bool

    @classmethod
    def of(cls, resources: Mapping[str, float], workers: int | None, threads: int | None) -> Pool:
        """One worker per GPU with a share of the CPUs, else all CPUs.

        Raises:
            ValueError: Ray has fewer resources than asked for.
        """
        cpus, gpus = resources.get("CPU", 1.0), int(resources.get("GPU", 0))
        if gpus:
            pool = cls(workers or gpus, threads or max(1, int(cpus // (workers or gpus))), True)
        else:
            pool = cls(workers or max(1, int(cpus // (threads or 1))), threads or 1, False)
        if pool.workers > gpus if gpus else pool.workers * pool.threads > max(cpus, 1):
            raise ValueError(
                f"{pool.workers} workers of {pool.threads} threads are more than Ray has: {cpus:g} CPUs, "
                f"{gpus} GPUs; ask for fewer"
            )
        return pool

    @property
    def claims(self) -> dict[str, float]:
        """Resources of one worker."""
        return {"num_gpus": 1} if self.gpu else {"num_cpus": 0.9 * self.threads}

    @property
    def reader_cpus(self) -> float:
        return 1.0 if self.gpu else 0.1


@ray.remote
class RetryTracker:
    """Tracks which pictures are in work, in an actor that survives a dying worker."""

    def __init__(self) -> None:
        self.begun: Counter[str] = Counter()
        self.alone: Counter[str] = Counter()

    def begin(self, names: list[str]) -> bool:
        """Whether one of these was begun before and never ended, or is known to kill workers."""
        again = any(self.begun[name] or self.alone[name] for name in names)
        self.begun.update(names)
        return again

    def begin_alone(self, name: str) -> int:
        """How often this picture was begun alone before and never ended."""
        self.alone[name] += 1
        return self.alone[name] - 1

    def end(self, names: list[str]) -> None:
        for name in names:
            del self.begun[name]
            if self.alone[name] <= TRIES:  # kept for the others: their batch may be repeated
                del self.alone[name]


class Worker:
    """Callable of Ray Data: from a batch of datasource.ROW to one row of packed tables and the seconds."""

    def __init__(
        self, model: Any, retries: Any, options: dict[str, Any], pool: Pool, backend: str = "eager"
    ) -> None:
        """model: reference in Ray's store. options: of predict_batch. backend: built in the worker."""
        torch.set_num_threads(pool.threads)
        self.model: Model = ray.get(model)
        if pool.gpu:
            backbone = self.model.backbone
            backbone.half_dtype = backbone.half_dtype or torch.float16
            self.model = self.model.to("cuda")
        if backend != "eager":
            check_backend(backend, device=self.model.device.type)
            folder = cache_folder() / "graphs"
            self.model.runtime = make_runtime(self.model.network, backend, folder=folder)
        self.retries, self.options = retries, options
        self.readers = ThreadPoolExecutor(pool.threads)
        blank = self._warm_up()  # a machine that cannot predict fails now, before a picture is blamed
        self.schema = people_schema(self.model.body, blank.unpredicted, refined=blank.refined is not None)

    def __call__(self, batch: pa.Table) -> pa.Table:
        start = time.perf_counter()
        rows = batch.to_pylist()
        given = [row for row in rows if row["bytes"] is not None]
        names = [row["picture"] for row in given]
        again = bool(given) and ray.get(self.retries.begin.remote(names))
        answers = [self._predict_alone(row) for row in given] if again else self._predict(given)
        tables = self._tables(rows, given, answers)
        if given:
            ray.get(self.retries.end.remote(names))
        packed = {kind: [pack(table)] for kind, table in tables.items()}
        return pa.table({**packed, "seconds": [time.perf_counter() - start]})

    def _tables(
        self, rows: list[dict[str, Any]], given: list[dict[str, Any]], answers: list[Humans | str]
    ) -> dict[str, pa.Table]:
        found: list[Found] = []
        bad = [row for row in rows if row["reason"] is not None]
        for row, answer in zip(given, answers, strict=True):
            if isinstance(answer, str):
                bad.append({**row, "reason": answer})
            else:
                found.append((row["picture"], row["shard"], answer))
        ends = [{**row, "pictures": row["count"]} for row in rows if row["count"] is not None]
        return {
            "people": people_table(found, self.schema),
            "pictures": pictures_table(found),
            "bad": pa.Table.from_pylist(bad, BAD),
            "shards": pa.Table.from_pylist(ends, SHARDS),
        }

    def _predict_alone(self, row: dict[str, Any]) -> Humans | str:
        tries = ray.get(self.retries.begin_alone.remote(row["picture"]))
        if tries >= TRIES:
            return (
                f"its worker died {TRIES + 1} times over it: too large for the memory, or a bug in a decoder"
            )
        return self._predict([row])[0]

    def _predict(self, rows: list[dict[str, Any]]) -> list[Humans | str]:
        """People of each row, or the reason why there are none."""
        read = list(self.readers.map(_read, rows))
        asked = [i for i, answer in enumerate(read) if not isinstance(answer, str)]
        answers: list[Any] = list(read)
        try:
            people = self._predict_photos([read[i] for i in asked])
        except Exception:  # one picture, or the GPU's memory for all together
            people = [self._predict_single(read[i]) for i in asked]
        for i, answer in zip(asked, people, strict=True):
            answers[i] = answer
        return answers

    def _predict_photos(self, photos: list[Any]) -> list[Any]:
        images, Ks = [photo for photo, _ in photos], [K for _, K in photos]
        return self.model.predict_batch(images, Ks, **self.options)

    def _predict_single(self, photo: Any) -> Any:
        try:
            return self._predict_photos([photo])[0]
        except Exception as error:
            try:
                self._warm_up()
            except Exception:  # a failed GPU may need a new process
                os._exit(1)
            return f"the network failed on it: {type(error).__name__}: {' '.join(str(error).split())}"

    def _warm_up(self) -> Humans:
        blank = np.full((64, 64, 3), 128, np.uint8)
        return self.model.predict_batch([blank], hands_and_faces=self.options.get("hands_and_faces", False))[
            0
        ]


def _read(row: dict[str, Any]) -> tuple[LoadedImage, np.ndarray | None] | str:
    """The decoded picture and its camera; or the reason if one is unusable."""
    try:
        photo, K = load_image(row["bytes"]), row["K"]
        if K is not None:
            K = check_intrinsics(np.reshape(K, (3, 3)) if len(K) == 9 else K, *photo.pixels.shape[:2])
        return photo, K
    except (ValueError, OSError, ImportError, MemoryError) as error:
        return " ".join(str(error).split()) or type(error).__name__


def pack(table: pa.Table) -> bytes:
    """A table as bytes, for Ray, where each row has its own tables."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()


def unpack(content: bytes) -> pa.Table:
    with pa.ipc.open_stream(content) as stream:
        return stream.read_all()
