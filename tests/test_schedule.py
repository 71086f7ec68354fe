"""Repeats and schedules: subset arithmetic, RS2 and SeTa against their definitions, the verb, and a reshard of both."""

import json
import os
from collections import Counter

import numpy as np
import polars as pl
import pytest
from rules_util import make_uids, split, write_pool
from typer.testing import CliRunner

from jobs import cli
from mmfilter.epochs import Window, kmeans_1d, rs2, seta
from mmfilter.errors import DataError, UsageError
from mmfilter.file_record import record_of
from mmfilter.schedule import Schedule, load_schedule, write_schedule
from mmfilter.subset import Subset
from mmfilter.uids import format_uids, parse_uids


def subset(n, seed=0):
    return Subset.from_uids(make_uids(n, seed))


def refused(*words, says):
    """The command line says so, in this process."""
    if not cli.app.registered_commands:
        cli.register()
    result = CliRunner().invoke(cli.app, [str(word) for word in words])
    assert isinstance(result.exception, UsageError) and says in str(result.exception)


def test_counts_add_up_and_multiply():
    uids = make_uids(30)
    a, b = Subset.from_uids(uids[:20] + uids[:5]), Subset.from_uids(uids[10:])
    assert Counter((a + b).strings()) == Counter(a.strings()) + Counter(b.strings())
    assert Counter((a * 3).strings()) == Counter({uid: 3 * n for uid, n in Counter(a.strings()).items()})


def test_the_verb_repeats(tmp_path, mmfilter):
    uids = make_uids(9)
    for name, some in (("a", uids[:6]), ("b", uids[4:])):
        Subset.from_uids(some).write(str(tmp_path / f"{name}.npy"))
    a, b, c = (tmp_path / f"{name}.npy" for name in "abc")
    code, said, error = mmfilter("subset", a, "*", 3, "+", b, "--write", c)
    assert code == 0 and "23 uids, 9 different" in said, error
    assert Counter(Subset.read(str(c)).strings()) == Counter(uids[:6] * 3 + uids[4:])
    for words, says in (
        ((a, "*", b), "a number from 1 to 1000"),
        ((a, "x", b), "'x' stands where"),
        ((a, "+"), "give"),
    ):
        code, _, error = mmfilter("subset", *words)
        assert code == 2 and says in error


@pytest.mark.parametrize("n", [0, 1, 10, 47])
def test_rs2_without_replacement_passes_over_all_before_any_again(n):
    pool = subset(n)
    epochs = list(rs2(pool, 9, 0.3, seed=5, replacement=False))
    size = round(0.3 * n)
    seen = Counter()
    for epoch in epochs:
        assert len(epoch) == size == len(epoch.unique()) and len(epoch - pool) == 0
        seen.update(epoch.strings())
        counts = [seen[uid] for uid in pool.strings()]
        assert max(counts, default=0) - min(counts, default=0) <= (1 if size else 0)
    assert [e.strings() for e in rs2(pool, 9, 0.3, seed=5, replacement=False)] == [e.strings() for e in epochs]


def test_rs2_with_replacement_draws_afresh():
    pool = subset(2000)
    epochs = list(rs2(pool, 4, 0.25, seed=1))
    assert [len(e) for e in epochs] == [500] * 4 and all(len(e.unique()) == 500 for e in epochs)
    for i in range(3):
        assert 80 < len(epochs[i] & epochs[i + 1]) < 170, "a quarter of a quarter, up to chance"
    assert next(rs2(pool, 1, 0.25, seed=2)) != epochs[0]
    shuffled = Subset(pool.uids[np.random.default_rng(0).permutation(2000)])
    assert next(rs2(shuffled, 1, 0.25, seed=1)) == epochs[0]
    twice = next(rs2(pool * 2, 1, 0.5, seed=1))
    counts = Counter(Counter(twice.strings()).values())
    assert len(twice) == 2000 and counts[1] > 800 and counts[2] > 400, "copies are drawn apart"


