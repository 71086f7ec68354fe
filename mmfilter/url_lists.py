"""Lists of urls cut into pieces, a piece a shard: what is to be downloaded, what is done, what failed.

`OUT/_lists/{:08d}.arrow` holds the rows (uid, caption, url, ...) of the shard of that number, `plan.json`
beside them what they were made from; they are in a folder of their own, as img2dataset takes every json
beside its shards for stats. A shard is done when its `_stats.json` is there, which is written last.
"""

import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from . import storage
from .errors import ConflictError, DataError, UsageError, nearest
from .hints import nearest_beside
from .json_file import COUNT, FORMAT, read_object
from .kept_columns import common_types, plain_column
from .text_lists import BATCH, column_types, text_tables, typed
from .uids import parse_uids

WRITTEN = re.compile(r"\d{8}(\.tar|\.parquet|_stats\.json)")
"""Names that a download writes beside its plan."""
ENDINGS = ("parquet", "csv", "tsv", "txt", "csv.gz", "tsv.gz", "txt.gz")
RESERVED = {  # what img2dataset writes into each json by itself
    *("uid", "key", "caption", "url", "status", "error_message", "exif", "sha256"),
    *("width", "height", "original_width", "original_height"),
}


@dataclass(frozen=True)
class Columns:
    """The list's names for url, caption and uid, and further columns that are kept in each sample's json."""

    url: str = "url"
    caption: str = "text"
    uid: str = "uid"
    keep: tuple[str, ...] = ()


def piece_path(out: str, number: int) -> str:
    return storage.join(out, "_lists", f"{number:08d}.arrow")


def plan_path(out: str) -> str:
    return storage.join(out, "_lists", "plan.json")


def find_lists(words: Iterable[str]) -> list[str]:
    """The files that are named, or lie in a folder that is. Raises UsageError."""
    found: list[str] = []
    for word in words:
        inside = [name for name in storage.names(word) if _ending(name)] if storage.isdir(word) else None
        if inside == [] or (inside is None and not _ending(word)):
            raise UsageError(f"{word}: no list of urls; it ends in .{', .'.join(ENDINGS)}, or is a folder of such")
        if inside is None and not storage.exists(word):
            raise UsageError(f"{word}: it is not there{nearest_beside(word)}")
        found += [word] if inside is None else [storage.join(word, name) for name in inside]
    return found


def _ending(name: str) -> str:
    return next((ending for ending in ENDINGS if name.endswith(f".{ending}")), "")


def rows(path: str, columns: Columns, types: Mapping[str, pa.DataType] | None = None) -> Iterator[pa.Table]:
    """Tables uid, then what is kept, caption and url (string). A uid that the list lacks is made from url and caption.

    What is kept is as `kept_columns.plain_column` makes it, of the `types` by name; without them a csv's is text.
    Raises UsageError for an absent column or one that cannot be kept, DataError for a uid that is none or a file that
    cannot be read.
    """
    for table in _tables(path, columns):
        yield _typed(_named(table, columns, path), types or {}, path)


def _typed(table: pa.Table, types: Mapping[str, pa.DataType], path: str) -> pa.Table:
    for name, kind in types.items():
        place = table.column_names.index(name)
        column = table[name]
        try:
            column = plain_column(typed(column, kind), name) if _text_kind(path) else column.cast(kind)
        except pa.ArrowException as error:
            raise DataError(
                f"{path}: '{name}' cannot be read as {kind} ({' '.join(str(error).split())[:200]})"
            ) from error
        table = table.set_column(place, name, column)
    return table


def kept_types(lists: Sequence[str], columns: Columns) -> dict[str, pa.DataType]:
    """The types of the kept columns in the shards. Raises UsageError, DataError.

    Of parquet the first rows are read, of text all, as a number may be followed by a word.
    """
    return common_types((path, _own_types(path, columns)) for path in lists if columns.keep)


def _own_types(path: str, columns: Columns) -> dict[str, pa.DataType]:
    if _text_kind(path):
        return column_types(rows(path, columns), columns.keep)
    first = next(rows(path, columns), None)
    return {} if first is None else {name: first[name].type for name in columns.keep}


def _text_kind(path: str) -> str:
    """csv, tsv or txt; empty for parquet."""
    return _ending(path).removesuffix(".gz").removesuffix("parquet")


