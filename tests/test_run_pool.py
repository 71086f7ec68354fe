"""The run's pool is the run's pool: shards that OUT holds besides are said, and counted nowhere."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command import command
from tars import samples, tar, uid, write_pool

from index.pool import Pool
from mmfilter.json_file import encode
from mmfilter.run_pool import left_out
from mmfilter.subset import Subset
from mmfilter.table import open_table


@pytest.fixture
def pool(tmp_path, monkeypatch):
    """Three shards of five samples, `run` over them; the working directory is the folder of both."""
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path / "pool", 3, 5)
    assert said("run", "pool").startswith("in 15 = kept 15 ")
    return tmp_path / "pool"


def said(verb, *pools, out="out", more=()):
    words = [word for given in pools for word in ("--pool", given)]
    done = command(verb, "no_filter", *words, "--out", out, "--local", *more)
    assert done.code == 0, done.err
    return done.out


def select(out="out"):
    done = command("select", "no_filter", "--out", out)
    assert done.code == 0, done.err
    return done.out


def counts_everywhere(count, lost=None):
    """What select, the record, the card, the report, the table and explain say of OUT."""
    out = select()
    assert out.startswith(f"in {count} = kept {count} ")
    record = json.loads(Path("out/subsets/no_filter.json").read_text())
    assert record["counts"] == {"in": count, "kept": count, "dropped": 0, "failed": 0}
    assert len(Subset.read("out/subsets/no_filter.npy")) == count
    assert command("card", "out").code == 0 and f"| in | {count} |" in Path("out/subsets/no_filter.md").read_text()
    assert command("report", "out").code == 0
    page = Path("out/report.html").read_text()
    assert f"<b>{count}</b> samples" in page or f"<b>{count}</b>" in page
    assert ('id="left-out"' in page) == bool(left_out("out")) and "accounted for" not in page
    assert Pool("out").read("uid").height == count == open_table("out").read(["uid"]).height
    if lost is not None:
        done = command("explain", lost, "--out", "out")
        assert done.code == 2 and "in OUT, not of the run's pool" in done.err
    return out


@pytest.mark.parametrize("verb", ["embed", "run"])
def test_a_shard_that_was_removed_is_said_and_not_counted(verb, pool):
    os.unlink(pool / "00000001.tar")
    out = said(verb, "pool")
    assert ("read 10 = ok 10" if verb == "embed" else "in 10 = kept 10 ") in out
    assert "  left out: 1 shard (00000001) in OUT " in out and "--pool" in out
    assert "left out: 1 shard (00000001)" in counts_everywhere(10, uid(7))
    assert os.path.exists("out/metadata/00000001.parquet"), "its files stay"
    assert "left out" in said(verb, "pool"), "as often as it is so"


def test_it_counts_again_once_it_is_back(pool):
    shutil.move(pool / "00000001.tar", "away.tar")
    said("run", "pool")
    shutil.move("away.tar", pool / "00000001.tar")
    out = said("run", "pool")
    assert out.startswith("in 15 = kept 15 ") and "left out" not in out
    assert "left out" not in counts_everywhere(15) and left_out("out") == frozenset()


@pytest.mark.parametrize("verb", ["embed", "run"])
def test_a_renamed_shard_counts_under_its_new_name_alone(verb, pool):
    os.rename(pool / "00000002.tar", pool / "00000009.tar")
    out = said(verb, "pool")
    assert "left out: 1 shard (00000002)" in out and "failed" not in out.replace("failed 0", "")
    counts_everywhere(15)


@pytest.mark.parametrize("verb", ["embed", "run"])
def test_a_shard_that_came_simply_goes_on(verb, pool):
    (pool / "00000003.tar").write_bytes(tar(samples(5, 50)))
    out = said(verb, "pool")
    assert "left out" not in out and "earlier" not in out and "left out" not in counts_everywhere(20)


@pytest.mark.slow
def test_a_column_that_the_new_shard_lacks_does_not_end_the_run(tmp_path, monkeypatch):
    """`cluster` wrote its columns before; the report and the card are without them, and say so."""
    monkeypatch.chdir(tmp_path)
    assert command("synth", "pool", "--samples", 40, "--per-shard", 20, "--size", 64).code == 0
    os.rename("pool/00000001.tar", "later.tar")
    words = ("run", "demo", "--pool", "pool", "--out", "out", "--local", "--no-reshard")
    assert command(*words).code == 0 and command("cluster", "out", "--model", "demo", "--k", 2, "--local").code == 0
    os.rename("later.tar", "pool/00000001.tar")
    done = command(*words)
    assert done.code == 0 and done.out.startswith("in 40 = ")
    assert (
        "the report: Without columns centroid_similarity, cluster_id, " in done.err and "1 shard (00000001)" in done.err
    )
    assert command("cluster", "out", "--model", "demo", "--k", 2, "--local").code == 0
    assert "ithout" not in command(*words).err


def test_a_pool_in_portions(tmp_path, monkeypatch):
    """`embed` takes what is there already as part of the run, and `run` its own pool alone."""
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path / "pool", 3, 5)
    assert "earlier" not in said("embed", "pool/00000000.tar")
    assert "  earlier: 1 shard (00000000) " in said("embed", "pool/{00000001..00000002}.tar")
    assert select().startswith("in 15 = kept 15 ")
    assert len(json.loads(Path("out/run.json").read_text())["pool"]) == 3
    out = said("run", "pool/00000001.tar")
    assert out.startswith("in 5 = kept 5 ") and "left out: 2 shards (00000000, 00000002)" in out
    assert select().startswith("in 5 = kept 5 ")


def test_another_pool_in_the_same_folder(pool, tmp_path):
    write_pool(tmp_path / "two", 2, 3)
    for name in (0, 1):
        os.rename(f"two/0000000{name}.tar", f"two/b{name}.tar")
    before = Path("out/run.json").read_text()
    for verb in ("embed", "run"):
        done = command(verb, "no_filter", "--pool", "two", "--out", "out", "--local")
        assert done.code == 1 and "holds a run over another pool" in done.err and "Give another --out" in done.err
        assert Path("out/run.json").read_text() == before
    (tmp_path / "two/b0.tar").write_bytes(tar(samples(3, 100)))
    os.unlink("two/b1.tar")
    assert said("run", "two", "pool").startswith("in 18 = kept 18 ")
    out = said("run", "pool")
    assert out.startswith("in 15 = ") and "left out: 1 shard (b0)" in out
    counts_everywhere(15)


def test_a_pool_that_moved_is_the_same_pool(pool):
    shutil.move("pool", "moved")
    for verb in ("embed", "run"):
        out = said(verb, "moved")
        assert "left out" not in out and "earlier" not in out
    counts_everywhere(15)


def test_a_dry_run_says_it_and_writes_nothing(pool):
    os.unlink(pool / "00000001.tar")
    before = Path("out/run.json").read_text()
    assert "left out: 1 shard (00000001)" in said("run", "pool", more=("--dry-run",))
    assert Path("out/run.json").read_text() == before


def test_failures_of_a_shard_that_is_left_out_are_not_counted(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = write_pool(tmp_path / "pool", 2, 5)
    with open(paths[1], "r+b") as stream:
        stream.truncate(4000)
    words = ("no_filter", "--pool", "pool", "--out", "out", "--local")
    assert command("run", *words).code == 3
    os.unlink(paths[1])
    done = command("run", *words)
    assert done.code == 0 and done.out.startswith("in 5 = kept 5 (100.0%) + dropped 0 + failed 0"), done.err
    assert select().startswith("in 5 = kept 5 (100.0%) + dropped 0 + failed 0")


def test_a_run_of_an_older_version_counts_all_that_it_holds(pool):
    """Its run.json names no shards that are left out."""
    run = json.loads(Path("out/run.json").read_text())
    del run["left_out"]
    run["pool"] = run["pool"][:1]
    Path("out/run.json").write_bytes(encode(run))
    assert select().startswith("in 15 = kept 15 ")
