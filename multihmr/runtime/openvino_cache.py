"""Compiled OpenVINO graphs, kept in files: compiling takes ten seconds and more, reading a file 0.3 s."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..storage.atomic import atomic_path
from ..storage.download import locked
from .optional_imports import needed

logger = logging.getLogger(__name__)
DEVICE = "CPU"
_DIGEST_BYTES = 32  # of the content, before it: OpenVINO itself does not notice all damage


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


def is_compiled(folder: Path, name: str, settings: Mapping[str, Any]) -> bool:
    """Whether `compiled_graph` has a file for these arguments, which may still turn out to be damaged."""
    return _file(needed("openvino").Core(), folder, name, settings).exists()


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
        content = memoryview(file.read_bytes())
    except OSError:
        return None
    digest, blob = bytes(content[:_DIGEST_BYTES]), bytes(content[_DIGEST_BYTES:])
    if hashlib.sha256(blob).digest() == digest:
        try:
            return core.import_model(blob, DEVICE, dict(settings))
        except RuntimeError:  # of another version or processor, against all expectation
            pass
    logger.warning("%s cannot be used and is made again", file.name)
    return None


def _write(file: Path, compiled: Any) -> None:
    blob = compiled.export_model()  # io.BytesIO
    with blob.getbuffer() as content, atomic_path(file) as draft, draft.open("wb") as stream:
        stream.write(hashlib.sha256(content).digest())
        stream.write(content)


def digest_of_files(*files: str | os.PathLike[str]) -> str:
    """16 hexadecimal digits of the files' contents, one after the other."""
    known = hashlib.sha256()
    for file in files:
        known.update(Path(file).read_bytes())
    return known.hexdigest()[:16]
