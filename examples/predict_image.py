"""Who is in this picture, and where do they stand?

python examples/predict_image.py [PICTURE] [OUT_FOLDER]
"""

import sys
from pathlib import Path

from multihmr import load_model

picture = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent / "images/astronaut.jpg"
out = Path(sys.argv[2]) if len(sys.argv) > 2 else Path("out")
out.mkdir(parents=True, exist_ok=True)

humans = load_model().predict(picture)
print(f"{len(humans)} people; the camera is {humans.K_source}")
for person in humans:
    x, y, z = person.translation[0]
    print(f"score {person.scores[0]:.2f}: head {x:+.2f} m right, {y:+.2f} m down, {z:.2f} m ahead")

humans.save(out / "people.glb")  # for Blender, game engines, browsers
humans.save(out / "people.npz")  # every parameter; multihmr.load_humans reads it back
