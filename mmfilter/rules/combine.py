"""Rules of rules: all, any, not, then, votes."""

from typing import Self

import numpy as np
import polars as pl
from pydantic import Field, model_validator

from ..plugs import Rule


class _Many(Rule):
    rules: tuple[Rule, ...]

    @property
    def children(self) -> tuple[Rule, ...]:
        return self.rules

    @property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(rule.needs for rule in self.rules))

    @property
    def fit_needs(self) -> frozenset[str]:
        return frozenset().union(*(rule.fit_needs for rule in self.rules))

    def _with(self, rules: list[Rule]) -> Self:
        return self.model_copy(update={"rules": tuple(rules)})

    def fit(self, table: pl.DataFrame) -> Self:
        return self.fit_of(table, table.height)

    def fit_of(self, table: pl.DataFrame, pool: int) -> Self:
        return self._with([rule.fit_of(table, pool) for rule in self.rules])


class All(_Many):
    """Keep what every rule keeps; each is fitted on the whole pool. An empty list keeps everything."""

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        keep = np.ones(table.height, bool)
        for rule in self.rules:
            keep &= rule.mask(table)
        return keep

    def describe(self) -> str:
        return " and ".join(f"({rule.describe()})" for rule in self.rules) or "everything"


class Any(_Many):
    """Keep what at least one rule keeps; each is fitted on the whole pool. An empty list keeps nothing."""

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        keep = np.zeros(table.height, bool)
        for rule in self.rules:
            keep |= rule.mask(table)
        return keep

    def describe(self) -> str:
        return " or ".join(f"({rule.describe()})" for rule in self.rules) or "nothing"


class Votes(_Many):
    """Keep what `at_least` so many of the rules keep; each is fitted on the whole pool."""

    at_least: int = Field(ge=1)

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.at_least > len(self.rules):
            raise ValueError(f"{self.at_least} votes out of {len(self.rules)} rules")
        return self

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        votes = np.zeros(table.height, np.int64)
        for rule in self.rules:
            votes += rule.mask(table)
        return votes >= self.at_least

    def describe(self) -> str:
        return f"at least {self.at_least} of: {'; '.join(f'({rule.describe()})' for rule in self.rules)}"


class Then(All):
    """Keep what every rule keeps, where each rule is fitted on what the ones before it kept.

    ``then: [language: {is: en}, fraction: {score: s, keep: 0.3}]`` is 30 % of the English, and with ``of: pool`` in
    the fraction as many English as 30 % of the pool are.
    """

    @property
    def _last_fitted(self) -> int:
        """Position of the last rule that looks at the pool; what comes after it needs no table."""
        return max((i for i, rule in enumerate(self.rules) if rule.fit_needs), default=-1)

    @property
    def fit_needs(self) -> frozenset[str]:
        last = self._last_fitted
        before = frozenset().union(*(rule.needs for rule in self.rules[:last])) if last > 0 else frozenset()
        return before | (self.rules[last].fit_needs if last >= 0 else frozenset())

    def fit_of(self, table: pl.DataFrame, pool: int) -> Self:
        fitted: list[Rule] = []
        for i, rule in enumerate(self.rules):
            fitted.append(rule.fit_of(table, pool))
            if i < self._last_fitted:
                table = table.filter(pl.Series(fitted[-1].mask(table), dtype=pl.Boolean))
        return self._with(fitted)

    def describe(self) -> str:
        return ", then ".join(f"({rule.describe()})" for rule in self.rules) or "everything"


class Not(Rule):
    """Keep what the rule drops. A sample without a value (null, NaN) is dropped by a rule, so `not` keeps it."""

    rule: Rule

    @property
    def children(self) -> tuple[Rule, ...]:
        return (self.rule,)

    @property
    def needs(self) -> frozenset[str]:
        return self.rule.needs

    @property
    def fit_needs(self) -> frozenset[str]:
        return self.rule.fit_needs

    def fit(self, table: pl.DataFrame) -> Self:
        return self.fit_of(table, table.height)

    def fit_of(self, table: pl.DataFrame, pool: int) -> Self:
        return self.model_copy(update={"rule": self.rule.fit_of(table, pool)})

    def mask(self, table: pl.DataFrame) -> np.ndarray:
        return ~self.rule.mask(table)

    def describe(self) -> str:
        return f"not ({self.rule.describe()})"
