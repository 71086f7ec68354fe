"""`process_shard`: the unit of work. A pure function of a tar and the work asked of it, run the same
in one process, in a notebook or in a Ray actor, with the same bytes as result."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from . import storage
from .columns import add_columns
from .embed import Embedder
from .feed import Clock, Source, feed
from .gather import Pass
from .json_file import FORMAT
from .lacking import pending, touched
from .pieces import Piece, is_there, made_from, piece_path, read_piece, siblings, write_piece
from .recheck import same_samples
from .sidecar import merge, merge_failures, read_commit, read_failures, read_stored, write_commit, write_stored
from .versions import versions
from .work import WHOLE, Work, needs_pass, passed, select_parts


@dataclass
class ShardReport:
    """What a shard came to. `read` = `ok` + the sum of `failed`; seconds are by stage, over threads."""

    shard: str
    read: int = 0
    ok: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    bytes: int = 0
    did: list[str] = field(default_factory=list)


def process_shard(path: str, work: Work, embedders: Mapping[str, Embedder], source: Source = feed) -> ShardReport:
    """Do what `work` asks of the shard at `path` and is not done yet, then commit.

    `embedders` holds the models that are still wanted (`work.embedders_of`); `source` reads and decodes.
    Raises ConflictError when the shard's files were made from something else.
    """
    return _process(path, work, embedders, lambda done: done.read(source))


def process_piece(
    piece: Piece, work: Work, embedders: Mapping[str, Embedder], source: Source = feed
) -> ShardReport | None:
    """Read a piece of a shard and lay it by; when all of them are there, do what `process_shard` does.

    None where others are not there yet. Two that are done at once both join them, into the same bytes.
    """
    stem = storage.stem(piece.path)
    commit, todo = _pending(piece.path, work)
    if commit is not None and not todo:
        return _report(stem, commit, [])
    done = Pass(piece.path, select_parts(work, passed(work, todo)), embedders, Clock())
    made = made_from(done.work, done.identity, done.embedders)
    if not is_there(work.out, piece, made):
        done.read(source, piece.first, piece.until)
        write_piece(work.out, piece, made, done.got, done.clock)
    others = siblings(piece)
    if not all(is_there(work.out, other, made) for other in others):
        return None
    try:
        report = _process(
            piece.path, work, embedders, lambda whole: whole.join(read_piece(work.out, other) for other in others)
        )
    except FileNotFoundError:
        return None  # somebody else has joined them, and taken them away
    for other in others:
        storage.remove(piece_path(work.out, other))
    return report


def _pending(path: str, work: Work) -> tuple[dict[str, Any] | None, list[str]]:
    """The shard's commit and what is to be done. A tar that was only touched is added to its commit, whose `input`
    stays what the shard was made from: what was computed of the whole pool is still of it."""
    stem = storage.stem(path)
    commit = read_commit(work.out, stem)
    if commit is not None and work.redo and touched(work, commit, path) and same_samples(path, work):
        commit |= {"also": [*commit.get("also", []), storage.identity(path)], "path": path}
        write_commit(work.out, stem, commit)
    return commit, pending(work, commit, path)


def _process(path: str, work: Work, embedders: Mapping[str, Embedder], gather: Callable[[Pass], None]) -> ShardReport:
    stem = storage.stem(path)
    commit, todo = _pending(path, work)
    first = commit is None
    if not todo:
        assert commit is not None
        return _report(stem, commit, [])
    if commit is not None and WHOLE in todo:  # its files are not those of its commit, or of another tar
        commit = None
    wanted, late = select_parts(work, passed(work, todo)), select_parts(work, sorted(work.added & set(todo)))
    clock = Clock()
    if commit is not None and not needs_pass(wanted):
        add_columns(stem, select_parts(work, todo), clock)
        return replace(_report(stem, commit, todo), seconds=clock.seconds)
    done = Pass(path, wanted, embedders, clock)
    gather(done)
    done.finish()
    before: Mapping[str, Any] = commit or {"parts": {}}
    if commit is not None:
        started = time.perf_counter()
        done.stored = merge(read_stored(work.out, stem, commit.get("files")), done.stored)
        done.got.failures = merge_failures(read_failures(work.out, stem), done.got.failures)
        clock.add("write", started)
    done.score_rest()
    commit = _commit(path, {**before["parts"], **{part: work.parts[part] for part in passed(work, todo)}}, done, clock)
    commit["models"] = {**before.get("models", {}), **commit["models"]}
    clock.add_all(before.get("seconds", {}))  # a score that was added later has taken its time besides
    commit["seconds"] = {stage: round(s, 4) for stage, s in sorted(clock.seconds.items())}
    commit |= {what: before[what] for what in ("input", "also") if what in before}
    write_commit(work.out, stem, commit, first)
    if late.scores:
        add_columns(stem, late, clock)
    return _report(stem, commit, todo)


def _report(stem: str, commit: Mapping[str, Any], did: list[str]) -> ShardReport:
    counts = commit["counts"]
    size = (commit.get("input") or {}).get("bytes", 0)
    seconds = commit["seconds"] if did else {}
    return ShardReport(stem, counts["read"], counts["ok"], counts["failed"], seconds, size, did)


def _commit(path: str, parts: dict[str, Any], done: Pass, clock: Clock) -> dict[str, Any]:
    """Write the shard's files and return the commit, which the caller writes last."""
    stem = storage.stem(path)
    started = time.perf_counter()
    vouched = write_stored(done.work.out, stem, done.stored, done.got.failures)
    clock.add("write", started)
    failed = Counter(failure.status for failure in done.got.failures)
    return {
        "format": FORMAT,
        **vouched,
        "shard": stem,
        "path": path,
        "input": done.identity,
        "counts": {
            "read": done.stored.table.num_rows + len(done.got.failures),
            "ok": done.stored.table.num_rows,
            "failed": dict(sorted(failed.items())),
        },
        "seconds": {stage: round(s, 4) for stage, s in sorted(clock.seconds.items())},
        "parts": parts,
        "models": {name: embedder.info() for name, embedder in done.embedders.items()},
        "versions": versions(),
        "notes": {note: n for note, n in sorted(done.got.notes.items()) if n},
    }
