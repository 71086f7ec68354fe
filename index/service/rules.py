"""Rules that came in a request: which are allowed, and what they keep of the pool."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from mmfilter import storage
from mmfilter.errors import MMFilterError, UsageError
from mmfilter.plugs import Rule
from mmfilter.rules import build_rule, check_columns
from mmfilter.select import steps_of
from mmfilter.subset import later_repeats
from mmfilter.uids import HALVES

from .evaluator import Evaluator
from .pool import Snapshot
from .settings import Refused

DEPTH, RULES = 16, 100  # of a select tree
ALLOWED = {
    "all", "any", "not", "then", "votes", "balanced", "caption", "cluster_quota", "density_based", "ensemble",
    "everything", "fraction", "image", "in_subset", "language", "near_target", "not_duplicate", "prototypes",
    "random", "threshold", "where",
}  # fmt: skip
"""Rules that look at columns alone; another package's might open what a stranger names."""
FUNCTIONS = {
    "abs", "and", "as", "between", "case", "cast", "ceil", "ceiling", "char_length", "coalesce", "else",
    "ends_with", "exp", "floor", "greatest", "ilike", "in", "is", "least", "left", "length", "like", "ln", "log",
    "log10", "log2", "lower", "ltrim", "mod", "not", "nullif", "octet_length", "or", "pow", "power", "regexp_like",
    "right", "round", "rtrim", "sign", "sqrt", "starts_with", "strpos", "substr", "then", "trim", "try_cast",
    "upper", "when",
}  # fmt: skip
"""What may stand before a bracket: nothing whose result can be far longer than its input (LPAD, REPLACE)."""

QUOTED = re.compile(r"""'[^']*'|"[^"]*\"""")  # texts and names; a doubled quote is two beside each other
ODD = re.compile(r"""['"`$\\;{}]|--|/\*|#|\|\||\bselect\b""", re.IGNORECASE)
ESCAPED = re.compile(r"""\\['"]""")  # whether it ends a text depends on who reads it
PLUS = 16  # it joins texts too
evaluator = Evaluator()


def where_mask(sql: str, snapshot: Snapshot) -> np.ndarray:
    """(n,) bool: the rows for which the expression holds. Raises UsageError, Refused."""
    with evaluator.bounded(len(snapshot.columns)):
        return _masked(build_rule({"where": {"sql": _checked_sql(sql)}}, "where"), snapshot, "where")


def fit(tree: Any, snapshot: Snapshot, out: str) -> tuple[list[tuple[str, Rule]], np.ndarray, pl.DataFrame]:
    """The select tree's top rules by path, fitted; (n,) bool of the rows that are their uid's first; the columns."""
    rule = build_rule(_allowed(tree, snapshot, out), "select")
    check_columns(rule, [*snapshot.columns.kinds, *HALVES], "select")
    frame = _guarded(lambda: snapshot.columns.frame(rule.needs | set(HALVES)), "select")
    well = np.ones(len(snapshot.columns), bool)
    well[later_repeats(frame["uid_hi"].to_numpy(), frame["uid_lo"].to_numpy())] = False
    once = frame if well.all() else frame.filter(pl.Series(well))
    return list(steps_of(_guarded(lambda: rule.fit(once), "select"))), well, frame


def preview(tree: Any, snapshot: Snapshot, out: str) -> dict[str, Any]:
    """What `select` would count: in = kept + dropped + failed, and what each step is first to drop."""
    with evaluator.bounded(len(snapshot.columns)):
        return _preview(tree, snapshot, out)


def _preview(tree: Any, snapshot: Snapshot, out: str) -> dict[str, Any]:
    steps, well, frame = fit(tree, snapshot, out)
    told, left = [], well.copy()
    for path, rule in steps:
        mask = _guarded(lambda rule=rule: rule.mask(frame), "select")
        told.append({"path": path, "text": rule.describe(), "dropped": int((left & ~mask).sum())})
        left &= mask
    failed = snapshot.failed + int((~well).sum())
    kept, rows = int(left.sum()), int(well.sum())
    return {"in": rows + failed, "kept": kept, "dropped": rows - kept, "failed": failed, "steps": told}


def kept_rows(tree: Any, snapshot: Snapshot, out: str) -> np.ndarray:
    """(n,) bool: what the select tree keeps."""
    with evaluator.bounded(len(snapshot.columns)):
        steps, left, frame = fit(tree, snapshot, out)
        for _, rule in steps:
            left &= _guarded(lambda rule=rule: rule.mask(frame), "select")
    return left


def _allowed(tree: Any, snapshot: Snapshot, out: str) -> Any:
    """The tree with subsets' names made paths. Raises Refused for a rule that reads what a request names."""
    count = 0

    def check(node: Any, depth: int) -> Any:
        nonlocal count
        count += 1
        if depth > DEPTH or count > RULES:
            raise Refused(400, f"select: at most {RULES} rules, nested {DEPTH} deep")
        name, value = next(iter(node.items())) if isinstance(node, Mapping) and len(node) == 1 else (node, {})
        if isinstance(name, str) and name not in ALLOWED:
            raise Refused(400, f"select: the service has no rule '{name[:100]}'. It has: {', '.join(sorted(ALLOWED))}")
        if name in ("all", "any", "then") and isinstance(value, list):
            return {name: [check(item, depth + 1) for item in value]}
        if name == "not":
            return {name: check(value, depth + 1)}
        if name == "votes" and isinstance(value, dict) and isinstance(value.get("rules"), list):
            return {name: {**value, "rules": [check(item, depth + 1) for item in value["rules"]]}}
        if name == "where" and isinstance(value, dict) and isinstance(value.get("sql"), str):
            _checked_sql(value["sql"])
        if name == "in_subset" and isinstance(value, dict):
            return {name: {**value, "path": _subset_path(str(value.get("path", "")), snapshot, out)}}
        return node

    return check(tree, 0)


def _subset_path(path: str, snapshot: Snapshot, out: str) -> str:
    name = path.removeprefix("subsets/").removesuffix(".npy")
    snapshot.subset(name)
    return storage.join(out, "subsets", f"{name}.npy")


def _checked_sql(sql: str) -> str:
    if len(sql) > 4_000:
        raise Refused(400, "where: an expression of at most 4,000 characters")
    plain = QUOTED.sub("0", sql)
    odd = ODD.search(plain) or ESCAPED.search(sql)
    if odd:
        raise Refused(400, f"where: {odd[0][:20]!r} may not stand here: no comments, queries, joined texts or escapes")
    if plain.count("+") > PLUS:
        raise Refused(400, f"where: at most {PLUS} times '+'")
    for word in re.findall(r'([\w."`]+)\s*\(', plain):
        if word.lower() not in FUNCTIONS:
            raise Refused(400, f"where: '{word[:50]}(' is not known here. Known: {', '.join(sorted(FUNCTIONS))}")
    return sql


def _masked(rule: Rule, snapshot: Snapshot, where: str) -> np.ndarray:
    check_columns(rule, snapshot.columns.kinds, where)
    return _guarded(lambda: rule.mask(snapshot.columns.frame(rule.needs)), where)


def _guarded(call: Any, where: str) -> Any:
    """`call()`; what polars raises or panics with on odd columns becomes a sentence."""
    try:
        return call()
    except (MMFilterError, MemoryError):
        raise
    except Exception as error:
        raise UsageError(f"{where}: does not work on this pool's columns ({str(error).splitlines()[:1]})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise UsageError(f"{where}: polars cannot work this out") from error
