"""People as rows of Parquet files: how a run over many pictures is stored, and how it is read back.

A folder, on a disk or at a URL such as s3://bucket/folder, holds four tables, each cut into parts:

    pictures/  one row per picture that was predicted, also of those without people: picture, shard, people,
               height, width, K (9 numbers), K_source
    people/    one row per person, nearest first: picture, person (1, 2, ...), score, box, translation, pose
               (an axis-angle triple a rotation), shape, expression, and where hands and faces were looked for
               refined (left hand, right hand, face found); no meshes, `read_people` makes them
    bad/       one row per input that could not be used: picture, shard, reason
    shards/    one row per shard or table that was read to its end: shard, pictures

Part n of people belongs to part n of pictures and is written before it: only with both a part is there.
Numbers are float32, which every reader of Parquet knows. Those of pose and expression are rounded to
1/8192: the low bits are zero then and shrink to what float16 would need, without its coarseness near pi.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq

from ..humans import Humans, project, rotmat_to_rotvec
from ..humans.fields import REFINED

if TYPE_CHECKING:
    from ..bodies.base import Body

FORMAT = "multihmr-people-1"
GRID = 8192
KINDS = ("people", "pictures", "bad", "shards")  # in the order in which a part is written
PEOPLE_AT_ONCE = 64  # whose meshes `read_people` makes together

PICTURES = pa.schema(
    [
        ("picture", pa.string()),
        ("shard", pa.string()),
        ("people", pa.int32()),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("K", pa.list_(pa.float32(), 9)),
        ("K_source", pa.string()),
    ]
)
BAD = pa.schema([("picture", pa.string()), ("shard", pa.string()), ("reason", pa.string())])
SHARDS = pa.schema([("shard", pa.string()), ("pictures", pa.int64())])

Found = tuple[str, "str | None", Humans]
"""Name of the picture, shard that holds it, people in it."""


def people_schema(body: Body, unpredicted: Sequence[str] = (), *, refined: bool = False) -> pa.Schema:
    """The columns of people of this body; the metadata has what a reader must know of it.

    Args:
        body: of the people.
        unpredicted: names of the parts that their model never moves.
        refined: whether there is a column for which hands and faces were found.
    """
    lists = {
        "box": 4,
        "translation": 3,
        "pose": 3 * body.rotation_count,
        "shape": body.shape_count,
        "expression": body.expression_count,
    }
    fields = [("picture", pa.string()), ("person", pa.int32()), ("score", pa.float32())]
    fields += [(name, pa.list_(pa.float32(), size)) for name, size in lists.items()]
    if refined:
        fields.append(("refined", pa.list_(pa.bool_(), len(REFINED))))
    about = {"format": FORMAT, "body": body.name, "unpredicted": list(unpredicted)}
    return pa.schema(fields, metadata={"multihmr": json.dumps(about)})


def people_table(found: Sequence[Found], schema: pa.Schema) -> pa.Table:
    """One row per person of these pictures, in their order."""
    humans = [h for _, _, h in found]
    counts = [len(h) for h in humans]
    pose = _stacked([rotmat_to_rotvec(h.pose) for h in humans])
    columns: dict[str, Any] = {
        "picture": np.repeat(np.array([name for name, _, _ in found], object), counts),
        "person": _stacked([np.arange(1, n + 1) for n in counts]).astype(np.int32),
        "score": _stacked([h.scores for h in humans]),
        "box": _stacked([h.boxes for h in humans]),
        "translation": _stacked([h.translation for h in humans]),
        "pose": np.round(pose * GRID) / GRID,
        "shape": _stacked([h.shape for h in humans]),
        "expression": np.round(_stacked([h.expression for h in humans]) * GRID) / GRID,
    }
    if "refined" in schema.names:
        columns["refined"] = _stacked([_found_parts(h) for h in humans])
    return pa.table([_column(columns[field.name], field.type) for field in schema], schema=schema)


def _found_parts(humans: Humans) -> np.ndarray:
    return np.zeros((len(humans), len(REFINED)), bool) if humans.refined is None else humans.refined


def pictures_table(found: Sequence[Found]) -> pa.Table:
    """One row per picture."""
    rows = [
        {
            "picture": name,
            "shard": shard,
            "people": len(humans),
            "height": humans.image_size[0],
            "width": humans.image_size[1],
            "K": humans.K.reshape(-1).tolist(),
            "K_source": humans.K_source,
        }
        for name, shard, humans in found
    ]
    return pa.Table.from_pylist(rows, PICTURES)


def read_people(
    folder: str | os.PathLike[str], pictures: Collection[str] | None = None, *, body: Body | None = None
) -> Iterator[tuple[str, Humans]]:
    """The people of each picture, with their meshes, as (name of the picture, Humans).

    Args:
        folder: what `multihmr cluster --out` wrote, on a disk or at a URL.
        pictures: only those of these names, as the tables have them; None: all.
        body: the one that the people were predicted with; None loads the one that the files name.

    Vertices differ from those predicted by rounding only (see the head of this file). They are made as they
    are asked for: memory does not grow with the folder.

    Raises:
        FileNotFoundError: there are no people in the folder.
        ValueError: a file is damaged, or of another body.
    """
    parts = Parts(folder)
    numbers = parts.numbers("pictures")
    if not numbers:
        raise FileNotFoundError(f"{folder} holds no people: give the folder that multihmr cluster wrote")
    wanted = None if pictures is None else pa.array(sorted(set(pictures)), pa.string())
    for number in numbers:
        table, people = parts.read("pictures", number), parts.read("people", number)
        if pc.sum(table["people"]).as_py() != len(people):
            raise ValueError(f"part {number} of {folder} is damaged: run multihmr cluster again to repair it")
        about = json.loads((people.schema.metadata or {}).get(b"multihmr", b"{}"))
        body = _body_of(about, people.schema, body)
        kept = [True] * len(table) if wanted is None else pc.is_in(table["picture"], wanted).to_pylist()
        yield from _rebuilt(table, people, kept, body, tuple(about["unpredicted"]))


def _body_of(about: Mapping[str, Any], schema: pa.Schema, body: Body | None) -> Body:
    """`body`, or the one that a file names; ValueError if it is not the one of the file."""
    if about.get("format") != FORMAT:
        raise ValueError(f"people must have the format {FORMAT!r}, got {about.get('format')!r}")
    if body is None:
        from ..bodies.loading import load_body_of_people

        name = about["body"]
        betas = schema.field("shape").type.list_size
        return load_body_of_people(name, shape_count=betas)
    if body.name != about["body"]:
        raise ValueError(f"these are people of body {about['body']!r}, got body {body.name!r}")
    return body


def _rebuilt(
    table: pa.Table, people: pa.Table, kept: list[bool], body: Body, unpredicted: tuple[str, ...]
) -> Iterator[tuple[str, Humans]]:
    """(name, Humans) of the kept pictures of one part; bodies are posed `PEOPLE_AT_ONCE`."""
    counts = table["people"].to_numpy()
    ends = np.cumsum(counts)
    rows = table.to_pylist()
    waiting: list[int] = []
    for i in range(len(rows) + 1):
        last = i == len(rows)
        if waiting and (last or counts[waiting].sum() >= PEOPLE_AT_ONCE):
            chosen = np.concatenate([np.arange(ends[j] - counts[j], ends[j]) for j in waiting])
            arrays = _posed({name: _array(people, name, chosen) for name in people.column_names[2:]}, body)
            cuts = np.cumsum(counts[waiting])[:-1]
            split = {name: np.split(array, cuts) for name, array in arrays.items()}
            for place, j in enumerate(waiting):
                mine = {name: pieces[place] for name, pieces in split.items()}
                yield rows[j]["picture"], _humans(mine, rows[j], body, unpredicted)
            waiting = []
        if not last and kept[i]:
            waiting.append(i)


def _posed(rows: dict[str, np.ndarray], body: Body) -> dict[str, np.ndarray]:
    """Arrays of P people as Humans has them, without what the camera adds."""
    import roma  # here, because writing does without torch
    import torch

    from ..bodies.base import posed

    rotvec = torch.tensor(rows["pose"], device="cpu").reshape(len(rows["score"]), -1, 3)
    pose = roma.rotvec_to_rotmat(rotvec).numpy()
    vertices, joints = posed(body, pose, rows["shape"], rows["expression"], rows["translation"])
    return {
        "scores": rows["score"],
        "vertices": vertices,
        "joints": joints,
        "pelvis": joints[:, body.pelvis_joint],
        "boxes": rows["box"],
        "translation": rows["translation"],
        "pose": pose,
        "shape": rows["shape"],
        "expression": rows["expression"],
        **({"refined": rows["refined"]} if "refined" in rows else {}),
    }


def _humans(arrays: dict[str, Any], row: dict[str, Any], body: Body, unpredicted: tuple[str, ...]) -> Humans:
    K = np.array(row["K"], np.float32).reshape(3, 3)
    return Humans(
        **arrays,
        joints_2d=project(arrays["joints"], K),
        K=K,
        K_source=row["K_source"],
        image_size=(row["height"], row["width"]),
        body=body.name,
        topology=body.topology,
        unpredicted=unpredicted,
    )


def _array(table: pa.Table, name: str, rows: np.ndarray) -> np.ndarray:
    """A column as an array: (P,) of numbers, (P, size) of lists."""
    column = table[name].take(rows).combine_chunks()
    if not pa.types.is_fixed_size_list(column.type):
        return column.to_numpy(zero_copy_only=False)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)


def _stacked(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, np.float32)


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    return pa.types.is_fixed_size_list(kind) and kind.value_type == pa.float32()


def _column(values: np.ndarray, kind: pa.DataType) -> pa.Array:
    if pa.types.is_fixed_size_list(kind):
        dtype = bool if kind.value_type == pa.bool_() else np.float32
        flat = pa.array(np.ascontiguousarray(values, dtype).reshape(-1))
        if kind.list_size == 0:  # Arrow cannot infer how many empty lists an empty array holds
            return pa.array([[]] * len(values), kind)
        return pa.FixedSizeListArray.from_arrays(flat, kind.list_size)
    return pa.array(values, kind)


class Parts:
    """The parts of the four tables in a folder; only one process may write."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.files, self.root, self.prefix = open_place(folder)

    def path(self, kind: str, number: int) -> str:
        return f"{self.root}/{kind}/part-{number:06d}.parquet"

    def numbers(self, kind: str) -> list[int]:
        """Which parts of a table there are."""
        selector = pyarrow.fs.FileSelector(f"{self.root}/{kind}", allow_not_found=True)
        names = [info.base_name for info in self.files.get_file_info(selector)]
        return sorted(int(m[1]) for m in (re.fullmatch(r"part-(\d+)\.parquet", name) for name in names) if m)

    def read(self, kind: str, number: int, columns: list[str] | None = None) -> pa.Table:
        """ValueError, naming it, if the file is damaged; FileNotFoundError if it is not there."""
        path = self.path(kind, number)
        try:
            with self.files.open_input_file(path) as file:
                return pq.read_table(file, columns=columns)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{path} is damaged: {str(error).splitlines()[0]}") from error

    def write(self, number: int, tables: Mapping[str, pa.Table]) -> None:
        """Part `number` of the tables; those that are empty are left out.

        Each file gets its name when it is whole. A part whose pictures are there is done: whatever stops
        this before then leaves nothing that `repair` does not remove.
        """
        for kind in KINDS:
            if kind in tables and (len(tables[kind]) or (kind == "people" and len(tables["pictures"]))):
                self._write(self.path(kind, number), tables[kind])

    def _write(self, path: str, table: pa.Table) -> None:
        folder, _, name = path.rpartition("/")
        unfinished = f"{folder}/.{name}.unfinished"
        self.files.create_dir(folder)
        lists = [f"{f.name}.list.element" for f in table.schema if _is_list_of_numbers(f.type)]
        words = [f.name for f in table.schema if pa.types.is_string(f.type)]
        try:
            with self.files.open_output_stream(unfinished) as file:
                # zeroes in the low bytes lie side by side then, which is what makes rounding pay
                options = {"use_byte_stream_split": lists, "use_dictionary": words, "compression": "zstd"}
                pq.write_table(table, file, **options)
            self.files.move(unfinished, path)
        except BaseException:
            if self.files.get_file_info(unfinished).type != pyarrow.fs.FileType.NotFound:
                self.files.delete_file(unfinished)
            raise

    def repair(self) -> list[int]:
        """Remove what a run that was killed left half done, and give the parts that are whole."""
        people, pictures = set(self.numbers("people")), set(self.numbers("pictures"))
        with ThreadPoolExecutor(16) as pool:
            whole = [n for n, good in zip(pictures, pool.map(self._is_whole, pictures), strict=True) if good]
        for number in (people | pictures) - set(whole):
            for kind in ("pictures", "people"):
                if number in (pictures if kind == "pictures" else people):
                    self.files.delete_file(self.path(kind, number))
        for kind in KINDS:
            selector = pyarrow.fs.FileSelector(f"{self.root}/{kind}", allow_not_found=True)
            for info in self.files.get_file_info(selector):
                if info.base_name.endswith(".unfinished"):
                    self.files.delete_file(info.path)
        return sorted(whole)

    def _is_whole(self, number: int) -> bool:
        """Whether the people of a part are all there; what cannot be reached raises OSError."""
        try:
            counts = self.read("pictures", number, ["people"])["people"]
            with self.files.open_input_file(self.path("people", number)) as file:
                return pq.read_metadata(file).num_rows == (pc.sum(counts).as_py() or 0)
        except (ValueError, FileNotFoundError):  # ArrowInvalid is a ValueError, too
            return False


def open_place(place: str | os.PathLike[str]) -> tuple[pyarrow.fs.FileSystem, str, str]:
    """(file system, path there, prefix of such paths in names) of a path or URL.

    ValueError: pyarrow knows no such URL.
    """
    text = os.fspath(place)
    scheme = re.match(r"([a-z][a-z0-9+.-]+)://", text)
    if not scheme:
        return pyarrow.fs.LocalFileSystem(), Path(os.path.abspath(os.path.expanduser(text))).as_posix(), ""
    try:
        files, path = pyarrow.fs.FileSystem.from_uri(text)
    except (pa.ArrowException, ValueError, ImportError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{text} is no URL that can be read here, such as s3://bucket/folder: {reason}"
        ) from error
    prefix = "" if isinstance(files, pyarrow.fs.LocalFileSystem) else scheme[0]
    return files, path.rstrip("/") or path, prefix
