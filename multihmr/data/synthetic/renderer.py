"""Rendering of posed, textured meshes with the ray tracing kernels. Imported lazily: it needs warp."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ...storage.silence import without_stderr
from .backgrounds import Light
from .kernels import (
    MATERIAL_DTYPE,
    NO_PERSON,
    Material,
    Surface,
    View,
    trace_centers,
    trace_edges,
    trace_people,
    wp,
)
from .scenes import Camera
from .textures import TextureBuffer
from .wardrobe import Paint, Part, vertex_normals

MAX_CONTACTS = 64


class RayTracer:
    """Ray tracer of one scene at a time; it keeps the textures of all scenes on its device."""

    def __init__(self, textures: TextureBuffer, device: str = "cpu") -> None:
        with without_stderr():  # warp's native part notes that there is no CUDA driver
            wp.init()
        self.textures, self.device = textures, device
        self._texels: Any = None
        self._uploaded = -1
        self._linear = self._array(((np.arange(256) / 255.0) ** 2.2).astype(np.float32), wp.float32)
        self._persons = np.zeros(0, np.int32)
        self._meshes: list[Any] = []
        self._surface: Any = None

    def _array(self, data: np.ndarray, dtype: Any) -> Any:
        return wp.array(data, dtype=dtype, device=self.device, copy=self.device != "cpu")

    def build(self, parts: list[tuple[Part, int]]) -> None:
        """Set the scene: parts, and the index of the person each belongs to (NO_PERSON for none)."""
        self._keep: list[Any] = []  # numpy arrays whose memory warp arrays on the CPU share
        around = [(part, k) for part, k in parts if k < 0]
        people = [(part, k) for part, k in parts if k >= 0] or [(_speck(self.textures), NO_PERSON)]
        parts = around + people
        vertices = np.concatenate([p.vertices for p, _ in parts]).astype(np.float32)
        starts = np.cumsum([0] + [len(p.vertices) for p, _ in parts])
        faces = np.concatenate([p.faces + s for (p, _), s in zip(parts, starts, strict=False)]).astype(
            np.int32
        )
        paints = np.cumsum([0] + [len(p.paints) for p, _ in parts])
        paint = np.concatenate([p.paint + s for (p, _), s in zip(parts, paints, strict=False)]).astype(
            np.int32
        )
        uv = np.ascontiguousarray(np.concatenate([p.uv for p, _ in parts]).reshape(-1, 2), np.float32)
        materials = np.array([_material(m, k) for p, k in parts for m in p.paints], MATERIAL_DTYPE)
        self._persons = materials["person"]
        normals = vertex_normals(vertices, faces)
        self._upload_textures()
        points, indices = self._array(vertices, wp.vec3), self._array(faces.reshape(-1), wp.int32)
        first = sum(len(p.faces) for p, _ in around)
        # A tree needs at least one face, also if it is never queried.
        trees = [faces[: max(first, 1)].reshape(-1), faces[first:].reshape(-1)]
        self._meshes = [self._tree(points, self._array(corners, wp.int32)) for corners in trees]
        s: Any = Surface()
        self._surface = s
        s.around, s.people = (mesh.id for mesh in self._meshes)
        s.first, s.points, s.indices = first, points, indices
        s.corners_uv, s.normals = self._array(uv, wp.vec2), self._array(normals, wp.vec3)
        s.face_material, s.texels, s.linear = self._array(paint, wp.int32), self._texels, self._linear
        s.materials = wp.array(materials, dtype=Material, device=self.device)
        s.contacts = wp.zeros(1, dtype=wp.vec3, device=self.device)
        self._keep += [vertices, faces, *trees, uv, normals, paint, materials]

    def _tree(self, points: Any, indices: Any) -> Any:
        # Leaves of 4 triangles are built quicker than smaller ones and traced as quickly.
        return wp.Mesh(points, indices, bvh_leaf_size=4, bvh_constructor=_constructor(self.device))

    def _upload_textures(self) -> None:
        if self._uploaded != self.textures.used:
            self._texels = self._array(self.textures.bytes[: self.textures.used], wp.uint8)
            self._uploaded = self.textures.used

    def people(self, camera: Camera) -> np.ndarray:
        """(H, W) index of the person in each pixel, NO_PERSON elsewhere."""
        height, width = camera.size
        person = wp.empty(height * width, dtype=wp.int32, device=self.device)
        wp.launch(trace_people, height * width, [self._surface, _view(camera), person], device=self.device)
        return person.numpy().reshape(height, width)

    def picture(
        self, camera: Camera, light: Light, edge_offsets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Render the scene; pixels at edges with several rays.

        Returns:
            linear light (H, W, 3); person index (H, W) at the pixels' centres, NO_PERSON elsewhere; and depth
            (H, W) [m], NaN where no surface is hit.
        """
        height, width = camera.size
        count = height * width
        contacts = light.contacts[:MAX_CONTACTS]
        self._surface.contacts = wp.array(
            contacts if len(contacts) else np.zeros((1, 3), np.float32), dtype=wp.vec3, device=self.device
        )
        view = _view(camera, light)
        color = wp.empty(count, dtype=wp.vec3, device=self.device)
        material = wp.empty(count, dtype=wp.int32, device=self.device)
        distance = wp.empty(count, dtype=wp.float32, device=self.device)
        wp.launch(trace_centers, count, [self._surface, view, color, material, distance], device=self.device)
        hit = material.numpy().reshape(height, width)
        along_ray = distance.numpy().reshape(height, width)
        edges = np.flatnonzero(_edges(hit, along_ray)).astype(np.int32)
        if len(edges):
            pixels, offsets = self._array(edges, wp.int32), self._array(edge_offsets, wp.vec2)
            wp.launch(
                trace_edges, len(edges), [self._surface, view, pixels, offsets, color], device=self.device
            )
        person = np.where(hit >= 0, self._persons[np.maximum(hit, 0)], NO_PERSON)
        depth = np.where(hit >= 0, along_ray / _ray_lengths(camera), np.nan).astype(np.float32)
        return color.numpy().reshape(height, width, 3), person, depth


