"""Hostile and broken inputs, one test a fault: a recorded reason, and everything else goes on."""

import io
import json
import struct
import tarfile
import zlib
from collections import Counter

import pytest
from PIL import Image
from tars import jpeg, sample, samples, std_tar, tar, uid

from mmfilter.errors import UsageError
from mmfilter.fields import ReadOptions
from mmfilter.images import DecodeError, decode, probe
from mmfilter.records import Failure, Sample
from mmfilter.samples import read_samples
from mmfilter.storage import expand


def read(tmp_path, data, stats=None, options=None, name="00000000"):
    """(uids of the well samples, statuses of the failed, notes) of a tar made of `data`."""
    path = tmp_path / f"{name}.tar"
    path.write_bytes(data)
    if stats is not None:
        (tmp_path / f"{name}_stats.json").write_text(json.dumps({"successes": stats}))
    notes = Counter()
    rows = list(read_samples(str(path), options or ReadOptions(), notes))
    well = [row for row in rows if isinstance(row, Sample)]
    failed = [row for row in rows if isinstance(row, Failure)]
    assert len(well) + len(failed) == len(rows)
    assert all(row.status and row.error for row in failed)
    for row in well:
        notes.update(row.notes)
    return [int(row.uid, 16) for row in well], Counter(row.status for row in failed), notes


def test_fault_01_zero_byte_tar(tmp_path):
    assert read(tmp_path, b"") == ([], Counter(empty=1), Counter(empty=1))
    assert read(tmp_path, b"", stats=5)[1] == Counter(lost=5)


def test_fault_02_truncated_tar(tmp_path):
    whole = tar(samples(10))
    size = len(tar(samples(1))) - 1024
    for cut in (size * 6 + 100, size * 6 + 600, size * 6 + 1024 + 30, len(whole) - 1024 - 600):
        well, failed, _ = read(tmp_path, whole[:cut], stats=10)
        assert well == list(range(len(well)))
        assert len(well) >= cut // size - 1
        assert sum(failed.values()) == 10 - len(well), "every lost sample is a row"
    assert sum(read(tmp_path, whole[: size * 6 + 100])[1].values()) >= 1, "never silent, even without a sidecar"


def test_fault_03_corrupt_header_mid_tar(tmp_path):
    members = samples(100)
    data = bytearray(tar(members))
    at = len(tar(members[: 3 * 50])) - 1024
    data[at : at + 512] = b"\xff" * 512
    well, failed, notes = read(tmp_path, bytes(data), stats=100)
    assert well == [n for n in range(100) if n != 50], "only the sample whose header is gone"
    assert failed == Counter(missing_image=1)
    assert notes["corrupt_header"] == 1


def test_fault_03_whole_sample_overwritten(tmp_path):
    members = samples(20)
    data = bytearray(tar(members))
    start, end = (len(tar(members[: 3 * n])) - 1024 for n in (7, 8))
    data[start:end] = b"\x55" * (end - start)
    assert read(tmp_path, bytes(data), stats=20)[:2] == ([n for n in range(20) if n != 7], Counter(lost=1))
    (tmp_path / "00000000_stats.json").unlink()
    assert read(tmp_path, bytes(data))[1] == Counter(corrupt_header=1), "without a sidecar the gap itself is the row"


def test_fault_03_bytes_missing_or_inserted_do_not_lose_the_rest(tmp_path):
    data = tar(samples(20))
    at = len(tar(samples(8))) - 1024 + 700
    for broken in (data[:at] + data[at + 37 :], data[:at] + b"x" * 37 + data[at:]):
        well, failed, _ = read(tmp_path, broken, stats=20)
        assert len(well) >= 18
        assert len(well) + sum(failed.values()) == 20


def test_fault_04_zero_blocks_mid_tar(tmp_path):
    first, second = tar(samples(3)), tar(samples(3, start=3))
    well, failed, notes = read(tmp_path, first + bytes(4096) + second, stats=6)
    assert (well, failed) == (list(range(6)), Counter())
    assert notes["zero_blocks"] == 1


def test_fault_05_trailing_garbage_and_no_end(tmp_path):
    data = tar(samples(3))
    assert read(tmp_path, data + b"garbage" * 500)[:2] == ([0, 1, 2], Counter())
    well, failed, notes = read(tmp_path, data[:-1024])
    assert (well, failed, notes["no_end"]) == ([0, 1, 2], Counter(), 1)


def test_fault_06_interleaved_members(tmp_path):
    a, b, c = sample(0), sample(1), sample(2)
    mixed = [a[0], b[0], c[0], a[1], c[1], b[1], c[2], b[2], a[2]]
    well, failed, _ = read(tmp_path, tar(mixed))
    assert (sorted(well), failed) == ([0, 1, 2], Counter())


