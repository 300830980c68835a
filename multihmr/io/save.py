"""Humans to files and back. The suffix says the format; every format is one function from Humans to bytes.

    .glb   people as separate nodes "person_0", ... in metres, to look at in any 3D program
    .obj   the same as text, one object a person          .ply   all people as one coloured mesh
    .npz   every parameter, without loss; `load` reads it back; of SMPL-X also by the names of AMASS
    .json  scores, places, named joints and keypoints, for programs that want no meshes

Meshes (.glb, .obj, .ply) stand in the frame of glTF and most 3D programs: x right, y up, z to the viewer, the
camera in the origin looking along -z. Numbers (.npz, .json) stay in the camera frame of `Humans`: x right, y
down, z forward.
"""

from __future__ import annotations

import functools
import io
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..humans import Humans, rotmat_to_rotvec
from ..storage.atomic import write_bytes
from ..video.tracks import Track
from .animation import humans_to_clips, tracks_to_clips
from .bvh import clip_to_bvh
from .gltf import clips_to_glb, humans_to_glb
from .meshes import USD_SUFFIXES, humans_to_obj, humans_to_ply, humans_to_usd
from .records import FRAME, humans_to_coco, humans_to_json

NPZ_FORMAT = "multihmr-humans-1"

# Humans' fields that describe people and are stored; vertices follow from them through the body.
_PARAMETERS = (
    "scores", "joints", "joints_2d", "boxes", "translation", "pelvis", "pose", "shape", "expression",
)  # fmt: skip


def save(
    people: Humans | Track | Sequence[Track],
    path: str | os.PathLike[str],
    *,
    rigged: bool = False,
    bones: str | Mapping[str, str] | None = None,
    body: Any = None,
) -> Path:
    """Write the people of a picture or a video in the format that the suffix of `path` says; gives the path.

    Args:
        people: of a picture; or of a video: one track or several, as .glb or .bvh (save_track writes .npz).
        rigged: people of a picture get bones, skin and face in a .glb; those of a video have them anyway.
        bones: names for the bones in a .glb or .bvh: "mixamo", "vrm", "smplx" (see bone_names.py), or a dict
            from our names to yours; bones that are not in it keep theirs.
        body: the one that the people were predicted with (`model.body`), for files with bones; None loads the
            one that they name.

    The file appears whole or not at all. Raises ValueError when the suffix is unknown or does not fit the
    people, FileNotFoundError when the folder does not exist, ImportError when a format needs a package.
    """
    path = Path(path)
    suffix = _suffix(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save {path.name!r}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"cannot save {path}: it is a folder; give the name of a file")
    if isinstance(people, Humans) and suffix == ".coco.json":
        return write_bytes(path, humans_to_coco({path.name[: -len(suffix)]: people}))
    if isinstance(people, Humans) and suffix in FORMATS and not rigged and bones is None:
        return write_bytes(path, FORMATS[suffix](people))
    if suffix not in (".glb", ".bvh"):
        raise ValueError(f"bones and people of a video are saved as .glb or .bvh, got {path.name!r}")
    return write_bytes(path, _rigged(people, suffix, bones, body))


def save_coco(pictures: Mapping[str, Humans], path: str | os.PathLike[str]) -> Path:
    """Write the people of several pictures, by file name, as one COCO file of boxes and 17 keypoints.

    `save(humans, "street.jpg.coco.json")` does it for one. Points outside of the picture are not labelled.
    """
    return write_bytes(Path(path), humans_to_coco(pictures))


def _suffix(path: Path) -> str:
    known = (".coco.json", ".bvh", *FORMATS)
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    raise ValueError(f"cannot save {path.name!r}: its suffix must be one of {', '.join(sorted(known))}")


def _rigged(
    people: Humans | Track | Sequence[Track], suffix: str, bones: str | Mapping[str, str] | None, body: Any
) -> bytes:
    """The content of a .glb or .bvh with bones."""
    tracks = [] if isinstance(people, Humans) else [people] if isinstance(people, Track) else list(people)
    strangers = [type(track).__name__ for track in tracks if not isinstance(track, Track)]
    if strangers:
        raise TypeError(
            f"save takes Humans, a Track or a list of tracks, got a list with {strangers[0]}; "
            "multihmr.video.tracks.collect makes tracks of them"
        )
    count = len(people) if isinstance(people, Humans) else len(tracks)
    if suffix == ".bvh" and count != 1:
        raise ValueError(
            f"a .bvh holds one person, got {count}; save each in a file of its own, or all as .glb"
        )
    if isinstance(people, Humans):
        clips = humans_to_clips(people, body or _load_body(people.body, people.shape.shape[1]))
        camera, fps = (people.K, people.image_size), 30.0
    elif tracks:
        clips = tracks_to_clips(tracks, body or _load_body(tracks[0].body, len(tracks[0].shape)))
        first = min(tracks, key=lambda track: track.times[0])
        camera, fps = (first.K[0], tuple(first.image_sizes[0].tolist())), tracks[0].fps
    else:
        return clips_to_glb([])
    clips = [clip.renamed(bones) for clip in clips]
    return clip_to_bvh(clips[0], fps) if suffix == ".bvh" else clips_to_glb(clips, camera)


