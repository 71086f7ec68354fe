"""Entries of every type that POSIX, GNU and others have: their data is no entry, and samples are what they are."""

import io
import json
import tarfile
from collections import Counter
from random import Random

import pytest
from tars import entry, jpeg, rows_of, sample, samples, std_tar, tar, uid

from index.reference import images
from mmfilter.errors import DataError
from mmfilter.tar import END, members
from mmfilter.tasks.sets import open_set, read_set


def of_bytes(tmp_path, data):
    path = tmp_path / "00000000.tar"
    path.write_bytes(data)
    return rows_of(path)


def of_tarfile(path):
    """The same samples as the standard library reads them: files and hard links by key, sparse files left out."""
    parts = {}
    with tarfile.open(path) as file:
        for info in file:
            if (info.isfile() or info.islnk()) and not info.issparse():
                key, _, extension = info.name.partition(".")
                parts.setdefault(key, {})[extension] = file.extractfile(info).read()
    whole = [part for part in parts.values() if {"jpg", "txt", "json"} <= part.keys()]
    return {json.loads(part["json"])["uid"]: (part["jpg"], part["txt"].decode()) for part in whole}


HIDDEN = tar(sample(900))  # whole entries, which data of no file must not give
DATA = [b"", b"x", HIDDEN, HIDDEN[:512], b"\xff" * 700, bytes(1024), b"Y000000000.jpg\0N1.txt\0\0"]
STATED = [b"D", b"M", b"V", b"N", b"A", b"B", b"E", b"I", b"Z"]  # data of the size that is stated
UNSTATED = [b"2", b"3", b"4", b"5", b"6"]  # none, whatever is stated
FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


def passed_over(random):
    """An entry that is no file, under a name that a sample's member would have."""
    name = f"j{random.randrange(10)}.{random.choice(['jpg', 'txt', 'json'])}"
    if random.random() < 0.5:
        return entry(name, random.choice(DATA), random.choice(STATED), random.choice(FORMATS))
    size = random.choice([0, 1, 512, 4096])
    return entry(name, b"", random.choice(UNSTATED), random.choice(FORMATS), size=size, linkname="0.jpg")


def file_of(name, data, earlier, random):
    """A file in one of the forms that files have, or a hard link to an earlier one of the same bytes."""
    form = random.choice(FORMATS)
    if data in earlier and random.random() < 0.5:
        form = form if len(earlier[data].encode()) <= 100 else tarfile.PAX_FORMAT
        return entry(name, b"", b"1", form, linkname=earlier[data], size=random.choice([0, len(data)]))
    earlier.setdefault(data, name)
    kind = random.choice([b"0", b"\0", b"7"])
    if random.random() < 0.3:
        return entry(name, data, kind, tarfile.PAX_FORMAT, pax_headers={"size": str(len(data)), "comment": "é" * 300})
    block = bytearray(entry(name, data, kind, form))
    if random.random() < 0.3 and block[156:157] == kind:  # else a long name comes first
        block[124:136] = b"\x80" + len(data).to_bytes(11, "big")
        summed(block)
    return bytes(block)


def summed(block):
    """Write the checksum of a header that was changed."""
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])


def archive(random):
    """A tar whose samples have entries of any type between their members."""
    data, earlier = [], {}
    if random.random() < 0.3:
        data.append(entry("g", b"17 comment=words\n", b"g"))
    for n in range(random.randint(1, 5)):
        prefix = random.choice(["", "folder/" * 20, "é" * 60 + "/"])
        for name, content in sample(n, image=jpeg((40 * random.randrange(3), 9, 9))):
            data += [passed_over(random) for _ in range(random.randrange(3))]
            data.append(file_of(prefix + name, content, earlier, random))
    data += [passed_over(random) for _ in range(random.randrange(3))]
    return b"".join(data) + END


