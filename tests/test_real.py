"""The real pool: photographs with captions and labels. Counts are conserved to the sample."""

import json
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from jobs.cluster import Width
from jobs.inspect import inspect_pool
from jobs.outdir import shard_paths
from jobs.run import RunOptions, run_recipe
from mmfilter.auc import auc
from mmfilter.recipe import parse_recipe
from mmfilter.subset import Subset

pytestmark = pytest.mark.real
RECIPE = {
    "name": "real",
    "embed": {"demo": {"model": "demo"}},
    "scores": [{"clip_similarity": {"model": "demo"}}, "language", "caption", "phash"],
    "select": {
        "all": [
            {"language": {"is": "en"}},
            {"caption": {"min_words": 3}},
            {"image": {"min_side": 100, "max_aspect": 3}},
        ]
    },
}


@pytest.fixture(scope="module")
def labels(data):
    return pl.read_parquet(data / "pool_labels.parquet")


@pytest.fixture(scope="module")
def done(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("real")
    paths = shard_paths([str(data / "pool")])
    asked = RunOptions(str(out), "real", Width(local=True), labels=str(data / "pool_labels.parquet"))
    return out, paths, run_recipe(parse_recipe(json.dumps(RECIPE), "recipe real"), paths, asked)


@pytest.mark.slow
def test_the_whole_job_conserves_every_sample(done, labels):
    out, paths, result = done
    counts = result["counts"]
    assert counts["in"] == 5151 == counts["kept"] + counts["dropped"] + counts["failed"]
    rows = pl.concat([pl.read_parquet(p, columns=["uid"]) for p in sorted(out.glob("metadata/*.parquet"))])
    assert set(rows["uid"]) == set(labels["uid"]) and rows.height == 5151 and len(paths) == 11
    assert result["reshard"]["samples"] == counts["kept"] == len(Subset.read(str(out / "subsets/real.npy")))
    npz = sorted(out.glob("metadata/*.npz"))
    assert sum(len(np.load(path)["demo_img"]) for path in npz) == 5151


@pytest.mark.slow
def test_the_rules_drop_the_kinds_they_are_for(done, labels):
    out, _, _ = done
    kept = set(Subset.read(str(out / "subsets/real.npy")).strings())
    marked = labels.with_columns(kept=pl.col("uid").is_in(kept))
    share = dict(marked.group_by("kind").agg(pl.col("kept").mean()).iter_rows())
    assert share["clean"] > 0.95
    assert share["narrow"] == 0 and share["tiny"] < share["clean"] / 2
    assert share["other_language"] < 0.05
    assert share["short_caption"] < 0.5


def test_the_stored_scores_know_the_two_photographs_of_a_duplicate(done, labels):
    """pHash of an exact or re-encoded copy is that of its source to a few bits; of another photograph it is not."""
    out, _, _ = done
    rows = pl.concat([pl.read_parquet(p, columns=["uid", "phash"]) for p in sorted(out.glob("metadata/*.parquet"))])
    hashes = dict(rows.iter_rows())
    sources = dict(labels.filter(pl.col("kind") == "clean").select("source", "uid").iter_rows())
    copies = labels.filter(pl.col("kind").is_in(["duplicate_exact", "duplicate_reencoded"]))
    rows = copies.select("uid", "source").iter_rows()
    pairs = [(hashes[uid], hashes[sources[source]]) for uid, source in rows if source in sources]
    same = np.array([bin(a ^ b).count("1") for a, b in pairs])
    other = np.array([bin(a ^ b).count("1") for (a, _), (_, b) in pairwise(pairs)])
    assert len(pairs) > 100
    assert auc(-np.concatenate([same, other]), np.repeat([True, False], [len(same), len(other)])) > 0.99


def test_the_lint_finds_the_pool_sound(data):
    report = inspect_pool([str(data / "pool")], Width(local=True))
    assert (report.shards, report.samples, report.errors) == (11, 5151, 0)
