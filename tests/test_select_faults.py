"""What select and the added scores meet on real disks: odd files beside the table, and requests that would do harm."""

import json
import os
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from rules_util import kept, make_uids, run, write_pool

from mmfilter.columns import StoredBatch
from mmfilter.errors import DataError, UsageError
from mmfilter.rules import build_rule, check_columns
from mmfilter.select import SelectOptions, select
from mmfilter.sidecar import Stored
from mmfilter.table import open_table


def columns(n: int, seed: int = 0) -> dict[str, Any]:
    return {"uid": make_uids(n, seed), "text": ["a b c"] * n, "s": (np.arange(n) / n).astype(np.float32)}


def write_failures(out: Any, stem: str, statuses: list[str | None]) -> None:
    os.makedirs(f"{out}/failures", exist_ok=True)
    none = [""] * len(statuses)
    table = pa.table({"key": none, "uid": none, "status": pa.array(statuses, pa.string()), "error": none})
    pq.write_table(table, f"{out}/failures/{stem}.parquet")


@pytest.mark.parametrize("name", ["../metadata", "a/b", "", ".", "v1.2", "/tmp/x", "a b", "a\n"])
def test_a_subset_cannot_be_written_elsewhere(tmp_path: Any, name: str) -> None:
    """`../metadata` would have put decisions in the place of the pool's own table."""
    write_pool(tmp_path / "metadata", [columns(5)])
    before = (tmp_path / "metadata" / "00000000.parquet").read_bytes()
    with pytest.raises(UsageError, match="a subset's name is letters"):
        select(open_table(str(tmp_path)), build_rule("everything", "x"), SelectOptions(str(tmp_path), name))
    assert (tmp_path / "metadata" / "00000000.parquet").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["metadata"]


def test_failures_count_with_their_shard(tmp_path: Any) -> None:
    """A shard that was interrupted before its commit counts in nothing, its failures neither."""
    write_pool(tmp_path / "metadata", [columns(5), columns(7, 1)])
    commit = {"parts": {}, "counts": {"read": 7, "ok": 5, "failed": {"lost": 2}}}
    (tmp_path / "metadata" / "00000000.json").write_text(json.dumps(commit))
    write_failures(tmp_path, "00000000", ["lost", None])
    write_failures(tmp_path, "00000001", ["lost", "lost"])
    with pytest.raises(DataError, match="00000001 lacks its commit"):
        run(tmp_path, "everything")
    table = open_table(str(tmp_path), allow_missing=True)
    selection = select(table, build_rule("everything", "select"), SelectOptions(str(tmp_path), "s"))
    assert selection.counts == {"in": 7, "kept": 5, "dropped": 0, "failed": 2}
    assert selection.failed == {"lost": 1, "unknown": 1}


def test_damaged_failures_are_named(tmp_path: Any) -> None:
    write_pool(tmp_path / "metadata", [columns(5)])
    os.makedirs(tmp_path / "failures")
    (tmp_path / "failures" / "00000000.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match=r"failures/00000000.parquet: cannot be read"):
        run(tmp_path, "everything")


@pytest.mark.parametrize("stray", ["README.json", "00000000_stats.json", "meta.json"])
def test_json_beside_datacomps_metadata(tmp_path: Any, stray: str) -> None:
    metadata = write_pool(tmp_path / "m", [columns(5), columns(7, 1)])
    (tmp_path / "m" / stray).write_text("{}")
    assert run(tmp_path / "out", "everything", metadata).counts["kept"] == 12


def test_uids_that_another_writer_made_categorical(tmp_path: Any) -> None:
    pool = columns(20)
    write_pool(tmp_path / "metadata", [{**pool, "uid": pa.array(pool["uid"]).dictionary_encode()}])
    os.makedirs(tmp_path / "columns" / "new")
    added = pa.table({"uid": pool["uid"][::-1], "new": np.arange(20.0)[::-1]})
    pq.write_table(added, tmp_path / "columns" / "new" / "00000000.parquet")
    assert kept(run(tmp_path, {"threshold": {"score": "new", "min": 15}})) == sorted(pool["uid"][15:])


def test_a_column_that_stands_twice(tmp_path: Any) -> None:
    uid, s = pa.array(make_uids(3)), pa.array([0.1, 0.2, 0.3])
    pq.write_table(pa.Table.from_arrays([uid, s, s], ["uid", "s", "s"]), tmp_path / "00000000.parquet")
    with pytest.raises(DataError, match=r"00000000.parquet: cannot be read"):
        run(tmp_path, {"threshold": {"score": "s", "min": 0.2}})


def test_whole_numbers_of_two_kinds(tmp_path: Any) -> None:
    """int64 in one shard and uint64 in another, as parquet writers differ."""
    first, second = columns(10), columns(10, 1)
    first["s"], second["s"] = np.arange(10, dtype=np.uint64), np.arange(10, 20, dtype=np.int64)
    selection = run(write_pool(tmp_path, [first, second]), {"fraction": {"score": "s", "keep": 0.5}})
    assert kept(selection) == sorted(second["uid"])


def test_an_npz_of_another_length_is_named(tmp_path: Any) -> None:
    """FAULTS 28, for embeddings: row i of the parquet is row i of the npz."""
    np.savez(tmp_path / "00000000.npz", b32_img=np.zeros((4, 2), np.float16))
    batch = StoredBatch(Stored(pa.table(columns(5))), "", "00000000", str(tmp_path))
    with pytest.raises(DataError, match=r"00000000.npz: b32_img has 4 rows where the parquet beside it has 5"):
        batch["img_emb:b32"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("language: {is: no}", "select.language.is: YAML reads a bare `no` as false"),
        ("language: {is: [en, no]}", "select.language.is: YAML reads a bare `no` as false"),
        ("threshold: {score: s, min: 0.5, max: 0.2}", "nothing is between a 'min' of 0.5 and a 'max' of 0.2"),
        ("caption: {min_words: 5, max_words: 3}", "no caption has 'min_words' 5 and 'max_words' 3"),
        ("caption: {min_chars: 5, max_chars: 3}", "no caption has 'min_chars' 5 and 'max_chars' 3"),
    ],
)
def test_recipes_that_would_keep_nothing(text: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        build_rule(yaml.safe_load(text), "recipe x.yaml: select")
    assert says in str(error.value)


def test_an_unknown_column_in_sql_is_placed() -> None:
    rule = build_rule({"not": {"where": {"sql": "scor > 0.5"}}}, "recipe x.yaml: select")
    with pytest.raises(UsageError, match=r"select\.not\.where\.sql: no column 'scor'; did you mean 'score'\?"):
        check_columns(rule, ["uid", "score"], "recipe x.yaml: select")


def test_an_added_column_that_lacks_a_sample_is_named(tmp_path: Any) -> None:
    """A score on top of another: a value is never taken from another row."""
    pool = columns(5)
    os.makedirs(tmp_path / "columns" / "new")
    added = pa.table({"uid": pool["uid"][1:], "new": np.arange(4.0)})
    pq.write_table(added, tmp_path / "columns" / "new" / "7.parquet")
    batch = StoredBatch(Stored(pa.table(pool)), str(tmp_path), "7")
    with pytest.raises(DataError, match=f"new/7.parquet: has no row for uid {pool['uid'][0]}"):
        batch["new"]
