"""`Model`: predicts people in images and videos with a network; `load_model` and `save_model`.

A `Network` (networks/) computes tensors from tensors. A `Model` holds one and does the rest: it reads images,
resolves cameras, letterboxes, lets a runtime compute the network, and makes `Humans` of what comes out.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ._deprecated import moved_name
from .geometry import default_intrinsics
from .humans import Humans, nearest_first
from .networks.backbones.attention_kernels import set_attention
from .networks.base import Network, Predictions
from .postprocessing import flip_test as flipping
from .postprocessing.quarter_turns import QuarterTurns
from .postprocessing.tiling import merge_tiles, tiles_of
from .postprocessing.to_humans import Detections, people_of, to_distorted_image, to_humans
from .preprocessing.boxes import check_boxes
from .preprocessing.distortion import Distortion, DistortionLike, undistort_boxes, undistort_image
from .preprocessing.image import LoadedImage, load_image
from .preprocessing.letterbox import Letterbox
from .preprocessing.options import check_options, check_switches, one_each, several_images
from .preprocessing.person_crops import Scene, boxes_of, crops
from .runtime.devices import CPU_BACKENDS, backbone_dtype, dtype_of_half, fast_dtype, pick_device, set_threads
from .runtime.eager import EagerRuntime, Runtime
from .runtime.network_handle import NetworkHandle

if TYPE_CHECKING:
    from .fitting.views import ViewsResult
    from .preprocessing.types import BoxesLike, ChannelOrder, ImageLike, IntrinsicsLike
    from .video.reader import VideoSource
    from .video.tracker import Tracking

AUTO_TILES = 2  # of tiles="auto", where the whole image shows no people
CROPS_PER_IMAGE = 4  # a top-down model computes batch_size times as many crops at once; they are small
Camera = tuple[Tensor | None, str]  # (3, 3) intrinsics in pixels of an image, or None, and their K_source


@dataclass(frozen=True)
class _Options:
    """Options of `predict_batch` beside images, cameras and boxes."""

    threshold: float | None
    max_people: int | None
    tiles: int | Literal["auto"]
    batch_size: int
    any_rotation: bool = False
    flip_test: bool = False


class Model(NetworkHandle):
    """Predicts the people of images and videos, in one forward pass of a network over the whole image.

    `load_model` gives one with weights. For training and research, `model(images_B3HW, K_B33)` computes raw,
    differentiable `Predictions`; parameters, state_dict, train, eval and to are those of the network.

    Attributes:
        network: what computes; a torch module.
        runtime: how the network is computed in predict*: torch itself, or as load_model(backend=...) says.
        licence: of the weights.

    Examples:
        >>> from multihmr import load_model
        >>> model = load_model()
        >>> humans = model.predict("street.jpg")
        >>> humans.vertices.shape  # people, vertices of the body, (x, y, z) in metres before the camera
        (3, 13718, 3)
    """

    def __init__(self, network: Network, *, licence: str = "unknown") -> None:
        self.network = network
        self.licence = licence
        self.runtime: Runtime = EagerRuntime(network)

    def _input_text(self) -> str:
        """What the network takes, in a few words."""
        size = self.config.image_size
        if self.network.top_down:
            return f"one crop per person, {size} pixels"
        if getattr(self.config, "rectangular", False):
            return f"image without padding, longer side {size} pixels"
        return f"letterboxed image, {size} pixels"

    def __repr__(self) -> str:
        """The model in some lines; `model.network` prints its layers."""
        network, config, body = self.network, self.config, self.body
        count = sum(parameter.numel() for parameter in network.parameters()) / 1e6
        topology = body.topology
        dtype = str(network.backbone.half_dtype or torch.float32).removeprefix("torch.")
        lines = {
            "network": f"{self.family}, {count:.1f} million parameters",
            "backbone": f"{config.backbone}, {dtype}, on {self.device}",
            "input": self._input_text(),
            "body": f"{body.name}, {len(topology.joint_names)} joints, {body.shape_count} shape and "
            f"{body.expression_count} expression values",
            "not predicted": f"{len(config.unpredicted)} joints and expressions"
            if config.unpredicted
            else "-",
            "runtime": type(self.runtime).__name__,
            "licence": self.licence,
            "fingerprint": self.fingerprint,
        }
        width = max(map(len, lines))
        rows = (f"  {name:<{width}}  {value}" for name, value in lines.items())
        return "\n".join([f"{type(self).__name__}(", *rows, ")"])

    # Loading and saving

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | torch.device | None = None,
        dtype: torch.dtype | str = "auto",
        smplx: str | os.PathLike[str] | None = None,
        half: torch.dtype | bool | None = None,
    ) -> Model:
        """The model of "owner/repo" on the Hugging Face Hub, or of a folder that `save_pretrained` wrote.

        Args:
            name: "owner/repo", "owner/repo@revision", or the folder.
            revision: branch, tag or commit of the repository.
            token: of the Hub; None takes that of `hf auth login` or $HF_TOKEN.
            device: as in `load_model`.
            dtype: as in `load_model`.
            smplx: as in `load_model`.
            half: as in `load_model`.

        Raises:
            ValueError: `name` is neither, or it names another kind of model.
            FileNotFoundError: the folder holds no model; or its body is SMPL-X and there is no SMPL-X file.
            ConnectionError: the repository cannot be downloaded; the sentence says why.

        Examples:
            >>> folder = model.save_pretrained("my-model")
            >>> Model.from_pretrained(folder, device="cpu").fingerprint == model.fingerprint
            True
        """
        from .hub.huggingface import pretrained_file

        file = pretrained_file(name, revision=revision, token=token, smplx=smplx)
        model = load_model(file, device=device, dtype=dtype, smplx=smplx, half=half)
        if not isinstance(model, cls):
            raise ValueError(
                f"{name} holds a {type(model).__name__}, not a {cls.__name__}; "
                "Model.from_pretrained takes either"
            )
        return model

    def save_pretrained(
        self,
        folder: str | os.PathLike[str],
        *,
        evaluation: str | os.PathLike[str] | None = None,
        half: bool = False,
    ) -> Path:
        """Write model.safetensors, config.json and README.md (the model card) into `folder`.

        A card that is there is overwritten. The bundled model is written with its own file and card.

        Args:
            folder: made if there is none.
            evaluation: the folder of `multihmr evaluate --out`, whose figures go into the card; without
                one the card says that nothing was measured.
            half: store floats with 16 bits.

        Returns:
            The folder.

        Raises:
            FileNotFoundError: `evaluation` holds no result.
            ValueError: `folder` is a file; or a number does not fit into 16 bits.

        Examples:
            >>> sorted(path.name for path in model.save_pretrained("my-model").iterdir())
            ['README.md', 'config.json', 'model.safetensors']
        """
        from .hub.huggingface import save_pretrained

        return save_pretrained(self.network, folder, licence=self.licence, evaluation=evaluation, half=half)

    def push_to_hub(
        self,
        repository: str,
        *,
        evaluation: str | os.PathLike[str] | None = None,
        half: bool = False,
        private: bool | None = None,
        token: str | None = None,
    ) -> str:
        """Upload what `save_pretrained` writes to "owner/repo" on the Hugging Face Hub.

        The repository is made if there is none. Its licence is `model.licence`: set it before.

        Args:
            repository: "owner/repo".
            evaluation: as in `save_pretrained`.
            half: as in `save_pretrained`.
            private: whether a repository that is made here is private; None leaves it to the Hub.
            token: with the right to write; None takes that of `hf auth login` or $HF_TOKEN.

        Returns:
            The URL of the commit.

        Raises:
            ValueError: `repository` has another form; or the licence is unknown and `private` is not True.
            PermissionError: the Hub does not let you.
            ConnectionError: it cannot be reached, or did not take the files.

        Examples:
            >>> model.push_to_hub("my-model")  # it wants an owner, as in "me/my-model"
            Traceback (most recent call last):
            ValueError: ...
        """
        from .hub.huggingface import push_to_hub

        options: dict[str, Any] = {"evaluation": evaluation, "half": half}
        return push_to_hub(
            self.network, repository, licence=self.licence, private=private, token=token, **options
        )

    # Prediction

    def predict(
        self,
        image: ImageLike,
        K: IntrinsicsLike | None = None,
        boxes: BoxesLike | None = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
        tiles: int | Literal["auto"] = 1,
        any_rotation: bool = False,
        flip_test: bool = False,
        distortion: DistortionLike | None = None,
        channels: ChannelOrder = "rgb",
    ) -> Humans:
        """Predict the people of one image.

        Args:
            image: path, web address, bytes, file, PIL image, (H, W, 3) uint8 array or (3, H, W) tensor; what
                `preprocessing.image.load_image` reads.
            K: (3, 3) intrinsics in pixels of this image. None: the camera is taken from `fov`, from
                the image's EXIF data, or from the prediction of the network (of a `TopDownModel`: of its
                detector, on the whole image), in this order; see `Humans.K_source`.
            boxes: (N, 4) x0, y0, x1, y1 in pixels around people, or around what is visible of them. A
                `TopDownModel` predicts one person per box, in the camera of the whole image, and without
                boxes the people that its detector finds; other models detect people and take no boxes.
            fov: field of view over the longer side of the image, in degrees.
            threshold: least score in [0, 1] of a person; None takes `model.threshold`, and keeps every box.
            max_people: keep only the best-scored.
            tiles: 2 predicts the image again in parts, two along its longer side (3: three, up to 8), for
                people who are small in it; with 2 the network runs three to five times instead of once.
                "auto" does so with 2 where no people are found otherwise. Without effect with boxes.
            any_rotation: where no people are found, predict the image turned by 90, 180 and 270 degrees as
                well, and take the turn whose people have the best scores: for pictures that lie on their side
                and people who lie or hang. Without effect with boxes.
            flip_test: predict the mirror image as well, and average both: pose, shape, place and predicted
                camera. Twice the time; a mirrored image then gets the mirrored people.
            distortion: of the lens whose camera matrix is K: k1, k2, p1, p2, k3 of OpenCV, or
                `preprocessing.distortion.Distortion.of_fisheye`. The network gets an undistorted image;
                `joints_2d` and `boxes` are in pixels of the original.
            channels: "bgr" for arrays and tensors in OpenCV's order.

        Returns:
            Humans, nearest first, of length 0 when no people are found; with boxes one per box, in their
            order.

        Raises:
            ValueError: the image, K, a box or an option cannot be used; the sentence says why.
            FileNotFoundError: there is no such file.

        Examples:
            >>> humans = model.predict("street.jpg", fov=50, max_people=2)
            >>> humans.vertices.shape  # people, vertices, (x, y, z) in metres before the camera
            (2, 13718, 3)
            >>> humans.K_source
            'given'
        """
        return self.predict_batch(
            [image],
            [K],
            [boxes],
            fov=fov,
            threshold=threshold,
            max_people=max_people,
            tiles=tiles,
            any_rotation=any_rotation,
            flip_test=flip_test,
            distortion=distortion,
            channels=channels,
        )[0]

    def predict_batch(
        self,
        images: Iterable[ImageLike],
        Ks: Sequence[IntrinsicsLike | None] | None = None,
        boxes: Sequence[BoxesLike | None] | None = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
        tiles: int | Literal["auto"] = 1,
        batch_size: int = 8,
        any_rotation: bool = False,
        flip_test: bool = False,
        distortion: DistortionLike | None = None,
        channels: ChannelOrder = "rgb",
    ) -> list[Humans]:
        """`predict` for several images of any sizes.

        Args:
            images: a list, or anything that yields images; they are read `batch_size` at a time.
            Ks: one K or None per image, as in `predict`.
            boxes: one table or None per image, as in `predict`.
            fov: as in `predict`, for all images.
            threshold: as in `predict`, for all images.
            max_people: as in `predict`, for all images.
            tiles: as in `predict`, for all images.
            any_rotation: as in `predict`, for all images.
            flip_test: as in `predict`, for all images.
            distortion: as in `predict`, for all images.
            channels: as in `predict`, for all images.
            batch_size: images that go through the network at once.

        Returns:
            One Humans per image, in their order; points in metres and pixels, as of `predict`.

        Raises:
            ValueError: an image, K, box or option cannot be used; or there is not one K or table per image.
            FileNotFoundError: there is no such file.

        Examples:
            >>> blank = np.zeros((480, 640, 3), np.uint8)
            >>> [len(humans) for humans in model.predict_batch(["street.jpg", blank])]
            [3, 0]
        """
        check_options(fov, threshold, max_people, tiles, batch_size)
        check_switches(any_rotation=any_rotation, flip_test=flip_test)
        options = _Options(threshold, max_people, tiles, batch_size, any_rotation, flip_test)
        images = several_images(images)
        Ks, boxes = one_each("Ks", Ks, images), one_each("boxes", boxes, images)
        given = None if boxes is None else [table for table in boxes if table is not None]
        if given:
            self._check_takes_boxes()
        found: list[Humans] = []
        rest = iter(images)
        lens = None if distortion is None else Distortion.of(distortion)
        while batch := [load_image(image, channels=channels) for image in islice(rest, batch_size)]:
            part = slice(len(found), len(found) + len(batch))
            cameras = [
                image.camera(K, fov=fov)
                for image, K in zip(batch, Ks[part] if Ks else [None] * len(batch), strict=True)
            ]
            tables = boxes[part] if boxes else [None] * len(batch)
            if lens is None:
                found += self._predict_loaded(batch, cameras, tables, options)
            else:
                found += self._predict_distorted(batch, cameras, tables, options, lens)
        return found

    def predict_many(
        self,
        source: VideoSource,
        *,
        batch_size: int = 8,
        on_error: Literal["raise", "skip", "return"] = "raise",
        **options: Any,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (source, Humans) of each image of a folder, glob, video or iterable, in constant memory.

        Args:
            source: a folder with its subfolders, a glob, an address, a video, or an iterable of images. Of
                files the path is yielded, of frames (path, number), of other images their number.
            batch_size: images that go through the network at once; threads decode the next ones meanwhile.
            on_error: what happens to an image that cannot be read: "raise" ends the iteration with the error,
                "skip" leaves it out, "return" yields the error in place of the people.
            **options: fov, threshold, max_people, tiles, as in `predict_batch`.

        Raises:
            ValueError, OSError: an image cannot be read, as it is reached, with on_error="raise".

        Examples:
            >>> for path, humans in model.predict_many("*.jpg"):
            ...     print(path.name, len(humans))
            street.jpg 3
        """
        from .video.predict_many import predict_many

        return predict_many(self, source, batch_size=batch_size, on_error=on_error, **options)

    def predict_views(
        self,
        images: Sequence[Any],
        Ks: Sequence[IntrinsicsLike],
        extrinsics: Sequence[Any],
        *,
        threshold: float | None = None,
        least_views: int = 1,
    ) -> ViewsResult:
        """The people in images of one moment from several calibrated cameras, one body for each.

        People are matched across the views, and one body is fitted to the points of all of them.

        Args:
            images: one per camera, as `predict` takes them.
            Ks: (3, 3) intrinsics of each, in pixels of its image.
            extrinsics: one (3, 4) or (4, 4) per camera, from the world into the camera [m].
            threshold: least score of a person, as in `predict`.
            least_views: leave out who is seen by fewer cameras; 2 removes most false people.

        Returns:
            ViewsResult: `views`, one Humans per camera with the same people in the same order, and
            `sources` (V, N), which prediction each is in each view, -1 where not seen.

        Raises:
            ValueError: there are not as many Ks and extrinsics as images, one of them cannot be a camera, or
                the body of the model is not "anny".

        Examples:
            >>> turned = np.array([[0.0, 0, 1, -4], [0, 1, 0, 0], [-1, 0, 0, 4]])  # from the right
            >>> K = np.array([[500, 0, 224], [0, 500, 224], [0, 0, 1]])
            >>> result = model.predict_views(["street.jpg", "street.jpg"], [K, K], [np.eye(3, 4), turned])
            >>> len(result.views)
            2
        """
        from .fitting.views import predict_views

        return predict_views(self, images, Ks, extrinsics, threshold=threshold, least_views=least_views)

    def predict_video(
        self,
        source: VideoSource,
        K: IntrinsicsLike | None = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        tiles: int | Literal["auto"] = 1,
        flip_test: bool = False,
        batch_size: int = 8,
        tracking: Tracking | None = None,
    ) -> Iterator[Humans]:
        """Every person in each frame of a video, with `track_ids`: one Humans a frame, as it is decoded.

        People who leave and come back keep their id; gaps of a few frames are filled (`Humans.filled`);
        motion is smoothed and the shape of a person stays the same. `video.tracks.collect` makes tracks of
        it. Memory does not grow with the length.

        Args:
            source: path of a video or of a folder of pictures, index of a webcam, or anything that yields
                what `predict` takes; `video.open_video(source, fps=...)` where the rate matters.
            fov: as in `predict`, for all frames.
            K: the camera, as in `predict`, for all frames. None: the camera that the network predicts
                for the first frames is kept.
            threshold: least score of a new track; tracked people are kept down to half of it.
            tiles: as in `predict`, for people who are small in the frames.
            flip_test: as in `predict`, for all frames.
            batch_size: frames that go through the network at once; fewer where frames are very large.
            tracking: a `video.Tracking`: how far to look ahead, which gaps to fill, how much to smooth.

        Returns:
            An iterator over the frames.

        Raises:
            ValueError, FileNotFoundError: the source cannot be read; the sentence says why. A video that
                breaks off gives what can be read, and a warning.
            ImportError: PyAV or SciPy are missing.

        Examples:
            >>> frames = [np.zeros((240, 320, 3), np.uint8)] * 3  # or "walk.mp4"
            >>> [len(humans) for humans in model.predict_video(frames)]
            [0, 0, 0]
        """
        from .video.predict import predict_video

        options: dict[str, Any] = {"fov": fov, "threshold": threshold, "tiles": tiles}
        options["flip_test"] = flip_test
        return predict_video(self, source, K, batch_size=batch_size, tracking=tracking, **options)

    @property
    def threshold(self) -> float:
        """Default of `predict(threshold=...)`: the checkpoint's own."""
        return float(self.network.config.threshold)

    def _check_takes_boxes(self) -> None:
        raise ValueError(
            f"a model of family {self.family!r} finds the people itself and takes no boxes; leave them "
            "away, or load one that computes a crop for each box: load_model('glnet-anny-hybrid')"
        )

    def _predict_loaded(
        self,
        images: Sequence[LoadedImage],
        cameras: Sequence[Camera],
        boxes: Sequence[Any],
        options: _Options,
    ) -> list[Humans]:
        """The people of a batch of images; `boxes` holds one table or None per image."""
        found = self._predict_both(images, cameras, options)
        for i, (image, camera) in enumerate(zip(images, cameras, strict=True)):
            none = not len(found[i]) and options.max_people != 0
            if options.tiles == "auto" and none:
                found[i] = self._predict_tiles(image, found[i], replace(options, tiles=AUTO_TILES))
            elif options.tiles != "auto" and options.tiles > 1:
                found[i] = self._predict_tiles(image, found[i], options)
            if options.any_rotation and none and not len(found[i]):
                found[i] = self._predict_turned(image, camera, found[i], options)
        return found

    def _predict_turned(
        self, image: LoadedImage, camera: Camera, upright: Humans, options: _Options
    ) -> Humans:
        """The people of the turn of an image that shows the best-scored ones; `upright` if none does."""
        height, width = image.pixels.shape[:2]
        turns = [QuarterTurns.of(count, height, width) for count in (1, 2, 3)]
        K, source = camera
        cameras = [(None if K is None else turn.intrinsics(K), source) for turn in turns]
        found = self._predict_both([turn.image(image) for turn in turns], cameras, options)
        best = max(range(len(turns)), key=lambda i: found[i].scores.max(initial=0.0))
        if not len(found[best]):
            return upright
        own_K = turns[best].intrinsics_back(found[best].K) if K is None else K
        return self._humans(turns[best].people_back(found[best]), image, own_K, found[best].K_source)

    def _predict_distorted(
        self,
        images: Sequence[LoadedImage],
        cameras: Sequence[Camera],
        boxes: Sequence[Any],
        options: _Options,
        lens: Distortion,
    ) -> list[Humans]:
        """`_predict_loaded` on undistorted images, with pixels of the original ones."""
        straight, straight_cameras, straight_boxes = [], [], []
        for image, (K, _), table in zip(images, cameras, boxes, strict=True):
            if K is None:
                raise ValueError("distortion needs K, the camera matrix that the lens was calibrated with")
            pinhole, new_K = undistort_image(image, K.numpy(), lens)
            straight.append(pinhole)
            straight_cameras.append((torch.from_numpy(new_K).float(), "given"))
            if table is not None:
                table = undistort_boxes(check_boxes(table, *image.pixels.shape[:2]), K.numpy(), lens, new_K)
            straight_boxes.append(table)
        found = self._predict_loaded(straight, straight_cameras, straight_boxes, options)
        return [
            to_distorted_image(humans, K.numpy(), lens)
            for humans, (K, _) in zip(found, cameras, strict=True)
            if K is not None
        ]

    def _predict_both(
        self, images: Sequence[LoadedImage], cameras: Sequence[Camera], options: _Options
    ) -> list[Humans]:
        """`_predict_once`; with flip_test the means with what is found in the mirror images."""
        if not options.flip_test:
            return self._predict_once(images, cameras, options)
        threshold = self.threshold if options.threshold is None else options.threshold
        lower = replace(options, threshold=threshold * flipping.LOWER_THRESHOLD, max_people=None)
        if options.max_people == 0:
            lower = replace(lower, max_people=0)
        upright = self._predict_once(images, cameras, lower)
        flipped = [flipping.mirror_image(image) for image in images]
        widths = [image.pixels.shape[1] for image in images]
        flipped_cameras: list[Camera] = [
            (None if K is None else flipping.mirror_intrinsics(K, width), source)
            for (K, source), width in zip(cameras, widths, strict=True)
        ]
        mirrored = self._predict_once(flipped, flipped_cameras, lower)
        result = []
        for image, (K, _), here, there in zip(images, cameras, upright, mirrored, strict=True):
            people, mean_K = flipping.merge_mirrored(here, there, self.body, threshold)
            best = people["scores"].argsort(kind="stable")[::-1][: options.max_people]
            best = best[nearest_first(people["translation"][best])]
            people = flipping.pick(people, best)
            result.append(self._humans(people, image, mean_K if K is None else K, here.K_source))
        return result

    @torch.inference_mode()
    def _predict_once(
        self, images: Sequence[LoadedImage], cameras: Sequence[Camera], options: _Options
    ) -> list[Humans]:
        """The people of a batch of images, each of which goes through the network once."""
        letterboxes = [
            self.network.letterbox(*image.pixels.shape[:2], square=self.runtime.square) for image in images
        ]
        unknown_33 = torch.full((3, 3), math.nan, dtype=torch.float32, device="cpu")
        K_B33 = torch.stack(
            [
                unknown_33 if K is None else letterbox.intrinsics(K)
                for letterbox, (K, _) in zip(letterboxes, cameras, strict=True)
            ]
        )
        detected = self._run_batches([image.pixels for image in images], letterboxes, K_B33, options)
        result = []
        for image, letterbox, (K, source), found in zip(images, letterboxes, cameras, detected, strict=True):
            if K is None:
                K, source = letterbox.image_intrinsics(found.K), self.network.own_camera_source
            projected = None
            if found.projected is not None:
                projected = [letterbox.inverse_points(points) for points in found.projected]
            result.append(self._humans(found.people, image, K, source, projected))
        return result

    def _run_batches(
        self,
        images: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
        options: _Options,
    ) -> list[Detections]:
        """What the runtime finds in each image; those whose windows have the same shape are one batch."""
        batches: dict[tuple[int, int], list[int]] = {}
        for i, letterbox in enumerate(letterboxes):
            batches.setdefault(letterbox.shape, []).append(i)
        detected: dict[int, Detections] = {}
        for rows in batches.values():
            found = self.runtime(
                [images[i] for i in rows],
                [letterboxes[i] for i in rows],
                K_B33[rows],
                options.threshold,
                options.max_people,
            )
            detected.update(zip(rows, found, strict=True))
        return [detected[i] for i in range(len(images))]

    def _predict_tiles(self, image: LoadedImage, whole: Humans, options: _Options) -> Humans:
        """The people of an image, each once: those of the `whole` and those of its tiles."""
        assert options.tiles != "auto"
        tiles = tiles_of(*whole.image_size, options.tiles)
        K = torch.tensor(whole.K, device="cpu")
        parts: list[Humans] = []
        for start in range(0, len(tiles), options.batch_size):
            some = tiles[start : start + options.batch_size]
            images = [replace(image, pixels=image.pixels[y0:y1, x0:x1]) for x0, y0, x1, y1 in some]
            cuts = [Letterbox((1, 1), (-x0, -y0), x1 - x0) for x0, y0, x1, _ in some]
            cameras: list[Camera] = [(cut.intrinsics(K), "given") for cut in cuts]
            parts += self._predict_both(images, cameras, options)
        everyone = Humans.concatenate(
            [self._humans(people_of(part), image, K, whole.K_source) for part in (whole, *parts)]
        )
        found = everyone[merge_tiles(whole, parts, tiles)]
        best = found.scores.argsort(kind="stable")[::-1][: options.max_people]
        return found[best].nearest_first()

    def _humans(
        self,
        people: dict[str, np.ndarray],
        image: LoadedImage,
        K: Tensor,
        K_source: str,
        projected: Sequence[np.ndarray] | None = None,
    ) -> Humans:
        height, width = image.pixels.shape[:2]
        return to_humans(
            people,
            self.body,
            K=K,
            K_source=K_source,
            image_size=(height, width),
            unpredicted=self.config.unpredicted,
            projected=projected,
        )

    # The network

    def __call__(self, images_B3HW: Tensor, K_B33: Tensor | None = None, **options: Any) -> Predictions:
        """Raw predictions of a batch of tensors, as `networks.multihmr.MultiHMR.forward` takes them.

        Differentiable. Where no gradient is asked for, load_model(backend=...) computes the backbone.

        Args:
            images_B3HW: letterboxed images, RGB in [0, 1].
            K_B33: intrinsics in pixels of these; None or NaN takes the network's own.
            **options: of the network's forward: centers, threshold, max_people.

        Returns:
            Predictions of all people of the batch in one list: metres in the camera frame, pixels of the
            letterboxed images.

        Raises:
            ValueError: the images are no tensors; or of another size than `config.image_size`.

        Examples:
            >>> import torch
            >>> size = model.config.image_size
            >>> with torch.no_grad():
            ...     predictions = model(torch.zeros(2, 3, size, size))
            >>> predictions.K_B33.shape
            torch.Size([2, 3, 3])
        """
        if not isinstance(images_B3HW, Tensor):
            raise ValueError(
                f"model(images_B3HW, K_B33) takes tensors, got {type(images_B3HW).__name__}; "
                "for a picture use model.predict(image)"
            )
        network = self.network
        if not torch.is_grad_enabled():
            network = getattr(self.runtime, "network", network)
        predictions: Predictions = network(images_B3HW, K_B33, **options)
        return predictions


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

    def _check_takes_boxes(self) -> None:
        """Boxes are taken."""

    def _predict_loaded(
        self,
        images: Sequence[LoadedImage],
        cameras: Sequence[Camera],
        boxes: Sequence[Any],
        options: _Options,
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
        options: _Options,
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
        options: _Options,
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
            batch_size=options.batch_size,
        )

    @torch.inference_mode()
    def _people_of(self, scenes: Sequence[Scene], options: _Options) -> list[Humans]:
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

    def _people_of_crops(self, scenes: Sequence[Scene], options: _Options) -> list[dict[str, np.ndarray]]:
        """The person of each box of all scenes, as arrays of length 1."""
        found: list[dict[str, np.ndarray]] = []
        for images_B3HW, K_B33 in crops(scenes, self.config.image_size, CROPS_PER_IMAGE * options.batch_size):
            predictions = self(images_B3HW.to(self.device), K_B33.to(self.device))
            found += [predictions.of_image(i) for i in range(len(images_B3HW))]
        return found

    def _in_scene(self, found: Sequence[dict[str, np.ndarray]], scene: Scene, options: _Options) -> Humans:
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
        return self._humans(chosen, scene.image, scene.K, scene.K_source)


