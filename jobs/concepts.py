"""`cluster`: the concepts a pool is made of."""

import json
from typing import Annotated, Any

import typer

from mmfilter.allow import Allow, sentences

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def cluster(
        out: o.OutArg,
        model: o.ModelName = None,
        k: Annotated[int | None, typer.Option("-k", "--k", help="Clusters (default: the square root of n).")] = None,
        levels: Annotated[str, typer.Option(help="Groups of clusters, and of those: 100,10.")] = "",
        resamples: Annotated[int, typer.Option(help="Times that each level is clustered anew.")] = 10,
        modality: Annotated[str, typer.Option(help="image or text: whose embeddings.")] = "image",
        iterations: Annotated[int, typer.Option(help="Of k-means, over a sample.")] = 20,
        passes: Annotated[
            int | None, typer.Option(help="Of k-means, over the whole pool (default: where the sample is small).")
        ] = None,
        seed: Annotated[int, typer.Option(help="Of the sample and of k-means.")] = 0,
        metadata: o.Metadata = None,
        redo_changed: o.RedoColumns = False,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """Concepts: columns cluster_id, centroid_similarity, density, ...; OUT/concepts/MODEL with labels and a map."""
        from index.vectors import only_model

        from .dedup import Asked, run_one
        from .outdir import absolute

        model = model or only_model(absolute(out), modality, metadata and absolute(metadata), allow)
        fields: dict[str, Any] = {"model": model, "modality": modality, "k": k, "seed": seed}
        fields |= {"iterations": iterations, "passes": passes}
        above = [level for level in levels.split(",") if level]
        node = {"clusters": {**fields, "levels": above, "resamples": resamples}}
        width = o.width(address, workers, None, None, None, local)
        asked = Asked(out, metadata, redo_changed, width, allow=allow)
        result = run_one(asked, node, summary)
        print(json.dumps(result, indent=1, ensure_ascii=False) if as_json else "\n".join(lines(result)))


CLUSTER = "run the same 'mmfilter cluster' again"


def summary(score: Any, pool: Any) -> dict[str, Any]:
    """The concepts that were written, and where."""
    from mmfilter import storage
    from mmfilter.concepts_file import read_concepts

    path = storage.join(pool.out, score.folder, "concepts.json")
    concepts = read_concepts(path)
    return {"samples": len(pool.uids), "concepts": concepts, "path": path, "columns": list(score.columns)}


def lines(result: dict[str, Any]) -> list[str]:
    """The largest concepts, for a person."""
    concepts = result["concepts"]
    said = [f"{result['samples']:,} samples in {len(concepts):,} clusters"]
    said += [f"  {c['id']:>5} {c['size']:>8,}  {c['tightness']:.3f}  {', '.join(c['label'])}" for c in concepts[:20]]
    said += [f"  and {len(concepts) - 20:,} more"] if len(concepts) > 20 else []
    said += [f"  {sentence}" for sentence in sentences(result)]
    return [*said, f"columns {', '.join(result['columns'])}", f"list    {result['path']}"]
