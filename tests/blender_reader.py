"""Run by a Python that has bpy: what Blender makes of FOLDER/two.glb and one.bvh, into FOLDER/seen.npz."""

import sys
from pathlib import Path

import bpy
import numpy as np

FRAMES = range(4)


def vertices(name: str, frame: int) -> np.ndarray:
    """(V, 3) of a mesh as Blender shows it in a frame, in the world."""
    bpy.context.scene.frame_set(frame)
    shown = bpy.data.objects[name].evaluated_get(bpy.context.evaluated_depsgraph_get())
    mesh = shown.to_mesh()
    points = np.empty(3 * len(mesh.vertices), np.float32)
    mesh.vertices.foreach_get("co", points)
    place = np.array(shown.matrix_world)
    return points.reshape(-1, 3) @ place[:3, :3].T + place[:3, 3]


def joints(armature: bpy.types.Object, bones: list[str], frame: int) -> np.ndarray:
    """(B, 3) where the bones begin, in the world."""
    bpy.context.scene.frame_set(frame)
    place = np.array(armature.matrix_world)
    return np.array([place @ [*armature.pose.bones[bone].head, 1] for bone in bones])[:, :3]


def render(path: Path) -> np.ndarray:
    """(H, W) brightness of a small picture from the file's camera."""
    scene = bpy.context.scene
    scene.camera = next(o for o in bpy.data.objects if o.type == "CAMERA")
    scene.render.engine, scene.cycles.samples = "CYCLES", 1
    scene.render.resolution_x, scene.render.resolution_y = 64, 48
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.rotation_euler = (1, 0, 0)
    scene.collection.objects.link(sun)
    scene.frame_set(1)
    scene.render.filepath = str(path)
    bpy.ops.render.render(write_still=True)
    pixels = np.empty(64 * 48 * 4, np.float32)
    bpy.data.images.load(str(path)).pixels.foreach_get(pixels)
    return 255 * pixels.reshape(48, 64, 4)[..., 0]


def main(folder: Path) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    bpy.context.scene.render.fps = 25
    bpy.ops.import_scene.gltf(filepath=str(folder / "two.glb"))
    seen = {"vertices": [vertices("person_1_body", frame) for frame in FRAMES]}
    seen["size_of_other"] = [np.ptp(vertices("person_2_body", frame)) for frame in FRAMES]
    seen["pixels"] = render(folder / "seen.png")
    bpy.ops.import_anim.bvh(filepath=str(folder / "one.bvh"), frame_start=1)  # it allows no 0
    armature = bpy.context.object
    seen["bones"] = [bone.name for bone in armature.pose.bones]
    seen["joints"] = [joints(armature, seen["bones"], 1 + frame) for frame in FRAMES]
    np.savez(folder / "seen.npz", **seen)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
