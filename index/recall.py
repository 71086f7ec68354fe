"""How much of the exact answer an index finds, and the least work that finds enough."""

from dataclasses import dataclass
from typing import Any

import numpy as np

K = 10
QUERIES = 256  # of each modality
RERANK = (10, 20, 40, 80)  # candidates for each neighbour asked for
TIE = 1e-6  # of similarity: float32's last digits
FLAT = 0.002  # recall; more lists that add no more than this will not help


@dataclass(frozen=True)
class Truth:
    """Queries float32 (q, d), their exact neighbours in the pool (both (q, TOP)), and each one's own position or -1."""

    queries: np.ndarray
    positions: np.ndarray
    similarity: np.ndarray
    own: np.ndarray

    def shares(self, positions: np.ndarray, similarity: np.ndarray) -> np.ndarray:
        """float64 (q,): the share of the K nearest that was found, ties counting, a query's own row left aside."""
        exact = _without(self.own, self.positions, self.similarity)
        found = _without(self.own, positions, similarity)
        wanted = np.isfinite(exact)
        edge = np.where(wanted, exact, np.inf).min(axis=1, keepdims=True)
        return (np.isfinite(found) & (found >= edge - TIE)).sum(axis=1) / np.maximum(wanted.sum(axis=1), 1)


def _without(own: np.ndarray, positions: np.ndarray, similarity: np.ndarray) -> np.ndarray:
    """(q, K): the best similarities, descending, without the query's own row; -inf past the end."""
    rest = np.where((positions == own[:, None]) | (positions < 0), -np.inf, similarity)
    return -np.sort(-rest, axis=1)[:, :K]


def ladder(lists: int) -> list[int]:
    """Numbers of lists to try, each about 1.4 times the one before, up to all."""
    steps = {min(lists, round(2 ** (i / 2))) for i in range(2 * lists.bit_length() + 1)}
    return sorted(steps | {lists})


def tune(index: Any, truth: Truth, lossy: bool, target: float) -> dict[str, Any]:
    """The fewest lists and candidates with which recall@K reaches `target` for queries of both kinds.

    Returns nprobe, rerank, recall ({k, queries, own, across, candidates}) and `met`: whether it was reached.
    """
    best: dict[str, Any] = {}
    for rerank in RERANK if lossy else (1,):
        before = -1.0
        for nprobe in ladder(index.info["lists"]):
            index.info |= {"nprobe": nprobe, "rerank": rerank}
            shares = truth.shares(*index.search(truth.queries, K + 1))
            own, across = (
                float(shares[side].mean()) if side.any() else None for side in (truth.own >= 0, truth.own < 0)
            )
            low = min(value for value in (own, across) if value is not None)
            if not best or low > best["low"]:
                best = {"low": low, "nprobe": nprobe, "rerank": rerank, "own": own, "across": across}
            if low >= target or (low - before < FLAT and nprobe > 8):
                break
            before = low
        if best["low"] >= target:
            break
    sides = ("image", "text") if index.modality == "image" else ("text", "image")
    measured = {
        side: None if v is None else round(v, 4) for side, v in zip(sides, (best["own"], best["across"]), strict=True)
    }
    return {
        "nprobe": best["nprobe"],
        "rerank": best["rerank"],
        "recall": {"k": K, "queries": int((truth.own >= 0).sum()), **measured},
        "met": bool(best["low"] >= target),
    }