def _tables(path: str, columns: Columns) -> Iterator[pa.Table]:
    from pyarrow import parquet

    kind = _text_kind(path)
    try:
        with storage.open_read(path) as stream:
            if kind:
                plain: Any = gzip.GzipFile(fileobj=stream) if path.endswith(".gz") else stream
                yield from text_tables(plain, kind, columns.url, path)
                return
            for batch in parquet.ParquetFile(stream).iter_batches(BATCH):
                yield pa.Table.from_batches([batch])
    except (pa.ArrowException, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({' '.join(str(error).split())[:300]})") from error


def _named(table: pa.Table, columns: Columns, path: str) -> pa.Table:
    txt = table.column_names == ["url"]
    for name in (columns.url, *(() if txt else (columns.caption,)), *columns.keep):
        if name not in table.column_names:
            raise UsageError(f"{path}: no column '{name}'{nearest(name, table.column_names)}")
    for name in (columns.url, columns.caption, columns.uid, *columns.keep):
        if (times := table.column_names.count(name)) > 1:
            raise UsageError(f"{path}: {times} columns are called '{name}'; rename all but one, or name another column")
    urls = table[columns.url].cast(pa.string()).fill_null("")
    empty = pa.chunked_array([pa.array([""] * len(table), pa.string())])
    captions = empty if txt else table[columns.caption].cast(pa.string()).fill_null("")
    if columns.uid in table.column_names:
        uids = [uid.lower() for uid in table[columns.uid].cast(pa.string()).fill_null("").to_pylist()]
        try:
            parse_uids(uids)
        except DataError as error:
            raise DataError(
                f"{path}: {error}; name another column, or one that is not there to have uids made"
            ) from error
    else:
        pairs = zip(urls.to_pylist(), captions.to_pylist(), strict=True)
        uids = [hashlib.sha256(f"{url}\n{caption}".encode()).hexdigest()[:32] for url, caption in pairs]
    kept = {name: plain_column(table[name], name) for name in columns.keep}
    return pa.table({"uid": pa.array(uids, pa.string()), **kept, "caption": captions, "url": urls})


def plan_lists(out: str, lists: Sequence[str], columns: Columns, shard_size: int, settings: dict[str, Any]) -> int:
    """Cut the lists into pieces of `shard_size` rows, once; returns the rows.

    Raises ConflictError where OUT was begun otherwise, UsageError for a column that cannot be kept.
    """
    if RESERVED & set(columns.keep):
        name = sorted(RESERVED & set(columns.keep))[0]
        raise UsageError(f"--keep {name}: img2dataset writes a '{name}' of its own; rename the list's column")
    made_from = {
        "lists": [[path, storage.identity(path)] for path in lists],
        "columns": {**columns.__dict__, "keep": list(columns.keep)},
        "shard_size": shard_size,
        "settings": settings,
    }
    if storage.exists(plan_path(out)):
        plan = _read_plan(out)
        if plan["from"] != made_from:
            part = next(part for part in made_from if plan["from"].get(part) != made_from[part])
            was, now = json.dumps(plan["from"].get(part)), json.dumps(made_from[part])
            raise ConflictError(
                f"{out}: it was begun otherwise: its {part} were {was} and are {now}. Give another --out"
            )
        return int(plan["rows"])
    others = [name for name in storage.names(out) if name.endswith(".tar") or WRITTEN.fullmatch(name)]
    if others:
        raise ConflictError(f"{out}: it holds shards of another origin ({others[0]}); give an empty folder")
    types = kept_types(lists, columns)
    tables = (table for path in lists for table in rows(path, columns, types))
    total = sum(map(len, write_pieces(out, 0, tables, shard_size)))
    if not total:
        raise UsageError(f"{lists[0]}: there is no url in it")
    plan = {"format": FORMAT, "from": made_from, "rows": total}
    storage.write_atomic(plan_path(out), json.dumps(plan, indent=1).encode())
    return total


def _read_plan(out: str) -> dict[str, Any]:
    """Raises DataError where it is damaged."""
    return read_object(plan_path(out), "give another --out", {"from": dict, "rows": COUNT})


def write_pieces(out: str, first: int, tables: Iterable[pa.Table], size: int) -> Iterator[pa.Table]:
    """Write pieces of `size` rows from number `first` on, and yield each when it is there."""
    held: list[pa.Table] = []
    number = first
    for table in tables:
        held.append(table)
        while (count := sum(map(len, held))) >= size:
            joined = pa.concat_tables(held)
            held = [joined.slice(size)] if count > size else []
            yield _write(out, number, joined.slice(0, size))
            number += 1
    if sum(map(len, held)):
        yield _write(out, number, pa.concat_tables(held))


def _write(out: str, number: int, table: pa.Table) -> pa.Table:
    with storage.open_atomic(piece_path(out, number)) as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table)
    return table


def read_piece(out: str, number: int) -> pa.Table:
    path = piece_path(out, number)
    try:
        return pa.ipc.open_file(io.BytesIO(storage.read_bytes(path))).read_all()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as a list of urls ({str(error)[:200]}). Give another --out") from error
