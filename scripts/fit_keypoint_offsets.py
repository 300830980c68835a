"""Fit the mean offsets of MoveNet's keypoints from the body's, of which networks/alignment takes half.

    python scripts/fit_keypoint_offsets.py data/train --count 2000

For each of COCO's keypoints, on both sides alike: the offset in the axes of its bone in the rest pose, in
distances between neck and pelvis, that brings the true bodies of rendered images nearest to the keypoints
found in them, by reweighted least squares.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from multihmr import load_model
from multihmr.bodies.base import place
from multihmr.data.mixture import for_body, open_sources
from multihmr.geometry import project
from multihmr.networks.alignment.gauss_newton import NECK, PELVIS
from multihmr.networks.alignment.keypoints import find_keypoints
from multihmr.networks.detection import Centers
from multihmr.training.targets import assign_cells

LEAST_SCORE, LEAST_SURE, LEAST_DEPTH = 0.3, 0.3, 0.3
OUTLIER = 0.08  # residual that is down-weighted, in distances between neck and pelvis
ROUNDS = 10
GROUPS = ((0,), (1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16))
MIRROR = torch.tensor([-1.0, 1.0, 1.0])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", help="a folder that multihmr generate wrote")
    parser.add_argument("--count", type=int, default=2000, help="images (default: %(default)s)")
    parser.add_argument("--model", default="multihmr-anny-hybrid", help="default: %(default)s")
    args = parser.parse_args()
    network = load_model(args.model, device="cpu").network.eval()
    samples = open_sources(args.data)[0].samples
    parts = [equations(network, samples[i]) for i in range(min(args.count, len(samples)))]
    slopes, misses, counts = (torch.cat(part) for part in zip(*filter(None, parts), strict=True))
    names = network.body.topology.keypoint_sets["coco17"].names
    print(f"{len(slopes)} people")
    for group in GROUPS:
        offset, before, after = fitted(slopes, misses, counts, group)
        print(
            f"{names[group[0]]:14} x {offset[0]:6.3f}  y {offset[1]:6.3f}  z {offset[2]:6.3f}   "
            f"median residual {before:.3f} -> {after:.3f}"
        )


@torch.inference_mode()
def equations(network, sample) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """(P, 17, 2, 3) pixels per offset, (P, 17, 2) residuals and (P, 17) whether they count, of one image."""
    sample = for_body(sample, network.body.topology)
    if not len(sample.pose):
        return None
    letterbox = network.letterbox(*sample.image.shape[:2])
    K = letterbox.intrinsics(torch.from_numpy(sample.K)).float()
    seen = network._encode(letterbox.to_tensor(sample.image)[None], K[None])
    pose, shape = torch.from_numpy(sample.pose), torch.from_numpy(sample.shape)
    alignment = network.alignment
    heads_P3 = torch.from_numpy(sample.translation)
    body = place(
        alignment.skeleton(pose, shape, torch.zeros(len(pose), network.body.expression_count)),
        heads_P3,
        network.body.center_joint,
    )
    K_P33 = K.expand(len(pose), 3, 3)
    heads_P2 = project(heads_P3[:, None], K_P33)[:, 0]
    images = torch.zeros(len(pose), dtype=torch.long)
    cells = assign_cells(heads_P2 / network.backbone.patch, images, tuple(seen.logits_Bhw.shape[1:]))
    centers = Centers(images, cells[:, 1], cells[:, 0], torch.ones(len(pose)))
    found = find_keypoints(seen.features.scales[-1], centers, heads_P2)
    points = alignment.table_KV @ body.vertices_PV3
    joints = body.joints_PJ3[:, alignment.joints_B]
    bones = (alignment._orientations(pose) @ pose.index_select(1, alignment.rotations_B))[
        :, alignment.carriers_K
    ]
    depth = points[..., 2:]
    focal = torch.stack([K_P33[:, 0, 0], K_P33[:, 1, 1]], dim=-1)[:, None]
    slope = focal / depth
    pixels = torch.cat([torch.diag_embed(slope), (-slope * points[..., :2] / depth)[..., None]], dim=-1)
    size = (joints[:, NECK] - joints[:, PELVIS]).norm(dim=-1)
    on_screen = (size * focal[:, 0, 0] / depth.mean((1, 2)))[:, None, None]
    slopes = pixels @ bones * (size[:, None, None] / on_screen)[..., None]
    misses = (found.xy_PK2 - project(points, K_P33)) / on_screen
    counts = (found.scores_PK > LEAST_SCORE) & (depth[..., 0] > LEAST_DEPTH)
    return slopes, misses, counts & (found.sure_P > LEAST_SURE)[:, None]


def fitted(
    slopes: torch.Tensor, misses: torch.Tensor, counts: torch.Tensor, group: tuple[int, ...]
) -> tuple[np.ndarray, float, float]:
    """The offset of a group of keypoints, and the median residual without and with it."""
    A = torch.cat([slopes[counts[:, k], k] * (MIRROR if side else 1) for side, k in enumerate(group)])
    wanted = torch.cat([misses[counts[:, k], k] for k in group])
    weight, offset = torch.ones(len(A), 1, 1), torch.zeros(3)
    for _ in range(ROUNDS):
        weighted = (A * weight).flatten(0, 1)
        offset = torch.linalg.solve(weighted.mT @ A.flatten(0, 1), weighted.mT @ wanted.flatten())
        rest = (wanted - A @ offset).norm(dim=-1)
        weight = (1 / (1 + (rest / OUTLIER).square()))[:, None, None]
    return offset.numpy(), float(wanted.norm(dim=-1).median()), float(rest.median())


if __name__ == "__main__":
    main()
