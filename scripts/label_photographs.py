"""Keypoints of people in photographs as MoveNet sees them, to train on: COCO's format.

    python scripts/label_photographs.py FOLDER --out data/photographs
    multihmr train --data data/train:0.9,coco-default@data/photographs:0.1 ...

Only people and points that MoveNet is sure of are labelled. Where it half sees somebody more, a person with
one point on no head stands for them: training then does not count that picture's other cells as nobody.
Pictures in which it sees nobody are left out. Needs its weights (scripts/convert_movenet.py).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch

from multihmr.data.synthetic.backgrounds import PICTURES
from multihmr.networks.alignment.keypoints import find_keypoints
from multihmr.networks.backbones.movenet import HybridMoveNet, Pose, people_of
from multihmr.networks.detection import find_centers
from multihmr.preprocessing.image import load_image
from multihmr.preprocessing.letterbox import Letterbox

SURE, DOUBTFUL = 0.25, 0.07  # of a person: center times mean keypoint
SURE_POINT = 0.3
APART = 0.1  # mean distance of the keypoints of two people, in sizes of the first


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--kind", default="multipose")
    parser.add_argument("--image-size", type=int, default=352)
    args = parser.parse_args()
    backbone = HybridMoveNet(args.kind, pretrained=True).eval()
    (args.out / "annotations").mkdir(parents=True, exist_ok=True)
    (args.out / "images").mkdir(exist_ok=True)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for path in sorted(p for p in args.folder.rglob("*") if p.suffix.lower() in PICTURES):
        try:
            pixels = load_image(path).pixels
        except (ValueError, OSError) as error:
            counts["unreadable"] += 1
            print(f"left out: {error}")
            continue
        people, doubtful = seen(backbone, pixels, args.image_size)
        if not people:
            counts["nobody is sure to be there"] += 1
            continue
        number = len(images)
        images.append({"id": number, "file_name": path.name})
        shutil.copy(path, args.out / "images" / path.name)
        for points in people:
            annotations.append({"id": len(annotations), "image_id": number, "keypoints": points})
        if doubtful:
            marker = [0.0] * 51
            marker[3 * 11 : 3 * 12] = [pixels.shape[1] / 2, pixels.shape[0] / 2, 1]  # a hip in the middle
            annotations.append({"id": len(annotations), "image_id": number, "keypoints": marker})
            counts["somebody more is half seen"] += 1
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "person"}]}
    (args.out / "annotations" / "person_keypoints_default.json").write_text(
        json.dumps(content), encoding="utf-8"
    )
    print(
        f"{len(annotations)} people in {len(images)} pictures; "
        + ", ".join(f"{k}: {v}" for k, v in counts.items())
    )


@torch.inference_mode()
def seen(backbone: HybridMoveNet, pixels: np.ndarray, size: int) -> tuple[list[list[float]], bool]:
    """The points (x, y, labelled; 51 numbers) of each person who is sure, and whether there are others."""
    window = Letterbox.whole(*pixels.shape[:2], size)
    image = (window.to_tensor(pixels)[None] * 2 - 1).contiguous(memory_format=torch.channels_last)
    answers = backbone.stem.head_outputs(backbone.stem(image)[-1])
    pose = Pose.of(answers)
    scores_Bhw = pose.center_B1hw.sigmoid()[:, 0]
    centers = find_centers(scores_Bhw, threshold=0.1, nms_kernel=9, max_people=30)
    if not len(centers):
        return [], False
    cell_P = centers.row_P * scores_Bhw.shape[-1] + centers.col_P
    found = find_keypoints(answers, centers, people_of(pose)[1][0, cell_P].flip(-1) * 4)
    sure_P = centers.scores_P * found.scores_PK.mean(1)
    xy_PK2 = window.inverse_points(found.xy_PK2.double()).numpy()
    kept: list[int] = []
    for p in sure_P.argsort(descending=True).tolist():
        far = [
            np.linalg.norm(xy_PK2[p] - xy_PK2[q], axis=1).mean() / max(np.ptp(xy_PK2[q], axis=0).max(), 1)
            for q in kept
        ]
        if float(sure_P[p]) > DOUBTFUL and all(distance > APART for distance in far):
            kept.append(p)
    people = []
    height, width = pixels.shape[:2]
    for p in kept:
        if float(sure_P[p]) < SURE:
            continue
        xy = xy_PK2[p]
        inside = ((xy >= 0) & (xy < (width, height))).all(1)
        labelled = (found.scores_PK[p].numpy() > SURE_POINT) & inside
        rows = np.concatenate([np.where(labelled[:, None], xy - 0.5, 0), labelled[:, None]], axis=1)
        people.append(rows.flatten().round(2).tolist())
    return people, len(people) < len(kept)


if __name__ == "__main__":
    main()
