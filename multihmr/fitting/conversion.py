"""People of one body as parameters of another, `Humans.to_body`: Anny as SMPL-X or SMPL, and back."""

from __future__ import annotations

import copy
import dataclasses
import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multihmr.bodies.base import Body, posed
from multihmr.bodies.loading import float32_on_cpu, load_body, load_body_of_people, remember_file
from multihmr.bodies.topology import Topology
from multihmr.fitting.body_solver import BodySolver, BodyState, Priors, joints_of_rotations, nearest_rotations
from multihmr.fitting.surface_match import (
    SurfaceMatch,
    closest_points,
    limb_of_vertices,
    named_joints,
    shared_joints,
    triangle_frames,
)
from multihmr.humans import Humans, vertex_normals

BODIES = ("smplx", "smpl", "anny")
AT_ONCE = 8  # people solved side by side; more need memory, not less time
ROUNDS, ROUND_STEPS = 8, 3  # of closest points, to find the correspondences
# Scale of the robust function [m], steps, and whether shape and expression are free.
STAGES = ((0.5, 5, False), (0.2, 10, True), (0.03, 20, True))
COUNTS = {"head": 150, "hand": 50, "foot": 50, "finger": 20, "": 100}  # points used a limb; of each side
# How well surfaces of two bodies agree at corresponding points, one standard deviation [m].
SURFACE_SIGMA = {"head": 0.008, "hand": 0.005, "finger": 0.004, "": 0.015}
JOINT_SIGMA = 0.03  # joints of the same name differ by centimetres
FEWEST_POINTS = 8.0  # of a bone, in skinning weights, that tell its rotation
# Rotations that have a name in both bodies, and those that have none but move with them [rad].
MAIN_SIGMA, TORSO_SIGMA, FINGER_SIGMA, HELPER_SIGMA, JAW_SIGMA = 1.0, 0.5, 0.7, 0.1, 0.2
FINGER_TWIST = 0.15  # last joints of fingers are hinges
HELPERS = (
    "upperarm02", "lowerarm02", "upperleg02", "lowerleg02", "shoulder01", "spine05", "spine04", "neck02",
    "neck03", "toe1-1", "toe2-1", "toe4-1", "toe5-1",
)  # fmt: skip
SHAPE_SIGMA = {True: 0.25, False: 1.5}  # of bodies whose numbers lie in [0, 1], and of betas
EXPRESSION_SIGMA = {True: 0.25, False: 1.0}


@dataclass(frozen=True, eq=False, repr=False)
class ConvertedHumans(Humans):
    """`Humans` of another body, with how far each is from the people they were made of.

    Attributes:
        errors_mm: (N,) mean distance of corresponding points of the two surfaces [mm].
        vertex_errors_mm: (N, V) that of each vertex [mm]; NaN where the other body has no such point.
        converted_from: name of the body before.
    """

    errors_mm: np.ndarray | None = None
    vertex_errors_mm: np.ndarray | None = None
    converted_from: str = ""

    def __getitem__(self, index: int | slice | list[int] | np.ndarray) -> ConvertedHumans:
        """As of `Humans`."""
        chosen = super().__getitem__(index)
        assert isinstance(chosen, ConvertedHumans)
        empty = isinstance(index, list) and not index
        rows = np.atleast_1d(np.arange(len(self))[np.zeros(0, int) if empty else index])
        errors: dict[str, Any] = {}
        for name in ("errors_mm", "vertex_errors_mm"):
            values = getattr(self, name)
            errors[name] = None if values is None else values[rows]
        return dataclasses.replace(chosen, **errors)


