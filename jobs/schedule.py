"""`schedule`: a subset for each epoch of a training."""

import json
from typing import Annotated, Any, Literal

import typer

from mmfilter.allow import Allow, sentences
from mmfilter.errors import UsageError

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def schedule(
        out: o.OutArg,
        kind: Annotated[str, typer.Option(help="rs2 (fresh random subsets) or seta (a window, easy to hard).")],
        epochs: Annotated[int, typer.Option(min=1, max=9999, help="Subsets, one an epoch.")],
        keep: Annotated[float, typer.Option(min=0, max=1, help="The share that is drawn each epoch.")] = 0.3,
        subset: Annotated[str, typer.Option(help="Draw from this subset's .npy (default: the whole pool).")] = "",
        replacement: Annotated[
            bool, typer.Option(help="rs2: draw each epoch from all; or only from what had no turn yet.")
        ] = True,
        column: Annotated[str, typer.Option(help="seta: the column that says how hard a sample is.")] = "",
        hard: Annotated[str, typer.Option(help="seta: whether its low or its high values are hard.")] = "low",
        groups: Annotated[int, typer.Option(min=1, help="seta: groups of alike difficulty.")] = 10,
        window: Annotated[float, typer.Option(min=0, max=1, help="seta: the share of groups in the window.")] = 0.5,
        anneal: Annotated[float, typer.Option(min=0, max=1, help="seta: the last epochs, that take all.")] = 0.125,
        seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Of the draws.")] = 0,
        metadata: o.Metadata = None,
        name: Annotated[str, typer.Option("--name", help="The schedule's name (default: its kind).")] = "",
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """A subset for each epoch: OUT/schedules/NAME.schedule.json, which reshard and train take."""
        from mmfilter.epochs import Window
        from mmfilter.table import open_table

        from .outdir import absolute, keep_metadata, only_driver

        if kind not in ("rs2", "seta"):
            raise UsageError(f"--kind {kind}: it is rs2 or seta")
        if (kind == "seta") != bool(column):
            raise UsageError("--column and --kind seta go together: it names what says how hard a sample is")
        if hard not in ("low", "high"):
            raise UsageError(f"--hard {hard}: it is low or high")
        fields = {"kind": kind, "epochs": epochs, "keep": keep, "replacement": replacement, "seed": seed}
        how = {**fields, "column": column, "hard": hard, "window": Window(keep, groups, window, anneal)}
        source = {
            "out": absolute(out),
            "subset": subset and absolute(subset),
            "metadata": metadata and absolute(metadata),
            "allow": allow,
        }
        open_table(
            absolute(out), metadata and absolute(metadata), *allow
        )  # before anything is written into a folder that is no run
        with only_driver(absolute(out)):
            keep_metadata(absolute(out), metadata, allow)
            result = make(source, how, name or kind)
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))


def make(source: dict[str, Any], how: dict[str, Any], name: str) -> dict[str, Any]:
    """Write the schedule; its path, and each epoch's subset and size. Raises UsageError, DataError."""
    from dataclasses import asdict

    from mmfilter import storage
    from mmfilter.epochs import rs2, seta
    from mmfilter.file_record import record_of
    from mmfilter.schedule import ENDING, Schedule, write_schedule
    from mmfilter.subset import NAME

    if not NAME.fullmatch(name):
        raise UsageError(f"a schedule's name is letters, digits, '-' and '_', not '{name}'; give another --name")
    drawn, difficulty, gaps = read(source, how["column"], how["hard"])
    if not len(drawn):
        raise UsageError(f"{source['subset'] or source['out']}: no uid is in it to make epochs of; give another subset")
    epochs, seed = how["epochs"], how["seed"]
    told = {"subset": source["subset"], "samples": len(drawn), "uids": drawn.digest, "keep": how["keep"]}
    if source["subset"]:
        told["file"] = record_of(source["subset"])
    if how["kind"] == "rs2":
        subsets = rs2(drawn, epochs, how["keep"], seed, how["replacement"])
        told["replacement"] = how["replacement"]
    else:
        subsets = seta(drawn, difficulty, epochs, how["window"], seed)
        told |= {"column": how["column"], "hard": how["hard"], **asdict(how["window"])}
        told["values"] = record_of(difficulty.tobytes())["sha256"]
    path = storage.join(source["out"], "schedules", f"{name}{ENDING}")
    sizes = write_schedule(path, Schedule(how["kind"], seed, subsets, {**told, **gaps}))
    return {"path": path, "from": len(drawn), "epochs": sizes, **gaps}


def read(source: dict[str, Any], column: str, hard: Literal["low", "high"]) -> tuple[Any, Any, dict[str, Any]]:
    """(what is drawn from, a Subset; its difficulty (n,) beside it, where there is a column; what is missing)."""
    import numpy as np

    from mmfilter.rules.masks import numbers
    from mmfilter.subset import Subset, sort_order
    from mmfilter.table import open_table
    from mmfilter.uids import DTYPE, HALVES

    chosen = Subset.read(source["subset"]) if source["subset"] else None
    if chosen is not None and not column:
        return chosen, None, {}
    pool = open_table(source["out"], source["metadata"], *source["allow"])
    table = pool.read({*HALVES, *([column] if column else [])})
    uids = np.empty(table.height, DTYPE)
    uids["f0"], uids["f1"] = (table[half].to_numpy() for half in HALVES)
    order = sort_order(uids)  # stable where it matters: of a uid that stands twice the first row counts
    uids = uids[order]
    first = np.ones(len(uids), bool)
    first[1:] = uids[1:] != uids[:-1]
    counts = chosen.counts(uids[first]) if chosen is not None else np.ones(int(first.sum()), np.int64)
    drawn = Subset(np.repeat(uids[first], counts))
    if not column:
        return drawn, None, pool.gaps()
    values = numbers(table, column).astype(np.float64)[order][first]
    return drawn, np.repeat(values if hard == "high" else -values, counts), pool.gaps()


def lines(result: dict[str, Any]) -> list[str]:
    """The epochs, for a person."""
    sizes = result["epochs"]
    said = [f"{len(sizes):,} epochs out of {result['from']:,} samples"]
    said += [f"  {epoch['subset']:<28} {epoch['samples']:>10,}" for epoch in sizes[:20]]
    said += [f"  and {len(sizes) - 20:,} more"] if len(sizes) > 20 else []
    said += [f"  {sentence}" for sentence in sentences(result)]
    return [*said, f"schedule {result['path']}"]
