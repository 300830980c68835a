"""The people of a picture as mesh files: .ply, .obj and .usd. Frame of glTF: y up, camera looks along -z."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from ..bodies.rig import TO_GLTF
from ..humans import Humans

USD_SUFFIXES = (".usd", ".usda", ".usdc", ".usdz")
_APERTURE = 24.0  # [mm] height of the picture in USD's camera, whose lens is told in millimetres


def humans_to_ply(humans: Humans) -> bytes:
    """All people as one mesh, coloured by person."""
    people, count = humans.vertices.shape[:2]
    vertices = np.zeros(people * count, np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)]))
    vertices["xyz"] = (humans.vertices * TO_GLTF).reshape(-1, 3)
    vertices["rgb"] = np.repeat(humans.colors, count, axis=0)
    first = np.arange(people)[:, None, None] * count
    triangles = (humans.topology.faces[None] + first).reshape(-1, 3)
    faces = np.zeros(len(triangles), np.dtype([("n", "u1"), ("index", "<i4", 3)]))
    faces["n"], faces["index"] = 3, triangles
    header = ["ply", "format binary_little_endian 1.0", "comment metres, y up, camera looks along -z"]
    header += [f"element vertex {len(vertices)}", *(f"property float {axis}" for axis in "xyz")]
    header += [f"property uchar {color}" for color in ("red", "green", "blue")]
    header += [f"element face {len(faces)}", "property list uchar int vertex_indices", "end_header", ""]
    return "\n".join(header).encode() + vertices.tobytes() + faces.tobytes()


def humans_to_obj(humans: Humans) -> bytes:
    """One object a person; colours follow the coordinates of each vertex, as most programs read them."""
    count = humans.vertices.shape[1]
    lines = ["# metres, y up, camera looks along -z"]
    for i, points in enumerate(humans.vertices * TO_GLTF):
        color = "{:.4g} {:.4g} {:.4g}".format(*(humans.colors[i] / 255))
        lines += [f"o person_{i}", "s 1"]
        lines += [f"v {x:.6f} {y:.6f} {z:.6f} {color}" for x, y, z in points.tolist()]
        lines += [f"f {a} {b} {c}" for a, b, c in (humans.topology.faces + 1 + i * count).tolist()]
    return ("\n".join(lines) + "\n").encode()


def humans_to_usd(humans: Humans, suffix: str = ".usdc") -> bytes:
    """One mesh a person and a camera that shows them as the image does, in metres.

    .usda is text, .usdc and .usd are binary, .usdz is what Apple's phones open. ImportError without usd-core.
    """
    try:
        from pxr import Usd, UsdGeom, UsdUtils
    except ImportError as error:
        raise ImportError(f"{suffix} files need usd-core: pip install 'multihmr[usd]'") from error
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"people{'.usdc' if suffix == '.usdz' else suffix}"
        stage = Usd.Stage.CreateNew(str(path))
        UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
        UsdGeom.SetStageMetersPerUnit(stage, 1.0)
        stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/people").GetPrim())
        _add_usd_camera(stage, humans)
        for i in range(len(humans)):
            _add_usd_mesh(stage, humans, i)
        stage.GetRootLayer().Save()
        if suffix == ".usdz":
            packed = path.with_suffix(suffix)
            if not UsdUtils.CreateNewUsdzPackage(str(path), str(packed)):
                raise RuntimeError("usd-core could not pack the .usdz; save it as .usdc")
            path = packed
        return path.read_bytes()


def _add_usd_camera(stage: Any, humans: Humans) -> None:
    from pxr import Gf, UsdGeom

    (height, width), K = humans.image_size, humans.K.astype(float)
    camera = UsdGeom.Camera.Define(stage, "/people/camera")
    camera.CreateVerticalApertureAttr(_APERTURE)
    camera.CreateHorizontalApertureAttr(_APERTURE * width / height * K[1, 1] / K[0, 0])
    camera.CreateFocalLengthAttr(_APERTURE * K[1, 1] / height)
    camera.CreateClippingRangeAttr(Gf.Vec2f(0.01, 1000.0))


def _add_usd_mesh(stage: Any, humans: Humans, i: int) -> None:
    from pxr import Gf, Sdf, UsdGeom, UsdShade, Vt

    name = f"/people/person_{i}"
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
