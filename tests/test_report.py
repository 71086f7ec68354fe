"""The report: every number is the files', nothing in a caption is obeyed, and no data breaks it."""

import json
import os
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_util import RULES, Made, Row, Rule, make_out, make_rows, page_of, rows_of

from mmfilter.allow import Allow
from mmfilter.errors import DataError
from mmfilter.report import ReportOptions, build_report
from mmfilter.report.charts import nice_step, number, ticks
from mmfilter.report.scores import _edges

pytestmark = pytest.mark.slow  # together, not each


@pytest.fixture
def made(tmp_path: Path) -> Made:
    tars = tmp_path / "tars"
    failed: list[Row] = [
        {"key": "0100", "uid": "f" * 32, "status": "lost", "error": "<b>gone</b>"},
        {"key": "0101", "uid": "", "status": "lost", "error": "gone"},
        {"key": "0102", "uid": "", "status": "truncated", "error": "the tar ends"},
    ]
    return make_out(tmp_path / "out", tars, {s: rows_of(tars, s) for s in ("000", "001")}, RULES, {"001": failed})


def test_counts_are_the_files_and_are_conserved(made: Made) -> None:
    text, page = page_of(made.out)
    kept = sum(path == "" for path in made.dropped_by.values())
    assert {name: int(page.ids[f"n-{name}"]) for name in ("in", "kept", "dropped", "failed")} == {
        "in": 19, "kept": kept, "dropped": 16 - kept, "failed": 3,
    }  # fmt: skip
    assert "Nothing is lost" in text and 'role="alert"' not in text


def test_a_sample_unaccounted_for_is_told(made: Made) -> None:
    os.unlink(os.path.join(made.out, "failures", "001.parquet"))
    text, _ = page_of(made.out)
    assert "The shards hold 19 samples and 16 are accounted for" in text and "Nothing is lost" not in text
    assert "recorded with failed = 3; the files now say 0" in text


def test_waterfall_numbers(made: Made) -> None:
    text, _ = page_of(made.out)
    rows = [row for shard in made.shards.values() for row in shard]
    left = len(rows)
    for rule in RULES:
        dropped = sum(path == rule.path for path in made.dropped_by.values())
        left -= dropped
        alone = sum(not rule.keep(row) for row in rows)
        block = text.split(f'data-path="{rule.path}"')[1].split("data-path")[0]
        told = [int(n) for n in re.findall(r'class="lbl">\w+</span>(\d+)<', block)]
        assert told == [dropped, left, alone]


def test_threshold_sides_and_bins(made: Made) -> None:
    text, _ = page_of(made.out)
    card = text.split('data-column="score"')[1].split("</article>")[0]
    sides = re.findall(r'class="text">(below|at or above) 0\.5</th><td>(\d+)</td>\s*<td>[^<]*</td><td>(\d+)</td>', card)
    rows = [row for shard in made.shards.values() for row in shard]
    kept = [row["score"] for row in rows if made.dropped_by[row["uid"]] == ""]
    assert sides == [
        ("below", str(sum(r["score"] < 0.5 for r in rows)), str(sum(s < 0.5 for s in kept))),
        ("at or above", str(sum(r["score"] >= 0.5 for r in rows)), str(sum(s >= 0.5 for s in kept))),
    ]
    bins = re.findall(r"<tr><td>[\d. to]+</td><td>(\d+)</td><td>(\d+)</td></tr>", card)
    assert (sum(int(k) for k, _ in bins), sum(int(d) for _, d in bins)) == (len(kept), len(rows) - len(kept))


def test_an_upper_bound_keeps_its_own_value(tmp_path: Path) -> None:
    rows = make_rows(tmp_path / "tars", "000", ["a"] * 6, {"words": [1, 2, 3, 3, 4, 5]})
    rule = Rule("threshold", "words <= 3", lambda row: row["words"] <= 3, ["words"], {"words": [3.0]})
    text, _ = page_of(make_out(tmp_path / "out", tmp_path / "tars", {"000": rows}, [rule]).out, samples=1)
    card = text.split('data-column="words"')[1].split("</article>")[0]
    assert re.findall(r'class="text">([a-z ]+) 3</th><td>(\d)</td>', card) == [("at or below", "4"), ("above", "2")]
    assert re.findall(r'class="val">(\d)<', card) == ["4", "3"]
    assert re.findall(r"<tr><td>(\d)</td><td>(\d)</td><td>(\d)</td>", card) == [
        ("1", "1", "0"), ("2", "1", "0"), ("3", "2", "0"), ("4", "0", "1"), ("5", "0", "1"),
    ]  # fmt: skip


def test_columns_no_rule_looks_at_are_shown_and_text_columns_counted(made: Made) -> None:
    text, _ = page_of(made.out)
    assert "no rule looks at it" in text.split('data-column="extra_score"')[1].split("</article>")[0]
    language = text.split('data-column="language"')[1].split("</article>")[0]
    assert re.search(r"<bdi>ar</bdi>.*?<td>0</td><td>2</td>", language, re.S)


