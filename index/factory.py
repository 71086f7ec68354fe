"""Which FAISS index a pool gets: by its rows, their dimension, and the memory there is."""

import os
import re
from dataclasses import dataclass

from mmfilter.errors import UsageError

FEW = 20_000  # rows; up to here every row is looked at: 20,000 x 512 float32 are 40 MB and some 5 ms
POINTS = 64  # training rows an inverted list; FAISS asks for 39 to 256
GRAPH = 16_384  # lists; past it the nearest are found over a graph of centroids
SHARE = 0.5  # of the memory: parts and the merged index are held at the same time
KINDS = re.compile(r"IVF(\d+)(_HNSW\d+)?,(Flat|SQ8|SQfp16|PQ\d+(x[48])?)")


@dataclass(frozen=True)
class Factory:
    """`text` is FAISS's factory string, `lists` its inverted lists, `row_bytes` what it holds of each row."""

    text: str
    lists: int
    row_bytes: int
    on_disk: bool = False

    @property
    def training(self) -> int:
        """Rows to train on."""
        return POINTS * max(self.lists, 256)

    @property
    def lossy(self) -> bool:
        """Whether its similarities are approximate, so that candidates are ranked again."""
        return ",PQ" in self.text or ",SQ8" in self.text


def choose(rows: int, dim: int, memory: float) -> Factory:
    """The index for `rows` x `dim` within `memory` bytes. Every one of them takes selectors and can be merged.

    Few rows: all are looked at. Then 2 sqrt(n) inverted lists of 4-bit product codes, two dimensions each, which
    FAISS scans in registers (André, Kermarrec, Le Scouarnec 2017, arXiv 1704.07355) and whose best are ranked
    again by the stored embeddings. They lie on disk as plain codes, since merging those of the other layout writes
    past their end (FAISS 1.15.1). Where those do not fit: codes of a quarter the size, lists mapped from disk.
    """
    if rows <= FEW:
        return _checked("IVF1,Flat", dim)
    lists = max(16, round(2 * rows**0.5 / 8) * 8)
    head = f"IVF{lists}{'_HNSW32' if lists > GRAPH else ''}"
    fast = _checked(f"{head},PQ{dim // 2}x4" if dim % 2 == 0 else f"{head},SQ8", dim)
    if rows * fast.row_bytes <= memory * SHARE:
        return fast
    size = next(size for size in (8, 4, 2, 1) if dim % size == 0)
    return _checked(f"{head},PQ{dim // size}" if size > 1 else f"{head},SQ8", dim, on_disk=True)


def given(text: str, rows: int, dim: int, memory: float) -> Factory:
    """The factory string a user gave. Raises UsageError for a kind that cannot be merged and selected from."""
    asked = _checked(text, dim)
    if asked.lists > max(rows, 1):
        raise UsageError(f"--factory {text}: {asked.lists:,} lists for {rows:,} rows; give fewer lists than rows")
    if rows * asked.row_bytes > memory * SHARE:
        return Factory(text, asked.lists, asked.row_bytes, on_disk=True)
    return asked


def _checked(text: str, dim: int, on_disk: bool = False) -> Factory:
    match = KINDS.fullmatch(text)
    if not match:
        raise UsageError(f"--factory {text}: give IVF<lists>, then Flat, SQfp16, SQ8, PQ<parts> or PQ<parts>x4")
    code = match[3]
    if code.startswith("PQ"):
        parts, _, bits = code[2:].partition("x")
        width = int(bits or 8)
        if not int(parts) or dim % int(parts):
            raise UsageError(f"--factory {text}: {dim} dimensions do not part into {parts} equal ones")
        size = -(-int(parts) * width // 8)
    else:
        size = dim * {"Flat": 4, "SQfp16": 2, "SQ8": 1}[code]
    return Factory(text, int(match[1]), size + 8, on_disk)


def memory_here() -> int:
    """Bytes of memory that this machine has free now."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