def test_samples_are_those_that_the_standard_library_reads(tmp_path):
    path = tmp_path / "00000000.tar"
    for seed in range(60):
        path.write_bytes(archive(Random(seed)))
        valid, failed, _ = rows_of(path)
        assert valid == of_tarfile(path), f"seed {seed}"
        assert {row.key[0] for row in failed} <= {"j"}, f"seed {seed}: a type M is a piece of its file's sample"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_all_formats_of_the_standard_library(tmp_path, form):
    rows = [(f"{'deep/' * 40}{name}", data) for name, data in samples(5)]
    if form == tarfile.USTAR_FORMAT:
        rows = [(name.replace("deep/" * 40, "deep/" * 20), data) for name, data in rows]
    valid, failed, notes = of_bytes(tmp_path, std_tar(rows, format=form))
    assert (len(valid), failed, notes) == (5, [], Counter())


def test_data_after_a_link_or_a_folder_is_passed_over(tmp_path):
    """POSIX has none there, but for hard links in pax; where some stands it is skipped by the stated size."""
    odd = [entry(f"j{flag}.jpg", b"x" + HIDDEN, bytes([flag]), linkname="no") for flag in b"123456"]
    odd += [entry("folder/", b"of an old tar", b"\0"), entry("new/", b"x" * 512, b"0"), entry("d", b"x" * 600, b"5")]
    rows = samples(3)
    data = b"".join(entry(*rows[i]) + odd[i] for i in range(9)) + END
    valid, failed, notes = of_bytes(tmp_path, data)
    assert (len(valid), failed) == (3, [])
    assert notes == Counter(member_link=2, member_other=3, member_dir=4)


def test_a_hard_link_is_the_earlier_member_that_it_names(tmp_path):
    shared = "shared/" + "x" * 150 + ".jpg"
    data = entry(shared, sample(7)[0][1], form=tarfile.GNU_FORMAT)
    for n, form in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        image, *others = sample(n)
        data += entry(image[0], b"", tarfile.LNKTYPE, form, linkname="./" + shared)
        data += b"".join(entry(*other) for other in others)
    image, *others = sample(2)
    data += entry(image[0], b"", tarfile.LNKTYPE, linkname="000000000.jpg")  # a link to a link
    data += b"".join(entry(*other) for other in others)
    for n, target in ((3, "/etc/passwd"), (4, "000000004.txt.later"), (5, "000000005.jpg")):
        image, *others = sample(n)
        data += entry(image[0], b"", tarfile.LNKTYPE, linkname=target)
        data += b"".join(entry(*other) for other in others)
    valid, failed, notes = of_bytes(tmp_path, data + END)
    assert {found: image for found, (image, _) in valid.items()} == {uid(n): sample(7)[0][1] for n in range(3)}
    assert Counter(row.status for row in failed) == Counter(missing_text=1, missing_image=3), (
        "the shared file; three links"
    )
    assert notes["member_link"] == 3


@pytest.mark.parametrize("kinds", [b"xL", b"Lx", b"xLK"])
def test_a_pax_name_counts_before_a_long_name(tmp_path, kinds):
    """In any order, as in GNU tar."""
    rows = samples(2)
    told = {"x": b"22 path=000000000.jpg\n", "L": b"wrong.jpg\0", "K": b"wrong.txt\0"}
    data = b"".join(entry("t", told[chr(kind)], bytes([kind])) for kind in kinds) + entry("wrong.png", rows[0][1])
    valid, failed, notes = of_bytes(tmp_path, data + b"".join(entry(*row) for row in rows[1:]) + END)
    assert (len(valid), failed, notes) == (2, [], Counter())


@pytest.mark.parametrize(("name", "target"), [("a.jpg", "/a.jpg"), ("/a.jpg", "./a.jpg"), ("./a.jpg", "//a.jpg")])
def test_a_hard_link_finds_a_member_with_or_without_a_leading_slash(tmp_path, name, target):
    image, *others = sample(0)
    data = entry(name, image[1]) + entry(image[0], b"", tarfile.LNKTYPE, linkname=target)
    valid, _, notes = of_bytes(tmp_path, data + b"".join(entry(*other) for other in others) + END)
    assert valid[uid(0)][0] == image[1] and not notes


