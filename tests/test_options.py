"""What every verb takes alike: OUT both ways, --progress, help with an example; recipes and weights by name."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import typer
from command import command
from jobs_util import recipe_text
from tars import write_pool
from test_rooms import HEAVY

from jobs import cli, progress
from jobs.groups import GROUPS, example_of
from mmfilter import __version__
from mmfilter.errors import UsageError
from mmfilter.recipe import load_recipe, packaged

cli.register()
COMMANDS = typer.main.get_command(cli.app).commands
VERBS = sorted(name for name in COMMANDS if name != "recipe")
POSITIONAL = sorted(
    v for v in VERBS if any(p.param_type_name == "argument" and p.metavar == "OUT" for p in COMMANDS[v].params)
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_out_and_progress_and_shows_an_example(verb):
    flags = {flag for p in COMMANDS[verb].params for flag in p.opts}
    assert {"--out", "--progress", "--quiet", "-q"} <= flags
    assert COMMANDS[verb].epilog == f"Example: {example_of(verb)}" and example_of(verb).startswith(f"mmfilter {verb} ")
    assert COMMANDS[verb].rich_help_panel in GROUPS


def test_the_positional_out_is_that_of_every_verb_without_another():
    others = {
        "run",
        "submit",
        "embed",
        "score",
        "select",
        "explain",
        "query",
        "compare",
        "evaluate",
    }  # RECIPE, UID, ...
    others |= {"download", "reshard", "inspect", "subset", "rank", "advise"}  # lists, subsets, pools, results
    assert set(POSITIONAL) == set(VERBS) - others


@pytest.mark.parametrize("verb", POSITIONAL)
def test_out_is_given_once_in_one_of_two_ways(verb, tmp_path):
    needed = {
        "cluster": ["--model", "m"],
        "index": ["--model", "m"],
        "probe": ["--model", "m", "--column", "c"],
        "schedule": ["--kind", "rs2", "--epochs", 2],
        "train": ["--pool", tmp_path / "absent"],
    }.get(verb, [])
    done = command(verb, tmp_path / "a", "--out", tmp_path / "b", *needed)
    assert done.code == 2 and "OUT is given twice" in done.err
    if verb != "demo":  # which has a default
        done = command(verb, *needed)
        assert done.code == 2 and "OUT is missing" in done.err and f"Usage: mmfilter {verb} " in done.err
    file = tmp_path / "file"
    file.write_text("")
    done = command(verb, "--out", file, *needed)
    assert done.code == 2 and f"{file} is a file" in done.err
    assert os.listdir(tmp_path) == ["file"]


def test_out_is_not_the_pools_folder(tmp_path):
    write_pool(tmp_path / "pool", 1, 2)
    before = sorted(os.listdir(tmp_path / "pool"))
    for pool in (tmp_path / "pool", tmp_path / "pool" / "*.tar"):
        done = command("run", "no_filter", "--pool", pool, "--out", tmp_path / "pool", "--local")
        assert done.code == 2 and "give another OUT" in done.err
    assert sorted(os.listdir(tmp_path / "pool")) == before


def test_the_version_and_the_module():
    assert command("--version") == (0, f"mmfilter {__version__}\n", "")
    done = subprocess.run([sys.executable, "-m", "mmfilter", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"mmfilter {__version__}\n"), done.stderr


def test_a_file_that_hides_a_room_is_told(tmp_path):
    (tmp_path / "jobs.py").write_text("")
    words = [sys.executable, "-m", "mmfilter", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1 and "hides the package's own" in done.stderr and "Traceback" not in done.stderr


def test_completion_is_offered():
    env = {
        **os.environ,
        "_MMFILTER_COMPLETE": "complete_bash",
        "COMP_WORDS": "mmfilter recipe show clip",
        "COMP_CWORD": "3",
    }
    code = "import sys; sys.argv = ['mmfilter']; from jobs.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert done.stdout.split() == ["clip_score"], done.stderr


def test_no_help_loads_anything_heavy():
    code = f"""
import sys
from command import command
for verb in [[], *([v] for v in {[*VERBS, "recipe"]})]:
    done = command(*verb, "--help")
    assert done.code == 0 and "Usage: mmfilter" in done.out and (not verb or "Example: mmfilter" in done.out), verb
