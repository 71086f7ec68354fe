"""Which subset trains the better model, on the real pool: `python benchmarks/real_headline.py --out runs/real`.

What `real_pool.py` makes of the same folder (its filter network, the subsets cleaned and dfn), one of each picture
before the same rules, and the clean pairs by the labels (oracle); `tiny` trainings on each, on the whole pool and on
random subsets of the same sizes. Goes on where it was stopped; `--prepare` stops before the trainings.
"""

import argparse
import copy
import os
import subprocess
import sys

import polars as pl
import yaml
from real_pool import RULES, recipe

from mmfilter.subset import Subset


def mmfilter(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "jobs", *words], check=True)


def subsets(data: str, out: str, more: list[str]) -> list[str]:
    folder, half = os.path.join(out, "subsets"), {"fraction": {"score": "clip_dfn_similarity_score", "keep": 0.5}}
    if not os.path.exists(os.path.join(folder, "dfn.npy")):
        script = os.path.join(os.path.dirname(__file__), "real_pool.py")
        subprocess.run([sys.executable, script, "--data", data, "--out", out, *more], check=True)
    asked = copy.deepcopy(recipe("dedup_dfn", f"{out}-dfn/model", half).source)
    asked["scores"].append({"duplicates": {"hamming": 8, "mode": "groups"}})
    asked["select"]["then"].insert(0, {"not_duplicate": {}})
    assert asked["select"]["then"] == [{"not_duplicate": {}}, *RULES, half]
    path = os.path.join(out, "dedup_dfn.yaml")
    with open(path, "w", encoding="utf-8") as stream:
        yaml.safe_dump(asked, stream, sort_keys=False)
    mmfilter("run", path, "--pool", f"{data}/pool", "--out", out, "--no-reshard", "--local")
    labels = pl.read_parquet(f"{data}/pool_labels.parquet")
    clean = labels.filter(pl.col("kind") == "clean")["uid"].to_list()
    Subset.from_uids(clean).write(os.path.join(folder, "oracle.npy"))
    return [os.path.join(folder, f"{name}.npy") for name in ("cleaned", "dfn", "dedup_dfn", "oracle")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("MMFILTER_DATA", "../shared/data"))
    parser.add_argument("--out", default="runs/real")
    parser.add_argument("--seeds", default="3")
    parser.add_argument("--workers", default="2")
    parser.add_argument("--fp32", action="store_true", help="train the filter network without bfloat16")
    parser.add_argument("--prepare", action="store_true")
    asked = parser.parse_args()
    data, out = os.path.abspath(asked.data), os.path.abspath(asked.out)
    found = subsets(data, out, ["--fp32"] if asked.fp32 else [])
    if asked.prepare:
        return
    where = ["--pool", f"{data}/pool", "--tasks", f"{data}/tasks", "--out", os.path.join(out, "rank")]
    mmfilter("rank", *found, *where, "--seeds", asked.seeds, "--workers", asked.workers)


if __name__ == "__main__":
    main()
