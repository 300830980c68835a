"""Give a trained Multi-HMR another stem, so that what comes after it need not start anew.

    python scripts/graft_stem.py --model multihmr-anny-hybrid --backbone hybrid_movenet_multipose \
        --pictures data/train FOLDER_OF_PHOTOGRAPHS --out grafted.safetensors

The new stem's maps are joined by linear layers. These are fitted (ridge regression; no labels are needed) so
that the joined grid is as near as it gets to that of the old stem; ViT blocks, heads and readers stay.
`multihmr train --init grafted.safetensors` goes on from there.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from multihmr import load_model
from multihmr.data.datasets.background import BackgroundImages
from multihmr.data.webdataset import Shards
from multihmr.model import save_model
from multihmr.networks.backbones.hybrid import Hybrid
from multihmr.networks.backbones.movenet import HybridMoveNet
from multihmr.networks.configs import MOVENETS
from multihmr.networks.multihmr import MultiHMR
from multihmr.preprocessing.letterbox import Letterbox

RIDGE = 1e-3  # of the mean square of a feature


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="multihmr-anny-hybrid", help="whose stem is an EfficientNet-Lite")
    parser.add_argument("--backbone", choices=MOVENETS, default=MOVENETS[0])
    parser.add_argument("--pictures", nargs="+", required=True, help="folders of shards or of photographs")
    parser.add_argument("--count", type=int, default=250, help="pictures of each folder")
    parser.add_argument("--image-size", type=int, default=288)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    old = load_model(args.model, device="cpu")
    if not isinstance(old, MultiHMR) or not isinstance(old.backbone, Hybrid):
        raise SystemExit(f"{args.model} has no stem of EfficientNet-Lite: nothing to fit the new one to")
    new = MultiHMR(replace(old.config, backbone=args.backbone), old.body)
    stem: Any = HybridMoveNet(args.backbone.removeprefix("hybrid_movenet_"), pretrained=True).stem
    own, theirs = new.state_dict(), old.state_dict()
    taken = {name: value for name, value in theirs.items() if name in own and own[name].shape == value.shape}
    new.load_state_dict(own | taken | {f"backbone.stem.{k}": v for k, v in stem.state_dict().items()})
    if new.reader is not None and new.reader.to_fine is not None:
        torch.nn.init.zeros_(new.reader.to_fine.weight)
        torch.nn.init.zeros_(new.reader.to_fine.get_parameter("bias"))
    fit(old.backbone, new.backbone, list(pictures(args.pictures, args.count)), args.image_size)
    print(save_model(new, args.out, half=True, source=f"{args.model} with the stem of {args.backbone}"))


def pictures(folders: Sequence[str], count: int) -> Iterator[np.ndarray]:
    for folder in folders:
        shards = any(Path(folder).glob("*.tar"))
        samples = Shards(folder) if shards else BackgroundImages(folder)
        step = max(1, len(samples) // count)
        for i in itertools.islice(range(0, len(samples), step), count):
            yield samples[i].image


@torch.inference_mode()
def fit(old: Hybrid, new: HybridMoveNet, images: Sequence[np.ndarray], size: int) -> None:
    """Set the joining layers of `new` so that its grid is as near as it gets to that of `old`."""
    products, goals, rows = 0.0, 0.0, 0
    for image in images:
        pixels = Letterbox.whole(*image.shape[:2], size).to_tensor(image)[None] * 2 - 1
        x_ND, y_NW = joined(new, pixels), grid_of(old, pixels)
        x_ND = torch.cat([x_ND, torch.ones_like(x_ND[:, :1])], dim=1).double()
        products, goals = products + x_ND.T @ x_ND, goals + x_ND.T @ y_NW.double()
        rows += len(x_ND)
    assert isinstance(products, Tensor)
    assert isinstance(goals, Tensor)
    damping = RIDGE * products.diagonal()
    damping[-1] = 0
    solution = torch.linalg.solve(products + damping.diag(), goals)
    layers = (new.from4, new.from8, new.from16, new.from32)
    at = 0
    for layer in layers:
        weight = layer.weight
        length = weight[0].numel()
        weight.copy_(solution[at : at + length].T.reshape(weight.shape))
        at += length
    new.from16.get_parameter("bias").copy_(solution[-1])
    print(f"fitted to {rows} cells of {len(images)} pictures")


def joined(new: HybridMoveNet, pixels: Tensor) -> Tensor:
    """(N, D): of each cell all that the joining layers see of it."""
    _, x8, x16, x32, p16, p8, p4 = new.stem(pixels)
    side = x16.shape[-2:]
    maps = (
        F.pixel_unshuffle(p4, 4),
        F.pixel_unshuffle(torch.cat([x8, p8], dim=1), 2),
        torch.cat([x16, p16], dim=1),
        F.interpolate(x32, size=side, mode="bilinear"),
    )
    return torch.cat([m[0].flatten(1).T for m in maps], dim=1)


def grid_of(old: Hybrid, pixels: Tensor) -> Tensor:
    """(N, W): the joined grid before the ViT blocks."""
    x8, x16, x32 = old._see(pixels.contiguous(memory_format=torch.channels_last))
    x32 = F.interpolate(old.from32(x32), size=x16.shape[-2:], mode="bilinear")
    return (old.from8(x8) + old.from16(x16) + x32)[0].flatten(1).T


if __name__ == "__main__":
    main()