def test_just_kept_and_just_dropped_are_the_nearest(made: Made) -> None:
    text, _ = page_of(made.out, samples=2)
    card = text.split('data-column="score"')[1].split("</article>")[0]
    dropped, kept = card.split("Just dropped")[1].split("Just kept")
    rows = sorted((row for shard in made.shards.values() for row in shard), key=lambda row: row["score"])
    blamed = [row["score"] for row in rows if made.dropped_by[row["uid"]] == RULES[2].path]
    good = [row["score"] for row in rows if made.dropped_by[row["uid"]] == ""]
    assert [float(v) for v in re.findall(r'class="val">([\d.]+)<', dropped)] == blamed[::-1][:2]
    assert [float(v) for v in re.findall(r'class="val">([\d.]+)<', kept)] == good[:2]


def test_nothing_in_a_caption_is_obeyed(made: Made) -> None:
    text, page = page_of(made.out)
    assert page.count("script") == 1 and "<b>gone</b>" not in text
    assert not [a for _, a in page.tags if any(name.startswith("on") for name in a)]
    captions = "".join(data for tag, data in page.texts if tag == "bdi")
    assert "<script>alert(1)</script><img src=x onerror=alert(2)>" in captions
    assert "القط على السجادة" in captions and "猫がマットの上に\u2400いる" in captions
    assert all(page.count(tag) == 0 for tag in ("iframe", "object", "form"))


def test_one_file_that_fetches_nothing(made: Made) -> None:
    _, page = page_of(made.out)
    links = [value for _, a in page.tags for name, value in a.items() if name in ("src", "href", "srcset", "poster")]
    assert links and all(str(link).startswith(("data:", "#")) for link in links)
    assert page.count("img") > 0


def test_failures_by_reason(made: Made) -> None:
    text, _ = page_of(made.out)
    told = re.findall(r'data-status="(\w+)">\s*<div><span class="n">(\d+)<', text)
    assert told == [("lost", "2"), ("truncated", "1")]
    assert "&lt;b&gt;gone&lt;/b&gt;" in text


def test_labels_table_precision_and_recall(made: Made, tmp_path: Path) -> None:
    rows = [row for shard in made.shards.values() for row in shard]
    kinds = ["<clean>" if row["score"] > 0.5 else "noise" for row in rows]
    uids = [*(row["uid"] for row in rows), "f" * 32]
    frame = {"uid": uids, "kind": [*kinds, "noise"], "match": [*(k != "noise" for k in kinds), False]}
    pl.DataFrame(frame).write_parquet(tmp_path / "labels.parquet")
    text, _ = page_of(made.out, labels=str(tmp_path / "labels.parquet"))
    kept = {row["uid"] for row in rows if made.dropped_by[row["uid"]] == ""}
    good = {uid for uid, kind in zip(uids, kinds, strict=False) if kind != "noise"}
    assert f"precision: {len(kept & good)} of {len(kept)} kept are matches" in text
    assert f"recall: {len(kept & good)} of {len(good)} matches were kept" in text
    assert "AUC against the labels 1.000" in text.split('data-column="score"')[1].split("</h3>")[1][:200]
    noise = text.split('data-kind="noise"')[1].split("</tr>")[0]
    assert re.findall(r"<td>(\d+)</td>", noise) == [str(len(uids) - len(good)), "0", "1"]


def test_labels_without_their_columns(made: Made, tmp_path: Path) -> None:
    pl.DataFrame({"uid": ["a"]}).write_parquet(tmp_path / "labels.parquet")
    with pytest.raises(DataError, match="kind, match is not there"):
        build_report(made.out, "kept", ReportOptions(labels=str(tmp_path / "labels.parquet")))


def test_time_recipe_and_versions(made: Made) -> None:
    text, _ = page_of(made.out)
    assert re.search(r'data-stage="embed_images">.*?<td>16</td><td>1</td>', text, re.S)  # 8 s a shard; 19 samples
    assert "name: made-by-hand" in text and "ab" * 32 in text and "2.15.0" in text


def test_missing_and_changed_tars_leave_a_placeholder(made: Made, tmp_path: Path) -> None:
    (tmp_path / "tars/000.tar").unlink()
    (tmp_path / "tars/001.tar").write_bytes(bytes(1 << 16))
    text, page = page_of(made.out)
    assert page.count("img") == 0
    assert "its tar is not at hand" in text and "its tar has changed since" in text


