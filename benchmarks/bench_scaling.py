"""How the main job scales: simulated nodes, decoders, and a driver with very many shards.

    python benchmarks/bench_scaling.py [--shards 40] [--per-shard 200] [--table nodes]
    python benchmarks/bench_scaling.py --driver 100000 [--lanes 1000]

Nodes are raylets on this machine, each with a GPU that it merely claims. The model is a stand-in that sleeps
for its device time and the decoder, where it is to be the bottleneck, one that sleeps for an image's: sleeping
takes no core, so what is measured is the job's own machinery, from the tar to the commit. `--driver`
drives empty work, and looks for what is to do among as many commits.
"""

import argparse
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from jobs.cluster import Width, with_decoders
from jobs.driver import Setup, drive
from mmfilter.preprocess import Preparation
from mmfilter.recipe import parse_recipe
from mmfilter.work import Work, plan_work

DIM, BATCH = 64, 50


@dataclass(frozen=True)
class Step:
    """A preparation's step that takes `seconds` of a decoding thread."""

    seconds: float

    def __call__(self, image: Any) -> Any:
        time.sleep(self.seconds)
        return image.convert("RGB").resize((8, 8))


class Sleeper:
    """An embedder whose device does `rate` samples/s, one batch after another, and is waited for asleep."""

    prepare_key, spec, image_size, dim = "step", SimpleNamespace(decoder="pillow"), (8, 8), DIM

    def __init__(self, rate: float, step: Step) -> None:
        self.preparation = Preparation((step,), (0.5,) * 3, (0.5,) * 3, False)
        self.rate, self.lock, self.free_at = rate, threading.Lock(), 0.0

    def submit(self, pixels: np.ndarray) -> Callable[[], np.ndarray]:
        with self.lock:
            self.free_at = done = max(self.free_at, time.monotonic()) + len(pixels) / self.rate

        def wait() -> np.ndarray:
            time.sleep(max(0.0, done - time.monotonic()))
            return self.texts(pixels)

        return wait

    def texts(self, texts: Any) -> np.ndarray:
        return np.full((len(texts), DIM), DIM**-0.5, np.float16)

    def info(self) -> dict[str, Any]:
        return {}


@dataclass(frozen=True)
class MakeSleeper:
    """What `jobs.embed.MakeEmbedder` makes, with a `Sleeper` for its model."""

    work: Work
    rate: float
    step: Step

    def __call__(self, setup: Setup) -> Callable[[str], Any]:
        from jobs.decoder import Lanes
        from mmfilter.shard import process_shard

        embedders: Any = {"m": Sleeper(self.rate, self.step)}
        work = replace(self.work, batch_size=BATCH, threads=setup.threads)
        lanes = Lanes(setup.own, setup.decoder_cpus)
        return lambda path: process_shard(path, work, embedders, lanes.source)


@contextmanager
def cluster(nodes: list[dict[str, float]]) -> Iterator[str]:
    """A head without cores and these nodes, all on this machine; its address."""
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    for node in nodes:
        made.add_node(**node)
    made.wait_for_nodes()
    try:
        yield made.address
    finally:
        ray.shutdown()
        made.shutdown()


def rate(nodes: list[dict[str, float]], paths: list[str], device: float, decode: float, threads: int) -> float:
    """Samples/s over these nodes, in the second half of the shards: the first is done while processes start."""
    recipe = parse_recipe(json.dumps({"name": "t", "embed": {"m": {"model": "demo"}}}), "t")
    with tempfile.TemporaryDirectory() as out, cluster(nodes) as address:
        width = with_decoders(Width(address=address, threads=threads))
        make = MakeSleeper(plan_work(recipe, out, {"m": "none"}), device, Step(decode))
        stamps = [(time.perf_counter(), report.ok) for _, report in drive(paths, make, width)]
    half = len(stamps) // 2
    return sum(ok for _, ok in stamps[half:]) / (stamps[-1][0] - stamps[half - 1][0])


def pool(folder: str, shards: int, each: int) -> list[str]:
    """Shards of small pictures."""
    from mmfilter.storage import expand
    from mmfilter.synth import SynthOptions, generate

    generate(folder, SynthOptions(shards * each, each, seed=5, workers=os.cpu_count() or 1))
    return expand(folder)


GPU = {"num_cpus": 2, "num_gpus": 1}


