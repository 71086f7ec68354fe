"""`verify`: whether every file in OUT is what was written; with --repair what is not is made again."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from mmfilter.errors import FAILED, OK, UsageError

from . import options as o
from .progress import Progress
from .terminal import print

SHOWN = 50


def add(app: typer.Typer) -> None:
    @app.command()
    def verify(
        out: o.OutArg,
        deep: Annotated[bool, typer.Option("--deep", help="Read every byte: sha256, page checksums, uids.")] = False,
        repair: Annotated[bool, typer.Option("--repair", help="Make again what is not as it was written.")] = False,
        recipe: Annotated[
            str | None, typer.Option(help="--repair: the recipe (default: the one that run.json records).")
        ] = None,
        pool: Annotated[
            list[str] | None, typer.Option(help="--repair: the pool (default: the shards that run.json names).")
        ] = None,
        weights: o.Weights = None,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Whether every file in OUT is what was written, and the bytes by kind. Exit code 1 where one is not."""
        from .outdir import absolute

        if (recipe or pool or weights) and not repair:
            raise UsageError("--recipe, --pool and --weights go with --repair: they say what files are made again from")
        folder = absolute(out)
        result = verify_run(folder, deep)
        if repair:
            from .repair import repair_run
            from .repair_source import Request

            request = Request(recipe, tuple(pool or ()), tuple(weights or ()), deep)
            result = repair_run(folder, result, request, o.width(address, workers, None, None, None, local))
        print(json.dumps(result, indent=1) if as_json else "\n".join(lines(result)))
        raise typer.Exit(FAILED if result["findings"] else OK)


def verify_run(out: str, deep: bool = False) -> dict[str, Any]:
    """Check all files of a run's folder; the findings and sizes as plain values. Raises UsageError."""
    from index import verify as of_index
    from mmfilter import storage
    from mmfilter.hints import nearest_beside
    from mmfilter.verify import checks, run_checks

    if not storage.isdir(out):
        raise UsageError(f"{out}: does not exist{nearest_beside(out, folders=True)} Give the folder of a run")
    if not any(storage.exists(storage.join(out, name)) for name in ("run.json", "metadata", "subsets", "columns")):
        raise UsageError(f"{out}: no run here (there is no run.json and no metadata); give the folder of a run")
    work, told = checks(out, deep)
    work += of_index.checks(out, deep)
    with Progress("verify", len(work), "checks") as progress:
        told = run_checks(work, told, progress.advance)
    return {
        "out": out,
        "deep": deep,
        "files": told.files,
        "bytes": dict(sorted(told.sizes.items(), key=lambda item: -item[1])),
        "not_vouched_for": dict(sorted(told.former.items())),
        "findings": [asdict(finding) for finding in told.findings],
    }


def lines(result: dict[str, Any]) -> list[str]:
    """The result for a person."""
    findings = result["findings"]
    said = [f"  {finding['path']}: {finding['what']}" for finding in findings[:SHOWN]]
    said += [f"  and {len(findings) - SHOWN:,} more (--json has all)"] if len(findings) > SHOWN else []
    said += [f"  {size / 1e6:>12,.1f} MB  {kind}" for kind, size in result["bytes"].items()]
    said += [f"  not vouched for: {n:,} {what}" for what, n in result["not_vouched_for"].items()]
    if "made" in result:
        said += [f"  made again: {what}" for what in result["made"]]
        said += [f"  cannot be made again: {what}" for what in result["left"]]
    how = "every byte was read" if result["deep"] else "sizes and footers; --deep reads every byte"
    verdict = f"{len(findings):,} finding{'s' * (len(findings) != 1)}" if findings else "all as written"
    return [*said, f"{result['files']:,} files, {sum(result['bytes'].values()) / 1e6:,.1f} MB: {verdict} ({how})"]
