"""`fit`: people whose keypoints are known, as meshes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from multihmr.bodies.anny import Anny
from multihmr.bodies.loading import float32_on_cpu
from multihmr.fitting.initialization import Candidates, has_parallax, triangulate, turned_hand
from multihmr.fitting.inputs import FEWEST_POINTS, Inputs, read_inputs
from multihmr.fitting.point_sets import FACE_NAMES, FINGERS, find_points
from multihmr.fitting.prior import PosePrior, load_prior
from multihmr.fitting.results import FittedHumans, assemble
from multihmr.fitting.sequence import best_path, smooth
from multihmr.fitting.skeleton import PointSkeleton, RestPose, rotation_matrix
from multihmr.fitting.solver import FACE_SIGMA, ROBUST_SCALE, Energy, PoseModel, ShapePrior, minimise
from multihmr.fitting.state import Observations, State
from multihmr.humans import Humans, rotmat_to_rotvec

# An adult of average build; how far people differ from that, in units of the phenotypes.
SHAPE_MEAN = {"gender": 0.5, "age": 0.68, "muscle": 0.5, "weight": 0.5, "height": 0.42, "proportions": 0.5}
SHAPE_SIGMA = {"gender": 0.4, "age": 0.18, "muscle": 0.2, "weight": 0.2, "height": 0.12, "proportions": 0.25}
# Children: their age, and how many people they are. From one view they differ from adults by their
# proportions alone.
CHILD_AGE, CHILD_AGE_SIGMA, CHILDREN = 0.3, 0.12, 0.17
# Hypotheses that are tried of each kind, adults and children; those that are fitted to the end, and as many
# where points of hands or faces make each one dear.
STARTS = (12, 6)
FINALISTS, DEAR_FINALISTS = (6, 2), (3, 1)
ROBUST_SCALES = ((1e3, 6), (10.0, 6))  # of the first stage, with the number of steps
# Of the last stage with points of faces, which lie so close together that a head beside its place has none
# nearby.
FACE_ROBUST_SCALES = (40.0, 12.0, ROBUST_SCALE)
# Of the last stage without faces: wide, so that no point is lost that the pose can still reach, then narrow
# against outliers, then wide enough that noise counts nearly as in least squares.
LAST_ROBUST_SCALES = (16.0, ROBUST_SCALE, 8.0)
ROUND_STEPS = 6  # of each round of the last stage; rest tables are made anew in each
AT_ONCE = 32  # people that are fitted side by side; more need memory, not less time
# A bone whose turn moves given points by less than this [m/rad] stays unknown; a hip moves by 0.032, a knee
# by 0.021 when the bone below it turns. Of fingers the last bones are short.
LEVER, FINGER_LEVER = 0.035, 0.008
KNOWN_ACTION = 0.7  # a facial action is known if its uncertainty is less than this share of the prior's
FACE_IN_START = 0.03  # weight of a point of a face among those that choose the poses to begin with

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fitter:
    """All that does not depend on the people: made once for a body and a set of points."""

    body: Anny
    skeleton: PointSkeleton
    model: PoseModel
    shape_prior: ShapePrior
    candidates: tuple[Candidates, ...]  # one for each kind of shapes
    names: tuple[str, ...]
    kept: np.ndarray


@float32_on_cpu()
def fit(
    keypoints_2d: Any,
    K: Any = None,
    keypoints_3d: Any = None,
    confidence: Any = None,
    init: Humans | None = None,
    *,
    keypoint_set: str = "coco17",
    names: Sequence[str] | None = None,
    extrinsics: Any = None,
    body: Any = None,
    image_size: tuple[int, int] | None = None,
    sigma: Any = None,
    sigma_3d: Any = None,
    height: Any = None,
    fps: float | None = None,
    progress: Progress | None = None,
) -> FittedHumans:
    """Meshes of people whose keypoints are known, in pixels, in space, or both.

    Minimises reprojection and 3D errors, an energy of the pose (`PosePrior`), limits of the joints and of the
    shape, from several poses of the captured motions at once; the best of all is kept. The same points give
    the same people.

    Args:
        keypoints_2d: (M, 2) of one person or (N, M, 2), in pixels as in Humans (the centre of the top-left
            pixel is (0.5, 0.5)); a third column is the confidence. With `extrinsics` a list of such arrays,
            one a view, with the same people in the same order. None if there are points in space alone.
        K: (3, 3) intrinsics; with several views one for all or one each.
        keypoints_3d: (M, 3) or (N, M, 3) in metres in the frame of the (first) camera: x right, y down, z
            forward; a fourth column is the confidence.
        confidence: (M,) or (N, M); with several views (V, M) or (V, N, M). From 0, not known, to 1. Points
            that are NaN are not known, whatever their confidence.
        init: people to begin with, in the order of the keypoints, as `model.predict` gives them.
        keypoint_set: which points they are, one of `bodies.keypoint_sets.KEYPOINT_SETS`; what the body cannot
            place is left out.
        names: instead of a set: the name of each point, of any of the sets or of a joint of the body.
        extrinsics: of several views, (3, 4) or (4, 4) each, from the world into the camera [m].
        body: an `Anny`, "anny" or None for the one of the package.
        image_size: (height, width) of the (first) picture; None takes twice the principal point.
        sigma: how far off the points are [pixels], one standard deviation, or one (N, V) for each person and
            view; None takes 0.75 % of a person's extent in the picture.
        sigma_3d: the same of points in space [m], one or (N,); None takes 5 mm.
        height: how tall people are [m], from the soles to the top of the head, one or (N,), NaN where it is
            not known. From one view it tells the distance, and children from adults.
        fps: the rows are not several people but one person at so many frames a second: the shape is the same
            in all, the motion smooth, and frames may have no points.
        progress: is called with the number of people that are done, and of all.

    Returns:
        FittedHumans in the frame of the (first) camera, in the order of the keypoints. `unpredicted` names
        the joints and expressions of which the points say nothing.

    Raises:
        ValueError: something has a wrong shape, is not finite, has no confidence, lies behind the camera, or
            has an unknown name; the sentence says which.

    The 68 points of a face (300W; `keypoint_set="coco133"`, or by name) make facial actions unknowns as well:
    they are `humans.expression`.
    """
    fitter = _fitter(_check_body(body), keypoint_set, tuple(names) if names is not None else None)
    inputs = read_inputs(
        keypoints_2d,
        K,
        keypoints_3d,
        confidence,
        extrinsics,
        names=fitter.names,
        kept=fitter.kept,
        sigma=sigma,
        sigma_3d=sigma_3d,
        image_size=image_size,
        height=height,
        sequence=_check_fps(fps),
    )
    people = len(inputs.seen.xyz_PM3)
    if init is not None:
        _check_init(init, people, fitter.body)
    rows = torch.arange(people)[_enough_points(inputs.seen)]
    if not len(rows):
        return _humans(fitter, None, inputs)
    state, energies = _fit_rows(fitter, inputs.seen, rows, init, progress)
    if fps is not None:
        return _humans(fitter, _in_sequence(fitter, inputs.seen, state, energies, rows, fps), inputs)
    winner = energies.argmin(1) + torch.arange(people) * energies.shape[1]
    return _humans(fitter, state.rows(winner), inputs)


def _fit_rows(
    fitter: Fitter, seen: Observations, rows: Tensor, init: Humans | None, progress: Progress | None
) -> tuple[State, Tensor]:
    """(P * C) best states of the people at `rows`, and their energies (P, C).

    Whose face has no points, as one of few pixels, is fitted as if none had been asked for.
    """
    face_M = torch.from_numpy(np.isin(fitter.names, FACE_NAMES))
    has_face = (seen.weight_PM[:, face_M] > 0).any(1) | (seen.weight_PVM[:, :, face_M] > 0).flatten(1).any(1)
    groups = [(rows[~has_face[rows]], False), (rows[has_face[rows]], True)]
    chunks = [(chunk, face) for group, face in groups if len(group) for chunk in group.split(AT_ONCE)]
    found, done = [], 0
    for chunk, face in chunks:
        begin = None if init is None else _state_of(init, chunk, fitter)
        found.append(_fit_people(fitter, seen.rows(chunk), begin, face=face))
        done += len(chunk)
        if progress is not None:
            progress(len(seen.xyz_PM3) if done == len(rows) else done, len(seen.xyz_PM3))
    state, energies = _joined([state for state, _ in found]), torch.cat([values for _, values in found])
    order, count = torch.cat([chunk for chunk, _ in chunks]).argsort(), energies.shape[1]
    return state.rows((order[:, None] * count + torch.arange(count)).flatten()), energies[order]


@torch.no_grad()
def _fit_people(
    fitter: Fitter, seen: Observations, begin: State | None, *, face: bool
) -> tuple[State, Tensor]:
    """(P * C) best states of each person, and their energies (P, C); face: its actions are unknowns."""
    people = len(seen.xyz_PM3)
    upright = bool(seen.weight_PVM.shape[1] == 1) and not bool((seen.weight_PM > 0).any())
    starts = [begin] if begin is not None else _starts(fitter, seen)
    wanted = DEAR_FINALISTS if face or fitter.model.hands else FINALISTS
    kinds = [_finalists(fitter, seen, s, n, upright=upright) for s, n in zip(starts, wanted, strict=False)]
    owners = [torch.arange(people).repeat_interleave(len(s.pelvis_P3) // people) for s in kinds]
    owner, order = torch.cat(owners).sort(stable=True)
    state = _joined(kinds).rows(order)
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen.rows(owner), upright=upright)
    energy.face = face and bool(fitter.skeleton.actions)
    state, _ = _last_stage(energy, state)
    energy.expand(state.shape_PS.float())  # the shapes may have moved to where the last tables are wrong
    evidence = energy.evidence(state).view(people, -1)
    if fitter.model.hands:
        best = evidence.argmin(1) + torch.arange(people) * evidence.shape[1]
        state = state.replaced(best, _with_turned_hands(energy.rows(best), state.rows(best)))
        energy.expand(state.shape_PS.float())
        evidence = energy.evidence(state).view(people, -1)
    return state, evidence


def _with_turned_hands(energy: Energy, state: State) -> State:
    """The states, or those with a palm turned over where the points then fit better.

    Seen from one side, the back of a hand and its palm look alike; which it is, no small step finds out.
    """
    scales = _last_scales(energy)
    energy.robust = scales[-1]
    energy.expand(state.shape_PS.float())
    values = energy(state).energy_P
    for side in energy.model.hands:
        for mirrored in (True, False):
            energy.expand(state.shape_PS.float())
            trial, found = _last_stage(energy, turned_hand(energy, state, side, mirrored=mirrored))
            better = found < values - 1e-3
            state, values = state.where(better, trial), torch.where(better, found, values)
    return state


def _finalists(fitter: Fitter, seen: Observations, state: State, wanted: int, *, upright: bool) -> State:
    """(P * F) the best of each person's states after the first stage, F as many as wanted or all."""
    people = len(seen.xyz_PM3)
    count = len(state.pelvis_P3) // people
    owner = torch.arange(people).repeat_interleave(count)
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen.rows(owner), upright=upright)
    energy.face = False  # which pose it is does not hang on the face
    same = bool((state.shape_PS == state.shape_PS[:1]).all())
    energy.expand((state.shape_PS[:1] if same else state.shape_PS).float())
    for scale, steps in ROBUST_SCALES:
        energy.robust = scale
        state, values = minimise(energy, state, steps=steps)
    best = values.view(people, count).topk(min(wanted, count), largest=False).indices
    return state.rows((torch.arange(people)[:, None] * count + best).flatten())


