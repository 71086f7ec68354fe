"""`advise`: given a training budget, how much of a ranked pool to keep."""

import json
from typing import Annotated, Any

import typer

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def advise(
        results: Annotated[
            list[str],
            typer.Argument(
                help=".csv or .jsonl of bucket, samples_seen, error; or BUCKET@SAMPLES=eval_results.jsonl.",
                metavar="RESULTS",
            ),
        ],
        budget: Annotated[float, typer.Option(help="Samples that the training will see, repeats included.")],
        bucket_size: Annotated[int, typer.Option(min=1, help="Samples in each bucket: one pass.")],
        metric: Annotated[
            str, typer.Option(help="The task whose main metric counts in an eval_results.jsonl, or average.")
        ] = "imagenet1k",
        floor: Annotated[float, typer.Option(min=0, max=1, help="d, the error that no data takes away.")] = 0.1,
        scale: Annotated[
            float | None, typer.Option(min=1e-12, help="a, shared by all buckets (default: fitted).")
        ] = None,
        ranked: Annotated[
            bool, typer.Option("--ranked", help="Merge buckets as the results list them, not by fitted utility.")
        ] = False,
        draws: Annotated[int, typer.Option(min=0, max=10_000, help="Of the bootstrap.")] = 200,
        seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
        out: Annotated[
            str | None, typer.Option("--out", help="A folder for advice.html and advice.json.", metavar="OUT")
        ] = None,
        page: Annotated[str | None, typer.Option(help="Write the curve here, as one HTML file.")] = None,
        as_json: o.Json = False,
    ) -> None:
        """How many quality buckets to merge at a training budget, by a scaling law fitted to small runs."""
        from mmfilter.advise import Asked
        from mmfilter.advise import advise as work_out
        from mmfilter.small_runs import read_results

        asked = Asked(budget, bucket_size, floor, scale, ranked, draws, seed)
        found = work_out(read_results(results, metric), asked)
        page = write(found, out, page)
        print(json.dumps(found, indent=1, ensure_ascii=False) if as_json else "\n".join([*lines(found), *_where(page)]))


def write(found: dict[str, Any], out: str | None, page: str | None) -> str | None:
    """The page, and OUT/advice.json; returns the page's path, None where none was asked for."""
    from mmfilter import storage
    from mmfilter.own_files import check_replaceable, is_json_with, is_page, write_page
    from mmfilter.report.advice import advice_page

    page = page or (storage.join(out, "advice.html") if out else None)
    if page:
        check_replaceable(page, is_page, "a page")
    if out:
        record, text = storage.join(out, "advice.json"), json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True)
        check_replaceable(record, is_json_with("budget", "curve"), "an advice")
        storage.write_atomic(record, text.encode())
    if page:
        write_page(page, advice_page(found))
    return page


def _where(page: str | None) -> list[str]:
    return [f"page    {page}"] if page else []


def lines(found: dict[str, Any]) -> list[str]:
    """The advice for a person."""
    said = [
        f"keep {found['keep']} of {len(found['curve'])} buckets: {found['samples']:,} samples, "
        f"each seen {found['passes']:.3g} times ({', '.join(found['keep_buckets'])})"
    ]
    if not found["in_rank_order"]:
        said.append("  by fitted utility the buckets stand in another order than in the results")
    for row in found["curve"]:
        band = "" if row["interval"] is None else f" ({row['interval'][0]:.4f} to {row['interval'][1]:.4f})"
        best = "" if row["best_share"] is None else f"  best in {row['best_share']:.0%} of draws"
        said.append(
            f"  {row['buckets']:>3} buckets {row['samples']:>14,} samples  error {row['error']:.4f}{band}{best}"
        )
    said.append(f"law: a {found['scale']:.4g}, d {found['floor']:.4g}, misses the results by {found['rmse']:.2g}")
    said += [
        f"  {b['bucket']:<20} utility {b['utility']:.4f}, half-life {b['half_life']:.3g} passes"
        for b in found["buckets"]
    ]
    return said
