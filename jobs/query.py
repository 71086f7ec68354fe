"""`query`: the samples nearest to words, pictures, samples or a subset; a list, or a subset to reshard."""

import json
import os
import shutil
import sys
from dataclasses import replace
from typing import Annotated, Any

import typer

from mmfilter.allow import Allow, sentences
from mmfilter.errors import UsageError
from mmfilter.run_pool import listed

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def query(
        text: Annotated[list[str] | None, typer.Argument(help="Words, each in quotes.", metavar="TEXT")] = None,
        out: o.Out = "runs/run",
        index: Annotated[str | None, typer.Option(help="The index (default: the only one there is).")] = None,
        image: Annotated[list[str] | None, typer.Option(help="A picture, or a folder of them. Repeatable.")] = None,
        uid: Annotated[list[str] | None, typer.Option(help="A sample, which is left out itself. Repeatable.")] = None,
        like: Annotated[list[str] | None, typer.Option(help="A subset .npy, by its mean. Repeatable.")] = None,
        minus: Annotated[list[str] | None, typer.Option(help="Words to stay away from. Repeatable.")] = None,
        minus_uid: Annotated[list[str] | None, typer.Option(help="A sample to stay away from. Repeatable.")] = None,
        k: Annotated[int | None, typer.Option("-k", "--k", min=1, help="How many (default 20).")] = None,
        floor: Annotated[float | None, typer.Option(help="All of this similarity or more; -k is a limit.")] = None,
        among: Annotated[list[str] | None, typer.Option(help="Only samples of this subset .npy. Repeatable.")] = None,
        where: Annotated[str | None, typer.Option(help="Only where this SQL over the columns holds.")] = None,
        weights: o.Weights = None,
        metadata: o.Metadata = None,
        allow: Allow = Allow(),
        write: Annotated[str, typer.Option("--write", help="Write the samples found as a subset .npy.")] = "",
        as_json: o.Json = False,
    ) -> None:
        """Search an index; what is found is a list, or with --write a subset."""
        from index.ask import Question
        from index.pool import Pool
        from index.reference import given_weights
        from mmfilter.own_files import check_subset_target
        from mmfilter.subset import Subset

        from .outdir import absolute

        question = Question(
            texts=tuple(text or ()),
            images=tuple(image or ()),
            uids=tuple(uid or ()),
            likes=tuple(Subset.read(_there(path)) for path in like or ()),
            minus=tuple(minus or ()),
            minus_uids=tuple(minus_uid or ()),
        )
        folder = absolute(out)
        chosen = [Subset.read(_there(path)) for path in among or ()]
        pool = Pool(folder, metadata and absolute(metadata), allow=allow)
        pool = replace(pool, weights=given_weights([pool], weights or ()))
        found = search(pool, index, question, (k, floor), (chosen, where))
        if write:
            check_subset_target(write, [*(like or ()), *(among or ())])
            Subset.from_uids(row["uid"] for row in found).write(write)
        print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else "\n".join(lines(found, write)))


def _there(path: str) -> str:
    if not os.path.isfile(path):
        raise UsageError(f"{path}: no such subset")
    return path


def search(
    pool: Any, name: str | None, question: Any, how_many: tuple[int | None, float | None], among: Any
) -> list[dict[str, Any]]:
    """uid, similarity and text of what is found, nearest first. Raises MMFilterError."""
    import numpy as np

    from index import ask
    from index.knn import open_index
    from mmfilter.uids import parse_uids

    knn = open_index(pool.out, name, pool.metadata, pool.allow)
    mask = np.ones(len(knn), bool)
    for subset in among[0]:
        mask &= np.isin(np.arange(len(knn)), ask.within(knn, subset))
    if among[1]:
        mask &= ask.where(knn, among[1])
    own = knn.positions(parse_uids(question.uids)) if question.uids else np.empty(0, np.int64)
    target = ask.vector(knn, pool, question)
    mask[own[own >= 0]] = False
    chosen = None if mask.all() else np.flatnonzero(mask)
    k, floor = how_many
    if floor is None:
        positions, similarity = (side[0] for side in knn.search(target[None], k or 20, chosen))
    else:
        positions, similarity = knn.above(target, floor, k or len(knn), chosen)
    there = positions >= 0
    found = ask.hits(knn, positions[there], similarity[there])
    for sentence in [*sentences(knn.vectors.table.gaps()), *_behind(knn)]:
        print(f"mmfilter: {sentence}", file=sys.stderr)
    return found


def _behind(knn: Any) -> list[str]:
    """A sentence where shards of the pool are not in the index."""
    if not knn.lacks:
        return []
    return [f"Index {knn.name} is without {listed(knn.lacks)} that came since; `mmfilter index` brings it up."]


def lines(found: list[dict[str, Any]], write: str) -> list[str]:
    """A line a sample, captions cut to the screen's width."""
    width = max(shutil.get_terminal_size((120, 24)).columns - 43, 20)
    said = [] if write else [f"{r['similarity']:.4f}  {r['uid']}  {_short(r['text'], width)}" for r in found]
    low = f", similarity {found[-1]['similarity']:.4f} to {found[0]['similarity']:.4f}" if found else ""
    return [*said, f"{len(found):,} samples{low}" + (f": {write}" if write else "")]


def _short(text: str, width: int) -> str:
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= width else text[: width - 1] + "…"
