"""What a run says of its own files: damage is named where it is read and by `verify`, and made again by --repair."""

import hashlib
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from command import command
from vouching import forget_records

from mmfilter.json_file import FORMAT
from mmfilter.plug_names import FORMER_PATHS

MADE = {".parquet", ".npz", ".npy", ".tar", ".faiss"}


@pytest.fixture(scope="session")
def sound(tmp_path_factory):
    """A pool and its run, with an index, clusters and a schedule."""
    folder = tmp_path_factory.mktemp("sound")
    pool, run = folder / "pool", folder / "run"
    command("synth", pool, "--samples", 90, "--per-shard", 30, "--size", 112, "--quiet")
    assert command("run", "demo", "--pool", pool, "--out", run, "--local").code == 0
    assert command("index", run, "--local").code == 0
    assert command("cluster", run, "--k", 3, "--local").code == 0
    column = "clip_demo_similarity_score"
    assert command("schedule", run, "--kind", "seta", "--column", column, "--epochs", 2).code == 0
    return folder


@pytest.fixture
def run(sound, tmp_path):
    """A copy of the run; its pool is where it was."""
    shutil.copytree(sound / "run", tmp_path / "run")
    return tmp_path / "run"


def digests(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.suffix in MADE and "index" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(at * len(data))] ^= 4
    path.write_bytes(data)


def verify(*words):
    done = command("verify", *words, "--json")
    return done.code, json.loads(done.out)


def test_a_sound_run_is_as_written(run):
    for deep in ((), ("--deep",)):
        code, told = verify(run, *deep)
        assert (code, told["findings"]) == (0, [])
        assert sum(told["bytes"].values()) == sum(p.stat().st_size for p in run.rglob("*") if p.is_file())
    plain = command("verify", run).out
    assert "all as written" in plain and "MB  score tables, embeddings and commits" in plain


