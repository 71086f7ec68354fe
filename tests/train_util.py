"""A tiny model and a small clean pool to train on."""

import json

import polars as pl

from mmfilter.synth import SynthOptions, generate

CONFIG = {
    "model_cfg": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 32},
        "text_cfg": {"context_length": 32, "vocab_size": 600, "width": 32, "heads": 2, "layers": 1},
    },
    "preprocess_cfg": {"resize_mode": "squash"},
}


def make_pool(out, samples=240):
    generate(out, SynthOptions(samples=samples, per_shard=80, seed=3, size=64, noise=False, captions=2))
    return out


def write_config(folder):
    path = folder / "micro.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


def uids_of(pool, shards=3):
    """Sorted uids of the pool."""
    return sorted(pl.concat([pl.read_parquet(f"{pool}/{s:08d}.parquet") for s in range(shards)])["uid"].to_list())
