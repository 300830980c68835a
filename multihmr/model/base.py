"""`Model`: predicts people in images and videos with a network."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ..humans import Humans
from ..humans.distortion import Distortion
from ..networks.base import Network, Predictions
from ..preprocessing.distortion import DistortionLike
from ..preprocessing.image import LoadedImage, load_image
from ..preprocessing.options import check_options, entries_of, in_turn, one_each, several_images
from ..runtime.devices import dtype_of_half
from ..runtime.eager import EagerRuntime, Runtime
from ..runtime.network_handle import NetworkHandle
from .hands_and_faces import DetailRefinement
from .limbs import LimbRefinement, finds_keypoints
from .options import Camera, PredictOptions
from .passes import predict_images
from .preparation import PreparedNetwork, prepare_network
from .refinement_pass import RefinementPass
from .summary import summary
from .undistortion import Predict, predict_undistorted

if TYPE_CHECKING:
    from ..fitting.views import ViewsResult
    from ..preprocessing.types import BoxesLike, ChannelOrder, ImageLike, IntrinsicsLike
    from ..video.reader import VideoSource
    from ..video.tracker import Tracking


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

    top_down: ClassVar[bool] = False  # whether its networks compute the crop of one person

    def __init__(self, network: Network, *, licence: str = "unknown") -> None:
        self.network = network
        self.licence = licence
        self.runtime: Runtime = EagerRuntime(network)

    @classmethod
    def _of_prepared(cls, prepared: PreparedNetwork) -> Model:
        """The `Model`, or the subclass for networks of one person's crop, that holds a prepared network."""
        kinds: list[type[Model]] = [Model, *Model.__subclasses__()]
        kind = next(kind for kind in kinds if kind.top_down == prepared.network.top_down)
        model = kind._holding(prepared.network, prepared.licence)
        model.runtime = prepared.runtime
        return model

    @classmethod
    def _holding(cls, network: Network, licence: str) -> Model:
        """A model of this class with all that `load_model` gives it."""
        return cls(network, licence=licence)

    def __repr__(self) -> str:
        """The model in some lines; `model.network` prints its layers."""
        return summary(self)

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
        from ..hub.huggingface import pretrained_file

        file = pretrained_file(name, revision=revision, token=token, smplx=smplx)
        if half is not None:
            dtype = dtype_of_half(half, device)
        model = Model._of_prepared(prepare_network(file, device=device, dtype=dtype, smplx=smplx))
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
        from ..hub.huggingface import save_pretrained

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
        from ..hub.huggingface import push_to_hub

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
        any_rotation: bool | Literal["auto"] = "auto",
        flip_test: bool = False,
        closeups: bool = True,
        hands_and_faces: bool = False,
        limbs: bool = True,
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
            any_rotation: True predicts the image turned by 90, 180 and 270 degrees as well, and takes the
                turn whose people have the largest sum of scores: for pictures that lie on their side and
                people who lie or hang. Four times the time. "auto" predicts one of the three, and only where
                the people found lie on their side or upside down; where none are found, one more pass
                for people of half the least score tells. Without effect with boxes.
            flip_test: predict the mirror image as well, and average both: pose, shape, place and predicted
                camera. Twice the time; a mirrored image then gets the mirrored people.
            closeups: with models that are trained for it, as the bundled one is, predict an image without
                people once more with a margin around it, for people who are too near to fit into it.
                Images without people take twice the time. Without effect with boxes.
            hands_and_faces: look once more at each hand and face, in the pixels of the image, with networks
                for them: wrists, fingers and heads turn to where these find them, and the expression is what
                they read; people move towards where their faces are. What is small, hidden or out of view
                stays as it was. With the body "anny" only.
            limbs: with models that find keypoints, as the bundled one does, look at a crop of each person as
                well, where they are larger than in the network's window, and align limbs with the keypoints
                there. Takes about a third of the time of the rest for each person. The bundled GLNet aligns
                all people, with the keypoints that its detector finds in these crops.
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
            closeups=closeups,
            hands_and_faces=hands_and_faces,
            limbs=limbs,
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
        any_rotation: bool | Literal["auto"] = "auto",
        flip_test: bool = False,
        closeups: bool = True,
        hands_and_faces: bool = False,
        limbs: bool = True,
        distortion: DistortionLike | None = None,
        channels: ChannelOrder = "rgb",
        search_below: float | None = None,
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
            closeups: as in `predict`, for all images.
            hands_and_faces: as in `predict`, for all images.
            limbs: as in `predict`, for all images.
            distortion: as in `predict`, for all images.
            channels: as in `predict`, for all images.
            search_below: with a low `threshold`: images whose people all have less than this score are
                searched once more, with closeups and tiles="auto", as those without people; None: only those
                without people.
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
        check_options(fov, threshold)
        options = PredictOptions(
            threshold=threshold,
            max_people=max_people,
            tiles=tiles,
            batch_size=batch_size,
            any_rotation=any_rotation,
            flip_test=flip_test,
            closeups=closeups,
            hands_and_faces=hands_and_faces,
            limbs=limbs,
            search_below=search_below,
        )
        refinements = self._refinements(options)
        images = several_images(images)
        Ks, boxes = one_each("Ks", Ks, images), one_each("boxes", boxes, images)
        given = None if boxes is None else [table for table in boxes if table is not None]
        if given:
            self._check_takes_boxes()
        found: list[Humans] = []
        rest = iter(images)
        lens = None if distortion is None else Distortion.of(distortion)
        while some := list(islice(rest, batch_size)):
            at, several = len(found), len(found) + len(some) > 1
            batch = in_turn(lambda image: load_image(image, channels=channels), some, start=at, told=several)
            pairs = zip(batch, entries_of("Ks", Ks, at, len(batch)), strict=True)
            cameras = in_turn(lambda pair: pair[0].camera(pair[1], fov=fov), pairs, start=at, told=several)
            tables = entries_of("boxes", boxes, at, len(batch))
            predict: Predict = partial(self._predict_loaded, options=options)
            for refinement in refinements:
                predict = refinement.after(predict)
            if lens is None:
                found += predict(batch, cameras, tables)
            else:
                found += predict_undistorted(predict, batch, cameras, tables, lens)
        return found

    def predict_many(
        self,
        source: VideoSource,
        K: IntrinsicsLike | None = None,
        *,
        batch_size: int = 8,
        on_error: Literal["raise", "skip", "return"] = "raise",
        **options: Any,
    ) -> Iterator[tuple[Any, Any]]:
        """Yield (source, Humans) of each image of a folder, glob, video or iterable, in constant memory.

        Args:
            source: a folder with its subfolders, a glob, an address, a video, or an iterable of images. Of
                files the path is yielded, of frames (path, number), of other images their number.
            K: (3, 3) intrinsics in pixels of the one camera that took all images; None: as in `predict`.
            batch_size: images that go through the network at once; threads decode the next ones meanwhile.
            on_error: what happens to an image that cannot be read: "raise" ends the iteration with the error,
                "skip" leaves it out, "return" yields the error in place of the people.
            **options: fov, threshold, max_people, tiles, distortion ..., as in `predict_batch`.

        Raises:
            ValueError, OSError: an image cannot be read, as it is reached, with on_error="raise".

        Examples:
            >>> for path, humans in model.predict_many("*.jpg"):
            ...     print(path.name, len(humans))
            street.jpg 3
        """
        from ..video.predict_many import predict_many

        return predict_many(self, source, K, batch_size=batch_size, on_error=on_error, **options)

    def predict_views(
        self,
        images: Sequence[Any],
        Ks: Sequence[IntrinsicsLike],
        extrinsics: Sequence[Any],
        *,
        distortions: Sequence[DistortionLike | None] | None = None,
        threshold: float | None = None,
        least_views: int = 1,
    ) -> ViewsResult:
        """The people in images of one moment from several calibrated cameras, one body for each.

        People are matched across the views, and one body is fitted to the points of all of them.

        Args:
            images: one per camera, as `predict` takes them.
            Ks: (3, 3) intrinsics of each, in pixels of its image.
            extrinsics: one (3, 4) or (4, 4) per camera, from the world into the camera [m].
            distortions: one or None per camera, of its lens, as in `predict`.
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
        from ..fitting.views import predict_views

        options: dict[str, Any] = {"distortions": distortions, "threshold": threshold}
        return predict_views(self, images, Ks, extrinsics, least_views=least_views, **options)

    def predict_video(
        self,
        source: VideoSource,
        K: IntrinsicsLike | None = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        tiles: int | Literal["auto"] = 1,
        flip_test: bool = False,
        hands_and_faces: bool = False,
        limbs: bool = True,
        distortion: DistortionLike | None = None,
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
            hands_and_faces: as in `predict`, for all frames.
            limbs: as in `predict`, for all frames.
            distortion: as in `predict`, of the lens whose camera matrix is K; pixels are the original's.
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
        from ..video.predict import predict_video

        options: dict[str, Any] = {"fov": fov, "threshold": threshold, "tiles": tiles}
        options |= {"flip_test": flip_test, "distortion": distortion, "hands_and_faces": hands_and_faces}
        options["limbs"] = limbs
        return predict_video(self, source, K, batch_size=batch_size, tracking=tracking, **options)

    @property
    def threshold(self) -> float:
        """Default of `predict(threshold=...)`: the checkpoint's own."""
        return float(self.network.config.threshold)

    def _refinements(self, options: PredictOptions) -> list[RefinementPass]:
        """The passes over people that the options ask for, in their order."""
        passes: list[RefinementPass] = []
        source = self._keypoint_source() if options.limbs and options.max_people != 0 else None
        if source is not None:
            passes.append(LimbRefinement(self, source))
        if options.hands_and_faces:
            passes.append(DetailRefinement(self))
        return passes

    def _keypoint_source(self) -> Model | None:
        """The model whose backbone finds the keypoints of `limbs`; None: there is none."""
        return self if finds_keypoints(self) else None

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
        options: PredictOptions,
    ) -> list[Humans]:
        """The people of a batch of images; `boxes` holds one table or None per image."""
        return predict_images(self, images, cameras, options)

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
