"""Whether a tar that was touched, copied or fetched again still holds what its shard in OUT was made from."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

from . import parquet, storage
from .errors import DataError
from .feed import Clock, FeedPlan, feed
from .images import DecodeError, ImageLimits, decode
from .records import Failure
from .sidecar import BASE, metadata_path, read_failures
from .work import Work


def same_samples(path: str, work: Work) -> bool:
    """Read the tar at `path` and compare it with the shard's rows: keys, uids, captions, urls, sizes, boxes, places
    in the tar and the images' sha256. No model is run, and no image is decoded but those that failed.

    Those have to fail again, with the status they had: a damaged tar that was put back is not the same. Nor is a
    shard whose files are not whole, or one with failures that only a model can tell.
    """
    stem = storage.stem(path)
    try:
        before = parquet.read(metadata_path(work.out, stem, "parquet"), list(BASE)).to_pylist()
    except (FileNotFoundError, DataError):  # it is done again
        return False
    if not storage.exists(metadata_path(work.out, stem, "npz")):
        return False
    failures: list[Failure] = []
    rows: list[dict[str, Any]] = []
    for fed in feed(path, FeedPlan(read=work.read, pixels=False, threads=work.threads), failures, Clock()):
        rows += [dict(zip(fed.rows, values, strict=True)) for values in zip(*fed.rows.values(), strict=True)]
    well = {row["uid"] for row in before}
    if [row for row in rows if row["uid"] in well] != before:
        return False
    failing = [(failure.key, failure.uid, failure.status) for failure in failures]
    failing += _decoded(path, [row for row in rows if row["uid"] not in well], work.read.limits)
    return Counter(failing) == Counter((f.key, f.uid, f.status) for f in read_failures(work.out, stem))


def _decoded(path: str, rows: list[dict[str, Any]], limits: ImageLimits) -> Iterator[tuple[str, str, str]]:
    """(key, uid, status) of each row's image; "" for one that is well."""
    with storage.open_read(path) as stream:
        for row in rows:
            stream.seek(row["offset"])
            try:
                decode(stream.read(row["size"]), limits)
                status = ""
            except DecodeError as error:
                status = error.status
            yield row["key"], row["uid"], status
