"""Random damage to random shards: every sample is counted once, and none whose bytes are whole is lost."""

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import jpeg, sample, tar, uid

from mmfilter.recipe import parse_recipe
from mmfilter.shard import process_shard
from mmfilter.sidecar import read_failures, read_stored
from mmfilter.tar import END
from mmfilter.work import plan_work

PHASH = parse_recipe('{"name": "t", "scores": ["phash"]}', "t")
PLACE = st.floats(0, 1, exclude_max=True)
DAMAGE = st.tuples(st.sampled_from(["flip", "cut", "insert", "zero", "repeat"]), PLACE, st.integers(1, 3000), PLACE)
SHARDS = st.lists(st.tuples(st.integers(8, 80), st.integers(1, 700)), min_size=1, max_size=8)  # image side, caption


def damaged(data, origin, damage):
    """(data, where each byte of it came from in the whole tar; -1: from nowhere) after one blow."""
    kind, place, length, seed = damage
    at = int(place * len(data))
    end = min(at + length, len(data))
    noise = np.random.default_rng(int(seed * 2**32)).integers(0, 256, length, dtype=np.uint8)
    if kind == "flip":
        data, origin = data.copy(), origin.copy()
        data[at] ^= 1 << (length % 8)
        origin[at] = -1
        return data, origin
    if kind == "zero":
        data, origin = data.copy(), origin.copy()
        data[at:end], origin[at:end] = 0, -1
        return data, origin
    if kind == "cut":
        return np.delete(data, slice(at, end)), np.delete(origin, slice(at, end))
    if kind == "insert":
        return np.insert(data, at, noise), np.insert(origin, at, np.full(length, -1))
    to = end + int(seed * (len(data) - end))  # a copy comes after what it copies: of two members the first stands
    return np.insert(data, to, data[at:end]), np.insert(origin, to, np.full(end - at, -1))


def whole(origin, start, end):
    """Whether the bytes [start, end) of the tar are still there, in one piece."""
    (found,) = np.nonzero(origin == start)
    return len(found) == 1 and np.array_equal(origin[found[0] : found[0] + end - start], np.arange(start, end))


@pytest.mark.slow
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(SHARDS, st.lists(DAMAGE, min_size=1, max_size=3))
def test_damage_costs_only_what_was_damaged_and_everything_is_counted(shapes, blows):
    rows = [sample(n, "x" * text, jpeg(size=(side, side))) for n, (side, text) in enumerate(shapes)]
    ends = np.cumsum([len(tar(row)) - len(END) for row in rows])
    data = np.frombuffer(tar([member for row in rows for member in row]), np.uint8)
    origin = np.arange(len(data))
    for blow in blows:
        data, origin = damaged(data, origin, blow)
        if not len(data):
            return
    keys = [row[0][0].removesuffix(".jpg") for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "00000000.tar")
        path.write_bytes(data.tobytes())
        table = {"key": keys, "uid": [uid(n) for n in range(len(rows))], "status": ["success"] * len(rows)}
        pq.write_table(pa.table(table), path.with_suffix(".parquet"))
        report = process_shard(str(path), plan_work(PHASH, folder, {}), {})
        well = read_stored(folder, "00000000").table["key"].to_pylist()
        failed = read_failures(folder, "00000000")
    assert report.read == report.ok + sum(report.failed.values()) == len(well) + len(failed)
    told = Counter([*well, *(row.key for row in failed if row.status != "key_repeated")])
    assert {key: told[key] for key in keys} == dict.fromkeys(keys, 1), "each sample that the sidecar tells of, once"
    starts = [0, *ends[:-1]]
    kept = [key for key, start, end in zip(keys, starts, ends, strict=True) if whole(origin, start, end)]
    assert set(kept) <= set(well), "no sample whose bytes are whole is lost"
