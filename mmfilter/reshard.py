"""Write a subset's samples as new shards: members' bytes are copied, nothing is decoded.

    plan = plan_output([index_shard(path) for path in paths], subset)
    begin(plan, folder)
    for shard in plan.shards:      # in any order, by any number of workers: the bytes are the same
        write_output(shard, folder)
    finish(plan, folder)

The layout is DataComp's resharder's: `{:08d}.tar` with keys `{uid}-{j}`, `{:08d}_stats.json`,
`sample_ids.npy` and `meta.json`; and `sizes.json` for open_clip. `reshard.plan` tells what the
folder was made from, so that only the same plan is taken up again, and `reshard.files` what was written.
"""

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import storage
from .copying import copy_members, tar_bytes
from .errors import ConflictError, DataError
from .fields import ReadOptions
from .file_record import difference, difference_of, record_of
from .json_file import COUNT, parse_object
from .json_file import FORMAT as VERSION
from .reshard_begun import check_begun, plan_difference, read_plan, same_plan
from .reshard_files import (
    AGAIN,
    META,
    PLAN,
    RECORDS,
    differing,
    read_record,
    read_records,
    write_record,
    write_records,
)
from .reshard_plan import OutputShard, Plan, ReshardOptions, plan_output, request
from .shard_index import index_shard
from .subset import Subset
from .tar import END
from .tar_source import BLOCK

FORMAT = "{:08d}.tar"
META_SHAPE = {
    "processed_count": COUNT,
    "output_count": COUNT,
    "output_shard_count": COUNT,
    "missing_count": COUNT,
    "repeated_count": COUNT,
    "encoded_count?": COUNT,
}
OURS = re.compile(r"\d{8}(\.tar|_stats\.json|\.record)|meta\.json|sizes\.json|sample_ids\.npy|reshard\.files")
LEFTOVER = re.compile(rf"({OURS.pattern})\.[0-9a-f]{{8}}\.tmp")
RECORD = re.compile(r"\d{8}\.record")


@dataclass(frozen=True)
class OutputReport:
    """What one output shard came to; `skipped` when it was there already."""

    shard: str
    successes: int
    bytes: int
    seconds: float
    skipped: bool = False


def begin(plan: Plan, folder: str) -> None:
    """Make `folder` this plan's own. Raises ConflictError when it holds another plan's shards.

    A folder that was finished is not any more: its records are handed back to the shards that are whole by their size.
    """
    path = storage.join(folder, PLAN)
    if storage.exists(path):
        before = read_plan(path)
        if not same_plan(before, plan.parts):
            raise ConflictError(
                f"{folder}: its shards were made from something else. {plan_difference(before, plan.parts)} "
                "Give another folder, or delete this one"
            )
        _reopen(plan, folder)
        if before != plan.parts:  # an earlier version did not record all of it
            storage.write_atomic(path, json.dumps({"format": VERSION, **plan.parts}, sort_keys=True).encode())
        return
    _check_empty(folder)
    storage.write_atomic(path, json.dumps({"format": VERSION, **plan.parts}, sort_keys=True).encode())


def _check_empty(folder: str) -> None:
    """Raise ConflictError where a folder without a plan holds tars, or a file that has the name of one of ours."""
    others = [name for name in storage.names(folder) if name.endswith(".tar") or OURS.fullmatch(name)]
    if others:
        raise ConflictError(
            f"{folder}: it holds shards of another origin ({others[0]}, and no {PLAN}); give an empty folder"
        )


def _reopen(plan: Plan, folder: str) -> None:
    storage.remove(storage.join(folder, META))
    try:
        records = read_records(folder) or {}
    except DataError:
        records = {}
    told = differing(folder, records)
    for shard in plan.shards:
        of_shard = {name: records[name] for name in _files(shard.name) if name in records}
        if len(of_shard) == len(_files(shard.name)) and not told.keys() & of_shard:
            write_record(folder, shard.name, plan.fingerprint, of_shard)
    storage.remove(storage.join(folder, RECORDS))


def _files(shard: str) -> tuple[str, str]:
    return f"{shard}.tar", f"{shard}_stats.json"


def finished(
    paths: Sequence[str],
    subset: Subset,
    folder: str,
    options: ReshardOptions = ReshardOptions(),
    read: ReadOptions = ReadOptions(),
) -> dict[str, Any] | None:
    """meta.json of a folder that is done with this very pool, subset and options, and whose files are all there and
    as long as they were written; None otherwise. Opens no tar.
    """
    plan, meta = storage.join(folder, PLAN), storage.join(folder, META)
    if not (storage.exists(plan) and storage.exists(meta)):
        return None
    now = request(paths, subset, options, read)
    if not same_plan(read_plan(plan), now):
        return None
    data = storage.read_bytes(meta)
    shape = META_SHAPE | ({"blurred_count": COUNT} if options.blur_faces else {})
    try:
        told, records = parse_object(data, meta, AGAIN, shape), read_records(folder)
    except DataError:
        return None
    if records is None:
        return told if _looks_whole(folder, told, subset) else None
    if differing(folder, records) or META not in records or difference_of(data, records[META]):
        return None
    _sweep(folder)
    return told


