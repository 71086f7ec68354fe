"""Small hand-made tars for tests: members as (name, bytes), written by the standard library or by hand."""

import io
import json
import tarfile
from collections import Counter

from PIL import Image

from mmfilter.records import Failure, Sample
from mmfilter.samples import read_samples
from mmfilter.tar import END, header, pad


def jpeg(color=(200, 30, 30), size=(16, 12), mode="RGB", **save):
    """A real JPEG's bytes."""
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, "JPEG", **save)
    return out.getvalue()


def uid(n):
    """32 hex digits."""
    return f"{n:032x}"


def sample(n, text="a red square", image=None, **meta):
    """The three members of sample n as img2dataset names them."""
    key = f"{n:09d}"
    meta = {
        "uid": uid(n),
        "url": f"http://x.invalid/{n}.jpg",
        "key": key,
        "original_width": 16,
        "original_height": 12,
        **meta,
    }
    return [
        (f"{key}.jpg", jpeg((n * 7 % 256, 40, 90)) if image is None else image),
        (f"{key}.txt", text if isinstance(text, bytes) else text.encode()),
        (f"{key}.json", json.dumps(meta).encode()),
    ]


def tar(members):
    """The members as a tar, by our own writer."""
    return b"".join(header(name, len(data)) + data + pad(len(data)) for name, data in members) + END


def std_tar(members, **options):
    """The same by the standard library."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", **options) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


def samples(count, start=0):
    """Members of `count` well samples."""
    return [member for n in range(start, start + count) for member in sample(n)]


def write_pool(folder, shards, per_shard, stats=True, **meta):
    """A well pool of `shards` shards on disk; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for s in range(shards):
        rows = [
            m
            for n in range(s * per_shard, (s + 1) * per_shard)
            for m in sample(n, text=f"a picture number {n}", **meta)
        ]
        path = folder / f"{s:08d}.tar"
        path.write_bytes(tar(rows))
        if stats:
            (folder / f"{s:08d}_stats.json").write_text(json.dumps({"successes": per_shard}))
        paths.append(str(path))
    return paths


def entry(name, data=b"", kind=b"0", form=tarfile.USTAR_FORMAT, **fields):
    """An entry of any type. `size` may state another size than that of the data."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(form) + data + pad(len(data))


def rows_of(path):
    """(valid samples as uid -> (image, caption), failures, notes)."""
    notes = Counter()
    rows = list(read_samples(str(path), notes=notes))
    valid = {row.uid: (row.image, row.text) for row in rows if isinstance(row, Sample)}
    return valid, [row for row in rows if isinstance(row, Failure)], notes
