"""Pairs a second: the bare model, clip-retrieval's way, and ours, on the same shards in the same run.

    python benchmarks/bench_embed.py --pool '../shared/data/pool/{00000000..00000009}.tar' --samples 96
    python benchmarks/bench_embed.py --device cuda --samples 5000 --batch 256 --workers 16

bare        the model on preloaded float tensors, captions padded to 77 tokens: no reading, no decoding
bare, cut   the same with captions cut as ours are: what a perfect pipeline would reach
clip-r.     clip-retrieval's algorithm: open_clip's transform in DataLoader workers, float tensors across
            processes and the bus, captions padded to 77
ours        bytes of the shard to fp16 rows through `mmfilter.embed`, decoding in threads

Rounds are interleaved and the best of each is taken, so that a noisy neighbour hurts all alike.
"""

import argparse
import io
import platform
import tarfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
import torch
from PIL import Image

from mmfilter.embed import Embedder, load
from mmfilter.flops import flops
from mmfilter.storage import expand
from mmfilter.weights import ModelSpec


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
    """Decode in threads a few batches ahead; two threads feed the model, so that its queue never empties."""

    def prepare(pair: tuple[bytes, str]) -> np.ndarray:
        return embedder.prepare(Image.open(io.BytesIO(pair[0])))

    def embed(chunk: list[tuple[bytes, str]], pixels: list) -> None:
        embedder.images(np.stack([p.result() for p in pixels]))

    def run() -> None:
        source, captions, waiting = islice(pairs(shards), args.samples), [], []
        with ThreadPoolExecutor(args.workers) as decoders, ThreadPoolExecutor(2 if embedder.cuda else 1) as feeders:
            while chunk := list(islice(source, args.batch)):
                captions += [text for _, text in chunk]
                pixels = [decoders.submit(prepare, pair) for pair in chunk]
                waiting.append(feeders.submit(embed, chunk, pixels))
                if len(waiting) >= 4:
                    waiting.pop(0).result()
            waiting.append(feeders.submit(embedder.texts, captions))
            for step in waiting:
                step.result()

    return run


def peak(device: torch.device) -> float:
    """Operations a second of a large matrix product, in the precision the model runs in."""
    n, kind = (8192, torch.bfloat16) if device.type == "cuda" else (1024, torch.float32)
    a = torch.randn(n, n, device=device, dtype=kind)
    best = float("inf")
    for _ in range(8):
        start = time.perf_counter()
        (a @ a).sum().item()
        best = min(best, time.perf_counter() - start)
    return 2 * n**3 / best


def measure(ways: dict[str, Callable[[], None]], args: argparse.Namespace, cuda: bool) -> dict[str, float]:
    rates = dict.fromkeys(ways, 0.0)
    for _ in range(args.rounds):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if cuda:
                torch.cuda.synchronize()
            rates[name] = max(rates[name], args.samples / (time.perf_counter() - start))
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
    parser.add_argument("--decoder", default="pillow")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    spec = ModelSpec(model=args.model, pretrained="random", seed=0, decoder=args.decoder)
    embedder = load("bench", spec, args.device, args.batch)
    shards = expand(args.pool)
    samples = list(islice(pairs(shards), args.samples))
    args.samples = len(samples)
    ways = {
        "bare": bare(embedder, samples, args.batch, cut=False),
        "bare, cut": bare(embedder, samples, args.batch, cut=True),
        "clip-r.": clip_retrieval(embedder, shards, args),
        "ours": ours(embedder, shards, args),
    }
    ways["bare"](), ways["ours"]()  # warm up
    rates = measure(ways, args, embedder.cuda)
    tower = embedder.text_tower
    tokens = float(tower.lengths(tower.tokens([text for _, text in samples])).mean())
    cost = flops(spec)
    floor = peak(embedder.device) / (cost.image + cost.caption(round(tokens)))
    where = (
        torch.cuda.get_device_name() if embedder.cuda else f"{platform.processor()} {torch.get_num_threads()} threads"
    )
    print(f"{args.model}, {len(samples)} pairs, {tokens:.1f} tokens a caption, batch {args.batch}, {where}")
    print(f"{'':10s} {'pairs/s':>9s} {'of bare':>8s} {'of bare, cut':>13s} {'of clip-r.':>11s}")
    for name, rate in {**rates, "floor": floor}.items():
        shares = [rate / rates[other] for other in ("bare", "bare, cut", "clip-r.")]
        print(f"{name:10s} {rate:9.1f} {shares[0]:8.2f} {shares[1]:13.2f} {shares[2]:11.2f}")
    if embedder.cuda:
        print(f"device idle: {max(0.0, 1 - rates['ours'] / rates['bare, cut']):.1%} (1 - ours / bare, cut)")


if __name__ == "__main__":
    main()