def _looks_whole(folder: str, meta: Mapping[str, Any], subset: Subset) -> bool:
    """Whether a folder of an earlier version, which recorded no sizes, has what it should, none of it empty."""
    sizes, count = storage.sizes(folder), meta.get("output_shard_count")
    if not isinstance(count, int):
        return False
    tars = [FORMAT.format(number) for number in range(count)]
    whole = all(sizes.get(tar, 0) >= len(END) and sizes[tar] % BLOCK == 0 for tar in tars)
    stats = all(sizes.get(f"{tar.removesuffix('.tar')}_stats.json") for tar in tars)
    return whole and stats and bool(sizes.get("sizes.json")) and sizes.get("sample_ids.npy", 0) > subset.uids.nbytes


def clear(folder: str) -> None:
    """Remove the shards of an earlier reshard (and nothing else) from `folder`, so that another can begin.

    Raises ConflictError where shards stand that no reshard of ours has begun.
    """
    if not storage.exists(storage.join(folder, PLAN)):
        _check_empty(folder)
        return
    plan_last = sorted(storage.names(folder), key=lambda name: (name != META, name == PLAN))
    for name in plan_last:
        if name == PLAN or OURS.fullmatch(name) or LEFTOVER.fullmatch(name):
            storage.remove(storage.join(folder, name))


def write_output(shard: OutputShard, folder: str) -> OutputReport:
    """Write one tar, its stats and, last, the record of both; skip it when these are there and as long as recorded.

    Raises DataError when an input is no longer what was indexed, ConflictError when `folder` was not
    begun with this plan.
    """
    started = time.perf_counter()
    check_begun(shard, folder)
    tar, stats = _files(shard.name)
    path, planned = storage.join(folder, tar), tar_bytes(shard)
    have = read_record(folder, shard.name, shard.plan)
    if have and have[tar]["bytes"] == planned and not any(difference(storage.join(folder, n), have[n]) for n in have):
        return OutputReport(shard.name, len(shard), planned, 0.0, skipped=True)
    with storage.open_atomic(path) as stream:
        record = copy_members(shard, stream)
    said = json.dumps({"successes": len(shard)}).encode()
    storage.write_atomic(storage.join(folder, stats), said)
    write_record(folder, shard.name, shard.plan, {tar: record, stats: record_of(said)})
    return OutputReport(shard.name, len(shard), record["bytes"], time.perf_counter() - started)


def finish(plan: Plan, folder: str, workers: int = 1) -> dict[str, Any]:
    """Check that every shard is there, then write the files that stand for the whole; returns meta.json.

    Raises DataError naming shards that are not finished. A folder without meta.json is not done.
    """
    records = {shard.name: read_record(folder, shard.name, plan.fingerprint) for shard in plan.shards}
    there = storage.sizes(folder)
    undone = [name for name, files in records.items() if not files or _gone(files, there)]
    if undone:
        raise DataError(
            f"{folder}: {len(undone)} shards are not finished ({', '.join(undone[:5])}); run the same again"
        )
    sizes = {f"{shard.name}.tar": len(shard) for shard in plan.shards}
    files = {name: record for of_shard in records.values() for name, record in of_shard.items()}
    told = json.dumps(sizes).encode()
    storage.write_atomic(storage.join(folder, "sizes.json"), told)
    files |= {
        "sizes.json": record_of(told),
        "sample_ids.npy": plan.subset.write(storage.join(folder, "sample_ids.npy")),
    }
    meta = {
        "processed_count": plan.processed,
        "output_count": sum(sizes.values()),
        "output_shard_count": len(sizes),
        "worker_success": workers,
        "output_shard_format": FORMAT,
        "missing_count": plan.missing,
        "repeated_count": plan.repeated,
    }
    if plan.parts["options"]["blur_faces"]:
        meta["blurred_count"] = sum(shard.blurred for shard in plan.shards)
    if encoded := sum(shard.encoded for shard in plan.shards):
        meta["encoded_count"] = encoded
    data = json.dumps(meta).encode()
    write_records(folder, {**files, META: record_of(data)})
    storage.write_atomic(storage.join(folder, META), data)
    _sweep(folder)
    return meta


def _gone(files: Mapping[str, Any], there: Mapping[str, int]) -> bool:
    return any(there.get(name) != record["bytes"] for name, record in files.items())


def _sweep(folder: str) -> None:
    """Remove what a finished folder does not need: records by shard, what killed writers left under temporary names."""
    for name in storage.names(folder):
        if LEFTOVER.fullmatch(name) or RECORD.fullmatch(name):
            storage.remove(storage.join(folder, name))


def reshard(
    paths: Sequence[str],
    subset: Subset,
    folder: str,
    options: ReshardOptions = ReshardOptions(),
    read: ReadOptions = ReadOptions(),
) -> dict[str, Any]:
    """All of it in this process: the samples of `subset` from the tars `paths` into `folder`; returns meta.json."""
    indexes = [index_shard(path, read, subset, options.blur_faces, options.members) for path in paths]
    plan = plan_output(indexes, subset, options)
    begin(plan, folder)
    for shard in plan.shards:
        write_output(shard, folder)
    return finish(plan, folder)
