"""With a calibrated camera, where is each person's right wrist?

K belongs to the picture as given: resizing and padding for the network are not your concern.

    python examples/known_camera.py
"""

from pathlib import Path

import numpy as np

from multihmr import load_model

picture = Path(__file__).parent / "images/astronaut.jpg"  # 512 x 512
K = np.array([[620.0, 0, 256], [0, 620.0, 256], [0, 0, 1]])

humans = load_model().predict(picture, K)
keypoints = humans.keypoints("coco17")
wrist = keypoints.names.index("right_wrist")
for xy, xyz in zip(keypoints.xy[:, wrist], keypoints.xyz[:, wrist], strict=True):
    print("pixel", xy.round(1), "metres", xyz.round(3))

# The same point by hand: points are in the camera frame of K, x right, y down, z forward.
xyz = keypoints.xyz[:, wrist]
projected = (xyz @ K.T)[:, :2] / xyz[:, 2:]
np.testing.assert_allclose(projected, keypoints.xy[:, wrist], atol=0.1)
