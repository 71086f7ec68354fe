"""`inspect`: lint a pool before a GPU is paid for: headers, json and captions, no pixel, no model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from mmfilter.errors import FAILED, OK, SET_ASIDE, UsageError
from mmfilter.fields import ReadOptions, read_options

from . import choice
from . import options as o
from .driver import Crash, Setup, drive
from .progress import Progress
from .terminal import print


@dataclass(frozen=True)
class MakeInspector:
    """Lints a tar."""

    read: ReadOptions = ReadOptions()

    def __call__(self, _: Setup) -> Callable[[str], Any]:
        from mmfilter.inspect import inspect_shard

        return lambda path: inspect_shard(path, self.read)


def add(app: typer.Typer) -> None:
    @app.command()
    def inspect(
        pool: o.PoolArg = None,
        out: Annotated[
            str | None, typer.Option("--out", help="The pool of this run, in place of POOL.", metavar="OUT")
        ] = None,
        allow_missing: o.AllowMissing = False,
        uids: o.Uids = None,
        pool_id: o.PoolId = None,
        captions: o.Captions = None,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Gaps, missing stats, repeated uids, unreadable tails: found before anything is embedded."""
        width = o.width(address, workers, 0, None, None, local)
        report = inspect_pool(shards_of(pool, out), width, allow_missing, reading(out, uids, pool_id, captions))
        print(json.dumps(report.to_dict(), indent=1) if as_json else "\n".join(report.lines()))
        raise typer.Exit(FAILED if report.errors else SET_ASIDE if report.set_aside else OK)


def shards_of(pool: list[str] | None, out: str | None) -> list[str]:
    """The shards of POOL, or those that the run in OUT was given. Raises UsageError for both or neither."""
    from mmfilter.run_file import named_shards

    from .outdir import absolute, load_run

    if bool(pool) == bool(out):
        raise UsageError(
            "inspect: give the shards as POOL, or a run whose pool is meant as --out OUT"
            + ("; not both" if pool else ": `mmfilter inspect POOL`")
        )
    if pool:
        return pool
    shards = named_shards(load_run(absolute(str(out))))
    if not shards:
        raise UsageError(f"{out}: this run names no shards; give them as `mmfilter inspect POOL`")
    return list(shards)


def reading(out: str | None, uids: str | None, pool_id: str | None, captions: str | None) -> ReadOptions:
    """How samples are read: as the run in `out` did, where one is named, and as the flags say."""
    from .outdir import absolute, run_reading

    return read_options(run_reading(absolute(out)) if out else ReadOptions(), uids, pool_id, captions)


def inspect_pool(pool: list[str], width: Any, allow_missing: bool = False, read: ReadOptions = ReadOptions()) -> Any:
    """The PoolReport of the shards that the patterns name. Ray is started only for a large pool.

    Raises as `find_shards` does; with `allow_missing` the named shards that do not exist are a finding.
    """
    from mmfilter.errors import MMFilterError
    from mmfilter.findings import worst_first
    from mmfilter.form import look_at_form
    from mmfilter.inspect import combine

    from .shards import find_shards

    shards = find_shards(pool, allow_missing, namesakes=True)
    paths = shards.paths
    width = choice.choose(width, choice.copying(paths))
    found: dict[str, Any] = {}
    with Progress("inspect", len(paths)) as progress:
        for path, result in drive(paths, MakeInspector(read), width):
            if isinstance(result, Crash):
                raise MMFilterError(f"{path}: {result.error.splitlines()[0]}")
            found[path] = result
            progress.advance(result.samples, sum(result.failed.values()))
    report = combine([found[path] for path in dict.fromkeys(paths)])
    report.findings += [missing_finding(shards.missing)] if shards.missing else []
    report.form = look_at_form(paths, read)
    report.findings += unusable(report) + report.of_form()
    report.findings = worst_first(report.findings)
    return report


def unusable(report: Any) -> list[Any]:
    """That no sample at all can be used, as an error."""
    from mmfilter.findings import Finding

    problem = report.form.problem()
    failed = sum(report.failed.values())
    if not problem and (report.samples or not failed):
        return []
    text = "none of the first samples can be used" if report.samples else f"none of {failed:,} samples can be used"
    return [Finding("error", "no_sample", "", failed, text, problem or "see the other findings for why")]


def missing_finding(missing: list[str]) -> Any:
    """Named shards that do not exist, as a warning: whoever allows them knows."""
    from mmfilter.findings import Finding

    from .shards import counted, note

    first = ", ".join(note(missing)["first"])
    text = f"{counted(len(missing))} not exist: {first}{', ...' if len(missing) > 5 else ''}"
    return Finding("warning", "missing_shard", "", len(missing), text, "`run --allow-missing` goes on without them too")
