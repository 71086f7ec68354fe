"""What goes into which output shard: decided whole, from the pool's indexes, before a byte is written."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from . import storage
from .derived import SAME_UIDS
from .errors import DataError
from .faces import Boxes
from .fields import ReadOptions
from .outgoing import PNG
from .parts import read_part
from .shard_index import COPIED, MEMBER, ShardIndex
from .subset import Subset
from .tar import END, header
from .tar_source import BLOCK
from .uids import DTYPE

NAMED = 5  # uids named in an error


@dataclass(frozen=True)
class ReshardOptions:
    """Limits of an output shard, in samples and in bytes of the tar (DataComp's by default).

    `allow_missing` goes on, with a count, when uids of the subset are not in the pool. `blur_faces` blurs
    them by the json's `face_bboxes`. `members` are extensions that are copied beside what trainers read.
    """

    max_samples: int = 10_000
    max_bytes: int = 3_000_000_000
    allow_missing: bool = False
    blur_faces: bool = False
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A tar that is copied from, and what it must still be when that happens."""

    path: str
    identity: dict[str, int | str] | None


@dataclass(frozen=True)
class OutputShard:
    """One tar to write; small enough to send to a worker.

    Row i, of k, is the copy `copy[i]` of `uids[i]`, with the members `members[first[i]:first[i+1]]`
    of `sources[source[i]]`. `boxes` maps the position of a member that is to be blurred to its faces.
    """

    name: str
    plan: str  # the whole plan's fingerprint
    sources: tuple[Source, ...]
    source: np.ndarray  # (k,) int64
    uids: np.ndarray  # (k,) DTYPE
    copy: np.ndarray  # (k,) int64
    first: np.ndarray  # (k + 1,) int64
    members: np.ndarray  # (m,) MEMBER
    extensions: tuple[str, ...]
    boxes: dict[int, Boxes] = field(default_factory=dict)
    read: ReadOptions = ReadOptions()

    def __len__(self) -> int:
        return len(self.uids)

    @property
    def encoded(self) -> int:
        """Images that are encoded as PNG, of a format that trainers do not read."""
        return int((self.members["change"] == PNG).sum())

    @property
    def blurred(self) -> int:
        """Samples with a blurred image."""
        return len(np.unique(np.searchsorted(self.first, sorted(self.boxes), "right")))


@dataclass(frozen=True)
class Plan:
    """`parts` says what the plan was made from; `repeated` counts uids that the pool holds more than once."""

    shards: list[OutputShard]
    parts: dict[str, Any]
    subset: Subset
    processed: int
    missing: int
    repeated: int

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.parts)


