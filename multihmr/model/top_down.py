"""`TopDownModel`: predicts one person per box, from crops of the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..geometry import default_intrinsics
from ..humans import Humans, nearest_first
from ..networks.base import Network
from ..postprocessing import flip_test as flipping
from ..preprocessing.boxes import check_boxes
from ..preprocessing.image import LoadedImage
from ..preprocessing.person_crops import Scene, boxes_of, crops
from ..runtime.spinning import limit_spinning_if_busy
from .base import Model
from .limbs import finds_keypoints, same_parameters
from .options import Camera, PredictOptions
from .preparation import prepare_network
from .whole_image import assemble_humans

CROPS_PER_IMAGE = 4  # batch_size times as many crops are computed at once; they are small


class TopDownModel(Model):
    """Predicts one person per box, from the crop around it; without boxes a detector finds the people.

    Attributes:
        detector: the model that finds people, and predicts the camera, where these are not given.

    Examples:
        >>> from multihmr import load_model
        >>> model = load_model("glnet-anny-hybrid")
        >>> boxes = load_model().predict("street.jpg").boxes  # or from a detector of yours
        >>> len(model.predict("street.jpg", boxes=boxes)) == len(boxes)
        True
    """

    top_down = True

    def __init__(
        self,
        network: Network,
        *,
        licence: str = "unknown",
        load_detector: Callable[..., Model] | None = None,
    ) -> None:
        """load_detector(device=...) gives the detector when it is first needed."""
        super().__init__(network, licence=licence)
        self.load_detector = load_detector
        self._detector: Model | None = None

    @classmethod
    def _holding(cls, network: Network, licence: str) -> Model:
        return cls(network, licence=licence, load_detector=load_bundled_detector)

    @property
    def detector(self) -> Model:
        """The model that finds people; ValueError if there is none."""
        if self._detector is None:
            if self.load_detector is None:
                raise ValueError(
                    "this model computes crops and has no detector: give boxes, or load it with load_model, "
                    "which lends it the bundled Multi-HMR"
                )
            self._detector = self.load_detector(device=self.device)
        return self._detector

    @property
    def threshold(self) -> float:
        """Least score of a person who is found without boxes: the detector's own."""
        return self.detector.threshold

    def _keypoint_source(self) -> Model | None:
        """The detector, if it finds keypoints and has the same body."""
        if self._detector is None and self.load_detector is None:
            return None
        detector = self.detector
        alike = same_parameters(self.body.topology, detector.body.topology)
        return detector if alike and finds_keypoints(detector) else None

    def _check_takes_boxes(self) -> None:
        """Boxes are taken."""

    def _predict_loaded(
        self,
        images: Sequence[LoadedImage],
        cameras: Sequence[Camera],
        boxes: Sequence[Any],
        options: PredictOptions,
    ) -> list[Humans]:
        tables = [
            None if table is None else check_boxes(table, *image.pixels.shape[:2])
            for image, table in zip(images, boxes, strict=True)
        ]
        scenes = self._scenes(images, cameras, tables, options)
        return self._people_of(scenes, options)

    def _scenes(
        self,
        images: Sequence[LoadedImage],
        cameras: Sequence[Camera],
        boxes: Sequence[np.ndarray | None],
        options: PredictOptions,
    ) -> list[Scene]:
        """Images with cameras and boxes; the detector provides missing ones."""
        cameras, tables = list(cameras), list(boxes)
        scores: list[np.ndarray | None] = [None] * len(images)
        if self._detector is None and self.load_detector is None:  # boxes do without
            for i, table in enumerate(tables):
                if table is not None and cameras[i][0] is None:
                    cameras[i] = default_intrinsics(*images[i].pixels.shape[:2]), "assumed"
        for known in (False, True):  # whether the boxes are; if so, the camera alone is asked for
            asked = [
                i
                for i, table in enumerate(boxes)
                if (table is not None) == known and (not known or cameras[i][0] is None)
            ]
            most = 0 if known else options.max_people
            detected = self._detect([images[i] for i in asked], [cameras[i] for i in asked], most, options)
            for i, humans in zip(asked, detected, strict=True):
                if cameras[i][0] is None:
                    cameras[i] = torch.from_numpy(humans.K.copy()), humans.K_source
                if not known:
                    tables[i], scores[i] = boxes_of(humans), humans.scores
        scenes = []
        for image, (K, source), table, score in zip(images, cameras, tables, scores, strict=True):
            assert K is not None
            assert table is not None
            scenes.append(Scene(image, K, source, table, score))
        return scenes

    def _detect(
        self,
        images: Sequence[LoadedImage],
        cameras: Sequence[Camera],
        max_people: int | None,
        options: PredictOptions,
    ) -> list[Humans]:
        """Detections in the images, at most `max_people` in each."""
        if not images:
            return []
        return self.detector.predict_batch(
            images,
            [K for K, _ in cameras],
            threshold=options.threshold,
            max_people=max_people,
            tiles=1 if max_people == 0 else options.tiles,
            any_rotation=options.any_rotation,
            flip_test=options.flip_test,
            closeups=options.closeups,
            search_below=options.search_below,
            limbs=False,  # of its people only the boxes count
            batch_size=options.batch_size,
        )

    @torch.inference_mode()
    def _people_of(self, scenes: Sequence[Scene], options: PredictOptions) -> list[Humans]:
        """The people of each scene; the crops of all scenes go through the network together."""
        found = self._people_of_crops(scenes, options)
        if options.flip_test:
            flipped = [_mirror_scene(scene) for scene in scenes]
            mirrored = self._people_of_crops(flipped, options)
            found = [
                flipping.average(here, flipping.mirror_people(there, self.body), self.body)
                for here, there in zip(found, mirrored, strict=True)
            ]
        people = iter(found)
        return [self._in_scene([next(people) for _ in scene.boxes], scene, options) for scene in scenes]

    def _people_of_crops(
        self, scenes: Sequence[Scene], options: PredictOptions
    ) -> list[dict[str, np.ndarray]]:
        """The person of each box of all scenes, as arrays of length 1."""
        if self.device.type == "cpu":
            limit_spinning_if_busy()
        found: list[dict[str, np.ndarray]] = []
        for images_B3HW, K_B33 in crops(scenes, self.config.image_size, CROPS_PER_IMAGE * options.batch_size):
            predictions = self(images_B3HW.to(self.device), K_B33.to(self.device))
            found += [predictions.of_image(i) for i in range(len(images_B3HW))]
        return found

    def _in_scene(
        self, found: Sequence[dict[str, np.ndarray]], scene: Scene, options: PredictOptions
    ) -> Humans:
        """One per box, in their order; people that were detected: nearest first, with their own scores."""
        size = self.config.image_size
        nothing = torch.zeros(1, 3, size, size, dtype=torch.float32, device=self.device)
        parts = found or [self(nothing).of_image(1)]  # of length 0
        people = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        if scene.scores is not None:
            people["scores"] = scene.scores
            kept = nearest_first(people["translation"])
        else:
            kept = np.flatnonzero(people["scores"] >= (options.threshold or 0))
            best = people["scores"][kept].argsort(kind="stable")[::-1]
            kept = np.sort(kept[best[: options.max_people]])
        chosen = {name: array[kept] for name, array in people.items()}
        return assemble_humans(self, chosen, scene.image, scene.K, scene.K_source)


def load_bundled_detector(*, device: str | torch.device) -> Model:
    """The bundled default, which finds people for a `TopDownModel`."""
    return Model._of_prepared(prepare_network(device=device))


def _mirror_scene(scene: Scene) -> Scene:
    """The mirror image, with its camera and boxes."""
    width = scene.image.pixels.shape[1]
    boxes = scene.boxes.copy()
    boxes[:, [0, 2]] = width - scene.boxes[:, [2, 0]]
    K = flipping.mirror_intrinsics(scene.K, width)
    return replace(scene, image=flipping.mirror_image(scene.image), K=K, boxes=boxes)
