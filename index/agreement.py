"""The pool score `caption_agreement`: whether a caption is like those of the images that look alike."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from mmfilter.plugs import PoolScore, Run

from .exact import dots, margin
from .hierarchy import by_size
from .kmeans import Plan, assign_pool, train
from .negclip import directed
from .pool import Pool
from .vectors import Vectors

SIZE = 2048  # pairs a cluster: with 8 probes a pair is held against 16,384 others
ROWS = 65_536  # others that a pair is held against at most: 128 MB at 512 dimensions
QUERIES = 4096  # pairs of a task
BLOCK = 256  # of these at a time: 64 MB of similarities
MANY = 64  # candidates a pair, past which a product in float64 is cheaper than one cosine after the other


class CaptionAgreement(PoolScore):
    """`caption_agreement_MODEL` (float32, -1 to 1): the mean cosine of a sample's caption to the captions of the `k`
    samples whose images are nearest to its own.

    A caption that is like none of those is likely another image's, whatever the model thinks of the pair. It is the
    idea of the label-noise detectors that ask the neighbours (such as deep kNN, Bahri et al. 2020, arXiv 2004.12289)
    for captions; the default `k` is a guess. A sample is not its own neighbour; a copy of its image is one.
    Neighbours are found exactly among the rows of the `probes` clusters nearest to the sample's cluster, of spherical
    k-means with `clusters` centroids (default: one for each 2,048 pairs, so up to 16,384 pairs are searched whole);
    of more than 65,536 rows an even part, by uid. Ties go to the smaller uid. NaN for a pair with a side without a
    direction, which is no one's neighbour, and for one that has no neighbour.
    A worker holds 16 bytes a pair of the pool, and some 500 MB at 512 dimensions.
    """

    model: str = Field(min_length=1)
    k: int = Field(default=10, ge=1)
    clusters: int | None = Field(default=None, ge=1)
    probes: int = Field(default=8, ge=1)
    iterations: int = Field(default=20, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"caption_agreement_{self.model}",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"img_emb:{self.model}", f"txt_emb:{self.model}"})

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        images, texts = (pool.vectors(self.model, modality) for modality in ("image", "text"))
        clusters = self.clusters or max(1, round(len(images) / SIZE))
        centroids = train(images, pool.uids, Plan(clusters, self.iterations, self.seed), run)
        cluster = assign_pool(images, centroids, run)[0]
        cluster[~directed(images, texts, run)] = -1
        cluster, centroids = by_size(cluster, centroids)
        lists = group(cluster, pool.uids, near(centroids, self.probes))
        found = run(partial(_task, images, texts, lists, self.k), lists.tasks)
        values = np.full(len(images), np.nan, np.float32)
        for task, here in zip(lists.tasks, found, strict=True):
            values[lists.position[lists.rows(task)]] = here
        return {self.columns[0]: values}


Task = tuple[int, int, int]
"""(cluster, from, to): some of its rows."""


@dataclass(frozen=True)
class Lists:
    """The clusters' rows. A row is known by its rank, its place in the order of all uids; `position` (n,) leads back.

    `ranks` (m,) are those of the clusters one after the other, ascending in each, cluster c from `starts[c]` on;
    `near` (k, p) are the clusters that each one's rows are held against.
    """

    position: np.ndarray
    ranks: np.ndarray
    starts: np.ndarray
    near: np.ndarray

    @property
    def tasks(self) -> list[Task]:
        sizes = np.diff(self.starts).tolist()
        return [(c, at, min(at + QUERIES, size)) for c, size in enumerate(sizes) for at in range(0, size, QUERIES)]

    def rows(self, task: Task) -> np.ndarray:
        """Ranks of the task's own rows."""
        cluster, start, stop = task
        return self.ranks[self.starts[cluster] + start : self.starts[cluster] + stop]

    def others(self, task: Task) -> np.ndarray:
        """Ascending ranks of the rows that these are held against, themselves as a rule among them."""
        parts = [self.ranks[self.starts[c] : self.starts[c + 1]] for c in self.near[task[0]]]
        ranks = np.sort(np.concatenate(parts))
        return ranks[:: -(-len(ranks) // ROWS)]


def group(cluster: np.ndarray, uids: np.ndarray, near: np.ndarray) -> Lists:
    """Lists of rows (n,) by their cluster, -1 for those that are left out."""
    position = np.lexsort((uids["f1"], uids["f0"]))
    order = np.argsort(cluster[position], kind="stable")
    starts = np.searchsorted(cluster[position][order], np.arange(len(near) + 1))
    return Lists(position, order[starts[0] :], starts - starts[0], near)


def near(centroids: np.ndarray, probes: int) -> np.ndarray:
    """int64 (k, probes or k): for each centroid the most similar ones, itself first."""
    width = min(probes, len(centroids))
    found = [np.empty((0, width), np.int64)]
    for at in range(0, len(centroids), BLOCK):
        similar = centroids[at : at + BLOCK] @ centroids.T
        similar[np.arange(len(similar)), np.arange(at, at + len(similar))] = np.inf
        found.append(np.argsort(-similar, axis=1, kind="stable")[:, :width])
    return np.concatenate(found)


def _task(images: Vectors, texts: Vectors, lists: Lists, k: int, task: Task) -> np.ndarray:
    """float32 (m,): the agreement of the task's rows."""
    rows, others = lists.rows(task), lists.others(task)
    y, place = images.take(lists.position[others]), np.searchsorted(others, rows)
    x = images.take(lists.position[rows])
    pairs = [np.empty((2, 0), np.int64)]
    for at in range(0, len(rows), BLOCK):
        part = slice(at, at + BLOCK)
        own = np.where(others[np.minimum(place[part], len(others) - 1)] == rows[part], place[part], -1)
        i, j = neighbours(x[part], y, own, k)
        pairs.append(np.stack([at + i, j]))
    i, j = np.concatenate(pairs, axis=1)
    used, where = np.unique(j, return_inverse=True)
    del x, y
    cosines = dots(texts.take(lists.position[rows]), texts.take(lists.position[others[used]]), i, where)
    count = np.bincount(i, minlength=len(rows))
    with np.errstate(invalid="ignore"):
        return (np.bincount(i, cosines, len(rows)) / count).astype(np.float32)  # 0 / 0: no neighbour


def neighbours(x: np.ndarray, y: np.ndarray, own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(i, j), int64 each: for each unit row of `x` (n, d) its k nearest of `y` (m, d), or fewer where m is, nearest
    first, ties to the smaller j; `own` (n,) is the row itself in y, which is none, or -1.
    """
    similar = x @ y.T
    mask = np.flatnonzero(own >= 0)
    similar[mask, own[mask]] = -2
    edge = np.full(len(x), -1.5)
    if k < len(y):
        edge = np.maximum(np.partition(similar, -k, axis=1)[:, -k] - 2 * margin(x.shape[1]), edge)
    i, j = np.nonzero(similar >= edge[:, None])
    if len(i) > MANY * k * len(x):  # so many alike: identical images
        cosine = np.round(x.astype(np.float64) @ y.T.astype(np.float64), 12)[i, j]
    else:
        cosine = dots(x, y, i, j)
    order = np.lexsort((j, -cosine, i))
    i, j = i[order], j[order]
    first = np.arange(len(i)) - np.searchsorted(i, i) < k
    return i[first], j[first]
