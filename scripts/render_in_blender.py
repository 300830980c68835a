"""Run by a Python that has bpy: render one frame of an animated .glb of people, on a floor, into a picture.

python scripts/render_in_blender.py PEOPLE.glb PICTURE.png
"""

import sys

import bpy
from mathutils import Vector

SIZE, SAMPLES = (640, 480), 24
SHARE = 0.6  # of the animation, at which it is stopped


def corners_of_people() -> list[Vector]:
    """The vertices of all meshes in this frame, in the world."""
    graph = bpy.context.evaluated_depsgraph_get()
    points = []
    for thing in [thing for thing in bpy.data.objects if thing.type == "MESH"]:
        shown = thing.evaluated_get(graph)
        mesh = shown.to_mesh()
        points += [shown.matrix_world @ vertex.co for vertex in list(mesh.vertices)[::20]]
        shown.to_mesh_clear()
    return points


def main(glb: str, picture: str) -> None:
    bpy.ops.wm.read_factory_settings(use_empty=True)
    scene = bpy.context.scene
    bpy.ops.import_scene.gltf(filepath=glb)
    for thing in list(bpy.data.objects):  # bones are shown by little shapes of their own
        if thing.type == "MESH" and not thing.vertex_groups:
            bpy.data.objects.remove(thing)
    last = max((int(action.frame_range[1]) for action in bpy.data.actions), default=1)
    scene.frame_set(round(SHARE * last))
    points = corners_of_people()
    low = Vector([min(p[i] for p in points) for i in range(3)])
    high = Vector([max(p[i] for p in points) for i in range(3)])
    middle, tall = (low + high) / 2, (high - low).length
    bpy.ops.mesh.primitive_plane_add(size=60, location=(middle.x, middle.y, low.z))
    sun = bpy.data.objects.new("sun", bpy.data.lights.new("sun", "SUN"))
    sun.data.energy, sun.data.angle, sun.rotation_euler = 3.0, 0.2, (0.8, 0.3, 0.6)
    scene.collection.objects.link(sun)
    scene.world = bpy.data.worlds.new("world")
    scene.world.use_nodes = True
    scene.world.node_tree.nodes["Background"].inputs[0].default_value = (0.55, 0.58, 0.62, 1)
    camera = bpy.data.objects.new("view", bpy.data.cameras.new("view"))
    camera.location = middle + Vector((0.9, -1.0, 0.5)).normalized() * 1.35 * tall
    camera.rotation_euler = (middle - camera.location).to_track_quat("-Z", "Y").to_euler()
    scene.collection.objects.link(camera)
    scene.camera = camera
    scene.render.engine, scene.cycles.samples, scene.cycles.device = "CYCLES", SAMPLES, "CPU"
    scene.render.resolution_x, scene.render.resolution_y = SIZE
    scene.render.filepath = picture
    bpy.ops.render.render(write_still=True)


if __name__ == "__main__":
    main(*sys.argv[1:3])