@cache
def _constructor(device: str) -> str | None:
    """On CPUs cuBQL, where warp has it: its trees take half as long to build, and 4 % longer to trace."""
    if device != "cpu":
        return None
    points, corners = (wp.zeros(3, dtype=kind, device=device) for kind in (wp.vec3, wp.int32))
    try:
        wp.Mesh(points, corners, bvh_constructor="cubql")
    except (ValueError, KeyError, RuntimeError):
        return None
    return "cubql"


def _ray_lengths(camera: Camera) -> np.ndarray:
    """(H, W) length of each pixel's ray from the camera to depth 1."""
    height, width = camera.size
    x = (np.arange(width) + 0.5 - camera.K[0, 2]) / camera.K[0, 0]
    y = (np.arange(height) + 0.5 - camera.K[1, 2]) / camera.K[1, 1]
    return np.sqrt(1 + x[None] ** 2 + y[:, None] ** 2)


def _edges(material: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """(H, W) pixels at the border of two surfaces."""
    edge = np.zeros(material.shape, bool)
    near = np.maximum(distance, 1e-3)
    for a, b in (
        ((slice(1, None),), (slice(None, -1),)),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        differs = (material[a] != material[b]) | (
            np.abs(distance[a] - distance[b]) > 0.06 * np.minimum(near[a], near[b])
        )
        edge[a] |= differs
        edge[b] |= differs
    return edge


def _speck(textures: TextureBuffer) -> Part:
    """An invisible triangle, as warp needs at least one."""
    white = textures.named("white", lambda: np.full((4, 4, 3), 255, np.uint8))
    vertices = np.array([[0, 0, -900], [1e-3, 0, -900], [0, 1e-3, -900]], np.float32)
    return Part(vertices, np.array([[0, 1, 2]]), np.zeros((1, 3, 2)), np.zeros(1, np.int64), [Paint(white)])


def _material(paint: Paint, person: int) -> tuple[Any, ...]:
    t, p = paint.texture, paint.print or paint.texture
    return (
        t.offset, t.size, person, paint.flags, paint.pattern, p.offset, p.size, paint.keep, t.gain,
        paint.gloss, paint.frequency, paint.angle, paint.share, paint.matrix, paint.color_a, paint.color_b,
    )  # fmt: skip


def _view(camera: Camera, light: Light | None = None) -> Any:
    view: Any = View()
    view.origin = wp.vec3(*camera.position.astype(np.float32))
    view.rotation = wp.mat33(camera.rotation.T.astype(np.float32))
    view.focal, view.center_x, view.center_y = (float(camera.K[i]) for i in ((0, 0), (0, 2), (1, 2)))
    view.height, view.width = camera.size
    view.backdrop = -1
    if light is not None:
        for name in ("sun_direction", "sun", "sky", "bounce", "lamp_position", "lamp", "horizon", "zenith"):
            setattr(view, name, wp.vec3(*np.asarray(getattr(light, name), np.float32)))
        view.feet = min(len(light.contacts), MAX_CONTACTS)
        if light.backdrop is not None:
            view.backdrop, view.backdrop_size = light.backdrop.offset, light.backdrop.size
            view.backdrop_window = wp.vec4(*light.backdrop_window.astype(np.float32))
    return view
