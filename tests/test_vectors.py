"""Embeddings where they lie: the same rows by shard, in blocks and one by one, and what a damaged file says."""

import os
import resource

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.vectors import only_model, open_vectors, unit
from mmfilter.errors import DataError, UsageError
from mmfilter.uids import format_uids


def write_pool(folder, shards):
    """Shards of DataComp's metadata from arrays (n, d); uids count up."""
    first = 0
    for i, rows in enumerate(shards):
        names = [f"{first + j:032x}" for j in range(len(rows))]
        pq.write_table(pa.table({"uid": pa.array(names, pa.string())}), folder / f"{i:08d}.parquet")
        (np.savez_compressed if i % 2 else np.savez)(folder / f"{i:08d}.npz", b32_img=rows)
        first += len(rows)
    return str(folder)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=4), st.integers(1, 7), st.data())
def test_the_same_rows_however_they_are_read(tmp_path_factory, sizes, block, data):
    rng = np.random.default_rng(0)
    shards = [rng.normal(size=(n, 3)).astype(np.float16) for n in sizes]
    vectors = open_vectors(write_pool(tmp_path_factory.mktemp("v"), shards), "b32")
    whole = unit(np.concatenate(shards))
    assert len(vectors) == len(whole) and vectors.dim == 3
    start = data.draw(st.integers(0, len(whole)))
    stop = data.draw(st.integers(start, len(whole)))
    parts = list(vectors.blocks(block, start, stop))
    assert np.array_equal(np.concatenate([np.empty((0, 3), np.float32), *(p for _, p in parts)]), whole[start:stop])
    assert all(np.array_equal(part, whole[at : at + len(part)]) for at, part in parts)
    positions = np.array(data.draw(st.lists(st.integers(0, max(len(whole) - 1, 0)), max_size=9)) if len(whole) else [])
    assert np.array_equal(vectors.take(positions), whole[positions.astype(int)])
    assert format_uids(vectors.all_uids()) == [f"{i:032x}" for i in range(len(whole))]
    assert [vectors.place(i) for i in range(len(whole))] == [
        (f"{s:08d}", row) for s, n in enumerate(sizes) for row in range(n)
    ]


def test_a_row_without_a_direction_is_zeros():
    rows = unit(np.array([[3, 4], [np.nan, 1], [np.inf, 1], [0, 0]], np.float16))
    assert np.allclose(rows, [[0.6, 0.8], [0, 0], [0, 0], [0, 0]], atol=1e-6)


def test_what_is_not_there_or_damaged_is_named(tmp_path):
    folder = write_pool(tmp_path, [np.ones((2, 3), np.float16), np.ones((2, 3), np.float16)])
    with pytest.raises(UsageError, match="no embeddings 'b23_img'; did you mean 'b32_img'"):
        open_vectors(folder, "b23")
    with pytest.raises(UsageError, match="modality 'sound'"):
        open_vectors(folder, "b32", "sound")
    np.savez(tmp_path / "00000001.npz", b32_img=np.ones((2, 4), np.float16))
    with pytest.raises(DataError, match=r"00000001.*shape \(2, 4\)"):
        open_vectors(folder, "b32")
    np.savez(tmp_path / "00000001.npz", b32_img=np.array([None, "x"]))
    with pytest.raises(DataError, match="holds object"):
        open_vectors(folder, "b32")
    (tmp_path / "00000001.npz").write_bytes(b"PK no")
    with pytest.raises(DataError, match="cannot be read as npz"):
        open_vectors(folder, "b32")


def test_a_changed_file_is_another_identity(tmp_path):
    folder = write_pool(tmp_path, [np.ones((2, 3), np.float16)])
    vectors, before = open_vectors(folder, "b32"), open_vectors(folder, "b32").identity
    assert vectors.identity == before
    np.savez(tmp_path / "00000000.npz", b32_img=np.ones((3, 3), np.float16))
    with pytest.raises(DataError, match="3 rows where 2 are wanted"):
        vectors.shard(0)
    assert open_vectors(folder, "b32").identity != before


def mapped(folder):
    """KiB of files below `folder` that are in this process's memory."""
    found, inside = 0, False
    with open("/proc/self/smaps") as file:
        for line in file:
            if not line.split(None, 1)[0].endswith(":"):
                inside = str(folder) in line
            elif inside and line.startswith("Rss:"):
                found += int(line.split()[1])
    return found


def test_what_was_read_does_not_stay_in_memory(tmp_path):
    """A scan of a pool, or a gather of many rows, holds a shard and no more; single rows are never mapped."""
    rows = np.random.default_rng(0).normal(size=(30_000, 64)).astype(np.float16)
    folder = write_pool(tmp_path, np.split(rows, 3))  # the second is compressed, and so never mapped
    vectors = open_vectors(folder, "b32")
    seen = [mapped(folder) for _ in vectors.blocks(5000)]
    assert 0 < max(seen) < 2 * 1250 and mapped(folder) == 0, seen  # a shard is 1,250 KiB
    order = np.random.default_rng(1).permutation(30_000)
    taken = vectors.take(order)
    assert mapped(folder) == 0
    np.testing.assert_array_equal(taken[:100], vectors.take(order[:100]))
    assert mapped(folder) == 0


def test_a_pool_of_more_shards_than_files_may_be_open(tmp_path):
    folder = write_pool(tmp_path, [np.full((40, 2), i + 1, np.float16) for i in range(80)])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    vectors = open_vectors(folder, "b32")
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 30, hard))
    try:
        few, many, scanned = vectors.take(np.arange(80) * 40), vectors.take(np.arange(3200)), list(vectors.blocks(9))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(few) == 80 and len(many) == 3200 and sum(len(rows) for _, rows in scanned) == 3200


def test_a_file_that_is_cut_while_it_is_read(tmp_path, monkeypatch):
    vectors = open_vectors(write_pool(tmp_path, [np.ones((40, 2), np.float16)]), "b32")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda *args: pread(*args)[:-1])
    with pytest.raises(DataError, match=r"00000000.npz: ends before its 40 rows do"):
        vectors.take(np.array([3]))


def test_the_only_model_need_not_be_named(tmp_path):
    rows = np.ones((2, 3), np.float16)
    folder = write_pool(tmp_path, [rows])
    assert only_model(folder) == "b32"
    with pytest.raises(UsageError, match="no text embeddings"):
        only_model(folder, "text")
    np.savez(tmp_path / "00000000.npz", b32_img=rows, l14_img=rows)
    with pytest.raises(UsageError, match="embeddings of 2 models; choose one with --model: b32, l14"):
        only_model(folder)
