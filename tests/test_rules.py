"""Every rule by one contract, and each against the plainest reading of what it says."""

import atexit
import math
import os
import pickle
import re
import sys
import tempfile
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_util import make_uids

from mmfilter.errors import UsageError
from mmfilter.rules import RULES, build_rule, check_columns
from mmfilter.subset import Subset
from mmfilter.uids import parse_uids

SOME = os.path.join(tempfile.gettempdir(), f"mmfilter-{os.getpid()}-some.npy")
Subset.from_uids(make_uids(500)[::3]).write(SOME)
atexit.register(os.unlink, SOME)

VOTE = {"image": {"min_side": 200}}
EXAMPLES: dict[str, list[Any]] = {
    "all": [[{"threshold": {"score": "s", "min": 0.3}}, {"fraction": {"score": "s", "keep": 0.5}}], []],
    "any": [[{"threshold": {"score": "s", "min": 0.7}}, {"caption": {"max_words": 2}}], []],
    "not": [{"threshold": {"score": "s", "min": 0.5}}],
    "then": [[{"caption": {"min_words": 2}}, {"fraction": {"score": "s", "keep": 0.5}}, {"random": {"keep": 0.5}}], []],
    "votes": [
        {"at_least": 2, "rules": [{"fraction": {"score": "s", "keep": 0.6}}, {"caption": {"min_words": 2}}, "image"]}
    ],
    "balanced": [{"n": 90, "levels": 1}, {"keep": 0.2, "within": "furthest"}, {"keep": 0.3, "seed": 4}],
    "caption": [{"min_words": 2, "max_words": 4, "min_chars": 3, "max_chars": 12}, {"min_tokens": 2}, {}],
    "cluster_quota": [{"at_most": 20, "score": "s"}, {"share": 0.3}, {"share": 0.5, "score": "s"}],
    "density_based": [{"keep": 0.4}, {"keep": 0.03, "balance": 0}],
    "ensemble": [{"scores": ["s", "language_score"], "keep": 0.3}, {"scores": ["s"], "keep": 0.3, "weights": [2]}],
    "everything": [{}],
    "fraction": [
        {"score": "s", "keep": 0.3},
        {"score": "s", "keep": 0.3, "of": "pool"},
        {"score": "s", "keep": 0.3, "compat": "datacomp"},
    ],
    "image": [{"min_side": 200, "max_aspect": 3.0}, {}],
    "in_subset": [{"path": SOME}],
    "language": [{"is": "en"}, {"is": ["en", "de"], "min_score": 0.4}],
    "near_target": [{"target": "t", "cluster": True}, {"target": "t", "min": 0.3, "keep": 0.5}],
    "not_duplicate": [{}, {"kinds": ["exact", "semantic"]}],
    "probability": [{"score": "s", "seed": 3}],
    "prototypes": [{"keep": 0.3}, {"keep": 0.5, "which": "easiest", "balance": 0.9}],
    "random": [{"keep": 0.4, "seed": 7}],
    "threshold": [{"score": "s", "min": 0.2, "max": 0.8}],
    "where": [{"sql": "s > 0.4 AND original_width IN (200, 300) OR text LIKE '%a%'"}],
}
NODES = [(name, value) for name, values in EXAMPLES.items() for value in values]
WORDS = ["a", "ab", "a b", " a  b\tc ", "a\x1cb", "a\u3000b\u00a0c\u2028d", "", "\x00", "één twee", "🦊 fox"]
SPACED = st.text(st.sampled_from("ab \t\n\x1c\x1f\x85\u200b\u3000é🦊"), max_size=12)
KEEP_WITHOUT_VALUES = ("not", "any", "votes", "all", "then", "everything", "random", "in_subset")


