"""A score that raises on some samples, and a shard that is given up: both are counted to the sample."""

import json
from dataclasses import replace

import numpy as np
import pytest
from odd_content import entry, shard, sound
from tars import uid, write_pool

from jobs.outdir import count_attempt
from mmfilter.culprits import culprits
from mmfilter.expected import counted_failures
from mmfilter.plugs import Score
from mmfilter.recipe import parse_recipe
from mmfilter.shard import process_shard
from mmfilter.sidecar import read_failures, read_stored
from mmfilter.work import plan_work


class Brittle(Score):
    """A column of ones; it raises on captions with a digit that it was told of. `pixels`: in the pass over them."""

    bad: str = "35"
    pixels: bool = True
    error: type = KeyError

    @property
    def columns(self):
        return ("brittle",)

    @property
    def needs(self):
        return frozenset({"text", "bytes"} if self.pixels else {"text"})

    def __call__(self, batch):
        for text in batch["text"]:
            if text[-1] in self.bad:
                raise self.error(text)
        return {"brittle": np.ones(len(batch["text"]))}


class BrittleLook(Brittle):
    """The same, in a look at the pixels."""

    def look(self, batch):
        return {"looked": super().__call__(batch)["brittle"]}

    def __call__(self, batch):
        return {"brittle": np.asarray(batch["looked"])}


def process(path, out, *scores, **fields):
    recipe = replace(parse_recipe(json.dumps({"name": "t", "scores": ["caption"]}), "t"), scores=scores)
    return process_shard(path, replace(plan_work(recipe, str(out), {}), **fields), {})


@pytest.mark.parametrize("score", [Brittle(), Brittle(pixels=False), BrittleLook()], ids=["pixels", "text", "look"])
def test_a_score_that_raises_on_some_samples_costs_these(tmp_path, score):
    (path,) = write_pool(tmp_path / "pool", 1, 9)
    report = process(path, tmp_path / "out", score, batch_size=4)
    assert (report.read, report.ok, report.failed) == (9, 7, {"content_error": 2})
    found = read_failures(str(tmp_path / "out"), "00000000")
    assert sorted(failure.uid for failure in found) == [uid(3), uid(5)] and "KeyError" in found[0].error
    assert read_stored(str(tmp_path / "out"), "00000000").table["brittle"].to_pylist() == [1.0] * 7


def test_a_score_that_raises_on_all_or_of_the_machine_is_no_fault_of_a_sample(tmp_path):
    (path,) = write_pool(tmp_path / "pool", 1, 9)
    with pytest.raises(KeyError):
        process(path, tmp_path / "out", Brittle(bad="012345678"))
    with pytest.raises(MemoryError):
        process(path, tmp_path / "out", Brittle(error=MemoryError))


def test_culprits():
    def call(rows):
        if raising & set(rows):
            raise ValueError
        return sum(rows)

    for raising in (set(), {0}, {6}, {2, 3}, {0, 1, 2, 3, 4, 5}):
        value, raised = culprits(call, 7)
        assert value == 21 - sum(raising) and raised.keys() == raising
    raising = {0}
    assert culprits(call, 1)[1].keys() == {0}


def test_a_shard_that_is_given_up_is_counted_to_its_samples(tmp_path):
    named = shard(tmp_path / "00000000.tar", sound(4), entry(b"alone.jpg", b"x"), entry(b"caf\xe9.txt", b"x"))
    rows = counted_failures(named, "shard_set_aside", "why")
    assert [row.key for row in rows] == [*(f"{n:09d}" for n in range(4)), "alone", "caf\\udce9"]
    assert {(row.status, row.error) for row in rows} == {("shard_set_aside", "why")}
    (tmp_path / "00000000_stats.json").write_text('{"successes": 9}')
    assert len(counted_failures(named, "shard_set_aside", "why")) == 9, "the files beside it come first"
    (tmp_path / "00000001.tar").write_bytes(b"")
    assert len(counted_failures(str(tmp_path / "00000001.tar"), "shard_set_aside", "why")) == 1
    assert len(counted_failures(str(tmp_path / "none.tar"), "shard_set_aside", "why")) == 1


def test_a_given_up_shard_without_sidecars_is_whole_in_the_counts(tmp_path, mmfilter):
    write_pool(tmp_path / "pool", 2, 5, stats=False)
    out = tmp_path / "out"
    for _ in range(3):
        count_attempt(str(out), "00000001", "OSError: [Errno 5] Input/output error")
    (tmp_path / "t.yaml").write_text('{"name": "t", "scores": ["caption"], "select": {"caption": {"min_words": 2}}}')
    code, shown, err = mmfilter("run", tmp_path / "t.yaml", "--pool", tmp_path / "pool", "--out", out, "--local")
    assert code == 3 and "in 10 = kept 5 (50.0%) + dropped 0 + failed 5" in shown, err
    assert "accounted for" not in (out / "report.html").read_text()
