"""Whether a job uses Ray or this process alone.

Ray's start takes seconds, and a worker's imports some more; a small job is done by then. What a user says decides:
--workers, --gpus, --decoders and --address mean Ray, --local means none. Otherwise an estimate does. The bytes are the
same either way.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mmfilter import storage
from mmfilter.errors import MachineError
from mmfilter.expected import stated_count
from mmfilter.weights import ModelSpec

from . import marker
from .cluster import Width, local_gpus
from .terminal import print

START_S = 10.0  # until Ray's first worker has loaded what it needs; measured 5 to 13 s
DECODED = 15e6  # bytes of tars that a core reads and decodes in a second (docs/benchmarks.md)
READ = 200e6  # bytes of tars that it reads or copies in a second
ROWS = 10_000.0  # rows that a core clusters or compares in a second; they differ widely
FLOPS = 60e9  # of a core, in a second
USES = 100  # FLOP a sample for each parameter: 2 for each of some 50 tokens
PUBLISHED = 15e9  # FLOP a sample of the smallest published model (ViT-B/32)
SHARDS = 256  # more than so many are no small job, and are not looked at one by one
TYPICAL = 30_000  # bytes of a sample, where nothing says how many there are

SAID: set[str] = set()


@dataclass(frozen=True)
class Load:
    """What is to be done: in words, and the seconds that a core takes for it."""

    what: str
    seconds: float


def choose(width: Width, load: Load, deadly: str = "") -> Width:
    """`width`, or the same in this process alone where that is sooner. Says on stderr which of them, once.

    A GPU means Ray, and so does a process that died at this work before, or at its shard `deadly`: Ray's workers may
    die without ending the job.
    """
    if width.local or width.address or width.workers or width.gpus or width.decoders:
        return width
    died = marker.left_behind()
    if deadly or died is not None:
        shard = deadly or (died or {})["shard"]
        where = f" at shard {shard}" if shard else ""
        return _announce(width, f"the process that worked here before died{where}: on Ray, which outlives that")
    if width.gpus != 0 and local_gpus():
        return width
    cores = os.cpu_count() or 1
    if load.seconds > START_S + load.seconds / cores:
        return _announce(width, f"{load.what}: on Ray (--local: in this process alone)")
    return _announce(replace(width, local=True), f"{load.what}: in this process, without Ray (--workers N uses Ray)")


def _announce(width: Width, sentence: str) -> Width:
    kind = "local" if width.local else "ray"
    if kind not in SAID:
        SAID.add(kind)
        print(f"mmfilter: {sentence}", file=sys.stderr, flush=True)
    return width


def embedding(paths: Sequence[str], models: Mapping[str, ModelSpec], decodes: bool) -> Load:
    """Of reading shards, of decoding them where `decodes`, and of models over their samples."""
    size, samples, guessed = _measured(paths)
    seconds = size / (DECODED if decodes else READ) + samples * sum(map(_flop, models.values())) / FLOPS
    return Load(_megabytes(size) if guessed else f"{samples:,} samples", seconds)


def copying(paths: Sequence[str]) -> Load:
    """Of reading shards, or writing others from them."""
    size, _, _ = _measured(paths)
    return Load(_megabytes(size), size / READ)


def _megabytes(size: float) -> str:
    return f"{size / 1e6:,.{0 if size >= 10e6 else 1}f} MB of shards"


def rows(table: Any) -> Load:
    """Of what looks at all rows of a Table: a pool score, an index, a comparison."""
    n = sum(group.height for group in table.groups())
    return Load(f"{n:,} samples", n / ROWS)


def downloads(pieces: int) -> Load:
    """Of `pieces` lists, each of which one worker downloads."""
    return Load(f"{pieces:,} shards to download", pieces * START_S)


def _measured(paths: Sequence[str]) -> tuple[float, int, bool]:
    """(bytes, samples) of shards, about, and whether the samples of some are guessed from their bytes."""
    from .outdir import each

    if len(paths) > SHARDS:
        some = _measured(paths[:: len(paths) // SHARDS][:SHARDS])
        return some[0] * len(paths) / SHARDS, round(some[1] * len(paths) / SHARDS), some[2]
    measured = list(each(_shard, list(paths), any(map(storage.is_remote, paths))))
    stated = [samples if known else max(1, size // TYPICAL) for size, samples, known in measured]
    return float(sum(size for size, _, _ in measured)), sum(stated), not all(known for _, _, known in measured)


def _shard(path: str) -> tuple[int, int, bool]:
    """(bytes, samples, whether those are stated). What is damaged or absent is the job's to find."""
    try:
        size = storage.size(path)
    except (OSError, MachineError):
        return 0, 0, True
    samples = stated_count(path)
    return size, samples or 0, samples is not None


def _flop(spec: ModelSpec) -> float:
    """FLOP a sample, by the weights' size: what a model really takes is known when it is built."""
    folder = spec.folder
    if folder is None:
        return PUBLISHED
    try:
        files = [entry.stat().st_size for entry in os.scandir(os.path.expanduser(folder)) if entry.is_file()]
    except OSError:
        return PUBLISHED
    return max(files, default=0) / 4 * USES