print([m for m in {HEAVY} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_recipes_are_listed_shown_and_copied(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    listed = command("recipe", "list")
    assert listed.code == 0 and [line.split()[0] for line in listed.out.splitlines()[: len(packaged())]] == packaged()
    shown = command("recipe", "show", "clip_score")
    assert shown.code == 0 and shown.out.startswith("name: clip_score\n")
    done = command("recipe", "copy", "clip_score")
    assert done.code == 0 and (tmp_path / "clip_score.yaml").read_text() == shown.out
    assert load_recipe("clip_score.yaml").source == load_recipe("clip_score").source
    done = command("recipe", "copy", "clip_score")
    assert done.code == 2 and "exists already" in done.err
    assert command("recipe", "copy", "clip_score", "--to", "mine.yaml").code == 0
    done = command("recipe", "copy", "clip_score", "--to", "nowhere/mine.yaml")
    assert done.code == 2 and "cannot be written" in done.err
    done = command("recipe", "show", "clip_scor")
    assert done.code == 2 and "did you mean 'clip_score'?" in done.err


def test_weights_replace_a_models_source(tiny_model, tmp_path):
    named = load_recipe("clip_score", [f"l14={tiny_model}"])
    assert named.embed["l14"].model == str(tiny_model) and named.embed["l14"].pretrained is None
    assert named.source["embed"] == {"l14": {"model": str(tiny_model)}}
    file = tmp_path / "l14.safetensors"
    file.write_bytes(b"")
    named = load_recipe("clip_score", [f"l14={file}"])
    assert (named.embed["l14"].pretrained, named.embed["l14"].weights) == ("openai", str(file))
    assert named.source["embed"]["l14"] == {"model": "ViT-L-14", "pretrained": "openai", "weights": str(file)}
    for words, said in (
        (["l41=x"], "did you mean 'l14'?"),
        (["l14"], "NAME=PATH"),
        ([f"l14={tmp_path / 'absent.pt'}"], "it is not there"),
        ([f"l14={tmp_path}"], "no model folder"),
        ([f"l14={file}", f"l14={tiny_model}"], "given twice"),
        ([f"l14={tmp_path / 'l14.txt'}"], "it is not there"),
    ):
        with pytest.raises(UsageError, match=said.replace("?", r"\?")):
            load_recipe("clip_score", words)
    with pytest.raises(UsageError, match="brings its own weights"):
        load_recipe("demo", [f"demo={file}"])
    with pytest.raises(UsageError, match="It has no models"):
        load_recipe("no_filter", [f"b32={file}"])


def test_a_run_with_other_weights_goes_on_and_is_recorded(tiny_model, tmp_path):
    """run, embed, score and select with the same --weights are one recipe; without it they conflict."""
    write_pool(tmp_path / "pool", 1, 6)
    recipe, out = tmp_path / "t.yaml", tmp_path / "out"
    recipe.write_text(recipe_text("demo"))
    words = (recipe, "--out", out, "--weights", f"b32={tiny_model}")
    assert command("embed", *words, "--pool", tmp_path / "pool", "--local").code == 0
    assert command("score", *words).code == 0 and command("select", *words).code == 0
    assert json.loads((out / "run.json").read_text())["recipe"]["embed"]["b32"] == {"model": str(tiny_model)}
    assert json.loads((out / "subsets/t.json").read_text())["recipe"]["embed"]["b32"] == {"model": str(tiny_model)}
    done = command("run", *words, "--pool", tmp_path / "pool", "--local")
    assert done.code == 0 and "embed" not in done.err, "nothing is embedded twice"
    assert str(tiny_model) in (out / "subsets/t.md").read_text(), "the card tells what was used"
    done = command("run", recipe, "--out", out, "--pool", tmp_path / "pool", "--local")
    assert done.code == 1 and "was made from something else" in done.err
    done = command("select", recipe, "--out", out, "--weights", "b23=x")
    assert done.code == 2 and "did you mean 'b32'?" in done.err


def test_dedup_replaces_no_columns_that_a_recipe_made(tmp_path):
    """README's own sequence made `select demo` give another subset under the same name."""
    assert command("synth", tmp_path / "pool", "--samples", 60, "--per-shard", 60).code == 0
    out = tmp_path / "out"
    assert command("run", "demo", "--pool", tmp_path / "pool", "--out", out, "--local", "--no-reshard").code == 0
    before = command("select", "demo", "--out", out).out
    done = command("dedup", out, "--model", "demo", "--local")
    assert done.code == 1 and "duplicate_of, duplicate_similarity, duplicate_kind" in done.err
    assert "hamming 2, now null" in done.err and 'model null, now "demo"' in done.err and "--redo-changed" in done.err
    assert command("select", "demo", "--out", out).out == before
    assert command("dedup", out, "--model", "demo", "--local", "--redo-changed").code == 0
    assert command("dedup", out, "--model", "demo", "--local").code == 0
    assert command("cluster", out, "--model", "demo", "-k", 3, "--local").code == 0
    done = command("cluster", out, "--model", "demo", "-k", 4, "--local")
    assert done.code == 1 and "cluster_id" in done.err and "k 3, now 4" in done.err
    assert command("cluster", out, "--model", "demo", "-k", 4, "--local", "--redo-changed").code == 0


@pytest.mark.parametrize("how", ["plain", "json", "none", "variable", "quiet"])
def test_progress_is_shown_as_asked(how, tmp_path, monkeypatch):
    write_pool(tmp_path / "pool", 2, 3)
    words = {"variable": (), "quiet": ("-q",)}.get(how, ("--progress", how))
    if how == "variable":
        monkeypatch.setenv(progress.VARIABLE, "json")
    done = command("embed", "no_filter", "--pool", tmp_path / "pool", "--out", tmp_path / "o", "--local", *words)
    assert done.code == 0 and done.out == "read 6 = ok 6 + failed 0 (2 shards)\n"
    if how in ("json", "variable"):
        events = [json.loads(line) for line in done.err.splitlines()]
        assert (events[0]["event"], events[-1]["event"]) == ("start", "end")
        assert (events[-1]["shards"], events[-1]["of"], events[-1]["samples"]) == (2, 2, 6)
    elif how == "plain":
        last = done.err.splitlines()[-1]
        assert last.startswith("embed 2/2 shards, 6 samples, ") and "0 failed" in last
    else:
        assert done.err == ""


def test_verbose_tells_each_unit_and_where_an_error_arose(tmp_path):
    write_pool(tmp_path / "pool", 3, 1)
    done = command("embed", "no_filter", "--pool", tmp_path / "pool", "--out", tmp_path / "o", "--local", "-v")
    assert [line.split(",")[0] for line in done.err.splitlines()[:3]] == [f"embed {n}/3 shards" for n in (1, 2, 3)]
    done = command("status", tmp_path / "absent", "-v")
    assert done.code == 2 and done.err.startswith("Traceback") and done.err.splitlines()[-1].startswith("mmfilter: ")


def test_a_pattern_that_the_shell_expanded_says_so(tmp_path):
    write_pool(tmp_path / "pool", 3, 1)
    done = command("run", "no_filter", "--pool", *sorted((tmp_path / "pool").glob("*.tar")), "--out", tmp_path / "o")
    assert done.code == 2 and "00000001.tar and 1 more. Quote the pattern" in done.err and not (tmp_path / "o").exists()
    done = command("run", "no_filter", "more", "--pool", tmp_path / "pool")
    assert done.code == 2 and "unexpected argument more.\n" in done.err


def test_progress_that_is_none_says_so(monkeypatch, tmp_path):
    done = command("status", tmp_path, "-q", "--progress", "json")
    assert done.code == 2 and "give one of them" in done.err
    assert command("status", tmp_path, "--progress", "loud").code == 2
    monkeypatch.setenv(progress.VARIABLE, "jsn")
    done = command("status", tmp_path)
    assert done.code == 2 and "did you mean 'json'?" in done.err


def test_one_large_shard_shows_its_samples(monkeypatch, capsys):
    """139 s stood at 0 of 1: what was read of the shard is told while no shard comes back."""
    monkeypatch.setattr(progress, "WAITING_S", 0.5)
    progress.choose(progress.Mode.plain)
    with progress.Progress("embed", 1) as shown:
        progress.count_read(64)
        progress.count_read(64)
        shown._ended.wait(2.5)
        shown.advance(130, 2)
    progress.choose(None)
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first.startswith("embed 0/1 shards, 128 samples, ") and first.endswith(" so far")
    assert last.startswith("embed 1/1 shards, 130 samples, ") and "2 failed" in last


def test_an_older_progress_json_is_read_and_goes(tmp_path):
    write_pool(tmp_path / "pool", 1, 2)
    out = tmp_path / "out"
    assert command("embed", "no_filter", "--pool", tmp_path / "pool", "--out", out, "--local").code == 0
    shutil.move(out / ".progress", out / "progress.json")
    assert command("status", out).out.startswith("done  ")
    assert command("embed", "no_filter", "--pool", tmp_path / "pool", "--out", out, "--local").code == 0
    assert (out / ".progress").is_file() and not (out / "progress.json").exists()
