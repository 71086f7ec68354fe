"""A subset is a multiset of uids: its algebra against collections.Counter, its file against numpy."""

import bisect
import subprocess
import sys
from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfilter.errors import DataError, UsageError
from mmfilter.subset import Subset, search_sorted
from mmfilter.uids import DTYPE, format_uids, halves, parse_uids, taken_apart

# few values, so that repeats and meetings are common; halves at their bounds, and a NUL at every end
HALF = st.sampled_from([0, 1, 256, 2**63 - 1, 2**63, 2**64 - 1])
UIDS = st.lists(st.builds(lambda hi, lo: f"{hi:016x}{lo:016x}", HALF, HALF), max_size=30)


def counted(subset):
    return Counter(subset.strings())


@settings(deadline=None)
@given(UIDS, UIDS)
def test_algebra_is_that_of_multisets(a, b):
    left, right = Subset.from_uids(a), Subset.from_uids(b)
    assert counted(left & right) == Counter(a) & Counter(b)
    assert counted(left | right) == Counter(a) | Counter(b)
    assert counted(left - right) == Counter(a) - Counter(b)
    assert counted(left.unique()) == Counter(set(a))


@settings(deadline=None)
@given(UIDS, UIDS)
def test_counts_and_contains(a, b):
    subset, asked = Subset.from_uids(a), parse_uids(b)
    assert subset.counts(asked).tolist() == [Counter(a)[uid] for uid in b]
    assert subset.contains(asked).tolist() == [uid in a for uid in b]


@settings(deadline=None)
@given(UIDS)
def test_uids_are_sorted_as_their_text_is(uids):
    subset = Subset.from_uids(uids)
    assert subset.strings() == sorted(uids) and len(subset) == len(uids)
    assert subset == Subset.from_uids(list(reversed(uids)))


@settings(deadline=None)
@given(UIDS)
def test_text_and_numbers_are_the_same_uid(uids):
    numbers = parse_uids(uids)
    assert numbers.dtype == DTYPE
    assert [(int(u[:16], 16), int(u[16:], 16)) for u in uids] == [(int(x["f0"]), int(x["f1"])) for x in numbers]
    assert format_uids(numbers) == uids


def test_written_files_are_numpys_and_datacomps(tmp_path):
    subset = Subset.from_uids([f"{n * 7919 % 101:032x}" for n in range(200)])
    path = tmp_path / "s.npy"
    subset.write(str(path))
    array = np.load(path, allow_pickle=False)
    assert array.dtype == np.dtype("u8,u8") and array.shape == (200,)
    assert np.array_equal(array, np.sort(array))
    assert Subset.read(str(path)) == subset


@settings(deadline=None)
@given(UIDS)
def test_what_is_written_is_read_back(uids):
    subset = Subset.from_uids(uids)
    subset.write("memory://subset/s.npy")
    assert Subset.read("memory://subset/s.npy") == subset


def test_a_raw_memmap_is_read(tmp_path):
    subset = Subset.from_uids([f"{n:032x}" for n in (1, 1, 5, 2**100)])
    raw = np.memmap(tmp_path / "raw.bin", DTYPE, mode="w+", shape=(4,))
    raw[:] = subset.uids
    raw.flush()
    assert Subset.read(str(tmp_path / "raw.bin")) == subset


def test_fault_27_empty_subsets_are_read(tmp_path):
    (tmp_path / "raw.bin").write_bytes(b"")
    np.save(tmp_path / "s.npy", np.empty(0, DTYPE))
    assert len(Subset.read(str(tmp_path / "s.npy"))) == 0
    with pytest.raises(DataError, match="raw.bin: is empty"):
        Subset.read(str(tmp_path / "raw.bin"))


