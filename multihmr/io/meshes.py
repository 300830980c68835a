"""The people of an image as mesh files: trimesh for .glb, .ply, .obj, .stl and .off, usd-core for USD.

Axes of glTF: x right, y up, z to the viewer, metres; the camera is in the origin. With `ground`, people are
those of `world.placement.level_humans`: the floor is at y = 0, and the camera stands over it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bodies.rig import TO_GLTF
from ..humans import Humans
from ..world.ground import Ground
from ..world.placement import AXES, InWorld, camera_in_gltf
from .animation import person_facts, person_names
from .gltf import camera_and_node, clips_to_glb, material

if TYPE_CHECKING:
    from trimesh import Scene, Trimesh

USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
TRIMESH_SUFFIXES = (".ply", ".obj", ".stl", ".off")
_VIEW_FOV = 35.0  # degrees, of a view that is turned with the mouse
_APERTURE = 24.0  # [mm] height of the image in USD's camera, whose lens is given in millimetres


def humans_to_scene(humans: Humans, ground: Ground | None = None) -> Scene:
    """See `Humans.to_trimesh`."""
    from trimesh import Scene
    from trimesh.scene import Camera

    height, width = humans.image_size
    camera = Camera(resolution=(width, height), focal=(float(humans.K[0, 0]), float(humans.K[1, 1])))
    placed = np.eye(4) if ground is None else camera_in_gltf(ground)
    scene = Scene(camera=camera, camera_transform=placed)
    scene.metadata.update({"units": "metres", "body": humans.body})
    for name, mesh in _meshes(humans).items():
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    return scene


def _meshes(humans: Humans, *, colored: bool = True, world: InWorld | None = None) -> dict[str, Trimesh]:
    """A mesh for each person by name; `colored`: with the colour of the person at its vertices.

    world: of these people; the meshes are those of it, in place of glTF's axes.
    """
    from trimesh import Trimesh
    from trimesh.visual import ColorVisuals

    vertices, normals, faces = humans.vertices * TO_GLTF, humans.normals * TO_GLTF, humans.topology.faces
    if world is not None:
        rotation = world.camera_to_world[:3, :3] / np.linalg.norm(world.camera_to_world[0, :3])
        vertices, normals, faces = world.vertices, humans.normals @ rotation.T, world.faces
    meshes = {}
    for i, (name, color) in enumerate(zip(person_names(humans), humans.colors, strict=True)):
        mesh = Trimesh(
            vertices=vertices[i],
            faces=faces,
            vertex_normals=normals[i],
            metadata=person_facts(humans, i),
            process=False,
        )
        if colored:
            mesh.visual = ColorVisuals(mesh, vertex_colors=np.tile([*color, 255], (len(mesh.vertices), 1)))
        meshes[name] = mesh
    return meshes


def humans_to_glb(humans: Humans, ground: Ground | None = None) -> bytes:
    """The meshes of an image as glTF: a node per person, and a camera that shows them as the image does."""
    if not len(humans):  # trimesh writes no empty scene
        return clips_to_glb([], (humans.K, humans.image_size), ground)
    nodes = [{"name": name, "extras": person_facts(humans, i)} for i, name in enumerate(person_names(humans))]
    camera = camera_and_node(humans.K, humans.image_size, ground)
    names_and_colors = zip(person_names(humans), humans.colors, strict=True)
    materials = [material(name, color) for name, color in names_and_colors]
    extras = {"units": "metres", "body": humans.body}
    return _glb(humans, camera, nodes, materials=materials, extras=extras)


def humans_to_view(humans: Humans) -> bytes:
    """The meshes of an image for trimesh's HTML viewer (notebook.py): all in sight, around the origin.

    Its light is in the camera and points at the origin, so the two must differ; it shows linear light as it
    is, so colours are final, and part of each is emitted, for there is no other light.
    """
    points = (humans.vertices * TO_GLTF).reshape(-1, 3)
    middle, radius = (points.min(0) + points.max(0)) / 2, float(np.linalg.norm(np.ptp(points, axis=0))) / 2
    half = np.radians(_VIEW_FOV / 2)
    focal = 0.5 / np.tan(half)
    camera, node = camera_and_node(np.array([[focal, 0, 0.5], [0, focal, 0.5], [0, 0, 1]]), (1, 1))
    node["translation"] = (-middle * (radius / np.sin(half) / np.linalg.norm(middle))).tolist()
    materials = []
    for name, color in zip(person_names(humans), (humans.colors / 255).tolist(), strict=True):
        surface = {"baseColorFactor": [*(0.5 * part for part in color), 1.0], "metallicFactor": 0.0}
        glow = [0.15 * part for part in color]
        materials.append({"name": name, "pbrMetallicRoughness": surface, "emissiveFactor": glow})
    nodes = [{"name": name, "translation": (-middle).tolist()} for name in person_names(humans)]
    return _glb(humans, (camera, node), nodes, materials=materials, extras={})


def _glb(
    humans: Humans,
    camera: tuple[dict[str, Any], dict[str, Any]],
    nodes: list[dict[str, Any]],
    *,
    materials: list[dict[str, Any]],
    extras: dict[str, Any],
) -> bytes:
    """What trimesh writes of the meshes, with a node and a material of ours for each, after the camera."""
    from trimesh import Scene
    from trimesh.exchange.gltf import export_glb

    def finish(tree: dict[str, Any]) -> None:
        index = {mesh["name"]: i for i, mesh in enumerate(tree["meshes"])}
        for i, node in enumerate(nodes):
            mesh = tree["meshes"][index[node["name"]]]
            mesh.pop("extras", None)  # the nodes have them
            mesh["primitives"][0]["material"] = i
        tree["cameras"] = [camera[0]]
        tree["materials"] = materials
        tree["nodes"] = [camera[1], *({**node, "mesh": index[node["name"]]} for node in nodes)]
        tree["asset"]["generator"] = "multihmr"
        tree["scenes"] = [{"nodes": list(range(len(tree["nodes"]))), "extras": extras}]

    scene = Scene()
    for name, mesh in _meshes(humans, colored=False).items():
        scene.add_geometry(mesh, node_name=name, geom_name=name)
    return bytes(export_glb(scene, include_normals=True, tree_postprocessor=finish))


def humans_to_mesh(
    humans: Humans, ground: Ground | None = None, *, suffix: str, world: InWorld | None = None
) -> bytes:
    """All people as .ply or .off (one coloured mesh), .obj (an object for each) or .stl (without colour).

    world: of these people, whose axes and unit the file has.
    """
    from trimesh import Scene, Trimesh
    from trimesh.exchange.export import export_mesh
    from trimesh.exchange.obj import export_obj
    from trimesh.util import concatenate

    meshes = _meshes(humans, world=world)
    if suffix == ".obj":
        origin = "camera in the origin looking along -z" if ground is None else "the floor at y = 0"
        header = f"metres, y up, {origin}" if world is None else f"{AXES[world.name]}, the floor at 0"
        scene: Any = Scene()
        for name, mesh in meshes.items():
            scene.add_geometry(mesh, node_name=name, geom_name=name)
        return export_obj(scene, include_normals=False, header=header, digits=6).encode()
    joined: Any = concatenate(list(meshes.values())) if meshes else Trimesh()
    options: dict[str, Any] = {"vertex_normal": False} if suffix == ".ply" else {}
    content = export_mesh(joined, file_type=suffix[1:], file_obj=None, **options)
    return content.encode() if isinstance(content, str) else bytes(content)


def check_usd(suffix: str = ".usd") -> None:
    """ImportError if usd-core is missing, with what to install."""
    try:
        import pxr  # noqa: F401
    except ImportError as error:
        raise ImportError(f"{suffix} files need usd-core: pip install 'multihmr[usd]'") from error


def humans_to_usd(humans: Humans, ground: Ground | None = None, *, suffix: str = ".usdc") -> bytes:
    """One mesh a person and a camera that shows them as the image does, in metres.

    .usda is text, .usdc and .usd are binary, .usdz is what Apple's phones open. ImportError without usd-core.
    """
    check_usd(suffix)
    from pxr import Usd, UsdGeom, UsdUtils

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"people{'.usdc' if suffix == '.usdz' else suffix}"
        stage = Usd.Stage.CreateNew(str(path))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/people").GetPrim())
        _add_usd_camera(stage, humans, ground)
        for i in range(len(humans)):
            _add_usd_mesh(stage, humans, i)
        stage.GetRootLayer().Save()
        if suffix == ".usdz":
            packed = path.with_suffix(suffix)
            if not UsdUtils.CreateNewUsdzPackage(str(path), str(packed)):
                raise RuntimeError("usd-core could not pack the .usdz; save it as .usdc")
            path = packed
        return path.read_bytes()


def _add_usd_camera(stage: Any, humans: Humans, ground: Ground | None) -> None:
    from pxr import Gf, UsdGeom

    (height, width), K = humans.image_size, humans.K.astype(float)
    camera = UsdGeom.Camera.Define(stage, "/people/camera")
    camera.CreateVerticalApertureAttr(_APERTURE)
    camera.CreateHorizontalApertureAttr(_APERTURE * width / height * K[1, 1] / K[0, 0])
    # apertures and offsets are those of the film back: an off-centre principal point is exact here
    camera.CreateHorizontalApertureOffsetAttr(_APERTURE * (width / 2 - K[0, 2]) / height * K[1, 1] / K[0, 0])
    camera.CreateVerticalApertureOffsetAttr(_APERTURE * (K[1, 2] - height / 2) / height)
    camera.CreateFocalLengthAttr(_APERTURE * K[1, 1] / height)
    camera.CreateClippingRangeAttr(Gf.Vec2f(0.01, 1000.0))
    if ground is not None:  # USD multiplies row vectors
        camera.AddTransformOp().Set(Gf.Matrix4d(camera_in_gltf(ground).T.tolist()))


def _add_usd_mesh(stage: Any, humans: Humans, i: int) -> None:
    from pxr import Gf, Sdf, UsdGeom, UsdShade, Vt

    name = f"/people/{person_names(humans)[i]}"
    faces = humans.topology.faces
    color = Gf.Vec3f(*((humans.colors[i] / 255.0) ** 2.2).tolist())
    mesh = UsdGeom.Mesh.Define(stage, name)
    mesh.CreatePointsAttr(Vt.Vec3fArray.FromNumpy(humans.vertices[i] * TO_GLTF))
    mesh.CreateNormalsAttr(Vt.Vec3fArray.FromNumpy(humans.normals[i] * TO_GLTF))
    mesh.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
    mesh.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(faces), 3, np.int32)))
    mesh.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(faces.reshape(-1)))
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    mesh.CreateDisplayColorAttr([color])
    material = UsdShade.Material.Define(stage, f"{name}/skin")
    shader = UsdShade.Shader.Define(stage, f"{name}/skin/surface")
    shader.CreateIdAttr("UsdPreviewSurface")
    shader.CreateInput("diffuseColor", Sdf.ValueTypeNames.Color3f).Set(color)
    shader.CreateInput("roughness", Sdf.ValueTypeNames.Float).Set(0.7)
    material.CreateSurfaceOutput().ConnectToSource(shader.ConnectableAPI(), "surface")
    UsdShade.MaterialBindingAPI.Apply(mesh.GetPrim()).Bind(material)
