"""`report` and `explain`: look at what a run did, from its files alone."""

import json
import sys
from dataclasses import asdict
from typing import Annotated

import typer

from mmfilter.allow import Allow, sentences

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def report(
        out: o.OutArg,
        name: o.OnlyName = None,
        labels: Annotated[str | None, typer.Option(help="Known labels (parquet: uid, kind, match).")] = None,
        samples: Annotated[int, typer.Option(min=1, max=100, help="Thumbnails on each side of a threshold.")] = 12,
        metadata: o.Metadata = None,
        allow: Allow = Allow(),
    ) -> None:
        """OUT/report.html: what each rule kept and dropped, with pictures; one file that opens anywhere."""
        from .outdir import absolute

        print(report_run(absolute(out), name or "", labels, samples, metadata, allow))

    @app.command()
    def explain(
        uid: Annotated[str, typer.Argument(help="The sample's uid, 32 hex digits.", metavar="UID")],
        out: o.Out = "runs/run",
        name: o.OnlyName = None,
        metadata: o.Metadata = None,
        allow: Allow = Allow(),
        as_json: o.Json = False,
    ) -> None:
        """Why one sample was kept, dropped or failed: every rule's verdict, with its values."""
        from mmfilter.explain import explain as explain_uid

        from .outdir import absolute

        found = explain_uid(absolute(out), uid, name or "", absolute(metadata) if metadata else "", allow)
        print(json.dumps(asdict(found), indent=1, default=str) if as_json else "\n".join(found.lines()))


def report_run(
    out: str,
    name: str,
    labels: str | None = None,
    samples: int = 12,
    metadata: str | None = None,
    allow: Allow = Allow(),
) -> str:
    """Write the report of subset `name`, and its data card unless there is one of it; returns the report's path.

    What is missing or stale, where `allow` says that it may be, is told on stderr, too.
    """
    from mmfilter import storage
    from mmfilter.card import is_of, read_earlier, write_card
    from mmfilter.decisions import resolve_name
    from mmfilter.errors import ConflictError
    from mmfilter.report import ReportOptions, build_report
    from mmfilter.table import open_table

    from .outdir import absolute

    folder = absolute(metadata) if metadata else ""
    options = ReportOptions(samples=samples, labels=absolute(labels) if labels else "", metadata=folder, allow=allow)
    path, name = build_report(out, name, options), resolve_name(out, name)
    table = open_table(out, folder or None, *allow).whole()
    table.check_fresh(table.columns)
    for sentence in sentences(table.gaps()):
        print(f"mmfilter: the report: {sentence}", file=sys.stderr)
    earlier = read_earlier(out, name, folder, allow)
    if storage.exists(storage.join(out, "subsets", f"{name}.npy")) and not is_of(earlier.text, out, name):
        try:
            write_card(out, name, earlier.options)
        except ConflictError as error:  # a file of the user's has its name
            print(f"mmfilter: the report is written, the subset's card is not: {error}", file=sys.stderr)
    return path
