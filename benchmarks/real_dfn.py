"""A data filtering network trained on real photographs: `python benchmarks/real_dfn.py`.

Trains from scratch, by `mmfilter.train`, on 2,000 photographs with five captions each, and says how
well it tells true captions from wrong ones on 800 photographs it has not seen. Nothing is chosen by
those: `--validate` holds out a tenth of the 2,000 and measures on that, which is how the settings were found.
"""

import argparse
import json
import os
import tarfile
import tempfile

import numpy as np
import polars as pl

from mmfilter.auc import auc
from mmfilter.pairs import square
from mmfilter.steps import similarities
from mmfilter.train import Augment, TrainOptions, TrainReport, train

CONFIG = {
    "model_cfg": {
        "embed_dim": 128,
        "custom_text": True,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 24, "head_width": 64},
        "text_cfg": {"context_length": 40, "vocab_size": 514, "width": 128, "heads": 4, "layers": 2},
    }
}


def fit(data: str, out: str, arguments: argparse.Namespace) -> TrainReport:
    """Train on the clean part."""
    config = os.path.join(out, "config.json")
    with open(config, "w", encoding="utf-8") as stream:
        json.dump(CONFIG, stream)
    options = TrainOptions(
        pool=os.path.join(data, "clean"),
        out=os.path.join(out, "model"),
        model=config,
        holdout=0.1 if arguments.validate else 0.0,
        samples=arguments.samples,
        batch=arguments.batch,
        lr=arguments.lr,
        weight_decay=arguments.decay,
        vocabulary=arguments.vocabulary,
        augment=Augment(crop=arguments.crop, jitter=arguments.jitter, flip=True),
        seed=arguments.seed,
        threads=arguments.threads,
        bf16=not arguments.fp32,
    )
    every = max(1, arguments.samples // arguments.batch // 10)
    return train(options, lambda row: print(row, flush=True) if row["step"] % every == 0 else None)


def photographs(data: str) -> np.ndarray:
    """(800, 64, 64, 3) uint8, in the task's order: the shard's."""
    pixels = []
    with tarfile.open(os.path.join(data, "tasks/flickr_retrieval/test/0.tar")) as tar:
        for member in tar:
            file = tar.extractfile(member)
            if file is not None and member.name.endswith((".jpg", ".png", ".webp", ".jpeg")):
                picture = square(file.read(), 64, squash=False)
                assert picture is not None, member.name
                pixels.append(picture)
    return np.stack(pixels)


def arguments_of(words: list[str] | None = None) -> argparse.Namespace:
    """The settings, by default those that were validated."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", default=os.environ.get("MMFILTER_DATA", "../shared/data"))
    parser.add_argument("--validate", action="store_true")
    parser.add_argument("--samples", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--decay", type=float, default=0.2)
    parser.add_argument("--vocabulary", type=int, default=1500)
    parser.add_argument("--crop", type=float, default=0.6)
    parser.add_argument("--jitter", type=float, default=0.2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--fp32", action="store_true", help="for a processor that has no bfloat16: fifty times faster there"
    )
    return parser.parse_args(words)


def main() -> None:
    arguments = arguments_of()
    with tempfile.TemporaryDirectory() as out:
        report = fit(arguments.data, out, arguments)
        if arguments.validate:
            print(f"seed {arguments.seed}: held-out part of the training photographs, AUC {report.auc:.3f}")
            return
        table = pl.read_parquet(os.path.join(arguments.data, "tasks/flickr_retrieval/match_pairs.parquet"))
        images = photographs(arguments.data)[table["image"].to_numpy()]
        found = similarities(os.path.join(out, "model"), images, table["text"].to_list())
        result = auc(found, table["match"].to_numpy().astype(bool))
        print(f"seed {arguments.seed}, {report.seconds:.0f} s: 1,600 pairs of unseen photographs, AUC {result:.3f}")


if __name__ == "__main__":
    main()
