"""Measures what the 68 points of a face give to `multihmr.fitting`, and draws fitted faces.

    python scripts/measure_face_fitting.py --assets shared/assets --people 60
    python scripts/measure_face_fitting.py --assets shared/assets --people 24 --out faces.png

People are Anny bodies of random phenotypes with the facial actions of `multihmr generate`, in poses of the
test split of the CMU captures, seen from up to 45 degrees beside their face: whole people (1280 x 720 pixels,
faces of 20 to 45 pixels) and portraits (faces of 130 to 280 pixels; points beyond the edge of the picture are
not given). --small shrinks the pictures of whole people until their faces are some pixels high.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from measure_fitting import SIZE, _look, pa_errors
from scipy.spatial.transform import Rotation

from multihmr.bodies.anny import Anny
from multihmr.bodies.body_parts import body_joints
from multihmr.bodies.keypoint_sets import keypoint_names
from multihmr.data.synthetic.poses import quaternions_to_matrices
from multihmr.data.synthetic.scenes import SceneSampler, random_shape
from multihmr.data.synthetic.splits import captures_of_split
from multihmr.fitting import FittedHumans, fit
from multihmr.fitting.point_sets import FACE_NAMES, find_points
from multihmr.humans import Humans, project

NAMES = (*keypoint_names("coco17"), *FACE_NAMES)
NOISES = (0.0, 1.5)
FOCAL = 1050.0  # pixels
# pixels that a face is high where few pixels are the question, see measure_small
SMALL = (8, 16, 24, 32)


@dataclass(frozen=True)
class Faces:
    """N people, each before a camera of its own: all in that camera's frame [m]."""

    K: np.ndarray  # (3, 3)
    points: np.ndarray  # (N, 85, 3)
    joints: np.ndarray  # (N, 22, 3)
    vertices: np.ndarray
    expression: np.ndarray

    def pixels(self) -> np.ndarray:
        return project(self.points, self.K)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures fits to the points of faces.")
    parser.add_argument("--assets", type=Path, default=Path("shared/assets"))
    parser.add_argument("--people", type=int, default=60)
    parser.add_argument("--small", action="store_true", help="only: faces of few pixels and the body")
    parser.add_argument("--out", type=Path, help="draw the fits to portraits instead")
    args = parser.parse_args()
    body = Anny().eval()
    if args.out:
        draw(body, make_faces(body, args.assets, args.people, zoom=6.0), args.out)
    elif args.small:
        measure_small(body, args.assets, args.people)
    else:
        measure(body, args.assets, args.people)


@torch.no_grad()
def make_faces(body: Anny, assets: Path, people: int, *, zoom: float = 1.0) -> Faces:
    rng = np.random.default_rng(3)
    topology = body.topology
    names = list(topology.joint_names)
    with np.load(assets / "cmu_poses_anny.npz", allow_pickle=False) as file:
        tested = np.flatnonzero(captures_of_split(file["source_names"], "test")[file["source"]])
        captured = quaternions_to_matrices(file["quat_xyzw"][rng.choice(tested, people, replace=False)])
        columns = [names.index(str(name)) for name in file["bone_names"]]
    pose = np.tile(np.eye(3, dtype=np.float32), (people, len(names), 1, 1))
    pose[:, columns] = captured
    shape = np.stack([random_shape(rng, adult=False) for _ in range(people)])
    sampler: Any = SimpleNamespace(expression_names=topology.expression_names)
    faces = np.stack([SceneSampler._random_expression(sampler, rng) for _ in range(people)])
    output = body(torch.from_numpy(pose), torch.from_numpy(shape), torch.from_numpy(faces))
    vertices, joints = output.vertices_PV3.numpy().astype(float), output.joints_PJ3.numpy().astype(float)
    points = find_points(body, "coco17", NAMES)[0].points(vertices, joints)
    own = [names.index(name) for name in body_joints(topology)]
    found: list[list[np.ndarray]] = []
    for i in range(people):
        nose, ears = points[i, 0], points[i, 3:5].mean(0)
        forward = (nose - ears) * [1, 1, 0.3]
        forward = Rotation.from_euler("z", rng.uniform(-45, 45), degrees=True).apply(forward)
        forward /= np.linalg.norm(forward)
        aim = ears if zoom > 1 else vertices[i].mean(0)
        at = aim + forward * rng.uniform(3, 5)
        R = _look(at, aim)
        found.append([(x - at) @ R.T for x in (points[i], joints[i, own], vertices[i])])
    points, joints, vertices = (np.stack(values) for values in zip(*found, strict=True))
    K = np.array([[FOCAL * zoom, 0, SIZE[1] / 2], [0, FOCAL * zoom, SIZE[0] / 2], [0, 0, 1]])
    return Faces(K, points, joints, vertices, faces)


