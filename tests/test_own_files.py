"""Nothing that mmfilter did not write is deleted or replaced: not by pattern, not by the path of what it writes."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command import command
from train_util import make_pool, write_config

from jobs.outdir import only_driver
from mmfilter.subset import Subset

THEIRS = b"of a user's, and of nobody else's"
OLD, SECOND = "run/subsets/old.npy", "run/subsets/second.npy"
TARGETS = {
    "report": ("run/report.html", "report run --name old"),
    "comparison": ("run/compare.html", "compare old second --out run"),
    "comparison, record": ("run/compare.json", "compare old second --out run"),
    "comparison, page": ("mine.html", "compare old second --page mine.html --out run"),
    "leaderboard": ("rank/leaderboard.html", "leaderboard rank"),
    "leaderboard, page": ("mine.html", "leaderboard rank --page mine.html"),
    "leaderboard, record": ("rank/leaderboard.json", "leaderboard rank"),
    "card": ("run/subsets/old.md", "card run --name old"),
    "subset": ("mine.npy", f"subset {OLD} & {SECOND} --write mine.npy"),
    "subset, of another kind": ("mine.npy", f"subset {OLD} & {SECOND} --write mine.npy"),
    "subset, an input": (OLD, f"subset {OLD} & {SECOND} --write {OLD}"),
    "subset, an input behind a link": (OLD, f"subset {OLD} & {SECOND} --write linked.npy"),
    "subset, of select": ("run/subsets/second.npy", f"subset {OLD} + {OLD} --write run/subsets/second.npy"),
    "query": ("mine.npy", "query --uid UID --out run -k 3 --write mine.npy"),
    "query, an input": (OLD, f"query --like {OLD} --out run -k 3 --write {OLD}"),
    "select": ("run/subsets/mine.npy", "select recipe.yaml --out run --name mine"),
    "schedule": ("run/schedules/mine.schedule.json", "schedule run --kind rs2 --epochs 2 --name mine"),
    "recipe": ("mine.yaml", "recipe copy no_filter --to mine.yaml"),
    "run.json": ("other/run.json", "embed recipe.yaml --pool pool --out other --local"),
    "metadata": ("other/metadata/00000000.parquet", "embed recipe.yaml --pool pool --out other --local"),
    "metadata, run": ("other/metadata/00000000.npz", "run recipe.yaml --pool pool --out other --local"),
    "tars": ("other/00000000.tar", f"reshard {OLD} --pool pool --out other --local"),
    "stats": ("other/00000000_stats.json", f"reshard {OLD} --pool pool --out other --local"),
    "sizes": ("other/sizes.json", f"reshard {OLD} --pool pool --out other --local"),
    "synth": ("other/00000000.tar", "synth other --samples 8 --per-shard 8 --size 64"),
    "synth, parquet": ("other/00000000.parquet", "synth other --samples 8 --per-shard 8 --size 64"),
    "synth, labels": ("other/labels/labels.parquet", "synth other --samples 8 --per-shard 8 --size 64"),
    "download": ("other/00000000.parquet", "download urls.txt --out other --local"),
    "results": ("other/eval_results.jsonl", "evaluate rank/trials/old/seed-0/model --tasks scenes --redo --out other"),
    "trials": ("other/trials/notes.txt", f"rank {OLD} --pool pool --out other --scale micro --seeds 1 --local"),
    **{
        f"model, {name}": (f"other/{name}", "train --pool pool --out other --samples 16 --batch-size 8")
        for name in ("recipe.yaml", "open_clip_config.json", "open_clip_model.safetensors", "open_clip/notes")
    },
}
"""What stands at a path, and a command that writes there."""
CONTENTS = {
    "schedule": b'{"epochs": [{"subset": "mine.npy"}], "by": "hand"}',
    "run.json": b'{"of": "another program"}',
    "comparison, record": b'{"mine": 1}',
    "leaderboard, record": b'{"mine": 1}',
}
OURS = {"subset, an input", "subset, an input behind a link", "subset, of select", "query, an input"}


@pytest.mark.parametrize("name", TARGETS)
def test_a_file_of_a_user_s_is_not_replaced(name, old, mmfilter):
    path, words = TARGETS[name]
    file = old / path
    (old / "urls.txt").write_text("http://127.0.0.1:1/a.jpg\n")
    if name not in OURS:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(CONTENTS.get(name, THEIRS))
    if name == "subset, of another kind":
        np.save(file, np.zeros((4, 512), np.float16))
    if "link" in name:
        (old / "linked.npy").symlink_to(file)
    before = file.read_bytes()
    uid = Subset.read(OLD).strings()[0]
    code, out, err = mmfilter(*words.replace("UID", uid).split(), cwd=old)
    assert code in (1, 2) and "Traceback" not in err, out + err
    assert Path(path).name in err or "linked.npy" in err or Path(path).parts[1] in err, err
    assert file.read_bytes() == before


@pytest.mark.parametrize("name", ["report", "comparison", "leaderboard", "card", "subset", "query", "schedule"])
def test_its_own_is_replaced(name, old, mmfilter):
    uid = Subset.read(OLD).strings()[0]
    words = TARGETS[name][1].replace("UID", uid).split()
    for _ in range(2):
        code, out, err = mmfilter(*words, cwd=old)
        assert code == 0 and "not replaced" not in err, out + err


def test_select_leaves_notes_and_tables_beside_its_own(old, mmfilter):
    notes, table = old / "run/subsets/old.md", old / "run/subsets/old/mine.parquet"
    notes.write_bytes(b"# why this subset\n")
    pl.DataFrame({"a": [1]}).write_parquet(table)
    stale = old / "run/subsets/old/00000007.parquet"
    stale.write_bytes((old / "run/subsets/old/00000000.parquet").read_bytes())
    for words in ("select recipe.yaml --out run", "run recipe.yaml --pool pool --out run --local"):
        code, _, err = mmfilter(*words.split(), cwd=old)
        assert code == 3 and "old.md: is not a data card" in err
        assert notes.read_bytes() == b"# why this subset\n" and table.exists() and not stale.exists()


LEFT = {
    *("run.json.0123abcd.tmp", ".progress.0123abcd.tmp", "metadata/00000000.json.89abcdef.tmp"),
    *("columns/duplicate_of/00000000.parquet.89abcdef.tmp", "subsets/old.npy.89abcdef.tmp"),
    *("subsets/old/00000000.parquet.89abcdef.tmp", "index/demo-image/current.89abcdef.tmp"),
    *("schedules/rs2/epoch-0000.npy.89abcdef.tmp", "concepts/demo/concepts.json.89abcdef.tmp"),
    *("attempts/00000000.json.89abcdef.tmp", "report.html.89abcdef.tmp"),
}
KEPT = {
    *("notes.0123abcd.tmp", "photos/a.jpg.0123abcd.tmp", "metadata/notes.txt.89abcdef.tmp", "deep/er/x.89abcdef.tmp"),
    *("metadata/00000000.json.89ABCDEF.tmp", "metadata/00000000.json.tmp", "subsets/a b.npy.89abcdef.tmp"),
    *("metadata/sub/00000000.json.89abcdef.tmp", "shards/old/00000000.tar.89abcdef.tmp", "run.json.0123abcd.tmp.bak"),
    "linked/00000000.json.89abcdef.tmp",
}
"""Among them what a reshard into OUT/shards is writing, under its own lock."""


def place(out, names):
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(THEIRS)


@pytest.mark.parametrize("is_run", [True, False])
def test_half_written_files_are_swept_by_folder_and_exact_name(is_run, tmp_path):
    out = tmp_path / "out"
    place(out, LEFT | KEPT)
    (out / "attempts/00000000.json.89abcdef.tmp").unlink()
    (out / "attempts").rmdir()
    (out / "attempts").symlink_to(out / "linked")
    if is_run:
        (out / "run.json").write_text('{"pool": []}')
    here = {name for name in LEFT if not name.startswith("attempts")}
    with only_driver(str(out)):
        gone = {name for name in here if not (out / name).exists()}
    assert gone == (here if is_run else {"run.json.0123abcd.tmp", ".progress.0123abcd.tmp"})
    assert all((out / name).read_bytes() == THEIRS for name in KEPT)


def test_what_stands_in_the_lock_s_file_stays(tmp_path):
    (tmp_path / ".lock").write_bytes(THEIRS)
    with only_driver(str(tmp_path)):
        pass
    assert (tmp_path / ".lock").read_bytes() == THEIRS


def test_a_build_removes_only_its_own_files(old, mmfilter):
    home = old / "run/index/demo-image"
    place(home, ["v0001/notes.txt", "vacation/photo.jpg", "building-mine/x", "building-0123456789ab/part-00000.npz"])
    for _ in range(3):
        assert mmfilter("index", "run", "--model", "demo", "--fresh", cwd=old)[0] == 0
    assert sorted(path.name for path in home.iterdir() if path.name.startswith("v0")) == ["v0001", "v0003", "v0004"]
    kept = ["v0001/notes.txt", "vacation/photo.jpg", "building-mine/x"]
    assert all((home / name).read_bytes() == THEIRS for name in kept)
    assert not (home / "building-0123456789ab").exists() and len(list((home / "v0001").iterdir())) == 1


def test_pieces_of_a_user_s_stay(tmp_path):
    from mmfilter.pieces import sweep

    place(tmp_path, ["pieces/notes.npz", "pieces/00000000.0001-0002.npz"])
    sweep(str(tmp_path))
    assert [path.name for path in (tmp_path / "pieces").iterdir()] == ["notes.npz"]


def test_a_training_that_was_killed_is_begun_again(tmp_path):
    """Its mark tells that what it left is its own; a finished one has train.json and no mark."""
    pool = make_pool(tmp_path / "pool", 60)
    words = ["train", "--pool", pool, "--model", write_config(tmp_path), "--out", tmp_path / "m"]
    place(tmp_path / "m", ["bpe.txt.gz", ".training"])
    for _ in range(2):
        done = command(*words, "--samples", 16, "--batch-size", 8)
        assert done.code == 0, done.err
        assert not (tmp_path / "m/.training").exists()
        assert json.loads((tmp_path / "m/train.json").read_text())["format"] == 2
