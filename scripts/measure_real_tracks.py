"""Tracks of a film whose truth is unknown, without and with the rules against duplicates; look at it, too.

    OMP_NUM_THREADS=1 python scripts/measure_real_tracks.py vtest.avi --frames 150

Each frame is predicted once by the bundled model. Printed are the number of tracks, the people of all frames
together, the length of each track, and how often two people of a frame are in the same place by the tracker's
own rule. vtest.avi is in Debian's package opencv-doc.
"""

import argparse
import itertools
from contextlib import ExitStack
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from measure_tracking import no_pairs

from multihmr import Humans, load_model
from multihmr.video import tracker
from multihmr.video.predict import predict_frames
from multihmr.video.reader import open_video
from multihmr.video.tracker import Tracking, follow

RULES = ("_same_place", "_boxes_coincide")


def report(name: str, people: list[Humans]) -> None:
    ids = [identity for humans in people for identity in humans.track_ids.tolist()]
    lengths = sorted(np.unique(ids, return_counts=True)[1].tolist())
    twice = sum(int(np.triu(tracker._same_place(humans), 1).sum()) for humans in people if len(humans) > 1)
    print(
        f"{name:8}{len(lengths)} tracks of {lengths} frames, {len(ids)} people in all frames, {twice} twice"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("film", type=Path)
    parser.add_argument("--frames", type=int, default=150)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(device="cpu")
    frames = itertools.islice(open_video(args.film), args.frames)
    found = predict_frames(model, frames, threshold=model.threshold / 2, batch_size=1)
    predicted = [(frame.time, humans) for frame, humans in found]
    for name in ("before", "after"):
        with ExitStack() as changed:
            for rule in RULES if name == "before" else ():
                changed.enter_context(mock.patch.object(tracker, rule, no_pairs))
            people = list(follow(predicted, Tracking(lookahead=60), new=model.threshold))
        report(name, people)
