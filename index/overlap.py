"""The pool score `overlap`: what a pool shares with other sets; with evaluation sets, decontamination."""

import os
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from mmfilter import storage
from mmfilter.plugs import PoolScore, Run
from mmfilter.scores.phash import hamming

from .duplicates import KINDS
from .pool import Pool
from .reference import Asked, Reference, read_reference
from .semdedup import ROWS, Near, choose_sieve, linked
from .vectors import Vectors

Found = tuple[np.ndarray, np.ndarray, np.ndarray]
"""(n,) each: which item of the set (-1: none), the similarity, the kind."""


class Overlap(PoolScore):
    """`overlap_of` (str: the set's item, "" for none), `overlap_similarity` (float32, NaN for none) and
    `overlap_kind` (str: exact, perceptual, semantic, "").

    `against` names sets: an OUT (then items are uids), a folder of images, a wds set or a tar. Each sample is
    compared with every item: same sha256; with `hamming`, `phash` so many bits apart or fewer; with `model`,
    cos > 1 - `eps`, by matrix products, without clusters, so that none is missed. An item is
    ``SET/PATH`` or ``SET/UID``, SET being the last part of its path; of several the first kind, then the most
    similar, then the first. Also writes OUT/overlap/found.parquet, the list of what was found.
    """

    against: tuple[str, ...]
    model: str | None = Field(default=None, min_length=1)
    modality: Literal["image", "text"] = "image"
    eps: float = Field(default=0.05, ge=0, le=1)
    exact: bool = True
    hamming: int | None = Field(default=None, ge=0, le=16)

    @field_validator("against", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        paths = [value] if isinstance(value, str) else value
        return tuple(p if "://" in p else os.path.abspath(p) for p in paths)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.against:
            raise ValueError("name a set to compare with")
        if not (self.exact or self.hamming is not None or self.model):
            raise ValueError("nothing is compared: give 'model', 'hamming', or 'exact: true'")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return ("overlap_of", "overlap_similarity", "overlap_kind")

    @property
    def needs(self) -> frozenset[str]:
        needs = {"sha256"} if self.exact else set()
        needs |= {"phash"} if self.hamming is not None else set()
        side = "img" if self.modality == "image" else "txt"
        return frozenset(needs | ({f"{side}_emb:{self.model}"} if self.model else set()))

    @property
    def inputs(self) -> tuple[str, ...]:
        return self.against

    @property
    def files(self) -> tuple[str, ...]:
        return ("overlap/found.parquet",)

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        n = len(pool.uids)
        names = np.full(n, "", object)
        similarity, kind = np.full(n, np.nan), np.full(n, len(KINDS), np.int8)
        for path in self.against:
            asked = Asked(pool, self.model, self.modality, self.hamming is not None)
            reference = read_reference(path, asked)
            at, near, how = self._search(pool, reference, run)
            better = (at >= 0) & ((how < kind) | ((how == kind) & (near > similarity)))
            label = os.path.basename(path.rstrip("/"))
            names[better] = [f"{label}/{reference.names[i]}" for i in at[better].tolist()]
            similarity[better], kind[better] = near[better], how[better]
        columns = {
            "overlap_of": pa.array(names, pa.string()),
            "overlap_similarity": similarity.astype(np.float32),
            "overlap_kind": pa.array([*KINDS, ""]).take(pa.array(kind.astype(np.int64))),
        }
        self._write_list(pool, columns)
        return columns

    def _search(self, pool: Pool, reference: Reference, run: Run) -> Found:
        vectors = pool.vectors(self.model, self.modality) if self.model else None
        sieve = choose_sieve(vectors, [np.arange(len(vectors))], 1 - self.eps) if vectors else None
        first = {sha: i for i, sha in reversed(list(enumerate(reference.sha256))) if sha}
        search = _Search(self, pool, vectors, Near(1 - self.eps, "greedy", sieve), reference, first)
        found = run(search.shard, range(len(pool.table.stems)))
        empty = np.empty(0, np.int64), np.empty(0), np.empty(0, np.int8)
        at, similarity, kind = (np.concatenate([empty[side], *(part[side] for part in found)]) for side in range(3))
        return at, similarity, kind

    def listed(self, pool: Pool) -> str:
        """Where the list is."""
        return storage.join(pool.out, self.files[0])

    def _write_list(self, pool: Pool, columns: dict[str, Any]) -> None:
        there = [name for name in ("uid", "key", "text") if name in pool.table.columns]
        found = pl.DataFrame({name: pl.Series(values) for name, values in columns.items()})
        frame = pl.concat([pool.read(*there).select(there), found], how="horizontal")
        with storage.open_atomic(self.listed(pool)) as stream:
            frame.filter(pl.col("overlap_of") != "").write_parquet(stream)


@dataclass(frozen=True)
class _Search:
    """One set against the pool, shard by shard; `first` is the first item of each sha256."""

    score: Overlap
    pool: Pool
    vectors: Vectors | None
    near: Near
    reference: Reference
    first: dict[str, int]

    def shard(self, number: int) -> Found:
        """For each sample the item it is most like, by the first kind that holds."""
        columns = {"uid", *(need for need in self.score.needs if ":" not in need)}
        frame = self.pool.table.read(columns, self.pool.table.stems[number])
        at, similarity = np.full(frame.height, -1, np.int64), np.full(frame.height, np.nan)
        kind = np.full(frame.height, len(KINDS), np.int8)

        def take(items: np.ndarray, found: np.ndarray, name: str) -> None:
            free = (items >= 0) & (at < 0)
            at[free], similarity[free], kind[free] = items[free], found[free], KINDS.index(name)

        if self.score.exact:
            items = np.array([self.first.get(sha or "", -1) for sha in frame["sha256"].to_list()], np.int64)
            take(items, np.ones(len(items)), "exact")
        if self.score.hamming is not None:
            items, bits = nearest_hash(frame["phash"], self.reference)
            take(np.where(bits <= self.score.hamming, items, -1), 1 - bits / 64, "perceptual")
        if self.vectors is not None:
            take(*nearest_rows(self.vectors, number, self.reference, self.near), "semantic")
        return at, similarity, kind


def nearest_hash(column: pl.Series, reference: Reference) -> tuple[np.ndarray, np.ndarray]:
    """(item (n,) int64, -1 without a hash; bits (n,) int64): the item whose hash is nearest, of several the first."""
    hashes = column.cast(pl.UInt64).fill_null(0).to_numpy()
    at, bits = np.full(len(hashes), -1, np.int64), np.full(len(hashes), 65, np.int64)
    items = np.flatnonzero(reference.hashed)
    for start in range(0, len(items), 512):
        part = items[start : start + 512]
        for row in range(0, len(hashes), 2048):
            rows = slice(row, row + 2048)
            apart = hamming(hashes[rows, None], reference.phash[part][None])
            best = apart.argmin(axis=1)
            found = apart[np.arange(len(best)), best]
            better = found < bits[rows]
            at[rows][better], bits[rows][better] = part[best[better]], found[better]
    at[column.is_null().to_numpy()] = -1
    return at, bits


def nearest_rows(vectors: Vectors, shard: int, reference: Reference, near: Near) -> tuple[np.ndarray, np.ndarray]:
    """(item (n,) int64, -1 for none that is near; cosine (n,) float64) for a shard's rows; of equals the first."""
    start, stop = (int(at) for at in vectors.starts[shard : shard + 2])
    at, cosine = np.full(stop - start, -1, np.int64), np.full(stop - start, -np.inf)
    for first, rows in vectors.blocks(ROWS, start, stop):
        for begin in range(0, len(reference), ROWS):
            links = linked(reference.block(begin, begin + ROWS), rows, near)
            here = links.j + first - start
            better = links.similarity > cosine[here]
            at[here[better]], cosine[here[better]] = links.i[better] + begin, links.similarity[better]
    return at, cosine
