"""Duplicates beside the samples that are kept for them: the most doubtful of each kind, and all groups as a list."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import UsageError
from ..likeness import chain, evidence, number
from ..uids import format_uids
from .pool import Pool
from .sheet import Sheet

KINDS = ("semantic", "perceptual", "exact")  # as index.evidence orders doubt
LISTED = 1000  # groups of the list


@dataclass(frozen=True)
class Pair:
    """Positions of a duplicate and of the sample kept for it, and what the two are to each other. `chain` says how it
    joined, over `between` others, where the two are not alike by themselves; else it is empty."""

    kept: int
    duplicate: int
    number: str
    chain: str
    between: int


@dataclass(frozen=True)
class Kind:
    """Duplicates of one kind in how many groups; of them `apart` are not alike by themselves, joined by a chain;
    `worst` is the number of the most doubtful. `pairs`: the most doubtful of each group."""

    name: str
    duplicates: int
    groups: int
    apart: int
    worst: str
    pairs: list[Pair]


@dataclass(frozen=True)
class Group:
    """A kept sample, how many are dropped for it, and the number of the most doubtful of them."""

    kept: str
    duplicates: int
    kind: str
    number: str


@dataclass(frozen=True)
class Duplicates:
    """What the report shows of a pool's duplicates; `error`: why they cannot be shown."""

    kinds: list[Kind] = field(default_factory=list)
    groups: list[Group] = field(default_factory=list)
    total: int = 0
    error: str = ""

    @property
    def sheets(self) -> list[Sheet]:
        """The pictures that are needed."""
        positions = [at for kind in self.kinds for pair in kind.pairs for at in (pair.kept, pair.duplicate)]
        return [Sheet("", True, np.array(positions, np.int64))] if positions else []


def duplicates(pool: Pool, n: int) -> Duplicates | None:
    """n pairs of each kind, the most doubtful of their groups; None where no duplicates were looked for."""
    try:
        known = evidence(pool.out, pool.table.metadata, pool.table.allow)
        if known is None or not len(known):
            return None
        kinds = [kind for name in KINDS if (kind := _kind(known, name, n))]
        order = known.order("doubt")
        return Duplicates(kinds, _groups(known, order), len(order.groups))
    except UsageError as error:  # damaged files are no finding of a page: they end the report
        return Duplicates(error=str(error))


def _kind(known: Any, name: str, n: int) -> Kind | None:
    order = known.order("doubt", name)
    if not len(order.groups):
        return None
    places = order.places[order.low[:n]]
    told = known.tell(places)
    pairs = [
        Pair(
            int(known.kept[at]),
            int(known.rows[at]),
            number(one),
            chain(one) if one["direct"] is False else "",
            len(one["chain"] or [0]) - 1,
        )
        for at, one in zip(places.tolist(), told, strict=True)
    ]
    apart = int((known.direct[order.places] == 0).sum())
    return Kind(name, len(order.places), len(order.groups), apart, pairs[0].number, pairs)


def _groups(known: Any, order: Any) -> list[Group]:
    low, high = order.low[:LISTED], order.high[:LISTED]
    told = known.tell(order.places[low], chains=False)
    uids = format_uids(known.pool.uids[known.kept[order.places[low]]])
    sizes = (high - low).tolist()
    return [Group(uid, size, one["kind"], number(one)) for uid, size, one in zip(uids, sizes, told, strict=True)]
