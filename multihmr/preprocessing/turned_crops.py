"""Square crops of an image that are turned, as networks for hands and faces take them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Of 21 points of a hand: those that move little when fingers bend. Around them lies the crop that MediaPipe
# tracks a hand with (hand_landmark_landmarks_to_roi of its graphs, Apache-2.0).
STEADY_POINTS = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
CROP_SCALE = 2.0  # sides of the crop over those of the box around the steady points
CROP_SHIFT = 0.1  # of the centre towards the fingers, in heights of that box


@dataclass(frozen=True)
class TurnedCrop:
    """A turned square of an image, shown upright in `size` x `size` pixels.

    Attributes:
        center: (2,) x, y of its middle in pixels of the image.
        side: in pixels of the image.
        up: (2,) unit vector in the image that points upwards in the crop.
        size: sides of the crop in its own pixels.
    """

    center: np.ndarray
    side: float
    up: np.ndarray
    size: int = 224

    @property
    def turn(self) -> np.ndarray:
        """(2, 2) rotation from directions in the crop to directions in the image."""
        x, y = self.up
        return np.array([[-y, -x], [x, -y]])

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the crop -> pixels of the image."""
        return self.center + (points - self.size / 2) * (self.side / self.size) @ self.turn.T

    def from_image(self, points: np.ndarray) -> np.ndarray:
        """(..., 2) pixels of the image -> pixels of the crop."""
        return (points - self.center) @ self.turn * (self.size / self.side) + self.size / 2

    def cut(self, pixels: np.ndarray) -> np.ndarray:
        """(size, size, 3) uint8 of an image (H, W, 3); black where it ends."""
        reach = self.side / 2 * np.abs(self.turn).sum(1) + 2
        height, width = pixels.shape[:2]
        x0, y0 = np.clip(np.floor(self.center - reach), 0, [width - 1, height - 1]).astype(int)
        x1, y1 = np.clip(np.ceil(self.center + reach), [x0 + 1, y0 + 1], [width, height]).astype(int)
        part = Image.fromarray(pixels[y0:y1, x0:x1])
        # Interpolation reads four pixels: where the crop has fewer than the image, means must come first.
        factor = max(1, int(self.side // self.size))
        if factor > 1:
            part = part.reduce(factor)
        matrix = self.turn * (self.side / self.size / factor)
        start = (self.to_image(np.zeros(2)) - [x0, y0]) / factor
        affine = (*matrix[0], start[0], *matrix[1], start[1])
        shape = (self.size, self.size)
        return np.asarray(part.transform(shape, Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR))


def hand_crop(points: np.ndarray, scale: float = CROP_SCALE) -> TurnedCrop:
    """The crop around a hand, wrist below and fingers up, from its 21 points (21, 2) in pixels.

    Args:
        points: wrist, then thumb to little finger from the knuckle to the tip.
        scale: sides of the crop over those of the box around the points that move little.
    """
    up = (points[[5, 13]].mean(0) + points[9]) / 2 - points[0]
    length = float(np.linalg.norm(up))
    up = up / length if length > 0 else np.array([0.0, -1.0])
    turn = TurnedCrop(points[0], 1.0, up).turn
    steady = points[list(STEADY_POINTS)] @ turn
    low, high = steady.min(0), steady.max(0)
    middle = (low + high) / 2 - [0, CROP_SHIFT * (high - low)[1]]
    return TurnedCrop(turn @ middle, scale * max(float((high - low).max()), 1e-3), up)
