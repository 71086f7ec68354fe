"""A pool on disk as img2dataset writes it: tar, parquet and stats for each shard; the labels in a folder beside."""

import hashlib
import io
import json
import os
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from ..errors import ConflictError
from ..storage import expand, join, open_read, stem, write_atomic
from ..tar import END, header, pad
from .noise import Made, Plan, make, make_plan, uid
from .options import KINDS, SynthOptions, SynthReport

LABELS = "labels/labels.parquet"
MARK = "labels/.synth"
"""Tells that the pool is of this program, before its labels are written."""
WRITTEN = re.compile(r"\d{8}(\.tar|\.parquet|_stats\.json)")
SCHEMA = pa.schema(
    [
        ("caption", pa.string()), ("key", pa.string()), ("status", pa.string()), ("error_message", pa.string()),
        ("width", pa.int64()), ("height", pa.int64()), ("original_width", pa.int64()), ("original_height", pa.int64()),
        ("exif", pa.string()), ("sha256", pa.string()), ("uid", pa.string()), ("url", pa.string()),
    ]
)  # fmt: skip
LABEL_SCHEMA = pa.schema(
    [
        ("uid", pa.string()), ("key", pa.string()), ("kind", pa.string()), ("match", pa.bool_()),
        ("lang", pa.string()), ("duplicate_of", pa.string()),
    ]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Packed:
    """A shard ready to be written, and its labels' rows."""

    tar: bytes
    rows: list[dict[str, Any]]
    labels: list[dict[str, Any]]


def generate(out: str, options: SynthOptions | None = None) -> SynthReport:
    """Write a pool to `out`: `{:08d}.tar/.parquet/_stats.json`, and `labels/labels.parquet`.

    Labels: uid, key, kind (one of KINDS), match (does the caption describe the picture), lang, and
    duplicate_of (the uid whose picture it repeats, or ""). Shards of an earlier call with the same
    number are written again; other shards in `out` are a ConflictError. Raises UsageError.
    """
    options = options or SynthOptions()
    options.check()
    begun = time.perf_counter()
    shards = -(-options.samples // options.per_shard)
    _refuse_others(out, shards)
    write_atomic(join(out, MARK), b"")
    plan = make_plan(options)
    labels: list[dict[str, Any]] = []
    for number, packed in enumerate(_pack_all(plan, shards)):
        _write_shard(out, number, packed)
        labels += packed.labels
    write_atomic(join(out, LABELS), _parquet(labels, LABEL_SCHEMA))
    counts = Counter(row["kind"] for row in labels)
    kinds = {kind: counts[kind] for kind in KINDS if counts[kind]}
    return SynthReport(out, join(out, LABELS), len(labels), shards, time.perf_counter() - begun, kinds)


def _refuse_others(out: str, shards: int) -> None:
    """Raise ConflictError where `out` holds shards that no call of this number made, or files of those names."""
    if not os.path.isdir(out):
        return
    ours = {f"{number:08d}" for number in range(shards)}
    tars = any(name.endswith(".tar") for name in os.listdir(out))
    others = sorted({stem(path) for path in expand(out)} - ours) if tars else []
    others = others or [name for name in sorted(os.listdir(out)) if WRITTEN.fullmatch(name) and not _is_own(out)]
    if others or (os.path.exists(join(out, LABELS)) and not _is_own(out)):
        raise ConflictError(f"{out}: holds other shards ({', '.join(others[:3] or [LABELS])}); give an empty folder")


def _is_own(out: str) -> bool:
    """Whether an earlier call began the pool in `out`."""
    if os.path.exists(join(out, MARK)):
        return True
    try:
        with open_read(join(out, LABELS)) as stream:
            return bool(pq.read_schema(stream).names == LABEL_SCHEMA.names)
    except (OSError, pa.ArrowException):
        return False


def _pack_all(plan: Plan, shards: int) -> Iterator[Packed]:
    """The shards in order; in worker processes when more than one is asked for."""
    if min(plan.options.workers, shards) <= 1:
        yield from (pack_shard(plan, number) for number in range(shards))
        return
    with ProcessPoolExecutor(plan.options.workers, get_context("spawn"), _ends_by_sigterm) as pool:
        yield from pool.map(pack_shard, [plan] * shards, range(shards))


def _ends_by_sigterm() -> None:
    """The command line blocks signals (jobs/stopping.py), and a process starts with its parent's mask."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def pack_shard(plan: Plan, number: int) -> Packed:
    """Make the samples of shard `number`."""
    options = plan.options
    first = number * options.per_shard
    stream = io.BytesIO()
    rows, labels = [], []
    for index in range(first, min(first + options.per_shard, options.samples)):
        key = f"{number:08d}{index - first:04d}"
        made = make(plan, index)
        row = _row(made, key, options.seed, index)
        extra = {"captions": list(made.captions)} if options.captions > 1 else {}
        _add(stream, f"{key}.jpg", made.image)
        _add(stream, f"{key}.txt", made.captions[0].encode())
        _add(stream, f"{key}.json", json.dumps({**row, **extra}, ensure_ascii=False).encode())
        rows.append(row)
        labels.append(_label(made, row, options.seed))
    stream.write(END)
    return Packed(stream.getvalue(), rows, labels)


def _row(made: Made, key: str, seed: int, index: int) -> dict[str, Any]:
    """A sample's json and its row of the parquet, img2dataset's fields in its order."""
    width, height = Image.open(io.BytesIO(made.image)).size
    return {
        "caption": made.captions[0],
        "key": key,
        "status": "success",
        "error_message": None,
        "width": width,
        "height": height,
        "original_width": width,
        "original_height": height,
        "exif": "{}",
        "sha256": hashlib.sha256(made.image).hexdigest(),
        "uid": uid(seed, index),
        "url": f"https://scenes.invalid/{seed}/{index:09d}.jpg",
    }


def _label(made: Made, row: dict[str, Any], seed: int) -> dict[str, Any]:
    source = "" if made.duplicate_of < 0 else uid(seed, made.duplicate_of)
    named = {"kind": made.kind, "match": made.match, "lang": made.lang, "duplicate_of": source}
    return {"uid": row["uid"], "key": row["key"], **named}


def _add(stream: io.BytesIO, name: str, data: bytes) -> None:
    stream.write(header(name, len(data)))
    stream.write(data + pad(len(data)))


def _write_shard(out: str, number: int, packed: Packed) -> None:
    """The stats come last: a shard that has them is whole."""
    base = join(out, f"{number:08d}")
    write_atomic(f"{base}.tar", packed.tar)
    write_atomic(f"{base}.parquet", _parquet(packed.rows, SCHEMA))
    n = len(packed.rows)
    stats = {"count": n, "successes": n, "failed_to_download": 0, "failed_to_resize": 0, "status_dict": {"success": n}}
    write_atomic(f"{base}_stats.json", json.dumps(stats).encode())


def _parquet(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), stream)
    return stream.getvalue()
