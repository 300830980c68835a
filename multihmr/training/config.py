"""Training configuration: `TrainConfig`, whose fields are the flags of `multihmr train`.

Fields that were renamed are still read under their old names: see `RENAMED`.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

# Field of version 0.3, still read from flags, keyword arguments and saved configurations -> its name now.
RENAMED = {
    "backbone_lr": "backbone_lr_scale",
    "clip": "grad_clip_norm",
    "ema": "ema_decay",
    "recompute": "gradient_checkpointing",
    "zoom": "focal_jitter_prob",
    "person": "person_crop_prob",
    "roll": "rotation_prob",
    "cover": "occlusion_prob",
    "twins": "paired_crops",
}


def current_names(values: Mapping[str, Any]) -> dict[str, Any]:
    """Configuration values with the fields of older versions under their present names.

    Args:
        values: field -> value, as a keyword call, a flag parser or a saved configuration has them.

    Raises:
        ValueError: a field is given under both its old and its new name.
    """
    twice = [f"{old} and {RENAMED[old]}" for old in RENAMED if old in values and RENAMED[old] in values]
    if twice:
        raise ValueError(f"{', '.join(twice)} are one field of the training configuration; give the second")
    return {RENAMED.get(name, name): value for name, value in values.items()}


def _flag(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; every field is a flag of `multihmr train`."""

    data: str = field(
        metadata={
            "help": "training sources, comma separated: folders of shards from `multihmr generate`, names of "
            "data sets, background@FOLDER for pictures without people, synthetic@SEED for pictures rendered "
            "during training; with shares of the pictures: bedlam:0.6,data/train:0.4"
        }
    )
    root: str = _flag("data", "folder that holds the named data sets, each in a folder of its name")
    out: str = _flag("runs/multihmr", "output folder for checkpoints, logs and the final weights.safetensors")
    family: str = _flag(
        "multihmr", "model family: multihmr, or glnet for person crops (use --image-size 256)"
    )
    whole_body: bool = _flag(False, "glnet: hands and face guide the local encoding as parts of their own")
    body: str = _flag("anny", "body model, anny or smplx; data annotated with another body are refused")
    smplx: str = _flag("", "path of SMPLX_NEUTRAL.npz, for --body smplx")
    shape_count: int = _flag(10, "number of SMPL-X shape coefficients: 10 or 11")
    keypoints_only: bool = _flag(
        False, "use only the keypoints of data with another body instead of refusing them"
    )
    backbone: str = _flag(
        "hybrid_lite0", "hybrid_lite0, hybrid_lite2, dinov2_vits14, _vitb14, _vitl14, hrnet_w32 or _w48"
    )
    image_size: int = _flag(320, "side of the square network input in pixels")
    network: str = _flag("", "other fields of the network's config, e.g. head=iterative,refine=yes")
    init: str = _flag(
        "",
        "model to start from (only its backbone if it is of another family), random, or imagenet; by default "
        "the backbone's public weights",
    )
    steps: int = _flag(30_000, "number of optimizer steps")
    batch_size: int = _flag(16, "pictures per optimizer step, over all processes")
    accumulate: int = _flag(1, "gradient accumulation: batches per step and process, to save memory")
    lr: float = _flag(5e-4, "learning rate after the warm-up")
    backbone_lr_scale: float = _flag(0.5, "factor on the learning rate of pretrained layers")
    warmup: int = _flag(300, "steps of linear learning rate warm-up")
    weight_decay: float = _flag(0.02, "weight decay of matrices")
    grad_clip_norm: float = _flag(5.0, "gradients are clipped to this norm")
    ema_decay: float = _flag(0.999, "decay of the exponential moving average of weights, which is exported")
    freeze_stages: int = _flag(3, "number of first stages of the hybrid's stem that stay frozen")
    thaw_blocks: int = _flag(
        0,
        "number of last blocks of a MoveNet's trunk (at most 7) to train, with --backbone-lr-scale; its rest "
        "is frozen",
    )
    distillation_weight: float = _flag(
        20.0,
        "weight of the distance between the features from which a thawed MoveNet predicts its keypoints and "
        "those that it had before",
    )
    vertices: int = _flag(900, "number of body vertices used by the losses")
    read_joints: bool = _flag(True, "train the joint heatmap head (networks/joint_heatmaps.py)")
    focal_jitter_prob: float = _flag(0.0, "probability of a focal length change")
    person_crop_prob: float = _flag(
        0.0, "probability of a crop to one person, which shows limbs at small image sizes"
    )
    paired_crops: bool = _flag(
        False, "glnet: two crops per person and a loss on the distance between their predicted heads"
    )
    rotation_prob: float = _flag(0.0, "probability of an in-plane rotation by up to 20 degrees")
    full_rotation_prob: float = _flag(0.0, "probability of an in-plane rotation by any angle")
    camera_effects_prob: float = _flag(
        0.0, "probability of camera effects: tone curves, sharpening, blur, vignetting, JPEG"
    )
    occlusion_prob: float = _flag(0.0, "probability of patches that occlude parts of people")
    mirror_weight: float = _flag(
        0.0,
        "weight of the difference between the fields of view that are predicted for a picture without a "
        "known camera and for its mirror image",
    )
    shape_from_mesh: bool = _flag(
        True,
        "the shape also learns from errors of the posed mesh, which shrinks people with uncertain limbs; "
        "otherwise it learns from its parameters and from joints in the rest pose alone",
    )
    workers: int = _flag(1, "data loading processes per training process")
    seed: int = _flag(0, "random seed of weights, sample order and augmentation")
    precision: str = _flag("bf16", "precision of the backbone: fp32, bf16 or fp16")
    gradient_checkpointing: bool = _flag(
        False, "recompute backbone activations in the backward pass: less memory, more time"
    )
    save_seconds: float = _flag(60.0, "seconds between checkpoints, which a killed run loses at most")
    log_every: int = _flag(20, "steps between entries of log.jsonl and TensorBoard")
    licence: str = _flag("unknown", "licence of the weights, stored in their file")
    device: str = _flag("", "cpu, cuda, cuda:1 or mps; by default the best available")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """The configuration that a checkpoint or a results file holds, of this version or an older one.

        Raises:
            ValueError: a field is unknown, or given twice.
        """
        values = current_names(values)
        unknown = sorted(set(values) - {entry.name for entry in fields(cls)})
        if unknown:
            raise ValueError(f"the training configuration has no field {', '.join(unknown)}")
        return cls(**values)

    def __getattr__(self, name: str) -> Any:
        if name not in RENAMED:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        _warn([name])
        return getattr(self, RENAMED[name])


def _warn(old: list[str]) -> None:
    for name in old:
        warnings.warn(
            f"TrainConfig.{name} is now {RENAMED[name]}; the old name goes in version 0.5",
            DeprecationWarning,
            stacklevel=3,
        )


_init = TrainConfig.__init__


@functools.wraps(_init)
def _init_with_old_names(self: TrainConfig, *args: Any, **values: Any) -> None:
    """The generated initialiser, which also takes RENAMED fields."""
    old = [name for name in values if name in RENAMED]
    if old:
        _warn(old)
        changed = {RENAMED[name]: values.pop(name) for name in old}
        values |= changed  # dataclasses.replace gives the present value beside the changed one
    _init(self, *args, **values)


TrainConfig.__init__ = _init_with_old_names  # type: ignore[method-assign]
