"""`process_shard`: the unit of work. A pure function of a tar and the work asked of it, run the same
in one process, in a notebook or in a Ray actor, with the same bytes as result."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from . import storage
from .columns import StoredBatch, add_columns
from .embed import Embedder, bad_rows
from .feed import Clock, Fed, FeedPlan, Source, feed
from .plugs import Score
from .samples import Failure
from .sidecar import (
    BASE,
    Stored,
    merge,
    merge_failures,
    read_commit,
    read_failures,
    read_stored,
    write_commit,
    write_stored,
)
from .versions import versions
from .work import PIXELS, Work, looks, needs_pass, pending, reads_pixels, select_parts


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
    stem = storage.stem(path)
    commit = read_commit(work.out, stem)
    todo = pending(work, commit, path)
    first = commit is None
    if not todo:
        assert commit is not None
        return _report(stem, commit, [])
    if commit is not None and work.redo and set(todo) == set(work.parts):
        commit = None
    wanted = select_parts(work, todo)
    clock = Clock()
    if commit is not None and not needs_pass(wanted):
        add_columns(stem, wanted, clock)
        return replace(_report(stem, commit, todo), seconds=clock.seconds)
    done = _Pass(path, wanted, embedders, clock).run(source)
    before: Mapping[str, Any] = commit or {"parts": {}}
    if commit is not None:
        started = time.perf_counter()
        done.stored = merge(read_stored(work.out, stem), done.stored)
        done.failures = merge_failures(read_failures(work.out, stem), done.failures)
        clock.add("write", started)
    done.score_rest()
    commit = _commit(path, {**before["parts"], **{part: work.parts[part] for part in todo}}, done, clock)
    commit["models"] = {**before.get("models", {}), **commit["models"]}
    write_commit(work.out, stem, commit, first)
    return _report(stem, commit, todo)


def _report(stem: str, commit: Mapping[str, Any], did: list[str]) -> ShardReport:
    counts = commit["counts"]
    size = (commit.get("input") or {}).get("bytes", 0)
    seconds = commit["seconds"] if did else {}
    return ShardReport(stem, counts["read"], counts["ok"], counts["failed"], seconds, size, did)


def _commit(path: str, parts: dict[str, Any], done: "_Pass", clock: Clock) -> dict[str, Any]:
    """Write the shard's files and return the commit, which the caller writes last."""
    stem = storage.stem(path)
    started = time.perf_counter()
    write_stored(done.work.out, stem, done.stored, done.failures)
    clock.add("write", started)
    failed = Counter(failure.status for failure in done.failures)
    return {
        "shard": stem,
        "path": path,
        "input": done.identity,
        "counts": {
            "read": done.stored.table.num_rows + len(done.failures),
            "ok": done.stored.table.num_rows,
            "failed": dict(sorted(failed.items())),
        },
        "seconds": {stage: round(s, 4) for stage, s in sorted(clock.seconds.items())},
        "parts": parts,
        "models": {name: embedder.info() for name, embedder in done.embedders.items()},
        "versions": versions(),
        "notes": {note: n for note, n in sorted(done.notes.items()) if n},
    }


