"""Two samples of a pool beside each other: the same file, bits between their hashes, cosine of their embeddings."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from mmfilter.errors import UsageError
from mmfilter.scores.phash import hamming

from .exact import dots
from .pool import Pool
from .vectors import Vectors, embedded

BITS = 64
ROWS = 8192  # pairs at a time
SLIP = 1e-6  # of a cosine: what rounding unit rows to float32 adds


@dataclass(frozen=True)
class Measures:
    """Of m pairs: `same` (m,) bool, whether sha256 is one; `bits` (m,) int64, -1 where a hash is not known; `cosine`
    (m,) float64, NaN where an embedding is not known. `model`: whose, "" for none."""

    same: np.ndarray
    bits: np.ndarray
    cosine: np.ndarray
    model: str
    modality: str

    def holds(self, kind: str, score: Any) -> np.ndarray | None:
        """(m,) bool: alike as `score`, a `Duplicates`, has it for this kind; None where it does not compare so."""
        if kind == "exact":
            return self.same
        if score is None:
            return None
        if kind == "perceptual":
            return None if score.hamming is None else (self.bits >= 0) & (self.bits <= score.hamming)
        if not score.model or (self.model, self.modality) != (score.model, score.modality):
            return None
        return self.cosine > min(1 - score.eps, 1 - SLIP)

    def tell(self, i: int, kind: str) -> dict[str, Any]:
        """Pair `i` as JSON has it; `similarity` is the kind's own: cosine, 1 - bits / 64, or 1 for one file.

        A pair of kind exact that is not one file has the similarity of what else is known.
        """
        same, bits = bool(self.same[i]), int(self.bits[i])
        cosine = None if np.isnan(self.cosine[i]) else float(self.cosine[i])
        by_bits = None if bits < 0 else 1 - bits / BITS
        similarity = cosine if kind == "semantic" else by_bits if kind == "perceptual" else 1.0 if same else cosine
        return {
            "similarity": by_bits if similarity is None and kind != "semantic" else similarity,
            "same_file": same,
            "bits": None if bits < 0 else bits,
            "cosine": cosine,
            "model": self.model,
            "modality": self.modality,
        }


@dataclass(frozen=True)
class Ruler:
    """Measures pairs of a pool's positions, and reads only the shards they stand in."""

    pool: Pool
    vectors: Vectors | None

    @classmethod
    def of(cls, pool: Pool, model: str | None, modality: str) -> "Ruler":
        """With the embeddings of `model`, or of the pool's first; without any where none can be read."""
        try:
            names = [model] if model else embedded(pool.table, modality)[:1]
            return cls(pool, pool.vectors(names[0], modality) if names else None)
        except UsageError:  # no embeddings: hashes and files are compared all the same
            return cls(pool, None)

    @cached_property
    def starts(self) -> np.ndarray:
        """(shards + 1,) the position of each shard's first row, and the total."""
        counts = [rows for group in self.pool.table.groups() for rows in group.rows]
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def measure(self, a: np.ndarray, b: np.ndarray) -> Measures:
        """Of positions `a` and `b`, (m,) each."""
        rows, back = np.unique(np.concatenate([a, b]), return_inverse=True)
        i, j = back[: len(a)], back[len(a) :]
        codes, hashes, valid = self._files(rows)
        bits = np.where(valid[i] & valid[j], hamming(hashes[i], hashes[j]).astype(np.int64), -1)
        model, modality = (self.vectors.model, self.vectors.modality) if self.vectors is not None else ("", "image")
        return Measures((codes[i] == codes[j]) & (codes[i] > 0), bits, self._cosines(a, b), model, modality)

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
        """(n,) each: a number for each sha256, 0 for none; the hash, uint64; if it is known. And unit rows (n, d)."""
        return *self._files(rows), None if self.vectors is None else self.vectors.take(rows)

    def _files(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        sha, phash = self._gather("sha256", pl.String, rows), self._gather("phash", pl.UInt64, rows)
        codes = sha.replace("", None).rank("dense").fill_null(0).to_numpy().astype(np.int64)
        return codes, phash.fill_null(0).to_numpy(), phash.is_not_null().to_numpy()

    def _cosines(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        found = np.full(len(a), np.nan)
        if self.vectors is None:
            return found
        for at in range(0, len(a), ROWS):
            part = slice(at, at + ROWS)
            x, y = self.vectors.take(a[part]), self.vectors.take(b[part])
            places = np.arange(len(x))
            cosines = np.clip(dots(x, y, places, places), -1, 1)  # unit rows in float32 may give 1.0000001
            found[part] = np.where(x.any(axis=1) & y.any(axis=1), cosines, np.nan)
        return found

    def _gather(self, name: str, dtype: Any, rows: np.ndarray) -> pl.Series:
        """A column at `rows` (n,), ascending or not; nulls where the pool does not have it."""
        table = self.pool.table
        if name not in table.columns:
            return pl.Series([None] * len(rows), dtype=dtype)
        order = np.argsort(rows, kind="stable")
        shards = np.searchsorted(self.starts, rows[order], side="right") - 1
        parts = [pl.Series([], dtype=dtype)]
        for shard in np.unique(shards).tolist():
            here = rows[order][shards == shard] - self.starts[shard]
            parts.append(table.read([name], table.stems[shard])[name].cast(dtype, strict=False).gather(here))
        back = np.empty(len(rows), np.int64)
        back[order] = np.arange(len(rows))
        return pl.concat(parts).gather(back)