def _mirror_scene(scene: Scene) -> Scene:
    """The mirror image, with its camera and boxes."""
    width = scene.image.pixels.shape[1]
    boxes = scene.boxes.copy()
    boxes[:, [0, 2]] = width - scene.boxes[:, [2, 0]]
    K = flipping.mirror_intrinsics(scene.K, width)
    return replace(scene, image=flipping.mirror_image(scene.image), K=K, boxes=boxes)


def load_model(
    name: str | os.PathLike[str] | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str = "auto",
    smplx: str | os.PathLike[str] | None = None,
    backend: str = "eager",
    calibrate: str | os.PathLike[str] | None = None,
    attention: str = "torch",
    image_size: int | None = None,
    padding: Literal["whole", "thin"] = "whole",
    threads: int | None = None,
    half: torch.dtype | bool | None = None,
) -> Model:
    """A model ready to predict: the bundled default, or the one that `name` names.

    Args:
        name: a release of `list_models` ("multiHMR_896_L", in any case, or "896_L"), fetched into
            the cache folder on first use; a path to a .safetensors or an official .pt file; or
            "hf:owner/repo" or "hf:owner/repo@revision" for a repository on the Hugging Face Hub. A string
            that is both a release and a file here is refused: "release:NAME" and "./NAME" are the two
            spellings.
        device: None picks cuda, else mps, else cpu.
        dtype: precision of the backbone, while all that carries metres stays float32. "auto": float16 on
            cuda, float32 elsewhere; "fast": also bfloat16 for networks on DINOv2 on CPUs that multiply it
            (avx512_bf16, AMX), which moves vertices by millimetres (docs/speed.md); or torch.float32,
            torch.float16, torch.bfloat16, or their names.
        smplx: SMPLX_NEUTRAL.npz or its folder, for models with that body; None looks as `find_smplx` does.
        backend: what computes the backbone in prediction: "eager" is torch as it stands, "compile"
            torch.compile; on a CPU "onnxruntime", "openvino" or "openvino-int8", which need
            multihmr[export]. What they need is made at first and kept in the cache folder. On an NVIDIA GPU
            "cudagraph" records whole predictions, pixels to people, and replays them; "cudagraph-compile"
            records what torch.compile makes of them, "cudagraph-float8" with products of 8-bit floats (Hopper
            and later, dtype=torch.bfloat16). These hold for predict* alone, not for `model(images, K)`.
        calibrate: for "openvino-int8" at first: a folder of some hundred pictures, or of shards.
        attention: kernels of the ViT's self-attention: "torch", or "xformers", which needs
            multihmr[xformers] and a CUDA device.
        image_size: longer side of the network's input [pixels], a multiple of 32, of networks that take
            windows of any shape, as the bundled default. None is the size of training, which finds most
            people; smaller is faster and moves people away (docs/guides/small_people.md).
        padding: of networks on DINOv2, which see a picture in a square. "whole" computes all of the padding,
            as they were trained; "thin" a quarter of it with four times the weight, which for a picture of
            16:9 takes about 0.6 of the time and moves vertices by some millimetres (docs/speed.md).
        threads: of this process that compute on the CPU, in torch and the backend: torch.set_num_threads.
            None leaves torch's own choice, which is all cores; on a machine that others keep busy, one thread
            waits for no other (docs/speed.md).
        half: deprecated, as `dtype`; True: float16, on a CPU bfloat16; False: float32.

    Returns:
        A Model; a TopDownModel for networks of one person's crop.

    Raises:
        ValueError: the name, an option or the file is wrong.
        ImportError: the backend's packages are missing.
        FileNotFoundError: there is no such file, or no SMPL-X file; checked before anything is fetched.
        ConnectionError: no address gave the file.
        OSError: it cannot be written to the cache folder.

    Examples:
        >>> from multihmr import load_model
        >>> load_model(device="cpu").body.name
        'anny'
    """
    from .hub.loading import load_network
    from .networks.resize_embeddings import at_image_size, check_image_size
    from .runtime.backends import check_backend, make_runtime, set_padding
    from .storage.paths import cache_folder

    if attention != "torch" and backend in CPU_BACKENDS:
        raise ValueError(f"backend {backend!r} has its own attention; leave out attention={attention!r}")
    if attention != "torch" and padding != "whole":
        raise ValueError(f"padding={padding!r} is computed by torch's attention; leave out {attention!r}")
    set_threads(threads)
    target = pick_device("cpu" if device is None and backend in CPU_BACKENDS else device)
    if half is not None:
        dtype = dtype_of_half(half, target)
    precision = backbone_dtype(dtype, target)
    if backend != "eager":
        check_backend(backend, device=target.type, calibrate=calibrate)
    if isinstance(name, str) and name.startswith("hf:"):
        from .hub.huggingface import fetch_checkpoint

        name = fetch_checkpoint(name.removeprefix("hf:"), smplx=smplx)
    network, licence = load_network(name, smplx=smplx)
    if image_size is not None and image_size != network.config.image_size:
        check_image_size(network, image_size)
        network = at_image_size(network, image_size)
    if dtype == "fast":
        precision = fast_dtype(network.backbone, target, backend)
    network.backbone.half_dtype = precision
    set_padding(network, padding)
    network.to(target).eval()
    set_attention(network.backbone, attention, device=target, dtype=precision or torch.float32)
    if network.top_down:
        model: Model = TopDownModel(network, licence=licence, load_detector=load_model)
    else:
        model = Model(network, licence=licence)
    if backend != "eager":
        folder = cache_folder() / "graphs"
        model.runtime = make_runtime(network, backend, folder=folder, calibrate=calibrate)
    return model


def save_model(
    model: Model | Network,
    path: str | os.PathLike[str],
    *,
    half: bool = False,
    small: bool = False,
    **metadata: str,
) -> Path:
    """Write a model or a network as one safetensors file that `load_model` reads.

    Args:
        model: whose network is written.
        path: of the file.
        half: store floats with 16 bits.
        small: matrices with 8 bits a number and a scale for each row, the rest as `half` says; they are read
            as float32 again.
        **metadata: text for the header, as licence="CC0-1.0" or source="..."; the licence is the model's
            own where none is given.

    Returns:
        The path.

    Raises:
        ValueError: a number is not finite, or does not fit into 16 bits.
    """
    from .hub.loading import save_network

    if not isinstance(model, Model):
        return save_network(model, path, half=half, small=small, **metadata)
    metadata = {"licence": model.licence, **metadata}
    return save_network(model.network, path, half=half, small=small, **metadata)


def __getattr__(name: str) -> Any:
    return moved_name(__name__, name)
