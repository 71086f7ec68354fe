"""`synth`: a pool of captioned scenes with labelled noise, to try everything on without a network."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def synth(
        out: Annotated[str, typer.Argument(help="The folder of the new pool.", metavar="OUT")],
        samples: Annotated[int, typer.Option(min=1, help="Samples in all.")] = 4000,
        per_shard: Annotated[int, typer.Option(min=1, help="Samples a shard.")] = 500,
        seed: Annotated[int, typer.Option(help="Another seed, another pool.")] = 0,
        size: Annotated[int, typer.Option(min=64, max=512, help="Short side of a scene in px.")] = 112,
        captions: Annotated[int, typer.Option(min=1, max=20, help="Captions a scene (json `captions`).")] = 1,
        clean: Annotated[bool, typer.Option("--clean", help="No noise: pairs to train on.")] = False,
        workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; the bytes are the same.")] = 1,
        as_json: o.Json = False,
    ) -> None:
        """Generate shards as img2dataset writes them, and labels/labels.parquet beside them."""
        from mmfilter.synth import SynthOptions, generate

        from .outdir import absolute

        asked = SynthOptions(samples, per_shard, seed, size, captions, not clean, workers)
        report = generate(absolute(out), asked)
        if as_json:
            print(json.dumps(asdict(report), indent=1))
            return
        print(
            f"{report.samples:,} samples in {report.shards} shards in {report.out} ({report.seconds:.1f} s), "
            f"labels {report.labels}"
        )
        for kind, n in report.kinds.items():
            print(f"  {kind:<20} {n:,}")
