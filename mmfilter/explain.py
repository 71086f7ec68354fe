"""Why one sample was kept or dropped: every rule's verdict on it, with the values it looked at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from . import storage
from .allow import Allow, merge, sentences
from .decisions import (
    check_decisions,
    decision_paths,
    failure_paths,
    read_decisions,
    read_parquet,
    read_record,
    read_subset,
    resolve_name,
)
from .errors import MMFilterError, UsageError
from .likeness import Likeness, read_likeness
from .rules import build_rule, walk
from .run_pool import left_out, listed
from .subset_record import changes_since, gaps_of
from .table import Table, open_table
from .text import cut
from .uids import HALVES, parse_uids

DECIDED = ("uid", "keep", "dropped_by")
BESIDE = {"overlap_of": ("overlap_kind", "overlap_similarity")}  # how it is what the column names


@dataclass(frozen=True)
class Verdict:
    """One rule on the sample; `values` are the columns it looks at."""

    path: str
    rule: str
    keep: bool
    values: dict[str, Any]


@dataclass(frozen=True)
class Explanation:
    """What became of a uid. `status` is "kept", "dropped" or "failed".

    `places` are shard/key of every sample with this uid; the rest is about the first. `dropped_by`
    is the path of the first rule that dropped it; `times` is how often it stands in the subset. A failed
    sample has `failure`, its reason, and `error`, and no verdicts. `notes` say what was missing, and what
    is stale or was replaced since: such values are not those that were judged. `likeness` is what a duplicate is to the
    sample that is kept for it.
    """

    uid: str
    name: str
    status: str
    places: tuple[str, ...]
    text: str = ""
    url: str = ""
    dropped_by: str = ""
    verdicts: tuple[Verdict, ...] = ()
    failure: str = ""
    error: str = ""
    times: int = 0
    notes: tuple[str, ...] = ()
    likeness: Likeness = Likeness()

    def lines(self) -> list[str]:
        """As the command line prints it."""
        found = [f"{self.uid}: {self.status}" + (f" by {self.dropped_by}" if self.dropped_by else "")]
        found[0] += f", {self.times} times" if self.times > 1 else ""
        found.append(f"  subset  {self.name}")
        found.append(f"  sample  {cut(self.places[0])}")
        if len(self.places) > 1:
            found.append(f"  also    {', '.join(map(cut, self.places[1:]))}")
        if self.text:
            found.append(f"  text    {cut(self.text)}")
        if self.url:
            found.append(f"  url     {cut(self.url)}")
        if self.failure:
            found.append(f"  failed  {self.failure}: {cut(self.error)}")
        width = max((len(verdict.path) for verdict in self.verdicts), default=0)
        for verdict in self.verdicts:
            values = ", ".join(f"{name} = {_value(value)}" for name, value in verdict.values.items() if name != "text")
            told = f"  {'keep' if verdict.keep else 'drop'}    {verdict.path:<{width}}  {verdict.rule}"
            found.append(f"{told}  [{values}]" if values else told)
        found += [f"  alike   {line}" for line in self.likeness.lines()]
        found += [f"  note    {note}" for note in self.notes]
        if self.notes:
            found.append(f"  note    The verdicts may be older than these values. Select {self.name} again.")
        return found


def explain(out: str, uid: str, name: str = "", metadata: str = "", allow: Allow = Allow()) -> Explanation:
    """Every rule's verdict of subset `name` in `out` on the sample `uid` (32 hex, in any case).

    An empty `name` is the only subset there is; `metadata` is where the score table is when it is
    not in `out`; with `allow.missing` shards that lack a file are left out. A stale column is a note. Raises UsageError
    on a uid or subset that is not there.
    """
    uid = uid.strip().lower()
    name = resolve_name(out, name)
    record = read_record(out, name)
    check_decisions(out, name, record)
    decided = list(_find(decision_paths(out, name), uid, partial(read_decisions, record=record)))
    failed = list(_find(failure_paths(out), uid, read_parquet))
    if decided:
        table = open_table(out, metadata or None, allow.missing, allow_stale=True).whole()
        return _judged(out, uid, (name, record), decided, failed, table)
    if failed:
        row = failed[0][1]
        return Explanation(
            uid, name, "failed", _places(failed), failure=str(row["status"] or ""), error=str(row["error"] or "")
        )
    folder = storage.join(out, "subsets", name)
    others = left_out(out)
    not_searched = f", but not {listed(others)} in OUT, not of the run's pool" if others else ""
    raise UsageError(
        f"uid {uid} is in no shard: searched {len(decision_paths(out, name))} shards' decisions in {folder} and the "
        f"failures of {len(failure_paths(out))} shards beside them{not_searched}. Check --out, and that the uid "
        "is 32 hex digits"
    )


def _find(paths: dict[str, str], uid: str, read: Callable[..., pl.DataFrame]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(shard, row) of each row with this uid. The uids are read first, the row only where it is."""
    for stem, path in paths.items():
        if (read(path, columns=["uid"], texts=["uid"])["uid"] == uid).any():
            for row in read(path).filter(pl.col("uid") == uid).to_dicts():
                yield stem, row


