"""A shard cut into pieces, done by several workers, has the bytes of one that was done whole."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from jobs_util import recipe_text, results
from store_util import served, store
from tars import jpeg, sample, samples, tar

from jobs import driver
from jobs.cluster import Width
from jobs.embed import embed_pool
from mmfilter import feed, pieces, storage
from mmfilter.embed import load
from mmfilter.pieces import Piece, cut
from mmfilter.recipe import parse_recipe
from mmfilter.shard import process_piece, process_shard
from mmfilter.work import plan_work

__all__ = ["served", "store"]  # fixtures

UNIT = 6
WELL, BROKEN = 23, 5


@pytest.fixture
def shard(tmp_path, monkeypatch):
    """Units of six: two whole ones, one with a sample that cannot be decoded, and what fails between and after."""
    monkeypatch.setattr(feed, "UNIT", UNIT)
    monkeypatch.setattr(pieces, "UNIT", UNIT)
    rows = [*samples(12), *sample(30)[::2], *samples(3, start=12), *sample(31, image=jpeg()[:90])]
    rows += [*sample(1), *samples(8, start=15), *sample(32)[1:], *sample(33, image=b"")]
    path = tmp_path / "pool" / "00000000.tar"
    path.parent.mkdir()
    path.write_bytes(tar(rows))
    path.with_name("00000000_stats.json").write_text(json.dumps({"successes": 24}))
    return str(path)


@pytest.fixture(scope="module")
def recipe(tiny_model):
    return parse_recipe(recipe_text(tiny_model), "t")


@pytest.fixture(scope="module")
def embedders(recipe):
    return {name: load(name, spec) for name, spec in recipe.embed.items()}


def work(recipe, out):
    return replace(plan_work(recipe, str(out), {"b32": "sha"}), batch_size=4)


def test_pieces_in_any_order_have_the_bytes_of_the_whole(shard, tmp_path, recipe, embedders):
    whole = process_shard(shard, work(recipe, tmp_path / "whole"), embedders)
    assert (whole.ok, whole.read) == (WELL, WELL + BROKEN)
    for of, order in ((2, (1, 0)), (4, (2, 0, 3, 1))):
        out = tmp_path / f"of{of}"
        reports = [process_piece(cut(shard, of)[n], work(recipe, out), embedders) for n in order]
        assert reports[:-1] == [None] * (of - 1)
        assert replace(reports[-1], seconds={}) == replace(whole, seconds={})
        assert results(out) == results(tmp_path / "whole")
        assert not list((out / "pieces").iterdir())
        notes = [json.loads((o / "metadata/00000000.json").read_text())["notes"] for o in (out, tmp_path / "whole")]
        assert notes[0] == notes[1]


def test_a_lie_about_the_number_of_samples_costs_nothing(shard, tmp_path, recipe, embedders):
    process_shard(shard, work(recipe, tmp_path / "whole"), embedders)
    for units in (2, 9):
        out = tmp_path / f"units{units}"
        for number in range(2):
            process_piece(Piece(shard, number, 2, units), work(recipe, out), embedders)
        assert results(out) == results(tmp_path / "whole")


def test_a_piece_of_another_batch_size_is_not_joined(shard, tmp_path, recipe, embedders):
    first, second = cut(shard, 2)
    other = replace(work(recipe, tmp_path), batch_size=3)
    assert process_piece(first, other, embedders) is None
    assert process_piece(second, work(recipe, tmp_path), embedders) is None
    assert process_piece(first, work(recipe, tmp_path), embedders).ok == WELL


def test_a_shard_is_cut_where_workers_would_stand_idle(shard, tmp_path, recipe, ray_here, monkeypatch):
    """In this process, so that its small units hold; a piece that crashes costs its shard no attempt."""
    asked, crash = Counter(), []

    def drive(tasks, make, width):
        asked.update(type(task).__name__ for task in tasks)
        for task, result in driver.drive(tasks, make, replace(width, local=True)):
            yield task, driver.Crash("died") if asked["Piece"] and not asked["str"] and crash else result

    monkeypatch.setattr("jobs.embed.drive", drive)
    embed_pool(recipe, [shard], str(tmp_path / "whole"), Width(local=True))
    for name, want in (("cut", {"Piece": 4}), ("crashed", {"Piece": 4, "str": 1})):
        asked.clear()
        crash += ["yes"] if name == "crashed" else []
        counts = embed_pool(recipe, [shard], str(tmp_path / name), Width(workers=2, gpus=0))
        assert asked == want and (counts.ok, counts.read) == (WELL, WELL + BROKEN)
        assert results(tmp_path / name) == results(tmp_path / "whole")
        assert not (tmp_path / name / "pieces").exists() and not (tmp_path / name / "attempts").exists()


def test_pieces_on_a_store_in_a_storm(store, shard, tmp_path, recipe, embedders):
    process_shard(shard, work(recipe, tmp_path / "whole"), embedders)
    store.put(Path(shard).parent, "pool")
    store.weather.storm(0.15, "busy", "lost", "cut", "short")
    there = replace(work(recipe, "x"), out=f"{store.root}/out")
    reports = [process_piece(piece, there, embedders) for piece in cut(f"{store.root}/pool/00000000.tar", 2)]
    assert sum(store.weather.seen.values()) > 1
    store.weather.calm()
    assert reports[0] is None and (reports[1].ok, reports[1].read) == (WELL, WELL + BROKEN)
    assert results(store.get("out", tmp_path / "far")) == results(tmp_path / "whole")
    assert storage.names(f"{store.root}/out/pieces") == []
