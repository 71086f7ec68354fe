"""How often a sample that is kept stands in the subset: a recipe's `repeat`, which upsamples."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl
from pydantic import Field

from .errors import UsageError
from .plugs import Plug, Rule, build_plug
from .rules import build_rule
from .rules.build import rule_name

MOST = 1000  # times; a subset of more copies than that is a slip of the finger


class Repeat(Plug):
    """What `rule` keeps stands `times` times in the subset."""

    times: int = Field(ge=1, le=MOST)
    rule: Rule

    @property
    def path(self) -> str:
        """Without the entry's place: ``fraction``."""
        return rule_name(self.rule)


def build_repeats(node: Any, where: str) -> tuple[Repeat, ...]:
    """The entries ``{times: 3, rule: {...}}`` of a recipe's `repeat`. Raises UsageError."""
    if not isinstance(node, list):
        raise UsageError(f"{where}: a list is wanted here, of entries such as '{{times: 3, rule: {{...}}}}'")
    return tuple(_build(entry, f"{where}[{i}]") for i, entry in enumerate(node))


def _build(entry: Any, where: str) -> Repeat:
    if isinstance(entry, dict) and "rule" in entry:
        entry = {**entry, "rule": build_rule(entry["rule"], f"{where}.rule")}
    return build_plug(Repeat, entry, where)


def needs_to_fit(rule: Rule, repeats: Sequence[Repeat]) -> frozenset[str]:
    """The columns that `rule` and then `repeats` look at to be fitted: those of a `then` of the two."""
    fitted = frozenset().union(*(entry.rule.fit_needs for entry in repeats))
    return rule.fit_needs | (rule.needs | fitted if fitted else fitted)


def fit_repeats(repeats: Sequence[Repeat], kept: pl.DataFrame, pool: int) -> tuple[Repeat, ...]:
    """The entries fitted, each on all that was `kept` of a pool of so many rows."""
    return tuple(entry.model_copy(update={"rule": entry.rule.fit_of(kept, pool)}) for entry in repeats)


def which(repeats: Sequence[Repeat], table: pl.DataFrame) -> np.ndarray:
    """(n,) int16: for each row the first entry whose rule keeps it, -1 for none."""
    found = np.full(table.height, -1, np.int16)
    for number in reversed(range(len(repeats))):
        found[repeats[number].rule.mask(table)] = number
    return found