def test_fault_07_a_member_twice(tmp_path):
    rows = sample(0)
    well, failed, notes = read(tmp_path, tar([rows[0], (rows[0][0], jpeg((1, 2, 3))), *rows[1:], *sample(1)]))
    assert (well, failed, notes["member_twice"]) == ([0, 1], Counter(), 1)
    assert read(tmp_path, tar([*rows, *sample(1), rows[0]]))[:2] == ([0, 1], Counter(key_repeated=1))


def test_fault_08_dotted_keys(tmp_path):
    rows = [(f"a.b/x.{ext}", data) for (_, data), ext in zip(sample(5), ("jpg", "txt", "json"), strict=True)]
    rows += [("y.seg.jpg", b"not the image")] + [(f"y.{name.split('.')[1]}", data) for name, data in sample(6)]
    assert read(tmp_path, tar(rows))[:2] == ([5, 6], Counter())


def test_fault_09_names(tmp_path):
    rows = []
    for n, prefix in enumerate(("deep/er/", "ünïcode/日本/", "x" * 290, "y" * 80 + "/" + "z" * 80)):
        rows += [(prefix + name, data) for name, data in sample(n)]
    for data in (tar(rows), std_tar(rows, format=tarfile.PAX_FORMAT), std_tar(rows, format=tarfile.GNU_FORMAT)):
        assert read(tmp_path, data)[:2] == ([0, 1, 2, 3], Counter())


