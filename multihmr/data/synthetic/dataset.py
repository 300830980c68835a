"""Synthetic data set: clothed people, ray-traced with exact ground truth (needs the package warp)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from ...bodies.base import posed
from ...geometry import project
from ..sample import Sample
from .assets import fingerprint_assets
from .backgrounds import Environment
from .outfits import random_outfit
from .poses import PoseSampler, nearest_rotation
from .scenes import Camera, Person, Scene, SceneSampler
from .sensor import simulate_sensor
from .splits import check_split, entries_of_split
from .textures import TextureBuffer
from .wardrobe import SKIN_VERTICES, Outfit, Part, Wardrobe

CLOSEUPS = {"train": 1 / 3, "test": 1 / 4, "all": 1 / 3}
MIN_VISIBILITY, MIN_HEAD_VISIBILITY = 0.12, 0.12
MIN_PIXELS = 60  # at 448 x 448; people with fewer visible pixels are removed from the scene
COARSE = 4  # the pass that finds occluded people has this many times fewer pixels per side
FLESH = 0.16  # a joint lies no deeper than this under its own skin and clothes [m]
CLOSE = 3.0  # eyelashes and teeth are rendered on heads nearer than this [m]
EDGE_OFFSETS = np.array([[0.18, 0.35], [0.65, 0.12], [0.88, 0.62], [0.4, 0.85]], np.float32)


def find_assets(assets: Path | str | None = None) -> Path | None:
    """The folder with makehuman_cc0/ and the captured poses: as given, or shared/assets beside the checkout.

    Returns:
        None if none is given and there is none beside the checkout.

    Raises:
        FileNotFoundError: the given folder does not exist.
    """
    if assets is not None:
        if not Path(assets).is_dir():
            raise FileNotFoundError(f"no assets folder {assets}; give the folder that holds makehuman_cc0/")
        return Path(assets)
    beside = Path(__file__).resolve().parents[4] / "shared/assets"
    return beside if beside.is_dir() else None


def about_assets(folder: Path | None) -> str:
    """One sentence on the assets that pictures are rendered with: their folder and fingerprint, or none."""
    if folder is None:
        return (
            "no assets folder is given and there is none beside the checkout: people wear painted clothes "
            "and take built-in poses"
        )
    return f"clothes, skins, hair and poses of {folder}, fingerprint {fingerprint_assets(folder)}"


class SyntheticScenes:
    """Synthetic pictures with exact ground truth, by number; item i depends on (seed, i) alone.

    Args:
        seed: of all pictures.
        count: number of pictures.
        size: their side in pixels.
        split: "train", "test" or "all": clothes, skins, hair and captured motions (see splits.py); walls,
            grounds and prints follow from the seed.
        closeups: share of pictures with one to three people about 2.5 m away and visible hands, as in CUFFS,
            evenly spread over the indices; None is a third, and a quarter for the test split.
        assets: folder with MakeHuman's assets, as downloaded or prepared (see assets.py), and with
            cmu_poses_anny.npz (see find_assets); without it clothes are painted and poses built in.
        backgrounds: folder of background pictures, used beside the procedural ones.
        device: warp device: "cpu" (one thread) or "cuda:0".
    """

    def __init__(
        self,
        seed: int,
        size: int = 448,
        *,
        count: int = 1_000_000,
        split: str = "all",
        closeups: float | None = None,
        assets: Path | str | None = None,
        backgrounds: Path | str | None = None,
        device: str = "cpu",
    ) -> None:
        self.seed, self.size, self.count = seed, size, count
        self.closeups = CLOSEUPS[check_split(split)] if closeups is None else closeups
        folder = find_assets(assets)
        self.body = _load_body()
        self._bones = self.body.with_vertices(torch.arange(1))  # for joints alone
        self.textures = TextureBuffer()
        self.wardrobe = Wardrobe(folder, self.body.topology, self.textures, tile_seed=seed)
        if self.wardrobe.entries and self.wardrobe.missing():
            missing = ", ".join(self.wardrobe.missing())
            warnings.warn(f"{folder} has no {missing}; people are rendered without", stacklevel=2)
        self.wardrobe.entries = entries_of_split(self.wardrobe.entries, split)
        self.surroundings = Environment(
            self.wardrobe, seed=seed, folder=Path(backgrounds) if backgrounds else None, split=split
        )
        self.sampler = _scene_sampler(self.body, folder, size, split)
        self.renderer = Renderer(self.body, self.wardrobe, self.surroundings, device=device)

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """The scene of picture `index`; rendering removes people who turn out to be occluded."""
        closeup = math.floor((index + 1) * self.closeups + 1e-9) > math.floor(index * self.closeups + 1e-9)
        return self.sampler.sample(np.random.default_rng([self.seed, index]), closeup=closeup)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(f"picture {index} of {self.count}")
        return self.renderer.render(self.scene(index), name=f"{self.seed}-{index:07d}")

    def truth(self, sample: Sample) -> dict[str, np.ndarray]:
        """Derived ground truth of a sample, for users without a body model.

        Returns:
            joints_3d (N, J, 3) camera frame [m], joints_2d (N, J, 2) pixels, joint_names (J,), and of the
            visible part boxes (N, 4) x0, y0, x1, y1 and pixels (N,), their number.
        """
        _, joints = posed(self._bones, sample.pose, sample.shape, sample.expression, sample.translation)
        return {
            "joints_3d": joints,
            "joints_2d": project(torch.from_numpy(joints), torch.from_numpy(sample.K)).numpy(),
            "joint_names": np.array(self.body.topology.joint_names),
            **_boxes(sample),
        }

    def __iter__(self) -> Iterator[Sample]:
        return (self[i] for i in range(self.count))


def _boxes(sample: Sample) -> dict[str, np.ndarray]:
    assert sample.mask is not None
    boxes, pixels = np.zeros((len(sample), 4), np.float32), np.zeros(len(sample), np.int32)
    for n in range(len(sample)):
        rows, columns = np.nonzero(sample.mask == n + 1)
        pixels[n] = len(rows)
        if len(rows):
            boxes[n] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return {"boxes": boxes, "pixels": pixels}


def _load_body() -> Any:
    from ...bodies.anny import Anny  # the body with helpers is only needed here

    return Anny(helpers=True).eval()


def _scene_sampler(body: Any, folder: Path | None, size: int, split: str) -> SceneSampler:
    """A sampler of scenes with this body, reduced to few vertices."""
    names = body.topology.joint_names
    shape, face = torch.full((1, body.shape_count), 0.5), torch.zeros(1, body.expression_count)
    shape[0, 1] = 0.67
    upright = torch.eye(3).expand(1, body.rotation_count, 3, 3)
    few = body.with_vertices(torch.arange(0, SKIN_VERTICES, 9))
    with torch.no_grad():
        reference = body(upright, shape, face).joints_PJ3[0].numpy()

    def place_body(pose: np.ndarray, shape: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with torch.no_grad():
            out = few(torch.from_numpy(pose), torch.from_numpy(shape), torch.from_numpy(face))
        return out.joints_PJ3.numpy().astype(np.float64), out.vertices_PV3[..., 2].amin(1).numpy()

    return SceneSampler(
        PoseSampler(names, reference, folder, split=split),
        place_body,
        head_joint=body.center_joint,
        expression_names=tuple(body.topology.expression_names),
        size=size,
    )


class Renderer:
    """Renders scenes to samples. One per process: it keeps decoded textures and fitted garments."""

    def __init__(
        self, body: Any, wardrobe: Wardrobe, surroundings: Environment, *, device: str = "cpu"
    ) -> None:
        from .renderer import RayTracer  # needs warp

        self.body, self.wardrobe, self.surroundings = body, wardrobe, surroundings
        self.tracer = RayTracer(wardrobe.textures, device)
        dominant = wardrobe.rig.dominant[:SKIN_VERTICES]
        self._head_vertices = dominant == wardrobe.rig.joint_names.index("head")

    def render(self, scene: Scene, *, name: str = "scene") -> Sample:
        """The picture of a scene, with the ground truth of the people who are not occluded."""
        rng = np.random.default_rng(scene.seed)
        around, light = self.surroundings.make(scene, rng)
        dressed = self._dress(scene)
        keep = list(range(len(scene.people)))
        self._build(around, [dressed[k] for k in keep])
        if keep:
            shown = self._shown(scene, keep, dressed, coarse=True)
            visible = [k for k in keep if shown[k]]
            if visible != keep:
                keep = visible
                self._build(around, [dressed[k] for k in keep])
        color, person, depth = self.tracer.picture(scene.camera, light, EDGE_OFFSETS)
        people = [scene.people[k] for k in keep]
        return Sample(
            image=simulate_sensor(color, rng),
            K=scene.camera.K.astype(np.float32),
            name=name,
            visibility=np.array(
                [self._share_visible(dressed[k][1], person, j, scene.camera)[0] for j, k in enumerate(keep)],
                np.float32,
            ),
            mask=(person + 1).astype(np.uint8),
            depth=depth,
            joint_visibility=_joint_visibility(people, scene.camera, person, depth, self.body),
            world_to_camera=scene.camera.extrinsics,
            **cast(Any, _parameters(scene.camera, people, self.body)),
        )

    def _dress(self, scene: Scene) -> list[tuple[list[Part], np.ndarray]]:
        """Posed meshes and posed skin vertices of each person, in the world."""
        if not scene.people:
            return []
        pose, shape, face = (
            torch.from_numpy(np.stack([getattr(p, k) for p in scene.people]))
            for k in ("pose", "shape", "expression")
        )
        with torch.no_grad():
            rest = self.body.rest(shape, face).numpy()
            transforms = self.body.bone_transforms(pose, shape).numpy()
        dressed = []
        for k, person in enumerate(scene.people):
            outfit = self._outfit_of(person)
            distance = np.linalg.norm(person.joints[self.body.center_joint] - scene.camera.position)
            moved = transforms[k].copy()
            moved[:, :, 3] += person.position
            parts = self.wardrobe.dress(outfit, rest[k], moved, close=bool(distance < CLOSE))
            dressed.append((parts, parts[0].vertices))
        return dressed

    def _outfit_of(self, person: Person) -> Outfit:
        rng = np.random.default_rng(person.look_seed)
        return random_outfit(self.wardrobe, rng, female=person.female, child=person.child, old=person.old)

    def _build(self, around: list[Part], people: list[tuple[list[Part], np.ndarray]]) -> None:
        parts = [(part, -1) for part in around]
        parts += [(part, k) for k, (worn, _) in enumerate(people) for part in worn]
        self.tracer.build(parts)

    def _shown(
        self, scene: Scene, keep: list[int], dressed: list[tuple[list[Part], np.ndarray]], *, coarse: bool
    ) -> list[bool]:
        camera = _smaller(scene.camera, COARSE) if coarse else scene.camera
        person = self.tracer.people(camera)
        least = MIN_PIXELS * (camera.size[0] / 448) ** 2
        shown = []
        for j, k in enumerate(keep):
            share, head = self._share_visible(dressed[k][1], person, j, camera)
            enough = (person == j).sum() >= least
            shown.append(bool(enough and share >= MIN_VISIBILITY and head >= MIN_HEAD_VISIBILITY))
        return shown

    def _share_visible(
        self, vertices: np.ndarray, person: np.ndarray, number: int, camera: Camera
    ) -> tuple[float, float]:
        """Share of visible skin vertices of a person, and of those of the head."""
        xy, depth = camera.project(vertices)
        height, width = person.shape
        inside = (depth > 0.05) & (xy >= 0).all(1) & (xy[:, 0] < width) & (xy[:, 1] < height)
        x, y = np.clip(xy, 0, (width - 1, height - 1)).astype(int).T
        visible = inside & (person[y, x] == number)
        return float(visible.mean()), float(visible[self._head_vertices].mean())


def _smaller(camera: Camera, factor: int) -> Camera:
    K = camera.K.copy()
    K[:2] /= factor
    height, width = camera.size
    return replace(camera, K=K, size=(max(height // factor, 1), max(width // factor, 1)))


def _parameters(camera: Camera, people: list[Person], body: Any) -> dict[str, np.ndarray]:
    """pose, shape, expression and translation of a Sample, in the camera frame."""
    pose = np.zeros((0, body.rotation_count, 3, 3), np.float32)
    shape, face = np.zeros((0, body.shape_count)), np.zeros((0, body.expression_count))
    where = np.zeros((0, 3))
    if people:
        pose = np.stack([p.pose for p in people])
        pose[:, 0] = nearest_rotation(camera.rotation @ pose[:, 0])
        shape, face = np.stack([p.shape for p in people]), np.stack([p.expression for p in people])
        where = np.stack([camera.rotation @ (p.joints[body.center_joint] - camera.position) for p in people])
    truth = {"pose": pose, "shape": shape, "expression": face, "translation": where}
    return {k: np.asarray(v, np.float32) for k, v in truth.items()}


def _joint_visibility(
    people: list[Person], camera: Camera, person: np.ndarray, depth: np.ndarray, body: Any
) -> np.ndarray:
    """(N, J) whether a joint is in the picture and only its own body is in front of it.

    Joints lie inside the body: a surface of their own person within FLESH in front of them does not occlude
    them.
    """
    visible = np.zeros((len(people), len(body.topology.joint_names)), bool)
    height, width = person.shape
    for n, who in enumerate(people):
        xy, z = camera.project(who.joints)
        inside = (z > 0.05) & (xy >= 0).all(1) & (xy[:, 0] < width) & (xy[:, 1] < height)
        x, y = np.clip(np.nan_to_num(xy), 0, (width - 1, height - 1)).astype(int).T
        visible[n] = inside & (person[y, x] == n) & (z - depth[y, x] < FLESH)
    return visible
