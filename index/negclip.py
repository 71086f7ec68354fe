"""The pool score `negclip`: a pair's similarity, less what it has with everybody."""

from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from mmfilter.plugs import PoolScore, Run
from mmfilter.subset import sample_share

from . import gpu
from .exact import dots
from .pool import Pool
from .vectors import Vectors

BLOCK = 512  # images that are held against a batch's captions at a time: 64 MB for a batch of 32,768


class NegClip(PoolScore):
    """`negclip_MODEL_score` (float32): negCLIPLoss (Wang et al. 2024, arXiv 2405.19547), a pair's negated CLIP loss.

    s_ii - tau/2 (log sum_j exp(s_ij / tau) + log sum_j exp(s_ji / tau)), j over a random batch with i in it, mean over
    `rounds` shuffles; s are cosines of image and caption, the score is 0 or less. `tau` is the temperature that the
    model was trained to: 0.01 for OpenAI's, 0.07 for the public DFN. Batches of 32,768 and 10 rounds are the
    authors' (the names of the subsets in their repository, ypwang61/negCLIPLoss_NormSim). A shuffle is the order of
    a hash of (`seed`, round, uid). The last batch of a round is filled with the first rows of the shuffle, which are
    scored in their own batch alone: a small batch has a small sum. NaN for a pair with a side without a
    direction, which is in no batch. s_ii is exact, the sums are of float32 products: whether numpy or a GPU multiplies,
    a score is within `exact.margin(d)` (6e-5 at 512) of the exact one, the two of each other within some 1e-7.
    A batch of 32,768 x 512 costs a core 15 s a round, and its worker 370 MB.
    """

    model: str = Field(min_length=1)
    tau: float = Field(default=0.01, gt=0)
    batch: int = Field(default=32_768, ge=1)
    rounds: int = Field(default=10, ge=1)
    seed: int = Field(default=0, ge=0, lt=2**31)

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"negclip_{self.model}_score",)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({f"img_emb:{self.model}", f"txt_emb:{self.model}"})

    def __call__(self, pool: Pool, run: Run) -> dict[str, Any]:
        images, texts = (pool.vectors(self.model, modality) for modality in ("image", "text"))
        rows = np.flatnonzero(directed(images, texts, run))
        uids = pool.uids[rows]
        total = np.full(len(images), np.nan)
        total[rows] = 0
        for number in range(self.rounds):
            order = rows[np.lexsort((uids["f1"], uids["f0"], sample_share(uids, self.seed + (number << 32))))]
            batches = cut(order, self.batch)
            for (batch, own), values in zip(
                batches, run(partial(_task, images, texts, self.tau), batches), strict=True
            ):
                total[batch[:own]] += values
        return {self.columns[0]: (total / self.rounds).astype(np.float32)}


def cut(order: np.ndarray, size: int) -> list[tuple[np.ndarray, int]]:
    """(batch, how many of its first rows are its own): `order` (n,) in parts, the last filled from the start."""
    parts = [order[at : at + size] for at in range(0, len(order), size)]
    if len(parts) < 2:
        return [(part, len(part)) for part in parts]
    return [(np.concatenate([part, order[: size - len(part)]]), len(part)) for part in parts]


def directed(images: Vectors, texts: Vectors, run: Run) -> np.ndarray:
    """(n,) bool by position: which pairs have a direction on both sides."""
    return np.concatenate([np.empty(0, bool), *run(partial(_directed, images, texts), range(len(images.stems)))])


def _directed(images: Vectors, texts: Vectors, shard: int) -> np.ndarray:
    """(n,) bool: which of a shard's pairs have a direction on both sides."""
    found = np.ones(images.counts[shard], bool)
    for vectors in (images, texts):
        start, stop = (int(end) for end in vectors.starts[shard : shard + 2])
        for at, rows in vectors.blocks(8192, start, stop):
            found[at - start : at - start + len(rows)] &= rows.any(axis=1)
    return found


def _task(images: Vectors, texts: Vectors, tau: float, task: tuple[np.ndarray, int]) -> np.ndarray:
    """float64 (own,): the scores of a batch's own rows."""
    batch, own = task
    x, y = images.take(batch), texts.take(batch)
    places = np.arange(own)
    by_image, by_text = log_sums(x, y, tau)
    return np.asarray(dots(x, y, places, places) - tau / 2 * (by_image[:own] + by_text[:own]))


def log_sums(x: np.ndarray, y: np.ndarray, tau: float) -> tuple[np.ndarray, np.ndarray]:
    """float64 (n,) and (m,): log sum_j exp(x_i · y_j / tau), and over i for each j; x (n, d), y (m, d) float32.

    Products and their exponentials in float32, shifted by the largest; sums in float64.
    """
    if gpu.there():
        return gpu.log_sums(x, y, tau)
    rows = np.empty(len(x))
    top, total = np.full(len(y), -np.inf, np.float32), np.zeros(len(y))
    for at in range(0, len(x), BLOCK):
        similar = x[at : at + BLOCK] @ y.T
        peak = similar.max(axis=1)
        rows[at : at + BLOCK] = peak / tau + np.log(_powers(similar, peak[:, None], tau).sum(axis=1, dtype=np.float64))
        new = np.maximum(top, similar.max(axis=0))
        total *= np.exp((top - new).astype(np.float64) / tau)
        total += _powers(similar, new, tau).sum(axis=0, dtype=np.float64)
        top = new
    return rows, top / tau + np.log(total)


def _powers(similar: np.ndarray, peak: np.ndarray, tau: float) -> np.ndarray:
    found = similar - peak
    found /= np.float32(tau)
    return np.asarray(np.exp(found, out=found))
