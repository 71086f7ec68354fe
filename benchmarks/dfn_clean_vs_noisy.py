"""Does a filter network trained on clean pairs filter noise better than the same one trained on the noise?

    python benchmarks/dfn_clean_vs_noisy.py [--seeds 0 1 2] [--pools demo real] [--data ../shared/data] [--out runs/dfn]

The point of Data Filtering Networks (arXiv 2309.17425, section 3) in miniature. Two pools of known
noise: the demo's (generated) and one of photographs. On each, the same small CLIP is trained by
`mmfilter.train` from scratch, with the same options, seed and number of pairs, on

- clean    pairs that describe their picture, from outside of the pool, one caption each
- noisy    a random part of the pool itself, as large as the clean part
- chosen   the part of those same noisy pairs that match, by the labels: what cleaning alone would give

and the pool is filtered by each. Measured by the labels, which choose nothing: the AUC of pairs that
match, the precision of the better half, and that of as many as match; on what the noisy one was not
trained on, so that nothing here is a matter of having been learned by heart; and on its own training
part beside it. Models and results are kept in OUT; what stands there is not done again.
"""

import argparse
import json
import os
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import polars as pl
from demo_model import scores
from real_dfn import CONFIG, arguments_of

from mmfilter.auc import auc
from mmfilter.pairs import source
from mmfilter.subset import Subset
from mmfilter.synth import SynthOptions, generate
from mmfilter.train import DEMO, Augment, TrainOptions, train
from mmfilter.uids import parse_uids

PARTS, ARMS, KEEP = 2000, ("clean", "noisy", "chosen"), 0.5
T95 = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571}  # Student's t, two-sided 95 %, by number of seeds


def demo(out: str, _: str) -> dict[str, Any]:
    """The generated pools (made once) and how their model is trained: as the packaged one, for fewer pairs."""
    clean, noisy = f"{out}/demo-clean", f"{out}/demo-noisy"
    labels = f"{noisy}/labels/labels.parquet"
    if not os.path.exists(labels):
        generate(clean, SynthOptions(samples=PARTS * 2, seed=30, noise=False))
        labels = generate(noisy, SynthOptions(samples=PARTS * 4, seed=31)).labels
    options = TrainOptions(
        pool="", out="", model=DEMO, samples=20_000, lr=2e-3, vocabulary=1000, augment=Augment(0.85, 0.1), bf16=True
    )
    return {"clean": clean, "noisy": noisy, "labels": labels, "pairs": PARTS * 2, "options": options, "squash": True}


def real(out: str, data: str) -> dict[str, Any]:
    """The photographs, and the settings that `real_dfn.py` found on a part of the clean ones."""
    config = f"{out}/real.json"
    with open(config, "w", encoding="utf-8") as stream:
        json.dump(CONFIG, stream)
    a = arguments_of([])
    options = TrainOptions(
        pool="",
        out="",
        model=config,
        samples=a.samples,
        batch=a.batch,
        lr=a.lr,
        weight_decay=a.decay,
        vocabulary=a.vocabulary,
        augment=Augment(a.crop, a.jitter, True),
        bf16=True,
    )
    labels = f"{data}/pool_labels.parquet"
    pools = {"clean": f"{data}/clean", "noisy": f"{data}/pool", "labels": labels}
    return {**pools, "pairs": PARTS, "options": options, "squash": False}


def part_of(pool: dict[str, Any], arm: str, seed: int, out: str) -> set[str]:
    """uids of the noisy part of this seed; written to `out` as the arm's subset (the clean arm has none)."""
    table = pl.read_parquet(pool["labels"]).sort("uid").sample(pool["pairs"], seed=seed)
    kept = table.filter("match") if arm == "chosen" else table
    Subset(parse_uids(kept["uid"].to_list())).write(out)
    return set(table["uid"])


