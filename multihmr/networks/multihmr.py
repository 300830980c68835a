"""Multi-HMR: every person of a picture in one pass (Baradel et al., ECCV 2024, arXiv 2402.14654).

Legend of shape suffixes: B images, P people of the batch, Q people padded per image, N patches, h w grid,
D features, R rotations, S shape, E expression.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..bodies.body import Body
from ..geometry import DEFAULT_FOV_DEG, code_to_depth, released_code_to_depth
from ..image import Window
from ..model import Model, Predictions, own_camera
from .alignment import Alignment
from .backbones import create_backbone
from .centers import Centers, best_cells, different_people, different_slots, find_centers
from .features import Features
from .heads import HEADS
from .keypoints import KeypointReader, Keypoints, find_keypoints
from .movenet import MOVENETS
from .rays import CAMERA_EMBEDDINGS, RayEmbedding
from .reader import JointReader, JointReading
from .refine import Guess, Refinement, in_window
from .settings import changed

CELLS_A_PERSON = 4


@dataclass(frozen=True)
class MultiHMRConfig:
    """Everything that rebuilds the network around its weights; kept as JSON in the checkpoint."""

    backbone: str = "hybrid_lite0"
    body: str = "anny"
    image_size: int = 320  # side of the square that the network looks at [pixels]
    ray_bands: int = 16
    head_width: int = 384
    head_depth: int = 2
    head_count: int = 8  # attention heads of 32 channels
    head_mlp_width: int = 768
    read_joints: tuple[int, ...] = ()  # of the body, that the head reads off the patches (reader.py); none
    read_keypoints: bool = False  # tell the head the keypoints that a MoveNet backbone sees (keypoints.py)
    align: bool = False  # turn limbs until the body lies on these keypoints (alignment.py); not in training
    # To which power the keypoints of a person count in the score: who has none in sight is nobody, rather
    keypoint_score: float = 0.0
    refine: bool = False  # look again around the joints of what was regressed, and correct it (refine.py)
    nms_kernel: int = 3  # cells around a better-scored one are nobody, unless:
    # how far [m] across the line of sight, or in which ratio - 1 of depths, two cells stand apart that show
    # two people (centers.different_people); None leaves it to nms_kernel. The paper's design cannot tell
    # people in neighbouring cells apart; after regression it can be seen where they stand.
    apart: tuple[float, float] | None = None
    threshold: float = 0.3  # score above which a cell is a person, when the caller does not say
    # Compute as the SMPL-X checkpoints of 2024 do, where weights cannot make up for the difference: rays with
    # rows and columns swapped, people who look at each other first, no norm at the end, the focal length in
    # the exponent of the depth, no camera of the network's own (60 degrees), their own resizing of pictures.
    released: bool = False
    unpredicted: tuple[str, ...] = ()  # joints and facial actions that never moved in training
    # What the paper's ablations change
    head: str = "perception"  # or "iterative": a regressor that sees a person's own cell alone (heads.py)
    iterations: int = 3  # of that regressor
    people_attention: bool = True  # whether people look at each other
    camera_embedding: str = "fourier"  # of rays, "linear" (rays as they are), or "none" (rays.py)

    def __post_init__(self) -> None:
        for field, known in (("head", HEADS), ("camera_embedding", CAMERA_EMBEDDINGS)):
            if getattr(self, field) not in known:
                raise ValueError(f"{field} must be one of {', '.join(known)}, got {getattr(self, field)!r}")
        if (self.read_keypoints or self.align) and self.backbone not in MOVENETS:
            raise ValueError(
                f"read_keypoints and align need a backbone that sees keypoints, {', '.join(MOVENETS)}; "
                f"got {self.backbone!r}"
            )

    def changed(self, settings: str) -> MultiHMRConfig:
        """This config with other values, written as "head=iterative,people_attention=no".

        ValueError: no such field, or no value for it.
        """
        return changed(self, settings)


class _Seen(NamedTuple):
    """A batch of pictures, whoever is in them."""

    features: Features
    logits_Bhw: Tensor
    fov_B: Tensor
    K_B33: Tensor  # that is used


class MultiHMR(Model):
    """ViT features, head centres, camera rays, Human Perception Head, body: the whole network.

    Args:
        config: its sizes.
        body: the parametric body that it drives; not part of the weights.
        pretrained: start the backbone from public weights (training only): its own, or those of "imagenet".
    """

    family = "multihmr"

    def __init__(self, config: MultiHMRConfig, body: Body, *, pretrained: bool | str = False) -> None:
        super().__init__(body)
        self.config = config
        self.backbone = create_backbone(config.backbone, image_size=config.image_size, pretrained=pretrained)
        width = self.backbone.width
        self.to_score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        nn.init.constant_(self.to_score[2].get_parameter("bias"), -4.6)  # one cell in a hundred holds a head
        self.to_offset = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 2))
        self.to_fov = (
            None
            if config.released
            else nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        )
        self.rays = RayEmbedding(config.ray_bands, config.camera_embedding, swapped=config.released)
        grid_size = config.image_size // self.backbone.patch
        joints = len(config.read_joints)
        fine = self.backbone.fine_width
        self.reader = JointReader(width, joints, config.head_width, fine) if joints else None
        self.alignment = Alignment(body, config.read_joints) if config.align else None
        self.keypoint_reader = KeypointReader(config.head_width) if config.read_keypoints else None
        self.refinement = (
            Refinement(
                config.read_joints or range(len(body.topology.joint_names)),
                body,
                map_widths=self.backbone.map_widths,
                grid_width=width,
            )
            if config.refine
            else None
        )
        make_head = HEADS[config.head]
        self.head = make_head(config, width + self.rays.width, grid_size, body)

    def forward(
        self,
        images_B3HW: Tensor,
        K_B33: Tensor | None = None,
        *,
        centers: Centers | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
    ) -> Predictions:
        """Predictions for a batch of square windows, RGB in [0, 1].

        Args:
            images_B3HW: sides of `config.image_size` pixels.
            K_B33: intrinsics in pixels of these windows; where it is None or NaN the network's own is used.
            centers: the cells of the true people, in training; otherwise people are found in the heatmap.
            threshold: least score of a person; None takes the checkpoint's.
            max_people: keep the best of each image.
        """
        seen = self._see(images_B3HW, K_B33)
        sought = centers is None
        if centers is None:
            centers = self._find(seen.logits_Bhw, threshold, max_people)
            if not len(centers) and not torch.is_grad_enabled():
                return self.nobody(centers, K_B33=seen.K_B33, logits_Bhw=seen.logits_Bhw, fov_B=seen.fov_B)
        guess, reading, found = self._regress(seen, centers)
        if sought and found is not None and self.config.keypoint_score:
            centers = replace(centers, scores_P=self._scored(centers, found))
            keep_P = centers.scores_P >= self._rule(threshold)["threshold"]
            guess, centers, reading = guess.of(keep_P), centers[keep_P], None
            found = found.of(keep_P)
        if sought and self.config.apart is not None:
            places_P3 = self._place(guess, centers, seen.K_B33)
            keep_P = different_people(places_P3, centers, apart=self.config.apart, at_most=max_people)
            guess, centers, reading = guess.of(keep_P), centers[keep_P], None
            found = None if found is None else found.of(keep_P)
        return self._answer(seen, guess, centers, reading, found)

    def fixed(
        self,
        images_B3HW: Tensor,
        K_B33: Tensor | None = None,
        *,
        people: int,
        threshold: float | None = None,
    ) -> Predictions:
        """What `forward` predicts with `max_people=people`, in shapes that do not depend on what is seen.

        The centers are `Slots`: `people` an image, fewer where the grid has fewer cells, best first, and a
        mask of those that are somebody. The rest of the arguments is as in `forward`.
        """
        seen = self._see(images_B3HW, K_B33)
        apart = self.config.apart
        slots = best_cells(
            self._scores(seen.logits_Bhw),
            CELLS_A_PERSON * people if apart else people,
            **self._rule(threshold),
        )
        guess, _, found = self._regress(seen, slots)
        if found is not None and self.config.keypoint_score:
            scores_BQ = self._scored(slots, found).unflatten(0, slots.mask_BQ.shape)
            mask_BQ = slots.mask_BQ & (scores_BQ >= self._rule(threshold)["threshold"])
            slots = replace(slots, scores_P=scores_BQ.flatten(), mask_BQ=mask_BQ)
            best = torch.where(mask_BQ, scores_BQ, scores_BQ.new_zeros(())).topk(mask_BQ.shape[1], dim=1)
            slots, kept_P = slots.picked(best.indices, best.values > 0, torch.zeros_like(slots.full_B))
            guess, found = guess.of(kept_P), found.of(kept_P)
        if apart is not None:
            places_P3 = self._place(guess, slots, seen.K_B33)
            slots, kept_P = different_slots(places_P3, slots, apart=apart, at_most=people)
            guess, found = guess.of(kept_P), None if found is None else found.of(kept_P)
        return self._answer(seen, guess, slots, found=found)

    def _see(self, images_B3HW: Tensor, K_B33: Tensor | None) -> _Seen:
        """What is seen before anybody is looked for."""
        size = self.config.image_size
        if tuple(images_B3HW.shape[-2:]) != (size, size):
            raise ValueError(f"this network looks at {size}x{size} windows, got {tuple(images_B3HW.shape)}")
        features = self.backbone(images_B3HW)
        logits_Bhw = self.to_score(features.grid_BDhw.movedim(1, -1))[..., 0]
        fov_B = self._fov(features.global_BD)
        return _Seen(features, logits_Bhw, fov_B, own_camera(fov_B, K_B33, size))

    def _regress(
        self, seen: _Seen, centers: Centers
    ) -> tuple[Guess, JointReading | None, Keypoints | None]:
        """The people in these cells, at a first look."""
        grid_BDhw = seen.features.grid_BDhw
        rays_BDhw = self.rays(seen.K_B33, *grid_BDhw.shape[-2:], self.backbone.patch)
        context_BDhw = torch.cat([grid_BDhw, rays_BDhw], dim=1)
        offset_P2 = self.to_offset(centers.gather(grid_BDhw))
        known_PD, reading = None, None
        if self.reader is not None:
            heads_P2 = centers.heads(offset_P2).detach() * self.backbone.patch / self.config.image_size
            known_PD, reading = self.reader(grid_BDhw, seen.features.fine_BDhw, centers, heads_P2)
        found = None
        if self.keypoint_reader is not None or self.alignment is not None:
            heads_P2 = centers.heads(offset_P2).detach() * self.backbone.patch
            found = find_keypoints(seen.features.scales[-1], centers, heads_P2)
        if self.keypoint_reader is not None and found is not None:
            K_P33 = seen.K_B33[centers.image_index_P]
            told_PD = self.keypoint_reader(found, heads_P2, K_P33, self.config.image_size)
            known_PD = told_PD if known_PD is None else known_PD + told_PD
        pose_PR33, shape_PS, expression_PE, depth_code_P = self.head(context_BDhw, centers, known_PD)
        return Guess(pose_PR33, shape_PS, expression_PE, depth_code_P, offset_P2), reading, found

    def _answer(
        self,
        seen: _Seen,
        guess: Guess,
        centers: Centers,
        reading: JointReading | None = None,
        found: Keypoints | None = None,
    ) -> Predictions:
        """The people of a guess, after the second look, standing in space."""
        coarse_PJ3 = None
        if self.refinement is not None:
            coarse_PJ3 = self.refinement.joints_of(guess, self._place(guess, centers, seen.K_B33))
            places_PJ2 = in_window(coarse_PJ3, seen.K_B33[centers.image_index_P], self.config.image_size)
            guess = self.refinement(guess, coarse_PJ3, places_PJ2, seen.features, centers)
        if self.alignment is not None and found is not None and not torch.is_grad_enabled():
            guess = self._align(seen, guess, centers, found)
        return self.stand(
            guess[:3],
            self._depth(guess, centers, seen.K_B33),
            guess.offset_P2,
            centers=centers,
            K_B33=seen.K_B33,
            depth_code_P=guess.depth_code_P,
            logits_Bhw=seen.logits_Bhw,
            fov_B=seen.fov_B,
            reading=reading,
            coarse_PJ3=coarse_PJ3,
        )

    def _align(self, seen: _Seen, guess: Guess, centers: Centers, found: Keypoints) -> Guess:
        """The people of a guess, moved onto the keypoints that are seen."""
        assert self.alignment is not None
        heads_P3 = self._place(guess, centers, seen.K_B33)
        K_P33 = seen.K_B33[centers.image_index_P]
        size = self.config.image_size
        return self.alignment(guess, heads_P3, found, centers, K_P33, patch=self.backbone.patch, size=size)

    def _scored(self, centers: Centers, found: Keypoints) -> Tensor:
        """(P,) scores of people, less where few of their keypoints are seen."""
        return centers.scores_P * found.evidence_P.pow(self.config.keypoint_score)

    def _depth(self, guess: Guess, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P,) of heads [m]."""
        to_depth = released_code_to_depth if self.config.released else code_to_depth
        return to_depth(guess.depth_code_P, K_B33[centers.image_index_P, 0, 0], self.config.image_size)

    def _place(self, guess: Guess, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P, 3) of heads [m]."""
        return self.places(self._depth(guess, centers, K_B33), guess.offset_P2, centers, K_B33)

    def _find(self, logits_Bhw: Tensor, threshold: float | None, max_people: int | None) -> Centers:
        apart = self.config.apart is not None
        # One person lights up some cells, of which but one is kept later.
        at_most = CELLS_A_PERSON * max_people if apart and max_people is not None else max_people
        return find_centers(self._scores(logits_Bhw), max_people=at_most, **self._rule(threshold))

    def _rule(self, threshold: float | None) -> dict[str, Any]:
        """Which cells are people: as `find_centers` and `best_cells` take it."""
        return {
            "threshold": self.config.threshold if threshold is None else threshold,
            "nms_kernel": self.config.nms_kernel if self.config.apart is None else 1,
        }

    def window(self, height: int, width: int) -> Window:
        if self.config.released:
            return Window.released(height, width, self.config.image_size)
        return super().window(height, width)

    @property
    def own_camera_source(self) -> str:
        return "assumed" if self.to_fov is None else "predicted"

    def _fov(self, global_BD: Tensor) -> Tensor:
        if self.to_fov is None:
            return global_BD.new_full((global_BD.shape[0],), math.radians(DEFAULT_FOV_DEG))
        return math.pi * torch.sigmoid(self.to_fov(global_BD))[:, 0]

    def _scores(self, logits_Bhw: Tensor) -> Tensor:
        scores_Bhw = logits_Bhw.sigmoid()
        # Theirs are clamped before the maximum is looked for, so that two of 0.9999 side by side both stay.
        return scores_Bhw.clamp(1e-4, 1 - 1e-4) if self.config.released else scores_Bhw
