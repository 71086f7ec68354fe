"""How much of the exact answer an index finds, and the least work that finds enough."""

from dataclasses import dataclass
from typing import Any

import numpy as np

K = 10
QUERIES = 256  # of each modality
RERANK = (10, 20, 40, 80)  # candidates for each neighbour asked for
FLAT = 0.002  # recall; more lists that add no more than this will not help


@dataclass(frozen=True)
class Truth:
    """Queries float32 (q, d), their exact neighbours (q, TOP) in the pool, and each one's own position or -1."""

    queries: np.ndarray
    positions: np.ndarray
    own: np.ndarray

    def recall(self, found: np.ndarray) -> float:
        """Mean share of the K nearest that stand in `found` (q, K + 1), a query's own row left aside."""
        shares = []
        for own, exact, here in zip(self.own, self.positions, found, strict=True):
            wanted = [p for p in exact.tolist() if p not in (own, -1)][:K]
            got = [p for p in here.tolist() if p not in (own, -1)][:K]
            shares.append(len(set(wanted) & set(got)) / len(wanted) if wanted else 1.0)
        return float(np.mean(shares)) if shares else 1.0


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
            found = index.search(truth.queries, K + 1)[0]
            own, across = (_part(truth, found, side) for side in (truth.own >= 0, truth.own < 0))
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


def _part(truth: Truth, found: np.ndarray, side: np.ndarray) -> float | None:
    """Recall of the queries in the mask `side`; None where there are none."""
    if not side.any():
        return None
    return Truth(truth.queries[side], truth.positions[side], truth.own[side]).recall(found[side])
