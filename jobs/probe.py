"""`probe`: what a pool's embeddings tell of a column, by kNN and by a linear probe; no zero-shot figure."""

import json
from typing import Annotated, Any

import typer

from mmfilter.allow import Allow, sentences
from mmfilter.errors import UsageError

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def probe(
        out: o.OutArg,
        column: Annotated[str, typer.Option("--column", help="The column whose values are the classes.")],
        model: o.ModelName = None,
        labels: Annotated[str | None, typer.Option(help="A parquet file with uid and the column.")] = None,
        modality: Annotated[str, typer.Option(help="image or text: whose embeddings.")] = "image",
        holdout: Annotated[float, typer.Option(help="Share of the samples that are asked about.")] = 0.2,
        queries: Annotated[int, typer.Option(min=1, help="Ask about so many at most.")] = 10_000,
        k: Annotated[int, typer.Option("-k", "--k", min=1, help="Neighbours that vote.")] = 20,
        temperature: Annotated[float, typer.Option(help="Of the votes' weights.")] = 0.07,
        ridge: Annotated[float, typer.Option(help="The linear probe's penalty.")] = 1e-4,
        metadata: o.Metadata = None,
        seed: Annotated[int, typer.Option(help="Which samples are held out.")] = 0,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """kNN and linear probes on OUT's embeddings: a cheap signal of the encoder, not a zero-shot figure."""
        from index.probes import ProbeOptions
        from index.probes import probe as measure
        from index.vectors import only_model

        from .outdir import absolute

        for name, value in (("holdout", holdout), ("temperature", temperature), ("ridge", ridge)):
            if not value > 0 or (name == "holdout" and value >= 1):
                raise UsageError(f"--{name} {value:g}: above 0{' and below 1' if name == 'holdout' else ''}, please")
        metadata = metadata and absolute(metadata)
        model = model or only_model(absolute(out), modality, metadata, allow)
        options = ProbeOptions(model, column, modality, labels, holdout, queries, k, temperature, ridge, seed)
        found = measure(absolute(out), options, metadata, allow)
        print(json.dumps(found, indent=1) if as_json else "\n".join(lines(found)))


def lines(found: dict[str, Any]) -> list[str]:
    """The probes, for a person."""
    said = [
        f"{found['column']} of {found['asked']:,} held-out samples by the {found['modality']} embeddings of "
        f"{found['model']}: {found['classes']:,} classes, learned from {found['learned_from']:,}, "
        f"{found['left_out']:,} left out. Not a zero-shot figure"
    ]
    for name in ("probe_knn", "probe_linear", "most_common"):
        low, high = found[name]["interval"]
        said.append(f"  {name:<12} {found[name]['accuracy']:.4f}  ({low:.4f} to {high:.4f})")
    return said + [f"  {sentence}" for sentence in sentences(found)]
