"""What the files beside a tar say should be in it: img2dataset's `{shard}.parquet` and `_stats.json`."""

import io
import json

from . import storage
from .folders import is_tar
from .member_names import split_name
from .records import Failure
from .tar import Member, members

MOST = 1_000_000  # samples that a tar is taken to hold: a file beside it that tells of more is not believed


def beside(path: str) -> str:
    """The path of a tar without its ending: what the paths of the files beside it begin with."""
    return path[:-4] if is_tar(path) else path


def expected_keys(path: str) -> dict[str, str] | int | None:
    """Key -> uid ("" where unknown) of the samples that should be in the tar at `path`.

    Only their number where the parquet is absent or useless, or tells of none and the stats do; None where nothing is
    known. A sidecar that cannot be read counts as absent: it must not cost the samples.
    """
    keys = parquet_keys(path)
    if keys:
        return keys
    stated = stated_count(path)
    return stated if stated or keys is None else keys


def parquet_keys(path: str) -> dict[str, str] | None:
    """Key -> uid of the samples that the parquet beside the tar at `path` tells of; None where it cannot be read."""
    import pyarrow.parquet as pq

    data = _read(f"{beside(path)}.parquet")
    if data is None:
        return None
    try:
        file = pq.ParquetFile(io.BytesIO(data))
        columns = [name for name in ("key", "status", "uid") if name in file.schema_arrow.names]
        if "key" not in columns or file.metadata.num_rows > MOST:
            return None
        table = file.read(columns=columns, use_threads=False)
        keys = table["key"].to_pylist()
        status = table["status"].to_pylist() if "status" in columns else ["success"] * len(keys)
        uids = table["uid"].to_pylist() if "uid" in columns else [""] * len(keys)
    except Exception:  # Arrow and Python's own types raise whatever they please on odd columns and values
        return None
    rows = zip(keys, status, uids, strict=True)
    return {key: uid if isinstance(uid, str) else "" for key, s, uid in rows if s == "success" and isinstance(key, str)}


def stated_count(path: str) -> int | None:
    """`successes` of the _stats.json beside the tar at `path`; None where no count that is believed can be read."""
    data = _read(f"{beside(path)}_stats.json")
    if data is None:
        return None
    try:
        count = int(json.loads(data)["successes"])
    except Exception:  # of json nested without end, too: a RecursionError
        return None
    return count if 0 <= count <= MOST else None


def _read(path: str) -> bytes | None:
    """A file's bytes, None where there is none. A store that does not answer is no absence: raises StoreError."""
    try:
        return storage.read_bytes(path)
    except OSError:
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
    """The keys of the tar's files, in its order. Raises OSError."""
    with storage.open_read(path) as stream:
        entries = members(stream, lambda name: 0)
        names = [entry.name for entry in entries if isinstance(entry, Member) and entry.kind == "file"]
    return list(dict.fromkeys(filter(None, (split_name(name)[0] for name in names))))


def expected_failures(path: str, status: str = "lost", error: str = "") -> list[Failure]:
    """A Failure for every sample that should be in a tar which cannot be read at all."""
    keys = expected_keys(path)
    if isinstance(keys, dict):
        return [Failure(key, uid, status, error) for key, uid in keys.items()]
    return [Failure("", "", status, error) for _ in range(keys or 0)]
