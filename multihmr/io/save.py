"""Humans to files and back. The suffix names the format; each format is one function from Humans to bytes.

    .glb   meshes as separate nodes "person_1", ... in metres, for any 3D program
    .obj   the same as text, one object per person     .ply .off   all people as one coloured mesh
    .stl   all people as one mesh without colour       .usd .usda .usdc .usdz   meshes and camera (usd-core)
    .npz   every parameter, without loss; `load` reads it back; of SMPL-X and SMPL also by the names of AMASS
           and of the package smplx
    .json  scores, places, named joints and keypoints  .csv        the same as a table, one row per person
    .coco.json  COCO annotations                       .bvh .glb with rigged=True   skeletons
    .fbx   rigged people, through Blender's Python module (bpy)

Meshes are in the frame of glTF and most programs: x right, y up, z to the viewer, the camera in the origin
looking along -z; with ground=..., upright, with the floor at y = 0 and the camera over it. Numbers (.npz,
.json, .csv) stay in the camera frame: x right, y down, z forward.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..humans import Humans, rotmat_to_rotvec
from ..humans.distortion import distortion_arrays, stored_distortion
from ..storage.atomic import write_bytes
from ..storage.npz import read_npz
from ..storage.paths import user_path
from ..video.level import level_track
from ..video.tracks import Track, amass_arrays
from ..world.ground import Ground
from ..world.placement import InWorld, level_humans
from .animation import humans_to_clips, tracks_to_clips
from .bvh import clip_to_bvh
from .fbx import glb_to_fbx
from .gltf import clips_to_glb
from .meshes import TRIMESH_SUFFIXES, USD_SUFFIXES, humans_to_glb, humans_to_mesh, humans_to_usd
from .records import FRAME, humans_to_coco, humans_to_json, world_to_json
from .tables import humans_to_csv, world_to_csv

if TYPE_CHECKING:
    from ..bodies.base import Body

RIGGED = (".glb", ".bvh", ".fbx")
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".tif", ".tiff", ".bmp", ".gif")
NPZ_FORMAT = "multihmr-humans-1"

# Arguments of the package smplx, in the order of its poses, with how many numbers each has.
SMPLX_PARTS = {
    "global_orient": 3, "body_pose": 63, "jaw_pose": 3, "leye_pose": 3, "reye_pose": 3, "left_hand_pose": 45,
    "right_hand_pose": 45,
}  # fmt: skip
SMPL_PARTS = {"global_orient": 3, "body_pose": 69}

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
    body: Body | None = None,
    rest: str | None = None,
    ground: Ground | None = None,
) -> Path:
    """Write the people of an image or a video in the format of the suffix of `path`, atomically.

    Args:
        people: of an image: Humans. Of a video: one Track or several, as .glb, .bvh or .fbx; `save_track`
            writes .npz.
        path: of the file; its folder must exist. Suffixes: .glb .obj .ply .stl .off .npz .json .csv
            .coco.json .usd .usda .usdc .usdz .bvh .fbx.
        rigged: people of an image get bones, skin and face in a .glb; those of a video have them anyway.
        bones: names of the bones in a .glb, .bvh or .fbx: "mixamo", "vrm", "smplx" (see bone_names.py), or a
            dict from our names to yours; bones that are not in it keep theirs.
        body: the one that the people were predicted with (`model.body`), for files with bones; None loads it
            by name.
        rest: rest pose of a file with bones: "t-pose" or "a-pose", for retargeting; None keeps that of the
            body. Joints are the same in each.
        ground: of `humans.ground()` or `world.estimate_ground`: meshes and bones stand upright, with the
            floor at y = 0 and the camera over it; None keeps the camera in the origin.

    Returns:
        The path.

    Raises:
        ValueError: the suffix is unknown or does not fit the people, an option is unknown, or the ground is
            unknown or given for a file of numbers.
        FileNotFoundError: the folder does not exist.
        IsADirectoryError: the path is a folder.
        ImportError: the format needs a package that is not installed.

    Examples:
        >>> save(humans, "people.glb").name
        'people.glb'
        >>> save(humans, "rigged.glb", rigged=True, bones="mixamo", rest="t-pose").name
        'rigged.glb'
    """
    path, suffix = _prepared(path)
    is_plain = isinstance(people, Humans) and not rigged and bones is None and rest is None
    if ground is not None:
        if suffix not in (*MESHES, *RIGGED):
            raise ValueError(
                f"ground is for meshes and bones ({', '.join(sorted({*MESHES, *RIGGED}))}); numbers as in "
                f"{path.name!r} stay in the camera frame: humans.in_world().save(path) writes them in that "
                "of the world"
            )
        people = _level(people, ground)
    if isinstance(people, Humans) and suffix in MESHES and is_plain:
        return write_bytes(path, MESHES[suffix](people, ground))
    if isinstance(people, Humans) and suffix == ".coco.json":
        return write_bytes(path, humans_to_coco({path.name[: -len(suffix)]: people}))
    if isinstance(people, Humans) and suffix in FORMATS and is_plain:
        return write_bytes(path, FORMATS[suffix](people))
    if suffix not in RIGGED:
        raise ValueError(f"bones and people of a video are saved as {', '.join(RIGGED)}, got {path.name!r}")
    return write_bytes(path, _rigged(people, suffix, bones, body, rest, ground))


def _prepared(path: str | os.PathLike[str]) -> tuple[Path, str]:
    """The path and its suffix, of those that are known; raises what `save` does if it cannot be written."""
    path = user_path(path)
    suffix = _suffix(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"cannot save {path.name!r}: there is no folder {path.parent}; make it first")
    if path.is_dir():
        raise IsADirectoryError(f"cannot save {path}: it is a folder; give the name of a file")
    return path, suffix


def _level(people: Any, ground: Ground) -> Any:
    if isinstance(people, Humans):
        return level_humans(people, ground)
    if isinstance(people, Track):
        return level_track(people, ground)
    return [level_track(track, ground) if isinstance(track, Track) else track for track in people]


def save_world(world: InWorld, path: str | os.PathLike[str], options: Mapping[str, Any]) -> Path:
    """See `InWorld.save`; options: rigged, bones, body and rest of `save`."""
    path, suffix = _prepared(path)
    if suffix == ".coco.json":
        raise ValueError(
            f"{path.name!r} would hold pixels alone, which are those of the image in every world: "
            "humans.save(path) writes them"
        )
    plain = not options["rigged"] and options["bones"] is None and options["rest"] is None
    if not plain or suffix not in (*TRIMESH_SUFFIXES, ".json", ".csv", ".npz"):
        ground = world.ground if suffix in (*MESHES, *RIGGED) else None  # else the options are refused
        return save(world.humans, path, ground=ground, **options)
    if suffix in TRIMESH_SUFFIXES:
        return write_bytes(path, humans_to_mesh(world.humans, suffix=suffix, world=world))
    writers = {".json": world_to_json, ".csv": world_to_csv, ".npz": _world_npz}
    return write_bytes(path, writers[suffix](world))


def save_coco(pictures: Mapping[str, Humans], path: str | os.PathLike[str]) -> Path:
    """Write the people of several pictures, by file name, as one COCO file of boxes and 17 keypoints.

    `save(humans, "street.jpg.coco.json")` does it for one. Points outside of the picture are not labelled.
    """
    return write_bytes(Path(path), humans_to_coco(pictures))


def _suffix(path: Path) -> str:
    known = (".coco.json", ".bvh", ".fbx", *FORMATS)
    for suffix in known:
        if path.name.lower().endswith(suffix):
            return suffix
    elsewhere = {
        ".rrd": "; humans.to_rerun().save(path) writes recordings",
        **dict.fromkeys(IMAGES, "; Image.fromarray(humans.draw(image)).save(path) writes an overlay"),
    }
    raise ValueError(
        f"cannot save {path.name!r}: its suffix must be one of {', '.join(sorted(known))}"
        f"{elsewhere.get(path.suffix.lower(), '')}"
    )


def _rigged(
    people: Humans | Track | Sequence[Track],
    suffix: str,
    bones: str | Mapping[str, str] | None,
    body: Any,
    rest: str | None,
    ground: Ground | None = None,
) -> bytes:
    """The content of a .glb or .bvh with bones."""
    tracks = [] if isinstance(people, Humans) else [people] if isinstance(people, Track) else list(people)
    others = [type(track).__name__ for track in tracks if not isinstance(track, Track)]
    if others:
        raise TypeError(
            f"save takes Humans, a Track or a list of tracks, got a list with {others[0]}; "
            "multihmr.video.tracks.collect makes tracks of them"
        )
    count = len(people) if isinstance(people, Humans) else len(tracks)
    if suffix == ".bvh" and count != 1:
        raise ValueError(
            f"a .bvh holds one person, got {count}; save each in a file of its own, or all as .glb"
        )
    if isinstance(people, Humans):
        clips = humans_to_clips(people, body or _load_body(people.body, people.shape.shape[1]), rest)
        camera, fps = (people.K, people.image_size), 30.0
    elif tracks:
        clips = tracks_to_clips(tracks, body or _load_body(tracks[0].body, len(tracks[0].shape)), rest)
        first = min(tracks, key=lambda track: track.times[0])
        camera, fps = (first.K[0], tuple(first.image_sizes[0].tolist())), tracks[0].fps
    else:
        clips, camera, fps = [], None, 30.0
    clips = [clip.renamed(bones) for clip in clips]
    if suffix == ".bvh":
        return clip_to_bvh(clips[0], fps)
    content = clips_to_glb(clips, camera, ground)
    return glb_to_fbx(content, fps) if suffix == ".fbx" else content


def _load_body(name: str, shape_count: int) -> Any:
    from ..bodies.loading import load_body_of_people

    return load_body_of_people(name, shape_count=shape_count)


def load(path: str | os.PathLike[str], body: Body | None = None) -> Humans:
    """The Humans that `save` wrote to a .npz; the body makes the vertices anew.

    Args:
        path: of the .npz.
        body: the one that the people were predicted with (`model.body`); None loads it by name.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no such .npz, or of another body; the message says what reads it.

    Examples:
        >>> again = load_humans(humans.save("people.npz"))
        >>> bool(np.allclose(again.vertices, humans.vertices, atol=1e-5))
        True
    """
    from ..bodies.base import posed  # here, because writing does without torch

    required = {*_PARAMETERS, "K", "K_source", "image_size", "body", "unpredicted"}
    stored = _read(user_path(path), required)
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
        refined=stored.get("refined"),
        moved=stored.get("moved"),
        distortion=stored_distortion(stored),
    )


def _read(path: Path, required: set[str]) -> dict[str, np.ndarray]:
    """The arrays of a .npz of people, or a sentence on what else the file is."""
    suffix = path.suffix.lower()
    if path.is_file() and suffix in (".json", ".csv", *RIGGED, *TRIMESH_SUFFIXES, *USD_SUFFIXES):
        raise ValueError(
            f"{path.name} cannot be read back: only .npz files hold every parameter; save the people as .npz"
        )
    if path.is_file() and suffix in IMAGES:
        raise ValueError(f"{path.name} is an image: load_model().predict(path) finds the people in it")
    return read_npz(path, NPZ_FORMAT, required)


def _npz(humans: Humans, **more: Any) -> bytes:
    """Every parameter, and `more` arrays by name."""
    arrays: dict[str, Any] = {name: getattr(humans, name) for name in _PARAMETERS} | _amass(humans)
    for name in ("track_ids", "filled", "refined", "moved", "errors_mm", "converted_from"):
        if getattr(humans, name, None) is not None:
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
        **distortion_arrays(humans.distortion),
        **arrays,
        **more,
    )
    return buffer.getvalue()


def _world_npz(world: InWorld) -> bytes:
    """All parameters in the frame of the camera, which `load_humans` reads, and the world beside them."""
    ground = world.ground
    return _npz(
        world.humans,
        world_axes=world.name,
        world_unit=world.unit,
        camera_to_world=world.camera_to_world,
        world_joints=world.joints,
        world_translation=world.translation,
        world_pelvis=world.pelvis,
        height_m=world.height_m,
        over_floor=world.over_floor,
        up=np.asarray(ground.up, np.float32),
        camera_height=np.float32(np.nan if ground.camera_height is None else ground.camera_height),
    )


def _amass(humans: Humans) -> dict[str, Any]:
    """People of SMPL-X and SMPL by the names of AMASS and of the package smplx as well, a row for each.

    Nothing for other bodies.
    """
    if humans.body not in ("smplx", "smpl") or humans.topology.rest_pelvis is None:
        return {}
    arrays = amass_arrays(
        humans.topology,
        body=humans.body,
        rotvec=rotmat_to_rotvec(humans.pose),
        shape=humans.shape,
        expression=humans.expression,
        pelvis=humans.pelvis,
    )
    poses, parts = arrays["poses"], SMPLX_PARTS if humans.body == "smplx" else SMPL_PARTS
    ends = np.cumsum(list(parts.values()))
    named = dict(zip(parts, np.split(poses, ends[:-1], axis=1), strict=True))
    return arrays | named | {"betas": humans.shape, "transl": arrays["trans"]}


def _names(names: tuple[str, ...]) -> np.ndarray:
    """Text that numpy reads without pickle, also when there is none."""
    return np.array(names, dtype=np.str_)


MESHES: dict[str, Callable[..., bytes]] = {
    ".glb": humans_to_glb,
    **{suffix: functools.partial(humans_to_mesh, suffix=suffix) for suffix in TRIMESH_SUFFIXES},
    **{suffix: functools.partial(humans_to_usd, suffix=suffix) for suffix in USD_SUFFIXES},
}
FORMATS: dict[str, Callable[[Humans], bytes]] = {
    **MESHES,
    ".npz": _npz,
    ".json": humans_to_json,
    ".csv": humans_to_csv,
}