def fit_all(
    body: Anny, faces: Faces, *, noise: float, face: bool, space: bool = False, scale: float = 1.0
) -> tuple[FittedHumans, np.ndarray]:
    """The fits, and the pixels that were given; scale: of the picture."""
    rng = np.random.default_rng(1)
    size = np.array(SIZE[::-1]) * scale
    xy = faces.pixels() * scale
    inside = ((xy >= 0) & (xy < size)).all(-1).astype(float)
    xy = xy + rng.normal(0, noise, xy.shape)
    xyz = faces.points + rng.normal(0, noise / 1000, faces.points.shape)
    count = len(NAMES) if face else 17
    K = faces.K * [[scale], [scale], [1]]
    given: dict[str, Any] = {"names": NAMES[:count], "body": body}
    given["image_size"] = (int(SIZE[0] * scale), int(SIZE[1] * scale))
    if space:
        return fit(None, K, keypoints_3d=xyz[:, :count], **given), xy
    return fit(xy[:, :count], K, confidence=inside[:, :count], **given), xy


def measure(body: Anny, assets: Path, people: int) -> None:
    print("| given | noise [px] | face points [mm] | face vertices [mm] | PA-MPJPE [mm] | s a person |")
    print("|---|---|---|---|---|---|")
    for label, zoom, space in (
        ("portrait", 6.0, False),
        ("whole person", 1.0, False),
        ("in space", 1.0, True),
    ):
        faces = make_faces(body, assets, people, zoom=zoom)
        for noise in NOISES:
            for face in (False, True):
                start = time.process_time()
                fits, _ = fit_all(body, faces, noise=noise, face=face, space=space)
                seconds = (time.process_time() - start) / people
                points, vertices, joints = errors(body, faces, fits)
                what = f"{label}, {'with' if face else 'without'} the face"
                unit = " (mm)" if space else ""
                found = f"{points:.2f} | {vertices:.2f} | {joints:.1f} | {seconds:.2f}"
                print(f"| {what} | {noise}{unit} | {found} |", flush=True)


def measure_small(body: Anny, assets: Path, people: int) -> None:
    """Whole people in ever smaller pictures: what faces of few pixels do to the body."""
    print("| face [px] | PA-MPJPE without the face [mm] | with it | place without [mm], median | with it |")
    print("|---|---|---|---|---|")
    faces = make_faces(body, assets, people)
    height = np.median(np.ptp(faces.pixels()[:, 17:, 1], axis=1))
    for pixels in SMALL:
        row = [f"{pixels}"]
        places = []
        for face in (False, True):
            fits, _ = fit_all(body, faces, noise=1.5, face=face, scale=pixels / height)
            row.append(f"{errors(body, faces, fits)[2]:.1f}")
            place = np.linalg.norm(fits.pelvis - faces.joints[:, 0], axis=1)
            places.append(f"{1000 * np.median(place):.0f}")
        print(f"| {' | '.join(row + places)} |", flush=True)


