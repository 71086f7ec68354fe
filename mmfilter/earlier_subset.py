"""The files of an earlier selection of the same name: which of them `select` removes, and what it never touches."""

from collections.abc import Collection

import pyarrow as pa
import pyarrow.parquet as pq

from . import storage
from .errors import ConflictError
from .own_files import check_replaceable, is_card, is_subset


def check_own(out: str, name: str, decisions: bool) -> None:
    """Raise ConflictError where OUT/subsets/NAME.npy is a file that no `select` wrote."""
    path = storage.join(out, "subsets", f"{name}.npy")
    check_replaceable(path, is_subset, "a subset")
    if not decisions or not storage.exists(path) or storage.exists(storage.join(out, "subsets", f"{name}.json")):
        return  # a killed selection leaves decisions, and without decisions a subset alone
    if not storage.isdir(storage.join(out, "subsets", name)):
        raise ConflictError(
            f"{path}: was not written by `mmfilter select`, as neither {name}.json nor decisions are beside it, and is "
            "not replaced; move it elsewhere, or give another --name"
        )


def remove_stale(out: str, name: str, written: Collection[str]) -> None:
    """Remove what an earlier selection left and this one does not write: the card, and decisions on shards other than
    `written`. A file that is no card and no decisions stays.
    """
    card = storage.join(out, "subsets", f"{name}.md")
    if storage.exists(card) and is_card(card, storage.read_bytes(card)):
        storage.remove(card)
    for path in storage.list_files(storage.join(out, "subsets", name), ".parquet"):
        if storage.stem(path) not in written and _is_decisions(path):
            storage.remove(path)


def _is_decisions(path: str) -> bool:
    try:
        with storage.open_read(path) as stream:
            return {"uid", "keep", "dropped_by"} <= set(pq.read_schema(stream).names)
    except (OSError, pa.ArrowException):
        return False
