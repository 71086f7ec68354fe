"""Through which samples of its group a duplicate joined the one that is kept."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfilter.scores.phash import hamming

from .duplicates import KINDS
from .exact import dots, margin
from .measured import BITS, SLIP

BLOCK = 512  # rows of a product


@dataclass(frozen=True)
class Members:
    """A group of n samples, the kept one first: `file`, `hash`, `hashed` (n,), `vectors` (n, d) or None; and of
    the n - 1 others `kind` and `recorded`, as the pool's columns have them."""

    file: np.ndarray
    hash: np.ndarray
    hashed: np.ndarray
    vectors: np.ndarray | None
    kind: np.ndarray
    recorded: np.ndarray


@dataclass(frozen=True)
class Link:
    """What joins two samples. Greedy: the kind and the similarity that are recorded of the later one."""

    exact: bool
    hamming: int | None
    floor: float | None
    greedy: bool

    @classmethod
    def of(cls, score: Any) -> "Link":
        """As an `index.duplicates.Duplicates` joins."""
        floor = min(1 - score.eps, 1 - SLIP) if score.model else None
        return cls(score.exact, score.hamming, floor, score.mode == "greedy")


def parents(members: Members, link: Link) -> np.ndarray:
    """(n,) int64: the member through which each joined, 0 for the kept one itself; -1 where none is found.

    The fewest links lead from each to the kept one; of several members as near to it, the first kind and then the
    most similar is taken, then the first. None is found where the pool has changed since the columns were made.
    """
    found = np.full(len(members.file), -1, np.int64)
    found[0] = 0
    front, rest = np.zeros(1, np.int64), np.arange(1, len(found))
    while len(front) and len(rest):
        strength, best = np.full(len(rest), -np.inf), np.full(len(rest), -1, np.int64)
        for at in range(0, len(front), BLOCK):
            part = front[at : at + BLOCK]
            near = _strength(members, link, part, rest)
            top = near.argmax(axis=0)
            value = near[top, np.arange(len(rest))]
            better = value > strength
            strength[better], best[better] = value[better], part[top[better]]
        joined = best >= 0
        found[rest[joined]] = best[joined]
        front, rest = rest[joined], rest[~joined]
    return found


def _strength(members: Members, link: Link, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """(len(i), len(j)): how strongly two are linked, exact above perceptual above semantic; -inf where they are not."""
    found = np.full((len(i), len(j)), -np.inf)
    if link.floor is not None and members.vectors is not None:
        cosine, linked = _semantic(members, link, i, j)
        found[linked] = cosine[linked]
    if link.hamming is not None:
        bits = hamming(members.hash[i][:, None], members.hash[j][None]).astype(np.int64)
        linked = members.hashed[i][:, None] & members.hashed[j][None]
        linked &= (bits == _bits(members, j)) if link.greedy else (bits <= link.hamming)
        found[linked] = 4 - bits[linked] / BITS
    if link.exact:
        same = (members.file[i][:, None] == members.file[j][None]) & (members.file[j] > 0)
        found[same & _marked(members, link, j, "exact")] = 6
    return found


def _marked(members: Members, link: Link, j: np.ndarray, kind: str) -> np.ndarray:
    """(len(j),) bool: whether a link of this kind may be the one that made each a duplicate."""
    return (members.kind[j - 1] == KINDS.index(kind)) if link.greedy else np.ones(len(j), bool)


def _bits(members: Members, j: np.ndarray) -> np.ndarray:
    """(len(j),) int64: the bits that are recorded; -1 for duplicates of another kind."""
    recorded = np.nan_to_num(members.recorded[j - 1], nan=2.0)
    return np.where(members.kind[j - 1] == KINDS.index("perceptual"), np.round((1 - recorded) * BITS), -1)


def _semantic(members: Members, link: Link, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(cosines, whether they link), (len(i), len(j)) each; what lies near a decision is decided in float64."""
    assert members.vectors is not None and link.floor is not None
    x, y = members.vectors[i], members.vectors[j]
    cosine = (x @ y.T).astype(np.float64)
    slack = margin(x.shape[1])
    if link.greedy:
        recorded = members.recorded[j - 1].astype(np.float64)
        near = np.abs(cosine - recorded) <= slack + SLIP
        near &= _marked(members, link, j, "semantic")
    else:
        near = np.abs(cosine - link.floor) <= slack
    rows, columns = np.nonzero(near)
    cosine[rows, columns] = dots(x, y, rows, columns)
    if link.greedy:
        return cosine, near & (np.abs(cosine - recorded) <= SLIP)
    return cosine, cosine > link.floor