def _last_stage(energy: Energy, state: State) -> tuple[State, Tensor]:
    """States of less energy, and that energy (P,), with what the first stage leaves out."""
    values = torch.zeros(0)
    for scale in _last_scales(energy):
        energy.robust = scale
        energy.expand(state.shape_PS.float())
        state, values = minimise(energy, state, steps=ROUND_STEPS, switch=True)
    return state, values


def _last_scales(energy: Energy) -> tuple[float, ...]:
    return FACE_ROBUST_SCALES if energy.face else LAST_ROBUST_SCALES


@torch.no_grad()
def _in_sequence(
    fitter: Fitter, seen: Observations, state: State, energies: Tensor, rows: Tensor, fps: float
) -> State:
    """One person's states in all frames; `rows` are those with points, each with several candidates."""
    frames, count = energies.shape
    upright = bool(seen.weight_PVM.shape[1] == 1) and not bool((seen.weight_PM > 0).any())
    owner = rows.repeat_interleave(count)
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen.rows(owner), upright=upright)
    energy.expand(state.shape_PS.float())
    points, _ = energy.points(state)
    chosen = best_path(points.unflatten(0, (frames, count)), energies, 1 / fps)
    state = state.rows(chosen + torch.arange(frames) * count)
    # A frame without points begins with the nearest that has some.
    every = torch.arange(len(seen.xyz_PM3))
    state = state.rows((every[:, None] - rows).abs().argmin(1))
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen, upright=upright)
    return smooth(energy, state, 1 / fps, _last_scales(energy), steps=ROUND_STEPS)