@float32_on_cpu()
@torch.no_grad()
def to_body(
    humans: Humans, body: str | Body, *, file: str | Path | None = None, source: Body | None = None
) -> ConvertedHumans:
    """The same people as parameters of another body; see `Humans.to_body`."""
    target = body if isinstance(body, Body) else load_target(body, file)
    if source is None:
        source = (
            target
            if humans.body == target.name
            else source_body(humans.body, humans.shape.shape[1], target, file)
        )
    if source.name != humans.body:
        raise ValueError(f"the people are of body {humans.body!r}, got source {source.name!r}")
    if target.name == "anny-163":
        raise ValueError("people cannot be converted to 'anny-163', whose bones turn in axes of their own")
    if humans.body == target.name and humans.shape.shape[1] == target.shape_count:
        errors = np.zeros((len(humans), humans.vertices.shape[1]), np.float32)
        return ConvertedHumans(
            **_fields(humans), errors_mm=errors.mean(1), vertex_errors_mm=errors, converted_from=humans.body
        )
    unpredicted = _unpredicted(humans, source.topology, target)
    conversion = conversion_of(source, target, unpredicted)
    vertices = torch.from_numpy(humans.vertices.copy())
    states = [conversion.fit(part) for part in vertices.split(AT_ONCE)] if len(humans) else []
    return _assembled(humans, target, states, conversion.match, unpredicted)


class Conversion:
    """All that does not depend on the people: correspondences, and a solver of the target body."""

    def __init__(self, source: Body, target: Body, unpredicted: tuple[str, ...]) -> None:
        self.target = target
        self.match = match_surfaces(source, target)
        limbs = limb_of_vertices(target.topology)[self.match.vertices]
        self._chosen = _spread(limbs)
        vertices = self.match.vertices[self._chosen]
        self._sigma = torch.tensor([_by_limb(SURFACE_SIGMA, limb) for limb in limbs[self._chosen]])
        self._face = torch.from_numpy(self.match.face)
        priors = priors_of(target, named_joints(source.topology), held=unpredicted)
        self.solver = BodySolver(target, vertices, (), priors)
        self._rest_C3 = self._rest_points(priors)
        main = [r == 0 or float(sigma) > HELPER_SIGMA for r, sigma in enumerate(priors.pose_R)]
        self._bones_RC = _bone_weights(target.topology, self.match.vertices, main)

    def _rest_points(self, priors: Priors) -> Tensor:
        """(C, 3) the corresponding points of the target body at rest."""
        body = self.target
        identity = torch.eye(3).repeat(1, body.rotation_count, 1, 1)
        neutral = torch.zeros(1, body.expression_count)
        output = body(identity, priors.mean_shape_S[None], neutral)
        return output.vertices_PV3[0, torch.from_numpy(self.match.vertices)]

    def with_shape(self, shape_S: Tensor) -> Conversion:
        """The same conversion for people of one shape, which it holds."""
        held = copy.copy(self)
        still = torch.zeros_like(self.solver.priors.shape_S)
        priors = replace(self.solver.priors, shape_S=still, mean_shape_S=shape_S)
        held.solver = BodySolver(self.target, self.match.vertices[self._chosen], (), priors)
        held._rest_C3 = held._rest_points(priors)
        return held

    def fit(self, vertices_PV3: Tensor) -> BodyState:
        """Parameters of the target body for people whose vertices are those of the source body [m]."""
        goals = self.match.points(vertices_PV3)
        goals = torch.where(self._face[:, None], self.match.neutral_points(vertices_PV3), goals)
        state = self._begin(goals)
        chosen = goals[:, torch.from_numpy(self._chosen)]
        for robust, steps, shape in STAGES:
            self.solver.robust = robust
            state = self.solver.solve(state, chosen, self._sigma, steps=steps, shape=shape)
        return state

    def _begin(self, goals_PC3: Tensor) -> BodyState:
        """Each bone is turned as its own points are, whatever the pose (Kabsch 1976)."""
        solver, weights = self.solver, self._bones_RC
        total_R1 = weights.sum(1, keepdim=True)
        share = weights / total_R1.clamp(min=1e-6)
        x = self._rest_C3 - (share @ self._rest_C3)[:, None]  # (R, C, 3)
        covariance = torch.einsum("rc,pca,rcb->prab", share, goals_PC3, x)
        turns = nearest_rotations(covariance)
        known = (total_R1[:, 0] >= FEWEST_POINTS).tolist()
        pose = torch.eye(3).repeat(len(goals_PC3), len(known), 1, 1)
        found: dict[int, Tensor] = {}
        for r in solver._order():
            above = found[solver.parent_R[r]] if solver.parent_R[r] >= 0 else None
            if known[r] or above is None:
                found[r] = turns[:, r]
                pose[:, r] = found[r] if above is None else above.mT @ found[r]
            else:
                found[r] = above
        state = replace(solver.start(len(goals_PC3)), pose_PR33=pose)
        points, _ = solver.points(state)
        shift = (goals_PC3[:, torch.from_numpy(self._chosen)] - points).mean(1)
        return replace(state, root_P3=shift)


