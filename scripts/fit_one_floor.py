"""The constants of `on_one_floor`, measured on rendered pictures of the training split.

    multihmr generate --out data/tune --count 300 --seed 77000000 --split train
    python scripts/fit_one_floor.py data/tune [--count 300] [--model multihmr-anny-hybrid]

For world/one_floor.py: mean and standard deviation of log(true / predicted size) of adults and of short
people (PRIOR_MEAN and PRIOR_STD at PRIOR_HEIGHTS), where size is the mean of what height and distance say,
for one factor changes both. For world/ground_solver.py: the errors of axes (AXIS_ROLL, AXIS_PITCH, LOOSE) and
of the level of the feet with the true vertical, floor and height (LEGS). Medians and median deviations, which
a few lost people do not change. Take pictures that the network was not trained on, never the test split.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measure_ground import pairs, true_humans

from multihmr import load_model
from multihmr.data.webdataset import Shards
from multihmr.world import heights
from multihmr.world.standing import Stances, lowest_points, roll_and_pitch


def measured(folder: Path, count: int, name: str | None) -> np.ndarray:
    """(P, 8) of people found: category (0 standing, 1 ankles, 2 hips, 3 less is seen), predicted height [m],
    logarithms of true by predicted height and distance, and of the true camera height by that of the feet,
    errors of roll and pitch [degrees], true age."""
    model = load_model(name, device="cpu")
    samples, rows = Shards(folder), []
    for i in range(min(count, len(samples))):
        sample = samples[i]
        assert sample.world_to_camera is not None
        true, found = true_humans(sample, model), model.predict(sample.image, sample.K)
        if not len(found) or not len(true):
            continue
        up = sample.world_to_camera[:, 2].astype(float)
        camera_height = float(-(sample.world_to_camera[:, :3].T @ sample.world_to_camera[:, 3])[2])
        stances = Stances.of(found)
        levels = -lowest_points(stances.feet, up) @ up
        tall, truly = heights(found, body=model.body), heights(true, body=model.body)
        off = np.degrees(np.stack(roll_and_pitch(stances.axes), 1) - np.stack(roll_and_pitch(up)))
        for k, j in pairs(found, true):
            shown = (stances.shows_feet[k], stances.shows_ankles[k], stances.shows_hips[k], True)
            ratios = truly[j] / tall[k], true.distances[j] / found.distances[k]
            lift = np.log(camera_height / levels[k]) if levels[k] > 0.1 else np.nan
            rows.append([shown.index(True), tall[k], *np.log(ratios), lift, *off[k], true.shape[j, 1]])
    return np.array(rows)


def spread(values: np.ndarray) -> float:
    """Standard deviation by the median deviation."""
    return float(1.4826 * np.median(np.abs(values - np.median(values))))


def report(rows: np.ndarray) -> None:
    """Print the constants."""
    category, tall, height, distance, lift, roll, pitch, age = rows.T
    size = (height + distance) / 2
    for name, chosen in (("short (under 1.35 m)", tall < 1.35), ("adults (over 1.5 m)", tall > 1.5)):
        if chosen.any():
            print(
                f"prior of {name:21} mean {np.median(size[chosen]):+.3f}  std {spread(size[chosen]):.3f}  "
                f"(height {np.median(height[chosen]):+.3f} {spread(height[chosen]):.3f}, distance "
                f"{np.median(distance[chosen]):+.3f} {spread(distance[chosen]):.3f}; {chosen.sum()} people)"
            )
    for k, name in enumerate(("standing", "ankles", "hips")):
        chosen = (category == k) & np.isfinite(lift)
        if chosen.sum() > 5:
            print(
                f"{name:9} legs {spread((lift - height)[chosen]):.3f} of the height, "
                f"{spread((lift - distance)[chosen]):.3f} of the distance  roll {spread(roll[chosen]):.1f}  "
                f"pitch {spread(pitch[chosen]):.1f} degrees  ({chosen.sum()} people)"
            )
    print(f"{np.mean(age < 0.62):.2f} of the people are children or youths")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="shards of `multihmr generate --split train`")
    parser.add_argument("--count", type=int, default=300, help="pictures (default: %(default)s)")
    parser.add_argument("--model", help="default: the bundled model")
    args = parser.parse_args()
    report(measured(args.folder, args.count, args.model))


if __name__ == "__main__":
    main()
