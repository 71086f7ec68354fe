"""Recipes that upsample: `repeat` against the plainest reading of it, and through run, reshard, explain and train."""

import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
import tars
from rules_util import kept, make_uids, record, split, write_pool

from jobs.dryrun import _then
from jobs.run import RunOptions
from mmfilter import engine
from mmfilter.errors import UsageError
from mmfilter.explain import explain
from mmfilter.fields import ReadOptions
from mmfilter.pairs import Source
from mmfilter.recipe import load_recipe, parse_recipe
from mmfilter.select import SelectOptions, select
from mmfilter.subset import Subset
from mmfilter.table import open_table
from mmfilter.train import TrainOptions, sources

SELECT = {"then": [{"caption": {"min_words": 2}}, {"fraction": {"score": "s", "keep": 0.7}}]}
TOP = {"times": 3, "rule": {"fraction": {"score": "s", "keep": 0.25}}}
WIDE = {"times": 2, "rule": {"threshold": {"score": "w", "min": 6}}}
ONCE = {"times": 1, "rule": {"threshold": {"score": "w", "max": 1}}}


def columns(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    texts = rng.choice(["a", "a b", "a b c"], n).tolist()
    return {"uid": make_uids(n, seed), "text": texts, "s": rng.permutation(n) / n, "w": rng.integers(0, 10, n)}


def by_hand(pool: dict[str, Any], repeat: list[Any]) -> Counter[str]:
    """uid -> times, a row at a time; fractions are of what is kept."""
    rows = [dict(zip(pool, row, strict=True)) for row in zip(*pool.values(), strict=True)]
    rows = [row for row in rows if len(row["text"].split()) >= 2]
    rows = sorted(rows, key=lambda row: -row["s"])[: round(0.7 * len(rows))]
    top = {row["uid"] for row in rows[: round(0.25 * len(rows))]}
    holds = {3: lambda row: row["uid"] in top, 2: lambda row: row["w"] >= 6, 1: lambda row: row["w"] <= 1}
    return Counter({r["uid"]: next((e["times"] for e in repeat if holds[e["times"]](r)), 1) for r in rows})


def run(out: Any, repeat: list[Any], metadata: str | None = None, choose: Any = SELECT) -> Any:
    recipe = parse_recipe(json.dumps({"name": "t", "select": choose, "repeat": repeat}), "recipe t.yaml")
    assert recipe.select is not None
    options = SelectOptions(str(out), "s", "recipe t.yaml: select", recipe.source, repeat=recipe.repeat)
    return select(open_table(str(out), metadata), recipe.select, options)


@pytest.mark.parametrize("repeat", [[], [TOP], [WIDE], [TOP, WIDE], [WIDE, TOP], [ONCE, TOP, WIDE]])
def test_the_first_entry_that_holds_says_how_often(tmp_path: Any, repeat: list[Any]) -> None:
    pool = columns(400)
    expected = by_hand(pool, repeat)
    again = {name: [*values, *values[:5]] for name, values in pool.items()}  # five uids stand in two shards
    selection = run(tmp_path, repeat, write_pool(tmp_path / "m", split(again, 5)))
    assert Counter(kept(selection)) == expected and kept(selection) == sorted(expected.elements())
    counts = selection.counts
    assert counts["kept"] == len(expected) and selection.copies == expected.total() - len(expected)
    assert counts["in"] == 405 == counts["kept"] + counts["dropped"] + counts["failed"] and counts["failed"] == 5
    assert [(entry["times"], entry["samples"]) for entry in selection.repeat if entry["times"] > 1] == [
        (entry["times"], sum(n == entry["times"] for n in expected.values())) for entry in repeat if entry["times"] > 1
    ]
    said = record(selection)
    assert (said["copies"], said["repeat"], said["recipe"]["repeat"]) == (selection.copies, selection.repeat, repeat)
    plain = run(tmp_path / "plain", [], str(tmp_path / "m"))
    assert plain.counts == counts and plain.steps == selection.steps and plain.copies == 0


def test_rules_that_look_at_one_row_need_no_look_at_the_pool(tmp_path: Any) -> None:
    pool = columns(90)
    metadata = write_pool(tmp_path / "m", split(pool, 3))
    found = Counter(kept(run(tmp_path, [WIDE], metadata, "everything")))
    assert found == Counter({uid: 2 if w >= 6 else 1 for uid, w in zip(pool["uid"], pool["w"], strict=True)})
    of_pool = {"times": 5, "rule": {"fraction": {"score": "s", "keep": 0.1, "of": "pool"}}}
    choose = {"threshold": {"score": "w", "min": 3}}
    selection = run(tmp_path, [of_pool, WIDE], metadata, choose)
    assert selection.repeat[0]["samples"] == 9 and selection.repeat[0]["path"] == "repeat[0].fraction"
    nobody = run(tmp_path, [of_pool], metadata, {"threshold": {"score": "w", "min": 11}})
    assert nobody.counts["kept"] == nobody.copies == 0


@pytest.mark.parametrize(
    ("repeat", "message"),
    [
        ({"times": 2}, r"repeat: a list is wanted"),
        ([{"times": 0, "rule": "everything"}], r"repeat\[0\]\.times: .*greater than or equal to 1"),
        ([{"times": 1001, "rule": "everything"}], r"repeat\[0\]\.times: .*less than or equal to 1000"),
        ([TOP, {"times": 2}], r"repeat\[1\]\.rule: Field required"),
        ([{"time": 2, "rule": "everything"}], r"repeat\[0\]\.time: unknown field; did you mean 'times'"),
        ([{"times": 2, "rule": {"fractoin": {}}}], r"repeat\[0\]\.rule.*did you mean 'fraction'"),
        (["everything"], r"repeat\[0\]: a mapping of fields is wanted"),
    ],
)
def test_mistakes_name_their_place(repeat: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"recipe t.yaml: {message}"):
        parse_recipe(json.dumps({"name": "t", "select": "everything", "repeat": repeat}), "recipe t.yaml")


def test_what_cannot_be_repeated_is_said(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="recipe t: repeat: says how often what 'select' keeps"):
        parse_recipe(json.dumps({"name": "t", "repeat": [TOP]}), "recipe t")
    metadata = write_pool(tmp_path / "m", [columns(9)])
    with pytest.raises(UsageError, match=r"recipe t.yaml: repeat\[1\]\.rule\.threshold\.score: no column 'x'"):
        run(tmp_path, [TOP, {"times": 2, "rule": {"threshold": {"score": "x", "min": 0}}}], metadata)


def test_a_run_writes_the_copies_and_a_training_sees_them(tmp_path: Any, mmfilter: Any) -> None:
    tars.write_pool(tmp_path / "pool", 2, 6)  # captions "a picture number N", of which 10 and 11 are longest
    rules = {"scores": ["caption"], "select": {"not": {"caption": {"max_chars": 0}}}}
    long = {"times": 3, "rule": {"threshold": {"score": "caption_chars", "min": 19}}}
    (tmp_path / "t.yaml").write_text(json.dumps({"name": "up", **rules, "repeat": [long]}))
    out = tmp_path / "out"
    code, said, error = mmfilter("run", tmp_path / "t.yaml", "--pool", tmp_path / "pool", "--out", out, "--local")
    assert code == 0, error
    assert "in 12 = kept 12 (100.0%) + dropped 0 + failed 0" in said and "16 uids with copies" in said
    assert [line.split()[-3:] for line in said.splitlines() if "repeat[0].threshold" in line] == [["3", "times", "2"]]
    expected = Counter({tars.uid(n): 3 if n > 9 else 1 for n in range(12)})
    subset = Subset.read(str(out / "subsets/up.npy"))
    assert Counter(subset.strings()) == expected
    shards = sorted(map(str, (out / "shards/up").glob("*.tar")))
    assert Counter(pair.uid for pair in sources(TrainOptions(shards, "", ""), {"size": 16})[0]) == expected
    Subset.from_uids([tars.uid(10), tars.uid(10), tars.uid(1)]).write(str(tmp_path / "two.npy"))
    chosen = TrainOptions(shards, "", "", subset=str(tmp_path / "two.npy"))
    assert [pair.uid for pair in sources(chosen, {"size": 16})[0]] == [tars.uid(1), tars.uid(10), tars.uid(10)]
    assert explain(str(out), tars.uid(10)).lines()[0] == f"{tars.uid(10)}: kept, 3 times"
    assert explain(str(out), tars.uid(1)).times == 1
    held = TrainOptions(shards, str(tmp_path / "model"), "", holdout=0.3)  # so open_clip's shards have to be copied
    source = sources(held, {"size": 16})[0]
    copied, _ = engine.shards(held, engine.Engine(), source, engine.copy_here)
    left = Counter({uid: n for uid, n in expected.items() if source.keep(uid)})
    assert (
        Counter(pair.uid for pair in Source(copied, 16, options=ReadOptions(copies=True))) == left
        and 0 < len(left) < 12
    )
    page, card = (out / "report.html").read_text(), (out / "subsets/up.md").read_text()
    assert 'id="n-copies">4<' in page and "the subset holds 16" in page and "<b>3 times</b> 2 of the kept" in page
    assert "12 (100.0%) of 12 image-text pairs, some of them repeated, 16 with copies" in card
    recipe = load_recipe(str(tmp_path / "t.yaml"))
    steps = _then(recipe, RunOptions(str(out), "up"))
    assert steps[1].startswith("repeat 3 times: caption_chars >= 19")
