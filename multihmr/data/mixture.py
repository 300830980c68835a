"""Mixture of data sets: an endless stream in which sample number g is always the same.

It is stateless, so that any worker of any process can read any sample, and a resumed run gets the samples
of an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..bodies.topology import Topology
from . import DATASETS, dataset_class
from .datasets.background import BackgroundImages
from .sample import Sample
from .webdataset import Shards

BLOCK = 1000  # consecutive samples in which every data set has exactly its share


@dataclass(frozen=True)
class Source:
    """A data set in a mixture.

    Attributes:
        name: in messages and names of samples.
        samples: by number.
        share: of the stream, in any unit; without shares every sample of all sources counts the same.
    """

    name: str
    samples: Sequence[Sample]
    share: float | None = None


def open_sources(text: str, root: str | Path = "", *, joints: bool = False) -> list[Source]:
    """Open the training sources named in a text such as "bedlam:0.5,agora-validation:0.3,data/train:0.2".

    A source is one of
      FOLDER             shards of `multihmr generate`
      NAME, NAME-SPLIT   a data set whose files lie in root/NAME or, as NAME@FOLDER, elsewhere
      synthetic@SEED     pictures rendered during training (old spelling: synth@SEED)
      background@FOLDER  pictures without people (old spelling: nobody@FOLDER)

    Args:
        text: the sources, comma separated; with :NUMBER for each of them or for none, their shares.
        root: folder of the named data sets.
        joints: as for `Shards`.

    Raises:
        ValueError: shares are missing or not positive, or a source is empty.
        FileNotFoundError: there are no such files; the message says where to get them.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise ValueError(f"data must be like 'data/train' or 'bedlam:0.5,data/train:0.5', got {text!r}")
    sources = []
    for word in words:
        name, _, share = word.rpartition(":")
        if not name or not share.replace(".", "", 1).isdecimal():
            name, share = word, ""
        sources.append(Source(name, _open(name, Path(root), joints), float(share) if share else None))
    return sources


def _open(name: str, root: Path, joints: bool) -> Sequence[Sample]:
    words, _, folder = name.partition("@")
    if words in ("synthetic", "synth") and folder.isdecimal():
        from .synthetic.generate import GenerationConfig, RenderedDataset  # which needs the renderer

        return RenderedDataset(GenerationConfig(int(folder)))
    if words in ("synthetic", "synth"):
        raise ValueError(f"{name!r} must be synthetic@SEED with a whole number, as synthetic@1")
    if words in ("background", "nobody") and folder:
        return BackgroundImages(folder)
    # The longest match: "coco-wholebody" is not a split of "coco".
    known = max((n for n in DATASETS if f"{words}-".startswith(f"{n}-")), key=len, default="")
    if folder or (known and not Path(name).exists()):
        split = words[len(known) + 1 :] if known else None
        return dataset_class(known or words)(folder or root / known, split or None)
    return Shards(name, joints=joints)


