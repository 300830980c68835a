"""Measures `multihmr.fitting` on captured poses that its prior has not seen, and draws overlays of fits.

    python scripts/measure_fitting.py --assets shared/assets --people 100
    python scripts/measure_fitting.py --assets shared/assets --overlays 50 --out overlays.jpg
    python scripts/measure_fitting.py --assets shared/assets --rendered 10
    python scripts/measure_fitting.py --assets shared/assets --bound --people 100
    python scripts/measure_fitting.py --assets shared/assets --children 24
    python scripts/measure_fitting.py --assets shared/assets --sequences 6

People are Anny bodies of random phenotypes (those of `multihmr generate`) in poses of the test split of the
CMU captures, turned at random, in the middle of rigs of six cameras that stand 3 to 5 m away, 0.8 to 2.6 m
high. --rendered draws scenes of dressed people from six sides and predicts each picture with the bundled
model. --bound says how exact two views with 3 pixels of noise can be. --children fits small children 0.9 to
1.6 m before the camera, without and with their legs and their height. --sequences fits motions of 24 frames
between captured poses, together and each frame alone.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multihmr.bodies.anny import Anny
from multihmr.bodies.body_parts import body_joints
from multihmr.data.synthetic.poses import quaternions_to_matrices, turn
from multihmr.data.synthetic.scenes import random_shape
from multihmr.data.synthetic.splits import captures_of_split
from multihmr.evaluation.metrics import pa_mpjpe
from multihmr.fitting import fit
from multihmr.fitting.fitter import _fit_people, _fitter, pose_of
from multihmr.fitting.initialization import triangulate
from multihmr.fitting.inputs import read_inputs
from multihmr.fitting.skeleton import rotation_matrix
from multihmr.fitting.solver import Energy
from multihmr.humans import Humans, project, rotmat_to_rotvec
from multihmr.world.heights import heights_of_shapes

SIZE = (720, 1280)
RIG_PEOPLE = 20
ANGLES_DEG = (0, 90, 200, 290, 45, 135)  # of the cameras; the first V are used


@dataclass(frozen=True)
class Rig:
    """People in front of six cameras: points (N, 17, 3), joints (N, 22, 3) and meshes in the world [m]."""

    K: np.ndarray
    extrinsics: np.ndarray  # (6, 3, 4)
    points: np.ndarray
    joints: np.ndarray
    vertices: np.ndarray
    heights: np.ndarray  # (N,) [m]

    def pixels(self, view: int) -> np.ndarray:
        return project(self.in_camera(self.points, view), self.K)

    def in_camera(self, points: np.ndarray, view: int) -> np.ndarray:
        return points @ self.extrinsics[view, :, :3].T + self.extrinsics[view, :, 3]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measures multihmr.fitting.")
    parser.add_argument("--assets", type=Path, default=Path("shared/assets"))
    parser.add_argument("--people", type=int, default=100)
    parser.add_argument("--overlays", type=int, default=0, help="draw so many fits from one view instead")
    parser.add_argument("--rendered", type=int, default=0, help="predict so many scenes from six sides")
    parser.add_argument("--bound", action="store_true", help="how exact two noisy views can be")
    parser.add_argument("--children", type=int, default=0, help="fit so many near children")
    parser.add_argument("--sequences", type=int, default=0, help="fit so many motions of 24 frames")
    parser.add_argument("--out", type=Path, default=Path("overlays.jpg"))
    args = parser.parse_args()
    body = Anny().eval()
    if args.rendered:
        measure_rendered(args.assets, args.rendered)
    elif args.bound:
        measure_bound(body, args.assets, args.people)
    elif args.children:
        measure_children(body, args.assets, args.children)
    elif args.sequences:
        measure_sequences(body, args.assets, args.sequences)
    elif args.overlays:
        draw_overlays(body, args.assets, args.overlays, args.out)
    else:
        measure_points(body, args.assets, args.people)


def make_rigs(body: Anny, assets: Path, people: int) -> list[Rig]:
    poses, _ = captured_poses(body, assets)
    poses = poses[np.linspace(0, len(poses) - 1, people).astype(int)]
    rng = np.random.default_rng(0)
    rng.shuffle(poses)
    return [make_rig(body, poses[start : start + RIG_PEOPLE], rng) for start in range(0, people, RIG_PEOPLE)]


def captured_poses(body: Anny, assets: Path) -> tuple[np.ndarray, np.ndarray]:
    """(T, J, 3, 3) poses of the captures of the test split, and which capture (T,) each is from."""
    names = list(body.topology.joint_names)
    with np.load(assets / "cmu_poses_anny.npz", allow_pickle=False) as file:
        tested = np.flatnonzero(captures_of_split(file["source_names"], "test")[file["source"]])
        captured = quaternions_to_matrices(file["quat_xyzw"][tested])
        columns = [names.index(str(name)) for name in file["bone_names"]]
        source = file["source"][tested]
    poses = np.tile(np.eye(3, dtype=np.float32), (len(tested), len(names), 1, 1))
    poses[:, columns] = captured
    return poses, source


@torch.no_grad()
def make_rig(body: Anny, poses: np.ndarray, rng: np.random.Generator) -> Rig:
    count = len(poses)
    yaws = rng.uniform(0, 2 * np.pi, count)
    poses[:, 0] = np.stack([turn((0, 0, 1), yaw) for yaw in yaws]) @ poses[:, 0]
    shapes = np.stack([random_shape(rng, adult=False) for _ in range(count)])
    face = torch.zeros(count, body.expression_count)
    output = body(torch.from_numpy(poses), torch.from_numpy(shapes), face)
    place = np.concatenate([rng.uniform(-0.5, 0.5, (count, 2)), np.full((count, 1), 0.9)], 1)[:, None]
    vertices, joints = (tensor.numpy().astype(np.float64) + place for tensor in output)
    focal = rng.uniform(850, 1250)
    K = np.array([[focal, 0, SIZE[1] / 2], [0, focal, SIZE[0] / 2], [0, 0, 1]])
    cameras = []
    for angle in np.radians(ANGLES_DEG) + rng.uniform(0, 2 * np.pi):
        distance, height = rng.uniform(3, 5), rng.uniform(0.8, 2.6)
        at = np.array([distance * np.cos(angle), distance * np.sin(angle), height])
        R = turn((0, 0, 1), rng.normal(0, 0.05)) @ _look(at, np.array([0, 0, 0.9]))
        cameras.append(np.concatenate([R, (-R @ at)[:, None]], 1))
    points = body.topology.keypoint_sets["coco17"].points(vertices, joints)
    own = [body.topology.joint_names.index(name) for name in body_joints(body.topology)]
    tall = heights_of_shapes(body, shapes)
    return Rig(K, np.stack(cameras), points, joints[:, own], vertices, tall)


def measure_points(body: Anny, assets: Path, people: int) -> None:
    rigs = make_rigs(body, assets, people)
    print("| given | PA-MPJPE [mm] | median | place [mm], median | s a person |")
    print("|---|---|---|---|---|")
    for label, views, noise in (
        ("17 points in one view", 1, 0),
        ("17 points and the height, one view", 1, 0),
        ("17 points in one view, 3 px of noise", 1, 3),
        ("17 points in space", 0, 0),
        ("two views", 2, 0),
        ("two views, 3 px of noise", 2, 3),
        ("three views, 3 px of noise", 3, 3),
        ("four views, 3 px of noise", 4, 3),
        ("six views, 3 px of noise", 6, 3),
    ):
        rng = np.random.default_rng(1)
        errors, places, start = [], [], time.process_time()
        for rig in rigs:
            humans = fit_rig(rig, views, noise, rng, body, height=rig.heights if "height" in label else None)
            errors.append(pa_errors(humans, rig.in_camera(rig.joints, 0)))
            places.append(1000 * np.linalg.norm(humans.pelvis - rig.in_camera(rig.joints[:, 0], 0), axis=1))
        error, place = np.concatenate(errors), np.concatenate(places)
        seconds = (time.process_time() - start) / len(error)
        numbers = f"{error.mean():.1f} | {np.median(error):.1f} | {np.median(place):.0f} | {seconds:.2f}"
        print(f"| {label} | {numbers} |", flush=True)


def fit_rig(
    rig: Rig, views: int, noise: float, rng: np.random.Generator, body: Anny, height: Any = None
) -> Humans:
    if not views:
        space = rig.in_camera(rig.points, 0)
        return fit(None, rig.K, keypoints_3d=space, body=body, image_size=SIZE)
    xy = [rig.pixels(view) for view in range(views)]
    xy = [points + rng.normal(0, noise, points.shape) for points in xy]
    if views == 1:
        return fit(xy[0], rig.K, body=body, image_size=SIZE, height=height)
    return fit(xy, rig.K, extrinsics=rig.extrinsics[:views], body=body, image_size=SIZE)


def pa_errors(humans: Humans, joints: np.ndarray) -> np.ndarray:
    own = [humans.topology.joint_names.index(name) for name in body_joints(humans.topology)]
    fitted = torch.from_numpy(humans.joints[:, own].astype(np.float64))
    return pa_mpjpe(fitted, torch.from_numpy(joints)).numpy()


@torch.no_grad()
def measure_bound(body: Anny, assets: Path, people: int, noise: float = 3.0, draws: int = 6) -> None:
    """Two views: how far triangulated points are off, and people drawn from what the prior leaves possible.

    The latter are drawn around exact fits, from the Gaussian whose inverse covariance is the curvature of the
    energy (Laplace's approximation): no estimate that knows only this prior has a smaller mean error.
    """
    fitter, rng = _fitter(body, "coco17", None), np.random.default_rng(0)
    triangulated, possible = [], {0.5: [], noise: []}
    for rig in make_rigs(body, assets, people):
        xy = [rig.pixels(view) for view in range(2)]
        options = {"names": fitter.names, "kept": fitter.kept, "sigma_3d": None, "image_size": SIZE}
        exact = read_inputs(xy, rig.K, None, None, rig.extrinsics[:2], sigma=0.5, **options).seen
        noisy = replace(exact, xy_PVM2=exact.xy_PVM2 + torch.from_numpy(rng.normal(0, noise, (2, 17, 2))))
        true = torch.from_numpy(rig.in_camera(rig.points, 0))
        triangulated.append(pa_mpjpe(triangulate(noisy)[0], true).numpy())
        state, evidence = _fit_people(fitter, exact, None, face=False)
        count = evidence.shape[1]
        state = state.rows(evidence.argmin(1) + torch.arange(len(evidence)) * count)
        for sigma, errors in possible.items():
            seen = replace(exact, sigma_PVM=torch.full_like(exact.sigma_PVM, sigma))
            energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen, upright=False)
            energy.robust = 1e6
            energy.expand(state.shape_PS.float())
            root = torch.linalg.cholesky(energy(state).hessian_PNN)
            middle = _own_joints(fitter, state)
            for _ in range(draws):
                z = torch.from_numpy(rng.normal(size=(*root.shape[:2], 1)))
                step = torch.linalg.solve_triangular(root.mT, z, upper=True)[..., 0]
                errors.append(pa_mpjpe(_own_joints(fitter, state.moved(step)), middle).numpy())
    print(f"triangulated points, {noise:g} px: {np.concatenate(triangulated).mean():.1f} mm")
    for sigma, errors in possible.items():
        print(f"possible with two views, {sigma:g} px: {np.concatenate(errors).mean():.1f} mm")


def _own_joints(fitter: Any, state: Any) -> torch.Tensor:
    body = fitter.body
    face = torch.zeros(len(state.pelvis_P3), body.expression_count)
    joints = body(pose_of(fitter, state).float(), state.shape_PS.float(), face).joints_PJ3
    return joints[:, [body.topology.joint_names.index(name) for name in body_joints(body.topology)]].double()


def measure_children(body: Anny, assets: Path, count: int) -> None:
    rng = np.random.default_rng(3)
    poses, _ = captured_poses(body, assets)
    poses = poses[rng.choice(len(poses), count)]
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    poses[:, 0] = (
        np.stack([upright @ turn((0, 0, 1), yaw) for yaw in rng.uniform(-1.2, 1.2, count)]) @ poses[:, 0]
    )
    shapes = np.full((count, body.shape_count), 0.5, np.float32)
    columns = [body.topology.shape_names.index(name) for name in ("gender", "age", "height")]
    shapes[:, columns] = rng.uniform((0, 0.12, 0.3), (1, 0.33, 0.7), (count, 3))
    place = rng.uniform((-0.1, -0.1, 0.9), (0.1, 0.2, 1.6), (count, 3))
    points, joints = _posed(body, poses, shapes, place)
    K = np.array([[1100.0, 0, 640], [0, 1100, 360], [0, 0, 1]])
    tall = heights_of_shapes(body, shapes)
    print("| near children | PA-MPJPE [mm] | place [mm], median | age off by | points, share of extent |")
    print("|---|---|---|---|---|")
    for label, legs, height in (
        ("without legs", False, None),
        ("with legs", True, None),
        ("without legs, height known", False, tall),
    ):
        confidence = np.ones((count, 17))
        confidence[:, 13:] = legs
        humans = fit(project(points, K), K, confidence=confidence, body=body, image_size=SIZE, height=height)
        place_mm = 1000 * np.linalg.norm(humans.pelvis - joints[:, 0], axis=1)
        xy = project(points[:, : 17 if legs else 13], K)
        share = humans.errors_px / np.ptp(xy, axis=1).max(1)
        age = np.abs(humans.shape[:, columns[1]] - shapes[:, columns[1]]).mean()
        numbers = f"{pa_errors(humans, joints).mean():.1f} | {np.median(place_mm):.0f} | {age:.2f}"
        print(f"| {label} | {numbers} | {share.mean():.4f} |", flush=True)


@torch.no_grad()
def _posed(
    body: Anny, poses: np.ndarray, shapes: np.ndarray, place: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(N, 17, 3) points and (N, 22, 3) joints of people whose root joints stand at `place` (N, 3) [m]."""
    face = torch.zeros(len(poses), body.expression_count)
    output = body(torch.from_numpy(poses).float(), torch.from_numpy(shapes), face)
    vertices, joints = (t.numpy().astype(np.float64) + place[:, None] for t in output)
    own = [body.topology.joint_names.index(name) for name in body_joints(body.topology)]
    return body.topology.keypoint_sets["coco17"].points(vertices, joints), joints[:, own]


def measure_sequences(body: Anny, assets: Path, count: int) -> None:
    print("| points | together: PA-MPJPE [mm] | each frame alone |")
    print("|---|---|---|")
    K = np.array([[1100.0, 0, 640], [0, 1100, 360], [0, 0, 1]])
    for label, noise, outliers in (("exact", 0, 0), ("3 px", 3, 0), ("3 px, 2 outliers a frame", 3, 2)):
        together, alone = [], []
        for seed in range(count):
            rng = np.random.default_rng(seed)
            points, joints = make_motion(body, assets, rng)
            xy = project(points, K) + rng.normal(0, 1, (len(points), 17, 2)) * noise
            for frame in xy:
                for k in rng.choice(17, outliers, replace=False):
                    angle = rng.uniform(0, 2 * np.pi)
                    frame[k] += rng.uniform(40, 150) * np.array([np.cos(angle), np.sin(angle)])
            for found, fps in ((together, 20), (alone, None)):
                humans = fit(xy, K, fps=fps, body=body, image_size=SIZE)
                found.append(pa_errors(humans, joints).mean())
        print(f"| {label} | {np.mean(together):.1f} | {np.mean(alone):.1f} |", flush=True)


def make_motion(
    body: Anny, assets: Path, rng: np.random.Generator, frames: int = 24
) -> tuple[np.ndarray, np.ndarray]:
    """Points and joints of somebody who goes through three poses of a capture, 1.2 s from one to the next."""
    poses, source = captured_poses(body, assets)
    whole = np.flatnonzero(source[:-2] == source[2:])
    first = int(rng.choice(whole))
    vectors = rotmat_to_rotvec(poses[first : first + 3])
    at = np.linspace(0, 2, frames)
    begin = np.minimum(at.astype(int), 1)
    share = ((1 - np.cos(np.pi * (at - begin))) / 2)[:, None, None]
    between = vectors[begin] * (1 - share) + vectors[begin + 1] * share
    moving = rotation_matrix(torch.from_numpy(between)).numpy()
    upright = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    moving[:, 0] = upright @ turn((0, 0, 1), rng.uniform(-1.2, 1.2)) @ moving[:, 0]
    shape = np.full((frames, body.shape_count), 0.5, np.float32)
    shape[:, body.topology.shape_names.index("age")] = 0.7
    place = np.array([0, 0.1, 4.0]) + np.linspace(-0.5, 0.5, frames)[:, None] * (1.0, 0, 0.3)
    return _posed(body, moving, shape, place)


def draw_overlays(body: Anny, assets: Path, count: int, out: Path) -> None:
    """Each tile: the true person in grey and over it the fit to its 17 points in one view."""
    from PIL import Image

    tiles = []
    for rig in make_rigs(body, assets, count):
        humans = fit_rig(rig, 1, 0, np.random.default_rng(0), body)
        errors = pa_errors(humans, rig.in_camera(rig.joints, 0))
        for i in range(len(humans)):
            tiles.append(_tile(humans, rig, i, errors[i]))
    columns = 10
    height, width = tiles[0].shape[:2]
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height))
    for i, tile in enumerate(tiles):
        sheet.paste(Image.fromarray(tile), (i % columns * width, i // columns * height))
    sheet.save(out, quality=88)
    print(out)


def _tile(humans: Humans, rig: Rig, i: int, error: float) -> np.ndarray:
    from PIL import Image, ImageDraw

    side = 180
    K = rig.K.copy()
    x0, y0, x1, y1 = humans.boxes[i]
    middle = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    scale = 0.85 * side / max(x1 - x0, y1 - y0, 1)
    K[:2] *= scale
    K[:2, 2] += side / 2 - middle * scale
    one = replace(humans[i], K=K.astype(np.float32), image_size=(side, side))
    true = replace(one, vertices=rig.in_camera(rig.vertices[i : i + 1], 0).astype(np.float32))
    left = true.draw(np.full((side, side, 3), 255, np.uint8), side_views=False)
    right = one.draw(np.full((side, side, 3), 255, np.uint8), side_views=False)
    picture = Image.fromarray(np.concatenate([left, right], 1))
    pen = ImageDraw.Draw(picture)
    for x, y in (rig.pixels(0)[i] - middle) * scale + side / 2:
        pen.ellipse((side + x - 2, y - 2, side + x + 2, y + 2), fill=(220, 0, 0))
    pen.text((side + 4, 4), f"{i}: {error:.0f} mm", fill=(0, 0, 0))
    return np.asarray(picture)


def measure_rendered(assets: Path, count: int) -> None:
    """Scenes from six sides, each picture predicted alone; then the first V views together."""
    from multihmr import load_model
    from multihmr.data.synthetic.dataset import SyntheticScenes
    from multihmr.fitting import fuse_views

    scenes = SyntheticScenes(seed=77, split="test", closeups=0.0, assets=assets)
    model = load_model(device="cpu")
    rows: dict[int, list[tuple[float, float]]] = {views: [] for views in (1, 2, 3, 4, 6)}
    counts = {views: np.zeros(3, int) for views in rows}  # true people, found, false
    for scene in _group_scenes(scenes, count):
        cameras = _around(scene, np.random.default_rng(scene.seed))
        pictures = [scenes.renderer.render(replace(scene, camera=camera)).image for camera in cameras]
        predictions = model.predict_batch(pictures, [camera.K for camera in cameras])
        extrinsics = [camera.extrinsics.astype(np.float64) for camera in cameras]
        for views in rows:
            if views == 1:
                people = predictions[0]
            else:
                fused = fuse_views(predictions[:views], extrinsics[:views], body=model.body, least_views=2)
                people = fused.views[0]
            rows[views] += _compare(people, scene, extrinsics[0], counts[views])
    print("| views | people found | false | PA-MPJPE [mm] | place [mm] | place, median |")
    print("|---|---|---|---|---|---|")
    for views, found in rows.items():
        true, right, false = counts[views]
        pa, place = np.array(found).reshape(-1, 2).T
        print(
            f"| {views} | {right} of {true} | {false} | {pa.mean():.1f} | {place.mean():.0f} "
            f"| {np.median(place):.0f} |"
        )


def _group_scenes(scenes: Any, count: int) -> list[Any]:
    """The first `count` scenes of one to four people who stand in one another's neighbourhood."""
    found = []
    for index in range(1000):
        scene = scenes.scene(index)
        places = np.array([person.position[:2] for person in scene.people]).reshape(-1, 2)
        if 1 <= len(places) <= 4 and np.ptp(places, axis=0).max() < 2.5:
            found.append(scene)
        if len(found) == count:
            break
    return found


def _around(scene: Any, rng: np.random.Generator) -> list[Any]:
    """Six cameras of 55 degrees that look at the middle of the people from 4 m and more."""
    joints = np.concatenate([person.joints for person in scene.people])
    middle = (joints.min(0) + joints.max(0)) / 2
    spread = np.linalg.norm(np.ptp(joints[:, :2], axis=0)) / 2
    side = scene.camera.size[0]
    focal = side / (2 * np.tan(np.radians(55 / 2)))
    K = np.array([[focal, 0, side / 2], [0, focal, side / 2], [0, 0, 1]], np.float32)
    cameras = []
    for angle in np.radians(ANGLES_DEG) + rng.uniform(0, 2 * np.pi):
        distance, height = rng.uniform(2.8, 4) + spread, rng.uniform(0.2, 1.2)
        at = middle + np.array([distance * np.cos(angle), distance * np.sin(angle), height])
        cameras.append(replace(scene.camera, K=K, rotation=_look(at, middle), position=at, size=(side, side)))
    return cameras


def _compare(people: Humans, scene: Any, camera: np.ndarray, counts: np.ndarray) -> list[tuple[float, float]]:
    """(PA-MPJPE, distance of the pelvis) [mm] of who is found: nearest pelvises in the picture first."""
    names = people.topology.joint_names
    own = [names.index(name) for name in body_joints(people.topology)]
    true = np.stack([person.joints for person in scene.people]) @ camera[:, :3].T + camera[:, 3]
    cost = np.linalg.norm(
        project(people.pelvis, people.K)[:, None] - project(true[:, 0], people.K)[None], axis=-1
    )
    counts += (len(true), 0, len(people))
    rows = []
    while cost.size and cost.min() < 0.06 * people.image_size[0]:
        i, j = np.unravel_index(cost.argmin(), cost.shape)
        cost[i], cost[:, j] = np.inf, np.inf
        counts += (0, 1, -1)
        error = pa_mpjpe(
            torch.from_numpy(people.joints[i, own].astype(np.float64)), torch.from_numpy(true[j][own])
        )
        rows.append((float(error), float(1000 * np.linalg.norm(people.pelvis[i] - true[j, 0]))))
    return rows


def _look(at: np.ndarray, target: np.ndarray) -> np.ndarray:
    """(3, 3) from the world (z up) into a camera there that looks at the target."""
    forward = (target - at) / np.linalg.norm(target - at)
    right = np.cross(forward, (0, 0, 1))
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


if __name__ == "__main__":
    main()
