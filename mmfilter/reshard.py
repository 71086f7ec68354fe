"""Write a subset's samples as new shards: members' bytes are copied, nothing is decoded.

    plan = plan_output([index_shard(path) for path in paths], subset)
    begin(plan, folder)
    for shard in plan.shards:      # in any order, by any number of workers: the bytes are the same
        write_output(shard, folder)
    finish(plan, folder)

The layout is DataComp's resharder's: `{:08d}.tar` with keys `{uid}-{j}`, `{:08d}_stats.json`,
`sample_ids.npy` and `meta.json`; and `sizes.json` for open_clip. `reshard.plan` tells what the
folder was made from, so that only the same plan is taken up again.
"""

import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from . import storage
from .copying import copy_members, tar_bytes
from .errors import ConflictError, DataError
from .fields import ReadOptions
from .json_file import COUNT, read_object
from .json_file import FORMAT as VERSION
from .reshard_plan import OutputShard, Plan, ReshardOptions, fingerprint, plan_output, request
from .shard_index import index_shard
from .subset import Subset

PLAN = "reshard.plan"  # no .json: tools that read every json of a folder of shards must not meet it
FORMAT = "{:08d}.tar"
DEFAULTS = json.loads(json.dumps(asdict(ReshardOptions())))
CURE = "delete the folder, or give another, and run the whole reshard again"
SHAPE = {"layout": str, "options": dict, "pool": [list], "subset": {"uids": COUNT, "sha256": str}}
META = {
    "processed_count": COUNT,
    "output_count": COUNT,
    "output_shard_count": COUNT,
    "missing_count": COUNT,
    "repeated_count": COUNT,
    "encoded_count?": COUNT,
}
OURS = re.compile(r"\d{8}(\.tar|_stats\.json)|meta\.json|sizes\.json|sample_ids\.npy")
LEFTOVER = re.compile(r"(\d{8}(\.tar|_stats\.json)|meta\.json|sizes\.json|sample_ids\.npy)\.[0-9a-f]{8}\.tmp")


@dataclass(frozen=True)
class OutputReport:
    """What one output shard came to; `skipped` when it was there already."""

    shard: str
    successes: int
    bytes: int
    seconds: float
    skipped: bool = False


def begin(plan: Plan, folder: str) -> None:
    """Make `folder` this plan's own. Raises ConflictError when it holds another plan's shards."""
    path = storage.join(folder, PLAN)
    if storage.exists(path):
        before = read_plan(path)
        if before != plan.parts:
            raise ConflictError(
                f"{folder}: its shards were made from something else. {_difference(before, plan.parts)} "
                "Give another folder, or delete this one"
            )
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


def read_plan(path: str) -> dict[str, Any]:
    """What a folder was begun with; options that an older version did not know are what it did."""
    parts = read_object(path, CURE, SHAPE)
    parts.pop("format", None)
    return {**parts, "options": {**DEFAULTS, **parts["options"]}}


def _difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two plans' parts; a layout differs because of something else, so it is told last."""
    if before.get("pool") != now["pool"]:
        was = {json.dumps(shard) for shard in before.get("pool", [])}
        changed = [stem for stem, identity in now["pool"] if json.dumps([stem, identity]) not in was]
        told = ", ".join(changed[:5]) or "none"
        return f"The pool had {len(was)} shards and has {len(now['pool'])}; changed or new: {told}."
    part = next((name for name in ("subset", "options") if before.get(name) != now[name]), "layout")
    return f"The {part} was {json.dumps(before.get(part))} and is {json.dumps(now[part])}."


def begun(plan: Plan, folder: str) -> bool:
    """Whether `folder` was begun with this very plan."""
    path = storage.join(folder, PLAN)
    return bool(storage.exists(path) and read_plan(path) == plan.parts)


