"""Parts of an index: trained once, filled side by side, merged in order, so that the bytes are always the same."""

import errno
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfilter import storage
from mmfilter.errors import DataError, cannot_write

from .nearest import BLOCK, best, merge
from .vectors import Vectors

PART = 250_000  # rows: with 512 dimensions some 30 MB of codes
INDEX = "knn.faiss"
LISTS = "lists.bin"  # the inverted lists of an index that does not fit in memory
ID_BYTES = 8  # of a row, beside its code
TOP = 11  # of a query: itself, when it is in the pool, and ten more


@dataclass(frozen=True)
class Part:
    """The shards `first` to `last` (not included) of `vectors`, for the index trained in `folder`."""

    folder: str
    number: int
    vectors: Vectors
    first: int
    last: int
    queries: np.ndarray  # float32 (q, d) unit rows, whose nearest are found exactly on the way

    @property
    def path(self) -> str:
        return os.path.join(self.folder, f"part-{self.number:05d}")


def cut(folder: str, vectors: Vectors, first: int, queries: np.ndarray) -> list[Part]:
    """Parts of about `PART` rows of the shards from `first` on: they hang on the pool, not on the workers."""
    parts: list[Part] = []
    start = first
    for i in range(first, len(vectors.stems)):
        if vectors.starts[i + 1] - vectors.starts[start] >= PART or i + 1 == len(vectors.stems):
            parts.append(Part(folder, len(parts), vectors, start, i + 1, queries))
            start = i + 1
    return parts


def fill(part: Part) -> None:
    """Write part-N.faiss and, last, part-N.npz; nothing when both are there."""
    import faiss

    if all(os.path.exists(f"{part.path}.{ending}") for ending in ("faiss", "npz")):
        return
    of: Any = faiss  # whose stubs do not know its Python wrappers
    index = faiss.read_index(os.path.join(part.folder, "trained.faiss"))
    starts = part.vectors.starts
    nearest, left_out = [], 0
    for at, rows in part.vectors.blocks(BLOCK, int(starts[part.first]), int(starts[part.last])):
        positions = np.arange(at, at + len(rows))
        good = rows.any(axis=1)
        left_out += int((~good).sum())
        index.add_with_ids(np.ascontiguousarray(rows[good]), positions[good])
        if len(part.queries) and good.any():
            near, found = of.knn(part.queries, rows[good], min(TOP, int(good.sum())), faiss.METRIC_INNER_PRODUCT)
            nearest.append((positions[good][found], near))
    found, similarity = merge(nearest, TOP) if nearest else best(np.empty((len(part.queries), 0)), np.empty(0), TOP)
    write_index(index, f"{part.path}.faiss")
    with storage.open_atomic(f"{part.path}.npz") as stream:
        np.savez(stream, allow_pickle=False, positions=found, similarity=similarity, left_out=left_out)


def exact(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(positions (q, TOP), similarity (q, TOP)): the queries' neighbours among the rows of a part that is filled."""
    found = _filled(part)
    return found["positions"], found["similarity"]


def skipped(part: Part) -> int:
    """How many of its rows have no direction and are not in the index."""
    return int(_filled(part)["left_out"])


def _filled(part: Part) -> dict[str, np.ndarray]:
    path = f"{part.path}.npz"
    try:
        with storage.open_read(path) as stream, np.load(stream, allow_pickle=False) as npz:
            return {name: npz[name] for name in ("positions", "similarity", "left_out")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{path}: is damaged ({error}); delete {part.folder} and run `mmfilter index` again") from error


def join(trained: str, paths: list[str], lists_file: str = "") -> Any:
    """The index trained at `trained` with those at `paths` merged into it, in order.

    With `lists_file` the inverted lists are written there, and never held in memory. Raises MMFilterError where
    the disk has no room for them: they are written through a map of the file, which would end the process.
    """
    import faiss

    of: Any = faiss  # whose stubs do not know all of it
    whole: Any = faiss.read_index(trained)
    if not lists_file:
        for path in paths:
            whole.merge_from(faiss.read_index(path), 0)
        return whole
    parts: list[Any] = [read_mapped(path) for path in paths]
    rows = sum(part.ntotal for part in parts)
    if shutil.disk_usage(os.path.dirname(lists_file)).free < rows * (whole.code_size + ID_BYTES):
        raise cannot_write(lists_file, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    with quiet():
        lists: Any = faiss.OnDiskInvertedLists(whole.nlist, whole.code_size, lists_file)
        every = of.InvertedListsPtrVector()
        for part in parts:
            every.push_back(part.invlists)
        whole.ntotal = lists.merge_from_multiple(every.data(), every.size())
    whole.replace_invlists(lists, True)
    lists.this.disown()  # the index frees it
    return whole


def read_mapped(path: str) -> Any:
    """An index whose inverted lists stay on disk: in a file beside it, or in its own."""
    import faiss

    folder, name = os.path.split(path)
    beside = name == INDEX and os.path.exists(os.path.join(folder, LISTS))
    flags = (
        faiss.IO_FLAG_ONDISK_SAME_DIR | faiss.IO_FLAG_READ_ONLY if beside else faiss.IO_FLAG_MMAP
    )  # both: it crashes
    with quiet():
        return faiss.read_index(path, flags)


@contextmanager
def quiet() -> Iterator[None]:
    """FAISS tells of files it maps on standard output, where results go: not here."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def write_index(index: Any, path: str) -> None:
    """faiss.write_index, atomically. Raises MMFilterError where the disk is full.

    Through a Python stream: FAISS's own does not tell when its last bytes could not be written.
    """
    import faiss

    of: Any = faiss  # whose stubs do not know its callbacks
    with storage.open_atomic(path) as stream:
        of.write_index(index, of.PyCallbackIOWriter(stream.write))


def check_local(out: str) -> None:
    """FAISS reads and writes files. Raises DataError for a URL."""
    if storage.is_remote(out):
        raise DataError(f"{out}: an index is built and read on a local or shared disk; copy OUT/metadata there")
