"""Rigged .glb to .fbx through Blender's Python module (bpy), in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import tempfile
from pathlib import Path

# Blender's importer makes bones of the skeleton; FBX keeps them, skin, morph targets and the animation.
_SCRIPT = """
import sys
import bpy
bpy.ops.wm.read_factory_settings(use_empty=True)
scene, fps = bpy.context.scene, float(sys.argv[3])
scene.render.fps, scene.render.fps_base = round(fps), round(fps) / fps
bpy.ops.import_scene.gltf(filepath=sys.argv[1])
for armature in (o for o in bpy.data.objects if o.type == "ARMATURE"):
    for bone in armature.pose.bones:
        if bone.custom_shape is not None:  # a ball that the importer draws bones with
            bpy.data.objects.remove(bone.custom_shape)
ranges = [action.frame_range for action in bpy.data.actions] or [(0, 0)]
scene.frame_start = int(min(start for start, _ in ranges))
scene.frame_end = -int(-max(end for _, end in ranges) // 1)
bpy.ops.export_scene.fbx(
    filepath=sys.argv[2], object_types={"ARMATURE", "MESH", "CAMERA", "EMPTY"}, add_leaf_bones=False,
    bake_anim=bool(bpy.data.actions), bake_anim_use_nla_strips=False, bake_anim_use_all_actions=False,
)
"""
_TIMEOUT_S = 600.0


def check_fbx() -> None:
    """ImportError if bpy is missing, with what converts our .glb without it."""
    if importlib.util.find_spec("bpy") is None:
        raise ImportError(
            ".fbx files need Blender's Python module: pip install 'multihmr[fbx]' (for the Python versions "
            "that https://pypi.org/project/bpy names); or save a .glb with rigged=True, open it in Blender "
            "(File > Import > glTF 2.0) and export it as FBX"
        )


def glb_to_fbx(content: bytes, fps: float) -> bytes:
    """The same people as .fbx, with keys on whole frames of a video of that rate.

    Raises:
        ImportError: bpy is not installed; the message says what converts our .glb without it.
        RuntimeError: Blender could not convert it; the message has its reason.
    """
    check_fbx()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "people.glb").write_bytes(content)
        files = [str(folder / "people.glb"), str(folder / "people.fbx")]
        files.append(str(fps))
        command = [sys.executable, "-c", _SCRIPT, *files]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
            encoding="utf-8",
            errors="replace",
        )
        if not (folder / "people.fbx").is_file():
            lines = (done.stderr or done.stdout).strip().splitlines()
            raise RuntimeError(f"Blender could not write the .fbx: {lines[-1] if lines else done.returncode}")
        return (folder / "people.fbx").read_bytes()
