"""Predict whole data sets on Ray Data: read, predict on all GPUs or CPUs, write Parquet, resume after a kill.

Workers write no files. They send rows to the driver process, which alone writes (io/parquet.py).
So a worker that dies can be replaced and its batch repeated without duplicates, and what a killed driver has
written is complete: the same call again reads the names of finished pictures and resumes with the others.
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
from typing import TYPE_CHECKING, Any

import filelock
import pyarrow.fs
import ray
from ray.data.context import DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..io.parquet import Parts
from ..runtime.backends import check_backend
from ..runtime.devices import CPU_BACKENDS
from ..storage.fingerprint import fingerprint
from ..storage.silence import without_stderr  # Ray tells that its log level is set
from .datasource import Inputs, PictureSource, find_inputs
from .settings import Settings
from .worker import Pool, RetryTracker, Worker
from .writer import Report, ResultWriter

if TYPE_CHECKING:
    from ..model import Model

BLOCK_BYTES = 2**20  # of pictures sent to a worker at once, or one batch if that is larger
FILES_A_TASK = 64  # files read by one task; a shard is a task of its own
TASKS_A_WORKER = 4  # at least, so that all workers are busy to the end
MAX_TASKS = 5000
_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",  # no telemetry
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # no warning about a future change
    "RAY_worker_niceness": "0",  # workers are as nice as this process, not 15 more
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # no warnings about what Ray Data does with every actor
}


def predict_dataset(
    sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: Model | str | None = None,
    settings: Settings | None = None,
    watch: Callable[[Report], None] | None = None,
) -> Report:
    """Predict every picture of `sources` into the tables in `out` (io/parquet.py), skipping finished ones.

    Unusable inputs are counted, and are with their reason in the table "bad"; delete its folder to try them
    again. A picture whose worker died is tried again alone, twice; then it is bad.

    Args:
        sources: files, folders (recursively), globs, or URLs such as s3://bucket/folder. WebDataset tars and
            Parquet files with a column of bytes hold many pictures. On a cluster all machines must be able
            to read them.
        out: folder or URL. Only one run at a time may write to it.
        model: a model, or a name for load_model; None is the bundled one. Every worker gets a copy; on a GPU
            its backbone computes in float16 unless it says otherwise, as with load_model.
        settings: None for the defaults.
        watch: called with the progress whenever pictures are done.

    Returns:
        Counts and rates of the run.

    Raises:
        FileNotFoundError: a source does not exist or has no pictures.
        ValueError: an option is wrong, or `out` has results of another model or other options.
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
    with _locked(parts):
        _same_as_before(parts, network, settings)
        writer = ResultWriter(parts, watch, save_every=settings.save_every)
        left = writer.left(inputs)
        if any(group.pictures or group.shards for group in left):
            with _ray(settings.address), _quiet_data():
                _run(left, writer, network, settings)
    return writer.report


