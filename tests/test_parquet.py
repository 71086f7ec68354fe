"""Parquet files that we write are checked when they are read: every bit that matters. Others are read as they are."""

import random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmfilter import parquet
from mmfilter.content import array_digest, column_digest, shard_content
from mmfilter.errors import DataError

ROWS = 200


def table(seed=0):
    rng = np.random.default_rng(seed)
    digits = rng.bytes(16 * ROWS).hex()
    columns = {
        "uid": [digits[i : i + 32] for i in range(0, 32 * ROWS, 32)],
        "score": rng.normal(0.2, 0.06, ROWS).astype(np.float32),
        "language": ["en" if i % 3 else None for i in range(ROWS)],
        "keep": [bool(i % 2) for i in range(ROWS)],
        "boxes": pa.array([[[0.1, 0.2]] if i % 5 else [] for i in range(ROWS)]),
    }
    return pa.table(columns)


def test_what_is_written_is_read_by_every_reader(tmp_path):
    path = str(tmp_path / "a.parquet")
    data = parquet.write(path, table(), {"mmfilter.part": "{}"})
    assert (tmp_path / "a.parquet").read_bytes() == data == parquet.encode(table(), {"mmfilter.part": "{}"})
    assert pq.read_table(path).equals(table()) and parquet.read(path).equals(table())
    assert parquet.read(path, ["score"]).column_names == ["score"]
    assert parquet.read_footer(path).metadata[b"mmfilter.part"] == b"{}"


def test_every_flipped_bit_is_found_or_changes_nothing(tmp_path):
    """Pages have checksums of parquet's own, the footer one of ours."""
    path, sound = tmp_path / "a.parquet", parquet.encode(table())
    found = 0
    for bit in random.Random(0).sample(range(8 * len(sound)), 1500):
        data = bytearray(sound)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert parquet.read(str(path)).equals(table()), f"bit {bit} changed what was read"
        except DataError as error:
            assert str(path) in str(error)
            found += 1
    assert found > 1400


@pytest.mark.parametrize("keep", [0, 3, 4, 8, 12, 100, -1, -8, -9, -100])
def test_a_file_that_was_cut_is_named(tmp_path, keep):
    path, sound = tmp_path / "a.parquet", parquet.encode(table())
    path.write_bytes(sound[:keep])
    for read in (parquet.read, parquet.read_footer):
        with pytest.raises(DataError, match=r"a\.parquet: cannot be read as parquet"):
            read(str(path))


def test_a_footer_that_claims_more_bytes_than_the_file_has_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    for length in (0xFFFFFFFF, 1 << 30, 10**6):
        path.write_bytes(b"PAR1" + bytes(500) + length.to_bytes(4, "little") + b"PAR1")
        with pytest.raises(DataError):
            parquet.read(str(path))


def test_files_of_other_programs_are_read_as_they_are(tmp_path):
    path = str(tmp_path / "a.parquet")
    pq.write_table(table(), path, compression="snappy")
    assert parquet.read(path).equals(table())


def test_a_column_that_is_not_there_is_named_with_the_nearest(tmp_path):
    path = str(tmp_path / "a.parquet")
    parquet.write(path, table())
    with pytest.raises(DataError, match="no column 'scores'; did you mean 'score'"):
        parquet.read(path, ["scores"])


values = st.lists(st.none() | st.text(max_size=4), max_size=12)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(values, values, st.integers(0, 12))
def test_a_digest_is_of_the_values_and_not_of_how_they_lie(one, other, cut):
    whole = pa.chunked_array([pa.array(one, pa.string())])
    chunks = pa.chunked_array([pa.array(one[:cut], pa.string()), pa.array(one[cut:], pa.string())])
    sliced = pa.chunked_array([pa.array(["x", *one], pa.string()).slice(1)])
    assert column_digest(whole) == column_digest(chunks) == column_digest(sliced)
    assert (column_digest(whole) == column_digest(pa.chunked_array([pa.array(other, pa.string())]))) == (one == other)


def test_a_digest_tells_nulls_types_and_shapes_apart():
    digests = [
        column_digest(pa.chunked_array([pa.array(values, kind)]))
        for values, kind in (
            *(([0, None], pa.int64()), ([0, 0], pa.int64()), ([0, 0], pa.int32()), ([0, 0], pa.float32())),
            *(([False, None], pa.bool_()), ([False, False], pa.bool_()), ([None, None], pa.string())),
        )
    ]
    arrays = [np.zeros((2, 3), np.float16), np.zeros((3, 2), np.float16), np.zeros((2, 3), np.int16)]
    digests += map(array_digest, arrays)
    assert len(set(digests)) == len(digests)


def test_the_content_of_a_shard_is_of_its_samples_arrays_and_scores():
    base = {"uid": ["a"], "url": ["u"], "text": ["t"], "original_width": [1], "original_height": [2]}
    base |= {"face_bboxes": pa.array([None], pa.list_(pa.float64())), "sha256": ["s"], "key": ["k"], "offset": [5]}
    rows = pa.table({**base, "score": [0.5]})
    arrays = {"m_img": np.ones((1, 4), np.float16)}
    was = shard_content(rows, arrays, ["score"])
    moved = rows.set_column(rows.schema.get_field_index("offset"), "offset", pa.array([512]))
    assert shard_content(moved, arrays, ["score"]) == was, "where a sample lies in its tar is not what it is"
    other = shard_content(rows.set_column(2, "text", pa.array(["T"])), arrays, ["score"])
    assert {name for name in was if was[name] != other[name]} == {"samples"}
    other = shard_content(rows, {"m_img": 2 * arrays["m_img"]}, ["score"])
    assert {name for name in was if was[name] != other[name]} == {"m_img"}