def _enough_points(seen: Observations) -> Tensor:
    """(P,) who has the points that a fit needs; of a sequence frames may have none."""
    in_views = (seen.weight_PVM > 0).any(1).sum(1) if seen.weight_PVM.shape[1] else 0
    return torch.maximum((seen.weight_PM > 0).sum(1), torch.as_tensor(in_views)) >= FEWEST_POINTS


def _joined(states: Sequence[State]) -> State:
    return State(*(torch.cat([getattr(s, name) for s in states]) for name in _FIELDS))


def _starts(fitter: Fitter, seen: Observations) -> list[State]:
    """STARTS states a person of each kind: from points in space if there are enough, else from one view."""
    share_M = torch.from_numpy(np.where(np.isin(fitter.names, FACE_NAMES), FACE_IN_START, 1.0))
    seen = replace(seen, weight_PVM=seen.weight_PVM * share_M, weight_PM=seen.weight_PM * share_M)
    xyz, weight = seen.xyz_PM3, seen.weight_PM
    if seen.weight_PVM.shape[1] > 1:
        seen_twice, weight_twice = triangulate(seen)
        _check_in_front(seen, weight_twice)
        xyz = torch.where(weight[..., None] > 0, xyz, seen_twice)
        weight = torch.where(weight > 0, weight, weight_twice)
    enough = (weight > 0).sum(1) >= 4
    kinds: list[State] = []
    for candidates, count in zip(fitter.candidates, STARTS, strict=True):
        found: list[State] = []
        for i in range(len(xyz)):
            row = torch.tensor([i])
            if enough[i]:
                one = replace(seen.rows(row), xyz_PM3=xyz[row], weight_PM=weight[row])
                found.append(candidates.from_space(one, count))
            else:
                view = (seen.weight_PVM[i] > 0).sum(1).argmax()[None]
                found.append(candidates.from_view(seen.rows(row), view, count))
        kinds.append(_joined(found))
    return kinds


