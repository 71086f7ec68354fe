"""Folders that commit adb05eb wrote are read, gone on with and selected from: no conflict, the same bytes.

`fixtures/old_run.tar.xz` holds what that commit made of a generated pool of 64 samples (one of them no image): `run`
with its columns, concepts, index, schedule, two subsets and shards; `bare-run`, whose uids were derived of shard and
key; and `rank`, three trainings. It was made by these commands, in one folder:

    mmfilter synth pool --samples 64 --per-shard 24 --size 64   # then one image was replaced by other bytes
    mmfilter run recipe.yaml --pool pool --out run --local
    mmfilter run bare.yaml --pool bare --out bare-run --local --no-reshard
    mmfilter cluster run --model demo --k 6 --local
    mmfilter index run --model demo
    mmfilter select second.yaml --out run
    mmfilter schedule run --kind rs2 --epochs 2 --keep 0.3
    mmfilter rank run/subsets/old.npy --pool pool --out rank --scale micro --seeds 1 --samples 64 --local
"""

import hashlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from mmfilter.subset import Subset

SAME = {".parquet", ".npz", ".npy", ".tar", ".faiss", ".safetensors"}
"""Endings of files that a verb which has nothing to do leaves as they are."""


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.suffix in SAME)
    return {str(path.relative_to(folder)): digest(path) for path in files}


def digest(path: Path) -> str:
    """Of a parquet's columns and values; of another file's bytes. Parquet files have had checksums since format 2."""
    if path.suffix != ".parquet":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    table = pq.read_table(path, partitioning=None)
    return hashlib.sha256(repr([table.schema.names, table.to_pylist()]).encode()).hexdigest()


UID = "the uid of a kept sample"
VERBS = {
    "run": (3, "run recipe.yaml --pool pool --out run --local"),
    "run, uids derived": (0, "run bare.yaml --pool bare --out bare-run --local --no-reshard"),
    "embed": (3, "embed recipe.yaml --pool pool --out run --local"),
    "score": (0, "score recipe.yaml --out run --local"),
    "select": (3, "select recipe.yaml --out run"),
    "select, another": (3, "select second.yaml --out run"),
    "reshard": (0, "reshard run/subsets/old.npy --pool pool --out run/shards/old --local"),
    "report": (0, "report run --name old"),
    "card": (0, "card run --name old"),
    "explain": (0, f"explain {UID} --out run --name old"),
    "status": (0, "status run"),
    "subset": (0, "subset run/subsets/old.npy & run/subsets/second.npy"),
    "compare": (0, "compare old second --out run"),
    "schedule": (0, "schedule run --kind rs2 --epochs 2 --keep 0.3"),
    "index": (0, "index run --model demo"),
    "query": (0, f"query --uid {UID} --out run -k 3"),
    "dedup": (0, "dedup run --hamming 4 --local"),
    "cluster": (0, "cluster run --model demo --k 6 --local"),
    "probe": (0, "probe run --model demo --column language"),
    "inspect": (3, "inspect pool --local"),
    "rank": (0, "rank run/subsets/old.npy --pool pool --out rank --scale micro --seeds 1 --samples 64 --local"),
    "leaderboard": (0, "leaderboard rank"),
}
"""What is asked of the folders, with its exit code."""


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_goes_on_with_an_old_folder(name, old, mmfilter):
    expected, words = VERBS[name]
    before = contents(old)
    uid = Subset.read("run/subsets/old.npy").strings()[0]
    code, out, err = mmfilter(*words.replace(UID, uid).split(), cwd=old)
    assert code == expected, f"{words}\n{out}\n{err}"
    assert "Traceback" not in err
    after = contents(old)
    assert {path: after.get(path) for path in before} == before, "a file was written anew, with other bytes"


def test_nothing_of_an_old_folder_is_computed_again(old, monkeypatch):
    from jobs.cluster import Width
    from jobs.embed import embed_pool
    from mmfilter import embed, storage
    from mmfilter.recipe import load_recipe

    monkeypatch.setattr(embed, "load", lambda *_: pytest.fail("a model was loaded"))
    for out, recipe, pool, valid in (("run", "recipe.yaml", "pool", 63), ("bare-run", "bare.yaml", "bare", 8)):
        commits = {path: path.read_bytes() for path in Path(out, "metadata").glob("*.json")}
        counts = embed_pool(load_recipe(recipe), storage.expand(pool), str(old / out), Width(local=True))
        assert (counts.ok, counts.done_before) == (valid, counts.shards)
        assert commits == {path: path.read_bytes() for path in commits}


def test_the_service_answers_from_an_old_folder(old):
    from fastapi.testclient import TestClient

    from index.service.app import create_app
    from index.service.settings import Settings

    uid = Subset.read("run/subsets/old.npy").strings()[0]
    with TestClient(create_app([str(old / "run")], Settings(models=False))) as client:
        assert client.get("/indices-list").json() == ["demo-image"]
        assert client.get(f"/api/sample/{uid}").status_code == 200
