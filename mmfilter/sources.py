"""What an added column was computed from, by content, and whether that is still what the pool holds.

A column's file has in its footer, beside the part that made it, its `sources`: of the shard it belongs to the digests
of what the score read (`content`: samples, embeddings, other columns), and of a pool score's, which hangs on every
shard, one digest of the content of all (`pool`, with the `needs` that it was taken over) and the record of each file
that it wrote beside its columns (`files`). A column is stale where one of the digests is another now. Columns and
commits of format 1 say nothing of it.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from . import parquet, storage
from .commit_file import optional_commit
from .content import SAMPLES
from .errors import DataError
from .parts import read_identity
from .provenance import fingerprint
from .run_pool import listed
from .sidecar import BASE, PART_KEY, SOURCES_KEY, columns_path

METADATA = "metadata"
"""The folder of a column that stands in the shards' metadata."""
READERS = 4
NO_SOURCES = frozenset({"image", "bytes", "threads"})
"""Needs that a score is given and that are no stored values; images are among the samples, by their sha256."""


@dataclass(frozen=True)
class Origin:
    """What the footer of a column's file says: the part that made it, and its sources ({} of format 1)."""

    part: Any
    sources: Mapping[str, Any]


def read_origin(path: str) -> Origin | None:
    """The origin of a column's file, None where there is no file. Raises DataError for a damaged one."""
    try:
        metadata = parquet.read_footer(path).metadata or {}
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        part, sources = (json.loads(metadata.get(key.encode(), b"null")) for key in (PART_KEY, SOURCES_KEY))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: what made it cannot be read ({error}); delete it and score again") from error
    return Origin(part, sources if isinstance(sources, dict) else {})


def read_part(path: str) -> Any:
    """What made a column's file, None where there is no file. Raises DataError for a damaged one."""
    origin = read_origin(path)
    return None if origin is None else origin.part


class Stored(Protocol):
    """The pool's table, as far as this looks at it: `columns` maps each to "metadata" or to its folder in columns/."""

    @property
    def metadata(self) -> str: ...

    @property
    def columns(self) -> Mapping[str, str]: ...

    def path(self, column: str, stem: str) -> str: ...


def shard_sources(table: Stored, stem: str, needs: Collection[str]) -> dict[str, str]:
    """Name -> digest of what a score that `needs` these reads of a shard; {} where its commit records no content."""
    commit = optional_commit(storage.join(table.metadata, f"{stem}.json"))
    return _sources((commit or {}).get("content"), needs, _columns_of(table, stem))


def stored_sources(out: str, metadata: str, stem: str, needs: Collection[str]) -> dict[str, str]:
    """`shard_sources` without a table: needs that are no columns of the metadata are files in OUT/columns."""
    commit = optional_commit(storage.join(metadata, f"{stem}.json"))
    return _sources((commit or {}).get("content"), needs, lambda need: columns_path(out, need, stem))


def _columns_of(table: Stored, stem: str) -> Callable[[str], str]:
    return lambda need: table.path(need, stem) if table.columns.get(need, METADATA) != METADATA else ""


def _sources(
    content: Mapping[str, Any] | None, needs: Collection[str], column_file: Callable[[str], str]
) -> dict[str, str]:
    if not content:
        return {}
    digests = {SAMPLES: str(content.get(SAMPLES))}
    for need in sorted(set(needs) - NO_SOURCES - set(BASE)):
        kind, _, model = need.partition(":")
        name = f"{model}_{kind[:3]}" if kind in ("img_emb", "txt_emb") else need
        if name in content:
            digests[need] = str(content[name])
        elif ":" not in need and (path := column_file(need)) and (origin := read_origin(path)):
            digests[need] = fingerprint([origin.part, dict(origin.sources)])
    return digests


def pool_content(table: Stored, stems: Iterable[str], needs: Collection[str]) -> str:
    """A digest of the content of all shards: samples, embeddings and columns that a pool score `needs`.

    Of a shard of format 1 its input, counts and parts stand for the content; of a foreign shard the sizes and dates of
    its files.
    """
    return fingerprint([_shard_content(table, stem, needs) for stem in sorted(stems)])


