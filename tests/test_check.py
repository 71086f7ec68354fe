"""Before anything is spent: shards, OUT, files, models and columns, as a person meets what is wrong with them."""

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from invoke_util import invoke
from jobs_util import recipe_text, results
from store_util import served, store  # noqa: F401
from tars import write_pool

from jobs.check import Request, check_request
from jobs.shards import find_shards
from mmfilter import storage
from mmfilter.errors import MMFilterError, UsageError
from mmfilter.recipe import parse_recipe
from mmfilter.subset import Subset


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with a pool of three shards and a recipe without a model."""
    monkeypatch.chdir(tmp_path)
    write_pool(tmp_path / "pool", 3, 4)
    write("t.yaml", scores=["phash"], select={"threshold": {"score": "phash", "min": 0}})
    monkeypatch.setattr("jobs.look.report_run", lambda *_: "")
    return tmp_path


def write(path, **fields):
    Path(path).write_text(json.dumps({"name": "t", **fields}))


def commits(out):
    return sorted(path.name for path in Path(out).glob("metadata/*.json"))


MISTAKES = [
    (
        "nope/{000..013}.tar",
        r"14 of 14 named shards do not exist: (\S+/nope/00\d\.tar, ){5}\.\.\..* folder \S+nope does",
    ),
    ("pol", "pol does not exist; did you mean 'pool'"),
    ("pool/00000007.tar", "00000007.tar does not exist"),
    ("pool/{00000000..00000003}.tar", "1 of 4 named shards do not exist: .*00000003.tar.*--allow-missing"),
    ("empty", "empty: no shard matches; give .tar files, a folder"),
    ("pool/*.tgz", "no shard matches"),
    ("t.yaml", "not a .tar file; give .tar files, a folder"),
    ("folder.tar", r"folder.tar is a folder.*folder.tar/\*.tar"),
]


@pytest.mark.parametrize(("pool", "says"), MISTAKES)
@pytest.mark.parametrize("verb", ["run", "embed", "dry", "inspect", "reshard"])
def test_a_path_that_names_no_shard_ends_before_any_work(here, pool, says, verb):
    (here / "empty").mkdir()
    (here / "folder.tar").mkdir()
    Subset.from_uids([]).write("s.npy")
    words = {
        "run": ("run", "t.yaml", "--pool", pool, "--local"),
        "embed": ("embed", "t.yaml", "--pool", pool, "--local"),
        "dry": ("run", "t.yaml", "--pool", pool, "--dry-run"),
        "inspect": ("inspect", pool),
        "reshard": ("reshard", "s.npy", "--pool", pool, "--out", "runs/new"),
    }[verb]
    code, out, said = invoke(*words)
    assert code == 2 and not out
    assert_matches(says, said)
    assert not (here / "runs").exists()


def assert_matches(pattern, said):
    import re

    assert re.search(pattern, said), said


def test_allow_missing_goes_on_and_the_tar_that_comes_later_is_done(here):
    shutil.move("pool/00000001.tar", "late.tar")
    words = ("run", "t.yaml", "--pool", "pool/{00000000..00000002}.tar", "--out", "out", "--local")
    code, said, _ = invoke(*words, "--allow-missing", "--dry-run")
    assert (
        code == 0 and "2 of 2 shards to do" in said and "missing: 1 named shards do" in said and "00000001.tar" in said
    )
    code, said, _ = invoke(*words, "--allow-missing")
    assert code == 0 and "missing: 1 named shards do not exist" in said and "in 8 = kept 8" in said
    assert commits("out") == ["00000000.json", "00000002.json"] and not list(Path("out").glob("failures/*"))
    run = json.loads(Path("out/run.json").read_text())
    assert run["missing_shards"] == [str(here / "pool/00000001.tar")] and len(run["pool"]) == 2
    assert invoke(*words)[0] == 2
    shutil.move("late.tar", "pool/00000001.tar")
    code, said, _ = invoke(*words, "--json")
    assert code == 0 and json.loads(said)["missing"] == {"shards": 0, "first": []}
    assert json.loads(Path("out/run.json").read_text())["missing_shards"] == []
    assert invoke(*words[:-2], "whole", "--local")[0] == 0
    assert results("out") == results("whole")


def test_with_no_shard_left_allow_missing_is_no_cure(here):
    code, _, said = invoke("embed", "t.yaml", "--pool", "pool/{10..12}.tar", "--allow-missing", "--local")
    assert code == 2 and "3 of 3 named shards" in said and "--allow-missing goes on" not in said


def test_inspect_reports_what_is_missing(here):
    code, said, _ = invoke("inspect", "pool/{00000000..00000004}.tar", "--allow-missing", "--json")
    assert code == 0
    (found,) = [f for f in json.loads(said)["findings"] if f["what"] == "missing_shard"]
    assert found["count"] == 2 and "00000003.tar" in found["text"]


def test_a_shard_that_an_older_version_recorded_as_absent_is_done_when_it_is_there(here):
    from jobs.cluster import Width
    from jobs.embed import embed_pool
    from mmfilter.recipe import load_recipe

    shutil.move("pool/00000001.tar", "late.tar")
    paths = [str(here / f"pool/0000000{n}.tar") for n in range(3)]
    counts = embed_pool(load_recipe("t.yaml"), paths, str(here / "out"), Width(local=True))
    assert counts.failed and json.loads(Path("out/metadata/00000001.json").read_text())["input"] is None
    shutil.move("late.tar", "pool/00000001.tar")
    for out in ("out", "whole"):
        code, _, said = invoke("run", "t.yaml", "--pool", "pool", "--out", out, "--local")
        assert code == 0, said
    assert results("out") == results("whole")


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.EACCES])
@pytest.mark.parametrize("pool", ["pool/{00000000..00000002}.tar", "pool", "pool/*.tar"])
def test_what_cannot_be_read_is_not_taken_for_absent(here, monkeypatch, number, pool):
    """A dead mount, or no permission: exit 1, and no commit."""

    def refuse(path="."):
        raise OSError(number, os.strerror(number), path)

    if pool == "pool":  # a listing would have found them
        monkeypatch.setattr(storage, "open_read", refuse)
    elif number == errno.EACCES:  # a folder that may be entered and not listed is none of these
        pytest.skip("no listing is no error")
    else:
        monkeypatch.setattr(os, "scandir", refuse)
    code, _, said = invoke("run", "t.yaml", "--pool", pool, "--out", "out", "--local")
    assert code == 1 and os.strerror(number) in said and "check the mount" in said
    assert not Path("out").exists()


def test_a_link_that_leads_nowhere_is_missing(here):
    os.symlink("gone.tar", "pool/00000003.tar")
    code, _, said = invoke("run", "t.yaml", "--pool", "pool/{00000000..00000003}.tar", "--local")
    assert code == 2 and "1 of 4" in said


def test_on_a_store_folders_are_listed_and_shards_are_not_asked_for(store):  # noqa: F811
    for n in range(0, 300, 2):
        storage.write_atomic(f"{store.root}/pool/{n:05d}.tar", b"x")
    store.weather.asked.clear()
    shards = find_shards([f"{store.root}/pool/{{00000..00299}}.tar"], allow_missing=True)
    assert len(shards.paths) == len(shards.missing) == 150
    assert len(store.weather.asked) < 10
    with pytest.raises(UsageError, match="150 of 300 named shards"):
        find_shards([f"{store.root}/pool/{{00000..00299}}.tar"])
    with pytest.raises(UsageError, match="2 of 2 named shards"):
        find_shards([f"{store.root}/nothing/{{00000..00001}}.tar"])


OUTS = [("t.yaml", "is a file"), ("t.yaml/deep/er", "cannot be made, as .*t.yaml is a file")]


@pytest.mark.parametrize(("out", "says"), OUTS)
@pytest.mark.parametrize("verb", ["run", "embed", "select", "score"])
def test_an_out_that_is_a_file(here, out, says, verb):
    pool = () if verb in ("select", "score") else ("--pool", "pool")
    code, _, said = invoke(verb, "t.yaml", *pool, "--out", out)
    assert code == 2
    assert_matches(says, said)


def test_an_out_that_cannot_be_written(here, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, said = invoke("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")
    assert code == 1 and "cannot be written (Permission denied)" in said and not Path("out").exists()


@pytest.mark.parametrize("verb", ["select", "score"])
def test_a_run_that_does_not_exist_is_not_made(here, verb):
    Path("runs/demo").mkdir(parents=True)
    code, _, said = invoke(verb, "t.yaml", "--out", "runs/dem")
    assert code == 2 and "did you mean 'demo'" in said and not Path("runs/dem").exists()


def test_a_second_pool_in_one_out_is_said_to_be_the_cause(here):
    write_pool(here / "other", 2, 3)
    assert invoke("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")[0] == 0
    code, _, said = invoke("run", "t.yaml", "--pool", "other", "--out", "out", "--local")  # the same names
    assert code == 1 and f"another pool, {here / 'pool'}" in said and "another --out" in said
    for n in range(2):
        os.rename(f"other/0000000{n}.tar", f"other/1000000{n}.tar")
    words = ("run", "t.yaml", "--pool", "other", "--out", "out", "--local")
    code, _, said = invoke(*words)
    assert code == 1 and f"another pool: 3 shards of {here / 'pool'}" in said and "--pool twice" in said
    assert len(commits("out")) == 3
    assert invoke(*words, "--pool", "pool")[0] == 3, "both named: one pool that has grown, with uids that repeat"


def test_files_that_rules_and_scores_read(here):
    write("rule.yaml", scores=["phash"], select={"not": {"in_subset": {"path": "absent.npy"}}})
    write("head.yaml", embed={"m": {"model": "demo"}}, scores=[{"head": {"name": "h", "file": "h.npz", "model": "m"}}])
    for recipe, place in (
        ("rule", "select.not.in_subset: nothing is at"),
        ("head", "score 'h_score': .*h.npz: no such"),
    ):
        for more in ((), ("--dry-run",)):
            code, _, said = invoke("run", f"{recipe}.yaml", "--pool", "pool", "--local", *more)
            assert code == 2
            assert_matches(place, said)
    np.savez("h.npz", weight=np.ones((3, 2)), bias=np.zeros(3))
    code, _, said = invoke("embed", "head.yaml", "--pool", "pool", "--local")
    assert code == 2 and "it has 3 outputs" in said
    assert invoke("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")[0] == 0
    code, _, said = invoke("select", "rule.yaml", "--out", "out")
    assert code == 2 and "absent.npy" in said and not Path("runs").exists()


MODELS = [
    ({"model": "ViT-B-23", "pretrained": "openai"}, "did you mean 'ViT-B-32'"),
    ({"model": "ViT-B-32", "pretrained": "openay"}, "no weights 'openay' for ViT-B-32; did you mean 'openai'"),
    ({"model": "ViT-B-32", "weights": "absent.safetensors"}, "absent.safetensors: no such file"),
    ({"model": "./pool"}, "not a model folder, it has no open_clip_config.json"),
    ({"model": "./absent"}, "not a model folder"),
]


@pytest.mark.parametrize(("spec", "says"), MODELS)
def test_a_model_that_is_none_is_found_first_and_ends_a_dry_run(here, spec, says):
    write("m.yaml", embed={"m": spec}, scores=[{"clip_similarity": {"model": "m"}}])
    for words in (("run", "--dry-run"), ("run",), ("embed",)):
        code, _, said = invoke(*words, "m.yaml", "--pool", "pool", "--local")
        assert code == 2 and f"recipe t: embed.m: {said.partition('embed.m: ')[2]}" in said and says in said
    assert not Path("runs").exists()


def test_weights_that_have_to_be_fetched_are_a_note_in_a_dry_run(here):
    write("m.yaml", embed={"m": {"model": "hf-hub:some/where"}}, scores=[{"clip_similarity": {"model": "m"}}])
    code, said, _ = invoke("run", "m.yaml", "--pool", "pool", "--local", "--dry-run", "--json")
    assert code == 0 and "hf download some/where" in json.loads(said)["weights_not_at_hand"]["m"]
    code, _, said = invoke("run", "m.yaml", "--pool", "pool", "--local")
    assert code == 1 and "hf download some/where" in said and not Path("runs").exists()


def test_a_finished_run_asks_for_no_model_and_opens_no_tar(here, tiny_model, monkeypatch):
    model = shutil.copytree(tiny_model, here / "model")
    for keep in (0.5, 0.25):
        Path("m.yaml").write_text(recipe_text(model, keep))
        code, _, said = invoke("run", "m.yaml", "--pool", "pool", "--out", "out", "--local", "--no-reshard")
        assert code == 0, said
        shutil.rmtree(model, ignore_errors=True)
        monkeypatch.setattr("jobs.check._check_models", lambda recipe, asked, names: names and pytest.fail(str(names)))


def test_columns_that_something_else_wrote_count_and_embed_only_notes_them(here):
    write("dedup.yaml", scores=["phash"], select="not_duplicate")
    words = ("--pool", "pool", "--out", "out", "--local")
    code, _, said = invoke("run", "dedup.yaml", *words)
    assert code == 2 and "no column 'duplicate_of'; the score 'duplicates' writes it" in said
    code, _, said = invoke("embed", "dedup.yaml", *words)
    assert code == 0 and "note: recipe t: select.not_duplicate.column: no column 'duplicate_of'" in said
    assert invoke("dedup", "out", "--local")[0] == 0
    assert invoke("run", "dedup.yaml", *words)[0] == 0


def test_a_score_that_reads_what_nothing_before_it_writes(here):
    write("o.yaml", scores=[{"duplicates": {"hamming": 2}}])
    for verb in (("run",), ("run", "--dry-run")):
        code, _, said = invoke(*verb, "o.yaml", "--pool", "pool", "--local")
        assert code == 2 and "the score of 'duplicate_of' reads the column 'phash'" in said
    write(
        "o.yaml",
        scores=[{"duplicates": {"keep": "score", "score": "overlap_similarity"}}, {"overlap": {"against": ["pool"]}}],
    )
    code, _, said = invoke("run", "o.yaml", "--pool", "pool", "--local")
    assert code == 2 and "the score that writes it comes later" in said


def test_what_run_needs_at_its_end_is_checked_at_its_start(here):
    code, _, said = invoke("run", "t.yaml", "--pool", "pool", "--local", "--name", "../x")
    assert code == 2 and "another --name" in said
    code, _, said = invoke("run", "t.yaml", "--pool", "pool", "--local", "--labels", "labels.parquet")
    assert code == 2 and "labels.parquet does not exist" in said and not Path("runs").exists()


def test_submit_checks_before_it_connects(here):
    write("s.yaml", scores=["phash"], select={"threshold": {"score": "phsh", "min": 0}})
    words = ("--address", "http://127.0.0.1:9", "--out", str(here / "out"))
    code, _, said = invoke("submit", "s.yaml", *words, "--pool", "s3://somewhere/pool/")
    assert code == 2 and "no column 'phsh'; did you mean 'phash'" in said
    code, _, said = invoke("submit", "t.yaml", *words, "--pool", "pool/{00000000..00000009}.tar")
    assert code == 2 and "7 of 10 named shards" in said
    write("s.yaml", embed={"m": {"model": "ViT-B-23", "pretrained": "openai"}}, select="everything")
    code, _, said = invoke("submit", "s.yaml", *words, "--pool", "/on/the/cluster/")
    assert code == 2 and "did you mean 'ViT-B-32'" in said


def test_the_check_alone_writes_nothing(here):
    recipe = parse_recipe(Path("t.yaml").read_text(), "recipe t")
    before = sorted(here.rglob("*"))
    check_request(recipe, Request("run", str(here / "out"), [str(here / "pool/00000000.tar")], resharded=True))
    assert sorted(here.rglob("*")) == before
    with pytest.raises(MMFilterError):
        check_request(recipe, Request("run", str(here / "t.yaml"), []))