def fingerprint(parts: dict[str, Any]) -> str:
    """sha256 of the canonical json of `parts`."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def plan_output(indexes: Sequence[ShardIndex], subset: Subset, options: ReshardOptions = ReshardOptions()) -> Plan:
    """Lay the subset's samples out in output shards, in the pool's order, copies of a uid side by side.

    Of a uid that the pool holds twice the first copy is taken. Raises DataError when a uid is not in
    the pool, or only in samples that failed, unless `options.allow_missing`.
    """
    rows = _Rows(indexes)
    picked, again = _first_of_each(rows.uids, subset)
    missing = subset.unique() - Subset(rows.uids[picked])
    if len(missing) and not options.allow_missing:
        raise DataError(_missing_error(missing, subset, indexes))
    copies = subset.counts(rows.uids[picked])
    row = np.repeat(picked, copies)
    copy = np.arange(len(row)) - np.repeat(np.cumsum(copies) - copies, copies)
    parts = _parts(indexes, subset, options, rows, row)
    whole = fingerprint(parts)
    cuts = _cuts(rows.tar_bytes()[row], options)
    shards = [rows.shard(f"{n:08d}", whole, row[a:b], copy[a:b]) for n, (a, b) in enumerate(cuts)]
    processed, repeated = sum(index.read for index in indexes), _repeated(again, indexes, subset)
    return Plan(shards, parts, subset, processed, len(missing), repeated)


class _Rows:
    """Every indexed sample of the pool, as one table in the pool's order."""

    def __init__(self, indexes: Sequence[ShardIndex]) -> None:
        self.indexes = indexes
        self.read = indexes[0].read_as if indexes else ReadOptions()
        self.extensions = tuple(sorted({extension for index in indexes for extension in index.extensions}))
        self.uids = _concat([index.uids for index in indexes], DTYPE)
        self.source = np.repeat(np.arange(len(indexes)), [len(index.uids) for index in indexes])
        self.count = _concat([np.diff(index.first) for index in indexes], np.dtype(np.int64))
        self.first = np.cumsum(self.count) - self.count
        self.members = _concat([index.members for index in indexes], MEMBER)
        if len(self.members):
            self.members["extension"] = np.concatenate([self._codes(index) for index in indexes])
        starts = np.cumsum([0, *(len(index.members) for index in indexes)]).tolist()
        self.boxes = {
            at + i: boxes for at, index in zip(starts, indexes, strict=False) for i, boxes in index.boxes.items()
        }

    def _codes(self, index: ShardIndex) -> np.ndarray:
        table = np.array([self.extensions.index(extension) for extension in index.extensions], np.uint16)
        return table[index.members["extension"]]

    def tar_bytes(self) -> np.ndarray:
        """(n,) int64: what each sample takes in an output tar, headers and padding included."""
        headers = np.array([len(header(f"{'0' * 40}.{extension}", 0)) for extension in self.extensions], np.int64)
        if not len(self.members):
            return np.zeros(len(self.uids), np.int64)
        each = headers[self.members["extension"]] + -(-self.members["written"] // BLOCK) * BLOCK
        total = np.concatenate([[0], np.cumsum(each)])
        return total[self.first + self.count] - total[self.first]

    def members_of(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(`first` (k + 1,), positions in `members`) of the samples `row` (k,)."""
        count = self.count[row]
        first = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        within = np.arange(first[-1]) - np.repeat(first[:-1], count)
        return first, np.repeat(self.first[row], count) + within

    def shard(self, name: str, plan: str, row: np.ndarray, copy: np.ndarray) -> OutputShard:
        used, source = np.unique(self.source[row], return_inverse=True)
        sources = tuple(Source(self.indexes[i].path, self.indexes[i].identity) for i in used)
        first, at = self.members_of(row)
        boxes = {i: self.boxes[m] for i, m in enumerate(at.tolist()) if m in self.boxes} if self.boxes else {}
        of = (self.uids[row], copy, first, self.members[at], self.extensions, boxes, self.read)
        return OutputShard(name, plan, sources, source, *of)


def _concat(arrays: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate([np.empty(0, dtype), *arrays])


def _first_of_each(uids: np.ndarray, subset: Subset) -> tuple[np.ndarray, np.ndarray]:
    """(rows of the first sample of every wanted uid, in order; the wanted uids of more than one well sample)."""
    wanted = np.flatnonzero(subset.contains(uids))
    order = np.lexsort((uids["f1"][wanted], uids["f0"][wanted]))  # stable: among equals the first comes first
    found = uids[wanted][order]
    new = np.ones(len(found), bool)
    new[1:] = found[1:] != found[:-1]
    again = np.diff(np.append(np.flatnonzero(new), len(found))) > 1
    return np.sort(wanted[order[new]]), found[new][again]


def _repeated(again: np.ndarray, indexes: Sequence[ShardIndex], subset: Subset) -> int:
    """How many wanted uids the pool holds more than once: across shards (`again`), and within one, where they fail."""
    within = Subset.from_uids([f.uid for i in indexes for f in i.failures if f.status == "uid_repeated" and f.uid])
    held = within.unique().uids
    return len((Subset(again) | Subset(held[subset.contains(held)])).unique())


def _cuts(sizes: np.ndarray, options: ReshardOptions) -> Iterator[tuple[int, int]]:
    """Row ranges, each as long as the limits allow; a sample over the limit stands alone."""
    total = np.concatenate([[0], np.cumsum(sizes)])
    start = 0
    while start < len(sizes):
        fits = int(np.searchsorted(total, total[start] + options.max_bytes - len(END), "right")) - 1
        stop = max(start + 1, min(start + options.max_samples, fits))
        yield start, stop
        start = stop


def _parts(
    indexes: Sequence[ShardIndex], subset: Subset, options: ReshardOptions, rows: _Rows, row: np.ndarray
) -> dict[str, Any]:
    """What the output depends on, each part small or hashed, so that a difference can be told."""
    first, at = rows.members_of(row)
    layout = hashlib.sha256(json.dumps(rows.extensions).encode())
    members = rows.members[at]
    copied = np.empty(len(members), COPIED)  # without what was added later, so that older folders are gone on with
    for name, _ in COPIED:
        copied[name] = members[name]
    for array in (rows.uids[row], first, copied, members["change"] if members["change"].any() else copied[:0]):
        layout.update(np.ascontiguousarray(array).tobytes())
    return {**request([index.path for index in indexes], subset, options, rows.read), "layout": layout.hexdigest()}


def request(
    paths: Sequence[str], subset: Subset, options: ReshardOptions, read: ReadOptions = ReadOptions()
) -> dict[str, Any]:
    """What was asked for: the pool's tars with their identities, the subset, the limits, how samples are read."""
    return {
        "pool": [[storage.stem(path), storage.identity_or_none(path)] for path in paths],
        "subset": {"uids": len(subset), "sha256": subset.digest},
        "options": json.loads(json.dumps(asdict(options))),
        "read": json.loads(json.dumps(read_part(read))),
    }


def _missing_error(missing: Subset, subset: Subset, indexes: Sequence[ShardIndex]) -> str:
    """Which uids, how many, why as far as it is known, and what to do."""
    named = missing.strings()[:NAMED]
    more = ", ..." if len(missing) > NAMED else ""
    message = f"{len(missing)} of {len(subset.unique())} wanted uids are not in the pool: {', '.join(named)}{more}."
    known = set(missing.strings())
    failed = [(i.path, failure) for i in indexes for failure in i.failures if failure.uid in known]
    if failed:
        count = len({failure.uid for _, failure in failed})
        some = "; ".join(f"{f.uid} in {path}: {f.status}, {f.error}" for path, f in failed[:3])
        message += f" {count} of them belong to samples that failed: {some}."
    nameless = [i.path for i in indexes if i.identity is not None and any(not f.uid for f in i.failures)]
    if nameless:
        some = f"{', '.join(nameless[:3])}{', ...' if len(nameless) > 3 else ''}"
        message += f" {len(nameless)} damaged shards have samples whose uids cannot be read, maybe these: {some}."
    if len(missing) == len(subset.unique()):
        message += f" None is: is this the subset's pool? {SAME_UIDS}."
    absent = [index.path for index in indexes if index.identity is None]
    if absent:
        message += f" Shards that cannot be found: {', '.join(absent[:3])}{', ...' if len(absent) > 3 else ''}."
    return message + " Restore them (`mmfilter inspect` names gaps), or pass --allow-missing to go on without them"
