"""Compare the errors of two or more Multi-HMRs by body part, on the same people.

    multihmr generate --out data/test --count 400 --seed 20000000 --split test
    python scripts/compare_parts.py plain.safetensors refined.safetensors --data data/test --count 200

Every true person is predicted at the true head position with the true camera, so that all models are measured
on the same people. Means in mm: MPJPE of each part (all joints of the hands, feet with toes, the 22 of the
body), relative to the pelvis; PA: each hand aligned by itself. Reprojection: distance of joints from the true
ones in % of the longer side of the person's box, over joints in the picture.
"""

import argparse
from itertools import islice
from typing import Any

import torch

from multihmr import load_model
from multihmr.bodies.body_parts import body_joints, joint_parts
from multihmr.bodies.topology import Topology
from multihmr.data.transforms import warp
from multihmr.data.webdataset import Shards
from multihmr.evaluation.metrics import align_similarity
from multihmr.geometry import project
from multihmr.preprocessing.letterbox import Letterbox
from multihmr.training.collate import Batch, collate
from multihmr.training.targets import Targets, make_targets

BATCH = 8
FIGURES = ("PA-MPJPE", "MPJPE", "hands", "hands PA", "feet", "2D body %", "2D hands %", "2D feet %")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", help="names or files, of one body and one image size")
    parser.add_argument("--data", required=True, help="folder of shards")
    parser.add_argument("--count", type=int, default=200, help="number of pictures (default: %(default)s)")
    args = parser.parse_args()
    models = {name: load_model(name) for name in args.models}
    body = next(iter(models.values())).body
    sizes = {model.config.image_size for model in models.values()}
    if len(sizes) != 1 or {model.body.name for model in models.values()} != {body.name}:
        parser.error("the models must look at windows of one size and have one body")
    parts = parts_of(body.topology)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in models}
    for batch in batches(args.data, args.count, sizes.pop()):
        true = make_targets(batch, body, next(iter(models.values())).backbone.patch)
        if len(true.centers):
            for name, model in models.items():
                rows[name].append(errors(model, batch, true, parts))
    print("| |", " | ".join(FIGURES), "| people |")
    print("|---|" + "---|" * (len(FIGURES) + 1))
    for name, tables in rows.items():
        table_PF = torch.cat(tables)
        cells = [f"{value:.2f}" for value in table_PF.nanmean(0).tolist()]
        print(f"| {name} |", " | ".join(cells), f"| {len(table_PF)} |")


def parts_of(topology: Topology) -> dict[str, list[int]]:
    """Joints of the body, both hands and the feet."""
    parts = joint_parts(topology)
    names = topology.joint_names
    return {
        "body": [names.index(name) for name in body_joints(topology)],
        "left": parts["left_hand"].tolist(),
        "right": parts["right_hand"].tolist(),
        "feet": [i for i, name in enumerate(names) if name.startswith(("foot", "toe"))],
    }


def batches(folder: str, count: int, size: int) -> Any:
    """Whole pictures, letterboxed to `size` pixels."""
    samples = iter(islice(Shards(folder), count))
    while some := list(islice(samples, BATCH)):
        yield collate([warp(s, Letterbox.whole(*s.image.shape[:2], size)) for s in some])


@torch.inference_mode()
def errors(model: Any, batch: Batch, true: Targets, parts: dict[str, list[int]]) -> torch.Tensor:
    """(P, FIGURES) of one batch; NaN where no joint of a part is in the picture."""
    said = model(batch.images_B3HW(), batch.K_B33, centers=true.centers)
    pelvis = model.body.pelvis_joint
    ours_PJ3 = said.joints_PJ3 - said.joints_PJ3[:, pelvis, None]
    theirs_PJ3 = true.joints_PJ3 - true.joints_PJ3[:, pelvis, None]
    off_PJ = 1000 * (ours_PJ3 - theirs_PJ3).norm(dim=-1)
    hands = parts["left"] + parts["right"]

    def aligned(joints: list[int]) -> torch.Tensor:
        here = align_similarity(ours_PJ3[:, joints], theirs_PJ3[:, joints])
        return 1000 * (here - theirs_PJ3[:, joints]).norm(dim=-1).mean(1)

    size = batch.images_BHW3.shape[1]
    at_PJ2 = true.joints_2d_PJ2
    side_P1 = (at_PJ2.amax(1) - at_PJ2.amin(1)).amax(1, keepdim=True)
    drift_PJ = 100 * (project(said.joints_PJ3, said.K_B33[true.centers.image_index_P]) - at_PJ2).norm(dim=-1)
    drift_PJ = torch.where(((at_PJ2 >= 0) & (at_PJ2 < size)).all(-1), drift_PJ / side_P1, torch.nan)
    return torch.stack(
        [
            aligned(parts["body"]),
            off_PJ[:, parts["body"]].mean(1),
            off_PJ[:, hands].mean(1),
            (aligned(parts["left"]) + aligned(parts["right"])) / 2,
            off_PJ[:, parts["feet"]].mean(1),
            *(drift_PJ[:, joints].nanmean(1) for joints in (parts["body"], hands, parts["feet"])),
        ],
        dim=1,
    )


if __name__ == "__main__":
    main()
