"""Records of files: what a file was when it was written, and what is noticed when it is not that any more."""

import hashlib

import pytest

from mmfilter.errors import DataError
from mmfilter.file_record import check_bytes, check_size, check_whole, difference, record_of, sha256_file

DATA = b"some bytes" * 1000


@pytest.fixture(params=["disk", "store"])
def path(request, tmp_path):
    if request.param == "disk":
        return str(tmp_path / "a.bin")
    import fsspec

    fsspec.filesystem("memory").pipe("/records/a.bin", b"")
    return "memory://records/a.bin"


def put(path, data):
    if "://" in path:
        import fsspec

        fsspec.filesystem("memory").pipe(path.removeprefix("memory:/"), data)
    else:
        with open(path, "wb") as stream:
            stream.write(data)


def test_a_file_and_its_bytes_have_one_record(path):
    put(path, DATA)
    assert record_of(path) == record_of(DATA) == {"bytes": len(DATA), "sha256": hashlib.sha256(DATA).hexdigest()}
    assert sha256_file(path) == hashlib.sha256(DATA).hexdigest()
    check_whole(path, record_of(DATA))
    check_bytes(path, DATA, record_of(DATA))


@pytest.mark.parametrize("now", [b"", DATA[:-1], DATA + b"x"])
def test_another_size_is_seen_at_once(path, now):
    put(path, now)
    for check in (check_size, check_whole):
        with pytest.raises(DataError, match=r"a\.bin: .* 10,000 were written; write it again"):
            check(path, record_of(DATA), "write it again")


def test_a_flipped_bit_is_seen_where_the_file_is_read(path):
    flipped = bytes([DATA[0] ^ 1]) + DATA[1:]
    put(path, flipped)
    check_size(path, record_of(DATA))
    with pytest.raises(DataError, match="another sha256"):
        check_whole(path, record_of(DATA))
    with pytest.raises(DataError, match="another sha256"):
        check_bytes(path, flipped, record_of(DATA))


@pytest.mark.parametrize("record", [None, [], {}, {"bytes": "7"}, {"bytes": True, "sha256": "a" * 64}, {"bytes": 7}])
def test_a_record_that_is_damaged_vouches_for_nothing(path, record):
    put(path, DATA)
    with pytest.raises(DataError, match="damaged"):
        check_size(path, record)
    with pytest.raises(DataError, match="damaged"):
        check_bytes(path, DATA, record)


def test_a_file_that_is_gone_is_said_to_be(tmp_path):
    gone = str(tmp_path / "gone")
    assert difference(gone, record_of(DATA)) == difference(gone, record_of(DATA), whole=True) == "it is not there"
    with pytest.raises(FileNotFoundError):
        record_of(gone)
