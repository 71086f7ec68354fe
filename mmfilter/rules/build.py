"""From a recipe's mappings to rules, with errors that name the place and the nearest word."""

from collections.abc import Iterable, Iterator
from typing import Any

from ..errors import UsageError, nearest
from ..plugs import Rule, build_plug, one_key

LISTS = ("all", "any", "then")


def build_rule(node: Any, where: str) -> Rule:
    """The rule a recipe's node stands for. `where` leads every message. Raises UsageError."""
    from . import RULES

    name, value = one_key(node, where)
    kind = RULES.get(str(name), where)
    if name in LISTS:
        if not isinstance(value, list):
            raise UsageError(f"{where}.{name}: a list of rules is wanted here, not {value!r}")
        rules = tuple(build_rule(item, f"{where}.{name}[{i}]") for i, item in enumerate(value))
        return kind(rules=rules)
    if name == "not":
        return kind(rule=build_rule(value, f"{where}.not"))
    if name == "votes" and isinstance(value, dict) and isinstance(value.get("rules"), list):
        nodes = enumerate(value["rules"])
        value = {**value, "rules": tuple(build_rule(item, f"{where}.votes.rules[{i}]") for i, item in nodes)}
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
    path += ".rules" if name == "votes" else ""
    for i, child in enumerate(rule.children):
        yield from walk(child, path if name == "not" else f"{path}[{i}]")


def check_columns(rule: Rule, columns: Iterable[str], where: str, has: str = "This pool has") -> None:
    """Raise UsageError naming the leaf and the nearest word for a column that is not among `columns`."""
    have = set(columns)
    for path, leaf in walk(rule):
        for need in sorted(leaf.needs - have):
            from ..scores import score_of

            field = next((f".{f}" for f, v in leaf.model_dump().items() if v == need or f == "sql"), "")
            listed = ", ".join(sorted(have - {"uid_hi", "uid_lo"}))
            hint = nearest(need, have)
            if writer := score_of(need):
                hint = f"; the score '{writer}' writes it: add it to the recipe's scores."
            raise UsageError(f"{where}.{path}{field}: no column '{need}'{hint} {has}: {listed}")
