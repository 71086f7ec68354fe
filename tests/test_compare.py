"""Subsets side by side: every share, count and quantile against the plainest count of it."""

import hashlib
import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_util import RULES, Page, make_out, page_of, rows_of

from jobs.compare import lines, named
from mmfilter.composition import QUANTILES, compose, concepts, languages, sides, source_of, spread
from mmfilter.errors import DataError, UsageError
from mmfilter.overlaps import overlaps
from mmfilter.report.comparison import comparison_page
from mmfilter.subset import Subset
from mmfilter.table import open_table

UIDS = [f"{i:032x}" for i in range(8)]


def subset(numbers: list[int]) -> Subset:
    return Subset.from_uids([UIDS[i] for i in numbers])


@given(st.lists(st.lists(st.integers(0, 7), max_size=12), min_size=1, max_size=4))
def test_overlap_is_that_of_counters(sets: list[list[int]]) -> None:
    found = overlaps({str(i): subset(numbers) for i, numbers in enumerate(sets)})
    bags = [Counter(numbers) for numbers in sets]
    assert found["samples"] == [len(numbers) for numbers in sets] and found["different"] == [len(b) for b in bags]
    for i, a in enumerate(bags):
        for j, b in enumerate(bags):
            both, either = (a & b).total(), (a | b).total()
            assert found["intersection"][i][j] == both
            assert found["jaccard"][i][j] == (both / either if either else None)
            assert found["containment"][i][j] == (both / a.total() if a.total() else None)


WEIGHTS = st.lists(st.tuples(st.floats(-2, 2) | st.sampled_from([math.nan, 1.0]), st.integers(0, 3)), max_size=30)


@given(WEIGHTS)
def test_quantiles_are_those_of_the_repeated_values(rows: list[tuple[float, int]]) -> None:
    values, weight = (np.array(column) for column in zip(*rows, strict=True)) if rows else (np.empty(0), np.empty(0))
    found = spread(values, {"a": weight.astype(np.int64)})["a"]
    repeated = np.repeat(values, weight.astype(int))
    finite = repeated[np.isfinite(repeated)]
    assert found["missing"] == len(repeated) - len(finite)
    if not len(finite):
        assert found["mean"] is None and found["quantiles"] == [None] * len(QUANTILES)
        return
    assert found["mean"] == pytest.approx(finite.mean(), abs=1e-12)
    assert found["quantiles"] == np.quantile(finite, QUANTILES, method="inverted_cdf").tolist()


def test_languages_sides_and_concepts() -> None:
    weights = {"pool": np.ones(6, np.int64), "kept": np.array([2, 0, 1, 0, 0, 0])}
    rows = languages(pl.Series(["en", "en", None, "fr", "de", "de"]), weights)
    assert [(row["value"], *row["counts"].values()) for row in rows] == [
        ("de", 2, 0), ("en", 2, 2), ("(none)", 1, 1), ("fr", 1, 0),
    ]  # fmt: skip
    rows = sides(np.array([63, 64, 200, 1023.0, 1024, np.nan]), weights)
    assert [(row["value"], *row["counts"].values()) for row in rows] == [
        ("under 64 px", 1, 2), ("64 to 127 px", 1, 0), ("200 to 319 px", 1, 1), ("512 to 1023 px", 1, 0),
        ("1024 px or more", 1, 0), ("unknown", 1, 0),
    ]  # fmt: skip
    found = concepts(np.array([0, 0, 1, 2, -1, -1]), weights)
    assert found["pool"]["hit"] == 3 and found["kept"]["hit"] == 2 and found["kept"]["share"] == pytest.approx(2 / 3)
    p = np.array([2, 1]) / 3
    assert found["kept"]["entropy"] == pytest.approx(-(p * np.log(p)).sum())
    none = {"none": np.zeros(2, np.int64)}
    assert concepts(np.array([0, -1]), none)["none"] == {"hit": 0, "share": 0, "entropy": 0, "effective": 0}
    assert concepts(np.array([-1, -1]), none)["none"]["share"] is None


def test_many_languages_end_in_one_row() -> None:
    names = [f"l{i:02d}" for i in range(20)]
    weight = np.arange(20, 0, -1)
    rows = languages(pl.Series(names), {"a": weight})
    assert len(rows) == 13 and rows[-1] == {"value": "8 others", "counts": {"a": int(weight[12:].sum())}}


