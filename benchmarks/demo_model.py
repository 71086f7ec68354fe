"""Make the demo's model again, and measure it: `python benchmarks/demo_model.py --out runs/demo-model`.

Generates 24,000 clean scenes with four captions each, trains on them (about 7 minutes on one CPU
core), and measures on pools of other seeds: AUC of true against swapped captions, and for a noisy
pool the AUC, precision and recall of each kind of noise. `--measure FOLDER` measures a model that is there.
"""

import argparse
import time
from typing import Any

import numpy as np
import polars as pl

from mmfilter.auc import auc
from mmfilter.pairs import Source, source
from mmfilter.steps import similarities
from mmfilter.synth import SynthOptions, SynthReport, generate
from mmfilter.train import Augment, TrainOptions, train

TRAIN = SynthOptions(samples=24_000, per_shard=3000, seed=20, noise=False, captions=4, workers=2)
CLEAN = SynthOptions(samples=4000, seed=900, noise=False, workers=2)
NOISY = SynthOptions(samples=8000, seed=901, workers=2)


def options(out: str) -> TrainOptions:
    """The demo model's training. The settings come from two short runs on another seed's pool."""
    return TrainOptions(
        pool="runs/demo-train",
        out=out,
        model="demo",
        samples=100_000,
        batch=128,
        lr=2e-3,
        vocabulary=1000,
        augment=Augment(crop=0.85, jitter=0.1),
        seed=7,
        threads=1,
        bf16=True,
    )


def scores(model: str, pool: Source) -> tuple[list[str], np.ndarray, np.ndarray, list[str]]:
    """uids, similarities (n,), pixels and captions of a pool."""
    kept = list(pool)
    pixels = np.stack([pair.pixels for pair in kept])
    texts = [pair.captions[0] for pair in kept]
    return [pair.uid for pair in kept], similarities(model, pixels, texts), pixels, texts


def clean_auc(model: str, pool: Source) -> float:
    """Each picture's own caption against that of the next."""
    _, true, pixels, texts = scores(model, pool)
    false = similarities(model, pixels, texts[1:] + texts[:1])
    return auc(np.concatenate([true, false]), np.repeat([True, False], len(true)))


def noisy_table(model: str, pool: Source, report: SynthReport) -> pl.DataFrame:
    """A row a kind: its AUC against the clean pairs, and the share kept at the best-F1 threshold of all matches."""
    uids, found, _, _ = scores(model, pool)
    table = pl.DataFrame({"uid": uids, "score": found}).join(pl.read_parquet(report.labels), on="uid")
    threshold = best_threshold(table["score"].to_numpy(), table["match"].to_numpy())
    clean = table.filter(pl.col("kind") == "clean")["score"].to_numpy()
    rows: list[dict[str, Any]] = []
    for (kind,), part in table.group_by("kind", maintain_order=True):
        values = part["score"].to_numpy()
        labels = np.repeat([True, False], [len(clean), len(values)])
        rows.append(
            {
                "kind": kind,
                "n": len(values),
                "mean": float(values.mean()),
                "auc_against_clean": auc(np.concatenate([clean, values]), labels),
                "kept": float((values >= threshold).mean()),
            }
        )
    kept, match = table["score"].to_numpy() >= threshold, table["match"].to_numpy()
    precision, recall = (kept & match).sum() / kept.sum(), (kept & match).sum() / match.sum()
    whole = auc(table["score"].to_numpy(), match)
    print(f"match: AUC {whole:.4f}; at {threshold:.3f} precision {precision:.3f}, recall {recall:.3f}")
    return pl.DataFrame(rows).sort("kind")


def best_threshold(values: np.ndarray, match: np.ndarray) -> float:
    """Where F1 is highest."""
    order = np.argsort(-values)
    hits = np.cumsum(match[order])
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + match.sum())
    return float(values[order][int(f1.argmax())])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/demo-model")
    parser.add_argument("--measure", default="")
    arguments = parser.parse_args()
    model = arguments.measure
    if not model:
        print(generate("runs/demo-train", TRAIN), flush=True)
        begun = time.perf_counter()
        report = train(options(arguments.out), lambda row: print(row, flush=True))
        print(f"{report.parameters:,} parameters, {time.perf_counter() - begun:.0f} s", flush=True)
        model = arguments.out
    generate("runs/demo-test", CLEAN)
    area = clean_auc(model, source("runs/demo-test", 64, True, None))
    print(f"clean pool, own against swapped captions: AUC {area:.4f}")
    noisy = generate("runs/demo-noisy", NOISY)
    with pl.Config(tbl_rows=20, float_precision=3):
        print(noisy_table(model, source("runs/demo-noisy", 64, True, None), noisy))


if __name__ == "__main__":
    main()
