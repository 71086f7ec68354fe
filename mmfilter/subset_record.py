"""subsets/NAME.json: what a subset was selected by and from, and whether its columns are still those."""

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from . import storage
from .commit_file import optional_commit
from .dates import now
from .earlier_subset import remove_stale
from .errors import DataError
from .json_file import COUNT, FORMAT, encode, optional_object
from .plug_names import renamed
from .scores import SCORES
from .sources import pool_content, read_part
from .table import Table

CURE = "run `mmfilter select` again"
STEP = {
    "path": str,
    "rule?": str,
    "text?": str,
    "in?": COUNT,
    "dropped?": COUNT,
    "alone?": COUNT,
    "columns?": [str],
    "thresholds?": {str: [float]},
}
SHAPE = {
    "name?": str,
    "counts": {"in": COUNT, "kept": COUNT, "dropped": COUNT, "failed": COUNT},
    "failed?": {str: COUNT},
    "steps": [STEP],
    "copies?": COUNT,
    "repeat?": [{"path": str, "text": str, "times": COUNT, "samples": COUNT}],
    "selected?": str,
    "seconds?": float,
    "recipe?": dict,
    "columns?": dict,
    "versions?": dict,
    "files?": dict,
}
PASSING = ("format", "seconds", "selected")  # what differs between two selections that are the same


def write_record(path: str, record: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Write the record with its date. One that says the same as the one `before` keeps its date."""
    record = {"format": FORMAT, **json.loads(json.dumps(record, default=str))}
    same = same_selection(before, record)
    record["selected"] = before.get("selected", "") if same and before.get("selected") else now()
    storage.write_atomic(path, encode(record))


def record_path(out: str, name: str) -> str:
    return storage.join(out, "subsets", f"{name}.json")


def earlier_record(path: str) -> dict[str, Any]:
    """The record that a new one is about to replace; empty where there is none, or it is damaged."""
    try:
        return optional_object(path, CURE, SHAPE) or {}
    except DataError:
        return {}


def withdraw(out: str, name: str, stems: Collection[str]) -> dict[str, Any]:
    """Take away the record of an earlier selection, before any file that it tells of is replaced; returns it.

    Killed from here on there is no record until everything that it tells of is there. What the selection does not
    write goes too: decisions on shards other than `stems`, the card.
    """
    path = storage.join(out, "subsets", f"{name}.json")
    before = earlier_record(path)
    storage.remove(path)
    remove_stale(out, name, stems)
    return before


def same_selection(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two records differ in nothing but when and how fast they were written.

    One of an earlier version does not say what the subset's file was, and is taken at the rest of its word.
    """
    passing = PASSING if "files" in one and "files" in other else (*PASSING, "files")
    return _lasting(one, passing) == _lasting(other, passing)


def _lasting(record: Mapping[str, Any], passing: Iterable[str]) -> dict[str, Any]:
    return {key: value for key, value in record.items() if key not in passing}


def column_origins(table: Table, columns: Iterable[str]) -> dict[str, Any]:
    """Column -> the part that made it (plug, fields, ...), as the pool's first shard records it.

    A verb that replaces a column replaces it in every shard, so one shard tells; of a column whose origin is
    recorded nowhere, such as one of DataComp's metadata, nothing is said.
    """
    matches: dict[str, Any] = {}
    if not table.stems:
        return matches
    stem = table.stems[0]
    parts = (optional_commit(storage.join(table.metadata, f"{stem}.json")) or {}).get("parts")
    for column in sorted(set(columns) & set(table.columns)):
        if table.columns[column] == "metadata":
            part = parts.get(f"score:{column}") if isinstance(parts, dict) else None
        else:
            part = read_part(table.path(column, stem))
        if part is not None:
            matches[column] = renamed(part, SCORES)
    return matches


def selected_from(table: Table, columns: Iterable[str]) -> dict[str, Any]:
    """What a record says of the pool: a digest of its content in these columns, and what it was read without."""
    needs = sorted(set(columns) & set(table.columns))
    return {"content": {"pool": pool_content(table, table.stems, needs), "needs": needs}, **table.gaps()}


def gaps_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the subset was selected without."""
    return {key: record[key] for key in ("missing", "left_out_columns", "stale") if record.get(key)}


def changes_since(table: Table, record: Mapping[str, Any]) -> list[str]:
    """Sentences on what is another in the pool than when the subset was selected; none of a record of format 1."""
    was = record.get("content")
    if replaced := replaced_columns(table, record):
        return replaced
    if not isinstance(was, dict) or not isinstance(was.get("needs"), list):
        return []
    needs = [str(need) for need in was["needs"]]
    if pool_content(table, table.stems, needs) == was.get("pool"):
        return []
    return ["The pool is another than when it was selected: shards were added, removed or done again since."]


def replaced_columns(table: Table, record: Mapping[str, Any]) -> list[str]:
    """A sentence for each column that was replaced after the subset was selected.

    A record without `columns`, of an earlier version, says nothing.
    """
    was = record.get("columns")
    if not isinstance(was, dict):
        return []
    now_made = column_origins(table, was)
    matches = []
    for column, part in sorted(was.items()):
        if column not in now_made:
            matches.append(f"Column {column}, which its rules read, is no longer there.")
        elif now_made[column] != (part := renamed(part, SCORES)):
            matches.append(f"Column {column}, which its rules read, was replaced{_difference(part, now_made[column])}.")
    return matches


def _difference(was: Any, provenance: Any) -> str:
    """Which fields differ; empty where it was computed again over a pool that has changed."""
    if not (isinstance(was, dict) and isinstance(provenance, dict)):
        return ""
    old, new = was.get("fields") or {}, provenance.get("fields") or {}
    names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
    changes = [f"{name} was {json.dumps(old.get(name))} and is {json.dumps(new.get(name))}" for name in names]
    return f" ({'; '.join(changes)})" if changes else ""