def _shard_content(table: Stored, stem: str, needs: Collection[str]) -> list[Any]:
    path = storage.join(table.metadata, stem)
    commit = optional_commit(f"{path}.json")
    if commit is not None and commit.get("content"):
        return [stem, _sources(commit["content"], needs, _columns_of(table, stem))]
    models = sorted({need.split(":")[1] for need in needs if "_emb:" in need})
    columns = sorted(need for need in needs if "_emb:" not in need and need not in BASE)
    made: list[Any] = [stem]
    if commit is not None:
        parts = commit["parts"]
        made += [commit.get("input"), commit["counts"], read_identity(commit)]
        made += [parts.get(f"embed:{model}") for model in models]
        if any(table.columns.get(column) == METADATA for column in columns):
            made.append({part: value for part, value in parts.items() if part.startswith("score:")})
    else:
        made += [storage.identity_or_none(f"{path}.{ending}") for ending in ("parquet", "npz")]
    added = {table.columns.get(column, METADATA): column for column in columns}
    added.pop(METADATA, None)
    origins = [read_origin(table.path(column, stem)) for _, column in sorted(added.items())]
    return made + [None if origin is None else origin.part for origin in origins]


@dataclass(frozen=True)
class Stale:
    """Columns of one score whose sources have changed: of these shards, or of the pool as a whole; or of which some
    shards were computed otherwise than others (`mixed`), as when the verb that replaces them was killed.
    """

    columns: tuple[str, ...]
    shards: tuple[str, ...]
    of_pool: bool
    score: str = ""
    mixed: bool = False

    def describe(self) -> str:
        """A sentence."""
        one = len(self.columns) == 1
        were = f"{'column' if one else 'columns'} {', '.join(self.columns)} {'was' if one else 'were'} computed"
        if self.shards:
            return f"{were} from other content of {listed(self.shards)}"
        if self.mixed:
            return f"{were} in two ways, each in some of the shards (the verb that replaces them did not end)"
        return f"{were} over another pool (shards were added, removed or done again since)"


VERBS = {"duplicates": "dedup", "overlap": "dedup", "clusters": "cluster"}
"""Pool scores that have a verb of their own."""


def score_of(origin: Origin | None) -> str:
    """The registry name of the score that made a column's file; "" where it does not say."""
    part = origin.part if origin else None
    return str(part.get("score") or "") if isinstance(part, dict) else ""


def cure(scores: Iterable[str]) -> str:
    """What brings columns of these scores up to the pool, without a full stop."""
    verbs = sorted({f"`mmfilter {VERBS[score]}`" for score in scores if score in VERBS})
    beside = f", or {' and '.join(verbs)} with their options where these made them" if verbs else ""
    return f"`mmfilter run` or `mmfilter score` with the recipe that made the columns brings them up{beside}"


def find_stale(table: Stored, stems: Iterable[str], columns: Iterable[str]) -> list[Stale]:
    """The columns, among those that stand in OUT/columns, that are stale; files of format 1 are believed.

    Raises DataError for a damaged file.
    """
    stems = tuple(stems)
    folders: dict[str, list[str]] = {}
    for name in sorted(columns):
        if table.columns.get(name, METADATA) != METADATA:
            folders.setdefault(table.columns[name], []).append(name)
    found = [_stale(table, stems, tuple(names)) for names in folders.values()]
    return [stale for stale in found if stale.shards or stale.of_pool or stale.mixed]


def _stale(table: Stored, stems: tuple[str, ...], columns: tuple[str, ...]) -> Stale:
    with ThreadPoolExecutor(READERS) as pool:
        origins = list(pool.map(lambda stem: _checked(table, columns[0], stem), stems))
    changed = tuple(stem for stem, (_, fresh) in zip(stems, origins, strict=True) if not fresh)
    score = next(filter(None, (score_of(origin) for origin, _ in origins)), "")
    over = {(str(o.sources["pool"]), tuple(o.sources["needs"])) for o, _ in origins if o and "pool" in o.sources}
    other = any(digest != pool_content(table, stems, needs) for digest, needs in sorted(over))
    first = next((origin for origin, _ in origins if origin), None)
    mixed = any(not _alike(first.part, origin.part) for origin, _ in origins if first and origin)
    return Stale(columns, changed, other, score, mixed)


def _alike(one: Any, other: Any) -> bool:
    """Whether two shards' columns say that one computation made them, as far as both say it: versions add fields."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return all(_alike(one[name], other[name]) for name in one.keys() & other.keys() - {"weights", "pool"})
    return one is None or other is None or bool(one == other)


def _checked(table: Stored, name: str, stem: str) -> tuple[Origin | None, bool]:
    """The origin of a shard's column, and whether the shard's own content is still what it was computed from."""
    origin = read_origin(table.path(name, stem))
    if origin is None or not origin.sources.get("shard"):
        return origin, True
    was = origin.sources["shard"]
    return origin, shard_sources(table, stem, was.keys() - {SAMPLES}) == was
