"""What OUT says of each shard of a run: that it belongs to the pool, that it was set aside, that it has a commit."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NoReturn

from . import storage
from .commit_file import optional_commit
from .errors import DataError
from .run_pool import SHOWN, left_out, listed
from .sidecar import pool_tars

ATTEMPTS = 3
"""Failed attempts after which a shard is set aside."""


def run_shards(run: str) -> list[str]:
    """Names of the shards of the run's pool, as run.json has them, sorted; none where it names no pool."""
    return sorted(pool_tars(run).keys() - left_out(run))


def set_aside(run: str, stem: str) -> bool:
    """Whether a shard without a commit failed so often that its samples are counted as failed."""
    try:
        record = json.loads(storage.read_bytes(storage.join(run, "attempts", f"{stem}.json")))
        return int(record["attempts"]) >= ATTEMPTS
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        return False


def is_commit(folder: str, stem: str) -> bool:
    """Whether the json of a shard in a folder of metadata is a commit, and not some other program's file."""
    try:
        return optional_commit(storage.join(folder, f"{stem}.json")) is not None
    except DataError:
        return False


@dataclass(frozen=True)
class Listed:
    """The shards of which a folder of metadata holds each kind of file, by one listing."""

    parquets: frozenset[str]
    commits: frozenset[str]
    npzs: frozenset[str]

    @classmethod
    def of(cls, folder: str) -> "Listed":
        """What stands in `folder` now."""
        names = [name for name in storage.names(folder) if not name.startswith(".")]
        kinds = (".parquet", ".json", ".npz")
        return cls(*(frozenset(name.removesuffix(kind) for name in names if name.endswith(kind)) for kind in kinds))


def missing_shards(run: str, folder: str, there: Listed) -> dict[str, str]:
    """Shards of the run's pool that lack something -> what; those that were set aside are not counted.

    The npz is looked for where some committed shard has one: without any, the embeddings were taken away on purpose.
    """
    others, commits, parquets = left_out(run), there.commits, there.parquets
    npzs = there.npzs if there.npzs & commits else commits
    lacking = commits - parquets | (commits & parquets) - npzs
    missing = {
        stem: "its parquet" if stem not in parquets else "its npz"
        for stem in sorted(lacking - others)
        if is_commit(folder, stem)
    }
    absent = (parquets - commits if parquets & commits else frozenset()) - others
    absent |= set(run_shards(run)) - commits if folder == storage.join(run, "metadata") else set()
    return missing | {stem: "its commit" for stem in sorted(absent) if not set_aside(run, stem)}


def check_npzs(folder: str, stems: Collection[str]) -> None:
    """Raise DataError, naming them, where some of the shards have no npz; one listing tells."""
    npzs = Listed.of(folder).npzs
    if lacking := [stem for stem in stems if stem not in npzs]:
        raise DataError(
            f"{storage.join(folder, lacking[0])}.npz: does not exist, and the embeddings are in it; {listed(lacking)} "
            f"of {len(stems):,} have no npz. Fetch them beside the parquet, or embed the pool with `mmfilter embed`"
        )


def refuse_missing(run: str, missing: Mapping[str, str], complete: int) -> NoReturn:
    """Raise DataError that names the shards and what they lack; `complete` is how many others there are."""
    first = [f"{stem} lacks {what}" for stem, what in sorted(missing.items())[:SHOWN]]
    more = f" and {len(missing) - SHOWN:,} more" if len(missing) > SHOWN else ""
    raise DataError(
        f"{run}: {len(missing):,} of the run's {complete + len(missing):,} shards are not complete ({', '.join(first)}"
        f"{more}). Run `mmfilter run` or `mmfilter embed` again, which does just these; so does `mmfilter verify OUT "
        "--repair`" + ("; or go on without them with --allow-missing" if complete else "")
    )
