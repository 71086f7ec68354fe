"""Lint a pool before a GPU is paid for: headers, json and captions are read, of images the first bytes.

    report = combine([inspect_shard(path) for path in expand("pool/")])
    print("\\n".join(report.lines()))

A finding is an error (data is lost, or will be), a warning (samples are set aside) or a note.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from . import storage
from .expected import MOST, beside, parquet_keys, stated_count
from .fields import RESHARDED, ReadOptions
from .findings import ASIDE, Finding, PoolReport, total, worst_first
from .images import DecodeError, image_ending, probe
from .records import Failure, Sample
from .samples import read_samples
from .text import cut
from .uids import DTYPE, format_uids, parse_uids

DROPPED = "open_clip drops such samples without a word; here they are set aside with this status"
RESTORE = "fetch or download the shard again"
# status of a failed sample, a damage of the file, or a thing counted in passing -> severity, what to do
KNOWN = {
    "empty": ("error", RESTORE),
    "unreadable": ("error", RESTORE),
    "not_a_tar": ("error", RESTORE),
    "truncated": ("error", RESTORE),
    "corrupt_header": ("error", RESTORE),
    "lost": ("error", "the parquet or the stats tell of samples that the tar lacks; " + RESTORE),
    "trailing_garbage": ("warning", "see what wrote it; samples may have been there"),
    "zero_blocks": ("warning", "tools that stop at an end mark see only what is before it"),
    "no_end": ("warning", "it may have been cut between two members; compare it with its origin"),
    "missing_image": ("warning", DROPPED),
    "missing_text": ("warning", DROPPED),
    "uid_derived": ("note", "the json states none: it is made of shard and key (--uids, --pool-id)"),
    "uid_hashed": ("note", "the json states another identifier than 32 hex digits: its hash is the uid"),
    "uid_repeated": ("warning", "only the first of each is used"),
    "copies": ("note", "a resharded pool with repeats: good to train on; only the first of each is filtered"),
    "uid_uppercase": ("note", "they are read in lower case"),
    "member_twice": ("warning", "the first one is used; webdataset stops here with an error"),
    "image_twice": ("note", "the first of jpg, png, jpeg, webp is used"),
    "member_pickled": ("warning", "webdataset un-pickles such, which runs what is in them; it is not done here"),
    "member_sparse": ("warning", "pack the shard again without --sparse"),
    "member_continued": ("warning", "join the volumes into one tar first"),
    "member_link": ("warning", "symbolic links, and hard links to files outside the tar, are never followed"),
    "member_other": ("warning", "devices, fifos and entries of single vendors' types (A to Z) are passed over"),
    "member_unknown_type": ("warning", "they are read as regular files, as POSIX has it; see what wrote the tar"),
    "member_without_key": ("note", "a file name that begins with a dot, or has no extension, belongs to no sample"),
    "no_samples": ("warning", "fetch the shard again, or leave it out where its download came to nothing"),
    "parquet_of_other_keys": ("warning", "its keys are not the tar's: is it another shard's?"),
}


NOT_HELD = {"lost", "key_repeated", "missing_image", "image_empty"}  # statuses without an image of the sample's own


@dataclass
class ShardFindings:
    """One shard's share of a PoolReport; `uids` (n,) DTYPE are those of its well samples.

    `held` are samples whose image is in the tar, valid or not.
    """

    path: str
    bytes: int
    samples: int
    failed: dict[str, int]
    uids: np.ndarray
    findings: list[Finding] = field(default_factory=list)
    held: int = 0


def inspect_shard(path: str, read: ReadOptions = ReadOptions()) -> ShardFindings:
    """Lint the tar at `path` and the files beside it. Never raises on content."""
    notes: Counter[str] = Counter()
    failures: list[Failure] = []
    uids: list[str] = []
    for sample in read_samples(path, read, notes, want_images=False):
        failure = sample if isinstance(sample, Failure) else _of_format(sample, read)
        if failure is not None:
            failures.append(failure)
        elif isinstance(sample, Sample):
            uids.append(sample.uid)
            notes.update(sample.notes)
    size = storage.size(path) if storage.exists(path) else 0
    failed = Counter(failure.status for failure in failures)
    found = _of_samples(storage.stem(path), failures) + _of_notes(storage.stem(path), notes, failed)
    told = len(uids) + sum(_told(failure) for failure in failures)
    held = len(uids) + sum(bool(f.key) and f.status not in NOT_HELD for f in failures)
    found += _of_sidecars(path, told)
    return ShardFindings(path, size, len(uids), dict(failed), parse_uids(uids), found, held)


def _of_format(sample: Sample, read: ReadOptions) -> Failure | None:
    """A failure where an image's first bytes tell that a run decodes none of its format."""
    head, avif = sample.image, read.limits.avif
    ending = image_ending(head)
    if (ending and (avif or ending != "avif")) or head.startswith((b"II", b"MM")) or (avif and head[4:8] == b"ftyp"):
        return None  # decoded, or a form of TIFF or AVIF that more than these bytes tell
    try:
        probe(head, read.limits)
    except DecodeError as error:
        if error.status in ("format_not_allowed", "not_an_image"):
            return Failure(sample.key, sample.uid, error.status, error.error)
    return None