def test_fault_10_links_and_outside_paths(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        for name, kind, to in (
            ("1.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("2.jpg", tarfile.LNKTYPE, "../../x"),
            ("d", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, to
            file.addfile(info)
        for prefix, n in (("/abs/", 3), ("../../up/", 4)):
            for name, data in sample(n):
                info = tarfile.TarInfo(prefix + name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    before = sorted(p.name for p in tmp_path.iterdir())
    well, failed, notes = read(tmp_path, out.getvalue())
    assert (well, failed) == ([3, 4], Counter())
    assert (notes["member_link"], notes["member_dir"]) == (2, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({*before, "00000000.tar"}), "nothing is extracted"


def test_fault_11_a_header_that_claims_gigabytes(tmp_path):
    members = samples(6)
    at = len(tar(members[:6])) - 1024
    data = bytearray(tar(members))
    block = bytearray(data[at : at + 512])
    block[124:136] = b"%011o\0" % (7 << 30)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    data[at : at + 512] = block
    well, failed, _ = read(tmp_path, bytes(data), stats=6)
    assert (well, failed) == ([0, 1, 3, 4, 5], Counter(missing_image=1))


def test_fault_12_gzip_named_tar(tmp_path):
    packed = zlib.compressobj(wbits=31)
    data = packed.compress(tar(samples(3))) + packed.flush()
    well, failed, notes = read(tmp_path, data)
    assert (well, failed, notes["not_a_tar"]) == ([], Counter(not_a_tar=1), 1)
    assert read(tmp_path, data, stats=3)[1] == Counter(lost=3)


@pytest.mark.parametrize(("gone", "status"), [(0, "missing_image"), (1, "missing_text")])
def test_fault_13_a_member_is_missing(tmp_path, gone, status):
    rows = [*sample(0), *[m for i, m in enumerate(sample(1)) if i != gone], *sample(2)]
    assert read(tmp_path, tar(rows))[:2] == ([0, 2], Counter({status: 1}))


def test_fault_13_a_missing_json_is_no_fault_unless_bytes_were_lost(tmp_path):
    rows = [*sample(0), *sample(1)[:2], *sample(2)]
    valid, failed, notes = read(tmp_path, tar(rows))
    assert len(valid) == 3 and not failed and notes["uid_derived"] == 1
    data = tar(rows[:5]) + b"\x07" * 1024 + tar(rows[5:])  # where the json of sample 1 stood
    assert read(tmp_path, data)[:2] == ([0, 2], Counter(missing_json=1))


def test_fault_14_json(tmp_path):
    bad = [
        b"{",
        b"\xff\xfe{}",
        b"[1]",
        b'{"uid": "%s", "uid": "%s"}' % (uid(1).encode(), uid(2).encode()),
        b"[" * 100_000,
    ]
    rows = [m for n, data in enumerate(bad) for m in [*sample(n)[:2], (f"{n:09d}.json", data)]]
    rows += [*sample(90)[:2], ("000000090.json", b'{"uid": "%s", "aesthetic": NaN, "a": 1, "a": 2}' % uid(90).encode())]
    assert read(tmp_path, tar(rows))[:2] == ([90], Counter(json_malformed=len(bad)))


def test_fault_15_uids(tmp_path):
    rows = [
        *sample(1),
        *sample(2, uid=None),
        *sample(3, uid="abc"),
        *sample(4, uid=uid(0xABCDEF).upper()),
        *sample(5, uid=uid(1)),
        *sample(6, uid=7),
        *sample(7, uid=[1]),
    ]
    well, failed, notes = read(tmp_path, tar(rows))
    assert len(well) == 6 and {1, 0xABCDEF} <= set(well)
    assert failed == Counter(uid_repeated=1)
    assert (notes["uid_uppercase"], notes["uid_derived"], notes["uid_hashed"]) == (1, 1, 3)


def test_fault_16_texts(tmp_path):
    texts = ["", "a\0b", "x" * 1_000_000, "😀" * 100, "שלום עולם", "word " * 200]
    rows = [m for n, text in enumerate(texts) for m in sample(n, text=text)]
    rows += sample(50, text=b"\xff\xfe") + sample(51, text="y" * (1 << 20) + "z")
    assert read(tmp_path, tar(rows))[:2] == (list(range(len(texts))), Counter(text_not_utf8=1, text_too_long=1))


def test_fault_17_zero_byte_image(tmp_path):
    assert read(tmp_path, tar([*sample(0, image=b""), *sample(1)]))[:2] == ([1], Counter(image_empty=1))


def status_of(data):
    with pytest.raises(DecodeError) as raised:
        decode(data)
    assert raised.value.error
    return raised.value.status


def test_fault_18_not_images():
    assert status_of(b"<!DOCTYPE html><html></html>") == "not_an_image"
    assert status_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>") == "format_not_allowed"
    assert status_of(b"%PDF-1.7 ...") == "format_not_allowed"


def test_fault_19_truncated_jpeg():
    data = jpeg(size=(64, 64))
    for cut in range(20, len(data) - 1, 37):
        assert status_of(data[:cut]) in {"truncated_image", "corrupt_image"}


def test_fault_20_bit_flipped_jpeg():
    data = bytearray(jpeg(size=(64, 64)))
    for at in range(2, len(data), 5):
        flipped = bytearray(data)
        flipped[at] ^= 0x41
        try:
            assert decode(bytes(flipped)).size
        except DecodeError as error:
            assert error.status and error.error


def bombs():
    head = bytearray(jpeg())
    at = head.find(b"\xff\xc0")
    head[at + 5 : at + 9] = struct.pack(">HH", 65500, 65500)
    out = io.BytesIO()
    Image.new("1", (1, 1)).save(out, "PNG")
    png = bytearray(out.getvalue())
    png[16:24] = struct.pack(">II", 65500, 65500)
    png[29:33] = struct.pack(">I", zlib.crc32(png[12:29]))
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (16383).to_bytes(3, "little") * 2
    webp = b"RIFF" + struct.pack("<I", 4 + len(vp8x)) + b"WEBP" + vp8x
    return [bytes(head), bytes(png), webp]


@pytest.mark.parametrize("data", bombs(), ids=["jpeg", "png", "webp"])
def test_fault_21_decompression_bombs(data):
    assert status_of(data) in {"too_many_pixels", "truncated_image", "corrupt_image"}
    with pytest.raises(DecodeError):
        probe(data)


def test_fault_22_modes():
    for mode in ("CMYK", "L", "RGB"):
        out = io.BytesIO()
        Image.new(mode, (9, 7)).save(out, "JPEG")
        assert decode(out.getvalue()).mode == mode
    for mode in ("RGBA", "P", "I;16", "LA", "1"):
        out = io.BytesIO()
        Image.new(mode, (9, 7)).save(out, "PNG")
        assert decode(out.getvalue()).size == (9, 7)
    out = io.BytesIO()
    frames = [Image.new("RGB", (9, 7), c) for c in ("red", "blue")]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    assert decode(out.getvalue()).convert("RGB").getpixel((0, 0)) == (255, 0, 0)


def test_fault_23_exif_orientation_is_left_alone():
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(jpeg(size=(30, 20), exif=exif)).size == (30, 20), "open_clip sees the pixels as stored"


def test_fault_24_extreme_sizes():
    assert decode(jpeg(size=(1, 1))).size == (1, 1)
    assert decode(jpeg(size=(8, 4000))).size == (8, 4000)


def test_fault_25_formats_outside_the_list():
    assert status_of(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n") == "format_not_allowed"
    out = io.BytesIO()
    Image.new("RGB", (4, 4)).save(out, "ICNS" if "ICNS" in Image.SAVE else "PPM")
    assert status_of(out.getvalue()) == "not_an_image"


def test_fault_26_pickles_and_pipes(tmp_path):
    import pickle

    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    rows = [*sample(0), ("000000000.pyd", pickle.dumps(Bomb())), ("000000000.pth", pickle.dumps(Bomb())), *sample(1)]
    well, failed, notes = read(tmp_path, tar(rows))
    assert (well, failed, notes["member_pickled"]) == ([0, 1], Counter(), 2)
    assert not (tmp_path / "owned").exists()
    with pytest.raises(UsageError, match="pipe:"):
        expand("pipe:touch owned")


def test_a_lying_or_broken_sidecar_costs_nothing(tmp_path):
    (tmp_path / "00000000.parquet").write_bytes(b"not parquet")
    assert read(tmp_path, tar(samples(3)), stats=2)[:2] == ([0, 1, 2], Counter())
