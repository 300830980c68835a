"""Ray data source for folders, globs, shards and tables: one row per picture, also for unreadable files.

Ray's readers of single formats stop a run at the first damaged file and do not name rows. Its generic file
reader (disks, buckets, retries, distribution) is extended here by picture files, tars in WebDataset's layout,
and Parquet tables with a column of pictures.
"""

from __future__ import annotations

import lzma
import re
import tarfile
import zlib
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs
import pyarrow.parquet as pq
import ray
from ray.data.context import DataContext
from ray.data.datasource import DefaultFileMetadataProvider, FileBasedDatasource

from ..io.parquet import open_place

# endings of pictures in folders and shards; a file given by name may have any
PICTURE_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"} | {
    ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".tga"
}  # fmt: skip
SHARD_SUFFIXES = (".tar", ".tgz", ".tar.gz")
TABLE_SUFFIXES = (".parquet",)
MAX_BYTES = 256 * 1024**2  # size limit of a picture file, above what load_image takes
ROWS_AT_ONCE = 16  # rows of a table read together
DAMAGES = (OSError, EOFError, tarfile.TarError, pa.ArrowException, zlib.error, lzma.LZMAError)

ROW = pa.schema(
    [
        ("picture", pa.string()),  # its name; of a shard or table: of the file, "/", of the picture there
        ("shard", pa.string()),  # its shard or table
        ("bytes", pa.binary()),
        ("K", pa.list_(pa.float32())),
        ("reason", pa.string()),  # reason if there are no bytes
        ("count", pa.int64()),  # in the last row of a shard: its number of pictures, including skipped ones
    ]
)


@dataclass(frozen=True)
class Inputs:
    """Files on one file system: their paths, and the prefix of their names ("s3://" or none)."""

    files: pyarrow.fs.FileSystem
    prefix: str
    pictures: tuple[str, ...]
    shards: tuple[str, ...]  # and tables

    def without(self, done: pa.Array) -> Inputs:
        """Without the inputs of these names."""
        return Inputs(self.files, self.prefix, self._left(self.pictures, done), self._left(self.shards, done))

    def _left(self, paths: tuple[str, ...], done: pa.Array) -> tuple[str, ...]:
        known = pc.is_in(pa.array(map(self.name, paths), pa.string()), done).to_pylist()
        return tuple(path for path, is_known in zip(paths, known, strict=True) if not is_known)

    @property
    def kinds(self) -> tuple[tuple[str, ...], ...]:
        """Kinds of files, shards first, which take longest."""
        return self.shards, self.pictures

    def name(self, path: str) -> str:
        """Name of a file in the tables."""
        return self.prefix + path


def find_inputs(sources: Iterable[str], *, besides: str = "") -> list[Inputs]:
    """Picture files, shards and tables of the given files, folders, globs and URLs, each once.

    Args:
        sources: folders are searched recursively, without names that begin with "." or "_".
        besides: folder to leave out.

    Raises:
        FileNotFoundError: a source does not exist, or has no inputs.
    """
    found: dict[str, tuple[pyarrow.fs.FileSystem, dict[str, None]]] = {}
    for source in sources:
        files, path, prefix = open_place(source)
        paths = [p for p in _paths(files, path) if not besides or not p.startswith(f"{besides}/")]
        if not paths:
            raise FileNotFoundError(
                f"{source} has no pictures (.jpg, .png, ...), shards (.tar) or tables (.parquet)"
            )
        known = found.setdefault(prefix, (files, {}))[1]
        known.update(dict.fromkeys(paths))
    return [
        Inputs(
            files, prefix, tuple(p for p in paths if not _holds_many(p)), tuple(filter(_holds_many, paths))
        )
        for prefix, (files, paths) in found.items()
    ]


def _paths(files: pyarrow.fs.FileSystem, path: str) -> list[str]:
    info = files.get_file_info(path)
    if info.type == pyarrow.fs.FileType.File:
        return [path]
    if info.type == pyarrow.fs.FileType.Directory:
        return _listed(files, path)
    plain = re.split(r"[*?\[]", path, maxsplit=1)[0]
    if plain == path:
        raise FileNotFoundError(f"{path} does not exist")
    pattern = _pattern(path)
    return [p for p in _listed(files, plain.rpartition("/")[0] or "/") if pattern.fullmatch(p)]


def _listed(files: pyarrow.fs.FileSystem, folder: str) -> list[str]:
    selector = pyarrow.fs.FileSelector(folder, recursive=True, allow_not_found=True)
    try:
        infos = files.get_file_info(selector)
        found = [info.path for info in infos if info.type == pyarrow.fs.FileType.File]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{folder} has a name that is not UTF-8 ({error.object!r}), which tables cannot store: rename it"
        ) from error
    hidden = re.compile("/[._]")
    return sorted(path for path in found if _is_known(path) and not hidden.search(path, len(folder)))