def test_a_commit_vouches_for_its_files(run):
    commit = json.loads((run / "metadata/00000000.json").read_bytes())
    assert commit["format"] == FORMAT
    for name in ("parquet", "npz"):
        data = (run / f"metadata/00000000.{name}").read_bytes()
        record = commit["files"][name]
        assert (record["bytes"], record["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert set(commit["content"]) >= {"samples", "demo_img", "demo_txt", "clip_demo_similarity_score"}


def test_what_made_a_thing_is_named_by_its_registry_name(run):
    """Files may be moved, and a folder is no conflict."""
    records = [path.read_text() for path in run.rglob("*.json")]
    records += [str(pq.read_schema(path).metadata) for path in run.glob("columns/*/*.parquet")]
    for path in FORMER_PATHS:
        assert not any(path in record for record in records)
    parts = json.loads((run / "metadata/00000000.json").read_bytes())["parts"]
    part = parts["score:clip_demo_similarity_score"]
    assert (part["score"], part["version"]) == ("clip_similarity", 1)


READERS = {
    "npz": [("index", "--fresh", "--local"), ("cluster", "--k", 4, "--redo-changed", "--local")],
    "parquet": [("select", "demo"), ("report", "--name", "demo")],
}


@pytest.mark.parametrize(("kind", "words"), [(kind, words) for kind, rows in READERS.items() for words in rows])
def test_a_flipped_bit_is_named_where_it_is_read(run, kind, words):
    path = run / f"metadata/00000001.{kind}"
    record = json.loads((run / "metadata/00000001.json").read_bytes())["files"][kind]
    flip(path, (record["columns"]["uid"][0][0] + 40) / record["bytes"] if kind == "parquet" else 0.3)
    verb, *rest = words
    done = command(verb, *rest, "--out", run)
    assert done.code == 1 and f"00000001.{kind}" in done.err, done


def test_a_deleted_commit_is_named_and_not_passed_over(run):
    (run / "metadata/00000001.json").unlink()
    for words in (("select", "demo", "--out", run), ("report", run, "--name", "demo"), ("index", run, "--local")):
        done = command(*words)
        assert done.code == 1 and "00000001 lacks its commit" in done.err


def test_a_newer_format_stops_with_a_sentence(run):
    path = run / "metadata/00000000.json"
    commit = json.loads(path.read_bytes())
    path.write_text(json.dumps({**{k: v for k, v in commit.items() if k != "check"}, "format": FORMAT + 1}))
    done = command("select", "demo", "--out", run)
    assert done.code == 1 and f"format {FORMAT + 1}" in done.err and "Install the newer version" in done.err


DAMAGES = [
    ("metadata/00000001.npz", "delete"),
    ("metadata/00000001.npz", "flip"),
    ("metadata/00000002.parquet", "cut"),
    ("metadata/00000000.json", "flip"),
    ("metadata/00000000.json", "delete"),
    ("columns/duplicate_of/00000001.parquet", "flip"),
    ("columns/cluster_id/00000002.parquet", "delete"),
    ("subsets/demo.npy", "delete"),
    ("subsets/demo.json", "cut"),
    ("subsets/demo/00000001.parquet", "flip"),
    ("concepts/demo/centroids.npy", "cut"),
    ("schedules/seta/epoch-0001.npy", "delete"),
    ("shards/demo/00000000.tar", "flip"),
    ("shards/demo/00000000.tar", "delete"),
    ("shards/demo/sample_ids.npy", "cut"),
]


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_damage_is_found_and_made_again(run, name, damage):
    before, path = digests(run), run / name
    data = path.read_bytes()
    if damage == "delete":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        flip(path)
    code, told = verify(run, "--deep")
    assert code == 1 and any(name.rsplit(".", 1)[0] in row["path"] + row["what"] for row in told["findings"]), told
    code, told = verify(run, "--deep", "--repair", "--local")
    assert (code, told["findings"], told["left"]) == (0, [], []), told
    assert digests(run) == before


def test_an_index_is_built_again(run):
    path = next(run.glob("index/*/v0001/knn.faiss"))
    sound_bytes = path.read_bytes()
    flip(path)
    assert verify(run)[0] == 0, "its size is what it was"
    code, told = verify(run, "--deep")
    assert code == 1 and "knn.faiss" in told["findings"][0]["path"]
    assert verify(run, "--deep", "--repair", "--local")[0] == 0
    assert next(run.glob("index/*/v0002/knn.faiss")).read_bytes() == sound_bytes


def test_what_cannot_be_made_again_is_listed(run):
    """The recipe and the pool are in run.json alone."""
    (run / "metadata/00000001.npz").unlink()
    (run / "run.json").write_bytes(b"{")
    done = command("verify", run, "--repair", "--local")
    assert done.code == 1 and "cannot be made again" in done.out and "run.json" in done.out


@pytest.mark.parametrize("words", [("nowhere",), (".",)])
def test_a_folder_that_is_no_run_is_refused(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    done = command("verify", *words)
    assert done.code == 2 and not done.out


def test_options_of_repair_are_refused_without_it(run):
    assert command("verify", run, "--recipe", "demo").code == 2


def test_files_of_two_passes_without_checksums_are_told_by_their_uids(run):
    """As a version that renamed them one by one left them, when it was killed between."""
    forget_records(run)
    shutil.copy(run / "metadata/00000000.npz", run / "metadata/00000001.npz")
    for words in (("index", run, "--fresh", "--local"), ("dedup", run, "--model", "demo", "--local", "--redo-changed")):
        done = command(*words)
        assert done.code == 1 and "00000001.npz: its uids are others" in done.err, done
    code, told = verify(run, "--deep")
    assert code == 1 and told["not_vouched_for"] == {"commits of format 1, which have no checksums": 2}
    assert any("00000001.npz" in row["path"] for row in told["findings"])


def test_another_version_of_a_scores_definition_is_a_conflict(run, monkeypatch):
    from mmfilter.scores.clip_similarity import ClipSimilarity

    monkeypatch.setattr(ClipSimilarity, "version", 2)
    pool = json.loads((run / "run.json").read_bytes())["pool"]
    done = command("embed", "demo", "--pool", str(Path(pool[0]).parent), "--out", run, "--local")
    assert done.code == 1 and "was version 1 and is 2" in done.err, done


def test_what_another_recipe_made_is_not_thrown_away(run, tmp_path):
    """A repair by one of two recipes would leave the shard without what the other one made."""
    (tmp_path / "b.yaml").write_text(
        "name: b\nembed: {second: {model: demo}}\nscores: [{clip_similarity: {model: second}}]\n"
    )
    pool = str(Path(json.loads((run / "run.json").read_bytes())["pool"][0]).parent)
    assert command("embed", tmp_path / "b.yaml", "--pool", pool, "--out", run, "--local").code == 0
    before = {path.name: path.read_bytes() for path in (run / "metadata").iterdir()}
    (run / "metadata/00000001.npz").unlink()
    done = command("verify", run, "--repair", "--local")
    assert done.code == 1 and "does not make: embed:demo" in done.out
    assert (run / "metadata/00000001.parquet").read_bytes() == before["00000001.parquet"]
    for recipe in ("demo", tmp_path / "b.yaml"):
        assert command("embed", recipe, "--pool", pool, "--out", run, "--local").code == 0
    assert (run / "metadata/00000001.npz").read_bytes() == before["00000001.npz"]


def test_a_subset_that_was_written_by_hand_is_nobodys(run):
    assert command("subset", "demo", "&", "demo", "--out", run, "--write", run / "subsets/mine.npy").code == 0
    assert command("verify", run, "--deep").code == 0
