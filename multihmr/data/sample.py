"""Sample: a picture with the ground truth of its people, the common form of all data sets."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

# Meaning of `translation`. "center": position of the joint by which networks detect people (the head).
# "pelvis": of the joint that `pose[:, 0]` rotates about. "transl": SMPL's translation, which is added to the
# body's vertices: the pelvis is at translation + rest pelvis of the shape.
ANCHORS = ("center", "pelvis", "transl")


@dataclass(frozen=True)
class Sample:
    """A picture, its camera and its N people. Unknown values are NaN, unknown fields None.

    image            (H, W, 3) uint8
    K                (3, 3) float32 intrinsics in pixels of this image; NaN if unknown
    pose             (N, R, 3, 3) float32 of `body`; pose[:, 0] rotates the body into the camera frame.
                     Joints without annotations (hands, say) are NaN
    shape            (N, S), expression (N, E) float32
    translation      (N, 3) float32 position of `anchor` in the camera frame [m]
    visibility       (N,) float32 visible share of the person's vertices; 1 if unknown
    name             of the sample, unique in its data set; used in messages and result files
    body             body model of the parameters: "anny", "smplx", "smpl"; there are none if R = 0
    anchor           one of ANCHORS
    keypoints_2d     (N, M, 2) float32 pixels of this image, keypoints_3d (N, M, 3) camera frame [m], the
                     points of `keypoint_set`, named in bodies/keypoint_sets.py or by the data set
    joint_visibility (N, J) bool, which joints of `body` are in the picture and not occluded
    gender           (N,) str: "neutral", "female" or "male", for bodies with one model per gender
    mask             (H, W) uint8: 0 background, n + 1 where person n is visible
    depth            (H, W) float32 distance along the optical axis [m], NaN where there is no surface
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


PICTURES = ("mask", "depth")  # of the picture's size; cropped with it
WORDS = ("name", "body", "anchor", "keypoint_set")
CAMERA = ("K", "world_to_camera")
# All others have one row per person.
PEOPLE = tuple(f.name for f in fields(Sample) if f.name not in ("image", *WORDS, *PICTURES, *CAMERA))
