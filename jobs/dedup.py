"""`dedup`: mark what is in a pool twice, or in an evaluation set too."""

import json
from collections import Counter
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mmfilter.allow import Allow, sentences

from . import options as o
from .cluster import Width
from .terminal import print

ModelFlag = Annotated[str | None, typer.Option("--model", help="Semantic duplicates: a model's short name in OUT.")]
Modality = Annotated[str, typer.Option(help="image or text: whose embeddings.")]


def add(app: typer.Typer) -> None:
    @app.command()
    def dedup(
        out: o.OutArg,
        against: Annotated[
            list[str] | None,
            typer.Option(help="What the pool must not hold: an OUT, a folder of images, a wds set. Repeatable."),
        ] = None,
        model: ModelFlag = None,
        modality: Modality = "image",
        eps: Annotated[float, typer.Option(help="Semantic: cosine above 1 - eps.")] = 0.05,
        hamming: Annotated[int | None, typer.Option(help="Perceptual: so many bits of phash, or fewer.")] = None,
        exact: Annotated[bool, typer.Option(help="The same file, by sha256.")] = True,
        k: Annotated[int | None, typer.Option("-k", "--k", help="Clusters (default: 1 for 8,800 samples).")] = None,
        mode: Annotated[str, typer.Option(help="greedy (SemDeDup's code) or groups (its paper).")] = "greedy",
        keep: Annotated[str | None, typer.Option(help="Which one: furthest, nearest, largest, score, random.")] = None,
        score: Annotated[str | None, typer.Option(help="The column for --keep score.")] = None,
        seed: Annotated[int, typer.Option(help="Of the clusters and of --keep random.")] = 0,
        weights: o.Weights = None,
        metadata: o.Metadata = None,
        redo_changed: o.RedoColumns = False,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """Duplicates in OUT: columns duplicate_of, ...; with --against, what another set holds: overlap_of, ..."""
        shared: dict[str, Any] = {"model": model, "modality": modality, "eps": eps, "hamming": hamming, "exact": exact}
        if against:
            node = {"overlap": {**shared, "against": against}}
        else:
            node = {"duplicates": {**shared, "k": k, "mode": mode, "keep": keep, "score": score, "seed": seed}}
        width = o.width(address, workers, None, None, None, local)
        asked = Asked(out, metadata, redo_changed, width, tuple(weights or ()), allow)
        result = run_one(asked, node, summary)
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))


@dataclass(frozen=True)
class Asked:
    """Where a pool score goes; `redo`: whether columns that were made otherwise may be replaced."""

    out: str
    metadata: str | None
    redo: bool
    width: Width
    weights: tuple[str, ...] = ()  # NAME=PATH
    allow: Allow = Allow()


def run_one(asked: Asked, node: dict[str, Any], said: Any) -> Any:
    """Compute one pool score of OUT, again where the pool has changed; returns `said(score, pool)`.

    Raises ConflictError where its columns were made otherwise, unless `redo`.
    """
    from index.pool import Pool
    from index.reference import given_weights
    from mmfilter.plugs import PoolScore
    from mmfilter.scores import build_score

    from .outdir import absolute, keep_metadata, only_driver
    from .pool_scores import add_pool_scores

    folder = absolute(asked.out)
    score = build_score(node, "mmfilter cluster" if "clusters" in node else "mmfilter dedup")
    assert isinstance(score, PoolScore)
    pool = Pool(folder, asked.metadata and absolute(asked.metadata), allow=asked.allow)
    _check_needs(score, pool)
    weights = given_weights([pool], asked.weights)
    with only_driver(folder):
        metadata = keep_metadata(folder, asked.metadata, asked.allow)
        add_pool_scores([score], folder, asked.width, metadata, asked.redo, weights, asked.allow)
    pool = Pool(folder, metadata, allow=asked.allow)
    pool.table.check_fresh(score.needs)
    return {**said(score, pool), **pool.table.gaps()}


def _check_needs(score: Any, pool: Any) -> None:
    """Raise UsageError where OUT is no pool or lacks a model: before a lock is left there, or a conflict is told."""
    table = pool.table
    for need in sorted(score.needs):
        kind, _, model = need.partition(":")
        if model:
            pool.vectors(model, "image" if kind == "img_emb" else "text")
        elif need not in table.columns:
            table.read([need], table.stems[0])


def summary(score: Any, pool: Any) -> dict[str, Any]:
    """How many samples there are, and how many are duplicates by kind."""
    of, _, kind = score.columns
    frame = pool.read(of, kind)
    kinds = Counter(frame.filter(frame[of] != "")[kind].to_list())
    found = {"samples": frame.height, "found": sum(kinds.values()), "kinds": dict(sorted(kinds.items()))}
    listed = getattr(score, "listed", None)
    return {**found, "columns": list(score.columns), **({"list": listed(pool)} if listed else {})}


def lines(result: dict[str, Any]) -> list[str]:
    """The summary for a person."""
    share = result["found"] / max(result["samples"], 1)
    word = "in the other set too" if "list" in result else "duplicates of one that is kept"
    said = [f"{result['samples']:,} samples, {result['found']:,} ({share:.1%}) {word}"]
    said += [f"  {kind:<12} {n:,}" for kind, n in result["kinds"].items()]
    said += [f"  {sentence}" for sentence in sentences(result)]
    said.append(f"columns {', '.join(result['columns'])}")
    return said + ([f"list    {result['list']}"] if "list" in result else [])