def _told(failure: Failure) -> bool:
    """Whether a failure stands for one sample that the sidecars may tell of."""
    return failure.status == "lost" or (bool(failure.key) and failure.status != "key_repeated")


def _of_samples(stem: str, failures: list[Failure]) -> list[Finding]:
    """Failed samples by status, with the first one's reason."""
    groups: dict[str, list[Failure]] = defaultdict(list)
    for failure in failures:
        copy = failure.status == "uid_repeated" and RESHARDED.fullmatch(failure.key.rsplit("/", 1)[-1])
        groups["copies" if copy else failure.status].append(failure)
    found = []
    for status, group in groups.items():
        severity, todo = KNOWN.get(status, ("warning", ASIDE))
        first = group[0]
        error = first.error
        if status == "not_a_tar":  # it says itself what to do
            error, _, cure = error.partition("; ")
            todo = cure or todo
        text = f"{_samples(len(group))}: {error}" + (f" ({cut(first.key)})" if first.key else "")
        found.append(Finding(severity, status, stem, len(group), text, todo))
    return found


def _of_notes(stem: str, notes: Counter[str], failed: Counter[str]) -> list[Finding]:
    """What happened to the file; damage that failed samples already tell of is not told twice."""
    found = []
    for note, count in notes.items():
        told = note in failed or (note == "not_a_tar" and "lost" in failed)
        if note in KNOWN and not told:
            severity, todo = KNOWN[note]
            found.append(Finding(severity, note, stem, count, f"{count} x {note.replace('_', ' ')}", todo))
    return found


def _samples(count: int) -> str:
    return f"{count:,} sample{'s' * (count != 1)}"


def _of_sidecars(path: str, told: int) -> list[Finding]:
    """Stats and parquet beside a tar with `told` samples: well, failed, or already told to be lost."""
    stem, base = storage.stem(path), beside(path)
    found = []
    if not storage.exists(f"{base}_stats.json"):
        todo = "it is written last: the download may not have finished. Download the shard again"
        found.append(Finding("warning", "no_stats", stem, 1, f"no {stem}_stats.json", todo))
    elif (stated := stated_count(path, wanted=True)) is None:
        text = f"{stem}_stats.json cannot be read, or states no `successes` from 0 to {MOST:,}"
        found.append(Finding("warning", "stats_unreadable", stem, 1, text, "it counts as absent; " + RESTORE))
    elif stated != told:
        text = f"{stem}_stats.json tells of {stated} samples; there are {told}"
        todo = "tools that count by the stats go wrong; " + RESTORE
        found.append(Finding("error", "stats_unlike_tar", stem, 1, text, todo))
    if not storage.exists(f"{base}.parquet"):
        todo = "only needed to say which samples are lost when the tar is damaged"
        found.append(Finding("note", "no_parquet", stem, 1, f"no {stem}.parquet", todo))
    elif (keys := parquet_keys(path, wanted=True)) is None:
        text = f"{stem}.parquet cannot be read, has no column of keys, or more than {MOST:,} rows"
        found.append(Finding("warning", "parquet_unreadable", stem, 1, text, RESTORE))
    elif len(keys) != told:
        text = f"{stem}.parquet tells of {len(keys)} samples; there are {told}"
        found.append(Finding("error", "parquet_unlike_tar", stem, 1, text, "joins by row go wrong; " + RESTORE))
    return found


