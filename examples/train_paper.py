"""How do I train Multi-HMR as its paper did (Baradel et al., ECCV 2024)?

    python examples/train_paper.py                      # the recipes and their commands
    torchrun --nproc-per-node 8 examples/train_paper.py L-896 --root DIR --smplx SMPLX_NEUTRAL.npz

DIR has the folders bedlam, agora, cuffs and ubody (`multihmr data check NAME DIR/NAME` explains how to get
them). As in the paper: 400,000 steps of 8 pictures, learning rate 5e-5, DINOv2 weights, which timm downloads.
Our choices: AdamW with a cosine schedule, equal shares of the data sets (the paper's are unknown), averaged
weights.

Hardware  not measured; intended for GPUs of 80 GB. With less memory: --accumulate 2, --gradient-checkpointing
Hours     not measured
Expected  the rows of the authors' checkpoints of the same size, printed beside each recipe: PVE in mm on
          3DPW-test, EHF, BEDLAM-val (README of github.com/naver/multi-hmr). Theirs for L-672, B-672 and
          S-672 were trained for longer. Ours: not measured
"""

import argparse
from dataclasses import replace

from multihmr.training.config import TrainConfig
from multihmr.training.trainer import train

# name -> backbone, image size, expected PVE of the authors' checkpoint, "-" where none is published
RECIPES = {
    "S-448": ("dinov2_vits14", 448, "-"),
    "B-448": ("dinov2_vitb14", 448, "-"),
    "L-448": ("dinov2_vitl14", 448, "-"),
    "S-672": ("dinov2_vits14", 672, "102.4, 49.3, 78.9"),
    "B-672": ("dinov2_vitb14", 672, "94.0, 43.6, 67.2"),
    "L-672": ("dinov2_vitl14", 672, "94.1, 37.0, 58.6"),
    "L-896": ("dinov2_vitl14", 896, "89.9, 42.2, 56.7"),
    "L-1288": ("dinov2_vitl14", 1288, "-"),
}
PAPER = TrainConfig(
    data="bedlam:1,agora:1,cuffs:1,ubody:1",
    body="smplx",
    steps=400_000,
    batch_size=8,
    lr=5e-5,
    backbone_lr_scale=1.0,
    warmup=1000,
    read_joints=False,
    workers=8,
)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("recipe", nargs="?", choices=RECIPES)
for flag in ("root", "smplx", "out"):
    parser.add_argument(f"--{flag}", default=getattr(PAPER, flag))
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--gradient-checkpointing", action="store_true")
args = vars(parser.parse_args())
name = args.pop("recipe")
if name:
    backbone, image_size, _ = RECIPES[name]
    print(train(replace(PAPER, backbone=backbone, image_size=image_size, **args)))
for recipe, (backbone, image_size, expected) in ({} if name else RECIPES).items():
    print(f"{recipe}: {backbone}, {image_size} pixels, expected PVE {expected}")
