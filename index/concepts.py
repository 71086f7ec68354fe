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
from .hierarchy import by_size, grow
from .kmeans import Plan, assign_pool, train
from .pool import Pool
from .terms import count, labels

EXEMPLARS = 12
NEIGHBOURS = 8
CAPTIONS = 256  # of a cluster, that its label is read off
LABELLED = 1 << 19  # of all clusters together: the counts of a caption's terms take 1.5 kB
APART = 20  # centroids that one's separation is measured to: Abbas et al. 2024 (arXiv 2401.04578)
CELLS = 1 << 22  # similarities that are looked at together: 16 MB


class Clusters(PoolScore):
    """`cluster_id` (int32, 0 the largest; -1 for a row without a direction), `centroid_similarity` (float32, cosine to
    its centroid), `density` (float32, mean cosine to the 10 nearest others of its cluster) and `cluster_separation`
    (float32, the mean of 1 - cosine from its centroid to the 20 nearest others, or to all where they are fewer; 0
    where there is none: d_inter of Density-Based Pruning, arXiv 2401.04578); NaN where the id is -1.

    Spherical k-means of FAISS, trained on a sample chosen by a hash of (`seed`, uid), with `k` centroids (default:
    the square root of the pool's size) in `iterations`, then by so many `passes` of Lloyd over the whole pool, read
    from disk (default: 0, or 5 where 512 MB of sample leave a centroid under 39 rows), then every row assigned
    exactly. Also writes OUT/concepts/MODEL (of captions, MODEL-text): centroids.npy and concepts.json, and with
    `levels` hierarchy.json: the centroids clustered into so many, and those again, each level anew `resamples` times
    (hierarchical k-means, Vo et al. 2024, arXiv 2405.15613; see `hierarchy.grow`). With `levels` also the columns
    `cluster_id_1`, `cluster_id_2`, ... (int32): the group that the sample's cluster belongs to on each level, -1
    where the cluster is.
    """

    model: str = Field(min_length=1)
    modality: Literal["image", "text"] = "image"
    k: int | None = Field(default=None, ge=1)
    levels: tuple[int, ...] = ()
    resamples: int = Field(default=10, ge=0)
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
        parents = (f"cluster_id_{level}" for level in range(1, len(self.levels) + 1))
        return ("cluster_id", "centroid_similarity", "density", "cluster_separation", *parents)

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
            "cluster_separation": np.append(separations(centroids), np.float32(np.nan))[cluster],
        }
        groups = grow(centroids, self.levels, self.resamples, (self.iterations, self.seed))
        parents = cluster
        for level, (group, _) in enumerate(groups, 1):
            parents = np.append(group, np.int32(-1))[parents]
            columns[f"cluster_id_{level}"] = parents
        self._write(pool, centroids, columns, [group for group, _ in groups])
        return columns

    def _write(self, pool: Pool, centroids: np.ndarray, columns: dict[str, Any], groups: list[np.ndarray]) -> None:
        concepts, counts = describe(pool, centroids, columns, self.seed)
        levels = hierarchy(concepts, counts, groups)
        stream = io.BytesIO()
        np.save(stream, centroids, allow_pickle=False)
        folder = storage.join(pool.out, self.folder)
        storage.write_atomic(storage.join(folder, "centroids.npy"), stream.getvalue())
        if levels:
            storage.write_atomic(storage.join(folder, "hierarchy.json"), _json(levels))
        storage.write_atomic(storage.join(folder, "concepts.json"), _json(concepts))


def separations(centroids: np.ndarray) -> np.ndarray:
    """float32 (k,): the mean of 1 - cosine from each centroid to its 20 nearest others."""
    near = min(APART, len(centroids) - 1)
    found = np.zeros(len(centroids), np.float32)
    step = max(CELLS // max(len(centroids), 1), 1)
    for at in range(0, len(centroids) if near > 0 else 0, step):
        similar = centroids[at : at + step] @ centroids.T
        similar[np.arange(len(similar)), np.arange(at, at + len(similar))] = -np.inf
        best = np.sort(np.partition(similar, -near, axis=1)[:, -near:], axis=1)
        found[at : at + step] = 1 - best.mean(axis=1, dtype=np.float64)
    return found


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
    """Counts over some captions of each cluster, the first by a hash of (seed, uid), read a shard at a time.

    As many of each, `CAPTIONS` or what `LABELLED` leaves.
    """
    if "text" not in pool.table.columns:
        return {}
    order = np.lexsort((sample_share(pool.uids, seed), cluster))
    first = np.searchsorted(cluster[order], cluster[order])
    chosen = np.zeros(len(cluster), bool)
    most = max(min(CAPTIONS, LABELLED // (int(cluster.max(initial=0)) + 1)), 1)
    chosen[order[np.arange(len(order)) - first < most]] = True
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
    concepts: list[dict[str, Any]], counts: dict[int, Counter[str]], groups: list[np.ndarray]
) -> list[list[dict[str, Any]]]:
    """For each level its groups {id, size, label, children}, children being ids of the level below.

    Each concept gets `parents`: its group's id on each level. `groups` are by level the group of each one below.
    """
    found: list[list[dict[str, Any]]] = []
    parents = np.arange(len(concepts))
    own = np.array([concept["size"] for concept in concepts], np.int64)
    for group in groups:
        parents = group[parents]
        k = int(group.max(initial=-1)) + 1
        merged: dict[int, Counter[str]] = {}
        for number, parent in enumerate(parents.tolist()):
            merged.setdefault(parent, Counter()).update(counts.get(number, Counter()))
            concepts[number].setdefault("parents", []).append(parent)
        sizes, terms = np.zeros(k, np.int64), labels(merged, k)
        np.add.at(sizes, parents, own)
        inside = [np.flatnonzero(group == g).tolist() for g in range(k)]
        found.append([{"id": g, "size": int(sizes[g]), "label": terms[g], "children": inside[g]} for g in range(k)])
    return found


def _json(rows: list[Any]) -> bytes:
    """A JSON list, an entry a line."""
    return ("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n]\n").encode()