@functools.lru_cache(maxsize=4)
def conversion_of(source: Body, target: Body, unpredicted: tuple[str, ...]) -> Conversion:
    """The conversion between two bodies, kept for the next people; `unpredicted` stays at rest."""
    return Conversion(source, target, unpredicted)


@functools.lru_cache(maxsize=4)
def match_surfaces(source: Body, target: Body) -> SurfaceMatch:
    """Where the vertices of the target body lie on the source body, for average people in one pose."""
    names, of_source, of_target = shared_joints(source.topology, target.topology)
    if len(names) < 22:
        raise ValueError(
            f"bodies {source.name!r} and {target.name!r} share {len(names)} named joints; a conversion needs "
            "the 22 of the body (bodies.body_parts.BODY_JOINTS)"
        )
    neutral = torch.zeros(1, source.expression_count)
    output = source(source.mean_pose_R33[None], source.mean_shape_S[None], neutral)
    surface = output.vertices_PV3[0].numpy()
    limbs, faces = limb_of_vertices(source.topology), source.topology.faces
    own_limbs = limb_of_vertices(target.topology)
    few = _spread(own_limbs)
    priors = priors_of(target, named_joints(source.topology), held=target.topology.expression_names)
    solver = BodySolver(target, few, of_target, priors)
    joints = output.joints_PJ3[:, of_source]
    goals = torch.cat([torch.zeros(1, len(few), 3), joints], 1)
    unknown = torch.full((len(few),), torch.inf)
    sigma = torch.cat([unknown, torch.full((len(names),), JOINT_SIGMA)])
    solver.robust = 0.2
    state = solver.solve(solver.start(1), goals, sigma, steps=30)
    for number in range(ROUNDS):
        vertices = _vertices(target, state)
        normals = vertex_normals(vertices[None], target.topology.faces)[0]
        corners, weights, good = closest_points(
            vertices[few], normals[few], own_limbs[few], surface, limbs, faces
        )
        goals[0, : len(few)] = torch.from_numpy((surface[corners] * weights[..., None]).sum(1))
        near = torch.where(torch.from_numpy(good), 0.015, torch.inf)
        sigma = torch.cat([near, torch.full((len(names),), JOINT_SIGMA * 2**number)])
        solver.robust = 0.03
        state = solver.solve(state, goals, sigma, steps=ROUND_STEPS)
    return _match(target, _vertices(target, state), own_limbs, surface, limbs, faces)


def _match(
    target: Body,
    vertices: np.ndarray,
    own_limbs: np.ndarray,
    surface: np.ndarray,
    limbs: np.ndarray,
    faces: np.ndarray,
) -> SurfaceMatch:
    normals = vertex_normals(vertices[None], target.topology.faces)[0]
    corners, weights, good = closest_points(vertices, normals, own_limbs, surface, limbs, faces)
    kept = np.flatnonzero(good)
    if not len(kept):
        raise ValueError(f"the surface of body {target.name!r} is nowhere near the one to convert from")
    corners, weights = corners[kept], weights[kept]
    on = (surface[corners] * weights[..., None]).sum(1)
    frames = triangle_frames(torch.from_numpy(surface[corners].astype(np.float32)))
    difference = torch.from_numpy((vertices[kept] - on).astype(np.float32))
    offsets = (frames.mT @ difference[..., None])[..., 0].numpy()
    return SurfaceMatch(
        kept,
        corners,
        weights,
        offsets,
        own_limbs[kept] == "head",
        np.linalg.norm(vertices[kept] - on, axis=1).astype(np.float32),
    )


