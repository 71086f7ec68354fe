"""Before anything is spent: OUT, files, models and columns, as a person meets what is wrong with them."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from check_util import assert_matches, commits, work_in, write
from command import command
from jobs_util import recipe_text
from tars import write_pool

from jobs.check import Request, check_request
from mmfilter.errors import MMFilterError
from mmfilter.recipe import parse_recipe


@pytest.fixture
def here(tmp_path, monkeypatch):
    return work_in(tmp_path, monkeypatch)


OUTS = [("t.yaml", "is a file"), ("t.yaml/deep/er", "OUT is a folder, and .*t.yaml is a file")]


@pytest.mark.parametrize(("out", "says"), OUTS)
@pytest.mark.parametrize("verb", ["run", "embed", "select", "score"])
def test_an_out_that_is_a_file(here, out, says, verb):
    pool = () if verb in ("select", "score") else ("--pool", "pool")
    code, _, said = command(verb, "t.yaml", *pool, "--out", out)
    assert code == 2
    assert_matches(says, said)


@pytest.mark.parametrize("rule", ["threshold: {score: text, min: 3}", "fraction: {score: url, keep: 0.5}"])
def test_a_rule_that_compares_words_with_a_number(here, rule):
    text = Path("t.yaml").read_text()
    source = yaml.safe_load(text)
    source["select"] = yaml.safe_load(rule)
    Path("words.yaml").write_text(yaml.safe_dump(source))
    for more in ((), ("--dry-run",)):
        code, _, said = command("run", "words.yaml", "--pool", "pool", "--out", "out", "--local", *more)
        assert code == 2 and "holds words, not numbers" in said and not Path("out").exists()


def test_an_out_that_cannot_be_written(here, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    code, _, said = command("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")
    assert code == 1 and "cannot be written (Permission denied, EACCES)" in said and not Path("out").exists()


@pytest.mark.parametrize("verb", ["select", "score"])
def test_a_run_that_does_not_exist_is_not_made(here, verb):
    Path("runs/demo").mkdir(parents=True)
    code, _, said = command(verb, "t.yaml", "--out", "runs/dem")
    assert code == 2 and "did you mean 'demo'" in said and not Path("runs/dem").exists()


def test_a_second_pool_in_one_out_is_said_to_be_the_cause(here):
    write_pool(here / "other", 2, 3)
    assert command("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")[0] == 0
    code, _, said = command("run", "t.yaml", "--pool", "other", "--out", "out", "--local")  # the same names
    assert code == 1 and f"another pool, {here / 'pool'}" in said and "another --out" in said
    for n in range(2):
        os.rename(f"other/0000000{n}.tar", f"other/1000000{n}.tar")
    words = ("run", "t.yaml", "--pool", "other", "--out", "out", "--local")
    code, _, said = command(*words)
    assert code == 1 and f"another pool: 3 shards of {here / 'pool'}" in said and "--pool twice" in said
    assert len(commits("out")) == 3
    assert command(*words, "--pool", "pool")[0] == 3, "both named: one pool that has grown, with uids that repeat"


def test_files_that_rules_and_scores_read(here):
    write("rule.yaml", scores=["phash"], select={"not": {"in_subset": {"path": "absent.npy"}}})
    write("head.yaml", embed={"m": {"model": "demo"}}, scores=[{"head": {"name": "h", "file": "h.npz", "model": "m"}}])
    for recipe, place in (
        ("rule", "select.not.in_subset: nothing is at"),
        ("head", "score 'h_score': .*h.npz: no such"),
    ):
        for more in ((), ("--dry-run",)):
            code, _, said = command("run", f"{recipe}.yaml", "--pool", "pool", "--local", *more)
            assert code == 2
            assert_matches(place, said)
    np.savez("h.npz", weight=np.ones((3, 2)), bias=np.zeros(3))
    code, _, said = command("embed", "head.yaml", "--pool", "pool", "--local")
    assert code == 2 and "it has 3 outputs" in said
    assert command("run", "t.yaml", "--pool", "pool", "--out", "out", "--local")[0] == 0
    code, _, said = command("select", "rule.yaml", "--out", "out")
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
        code, _, said = command(*words, "m.yaml", "--pool", "pool", "--local")
        assert code == 2 and f"recipe t: embed.m: {said.partition('embed.m: ')[2]}" in said and says in said
    assert not Path("runs").exists()


def test_weights_that_have_to_be_fetched_are_a_note_in_a_dry_run(here):
    write("m.yaml", embed={"m": {"model": "hf-hub:some/where"}}, scores=[{"clip_similarity": {"model": "m"}}])
    code, said, _ = command("run", "m.yaml", "--pool", "pool", "--local", "--dry-run", "--json")
    assert code == 0 and "hf download some/where" in json.loads(said)["weights_not_at_hand"]["m"]
    code, _, said = command("run", "m.yaml", "--pool", "pool", "--local")
    assert code == 1 and "hf download some/where" in said and not Path("runs").exists()


def test_a_finished_run_asks_for_no_model_and_opens_no_tar(here, tiny_model, monkeypatch):
    model = shutil.copytree(tiny_model, here / "model")
    for keep in (0.5, 0.25):
        Path("m.yaml").write_text(recipe_text(model, keep))
        code, _, said = command("run", "m.yaml", "--pool", "pool", "--out", "out", "--local", "--no-reshard")
        assert code == 0, said
        shutil.rmtree(model, ignore_errors=True)
        monkeypatch.setattr("jobs.check._check_models", lambda recipe, asked, names: names and pytest.fail(str(names)))


def test_columns_that_something_else_wrote_count_and_embed_only_notes_them(here):
    write("dedup.yaml", scores=["phash"], select="not_duplicate")
    words = ("--pool", "pool", "--out", "out", "--local")
    code, _, said = command("run", "dedup.yaml", *words)
    assert code == 2 and "no column 'duplicate_of'; the score 'duplicates' writes it" in said
    code, _, said = command("embed", "dedup.yaml", *words)
    assert code == 0 and "note: recipe t: select.not_duplicate.column: no column 'duplicate_of'" in said
    assert command("dedup", "out", "--local")[0] == 0
    assert command("run", "dedup.yaml", *words)[0] == 0


def test_a_score_that_reads_what_nothing_before_it_writes(here):
    write("o.yaml", scores=[{"duplicates": {"hamming": 2}}])
    for verb in (("run",), ("run", "--dry-run")):
        code, _, said = command(*verb, "o.yaml", "--pool", "pool", "--local")
        assert code == 2 and "the score of 'duplicate_of' reads the column 'phash'" in said
    write(
        "o.yaml",
        scores=[{"duplicates": {"keep": "score", "score": "overlap_similarity"}}, {"overlap": {"against": ["pool"]}}],
    )
    code, _, said = command("run", "o.yaml", "--pool", "pool", "--local")
    assert code == 2 and "the score that writes it comes later" in said


def test_what_run_needs_at_its_end_is_checked_at_its_start(here):
    code, _, said = command("run", "t.yaml", "--pool", "pool", "--local", "--name", "../x")
    assert code == 2 and "another --name" in said
    code, _, said = command("run", "t.yaml", "--pool", "pool", "--local", "--labels", "labels.parquet")
    assert code == 2 and "labels.parquet does not exist" in said and not Path("runs").exists()


def test_submit_checks_before_it_connects(here):
    write("s.yaml", scores=["phash"], select={"threshold": {"score": "phsh", "min": 0}})
    words = ("--address", "http://127.0.0.1:9", "--out", str(here / "out"))
    code, _, said = command("submit", "s.yaml", *words, "--pool", "s3://somewhere/pool/")
    assert code == 2 and "no column 'phsh'; did you mean 'phash'" in said
    code, _, said = command("submit", "t.yaml", *words, "--pool", "pool/{00000000..00000009}.tar")
    assert code == 2 and "7 of 10 named shards" in said
    write("s.yaml", embed={"m": {"model": "ViT-B-23", "pretrained": "openai"}}, select="everything")
    (here / "mounted there").mkdir()
    code, _, said = command("submit", "s.yaml", *words, "--pool", "/on/the/cluster/", "--pool", "mounted there")
    assert code == 2 and "did you mean 'ViT-B-32'" in said


def test_the_check_alone_writes_nothing(here):
    recipe = parse_recipe(Path("t.yaml").read_text(), "recipe t")
    before = sorted(here.rglob("*"))
    check_request(recipe, Request("run", str(here / "out"), [str(here / "pool/00000000.tar")], resharded=True))
    assert sorted(here.rglob("*")) == before
    with pytest.raises(MMFilterError):
        check_request(recipe, Request("run", str(here / "t.yaml"), []))
