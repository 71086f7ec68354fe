"""`verify` of a run on an object store: damage is named, and made again to the bytes of an undisturbed run."""

import json

from command import command
from store_util import served, store

from mmfilter import storage

__all__ = ["served", "store"]  # fixtures


def test_a_run_on_a_store_is_verified_and_repaired(store, tmp_path):
    out = f"{store.root}/verified"
    command("synth", tmp_path / "pool", "--samples", 60, "--per-shard", 30, "--size", 112, "--quiet")
    words = ("run", "demo", "--pool", tmp_path / "pool", "--out", out, "--local")
    assert command(*words).code == 0
    assert command("verify", out, "--deep").code == 0
    npz, column = f"{out}/metadata/00000001.npz", f"{out}/columns/duplicate_of/00000000.parquet"
    before = {path: storage.read_bytes(path) for path in (npz, column)}
    storage.write_atomic(npz, before[npz][:-100])
    storage.write_atomic(column, before[column][:50] + b"?" + before[column][51:])
    done = command("verify", out, "--deep", "--json")
    named = {row["path"] for row in json.loads(done.out)["findings"]}
    assert done.code == 1 and named == {npz, column}
    assert command("verify", out, "--deep", "--repair", "--local").code == 0
    assert {path: storage.read_bytes(path) for path in before} == before
