"""`explain`: the verdicts on one sample, from the files a run leaves."""

from pathlib import Path

import polars as pl
import pytest
from report_util import Made, Row, Rule, make_out, make_rows

from mmfilter.errors import UsageError
from mmfilter.explain import explain

RULES = [
    Rule("all[0].caption", "at least 2 words", lambda row: len(row["text"].split()) >= 2, ["text"]),
    Rule("all[1].threshold", "score >= 0.5", lambda row: row["score"] >= 0.5, ["score"], {"score": [0.5]}),
]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    texts = ["a red cat", "dog", "a dog\x1b[31m", "cat"]
    a = make_rows(tmp_path / "tars", "000", texts, {"score": [0.9, 0.8, 0.1, 0.2]})
    b = make_rows(tmp_path / "tars", "001", ["two birds"], {"score": [0.7]})
    failed: list[Row] = [{"key": "0009", "uid": "f" * 32, "status": "truncated", "error": "the tar ends at 1,024"}]
    return make_out(tmp_path / "out", tmp_path / "tars", {"000": a, "001": b}, RULES, {"001": failed})


def test_kept_sample_tells_every_rule_and_its_values(made: Made) -> None:
    row = made.shards["000"][0]
    found = explain(made.out, row["uid"])
    assert (found.status, found.dropped_by, found.text) == ("kept", "", "a red cat")
    assert found.places == (f"000/{row['key']}",)
    assert [(v.path, v.keep, v.values) for v in found.verdicts] == [
        ("all[0].caption", True, {"text": "a red cat"}),
        ("all[1].threshold", True, {"score": 0.9}),
    ]


@pytest.mark.parametrize(("i", "keeps"), [(1, [False, True]), (2, [True, False]), (3, [False, False])])
def test_dropped_sample_names_the_first_rule_to_blame(made: Made, i: int, keeps: list[bool]) -> None:
    found = explain(made.out, made.shards["000"][i]["uid"], "kept")
    assert found.status == "dropped"
    assert [verdict.keep for verdict in found.verdicts] == keeps
    assert found.dropped_by == RULES[keeps.index(False)].path


def test_upper_case_uid_is_the_same_uid(made: Made) -> None:
    assert explain(made.out, made.shards["001"][0]["uid"].upper()).status == "kept"


def test_failed_sample_gives_its_reason(made: Made) -> None:
    found = explain(made.out, "f" * 32)
    assert (found.status, found.failure, found.places) == ("failed", "truncated", ("001/0009",))
    assert "the tar ends at 1,024" in "\n".join(found.lines())


def test_unknown_uid_says_what_was_searched(made: Made) -> None:
    with pytest.raises(UsageError, match=r"searched 2 shards' decisions in .*kept and the failures of 1 shards"):
        explain(made.out, "0" * 32)


def test_unknown_subset_names_the_nearest(made: Made) -> None:
    with pytest.raises(UsageError, match="did you mean 'kept'"):
        explain(made.out, "0" * 32, "kep")


def test_nothing_selected_yet(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing was selected"):
        explain(str(tmp_path), "0" * 32)


def test_lines_are_plain_whatever_a_caption_holds(made: Made) -> None:
    lines = explain(made.out, made.shards["000"][2]["uid"]).lines()
    assert lines[0].endswith("dropped by all[1].threshold")
    assert all(line.isprintable() for line in lines)
    assert any("\\x1b[31m" in line for line in lines)
    assert any(line.split()[:2] == ["drop", "all[1].threshold"] and "score = 0.1" in line for line in lines)


def test_a_uid_in_two_shards_lists_both_places(made: Made, tmp_path: Path) -> None:
    uid, other = made.shards["000"][0]["uid"], made.shards["001"][0]
    for path in (tmp_path / "out/metadata/001.parquet", tmp_path / "out/subsets/kept/001.parquet"):
        pl.read_parquet(path).with_columns(uid=pl.lit(uid)).write_parquet(path)
    places = explain(made.out, uid).places
    assert places == (f"000/{made.shards['000'][0]['key']}", f"001/{other['key']}")


def test_added_columns_are_read_too(made: Made, tmp_path: Path) -> None:
    rules = [*RULES, Rule("all[2].threshold", "late >= 1", lambda row: True, ["late"], {"late": [1.0]})]
    again = make_out(tmp_path / "out", tmp_path / "tars", made.shards, rules)
    for stem, rows in made.shards.items():
        (tmp_path / "out/columns/late").mkdir(parents=True, exist_ok=True)
        late = pl.DataFrame({"uid": [row["uid"] for row in rows], "late": [3.5] * len(rows)})
        late.write_parquet(tmp_path / f"out/columns/late/{stem}.parquet")
    assert explain(again.out, made.shards["001"][0]["uid"]).verdicts[2].values == {"late": 3.5}
