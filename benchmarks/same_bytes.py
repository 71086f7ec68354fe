"""Whether two checkouts give the same bytes from the same pool: metadata, embeddings, columns, subset, shards.

    python benchmarks/same_bytes.py --before CHECKOUT [--after CHECKOUT] [--pool FOLDER] [--samples 2000]

Each checkout runs the recipe below (the packaged demo model; every image of at least 64 px) on `--pool`, or on a
generated pool, and reshards the subset, without Ray. Records that hold times (run.json, commits, reports) are not
compared. The exit code is 1 where a file differs or exists on one side alone.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

RECIPE = """\
name: same
embed: {demo: {model: demo}}
scores:
  - clip_similarity: {model: demo}
  - language: {}
  - caption: {}
  - phash: {}
  - duplicates: {hamming: 2}
select:
  then:
    - language: {is: en}
    - image: {min_side: 64}
    - not_duplicate: {}
    - fraction: {score: clip_demo_similarity_score, keep: 0.65}
"""
HERE = str(Path(__file__).resolve().parent.parent)
RESULTS = {".parquet", ".npz", ".npy", ".tar"}


def run(checkout: str, out: str, pool: str, recipe: str) -> dict[str, str]:
    """Relative path -> digest of every result that the checkout wrote: of its bytes, of a parquet file of its values.

    Parquet files have had checksums since format 2, so that their bytes are others.
    """
    environment = {**os.environ, "PYTHONPATH": checkout}
    command = [sys.executable, "-m", "jobs", "run", recipe, "--pool", pool, "--out", out, "--reshard", "--local"]
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.DEVNULL)
    if done.returncode not in (0, 3):
        raise SystemExit(f"{checkout}: exit code {done.returncode}")
    files = sorted(path for path in Path(out).rglob("*") if path.suffix in RESULTS)
    return {str(path.relative_to(out)): digest(path) for path in files}


def digest(path: Path) -> str:
    """The sha256 of a file's bytes; of a parquet file's names, types and values."""
    if path.suffix != ".parquet":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    table = pq.read_table(path, partitioning=None)
    return hashlib.sha256(repr([str(table.schema.remove_metadata()), table.to_pylist()]).encode()).hexdigest()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", required=True, help="the root of a checkout")
    parser.add_argument("--after", default=HERE)
    parser.add_argument("--pool", help="a folder of tars; default: a generated pool")
    parser.add_argument("--samples", type=int, default=2000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        pool = os.path.abspath(asked.pool) if asked.pool else f"{root}/pool"
        if not asked.pool:
            from mmfilter.synth import SynthOptions, generate

            generate(pool, SynthOptions(asked.samples, per_shard=500))
        Path(root, "same.yaml").write_text(RECIPE)
        before, after = (
            run(os.path.abspath(tree), f"{root}/{name}", pool, f"{root}/same.yaml")
            for name, tree in (("before", asked.before), ("after", asked.after))
        )
    differing = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    print(f"{len(before)} files before, {len(after)} after, {len(differing)} differ")
    for name in differing:
        print(f"  {name}")
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
