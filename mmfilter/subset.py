"""A subset of a pool: uids, in DataComp's file format, with the algebra of multisets."""

import hashlib
import io
import math
import re
from typing import Any

import numpy as np

from . import storage
from .errors import DataError, UsageError
from .file_record import Recording
from .hints import nearest_beside
from .subset_file import read_subset_bytes
from .uids import DTYPE, format_uids, parse_uids

MAGIC = b"\x93NUMPY"
NAME = re.compile(r"[\w-]+", re.ASCII)


class Subset:
    """Sorted uids; one that stands n times means that its sample is repeated n times.

    `&` takes the smaller of two counts, `|` the larger, `-` their difference: for subsets without
    repeats these are intersection, union and difference. `+` adds two counts up, `* n` multiplies them.
    """

    def __init__(self, uids: np.ndarray) -> None:
        """`uids` (n,) of DTYPE, in any order; they are sorted."""
        self.uids = uids[sort_order(uids)] if len(uids) else np.empty(0, DTYPE)

    @classmethod
    def from_uids(cls, uids: Any) -> "Subset":
        """From hex strings (list, arrow or polars). Raises DataError."""
        return cls(parse_uids(uids))

    @classmethod
    def read(cls, path: str) -> "Subset":
        """A `.npy` or a raw memmap of sorted `u8,u8`, which must be the file that a record beside it tells of.

        Raises DataError on anything else; never un-pickles.
        """
        try:
            data = read_subset_bytes(path)
        except FileNotFoundError as error:
            hint = nearest_beside(path, ending=".npy")
            raise UsageError(f"{path}: does not exist{hint} Give a subset's .npy file") from error
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error}); give a subset's .npy file") from error
        return cls(check(load(data, path), path))

    def write(self, path: str) -> dict[str, Any]:
        """numpy.save of the sorted uids, atomically; returns the file's record."""
        with storage.open_atomic(path) as stream:
            recording = Recording(stream)
            np.save(recording, self.uids, allow_pickle=False)
        return recording.record

    @property
    def digest(self) -> str:
        """The sha256 of its uids, repeats included: the same of equal subsets, in whatever file they are."""
        return hashlib.sha256(self.uids.tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self.uids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Subset) and np.array_equal(self.uids, other.uids)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Subset({len(self):,} uids)"

    def __and__(self, other: "Subset") -> "Subset":
        return self._combine(other, np.minimum)

    def __or__(self, other: "Subset") -> "Subset":
        return self._combine(other, np.maximum)

    def __sub__(self, other: "Subset") -> "Subset":
        return self._combine(other, lambda a, b: np.maximum(a - b, 0))

    def __add__(self, other: "Subset") -> "Subset":
        return Subset(np.concatenate([self.uids, other.uids]))

    def __mul__(self, times: int) -> "Subset":
        return Subset(np.repeat(self.uids, times))

    def unique(self) -> "Subset":
        """Each uid once."""
        return Subset(runs(self.uids)[0])

    def strings(self) -> list[str]:
        """The uids as hex."""
        return format_uids(self.uids)

    def counts(self, uids: np.ndarray) -> np.ndarray:
        """(n,) int64: how often each of `uids` (n,) DTYPE stands in the subset."""
        return search_sorted(self.uids, uids, right=True) - search_sorted(self.uids, uids)

    def contains(self, uids: np.ndarray) -> np.ndarray:
        """(n,) bool."""
        return self.counts(uids) > 0

    def _combine(self, other: "Subset", merge: Any) -> "Subset":
        uids = runs(Subset(np.concatenate([self.uids, other.uids])).uids)[0]
        return Subset(np.repeat(uids, merge(self.counts(uids), other.counts(uids))))


def sort_order(uids: np.ndarray) -> np.ndarray:
    """Positions that put (n,) DTYPE in order; a structured sort would compare field by field in Python's pace."""
    order = np.argsort(uids["f0"])
    hi = uids["f0"][order]
    if (hi[1:] == hi[:-1]).any():
        order = np.lexsort((uids["f1"], uids["f0"]))
    return order


def later_repeats(hi: np.ndarray, lo: np.ndarray) -> np.ndarray:
    """Ascending positions of the uids (halves, each (n,) uint64) that stood at a smaller position before."""
    ordered = np.sort(hi)
    if not (ordered[1:] == ordered[:-1]).any():  # nearly always; far cheaper than an order of both halves
        return np.empty(0, np.int64)
    order = np.lexsort((lo, hi))  # stable: a uid's first position comes first
    same = (hi[order[1:]] == hi[order[:-1]]) & (lo[order[1:]] == lo[order[:-1]])
    return np.sort(order[1:][same])


