"""Metadata in result files: image or video, model and options that they were predicted from."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..preprocessing.sources import file_name_of

KEY = "multihmr"  # under which every format holds the metadata


def provenance(
    source: str,
    model: str,
    model_fingerprint: str,
    options: Mapping[str, Any],
    *,
    threshold: float | None = None,
) -> dict[str, Any]:
    """The metadata of a result.

    Args:
        source: path or address of the image or video.
        model: name or path of the model.
        model_fingerprint: changes with its weights (`storage.fingerprint`).
        options: given to the model, by name.
        threshold: least score that was used.
    """
    from .._version import __version__

    return {
        "source": source,
        "model": model,
        "model_fingerprint": model_fingerprint,
        "multihmr_version": __version__,
        "threshold": threshold,
        "options": dict(options),
    }


def with_metadata(content: bytes, name: str, metadata: Mapping[str, Any]) -> bytes:
    """The content of a result file called `name` with metadata in it; unchanged if its format holds none.

    .json and .coco.json: key "multihmr" (of COCO in "info", and the image gets the name of the file that it
    was read from, with its suffix, by which readers of COCO find it); .npz: array "multihmr" of JSON text;
    .glb: asset.extras; .obj, .ply and .usda: a comment.
    """
    suffix = ".coco.json" if name.endswith(".coco.json") else name[name.rfind(".") :].lower()
    add = _WRITERS.get(suffix)
    return content if add is None or not content else add(content, dict(metadata))


def read_metadata(content: bytes, name: str) -> dict[str, Any] | None:
    """The metadata that `with_metadata` wrote into a .json, .npz or .glb; None if there is none."""
    if name.endswith(".coco.json"):
        return json.loads(content).get("info", {}).get(KEY)
    if name.endswith(".json"):
        return json.loads(content).get(KEY)
    if name.endswith(".npz"):
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            return json.loads(str(file[KEY])) if KEY in file.files else None
    if name.endswith(".glb"):
        return _glb_json(content)[0]["asset"].get("extras", {}).get(KEY)
    return None


def _json(content: bytes, metadata: dict[str, Any]) -> bytes:
    """Inserted as text before the last brace: the layout of the rest stays."""
    text = content.decode().rstrip()
    return f'{text[:-1].rstrip()},\n "{KEY}": {json.dumps(metadata)}\n}}'.encode()


def _coco(content: bytes, metadata: dict[str, Any]) -> bytes:
    stored = json.loads(content)
    info = {"description": "people predicted by multihmr", KEY: metadata}
    name = file_name_of(str(metadata.get("source", "")))
    if name and len(stored["images"]) == 1:
        stored["images"][0]["file_name"] = name
    return json.dumps({**stored, "info": {**stored.get("info", {}), **info}}, allow_nan=False).encode()


def _npz(content: bytes, metadata: dict[str, Any]) -> bytes:
    array, buffer = io.BytesIO(), io.BytesIO(content)
    np.lib.format.write_array(array, np.array(json.dumps(metadata)), allow_pickle=False)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{KEY}.npy", array.getvalue())
    return buffer.getvalue()


def _glb_json(content: bytes) -> tuple[dict[str, Any], bytes]:
    """The JSON of a .glb, and the bytes after its chunk (Khronos, glTF 2.0, 4.4)."""
    length = struct.unpack("<I", content[12:16])[0]
    return json.loads(content[20 : 20 + length]), content[20 + length :]


def _glb(content: bytes, metadata: dict[str, Any]) -> bytes:
    if not content.startswith(b"glTF"):
        return content
    stored, rest = _glb_json(content)
    extras = stored["asset"].setdefault("extras", {})
    extras[KEY] = metadata
    text = json.dumps(stored, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    head = struct.pack("<4sII", b"glTF", 2, 20 + len(text) + len(rest))
    return head + struct.pack("<I4s", len(text), b"JSON") + text + rest


def _after_line(start: str, comment: str) -> Callable[[bytes, dict[str, Any]], bytes]:
    """A writer of a comment after the first line that begins with `start`, or at the beginning if ""."""

    def add(content: bytes, metadata: dict[str, Any]) -> bytes:
        line = f"{comment} {KEY} {json.dumps(metadata)}\n".encode()
        at = content.index(b"\n", content.index(start.encode())) + 1 if start else 0
        return content[:at] + line + content[at:]

    return add


_WRITERS: dict[str, Callable[[bytes, dict[str, Any]], bytes]] = {
    ".json": _json,
    ".coco.json": _coco,
    ".npz": _npz,
    ".glb": _glb,
    ".obj": _after_line("", "#"),
    ".ply": _after_line("format", "comment"),
    ".usda": _after_line("#usda", "#"),
}
