"""Multi-HMR: all people of an image in one forward pass (Baradel et al., ECCV 2024, arXiv 2402.14654).

Legend of shape suffixes: B images, P people of the batch, Q people padded per image, N patches, h w grid,
D features, R rotations, S shape, E expression.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..bodies.base import Body
from ..geometry import DEFAULT_FOV_DEG, code_to_depth, released_code_to_depth
from ..preprocessing.letterbox import Letterbox
from .alignment.gauss_newton import Alignment
from .alignment.keypoints import KeypointReader, Keypoints, find_keypoints
from .backbones.base import Content, Features
from .backbones.timm_backbones import create_backbone
from .base import Network, Predictions, own_camera
from .camera_embedding import RayEmbedding
from .configs import MultiHMRConfig
from .detection import Centers, find_centers, nms_3d, nms_3d_fixed, topk_centers
from .human_perception_head import IterativeHead, PerceptionHead
from .joint_heatmaps import JointHead, JointReading
from .refinement import CoarseParams, Refinement, in_window

CELLS_A_PERSON = 4
WINDOW_MULTIPLE = 32  # sides of rectangular windows: the coarsest stride of the hybrid backbones
HEADS = {"perception": PerceptionHead, "iterative": IterativeHead}  # by `config.head`


class _EncodedBatch(NamedTuple):
    """Encoder outputs of a batch of images, before detection."""

    features: Features
    logits_Bhw: Tensor
    fov_B: Tensor
    K_B33: Tensor  # that is used


class MultiHMR(Network):
    """Multi-HMR: backbone, head-centre detection, camera embedding, Human Perception Head, body.

    Args:
        config: its sizes.
        body: the parametric body that it drives; not part of the weights.
        pretrained: start the backbone from public weights (training only): its own, or those of "imagenet".
    """

    family = "multihmr"
    # Whether gradients of the posed mesh reach the shape. Where limbs are uncertain, smaller people have
    # smaller errors, so that a shape that learns from its mesh shrinks.
    shape_from_mesh = True

    def __init__(self, config: MultiHMRConfig, body: Body, *, pretrained: bool | str = False) -> None:
        super().__init__(body)
        self.config = config
        self.backbone = create_backbone(config.backbone, image_size=config.image_size, pretrained=pretrained)
        width = self.backbone.width
        self.to_score = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))
        nn.init.constant_(self.to_score[2].get_parameter("bias"), -4.6)  # prior: one cell in a hundred
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
        self.reader = JointHead(width, joints, config.head_width, fine) if joints else None
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
        contents: Sequence[Content] | None = None,
    ) -> Predictions:
        """Predictions for a batch of windows of one shape, RGB in [0, 1].

        Args:
            images_B3HW: squares with sides of `config.image_size` pixels; with `config.rectangular` also
                windows whose longer side is that and whose sides are multiples of 32.
            K_B33: intrinsics in pixels of these windows; where it is None or NaN the network's own is used.
            centers: the cells of the true people, in training; otherwise people are found in the heatmap.
            threshold: least score of a person; None takes the checkpoint's.
            max_people: keep the best of each image.
            contents: left, top, right, bottom of what each window shows of its image [pixels], for
                `backbone.padding == "thin"`; without it nothing counts as padding.
        """
        seen = self._encode(images_B3HW, K_B33, contents)
        sought = centers is None
        if centers is None:
            centers = self._find(seen.logits_Bhw, threshold, max_people)
            if not len(centers) and not torch.is_grad_enabled():
                return self.empty(centers, K_B33=seen.K_B33, logits_Bhw=seen.logits_Bhw, fov_B=seen.fov_B)
        guess, reading, found = self._decode(seen, centers)
        if sought and found is not None and self.config.keypoint_score:
            centers = replace(centers, scores_P=self._scored(centers, found))
            keep_P = centers.scores_P >= self._nms_args(threshold)["threshold"]
            guess, centers, reading = guess.of(keep_P), centers[keep_P], None
            found = found.of(keep_P)
        if sought and self.config.nms_3d_distance is not None:
            places_P3 = self._place(guess, centers, seen.K_B33)
            keep_P = nms_3d(
                places_P3, centers, nms_3d_distance=self.config.nms_3d_distance, at_most=max_people
            )
            guess, centers, reading = guess.of(keep_P), centers[keep_P], None
            found = None if found is None else found.of(keep_P)
        return self._refine_and_assemble(seen, guess, centers, reading, found)

    def forward_fixed(
        self,
        images_B3HW: Tensor,
        K_B33: Tensor | None = None,
        *,
        people: int,
        threshold: float | None = None,
        contents: Sequence[Content] | None = None,
    ) -> Predictions:
        """What `forward` predicts with `max_people=people`, in shapes that do not depend on the content.

        The centers are `FixedCenters`: `people` per image, fewer where the grid has fewer cells, best first,
        and a mask of the valid ones. The rest of the arguments is as in `forward`.
        """
        seen = self._encode(images_B3HW, K_B33, contents)
        nms_3d_distance = self.config.nms_3d_distance
        slots = topk_centers(
            self._scores(seen.logits_Bhw),
            CELLS_A_PERSON * people if nms_3d_distance else people,
            **self._nms_args(threshold),
        )
        guess, _, found = self._decode(seen, slots)
        if found is not None and self.config.keypoint_score:
            scores_BQ = self._scored(slots, found).unflatten(0, slots.mask_BQ.shape)
            mask_BQ = slots.mask_BQ & (scores_BQ >= self._nms_args(threshold)["threshold"])
            slots = replace(slots, scores_P=scores_BQ.flatten(), mask_BQ=mask_BQ)
            best = torch.where(mask_BQ, scores_BQ, scores_BQ.new_zeros(())).topk(mask_BQ.shape[1], dim=1)
            slots, kept_P = slots.picked(best.indices, best.values > 0, torch.zeros_like(slots.full_B))
            guess, found = guess.of(kept_P), found.of(kept_P)
        if nms_3d_distance is not None:
            places_P3 = self._place(guess, slots, seen.K_B33)
            slots, kept_P = nms_3d_fixed(places_P3, slots, nms_3d_distance=nms_3d_distance, at_most=people)
            guess, found = guess.of(kept_P), None if found is None else found.of(kept_P)
        return self._refine_and_assemble(seen, guess, slots, found=found)

    def _encode(
        self, images_B3HW: Tensor, K_B33: Tensor | None, contents: Sequence[Content] | None = None
    ) -> _EncodedBatch:
        """Backbone features, detection heatmap and camera of a batch of images."""
        height, width = images_B3HW.shape[-2:]
        self._check_window(height, width)
        features = self.backbone(images_B3HW, contents)
        logits_Bhw = self.to_score(features.grid_BDhw.movedim(1, -1))[..., 0]
        fov_B = self._fov(features.global_BD)
        return _EncodedBatch(features, logits_Bhw, fov_B, own_camera(fov_B, K_B33, (height, width)))

    def _check_window(self, height: int, width: int) -> None:
        """ValueError: the network takes no window of this shape."""
        size = self.config.image_size
        if (height, width) == (size, size):
            return
        if not self.config.rectangular:
            raise ValueError(f"this network takes windows of {size}x{size} pixels, got {height}x{width}")
        if max(height, width) != size or height % WINDOW_MULTIPLE or width % WINDOW_MULTIPLE:
            raise ValueError(
                f"this network takes windows whose longer side is {size} pixels and whose sides are "
                f"multiples of {WINDOW_MULTIPLE}, got {height}x{width}"
            )

    def _decode(
        self, seen: _EncodedBatch, centers: Centers
    ) -> tuple[CoarseParams, JointReading | None, Keypoints | None]:
        """Parameters of the people in these cells, before refinement."""
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
        return CoarseParams(pose_PR33, shape_PS, expression_PE, depth_code_P, offset_P2), reading, found

    def _refine_and_assemble(
        self,
        seen: _EncodedBatch,
        guess: CoarseParams,
        centers: Centers,
        reading: JointReading | None = None,
        found: Keypoints | None = None,
    ) -> Predictions:
        """The people of coarse parameters after local refinement, placed in the camera frame."""
        coarse_PJ3 = None
        if self.refinement is not None:
            coarse_PJ3 = self.refinement.joints_of(guess, self._place(guess, centers, seen.K_B33))
            places_PJ2 = in_window(coarse_PJ3, seen.K_B33[centers.image_index_P], self.config.image_size)
            guess = self.refinement(guess, coarse_PJ3, places_PJ2, seen.features, centers)
        if self.alignment is not None and found is not None and not torch.is_grad_enabled():
            guess = self._align(seen, guess, centers, found)
        shape_PS = guess.shape_PS if self.shape_from_mesh else guess.shape_PS.detach()
        predictions = self.assemble(
            (guess.pose_PR33, shape_PS, guess.expression_PE),
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
        return replace(predictions, shape_PS=guess.shape_PS)

    def _align(
        self, seen: _EncodedBatch, guess: CoarseParams, centers: Centers, found: Keypoints
    ) -> CoarseParams:
        """The people aligned to their detected keypoints."""
        assert self.alignment is not None
        heads_P3 = self._place(guess, centers, seen.K_B33)
        K_P33 = seen.K_B33[centers.image_index_P]
        size = self.config.image_size
        return self.alignment(guess, heads_P3, found, centers, K_P33, patch=self.backbone.patch, size=size)

    def _scored(self, centers: Centers, found: Keypoints) -> Tensor:
        """(P,) scores of people, lower where few of their keypoints are visible."""
        return centers.scores_P * found.evidence_P.pow(self.config.keypoint_score)

    def _depth(self, guess: CoarseParams, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P,) depths of heads [m]."""
        to_depth = released_code_to_depth if self.config.released else code_to_depth
        return to_depth(guess.depth_code_P, K_B33[centers.image_index_P, 0, 0], self.config.image_size)

    def _place(self, guess: CoarseParams, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P, 3) positions of heads [m]."""
        return self.head_positions(self._depth(guess, centers, K_B33), guess.offset_P2, centers, K_B33)

    def _find(self, logits_Bhw: Tensor, threshold: float | None, max_people: int | None) -> Centers:
        nms_3d_distance = self.config.nms_3d_distance is not None
        # One person activates several cells, of which one is kept later.
        at_most = CELLS_A_PERSON * max_people if nms_3d_distance and max_people is not None else max_people
        return find_centers(self._scores(logits_Bhw), max_people=at_most, **self._nms_args(threshold))

    def _nms_args(self, threshold: float | None) -> dict[str, Any]:
        """Threshold and NMS kernel, as `find_centers` and `topk_centers` take them."""
        return {
            "threshold": self.config.threshold if threshold is None else threshold,
            "nms_kernel": self.config.nms_kernel if self.config.nms_3d_distance is None else 1,
        }

    def letterbox(self, height: int, width: int, *, square: bool = False) -> Letterbox:
        if self.config.released:
            return Letterbox.official_2024(height, width, self.config.image_size)
        if self.config.rectangular and not square:
            return Letterbox.rectangle(height, width, self.config.image_size, WINDOW_MULTIPLE)
        return super().letterbox(height, width, square=True)

    @property
    def own_camera_source(self) -> str:
        return "assumed" if self.to_fov is None else "predicted"

    def field_of_view(self, images_B3HW: Tensor) -> Tensor:
        """(B,) field of view [rad] over the longer side of each window, as the network predicts it."""
        return self._fov(self.backbone(images_B3HW).global_BD)

    def _fov(self, global_BD: Tensor) -> Tensor:
        if self.to_fov is None:
            return global_BD.new_full((global_BD.shape[0],), math.radians(DEFAULT_FOV_DEG))
        return math.pi * torch.sigmoid(self.to_fov(global_BD))[:, 0]

    def _scores(self, logits_Bhw: Tensor) -> Tensor:
        scores_Bhw = logits_Bhw.sigmoid()
        # The released checkpoints clamp scores before NMS, so that two neighbours of 0.9999 are both kept.
        return scores_Bhw.clamp(1e-4, 1 - 1e-4) if self.config.released else scores_Bhw
