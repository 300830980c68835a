"""How do I run many pictures of different sizes, some without people?

python examples/batch.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from multihmr import load_model

portrait = np.asarray(Image.open(Path(__file__).parent / "images/astronaut.jpg"))
pictures = [
    portrait,
    portrait[:, 100:400],  # portrait format
    np.full((300, 500, 3), 128, np.uint8),  # no people
]

model = load_model()
for picture, humans in zip(pictures, model.predict_batch(pictures), strict=True):
    height, width = picture.shape[:2]
    print(f"{width}x{height}: {len(humans)} people, vertices {humans.vertices.shape}")
