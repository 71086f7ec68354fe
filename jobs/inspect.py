"""`inspect`: lint a pool before a GPU is paid for: headers and json only, no pixel, no model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from mmfilter.errors import FAILED, OK

from . import options as o
from .driver import Crash, Setup, drive
from .progress import Progress
from .reshard import IN_PROCESS


@dataclass(frozen=True)
class MakeInspector:
    """Lints a tar."""

    def __call__(self, _: Setup) -> Callable[[str], Any]:
        from mmfilter.inspect import inspect_shard

        return inspect_shard


def add(app: typer.Typer) -> None:
    @app.command()
    def inspect(
        pool: o.PoolArg,
        allow_missing: o.AllowMissing = False,
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Gaps, missing stats, repeated uids, unreadable tails: found before anything is embedded."""
        report = inspect_pool(pool, o.width(address, workers, 0, None, None, local), allow_missing)
        print(json.dumps(report.to_dict(), indent=1) if as_json else "\n".join(report.lines()))
        raise typer.Exit(FAILED if report.errors else OK)


def inspect_pool(pool: list[str], width: Any, allow_missing: bool = False) -> Any:
    """The PoolReport of the shards that the patterns name. Ray is started only for a large pool.

    Raises as `find_shards` does; with `allow_missing` the named shards that do not exist are a finding.
    """
    from dataclasses import replace

    from mmfilter import storage
    from mmfilter.errors import MMFilterError
    from mmfilter.findings import worst_first
    from mmfilter.inspect import combine

    from .shards import find_shards

    shards = find_shards(pool, allow_missing, namesakes=True)
    paths = shards.paths
    small = sum(storage.size(path) for path in paths if storage.exists(path)) < IN_PROCESS
    width = replace(width, local=width.local or (small and width.address is None))
    found: dict[str, Any] = {}
    with Progress("inspect", len(paths)) as progress:
        for path, result in drive(paths, MakeInspector(), width):
            if isinstance(result, Crash):
                raise MMFilterError(f"{path}: {result.error.splitlines()[0]}")
            found[path] = result
            progress.advance(result.samples, sum(result.failed.values()))
    report = combine([found[path] for path in dict.fromkeys(paths)])
    report.findings += [missing_finding(shards.missing)] if shards.missing else []
    report.findings = worst_first(report.findings)
    return report


def missing_finding(missing: list[str]) -> Any:
    """Named shards that do not exist, as a warning: whoever allows them knows."""
    from mmfilter.findings import Finding

    from .shards import counted, note

    first = ", ".join(note(missing)["first"])
    text = f"{counted(len(missing))} not exist: {first}{', ...' if len(missing) > 5 else ''}"
    return Finding("warning", "missing_shard", "", len(missing), text, "`run --allow-missing` goes on without them too")