def nodes_table(paths: list[str], device: float) -> None:
    print(f"device {device:g} samples/s a GPU, decoding free\n")
    print("| nodes | samples/s | the devices' | ratio |\n|---|---|---|---|")
    for n in (1, 2, 4):
        got, most = rate([GPU] * n, paths, device, 0.0, 2), n * device
        print(f"| {n} | {got:,.0f} | {most:,.0f} | {got / most:.2f} |", flush=True)


def decoders_table(paths: list[str], device: float, decode: float) -> None:
    """A worker has two shards in flight: with a thread for each its two cores are in use."""
    print(f"\none GPU of {device:g} samples/s with 2 cores, decoding {decode:g} images/s a core\n")
    print("| CPU nodes of 4 cores | cores in all | samples/s | the least of both | ratio |\n|---|---|---|---|---|")
    for n in (0, 1, 2):
        got, most = rate([GPU, *[{"num_cpus": 4}] * n], paths, device, 1 / decode, 1), min(device, (2 + 4 * n) * decode)
        print(f"| {n} | {2 + 4 * n} | {got:,.0f} | {most:,.0f} | {got / most:.2f} |", flush=True)


def memory() -> float:
    """This process's resident MB."""
    fields = Path("/proc/self/status").read_text()
    return int(fields.split("VmRSS:")[1].split()[0]) / 1024


class Nothing:
    """Empty work."""

    def __call__(self, setup: Setup) -> Callable[[str], int]:
        return lambda path: 0


def driver(n: int, lanes: int) -> None:
    """Empty work over n shards, `lanes` at a time by one worker; then n commits looked through."""
    from jobs.embed import find_todo

    paths = [f"/pool/{i:08d}.tar" for i in range(n)]
    print(f"{lanes} shards in flight\n")
    print("| shards back | minutes | shards/s | driver's ms of a core, a shard | driver's memory, MB |")
    print("|---|---|---|---|---|")
    marks = {max(1, n * part // 100) for part in (1, 10, 50, 100)}
    for seen, _ in enumerate(drive(paths, Nothing(), Width(workers=1, gpus=0, decoders=lanes - 1)), 1):
        if seen == 1:
            started, used = time.perf_counter(), time.process_time()
        if seen in marks:
            took, each = time.perf_counter() - started, (time.process_time() - used) / seen * 1000
            print(f"| {seen:,} | {took / 60:.2f} | {seen / took:,.0f} | {each:.2f} | {memory():.0f} |", flush=True)
    with tempfile.TemporaryDirectory() as out:
        recipe = parse_recipe(json.dumps({"name": "t", "embed": {"m": {"model": "demo"}}}), "t")
        work = plan_work(recipe, out, {"m": "none"})
        commit = {"parts": dict(work.parts), "input": None, "counts": {"read": 1, "ok": 1, "failed": {}}}
        os.makedirs(f"{out}/metadata")
        for done, said in ((0, "nothing done"), (n // 2, "half of them done"), (n, "all done")):
            for i in range(done // 2 if done == n else 0, done):
                Path(f"{out}/metadata/{i:08d}.json").write_text(json.dumps(commit))
            subprocess.run(["sync", "-f", out], check=True)
            started = time.perf_counter()
            left = len(find_todo(paths, work))
            print(f"what is to do, {said}: {time.perf_counter() - started:.1f} s ({left:,} left), {memory():.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=40)
    parser.add_argument("--per-shard", type=int, default=200)
    parser.add_argument("--device", type=float, default=60, help="samples/s of a GPU")
    parser.add_argument("--decode", type=float, default=25, help="images/s of a core, where that is the bottleneck")
    parser.add_argument("--driver", type=int, default=0, metavar="SHARDS", help="drive so many empty shards instead")
    parser.add_argument("--lanes", type=int, default=2, help="shards in flight, of the empty ones")
    parser.add_argument("--table", choices=["nodes", "decoders"], help="one of the two")
    args = parser.parse_args()
    if args.driver:
        driver(args.driver, args.lanes)
        return
    with tempfile.TemporaryDirectory() as root:
        paths = pool(f"{root}/pool", args.shards, args.per_shard)
        if args.table != "decoders":
            nodes_table(paths, args.device)
        if args.table != "nodes":
            decoders_table(paths, 4 * args.device, args.decode)


if __name__ == "__main__":
    main()
