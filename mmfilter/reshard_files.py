"""What a folder of new shards holds, as it was written: each file's bytes and sha256.

A worker leaves `{:08d}.record` beside each tar that it wrote; when all are there, they are put together in
`reshard.files` with the records of the files that stand for the whole, and taken away after `meta.json`, which is last.
"""

import json
import posixpath
from collections.abc import Collection, Iterable
from typing import Any

from . import storage
from .errors import DataError
from .file_record import difference, is_record
from .json_file import read_object

PLAN = "reshard.plan"  # no .json: tools that read every json of a folder of shards must not meet it
RECORDS = "reshard.files"
META = "meta.json"
AGAIN = "run the same 'mmfilter reshard' again, which writes anew what is not whole"


def write_record(folder: str, shard: str, plan: str, files: dict[str, Any]) -> None:
    """Leave the records of what was written of a shard (file -> record), for the plan of that fingerprint."""
    data = json.dumps({"plan": plan, "files": files}).encode()
    storage.write_atomic(storage.join(folder, f"{shard}.record"), data)


def read_record(folder: str, shard: str, plan: str) -> dict[str, Any]:
    """The records of a shard's files, {} where none are there, they are damaged, or they are another plan's."""
    try:
        told = read_object(storage.join(folder, f"{shard}.record"), AGAIN)
    except (FileNotFoundError, DataError):
        return {}
    files = told.get("files")
    return files if told.get("plan") == plan and isinstance(files, dict) else {}


def write_records(folder: str, files: dict[str, Any]) -> None:
    """Write the records of all files of a finished folder."""
    storage.write_atomic(storage.join(folder, RECORDS), json.dumps({"files": files}).encode())


def read_records(folder: str) -> dict[str, Any] | None:
    """File -> record of a folder that was finished; None where it is not, or an earlier version wrote it.

    Raises DataError where they are damaged.
    """
    path = storage.join(folder, RECORDS)
    try:
        files = read_object(path, AGAIN).get("files")
    except FileNotFoundError:
        return None
    if not isinstance(files, dict) or not all(map(is_record, files.values())):
        raise DataError(f"{path}: is damaged (it holds no records); {AGAIN}")
    return files


def differing(folder: str, records: dict[str, Any]) -> dict[str, str]:
    """File -> what is wrong, of those that are not there or have another size; by one listing."""
    sizes = storage.sizes(folder)
    told = {}
    for name, record in records.items():
        if name not in sizes:
            told[name] = "it is not there"
        elif sizes[name] != record["bytes"]:
            told[name] = f"it has {sizes[name]:,} bytes, {record['bytes']:,} were written"
    return told


def verify_shards(folder: str, deep: bool = False) -> list[tuple[str, str]]:
    """(path, what is wrong with it) of each file of a folder of new shards that is not what was written.

    By one listing, or with `deep` by the sha256 of every byte. Of a folder that an earlier version finished nothing
    can be told. To mend it: delete what is named, and run the same reshard again.
    """
    try:
        records = read_records(folder)
    except DataError as error:
        return [(storage.join(folder, RECORDS), str(error))]
    if records is None:
        unfinished = storage.exists(storage.join(folder, PLAN)) and not storage.exists(storage.join(folder, META))
        return [(storage.join(folder, META), f"it is not there: the reshard is not finished; {AGAIN}")] * unfinished
    told = differing(folder, records)
    if deep:
        for name in sorted(set(records) - set(told)):
            if what := difference(storage.join(folder, name), records[name], whole=True):
                told[name] = what
    told |= dict.fromkeys(_tars(storage.names(folder)) - set(records), "it is none of this reshard's shards")
    return [(storage.join(folder, name), told[name]) for name in sorted(told)]


def damaged(folder: str) -> list[str]:
    """The files of a finished folder that are there, were written by the reshard, and are not what was written."""
    try:
        ours = read_records(folder) or {}
    except DataError:
        return []
    return [path for path, _ in verify_shards(folder, deep=True) if posixpath.basename(path) in ours]


def check_pool(paths: Iterable[str], listed: Collection[str]) -> None:
    """Raise DataError where tars that are read as a pool are new shards that are not whole.

    `listed` are those of `paths` that a listing found: of their folders a tar that is gone is named as well.
    """
    folders: dict[str, set[str]] = {}
    for path in paths:
        folders.setdefault(posixpath.dirname(path), set()).add(posixpath.basename(path))
    whole = {posixpath.dirname(path) for path in listed}
    for folder, names in folders.items():
        there = set(storage.names(folder))
        if PLAN not in there:
            continue
        if META not in there:
            raise DataError(f"{folder}: its shards are not finished ({META} is not there); {AGAIN}")
        records = read_records(folder) or {}
        wanted = {name: r for name, r in records.items() if name in (_tars(records) if folder in whole else names)}
        if told := differing(folder, wanted):
            name = min(told)
            more = f" (and {len(told) - 1:,} more)" if len(told) > 1 else ""
            raise DataError(f"{storage.join(folder, name)}: {told[name]}{more}; {AGAIN}")


def _tars(names: Iterable[str]) -> set[str]:
    return {name for name in names if name.endswith(".tar")}
