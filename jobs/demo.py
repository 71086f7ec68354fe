"""`demo`: the main job on a generated pool, with the model that ships, and how well it chose."""

import json
import os
from typing import Annotated, Any

import typer

from . import options as o
from .terminal import print

SEED = 2026  # not the seed of the pool that the demo's model was trained on


def add(app: typer.Typer) -> None:
    @app.command()
    def demo(
        out: Annotated[
            str, typer.Argument(help="Where everything is written.", metavar="OUT", show_default="runs/demo")
        ] = "runs/demo",
        samples: Annotated[int, typer.Option(min=50, help="Samples in the generated pool.")] = 4000,
        seed: Annotated[int, typer.Option(help="The pool's seed.")] = SEED,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Generate a noisy pool, filter it, and compare with the known labels. No network is needed."""
        from .outdir import absolute

        result = run_demo(absolute(out), samples, seed, o.width(None, workers, None, None, None, local))
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))


def run_demo(out: str, samples: int, seed: int, width: Any) -> dict[str, Any]:
    """The demo's run; its result with `quality` by the labels."""
    from mmfilter.recipe import load_recipe
    from mmfilter.synth import SynthOptions, generate

    from .outdir import shard_paths
    from .run import RunOptions, run_recipe

    pool = os.path.join(out, "pool")
    options = SynthOptions(samples, per_shard=500, seed=seed, workers=os.cpu_count() or 1)
    made = generate(pool, options) if not _same(pool, options) else None
    _remember(pool, options)
    labels = made.labels if made else os.path.join(pool, "labels", "labels.parquet")
    result = run_recipe(load_recipe("demo"), shard_paths([pool]), RunOptions(out, "demo", width, labels=labels))
    return {**result, "quality": quality(labels, out, "demo")}


def _same(pool: str, options: Any) -> bool:
    path = os.path.join(pool, "labels", "options.txt")
    return os.path.isfile(path) and open(path, "rb").read() == repr(options).encode()


def _remember(pool: str, options: Any) -> None:
    from mmfilter.storage import write_atomic

    write_atomic(os.path.join(pool, "labels", "options.txt"), repr(options).encode())


def quality(labels: str, out: str, name: str) -> dict[str, Any]:
    """Against known labels (uid, kind, match): precision and recall of "the caption describes the picture".

    `pool` is the share of matching pairs before any choice; `kinds` is in, kept, by kind.
    """
    import polars as pl

    from mmfilter.decisions import read_parquet
    from mmfilter.subset import Subset
    from mmfilter.uids import parse_uids

    table = read_parquet(labels, ["uid", "kind", "match"])
    kept = Subset.read(os.path.join(out, "subsets", f"{name}.npy")).contains(parse_uids(table["uid"]))
    match = table["match"].to_numpy()
    by = (
        table.with_columns(pl.Series("kept", kept))
        .group_by("kind")
        .agg(pl.len().alias("in"), pl.col("kept").sum())
        .sort("kind")
    )
    return {
        "pool": round(float(match.mean()), 4),
        "precision": round(float(match[kept].mean()) if kept.any() else 0.0, 4),
        "recall": round(float(kept[match].mean()) if match.any() else 0.0, 4),
        "kinds": by.to_dicts(),
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The run's lines, then how well it chose."""
    from . import run

    found = result["quality"]
    said = [*run.lines(result), ""]
    said.append(
        f"against the known labels: {found['pool']:.1%} of the pool are true pairs; "
        f"of what was kept {found['precision']:.1%} are"
    )
    said.append(f"precision {found['precision']:.3f}, recall {found['recall']:.3f}")
    said += [
        f"  {kind['kind']:<20} kept {kind['kept']:>5,} of {kind['in']:>5,} ({kind['kept'] / kind['in']:.1%})"
        for kind in found["kinds"]
    ]
    return said
