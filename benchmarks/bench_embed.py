"""Pairs a second: the bare model, clip-retrieval's way, and ours, on the same shards in the same run.

    python benchmarks/bench_embed.py --pool '../shared/data/pool/{00000000..00000009}.tar' --samples 96
    python benchmarks/bench_embed.py --device cuda --samples 5000 --batch 256 --workers 16

bare        the model on preloaded float tensors, captions padded to 77 tokens: no reading, no decoding
bare, cut   the same with captions cut as ours are: what a perfect pipeline would reach
clip-r.     clip-retrieval's algorithm: open_clip's transform in DataLoader workers, float tensors across
            processes and the bus, captions padded to 77
ours        `process_shard`: bytes of the shard to parquet and npz on disk, clip score included

Rounds are interleaved and the best of each is taken, so that a noisy neighbour hurts all alike. On a
CPU the ratios are of processor time, all processes counted, which a busy machine disturbs less;
there the model runs on one thread, and OMP_NUM_THREADS=1 keeps the others from spinning.
"""

import argparse
import io
import platform
import resource
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np
import torch
from PIL import Image

from mmfilter.embed import Embedder, load
from mmfilter.fields import ReadOptions
from mmfilter.flops import flops
from mmfilter.scores import build_score
from mmfilter.shard import process_shard
from mmfilter.storage import expand
from mmfilter.weights import ModelSpec
from mmfilter.work import Work, score_part


def pairs(shards: list[str]) -> Iterator[tuple[bytes, str]]:
    """(image bytes, caption) of every sample, read alike for everyone."""
    for shard in shards:
        with tarfile.open(shard) as tar:
            image = b""
            for member in tar:
                data = tar.extractfile(member).read()
                if member.name.endswith(".jpg"):
                    image = data
                elif member.name.endswith(".txt"):
                    yield image, data.decode("utf-8", "replace")


def normalised(embedder: Embedder, images: torch.Tensor, tokens: torch.Tensor) -> None:
    """One step of both towers, as everyone runs it; waits for nothing but the copy back."""
    with torch.inference_mode(), torch.autocast(embedder.device.type, torch.bfloat16, enabled=embedder.cuda):
        for features in (embedder.model.encode_image(images), embedder.text_tower(tokens)):
            torch.nn.functional.normalize(features.float(), dim=-1).half().cpu().numpy()


def bare(embedder: Embedder, samples: list[tuple[bytes, str]], batch: int, cut: bool) -> Callable[[], None]:
    """The model alone. Preloading is done here, before the clock starts."""
    tower, device = embedder.text_tower, embedder.device
    images = torch.rand(batch, 3, *embedder.image_size, device=device)
    tokens = tower.tokens([text for _, text in samples])
    lengths = tower.lengths(tokens)
    tokens = torch.from_numpy(tokens[np.argsort(lengths)] if cut else tokens).to(device)
    lengths = np.sort(lengths) if cut else np.full(len(tokens), tokens.shape[1])
    steps = [(start, embedder._width(lengths[start : start + batch], tokens)) for start in range(0, len(tokens), batch)]

    def run() -> None:
        for start, width in steps:
            part = tokens[start : start + batch, :width]
            normalised(embedder, images[: len(part)], part)

    return run


class Shards(torch.utils.data.IterableDataset):
    """A worker takes every n-th sample, decodes and transforms it to float tensors."""

    def __init__(self, shards: list[str], samples: int, transform: object, tokenizer: object) -> None:
        self.shards, self.samples, self.transform, self.tokenizer = shards, samples, transform, tokenizer

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        torch.set_num_threads(1)
        worker = torch.utils.data.get_worker_info()
        for data, text in islice(pairs(self.shards), worker.id, self.samples, worker.num_workers):
            yield self.transform(Image.open(io.BytesIO(data))), self.tokenizer([text])[0]


def clip_retrieval(embedder: Embedder, shards: list[str], args: argparse.Namespace) -> Callable[[], None]:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform = image_transform_v2(PreprocessCfg(**embedder.model.visual.preprocess_cfg), is_train=False)
    data = Shards(shards, args.samples, transform, embedder.text_tower.tokenizer)
    options = {"batch_size": args.batch, "num_workers": args.workers, "pin_memory": embedder.cuda}

    def run() -> None:
        for images, tokens in torch.utils.data.DataLoader(data, **options):
            normalised(embedder, images.to(embedder.device), tokens.to(embedder.device))

    return run