def pool(n: int, holes: bool = True, seed: int = 0) -> pl.DataFrame:
    """n rows with ties, NaN and null in every column that a rule may read."""
    rng = np.random.default_rng(seed)
    uids = make_uids(n, seed)
    numbers = parse_uids(uids)
    hi, lo = numbers["f0"], numbers["f1"]
    width, height = rng.choice([1, 100, 200, 300, 600, 601], (2, n))
    frame = pl.DataFrame(
        {
            "uid": uids,
            "uid_hi": hi,
            "uid_lo": lo,
            "text": rng.choice(np.array(WORDS, dtype=object), n).tolist(),
            "original_width": width,
            "original_height": height,
            "s": rng.integers(0, 10, n).astype(np.float32) / 10,
            "language": rng.choice(["en", "de", "ja", ""], n).tolist(),
            "language_score": rng.random(n, np.float32),
            "cluster_id": rng.integers(-1, 9, n).astype(np.int32),
            "centroid_similarity": rng.integers(3, 10, n).astype(np.float32) / 10,
            "duplicate_of": rng.choice(["", uids[0]], n).tolist(),
            "duplicate_kind": rng.choice(["", "exact", "perceptual", "semantic"], n).tolist(),
            "target_t_similarity": rng.integers(0, 10, n).astype(np.float32) / 10,
            "target_t_cluster": rng.random(n) < 0.5,
        }
    )
    cluster = pl.col("cluster_id")
    separation = (0.2 + 0.1 * (cluster * 5 % 7)).cast(pl.Float32)
    frame = frame.with_columns(cluster_id_1=cluster.floordiv(3), cluster_separation=separation)
    if not holes:
        return frame
    gaps = [pl.when(pl.Series(rng.random(n) < 0.1)).then(None).otherwise(pl.col(c)).alias(c) for c in frame.columns[3:]]
    floats = ("s", "language_score", "centroid_similarity")
    nans = [pl.when(pl.Series(rng.random(n) < 0.1)).then(math.nan).otherwise(pl.col(c)).alias(c) for c in floats]
    return frame.with_columns(gaps).with_columns(nans)


def test_every_rule_has_an_example() -> None:
    assert set(RULES.table()) == set(EXAMPLES), "add the new rule to EXAMPLES: the tests below are then its tests too"


@pytest.mark.parametrize(("name", "value"), NODES)
def test_contract(name: str, value: Any) -> None:
    rule, table = build_rule({name: value}, "x"), pool(500)
    assert rule.fit_needs <= rule.needs | {"uid_hi", "uid_lo"}
    fitted = rule.fit(table.select(sorted(rule.fit_needs)) if rule.fit_needs else pl.DataFrame())
    seen = table.select(sorted(rule.needs)) if rule.needs else table
    mask = fitted.mask(seen)
    assert mask.shape == (500,) and mask.dtype == bool
    order = np.random.default_rng(1).permutation(500)
    np.testing.assert_array_equal(fitted.mask(table[order]), mask[order])
    np.testing.assert_array_equal(rule.fit(table[order]).mask(table), mask)
    parts = [fitted.mask(table[a:b]) for a, b in ((0, 1), (1, 1), (1, 200), (200, 500))]
    np.testing.assert_array_equal(np.concatenate(parts), mask)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(fitted)).mask(table), mask)
    assert fitted.describe() and all(v for v in fitted.thresholds.values())
    assert rule.fit(table[:0]).mask(table[:0]).shape == (0,)


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, v in NODES if n not in KEEP_WITHOUT_VALUES])
def test_what_is_missing_is_never_kept(name: str, value: Any) -> None:
    rule, table = build_rule({name: value}, "x"), pool(300, holes=False)
    fitted = rule.fit(table)
    for column in rule.needs - {"uid_hi", "uid_lo"}:
        if value in EXAMPLES["where"] or (name == "image" and not value):
            continue  # an OR may hold without the column; an image rule without bounds asks for none
        assert not fitted.mask(table.with_columns(pl.lit(None, table[column].dtype).alias(column))).any()
        assert not fitted.mask(table.with_columns(pl.lit(None).alias(column))).any()
        if table[column].dtype.is_numeric():
            assert not fitted.mask(table.with_columns(pl.lit(math.nan).alias(column))).any()


def test_white_space_is_pythons() -> None:
    characters = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]
    texts = [f"a{c}b" for c in characters]
    mask = build_rule({"caption": {"min_words": 2}}, "x").mask(pl.DataFrame({"text": texts}))
    assert mask.tolist() == [len(text.split()) >= 2 for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(SPACED, min_size=1), st.integers(0, 5), st.integers(0, 5))