UNSORTED = np.array([(2, 0), (1, 0)], DTYPE)
BAD_ARRAYS = {
    "objects": np.array([{"uid": 1}, None], object),
    "floats": np.zeros(4),
    "other_structure": np.zeros(4, "u8,u4"),
    "byte_order": np.zeros(4, ">u8,>u8"),
    "two_dimensions": np.zeros((2, 2), DTYPE),
    "a_scalar": np.zeros((), DTYPE),
    "unsorted": UNSORTED,
    "unsorted_second_half": np.array([(1, 2), (1, 1)], DTYPE),
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_fault_27_wrong_arrays_are_refused(tmp_path, name):
    path = tmp_path / f"{name}.npy"
    np.save(path, BAD_ARRAYS[name])
    with pytest.raises(DataError, match=str(path)):
        Subset.read(str(path))


def test_fault_27_unsorted_says_how_to_sort(tmp_path):
    np.save(tmp_path / "s.npy", UNSORTED)
    with pytest.raises(DataError, match=r"not sorted.*[Ss]ort it"):
        Subset.read(str(tmp_path / "s.npy"))
    UNSORTED.tofile(tmp_path / "raw.bin")
    with pytest.raises(DataError, match="not sorted"):
        Subset.read(str(tmp_path / "raw.bin"))


def test_fault_27_a_pickle_is_never_loaded(tmp_path):
    """Loading it would create the file named in it."""
    witness = tmp_path / "ran"
    path = tmp_path / "s.npy"

    class Evil:
        def __reduce__(self):
            return (open, (str(witness), "w"))

    np.save(path, np.array([Evil()], object))
    with pytest.raises(DataError):
        Subset.read(str(path))
    assert not witness.exists()


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_fault_27_a_cut_file_is_refused(tmp_path, keep):
    path = tmp_path / "s.npy"
    Subset.from_uids([f"{n:032x}" for n in range(10)]).write(str(path))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError):
        Subset.read(str(path))


def test_fault_27_a_header_that_is_no_python_is_refused(tmp_path):
    """numpy's parser of headers raises more than it says."""
    header = b"{'descr': '<u8', 'fortran_order': (".ljust(117) + b"\n"
    (tmp_path / "s.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="not a subset"):
        Subset.read(str(tmp_path / "s.npy"))


def test_fault_27_a_raw_file_of_another_size_is_refused(tmp_path):
    (tmp_path / "raw.bin").write_bytes(bytes(17))
    with pytest.raises(DataError, match="17 bytes"):
        Subset.read(str(tmp_path / "raw.bin"))


def test_fault_28_a_bad_uid_is_named():
    with pytest.raises(DataError, match="row 1"):
        Subset.from_uids(["0" * 32, "xyz"])


def test_fault_27_what_cannot_be_opened_is_named(tmp_path):
    with pytest.raises(DataError, match="cannot be read"):
        Subset.read(str(tmp_path))
    Subset.from_uids([]).write(str(tmp_path / "mine.npy"))
    with pytest.raises(UsageError, match=r"does not exist; did you mean 'mine\.npy'"):
        Subset.read(str(tmp_path / "nine.npy"))


def test_uids_are_parsed_in_a_forked_process_too():
    code = """
import os, polars as pl
from mmfilter.uids import format_uids, halves, parse_uids, taken_apart
uids = ["%032x" % n for n in range(20_000)]
hi, lo = taken_apart(pl.DataFrame({"uid": uids}).select(halves()))  # polars has threads now
child = os.fork()
if child == 0:
    os._exit(0 if format_uids(parse_uids(uids)) == uids and list(lo) == list(range(20_000)) else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], timeout=60).returncode == 0


@pytest.mark.parametrize(
    "odd", ["+" + "0" * 31, "0" * 16 + "+" + "1" * 15, "0" * 31, "0" * 33, "g" * 32, " " * 32, "é" * 16, None]
)
def test_what_is_no_uid_is_named_by_both_parsers(odd):
    uids = ["0" * 32, odd, "F" * 32]
    with pytest.raises(DataError, match=r"in row 1 is not 32 hexadecimal digits") as one:
        parse_uids(uids)
    with pytest.raises(DataError) as other:
        taken_apart(pl.DataFrame({"uid": pl.Series(uids, dtype=pl.String)}).with_columns(halves()))
    assert str(one.value) == str(other.value)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))), st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)))
)
def test_a_search_by_halves_finds_the_place_that_whole_uids_have(within, queries):
    within = Subset(np.array(within, DTYPE)).uids
    queries = np.array(queries, DTYPE)
    whole = [value[0] * 10 + value[1] for value in within.tolist()]
    for right, side in ((False, bisect.bisect_left), (True, bisect.bisect_right)):
        want = [side(whole, value[0] * 10 + value[1]) for value in queries.tolist()]
        assert search_sorted(within, queries, right).tolist() == want