@pytest.mark.parametrize("k", [1, 2, 5, 40])
def test_groups_are_intervals_whose_borders_lie_midway(k):
    rng = np.random.default_rng(k)
    for values in (rng.normal(size=300), rng.integers(0, 4, 50).astype(float), np.ones(7), np.empty(0)):
        group = kmeans_1d(values, k)
        assert sorted(set(group.tolist())) == list(range(min(k, len(np.unique(values))) if len(values) else 0))
        order = rng.permutation(len(values))
        np.testing.assert_array_equal(kmeans_1d(values[order], k), group[order])
        means = np.array([values[group == g].mean() for g in sorted(set(group.tolist()))])
        assert (np.diff(means) > 0).all()
        if len(values):
            nearest = np.abs(values[:, None] - means[None]).argmin(axis=1)
            np.testing.assert_array_equal(nearest, group)  # Lloyd's fixed point


def test_seta_slides_from_easy_to_hard():
    pool = subset(400)
    difficulty = np.repeat(np.arange(10.0), 40)
    difficulty[::40] = np.nan
    epochs = list(seta(pool, difficulty, 16, Window(keep=1, groups=10, share=0.5, anneal=0.125)))
    held = [sorted({int(v) for v in difficulty[pool.counts(pool.uids) * e.contains(pool.uids) > 0]}) for e in epochs]
    for number, groups in enumerate(held):
        start = number % 6
        assert groups == (list(range(start, start + 5)) if number < 14 else list(range(10)))
        assert len(epochs[number]) == 39 * len(groups)
    few = list(seta(pool, difficulty, 3, Window(keep=0.5, groups=10, share=0.01, anneal=0)))
    assert sum(len({*difficulty[e.contains(pool.uids)]}) for e in few) == 3 and few[0] != few[1]
    equal = list(seta(pool, np.ones(400), 2, Window(keep=0.5, anneal=0)))
    assert [len(e) for e in equal] == [200, 200] and equal[0] != equal[1]
    assert [len(e) for e in seta(subset(0), np.empty(0), 2, Window())] == [0, 0]
    assert [len(e) for e in seta(pool, np.full(400, np.nan), 1, Window())] == [0]


def test_a_schedule_is_read_back_and_replaced(tmp_path):
    path = str(tmp_path / "s" / "x.schedule.json")
    for epochs in (4, 2):
        subsets = list(rs2(subset(20), epochs, 0.5))
        write_schedule(path, Schedule("rs2", 7, iter(subsets), {"samples": 20}))
        assert [Subset.read(p) for p in load_schedule(path)] == subsets
        assert len(list((tmp_path / "s" / "x").iterdir())) == epochs
    record = json.loads((tmp_path / "s" / "x.schedule.json").read_text())
    assert record["kind"] == "rs2" and record["seed"] == 7
    written = record_of(str(tmp_path / "s/x/epoch-0001.npy"))
    assert record["epochs"][1] == {"subset": "x/epoch-0001.npy", "samples": 10, **written}
    with pytest.raises(UsageError, match=r"NAME\.schedule\.json"):
        write_schedule(str(tmp_path / "x.json"), Schedule("rs2", 0, []))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "does not exist"),
        ("{", "damaged .not JSON"),
        ("[]", "no JSON object"),
        ('{"epochs": []}', "list of epochs is empty"),
        ('{"epochs": [{"subset": "/etc/passwd"}]}', r"epochs\[0\]\.subset: a path from"),
        ('{"epochs": [{"subset": "s3://x/y.npy"}]}', r"epochs\[0\]\.subset: a path from"),
        ('{"epochs": [3]}', r"epochs\[0\] is 3, not an object"),
        ('{"epochs": [{"subset": "gone.npy"}]}', r"gone\.npy is not there"),
    ],
)
def test_a_damaged_schedule_is_refused(tmp_path, text, says):
    path = tmp_path / "x.schedule.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(DataError, match=says):
        load_schedule(str(path))


