"""Uids that two runs derived alike from different tars name different samples by the same uid: refused where they meet.

A uid made of shard and key is the same in every pool with shards and keys of these names. Runs over the same tars
share their uids rightly; of runs over others only a pool id tells them apart.
"""

import os
from collections.abc import Iterable, Mapping
from itertools import combinations, islice
from typing import Any

from . import storage
from .errors import ConflictError
from .fields import CONTENT
from .run_file import read_run_if_any
from .sidecar import read_commit

SAME_UIDS = (
    "Derived uids hang on shard names, --uids and --pool-id: give the pool, --uids and --pool-id that the subset was "
    "selected with"
)
"""What to do where none of a subset's uids is in a pool."""
COMPARED = 100  # shards of one name whose tars are compared


def run_of(subset: str) -> str:
    """The run's folder of a subset's file (OUT/subsets/NAME.npy)."""
    path = subset if storage.is_remote(subset) else os.path.abspath(subset)
    return os.path.dirname(os.path.dirname(path))


def refuse_derived_alike(outs: Iterable[str]) -> None:
    """Raise ConflictError where two of the run folders derived their uids alike, from tars that differ.

    A folder that is no run, or whose uids are all stated, says nothing.
    """
    runs = {out: derivation for out in dict.fromkeys(outs) if (derivation := _derived(out))}
    for (one, how), (other, how_other) in combinations(runs.items(), 2):
        shard = _other_tar(one, other) if how == how_other else ""
        if shard:
            raise ConflictError(
                f"{one} and {other}: the uids of both are made of shard and key, and shard {shard} is another tar in "
                "each, so that equal uids name different samples. Run one of the pools with --pool-id WORD into "
                "another --out, or with --uids content"
            )


def _derived(out: str) -> tuple[str, str] | None:
    """(how, pool id) of a run that derived uids by key, or None."""
    run = read_run_if_any(out)
    derivation = _mapping(_mapping(run.get("embed")).get("uids"))
    read = _mapping(_mapping(run.get("recipe")).get("read"))
    if not derivation.get("derived") or read.get("uids") == CONTENT:
        return None
    return str(read.get("uids", "key")), str(read.get("pool_id", ""))


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _other_tar(one: str, other: str) -> str:
    """The first shard that both runs have and that is another tar in each; "" where there is none."""
    names = [
        {name for name in storage.names(storage.join(out, "metadata")) if name.endswith(".json")}
        for out in (one, other)
    ]
    for name in islice(sorted(names[0] & names[1]), COMPARED):
        stem = name.removesuffix(".json")
        sizes = [_mapping((read_commit(out, stem) or {}).get("input")).get("bytes") for out in (one, other)]
        if sizes[0] != sizes[1]:
            return stem
    return ""
