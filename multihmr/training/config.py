"""Training configuration: `TrainConfig`, whose fields are the flags of `multihmr train`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _flag(default: Any, says: str) -> Any:
    return field(default=default, metadata={"help": says})


@dataclass(frozen=True)
class TrainConfig:
    """Every field is a flag of `multihmr train`."""

    data: str = field(
        metadata={
            "help": "folders of shards, as `multihmr synth` writes them, names of data sets, nobody@FOLDER "
            "for pictures of nobody, with commas; with shares of the pictures: bedlam:0.6,data/train:0.4"
        }
    )
    root: str = _flag("data", "folder in which the named data sets lie, each under its name")
    out: str = _flag("runs/multihmr", "for checkpoints, logs, and weights.safetensors at the end")
    family: str = _flag("multihmr", "or glnet, which looks at one person; take --image-size 256 for it")
    whole_body: bool = _flag(False, "let hands and face guide a glnet, too")
    body: str = _flag("anny", "anny or smplx; data of another body are refused")
    smplx: str = _flag("", "your SMPLX_NEUTRAL.npz, for that body")
    shape_count: int = _flag(10, "numbers of SMPL-X's shape: 10 or 11")
    keypoints_only: bool = _flag(False, "use the keypoints of data of another body instead of refusing them")
    backbone: str = _flag("hybrid_lite0", "or dinov2_vits14, dinov2_vitb14, dinov2_vitl14, hrnet_w32 or _w48")
    image_size: int = _flag(320, "side of the square that the network looks at, in pixels")
    network: str = _flag("", "other fields of the network's config: head=iterative,refine=yes")
    init: str = _flag(
        "",
        "model to start from (its backbone, if of another family), random, or imagenet; else the backbone's "
        "public weights",
    )
    steps: int = _flag(30_000, "of the optimiser")
    batch_size: int = _flag(16, "pictures a step, of all processes together")
    accumulate: int = _flag(1, "batches into which a process cuts its share of a step, for want of memory")
    lr: float = _flag(5e-4, "learning rate after the warm-up")
    backbone_lr: float = _flag(0.5, "factor on it for what was pretrained")
    warmup: int = _flag(300, "steps")
    weight_decay: float = _flag(0.02, "of matrices")
    clip: float = _flag(5.0, "norm to which gradients are cut")
    ema: float = _flag(0.999, "memory of the averaged weights, which are the ones written out")
    freeze_stages: int = _flag(3, "first stages of the hybrid's stem that stay as ImageNet left them")
    vertices: int = _flag(900, "of the body's vertices, how many the losses look at")
    read_joints: bool = _flag(True, "let the network read the body's joints off the patches (reader.py)")
    zoom: float = _flag(0.0, "share of pictures seen through another lens")
    person: float = _flag(0.0, "share of pictures cut to one person: small image sizes then show limbs")
    twins: bool = _flag(False, "show a glnet everybody in two crops, which should say the same place")
    roll: float = _flag(0.0, "share of pictures turned by up to 20 degrees")
    cover: float = _flag(0.0, "share of pictures with patches that hide parts of people")
    workers: int = _flag(1, "processes that read pictures, for each process that trains")
    seed: int = _flag(0, "of weights, order and augmentation")
    precision: str = _flag("bf16", "of the backbone: fp32, bf16 or fp16")
    recompute: bool = _flag(False, "keep less of the backbone in memory and compute it twice")
    save_seconds: float = _flag(60.0, "between checkpoints; what a killed run loses at most")
    log_every: int = _flag(20, "steps between notes in log.jsonl and TensorBoard")
    licence: str = _flag("unknown", "of the weights, written into their file")
    device: str = _flag("", "cpu, cuda, cuda:1, mps")
