"""Fits the pose prior of multihmr.fitting to the training split of the captured motions, and writes its file.

    python scripts/fit_pose_prior.py --assets shared/assets --out multihmr/fitting/pose_prior.npz

Data: cmu_poses_anny.npz (mocap.cs.cmu.edu, free for any use; see shared/assets/CMU_POSES.md), without the
clips of the test split, mirrored too; a quarter of the weight are poses of `PoseSampler`, which sit, crouch
and lie as the captures do not. Takes about two minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from multihmr.bodies.anny import Anny
from multihmr.data.synthetic.poses import PoseSampler, quaternions_to_matrices
from multihmr.data.synthetic.splits import captures_of_split
from multihmr.fitting.prior import HAND_BONES, MIRROR
from multihmr.humans import rotmat_to_rotvec

LARGEST_TURN = 2.3  # rad; forearms and feet beyond it are artefacts of the retargeting
SAMPLED_SHARE = 0.25
HAND_DIMENSIONS = 12
LIMIT_QUANTILE, LIMIT_MARGIN = 0.001, 0.15  # of the training poses; rad


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--assets", type=Path, default=Path("shared/assets"))
    parser.add_argument("--out", type=Path, default=Path("multihmr/fitting/pose_prior.npz"))
    parser.add_argument("--gaussians", type=int, default=64)
    parser.add_argument("--dimensions", type=int, default=40)
    parser.add_argument("--exemplars", type=int, default=400)
    parser.add_argument("--sampled", type=int, default=6000, help="poses drawn from PoseSampler")
    args = parser.parse_args()
    bones, vectors, weights, hands = training_poses(args.assets, args.sampled)
    mean = np.average(vectors, axis=0, weights=weights)
    centred = vectors - mean
    _, directions = np.linalg.eigh((centred * weights[:, None]).T @ centred)
    basis = directions[:, ::-1].T[: args.dimensions]
    z = centred @ basis.T
    print(
        f"{len(z)} poses of {len(bones)} bones; {args.dimensions} directions keep "
        f"{np.average((z**2).sum(1), weights=weights) / np.average((centred**2).sum(1), weights=weights):.4f}"
    )
    rng = np.random.default_rng(0)
    shares, centers, covariances = fit_mixture(z, weights, args.gaussians, rng)
    factors = np.stack([np.linalg.cholesky(np.linalg.inv(c)).T for c in covariances])
    rows, columns = np.triu_indices(args.dimensions)
    hand_mean, hand_basis = fit_hand(hands)
    exemplars = k_means(z, weights, args.exemplars, rng)
    lower, upper = (weighted_quantile(vectors, weights, q) for q in (LIMIT_QUANTILE, 1 - LIMIT_QUANTILE))
    np.savez_compressed(
        args.out,
        bones=np.array(bones),
        mean=mean.astype(np.float32),
        basis=basis.astype(np.float32),
        log_weights=np.log(shares).astype(np.float32),
        centers=centers.astype(np.float16),
        upper_triangles=factors[:, rows, columns].astype(np.float16),
        lower=(lower - LIMIT_MARGIN).astype(np.float32),
        upper=(upper + LIMIT_MARGIN).astype(np.float32),
        exemplars=exemplars.astype(np.float16),
        hand_mean=hand_mean.astype(np.float32),
        hand_basis=hand_basis.astype(np.float32),
    )
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} kB")


def training_poses(assets: Path, sampled: int) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Names of the B moving bones, (N, 3 B) rotation vectors [rad], (N,) their weights, (H, 45) hands."""
    body = Anny()
    with torch.no_grad():
        upright = torch.eye(3).expand(1, body.rotation_count, 3, 3)
        shape, face = body.mean_shape_S[None], torch.zeros(1, body.expression_count)
        reference = body(upright, shape, face).joints_PJ3[0].numpy()
    names = list(body.topology.joint_names)
    sampler = PoseSampler(names, reference, assets, split="train")
    with np.load(assets / "cmu_poses_anny.npz", allow_pickle=False) as file:
        of_split = captures_of_split(file["source_names"], "train")[file["source"]]
        captured = quaternions_to_matrices(file["quat_xyzw"][of_split])
        sources = file["source_names"][file["source"][of_split]]
        where = [names.index(str(name)) for name in file["bone_names"]]
    turning = (np.abs(captured - np.eye(3)).max((0, 2, 3)) > 1e-3) & (np.array(where) != 0)
    bones = [names[i] for i, turns in zip(where, turning, strict=True) if turns]
    columns = [names.index(bone) for bone in bones]
    whole = np.tile(np.eye(3, dtype=np.float32), (len(captured), len(names), 1, 1))
    whole[:, where] = captured
    mirrored = np.stack([sampler.mirror(pose) for pose in whole])
    rng = np.random.default_rng(0)
    drawn = np.stack([sampler.sample(rng).rotations for _ in range(sampled)])
    rotations = np.concatenate([part[:, columns] for part in (whole, mirrored, drawn)])
    vectors = rotmat_to_rotvec(rotations).astype(np.float64)
    angles = np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors *= np.minimum(1, LARGEST_TURN / np.maximum(angles, 1e-9))
    climbing = np.array([str(source).startswith("01_") for source in sources])
    once = np.where(climbing, 0.35, 1.0)  # half of the frames climb on a playground, as in PoseSampler
    both = np.concatenate([once, once]) / (2 * once.sum()) * (1 - SAMPLED_SHARE)
    weights = np.append(both, np.full(sampled, SAMPLED_SHARE / sampled))
    return bones, vectors.reshape(len(vectors), -1), weights, left_hands(drawn, names)


