"""Sample: one picture with the true people in it, as every data set gives it."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# What `translation` is the place of. "center": the joint that networks detect people by (the head).
# "pelvis": the joint that `pose[:, 0]` turns around. "transl": SMPL's own translation, which is added to the
# body's rest shape: the pelvis then stands at translation + rest pelvis of the shape.
ANCHORS = ("center", "pelvis", "transl")


@dataclass(frozen=True)
class Sample:
    """A picture, its camera and its N people. What is not known is NaN, or None for whole fields.

    image            (H, W, 3) uint8
    K                (3, 3) float32 intrinsics in pixels of this image; NaN where nobody measured them
    pose             (N, R, 3, 3) float32 of `body`; pose[:, 0] turns the body into the camera frame. Joints
                     that the data set does not have (hands, say) are NaN
    shape            (N, S), expression (N, E) float32
    translation      (N, 3) float32 where `anchor` is in the camera frame [m]
    visibility       (N,) float32 share of the person's vertices whose pixel shows this person; 1 if unknown
    name             of the sample in its data set, unique there: messages and result files carry it
    body             whose parameters these are: "anny", "smplx", "smpl"; with R = 0 there are none
    anchor           one of ANCHORS
    keypoints_2d     (N, M, 2) float32 pixels of this image, keypoints_3d (N, M, 3) camera frame [m], the
                     points of `keypoint_set`, named as in `bodies.joints.KEYPOINT_SETS` or by the data set
    joint_visibility (N, J) bool, which joints of `body` are in the picture and not hidden
    gender           (N,) str: "neutral", "female" or "male", of bodies that have one model for each
    mask             (H, W) uint8: 0 nobody, n + 1 where person n is seen
    depth            (H, W) float32 distance along the optical axis [m], NaN where there is nothing
    world_to_camera  (3, 4) float32 rotation and translation [m] from a world whose z points up

    Raises:
        ValueError: arrays of other shapes, types or numbers of people than these; the sample is named.
    """

    image: np.ndarray
    K: np.ndarray
    pose: np.ndarray
    shape: np.ndarray
    expression: np.ndarray
    translation: np.ndarray
    visibility: np.ndarray
    name: str
    body: str = "anny"
    anchor: str = "center"
    keypoints_2d: np.ndarray | None = None
    keypoints_3d: np.ndarray | None = None
    keypoint_set: str = ""
    joint_visibility: np.ndarray | None = None
    gender: np.ndarray | None = None
    mask: np.ndarray | None = None
    depth: np.ndarray | None = None
    world_to_camera: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3 or self.image.dtype != np.uint8:
            raise ValueError(
                f"image of sample '{self.name}' must be (H, W, 3) uint8, "
                f"got {self.image.dtype} {self.image.shape}"
            )
        counts = {f: len(getattr(self, f)) for f in PEOPLE if getattr(self, f) is not None}
        if len(set(counts.values())) > 1:
            raise ValueError(f"sample '{self.name}' has arrays for different numbers of people: {counts}")
        for field in PICTURES:
            plane = getattr(self, field)
            if plane is not None and plane.shape != self.image.shape[:2]:
                raise ValueError(
                    f"{field} of sample '{self.name}' must be {self.image.shape[:2]} as its picture, "
                    f"got {plane.shape}"
                )
        if self.anchor not in ANCHORS:
            raise ValueError(f"anchor must be one of {ANCHORS}, got {self.anchor!r}")

    def __len__(self) -> int:
        return len(self.translation)


PICTURES = ("mask", "depth")  # of the picture's size: they go through windows with it
WORDS = ("name", "body", "anchor", "keypoint_set")
CAMERA = ("K", "world_to_camera")
# All others have one row a person.
PEOPLE = tuple(f.name for f in fields(Sample) if f.name not in ("image", *WORDS, *PICTURES, *CAMERA))
