"""How do people get into Blender, Unity, Unreal or a web page, with bones that can be moved?

python examples/export_rigged.py [PICTURE]
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from multihmr import load_model, save
from multihmr.video.tracks import collect

picture = sys.argv[1] if sys.argv[1:] else Path(__file__).parent / "images/astronaut.jpg"
model = load_model()
humans = model.predict(picture)

# A picture: one character a person, with skeleton, skin and 52 facial actions as morph targets. In Blender:
# File > Import > glTF 2.0. `bones` renames those bones that Mixamo has, too ("vrm" and "smplx" likewise).
print(humans.save("rigged.glb", rigged=True, body=model.body, bones="mixamo"))

# One person's pose for programs that know skeletons alone.
print(humans[0].save("pose.bvh", body=model.body))

# A video, here three cuts of the same picture: people who move. Set the frame rate of the Blender scene to
# that of the video before you import it, and keys lie on whole frames, the first on frame 0.
pixels = np.asarray(Image.open(picture).convert("RGB"))
cuts = [pixels[:, x : x + pixels.shape[1] - 40] for x in (0, 20, 40)]
tracks = collect(model.predict_video(cuts), fps=30)
print(save(tracks, "moving.glb", body=model.body))

# Plain meshes in the axes of another program, for what has no importer.
there = humans.in_frame("unity")
print(f"heads in Unity's axes: {there.translation.round(2).tolist()}, {len(there.faces)} triangles a person")