def ours(embedder: Embedder, shards: list[str], args: argparse.Namespace) -> Callable[[], None]:
    """The pass itself, into a folder that is new each time."""
    score = build_score({"clip_similarity": {"model": "m"}}, "benchmark")

    def run() -> None:
        with tempfile.TemporaryDirectory() as out:
            parts = {"embed:m": {}, score_part(score): {}}
            work = Work(out, {"m": embedder.spec}, (score,), ReadOptions(), parts, args.batch, args.workers)
            for shard in shards:
                report = process_shard(shard, work, {"m": embedder})
                assert report.ok == args.samples, report.failed

    return run


def cut(pool: str, samples: int, folder: str) -> str:
    """The pool's first samples as one shard, so that everyone reads the same."""
    path, left = f"{folder}/00000000.tar", 3 * samples
    with tarfile.open(path, "w") as out:
        for shard in expand(pool):
            with tarfile.open(shard) as tar:
                for member in islice(tar, left):
                    out.addfile(member, tar.extractfile(member))
                    left -= 1
    return path


def peak(device: torch.device) -> float:
    """Operations a second of a large matrix product, in the precision the model runs in."""
    n, kind = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a = torch.randn(n, n, device=device, dtype=kind)
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    best = float("inf")
    for _ in range(20):
        start = clock()
        (a @ a)[0, 0].item()
        best = min(best, clock() - start)
    return 2 * n**3 / best


def processor_seconds() -> float:
    """Of this process and of its children that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def measure(ways: dict[str, Callable[[], None]], args: argparse.Namespace) -> dict[str, tuple[float, float]]:
    """Name -> (pairs a second, pairs a processor second), each the best of the rounds."""
    rates = dict.fromkeys(ways, (0.0, 0.0))
    for _ in range(args.rounds):
        for name, run in ways.items():
            start, used = time.perf_counter(), processor_seconds()
            run()
            now = args.samples / (time.perf_counter() - start), args.samples / (processor_seconds() - used)
            rates[name] = max(rates[name][0], now[0]), max(rates[name][1], now[1])
    return rates


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", default="../shared/data/pool/{00000000..00000009}.tar")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--samples", type=int, default=96)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    if args.device == "cpu":
        torch.set_num_threads(1)
    embedder = load("m", ModelSpec(model=args.model, pretrained="random", seed=0), args.device, args.batch)
    with tempfile.TemporaryDirectory() as folder:
        shard = cut(args.pool, args.samples, folder)
        samples = list(pairs([shard]))
        args.samples = len(samples)
        ways = {
            "bare": bare(embedder, samples, args.batch, cut=False),
            "bare, cut": bare(embedder, samples, args.batch, cut=True),
            "clip-r.": clip_retrieval(embedder, [shard], args),
            "ours": ours(embedder, [shard], args),
        }
        ways["bare"](), ways["ours"]()  # warm up
        show(embedder, measure(ways, args), [text for _, text in samples], args)


def show(embedder: Embedder, rates: dict[str, tuple[float, float]], texts: list[str], args: argparse.Namespace) -> None:
    tower, cost = embedder.text_tower, flops(embedder.spec)
    tokens = float(tower.lengths(tower.tokens(texts)).mean())
    rate = peak(embedder.device) / (cost.image + cost.caption(round(tokens)))
    where = torch.cuda.get_device_name() if embedder.cuda else f"{platform.machine()}, one thread for the model"
    print(f"{args.model}, {len(texts)} pairs, {tokens:.1f} tokens a caption, batch {args.batch}, {where}")
    print(f"{'':10s} {'pairs/s':>9s} {'pairs/core-s':>13s} {'of bare':>8s} {'of bare, cut':>13s} {'of clip-r.':>11s}")
    by = 0 if embedder.cuda else 1
    for name, both in {**rates, "floor": (rate, rate)}.items():
        shares = [both[by] / rates[other][by] for other in ("bare", "bare, cut", "clip-r.")]
        print(f"{name:10s} {both[0]:9.1f} {both[1]:13.1f} {shares[0]:8.2f} {shares[1]:13.2f} {shares[2]:11.2f}")
    if embedder.cuda:
        idle = max(0.0, 1 - rates["ours"][0] / rates["bare, cut"][0])
        print(f"device idle: {idle:.1%} (1 - ours / bare, cut)")


if __name__ == "__main__":
    main()
