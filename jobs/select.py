"""`select`: apply a recipe's rules to a pool that has its columns; seconds, no model."""

import json
import shlex
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mmfilter.allow import ALL, Allow, sentences
from mmfilter.errors import COPY, OK, SET_ASIDE, MMFilterError, UsageError

from . import options as o
from .terminal import print

CARD_SAMPLES = 5_000_000  # of a pool: above, the card would take longer than the selection, and more memory


def add(app: typer.Typer) -> None:
    @app.command()
    def select(
        recipe: o.RecipeArg,
        out: o.Out = "runs/run",
        metadata: o.Metadata = None,
        name: o.Name = None,
        weights: o.Weights = None,
        decisions: Annotated[
            bool, typer.Option(help="Write each sample's verdicts (explain and the report read them).")
        ] = True,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """Apply a recipe's rules: subsets/NAME.npy, what each rule dropped, every decision."""
        from mmfilter.recipe import load_recipe
        from mmfilter.run_pool import left_out
        from mmfilter.table import open_table

        from .check import Request, check_request
        from .outdir import absolute, keep_metadata, only_driver

        loaded = load_recipe(recipe, weights)
        folder = absolute(out)
        check_request(
            loaded, Request("select", folder, metadata=metadata and absolute(metadata), name=name or loaded.name)
        )
        open_table(
            folder, metadata and absolute(metadata), *allow
        )  # before anything is written into a folder that is no run
        with only_driver(folder):
            given = keep_metadata(folder, metadata, allow)
            result = select_subset(loaded, folder, name or loaded.name, given, decisions, allow)
            result["left_out"] = [] if given else sorted(left_out(folder))
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))
        raise typer.Exit(SET_ASIDE if result["counts"]["failed"] else OK)


def select_subset(
    recipe: Any,
    out: str,
    name: str,
    metadata: str | None = None,
    decisions: bool = True,
    allow: Allow = Allow(),
) -> dict[str, Any]:
    """Select by the recipe's rules, and write the subset's card; the selection as plain values.

    Raises UsageError, DataError, and ConflictError for columns that its rules read and that are stale or were made
    with other options than the recipe's.
    """
    from mmfilter.card import read_earlier
    from mmfilter.select import SelectOptions, select
    from mmfilter.table import open_table

    from .column_options import check_options

    if recipe.select is None:
        raise UsageError(
            f"{recipe.where}: has no 'select'; add the rules that choose ({COPY}), or use `mmfilter embed`"
        )
    options = SelectOptions(out, name, f"{recipe.where}: select", recipe.source, decisions, recipe.repeat)
    table, earlier = open_table(out, metadata, *allow), read_earlier(out, name, metadata or "", ALL)
    check_options(recipe, table)
    selection = select(table, recipe.select, options)
    _card(out, name, earlier, selection.counts["in"])
    result = asdict(selection)
    return {**result, **result.pop("gaps")}


def _card(out: str, name: str, earlier: Any, samples: int) -> None:
    """The subset is complete without a card, so what keeps the card from being written is only told."""
    from mmfilter.card import refresh_card

    if samples > CARD_SAMPLES:
        command = ["mmfilter", "card", out, "--name", name]
        print(
            f"mmfilter: a card of {samples:,} samples takes a while: `{shlex.join(command)}` writes it", file=sys.stderr
        )
        return
    try:
        refresh_card(out, name, earlier)
    except MMFilterError as error:
        print(f"mmfilter: the subset is written, its card is not: {error}", file=sys.stderr)


def lines(result: dict[str, Any]) -> list[str]:
    """Counts and the waterfall, for a person."""
    from mmfilter.run_pool import listed

    counts = result["counts"]
    whole = max(counts["in"], 1)
    said = [
        f"in {counts['in']:,} = kept {counts['kept']:,} ({counts['kept'] / whole:.1%}) + "
        f"dropped {counts['dropped']:,} + failed {counts['failed']:,}"
    ]
    said += [f"  {step['path']:<24} {step['text']:<60} dropped {step['dropped']:,}" for step in result["steps"]]
    if counts["in"] and not counts["kept"]:
        said.append("  nothing is kept: the lines above say which rule drops how many")
    said += [f"  failed: {status:<15} {n:,}" for status, n in result["failed"].items()]
    said += [
        f"  {entry['path']:<24} {entry['text']:<60} {entry['times']} times {entry['samples']:,}"
        for entry in result.get("repeat", [])
    ]
    if others := result.get("left_out"):
        said.append(
            f"  left out: {listed(others)} in OUT and not of the run's pool; `mmfilter embed` with their tars in "
            "--pool takes them in"
        )
    said += [f"  {sentence}" for sentence in sentences(result)]
    whole = counts["kept"] + result.get("copies", 0)
    return [*said, f"subset  {result['path']}" + (f", {whole:,} uids with copies" if result.get("repeat") else "")]