def _judged(
    out: str,
    uid: str,
    of: tuple[str, dict[str, Any]],
    decided: list[tuple[str, dict[str, Any]]],
    failed: list[Any],
    table: Table,
) -> Explanation:
    stem, row = decided[0]
    name, record = of
    rules = _rules(record)
    wanted = [column for _, columns in rules.values() for column in _with_beside(columns)]
    here = [c for c in dict.fromkeys(["key", "text", "url", *wanted]) if c in table.columns]
    found = table.read(["uid", *here], stem).filter(pl.col("uid") == uid).to_dicts()
    values: dict[str, Any] = found[0] if found else {}
    verdicts = tuple(
        Verdict(
            path,
            rules.get(path, (path, ()))[0],
            bool(keep),
            {column: values[column] for column in _with_beside(rules.get(path, ("", ()))[1]) if column in values},
        )
        for path, keep in row.items()
        if path not in DECIDED
    )
    places = [_at(stem, row) for row in found] or [stem]
    places += [_place(table, other, uid) for other in dict.fromkeys(s for s, _ in decided) if other != stem]
    text, url = str(values.get("text") or ""), str(values.get("url") or "")
    status = "kept" if row["keep"] else "dropped"
    every = (*places, *(f"{place} (failed)" for place in _places(failed)))
    times = int(bool(row["keep"]))
    if record.get("copies"):
        times = int(read_subset(out, name, record)[0].counts(parse_uids([uid]))[0])
    return Explanation(
        uid, name, status, every, text, url, str(row["dropped_by"] or ""), verdicts, times=times,
        notes=(*changes_since(table, record), *sentences(merge(gaps_of(record), table.gaps()))),
        likeness=read_likeness(out, uid, table.metadata, table.allow),
    )  # fmt: skip


def _with_beside(columns: tuple[str, ...]) -> list[str]:
    return list(dict.fromkeys(name for column in columns for name in (column, *BESIDE.get(column, ()))))


def _rules(record: dict[str, Any]) -> dict[str, tuple[str, tuple[str, ...]]]:
    """path -> (the rule in a line, the columns it looks at), of every leaf.

    The record knows the steps, with what was fitted; rules inside an `any` or a `not` are built anew.
    """
    rules = {step["path"]: (str(step["text"]), tuple(step.get("columns") or ())) for step in record["steps"]}
    try:
        leaves = list(walk(build_rule(record["rule"], "select"))) if record.get("rule") else []
    except MMFilterError:  # of a package that is not installed here
        leaves = []
    for path, leaf in leaves:
        rules.setdefault(path, (leaf.describe(), tuple(sorted(leaf.needs - set(HALVES)))))
    return rules


def _place(table: Table, stem: str, uid: str) -> str:
    if "key" not in table.columns:
        return stem
    rows = table.read(["uid", "key"], stem).filter(pl.col("uid") == uid)
    return ", ".join(f"{stem}/{key}" for key in rows["key"].to_list())


def _places(rows: list[tuple[str, dict[str, Any]]]) -> tuple[str, ...]:
    return tuple(_at(stem, row) for stem, row in rows)


def _at(stem: str, row: dict[str, Any]) -> str:
    """shard/key; the shard alone where no key is known (DataComp's metadata has none)."""
    return f"{stem}/{row['key']}" if row.get("key") else stem


def _value(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return cut(value) if isinstance(value, str) else str(value)
