"""`Pass`: one reading of a shard's tar, or of some of its units, gathered column by column."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from . import storage
from .columns import StoredBatch
from .culprits import culprits
from .embed import Embedder, bad_rows
from .feed import Clock, Fed, FeedPlan, Source
from .records import Failure, failure_of
from .sidecar import BASE, Stored
from .work import PIXELS, Work, looks, reads_pixels


@dataclass
class Gathered:
    """What was read so far: base columns, and arrays of embeddings, scores and looks in pieces, row for row.

    `looked` are those of `parts` that are kept for a score which is counted later.
    """

    rows: dict[str, list[Any]] = field(default_factory=lambda: {name: [] for name in BASE})
    parts: dict[str, list[np.ndarray]] = field(default_factory=dict)
    looked: set[str] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, values: np.ndarray) -> None:
        self.parts.setdefault(name, []).append(values)

    def join(self, other: "Gathered") -> None:
        """Put the rows of `other` behind these."""
        for name, column in other.rows.items():
            self.rows[name] += column
        for name, arrays in other.parts.items():
            self.parts.setdefault(name, []).extend(arrays)
        self.looked |= other.looked
        self.failures += other.failures
        self.notes.update(other.notes)


class Pass:
    """Reads, embeds and scores; `stored` is what comes of it when the whole shard is there."""

    def __init__(self, path: str, work: Work, embedders: Mapping[str, Embedder], clock: Clock) -> None:
        self.path, self.work, self.clock = path, work, clock
        self.embedders = {name: embedders[name] for name in work.models}
        self.given = {"threads": work.threads, **{f"embedder:{name}": e for name, e in embedders.items()}}
        self.identity = storage.identity_or_none(path)
        self.pixel_scores = [score for score in work.scores if reads_pixels(score)]
        self.got = Gathered()
        self.told = 0  # rows whose texts are embedded
        self.stored = Stored(pa.table({}))
        self.flying: list[tuple[str, Callable[[], np.ndarray]]] = []  # queued on a device, not waited for yet

    def read(self, source: Source, first: int = 0, until: int | None = None) -> None:
        """Gather the units [first, until) of the shard."""
        got, unit = self.got, first
        for fed in source(self.path, self._feed_plan(first, until), got.failures, self.clock):
            got.notes.update(fed.notes)
            if not fed.rows["uid"]:
                continue
            if fed.unit != unit:
                self._embed_texts()
            unit = fed.unit
            fed = self._looked_at(fed)
            for name, column in fed.rows.items():
                got.rows[name] += column
            self._embed_images(fed)
            for name, values in fed.scored.items():
                got.add(name, values)
        self._land()
        self._embed_texts()

    def join(self, pieces: Iterable[tuple[Gathered, Mapping[str, float]]]) -> None:
        """Gather what others have read, and their seconds."""
        for piece, seconds in pieces:
            self.got.join(piece)
            self.clock.add_all(seconds)

    def finish(self) -> None:
        """Make `stored` of what was gathered, without the rows whose embeddings are bad."""
        if not self.got.rows["uid"]:
            self._no_rows()
        arrays = self._joined_arrays()
        columns = [column for score in self.pixel_scores if not looks(score) for column in score.columns]
        scores, looked = (
            {name: np.concatenate(self.got.parts[name]) for name in names} for names in (columns, self.got.looked)
        )
        table = pa.table({name: pa.array(self.got.rows[name], type=kind) for name, kind in BASE.items()})
        self.stored = Stored(table, arrays, looked)
        self._set_aside_bad(scores)

    def _feed_plan(self, first: int, until: int | None) -> FeedPlan:
        """Scores of the pixels are counted where these are; only what a `look` wants comes here."""
        work, scores = self.work, self.pixel_scores
        image = any("image" in score.needs for score in scores)
        return FeedPlan(
            read=work.read,
            pixels=bool(self.embedders) or image,
            scores=tuple(score for score in scores if not looks(score)),
            kept=PIXELS.intersection(need for score in filter(looks, scores) for need in score.needs),
            prepare={e.prepare_key: e.preparation for e in self.embedders.values()},
            draft_side=self._draft_side(image),
            batch_size=work.batch_size,
            threads=work.threads,
            first=first,
            until=until,
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
            self.got.add(f"{name}_img", wait())
        self.flying = []

    def _no_rows(self) -> None:
        """Arrays of no rows, which have the scores' own types."""
        batch: dict[str, list[Any]] = {**self.got.rows, "image": [], "bytes": []}
        for score in self.pixel_scores:
            if not looks(score):
                for name, values in score(batch).items():
                    self.got.add(name, values)
        self._keep(self._look(batch))

    def _look(self, batch: Mapping[str, Any]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for score in filter(looks, self.pixel_scores):
            found |= score.look({**self.given, **batch})
        return found

    def _keep(self, looked: Mapping[str, np.ndarray]) -> None:
        for name, values in looked.items():
            self.got.add(name, values)
        self.got.looked |= looked.keys()

    def _looked_at(self, fed: Fed) -> Fed:
        """The batch without the samples of which a score's `look` raises an error; what it keeps is gathered."""
        started = time.perf_counter()
        looked, raised = culprits(lambda rows: self._look({**(part := fed.take(rows)).rows, **part.pixels}), len(fed))
        self._keep(looked)
        self.clock.add("score", started)
        for row, error in raised.items():
            self.got.failures.append(failure_of(fed.rows["key"][row], fed.rows["uid"][row], error))
        return fed.take([row for row in range(len(fed)) if row not in raised]) if raised else fed

    def _embed_texts(self) -> None:
        """All texts of a unit at once, so that those of a length share a batch."""
        started = time.perf_counter()
        texts = self.got.rows["text"][self.told :]
        self.told += len(texts)
        for name, embedder in self.embedders.items():
            if texts:
                self.got.add(f"{name}_txt", embedder.texts(texts))
        self.clock.add("embed_texts", started)

    def _joined_arrays(self) -> dict[str, np.ndarray]:
        arrays = {}
        for name, embedder in self.embedders.items():
            empty = np.empty((0, embedder.dim), np.float16)
            for side in ("img", "txt"):
                arrays[f"{name}_{side}"] = np.concatenate([*self.got.parts.get(f"{name}_{side}", []), empty])
        return arrays

    def _set_aside_bad(self, scores: dict[str, np.ndarray]) -> None:
        """Rows whose embedding is not a finite unit vector become failures; NaN reaches no file."""
        arrays = self.stored.arrays
        bad = np.zeros(self.stored.table.num_rows, bool)
        for array in arrays.values():
            bad |= bad_rows(array)
        for row in np.flatnonzero(bad):
            which = ", ".join(name for name, array in arrays.items() if bad_rows(array[row : row + 1])[0])
            message = f"the embedding {which} is not finite or has no length"
            key, uid = self.got.rows["key"][row], self.got.rows["uid"][row]
            self.got.failures.append(Failure(key, uid, "embedding_not_finite", message))
        good = np.flatnonzero(~bad)
        if bad.any():
            self.stored = self.stored.take(good)
        for column, values in scores.items():
            self.stored.table = self.stored.table.append_column(column, pa.array(values[good]))

    def score_rest(self) -> None:
        """The scores that need no pixels, or no more, over the shard's rows as they will be stored; without the rows
        of which one raises an error.
        """
        started = time.perf_counter()
        whole, scores = self.stored, [score for score in self.work.scores if not reads_pixels(score) or looks(score)]

        def score(rows: list[int]) -> Stored:
            part = replace(whole) if len(rows) == whole.table.num_rows else whole.take(np.array(rows, np.int64))
            batch = StoredBatch(part, self.work.out, storage.stem(self.path))
            for score in scores:
                for column, values in score(batch).items():
                    part.table = part.table.append_column(column, pa.array(values))
            return part

        self.stored, raised = culprits(score, whole.table.num_rows)
        for row, error in raised.items():
            key, uid = (whole.table[name][row].as_py() for name in ("key", "uid"))
            self.got.failures.append(failure_of(key, uid, error))
        self.clock.add("score", started)
