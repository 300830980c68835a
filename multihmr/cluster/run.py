"""Predict whole data sets on Ray Data: read, predict on all GPUs or CPUs, write Parquet, go on after a kill.

Workers keep no files. They send rows to the one process that was started, which alone writes them, part by
part (parquet.py). So a worker that dies can be replaced and its batch done again without anything appearing
twice, and when the writer itself is killed, what is there is whole: the same call again reads the names of
the pictures that are done and goes on with the others.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import filelock
import pyarrow.fs
import ray
from ray.data.context import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..io.parquet import Parts
from ..networks.base import fingerprint
from ..runtime.backends import check_backend
from ..runtime.devices import CPU_BACKENDS
from .datasource import Inputs, PictureSource, find_inputs
from .worker import Attempts, Pool, Worker
from .writer import Desk, Report

if TYPE_CHECKING:
    from ..model import Model

BLOCK_BYTES = 2**20  # of pictures that a worker is sent at once, or one batch if that is more
FILES_A_TASK = 64  # that are read one after another; a shard is a task of its own
TASKS_A_WORKER = 4  # at least, so that all have work to the end
MAX_TASKS = 5000
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # Ray tells its makers of its use, unless told not to
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # else it warns of what is going to change
    "RAY_worker_niceness": "0",  # workers are as nice as this process, not 15 more
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # else it warns of what Ray Data does with every actor
}


def _told(default: Any, words: str) -> Any:
    return field(default=default, metadata={"help": words})


@dataclass(frozen=True)
class Settings:
    """How a data set is predicted. Only fov, threshold, max_people and tiles change the result."""

    fov: float | None = _told(None, "field of view over the longer side, in degrees")
    threshold: float | None = _told(None, "least score of a person, 0 to 1")
    max_people: int | None = _told(None, "keep the N best per picture")
    tiles: int = _told(1, "2 or more: also look at so many parts along each picture, for small people")
    column: str | None = _told(None, "of tables: the column with the bytes of pictures")
    address: str | None = _told(None, "of a Ray cluster, as HOST:6379; without one, this machine")
    workers: int | None = _told(None, "copies of the model; without a number all GPUs, else all CPUs")
    threads: int | None = _told(None, "CPU threads of each; without a number 1, beside a GPU its share")
    backend: str = _told("eager", "what computes the backbone in every worker, as load_model takes it")
    batch_size: int = _told(8, "pictures that go through the network together")
    save_every: float = _told(60.0, "seconds of work that a kill may cost")

    @property
    def of_predict(self) -> dict[str, Any]:
        """The options that change the result, by their names in Model.predict."""
        names = ("fov", "threshold", "max_people", "tiles")
        return {name: getattr(self, name) for name in names}


def predict_dataset(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: Model | str | None = None,
    settings: Settings | None = None,
    watch: Callable[[Report], None] | None = None,
) -> Report:
    """Predict every picture of `sources` into the tables in `out` (parquet.py); what is there is left out.

    Args:
        sources: files, folders (to any depth), globs, or URLs such as s3://bucket/folder. Tars as WebDataset
            lays them out and Parquet files with a column of bytes hold many pictures. On a cluster all
            machines must be able to read them.
        out: folder or URL. One run at a time may write into it.
        model: one, or a name for load_model; None is the bundled one. Every worker gets a copy; on a GPU its
            backbone computes in float16 unless it says otherwise, as load_model does.
        watch: called whenever pictures are done.

    Inputs that cannot be used are counted, and stand with the reason in the table bad; delete its folder to
    try them again. A picture whose worker died is tried again alone, twice; then it is bad.

    Raises:
        FileNotFoundError: a source is not there or has nothing to predict.
        ValueError: an option is wrong, or `out` holds people that were predicted otherwise.
        BlockingIOError: another run is writing into `out`.
        ConnectionError: there is no cluster at the address.
        ChildProcessError: the workers cannot work; what was done is kept.
        OSError: `out` cannot be written, as when the disk is full; what was done is kept.
    """
    settings = settings or Settings()
    network = _checked_model(model, settings)
    listed = [sources] if isinstance(sources, (str, os.PathLike)) else sources
    parts = Parts(out)
    inputs = find_inputs([os.fspath(source) for source in listed], besides=parts.root)
    with _alone(parts):
        _same_as_before(parts, network, settings)
        desk = Desk(parts, watch, save_every=settings.save_every)
        left = desk.left(inputs)
        if any(group.pictures or group.shards for group in left):
            with _ray(settings.address), _quiet_data():
                _run(left, desk, network, settings)
    return desk.report


def _checked_model(model: Model | str | None, settings: Settings) -> Model:
    """On the CPU, from where it is sent to the workers; options that it would refuse are refused here."""
    for name in ("workers", "threads", "batch_size"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    if model is None or isinstance(model, str):
        from ..model import load_model

        model = load_model(model, device="cpu")
    if settings.backend != "eager":
        check_backend(settings.backend, device="cpu")
    model.predict_batch([], **settings.of_predict)
    return model


@contextlib.contextmanager
def _alone(parts: Parts) -> Iterator[None]:
    """Nobody else on this machine writes into the folder. Buckets know no locks."""
    if not isinstance(parts.files, pyarrow.fs.LocalFileSystem):
        yield
        return
    parts.files.create_dir(parts.root)
    lock = filelock.FileLock(f"{parts.root}/.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"another run is writing into {parts.root}: wait for it, or take another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _same_as_before(parts: Parts, network: Model, settings: Settings) -> None:
    """Remember how the people of this folder are predicted; ValueError if that was otherwise before."""
    now = {"weights": fingerprint(network), "body": network.body.name, **settings.of_predict}
    path = f"{parts.root}/run.json"
    if parts.files.get_file_info(path).type == pyarrow.fs.FileType.File:
        with parts.files.open_input_stream(path) as file:
            before = json.loads(file.read())
        other = [
            f"{name} was {before.get(name)}, is now {now[name]}"
            for name in now
            if now[name] != before.get(name)
        ]
        if other:
            raise ValueError(
                f"{parts.root} holds people that were predicted otherwise ({', '.join(other)}); "
                "give the same options again, or another folder"
            )
        return
    parts.files.create_dir(parts.root)
    with parts.files.open_output_stream(f"{path}.unfinished") as file:
        file.write(json.dumps(now, indent=1).encode())
    parts.files.move(f"{path}.unfinished", path)


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Ray as it runs in this process, at the address, or started here for as long as it takes."""
    if ray.is_initialized():
        yield
        return
    _knock(address)
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # of the plainest kind, too: "the current node timed out during startup"
        where = f"no Ray cluster at {address}" if address else "Ray does not start here"
        raise ConnectionError(f"{where}: {str(error).strip().splitlines()[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str | None) -> None:
    """ConnectionError if nobody listens at HOST:PORT; Ray itself would ask again for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error


@contextlib.contextmanager
def _quiet_data() -> Iterator[None]:
    """Ray Data without its progress bars and messages, and with small blocks."""
    ours = {
        "target_max_block_size": BLOCK_BYTES,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    logger = logging.getLogger("ray.data")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")  # of Ray, by Ray
        warnings.filterwarnings("ignore", "The minimum number of concurrent actors")  # at the last pictures
        context = DataContext.get_current()
        before = {name: getattr(context, name) for name in ours}
        try:
            logger.setLevel(logging.CRITICAL)  # what it would say is in what it raises
            for name, value in ours.items():
                setattr(context, name, value)
            yield
        finally:
            logger.setLevel(level)
            for name, value in before.items():
                setattr(context, name, value)


def _run(inputs: list[Inputs], desk: Desk, network: Model, settings: Settings) -> None:
    """Everything that is left, through Ray Data to the desk."""
    resources = ray.cluster_resources()
    if settings.backend in CPU_BACKENDS:
        resources = resources | {"GPU": 0.0}
    pool = Pool.of(resources, settings.workers, settings.threads)
    desk.report.workers = pool.workers
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    attempts = Attempts.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    read: dict[str, Any] = {
        "done": desk.done_in_shards(),
        "column": settings.column,
        "pool": pool,
    }
    rows = [_rows(paths, group, **read) for group in inputs for paths in group.kinds if paths]
    options = {**settings.of_predict, "batch_size": settings.batch_size}
    claims: dict[str, Any] = pool.claims
    dataset = rows[0].union(*rows[1:]) if len(rows) > 1 else rows[0]
    results = dataset.map_batches(
        Worker,
        fn_constructor_args=(ray.put(network), attempts, options, pool, settings.backend),
        compute=ray.data.ActorPoolStrategy(size=pool.workers),
        batch_size=settings.batch_size,
        batch_format="pyarrow",
        **claims,
    )
    try:
        batch: Any
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                desk.take(row)
    except KeyboardInterrupt:
        desk.close()
        done = desk.report.pictures
        raise KeyboardInterrupt(f"stopped: {done} pictures are done, the same again goes on") from None
    except (ray.exceptions.RayError, RuntimeError) as error:
        desk.close()
        reason, done = str(error).strip().splitlines()[-1], desk.report.pictures
        raise ChildProcessError(f"the workers cannot work ({reason}); {done} pictures are kept") from error
    desk.close()


def _rows(
    paths: tuple[str, ...], inputs: Inputs, *, done: dict[str, set[str]], column: str | None, pool: Pool
) -> ray.data.Dataset:
    """Rows of inputs.ROW: a task a shard, or for some dozen files, but enough tasks for all workers."""
    source = PictureSource(paths, inputs, column=column, done=done)
    tasks = max(math.ceil(len(paths) / FILES_A_TASK), TASKS_A_WORKER * pool.workers)
    if paths is inputs.shards or tasks > len(paths):
        tasks = len(paths)
    return ray.data.read_datasource(
        source, num_cpus=pool.reader_cpus, override_num_blocks=min(tasks, MAX_TASKS)
    )