def _load_body(name: str, shape_count: int) -> Any:
    from ..bodies.loading import load_body

    return load_body(name, shape_count=shape_count if name == "smplx" else None)


def load(path: str | os.PathLike[str], body: Any = None) -> Humans:
    """The Humans that `save` wrote to a .npz, with vertices made anew by the body.

    `body` is the one that the people were predicted with (`model.body`); None loads the one that the file
    names. Raises FileNotFoundError; ValueError when the file is no such .npz or of another body.
    """
    from ..bodies.posing import posed  # here, because writing does without torch

    stored = _read_npz(Path(path))
    name = str(stored.pop("body"))
    body = body or _load_body(name, stored["shape"].shape[1])
    if body.name != name:
        raise ValueError(
            f"{path} holds people of body {name!r}, got body {body.name!r}; give the one it was made with"
        )
    parameters = (stored[key] for key in ("pose", "shape", "expression", "translation"))
    vertices, _ = posed(body, *parameters)
    height, width = stored.pop("image_size")
    return Humans(
        **{key: stored[key] for key in (*_PARAMETERS, "K")},
        vertices=vertices,
        K_source=str(stored["K_source"]),
        image_size=(int(height), int(width)),
        body=name,
        topology=body.topology,
        track_ids=stored.get("track_ids"),
        unpredicted=tuple(map(str, stored["unpredicted"])),
        filled=stored.get("filled"),
    )


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        # opened here, because np.load leaves the file open when it is damaged
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as file:
            stored = {key: file[key] for key in file.files}
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is damaged or no .npz file: {error}") from error
    if str(stored.get("format")) != NPZ_FORMAT:
        raise ValueError(
            f"{path} must have the format {NPZ_FORMAT!r}, got {str(stored.get('format'))!r}; save it anew"
        )
    missing = {*_PARAMETERS, "K", "K_source", "image_size", "body", "unpredicted"} - set(stored)
    if missing:
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}; save it anew")
    return stored


def _npz(humans: Humans) -> bytes:
    arrays: dict[str, Any] = {name: getattr(humans, name) for name in _PARAMETERS} | _amass(humans)
    for name in ("track_ids", "filled"):
        if getattr(humans, name) is not None:
            arrays[name] = getattr(humans, name)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        format=NPZ_FORMAT,
        units=f"metres and pixels; {FRAME}",
        body=humans.body,
        K=humans.K,
        K_source=humans.K_source,
        image_size=np.array(humans.image_size),
        joint_names=_names(humans.topology.joint_names),
        shape_names=_names(humans.topology.shape_names),
        expression_names=_names(humans.topology.expression_names),
        unpredicted=_names(humans.unpredicted),
        **arrays,
    )
    return buffer.getvalue()


def _amass(humans: Humans) -> dict[str, Any]:
    """People of SMPL-X as AMASS and its tools name them, a row for each; nothing for other bodies.

    poses (N, 165) axis-angle of the 55 joints in the order of the smplx package: root, body, jaw, eyes,
    hands (relative to the flat hand). trans (N, 3) [m] is what the package adds to its vertices, which it
    turns about the pelvis where that lies at rest. betas (N, S) and gender; expression (N, 10) is stored
    anyway. All in the camera frame.
    """
    topology = humans.topology
    if humans.body != "smplx" or topology.rest_pelvis is None:
        return {}
    poses = np.zeros((len(humans), 55, 3), np.float32)
    poses[:, topology.pose_joints] = rotmat_to_rotvec(humans.pose)
    numbers = np.concatenate([np.ones((len(humans), 1)), humans.shape, humans.expression], axis=1)
    return {
        "poses": poses.reshape(-1, 165),
        "betas": humans.shape,
        "trans": (humans.pelvis - numbers @ topology.rest_pelvis).astype(np.float32),
        "gender": "neutral",
        "surface_model_type": "smplx",
    }


def _names(names: tuple[str, ...]) -> np.ndarray:
    """Text that numpy reads without pickle, also when there is none."""
    return np.array(names, dtype=np.str_)


FORMATS: dict[str, Callable[[Humans], bytes]] = {
    ".glb": humans_to_glb,
    ".npz": _npz,
    ".json": humans_to_json,
    ".ply": humans_to_ply,
    ".obj": humans_to_obj,
    **{suffix: functools.partial(humans_to_usd, suffix=suffix) for suffix in USD_SUFFIXES},
}
