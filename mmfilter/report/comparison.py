"""The page of `compare`: heat maps of what subsets share, what they are made of, and how far they are apart."""

import hashlib
from typing import Any

import numpy as np

from .. import storage
from ..composition import compose, source_of
from ..decisions import subset_names
from ..json_file import read_object
from ..overlaps import overlaps
from ..subset import Subset
from .page import render
from .pool import Pool

MEASURES = {"fid": "FID", "mmd": "MMD²", "mmd_cosine": "MMD² (cosine)", "sinkhorn": "Sinkhorn"}
RANGES = ("5 %", "25 %", "median", "75 %", "95 %")


def comparison_page(found: dict[str, Any]) -> str:
    """The HTML of what `index.compare.compare` returned, with `subsets` (name -> path) and `pool`."""
    return render("compare.html", {"found": found, "measures": MEASURES, "made": made(found["composition"])})


def made(composition: dict[str, Any] | None) -> dict[str, Any] | None:
    """A composition as the macro shows it: by table its rows, each set's count with its share of the set in percent."""
    if composition is None:
        return None
    whole = composition["samples"]
    tables = [
        (title, [(row["value"], _shares(row["counts"], whole)) for row in composition[key]])
        for key, title in (("languages", "Language"), ("sides", "Shorter side"))
        if key in composition
    ]
    return {
        "names": list(whole),
        "samples": whole,
        "tables": tables,
        "scores": composition["scores"],
        "concepts": composition.get("concepts"),
        "ranges": RANGES,
    }


def _shares(counts: dict[str, int], whole: dict[str, int]) -> list[tuple[int, float]]:
    return [(n, 100 * n / whole[name] if whole[name] else 0.0) for name, n in counts.items()]


def before_after(pool: Pool) -> dict[str, Any]:
    """The composition of the pool's samples that are well, and of those that were kept."""
    weights = {"pool": pool.well.astype(np.int64), "kept": pool.keep.astype(np.int64)}
    return compose(source_of(pool.table), weights)


def others(pool: Pool) -> list[tuple[str, int, int, float | None, float | None, float | None]]:
    """Each other subset of the run: name, samples, shared; that as a share of this one and of the other; Jaccard."""
    paths = {name: storage.join(pool.out, "subsets", f"{name}.npy") for name in subset_names(pool.out)}
    this = paths.pop(pool.name, "")
    if not paths or not this or not storage.exists(this):
        return []
    mine, found = Subset.read(this), []
    for name, path in paths.items():
        if storage.exists(path):
            both = overlaps({"mine": mine, "other": Subset.read(path)})
            inside = both["containment"]
            shared, jaccard = both["intersection"][0][1], both["jaccard"][0][1]
            found.append((name, both["samples"][1], shared, inside[0][1], inside[1][0], jaccard))
    return found


PAIR = {"fid?": float, "mmd?": float, "mmd_cosine?": float, "sinkhorn?": float}
COMPARED = {
    "sha256": {str: str},
    "measures?": {
        "model": str,
        "modality": str,
        "sample": int,
        "sets": {str: {"rows": int, "vendi?": float, "to": {str: PAIR}}},
    },
}


def measured(pool: Pool) -> dict[str, Any] | None:
    """The measures of this subset, the pool and the target, where `compare` took them of the subset as it is."""
    path, this = storage.join(pool.out, "compare.json"), storage.join(pool.out, "subsets", f"{pool.name}.npy")
    if not storage.exists(path) or not storage.exists(this):
        return None
    found = read_object(path, "run `mmfilter compare` again, or delete it", COMPARED)
    digests, measures = found["sha256"], found.get("measures")
    digest = hashlib.sha256(storage.read_bytes(this)).hexdigest()
    own = next((name for name, had in digests.items() if had == digest), None)
    if not measures or own is None:
        return None
    shown = [name for name in ("pool", own, "target") if name in measures["sets"]]
    return {**measures, "sets": {name: measures["sets"][name] for name in shown}}
