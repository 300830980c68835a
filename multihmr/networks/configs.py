"""Config classes of the networks, and changes to them by text, as `multihmr train --network` takes it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

Config = TypeVar("Config", bound=Any)

HEADS = ("perception", "iterative")
# Fields of configs under the names that checkpoints and flags of version 0.3 have
RENAMED_FIELDS = {"apart": "nms_3d_distance"}
MOVENETS = tuple(f"hybrid_movenet_{kind}" for kind in ("multipose", "thunder", "lightning"))
CAMERA_EMBEDDINGS = ("fourier", "linear", "none")

_TRUTH = {"yes": True, "true": True, "no": False, "false": False}


def changed(config: Config, settings: str) -> Config:
    """The config with other values, written as "head=iterative,people_attention=no".

    ValueError: no such field, or no value for it.
    """
    values: dict[str, Any] = {}
    for setting in filter(None, settings.split(",")):
        name, _, text = setting.strip().partition("=")
        name = RENAMED_FIELDS.get(name, name)
        kind = type(getattr(config, name, None))
        if kind is bool and text in _TRUTH:
            values[name] = _TRUTH[text]
        elif kind in (int, float, str) and text:
            values[name] = kind(text)
        else:
            fields = ", ".join(f for f, value in asdict(config).items() if not isinstance(value, tuple))
            raise ValueError(f"{setting!r} sets nothing of the network; expected NAME=VALUE of {fields}")
    return replace(config, **values)


@dataclass(frozen=True)
class MultiHMRConfig:
    """Architecture of Multi-HMR; stored as JSON in the checkpoint."""

    backbone: str = "hybrid_lite0"
    body: str = "anny"
    image_size: int = 320  # side of the square input [pixels]
    # Windows without padding: the sides are multiples of 32, the longer one is image_size. Hybrid backbones
    # only, which must be trained so; False pads every picture to a square.
    rectangular: bool = False
    ray_bands: int = 16
    head_width: int = 384
    head_depth: int = 2
    head_count: int = 8  # attention heads of 32 channels
    head_mlp_width: int = 768
    read_joints: tuple[int, ...] = ()  # of the body, with a joint heatmap head; () for none
    read_keypoints: bool = False  # give the head the keypoints of a MoveNet backbone
    align: bool = False  # align bodies to these keypoints after regression; not in training
    # exponent of a person's keypoint evidence in the score: detections without visible keypoints score less
    keypoint_score: float = 0.0
    refine: bool = False  # local refinement: features around the regressed joints correct the estimate
    nms_kernel: int = 3  # cells around a better-scored one are suppressed, unless:
    # Distance [m] across the line of sight, or ratio - 1 of depths, from which two cells are two people
    # (detection.nms_3d); None leaves it to nms_kernel. The paper's design cannot distinguish people in
    # neighbouring cells; after regression their positions can.
    nms_3d_distance: tuple[float, float] | None = None
    threshold: float = 0.3  # score above which a cell is a person, when the caller does not say
    # Margin, in sides of the image, with which an image where no people are found is predicted once more, for
    # people who are too near to fit into it; 0 for no second pass.
    closeup_margin: float = 0.0
    # Compute as the SMPL-X checkpoints of 2024 do, where weights cannot make up for the difference: rays with
    # rows and columns swapped, self-attention before cross-attention, no norm at the end, the focal length in
    # the exponent of the depth, no camera of the network's own (60 degrees), their own resizing of pictures.
    released: bool = False
    unpredicted: tuple[str, ...] = ()  # joints and facial actions that never moved in training
    # What the paper's ablations change
    head: str = "perception"  # or "iterative": a regressor of a person's own cell alone
    iterations: int = 3  # of that regressor
    people_attention: bool = True  # self-attention among people
    camera_embedding: str = "fourier"  # of rays, "linear" (rays as they are), or "none"

    def __post_init__(self) -> None:
        for field, known in (("head", HEADS), ("camera_embedding", CAMERA_EMBEDDINGS)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {getattr(self, field)!r}")
        if self.rectangular and (not self.backbone.startswith("hybrid_") or self.released):
            raise ValueError(f"rectangular windows need a hybrid backbone, got {self.backbone!r}")
        if self.rectangular and self.image_size % 32:
            raise ValueError(
                f"rectangular windows need image sizes that are multiples of 32, got {self.image_size}"
            )
        if (self.read_keypoints or self.align) and self.backbone not in MOVENETS:
            raise ValueError(
                f"read_keypoints and align need a backbone with keypoint heads, {', '.join(MOVENETS)}; "
                f"got {self.backbone!r}"
            )

    def changed(self, settings: str) -> MultiHMRConfig:
        """This config with other values, written as "head=iterative,people_attention=no".

        ValueError: no such field, or no value for it.
        """
        return changed(self, settings)


@dataclass(frozen=True)
class MultiHMRAnnyConfig:
    """Architecture of Multi-HMR on Anny as released in 2026; stored as JSON in the checkpoint."""

    backbone: str = "dinov2_vitl14"
    image_size: int = 672  # side of the square input [pixels]
    head_width: int = 512
    head_depth: int = 8
    head_count: int = 16  # attention heads
    head_mlp_width: int = 2048
    nms_kernel: int = 3
    threshold: float = 0.3  # score above which a cell is a person, when the caller does not say
    unpredicted: tuple[str, ...] = ()  # joints that never moved in training


_CHOICES = {
    "guidance": ("keypoints", "roi"),
    "matching": ("adaptive", "fixed"),
    "cost": ("2d", "2d+depth", "2d+depth+rotation"),
    "camera_embedding": CAMERA_EMBEDDINGS,
}


@dataclass(frozen=True)
class GLNetConfig:
    """Architecture of GLNet; stored as JSON in the checkpoint."""

    backbone: str = "hybrid_lite0"
    body: str = "anny"
    image_size: int = 256  # side of a crop [pixels]
    # of each body part: (joints around which features are sampled, rotations that they correct)
    parts: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...] = ()
    width: int = 256  # features of a pixel
    local_width: int = 128  # features of a keypoint
    head_count: int = 4
    points: int = 4  # sampling points per head and map
    camera_embedding: str = "linear"  # of rays: glnet_parameters.py removes most of the camera's effect
    # What the paper's ablations change
    local: bool = True  # 2D-keypoint-guided local encoding
    guidance: str = "keypoints"  # or "roi": squares of fixed size around them, without learned places
    decomposed: bool = False  # rotations follow from joints and twists (bodies/swing_twist.py)
    layout: bool = False  # give the local stage the offsets between keypoints (not in the paper)
    candidates: int = 1  # best pixels that enter the local stage, whose score picks one
    # How pixels are chosen in training (training/glnet_loss.py)
    matching: str = "adaptive"  # or "fixed": those near the middle of the person
    positives: int = 20  # K, pixels assigned to a person
    cost: str = "2d"  # or "2d+depth", "2d+depth+rotation"
    bodies: int = 8  # of the positives, how many have a mesh loss: bodies cost most
    unpredicted: tuple[str, ...] = ()  # joints and facial actions that never moved in training

    def __post_init__(self) -> None:
        for field, known in _CHOICES.items():
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {getattr(self, field)!r}")
        if not self.parts:
            raise ValueError("a GLNet needs the parts of its body; bodies.parts.guiding_parts gives them")
        for field in ("candidates", "positives", "bodies"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")

    @property
    def keypoints(self) -> tuple[int, ...]:
        """The joints of the body that guide."""
        return tuple(sorted({joint for guides, _ in self.parts for joint in guides}))

    def changed(self, settings: str) -> GLNetConfig:
        """This config with other values, written as "local=no,positives=50"; ValueError: no such field."""
        return changed(self, settings)
