"""`index`: a kNN index over a pool's embeddings, built, or brought up to shards that came since."""

import json
from dataclasses import replace
from typing import Annotated, Any

import typer

from mmfilter.allow import Allow, sentences
from mmfilter.errors import UsageError

from . import options as o
from .cluster import Width
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def index(
        out: o.OutArg,
        model: o.ModelName = None,
        modality: Annotated[str, typer.Option(help="image or text: whose embeddings are searched.")] = "image",
        name: Annotated[str, typer.Option(help="The index's name (default: MODEL-MODALITY).")] = "",
        factory: Annotated[str, typer.Option(help="FAISS's factory string (default: chosen).")] = "",
        recall: Annotated[float, typer.Option(help="Recall@10 that searches are tuned to.")] = 0.95,
        memory: Annotated[float | None, typer.Option(help="GiB to stay within (default: what is free).")] = None,
        metadata: o.Metadata = None,
        seed: Annotated[int, typer.Option(help="Of the training sample and of k-means.")] = 0,
        fresh: Annotated[bool, typer.Option("--fresh", help="Build anew, though there is one to add to.")] = False,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """A kNN index of OUT's embeddings: OUT/index/NAME. Shards that came since are added; nothing is done twice."""
        from index.build import IndexOptions
        from index.vectors import only_model

        from .outdir import absolute

        if not 0 < recall <= 1:
            raise UsageError(f"--recall {recall:g}: it is a share, above 0 and up to 1")
        limit = None if memory is None else memory * 2**30
        metadata = metadata and absolute(metadata)
        model = model or only_model(absolute(out), modality, metadata, allow)
        options = IndexOptions(model, modality, name, factory, recall, limit, seed, metadata, fresh, allow)
        info = index_pool(absolute(out), options, o.width(address, workers, None, None, None, local))
        print(json.dumps(info, indent=1) if as_json else "\n".join(lines(info)))


def index_pool(out: str, options: Any, width: Width) -> dict[str, Any]:
    """Build or extend the index; its index.json without the list of shards, and `did`. Raises MMFilterError."""
    from index.build import build_index
    from mmfilter.table import open_table

    from . import choice
    from .outdir import keep_metadata, only_driver
    from .pool_scores import mapper

    open_table(out, options.metadata, *options.allow)  # before a lock is left in a folder that is no pool
    with only_driver(out):
        keep_metadata(out, options.metadata, options.allow)
        width = choice.choose(replace(width, gpus=0), choice.rows(open_table(out, options.metadata, *options.allow)))
        info = build_index(out, options, mapper(width, "index"))
    return {**info, "shards": len(info["shards"]), "path": f"{out}/index/{info['name']}"}


def lines(info: dict[str, Any]) -> list[str]:
    """The index, for a person."""
    done = {
        "built": "built",
        "added": "brought up to the pool",
        "tuned": "tuned anew",
        "nothing": "is up to the pool; nothing to do",
    }
    aside = f", {info['left_out']:,} without a direction left out" if info["left_out"] else ""
    size = sum(file["bytes"] for file in info["files"].values())
    seconds = "" if info["did"] == "nothing" else f" in {info['seconds']:g} s"
    said = [f"index {info['name']} {done[info['did']]}{seconds}: {info['rows']:,} rows{aside}, {size / 1e6:,.1f} MB"]
    said.append(f"  {info['factory']}, {info['nprobe']} of {info['lists']:,} lists looked at, {info['dim']} dimensions")
    recalls = [
        f"{info['recall'][side]:.3f} by {side}" for side in ("image", "text") if info["recall"][side] is not None
    ]
    said.append(f"  recall@{info['recall']['k']} {', '.join(recalls)} ({info['recall']['queries']} queries of each)")
    if not info["met"]:
        said.append(f"  this is below the {info['target']:g} asked for: give more --memory, or another --factory")
    return [*said, *(f"  {sentence}" for sentence in sentences(info)), f"  {info['path']}"]
