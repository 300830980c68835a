"""ResultWriter: collects the workers' results and alone writes them, each picture once, in parts."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..io.parquet import BAD, KINDS, SHARDS, Parts
from .datasource import Inputs
from .worker import unpack

PART_PICTURES = 2000  # most pictures of a part
NAMES = ["picture", "shard"]
SHOWN = 5  # number of reasons in a report


@dataclass
class Report:
    """Progress of a run."""

    pictures: int = 0
    people: int = 0
    bad: int = 0  # unusable inputs
    before: int = 0  # pictures and bad inputs done by earlier runs
    missing: int = 0  # inputs without a result; running again does them
    seconds: float = 0.0
    busy: float = 0.0  # working seconds of all workers, summed
    workers: int = 0
    reasons: list[str] = field(default_factory=list)  # of the first bad inputs

    @property
    def rate(self) -> float:
        """Pictures per second, including the start."""
        return self.pictures / self.seconds if self.seconds else 0.0

    @property
    def rate_of_worker(self) -> float:
        """Pictures per second of one working worker."""
        return self.pictures / self.busy if self.busy else 0.0


class ResultWriter:
    """Collects the workers' results, in any order, and knows what earlier runs have done."""

    def __init__(
        self, parts: Parts, watch: Callable[[Report], None] | None = None, *, save_every: float = 60.0
    ) -> None:
        """save_every: longest time between parts [s]."""
        self.parts, self.watch, self.save_every, self.report = parts, watch, save_every, Report()
        self.ready: dict[str, list[pa.Table]] = {kind: [] for kind in KINDS}
        self.pictures_ready = 0
        self.received: set[int] = set()  # hashes of the names received in this run
        self.plain = 0  # remaining pictures in files of their own
        self.shards: set[str] = set()  # unfinished shards
        self.sizes: dict[str, int] = {}  # number of pictures of each shard that was read completely
        whole = parts.repair()
        self.done = self._names(whole)
        for number in parts.numbers("shards"):
            table = parts.read("shards", number)
            self.sizes |= dict(zip(table["shard"].to_pylist(), table["pictures"].to_pylist(), strict=True))
        # an unreadable shard is in the table "bad" under its own name
        inside = self.done.filter(pc.fill_null(pc.not_equal(self.done["picture"], self.done["shard"]), False))
        counted = pc.value_counts(inside["shard"].combine_chunks()).to_pylist()
        self.counts = Counter({row["values"]: row["counts"] for row in counted})
        self.known_bad = set(
            self.done.filter(pc.equal(self.done["picture"], self.done["shard"]))["shard"].to_pylist()
        )
        self.report.before = len(self.done)
        known = [number for kind in KINDS for number in parts.numbers(kind)]
        self.next, self.began = max(known, default=-1) + 1, time.monotonic()
        self.written = self.began

    def _names(self, whole: list[int]) -> pa.Table:
        """All inputs with a result, and their shards."""
        jobs = [("pictures", n) for n in whole] + [("bad", n) for n in self.parts.numbers("bad")]
        with ThreadPoolExecutor(16) as pool:
            tables = list(pool.map(lambda job: self.parts.read(job[0], job[1], NAMES), jobs))
        return pa.concat_tables([BAD.empty_table().select(NAMES), *tables]).combine_chunks()

    def left(self, inputs: Iterable[Inputs]) -> list[Inputs]:
        """The inputs that are not done, for which this run waits."""
        plain = self.done.filter(pc.is_null(self.done["shard"]))["picture"].to_pylist()
        ended = [shard for shard, size in self.sizes.items() if self.counts[shard] == size]
        left = [group.without(pa.array(plain + ended, pa.string())) for group in inputs]
        self.plain = sum(len(group.pictures) for group in left)
        self.shards = {group.name(path) for group in left for path in group.shards}
        return left

    def done_in_shards(self) -> dict[str, set[str]]:
        """Finished pictures of each unfinished shard."""
        begun = self.done.filter(pc.is_in(self.done["shard"], pa.array(sorted(self.shards), pa.string())))
        names: dict[str, set[str]] = {}
        for picture, shard in zip(begun["picture"].to_pylist(), begun["shard"].to_pylist(), strict=True):
            names.setdefault(shard, set()).add(picture)
        return names

    def take(self, row: dict[str, Any]) -> None:
        """Add a worker's result of one batch; pictures that this run has already are dropped."""
        tables = {kind: unpack(row[kind]) for kind in KINDS}
        pictures, bad = self._fresh(tables["pictures"]), self._fresh(tables["bad"])
        people = tables["people"]
        if len(pictures) < len(tables["pictures"]):
            people = people.filter(pc.is_in(people["picture"], pictures["picture"].combine_chunks()))
        self._count(pictures, bad, dict(zip(*tables["shards"].to_pydict().values(), strict=True)))
        again = pa.array([name in self.known_bad for name in bad["picture"].to_pylist()], pa.bool_())
        for kind, table in (
            ("people", people),
            ("pictures", pictures),
            ("bad", bad.filter(pc.invert(again))),
        ):
            self.ready[kind].append(table)
        self._finish_shards()
        report = self.report
        report.pictures, report.people = report.pictures + len(pictures), report.people + len(people)
        report.bad, report.busy = report.bad + len(bad), report.busy + row["seconds"]
        report.reasons += [f"{r['picture']}: {r['reason']}" for r in bad.to_pylist()][
            : SHOWN - len(report.reasons)
        ]
        report.seconds = time.monotonic() - self.began
        self.pictures_ready += len(pictures)
        if self.pictures_ready >= PART_PICTURES or time.monotonic() - self.written > self.save_every:
            self.write()
        if self.watch:
            self.watch(report)

    def _fresh(self, table: pa.Table) -> pa.Table:
        fresh = []
        for name in table["picture"].to_pylist():
            fresh.append(hash(name) not in self.received)
            self.received.add(hash(name))
        return table if all(fresh) else table.filter(pa.array(fresh, pa.bool_()))

    def _count(self, pictures: pa.Table, bad: pa.Table, sizes: dict[str, int]) -> None:
        """Count finished inputs. The end of a shard may arrive before the last of its pictures."""
        for table in (pictures, bad):
            for name, shard in zip(table["picture"].to_pylist(), table["shard"].to_pylist(), strict=True):
                if shard is None:
                    self.plain -= 1
                elif name == shard:
                    self.shards.discard(shard)
                else:
                    self.counts[shard] += 1
        self.sizes |= sizes

    def _finish_shards(self) -> None:
        ended = [shard for shard in self.shards if self.counts[shard] == self.sizes.get(shard)]
        self.shards.difference_update(ended)
        rows = {"shard": ended, "pictures": [self.sizes[shard] for shard in ended]}
        self.ready["shards"].append(pa.table(rows, SHARDS))

    def write(self) -> None:
        """Write what is ready as a part.

        Raises:
            OSError: it cannot be written; the message says what is kept.
        """
        tables = {kind: pa.concat_tables(found) for kind, found in self.ready.items() if found}
        if any(len(table) for table in tables.values()):
            try:
                self.parts.write(self.next, tables)
            except OSError as error:
                kept = self.report.pictures - self.pictures_ready
                raise OSError(
                    f"cannot write into {self.parts.root} ({error}); {kept} pictures of this run are kept: "
                    "free space, and run the same again to resume"
                ) from error
            self.next += 1
        self.ready = {kind: [] for kind in KINDS}
        self.pictures_ready, self.written = 0, time.monotonic()

    def close(self) -> None:
        """Write the rest, and count inputs without a result."""
        self.write()
        self.report.missing = self.plain + len(self.shards)
        self.report.seconds = time.monotonic() - self.began
