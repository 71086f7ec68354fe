"""The files beside a tar, whatever is in them: they cost no sample, no time and no memory, and `inspect` tells."""

import json
from datetime import datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jobs_util import recipe_text
from tars import rows_of, samples, tar, write_pool

from mmfilter import expected
from mmfilter.expected import counted_failures, expected_keys, stated_count
from mmfilter.records import Failure
from mmfilter.tar import END

FAR = pa.array([2**62] * 3, pa.timestamp("ms"))  # years that Python's dates do not have
KEYS, WELL = pa.array(["0", "1", "2"]), pa.array(["success"] * 3)
PARQUETS = {
    "a column twice": pa.Table.from_arrays([KEYS, KEYS, WELL], names=["key", "key", "status"]),
    "status twice": pa.Table.from_arrays([KEYS, WELL, WELL], names=["key", "status", "status"]),
    "far dates as status": pa.table({"key": KEYS, "status": FAR}),
    "far dates as key": pa.table({"key": FAR, "status": WELL}),
    "keys of lists": pa.table({"key": [[1], [2], [3]], "status": WELL}),
    "dates as key": pa.table({"key": [datetime(2020, 1, 1)] * 3, "status": WELL}),
}
STATS = {
    "nested": b"[" * 100_000,
    "nested in the count": b'{"successes": ' + b"[" * 100_000,
    "large": b'{"successes": 30000000}',
    "larger than any": b'{"successes": 1000000000000}',
    "negative": b'{"successes": -5}',
    "infinite": b'{"successes": 1e400}',
    "not a number": b'{"successes": NaN}',
    "many digits": b'{"successes": ' + b"9" * 5000 + b"}",
    "null": b'{"successes": null}',
    "words": b"words",
    "empty": b"",
}


@pytest.fixture
def pool(tmp_path):
    write_pool(tmp_path / "pool", 1, 3)
    return tmp_path / "pool"


def inspected(mmfilter, pool):
    """(exit code, valid samples, failures, findings as severity and word) of `inspect`."""
    code, said, err = mmfilter("inspect", pool, "--json", "--local")
    assert "Traceback" not in err
    found = json.loads(said)
    return code, found["samples"], found["failed"], [(f["severity"], f["what"]) for f in found["findings"]]


@pytest.mark.parametrize("name", STATS)
def test_stats_of_no_use_are_told_and_cost_nothing(pool, mmfilter, name):
    (pool / "00000000_stats.json").write_bytes(STATS[name])
    warned = [("warning", "stats_unreadable"), ("note", "no_parquet")]
    assert inspected(mmfilter, pool) == (0, 3, {}, warned)


@pytest.mark.parametrize("name", PARQUETS)
def test_a_parquet_of_odd_columns_is_told_and_costs_nothing(pool, mmfilter, name):
    pq.write_table(PARQUETS[name], pool / "00000000.parquet")
    _, valid, failed, findings = inspected(mmfilter, pool)
    assert (valid, failed) == (3, {}) and findings[0][1] in ("parquet_unreadable", "parquet_unlike_tar")


def test_a_run_beside_broken_sidecars_keeps_every_sample(pool, tmp_path, mmfilter):
    (pool / "00000000_stats.json").write_bytes(STATS["nested"])
    pq.write_table(PARQUETS["a column twice"], pool / "00000000.parquet")
    (tmp_path / "r.yaml").write_text(recipe_text("x", embed={}, scores=["phash"], select="everything"))
    code, said, err = mmfilter("run", tmp_path / "r.yaml", "--pool", pool, "--out", tmp_path / "out", "--local")
    assert code == 0, err
    assert "in 3 = kept 3 (100.0%) + dropped 0 + failed 0" in said


def test_a_count_is_believed_up_to_the_most_that_a_tar_is_taken_to_hold(pool, monkeypatch):
    """Up to it lost samples are rows; a larger count is none, and what is known of the tar counts."""
    path, stats = str(pool / "00000000.tar"), pool / "00000000_stats.json"
    stats.write_text(json.dumps({"successes": expected.MOST}))
    assert stated_count(path) == expected.MOST
    monkeypatch.setattr(expected, "MOST", 5)
    stats.write_text('{"successes": 5}')
    assert [row.status for row in rows_of(path)[1]] == ["lost"] * 2
    stats.write_text('{"successes": 6}')
    assert rows_of(path)[1] == []
    keys = [f"{n:09d}" for n in range(3)]
    assert counted_failures(path, "shard_set_aside", "why") == [Failure(k, "", "shard_set_aside", "why") for k in keys]
    pq.write_table(pa.table({"key": ["x"] * 6, "status": ["success"] * 6}), pool / "00000000.parquet")
    assert expected_keys(path) is None


def none_came(pool, stated=0):
    """The files beside the shard say that no sample was downloaded."""
    pq.write_table(pa.table({"key": KEYS, "status": ["failed_to_download"] * 3}), pool / "00000000.parquet")
    (pool / "00000000_stats.json").write_text(json.dumps({"successes": stated}))


def test_a_shard_to_which_nothing_came_has_a_sound_parquet(pool, mmfilter):
    none_came(pool)
    (pool / "00000000.tar").write_bytes(tar([]))
    assert inspected(mmfilter, pool) == (0, 0, {}, [("warning", "no_samples")])


def test_a_parquet_without_successes_hides_no_loss(pool, mmfilter):
    """It lies, as the stats or the tar show."""
    none_came(pool, stated=5)
    code, valid, failed, findings = inspected(mmfilter, pool)
    assert (code, valid, failed) == (1, 3, {"lost": 2}) and ("error", "parquet_unlike_tar") in findings
    none_came(pool)
    assert inspected(mmfilter, pool)[1:3] == (3, {})
    (pool / "00000000.tar").write_bytes(tar(samples(2))[: -len(END)] + b"\xff" * 2048 + tar(samples(1, 5)))
    assert inspected(mmfilter, pool)[1:3] == (3, {"corrupt_header": 1})


def test_shards_whose_numbers_lie_far_apart(tmp_path, mmfilter):
    """As when a shard is named after a time."""
    for number in (0, 3, 1764547200000):
        (tmp_path / f"{number}.tar").write_bytes(tar(samples(1, number % 7)))
    code, said, _ = mmfilter("inspect", tmp_path, "--local")
    assert code == 1
    assert "1764547199998 shard numbers are missing between 0 and 1764547200000: " in said
    assert "0000000000001, 0000000000002, 0000000000004, 0000000000005, 0000000000006, ..." in said
