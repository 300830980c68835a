"""Which stem: the same start, pictures and CPU time for each; what comes out is measured by other scripts.

    python scripts/compare_stems.py --data data/train:0.93,nobody@FOLDER:0.07 --start STARTS --out runs/stems

STARTS holds lite0.safetensors (a model on that stem), lightning.safetensors and multipose.safetensors
(the same model with another stem: scripts/graft_stem.py). Each runs until its process has computed for
--seconds; how many steps that is is measured first. The weights that come out lie in OUT/NAME.safetensors.
"""

from __future__ import annotations

import argparse
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from multihmr.training.build_model import build
from multihmr.training.config import TrainConfig
from multihmr.training.trainer import train

# name -> (file of the start, fields of the network's config, whether MoveNet's answers are used)
VARIANTS = {
    "lite0": ("lite0", "", False),
    "lightning": ("lightning", "read_keypoints=yes", True),
    "multipose-maps": ("multipose", "", False),
    "multipose": ("multipose", "read_keypoints=yes", True),
}
TRIAL = 4  # steps by which the time of a step is measured


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--only", default=",".join(VARIANTS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    for name in args.only.split(","):
        out = args.out / name
        base = TrainConfig(
            data=args.data,
            out=str(out),
            init=str(args.start / f"{VARIANTS[name][0]}.safetensors"),
            image_size=args.image_size,
            network=VARIANTS[name][1],
            batch_size=16,
            lr=4e-4,
            warmup=20,
            ema_decay=0.97,
            grad_clip_norm=10,
            person_crop_prob=0.35,
            workers=0,
            device="cpu",
        )
        trial = replace(base, steps=TRIAL, out=str(out / "trial"))
        train(trial, model=network(trial, name), progress=False)  # the first steps make what is kept
        shutil.rmtree(out / "trial")
        start = time.process_time()
        train(trial, model=network(trial, name), progress=False)
        seconds = (time.process_time() - start) / TRIAL
        shutil.rmtree(out / "trial")
        config = replace(base, steps=max(20, int(args.seconds / seconds)))
        file = train(config, model=network(config, name), progress=False)
        shutil.copy(file, args.out / f"{name}.safetensors")
        print(f"{name}: {config.steps} steps of {config.batch_size}, {seconds:.2f} s each", flush=True)


def network(config: TrainConfig, name: str) -> Any:
    model: Any = build(config)
    if not VARIANTS[name][2] and hasattr(model.backbone, "from_answers"):
        model.backbone.from_answers.requires_grad_(False)  # they are zero at first, and stay so
        model.backbone.from_votes.requires_grad_(False)
    return model


if __name__ == "__main__":
    main()
