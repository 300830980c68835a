"""Who is who in a video, and where does each of them walk?

python examples/video_tracks.py [VIDEO or FOLDER]     needs multihmr[video]

Without one, five pictures of a camera that pans over examples/images/astronaut.jpg.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from multihmr import load_model, save
from multihmr.video.reader import open_video
from multihmr.video.tracks import collect, save_track


def pan() -> list[np.ndarray]:
    portrait = np.asarray(Image.open(Path(__file__).parent / "images/astronaut.jpg"))
    return [portrait[:, x : x + 400] for x in range(0, 100, 20)]


model = load_model()
video = open_video(sys.argv[1]) if sys.argv[1:] else open_video(pan(), fps=10)

people = []
for frame, humans in zip(video, model.predict_video(video), strict=False):
    picture = humans.draw(frame.image, side_views=False)  # (H, W, 3) uint8, colours by track id
    print(
        f"{frame.time:5.2f} s: people {humans.track_ids.tolist()} over {picture.shape[1]}x{picture.shape[0]}"
    )
    people.append(humans)

for track in collect(people, video.fps):  # or collect(model.predict_video(...)), which keeps no meshes
    way = np.linalg.norm(np.diff(track.pelvis, axis=0), axis=1).sum()
    filled = f", {track.filled.sum()} of them filled in" if track.filled.any() else ""
    print(f"person {track.id}: {len(track)} frames{filled}, {way:.2f} m")
    save_track(track, f"person_{track.id:03}.npz")
    save(track, f"person_{track.id:03}.glb", body=model.body)  # animated, with a skeleton
