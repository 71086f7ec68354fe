"""Each verb with a wrong path: absent, a file for a folder, an empty folder, another pool's OUT, a read-only OUT.

A right command of each verb stands in RIGHT, its paths in braces. Each path is made wrong in turn, in this process:
exit code 1 or 2, one sentence, no traceback, and nothing is written.
"""

import builtins
import errno
import io
import os
import shlex
import shutil

import polars as pl
import pytest
import typer
from command import command
from embed_util import tiny_folder
from jobs_util import recipe_text
from sets_util import labelled, write_set
from tars import samples, tar, uid

from jobs import cli
from mmfilter.subset import Subset

pytestmark = pytest.mark.slow
U = uid(200)
RIGHT = {  # {run}: a folder that is read; {new}: one that is made; other words in braces: files and folders of `place`
    "download": "{urls.csv} --out {new} --local",
    "run": "{recipe.yaml} --pool {pool} --out {new} --local",
    "submit": "{recipe.yaml} --pool /on/the/cluster --out {new} --address http://127.0.0.1:9",
    "status": "{run}",
    "verify": "{run}",
    "inspect": "{pool}",
    "embed": "{recipe.yaml} --pool {pool} --out {new} --local",
    "score": "{recipe.yaml} --out {run} --local",
    "select": "{recipe.yaml} --out {run}",
    "reshard": "{kept.npy} --pool {pool} --out {new} --local",
    "report": "{run}",
    "explain": f"{U} --out {{run}}",
    "subset": "{kept.npy} '|' {few.npy} --write {new}.npy",
    "schedule": "{run} --kind rs2 --epochs 2 --subset {kept.npy}",
    "compare": "t few --out {run} --target {other} --local",
    "card": "{run}",
    "index": "{run} --model b32 --local",
    "query": f"--uid {U} --out {{run}} --like {{few.npy}} --among {{kept.npy}}",
    "serve": "{run} --port 0 --no-models",
    "dedup": "{run} --hamming 0 --against {other} --model b32 --local",
    "cluster": "{run} --model b32 -k 2 --local",
    "recipe": "copy demo --to {new}.yaml",
    "synth": "{new} --samples 8",
    "train": "{new} --pool {pool} --subset {kept.npy} --samples 8 --batch-size 4",
    "evaluate": "{model} --tasks {sets} --out {new}",
    "probe": "{run} --model b32 --column language --labels {labels.parquet}",
    "rank": "{kept.npy} --pool {pool} --out {new} --scale micro --seeds 1 --samples 32 --local",
    "leaderboard": "{ranked}",
    "advise": "{results.csv} --budget 1e7 --bucket-size 1000000 --out {new}",
    "demo": "{new} --samples 50 --local",
}
METADATA = ("score", "select", "report", "explain", "schedule", "compare", "card", "index", "dedup", "cluster", "probe")
OF_ONE_POOL = ("run", "embed", "reshard", "rank", "train")  # their OUT or subset belongs to the pool that is given
READERS = {
    "status",
    "verify",
    "inspect",
    "subset",
    "explain",
    "query",
    "serve",
    "probe",
}  # what they read may be read-only


def verbs():
    cli.register()
    return sorted(typer.main.get_command(cli.app).commands)


def paths(verb):
    """The names in braces of a verb's right command, and `metadata` where the verb takes it."""
    found = [word.split("}")[0].split("{")[1] for word in shlex.split(RIGHT.get(verb, "")) if "{" in word]
    return [*found, *(["metadata"] if verb in METADATA else [])]


CASES = [
    (verb, name, wrong)
    for verb in RIGHT
    for name in paths(verb)
    for wrong in ("absent", "kind", "empty")
    if not (name == "new" and wrong != "kind")
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A pool and a run over it, the same of another pool, and a file or folder for each name in RIGHT."""
    folder = tmp_path_factory.mktemp("wrong")
    tiny_folder(folder / "model")
    (folder / "recipe.yaml").write_text(recipe_text(folder / "model"))
    for pool, run, shards in (("pool", "run", 2), ("pool2", "other", 3)):
        (folder / pool).mkdir()
        for shard in range(shards):  # no uid is in both pools
            (folder / pool / f"{shard:08d}.tar").write_bytes(tar(samples(8 - shards, 100 * shards + 10 * shard)))
        words = ("run", folder / "recipe.yaml", "--pool", folder / pool, "--out", folder / run, "--local")
        code, _, err = command(*words)
        assert code == 0, err
    assert command("index", folder / "run", "--model", "b32", "--local")[0] == 0
    Subset.from_uids([uid(200 + n) for n in range(3)]).write(str(folder / "few.npy"))
    shutil.copy(folder / "few.npy", folder / "run/subsets/few.npy")
    shutil.copy(folder / "run/subsets/t.npy", folder / "kept.npy")
    write_set(folder / "sets" / "mine", labelled(4))
    pl.DataFrame({"uid": [uid(200 + n) for n in range(6)], "language": ["en", "de"] * 3}).write_parquet(
        folder / "labels.parquet"
    )
    (folder / "urls.csv").write_text("url,text\nhttp://127.0.0.1:9/a.jpg,a caption\n")
    (folder / "results.csv").write_text("bucket,samples_seen,error\na,1e6,0.5\na,2e6,0.4\na,4e6,0.3\n")
    return folder


def files(folder):
    """Every file below, with its bytes' number and date, but those that say who is at work."""
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if not path.is_dir()}
    return {
        name: (path.stat().st_size, path.stat().st_mtime_ns)
        for name, path in found.items()
        if path.name not in (".lock", ".progress")
    }


