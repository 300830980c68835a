"""The journey of a picture: window, network, humans. And what a network says: Predictions."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from .bodies.base import Body, place
from .geometry import project, unproject
from .humans import Humans
from .networks.base import OF_PEOPLE, Predictions
from .postprocessing.tiling import MOST, merge_tiles, tiles_of
from .preprocessing.image import LoadedImage, load_image
from .preprocessing.letterbox import Letterbox

if TYPE_CHECKING:
    from .networks.detection import Centers
    from .networks.joint_heatmaps import JointReading
    from .runtime.cuda_graphs import Captured
    from .video.tracker import Tracking


class Detections(NamedTuple):
    """The people of one window in numpy, nearest first."""

    people: dict[str, np.ndarray]  # OF_PEOPLE
    K: Tensor  # (3, 3) of the window, that was used
    flat: tuple[np.ndarray, np.ndarray] | None = None  # if known, in pixels of the window: joints (N, J, 2)
    # and corners of the boxes around the vertices (N, 2, 2)


class Model(nn.Module):
    """A network that predicts humans from pictures; `load_model` makes one.

    Subclasses (networks/) set `family`, `config` and `forward`.
    """

    family: str
    config: Any
    backbone: Any
    licence: str = "unknown"
    captured: Captured | None = None  # predicts instead of `forward` where whole predictions are recorded

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.body = body

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike[str],
        *,
        revision: str | None = None,
        token: str | None = None,
        device: str | torch.device | None = None,
        half: torch.dtype | bool | None = None,
        smplx: str | os.PathLike[str] | None = None,
    ) -> Model:
        """The model of "owner/repo" on the Hugging Face Hub, or of a folder that `save_pretrained` wrote.

        revision: branch, tag or commit of the repository. token: of the Hub; None takes that of `hf auth
        login` or $HF_TOKEN. The rest as `load_model` takes it; `load_model("hf:owner/repo")` gives the same.

        Raises:
            ValueError: `name` is neither, or what it names is no such model.
            FileNotFoundError: the folder holds no model; or its body is SMPL-X and there is no SMPL-X file.
            ConnectionError: the repository cannot be had; the sentence says why.
        """
        from .hub.huggingface import from_pretrained

        model = from_pretrained(name, revision=revision, token=token, device=device, half=half, smplx=smplx)
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
        """Write model.safetensors, config.json and README.md (the model card) into `folder`; gives its path.

        A card that is there is written anew. The bundled model goes with its own file and card.

        Args:
            folder: made if there is none.
            evaluation: the folder of `multihmr evaluate --out`, whose figures go into the card; without
                one the card says that nothing was measured.
            half: store floats with 16 bits.

        Raises:
            FileNotFoundError: `evaluation` holds none.
            ValueError: it is another file; or a number does not fit into 16 bits.
        """
        from .hub.huggingface import save_pretrained

        return save_pretrained(self, folder, evaluation=evaluation, half=half)

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

        Gives the URL of the commit. The repository is made if there is none. Its licence is `model.licence`:
        set it before.

        Args:
            repository: "owner/repo".
            evaluation, half: as in `save_pretrained`.
            private: whether others may not see a repository that is made here; None leaves it to the Hub.
            token: with the right to write; None takes that of `hf auth login` or $HF_TOKEN.

        Raises:
            ValueError: `repository` has another form; or the licence is unknown and `private` is not True.
            PermissionError: the Hub does not let you.
            ConnectionError: it cannot be reached, or did not take the files.
        """
        from .hub.huggingface import push_to_hub

        return push_to_hub(self, repository, evaluation=evaluation, half=half, private=private, token=token)

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def letterbox(self, height: int, width: int) -> Letterbox:
        """Through which the network looks at an image of that size."""
        return Letterbox.whole(height, width, self.config.image_size)

    @property
    def own_camera_source(self) -> str:
        """What `Humans.K_source` says of a camera that the network came up with."""
        return "predicted"

    def assemble(
        self,
        parameters: tuple[Tensor, Tensor, Tensor],
        depth_P: Tensor,
        offset_P2: Tensor,
        *,
        centers: Centers,
        K_B33: Tensor,
        depth_code_P: Tensor,
        logits_Bhw: Tensor,
        fov_B: Tensor,
        reading: JointReading | None = None,
        coarse_PJ3: Tensor | None = None,
    ) -> Predictions:
        """Predictions of people with these (pose, shape, expression), each with the head on its ray.

        depth_P of the heads [m]; offset_P2 from the middles of their cells to the heads [cells]; the rest
        goes into Predictions as it is.
        """
        translation_P3 = self.head_positions(depth_P, offset_P2, centers, K_B33)
        body = place(self.body(*parameters), translation_P3, self.body.center_joint)
        pose_PR33, shape_PS, expression_PE = parameters
        return Predictions(
            centers=centers,
            pose_PR33=pose_PR33,
            shape_PS=shape_PS,
            expression_PE=expression_PE,
            offset_P2=offset_P2,
            translation_P3=translation_P3,
            vertices_PV3=body.vertices_PV3,
            joints_PJ3=body.joints_PJ3,
            depth_code_P=depth_code_P,
            logits_Bhw=logits_Bhw,
            fov_B=fov_B,
            K_B33=K_B33,
            reading=reading,
            coarse_PJ3=coarse_PJ3,
        )

    def empty(self, centers: Centers, *, K_B33: Tensor, logits_Bhw: Tensor, fov_B: Tensor) -> Predictions:
        """Predictions of pictures in which nobody was found; `centers` is empty."""
        body, zeros = self.body, logits_Bhw.new_zeros
        counts = (body.rotation_count, 3, 3), (body.shape_count,), (body.expression_count,)
        pose_PR33, shape_PS, expression_PE = (zeros(0, *count) for count in counts)
        return self.assemble(
            (pose_PR33, shape_PS, expression_PE),
            zeros(0),
            zeros(0, 2),
            centers=centers,
            K_B33=K_B33,
            depth_code_P=zeros(0),
            logits_Bhw=logits_Bhw,
            fov_B=fov_B,
        )

    def head_positions(self, depth_P: Tensor, offset_P2: Tensor, centers: Centers, K_B33: Tensor) -> Tensor:
        """(P, 3) where heads are [m] that lie at these depths [m] and offsets from their cells [cells]."""
        head_P12 = centers.heads(offset_P2)[:, None] * self.backbone.patch
        return unproject(head_P12, depth_P[:, None], K_B33[centers.image_index_P])[:, 0]

    def predict(
        self,
        image: Any,
        K: Any = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
        tiles: int = 1,
    ) -> Humans:
        """Every person in one image, nearest first.

        Args:
            image: path, bytes, file, PIL image, (H, W, 3) uint8 array or (3, H, W) tensor; RGB.
            K: (3, 3) intrinsics in pixels of this image. None: the camera is taken from `fov`, from
                the image's EXIF data, or from what the network sees, in this order; `Humans.K_source` tells.
            fov: field of view over the longer side of the image, in degrees.
            threshold: least score in [0, 1] of a person; None takes the checkpoint's own.
            max_people: keep only the best-scored.
            tiles: 2 looks at the picture again in parts, two along its longer side (3: three, up to 8), for
                people who are small in it; with 2 the network looks three to five times instead of once.

        Returns:
            Humans, of length 0 when nobody is there.

        Raises:
            ValueError: the image, K or fov cannot be used; the sentence says why.
            FileNotFoundError: there is no such file.
        """
        options: dict[str, Any] = {"fov": fov, "threshold": threshold, "max_people": max_people}
        return self.predict_batch([image], [K], tiles=tiles, **options)[0]

    def predict_batch(
        self,
        images: Sequence[Any],
        Ks: Sequence[Any] | None = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        max_people: int | None = None,
        tiles: int = 1,
        batch_size: int = 8,
    ) -> list[Humans]:
        """`predict` for several images of any sizes, `batch_size` at a time; one Humans per image."""
        check_options(fov, threshold, max_people, tiles)
        if Ks is None:
            Ks = [None] * len(images)
        if len(Ks) != len(images):
            raise ValueError(
                f"Ks must hold one K (or None) per image: got {len(Ks)} for {len(images)} images"
            )
        found: list[Humans] = []
        for start in range(0, len(images), batch_size):
            photos = [load_image(image) for image in images[start : start + batch_size]]
            cameras = [
                photo.camera(K, fov=fov)
                for photo, K in zip(photos, Ks[start : start + batch_size], strict=True)
            ]
            seen = self._predict_images(photos, cameras, threshold, max_people)
            if tiles > 1:
                seen = [
                    self._closer(photo, whole, tiles, threshold, max_people, batch_size)
                    for photo, whole in zip(photos, seen, strict=True)
                ]
            found += seen
        return found

    def predict_video(
        self,
        source: Any,
        K: Any = None,
        *,
        fov: float | None = None,
        threshold: float | None = None,
        tiles: int = 1,
        batch_size: int = 8,
        tracking: Tracking | None = None,
    ) -> Iterator[Humans]:
        """Every person in each frame of a video, with `track_ids`: one Humans a frame, as it is decoded.

        People who leave and come back keep their id; gaps of a few frames are filled (`Humans.filled`);
        motion is smoothed and the shape of a person stays the same. `sequence.collect` makes tracks of it.
        Memory does not grow with the length.

        Args:
            source: path of a video or of a folder of pictures, index of a webcam, or anything that yields
                what `predict` takes; `frames.open_video(source, fps=...)` where the rate matters.
            K, fov: the camera, as in `predict`, for all frames. None: what the network sees in the first
                frames is kept.
            threshold: least score of somebody new; who is followed already may have half of it.
            tiles: as in `predict`, for people who are small in the frames.
            batch_size: frames that go through the network at once; fewer where frames are very large.
            tracking: a `tracking.Tracking`: how far to look ahead, which gaps to fill, how much to smooth.

        Raises:
            ValueError, FileNotFoundError: the source cannot be read; the sentence says why. A video that
                breaks off gives what can be read, and a warning. ImportError: PyAV or SciPy are missing.
        """
        from .video.predict import predict_video

        options: dict[str, Any] = {"fov": fov, "threshold": threshold, "tiles": tiles}
        return predict_video(self, source, K, batch_size=batch_size, tracking=tracking, **options)

    @torch.inference_mode()
    def _predict_images(
        self,
        photos: list[LoadedImage],
        cameras: list[tuple[Tensor | None, str]],
        threshold: float | None,
        max_people: int | None,
    ) -> list[Humans]:
        letterboxes = [self.letterbox(*photo.pixels.shape[:2]) for photo in photos]
        unknown_33 = torch.full((3, 3), math.nan)
        K_B33 = torch.stack(
            [
                unknown_33 if K is None else letterbox.intrinsics(K)
                for letterbox, (K, _) in zip(letterboxes, cameras, strict=True)
            ]
        )
        look = self._look_through if self.captured is None else self.captured
        seen = look([photo.pixels for photo in photos], letterboxes, K_B33, threshold, max_people)
        result = []
        for photo, letterbox, (K, source), mine in zip(photos, letterboxes, cameras, seen, strict=True):
            if K is None:
                K, source = letterbox.image_intrinsics(mine.K), self.own_camera_source
            flat = None if mine.flat is None else [letterbox.inverse_points(points) for points in mine.flat]
            result.append(self._humans(mine.people, photo, K, source, flat))
        return result

    def _look_through(
        self,
        pictures: Sequence[np.ndarray],
        letterboxes: Sequence[Letterbox],
        K_B33: Tensor,
        threshold: float | None,
        max_people: int | None,
    ) -> list[Detections]:
        """Who is in each of these (H, W, 3) uint8 pictures, seen through its window with its camera."""
        images_B3HW = torch.stack(
            [letterbox.to_tensor(picture) for letterbox, picture in zip(letterboxes, pictures, strict=True)]
        )
        predictions = self(
            images_B3HW.to(self.device), K_B33.to(self.device), threshold=threshold, max_people=max_people
        )
        used_B33 = predictions.K_B33.float().cpu()
        return [Detections(predictions.of_image(i), used_33) for i, used_33 in enumerate(used_B33)]

    def _closer(
        self,
        photo: LoadedImage,
        whole: Humans,
        count: int,
        threshold: float | None,
        max_people: int | None,
        batch_size: int,
    ) -> Humans:
        """The people of a picture, who are those of the `whole` and of its parts, each once."""
        tiles = tiles_of(*whole.image_size, count)
        K = torch.tensor(whole.K)
        parts: list[Humans] = []
        for start in range(0, len(tiles), batch_size):
            some = tiles[start : start + batch_size]
            photos = [replace(photo, pixels=photo.pixels[y0:y1, x0:x1]) for x0, y0, x1, y1 in some]
            cuts = [Letterbox((1, 1), (-x0, -y0), x1 - x0) for x0, y0, x1, _ in some]
            cameras: list[tuple[Tensor | None, str]] = [(cut.intrinsics(K), "given") for cut in cuts]
            parts += self._predict_images(photos, cameras, threshold, max_people)
        kept = merge_tiles(whole, parts, tiles)
        people = {
            name: np.concatenate([getattr(humans, name) for humans in (whole, *parts)])[kept]
            for name in OF_PEOPLE
        }
        best = people["scores"].argsort(kind="stable")[::-1][:max_people]
        best = best[people["translation"][best, 2].argsort(kind="stable")]
        return self._humans({name: array[best] for name, array in people.items()}, photo, K, whole.K_source)

    def _humans(
        self,
        people: dict[str, np.ndarray],
        photo: LoadedImage,
        K: Tensor,
        source: str,
        flat: Sequence[np.ndarray] | None = None,
    ) -> Humans:
        """flat: their joints and the corners of their boxes in pixels of the image, if these are known."""
        height, width = photo.pixels.shape[:2]
        if flat is not None:
            joints_2d, outline = map(torch.from_numpy, flat)
        else:
            joints_2d = project(torch.from_numpy(people["joints"]), K)
            outline = project(torch.from_numpy(people["vertices"]), K)
        if len(people["scores"]):
            boxes = torch.cat([outline.amin(1), outline.amax(1)], dim=1)
            limit = torch.tensor([width, height, width, height])
            boxes = torch.minimum(boxes.clamp(min=0), limit)
        else:
            boxes = torch.zeros(0, 4)
        return Humans(
            **people,
            joints_2d=joints_2d.numpy(),
            boxes=boxes.numpy(),
            pelvis=people["joints"][:, self.body.pelvis_joint],
            track_ids=None,
            K=K.numpy(),
            K_source=source,
            image_size=(height, width),
            body=self.body.name,
            topology=self.body.topology,
            unpredicted=self.config.unpredicted,
        )


def check_options(fov: float | None, threshold: float | None, max_people: int | None, tiles: int = 1) -> None:
    if fov is not None and not 1 < fov < 179:
        raise ValueError(f"fov is the field of view in degrees, between 1 and 179, got {fov}")
    if threshold is not None and not 0 <= threshold <= 1:
        raise ValueError(f"threshold is a score between 0 and 1, got {threshold}")
    if max_people is not None and max_people < 0:
        raise ValueError(f"max_people must not be negative, got {max_people}")
    if not 1 <= tiles <= MOST:
        raise ValueError(f"tiles is how many parts lie along a picture, 1 to {MOST}, got {tiles}")
