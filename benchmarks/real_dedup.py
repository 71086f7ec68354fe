"""Precision and recall of `mmfilter dedup` where the duplicates are known: the real pool, or a generated one.

    python benchmarks/real_dedup.py --pool ../shared/data/pool --labels ../shared/data/pool_labels.parquet
    python benchmarks/real_dedup.py --synth 6000

Labels name each sample's picture (`source`, or `duplicate_of` and else its own uid). A sample that is marked is
right when the one that is kept shows its picture. Recall of a kind: the share of its samples whose picture
is found to stand in the pool twice. Nothing is tuned here: each setting is printed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import polars as pl

from mmfilter.report.copies import compare, read_pictures
from mmfilter.synth import SynthOptions, generate

SETTINGS = (
    [],
    ["--hamming", "0"],
    ["--hamming", "4"],
    ["--hamming", "8"],
    ["--no-exact", "--model", "demo", "--eps", "0.01"],
    ["--no-exact", "--model", "demo", "--eps", "0.02"],
    ["--hamming", "4", "--model", "demo", "--eps", "0.01"],
)


def mmfilter(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "jobs", *words], check=True, stdout=subprocess.DEVNULL)


def score(out: str, labels: pl.DataFrame) -> dict[str, float | int]:
    """Figures of OUT's column duplicate_of against `read_pictures`' labels."""
    found = compare(pl.read_parquet(f"{out}/columns/duplicate_of/*.parquet"), labels)
    figures: dict[str, float | int] = {"marked": found.marked, "right": found.right, "copies": found.copies}
    figures |= {"precision": round(found.precision / 100, 4), "recall": round(found.recall / 100, 4)}
    return figures | {kind.removeprefix("duplicate_"): round(hit / n, 4) for kind, n, hit in found.kinds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool")
    parser.add_argument("--labels")
    parser.add_argument("--synth", type=int, default=6000, help="without --pool: so many generated samples")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool, path = asked.pool, asked.labels
        if not pool:
            pool = f"{folder}/pool"
            path = generate(pool, SynthOptions(samples=asked.synth)).labels
        labels = read_pictures(path)
        assert labels is not None
        recipe = {"name": "dedup", "embed": {"demo": {"model": "demo"}}, "scores": ["phash"]}
        with open(os.path.join(folder, "dedup.yaml"), "w") as file:
            json.dump(recipe, file)
        out = f"{folder}/out"
        mmfilter("embed", file.name, "--pool", pool, "--out", out)
        for setting in SETTINGS:
            mmfilter("dedup", out, *setting, "--redo-changed", "--local")
            print(" ".join(setting), json.dumps(score(out, labels)), flush=True)


if __name__ == "__main__":
    main()
