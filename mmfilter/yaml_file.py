"""YAML that a person, or a stranger, wrote: recipes, cards, a cluster's environment. Plain values of a bounded size."""

import itertools
import math
from typing import Any

import yaml

from .errors import UsageError

MAX_CHARS, MAX_VALUES, MAX_DEPTH, MAX_INT = 4 << 20, 100_000, 64, 2**63
"""A longest packaged recipe has 4,000 characters, 200 values, 9 levels."""


class _Loader(yaml.SafeLoader):
    """SafeLoader, which would copy what `<<: [*a, *a]` repeats without end."""

    merged = 0

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        self.merged += len(node.value)
        if self.merged > MAX_VALUES:
            raise yaml.constructor.ConstructorError(None, None, "its '<<' repeat too many values", node.start_mark)


def parse_yaml(text: str, where: str) -> Any:
    """The values of a YAML text: mappings with keys of text, lists, text, numbers, true, false, null.

    What an alias stands for counts each time. Raises UsageError that begins with `where`.
    """
    if len(text) > MAX_CHARS:
        raise UsageError(f"{where}: has more than {MAX_CHARS:,} characters")
    try:
        _check_depth(text, where)
        value = yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML ({_problem(error)})") from error
    except (ValueError, OverflowError) as error:  # of dates and numbers that are none
        raise UsageError(f"{where}: holds a date or a number that cannot be read ({error})") from error
    except (RecursionError, MemoryError) as error:
        raise UsageError(f"{where}: is nested too deeply") from error
    return _plain(value, where, "", itertools.count(1), 0)


def _check_depth(text: str, where: str) -> None:
    """Raise UsageError for a text that nests too deeply, before values are made of it."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UsageError(f"{where}: is nested more than {MAX_DEPTH} deep")


def _plain(value: Any, where: str, at: str, count: "itertools.count[int]", depth: int) -> Any:
    """A copy without aliases. Raises UsageError for values that JSON does not have."""
    if depth > MAX_DEPTH:
        raise UsageError(f"{where}: {at[:100]}...: is nested too deeply, or in itself")
    if next(count) > MAX_VALUES:
        raise UsageError(f"{where}: has more than {MAX_VALUES:,} values, those that aliases repeat included")
    if isinstance(value, dict):
        keys = {key: _key(key, where, at) for key in value}
        return {
            keys[key]: _plain(inner, where, f"{at}.{keys[key]}".lstrip("."), count, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list):
        return [_plain(inner, where, f"{at}[{i}]", count, depth + 1) for i, inner in enumerate(value)]
    return _scalar(value, where, at)


def _key(key: Any, where: str, at: str) -> str:
    if isinstance(key, bool) or not isinstance(key, (str, int, float)):
        shown = str(key).lower() if isinstance(key, bool) else f"a {type(key).__name__}"
        raise UsageError(f"{where}: {at or 'it'} has the key {shown}, which is no text; write it in quotes")
    return str(_scalar(key, where, at))


def _scalar(value: Any, where: str, at: str) -> Any:
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            raise UsageError(f"{where}: {at}: holds a character that is none (NUL, or half of a surrogate pair)")
        return value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= MAX_INT:
        raise UsageError(f"{where}: {at}: a number of {value.bit_length():,} bits is too large")
    if value is None or isinstance(value, (bool, int)) or (isinstance(value, float) and not math.isnan(value)):
        return value
    kind = {bytes: "binary data", tuple: "a pair", float: "no number"}.get(type(value), f"a {type(value).__name__}")
    raise UsageError(f"{where}: {at}: is {kind}, not text or a number; write it in quotes")


def _problem(error: yaml.YAMLError) -> str:
    """What is wrong, and the line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    where = f" in line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return f"{problem or ' '.join(str(error).split())}{where}"
