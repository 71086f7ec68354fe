"""The pool score `clusters`: the concepts a pool is made of, by spherical k-means."""

import io
import json
import math
from collections import Counter
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator

from mmfilter import storage
from mmfilter.plugs import PoolScore, Run
from mmfilter.subset import sample_share
from mmfilter.uids import format_uids

from .density import densities
from .duplicates import members
from .flat import flat_map
from .kmeans import Plan, assign, assign_pool, fit, train
from .pool import Pool
from .terms import count, labels

EXEMPLARS = 12
NEIGHBOURS = 8
CAPTIONS = 256  # of a cluster, that its label is read off


class Clusters(PoolScore):
    """`cluster_id` (int32, 0 the largest; -1 for a row without a direction), `centroid_similarity` (float32, cosine to
    its centroid) and `density` (float32, mean cosine to the 10 nearest others of its cluster); NaN where the id is -1.

    Spherical k-means of FAISS, trained on a sample chosen by a hash of (`seed`, uid), with `k` centroids (default:
    the square root of the pool's size) in `iterations`, then by so many `passes` of Lloyd over the whole pool, read
    from disk (default: 0, or 5 where 512 MB of sample leave a centroid under 39 rows), then every row assigned
    exactly. Also writes OUT/concepts/MODEL (of captions, MODEL-text): centroids.npy and concepts.json, and with
    `levels` hierarchy.json: the centroids clustered into so many, and those again (hierarchical k-means, Vo et al.
    2024, arXiv 2405.15613, without its resampling).
    """

    model: str = Field(min_length=1)
    modality: Literal["image", "text"] = "image"
    k: int | None = Field(default=None, ge=1)
    levels: tuple[int, ...] = ()
    iterations: int = Field(default=20, ge=1)
    passes: int | None = Field(default=None, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @field_validator("levels")
    @classmethod
    def _falling(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(level < 1 for level in value) or list(value) != sorted(set(value), reverse=True):
            raise ValueError("levels fall, from the finer to the coarser: 'levels: [100, 10]'")
        return value

    @property
    def columns(self) -> tuple[str, ...]:
        return ("cluster_id", "centroid_similarity", "density")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"{'img' if self.modality == 'image' else 'txt'}_emb:{self.model}"})

    @property
    def folder(self) -> str:
        """Below OUT, where the concepts are."""
        return f"concepts/{self.model}{'-text' if self.modality == 'text' else ''}"

    @property
    def files(self) -> tuple[str, ...]:
        names = ("centroids.npy", "concepts.json", *(["hierarchy.json"] if self.levels else []))
        return tuple(f"{self.folder}/{name}" for name in names)

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        vectors = pool.vectors(self.model, self.modality)
        k = self.k or max(1, round(math.sqrt(len(vectors))))
        centroids = train(vectors, pool.uids, Plan(k, self.iterations, self.seed, self.passes), run)
        cluster, similarity = assign_pool(vectors, centroids, run)
        cluster, centroids = by_size(cluster, centroids)
        rank = np.empty(len(cluster), np.int64)
        rank[np.lexsort((pool.uids["f1"], pool.uids["f0"]))] = np.arange(len(cluster))
        density = densities(vectors, members(cluster, rank), run)
        density[(cluster >= 0) & np.isnan(density)] = 0  # alone in its cluster
        columns = {
            "cluster_id": cluster,
            "centroid_similarity": similarity.astype(np.float32),
            "density": density,
        }
        self._write(pool, centroids, columns)
        return columns

    def _write(self, pool: Pool, centroids: np.ndarray, columns: dict[str, Any]) -> None:
        concepts, counts = describe(pool, centroids, columns, self.seed)
        levels = hierarchy(centroids, concepts, counts, self.levels, (self.iterations, self.seed))
        stream = io.BytesIO()
        np.save(stream, centroids, allow_pickle=False)
        folder = storage.join(pool.out, self.folder)
        storage.write_atomic(storage.join(folder, "centroids.npy"), stream.getvalue())
        if levels:
            storage.write_atomic(storage.join(folder, "hierarchy.json"), _json(levels))
        storage.write_atomic(storage.join(folder, "concepts.json"), _json(concepts))


