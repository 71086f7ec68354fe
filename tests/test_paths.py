"""A path is a path: only what is given to --pool is a pattern, and what exists wins there too."""

import ast
import os
from pathlib import Path

import numpy as np
import pytest
from command import command
from store_util import served, store
from tars import samples, tar, write_pool

from mmfilter import patterns, remote, storage
from mmfilter.engine import joined
from mmfilter.errors import MMFilterError, UsageError
from mmfilter.subset import Subset

__all__ = ["served", "store"]
ROOT = Path(__file__).resolve().parent.parent
READS_PATTERNS = {
    *("glob", "iglob", "rglob", "braceexpand", "expand_urls", "dataset", "ParquetDataset", "open_files"),
    *("read_parquet", "scan_parquet", "read_csv", "scan_csv", "read_ipc", "scan_ipc", "read_ndjson", "scan_ndjson"),
}
"""Functions of the standard library, polars, pyarrow, fsspec and webdataset that take a path for a pattern."""
PATTERN_FILES = {"mmfilter/patterns.py", "mmfilter/listings.py"}
FILES = [
    "mine [v1]/0.tar",
    "mine [v1]/1.tar",
    "mine v/9.tar",
    "a{b/0.tar",
    "it's {a,b} *?/0.tar",
    "it's {a,b} *?/x[1].tar",
    "q/0.tar",
    "q/0.json",
    "r/s/0.tar",
    "sp ace/%20#.tar",
    "b\\s/0.tar",
    "~/0.tar",
    "-x/0.tar",
]
NAMED = {
    "mine [v1]": ["mine [v1]/0.tar", "mine [v1]/1.tar"],
    "mine [v1]/*.tar": ["mine [v1]/0.tar", "mine [v1]/1.tar"],
    "mine [v1]/{0,1}.tar": ["mine [v1]/0.tar", "mine [v1]/1.tar"],
    "mine [uv]/*.tar": ["mine v/9.tar"],
    "a{b": ["a{b/0.tar"],
    "a{b/*.tar": ["a{b/0.tar"],
    "it's {a,b} *?/*.tar": ["it's {a,b} *?/0.tar", "it's {a,b} *?/x[1].tar"],
    "it's {a,b} *?/x[1].tar": ["it's {a,b} *?/x[1].tar"],
    "it's {a,b} *?/{0,x[1]}.tar": ["it's {a,b} *?/0.tar", "it's {a,b} *?/x[1].tar"],
    "q/*": ["q/0.tar"],
    "r/**/*.tar": ["r/s/0.tar"],
    "sp ace/%20#.tar": ["sp ace/%20#.tar"],
    "b\\s/*.tar": ["b\\s/0.tar"],
    "~/*.tar": ["~/0.tar"],
    "-x/*.tar": ["-x/0.tar"],
    "mine [v1]/2.tar": ["mine [v1]/2.tar"],  # a plain path in a folder that exists: --pool says that it does not
    "nope [v1]/2.tar": "no shard matches",
    "q/*.json": "matches no .tar file",
    "r/*": "matches no .tar file",
    "a{c": "a brace is opened",
}
"""Patterns and the shards that they name, or what is said."""
LOCAL = {
    "a::b": ["a::b/0.tar"],
    "a::b/*.tar": ["a::b/0.tar"],
    "q/0.tar::a::b/*.tar::mine v": ["q/0.tar", "a::b/0.tar", "mine v/9.tar"],
    "new\nline/*.tar": ["new\nline/0.tar"],
}


def expanded(pattern):
    try:
        return [str(path) for path in storage.expand(pattern)]
    except UsageError as error:
        return str(error)


def fits(found, expected, root=""):
    if isinstance(expected, str):
        return isinstance(found, str) and expected in found
    return found == [root + path for path in expected]


