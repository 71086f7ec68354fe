"""Resharding: `cp` of the same bytes, ours, and a webdataset read-write loop, on one pool in one run.

    python benchmarks/bench_reshard.py [--pool FOLDER] [--samples 9000] [--kb 111] [--work FOLDER]

Without --pool a pool is generated: samples of --kb kilobytes (noise in place of an image: nothing is
decoded). Every way writes all samples of the pool; inputs are in the page cache for all; the best of
--repeat rounds counts. "on disk" adds the flush to disk, which ours does for every shard it commits
and the others leave to chance: compare like with like. "cpu" is processor seconds, of all processes:
on a machine that others use too, that is the figure to trust.
"""

import argparse
import glob
import json
import os
import random
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np

from mmfilter.reshard import begin, finish, write_output
from mmfilter.reshard_plan import ReshardOptions, plan_output
from mmfilter.shard_index import index_shard
from mmfilter.subset import Subset
from mmfilter.tar import END, header, pad


def generate(folder: str, samples: int, kb: float, per_shard: int = 1000) -> list[str]:
    """A pool of `samples` samples of about `kb` kB each; the same for the same arguments."""
    os.makedirs(folder)
    draw = random.Random(0)
    for shard in range(-(-samples // per_shard)):
        with open(f"{folder}/{shard:08d}.tar", "wb") as out:
            for n in range(shard * per_shard, min(samples, (shard + 1) * per_shard)):
                meta = {"uid": f"{draw.getrandbits(128):032x}", "url": f"http://x.invalid/{n}.jpg", "width": 512}
                image = draw.randbytes(round(kb * 1000 * draw.uniform(0.5, 1.5)))
                parts = {"jpg": image, "txt": b"a caption of some length", "json": json.dumps(meta).encode()}
                for ext, data in parts.items():
                    out.write(header(f"{n:012d}.{ext}", len(data)) + data + pad(len(data)))
            out.write(END)
    return sorted(glob.glob(f"{folder}/*.tar"))


def copy(paths: list[str], out: str) -> None:
    subprocess.run(["cp", *paths, out], check=True)


def ours(paths: list[str], out: str, workers: int, subset: Subset, per_shard: int) -> None:
    """Index, plan, write and finish: all that a reshard does."""
    options = ReshardOptions(max_samples=per_shard)
    if workers == 1:
        plan = plan_output([index_shard(path, wanted=subset) for path in paths], subset, options)
        begin(plan, out)
        for shard in plan.shards:
            write_output(shard, out)
    else:
        with ProcessPoolExecutor(workers) as pool:
            plan = plan_output(list(pool.map(partial(index_shard, wanted=subset), paths)), subset, options)
            begin(plan, out)
            list(pool.map(partial(write_output, folder=out), plan.shards))
    finish(plan, out, workers)


def webdataset_loop(paths: list[str], out: str, per_shard: int) -> None:
    """The usual way: read samples, parse the json for the uid, write them with ShardWriter."""
    import webdataset as wds

    with wds.ShardWriter(f"{out}/%08d.tar", maxcount=per_shard, verbose=0) as writer:
        for sample in wds.WebDataset(paths, shardshuffle=False):
            uid = json.loads(sample["json"])["uid"]
            parts = {name: data for name, data in sample.items() if not name.startswith("__")}
            writer.write({"__key__": f"{uid}-0", **parts})


def cpu() -> float:
    """Processor seconds of this process and its finished children, in the system's part too."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def timed(work: Callable[[str], None], root: str) -> tuple[float, float, float]:
    """Seconds until it returned, seconds until its bytes were on disk, processor seconds."""
    out = tempfile.mkdtemp(dir=root)
    os.sync()
    started, spent = time.perf_counter(), cpu()
    work(out)
    returned, spent = time.perf_counter() - started, cpu() - spent
    for name in os.listdir(out):
        with open(os.path.join(out, name), "rb") as stream:
            os.fsync(stream.fileno())
    flushed = time.perf_counter() - started
    shutil.rmtree(out)
    return returned, flushed, spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", help="a folder of shards; without it one is generated")
    parser.add_argument("--samples", type=int, default=9000)
    parser.add_argument("--kb", type=float, default=111)
    parser.add_argument("--per-shard", type=int, default=1000, help="samples of an output shard")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--work", help="where to write (default: the temporary folder); /dev/shm takes the disk out")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as root:
        paths = sorted(glob.glob(f"{args.pool or root}/*.tar"))
        paths = paths or generate(f"{root}/pool", args.samples, args.kb)
        subset = Subset(np.concatenate([index_shard(path).uids for path in paths]))
        ways = {
            "cp": partial(copy, paths),
            "mmfilter, 1 worker": partial(ours, paths, workers=1, subset=subset, per_shard=args.per_shard),
            "mmfilter, 2 workers": partial(ours, paths, workers=2, subset=subset, per_shard=args.per_shard),
            "webdataset loop": partial(webdataset_loop, paths, per_shard=args.per_shard),
        }
        rounds = [{name: timed(work, root) for name, work in ways.items()} for _ in range(args.repeat)]
    table(rounds, len(subset))


def table(rounds: list[dict[str, tuple[float, float, float]]], samples: int) -> None:
    print(f"{samples} samples, best of {len(rounds)}; ratios are speeds, higher is better")
    print(
        f"{'':22}{'seconds':>9}{'x cp':>7}{'x wds':>7}{'on disk':>10}{'x cp':>7}{'x wds':>7}{'cpu':>7}{'samples/s':>11}"
    )
    best = {name: tuple(min(r[name][i] for r in rounds) for i in (0, 1, 2)) for name in rounds[0]}
    for name, seconds in best.items():
        cells = f"{name:22}"
        for i in (0, 1):
            ratios = (best[rival][i] / seconds[i] for rival in ("cp", "webdataset loop"))
            cells += f"{seconds[i]:>{9 + i}.2f}" + "".join(f"{ratio:>7.2f}" for ratio in ratios)
        print(f"{cells}{seconds[2]:>7.2f}{samples / seconds[1]:>11,.0f}")


if __name__ == "__main__":
    main()