def priors_of(body: Body, shared: dict[str, int], held: tuple[str, ...] = ()) -> Priors:
    """What is expected of parameters of a body, of whose joints those in `shared` are known by other means.

    held: names of rotations and expressions that stay at rest.
    """
    topology = body.topology
    names = {joint: name for name, joint in named_joints(topology).items() if name in shared}
    owner, _ = joints_of_rotations(topology)
    identity = torch.eye(3).repeat(1, body.rotation_count, 1, 1)
    rest = body(identity, body.mean_shape_S[None], torch.zeros(1, body.expression_count)).joints_PJ3[0]
    pose, twist, axes = [], [], torch.zeros(len(owner), 3)
    for r, joint in enumerate(owner):
        name, own = names.get(joint, ""), topology.joint_names[joint]
        part = name.rpartition("_")[2]
        finger = part.rstrip("123") in ("thumb", "index", "middle", "ring", "pinky")
        sigma = 0.0
        if name:
            torso = part.startswith(("spine", "collar", "neck"))
            sigma = FINGER_SIGMA if finger else TORSO_SIGMA if torso else MAIN_SIGMA
        elif own.rpartition(".")[0] in HELPERS or own in HELPERS:
            sigma = HELPER_SIGMA
        elif own == "jaw":
            sigma = JAW_SIGMA
        pose.append(0.0 if own in held else sigma)
        hinge = finger and part[-1] in "23" and topology.parents[joint] >= 0
        twist.append(FINGER_TWIST if hinge else torch.inf)
        if hinge:
            axes[r] = torch.nn.functional.normalize(rest[joint] - rest[topology.parents[joint]], dim=0)
    held_faces = torch.tensor([name in held for name in topology.expression_names], dtype=torch.bool)
    expression = torch.full((body.expression_count,), EXPRESSION_SIGMA[body.bounded])
    return Priors(
        torch.tensor(pose),
        torch.tensor(twist),
        axes,
        torch.full((body.shape_count,), SHAPE_SIGMA[body.bounded]),
        torch.where(held_faces, 0.0, expression),
        body.mean_shape_S.float(),
    )


def _unpredicted(humans: Humans, source: Topology, target: Body) -> tuple[str, ...]:
    """Rotations and expressions of the target body of which people of the source body tell nothing."""
    ours, theirs = named_joints(source), named_joints(target.topology)
    names = {joint: name for name, joint in theirs.items()}
    still = set(humans.unpredicted)
    no_face = set(source.expression_names) <= still
    lost = []
    for joint in target.topology.pose_joints:
        name, own = names.get(joint), target.topology.joint_names[joint]
        helper = own.rpartition(".")[0] in HELPERS or own in HELPERS
        if name is not None:
            known = name in ours and source.joint_names[ours[name]] not in still
        else:
            known = helper or (own == "jaw" and not no_face)
        if not known:
            lost.append(own)
    return (*lost, *(target.topology.expression_names if no_face else ()))


def source_body(name: str, shape_count: int, target: Body, file: str | Path | None) -> Body:
    """The body of the people; `file` is of the target if that is licensed, else of this one."""
    if name not in BODIES or (file is not None and target.name not in ("smplx", "smpl")):
        return load_target(name, file)
    return load_body_of_people(name, shape_count=shape_count)


def load_target(name: str, file: str | Path | None = None) -> Body:
    """The body of a name of `BODIES`, from the user's file if it is licensed; errors as `Humans.to_body`."""
    if name not in (*BODIES, "anny-163"):
        raise ValueError(f"no body {name!r} to convert people to; known are {', '.join(BODIES)}")
    if name in ("anny", "anny-163"):
        return _bundled(name)
    return _licensed(name, file if file is None else str(file))


@functools.cache
def _bundled(name: str) -> Body:
    return load_body(name)


@functools.lru_cache(maxsize=2)
def _licensed(name: str, file: str | None) -> Body:
    if name == "smplx":
        return load_body("smplx", smplx=file)
    from multihmr.bodies.smpl import SITE, SMPL

    if file is None:
        raise FileNotFoundError(
            "SMPL is licensed by its authors and cannot be fetched for you: register at "
            f"{SITE}, take its SMPL for Python and give the file: "
            "humans.to_body('smpl', file='SMPL_NEUTRAL.pkl'), or --smpl SMPL_NEUTRAL.pkl on the command line"
        )
    remember_file("smpl", file)
    return SMPL(file)