def runs(uids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(unique uids, where each one's run starts) of sorted uids."""
    if not len(uids):
        return uids, np.empty(0, np.int64)
    new = np.ones(len(uids), bool)
    new[1:] = uids[1:] != uids[:-1]
    return uids[new], np.flatnonzero(new)


def search_sorted(within: np.ndarray, uids: np.ndarray, right: bool = False) -> np.ndarray:
    """np.searchsorted of (n,) in sorted (m,), both DTYPE.

    By the first half, which nearly always decides; where several of `within` share it, by all 16 bytes.
    """
    hi, lo = (np.ascontiguousarray(within[half]) for half in ("f0", "f1"))
    if not len(hi):
        return np.zeros(len(uids), np.int64)
    order = np.argsort(uids["f0"])  # neighbours are then looked up one after the other: 3 x faster in all
    at = np.empty(len(uids), np.int64)
    at[order] = np.searchsorted(hi, uids["f0"][order])
    first = np.minimum(at, len(hi) - 1)
    same = (at < len(hi)) & (hi[first] == uids["f0"])
    several = np.flatnonzero(same & (at + 1 < len(hi)) & (hi[np.minimum(at + 1, len(hi) - 1)] == uids["f0"]))
    at += same & (lo[first] <= uids["f1"] if right else lo[first] < uids["f1"])
    if len(several):
        at[several] = np.searchsorted(_bytes(within), _bytes(uids[several]), "right" if right else "left")
    return at


def _bytes(uids: np.ndarray) -> np.ndarray:
    """(n,) of S16, big-endian; numpy compares these whole where it would compare a structure field by field."""
    return uids.astype([("f0", ">u8"), ("f1", ">u8")]).view("S16")


def load(data: bytes, path: str) -> np.ndarray:
    """The array in a subset file's bytes. Raises DataError."""
    if not data:
        raise DataError(f"{path}: is empty, which no subset is, not even one of no samples; write it again")
    if data.startswith(MAGIC):
        try:
            array = np.load(io.BytesIO(data), allow_pickle=False)
        except Exception as error:  # numpy's parser of headers raises whatever it pleases on hostile bytes
            raise DataError(f"{path}: not a subset ({error}); it must be a .npy of dtype u8,u8") from error
    elif not data:
        raise DataError(f"{path}: is empty, no bytes; a subset without uids is a .npy of shape (0,). Make it again")
    elif len(data) % DTYPE.itemsize == 0 and data.count(data[:1]) < len(data):
        array = np.frombuffer(data, DTYPE)
    else:
        raise DataError(f"{path}: not a subset: neither .npy nor raw pairs of uint64 ({len(data):,} bytes)")
    if array.ndim != 1 or array.dtype != DTYPE:
        raise DataError(f"{path}: dtype {array.dtype}, shape {array.shape}; a subset is one-dimensional, dtype u8,u8")
    return array


def check_name(name: str) -> None:
    """Raise UsageError for a name that cannot be a subset's: it becomes a file and a folder, so no '../metadata'."""
    if not NAME.fullmatch(name):
        raise UsageError(f"a subset's name is letters, digits, '-' and '_', not '{name}'; give another --name")


def check(uids: np.ndarray, path: str) -> np.ndarray:
    """Refuse an unsorted file: every tool that bisects it would silently miss samples."""
    hi, lo = uids["f0"], uids["f1"]
    falls = (hi[1:] < hi[:-1]) | ((hi[1:] == hi[:-1]) & (lo[1:] < lo[:-1]))
    if falls.any():
        at = int(np.flatnonzero(falls)[0]) + 1
        todo = f"Sort it once: `mmfilter subset {path} --sort --write sorted.npy`"
        raise DataError(f"{path}: not sorted (at row {at}). {todo}")
    return uids


def sample_share(uids: np.ndarray, seed: int) -> np.ndarray:
    """(n,) float64 in [0, 1): a hash of seed and uid, the same wherever the sample stands.

    splitmix64's finaliser (Steele, Lea, Flood 2014) over both halves.
    """
    with np.errstate(over="ignore"):
        mixed = _splitmix(uids["f0"] ^ _splitmix(np.uint64(seed % 2**64) + np.uint64(0x9E3779B97F4A7C15)))
        mixed = _splitmix(mixed ^ uids["f1"])
    return (mixed >> np.uint64(11)).astype(np.float64) * math.ldexp(1.0, -53)


def _splitmix(x: Any) -> Any:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