def run(name: str, pool: dict[str, Any], arm: str, seed: int, out: str) -> dict[str, Any]:
    """Train one model and measure it."""
    folder = f"{out}/{name}-{arm}-{seed}"
    seen = part_of(pool, arm, seed, f"{folder}.npy")
    where = {"pool": pool["clean"]} if arm == "clean" else {"pool": pool["noisy"], "subset": f"{folder}.npy"}
    if not os.path.exists(f"{folder}/train.json"):
        train(replace(pool["options"], out=folder, seed=seed, one_caption=True, **where))
    with open(f"{folder}/train.json", encoding="utf-8") as stream:
        told = json.load(stream)
    uids, found, _, _ = scores(folder, source(pool["noisy"], 64, pool["squash"], None))
    table = pl.DataFrame({"uid": uids, "score": found}).join(pl.read_parquet(pool["labels"]), on="uid")
    inside = pl.col("uid").is_in(list(seen))
    return {
        "pool": name,
        "arm": arm,
        "seed": seed,
        "seconds": told["seconds"],
        "loss": told["loss"][-1][2],
        **measures(table.filter(~inside)),
        **{f"trained_{key}": value for key, value in measures(table.filter(inside)).items()},
        "kinds": dict(kept_by_kind(table.filter(~inside)).iter_rows()),
    }


def measures(table: pl.DataFrame) -> dict[str, float]:
    """AUC of match, of wrong captions alone, the precision of the better half, and of as many as match."""
    wrong = table.filter((pl.col("kind") == "clean") | (pl.col("kind") == "wrong_caption"))
    best = table.sort("score", "uid", descending=[True, False])
    match = int(table["match"].sum())
    return {
        "auc": auc(table["score"].to_numpy(), table["match"].to_numpy()),
        "auc_wrong": auc(wrong["score"].to_numpy(), wrong["match"].to_numpy()),
        "precision": float(best.head(round(KEEP * len(table)))["match"].mean()),  # type: ignore[arg-type]
        "precision_as_many": float(best.head(match)["match"].mean()),  # type: ignore[arg-type]
        "base": float(table["match"].mean()),  # type: ignore[arg-type]
    }


def kept_by_kind(table: pl.DataFrame) -> pl.DataFrame:
    """Kind and the share of it that is in the better half."""
    rank = pl.col("score").rank("ordinal", descending=True)
    return table.with_columns(kept=rank <= round(KEEP * len(table))).group_by("kind").agg(pl.col("kept").mean())


def interval(values: np.ndarray) -> str:
    """Mean and half of the 95 % interval over seeds."""
    half = T95[len(values)] * values.std(ddof=1) / np.sqrt(len(values)) if len(values) in T95 else float("nan")
    return f"{values.mean():.3f} +- {half:.3f}"


def tell(rows: list[dict[str, Any]]) -> None:
    """Every arm over its seeds, and each other arm's difference from clean, paired by seed."""
    keys = ("auc", "auc_wrong", "precision", "precision_as_many", "trained_auc", "trained_precision_as_many")
    for name in dict.fromkeys(row["pool"] for row in rows):
        by = {arm: {r["seed"]: r for r in rows if (r["pool"], r["arm"]) == (name, arm)} for arm in ARMS}
        print(
            f"{name}: seeds {sorted(by['clean'])}, {np.mean([r['base'] for r in rows if r['pool'] == name]):.3f} match"
        )
        for arm in ARMS:
            if by[arm]:
                print(f"  {arm:<14}", *(f"{k} {interval(np.array([r[k] for r in by[arm].values()]))}" for k in keys))
        for arm in ARMS[1:]:
            both = sorted(set(by["clean"]) & set(by[arm]))
            if both:
                gaps = [np.array([by["clean"][s][k] - by[arm][s][k] for s in both]) for k in keys]
                print(f"  clean - {arm:<6}", *(f"{k} {interval(g)}" for k, g in zip(keys, gaps, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MMFILTER_DATA", "../shared/data"))
    parser.add_argument("--out", default="runs/dfn")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=list(ARMS))
    parser.add_argument("--pools", nargs="+", default=["demo", "real"])
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    path = f"{args.out}/results.jsonl"
    rows = []
    if os.path.exists(path):
        with open(path, encoding="utf-8") as stream:
            rows = [json.loads(line) for line in stream]
    done = {(row["pool"], row["arm"], row["seed"]) for row in rows}
    pools = {name: {"demo": demo, "real": real}[name](args.out, args.data) for name in args.pools}
    for seed, name, arm in product(args.seeds, args.pools, ARMS):
        if arm in args.arms and (name, arm, seed) not in done:
            rows.append(run(name, pools[name], arm, seed, args.out))
            print(json.dumps(rows[-1]), flush=True)
            with open(path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(rows[-1]) + "\n")
    tell(rows)


if __name__ == "__main__":
    main()
