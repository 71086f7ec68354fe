"""The same uids as DataComp's baselines, against a plain reading of their rules a row at a time.

The rules, as DataComp's baselines state them: no_filter keeps every uid; basic_filter keeps English (by a
language column that both sides are given), more than 2 words, more than 5 characters, a short side of 200 or
more and an aspect of 3.0 or less; clip_score keeps scores at or above a threshold, or at or above the value at
position int(n f) of the scores in falling order; laion2b keeps B/32 scores of 0.28 or more and English; text_based
keeps English with a word in a set (given here; test_text_scores.py has WordNet); image_based keeps English of more
than 1 fastText token and 5 characters in a cluster of the target (given too), its intersection what clip_score over
the whole pool keeps of these.
"""

import tempfile
from collections.abc import Callable
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from rules_util import kept, make_uids, run, split, write_pool

from mmfilter.recipe import load_recipe, packaged

pytestmark = pytest.mark.slow  # together, not each: its fixtures take seconds

B32, L14 = "clip_b32_similarity_score", "clip_l14_similarity_score"
TEXTS = [
    "a dog",
    "a red dog",
    "a b c",
    "a b cd",
    "a\tb\nc d",
    "een hond",
    "",
    "   ",
    "a\u3000b\x1cc 犬",
    "🦊 🦊 🦊",
    "reddog",
    "red\ndog",
]
TEXTS += ["\n\n\n\n\n\n", "reddog\n", "red\u3000dogs", "red\0dogs"]
SIZES = [0, 1, 66, 199, 200, 201, 599, 600, 601]
SCORES = np.array([0.1, 0.2799999, 0.28, 0.2800001, 0.3, 0.3, 0.5, -0.2], np.float32).tolist()

COLUMNS = ("text", "original_width", "original_height", B32, L14, "language", "text_based", "target_imagenet_cluster")

Row = dict[str, Any]
pools = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.sampled_from(TEXTS),
            "original_width": st.sampled_from(SIZES),
            "original_height": st.sampled_from(SIZES),
            B32: st.sampled_from(SCORES),
            L14: st.sampled_from(SCORES),
            "language": st.sampled_from(["en", "en", "en", "nl", "ja", ""]),
            "text_based": st.booleans(),
            "target_imagenet_cluster": st.booleans(),
        }
    ),
    max_size=60,
)


def basic(row: Row) -> bool:
    width, height = row["original_width"], row["original_height"]
    words, characters = len(row["text"].split()), len(row["text"])
    if min(width, height) < 200 or max(width, height) / min(width, height) > 3.0:
        return False
    return row["language"] == "en" and words > 2 and characters > 5


def laion2b(row: Row) -> bool:
    return bool(np.float32(row[B32]) >= 0.28) and row["language"] == "en"


def fasttext_tokens(text: str) -> list[str]:
    """What fastText's reader of words makes of a text: parted by these seven, a newline being a word of its own."""
    words, word = [], ""
    for character in text + " ":
        if character not in " \n\r\t\v\f\0":
            word += character
            continue
        words += ([word] if word else []) + (["</s>"] if character == "\n" else [])
        word = ""
    return words


def image_based(row: Row) -> bool:
    if len(fasttext_tokens(row["text"])) <= 1 or len(row["text"]) <= 5:
        return False
    return row["language"] == "en" and row["target_imagenet_cluster"]


def ours(rows: list[Row], node: Any) -> list[str]:
    """What select keeps of these rows, which stand in three shards."""
    columns: dict[str, Any] = {"uid": [row["uid"] for row in rows]}
    for name in COLUMNS:
        columns[name] = [row.get(name, False) for row in rows]
        if name in (B32, L14):
            columns[name] = np.array(columns[name], np.float32)
    with tempfile.TemporaryDirectory() as folder:
        return kept(run(write_pool(folder, split(columns, 2)), node, decisions=False))


def theirs(rows: list[Row], keep: Callable[[Row], bool]) -> list[str]:
    return sorted(row["uid"] for row in rows if keep(row))


def select_of(recipe: str) -> Any:
    return yaml.safe_load(files("mmfilter.recipes").joinpath(f"{recipe}.yaml").read_text())["select"]


