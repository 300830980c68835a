"""A list of labelled photographs (development.json, development.txt) as a file in COCO's format.

    python scripts/photographs_to_coco.py ../shared/photos --out /tmp/development.json
    multihmr evaluate --data coco@/tmp/development.json

The pictures stay where they are; the file names them relative to itself. Photographs without people are
listed as images without annotations; people who need not be found are marked "ignore". Pictures of the list
that the labels lack are counted.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from multihmr.bodies.keypoint_sets import keypoint_names

POINTS = keypoint_names("coco17")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="with NAME.json, NAME.txt and the pictures")
    parser.add_argument("--name", default="development", help="of the list (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json")
    args = parser.parse_args()
    labels = json.loads((args.folder / f"{args.name}.json").read_text(encoding="utf-8"))
    listed = set((args.folder / f"{args.name}.txt").read_text(encoding="utf-8").split())
    content = coco_of(labels, listed, Path(os.path.relpath(args.folder.resolve(), args.out.resolve().parent)))
    args.out.write_text(json.dumps(content), encoding="utf-8")
    lacking = len(listed) - len(content["images"])
    people = [a for a in content["annotations"] if not a["ignore"]]
    print(
        f"{args.out}: {len(content['images'])} photographs, {len(people)} people to find, "
        f"{len(content['annotations']) - len(people)} that need not be found; "
        f"{lacking} of the list without labels"
    )


def coco_of(labels: dict[str, Any], listed: set[str], folder: Path) -> dict[str, Any]:
    """COCO's format of the photographs that are listed, with the folder before their names."""
    images, annotations = [], []
    for photo in (*labels["photos"], *labels["negatives"]):
        if photo["file"] not in listed:
            continue
        number = len(images)
        size = {key: photo[key] for key in ("width", "height")}
        images.append({"id": number, "file_name": (folder / photo["file"]).as_posix(), **size})
        for person in photo.get("people", ()):
            points = [person["keypoints2d"].get(name, (0, 0, 0)) for name in POINTS]
            annotations.append(
                {
                    "id": len(annotations),
                    "image_id": number,
                    "category_id": 1,
                    "bbox": person["bbox"],
                    "area": person["area"],
                    "keypoints": [value for point in points for value in point],
                    "num_keypoints": len(person["keypoints2d"]),
                    "iscrowd": int("crowd" in person.get("ignore_why", ())),
                    "ignore": int(person["ignore"]),
                }
            )
    categories = [{"id": 1, "name": "person", "keypoints": list(POINTS)}]
    return {"images": images, "annotations": annotations, "categories": categories}


if __name__ == "__main__":
    main()
