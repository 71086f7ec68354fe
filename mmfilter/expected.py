"""What the files beside a tar say should be in it: img2dataset's `{shard}.parquet` and `_stats.json`."""

import io
import json
from typing import Any, BinaryIO

from . import storage
from .errors import MMFilterError, ShortageError, StoreError, StoreRefusal, TransientError
from .folders import is_tar
from .member_names import split_name
from .records import Failure
from .tar import Member, members

PASSING = (TransientError, ShortageError, StoreError)  # by itself or with less at a time
MOST = 1_000_000  # samples that a tar is taken to hold: a file beside it that tells of more is not believed
MOST_STATS = 1 << 24  # bytes of a _stats.json
MOST_KEYS = 1 << 29  # bytes of a parquet's columns of keys, uids and statuses, as its footer states them
MOST_FOOTER = 1 << 26  # bytes
WHOLE = 1 << 23  # bytes of a parquet that is read at once


def beside(path: str) -> str:
    """The path of a tar without its ending: what the paths of the files beside it begin with."""
    return path[:-4] if is_tar(path) else path


def expected_keys(path: str, wanted: bool = False) -> dict[str, str] | int | None:
    """Key -> uid ("" where unknown) of the samples that should be in the tar at `path`.

    Only their number where the parquet is absent or useless, or tells of none and the stats do; None where nothing is
    known. A sidecar that cannot be read counts as absent: it must not cost the samples. With `wanted` (the tar is
    damaged, and a sidecar alone tells what was in it) a disk or store that fails for a moment is no absence: raises
    one of PASSING.
    """
    keys = parquet_keys(path, wanted)
    if keys:
        return keys
    stated = stated_count(path, wanted)
    return stated if stated or keys is None else keys


def parquet_keys(path: str, wanted: bool = False) -> dict[str, str] | None:
    """Key -> uid of the samples that the parquet beside the tar at `path` tells of; None where it cannot be read."""
    stream = _open(f"{beside(path)}.parquet", wanted)
    if stream is None:
        return None
    try:
        with stream:
            return _keys(stream)
    except PASSING as error:
        if wanted and not isinstance(error, StoreRefusal):
            raise
    except Exception:  # Arrow and Python's own types raise whatever they please on odd columns and values
        pass
    return None


def _keys(stream: BinaryIO) -> dict[str, str] | None:
    """Key -> uid of the samples that succeeded; of a large file only the footer and these columns are read."""
    import pyarrow.parquet as pq

    if not stream.seekable():  # of a store that tells no size
        stream = io.BytesIO(stream.read(MOST_KEYS))
    size = stream.seek(0, io.SEEK_END)
    stream.seek(max(0, size - 8))
    if int.from_bytes(stream.read(4), "little") > min(size, MOST_FOOTER):
        return None
    stream.seek(0)
    file = pq.ParquetFile(io.BytesIO(stream.read(size)) if size <= WHOLE else stream)
    columns = [name for name in ("key", "status", "uid") if name in file.schema_arrow.names]
    if "key" not in columns or file.metadata.num_rows > MOST or _stated_bytes(file.metadata, columns) > MOST_KEYS:
        return None
    table = file.read(columns=columns, use_threads=False)
    keys = table["key"].to_pylist()
    status = table["status"].to_pylist() if "status" in columns else ["success"] * len(keys)
    uids = table["uid"].to_pylist() if "uid" in columns else [""] * len(keys)
    rows = zip(keys, status, uids, strict=True)
    return {key: uid if isinstance(uid, str) else "" for key, s, uid in rows if s == "success" and isinstance(key, str)}


def _stated_bytes(footer: Any, columns: list[str]) -> int:
    """Bytes of the columns when they are unpacked."""
    groups = map(footer.row_group, range(footer.num_row_groups))
    chunks = (group.column(number) for group in groups for number in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema.split(".")[0] in columns)


def stated_count(path: str, wanted: bool = False) -> int | None:
    """`successes` of the _stats.json beside the tar at `path`; None where no count that is believed can be read."""
    stream = _open(f"{beside(path)}_stats.json", wanted)
    if stream is None:
        return None
    try:
        with stream:
            data = stream.read(MOST_STATS + 1)
        count = int(json.loads(data)["successes"]) if len(data) <= MOST_STATS else -1
    except PASSING as error:
        if wanted and not isinstance(error, StoreRefusal):
            raise
        return None
    except Exception:  # of json nested without end, too: a RecursionError
        return None
    return count if 0 <= count <= MOST else None


def _open(path: str, wanted: bool) -> BinaryIO | None:
    """A file, None where there is none, or what stands there is none or may not be read.

    With `wanted` a disk or store that does not answer is no absence: raises one of PASSING.
    """
    try:
        return storage.open_read(path)
    except PASSING as error:
        if wanted and not isinstance(error, StoreRefusal):
            raise
    except (OSError, MMFilterError):
        pass
    return None


def counted_failures(path: str, status: str, error: str) -> list[Failure]:
    """A Failure for every sample of a tar that was given up: from the files beside it, else by the names in it; one
    row for the whole where neither tells of any.
    """
    if told := expected_failures(path, status, error):
        return told
    try:
        keys = listed_keys(path)
    except Exception:  # it was given up because it cannot be read
        keys = []
    return [Failure(key, "", status, error) for key in keys] or [Failure("", "", status, error)]


def listed_keys(path: str) -> list[str]:
    """The keys of the tar's files, in its order. Raises OSError, MachineError."""
    with storage.open_read(path) as stream:
        entries = members(stream, lambda name: 0)
        names = [entry.name for entry in entries if isinstance(entry, Member) and entry.kind == "file"]
    return list(dict.fromkeys(filter(None, (split_name(name)[0] for name in names))))


def expected_failures(path: str, status: str = "lost", error: str = "") -> list[Failure]:
    """A Failure for every sample that should be in a tar which cannot be read at all.

    Where one is `lost`, which is for good, a sidecar that cannot be read for a moment is waited for (`expected_keys`).
    """
    keys = expected_keys(path, wanted=status == "lost")
    if isinstance(keys, dict):
        return [Failure(key, uid, status, error) for key, uid in keys.items()]
    return [Failure("", "", status, error) for _ in range(keys or 0)]
