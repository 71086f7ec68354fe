"""`mmfilter verify`: every file in a run's folder that is not what was written, and the bytes by kind of file."""

import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from . import storage
from .beside import RECORD
from .errors import MMFilterError
from .json_file import read_object
from .reshard_begun import read_plan
from .reshard_files import PLAN, verify_shards
from .run_pool import left_out
from .schedule import ENDING, load_schedule
from .shard_state import run_shards, set_aside
from .sidecar import metadata_path, read_commit
from .sources import find_stale
from .subset import Subset
from .table import open_table
from .verify_files import (
    COLUMN,
    RUN,
    SCHEDULE,
    SHARDS,
    Finding,
    attempt,
    check_beside,
    check_column,
    check_given_up,
    check_shard,
    check_subset,
)

THREADS = 8
Check = Callable[[], list[Finding]]

KINDS = {
    "run.json": "record of the run",
    "metadata": "score tables, embeddings and commits",
    "failures": "failed samples",
    "columns": "added columns",
    "subsets": "subsets and decisions",
    "shards": "new shards",
    "index": "kNN indices",
    "concepts": "clusters",
    "schedules": "schedules",
    "overlap": "overlap with other sets",
    "attempts": "failed attempts",
    "pieces": "pieces of shards at work",
}
"""The first name of a path below OUT -> what stands there."""


@dataclass
class Verification:
    """What was found. `sizes` are bytes by kind of file; `former` names what no checksum vouches for -> how many."""

    findings: list[Finding] = field(default_factory=list)
    sizes: Counter[str] = field(default_factory=Counter)
    files: int = 0
    former: Counter[str] = field(default_factory=Counter)


def checks(out: str, deep: bool) -> tuple[list[Check], Verification]:
    """The checks of all that OUT holds, apart from what the package `index` writes, and the sizes of its files.

    Raises UsageError where OUT is no run.
    """
    told, beside = Verification(), []
    for path, size in storage.sizes_below(out).items():
        relative = path.removeprefix(f"{out.rstrip('/')}/")
        told.sizes[KINDS.get(relative.split("/", 1)[0], "other files")] += size
        told.files += 1
        if path.endswith(RECORD) and not relative.startswith("shards/"):
            beside.append(path.removesuffix(RECORD))
    stems, given_up = _stems(out)
    if given_up:
        told.former["shards that were set aside"] += len(given_up)
    record = storage.join(out, "run.json")
    work: list[Check] = [partial(attempt, RUN, "run.json", record, partial(_read_run, record))]
    work += [partial(_checked_shard, out, stem, deep, told) for stem in stems]
    work += [partial(check_given_up, out, stem, deep) for stem in given_up]
    work += list(_column_checks(out, stems, deep))
    work += [partial(check_beside, out, path, deep) for path in beside]
    work += [partial(_check_new_shards, path, deep) for path in _new_shards(out)]
    subsets = storage.join(out, "subsets")
    names = {posixpath.splitext(name)[0] for name in storage.names(subsets) if name.endswith((".npy", ".json"))}
    work += [partial(check_subset, out, name, deep) for name in sorted(names)]
    for path in storage.list_files(storage.join(out, "schedules"), ENDING):
        name = posixpath.basename(path).removesuffix(ENDING)
        work.append(partial(attempt, SCHEDULE, name, path, partial(_read_schedule, path, deep)))
    return work, told


def run_checks(work: list[Check], told: Verification, step: Callable[[], None] = lambda: None) -> Verification:
    """Run the checks side by side; `step` is called after each. Findings are sorted."""
    with ThreadPoolExecutor(THREADS) as pool:
        for found in pool.map(lambda check: check(), work):
            told.findings += found
            step()
    told.findings.sort()
    return told


def _stems(out: str) -> tuple[list[str], list[str]]:
    """The shards that there should be: of the run's pool, and those that have files, without those left out.

    Beside them those that were set aside and have no commit.
    """
    try:
        others, pool = left_out(out), run_shards(out)
    except MMFilterError:  # run.json is damaged: that is a finding of its own
        others, pool = frozenset(), []
    names = storage.names(storage.join(out, "metadata"))
    stems = {posixpath.splitext(name)[0] for name in names if name.endswith((".json", ".parquet", ".npz"))}
    aside = {stem for stem in {*stems, *pool} if set_aside(out, stem)}
    without = {stem for stem in aside if not storage.exists(metadata_path(out, stem, "json"))}
    return sorted({*stems, *pool} - others - without), sorted(without - others)


def _checked_shard(out: str, stem: str, deep: bool, told: Verification) -> list[Finding]:
    found = check_shard(out, stem, deep)
    if not found and not (read_commit(out, stem) or {}).get("files"):
        told.former["commits of format 1, which have no checksums"] += 1
    return found


def _column_checks(out: str, stems: Iterable[str], deep: bool) -> Iterator[Check]:
    for folder in storage.list_files(storage.join(out, "columns")):
        column = posixpath.basename(folder)
        have = {storage.stem(path) for path in storage.list_files(folder, ".parquet")}
        for stem in stems:
            path, table_path = storage.join(folder, f"{stem}.parquet"), metadata_path(out, stem, "parquet")
            if stem in have:
                yield partial(check_column, path, column, table_path, deep)
            elif have and storage.exists(table_path):
                gone = Finding(COLUMN, column, path, "is not there, though other shards have one")
                yield partial(list, [gone])
    yield partial(_stale, out)


def _stale(out: str) -> list[Finding]:
    """A finding for each column that was computed from other content than the pool's."""
    try:
        table = open_table(out, allow_missing=True, allow_stale=True)
        stale_columns = find_stale(table, table.stems, table.columns)
    except MMFilterError:  # what is damaged is named by the other checks
        return []
    found = []
    for stale in stale_columns:
        folder = table.columns[stale.columns[0]]
        path = storage.join(out, "columns", folder)
        found.append(Finding(COLUMN, folder, path, f"is stale: {stale.describe()}"))
    return found


def _new_shards(out: str) -> list[str]:
    """The folders of new shards below OUT/shards: of a subset, or of each epoch of a schedule."""
    paths = storage.files_below(storage.join(out, "shards"))
    return sorted({posixpath.dirname(path) for path in paths if posixpath.basename(path) == PLAN})


def _check_new_shards(folder: str, deep: bool) -> list[Finding]:
    """Findings of a folder of new shards; one whose writing was begun and did not end is one of them."""
    name = posixpath.basename(folder)
    try:
        read_plan(storage.join(folder, PLAN))
        found = verify_shards(folder, deep)
    except MMFilterError as error:
        return [Finding(SHARDS, name, folder, str(error).removeprefix(f"{folder}: "))]
    return [Finding(SHARDS, name, path, what) for path, what in found]


def _read_run(path: str) -> None:
    read_object(path, "run `mmfilter run` again with the recipe and the pool")


def _read_schedule(path: str, deep: bool) -> None:
    for subset in load_schedule(path):
        if deep:
            Subset.read(subset)
