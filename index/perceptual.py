"""Samples of one file (sha256), and of images whose perceptual hashes differ in few bits."""

from functools import partial
from itertools import pairwise

import numpy as np
import polars as pl

from mmfilter.plugs import Run
from mmfilter.scores.phash import hamming

from .exact import first_of
from .groups import Links, stars
from .semdedup import Mode

BITS = 64
BLOCK = 2048


def same_file(sha256: pl.Series, rank: np.ndarray) -> Links:
    """The first in rank of each sha256 -> every other sample with it; rows without one are nobody's."""
    codes = sha256.cast(pl.String).replace("", None).rank("dense").fill_null(0).to_numpy().astype(np.int64)
    return equal(codes, codes > 0, rank)


def equal(codes: np.ndarray, valid: np.ndarray, rank: np.ndarray) -> Links:
    """Links i -> j, at similarity 1, between positions (n,) of one code: the first in rank -> each other."""
    rows = np.flatnonzero(valid)
    rows = rows[np.lexsort((rank[rows], codes[rows]))]
    new = np.ones(len(rows), bool)
    new[1:] = codes[rows[1:]] != codes[rows[:-1]]
    first = rows[np.maximum.accumulate(np.where(new, np.arange(len(rows)), 0))]
    return Links(first[~new], rows[~new], np.ones(int((~new).sum())))


def near_hashes(phash: pl.Series, rank: np.ndarray, bits: int, mode: Mode, run: Run) -> Links:
    """Links between positions whose hashes differ in `bits` bits or fewer; similarity is 1 - bits / 64.

    Every such pair agrees wholly in one of `bits` + 1 bands of the hash (the pigeonhole principle; Manku
    et al. 2007), so only pairs that share a band are compared, and none is missed.
    """
    valid = phash.is_not_null().to_numpy()
    hashes = phash.cast(pl.UInt64).fill_null(0).to_numpy()
    links = [equal(hashes, valid, rank)]
    few = np.flatnonzero(valid)
    few = few[first_of(hashes[few], rank[few])]
    few = few[np.argsort(rank[few], kind="stable")]  # one of each hash, in order of rank
    cuts = np.linspace(0, BITS, bits + 2).astype(int)
    bands = [(int(a), int(b - a)) for a, b in pairwise(cuts)]
    for found in run(partial(_band, hashes[few], bits, mode), bands) if bits else []:
        links.append(Links(few[found.i], few[found.j], found.similarity))
    return Links.concat(links)


def _band(hashes: np.ndarray, bits: int, mode: Mode, band: tuple[int, int]) -> Links:
    """Links i < j between (m,) different hashes that agree in a band (its first bit, its width)."""
    start, width = np.uint64(band[0]), np.uint64((1 << band[1]) - 1)
    part = (hashes >> start) & width
    order = np.argsort(part, kind="stable")
    edges = np.flatnonzero(np.diff(part[order])) + 1
    parts = []
    for rows in np.split(order, edges):
        for b in range(0, len(rows) if len(rows) > 1 else 0, BLOCK):
            for a in range(0, b + 1, BLOCK):
                i, j = rows[a : a + BLOCK], rows[b : b + BLOCK]
                parts.append(_block(hashes, i, j, bits, mode))
    links = Links.concat(parts)
    return links.best() if mode == "greedy" else links


def _block(hashes: np.ndarray, i: np.ndarray, j: np.ndarray, bits: int, mode: Mode) -> Links:
    apart = hamming(hashes[i][:, None], hashes[j][None])
    x, y = np.nonzero(apart <= bits)
    earlier = i[x] < j[y]
    x, y = x[earlier], y[earlier]
    links = Links(x, y, 1 - apart[x, y] / BITS)
    links = links.best() if mode == "greedy" else stars(links)
    return Links(i[links.i], j[links.j], links.similarity)
