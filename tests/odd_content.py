"""Samples with odd names, headers, jsons and pictures, made by hand."""

import io
import json
import struct
import zlib

import numpy as np
from PIL import Image
from tars import jpeg, uid

from mmfilter.tar import END, pad

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "F", "I;16", "I;16B")
VALUES = [
    *(None, True, 0, -1, 1.5, "", "x", [], {}, [1], {"a": [1]}, [[1]]),
    *(10**30, 10**4000, -(10**400), float("nan"), float("inf")),
    *("\ud83d", "a\0b", "caf\u00e9", "\x1b[31m", "\u202e", "0" * 32, "\uff10" * 32),
    *([[10**400, 0, 1, 1]], [[0.1, 0.1, 0.5, 0.5], "x"], [float("nan")] * 4, ["\ud83d half", None, 7]),
]
FIELDS = ["url", "uid", "caption", "width", "height", "original_width", "original_height", "sha256", "face_bboxes"]
FIELDS += ["captions", "key", "status", "similarity"]
RAW_JSONS = [
    b"",
    b"null",
    b"[1]",
    b"\xff\xfe",
    b"{",
    b"{}\0",
    b"\xef\xbb\xbf{}",
    b'{"uid": 1e400, "original_width": 1e400}',
    b'{"uid": NaN}',
    b'{"uid": "a", "uid": "b"}',
    b'{"x": ' + b"9" * 5000 + b"}",
    b'{"x": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    b'{"uid": ' + b"[" * 150 + b"]" * 150 + b', "uid": 2}',
    '{"uid": "u"}'.encode("utf-16"),
]
NAMES = [b"caf\xe9", b"\xff\xfe", b"s\0\xe4\0", b"a\nb", b"\x1b[31mred\x1b]0;title\x07", b"\xc2\x9b31m", b"x" * 5000]
NAMES += ["\u202eright".encode(), "\U0001f600".encode(), b" ", b"a b/c d", b"\xed\xa0\xbd"]


def entry(name, data=b"", flag=b"0", size=None):
    """A tar's entry by hand: `name` in bytes of any encoding, `size` as the header's field states it."""
    if len(name) > 100:
        return entry(b"././@LongLink", name + b"\0", b"L") + entry(name[:100], data, flag, size)
    stated = b"%011o\0" % len(data) if size is None else size.ljust(12, b"\0")
    fields = (name.ljust(100, b"\0"), b"0000644\0" + b"0000000\0" * 2, stated, b"00000000000\0", b" " * 8)
    block = (b"".join(fields) + flag + bytes(100) + b"ustar\00000").ljust(512, b"\0")
    return block[:148] + b"%06o\0 " % sum(block) + block[156:] + data + pad(len(data))


def pax(key, value, data=None):
    """A PAX header with one record, or with `data` as it is."""
    length = len(key) + len(value) + 3
    while len(b"%d %s=%s\n" % (length, key, value)) != length:
        length = len(b"%d %s=%s\n" % (length, key, value))
    return entry(b"PaxHeaders/x", b"%d %s=%s\n" % (length, key, value) if data is None else data, b"x")


def sample(name, meta=None, text=b"a caption of words", image=None, ending=b"jpg"):
    """The entries of a sample; `meta` is a json's value, its bytes, or None for no json."""
    found = entry(name + b"." + ending, jpeg() if image is None else image) + entry(name + b".txt", text)
    if meta is None:
        return found
    return found + entry(name + b".json", meta if isinstance(meta, bytes) else json.dumps(meta).encode())


def sound(count, start=0):
    """The entries of `count` sound samples."""
    return b"".join(sample(b"%09d" % n, {"uid": uid(n)}, b"a sound caption") for n in range(start, start + count))


def shard(path, *entries):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(entries) + END)
    return str(path)


