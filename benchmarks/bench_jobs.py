"""The main job: one process against Ray on the same shards, and what the next runs cost.

    python benchmarks/bench_jobs.py [--samples 6000] [--per-shard 500]

A generated pool and the packaged demo model. Ray's start and the loading of models are timed apart ("ready");
the work is timed from the first shard sent to the last one back. One in-process run and one worker do
the same work on one thread each, so their ratio is what Ray costs.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

from jobs import resting
from jobs.cluster import Width, start_ray
from jobs.driver import drive
from jobs.embed import MakeEmbedder, embed_pool
from jobs.pool_scores import add_pool_scores
from jobs.score import score_pool
from jobs.select import select_subset
from mmfilter.recipe import Recipe, load_recipe
from mmfilter.scores import build_score
from mmfilter.storage import expand
from mmfilter.synth import SynthOptions, generate
from mmfilter.work import plan_work


def timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def work_seconds(recipe: Recipe, paths: list[str], out: str, width: Width, rested: bool = False) -> tuple[float, float]:
    """(seconds until workers are ready, seconds of work): the first shard is a warm-up and not counted. `rested`: by
    the workers of the job before.
    """
    if not rested:
        resting.dismiss()
    make = MakeEmbedder(plan_work(recipe, out, {}), recipe.embed)
    stamps, started = [], time.perf_counter()
    for _ in drive(paths, make, width):
        stamps.append(time.perf_counter())
    warm = max(1, width.workers or 1)
    return stamps[warm - 1] - started, (stamps[-1] - stamps[warm - 1]) * len(paths) / (len(paths) - warm)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=6000)
    parser.add_argument("--per-shard", type=int, default=500)
    parser.add_argument("--repeat", type=int, default=3)
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    recipe = load_recipe("demo")
    with tempfile.TemporaryDirectory() as root:
        generate(f"{root}/pool", SynthOptions(args.samples, args.per_shard, seed=5, workers=os.cpu_count() or 1))
        paths = expand(f"{root}/pool")
        started = timed(lambda: start_ray(None))
        widths = {"alone": Width(local=True), "one": Width(workers=1, gpus=0), "two": Width(workers=2, gpus=0)}
        best, ready = dict.fromkeys(widths, float("inf")), 0.0
        for turn in range(args.repeat):  # interleaved: Ray's own start-up still takes a core for a while
            for name, width in widths.items():
                first, seconds = work_seconds(recipe, paths, f"{root}/{name}{turn}", width)
                best[name], ready = min(best[name], seconds), ready or first * (name == "one")
        alone, one, two = best.values()
        rested = work_seconds(recipe, paths, f"{root}/rested", widths["two"], rested=True)[0]
        embed_pool(recipe, paths, f"{root}/d", Width(workers=2, gpus=0))
        again = timed(lambda: embed_pool(recipe, paths, f"{root}/d", Width(workers=2, gpus=0)))
        add_pool_scores(recipe.pool_scores, f"{root}/d", Width(workers=2, gpus=0))
        rules = timed(lambda: select_subset(recipe, f"{root}/d", "demo"))
        plain = replace(recipe, scores=recipe.scores[:2], pool_scores=())
        later = replace(plain, scores=(*plain.scores, build_score({"caption": {}}, "scores[2]")))
        embed_pool(plain, paths, f"{root}/e", Width(workers=2, gpus=0))
        added = timed(lambda: score_pool(later, f"{root}/e"))
    n = args.samples
    print(f"{n} samples, {len(paths)} shards, {os.cpu_count()} cores")
    print(f"{'':<34}{'seconds':>9}{'samples/s':>11}{'ratio':>8}")
    print(f"{'one process':<34}{alone:>9.2f}{n / alone:>11,.0f}{1:>8.2f}")
    print(f"{'Ray, 1 worker':<34}{one:>9.2f}{n / one:>11,.0f}{alone / one:>8.2f}")
    print(f"{'Ray, 2 workers':<34}{two:>9.2f}{n / two:>11,.0f}{alone / two:>8.2f}")
    for name, seconds in (
        ("Ray's start", started),
        ("workers, first use to ready", ready),
        ("workers of the job before", rested),
        ("second run: nothing to do", again),
        ("a rule changed: select again", rules),
        ("a text score added later", added),
    ):
        print(f"{name:<34}{seconds:>9.2f}")


if __name__ == "__main__":
    main()