def _is_known(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in PICTURE_SUFFIXES or _holds_many(path)


def _pattern(path: str) -> re.Pattern[str]:
    """Regular expression of a glob: * within one folder, ** across folders."""
    signs = {"**/": "(?:[^/]+/)*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*|\?|\[[^\]]+\])", path)  # plain text and signs alternate
    for i, piece in enumerate(pieces):
        pieces[i] = signs.get(piece, piece.replace("[!", "[^")) if i % 2 else re.escape(piece)
    return re.compile("".join(pieces))


def _holds_many(path: str) -> bool:
    return path.lower().endswith((*SHARD_SUFFIXES, *TABLE_SUFFIXES))


class _Listed(DefaultFileMetadataProvider):
    """The listed files. Ray would stat each again: most of an hour for ten million."""

    def __init__(self, paths: Collection[str]) -> None:
        self.paths = paths

    def expand_paths(self, paths: list[str], *options: Any, **more: Any) -> Any:
        listed, self.paths = self.paths, ()  # or it would be sent with every task
        return ((path, None) for path in listed)


class _Unreadable:
    """Stands in for a file that cannot be opened, until its row is made."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def __enter__(self) -> _Unreadable:
        return self

    def __exit__(self, *problem: object) -> None:
        pass


class PictureSource(FileBasedDatasource):
    """Rows of `ROW` from files of one file system. done: shard -> pictures to skip."""

    _NUM_THREADS_PER_TASK = 4  # small files in buckets: latency, not work

    def __init__(
        self,
        paths: Collection[str],
        inputs: Inputs,
        *,
        column: str | None = None,
        done: Mapping[str, set[str]] | None = None,
    ) -> None:
        super().__init__([next(iter(paths))], filesystem=inputs.files, meta_provider=_Listed(paths))
        self._prefix, self._column, self._done = inputs.prefix, column, ray.put(done or {})

    def _open_input_source(self, filesystem: Any, path: str, **options: Any) -> Any:
        try:
            if path.lower().endswith(TABLE_SUFFIXES):
                return filesystem.open_input_file(path)
            return filesystem.open_input_stream(path, compression=None)
        except OSError as error:
            _raise_if_transient(error)
            return _Unreadable(error)

    def _read_stream(self, file: Any, path: str) -> Iterator[pa.Table]:
        name = self._prefix + path
        shard = name if _holds_many(path) else None
        try:
            if isinstance(file, _Unreadable):
                raise file.error
            if shard is None:
                yield _row(name, None, *_limited(file))
            else:
                yield from self._read_shard(file, shard)
        except (*DAMAGES, ValueError) as error:
            _raise_if_transient(error)
            what = "cannot be read" if shard is None else "cannot be read, or not to its end"
            yield _row(name, shard, None, f"{what}: {' '.join(str(error).split())}")

    def _read_shard(self, file: Any, shard: str) -> Iterator[pa.Table]:
        """The pictures that are not done, then their total number."""
        done = ray.get(self._done).get(shard, set())
        times: Counter[str] = Counter()
        table = shard.lower().endswith(TABLE_SUFFIXES)
        for member, data, reason, K in _in_table(file, self._column) if table else _in_tar(file):
            times[member] += 1
            again = f"#{times[member]}" if times[member] > 1 else ""  # names are unique
            name = f"{shard}/{member}{again}"
            if name not in done:
                yield _row(name, shard, data, reason, K)
        if not times:
            raise ValueError("there is no picture in it")
        yield _row(None, shard, count=times.total())


Member = tuple[str, "bytes | None", "str | None", "list[float] | None"]
"""name in the shard; bytes, or else the reason; K if known"""


def _in_tar(file: Any) -> Iterator[Member]:
    """NAME.jpg etc. NAME.mask.png is not a picture, by WebDataset's convention."""
    with tarfile.open(fileobj=file, mode="r|*") as tar:
        for member in tar:
            ending = PurePosixPath(member.name).name.partition(".")[2]
            if member.isreg() and f".{ending.lower()}" in PICTURE_SUFFIXES:
                content = tar.extractfile(member)
                assert content is not None, "regular files have content"
                yield member.name, *_limited(content), None


def _in_table(file: Any, column: str | None) -> Iterator[Member]:
    """Rows with the bytes in `column`, or in the only column of bytes; K where there is one."""
    table = pq.ParquetFile(file)
    column = _picture_column(table.schema_arrow, column)
    columns = [column] + ["K"] * ("K" in table.schema_arrow.names)
    number = 0
    for batch in table.iter_batches(ROWS_AT_ONCE, columns=columns):
        for row in batch.to_pylist():
            data, K = row[column], row.get("K")
            data = data.get("bytes") if isinstance(data, dict) else data
            yield str(number), data, None if data is not None else "the row has no bytes", _flat(K)
            number += 1


def _picture_column(schema: pa.Schema, wanted: str | None) -> str:
    """The column of bytes, or of a struct with bytes as Hugging Face datasets writes pictures."""
    holds = [field.name for field in schema if _holds_bytes(field.type)]
    if wanted is not None and wanted not in holds:
        raise ValueError(f"there is no column {wanted!r} of bytes; columns: {', '.join(schema.names)}")
    if wanted is None and len(holds) != 1:
        raise ValueError(
            f"one column must hold the bytes of pictures, these do: {', '.join(holds) or 'none'} (of "
            f"{', '.join(schema.names)}); name it with --column"
        )
    return wanted or holds[0]


def _holds_bytes(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type) for field in kind)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _flat(K: Any) -> list[float] | None:
    """The numbers of a K stored flat or as rows."""
    if K is None:
        return None
    return [float(number) for row in K for number in (row if isinstance(row, list) else [row])]


def _limited(file: Any) -> tuple[bytes | None, str | None]:
    """(bytes, None) or (None, reason)."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        return None, f"it has more than {MAX_BYTES // 1024**2} MB, which no picture should"
    return data, None


def _raise_if_transient(error: Exception) -> None:
    """Re-raise transient errors, which Ray retries."""
    if any(sign in str(error) for sign in DataContext.get_current().retried_io_errors):
        raise error


def _row(
    picture: str | None,
    shard: str | None,
    data: bytes | None = None,
    reason: str | None = None,
    K: list[float] | None = None,
    *,
    count: int | None = None,
) -> pa.Table:
    row = {"picture": picture, "shard": shard, "bytes": data, "K": K, "reason": reason, "count": count}
    return pa.Table.from_pylist([row], ROW)
