"""The pool score `duplicates`: of samples that are one and the same, all but one are marked."""

from typing import Any, Literal, Self

import numpy as np
import polars as pl
import pyarrow as pa
from pydantic import Field, model_validator

from mmfilter.allow import Allow
from mmfilter.plugs import PoolScore, Run
from mmfilter.subset import sample_share
from mmfilter.uids import format_uids

from .exact import dots, first_of
from .groups import Links, join, settle
from .kmeans import Plan, assign_pool, train
from .perceptual import near_hashes, same_file
from .pool import Pool
from .semdedup import Mode, Near, choose_sieve, compare, identical

Keep = Literal["furthest", "nearest", "largest", "score", "random"]
CLUSTER = 8800  # samples a cluster: SemDeDup's 440 million in 50,000
KINDS = ("exact", "perceptual", "semantic")


class Duplicates(PoolScore):
    """`duplicate_of` (str: the uid that is kept, "" when there is none), `duplicate_similarity` (float32,
    NaN when it is no duplicate) and `duplicate_kind` (str: exact, perceptual, semantic, "").

    Exact: one sha256. Perceptual, with `hamming`: the column `phash` differs in so many bits or fewer.
    Semantic, with `model`: SemDeDup (arXiv 2303.09540): cos > 1 - `eps` within one of `k` clusters of
    spherical k-means (default: one for each 8,800 samples; `iterations` and `passes` as `clusters` has them).
    `keep` ranks the samples, and the first is kept: ``furthest`` or ``nearest`` by similarity to the centroid (the
    authors' hard and easy), ``largest`` by original_width x original_height, ``score`` by the column `score`,
    highest first, ``random`` by a hash of
    (`seed`, uid); ties go to the smaller uid. `mode`: ``greedy`` drops a sample that is near one before it,
    dropped or not, as the authors' code does; ``groups`` keeps one of each connected group, as their paper says.

    `duplicate_similarity` is the cosine to the nearest sample before it (greedy) or to the kept one (groups);
    of perceptual ones 1 - bits / 64, of exact ones 1.
    """

    model: str | None = Field(default=None, min_length=1)
    modality: Literal["image", "text"] = "image"
    eps: float = Field(default=0.05, ge=0, le=1)
    k: int | None = Field(default=None, ge=1)
    iterations: int = Field(default=20, ge=1)
    passes: int | None = Field(default=None, ge=0)
    exact: bool = True
    hamming: int | None = Field(default=None, ge=0, le=16)
    mode: Mode = "greedy"
    keep: Keep | None = None
    score: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**31)

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not (self.exact or self.hamming is not None or self.model):
            raise ValueError("nothing is compared: give 'model', 'hamming', or 'exact: true'")
        if self.keep in ("furthest", "nearest") and not self.model:
            raise ValueError(f"'keep: {self.keep}' is about a cluster's centroid: give 'model' too")
        if (self.keep == "score") != (self.score is not None):
            raise ValueError("'keep: score' and 'score: COLUMN' go together")
        return self

    @property
    def columns(self) -> tuple[str, ...]:
        return ("duplicate_of", "duplicate_similarity", "duplicate_kind")

    @property
    def ranked_by(self) -> Keep:
        """`keep`, or its default: furthest where there is a model, else largest."""
        return self.keep or ("furthest" if self.model else "largest")

    @property
    def needs(self) -> frozenset[str]:
        needs = {"sha256"} if self.exact else set()
        if self.hamming is not None:
            needs.add("phash")
        if self.model:
            needs.add(f"{'img' if self.modality == 'image' else 'txt'}_emb:{self.model}")
        if self.ranked_by == "largest":
            needs |= {"original_width", "original_height"}
        return frozenset(needs | ({self.score} if self.score else set()))

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        uids = pool.uids
        clusters = self._clusters(pool, run) if self.model else (np.empty(0, np.int32), np.empty(0))
        key = self._key(pool, clusters[1])
        order = np.lexsort((uids["f1"], uids["f0"], key))
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        found: dict[str, Links] = {}
        if self.exact:
            found["exact"] = same_file(pool.read("sha256")["sha256"], rank)
        if self.hamming is not None:
            found["perceptual"] = near_hashes(pool.read("phash")["phash"], rank, self.hamming, self.mode, run)
        if self.model:
            found["semantic"] = self._semantic(pool, clusters, rank, run)
        ranked = {kind: Links(rank[links.i], rank[links.j], links.similarity) for kind, links in found.items()}
        root, similarity, kind = (greedy if self.mode == "greedy" else grouped)(ranked, len(uids))
        if self.mode == "groups" and self.model:
            _fill_cosines(pool.vectors(self.model, self.modality), order, root, similarity, kind)
        return _columns(uids, order[root[rank]], similarity[rank], kind[rank])

    @staticmethod
    def evidence(out: str, metadata: str | None = None, allow: Allow = Allow()) -> Any:
        """The `index.evidence.Evidence` of a folder's duplicates, for the report and `explain`; None without any."""
        from .evidence import Evidence

        return Evidence.open(Pool(out, metadata, allow=allow))

    def _clusters(self, pool: Pool, run: Run) -> tuple[np.ndarray, np.ndarray]:
        assert self.model
        vectors = pool.vectors(self.model, self.modality)
        k = self.k or max(1, round(len(vectors) / CLUSTER))
        plan = Plan(k, self.iterations, self.seed, self.passes)
        return assign_pool(vectors, train(vectors, pool.uids, plan, run), run)

    def _key(self, pool: Pool, similarity: np.ndarray) -> np.ndarray:
        """(n,) what the samples are ranked by, lowest first; NaN comes last."""
        how = self.ranked_by
        if how in ("furthest", "nearest"):
            return similarity if how == "furthest" else -similarity
        if how == "random":
            return sample_share(pool.uids, self.seed)
        column = pl.col("original_width") * pl.col("original_height") if how == "largest" else pl.col(self.score or "")
        names = ["original_width", "original_height"] if how == "largest" else [self.score or ""]
        return -pool.read(*names).select(column.cast(pl.Float64).fill_null(float("nan"))).to_series().to_numpy()

    def _semantic(self, pool: Pool, clusters: tuple[np.ndarray, np.ndarray], rank: np.ndarray, run: Run) -> Links:
        """Links between positions, i before j in rank."""
        assert self.model
        vectors = pool.vectors(self.model, self.modality)
        twins = identical(vectors, *clusters, rank)
        rows = members(clusters[0], rank, twins.j)
        near = Near(1 - self.eps, self.mode, choose_sieve(vectors, rows, 1 - self.eps))
        parts = [twins]
        for number, links in compare(vectors, rows, near, run):
            parts.append(Links(rows[number][links.i], rows[number][links.j], links.similarity))
        return Links.concat(parts)


