"""What a run leaves on record of itself: times, dates, the pool, its card; and whether its columns are still those."""

import io
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from report_util import Page
from tars import sample, tar
from typer.testing import CliRunner

from jobs import cli
from jobs.clock import StepClock
from jobs.cluster import Width
from jobs.run import RunOptions, run_recipe
from mmfilter.dates import shown
from mmfilter.json_file import encode
from mmfilter.recipe import load_recipe, parse_recipe
from mmfilter.records import Failure
from mmfilter.select import select
from mmfilter.sidecar import write_failures

pytestmark = pytest.mark.slow  # together, not each: its fixtures take seconds

RECIPE = """
name: small
scores: [phash, {duplicates: {hamming: 2}}]
select:
  then:
    - caption: {min_words: 2}
    - not_duplicate: {}
"""
LOCAL = Width(local=True)


@pytest.fixture(scope="module", autouse=True)
def verbs():
    if not cli.app.registered_commands:
        cli.register()


def noise(n):
    """A picture like no other; those of 8 and 9 are the same."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(min(n, 8)).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def write(folder, stem, first):
    folder.mkdir(exist_ok=True)
    members = [member for n in range(first, first + 5) for member in sample(n, f"a picture {'x' * (n + 1)}", noise(n))]
    (folder / f"{stem}.tar").write_bytes(tar(members))
    return str(folder / f"{stem}.tar")


@pytest.fixture
def out(tmp_path):
    """A run over two shards of five samples."""
    pool = [write(tmp_path / "the pool", "000", 0), write(tmp_path / "the pool", "001", 5)]
    run_recipe(parse_recipe(RECIPE, "t"), pool, RunOptions(str(tmp_path / "out"), "small", LOCAL))
    return tmp_path / "out"


def again(out, pool=(), text=RECIPE, **fields):
    pool = pool or json.loads((out / "run.json").read_text())["pool"]
    return run_recipe(parse_recipe(text, "t"), list(pool), RunOptions(str(out), "small", LOCAL, **fields))


def call(*words):
    return CliRunner().invoke(cli.app, [*map(str, words)], catch_exceptions=True)


def test_a_second_run_that_finds_all_done_keeps_the_times_and_the_reports_bytes(out):
    before, page = (out / "run.json").read_bytes(), (out / "report.html").read_bytes()
    record, card = ((out / "subsets" / f"small.{end}").read_bytes() for end in ("json", "md"))
    (run,) = json.loads(before)["runs"]
    assert set(run["seconds"]) == {"embed", "pool_scores", "select", "reshard"} and run["seconds"]["embed"] > 0
    result = again(out)
    assert result["seconds"].keys() == run["seconds"].keys(), "this run's own are told"
    told, now = json.loads(before), json.loads((out / "run.json").read_bytes())
    assert [now[key] for key in ("runs", "seconds", "started")] == [told[key] for key in ("runs", "seconds", "started")]
    assert (out / "report.html").read_bytes() == page and (out / "subsets" / "small.md").read_bytes() == card
    lasting = [
        {k: v for k, v in json.loads(r).items() if k not in ("seconds", "check")}
        for r in (record, (out / "subsets/small.json").read_bytes())
    ]
    assert lasting[0] == lasting[1]


def test_a_run_that_has_more_to_do_adds_its_times(out):
    first = json.loads((out / "run.json").read_text())
    pool = [*first["pool"], write(out.parent / "the pool", "002", 10)]
    again(out, pool)
    told = json.loads((out / "run.json").read_text())
    assert told["runs"][0] == first["runs"][0] and len(told["runs"]) == 2 and told["started"] == first["started"]
    assert told["seconds"]["embed"] == pytest.approx(sum(run["seconds"]["embed"] for run in told["runs"]), abs=0.011)
    page = (out / "report.html").read_text()
    assert "Added up over 2 runs that had work to do" in page


def test_times_of_an_older_version_and_of_a_run_that_was_stopped_are_kept(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"pool": [], "seconds": {"embed": 7.0, "select": 0.5}}))
    clock = StepClock(str(tmp_path))
    with pytest.raises(KeyboardInterrupt), clock.step("embed"):
        raise KeyboardInterrupt
    told = json.loads((tmp_path / "run.json").read_text())
    assert told["runs"] == [
        {"seconds": {"embed": 7.0, "select": 0.5}},
        {"started": clock.started, "seconds": {"embed": 0.0}},
    ]
    assert told["seconds"] == {"embed": 7.0, "select": 0.5}
    with pytest.raises(ValueError), StepClock(str(tmp_path)).step("embed"):
        raise ValueError
    assert json.loads((tmp_path / "run.json").read_text()) == told, "a mistake is no work"


def test_the_report_names_pool_shards_and_dates(out):
    told, page = json.loads((out / "run.json").read_text()), (out / "report.html").read_text()
    parsed = Page(page)
    assert str(out.parent / "the pool") in page and "2 shards: <bdi>000.tar to 001.tar" in page
    assert parsed.ids["started"] == shown(told["started"]) and re.fullmatch(
        r"20\d\d-\d\d-\d\d \d\d:\d\d UTC", parsed.ids["started"]
    )
    assert parsed.ids["selected"] == shown(json.loads((out / "subsets/small.json").read_text())["selected"])
    assert parsed.ids["shards"] == "2 read" and f"Of the run of {shown(told['runs'][0]['started'])}" in page
    for name in ("runs", "started"):
        told.pop(name)
    told["embed"]["shards_set_aside"] = {"002": "the worker was <b>killed</b>"}
    told["pool"] += [str(out.parent / "more" / "002.tar")]
    (out / "attempts").mkdir(exist_ok=True)
    (out / "attempts/002.json").write_text(json.dumps({"attempts": 3, "error": "the worker was killed"}))
    write_failures(str(out), "002", [Failure("k", "", "shard_set_aside", "the worker was killed")])
    (out / "run.json").write_bytes(encode(told))
    record = json.loads((out / "subsets/small.json").read_text())
    record.pop("selected")
    (out / "subsets/small.json").write_bytes(encode(record))
    assert call("report", out).exit_code == 0
    page = (out / "report.html").read_text()
    parsed = Page(page)
    assert parsed.ids["started"] == parsed.ids["selected"] == "date not recorded" and "On the clock: embed" in page
    assert (
        "1 not in these numbers, 1 set aside" in page and "&lt;b&gt;killed&lt;/b&gt;" in page and "/more</code>" in page
    )


def test_what_the_report_offers_to_paste_works(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = json.loads((out / "subsets/small.json").read_text())["counts"]["kept"]
    parsed = Page((out / "report.html").read_text())
    (uid, *_) = [text for tag, text in parsed.texts if tag == "code" and re.fullmatch("[0-9a-f]{32}", text.strip())]
    Path("recipe.yaml").write_text(parsed.ids["recipe"])
    for name in ("explain", "select"):
        program, *words = shlex.split(parsed.ids[f"{name}-command"])
        done = call(*[uid.strip() if word == "UID" else word for word in words])
        assert program == "mmfilter" and done.exit_code == 0, done.output
    assert f"kept {kept}" in done.output


def test_what_the_card_offers_to_paste_works(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    card = (out / "subsets" / "small.md").read_text()
    recipe, command = re.search(r"```yaml\n(.*?)```\n\n```sh\n(.*?)\n```", card, re.DOTALL).groups()
    Path("recipe.yaml").write_text(recipe)
    program, *words = shlex.split(command)
    done = call(*words, "--local")
    assert program == "mmfilter" and done.exit_code == 0, done.output
    made = Path(words[words.index("--out") + 1], "subsets", "small.npy")
    assert made.read_bytes() == (out / "subsets" / "small.npy").read_bytes() and made.parts[0] == "runs"


def test_a_column_replaced_after_select_is_told_by_report_and_explain(out):
    assert call("report", out).exit_code == 0 and 'class="alert' not in (out / "report.html").read_text()
    record = json.loads((out / "subsets/small.json").read_text())
    assert set(record["columns"]) == {"duplicate_of"}, "caption words are in no column"
    from jobs.pool_scores import add_pool_scores

    scores = parse_recipe(RECIPE.replace("hamming: 2", "hamming: 12"), "t").pool_scores
    add_pool_scores(scores, str(out), LOCAL, redo=True)
    assert call("report", out).exit_code == 0
    page = (out / "report.html").read_text()
    assert "Column duplicate_of, which its rules read, was replaced (hamming was 2 and is 12)." in page
    assert "The decisions are older than these columns" in page
    uid = re.search("[0-9a-f]{32}", call("query", out).output + page).group()
    said = call("explain", uid, "--out", out)
    assert said.exit_code == 0 and "hamming was 2 and is 12" in said.output and "Select small again" in said.output
    again(out, text=RECIPE.replace("hamming: 2", "hamming: 12"))
    assert "hamming was 2" not in (out / "report.html").read_text()
    record = json.loads((out / "subsets/small.json").read_text())
    del record["columns"], record["content"]  # as an earlier version wrote it
    (out / "subsets/small.json").write_bytes(encode(record))
    add_pool_scores(parse_recipe(RECIPE, "t").pool_scores, str(out), LOCAL, redo=True)
    assert call("report", out).exit_code == 0 and 'class="alert' not in (out / "report.html").read_text()


def test_select_writes_the_card_and_keeps_what_its_author_gave(out, tmp_path):
    card, recipe = out / "subsets" / "small.md", tmp_path / "small.yaml"
    recipe.write_text(RECIPE)
    assert "license: unknown" in card.read_text(), "run wrote it"
    assert call("card", out, "--license", "cc-by-4.0", "--pretty", "Mine: #1").exit_code == 0
    by_hand = card.read_text() + "\nBy hand.\n"
    card.write_text(by_hand)
    assert call("select", recipe, "--out", out).exit_code == 0 and card.read_text() == by_hand, "nothing changed"
    assert call("report", out).exit_code == 0 and card.read_text() == by_hand
    recipe.write_text(RECIPE.replace("min_words: 2", "min_words: 2, max_chars: 16"))
    assert call("select", recipe, "--out", out).exit_code == 0
    text = card.read_text()
    matter = yaml.safe_load(text.split("---\n")[1])
    assert matter["license"] == "cc-by-4.0" and matter["pretty_name"] == "Mine: #1" and "By hand" not in text
    assert "max_chars" in text, "the rules are the new ones"
    assert call("select", recipe, "--out", out, "--name", "other").exit_code == 0
    assert "license: unknown" in (out / "subsets" / "other.md").read_text()


def test_report_writes_a_card_that_is_missing_or_of_another_subset(out):
    card = out / "subsets" / "small.md"
    fresh = card.read_text()
    card.unlink()
    assert call("report", out).exit_code == 0 and card.read_text() == fresh
    rule = parse_recipe(RECIPE.replace("min_words: 2", "min_words: 2, max_chars: 16"), "t")
    from mmfilter.select import SelectOptions
    from mmfilter.table import open_table

    card.write_text(fresh)
    select(open_table(str(out)), rule.select, SelectOptions(str(out), "small", source=rule.source))
    card.write_text(fresh)  # as a kill between the two leaves it
    assert call("report", out).exit_code == 0 and "max_chars" in card.read_text() != fresh


def test_a_card_that_cannot_be_written_costs_no_subset(out, tmp_path, monkeypatch):
    from mmfilter.errors import DataError

    def fail(*_):
        raise DataError("a column is odd")

    monkeypatch.setattr("mmfilter.card.write_card", fail)
    (tmp_path / "small.yaml").write_text(RECIPE.replace("min_words: 2", "min_words: 3"))
    done = call("select", tmp_path / "small.yaml", "--out", out)
    assert done.exit_code == 0 and "its card is not: a column is odd" in done.output
    assert not (out / "subsets" / "small.md").exists(), "none that speaks of another subset"
    assert load_recipe(str(tmp_path / "small.yaml")).name == "small"