@pytest.mark.parametrize("kind", [b" ", b"8", b"a", b"\xff"])
def test_an_entry_of_an_unknown_type_is_a_file(tmp_path, mmfilter, kind):
    rows = samples(2)
    data = entry(rows[0][0], rows[0][1], kind) + b"".join(entry(*row) for row in rows[1:])
    valid, failed, notes = of_bytes(tmp_path, data + END)
    assert (len(valid), failed, notes) == (2, [], Counter(member_unknown_type=1))
    code, said, _ = mmfilter("inspect", tmp_path, "--local")
    assert code == 0 and "warning member_unknown_type: 00000000: 1 x member unknown type" in said


def test_a_later_file_of_the_same_name_is_what_a_hard_link_means(tmp_path):
    first, second, image = jpeg((1, 2, 3)), jpeg((200, 2, 3)), sample(0)
    data = entry("a.jpg", first) + entry("a.jpg", second) + entry(image[0][0], b"", tarfile.LNKTYPE, linkname="a.jpg")
    valid, _, _ = of_bytes(tmp_path, data + b"".join(entry(*other) for other in image[1:]) + END)
    assert valid[uid(0)][0] == second


def test_a_hard_link_to_a_sparse_member_is_none_either(tmp_path):
    image, *others = sample(0)
    data = entry("a.jpg", b"abc", b"S", tarfile.GNU_FORMAT) + entry(image[0], b"", tarfile.LNKTYPE, linkname="a.jpg")
    valid, failed, _ = of_bytes(tmp_path, data + b"".join(entry(*other) for other in others) + END)
    assert not valid and {row.status for row in failed} == {"member_sparse"}


def test_headers_of_old_and_odd_writers(tmp_path):
    """Sizes that end in other than NUL, sums over signed bytes, Solaris's records, a size for all that follow."""
    rows = samples(4)
    blocks = [bytearray(entry(name, data, form=tarfile.GNU_FORMAT)) for name, data in rows]
    blocks[0][124:136] = b"%-11o " % len(rows[0][1])
    blocks[1][124:136] = (b"%o\0" % len(rows[1][1])).ljust(12, b"7")
    for block in blocks[:2]:
        summed(block)
    blocks[3][265:269] = "é".encode() * 2  # the owner's name
    blocks[3][148:156] = b" " * 8
    blocks[3][148:156] = b"%06o\0 " % (sum(block - 256 * (block > 127) for block in blocks[3][:512]))
    blocks[6] = bytearray(entry("X", b"22 path=000000002.jpg\n", b"X") + entry("wrong.jpg", rows[6][1]))
    big = b"x" * 5_000_000
    blocks[9] = entry("x", b"%d GNU.dumpdir=" % (len(big) + 23) + big + b"\n", b"x") + bytes(blocks[9])
    valid, failed, notes = of_bytes(tmp_path, b"".join(map(bytes, blocks)) + END)
    assert (len(valid), failed, notes) == (4, [], Counter())


@pytest.mark.parametrize("behind", [b"\0x", b" x", b"\0\xff"])
@pytest.mark.parametrize("field", ["checksum", "size"])
def test_what_stands_behind_the_digits_of_a_field_counts_for_nothing(tmp_path, field, behind):
    """As GNU tar has it; a number ends at the first NUL or blank."""
    blocks = [bytearray(entry(name, data)) for name, data in samples(5)]
    for block in blocks:
        if field == "size":
            block[124:136] = block[125:135] + behind
        summed(block)
        if field == "checksum":
            block[154:156] = behind
    path = tmp_path / "00000000.tar"
    path.write_bytes(b"".join(map(bytes, blocks)) + END)
    valid, failed, notes = rows_of(path)
    assert (len(valid), failed, notes) == (5, [], Counter())