def finished(
    paths: Sequence[str], subset: Subset, folder: str, options: ReshardOptions = ReshardOptions()
) -> dict[str, Any] | None:
    """meta.json of a folder that is done with this very pool, subset and options; None otherwise. Opens no tar."""
    plan, meta = storage.join(folder, PLAN), storage.join(folder, "meta.json")
    if not (storage.exists(plan) and storage.exists(meta)):
        return None
    now = request(paths, subset, options)
    before = read_plan(plan)
    if any(before.get(name) != now[name] for name in now):
        return None
    shape = META | ({"blurred_count": COUNT} if options.blur_faces else {})
    return read_object(meta, "delete it and run the same again: shards that are done stay", shape)


def clear(folder: str) -> None:
    """Remove the shards of an earlier reshard (and nothing else) from `folder`, so that another can begin.

    Raises ConflictError where shards stand that no reshard of ours has begun.
    """
    if not storage.exists(storage.join(folder, PLAN)):
        _check_empty(folder)
        return
    plan_last = sorted(storage.names(folder), key=lambda name: (name != "meta.json", name == PLAN))
    for name in plan_last:
        if name == PLAN or OURS.fullmatch(name) or LEFTOVER.fullmatch(name):
            storage.remove(storage.join(folder, name))


def write_output(shard: OutputShard, folder: str) -> OutputReport:
    """Write one tar and, last, its stats; skip it when the stats are there and the tar is as long as planned.

    Raises DataError when an input is no longer what was indexed, ConflictError when `folder` was not
    begun with this plan.
    """
    started = time.perf_counter()
    _check_begun(shard, folder)
    path = storage.join(folder, f"{shard.name}.tar")
    if _successes(folder, shard.name) == len(shard) and _size(path) == (planned := tar_bytes(shard)):
        return OutputReport(shard.name, len(shard), planned, 0.0, skipped=True)
    with storage.open_atomic(path) as stream:
        written = copy_members(shard, stream)
    stats = json.dumps({"successes": len(shard)}).encode()
    storage.write_atomic(storage.join(folder, f"{shard.name}_stats.json"), stats)
    return OutputReport(shard.name, len(shard), written, time.perf_counter() - started)


def _size(path: str) -> int | None:
    return storage.size(path) if storage.exists(path) else None


def _check_begun(shard: OutputShard, folder: str) -> None:
    path = storage.join(folder, PLAN)
    if not storage.exists(path) or fingerprint(read_plan(path)) != shard.plan:
        raise ConflictError(
            f"{folder}: it was not begun with the plan of shard {shard.name}; run the whole reshard again"
        )


def _successes(folder: str, name: str) -> int | None:
    """The count in a shard's stats; None where they are not there."""
    path = storage.join(folder, f"{name}_stats.json")
    if not storage.exists(path):
        return None
    try:
        return int(read_object(path, "delete it", {"successes": COUNT})["successes"])
    except (FileNotFoundError, DataError):
        return None


def finish(plan: Plan, folder: str, workers: int = 1) -> dict[str, Any]:
    """Check that every shard is there, then write the files that stand for the whole; returns meta.json.

    Raises DataError naming shards that are not finished. A folder without meta.json is not done.
    """
    undone = [shard.name for shard in plan.shards if _successes(folder, shard.name) != len(shard)]
    if undone:
        raise DataError(
            f"{folder}: {len(undone)} shards are not finished ({', '.join(undone[:5])}); run the same again"
        )
    sizes = {f"{shard.name}.tar": len(shard) for shard in plan.shards}
    storage.write_atomic(storage.join(folder, "sizes.json"), json.dumps(sizes).encode())
    plan.subset.write(storage.join(folder, "sample_ids.npy"))
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
    storage.write_atomic(storage.join(folder, "meta.json"), json.dumps(meta).encode())
    _sweep(folder)
    return meta


def _sweep(folder: str) -> None:
    """Remove what killed writers left under temporary names."""
    if not storage.is_remote(folder):
        for name in os.listdir(folder):
            if LEFTOVER.fullmatch(name):
                os.unlink(storage.join(folder, name))


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
