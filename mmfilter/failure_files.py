"""The files of failed samples: those that commits and attempts tell of have to be there, as they were written."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from . import storage
from .commit_file import optional_commit
from .errors import DataError
from .file_record import difference
from .run_pool import left_out
from .shard_record import CURE
from .shard_state import set_aside
from .sidecar import failures_path

READERS = 8


def check_failures(out: str, paths: Mapping[str, str]) -> None:
    """Raise DataError where failures are not there, or others, that a commit or a shard set aside tells of.

    `paths` maps shards to their files in OUT/failures. Damaged commits are named by what reads the shard.
    """
    others, folder = left_out(out), storage.join(out, "metadata")
    commits = [name.removesuffix(".json") for name in storage.names(folder) if name.endswith(".json")]
    tried = [name.removesuffix(".json") for name in storage.names(storage.join(out, "attempts"))]
    given_up = [stem for stem in tried if stem not in paths and stem not in commits and set_aside(out, stem)]
    if gone := sorted(set(given_up) - others):
        path = failures_path(out, gone[0])
        raise DataError(
            f"{path}: does not exist, and the shard was set aside; `mmfilter run` or `embed` writes it again"
        )
    with ThreadPoolExecutor(READERS) as pool:
        for problem in pool.map(lambda stem: _problem(out, stem), sorted(set(commits) - others)):
            if problem:
                raise DataError(f"{problem}. {CURE}")


def _problem(out: str, stem: str) -> str:
    """What is wrong with a shard's failures: the path and a few words, "" where nothing is."""
    try:
        commit = optional_commit(storage.join(out, "metadata", f"{stem}.json"))
    except DataError:
        return ""
    record = ((commit or {}).get("files") or {}).get("failures")
    if record is None:
        return ""
    path = failures_path(out, stem)
    what = difference(path, record, whole=not storage.is_remote(path))
    return f"{path}: is not the file that was recorded: {what}" if what else ""