def test_caption(texts: list[str], low: int, high: int) -> None:
    low, high = sorted((low, high))
    table = pl.DataFrame({"text": texts})
    words = build_rule({"caption": {"min_words": low, "max_words": high}}, "x").mask(table)
    assert words.tolist() == [low <= len(text.split()) <= high for text in texts]
    chars = build_rule({"caption": {"min_chars": low, "max_chars": high}}, "x").mask(table)
    assert chars.tolist() == [low <= len(text) <= high for text in texts]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.sampled_from("ab \t\n\v\f\r\0\x1c\u3000é"), max_size=12), min_size=1), st.integers(0, 5))
def test_fasttexts_tokens(texts: list[str], low: int) -> None:
    mask = build_rule({"caption": {"min_tokens": low}}, "x").mask(pl.DataFrame({"text": texts}))
    parts = [re.sub("[ \t\v\f\r\0]", " ", text).replace("\n", " </s> ").split(" ") for text in texts]
    assert mask.tolist() == [len([part for part in words if part]) >= low for words in parts]


def test_a_probability_is_a_share_of_the_samples() -> None:
    table = pool(20_000, holes=False)
    mask = build_rule({"probability": {"score": "s", "seed": 1}}, "x").mask(table)
    for value in np.unique(table["s"]):
        assert abs(mask[(table["s"] == value).to_numpy()].mean() - value) < 0.04
    whole = table.with_columns(s=pl.lit(1.0))
    assert build_rule({"probability": {"score": "s"}}, "x").mask(whole).all()
    more = build_rule({"probability": {"score": "s", "seed": 1}}, "x").mask(table.with_columns(pl.col("s") + 0.1))
    assert not (mask & ~more).any()


@pytest.mark.parametrize("bound", [256, 257, 5000])
def test_long_captions_are_counted(bound: int) -> None:
    table = pl.DataFrame({"text": ["w " * (bound + more) for more in (-1, 0, 1)]})
    assert build_rule({"caption": {"min_words": bound}}, "x").mask(table).tolist() == [False, True, True]
    assert build_rule({"caption": {"max_words": bound}}, "x").mask(table).tolist() == [True, True, False]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0.1, 0.2, 0.3, math.nan, None, math.inf, -math.inf]), min_size=1, max_size=40),
    st.floats(0, 1),
)
def test_fraction_is_exact(scores: list[float | None], keep: float) -> None:
    uids = make_uids(len(scores))
    numbers = parse_uids(uids)
    hi, lo = numbers["f0"], numbers["f1"]
    table = pl.DataFrame({"s": pl.Series(scores, dtype=pl.Float32), "uid_hi": hi, "uid_lo": lo})
    mask = build_rule({"fraction": {"score": "s", "keep": keep}}, "x").fit(table).mask(table)
    ranked = sorted((-s, uid) for s, uid in zip(scores, uids, strict=True) if s is not None and not math.isnan(s))
    wanted = {uid for _, uid in ranked[: round(keep * len(scores))]}
    assert {uid for uid, kept in zip(uids, mask, strict=True) if kept} == wanted


def test_then_fits_on_what_was_kept() -> None:
    table = pool(400, holes=False)
    node: dict[str, Any] = {"then": [{"language": {"is": "en"}}, {"fraction": {"score": "s", "keep": 0.5}}]}
    english = (table["language"] == "en").to_numpy()
    both = build_rule(node, "x").fit(table).mask(table)
    assert both.sum() == round(0.5 * english.sum()) and not (both & ~english).any()
    apart = build_rule({"all": node["then"]}, "x").fit(table).mask(table)
    assert apart.sum() != both.sum()


def test_random_is_a_hash_of_the_uid() -> None:
    table = pool(20_000)
    masks = {f: build_rule({"random": {"keep": f, "seed": 3}}, "x").mask(table) for f in (0.0, 0.2, 0.5, 1.0)}
    assert masks[0.0].sum() == 0 and masks[1.0].all() and abs(masks[0.2].mean() - 0.2) < 0.015
    assert not (masks[0.2] & ~masks[0.5]).any(), "a larger share holds the smaller one"
    other = build_rule({"random": {"keep": 0.2, "seed": 4}}, "x").mask(table)
    assert abs((other & masks[0.2]).mean() - 0.04) < 0.01, "seeds are independent"


