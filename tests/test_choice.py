"""A small job runs in the command's own process, without Ray; when that process dies, the next start uses Ray."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from jobs_util import Killer, recipe_text, results
from tars import sample, tar, write_pool

from jobs import choice, marker
from jobs.choice import Load, choose
from jobs.cluster import Width
from jobs.embed import embed_pool
from jobs.outdir import count_attempt, count_death, only_driver, read_attempts
from jobs.run import RunOptions, run_recipe
from mmfilter.recipe import parse_recipe
from mmfilter.table import open_table

SMALL, LARGE = Load("4,000 samples", 3.0), Load("9,000,000 samples", 90_000.0)


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(choice, "SAID", set())
    monkeypatch.setattr(choice, "local_gpus", lambda: 0)


@pytest.mark.parametrize(
    "width", [Width(workers=2), Width(address="auto"), Width(gpus=1), Width(decoders=1), Width(local=True)]
)
def test_what_the_user_says_decides(width, capfd):
    assert choose(width, SMALL) == width and choose(width, LARGE) == width
    assert capfd.readouterr().err == ""


def test_else_the_estimate_decides_and_says_so_once(capfd, monkeypatch):
    assert choose(Width(), SMALL).local and choose(Width(gpus=0), SMALL).local
    line = "mmfilter: 4,000 samples: in this process, without Ray (--workers N uses Ray)\n"
    assert capfd.readouterr().err == line
    assert not choose(Width(), LARGE).local
    assert capfd.readouterr().err == "mmfilter: 9,000,000 samples: on Ray (--local: in this process alone)\n"
    monkeypatch.setattr(choice, "local_gpus", lambda: 1)
    assert not choose(Width(), SMALL).local and choose(Width(gpus=0), SMALL).local


def test_the_estimate_looks_at_samples_bytes_and_models(tmp_path):
    paths = write_pool(tmp_path / "pool", 2, 9)
    size = sum(Path(path).stat().st_size for path in paths)
    assert choice.embedding(paths, {}, False) == Load("18 samples", size / choice.READ)
    (tmp_path / "pool/00000001_stats.json").write_text("{")
    (tmp_path / "pool/00000000_stats.json").write_text('{"successes": 1000000}')
    known = choice.embedding([*paths, str(tmp_path / "gone.tar")], {}, True)
    assert known.what.endswith("MB of shards") and known.seconds == size / choice.DECODED
    demo = parse_recipe(json.dumps({"name": "t", "embed": {"demo": {"model": "demo"}}}), "t").embed
    published = parse_recipe(
        json.dumps({"name": "t", "embed": {"b32": {"model": "ViT-B-32", "pretrained": "openai"}}}), "t"
    ).embed
    seconds = [choice.embedding(paths, models, True).seconds for models in ({}, demo, published)]
    assert seconds == sorted(seconds) and seconds[1] / 1e6 < 0.01 and seconds[2] > 100_000
    many = choice.embedding(paths[1:] * 10_000, {}, True)
    assert many.what.endswith("MB of shards") and many.seconds > 1000 * size / choice.DECODED


def test_a_small_run_starts_no_ray_and_gives_the_bytes_of_ray(tmp_path, tiny_model, ray_here, mmfilter):
    pool = write_pool(tmp_path / "pool", 3, 9)
    text = recipe_text(tiny_model)
    (tmp_path / "t.yaml").write_text(text)
    code, _, said = mmfilter("run", tmp_path / "t.yaml", "--pool", tmp_path / "pool", "--out", tmp_path / "a")
    assert code == 0, said
    told = [line for line in said.splitlines() if line.startswith("mmfilter")]
    assert told == ["mmfilter: 27 samples: in this process, without Ray (--workers N uses Ray)"]
    run_recipe(parse_recipe(text, "t"), pool, RunOptions(str(tmp_path / "b"), "t", Width(workers=2, gpus=0)))
    assert results(tmp_path / "a") == results(tmp_path / "b")
    assert not (tmp_path / "a" / marker.NAME).exists()
    assert choice.rows(open_table(str(tmp_path / "a"))).what == "27 samples"


DIES = """
import sys
from dataclasses import replace
from jobs_util import Killer
from jobs.cluster import Width
from jobs.embed import embed_pool
from jobs.outdir import only_driver
from mmfilter.recipe import parse_recipe
text, out, local, *pool = sys.argv[1:]
recipe = replace(parse_recipe(text, "t"), scores=(Killer(),))
with only_driver(out):
    embed_pool(recipe, pool, out, Width(local=local == "local"))
"""


@pytest.fixture
def deadly(tmp_path):
    """(start, recipe, pool, out): start(local) is a driver that dies at the second of three shards."""
    text = recipe_text("x", embed={}, scores=[], select="everything")
    pool = write_pool(tmp_path / "pool", 3, 4)
    Path(pool[1]).write_bytes(tar([m for n in range(4, 8) for m in sample(n, text="kill the worker")]))
    out = str(tmp_path / "out")

    def start(local=""):
        words = [sys.executable, "-c", DIES, text, out, local, *pool]
        return subprocess.run(words, capture_output=True, text=True)

    return start, replace(parse_recipe(text, "t"), scores=(Killer(),)), pool, out


def test_a_process_that_dies_counts_once_and_ray_sets_the_sample_aside(deadly, ray_here, capfd):
    start, recipe, pool, out = deadly
    first = start()
    assert first.returncode == 9 and "in this process, without Ray" in first.stderr
    for _ in range(3):  # whoever insists is not stopped, nor is a healthy shard set aside for it
        again = start("local")
        assert again.returncode == 9 and "without --local, Ray sets it aside" in again.stderr
    assert read_attempts(out, "00000001")["attempts"] == 1
    with only_driver(out):
        counts = embed_pool(recipe, pool, out, Width())
    said = capfd.readouterr().err
    assert "the process that worked here before died at shard 00000001: on Ray" in said
    assert list(counts.set_aside) == ["00000001"] and (counts.ok, counts.failed) == (8, {"shard_set_aside": 4})
    assert read_attempts(out, "00000001")["attempts"] == 3 and not Path(out, marker.NAME).exists()


def test_a_death_is_forgotten_when_the_shard_is_done(tmp_path, ray_here):
    recipe = parse_recipe(recipe_text("x", embed={}, scores=["phash"], select="everything"), "t")
    pool, out = write_pool(tmp_path / "pool", 2, 4), str(tmp_path / "out")
    with only_driver(out):
        marker.begin(pool[1])
        left = Path(out, marker.NAME).read_bytes()
    assert not Path(out, marker.NAME).exists(), "a stop is no death"
    for damaged in (left, b"{", b"[]"):
        Path(out, marker.NAME).write_bytes(damaged)
        with only_driver(out):
            assert marker.left_behind() == {"shard": "00000001" if damaged == left else ""}
    for _ in range(5):
        count_death(out, "00000001")
    assert count_attempt(out, "00000001", "a worker's") == 2
    with only_driver(out):
        assert embed_pool(recipe, pool, out, Width()).ok == 8
    assert read_attempts(out, "00000001")["attempts"] == 0 and not Path(out, marker.NAME).exists()