def test_the_report_tells_before_and_after_and_other_subsets(tmp_path: Path) -> None:
    tars = tmp_path / "tars"
    shards = {stem: rows_of(tars, stem) for stem in ("000", "001")}
    made = make_out(tmp_path / "out", tars, shards, RULES)
    kept = [uid for uid, path in made.dropped_by.items() if path == ""]
    for name, uids in (("kept", kept), ("other", [kept[0], *sorted(set(made.dropped_by) - set(kept))[:3]])):
        Subset.from_uids(uids).write(str(tmp_path / f"out/subsets/{name}.npy"))
    (tmp_path / "out/subsets/other.json").write_text((tmp_path / "out/subsets/kept.json").read_text())
    from mmfilter.report import build_report

    text = Path(build_report(made.out, "kept")).read_text()
    language = text.split('data-made="Language"')[1].split("</article>")[0]
    assert "75.0 %<small>12</small>" in language and f"100.0 %<small>{len(kept)}</small>" in language
    other = text.split('data-other="other"')[1].split("</tr>")[0]
    assert "<td>4</td><td>1</td>" in other and "25.0 %" in other
    found = compose(source_of(open_table(made.out)), {"pool": np.ones(16, np.int64)})
    assert found["scores"]["score"]["pool"]["mean"] == pytest.approx(np.mean([r["score"] for r in shards["000"]]))


def test_the_report_tells_measures_of_the_subset_as_it_is(tmp_path: Path) -> None:
    made = make_out(tmp_path / "out", tmp_path / "tars", {"000": rows_of(tmp_path / "tars", "000")}, RULES)
    path = tmp_path / "out/subsets/kept.npy"
    Subset.from_uids([uid for uid, blame in made.dropped_by.items() if blame == ""]).write(str(path))
    apart = {"fid": 0.5, "mmd": None, "mmd_cosine": 0.25, "sinkhorn": 0.125, "iterations": 3}
    sets = {name: {"rows": 8, "vendi": 7.5, "to": {"pool": apart}} for name in ("pool", "other", "kept.v1")}
    how = {"model": "b32", "modality": "image", "sample": 9, "moved": 8, "epsilon": 0.05, "seed": 0}
    measures = {**how, "squared_bandwidth": {"pool": 1.0}, "sets": sets}
    found = {"sha256": {"kept.v1": hashlib.sha256(path.read_bytes()).hexdigest()}, "measures": measures}
    (tmp_path / "out/compare.json").write_text(json.dumps(found))
    text, _ = page_of(made.out)
    row = text.split('data-set="kept.v1"')[1].split("</tr>")[0]
    assert "<td>7.5</td>" in row and "<td>0.5</td><td>–</td><td>0.25</td><td>0.125</td>" in row
    assert 'data-set="pool"' in text and 'data-set="other"' not in text
    Subset.from_uids([]).write(str(path))
    assert "data-set=" not in page_of(made.out)[0]
    (tmp_path / "out/compare.json").write_text("{}")
    with pytest.raises(DataError, match=r"compare\.json: is damaged"):
        page_of(made.out)


def test_the_report_without_other_subsets(tmp_path: Path) -> None:
    text, page = page_of(make_out(tmp_path / "out", tmp_path / "tars", {"000": []}, []).out)
    assert "Other subsets of this run" not in text and page.ids["n-in"] == "0"


def test_without_a_pool_what_is_shared_alone(mmfilter: Any, tmp_path: Path) -> None:
    for name, numbers in (("<b>a", [0, 1, 1, 2]), ("c", [1, 2, 3]), ("none", [])):
        subset(numbers).write(str(tmp_path / f"{name}.npy"))
    words = [tmp_path / f"{name}.npy" for name in ("<b>a", "c", "none")]
    code, said, error = mmfilter("compare", *words, "--json", "--page", tmp_path / "p.html")
    assert code == 0, error
    found = json.loads(said)
    assert found["overlap"]["intersection"] == [[4, 2, 0], [2, 3, 0], [0, 0, 0]] and found["measures"] is None
    text = (tmp_path / "p.html").read_text()
    assert text == comparison_page(found) and "<b>a" not in text and Page(text).count("script") == 1
    table = lines(found)
    assert "50.0%" in table[1] and table[3].split() == ["none", "0", "-", "-", "-"]
    for wrong in ([str(tmp_path / "d.npy")], [str(words[0])] * 2):
        with pytest.raises(UsageError, match="no such subset|given twice"):
            named(wrong, None)
