"""No verb works on part of a pool unasked: what is gone is named, --allow-missing goes on and says so, embed mends."""

import json
import os
import shutil
from pathlib import Path

import pytest
from command import command
from jobs_util import results
from scored_util import said, score_pool, write
from store_util import served, store  # noqa: F401
from tars import write_pool

from mmfilter.json_file import encode

VERBS = {
    "select": ("select", "text.yaml", "--out", "out"),
    "report": ("report", "out", "--name", "text"),
    "card": ("card", "out", "--name", "text"),
    "schedule": ("schedule", "out", "--kind", "rs2", "--epochs", 2),
    "index": ("index", "out", "--local"),
    "cluster": ("cluster", "out", "--k", 2, "--local", "--redo-changed"),
    "dedup": ("dedup", "out", "--hamming", 4, "--local", "--redo-changed"),
    "score": ("score", "all.yaml", "--out", "out", "--local"),
    "compare": ("compare", "text", "embeddings", "--out", "out", "--local"),
    "probe": ("probe", "out", "--column", "caption_words", "--holdout", 0.4),
    "explain": ("explain", f"{1:032x}", "--out", "out", "--name", "text"),
    "serve": ("serve", "out", "--port", 0),
}
WITHOUT = "ithout 1 shard (00000001) of the run"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    here, patch = tmp_path_factory.mktemp("part"), pytest.MonkeyPatch()
    patch.chdir(here)
    score_pool(here)
    patch.undo()
    return here


@pytest.fixture
def here(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    run = json.loads(Path("out/run.json").read_text())
    run["pool"] = [path.replace(str(made), str(tmp_path / "w")) for path in run["pool"]]
    Path("out/run.json").write_bytes(encode(run))
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)  # it would serve until a signal
    return tmp_path / "w"


@pytest.mark.parametrize("ending", ["json", "parquet", "npz"])
def test_what_is_gone_is_named_by_every_verb_and_goes_on_only_when_allowed(here, ending):
    os.unlink(f"out/metadata/00000001.{ending}")
    before = results("out")
    lacks = {"json": "its commit", "parquet": "its parquet", "npz": "its npz"}[ending]
    for verb, words in VERBS.items():
        done = command(*words)
        assert done.code == 1 and not done.out, (verb, done)
        assert f"00000001 lacks {lacks}" in done.err and "mmfilter embed" in done.err, (verb, done.err)
        assert "--allow-missing" in done.err and "Traceback" not in done.err, (verb, done.err)
    assert results("out") == before, "nothing was written"


def test_with_leave_every_verb_goes_on_and_says_so(here):
    os.unlink("out/metadata/00000001.json")
    for verb, words in VERBS.items():
        done = command(*words, "--allow-missing")
        assert done.code == 0, (verb, done)
        if verb not in ("report", "card", "explain", "serve"):
            assert WITHOUT in done.out, (verb, done.out)
    record = json.loads(Path("out/subsets/text.json").read_text())
    assert record["missing"] == ["00000001"] and record["counts"]["in"] == 10
    assert json.loads(Path("out/schedules/rs2.schedule.json").read_text())["source"]["missing"] == ["00000001"]
    assert json.loads(Path("out/index/demo-image/v0001/index.json").read_text())["missing"] == ["00000001"]
    assert WITHOUT in Path("out/report.html").read_text() and WITHOUT in Path("out/subsets/text.md").read_text()
    assert WITHOUT in command(*VERBS["serve"], "--allow-missing").err
    assert WITHOUT in said(*VERBS["explain"], "--allow-missing")


def test_the_counts_of_a_part_add_up(here):
    os.unlink("out/metadata/00000001.parquet")
    said(*VERBS["select"], "--allow-missing")
    said(*VERBS["report"], "--allow-missing")
    page = Path("out/report.html").read_text()
    assert "<b>10</b> in = " in page and "are accounted for" not in page and "recorded with" not in page


def test_once_it_is_back_what_was_computed_of_a_part_is_computed_again(here):
    whole = results("out/columns")
    os.rename("out/metadata/00000001.json", "commit.json")
    said("score", "all.yaml", "--out", "out", "--local", "--allow-missing")
    os.rename("commit.json", "out/metadata/00000001.json")
    done = said("select", "pool.yaml", "--out", "out", code=1)
    assert "duplicate_of" in done and "over another pool" in done
    said("score", "all.yaml", "--out", "out", "--local")
    assert results("out/columns") == whole
    said("select", "pool.yaml", "--out", "out")


