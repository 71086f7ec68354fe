"""Names of plugs (scores, rules, tasks) and where their code is; nothing is imported until it is named."""

import importlib
import sys
from collections.abc import Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import UsageError, nearest


@cache
def _entries(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Other packages' entry points. Reading every installed package's takes 20 ms, so once for a `sys.path`."""
    return tuple(entry_points(group=group))


class Registry:
    """A name -> class table: a room's own table plus other packages' entry points.

    `kind` is "scores", "rules", "recipes" or "tasks"; other packages register under the entry-point group
    ``mmfilter.<kind>`` with the same ``"module:Class"`` string. A name taken twice is an error.
    """

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._own = dict(table)

    def table(self) -> dict[str, str]:
        """Every known name with its "module:Class". Raises UsageError on a name taken twice."""
        table = dict(self._own)
        for entry in _entries(f"mmfilter.{self.kind}", tuple(sys.path)):
            if entry.name in table and table[entry.name] != entry.value:
                raise UsageError(
                    f"{self.kind}: the name '{entry.name}' is taken twice, by {table[entry.name]} and {entry.value}; "
                    "uninstall one of the two packages"
                )
            table[entry.name] = entry.value
        return table

    def get(self, name: str, where: str = "") -> type[Any]:
        """The class registered as `name`. `where` leads the error message (a place in a recipe)."""
        table = self.table()
        if name not in table:
            place = f"{where}: " if where else ""
            hint = nearest(name, table)
            raise UsageError(f"{place}no {self.kind[:-1]} is called '{name}'{hint} Known: {', '.join(sorted(table))}")
        module, _, attribute = table[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def name_of(self, kind: type[Any]) -> str:
        """The name that a class is registered under; "module:Class" where it is under none."""
        for name, value in self.table().items():
            module, _, attribute = value.partition(":")
            if getattr(sys.modules.get(module), attribute, None) is kind:
                return name
        return f"{kind.__module__}:{kind.__qualname__}"