def members(cluster: np.ndarray, rank: np.ndarray, without: np.ndarray | None = None) -> list[np.ndarray]:
    """Positions by cluster of two or more, in order of rank; rows in no cluster and those `without` left out."""
    there = cluster >= 0
    if without is not None:
        there[without] = False
    rows = np.flatnonzero(there)
    rows = rows[np.lexsort((rank[rows], cluster[rows]))]
    return [part for part in np.split(rows, np.flatnonzero(np.diff(cluster[rows])) + 1) if len(part) > 1]


def greedy(found: dict[str, Links], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(kept, similarity, kind), each (n,), from links between ranks, i < j: j follows its most similar i.

    `kind` is an index of `KINDS`, -1 for none. Where i is a duplicate too, what it follows is kept.
    """
    root, similarity, kind = np.arange(n), np.full(n, np.nan), np.full(n, -1, np.int8)
    for name, links in found.items():
        links = links.best()
        links = links[kind[links.j] < 0]
        root[links.j], similarity[links.j], kind[links.j] = links.i, links.similarity, KINDS.index(name)
    return settle(root), similarity, kind


def grouped(found: dict[str, Links], n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`greedy`'s three, from links either way: of each connected group the lowest rank is kept."""
    root, similarity, kind = np.arange(n), np.full(n, np.nan), np.full(n, -1, np.int8)
    for links in found.values():
        join(root, links)
    root = settle(root)
    dropped = root != np.arange(n)
    for name, links in found.items():
        for side in (links.i, links.j):
            best = links[first_rows(side, links.similarity)]
            rows = side[first_rows(side, links.similarity)]
            free = dropped[rows] & (kind[rows] < 0)
            kind[rows[free]], similarity[rows[free]] = KINDS.index(name), best.similarity[free]
    return root, similarity, kind


def first_rows(groups: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """For each group the row of the highest similarity."""
    return first_of(groups, -similarity)


def _fill_cosines(vectors: Any, order: np.ndarray, root: np.ndarray, similarity: np.ndarray, kind: np.ndarray) -> None:
    """In place: the cosine to the kept one, for semantic duplicates."""
    rows = np.flatnonzero(kind == KINDS.index("semantic"))
    for at in range(0, len(rows), 8192):
        part = rows[at : at + 8192]
        mine, kept = vectors.take(order[part]), vectors.take(order[root[part]])
        places = np.arange(len(part))
        similarity[part] = dots(mine, kept, places, places)


def _columns(uids: np.ndarray, kept: np.ndarray, similarity: np.ndarray, kind: np.ndarray) -> dict[str, Any]:
    """The columns by position; `kept` (n,) are positions."""
    rows = np.flatnonzero(kind >= 0)
    places = np.zeros(len(uids), np.int64)
    places[rows] = np.arange(1, len(rows) + 1)
    names = pa.array(["", *format_uids(uids[kept[rows]])], pa.string())
    kinds = pa.array([*KINDS, ""], pa.string())
    return {
        "duplicate_of": names.take(pa.array(places)),
        "duplicate_similarity": similarity.astype(np.float32),
        "duplicate_kind": kinds.take(pa.array(np.where(kind < 0, len(KINDS), kind))),
    }