class _Pass:
    """One reading of a tar: rows, embeddings and scores gathered column by column."""

    def __init__(self, path: str, work: Work, embedders: Mapping[str, Embedder], clock: Clock) -> None:
        self.path, self.work, self.clock = path, work, clock
        self.embedders = {name: embedders[name] for name in work.models}
        self.given = {"threads": work.threads, **{f"embedder:{name}": e for name, e in embedders.items()}}
        self.identity = storage.identity_or_none(path)
        self.failures: list[Failure] = []
        self.notes: Counter[str] = Counter()
        self.rows: dict[str, list[Any]] = {name: [] for name in BASE}
        self.parts: dict[str, list[np.ndarray]] = {}
        self.looked: set[str] = set()  # which of `parts` are not columns
        self.stored = Stored(pa.table({}))
        self.flying: list[tuple[str, Callable[[], np.ndarray]]] = []  # queued on a device, not waited for yet

    def run(self, source: Source) -> "_Pass":
        pixel_scores = [score for score in self.work.scores if reads_pixels(score)]
        for fed in source(self.path, self._feed_plan(pixel_scores), self.failures, self.clock):
            for name, values in fed.rows.items():
                self.rows[name] += values
            self.notes.update(fed.notes)
            self._embed_images(fed)
            for name, scored in fed.scored.items():
                self.parts.setdefault(name, []).append(scored)
            self._look({**fed.rows, **fed.pixels}, pixel_scores)
        self._land()
        self._embed_texts()
        arrays = self._joined_arrays()
        scores, looked = self._joined(pixel_scores)
        table = pa.table({name: pa.array(self.rows[name], type=kind) for name, kind in BASE.items()})
        self.stored = Stored(table, arrays, looked)
        self._set_aside_bad(scores)
        return self

    def _feed_plan(self, pixel_scores: list[Score]) -> FeedPlan:
        """Scores of the pixels are counted where these are; only what a `look` wants comes here."""
        work = self.work
        plain = tuple(score for score in pixel_scores if not looks(score))
        image = any("image" in score.needs for score in pixel_scores)
        return FeedPlan(
            read=work.read,
            pixels=bool(self.embedders) or image,
            scores=plain,
            kept=PIXELS.intersection(need for score in filter(looks, pixel_scores) for need in score.needs),
            prepare={e.prepare_key: e.preparation for e in self.embedders.values()},
            draft_side=self._draft_side(image),
            batch_size=work.batch_size,
            threads=work.threads,
        )

    def _draft_side(self, exact: bool) -> int:
        """The largest model's input side when every model takes the fast decoder and no score looks on."""
        fast = all(e.spec.decoder == "fast" for e in self.embedders.values())
        return max((max(e.image_size) for e in self.embedders.values()), default=0) if fast and not exact else 0

    def _embed_images(self, fed: Fed) -> None:
        """Queue this batch on the device, then wait for the one before it: the device goes from one to the next."""
        started = time.perf_counter()
        queued = [(name, e.submit(fed.arrays[e.prepare_key])) for name, e in self.embedders.items()]
        self._land()
        self.flying = queued
        self.clock.add("embed_images", started)

    def _land(self) -> None:
        for name, wait in self.flying:
            self.parts.setdefault(f"{name}_img", []).append(wait())
        self.flying = []

    def _no_rows(self, scores: list[Score]) -> None:
        """Arrays of no rows, which have the scores' own types."""
        batch: dict[str, list[Any]] = {**self.rows, "image": [], "bytes": []}
        for score in scores:
            if not looks(score):
                self.parts.update({name: [values] for name, values in score(batch).items()})
        self._look(batch, scores)

    def _look(self, batch: Mapping[str, Any], scores: list[Score]) -> None:
        started = time.perf_counter()
        for score in filter(looks, scores):
            for name, values in score.look({**self.given, **batch}).items():
                self.parts.setdefault(name, []).append(values)
                self.looked.add(name)
        self.clock.add("score", started)

    def _embed_texts(self) -> None:
        """All of the shard's texts at once, so that those of a length share a batch."""
        started = time.perf_counter()
        for name, embedder in self.embedders.items():
            self.parts[f"{name}_txt"] = [embedder.texts(self.rows["text"])]
        self.clock.add("embed_texts", started)

    def _joined_arrays(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name, embedder in self.embedders.items():
            empty = np.empty((0, embedder.dim), np.float16)
            for side in ("img", "txt"):
                arrays[f"{name}_{side}"] = np.concatenate([*self.parts.get(f"{name}_{side}", []), empty])
        return arrays

    def _joined(self, pixel_scores: list[Score]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """(columns of the scores of pixels, what others kept of them), each over the whole shard."""
        if not self.rows["uid"]:
            self._no_rows(pixel_scores)
        columns = [column for score in pixel_scores if not looks(score) for column in score.columns]
        scores, looked = (
            {name: np.concatenate(self.parts[name]) for name in names} for names in (columns, self.looked)
        )
        return scores, looked

    def _set_aside_bad(self, scores: dict[str, np.ndarray]) -> None:
        """Rows whose embedding is not a finite unit vector become failures; NaN reaches no file."""
        arrays = self.stored.arrays
        bad = np.zeros(self.stored.table.num_rows, bool)
        for array in arrays.values():
            bad |= bad_rows(array)
        for row in np.flatnonzero(bad):
            which = ", ".join(name for name, array in arrays.items() if bad_rows(array[row : row + 1])[0])
            message = f"the embedding {which} is not finite or has no length"
            self.failures.append(Failure(self.rows["key"][row], self.rows["uid"][row], "embedding_not_finite", message))
        good = np.flatnonzero(~bad)
        if bad.any():
            self.stored = self.stored.take(good)
        for column, values in scores.items():
            self.stored.table = self.stored.table.append_column(column, pa.array(values[good]))

    def score_rest(self) -> None:
        """The scores that need no pixels, or no more, over the shard's rows as they will be stored."""
        started = time.perf_counter()
        batch = StoredBatch(self.stored, self.work.out, storage.stem(self.path))
        for score in self.work.scores:
            if not reads_pixels(score) or looks(score):
                for column, values in score(batch).items():
                    self.stored.table = self.stored.table.append_column(column, pa.array(values))
        self.clock.add("score", started)