_FIELDS = ("root_P33", "pelvis_P3", "pose_PD", "face_PE", "shape_PS", "component_P")


def _check_in_front(seen: Observations, weight_twice: Tensor) -> None:
    """ValueError where views that see the same points cannot see them together."""
    shared = ((seen.weight_PVM > 0).sum(1) >= 2) & has_parallax(seen)
    for person in range(len(shared)):
        count, placed = int(shared[person].sum()), int((weight_twice[person] > 0).sum())
        if count >= 4 and placed < count / 2:
            raise ValueError(
                f"{count - placed} of the {count} points of person {person} that several views share lie "
                "behind a camera: extrinsics must lead from the world into the camera, and all views show "
                "the same person"
            )


def _humans(fitter: Fitter, state: State | None, inputs: Inputs) -> FittedHumans:
    body, seen = fitter.body, inputs.seen
    count = len(body.topology.pose_names)
    if state is None:
        empty = torch.zeros(0)
        return assemble(
            body, empty.view(0, count, 3, 3), torch.zeros(0, body.shape_count),
            torch.zeros(0, body.expression_count), empty.view(0, 3),
            K=inputs.K, K_source=inputs.K_source, image_size=inputs.image_size, scores=np.zeros(0),
            unpredicted=(), errors_px=np.zeros(0), errors_mm=np.zeros(0), face_errors_px=np.zeros(0),
        )  # fmt: skip
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen, upright=False)
    energy.expand(state.shape_PS.float())
    points_PM3, _ = energy.points(state)
    weights = torch.cat([seen.weight_PVM.flatten(1), seen.weight_PM], 1)
    scores = weights.sum(1) / (weights > 0).sum(1).clamp(min=1)
    return assemble(
        body,
        pose_of(fitter, state),
        state.shape_PS,
        _expression_of(fitter, state),
        state.pelvis_P3,
        K=inputs.K,
        K_source=inputs.K_source,
        image_size=inputs.image_size,
        scores=scores.numpy(),
        unpredicted=_unknown(fitter, state, seen),
        **errors_of(points_PM3, seen, np.isin(fitter.names, FACE_NAMES)),
    )


