"""Which subset trains the better model, on the generated pool: `python benchmarks/headline.py --out runs/headline`.

A pool of 24,000 pairs with labelled noise (the demo's shares: half of it is clean), and the same number of
pairs seen in every training, at the scale `tiny`. Subsets: basic cleaning; the better half by the similarity
of a CLIP that was trained on another noisy pool; the better half by the packaged filter network (DFN); one of
each picture, then the better half; and the clean pairs by the labels (oracle). No filter and random subsets of
the same sizes are beside them. Goes on where it was stopped; `--prepare` stops before the trainings.
"""

import argparse
import dataclasses
import os
import subprocess
import sys

import polars as pl
import yaml

from mmfilter.scales import find_scale, training
from mmfilter.subset import Subset
from mmfilter.synth import SynthOptions, generate
from mmfilter.train import train

POOL = SynthOptions(samples=24_000, per_shard=2000, seed=3001, workers=2)
OTHER = SynthOptions(samples=24_000, per_shard=2000, seed=3002, workers=2)
KEEP = 0.49  # the share of clean pairs, so that all subsets but basic's are of one size

CLEAN = [{"language": {"is": "en"}}, {"caption": {"min_words": 3}}, {"image": {"min_side": 96, "max_aspect": 2.5}}]
BASE = {
    "embed": {"dfn": {"model": "demo"}, "clip": {"model": ""}},
    "scores": [
        *({"clip_similarity": {"model": name}} for name in ("dfn", "clip")),
        *({"language": {}}, {"caption": {}}, {"phash": {}}, {"duplicates": {"hamming": 2}}),
    ],
}


def better_half(model: str, keep: float = KEEP) -> dict[str, object]:
    return {"fraction": {"score": f"clip_{model}_similarity_score", "keep": keep}}


RULES: dict[str, object] = {
    "basic": {"all": CLEAN},
    "clip_score": better_half("clip"),
    "dfn": better_half("dfn"),
    "dedup_dfn": {"then": [{"not_duplicate": {}}, better_half("dfn", 0.54)]},
}


def mmfilter(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "jobs", *words], check=True)


def pool(out: str, name: str, options: SynthOptions) -> str:
    folder = os.path.join(out, name)
    if not os.path.exists(os.path.join(folder, "labels", "labels.parquet")):
        generate(folder, options)
    return folder


def clip(out: str) -> str:
    """A CLIP that knows only noisy pairs, and none of the pool's."""
    folder = os.path.join(out, "clip")
    if not os.path.exists(os.path.join(folder, "train.json")):
        scale = find_scale("tiny")
        asked = training(scale, [pool(out, "other", OTHER)], folder, "", 1)
        train(dataclasses.replace(asked, vocabulary=scale.vocabulary))
    return folder


def subsets(out: str, folder: str) -> list[str]:
    run = os.path.join(out, "run")
    for name, rules in RULES.items():
        recipe = {"name": name, **BASE, "select": rules}
        recipe["embed"] = {**BASE["embed"], "clip": {"model": clip(out)}}
        path = os.path.join(out, f"{name}.yaml")
        with open(path, "w", encoding="utf-8") as stream:
            yaml.safe_dump(recipe, stream, sort_keys=False)
        if name == next(iter(RULES)):
            mmfilter("run", path, "--pool", folder, "--out", run, "--no-reshard", "--workers", "2")
        else:
            mmfilter("select", path, "--out", run)
    labels = pl.read_parquet(os.path.join(folder, "labels", "labels.parquet"))
    clean = labels.filter(pl.col("kind") == "clean")["uid"].to_list()
    Subset.from_uids(clean).write(os.path.join(run, "subsets", "oracle.npy"))
    return [os.path.join(run, "subsets", f"{name}.npy") for name in (*RULES, "oracle")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/headline")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--prepare", action="store_true")
    arguments = parser.parse_args()
    out = os.path.abspath(arguments.out)
    folder = pool(out, "pool", POOL)
    found = subsets(out, folder)
    if arguments.prepare:
        return
    to = os.path.join(out, "rank")
    mmfilter("rank", *found, "--pool", folder, "--seeds", arguments.seeds, "--workers", arguments.workers, "--out", to)
    mmfilter("leaderboard", to)


if __name__ == "__main__":
    main()