def by_size(cluster: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cluster (n,) int32, centroids) numbered anew, the largest first; those without a row are gone."""
    sizes = np.bincount(cluster[cluster >= 0], minlength=len(centroids))
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    number = np.full(len(centroids) + 1, -1, np.int32)  # the last one is for -1
    number[order] = np.arange(len(order))
    return number[cluster], centroids[order]


def describe(
    pool: Pool, centroids: np.ndarray, columns: dict[str, Any], seed: int
) -> tuple[list[dict[str, Any]], dict[int, Counter[str]]]:
    """(concepts.json's entries, each cluster's count of terms)."""
    cluster, similarity, density = (columns[name] for name in ("cluster_id", "centroid_similarity", "density"))
    uids = pool.uids
    k = len(centroids)
    sizes = np.bincount(cluster[cluster >= 0], minlength=k)
    order = np.lexsort((uids["f1"], uids["f0"], -similarity, cluster))
    starts = np.searchsorted(cluster[order], np.arange(k))
    counts = _terms(pool, cluster, seed)
    terms = labels(counts, k)
    x, y = flat_map(centroids)
    near = _nearest(centroids)
    means = [np.bincount(cluster[cluster >= 0], v[cluster >= 0], k) / sizes for v in (similarity, density)]
    concepts = []
    for number in range(k):
        shown = order[starts[number] : starts[number] + min(EXEMPLARS, sizes[number])]
        concepts.append(
            {
                "id": number,
                "size": int(sizes[number]),
                "tightness": round(float(means[0][number]), 6),
                "density": round(float(means[1][number]), 6),
                "label": terms[number],
                "exemplars": format_uids(uids[shown]),
                "x": round(float(x[number]), 4),
                "y": round(float(y[number]), 4),
                "neighbours": near[number],
            }
        )
    return concepts, counts


def _terms(pool: Pool, cluster: np.ndarray, seed: int) -> dict[int, Counter[str]]:
    """Counts over some captions of each cluster, the first by a hash of (seed, uid), read a shard at a time."""
    if "text" not in pool.table.columns:
        return {}
    order = np.lexsort((sample_share(pool.uids, seed), cluster))
    first = np.searchsorted(cluster[order], cluster[order])
    chosen = np.zeros(len(cluster), bool)
    chosen[order[np.arange(len(order)) - first < CAPTIONS]] = True
    counts: dict[int, Counter[str]] = {}
    start = 0
    for stem in pool.table.stems:
        texts = pool.table.read(["text"], stem)["text"]
        here = slice(start, start + len(texts))
        start += len(texts)
        some = texts.filter(chosen[here]).to_list()
        for number, counter in count(some, cluster[here][chosen[here]]).items():
            counts.setdefault(number, Counter()).update(counter)
    return counts


def _nearest(centroids: np.ndarray) -> list[list[int]]:
    """For each centroid the ids of the 8 nearest others, nearest first."""
    found = []
    for at in range(0, len(centroids), 1024):
        similar = centroids[at : at + 1024] @ centroids.T
        similar[np.arange(len(similar)), np.arange(at, at + len(similar))] = -np.inf
        best = np.argsort(-similar, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(centroids) - 1)]
        found += best.tolist()
    return found


def hierarchy(
    centroids: np.ndarray,
    concepts: list[dict[str, Any]],
    counts: dict[int, Counter[str]],
    levels: tuple[int, ...],
    how: tuple[int, int],
) -> list[list[dict[str, Any]]]:
    """For each level its groups {id, size, label, children}, children being ids of the level below.

    Each concept gets `parents`: its group's id on each level. `how` is (iterations, seed).
    """
    found: list[list[dict[str, Any]]] = []
    parents = np.arange(len(concepts))
    rows = centroids
    for level in levels:
        above = fit(rows, level, *how)
        group, above = by_size(assign(rows, above)[0], above)
        parents = group[parents]
        merged: dict[int, Counter[str]] = {}
        for number, parent in enumerate(parents.tolist()):
            merged.setdefault(parent, Counter()).update(counts.get(number, Counter()))
        sizes = [sum(c["size"] for c, p in zip(concepts, parents, strict=True) if p == g) for g in range(len(above))]
        terms = labels(merged, len(above))
        children = [np.flatnonzero(group == g).tolist() for g in range(len(above))]
        found.append(
            [{"id": g, "size": sizes[g], "label": terms[g], "children": children[g]} for g in range(len(above))]
        )
        for concept, parent in zip(concepts, parents.tolist(), strict=True):
            concept.setdefault("parents", []).append(parent)
        rows = above
    return found


def _json(rows: list[Any]) -> bytes:
    """A JSON list, an entry a line."""
    return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode()