def combine(shards: Sequence[ShardFindings]) -> PoolReport:
    """The pool's report: its shards' findings, and what only shows when they stand side by side."""
    paths = [shard.path for shard in shards]
    found = [finding for shard in shards for finding in shard.findings]
    if all(any(finding.what == "no_stats" for finding in shard.findings) for shard in shards):
        found = [finding for finding in found if finding.what not in ("no_stats", "no_parquet")]  # not img2dataset's
    found += _gaps(paths) + _namesakes(paths) + _repeats(shards)
    for folder in sorted({path.rpartition("/")[0] for path in paths}):
        found += _strays(folder)
    samples, size = sum(s.samples for s in shards), sum(s.bytes for s in shards)
    held = sum(s.held for s in shards)
    return PoolReport(len(shards), samples, total(s.failed for s in shards), size, worst_first(found), held=held)


def _gaps(paths: list[str]) -> list[Finding]:
    """Numbers that no shard has, between those that shards have."""
    stems = {int(stem): stem for stem in map(storage.stem, paths) if stem.isascii() and stem.isdigit()}
    if not stems:
        return []
    width = len(stems[max(stems)])
    found = []
    if absent := max(stems) - min(stems) + 1 - len(stems):
        first = islice((n for n in range(min(stems), max(stems)) if n not in stems), 5)
        names = ", ".join(f"{n:0{width}d}" for n in first) + (", ..." if absent > 5 else "")
        text = f"{absent} shard numbers are missing between {stems[min(stems)]} and {stems[max(stems)]}: {names}"
        found.append(Finding("error", "gap", "", absent, text, "fetch them, or say which shards are meant"))
    if min(stems) > 0:
        text = f"the first shard is {stems[min(stems)]}"
        found.append(Finding("note", "starts_late", "", 1, text, "right if only a part of the pool is meant"))
    return found


def _namesakes(paths: list[str]) -> list[Finding]:
    counts = Counter(map(storage.stem, paths))
    todo = "a shard's files are named after it: give such shards other names, or run them apart"
    return [
        Finding("error", "same_name", stem, count, f"{count} shards are called {stem}", todo)
        for stem, count in counts.items()
        if count > 1
    ]


def _repeats(shards: Sequence[ShardFindings]) -> list[Finding]:
    """uids that well samples of two shards share; within a shard they are failures already."""
    uids = np.concatenate([np.empty(0, DTYPE), *(shard.uids for shard in shards)])
    uids = uids[np.lexsort((uids["f1"], uids["f0"]))]
    again = uids[1:][uids[1:] == uids[:-1]]
    if not len(again):
        return []
    text = f"{_samples(len(again))} with a uid of an earlier shard: {', '.join(format_uids(again[:3]))}"
    todo = "a subset names samples by uid: all that share one are kept or dropped together, and the first is resharded"
    return [Finding("warning", "uid_in_two_shards", "", len(again), text, todo)]


def _strays(folder: str) -> list[Finding]:
    """Files in the pool's folder that belong to no shard."""
    names = {path.rpartition("/")[2] for path in storage.list_files(folder)}
    found = []
    for name in sorted(names):
        match = re.fullmatch(r"(.+)(_stats\.json|\.parquet)", name)
        if match and match[1].isdigit() and not {f"{match[1]}.tar", f"{match[1]}.TAR"} & names:
            found.append(Finding("error", "no_tar", match[1], 1, f"{name} is there and {match[1]}.tar is not", RESTORE))
    strays = sorted(n for n in names if n.endswith(".json") and not n.endswith("_stats.json"))
    if strays and "reshard.plan" not in names:
        text = f"{', '.join(strays[:5])} in {folder or '.'}"
        todo = "img2dataset's incremental mode takes every json for stats and stops; keep such files elsewhere"
        found.append(Finding("warning", "stray_json", "", len(strays), text, todo))
    return found