def errors_of(points_PM3: Tensor, seen: Observations, face_M: np.ndarray) -> dict[str, np.ndarray]:
    """errors_px, errors_mm and face_errors_px of fitted points, see FittedHumans.

    face_M: which of the points are those of the face.
    """
    camera = torch.einsum("pvab,pmb->pvma", seen.R_PV33, points_PM3) + seen.t_PV3[:, :, None]
    flat = torch.einsum("pvab,pvmb->pvma", seen.K_PV33, camera)
    pixels = (flat[..., :2] / flat[..., 2:].clamp(min=1e-6) - seen.xy_PVM2).norm(dim=-1)
    metres = (points_PM3 - seen.xyz_PM3).norm(dim=-1)
    in_view, in_space = (seen.weight_PVM > 0).double(), (seen.weight_PM > 0).double()
    face = torch.from_numpy(face_M).double()
    body = 1 - face

    def mean(values: Tensor, weight: Tensor) -> np.ndarray:
        found = (values * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
        return np.asarray(found.float().numpy())

    return {
        "errors_px": mean(pixels, in_view * body),
        "errors_mm": mean(1000 * metres, in_space * body),
        "face_errors_px": mean(pixels, in_view * face),
    }


def _expression_of(fitter: Fitter, state: State) -> Tensor:
    """(P, 52) strengths of all facial actions; those that no point shows are 0."""
    expression = torch.zeros(len(state.face_PE), fitter.body.expression_count, dtype=torch.float64)
    expression[:, fitter.skeleton.actions] = state.face_PE
    return expression


def pose_of(fitter: Fitter, state: State) -> Tensor:
    """(P, R, 3, 3) rotations of all bones of the body; those without coordinates are at rest."""
    prior, own = fitter.model.prior, fitter.model.prior_coordinates
    names = list(fitter.body.topology.pose_names)
    pose = torch.eye(3, dtype=torch.float64).repeat(len(state.pelvis_P3), len(names), 1, 1)
    pose[:, 0] = state.root_P33
    coordinates = state.pose_PD.numpy()
    vectors = prior.rotation_vectors(coordinates[:, :own])
    pose[:, [names.index(bone) for bone in prior.bones]] = rotation_matrix(torch.from_numpy(vectors))
    for side in fitter.model.hands:
        bones, mean, basis = prior.hand(side)
        flat = torch.from_numpy(mean + coordinates[:, own : own + len(basis)] @ basis)
        pose[:, [names.index(bone) for bone in bones]] = rotation_matrix(flat.unflatten(1, (-1, 3)))
        own += len(basis)
    return pose


def _unknown(fitter: Fitter, state: State, seen: Observations) -> tuple[str, ...]:
    """Joints on which no given point of any person hangs, or that turn none, and actions that none shows."""
    energy = Energy(fitter.skeleton, fitter.model, fitter.shape_prior, seen, upright=False)
    energy.expand(state.shape_PS.float())
    vectors = (fitter.model.mean_3J + state.pose_PD @ fitter.model.basis_D3J).unflatten(1, (-1, 3))
    local = torch.cat([state.root_P33[:, None], rotation_matrix(vectors)], 1)
    posed = fitter.skeleton.pose(fitter.skeleton.chain(local), energy.rest(state.shape_PS))
    levers = fitter.skeleton.turn_derivative(posed).norm(dim=-1)
    given = (seen.weight_PVM > 0).any(1) | (seen.weight_PM > 0)
    least = [FINGER_LEVER if bone.startswith("finger") else LEVER for bone in fitter.skeleton.bones]
    moved_J = (levers * given[..., None]).amax((0, 1)) > torch.tensor(least, dtype=torch.float64)
    known = fitter.skeleton.known_bones(moved_J, given.any(0))
    topology = fitter.body.topology
    actions = _known_actions(fitter, energy, state)
    return (
        *(name for name in topology.pose_names if name not in known),
        *(name for name in topology.expression_names if name not in actions),
    )


def _known_actions(fitter: Fitter, energy: Energy, state: State) -> set[str]:
    """Facial actions of which the points of any person tell: their uncertainty is well below the prior's."""
    names, actions = fitter.body.topology.expression_names, fitter.skeleton.actions
    if not actions:
        return set()
    first = 6 + state.pose_PD.shape[1]
    hessian = energy(state).hessian_PNN
    covariance = torch.linalg.inv(hessian + 1e-6 * torch.eye(hessian.shape[1], dtype=hessian.dtype))
    variance = covariance.diagonal(dim1=1, dim2=2)[:, first : first + len(actions)]
    known = (variance < (KNOWN_ACTION * FACE_SIGMA) ** 2).any(0)
    return {names[action] for action, is_known in zip(actions, known.tolist(), strict=True) if is_known}


def _check_fps(fps: float | None) -> bool:
    if fps is not None and not 0 < fps < 10_000:
        raise ValueError(f"fps must be the number of frames a second, above 0, got {fps}")
    return fps is not None


def _check_body(body: Any) -> Anny:
    if body is None or body == "anny":
        return _bundled_body()
    if isinstance(body, Anny):
        return body
    name = body if isinstance(body, str) else getattr(body, "name", type(body).__name__)
    raise ValueError(f"the fitter knows the body 'anny', for which it has a pose prior, not {name!r}")


@functools.cache
def _bundled_body() -> Anny:
    return Anny().eval()


@functools.lru_cache(maxsize=4)
def _fitter(body: Anny, keypoint_set: str, names: tuple[str, ...] | None) -> Fitter:
    points, kept = find_points(body, keypoint_set, names)
    prior = load_prior()
    hands = _hands_in(points.names)
    fingers = [bone for side in hands for bone in prior.hand(side)[0]]
    has_face = not {*points.names}.isdisjoint(FACE_NAMES)
    skeleton = PointSkeleton(body, points, {*prior.bones, *fingers}, face=has_face)
    model = _pose_model(prior, skeleton, hands)
    shape_prior = _shape_prior(body.topology.shape_names)
    exemplars = torch.from_numpy(prior.exemplars)
    exemplars = torch.cat(
        [exemplars, exemplars.new_zeros(len(exemplars), model.coordinates - exemplars.shape[1])], 1
    )
    vectors = (model.mean_3J + exemplars @ model.basis_D3J).unflatten(1, (-1, 3))
    eye = torch.eye(3, dtype=torch.float64).expand(len(vectors), 1, 3, 3)
    turns = skeleton.chain(torch.cat([eye, rotation_matrix(vectors)], 1))
    candidates = []
    for shape_S in shape_prior.mean_KS:
        rest = skeleton.rest(shape_S[None].float())
        many = RestPose(
            rest.offsets_PJ3.expand(len(vectors), -1, -1), rest.arms_PMJ3.expand(len(vectors), -1, -1, -1)
        )
        posed = skeleton.pose(turns, many).points_PM3
        candidates.append(Candidates(posed, exemplars, model, shape_S, len(skeleton.actions)))
    return Fitter(body, skeleton, model, shape_prior, tuple(candidates), points.names, kept)


def _shape_prior(numbers: Sequence[str]) -> ShapePrior:
    """Adults, then children; `numbers` are the names of the phenotypes."""
    child_mean, child_sigma = SHAPE_MEAN | {"age": CHILD_AGE}, SHAPE_SIGMA | {"age": CHILD_AGE_SIGMA}
    mean_KS = torch.tensor([[mean[n] for n in numbers] for mean in (SHAPE_MEAN, child_mean)])
    sigma_KS = torch.tensor([[sigma[n] for n in numbers] for sigma in (SHAPE_SIGMA, child_sigma)])
    weights = torch.tensor([1 - CHILDREN, CHILDREN], dtype=torch.float64)
    sigma_KS = sigma_KS.double()
    constants = 2 * (sigma_KS / sigma_KS[0]).log().sum(1) - 2 * weights.log()
    return ShapePrior(mean_KS.double(), sigma_KS, constants)


def _hands_in(names: Sequence[str]) -> tuple[str, ...]:
    """The sides, "L" and "R", of which there are points on fingers."""
    sides = {"L": "left_", "R": "right_"}
    starts = {side: tuple(f"{word}{finger}" for finger in FINGERS) for side, word in sides.items()}
    return tuple(
        side
        for side in sides
        if any(
            name.startswith(starts[side]) or (name.startswith("finger") and name.endswith(f".{side}"))
            for name in names
        )
    )


def _pose_model(prior: PosePrior, skeleton: PointSkeleton, hands: tuple[str, ...]) -> PoseModel:
    """The coordinates of the prior, then those of each hand; only of the bones that the skeleton has."""
    parts = [(prior.bones, prior.mean, prior.basis), *(prior.hand(side) for side in hands)]
    bones = [bone for names, _, _ in parts for bone in names]
    basis = np.zeros((sum(len(part[2]) for part in parts), 3 * len(bones)))
    row = column = 0
    for _, mean, directions in parts:
        basis[row : row + len(directions), column : column + len(mean)] = directions
        row, column = row + len(directions), column + len(mean)
    mean = np.concatenate([part[1] for part in parts])
    unlimited = np.full(len(mean) - len(prior.mean), np.inf)
    columns = np.concatenate([3 * bones.index(bone) + np.arange(3) for bone in skeleton.bones[1:]])
    arrays = {
        "mean_3J": mean[columns],
        "basis_D3J": basis[:, columns],
        "whitening_KDD": prior.factors,
        "centers_KD": prior.centers,
        "constants_K": -2 * (prior.log_weights + prior.log_scales),
        "extra_sigma": np.ones(len(basis) - len(prior.basis)),
        "lower_3J": np.append(prior.lower, -unlimited)[columns],
        "upper_3J": np.append(prior.upper, unlimited)[columns],
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    return PoseModel(prior=prior, hands=hands, **tensors)


def _check_init(init: Humans, people: int, body: Anny) -> None:
    if init.body != body.name:
        raise ValueError(f"init holds people of the body {init.body!r}, the fit is of {body.name!r}")
    if len(init) != people:
        raise ValueError(f"init has {len(init)} people but the keypoints have {people}")


def _state_of(init: Humans, rows: Tensor, fitter: Fitter) -> State:
    """The nearest states that the prior's coordinates can say."""
    prior, names = fitter.model.prior, list(fitter.body.topology.pose_names)
    pose = init.pose[rows.numpy()]
    vectors = rotmat_to_rotvec(pose[:, [names.index(bone) for bone in prior.bones]])
    parts = [prior.coordinates(vectors.astype(np.float64))]
    for side in fitter.model.hands:
        bones, mean, basis = prior.hand(side)
        fingers = rotmat_to_rotvec(pose[:, [names.index(bone) for bone in bones]]).reshape(len(pose), -1)
        parts.append((fingers - mean) @ np.linalg.pinv(basis))
    z = torch.from_numpy(np.concatenate(parts, 1).astype(np.float64))
    return State(
        torch.from_numpy(pose[:, 0].astype(np.float64)),
        torch.from_numpy(init.pelvis[rows.numpy()].astype(np.float64)),
        z,
        torch.from_numpy(init.expression[rows.numpy()][:, fitter.skeleton.actions].astype(np.float64)).clamp(
            0, 1
        ),
        torch.from_numpy(init.shape[rows.numpy()].astype(np.float64)).clamp(0, 1),
        fitter.model.components(z),
    )