class Mixture:
    """Sample number g of an endless stream over data sets, each with its share and a shuffled order.

    In every block of 1000 numbers each data set has exactly its share, spread evenly. All of its samples come
    before one is repeated. A sample's name begins with that of its data set.

    Raises:
        ValueError: some sources have a share and others not, a share is not positive, or a source is empty.
    """

    def __init__(self, sources: Sequence[Source], seed: int = 0) -> None:
        shares = [source.share for source in sources]
        empty = [source.name for source in sources if not len(source.samples)]
        if empty:
            raise ValueError(f"there is no sample in {', '.join(empty)}; leave it out")
        if len({share is None for share in shares}) > 1 or any(s is not None and s <= 0 for s in shares):
            given = ", ".join(f"{source.name}: {source.share}" for source in sources)
            raise ValueError(f"each data set needs a positive share, or none has one; got {given}")
        self.seed = seed
        # A lane is shuffled as a whole: all sources together, or each on its own.
        self._lanes = [list(sources)] if shares[0] is None else [[source] for source in sources]
        self._lane_at, self._rank_at = _spread([share or 1.0 for share in shares[: len(self._lanes)]])
        self._counts = np.bincount(self._lane_at)
        self._orders: dict[int, tuple[int, np.ndarray]] = {}  # lane -> last epoch and its order

    def place(self, g: int) -> tuple[Source, int]:
        """Source of sample number g, and its number there."""
        block, at = divmod(g, BLOCK)
        lane = int(self._lane_at[at])
        turn = block * int(self._counts[lane]) + int(self._rank_at[at])
        ends = np.cumsum([len(source.samples) for source in self._lanes[lane]])
        epoch, position = divmod(turn, int(ends[-1]))
        number = int(self._order(lane, epoch, int(ends[-1]))[position])
        k = int(np.searchsorted(ends, number, side="right"))
        return self._lanes[lane][k], number - int(ends[k - 1] if k else 0)

    def __getitem__(self, g: int) -> Sample:
        """Sample number g. ValueError as in `read`."""
        return self.read(*self.place(g))

    def read(self, source: Source, number: int) -> Sample:
        """A sample of a source, with the source's name before its own.

        Raises:
            ValueError: it cannot be read; the message names the source and the sample.
        """
        try:
            sample = source.samples[number]
        except (OSError, ValueError) as error:
            raise ValueError(f"{source.name}, sample number {number}: {error}") from error
        return replace(sample, name=f"{source.name}/{sample.name}")

    def _order(self, lane: int, epoch: int, count: int) -> np.ndarray:
        if self._orders.get(lane, (-1,))[0] != epoch:
            order = np.random.default_rng((self.seed, 0, epoch, lane)).permutation(count)
            self._orders[lane] = (epoch, order)
        return self._orders[lane][1]


def _spread(shares: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """For each number of a block: its lane, and how many of the lane come before it."""
    exact = np.array(shares) / sum(shares) * BLOCK
    counts = np.maximum(np.floor(exact), 1).astype(int)
    while counts.sum() != BLOCK:
        missing = np.sign(BLOCK - counts.sum())
        counts[np.argmax((exact - counts) * missing)] += missing
    lanes = np.repeat(np.arange(len(counts)), counts)
    ranks = np.concatenate([np.arange(count) for count in counts])
    order = np.argsort((ranks + 0.5) / counts[lanes], kind="stable")
    return lanes[order], ranks[order]


def for_body(sample: Sample, topology: Topology, *, keypoints_only: bool = False) -> Sample:
    """The sample with the number of parameters that a body takes, NaN where it has none.

    Bodies of linear shape get 0 for the components that a data set did not fit.

    Args:
        sample: of any body.
        topology: of the body.
        keypoints_only: of people with another body use the keypoints, and the heads where they are known.

    Raises:
        ValueError: the people have another body, or more parameters; both are named.
    """
    wanted = {
        "pose": (len(topology.pose_joints), 3, 3),
        "shape": (len(topology.shape_names),),
        "expression": (len(topology.expression_names),),
    }
    if sample.pose.shape[1] and sample.body != topology.name:
        if not keypoints_only:
            raise ValueError(
                f"people of sample '{sample.name}' have body '{sample.body}', the model has "
                f"'{topology.name}'; train a model with that body, or use only their keypoints "
                "(--keypoints-only)"
            )
        sample = replace(sample, **{name: getattr(sample, name)[:, :0] for name in wanted})
    if not sample.pose.shape[1] and sample.anchor != "center":  # the head is unknown
        sample = replace(sample, translation=np.full_like(sample.translation, np.nan), anchor="center")
    changes: dict[str, Any] = {
        name: _widened(sample, name, shape, topology) for name, shape in wanted.items()
    }
    return replace(sample, body=topology.name, **changes)


def _widened(sample: Sample, name: str, shape: tuple[int, ...], topology: Topology) -> np.ndarray:
    values = getattr(sample, name)
    missing = shape[0] - values.shape[1]
    linear = topology.rest_pelvis is not None and name != "pose"
    if missing < 0 or (missing and values.shape[1] and not linear):
        raise ValueError(
            f"sample '{sample.name}' has {values.shape[1]} values of {name} a person, body "
            f"'{topology.name}' takes {shape[0]}; use a body of that many"
        )
    filler = np.nan if not values.shape[1] else 0.0
    tail = np.full((len(sample), missing, *shape[1:]), filler, np.float32)
    return np.concatenate([values.reshape(len(sample), values.shape[1], *shape[1:]), tail], axis=1)
