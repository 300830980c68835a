"""Compiled OpenVINO graphs, kept in files: compiling takes ten seconds and more, reading a file 0.3 s."""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..storage.atomic import atomic_path
from ..storage.download import locked
from .optional_imports import needed

logger = logging.getLogger(__name__)
DEVICE = "CPU"
_CHECKSUM_BYTES = 4  # behind what OpenVINO wrote: it does not notice all damage itself


def compiled_graph(
    source: Callable[[], Path],
    folder: Path,
    name: str,
    settings: Mapping[str, Any],
    *,
    threads: int,
    change: Callable[[Any], object] | None = None,
) -> Any:
    """An `openvino.CompiledModel` of the graph `source()`, from `folder` where it has been compiled before.

    A file holds what was compiled for one graph, precision, version of OpenVINO and processor. A file that
    is damaged, or that OpenVINO refuses, is compiled again and replaced; a folder that cannot be written
    costs the time of compiling and nothing else.

    Args:
        source: makes the graph's file if need be; called only if there is nothing compiled.
        folder: of the files.
        name: of the graph: changes with everything that the graph depends on.
        settings: how to compile, in OpenVINO's words; what changes the result.
        threads: how many compute; not part of what is compiled.
        change: done to the graph, an `openvino.Model`, before it is compiled.
    """
    core = needed("openvino").Core()
    file = _file(core, folder, name, settings)
    run_with = {**settings, "INFERENCE_NUM_THREADS": threads}
    compiled = _imported(core, file, run_with)
    if compiled is not None:
        return compiled
    graph = core.read_model(str(source()))
    if change is not None:
        change(graph)
    try:
        with locked(file):
            compiled = _imported(core, file, run_with)  # another process was first
            if compiled is None:
                compiled = core.compile_model(graph, DEVICE, run_with)
                _write(file, compiled)
    except OSError as error:
        logger.warning("what OpenVINO compiled cannot be kept, so each start compiles again: %s", error)
    return compiled if compiled is not None else core.compile_model(graph, DEVICE, run_with)


def _file(core: Any, folder: Path, name: str, settings: Mapping[str, Any]) -> Path:
    return folder / f"{name}-{_key(core, settings)}.blob"


def _key(core: Any, settings: Mapping[str, Any]) -> str:
    """16 hexadecimal digits of settings, version and processor."""
    known = {
        "settings": sorted(settings.items()),
        "openvino": needed("openvino").get_version(),
        "device": core.get_property(DEVICE, "FULL_DEVICE_NAME"),
        "can": sorted(core.get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")),
        # Virtual machines of one name can have different instructions.
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }
    return hashlib.sha256(repr(known).encode()).hexdigest()[:16]


def _imported(core: Any, file: Path, settings: Mapping[str, Any]) -> Any:
    """What the file holds, or None if it holds nothing that can be used."""
    try:
        content = np.empty(file.stat().st_size, np.uint8)
        with file.open("rb") as stream:
            count = stream.readinto(content.data)
    except OSError:
        return None
    blob, checksum = content[:-_CHECKSUM_BYTES], content[-_CHECKSUM_BYTES:]
    if count == len(content) and _checksum(blob) == checksum.tobytes():
        with suppress(RuntimeError):  # of another version or processor, against all expectation
            return _read(core, blob, settings)
    logger.warning("%s cannot be used and is made again", file.name)
    return None


def _read(core: Any, blob: np.ndarray, settings: Mapping[str, Any]) -> Any:
    try:
        # Without a copy, of hundreds of megabytes for large networks.
        compiled = core.import_model(
            needed("openvino").Tensor(blob, shared_memory=True), DEVICE, dict(settings)
        )
        compiled.blob = blob  # its weights lie there
    except TypeError:  # an older OpenVINO
        compiled = core.import_model(blob.tobytes(), DEVICE, dict(settings))
    return compiled


def _checksum(blob: Any) -> bytes:
    return zlib.crc32(blob).to_bytes(_CHECKSUM_BYTES, "little")


def _write(file: Path, compiled: Any) -> None:
    blob = compiled.export_model()  # io.BytesIO
    with blob.getbuffer() as content, atomic_path(file) as draft, draft.open("wb") as stream:
        stream.write(content)
        stream.write(_checksum(content))


def digest_of_files(*files: str | os.PathLike[str]) -> str:
    """16 hexadecimal digits of the files' contents, one after the other."""
    known = hashlib.sha256()
    for file in files:
        known.update(Path(file).read_bytes())
    return known.hexdigest()[:16]
