"""`train`: a small CLIP of one's own on clean pairs: a data filtering network."""

import json
import sys
from typing import Annotated, Any

import typer

from . import options as o


def add(app: typer.Typer) -> None:
    @app.command()
    def train(
        pool: o.Pool,
        out: Annotated[str, typer.Option("--out", help="The model's folder.", metavar="FOLDER")],
        model: Annotated[
            str, typer.Option(help="An open_clip name, a JSON config, or a folder to go on from.")
        ] = "demo",
        subset: Annotated[str, typer.Option(help="Only the uids of this .npy.")] = "",
        holdout: Annotated[float, typer.Option(help="Part of the pool kept for measuring an AUC.")] = 0.0,
        samples: Annotated[int, typer.Option(min=4, help="Pairs seen, repeats included.")] = 100_000,
        batch_size: Annotated[int, typer.Option(min=2, help="Pairs a step; the others are the negatives.")] = 128,
        lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 1e-3,
        vocabulary: Annotated[int, typer.Option(min=0, help="Merges to learn from captions (0: the model's own).")] = 0,
        flip: Annotated[bool, typer.Option("--flip", help="Mirror half of the pictures.")] = False,
        crop: Annotated[float, typer.Option(help="Smallest part of a side that a crop keeps.")] = 0.9,
        jitter: Annotated[float, typer.Option(help="Largest change of brightness and contrast.")] = 0.0,
        seed: Annotated[int, typer.Option(help="Everything random.")] = 0,
        threads: Annotated[int, typer.Option(min=1, help="CPU threads; part of what the bytes depend on.")] = 1,
        bf16: Annotated[bool, typer.Option("--bf16", help="bfloat16 autocast.")] = False,
        device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    ) -> None:
        """Train with CLIP's loss; the folder it writes is a model for a recipe's `embed`."""
        from mmfilter.train import Augment, TrainOptions
        from mmfilter.train import train as train_model

        from .outdir import absolute, shard_paths

        asked = TrainOptions(
            pool=shard_paths(pool),
            out=absolute(out),
            model=model,
            subset=subset,
            holdout=holdout,
            samples=samples,
            batch=batch_size,
            lr=lr,
            vocabulary=vocabulary,
            augment=Augment(crop, jitter, flip),
            seed=seed,
            threads=threads,
            device=device,
            bf16=bf16,
        )
        print(_told(train_model(asked, _say)))


def _told(report: Any) -> str:
    held = "" if report.auc is None else f", AUC of true against swapped captions on the hold-out {report.auc:.4f}"
    return f"{report.parameters:,} parameters, {report.steps:,} steps, {report.seconds:.0f} s{held}: {report.out}"


def _say(row: dict[str, Any]) -> None:
    if sys.stderr.isatty():
        print(
            "\r" + "  ".join(f"{k} {v}" for k, v in row.items()),
            end="\n" if row["step"] == row["steps"] else "",
            file=sys.stderr,
        )
    else:
        print(json.dumps({"event": "train", **row}), file=sys.stderr, flush=True)
