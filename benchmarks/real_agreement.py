"""How well scores in embedding space find wrong captions on the real pool, beside the pair's own similarity.

    python benchmarks/real_agreement.py [--data ../shared/data] [--model FOLDER]

Trains the filter network of `real_dfn.py` on the pool's clean part (or takes the trained `--model`), embeds the
noisy part, and prints the AUC of each score: over all samples by `match`, and of clean captions against other
photographs'. Labels choose nothing: every setting is printed. `ranks` is the mean of two scores' ranks.
"""

import argparse
import json
import os
import tempfile

import numpy as np
import polars as pl
from real_dfn import arguments_of, fit

from index.agreement import CaptionAgreement
from index.negclip import NegClip
from index.pool import Pool
from jobs.cluster import Width
from jobs.outdir import shard_paths
from jobs.pool_scores import mapper
from jobs.run import RunOptions, run_recipe
from mmfilter.auc import auc
from mmfilter.recipe import parse_recipe
from mmfilter.uids import format_uids

WRONG = ("clean", "wrong_caption")


def embedded(data: str, model: str, out: str) -> Pool:
    """The real pool, embedded by `model` and scored by the pair's similarity."""
    recipe = {"name": "r", "embed": {"m": {"model": model}}, "scores": [{"clip_similarity": {"model": "m"}}]}
    options = RunOptions(out, "r", Width(local=True), reshard=False)
    run_recipe(parse_recipe(json.dumps(recipe), "recipe r"), shard_paths([f"{data}/pool"]), options)
    return Pool(out)


def ranks(values: np.ndarray) -> np.ndarray:
    """(n,) places in ascending order."""
    return np.argsort(np.argsort(values, kind="stable"), kind="stable").astype(np.float64)


def columns(pool: Pool) -> dict[str, np.ndarray]:
    """Name -> score (n,), by the pool's position."""
    run = mapper(Width(local=True), "bench")
    found = {"clip": pool.read("clip_m_similarity_score").to_series().to_numpy()}
    for tau in (0.01, 0.07):
        found[f"negclip, tau {tau}"] = NegClip(model="m", tau=tau, rounds=1)(pool, run)["negclip_m_score"]
    for k in (3, 10, 30):
        found[f"agreement, k {k}"] = CaptionAgreement(model="m", k=k)(pool, run)["caption_agreement_m"]
    for name in ("negclip, tau 0.07", "agreement, k 10"):
        found[f"ranks of clip and {name}"] = ranks(found["clip"]) + ranks(found[name])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MMFILTER_DATA", "../shared/data"))
    parser.add_argument("--model", help="a trained folder, or demo; else one is trained")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not args.model:
            fit(args.data, folder, arguments_of([]))
        pool = embedded(args.data, args.model or os.path.join(folder, "model"), os.path.join(folder, "out"))
        labels = pl.read_parquet(os.path.join(args.data, "pool_labels.parquet")).select("uid", "kind", "match")
        table = pl.DataFrame({"uid": format_uids(pool.uids), **columns(pool)}).join(labels, on="uid")
        for name in table.columns[1:-2]:
            rows = table.filter(pl.col(name).is_not_nan())
            wrong = rows.filter(pl.col("kind").is_in(WRONG))
            both = [auc(part[name].to_numpy(), part["match"].to_numpy()) for part in (rows, wrong)]
            print(f"{name:<35} all {both[0]:.3f}   clean or wrong {both[1]:.3f}   of {rows.height:,}", flush=True)


if __name__ == "__main__":
    main()
