"""All that a data card tells, read from a run's folder."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from . import storage
from .allow import Allow, merge, sentences
from .commit_file import optional_commit
from .composition import compose, source_of
from .concepts_file import read_concepts
from .decisions import read_record, read_subset
from .run_file import read_run
from .sources import read_part
from .subset import later_repeats
from .subset_record import changes_since, gaps_of
from .table import Table, open_table
from .uids import DTYPE, HALVES

SHOWN = 10  # concepts that are named


@dataclass(frozen=True)
class CardOptions:
    """What the files do not know: `license` as Hugging Face writes it, `pretty` the title (default: the recipe's name).

    `metadata` is where the score table is when it is not in the output folder; `allow` says what may be missing or
    stale.
    """

    license: str = "unknown"
    pretty: str = ""
    metadata: str = ""
    allow: Allow = Allow()


@dataclass(frozen=True)
class Facts:
    """All that a card tells: the record, the commits by shard, the run, the composition of pool and subset.

    `notes` are sentences on what is missing, stale, or another than when the subset was selected.
    """

    name: str
    record: dict[str, Any]
    commits: dict[str, dict[str, Any]]
    run: dict[str, Any]
    composition: dict[str, Any]
    concepts: list[tuple[str, int, int]]
    sha256: str
    options: CardOptions
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return self.options.pretty or title(self.record, self.name)


def title(record: dict[str, Any], name: str) -> str:
    """A card's title where none was given: the recipe's name, else the subset's."""
    recipe = record.get("recipe")
    return str((recipe.get("name") if isinstance(recipe, dict) else "") or name)


def read_facts(out: str, name: str, options: CardOptions) -> Facts:
    """Read the subset, its record, and the pool a column at a time."""
    record, pool = read_record(out, name), open_table(out, options.metadata or None, *options.allow).whole()
    pool.check_fresh(pool.columns)
    subset, digest = read_subset(out, name, record)
    halves = pool.read(HALVES)
    uids = np.empty(halves.height, DTYPE)
    uids["f0"], uids["f1"] = (halves[half].to_numpy() for half in HALVES)
    well = np.ones(len(uids), np.int64)
    well[later_repeats(uids["f0"], uids["f1"])] = 0
    weights = {"pool": well, "subset": subset.counts(uids) * well}
    composition, concepts = compose(source_of(pool), weights), _concepts(pool, weights)
    return Facts(
        name,
        record,
        _commits(pool),
        read_run(out),
        composition,
        concepts,
        digest,
        options,
        (*sentences(merge(gaps_of(record), pool.gaps())), *changes_since(pool, record)),
    )


def _commits(pool: Table) -> dict[str, dict[str, Any]]:
    """By shard what its commit says; DataComp's own metadata has none."""
    found = {stem: optional_commit(storage.join(pool.metadata, f"{stem}.json")) for stem in pool.stems}
    return {stem: commit for stem, commit in found.items() if commit}


def _concepts(pool: Table, weights: dict[str, np.ndarray]) -> list[tuple[str, int, int]]:
    """(label, samples of the pool, samples of the subset) of the subset's largest concepts."""
    if "cluster_id" not in pool.columns:
        return []
    fields = (read_part(pool.path("cluster_id", pool.stems[0])) or {}).get("fields") or {}
    folder = f"{fields.get('model')}{'-text' if fields.get('modality') == 'text' else ''}"
    cluster = pool.read(["cluster_id"])["cluster_id"].cast(pl.Int64).fill_null(-1).to_numpy()
    there = cluster >= 0
    labels = _labels(storage.join(pool.out, "concepts", folder, "concepts.json"), np.bincount(cluster[there]))
    sizes = [np.bincount(cluster[there], w[there]).astype(int) for w in weights.values()]
    order = np.lexsort((np.arange(len(sizes[1])), -sizes[1]))[:SHOWN]
    return [(labels.get(int(i), f"cluster {i}"), int(sizes[0][i]), int(sizes[1][i])) for i in order if sizes[1][i]]


def _labels(path: str, sizes: np.ndarray) -> dict[int, str]:
    """Cluster -> label; none where the concepts at `path` are not those of the columns, whose clusters have `sizes`."""
    known = read_concepts(path)
    counted = {concept["id"]: concept["size"] for concept in known}
    labels = {concept["id"]: ", ".join(concept["label"]) for concept in known}
    now = {cluster: size for cluster, size in enumerate(sizes.tolist()) if size}
    return labels if now == {cluster: size for cluster, size in counted.items() if size} else {}