def words(verb, place, **wrong):
    """The verb's right command with the paths of `place`, but those that are in `wrong`."""
    found = []
    for word in shlex.split(RIGHT[verb]):
        name = word.split("}")[0].partition("{")[2]
        path = wrong.get(name, place / ("new-of-" + verb if name == "new" else name)) if name else ""
        found.append(word.replace("{" + name + "}", str(path)) if name else word)
    if "metadata" in wrong:
        found += ["--metadata", str(wrong["metadata"])]
    return [verb, *found]


def sentence(result):
    """Whether the result is an error that a person can act on."""
    code, out, err = result
    told = [line for line in err.splitlines() if line.startswith(("mmfilter: ", "│ ", "Error: "))]
    return code in (1, 2) and len(told) >= 1 and "Traceback" not in out + err


def test_every_verb_has_a_right_command():
    assert set(RIGHT) == set(verbs()), "a verb is new: give RIGHT a command of it"


@pytest.mark.parametrize(("verb", "name", "wrong"), CASES, ids=lambda part: str(part))
def test_a_wrong_path(verb, name, wrong, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = "." not in name
    bad = tmp_path / f"wrong{'' if folder else '.' + name.split('.')[1]}"
    if name == "new" and "{new}." in RIGHT[verb]:  # a file is made: a folder is in its place
        (tmp_path / ("wrong." + RIGHT[verb].split("{new}.")[1].split()[0])).mkdir()
    elif wrong == "empty" or (wrong == "kind" and not folder):
        bad.mkdir()
    elif wrong == "kind":
        bad.write_text("a line of text\n")
    before, here = files(place), files(tmp_path)
    result = command(*words(verb, place, **{name: bad}))
    assert sentence(result), f"{result[0]}: {result[1][-200:]} {result[2][-600:]}"
    assert bad.name in result[2], f"it does not name the path: {result[2]}"
    assert files(place) == before and files(tmp_path) == here


@pytest.mark.parametrize("verb", OF_ONE_POOL)
def test_a_pool_that_is_not_the_one_of_out_or_subset(verb, place, tmp_path):
    out = tmp_path / "out"
    if verb in ("run", "embed"):
        shutil.copytree(place / "run", out)
    before = files(tmp_path)
    result = command(*words(verb, place, pool=place / "pool2", new=out))
    assert sentence(result), f"{result[0]}: {result[1][-200:]} {result[2][-600:]}"
    assert "shard" in result[2] or "pool" in result[2]
    assert {path: what for path, what in files(tmp_path).items() if not path.endswith("bpe.txt.gz")} == before


@pytest.fixture
def read_only(monkeypatch):
    """Make writing below a folder fail as on a read-only mount; root ignores modes."""

    def freeze(folder):
        def refuse(path):
            if not isinstance(path, int) and os.path.abspath(os.fsdecode(path)).startswith(f"{folder}{os.sep}"):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(path))

        def guard(module, name, writes):
            real = getattr(module, name)

            def guarded(path, *args, **kwargs):
                if writes(args, kwargs):
                    refuse(path)
                return real(path, *args, **kwargs)

            monkeypatch.setattr(module, name, guarded)

        def mode(args, kwargs):
            return not set("wax+").isdisjoint(str(args[0] if args else kwargs.get("mode", "r")))

        for module in (builtins, io):
            guard(module, "open", mode)
        guard(os, "open", lambda args, kwargs: args[0] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        for name in ("mkdir", "rename", "replace", "unlink", "remove", "rmdir", "link", "symlink", "truncate", "utime"):
            guard(os, name, lambda args, kwargs: True)

    return freeze


@pytest.mark.parametrize("verb", [v for v in RIGHT if {"new", "run", "ranked"} & set(paths(v)) and v != "submit"])
def test_an_out_that_is_read_only(verb, place, tmp_path, read_only, monkeypatch):
    here = tmp_path / "disk"
    shutil.copytree(place / "run", here / "run")
    (here / "ranked").mkdir()
    before = files(tmp_path)
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)  # it would serve until a signal
    read_only(here)
    result = command(*words(verb, place, run=here / "run", new=here / "new", ranked=here / "ranked"))
    if verb in READERS and "{new}" not in RIGHT[verb]:
        assert result[0] == 0, result
    else:
        assert sentence(result), f"{result[0]}: {result[1][-200:]} {result[2][-600:]}"
        assert str(here) in result[2].replace("\n", ""), result[2]
    assert files(tmp_path) == before