@torch.no_grad()
def errors(body: Anny, faces: Faces, fits: FittedHumans) -> tuple[float, float, float]:
    """Mean errors [mm] of the face's points and vertices, heads aligned with their size, and PA-MPJPE."""
    moved, still = _face_vertices(body)
    table = find_points(body, "coco17", NAMES)[0]
    points, vertices, joints = [], [], []
    for i in range(len(fits)):
        humans = fits[i]
        mine, true = humans.vertices[0].astype(float), faces.vertices[i]
        scale, R, t = _similarity(mine[still], true[still])
        mine = scale * mine @ R.T + t
        at = table.points(mine[None], humans.joints[:1])[0]  # those of the face are made of vertices alone
        points.append(np.linalg.norm(at[17:] - faces.points[i, 17:], axis=1).mean())
        vertices.append(np.linalg.norm(mine[moved] - true[moved], axis=1).mean())
        joints.append(pa_errors(humans, faces.joints[i : i + 1])[0])
    return 1000 * float(np.mean(points)), 1000 * float(np.mean(vertices)), float(np.mean(joints))


def _face_vertices(body: Anny) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the vertices that facial actions move by a millimetre, and of the rest of the head."""
    count = body.expression_count
    shape = body.mean_shape_S.repeat(count + 1, 1)
    rest = body.rest(shape, torch.cat([torch.zeros(1, count), torch.eye(count)])).numpy()
    moves = np.linalg.norm(rest[1:] - rest[0], axis=-1).max(0)
    assert body.topology.skin_indices is not None
    assert body.topology.skin_weights is not None
    head = body.topology.joint_names.index("head")
    on_head = ((body.topology.skin_indices == head) * body.topology.skin_weights).sum(1) > 0.99
    return np.flatnonzero(on_head & (moves > 1e-3)), np.flatnonzero(on_head & (moves < 1e-5))


def _similarity(points: np.ndarray, goals: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """scale, R, t of least squares (Umeyama 1991)."""
    mine, true = points - points.mean(0), goals - goals.mean(0)
    rotation, _ = Rotation.align_vectors(true, mine)
    R = rotation.as_matrix()
    scale = float((true * (mine @ R.T)).sum() / (mine**2).sum())
    return scale, R, goals.mean(0) - scale * R @ points.mean(0)


def draw(body: Anny, faces: Faces, out: Path) -> None:
    """Pairs of tiles: the true face with the points that are given, and the fitted one with its own."""
    from PIL import Image, ImageDraw

    fits, xy = fit_all(body, faces, noise=1.5, face=True)
    table = find_points(body, "coco17", NAMES)[0]
    side, tiles = 240, []
    for i in range(len(fits)):
        humans = fits[i]
        true = Humans(**_fields(humans, faces.vertices[i : i + 1].astype(np.float32)))
        own = project(table.points(humans.vertices, humans.joints)[0], faces.K)
        low, high = xy[i, 17:].min(0), xy[i, 17:].max(0)
        middle, extent = (low + high) / 2, 1.5 * (high - low).max()
        box = (*(middle - extent / 2), *(middle + extent / 2))
        for people, points in ((true, xy[i]), (humans, own)):
            picture = Image.fromarray(people.draw(np.full((*SIZE, 3), 235, np.uint8), side_views=False))
            scale = picture.width / SIZE[1]
            tile = picture.crop(tuple(round(scale * x) for x in box)).resize((side, side))
            pen = ImageDraw.Draw(tile)
            for x, y in (points[17:] - box[:2]) * side / extent:
                pen.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=(220, 0, 0))
            tiles.append(tile)
    columns = 8
    sheet = Image.new("RGB", (columns * side, -(-len(tiles) // columns) * side))
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i % columns * side, i // columns * side))
    sheet.save(out)
    print(out)


def _fields(humans: Humans, vertices: np.ndarray) -> dict[str, Any]:
    from dataclasses import fields

    known = {field.name: getattr(humans, field.name) for field in fields(Humans)}
    return known | {"vertices": vertices}


if __name__ == "__main__":
    main()
