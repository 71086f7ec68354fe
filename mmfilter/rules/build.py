"""From a recipe's mappings to rules, with errors that name the place and the nearest word."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import UsageError, nearest
from ..plugs import Rule

M = TypeVar("M", bound=BaseModel)
LISTS = ("all", "any", "then")


def build_plug(kind: type[M], value: Any, where: str) -> M:
    """`kind(**value)`; pydantic's errors become one sentence. Raises UsageError."""
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise UsageError(f"{where}: a mapping of fields is wanted here, not {value!r}")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join([where, *(str(part) for part in first["loc"])])
        fields = [f.alias or name for name, f in kind.model_fields.items()]
        if first["type"] == "extra_forbidden":
            field = str(first["loc"][-1])
            raise UsageError(f"{place}: unknown field{nearest(field, fields)} Fields: {', '.join(fields) or 'none'}") from None
        given = "" if first["type"] == "missing" else f" (it is {first['input']!r})"
        raise UsageError(f"{place}: {first['msg'].removeprefix('Value error, ')}{given}") from None


def one_key(node: Any, where: str) -> tuple[str, Any]:
    """(name, value) of a one-key mapping, or of a bare word. Raises UsageError."""
    if isinstance(node, str):
        return node, {}
    if isinstance(node, dict) and len(node) == 1:
        return next(iter(node.items()))
    if isinstance(node, dict) and len(node) > 1:
        raise UsageError(f"{where}: one rule at a time: {', '.join(map(str, node))}; put them in a list under 'all'")
    raise UsageError(f"{where}: a one-key mapping is wanted, as in 'threshold: {{score: ..., min: ...}}', not {node!r}")


def build_rule(node: Any, where: str) -> Rule:
    """The rule a recipe's node stands for. `where` leads every message. Raises UsageError."""
    from . import RULES

    name, value = one_key(node, where)
    kind = RULES.get(str(name), where)
    if name in LISTS:
        if not isinstance(value, list):
            raise UsageError(f"{where}.{name}: a list of rules is wanted here, not {value!r}")
        rules = tuple(build_rule(item, f"{where}.{name}[{i}]") for i, item in enumerate(value))
        return kind(rules=rules)  # type: ignore[no-any-return]
    if name == "not":
        return kind(rule=build_rule(value, f"{where}.not"))  # type: ignore[no-any-return]
    rule: Rule = build_plug(kind, value, f"{where}.{name}")
    return rule


def rule_name(rule: Rule) -> str:
    """What the registry calls the rule's class."""
    from . import RULES

    path = f"{type(rule).__module__}:{type(rule).__qualname__}"
    return next((name for name, value in RULES.table().items() if value == path), type(rule).__name__.lower())


def walk(rule: Rule, path: str = "") -> Iterator[tuple[str, Rule]]:
    """(path, leaf) of a rule of rules, as the recipe writes it: ``all[1].not.threshold``."""
    name = rule_name(rule)
    path = f"{path}.{name}" if path else name
    if not rule.children:
        yield path, rule
        return
    for i, child in enumerate(rule.children):
        yield from walk(child, path if name == "not" else f"{path}[{i}]")


def check_columns(rule: Rule, columns: Iterable[str], where: str) -> None:
    """Raise UsageError naming the leaf and the nearest word for a column that the pool lacks."""
    have = set(columns)
    for path, leaf in walk(rule):
        for need in sorted(leaf.needs - have):
            field = next((f".{f}" for f, v in leaf.model_dump().items() if v == need), "")
            listed = ", ".join(sorted(have - {"uid_hi", "uid_lo"}))
            raise UsageError(f"{where}.{path}{field}: no column '{need}'{nearest(need, have)} This pool has: {listed}")