def tiff16(order=">", bits=16, kind=1):
    """A grey TIFF of 16 x 12 px by hand; `kind` 1: unsigned, 2: signed, 3: floating point."""
    data = np.random.default_rng(0).integers(0, 256, 12 * 16 * bits // 8, dtype=np.uint8).tobytes()
    tags = {256: 16, 257: 12, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: 12, 279: len(data), 339: kind}
    head = (b"MM\0*" if order == ">" else b"II*\0") + struct.pack(f"{order}I", 8 + len(data)) + data
    table = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    return head + struct.pack(f"{order}H", len(tags)) + table + bytes(4)


def picture(mode, form, size=(16, 12), **how):
    """A picture's file, or None where Pillow writes no such."""
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    if mode.startswith("I;16"):
        image = Image.new(mode, size, 1000)
    elif mode == "PA":
        image = image.convert("P").convert("PA")
    elif mode == "LAB":
        from PIL import ImageCms

        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(image, *profiles, outputMode="LAB")
    else:
        image = image.convert(mode)
    stream = io.BytesIO()
    try:
        image.save(stream, form, **how)
    except (OSError, KeyError, ValueError):
        return None
    return stream.getvalue()


def pictures():
    """Name -> file: every mode in every format, and odd ones."""
    found = {f"{mode} {form}": picture(mode, form) for mode in MODES for form in FORMATS}
    found |= {
        f"tiff {order}{bits}.{kind}": tiff16(order, bits, kind)
        for order in "<>"
        for bits in (16, 32)
        for kind in (1, 2, 3)
    }
    found |= {f"cut {form}": (picture("RGB", form, (64, 64)) or b"")[:-200] for form in FORMATS}
    found |= {
        "palette": picture("P", "PNG", transparency=bytes(99)),
        "clear": picture("RGB", "PNG", transparency=(1, 2, 3)),
    }
    found |= {"profile": picture("RGB", "JPEG", icc_profile=b"junk" * 99), "dot": picture("L", "PNG", (1, 1))}
    found |= {"exif": picture("RGB", "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 99)}
    found |= {"wide": picture("L", "PNG", (60_000, 1)), "tall": picture("RGB", "PNG", (1, 60_000))}
    frames = [Image.new("P", (16, 12), n) for n in range(3)]
    found["moving"] = picture("P", "GIF", save_all=True, append_images=frames, transparency=0)
    empty = bytearray(picture("RGB", "BMP"))
    palette = picture("P", "PNG")
    cut, after = palette.index(b"PLTE") - 4, palette.index(b"IDAT") - 4
    found["no palette"] = palette[:cut] + palette[after:]
    found["of no width"] = bytes(empty[:18] + bytes(4) + empty[22:])
    return {name: data for name, data in found.items() if data}


def scans(times, size=(32, 32)):
    """A progressive JPEG whose last scan stands `times` times more."""
    data = picture("L", "JPEG", size, progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * times + data[-2:]


def exif_pieces(times):
    """A JPEG whose EXIF data is in `times` pieces."""
    data = picture("L", "JPEG")
    return data[:2] + b"\xff\xe1\0\x0aExif\0\0MM" * times + data[2:]


def tiff(tags, data):
    """A grey TIFF of 8 bits: `tags` of one number each, or of a list; `data` begins at byte 8."""
    fields, after = [], 8 + len(data)
    for tag, value in sorted({258: 8, 262: 1, 277: 1, **tags}.items()):
        values = value if isinstance(value, list) else [value]
        if len(values) > 1:
            data += struct.pack(f"<{len(values)}I", *values)
            values, after = [after], 8 + len(data)
        fields.append(struct.pack("<HHII", tag, 4, len(value) if isinstance(value, list) else 1, values[0]))
    head = b"II*\0" + struct.pack("<I", after)
    return head + data + struct.pack("<H", len(fields)) + b"".join(fields) + bytes(4)


def strips(times):
    """A TIFF of 16 x 16 whose strips, of half the picture, stand one upon the other."""
    offsets = [8 + n for n in range(times)]
    return tiff({256: 16, 257: 16, 259: 1, 273: offsets, 278: 8, 279: [128] * times}, bytes(128 + times))


def tiles(side):
    """A TIFF of 16 x 16 in one tile of `side` x `side`."""
    data = zlib.compress(bytes(side * side))
    return tiff({256: 16, 257: 16, 259: 8, 322: side, 323: side, 324: 8, 325: len(data)}, data)
