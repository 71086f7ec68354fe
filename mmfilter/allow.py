"""What a verb goes on without when it is told to, and the sentences that its result says so with."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from .run_pool import listed


class Allow(NamedTuple):
    """`missing`: shards of the run that lack a file, and columns that some shard lacks; `stale`: columns that were
    computed from other content than the pool holds now. Both are errors by default.
    """

    missing: bool = False
    stale: bool = False


ALL = Allow(True, True)
"""For what shows whatever there is, and says what is missing or stale."""


def gaps(missing: Iterable[str], partial: Mapping[str, Collection[str]], stale: Mapping[str, str]) -> dict[str, Any]:
    """What a result was made without, as plain values; {} where nothing is missing or stale.

    `missing` are shards; `partial` maps a column that was left out to the shards that lack it; `stale` maps a column
    that was read to a sentence.
    """
    found = {
        "missing": sorted(missing),
        "left_out_columns": {column: sorted(stems) for column, stems in sorted(partial.items())},
        "stale": dict(sorted(stale.items())),
    }
    return {name: value for name, value in found.items() if value}


def sentences(found: Mapping[str, Any]) -> list[str]:
    """`gaps` for a person, a sentence each."""
    said = []
    if missing := found.get("missing"):
        said.append(f"Without {listed(missing)} of the run, which {_lack(missing)} files.")
    for columns, stems in by_shards(found.get("left_out_columns") or {}):
        said.append(f"Without {columns}, which {listed(stems)} {_lack(stems)}.")
    for sentence in dict.fromkeys((found.get("stale") or {}).values()):
        said.append(f"Stale: {sentence}.")
    return said


def by_shards(partial: Mapping[str, Collection[str]]) -> list[tuple[str, list[str]]]:
    """(`column a` or `columns a, b`, the shards that lack them), columns of the same shards together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for column, stems in sorted(partial.items()):
        groups.setdefault(tuple(sorted(stems)), []).append(column)
    return [(f"column{'s' * (len(names) > 1)} {', '.join(names)}", [*stems]) for stems, names in groups.items()]


def _lack(stems: Collection[str]) -> str:
    return "lacks" if len(stems) == 1 else "lack"


def merge(*several: Mapping[str, Any]) -> dict[str, Any]:
    """The gaps of several readers of one pool together."""
    return gaps(
        {stem for found in several for stem in found.get("missing") or ()},
        {c: stems for found in several for c, stems in (found.get("left_out_columns") or {}).items()},
        {c: sentence for found in several for c, sentence in (found.get("stale") or {}).items()},
    )
