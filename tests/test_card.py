"""The data card: its front matter is YAML, its numbers are the record's, and no text in it is obeyed."""

import html
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from report_util import EVIL, RULES, Made, Row, make_out, rows_of
from rules_util import make_uids, run, split, write_pool

from mmfilter.card import size_category, write_card
from mmfilter.card_facts import CardOptions
from mmfilter.errors import DataError, UsageError
from mmfilter.json_file import encode
from mmfilter.markdown import block, code, plain, table
from mmfilter.subset import Subset


@pytest.fixture
def made(tmp_path: Path) -> Made:
    tars = tmp_path / "tars"
    failed: list[Row] = [{"key": "0100", "uid": "f" * 32, "status": "lost", "error": "gone"}]
    made = make_out(tmp_path / "out", tars, {s: rows_of(tars, s) for s in ("000", "001")}, RULES, {"001": failed})
    Subset.from_uids([uid for uid, path in made.dropped_by.items() if path == ""]).write(f"{made.out}/subsets/kept.npy")
    return made


def card_of(out: str, **options: Any) -> tuple[dict[str, Any], str]:
    text = Path(write_card(out, "", CardOptions(**options))).read_text("utf-8")
    _, matter, body = text.split("---\n", 2)
    return dict(yaml.safe_load(matter)), body


def cells(body: str, first: str) -> list[str]:
    """The cells of the line whose first cell is `first`."""
    (line,) = [line for line in body.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_numbers_are_the_records(made: Made) -> None:
    matter, body = card_of(made.out, license="cc-by-4.0", pretty="Mine: a #1")
    record = json.loads(Path(made.out, "subsets/kept.json").read_text())
    assert matter["license"] == "cc-by-4.0" and matter["pretty_name"] == "Mine: a #1"
    assert matter["size_categories"] == ["n<1K"] and matter["language"] == ["en"]
    for name, n in record["counts"].items():
        assert cells(body, name)[1] == str(n)
    for step in record["steps"]:
        told = cells(body, f"`{step['path']}`")
        assert told[1:] == [f"`{step['text']}`", *(str(step[key]) for key in ("in", "dropped", "alone"))]
    assert cells(body, "`lost`")[1] == "1" and "1 samples of the pool could not be read" in body
    assert "ab" * 32 in body and cells(body, "`torch`")[1] == "`2.15.0`"
    kept = record["counts"]["kept"]
    assert cells(body, "`en`")[1:] == ["12 (75.0%)", f"{kept} (100.0%)"]
    assert "# Mine\\: a \\#1" in body and "Duplicates were not removed." in body


def test_the_same_files_give_the_same_bytes(made: Made, tmp_path: Path) -> None:
    first = Path(write_card(made.out)).read_bytes()
    shutil.copytree(made.out, tmp_path / "again" / "out")
    assert Path(write_card(str(tmp_path / "again/out"))).read_bytes() == first and not re.search(
        rb"20\d\d-\d\d-\d\d", first
    )


def test_nothing_that_came_from_outside_is_obeyed(made: Made) -> None:
    path = Path(made.out, "subsets/kept.json")
    record = json.loads(path.read_text())
    evil = f"{EVIL} | `x` [a](http://x) **b**\n# c\n---"
    record["recipe"] |= {"name": evil, "about": evil, "note": "```\n# out of the fence\n```"}
    record["steps"][0]["text"] = evil
    path.write_bytes(encode(record))
    matter, body = card_of(made.out)
    assert matter["pretty_name"] == evil
    fenced = re.sub(r"(?ms)^(`{3,})\w*\n.*?^\1$", "", body)
    assert "out of the fence" not in fenced and "<script" not in fenced and "<img" not in fenced
    assert len(re.findall(r"(?m)^# ", fenced)) == 1 and "](http" not in fenced
    told = cells(fenced, "`all[0].caption`")
    assert len(told) == 5 and html.unescape(told[1]) == f"<code>{evil.replace(chr(10), ' ')}</code>"


@given(st.text(max_size=40))
def test_text_stays_on_its_line_and_in_its_cell(text: str) -> None:
    line = re.sub(r"[\x00-\x1f\x7f\x85\u2028\u2029]", " ", text)
    assert len(table(["a", "b"], [(code(text), plain(text))]).splitlines()) == 3
    assert html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", plain(text))) == html.unescape(html.escape(line, False))
    span = code(text)
    assert "|" not in span
    if span.startswith("`") and line.strip():
        fence = re.match("`+", span)[0]  # type: ignore[index]
        inner = span[len(fence) : -len(fence)]
        assert fence not in re.findall("`+", inner) and inner.strip() == line.strip()
    lines = block(text).splitlines()
    assert not any(part.startswith(lines[0]) for part in text.splitlines())


@pytest.mark.parametrize(
    ("n", "told"),
    [
        (0, "n<1K"),
        (999, "n<1K"),
        (1000, "1K<n<10K"),
        (12_800_000, "10M<n<100M"),
        (10**12 - 1, "100B<n<1T"),
        (10**13, "n>1T"),
    ],
)
def test_size_categories(n: int, told: str) -> None:
    assert size_category(n) == told


def test_datacomps_metadata_without_decisions_and_an_empty_pool(tmp_path: Path) -> None:
    columns = {"uid": make_uids(40), "s": np.linspace(0, 1, 40).tolist()}
    pool = write_pool(tmp_path / "pool", split(columns, 3))
    run(tmp_path / "out", {"fraction": {"score": "s", "keep": 0.25}}, pool, decisions=False)
    matter, body = card_of(str(tmp_path / "out"), metadata=pool)
    assert "language" not in matter and cells(body, "kept")[1] == "10" and "10 (25.0%) of 40" in body
    shutil.copytree(pool, tmp_path / "none")
    empty = write_pool(tmp_path / "empty", [{"uid": [], "s": []}])
    run(tmp_path / "o2", {"everything": {}}, empty)
    assert cells(card_of(str(tmp_path / "o2"), metadata=empty)[1], "in")[1] == "0"


def test_select_takes_the_old_card_away(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", split({"uid": make_uids(10), "s": [0.5] * 10}, 2))
    run(tmp_path / "out", {"everything": {}}, pool)
    path = Path(write_card(str(tmp_path / "out"), "s", CardOptions(metadata=pool)))
    assert path.exists()
    run(tmp_path / "out", {"everything": {}}, pool)
    assert not path.exists()


def test_what_is_not_there(made: Made) -> None:
    with pytest.raises(UsageError, match="no subset is called"):
        write_card(made.out, "kepd")
    Path(made.out, "subsets/kept.npy").unlink()
    with pytest.raises(DataError, match=r"kept\.npy: is not there"):
        write_card(made.out)


def test_the_command_and_the_reports_card(made: Made, mmfilter: Any) -> None:
    code_, said, error = mmfilter("report", made.out)
    assert code_ == 0, error
    card = Path(made.out, "subsets/kept.md")
    assert "license: unknown" in card.read_text()
    code_, said, error = mmfilter("card", made.out, "--license", "other", "--pretty", "P")
    assert code_ == 0 and said.strip() == str(card), error
    assert "license: other" in card.read_text() and "# P\n" in card.read_text()