def test_pictures_come_from_where_the_pool_stands_now(made: Made, tmp_path: Path) -> None:
    before, (tars, moved) = page_of(made.out)[1].count("img"), (tmp_path / "tars", tmp_path / "moved")
    tars.rename(moved)
    assert page_of(made.out)[1].count("img") == 0
    paths = sorted(str(path) for path in moved.glob("*.tar"))
    (tmp_path / "out/run.json").write_text(json.dumps({"pool": paths}))
    assert page_of(made.out)[1].count("img") == before > 0


def test_bytes_that_are_no_image_leave_a_placeholder(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "out/metadata/000.parquet"
    pl.read_parquet(path).with_columns(sha256=pl.lit("")).write_parquet(path)
    (tmp_path / "tars/000.tar").write_bytes(b"<html>" * 9999)
    assert "not an image" in page_of(made.out)[0]


def test_empty_pool_and_no_rules(tmp_path: Path) -> None:
    for name, shards in (("empty", {"000": []}), ("full", {"000": rows_of(tmp_path / "tars", "000", 3)})):
        out = make_out(tmp_path / name, tmp_path / "tars", shards, []).out
        text, page = page_of(out)
        assert page.ids["n-in"] == page.ids["n-kept"] == str(len(shards["000"]))
        assert "No rule: every sample that is well is kept." in text
        assert not [data for tag, data in page.texts if re.search(r"\bnan\b", data) and tag != "script"]


def test_same_bytes_from_the_same_files(made: Made) -> None:
    assert page_of(made.out)[0] == page_of(made.out)[0]


def test_no_value_and_equal_values(tmp_path: Path) -> None:
    scores = {"score": [float("nan"), None, float("inf"), 1.5], "flat": [0.0] * 4}
    rows = make_rows(tmp_path / "tars", "000", ["a"] * 4, scores)
    text, _ = page_of(make_out(tmp_path / "out", tmp_path / "tars", {"000": rows}, []).out)
    assert "3 without a value" in text


def test_pool_changed_since_select(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "out/subsets/kept/000.parquet"
    pl.read_parquet(path).head(3).write_parquet(path)
    with pytest.raises(DataError, match="5 samples of the shard have no decision"):
        build_report(made.out)


def test_decisions_in_another_order_join_on_uid(made: Made, tmp_path: Path) -> None:
    before = page_of(made.out)[0]
    path = tmp_path / "out/subsets/kept/000.parquet"
    pl.read_parquet(path).reverse().write_parquet(path)
    assert page_of(made.out)[0] == before


@given(
    st.lists(st.floats(-1e6, 1e6) | st.integers(-1000, 1000).map(float), max_size=50),
    st.lists(st.floats(-1e6, 1e6), max_size=2),
)
def test_edges_hold_the_thresholds(values: list[float], cuts: list[float]) -> None:
    edges = _edges(np.array(values), cuts, all(v == round(v) for v in values))
    assert (np.diff(edges) > 0).all() and 2 <= len(edges) <= 62
    if values:
        near = 1e-6 * (edges[1] - edges[0])
        assert all(edges[0] - near <= cut <= edges[-1] + near for cut in cuts)


def test_numbers_and_ticks() -> None:
    assert [number(v) for v in (0.24312, 224.0, 1.5, float("nan"))] == ["0.2431", "224", "1.5", "none"]
    assert number(1234567.0) == "1,234,567"
    assert [round(v, 6) for v in ticks(0.08, 0.42, 6)] == [0.1, 0.2, 0.3, 0.4]
    assert nice_step(5000, 3) == 2000 and nice_step(0, 3) == 1


@pytest.mark.browser
def test_in_a_browser_nothing_fails_or_is_fetched(made: Made) -> None:
    chromium = "/usr/bin/chromium"
    if not os.path.exists(chromium):
        pytest.skip(f"{chromium} is not installed")
    sync_api = pytest.importorskip("playwright.sync_api")
    path = build_report(made.out)
    quiet = ["--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-sync", *quiet]
        browser = playwright.chromium.launch(executable_path=chromium, args=arguments)
        page = browser.new_page(viewport={"width": 390, "height": 844})
        said: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{path}")
        page.click("#theme")
        page.click("button.more >> nth=0")
        widths = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        loaded = page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        browser.close()
    assert said == [] and loaded and widths[0] <= widths[1]
    assert all(url.startswith(("file:", "data:")) for url in asked)


def test_shards_that_are_not_there_yet_are_named(made: Made, tmp_path: Path) -> None:
    run = {"pool": ["p/000.tar", "p/001.tar", "p/002.tar"], "seconds": {"embed": 12.5}}
    (tmp_path / "out/run.json").write_text(json.dumps(run))
    with pytest.raises(DataError, match=r"1 of the run's 3 shards .*002 lacks its commit.*--allow-missing"):
        page_of(made.out)
    text, _ = page_of(made.out, allow=Allow(missing=True))
    assert "Without 1 shard (002) of the run" in text
    assert "1 of the shards the run was given is not in these numbers" in text and "p/002.tar" in text
    assert "embed 12.5 s" in text
