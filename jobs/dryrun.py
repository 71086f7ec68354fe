"""`--dry-run`: what a run would do and what it would cost, without a model or a worker started."""

import json
import time
from collections import Counter
from typing import Any

from mmfilter import storage
from mmfilter.check import check_models
from mmfilter.errors import MMFilterError
from mmfilter.expected import stated_count
from mmfilter.form import look_at_form
from mmfilter.hub import nothing_fetched
from mmfilter.recipe import Recipe

from .embed import find_todo, work_of
from .run import RunOptions
from .run_pool import lines as pool_lines
from .run_pool import run_pool
from .shards import lines as missing_lines
from .shards import note
from .terminal import print

CAPTION_TOKENS = 16  # a caption of natural length, both ends counted


def say(recipe: Recipe, paths: list[str], asked: RunOptions, as_json: bool) -> None:
    """Print the estimate."""
    cost = estimate(recipe, paths, asked)
    print(json.dumps(cost, indent=1) if as_json else "\n".join(_lines(cost)))


def estimate(recipe: Recipe, paths: list[str], asked: RunOptions) -> dict[str, Any]:
    """Shards and samples to do, bytes to read, FLOPs by model, and seconds at this machine's measured rate.

    Samples come from the `_stats.json` beside each shard, where there is one, and else from the mean of those that
    have one. Weights that are not on this machine are named. Raises UsageError for a mistake in a model, ConflictError
    as the run itself would.
    """
    todo = find_todo(paths, work_of(recipe, asked.out))
    counts = {path: stated_count(path) for path in todo}
    known = [n for n in counts.values() if n is not None]
    mean = sum(known) / len(known) if known else 0
    samples = round(sum(mean if n is None else n for n in counts.values()))
    parts = Counter(part for missing in todo.values() for part in missing)
    models = {}
    for name, spec in recipe.embed.items():
        if parts[f"embed:{name}"]:
            share = parts[f"embed:{name}"] / max(len(todo), 1)
            models[name] = {
                "gflop_a_sample": round(_gflop(spec), 2),
                "pflop": round(_gflop(spec) * samples * share / 1e6, 4),
            }
    with nothing_fetched():
        absent = check_models(recipe, models)
    form = look_at_form(list(todo), recipe.read)
    rate = matmul_rate() if models else 0.0
    pflop = sum(model["pflop"] for model in models.values())
    return {
        "recipe": recipe.name,
        "shards": len(paths),
        "shards_to_do": len(todo),
        "missing": note(asked.missing),
        "pool": run_pool(asked.out, paths, in_portions=False).noted(),
        "shards_without_stats": sum(n is None for n in counts.values()),
        "samples_to_do": samples,
        "gb_to_read": round(sum(_size(path) for path in todo) / 1e9, 3),
        "parts": dict(parts),
        "models": models,
        "weights_not_at_hand": absent,
        "pflop": round(pflop, 4),
        "device_gflop_per_s": round(rate / 1e9, 1),
        "device_seconds_at_least": round(pflop * 1e15 / rate, 2) if rate else 0.0,
        "fields": form.to_dict(),
        "fields_lines": form.lines() if todo else [],
        "then": _then(recipe, asked),
    }


def _then(recipe: Recipe, asked: RunOptions) -> list[str]:
    steps = [f"pool score over all samples: {', '.join(score.columns)}" for score in recipe.pool_scores]
    if recipe.select is None:
        return steps
    steps.append(f"select {storage.join(asked.out, 'subsets', asked.name)}.npy by: {recipe.select.describe()}")
    steps += [f"repeat {entry.times} times: {entry.rule.describe()}" for entry in recipe.repeat]
    if asked.reshard:
        steps.append(f"reshard into {storage.join(asked.out, 'shards', asked.name)}")
    return [*steps, f"report to {storage.join(asked.out, 'report.html')}"]


def _gflop(spec: Any) -> float:
    from mmfilter.flops import flops

    try:
        with nothing_fetched():
            cost = flops(spec)
    except MMFilterError:  # a hub's model whose configuration is not here; `weights_not_at_hand` says so
        return 0.0
    return (cost.image + cost.caption(CAPTION_TOKENS)) / 1e9


def _size(path: str) -> int:
    try:
        return storage.size(path)
    except OSError:
        return 0


def matmul_rate(seconds: float = 0.5) -> float:
    """FLOP/s of one device (a GPU in bf16, or all cores in fp32) on a large matrix product, measured now."""
    import torch

    cuda = torch.cuda.is_available()
    n = 8192 if cuda else 1024
    a = torch.ones(n, n, device="cuda" if cuda else "cpu", dtype=torch.bfloat16 if cuda else torch.float32)
    (a @ a).sum().item()
    started, times = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        a @ a
        if cuda:
            torch.cuda.synchronize()
        times += 1
    return 2 * n**3 * times / (time.perf_counter() - started)


def _lines(cost: dict[str, Any]) -> list[str]:
    said = [
        f"recipe {cost['recipe']}: {cost['shards_to_do']:,} of {cost['shards']:,} shards to do, "
        f"about {cost['samples_to_do']:,} samples, {cost['gb_to_read']:g} GB to read"
    ]
    said += [*missing_lines(cost["missing"]), *pool_lines(cost["pool"])]
    said += [f"  {line}" for line in cost["fields_lines"]]
    said += [f"  {part}: {n:,} shards" for part, n in cost["parts"].items() if part != "read"]
    said += [
        f"  model {n}: {m['gflop_a_sample']:g} GFLOP a sample, {m['pflop']:g} PFLOP" for n, m in cost["models"].items()
    ]
    if cost["models"]:
        rate = cost["device_gflop_per_s"]
        said.append(
            f"  at least {_span(cost['device_seconds_at_least'])} of this device "
            f"({rate:,.0f} GFLOP/s measured on a matrix product)"
        )
    said += [f"  model {n} is not at hand: {error}" for n, error in cost["weights_not_at_hand"].items()]
    if cost["shards_without_stats"]:
        said.append(f"  {cost['shards_without_stats']} shards have no _stats.json: their samples are a guess")
    return said + [f"  then {step}" for step in cost["then"]] + ["nothing was done (--dry-run)"]


def _span(seconds: float) -> str:
    """Seconds as a person says them: 38 s, 12 min, 5.5 h, 3.2 days."""
    for unit, size in (("days", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds:.2g} s"