def _checked_model(model: Model | str | None, settings: Settings) -> Model:
    """The model on the CPU, from where it is sent to the workers, after checking the settings."""
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
def _locked(parts: Parts) -> Iterator[None]:
    """Lock the folder against other runs on this machine. Buckets have no locks."""
    if not isinstance(parts.files, pyarrow.fs.LocalFileSystem):
        yield
        return
    parts.files.create_dir(parts.root)
    lock = filelock.FileLock(f"{parts.root}/.lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise BlockingIOError(
            f"another run is writing into {parts.root}: wait for it, or choose another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()


def _same_as_before(parts: Parts, network: Model, settings: Settings) -> None:
    """Store model and options of this folder.

    Raises:
        ValueError: the folder has results of another model or other options.
    """
    now = {"weights": fingerprint(network), "body": network.body.name, **settings.of_predict}
    path = f"{parts.root}/run.json"
    if parts.files.get_file_info(path).type == pyarrow.fs.FileType.File:
        with parts.files.open_input_stream(path) as file:
            # Runs of 0.4 know no such options.
            unknown = dict.fromkeys(("hands_and_faces", "any_rotation", "limbs"), False)
            before = unknown | json.loads(file.read())
        other = [
            f"{name} was {before.get(name)}, is now {now[name]}"
            for name in now
            if now[name] != before.get(name)
        ]
        if other:
            raise ValueError(
                f"{parts.root} has results of another model or other options ({', '.join(other)}); "
                "give the same options again, or choose another folder"
            )
        return
    parts.files.create_dir(parts.root)
    with parts.files.open_output_stream(f"{path}.unfinished") as file:
        file.write(json.dumps(now, indent=1).encode())
    parts.files.move(f"{path}.unfinished", path)


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """Context with Ray: as initialised in this process, at the address, or started here."""
    if ray.is_initialized():
        yield
        return
    _check_reachable(address)
    for name, value in _RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    here: dict[str, Any] = {} if address else {"include_dashboard": False}
    try:
        with without_stderr(), _without_dashboard_process():
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except Exception as error:  # Ray also raises plain Exception
        where = f"no Ray cluster at {address}" if address else "Ray does not start here"
        raise ConnectionError(f"{where}: {str(error).strip().splitlines()[0]}") from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _without_dashboard_process() -> Iterator[None]:
    """Context in which Ray starts no dashboard process here.

    With include_dashboard=False that process has nothing but the usage statistics, and asks the metadata
    services of three clouds where it runs even where those are off.
    """
    from ray._private import services

    start = getattr(services, "start_api_server", None)
    if start is None:
        yield
        return
    services.start_api_server = lambda *_, **__: (None, None)  # as where it cannot be started
    try:
        yield
    finally:
        services.start_api_server = start


def _check_reachable(address: str | None) -> None:
    """Raise ConnectionError if HOST:PORT does not answer; Ray itself would retry for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except OSError as error:
            raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error


@contextlib.contextmanager
def _quiet_data() -> Iterator[None]:
    """Context with Ray Data without progress bars and messages, and with small blocks."""
    ours = {
        "target_max_block_size": BLOCK_BYTES,
        "enable_progress_bars": False,
        "print_on_execution_start": False,
    }
    logger = logging.getLogger("ray.data")
    level = logger.level
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="ray")  # of Ray, by Ray
        warnings.filterwarnings("ignore", "The minimum number of concurrent actors")  # at the end of a run
        context = DataContext.get_current()
        before = {name: getattr(context, name) for name in ours}
        try:
            logger.setLevel(logging.CRITICAL)  # its exceptions have the information
            for name, value in ours.items():
                setattr(context, name, value)
            yield
        finally:
            logger.setLevel(level)
            for name, value in before.items():
                setattr(context, name, value)


def _run(inputs: list[Inputs], writer: ResultWriter, network: Model, settings: Settings) -> None:
    """Run the remaining inputs through Ray Data to the writer."""
    resources = ray.cluster_resources()
    if settings.backend in CPU_BACKENDS:
        resources = resources | {"GPU": 0.0}
    pool = Pool.of(resources, settings.workers, settings.threads)
    writer.report.workers = pool.workers
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
    retries = RetryTracker.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    read: dict[str, Any] = {
        "done": writer.done_in_shards(),
        "column": settings.column,
        "pool": pool,
    }
    rows = [_rows(paths, group, **read) for group in inputs for paths in group.kinds if paths]
    options = {**settings.of_predict, "batch_size": settings.batch_size}
    claims: dict[str, Any] = pool.claims
    dataset = rows[0].union(*rows[1:]) if len(rows) > 1 else rows[0]
    results = dataset.map_batches(
        Worker,
        fn_constructor_args=(ray.put(network), retries, options, pool, settings.backend),
        compute=ray.data.ActorPoolStrategy(size=pool.workers),
        batch_size=settings.batch_size,
        batch_format="pyarrow",
        **claims,
    )
    try:
        batch: Any
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow"):
            for row in batch.to_pylist():
                writer.take(row)
    except KeyboardInterrupt:
        writer.close()
        done = writer.report.pictures
        raise KeyboardInterrupt(f"stopped: pictures done: {done}; run the same again to resume") from None
    except (ray.exceptions.RayError, RuntimeError) as error:
        writer.close()
        reason, done = str(error).strip().splitlines()[-1], writer.report.pictures
        raise ChildProcessError(
            f"the workers cannot work ({reason}); pictures done and kept: {done}"
        ) from error
    writer.close()


def _rows(
    paths: tuple[str, ...], inputs: Inputs, *, done: dict[str, set[str]], column: str | None, pool: Pool
) -> ray.data.Dataset:
    """Rows of datasource.ROW: one task per shard or some dozen files, with enough tasks for all workers."""
    source = PictureSource(paths, inputs, column=column, done=done)
    tasks = max(math.ceil(len(paths) / FILES_A_TASK), TASKS_A_WORKER * pool.workers)
    if paths is inputs.shards or tasks > len(paths):
        tasks = len(paths)
    return ray.data.read_datasource(
        source, num_cpus=pool.reader_cpus, override_num_blocks=min(tasks, MAX_TASKS)
    )