def _spread(limbs: np.ndarray) -> np.ndarray:
    """Indices of some of the points of each limb, the same in every run."""
    rng = np.random.default_rng(0)
    chosen = []
    for limb in np.unique(limbs):
        rows, most = np.flatnonzero(limbs == limb), _by_limb(COUNTS, limb)
        most *= 2 if limb == "torso" else 1
        chosen.append(rows if len(rows) <= most else rng.choice(rows, int(most), replace=False))
    return np.sort(np.concatenate(chosen))


def _by_limb(table: dict[str, Any], limb: str) -> Any:
    part = limb.rpartition("_")[2]
    if part in ("thumb", "index", "middle", "ring", "pinky"):
        part = "finger"
    return table.get(part, table[""])


def _bone_weights(topology: Topology, vertices: np.ndarray, main: list[bool]) -> Tensor:
    """(R, C) how much the main rotations move each vertex, with all below that are none."""
    assert topology.skin_indices is not None
    assert topology.skin_weights is not None
    place = {joint: r for r, joint in enumerate(topology.pose_joints) if main[r]}
    owner = []
    for joint in range(len(topology.parents)):
        while joint not in place:
            joint = topology.parents[joint]
        owner.append(place[joint])
    skin = np.zeros((len(vertices), len(main)), np.float32)
    rows = np.arange(len(vertices))[:, None]
    owners = np.array(owner)[topology.skin_indices[vertices]]
    np.add.at(skin, (rows, owners), topology.skin_weights[vertices])
    return torch.from_numpy(np.ascontiguousarray(skin.T))


def _vertices(body: Body, state: BodyState) -> np.ndarray:
    output = body(state.pose_PR33, state.shape_PS, state.expression_PE)
    return (output.vertices_PV3 + state.root_P3[:, None])[0].numpy()


def _fields(humans: Humans) -> dict[str, Any]:
    return {field.name: getattr(humans, field.name) for field in dataclasses.fields(Humans)}


def _assembled(
    humans: Humans, target: Body, states: list[BodyState], match: SurfaceMatch, unpredicted: tuple[str, ...]
) -> ConvertedHumans:
    if not states:
        states = [_no_people(target)]
    pose, shape, expression, root = (
        torch.cat([getattr(state, name) for state in states]).numpy() for name in BodyState.__annotations__
    )
    vertices, joints = posed(target, pose, shape, expression, np.zeros((len(pose), 3), np.float32))
    shift = (root - joints[:, target.pelvis_joint])[:, None]
    vertices, joints = vertices + shift, joints + shift
    wanted = match.points(torch.from_numpy(humans.vertices.copy())).numpy()
    errors = np.full(vertices.shape[:2], np.nan, np.float32)
    errors[:, match.vertices] = 1000 * np.linalg.norm(vertices[:, match.vertices] - wanted, axis=-1)
    outline = humans.project(vertices)
    height, width = humans.image_size
    boxes = np.concatenate([outline.min(1, initial=1e9), outline.max(1, initial=-1e9)], 1)
    return ConvertedHumans(
        scores=humans.scores,
        vertices=vertices,
        joints=joints,
        joints_2d=humans.project(joints),
        boxes=boxes.clip(0, (width, height, width, height)),
        translation=joints[:, target.center_joint],
        pelvis=joints[:, target.pelvis_joint],
        pose=pose,
        shape=shape,
        expression=expression,
        K=humans.K,
        K_source=humans.K_source,
        image_size=humans.image_size,
        body=target.name,
        topology=target.topology,
        track_ids=humans.track_ids,
        unpredicted=unpredicted,
        filled=humans.filled,
        refined=humans.refined,
        moved=humans.moved,
        distortion=humans.distortion,
        errors_mm=np.nanmean(errors, 1) if len(errors) else np.zeros(0, np.float32),
        vertex_errors_mm=errors,
        converted_from=humans.body,
    )


def _no_people(body: Body) -> BodyState:
    return BodyState(
        torch.zeros(0, body.rotation_count, 3, 3),
        torch.zeros(0, body.shape_count),
        torch.zeros(0, body.expression_count),
        torch.zeros(0, 3),
    )
