"""Duplicates found against those known: plain counting, and what the report prints of the demo's."""

import json
import re

import polars as pl
import pytest

from mmfilter.report.copies import compare, read_pictures

KINDS = ("duplicate_cropped", "duplicate_exact", "duplicate_reencoded", "duplicate_resized")


def test_a_mark_is_right_when_the_kept_one_shows_the_same_picture(tmp_path):
    labels = {
        "uid": ["a", "b", "c", "d", "e", "f"],
        "kind": ["clean", "duplicate_exact", "duplicate_cropped", "clean", "duplicate_exact", "duplicate_exact"],
        "duplicate_of": ["", "a", "a", "", "d", "d"],
    }
    pl.DataFrame(labels).write_parquet(tmp_path / "l.parquet")
    pictures = read_pictures(str(tmp_path / "l.parquet"))
    assert pictures is not None and pictures.sort("uid")["picture"].to_list() == ["a", "a", "a", "d", "d", "d"]
    found = pl.DataFrame({"uid": list("abcdef"), "duplicate_of": ["", "a", None, "a", "", ""]})
    copies = compare(found, pictures)
    assert (copies.marked, copies.right, copies.copies) == (2, 1, 4)
    assert copies.kinds == [("duplicate_cropped", 1, 1), ("duplicate_exact", 3, 1)]
    assert (copies.precision, copies.recall) == (50.0, 25.0)
    pl.DataFrame({"uid": ["a"], "kind": ["clean"], "match": [True]}).write_parquet(tmp_path / "m.parquet")
    assert read_pictures(str(tmp_path / "m.parquet")) is None


@pytest.mark.slow
def test_the_demo_reports_its_injected_duplicates(tmp_path, mmfilter):
    code, said, _ = mmfilter("demo", "--samples", 400, "--out", tmp_path / "o", "--local", "--json")
    assert code == 0
    counts = json.loads(said)["counts"]
    assert counts["in"] == 400 == counts["kept"] + counts["dropped"] + counts["failed"]
    text = (tmp_path / "o/report.html").read_text()
    rows = {kind: re.findall(r"<td>([^<]*)</td>", text.split(f'data-copies="{kind}"')[1])[:2] for kind in KINDS}
    labels = pl.read_parquet(tmp_path / "o/pool/labels/labels.parquet")
    found = pl.read_parquet(tmp_path / "o/columns/duplicate_of/*.parquet").filter(pl.col("duplicate_of") != "")
    for kind in KINDS:
        known = labels.filter(pl.col("kind") == kind)
        picture = dict(zip(labels["uid"], labels["duplicate_of"], strict=True))
        right = {
            picture[uid] or uid
            for uid, kept in found.select("uid", "duplicate_of").iter_rows()
            if (picture[uid] or uid) == (picture[kept] or kept)
        }
        hit = sum(of in right for of in known["duplicate_of"])
        assert rows[kind] == [str(known.height), str(hit)], kind
    assert int(rows["duplicate_exact"][1]) == int(rows["duplicate_exact"][0]), "a copy of the file is always found"