@pytest.fixture
def files(tmp_path, monkeypatch):
    for name in [*FILES, "a::b/0.tar", "new\nline/0.tar"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_exists_is_no_pattern(files):
    for pattern, expected in (NAMED | LOCAL).items():
        assert fits(expanded(pattern), expected), (pattern, expanded(pattern))


@pytest.mark.parametrize("scheme", ["file", "memory", "s3"])
def test_nor_is_it_where_it_is_a_url(scheme, files, request):
    root = {"file": f"file://{files}", "memory": "memory://odd", "s3": "s3://pictures/odd"}[scheme]
    if scheme == "s3":
        request.getfixturevalue("store")
    for name in FILES if scheme != "file" else ():
        storage.write_atomic(f"{root}/{name}", b"")
    for pattern, expected in NAMED.items():
        found = expanded(f"{root}/{pattern}")
        assert fits(found, expected, f"{root}/"), (pattern, found)
    assert storage.list_files(f"{root}/mine [v1]", ".tar") == [f"{root}/mine [v1]/{n}.tar" for n in (0, 1)]
    assert storage.files_below(f"{root}/r") == [f"{root}/r/s/0.tar"]
    if scheme == "memory":
        remote.filesystem(root).rm("/odd", recursive=True)


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(MMFilterError, match="cannot be read \\(Permission denied, EACCES\\)"):
        storage.list_files(str(tmp_path), ".tar")


def test_files_are_listed_as_they_are_named(tmp_path):
    folder = tmp_path / "it's [v1]"
    assert storage.list_files(str(folder), ".tar") == []
    folder.mkdir()
    for name in ("b.tar", "a*.tar", ".c.tar", "d.json"):
        (folder / name).touch()
    assert storage.list_files(str(folder), ".tar") == [f"{folder}/a*.tar", f"{folder}/b.tar"]


def test_no_other_shard_is_overwritten(tmp_path):
    """`mine [v1]` was taken for a pattern that matches no folder, so that its tar was not seen."""
    pool = tmp_path / "pool"
    write_pool(pool, 1, 4)
    Subset.from_uids([f"{n:032x}" for n in range(2)]).write(str(tmp_path / "s.npy"))
    for out in ("mine [v1]", "a{b,c}", "what *?"):
        (tmp_path / out).mkdir()
        (tmp_path / out / "00000000.tar").write_bytes(b"someone's")
        words = ("reshard", tmp_path / "s.npy", "--pool", pool, "--out", tmp_path / out, "--local")
        done = command(*words)
        assert done.code == 1 and "it holds shards of another origin" in done.err, out
        assert (tmp_path / out / "00000000.tar").read_bytes() == b"someone's"
        assert os.listdir(tmp_path / out) == ["00000000.tar"]


def test_a_run_is_selected_from_and_not_the_one_that_its_name_matches(tmp_path):
    """`run[1]` read as a pattern is `run1`."""
    for out, per_shard in (("run1", 3), ("run[1]", 8)):
        write_pool(tmp_path / "pool" / out, 2, per_shard)
        done = command("embed", "no_filter", "--pool", tmp_path / "pool" / out, "--out", tmp_path / out, "--local")
        assert done.code == 0, done.err
    done = command("select", "no_filter", "--out", tmp_path / "run[1]")
    assert done.code == 0 and done.out.startswith("in 16 = kept 16 ")
    assert len(np.load(tmp_path / "run[1]/subsets/no_filter.npy")) == 16


def test_a_trainer_is_given_paths(tmp_path):
    from webdataset.shardlists import expand_urls

    paths = [f"{tmp_path}/{name}/0.tar" for name in ("plain", "it's [v1] {a,b} *?", "a{b", "a}b", "${WDS_X}", "b\\s")]
    assert expand_urls(joined(paths)) == paths
    assert joined(paths[:1]) == paths[0]


def calls(path):
    """(line, name, call) of the calls in a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            yield node.lineno, name, node


def is_safe(name, call):
    """Whether a call is handed no pattern: a stream, `glob=False`, an escaped path, or a pattern without a path."""
    words = [ast.unparse(part) for part in [*call.args, *(k.value for k in call.keywords)]]
    plain = {k.arg: ast.unparse(k.value) for k in call.keywords}
    if name.startswith(("read_", "scan_")):
        own = isinstance(call.func, ast.Name)  # mmfilter.decisions.read_parquet, which says glob=False itself
        return own or plain.get("glob") == "False" or "BytesIO" in words[0]
    return "escape(" in words[0] or isinstance(call.args[0], ast.Constant)


@pytest.mark.parametrize("room", ["mmfilter", "index", "jobs"])
def test_nothing_else_reads_a_path_as_a_pattern(room):
    found = []
    for path in sorted((ROOT / room).rglob("*.py")):
        name = str(path.relative_to(ROOT))
        if name in PATTERN_FILES:
            continue
        found += [
            f"{name}:{line}: {called}"
            for line, called, call in calls(path)
            if called in READS_PATTERNS and not is_safe(called, call)
        ]
    assert found == [], "list the folder (storage.list_files), or say glob=False"


def test_a_shard_whose_name_is_a_pattern_is_recorded_and_found_again(tmp_path):
    """run.json's shards are paths: `inspect --out` reads them, and says which one is gone."""
    pool = tmp_path / "pool"
    pool.mkdir()
    for name, start in (("x[1].tar", 0), ("x1.tar", 4), ("{a}.tar", 8)):
        (pool / name).write_bytes(tar(samples(4, start)))
    done = command("embed", "no_filter", "--pool", pool, "--out", tmp_path / "out", "--local")
    assert done.code == 0 and done.out == "read 12 = ok 12 + failed 0 (3 shards)\n", done.err
    done = command("inspect", "--out", tmp_path / "out")
    assert done.code == 0 and "12 samples are well" in done.out
    (pool / "x[1].tar").unlink()
    done = command("inspect", "--out", tmp_path / "out")
    assert done.code == 2 and f"{pool}/x[1].tar" in done.err and "1 of 3 named shards do not exist" in done.err
    assert patterns.glob(f"{pool}/x[1].tar") == [f"{pool}/x1.tar"], "what does not exist is a pattern"


@pytest.mark.slow
def test_a_whole_run_on_a_store_under_an_odd_name(store, tmp_path):
    write_pool(tmp_path / "mine [v1] {a,b} *?", 2, 4)
    for name in ("mine [v1] {a,b} *?", "mine v {a,b} xx"):
        store.put(tmp_path / "mine [v1] {a,b} *?", name)
    pool, out = f"{store.root}/mine [v1] {{a,b}} *?", f"{store.root}/out[1]"
    for given in (pool, f"{pool}/*.tar", f"{pool}/{{00000000..00000001}}.tar"):
        done = command("run", "no_filter", "--pool", given, "--out", out, "--local")
        assert done.code == 0 and done.out.startswith("in 8 = kept 8 "), done.err
    assert storage.list_files(f"{out}/shards/no_filter", ".tar") == [f"{out}/shards/no_filter/00000000.tar"]
    done = command("select", "no_filter", "--out", f"{store.root}/out1")
    assert done.code != 0, "another name"