def test_the_verb_schedules_a_pool(tmp_path, mmfilter):
    uids = make_uids(60)
    columns = {"uid": uids, "s": [i / 60 if i % 10 else None for i in range(60)]}
    out = write_pool(tmp_path / "out", split(columns, 3))
    Subset.from_uids(uids[:40]).write(str(tmp_path / "some.npy"))
    code, said, error = mmfilter("schedule", out, "--kind", "rs2", "--epochs", 3, "--keep", 0.2, "--json")
    assert code == 0, error
    told = json.loads(said)
    assert (
        told["path"].endswith("out/schedules/rs2.schedule.json") and [e["samples"] for e in told["epochs"]] == [12] * 3
    )
    words = ("--kind", "seta", "--epochs", 4, "--keep", 1, "--subset", tmp_path / "some.npy", "--name", "mine")
    more = ("--column", "s", "--groups", 4, "--window", 0.25, "--anneal", 0.25)
    code, said, error = mmfilter("schedule", out, *words, *more)
    assert code == 0 and "4 epochs out of 40 samples" in said, error
    values = dict(zip(uids, columns["s"], strict=True))
    found = [Subset.read(path).strings() for path in load_schedule(f"{out}/schedules/mine.schedule.json")]
    assert [len(e) for e in found][3] == 36 and set(found[3]) == {u for u in uids[:40] if values[u] is not None}
    means = [np.mean([values[uid] for uid in epoch]) for epoch in found[:3]]
    assert means[0] > means[1] > means[2], "what is low is hard"
    for wrong, says in (
        (("--kind", "rs3", "--epochs", 1), "it is rs2 or seta"),
        (("--kind", "seta", "--epochs", 1), "--column and --kind seta go together"),
        (("--kind", "rs2", "--epochs", 1, "--name", "../x"), "a schedule's name is letters"),
        (("--kind", "seta", "--epochs", 1, "--column", "t"), "no column 't'"),
    ):
        refused("schedule", out, *wrong, says=says)


def test_a_reshard_understands_repeats_and_schedules(tmp_path, mmfilter):
    from mmfilter.synth import SynthOptions, generate

    generate(str(tmp_path / "pool"), SynthOptions(samples=24, per_shard=12))
    frames = [pl.read_parquet(path) for path in sorted((tmp_path / "pool").glob("*.parquet"))]
    uids = [uid for frame in frames for uid in frame["uid"].to_list()]
    sound = Subset.from_uids(uids[:3] + uids[12:15])
    epochs = [sound * 2, Subset.from_uids(uids[12:14])]
    write_schedule(str(tmp_path / "x.schedule.json"), Schedule("mine", 0, epochs))
    words = (tmp_path / "x.schedule.json", "--pool", tmp_path / "pool", "--out", tmp_path / "new", "--local", "--json")
    for done in (0, 1):
        code, said, error = mmfilter("reshard", *words)
        assert code == 0, error
        told = json.loads(said)
        assert [epoch["samples"] for epoch in told] == [12, 2]
        assert [epoch["shards_done_before"] for epoch in told] == [done, done]
    for number, epoch in enumerate(epochs):
        ids = np.load(tmp_path / "new" / f"epoch-000{number}" / "sample_ids.npy")
        assert format_uids(ids) == epoch.strings()
    assert parse_uids(uids[:1]) in epochs[0].uids


def test_a_schedule_knows_what_it_was_drawn_from(tmp_path):
    from command import command
    from rules_util import make_uids, run, split, write_pool

    columns = {"uid": make_uids(40), "text": ["a"] * 40, "s": np.arange(40) / 40}
    write_pool(tmp_path / "out" / "metadata", split(columns, 2))
    npy = run(tmp_path / "out", {"threshold": {"score": "s", "min": 0.5}}).path
    words = ("schedule", tmp_path / "out", "--kind", "rs2", "--epochs", 2, "--subset", npy, "--keep", 0.5)
    assert command(*words).code == 0
    path = tmp_path / "out/schedules/rs2.schedule.json"
    source = json.loads(path.read_text())["source"]
    assert source["uids"] == Subset.read(npy).digest and source["file"]["bytes"] == os.path.getsize(npy)
    assert len(load_schedule(str(path))) == 2
    run(tmp_path / "out", {"threshold": {"score": "s", "max": 0.4}})
    with pytest.raises(DataError, match=r"was drawn from .*s\.npy, which is another subset now"):
        load_schedule(str(path))
    assert command(*words).code == 0
    epoch = tmp_path / "out/schedules/rs2/epoch-0001.npy"
    data = epoch.read_bytes()
    epoch.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert load_schedule(str(path))
    with pytest.raises(DataError, match=r"epoch-0001\.npy: is not the file .*make the schedule anew"):
        Subset.read(str(epoch))
    epoch.write_bytes(data[:-16])
    with pytest.raises(DataError, match=r"epoch-0001\.npy"):
        load_schedule(str(path))
