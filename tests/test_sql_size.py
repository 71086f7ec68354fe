"""Expressions over columns: how large they are is known before anything parses them, and they can be stopped."""

import random
import resource
import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from index.service.evaluator import Evaluator
from index.service.settings import Refused
from mmfilter.errors import UsageError
from mmfilter.rules import build_rule
from mmfilter.rules.sql_size import NODES, TooLarge, expression_size

TABLE = pl.DataFrame({"x": np.arange(3000.0), "t": ["abc", "a longer text", "x" * 50] * 1000})


def nested(form, depth, inner="x"):
    for _ in range(depth):
        inner = form.replace("{}", inner)
    return inner


LARGE = {
    **{
        f"{name} {depth}": nested(form, depth) + " > 1"
        for depth in (12, 45, 200)
        for name, form in {
            "BETWEEN": "({} BETWEEN 1 AND 2)", "NOT BETWEEN": "({} NOT BETWEEN 1 AND 2)", "NULLIF": "NULLIF({}, 1)",
            "CASE": "CASE {} WHEN 1 THEN 1 WHEN 2 THEN 2 END", "RIGHT": "RIGHT(t, {})", "LEFT": "LEFT(t, {})",
            "SUBSTR": "SUBSTR(t, {}, {})", "IN": "({} IN (x, t, 1))", "SPLIT_PART": "SPLIT_PART({}, 'a', 2)",
            "cased names": "nUlLiF({}, 1)", "quoted names": '"nullif"({}, 1)', "both sides": "({} = {})",
            "unknown": "some_function({})", "CAST of BETWEEN": "CAST({} BETWEEN 1 AND 2 AS INT)",
            "BETWEEN in CASE": "CASE WHEN {} BETWEEN 1 AND 2 THEN 1 END",
        }.items() if (name, depth) != ("both sides", 200) and (name, depth) != ("SUBSTR", 200) and len(form) < 99
        and form.count("{}") ** depth < 10**5
    },
    "BETWEEN chained": "x" + " BETWEEN 1 AND 2" * 40,
    "BETWEEN in its bounds": "x BETWEEN " + nested("({} BETWEEN 1 AND 2)", 30) + " AND 3",
    "IN chained": "x" + " IN (t, 1)" * 40,
    "a long sum": "x > " + "1 + " * 5000 + "1",
    "a long AND": " AND ".join(["x > 1"] * 1000),
    "a long OR": " OR ".join(["x > 1"] * 20_000),
    "CASE with many WHENs": "CASE x " + " ".join(f"WHEN {i} THEN {i}" for i in range(2000)) + " END > 1",
    "brackets": "(" * 100_000 + "x > 1" + ")" * 100_000,
    "open brackets": "(" * 500,
    "signs": "x > " + "- " * 5000 + "1",
    "NOT": "NOT " * 5000 + "x > 1",
    "casts": "x" + "::int" * 5000 + " > 1",
    "an item of a list": "x IN (" + ", ".join(["t"] * 3000) + ")",
    "characters": "t = '" + "a" * 10**6 + "'",
    "a comment": "x > 1 /* ' */ OR t = '",
    "a comment at the end": "x > 1 -- '",
    "a quote": r"t = 'a\' AND x > 1 AND t = '",
    "raw text": "t = r'''a'' OR x > 1",
    "END alone": "x > 1 END",
    "a bracket in a CASE": "(CASE WHEN x > 1 THEN 2) END",
}  # fmt: skip


@pytest.mark.parametrize("sql", LARGE.values(), ids=list(LARGE))
def test_what_would_grow_without_end_is_refused_in_a_sentence(sql):
    begun = time.perf_counter()
    with pytest.raises(UsageError, match="not an SQL expression that is taken: ") as error:
        build_rule({"where": {"sql": sql}}, "select")
    assert time.perf_counter() - begun < 2 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "sql",
    [
        "x > 0.28 AND NOT (x BETWEEN 1 AND 2) AND t LIKE '%it''s%'",
        "x BETWEEN 1 AND 2 AND " * 20 + "t ILIKE 'a%'",
        f"t IN ({', '.join(repr(f'{i:032x}') for i in range(5000))})",
        "CASE WHEN x > 1 THEN x WHEN x > 0 THEN 2 * x ELSE 0 END > COALESCE(x, 1.5e-3)",
        "LENGTH(TRIM(LOWER(t))) > 3 AND NULLIF(x, 0) IS NOT NULL AND \"x\" <> -1 AND t ~ '^a.*--#;$'",
        r"REGEXP_LIKE(t, '\d+\w')",
    ],
)
def test_what_people_write_is_taken(sql):
    assert len(build_rule({"where": {"sql": sql}}, "select").mask(TABLE)) == len(TABLE)