def test_a_column_that_some_shard_lacks(here):
    os.unlink("out/columns/cluster_id/00000001.parquet")
    for verb in ("report", "card", "compare", "explain", "serve"):
        done = said(*VERBS[verb], code=1)
        assert "1 shard (00000001) without columns " in done and "cluster_id" in done, verb
        assert "`mmfilter cluster`" in done and "--allow-missing" in done, verb
    said(*VERBS["select"])
    done = said("select", "pool-embeddings.yaml", "--out", "out", code=1)
    assert "1 shard (00000001) without column centroid_similarity" in done
    said(*VERBS["report"], "--allow-missing")
    assert "Without columns centroid_similarity, cluster_id" in Path("out/report.html").read_text()
    said(*VERBS["card"], "--allow-missing")
    assert "Without columns centroid_similarity, cluster_id" in Path("out/subsets/text.md").read_text()
    said("score", "all.yaml", "--out", "out", "--local")
    said(*VERBS["report"])


def test_an_index_without_later_shards_says_so(here):
    os.rename("out/metadata/00000002.json", "commit.json")
    said(*VERBS["index"], "--allow-missing")
    os.rename("commit.json", "out/metadata/00000002.json")
    done = command("query", "--uid", f"{1:032x}", "--out", "out", "--json")
    assert done.code == 0 and "Index demo-image is without 1 shard (00000002)" in done.err
    assert "2 shards added" in said(*VERBS["index"]) or True
    done = command("query", "--uid", f"{1:032x}", "--out", "out", "--json")
    assert "without" not in done.err


def test_tars_that_are_gone_are_named_in_the_report_and_explain(here):
    os.unlink("pool/00000001.tar")
    said(*VERBS["report"])
    assert "Pictures of 1 shard (00000001) are not shown" in Path("out/report.html").read_text()
    done = said("reshard", "out/subsets/text.npy", "--pool", "pool/{00000000..00000002}.tar", "--out", "new", code=2)
    assert "00000001.tar" in done


def small(tmp_path, out):
    """A pool with a failed sample, embedded into `out` without a model."""
    write_pool(tmp_path / "pool", 3, 4)
    with open(tmp_path / "pool/00000001.tar", "r+b") as stream:
        stream.seek(512)
        stream.write(bytes(64))
    write("t.yaml", name="t", scores=["phash"])
    words = ("embed", "t.yaml", "--pool", "pool", "--out", out, "--local")
    assert command(*words).code == 3
    return words


DAMAGE = [
    (f, how)
    for f in ("metadata/00000001.parquet", "metadata/00000001.npz", "failures/00000001.parquet")
    for how in ("gone", "cut", "empty")
]


@pytest.mark.parametrize(("file", "how"), DAMAGE)
def test_embed_does_a_shard_again_whose_file_is_gone_or_cut(tmp_path, monkeypatch, file, how):
    monkeypatch.chdir(tmp_path)
    words = small(tmp_path, "out")
    before, dates = results("out"), {p: p.stat().st_mtime_ns for p in Path("out/metadata").iterdir()}
    data = Path("out", file).read_bytes()
    Path("out", file).unlink()
    if how != "gone":
        Path("out", file).write_bytes(data[: len(data) // 2 if how == "cut" else 0])
    done = command(*words)
    assert done.code == 3 and "embed 1/1 shards" in done.err, done
    assert results("out") == before
    changed = {p.name[:8] for p, date in dates.items() if p.stat().st_mtime_ns != date}
    assert changed == {"00000001"}
    assert "shards" not in command(*words).err


def test_the_same_on_an_object_store(tmp_path, monkeypatch, store):  # noqa: F811
    from mmfilter import storage

    monkeypatch.chdir(tmp_path)
    out = f"{store.root}/out"
    words = small(tmp_path, out)
    before = results(store.get("out", tmp_path / "before"))
    data = storage.read_bytes(f"{out}/metadata/00000001.npz")
    storage.write_atomic(f"{out}/metadata/00000001.npz", data[:-9])
    storage.remove(f"{out}/metadata/00000002.parquet")
    done = command(*words)
    assert done.code == 3 and "embed 2/2 shards" in done.err, done
    assert results(store.get("out", tmp_path / "after")) == before
    store.weather.asked.clear()
    assert "shards" not in command(*words).err
    asked = [path for method, path, _ in store.weather.asked if method == "HEAD" and "metadata/" in path]
    assert not [path for path in asked if path.endswith((".parquet", ".npz"))], "sizes are of a listing"