@pytest.mark.parametrize(
    ("node", "says"),
    [
        ({"threshold": {"score": "s"}}, "select.threshold: give 'min' or 'max'"),
        ({"threshold": {"score": "s", "mix": 1, "min": 0}}, "select.threshold.mix: unknown field; did you mean 'min'?"),
        ({"thresold": {}}, "no rule is called 'thresold'; did you mean 'threshold'?"),
        ({"all": [{"caption": {}}, {"image": {"min_side": -1}}]}, "select.all[1].image.min_side: "),
        ({"not": {"fraction": {"score": "s", "keep": 30}}}, "select.not.fraction.keep: "),
        ({"all": {"caption": {}}}, "select.all: a list of rules"),
        ({"caption": {}, "image": {}}, "one"),
        ({"language": {"is": []}}, "name at least one language"),
        ({"votes": {"at_least": 3, "rules": ["image"]}}, "select.votes: 3 votes out of 1 rules"),
        ({"votes": {"at_least": 1, "rules": ["imag"]}}, "no rule is called 'imag'; did you mean 'image'?"),
        ({"balanced": {"keep": 0.5, "n": 3}}, "select.balanced: give one of 'n' and 'keep'"),
        ({"ensemble": {"scores": ["s", "s"], "keep": 0.5}}, "select.ensemble: a score stands twice"),
        ({"ensemble": {"scores": ["s"], "weights": [0], "keep": 0.5}}, "select.ensemble: 'weights' are as many"),
        ({"where": {"sql": "s >"}}, "select.where.sql: not an SQL expression"),
        ({"where": {"sql": "SELECT s FROM self"}}, "select.where.sql: not an SQL expression"),
        ({"where": {"sql": "s > 1; DROP TABLE t"}}, "select.where.sql: not an SQL expression"),
        ({"where": {"sql": "s > AVG(s)"}}, "select.where.sql: looks at more than one row"),
        ({"where": {"sql": "i > 1 AND RANK() OVER (ORDER BY s) < 9"}}, "select.where.sql: looks at more than one row"),
        ({"where": {"sql": "COUNT(*) > s"}}, "select.where.sql: looks at more than one row"),
        ({"where": {"sql": "COLUMNS('s') > 0"}}, "select.where.sql: names columns by a pattern"),
        ({"where": {"sql": "1 = 1"}}, "select.where.sql: names no column"),
        (None, "a one-key mapping is wanted"),
    ],
)
def test_mistakes_name_their_place(node: Any, says: str) -> None:
    with pytest.raises(UsageError) as error:
        build_rule(node, "recipe x.yaml: select")
    said = str(error.value)
    assert says in said and said.startswith("recipe x.yaml: select") and "\n" not in said


@pytest.mark.parametrize(
    "node",
    [
        {"threshold": {"score": "text", "min": 1}},
        {"fraction": {"score": "text", "keep": 0.5}},
        {"where": {"sql": "text > 3"}},
        {"where": {"sql": "s + 1"}},
        {"where": {"sql": "s > 0 AND (SELECT 1) > 0"}},
        {"language": {"is": "en", "column": "s"}},
    ],
)
def test_columns_of_the_wrong_kind(node: Any) -> None:
    table = pool(20)
    with pytest.raises(UsageError) as error:
        build_rule(node, "x").fit(table).mask(table)
    assert "\n" not in str(error.value)


def test_unknown_columns_name_the_nearest() -> None:
    rule = build_rule({"all": [{"caption": {}}, {"threshold": {"score": "clip_l14", "min": 0.2}}]}, "x")
    with pytest.raises(UsageError) as error:
        check_columns(rule, ["uid", "text", "clip_l14_similarity_score"], "recipe x.yaml: select")
    assert str(error.value) == (
        "recipe x.yaml: select.all[1].threshold.score: no column 'clip_l14'; did you mean "
        "'clip_l14_similarity_score'? This pool has: clip_l14_similarity_score, text, uid"
    )
    check_columns(build_rule({"random": {"keep": 0.5}}, "x"), ["uid", "uid_hi", "uid_lo"], "x")