def with_uids(rows: list[Row]) -> list[Row]:
    return [{**row, "uid": uid} for row, uid in zip(rows, make_uids(len(rows)), strict=True)]


RULES: list[tuple[str, Callable[[Row], bool]]] = [
    ("no_filter", lambda row: True),
    ("basic_filter", basic),
    ("laion2b", laion2b),
    ("text_based", lambda row: row["language"] == "en" and row["text_based"]),
    ("image_based", image_based),
]


@pytest.mark.parametrize(("recipe", "keep"), RULES, ids=[name for name, _ in RULES])
@settings(max_examples=40, deadline=None)
@given(rows=pools)
def test_rules_of_one_row(recipe: str, keep: Callable[[Row], bool], rows: list[Row]) -> None:
    rows = with_uids(rows)
    assert ours(rows, select_of(recipe)) == theirs(rows, keep)


@settings(max_examples=40, deadline=None)
@given(rows=pools, threshold=st.sampled_from([*SCORES, 0.25, -1.0, 1.0]))
def test_clip_score_by_threshold(rows: list[Row], threshold: float) -> None:
    rows = with_uids(rows)
    node = {"threshold": {"score": L14, "min": threshold}}
    assert ours(rows, node) == theirs(rows, lambda row: bool(np.float32(row[L14]) >= np.float32(threshold)))


@settings(max_examples=60, deadline=None)
@given(rows=pools, fraction=st.one_of(st.sampled_from([0.0, 0.3, 0.5, 0.999, 1.0]), st.floats(0, 1)))
def test_clip_score_by_fraction(rows: list[Row], fraction: float) -> None:
    rows = with_uids(rows)
    falling = sorted((row[L14] for row in rows), reverse=True)
    position = int(len(rows) * fraction)
    edge = falling[position] if position < len(falling) else -2.0  # at 1.0 theirs ends with an IndexError: all is meant
    node = {"fraction": {"score": L14, "keep": fraction, "compat": "datacomp"}}
    assert ours(rows, node) == theirs(rows, lambda row: row[L14] >= edge)


@settings(max_examples=40, deadline=None)
@given(rows=pools)
def test_image_based_intersect_clip_score(rows: list[Row]) -> None:
    rows = with_uids(rows)
    falling = sorted((row[L14] for row in rows), reverse=True)
    edge = falling[int(len(rows) * 0.3)] if rows else 0.0
    node = select_of("image_based_intersect_clip_score")
    assert node["all"][-1] == {"fraction": {"score": L14, "keep": 0.3}}
    node["all"][-1]["fraction"]["compat"] = "datacomp"
    assert ours(rows, node) == theirs(rows, lambda row: image_based(row) and row[L14] >= edge)


def test_their_fraction_keeps_one_more_and_all_ties() -> None:
    """604 of 2000 at 0.3, with four tied at the edge; ours keeps 600 of the same pool, and all of it at 1.0."""
    scores = np.linspace(0.4, 0.1, 2000, dtype=np.float32)
    scores[598:604] = scores[600]
    rest = {"text": "", "original_width": 1, "original_height": 1, "language": "en", B32: 0.0}
    rows = with_uids([{**rest, L14: float(score)} for score in scores])
    node = {"fraction": {"score": L14, "keep": 0.3}}
    compat = {"fraction": {"score": L14, "keep": 0.3, "compat": "datacomp"}}
    assert (len(ours(rows, node)), len(ours(rows, compat))) == (600, 604)
    assert set(ours(rows, node)) < set(ours(rows, compat))
    for whole in (node, compat):
        whole["fraction"]["keep"] = 1.0
        assert len(ours(rows, whole)) == 2000


@pytest.mark.parametrize("recipe", [name for name, _ in RULES] + ["clip_score"])
def test_an_empty_pool(recipe: str) -> None:
    assert ours([], select_of(recipe)) == []


@pytest.mark.parametrize("name", packaged())
def test_shipped_recipes_are_sound(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name and recipe.select is not None
    assert name == "demo" or recipe.source["paper"]
