"""From rows to what a person is shown of them: plain JSON values, never markup."""

import json
import math
from typing import Any

import numpy as np
from starlette.responses import Response

from mmfilter.decisions import decision_paths, read_decisions
from mmfilter.uids import format_uids

from .columns import CAPTION, HIDDEN
from .pool import Pool, Snapshot

DECIDED = ("uid", "keep", "dropped_by")


class Json(Response):
    """ASCII, with `<`, `>` and `&` escaped as well, so that no caption is markup wherever it lands; NaN as null."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        try:
            text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        except ValueError:
            text = json.dumps(plain(content), separators=(",", ":"), allow_nan=False)
        return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026").encode("ascii")


def plain(value: Any) -> Any:
    """JSON's own types of any value: NaN and Inf as null, arrays as lists, else its text."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, int) and abs(value) > 2**53:
        return str(value)  # a browser would round it
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(inner) for inner in value]
    return str(value)


def hits(snapshot: Snapshot, rows: np.ndarray, similarity: np.ndarray | None = None, verdict: str = "") -> list[Any]:
    """A Hit for each of `rows` (m,), in their order."""
    columns = snapshot.columns
    captions = columns.rows(rows, CAPTION)
    uids = format_uids(columns.uids[rows])
    kept = snapshot.subset(verdict).mask if verdict else snapshot.kept
    scores = {name: _values(columns.numbers(name)[rows]) for name in columns.scores}
    width, height = (
        _values(columns.numbers(name)[rows]) if name in columns.kinds else [None] * len(rows)
        for name in ("original_width", "original_height")
    )
    return [
        {
            "uid": uids[i],
            "similarity": None if similarity is None else float(similarity[i]),
            "text": captions[i]["text"] or "",
            "url": captions[i]["url"] or "",
            "width": width[i],
            "height": height[i],
            "kept": None if kept is None else bool(kept[row]),
            "scores": {name: values[i] for name, values in scores.items()},
        }
        for i, row in enumerate(rows.tolist())
    ]


def _values(values: np.ndarray) -> list[Any]:
    if values.dtype.kind != "f":
        return values.tolist()
    return [value if math.isfinite(value) else None for value in values.tolist()]


def sample(pool: Pool, snapshot: Snapshot, row: int) -> dict[str, Any]:
    """A Hit and all there is to tell of one row: place, columns, and each rule's verdict in the newest subset."""
    columns = snapshot.columns
    stem, place = columns.place(row)
    values = columns.table.read(columns.table.columns, stem).row(place, named=True)
    (hit,) = hits(snapshot, np.array([row]))
    told = {name: plain(value) for name, value in values.items() if name not in {*CAPTION, "uid"}}
    verdicts = _verdicts(pool, snapshot, stem, hit["uid"])
    return {**hit, "key": values.get("key"), "shard": stem, "columns": told, "verdicts": verdicts}


def _verdicts(pool: Pool, snapshot: Snapshot, stem: str, uid: str) -> list[dict[str, Any]]:
    path = decision_paths(pool.out, snapshot.kept_by).get(stem) if snapshot.kept_by else None
    if path is None:
        return []
    decided = read_decisions(path, snapshot.subsets[snapshot.kept_by].record)
    found = decided.filter(decided["uid"] == uid).to_dicts()
    texts = {step["path"]: step.get("text", "") for step in snapshot.subsets[snapshot.kept_by].record["steps"]}
    return [
        {"rule": rule, "keep": bool(keep), "text": texts.get(rule, "")}
        for rule, keep in (found[0] if found else {}).items()
        if rule not in DECIDED
    ]


def column_info(snapshot: Snapshot) -> list[dict[str, Any]]:
    """Name, type and, of numbers, the least and greatest value, of each column worth looking at."""
    told = []
    for name, kind in sorted(snapshot.columns.kinds.items()):
        if kind == "other" or name in HIDDEN | snapshot.columns.hashes:
            continue
        low = high = None
        if kind in ("number", "bool"):
            values = snapshot.columns.numbers(name)
            values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
            if len(values):
                low, high = plain(values.min()), plain(values.max())
        told.append({"name": name, "type": kind, "min": low, "max": high})
    return told
