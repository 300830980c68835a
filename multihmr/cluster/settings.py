"""Settings of a run over a data set; imported without Ray, so that the command can show its help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


def _setting(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True)
class Settings:
    """Settings of a run. Those of `of_predict` change the result."""

    fov: float | None = _setting(None, "field of view over the longer side, in degrees")
    threshold: float | None = _setting(None, "minimum score of a person, 0 to 1")
    max_people: int | None = _setting(None, "keep the N best per picture")
    tiles: int = _setting(1, "tiles per side for small people; 1 is the whole picture alone")
    hands_and_faces: bool = _setting(
        False, "look once more at each hand and face, in the pixels of the image"
    )
    limbs: bool = _setting(True, "align limbs with keypoints from a crop of each person")
    any_rotation: bool | None = _setting(
        None, "look at every quarter turn of each picture; None: where people lie on their side"
    )
    column: str | None = _setting(None, "column of tables that has the bytes of pictures")
    address: str | None = _setting(None, "address of a Ray cluster, HOST:6379; by default this machine")
    workers: int | None = _setting(None, "number of model copies; by default one per GPU, else all CPUs")
    threads: int | None = _setting(None, "CPU threads per worker; by default 1, or beside a GPU its share")
    backend: str = _setting("eager", "runtime of the backbone in every worker, as for load_model")
    batch_size: int = _setting(8, "pictures per forward pass")
    save_every: float = _setting(60.0, "seconds between written parts, which a kill loses at most")

    @property
    def of_predict(self) -> dict[str, Any]:
        """The options that change the result, by their names in Model.predict."""
        names = ("fov", "threshold", "max_people", "tiles", "hands_and_faces", "limbs")
        any_rotation = "auto" if self.any_rotation is None else self.any_rotation
        return {name: getattr(self, name) for name in names} | {"any_rotation": any_rotation}
