"""The report and explain over what the real `select` writes."""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import polars as pl
from report_util import Row, make_out, make_rows, page_of, rows_of

from mmfilter.explain import explain
from mmfilter.rules import build_rule
from mmfilter.select import SelectOptions, select
from mmfilter.table import open_table


def chosen(tmp_path: Path, node: object) -> tuple[str, list[Row]]:
    """Two shards decided by the real `select`; the second repeats the first row's uid."""
    tars = tmp_path / "tars"
    shards = {stem: rows_of(tars, stem) for stem in ("000", "001")}
    shards["001"][0]["uid"] = shards["000"][0]["uid"]
    out = make_out(tmp_path / "out", tars, shards, []).out
    shutil.rmtree(os.path.join(out, "subsets"))
    source = {"name": "nested", "select": node}
    select(open_table(out), build_rule(node, "select"), SelectOptions(out, "nested", source=source))
    return out, [row for rows in shards.values() for row in rows]


def test_what_select_writes_is_what_the_report_shows(tmp_path: Path) -> None:
    node = {
        "all": [
            {"any": [{"language": {"is": "en"}}, {"threshold": {"score": "score", "min": 0.5}}]},
            {"not": {"threshold": {"score": "extra_score", "max": 0.2}}},
            {"fraction": {"score": "score", "keep": 0.5}},
        ]
    }
    out, rows = chosen(tmp_path, node)
    text, page = page_of(out)
    kept = len(np.load(os.path.join(out, "subsets", "nested.npy")))
    told = {name: int(page.ids[f"n-{name}"]) for name in ("in", "kept", "dropped", "failed")}
    assert told == {"in": 16, "kept": kept, "dropped": 15 - kept, "failed": 1}
    assert 'role="alert"' not in text and "Nothing is lost" in text
    assert re.findall(r'data-status="(\w+)">\s*<div><span class="n">(\d+)<', text) == [("uid_repeated", "1")]
    assert text.count("data-path=") == 3
    found = explain(out, next(row["uid"] for row in rows if row["score"] == 0.1))
    assert found.status == "dropped" and found.dropped_by == "all[1].not.threshold"
    assert [(v.path, v.keep) for v in found.verdicts][:2] == [
        ("all[0].any[0].language", True),
        ("all[0].any[1].threshold", False),
    ]
    assert found.verdicts[1].values == {"score": 0.1} and "score >= 0.5" in found.verdicts[1].rule
    assert len(explain(out, rows[0]["uid"]).places) == 2


def test_a_threshold_is_compared_in_the_columns_own_precision(tmp_path: Path) -> None:
    shard = make_rows(tmp_path / "tars", "000", ["a", "b"], {"score": [0.7, 0.5]})
    out = make_out(tmp_path / "out", tmp_path / "tars", {"000": shard}, []).out
    path = tmp_path / "out/metadata/000.parquet"
    pl.read_parquet(path).with_columns(pl.col("score").cast(pl.Float32)).write_parquet(path)
    node = {"threshold": {"score": "score", "min": 0.7}}
    select(open_table(out), build_rule(node, "select"), SelectOptions(out, "kept", source={"select": node}))
    card = page_of(out)[0].split('data-column="score"')[1].split("</article>")[0]
    sides = re.findall(r"0\.7</th><td>(\d+)</td>\s*<td>[^<]*</td><td>(\d+)</td>", card)
    assert sides == [("1", "0"), ("1", "1")]
