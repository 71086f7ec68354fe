"""A shard that is done again makes what was computed from it stale: readers say so, `score` and `run` bring it up."""

import json
import shutil
from pathlib import Path

import pytest
from command import command
from jobs_util import results
from scored_util import COLUMNS, RULES, make_out, said, score_pool, shard, write


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A pool of three shards, embedded by one recipe and scored by another, and that of a fresh OUT after a change."""
    here = tmp_path_factory.mktemp("stale")
    patch = pytest.MonkeyPatch()
    patch.chdir(here)
    score_pool(here)
    shutil.copytree("pool", "changed")
    shard(here / "changed", 1, first=40, words=2)
    make_out("fresh", "changed")
    patch.undo()
    return here


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    """A copy, whose shard 1 was replaced by other samples and done again."""
    shutil.copytree(made, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


def redo():
    shutil.copyfile("changed/00000001.tar", "pool/00000001.tar")
    said("embed", "first.yaml", "--pool", "pool", "--out", "out", "--local", "--redo-changed")


@pytest.mark.parametrize("name", RULES)
def test_select_names_the_column_and_the_shard(here, name):
    redo()
    done = said("select", f"{name}.yaml", "--out", "out", code=1)
    assert COLUMNS[name] in done and "1 shard (00000001)" in done and "mmfilter score" in done
    assert "Traceback" not in done
    out = said("select", f"{name}.yaml", "--out", "out", "--allow-stale")
    assert f"Stale: column {COLUMNS[name]}" in out
    record = json.loads(Path(f"out/subsets/{name}.json").read_text())
    assert list(record["stale"]) == [COLUMNS[name]]
    assert json.loads(command("select", f"{name}.yaml", "--out", "out", "--allow-stale", "--json").out)["stale"]


@pytest.mark.parametrize("verb", ["score", "run", "run --redo-changed"])
def test_score_and_run_bring_stale_columns_up(here, verb):
    """In the last case the shard is done again by the recipe whose scores were added before."""
    if verb == "run --redo-changed":
        shutil.copyfile("changed/00000001.tar", "pool/00000001.tar")
        said("run", "all.yaml", "--pool", "pool", "--out", "out", "--local", "--redo-changed")
    else:
        redo()
    if verb == "score":
        out = said("score", "all.yaml", "--out", "out", "--local")
        assert "brought up to the pool: clip_demo_similarity_score" in out and "duplicate_of" in out
    elif verb == "run":
        said("run", "all.yaml", "--pool", "pool", "--out", "out", "--local")
    for name in RULES:
        said("select", f"{name}.yaml", "--out", "out")
        assert "stale" not in json.loads(Path(f"out/subsets/{name}.json").read_text())
        assert Path(f"out/subsets/{name}.npy").read_bytes() == Path(f"fresh/subsets/{name}.npy").read_bytes()
    assert results("out/columns").keys() == results("fresh/columns").keys()


@pytest.mark.parametrize("verb", ["run", "embed"])
def test_a_shard_that_comes_later_gets_the_added_columns_too(here, verb):
    shard(here / "pool", 3)
    shard(here / "changed", 3)
    shutil.copyfile("changed/00000001.tar", "pool/00000001.tar")
    said(verb, "all.yaml", "--pool", "pool", "--out", "out", "--local", "--redo-changed")
    make_out("whole", "changed")
    if verb == "embed":
        said("score", "all.yaml", "--out", "out", "--local")
    for name in RULES:
        said("select", f"{name}.yaml", "--out", "out")
        assert Path(f"out/subsets/{name}.npy").read_bytes() == Path(f"whole/subsets/{name}.npy").read_bytes()
    assert results("out/columns").keys() == results("whole/columns").keys()


def test_a_shard_that_is_done_again_with_the_same_content_makes_nothing_stale(here):
    data = Path("pool/00000001.tar").read_bytes()
    Path("pool/00000001.tar").write_bytes(data + bytes(10240))  # longer, and of the same samples
    before = results("out/columns")
    said("embed", "first.yaml", "--pool", "pool", "--out", "out", "--local", "--redo-changed")
    for name in RULES:
        said("select", f"{name}.yaml", "--out", "out")
        assert Path(f"out/subsets/{name}.npy").read_bytes() == (here / f"out/subsets/{name}.npy").read_bytes()
    said("score", "all.yaml", "--out", "out", "--local")
    assert results("out/columns") == before


def test_every_reader_says_that_a_column_is_stale(here):
    said("index", "out", "--local")
    redo()
    for words in (
        ("report", "out", "--name", "text"),
        ("card", "out", "--name", "text"),
        ("schedule", "out", "--kind", "seta", "--epochs", 2, "--column", "centroid_similarity"),
        ("compare", "text", "--out", "out", "--local"),
        ("probe", "out", "--column", "cluster_id", "--holdout", 0.4),
        ("serve", "out", "--port", 0),
    ):
        done = said(*words, code=1)
        assert "computed from other content of 1 shard (00000001)" in done, words
        assert "--allow-stale" in done, words
    said("schedule", "out", "--kind", "seta", "--epochs", 2, "--column", "centroid_similarity", "--allow-stale")
    assert "centroid_similarity" in json.loads(Path("out/schedules/seta.schedule.json").read_text())["source"]["stale"]
    done = said("reshard", "out/subsets/embeddings.npy", "--pool", "pool", "--out", "new", "--allow-missing", "--json")
    assert "subset embeddings of " in done and "The pool is another than when it was selected" in done
    said("card", "out", "--name", "text", "--allow-stale")
    card = Path("out/subsets/text.md").read_text()
    assert "Stale: column" in card and "The pool is another than when it was selected" in card
    assert "Stale: column" in said("compare", "text", "--out", "out", "--local", "--allow-stale")
    done = said("query", "--uid", f"{1:032x}", "--out", "out", code=1)
    assert "shard 00000001 was made anew since index" in done and "mmfilter index" in done
    assert "built" in said("index", "out", "--local")
    said("query", "--uid", f"{1:032x}", "--out", "out")
    done = said("query", "--uid", f"{1:032x}", "--out", "out", "--where", "cluster_id = 0", code=1)
    assert "cluster_id" in done and "00000001" in done
    explained = said("explain", f"{1:032x}", "--out", "out", "--name", "pool-embeddings")
    assert "Stale: column centroid_similarity" in explained


def test_a_cluster_column_names_its_own_verb(here):
    redo()
    said("score", "all.yaml", "--out", "out", "--local")
    said("dedup", "out", "--hamming", 8, "--redo-changed", "--local")
    done = said("select", "pool.yaml", "--out", "out", code=1)
    assert "hamming 8, now 4" in done and "duplicate_of" in done and "--redo-changed" in done
    out = said("select", "pool.yaml", "--out", "out", "--allow-stale")
    assert "hamming 8, now 4" in out
    said("score", "all.yaml", "--out", "out", "--local", "--redo-changed")
    said("select", "pool.yaml", "--out", "out")


def test_a_score_of_the_shards_that_another_model_made_is_named(here):
    fields = {"scores": [{"clip_similarity": {"model": "demo"}}], "select": {"all": [RULES["embeddings"]]}}
    write("other.yaml", name="other", embed={"demo": {"model": "demo", "precision": "bf16"}}, **fields)
    done = said("select", "other.yaml", "--out", "out", code=1)
    assert "clip_demo_similarity_score" in done and "bf16" in done
    said("select", "other.yaml", "--out", "out", "--allow-stale")
    assert "bf16" in json.loads(Path("out/subsets/other.json").read_text())["stale"]["clip_demo_similarity_score"]
