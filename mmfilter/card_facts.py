"""All that a data card tells, read from a run's folder."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from . import storage
from .composition import compose, source_of
from .decisions import read_record
from .errors import DataError
from .sources import read_origin
from .subset import Subset, check, later_repeats, load
from .table import Table, open_table
from .uids import DTYPE, HALVES

SHOWN = 10  # concepts that are named


@dataclass(frozen=True)
class CardOptions:
    """What the files do not know: `license` as Hugging Face writes it, `pretty` the title (default: the recipe's name).

    `metadata` is where the score table is when it is not in the output folder.
    """

    license: str = "unknown"
    pretty: str = ""
    metadata: str = ""


@dataclass(frozen=True)
class Facts:
    """All that a card tells: the record, the commits by shard, the run, the composition of pool and subset."""

    name: str
    record: dict[str, Any]
    commits: dict[str, dict[str, Any]]
    run: dict[str, Any]
    composition: dict[str, Any]
    concepts: list[tuple[str, int, int]]
    sha256: str
    options: CardOptions

    @property
    def title(self) -> str:
        return self.options.pretty or title(self.record, self.name)


def title(record: dict[str, Any], name: str) -> str:
    """A card's title where none was given: the recipe's name, else the subset's."""
    recipe = record.get("recipe")
    return str((recipe.get("name") if isinstance(recipe, dict) else "") or name)


def read_facts(out: str, name: str, options: CardOptions) -> Facts:
    """Read the subset, its record, and the pool a column at a time."""
    record, pool = read_record(out, name), open_table(out, options.metadata or None).whole()
    path = storage.join(out, "subsets", f"{name}.npy")
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error}); run 'mmfilter select' again") from error
    subset = Subset(check(load(data, path), path))
    halves = pool.read(HALVES)
    uids = np.empty(halves.height, DTYPE)
    uids["f0"], uids["f1"] = (halves[half].to_numpy() for half in HALVES)
    well = np.ones(len(uids), np.int64)
    well[later_repeats(uids["f0"], uids["f1"])] = 0
    weights = {"pool": well, "subset": subset.counts(uids) * well}
    return Facts(
        name,
        record,
        _commits(pool),
        _json(storage.join(out, "run.json")) or {},
        compose(source_of(pool), weights),
        _concepts(pool, weights),
        hashlib.sha256(data).hexdigest(),
        options,
    )


def _json(path: str) -> Any:
    if not storage.exists(path):
        return None
    try:
        return json.loads(storage.read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: damaged ({error}); run what wrote it again") from error


def _commits(pool: Table) -> dict[str, dict[str, Any]]:
    """By shard what its commit says; DataComp's own metadata has none."""
    found = {stem: _json(storage.join(pool.metadata, f"{stem}.json")) for stem in pool.stems}
    return {stem: commit for stem, commit in found.items() if isinstance(commit, dict) and "counts" in commit}


def _concepts(pool: Table, weights: dict[str, np.ndarray]) -> list[tuple[str, int, int]]:
    """(label, samples of the pool, samples of the subset) of the subset's largest concepts."""
    if "cluster_id" not in pool.columns:
        return []
    origin = read_origin(pool.path("cluster_id", pool.stems[0]))
    fields = ((origin.part if origin else None) or {}).get("fields") or {}
    if origin:
        origin.check_files(pool.out)
    folder = f"{fields.get('model')}{'-text' if fields.get('modality') == 'text' else ''}"
    known = _json(storage.join(pool.out, "concepts", folder, "concepts.json")) or []
    labels = {int(concept["id"]): ", ".join(concept["label"]) for concept in known}
    cluster = pool.read(["cluster_id"])["cluster_id"].cast(pl.Int64).fill_null(-1).to_numpy()
    there = cluster >= 0
    sizes = [np.bincount(cluster[there], w[there]).astype(int) for w in weights.values()]
    order = np.lexsort((np.arange(len(sizes[1])), -sizes[1]))[:SHOWN]
    return [(labels.get(int(i), f"cluster {i}"), int(sizes[0][i]), int(sizes[1][i])) for i in order if sizes[1][i]]
