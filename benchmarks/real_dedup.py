"""What each mode of `mmfilter dedup` does where the duplicates are known: the real pool, or a generated one.

    python benchmarks/real_dedup.py --pool ../shared/data/pool --labels ../shared/data/pool_labels.parquet
    python benchmarks/real_dedup.py --synth 6000

Labels name each sample's picture (`source`, or `duplicate_of` and else its own uid). A sample that is marked is
right when the one that is kept shows its picture, and a false removal when it does not. Recall of a kind: the share
of its samples whose picture is found to stand in the pool twice. Of the pictures that the pool holds several times:
of how many one, several or no sample is kept; pairs missed are two kept samples of one picture. `far` are the dropped
samples that no kept sample is like by the setting's own limits, so that only a chain dropped them, with the median and
the least of the cosine to (or the bits from) the nearest kept one. Nothing is tuned here: each setting is printed. The
model is the packaged demo one, as weights of a CLIP for photographs are not part of this project.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from typing import Any

import numpy as np
import polars as pl

from index.pool import Pool
from mmfilter.report.copies import compare, read_pictures
from mmfilter.scores.phash import hamming
from mmfilter.synth import SynthOptions, generate

SETTINGS: tuple[dict[str, Any], ...] = (
    {},
    {"hamming": 0},
    {"hamming": 2},
    {"hamming": 4},
    {"hamming": 8},
    {"exact": False, "eps": 0.01},
    {"exact": False, "eps": 0.02},
    {"hamming": 4, "eps": 0.01},
    {"hamming": 4, "eps": 0.05},
    {"exact": False, "eps": 0.07},
)
"""`eps`: with the demo's model; the last is that of the recipe `semdedup`."""
HEADS = (
    "setting", "mode", "marked", "precision", "recall", "one kept", "several", "none", "pairs missed", "false removals",
    "far", "nearest kept: median, least",
)  # fmt: skip
ROWS = 1024


def mmfilter(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "jobs", *words], check=True, stdout=subprocess.DEVNULL)


def flags(setting: dict[str, Any]) -> list[str]:
    """The setting as options of `mmfilter dedup`."""
    words = [] if setting.get("exact", True) else ["--no-exact"]
    words += ["--hamming", str(setting["hamming"])] if "hamming" in setting else []
    return words + (["--model", "demo", "--eps", str(setting["eps"])] if "eps" in setting else [])


def figures(out: str, labels: pl.DataFrame, setting: dict[str, Any]) -> dict[str, Any]:
    """Of OUT's column duplicate_of against `read_pictures`' labels."""
    pool = Pool(out)
    found = pool.read("uid", "duplicate_of")
    copies = compare(found, labels)
    rows = found.join(labels, on="uid", maintain_order="left")
    kept = pl.col("duplicate_of") == ""
    groups = rows.group_by("picture").agg(n=pl.len(), kept=kept.sum()).filter(pl.col("n") > 1)
    n = groups["kept"].to_numpy().astype(np.int64)
    told = {
        "marked": copies.marked,
        "precision": round(copies.precision / 100, 3),
        "recall": round(copies.recall / 100, 3),
        "groups": len(n),
        "one kept": int((n == 1).sum()),
        "several": int((n > 1).sum()),
        "none": int((n == 0).sum()),
        "pairs missed": int((n * (n - 1) // 2).sum()),
        "false removals": copies.marked - copies.right,
    }
    kinds = {kind.removeprefix("duplicate_"): round(hit / size, 3) for kind, size, hit in copies.kinds}
    return {**told, **far(pool, (found["duplicate_of"] == "").to_numpy(), setting), "kinds": kinds}


def far(pool: Pool, kept: np.ndarray, setting: dict[str, Any]) -> dict[str, Any]:
    """Dropped samples that are like no kept one: how many, and how near the nearest kept one is to them."""
    dropped = np.flatnonzero(~kept)
    sha256, phash = (pool.read(name)[name] for name in ("sha256", "phash"))
    files = set(sha256.filter(pl.Series(kept)).to_list()) if setting.get("exact", True) else set()
    like = np.array([sha256[int(i)] in files for i in dropped], bool)
    cosine, bits = np.full(len(dropped), -1.0), np.full(len(dropped), 64)
    hashes, vectors = phash.to_numpy(), pool.vectors("demo")
    unit = vectors.take(np.arange(len(vectors)))
    for at in range(0, len(dropped), ROWS):
        part = dropped[at : at + ROWS]
        cosine[at : at + ROWS] = (unit[part] @ unit[kept].T).max(axis=1)
        bits[at : at + ROWS] = hamming(hashes[part][:, None], hashes[kept][None]).min(axis=1)
    if "hamming" in setting:
        like |= bits <= setting["hamming"]
    if "eps" in setting:
        like |= cosine > 1 - setting["eps"]
    values = cosine[~like] if "eps" in setting else bits[~like]
    ends = (np.median(values), values.min() if "eps" in setting else values.max()) if len(values) else ()
    return {"far": len(values), "nearest kept": [round(float(end), 3) for end in ends]}


def line(name: str, mode: str, told: dict[str, Any], eps: bool) -> str:
    """A row of the table in docs/dedup.md."""
    ends = ", ".join(f"{end:.3f}" if eps else f"{end:.0f} bits" for end in told["nearest kept"]) or "-"
    cells = [told[head] for head in HEADS[2:-1]]
    shown = [f"{cell:,}" if isinstance(cell, int) else f"{cell:.3f}" for cell in cells]
    return f"| `{name}` | {mode} | {' | '.join(shown)} | {ends} |"


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
        print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|")
        for setting in SETTINGS:
            words, modes = flags(setting), {}
            for mode in ("greedy", "groups"):
                mmfilter("dedup", out, *words, "--mode", mode, "--redo-changed", "--local")
                modes[mode] = figures(out, labels, setting)
                print(json.dumps({"setting": words, "mode": mode, **modes[mode]}), file=sys.stderr, flush=True)
            if modes["greedy"] == modes["groups"]:
                modes = {"both": modes["groups"]}
            for mode, told in modes.items():
                print(line(" ".join(words) or "(exact)", mode, told, "eps" in setting), flush=True)


if __name__ == "__main__":
    main()
