"""Groups of duplicates: the sample that is kept, and beside it the others, each measured against it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfilter.errors import MMFilterError

from ..duplicates import KINDS
from ..evidence import Evidence
from .hits import hits
from .pool import Snapshot

SHOWN = 50  # duplicates of a group in one answer


@dataclass(frozen=True)
class GroupRequest:
    """`limit` groups from `offset`, or that of the kept `row`; of each `SHOWN` duplicates from `start`."""

    offset: int
    limit: int
    order: str
    kind: str
    row: int | None
    start: int


def groups(now: Snapshot, asked: GroupRequest) -> dict[str, Any]:
    """The answer of /api/duplicates. `kinds` counts groups and duplicates of each kind in the whole pool."""
    evidence = now.evidence
    if evidence is None:
        return {"groups": [], "total": 0}
    order = evidence.order(asked.order, asked.kind)
    picked = np.arange(len(order.groups))[asked.offset : asked.offset + asked.limit]
    if asked.row is not None:
        picked = np.flatnonzero(order.groups == evidence.group_of(asked.row))
    places = [order.places[order.low[i] + asked.start : order.high[i]][:SHOWN] for i in picked.tolist()]
    told = iter(evidence.tell(np.concatenate([np.empty(0, np.int64), *places]).astype(np.int64)))
    found = []
    for i, part in zip(picked.tolist(), places, strict=True):
        kept, *others = hits(
            now, np.concatenate([evidence.kept[order.places[order.low[i], None]], evidence.rows[part]])
        )
        for hit, duplicate in zip(others, told, strict=False):
            hit["scores"].pop("duplicate_similarity", None)  # that to another sample of the group, maybe
            hit |= {"similarity": duplicate["similarity"], "duplicate": duplicate}
        found.append({"kept": kept, "duplicates": others, "size": int(order.high[i] - order.low[i])})
    kinds = {kind: _counted(evidence, kind) for kind in KINDS}
    return {"groups": found, "total": len(order.groups), "kinds": kinds, "alike": _alike(evidence)}


def _counted(evidence: Evidence, kind: str) -> dict[str, int]:
    order = evidence.order("size", kind)
    return {"groups": len(order.groups), "duplicates": len(order.places)}


def _alike(evidence: Evidence) -> dict[str, Any]:
    """From where on two samples count as duplicates: `bits` or fewer, a cosine above `cosine`; None where unknown."""
    score = evidence.score
    cosine = round(1 - score.eps, 6) if score and score.model else None
    return {"bits": score.hamming if score else None, "cosine": cosine, "mode": score.mode if score else None}


def of_sample(now: Snapshot, row: int) -> dict[str, Any]:
    """`duplicate`: how the sample stands to the one that is kept for it; `stands_for`: how many it is kept for.

    `duplicate_error` says why that is not known: damaged embeddings cost no sample its answer.
    """
    try:
        if (evidence := now.evidence) is None:
            return {}
        place, group = evidence.place_of(row), evidence.group_of(row)
        told = evidence.tell(np.array([place]))[0] if place >= 0 else None
    except MMFilterError as error:
        return {"duplicate": None, "stands_for": 0, "duplicate_error": str(error)}
    return {"duplicate": told, "stands_for": int(evidence.sizes[group]) if group >= 0 else 0}
