"""Images a second from JPEG bytes to a model's uint8 pixels: Pillow-exact and the fast option, and the drift.

    python benchmarks/bench_prepare.py --pool '../shared/data/pool/00000000.tar' --sides 224 512 1024

The pool's images are scaled to each longest side and encoded again, since JPEG's own scaling pays
only on large ones. The drift is 1 - cosine between the embeddings of the two, under `--model`.
"""

import argparse
import io
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from bench_embed import pairs
from PIL import Image

from mmfilter.embed import Embedder, load
from mmfilter.preprocess import draft
from mmfilter.storage import expand
from mmfilter.weights import ModelSpec


def scaled(data: bytes, side: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    ratio = side / max(image.size)
    stream = io.BytesIO()
    size = [max(1, round(length * ratio)) for length in image.size]
    image.resize(size, Image.Resampling.BICUBIC).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def exact(embedder: Embedder) -> Callable[[bytes], np.ndarray]:
    return lambda data: embedder.prepare(Image.open(io.BytesIO(data)))


def fast(embedder: Embedder) -> Callable[[bytes], np.ndarray]:
    side = max(embedder.image_size)
    return lambda data: embedder.prepare(draft(data, side) or Image.open(io.BytesIO(data)))


def rate(work: Callable[[bytes], np.ndarray], files: list[bytes], threads: int, rounds: int = 3) -> float:
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(rounds):
            start = time.perf_counter()
            list(pool.map(work, files))
            best = max(best, len(files) / (time.perf_counter() - start))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="../shared/data/pool/00000000.tar")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--sides", type=int, nargs="+", default=[224, 512, 1024])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--embedded", type=int, default=32, help="images for the drift")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    fields = {"model": args.model} if "/" in args.model or args.model == "demo" else {}
    fields = fields or {"model": args.model, "pretrained": "random", "seed": 0}
    embedders = {d: load("bench", ModelSpec(**fields, decoder=d)) for d in ("pillow", "fast")}
    works = {"pillow": exact(embedders["pillow"]), "fast": fast(embedders["fast"])}
    torch.set_num_threads(1)
    originals = [data for data, _ in itertools.islice(pairs(expand(args.pool)), args.images)]
    print(f"images/s to {embedders['pillow'].image_size}, {args.model}, {len(originals)} images")
    many = f"{args.threads} threads"
    print(f"{'side':>5s} {'decoder':8s} {'1 thread':>9s} {many:>10s} {'ratio':>6s} {'drift, worst':>13s}")
    for side in args.sides:
        files = [scaled(data, side) for data in originals]
        rates = {name: (rate(work, files, 1), rate(work, files, args.threads)) for name, work in works.items()}
        few = files[: args.embedded]
        rows = {n: embedders["pillow"].images(np.stack([w(d) for d in few])).astype(float) for n, w in works.items()}
        norms = {name: np.linalg.norm(row, axis=1) for name, row in rows.items()}
        cosine = (rows["pillow"] * rows["fast"]).sum(1) / norms["pillow"] / norms["fast"]
        for name, (one, many) in rates.items():
            drift = f"{1 - cosine.min():13.1e}" if name == "fast" else f"{'0':>13s}"
            print(f"{side:5d} {name:8s} {one:9.0f} {many:10.0f} {one / rates['pillow'][0]:6.2f} {drift}")


if __name__ == "__main__":
    main()