def left_hands(rotations: np.ndarray, names: list[str]) -> np.ndarray:
    """(2 N, 45) rotation vectors [rad] of the fingers of both hands, the right ones mirrored."""
    hands = []
    for side, signs in (("L", np.ones(3)), ("R", MIRROR)):
        columns = [names.index(f"{bone}.{side}") for bone in HAND_BONES]
        hands.append((rotmat_to_rotvec(rotations[:, columns]) * signs).reshape(len(rotations), -1))
    return np.concatenate(hands).astype(np.float64)


def fit_hand(hands: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (45,) and principal directions (HAND_DIMENSIONS, 45), each times its standard deviation."""
    mean = hands.mean(0)
    values, directions = np.linalg.eigh(np.cov((hands - mean).T))
    values, directions = values[::-1][:HAND_DIMENSIONS], directions[:, ::-1][:, :HAND_DIMENSIONS]
    kept = values.sum() / np.var(hands, 0).sum()
    print(f"{len(hands)} hands; {HAND_DIMENSIONS} directions keep {kept:.4f}")
    return mean, (directions * np.sqrt(values)).T


def fit_mixture(
    z: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator, *, steps: int = 60
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Expectation maximisation -> shares (K,), centers (K, D), covariances (K, D, D)."""
    spread = np.cov(z.T, aweights=weights)
    # Shrinking each covariance towards the overall one keeps 60 numbers of few hundred poses in bounds.
    floor = 0.03 * np.diag(np.diag(spread)) + 1e-4 * np.eye(len(spread))
    centers = k_means(z, weights, count, rng)
    nearest = ((z[:, None] - centers) ** 2).sum(-1).argmin(1)
    shares_NK = np.eye(count)[nearest]
    for _ in range(steps):
        mass = (weights[:, None] * shares_NK).sum(0) + 1e-12
        centers = (weights[:, None] * shares_NK).T @ z / mass[:, None]
        covariances = np.empty((count, z.shape[1], z.shape[1]))
        logs = np.empty((len(z), count))
        for k in range(count):
            d = z - centers[k]
            own = (d * (weights * shares_NK[:, k])[:, None]).T @ d / mass[k]
            covariances[k] = own + floor
            root = np.linalg.cholesky(covariances[k])
            scaled = np.linalg.solve(root, d.T)
            logs[:, k] = np.log(mass[k]) - (scaled**2).sum(0) / 2 - np.log(np.diag(root)).sum()
        top = logs.max(1, keepdims=True)
        likelihood = np.exp(logs - top)
        shares_NK = likelihood / likelihood.sum(1, keepdims=True)
    print("mean log likelihood", np.average(top[:, 0] + np.log(likelihood.sum(1)), weights=weights))
    return mass / mass.sum(), centers, covariances


def k_means(z: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, D) centers; begun as k-means++ (Arthur and Vassilvitskii, 2007)."""
    centers = z[rng.choice(len(z), 1, p=weights)]
    nearest = ((z - centers[0]) ** 2).sum(1)
    while len(centers) < count:
        chances = nearest * weights
        centers = np.concatenate([centers, z[rng.choice(len(z), 1, p=chances / chances.sum())]])
        nearest = np.minimum(nearest, ((z - centers[-1]) ** 2).sum(1))
    for _ in range(20):
        distances = (z**2).sum(1)[:, None] - 2 * z @ centers.T + (centers**2).sum(1)
        member = np.eye(count)[distances.argmin(1)] * weights[:, None]
        mass = member.sum(0)
        centers = np.where(mass[:, None] > 0, member.T @ z / np.maximum(mass, 1e-12)[:, None], centers)
    return centers


def weighted_quantile(values: np.ndarray, weights: np.ndarray, share: float) -> np.ndarray:
    """Quantile of each column of (N, C) values."""
    order = values.argsort(0)
    total = weights[order].cumsum(0)
    rows = (total >= share * total[-1]).argmax(0)
    return np.take_along_axis(values, np.take_along_axis(order, rows[None], 0), 0)[0]


if __name__ == "__main__":
    main()
