"""The whole job on the real pool: a filter network trained on its clean part chooses from its noisy part.

    python benchmarks/real_pool.py [--data ../shared/data] [--out runs/real]

Trains as `real_dfn.py` does (same settings and seed), runs a recipe with the trained folder as its scorer,
and prints what was kept of each kind of sample, by labels that chose nothing. A random subset of the
same size stands beside it: what choosing without looking would give.
"""

import argparse
import json
import os
from typing import Any

import polars as pl
from real_dfn import arguments_of, fit

from jobs.cluster import Width
from jobs.demo import quality
from jobs.outdir import shard_paths
from jobs.run import RunOptions, lines, run_recipe
from jobs.select import select_subset
from mmfilter.recipe import parse_recipe

RULES: list[dict[str, Any]] = [
    {"language": {"is": "en"}},
    {"caption": {"min_words": 3, "min_chars": 6}},
    {"image": {"min_side": 100, "max_aspect": 3.0}},
]  # DataComp's basic filter, with the sides of a pool that was made at 224 px


def recipe(name: str, model: str, last: dict[str, Any]) -> Any:
    """Light cleaning, then `last`."""
    source = {
        "name": name,
        "embed": {"dfn": {"model": model}},
        "scores": [{"clip_similarity": {"model": "dfn"}}, "language", "caption", "phash"],
        "select": {"then": [*RULES, last]},
    }
    return parse_recipe(json.dumps(source), f"recipe {name}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MMFILTER_DATA", "../shared/data"))
    parser.add_argument("--out", default="runs/real")
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--fp32", action="store_true", help="train without bfloat16")
    args = parser.parse_args()
    out, model = os.path.abspath(args.out), os.path.abspath(f"{args.out}-dfn/model")
    if not os.path.isdir(model):
        os.makedirs(os.path.dirname(model), exist_ok=True)
        fit(args.data, os.path.dirname(model), arguments_of(["--fp32"] if args.fp32 else []))
    labels = os.path.join(args.data, "pool_labels.parquet")
    by_score = recipe("dfn", model, {"fraction": {"score": "clip_dfn_similarity_score", "keep": args.keep}})
    result = run_recipe(by_score, shard_paths([f"{args.data}/pool"]), RunOptions(out, "dfn", Width(), labels=labels))
    print("\n".join(lines(result)))
    rows = {}
    for name, share in (("cleaned", 1.0), ("random", args.keep), ("dfn", None)):
        if share is not None:
            select_subset(recipe(name, model, {"random": {"keep": share}}), out, name)
        rows[name] = quality(labels, out, name)
    print(f"of the pool {rows['dfn']['pool']:.3f} match")
    for name, found in rows.items():
        print(f"{name:<8} precision {found['precision']:.3f}, recall {found['recall']:.3f}")
    kinds = pl.DataFrame(rows["dfn"]["kinds"]).rename({"kept": "dfn"})
    for name in ("cleaned", "random"):
        kinds = kinds.join(pl.DataFrame(rows[name]["kinds"]).select("kind", pl.col("kept").alias(name)), on="kind")
    with pl.Config(tbl_rows=30, tbl_hide_column_data_types=True):
        print(kinds)


if __name__ == "__main__":
    main()