def nodes(expression, most=50_000):
    count, ahead = 0, [expression]
    while ahead and count < most:
        count += 1
        ahead += ahead.pop().meta.pop()
    return count


NAMES = ["abs", "coalesce", "nullif", "left", "right", "substr", "pow", "strpos", "greatest", "mod", "concat",
         "replace", "starts_with", "round", "sign", "if", "split_part", "upper", "cosd", "length"]  # fmt: skip
OPERATORS = ["+", "-", "*", "/", ">", "=", "<>", "!=", "||", "&", "//", "<=>", "~", "!~*", "^@", "AND", "OR", "XOR"]
FORMS = [
    "({} BETWEEN {} AND {})", "{} NOT BETWEEN {} AND {}", "({} IN ({}))", "({} IN ({}, {}, {}))", "{} NOT IN ({}, {})",
    "{} IN (1, -2, 2.5)", "{} NOT IN ('a', 'b', 'c')", "CASE {} WHEN {} THEN {} WHEN {} THEN {} END",
    "CASE WHEN {} THEN {} ELSE {} END", "({} OP {})", "{} OP {}", "({} IS NOT NULL)", "({} IS DISTINCT FROM {})",
    "({} NOT LIKE '%a%')", "(- {})", "(NOT {})", "CAST({} AS INT)", "({}::int)", "EXTRACT(year FROM {})", "NAME({})",
    "NAME({}, {})", "NAME({}, {}, {})",
]  # fmt: skip


def written(rng, depth):
    """A random expression; not all of them are valid."""
    if depth <= 0:
        return rng.choice(["x", "y", "t", "1", "2.5", "'a'", "-3", "NULL", "TRUE", '"x"'])
    form = rng.choice(FORMS).replace("OP", rng.choice(OPERATORS)).replace("NAME", rng.choice(NAMES))
    pieces = form.split("{}")
    return pieces[0] + "".join(written(rng, depth - rng.randint(1, 2)) + piece for piece in pieces[1:])


def test_the_size_is_never_less_than_what_polars_makes_of_it():
    compared = 0
    for seed in range(6000):
        rng = random.Random(seed)
        sql = written(rng, rng.randint(1, 5))
        try:
            size = expression_size(sql)
            expression = pl.sql_expr(sql)
        except (TooLarge, pl.exceptions.PolarsError):
            continue
        compared += 1
        assert nodes(expression) <= size <= NODES, sql
    assert compared > 2000


def test_an_expression_is_stopped_when_its_time_is_up_and_the_next_one_is_answered():
    evaluator = Evaluator(seconds=20)
    rule = build_rule({"where": {"sql": "x > 2998"}}, "select")
    with evaluator.bounded():
        assert rule.mask(TABLE).sum() == 1
    slow = build_rule({"where": {"sql": "REGEXP_LIKE(t, '(?:x|\\w{4}){12}y')"}}, "select")
    large = pl.DataFrame({"t": ["xé" * 5000] * 40_000})
    evaluator.seconds = 1.0
    begun = time.perf_counter()
    with pytest.raises(Refused, match="took more than 1 seconds") as error, evaluator.bounded():
        slow.mask(large)
    assert error.value.status == 503 and time.perf_counter() - begun < 6
    evaluator.seconds = 20
    with evaluator.bounded():
        assert rule.mask(TABLE).sum() == 1
    evaluator.close()


def test_an_expression_that_fills_the_memory_costs_its_own_process():
    evaluator = Evaluator(seconds=30)
    rule = build_rule({"where": {"sql": "LENGTH(LPAD(t, 900000000, 'x')) > 5"}}, "select")
    with pytest.raises((Refused, UsageError)) as error, evaluator.bounded():
        rule.mask(TABLE)
    assert "\n" not in str(error.value)
    with evaluator.bounded(), pytest.raises(UsageError, match="does not work on these columns"):
        build_rule({"where": {"sql": "t > 3"}}, "select").mask(TABLE)
    evaluator.close()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 4 << 20


def test_the_evaluating_process_ends_with_its_input():
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "index.service.where_process"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.communicate(b"")[0] == b"+" + bytes(8) and child.returncode == 0