@pytest.mark.parametrize(
    "records", [b"9" * 5000 + b" size=1\n", b"14 size=-99999\n", b"5012 size=" + b"9" * 5001 + b"\n", b"9 size=\xb2\n"]
)
def test_records_that_cannot_be_meant_change_nothing(tmp_path, records):
    rows = samples(2)
    data = b"".join(entry("x", records, b"x") + entry(*row) for row in rows) + END
    assert len(of_bytes(tmp_path, data)[0]) == 2


def test_a_negative_size_is_no_header():
    block = bytearray(entry("a.jpg", b""))
    block[124:136] = b"-0000000001\0"
    summed(block)
    assert next(members(io.BytesIO(bytes(block) + END))).status == "not_a_tar"


def test_sets_beside_the_pool_tell_of_a_sparse_image_too(tmp_path):
    """An evaluation set counts it; a set that is compared with the pool is refused, as one read in part would be."""
    (tmp_path / "test").mkdir()
    (tmp_path / "test/nshards.txt").write_text("1")
    rows = [entry("0.jpg", jpeg(), b"S", tarfile.GNU_FORMAT), entry("0.cls", b"1")]
    rows += [entry("1.jpg", b"", b"1", linkname="2.jpg"), entry("1.cls", b"1"), entry("2.png", jpeg())]
    rows += [entry("2.cls", b"0"), entry("3.jpg", b"", b"1", linkname="2.png"), entry("3.cls", b"3")]
    (tmp_path / "test/0.tar").write_bytes(b"".join(rows) + END)
    found = list(read_set(open_set(str(tmp_path)), ("cls",)))
    assert Counter(getattr(row, "status", "") for row in found) == Counter(
        {"": 2, "missing_image": 1, "member_sparse": 1}
    )
    with pytest.raises(DataError, match=r"0\.tar: '0\.jpg' is stored as a sparse file"):
        list(images(str(tmp_path)))


def test_reading_goes_on_after_damage_where_headers_have_no_magic(tmp_path):
    """As `tar --format=v7` writes them."""
    blocks = []
    for name, data in samples(6):
        block = bytearray(entry(name, data))
        block[257:265] = bytes(8)
        summed(block)
        blocks.append(bytes(block))
    blocks[7] = b"\xff" * 512 + blocks[7][512:]
    valid, failed, notes = of_bytes(tmp_path, b"".join(blocks) + END)
    assert len(valid) == 5 and [row.status for row in failed] == ["missing_text"] and notes["corrupt_header"] == 1


def test_a_file_that_was_packed_twice_is_no_member_more(tmp_path):
    """GNU tar writes one with several names, given twice, as a hard link to itself."""
    rows = [entry(*row) for row in sample(0)]
    valid, failed, notes = of_bytes(
        tmp_path, b"".join(rows) + entry("000000000.jpg", b"", b"1", linkname="./000000000.jpg") + END
    )
    assert (len(valid), failed, notes) == (1, [], Counter(member_link=1))


@pytest.mark.parametrize("before", [b"", entry("d/", b"", b"5")])
def test_records_of_a_size_that_is_not_there_are_passed_over_once(tmp_path, before):
    rows = b"".join(entry(*row) for row in samples(2))
    for size in (1 << 20, 1 << 28):
        valid, _, notes = of_bytes(tmp_path, before + entry("x", b"", b"x", size=size) + rows + END)
        assert len(valid) == 2 and notes["corrupt_header"] == 1


def test_records_of_a_wrong_size_cost_no_sample_behind_them(tmp_path):
    """They swallow what follows, to a place where no header stands: reading goes back to what was swallowed."""
    rows = [entry(*row) for row in samples(6)]
    data = b"".join(rows[:6]) + entry("x", b"", b"x", size=3000) + b"".join(rows[6:]) + END
    valid, failed, notes = of_bytes(tmp_path, data)
    assert len(valid) == 6 and [row.status for row in failed] == ["corrupt_header"] and notes["corrupt_header"] == 1
