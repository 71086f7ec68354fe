"""`inspect`: lint a pool before a GPU is paid for: headers and json only, no pixel, no model."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import typer

from mmfilter.errors import FAILED, OK

from . import choice
from . import options as o
from .driver import Crash, Setup, drive
from .progress import Progress


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
        address: o.Address = None,
        workers: o.Workers = None,
        local: o.Local = False,
        as_json: o.Json = False,
    ) -> None:
        """Gaps, missing stats, repeated uids, unreadable tails: found before anything is embedded."""
        report = inspect_pool(pool, o.width(address, workers, 0, None, None, local))
        print(json.dumps(report.to_dict(), indent=1) if as_json else "\n".join(report.lines()))
        raise typer.Exit(FAILED if report.errors else OK)


def inspect_pool(pool: list[str], width: Any) -> Any:
    """The PoolReport of the shards that the patterns name. Ray is started only for a large pool."""
    from mmfilter import storage
    from mmfilter.errors import MMFilterError
    from mmfilter.inspect import combine

    from .outdir import absolute

    paths = [absolute(path) for path in storage.expand(pool)]
    width = choice.choose(width, choice.copying(paths))
    found: dict[str, Any] = {}
    with Progress("inspect", len(paths)) as progress:
        for path, result in drive(paths, MakeInspector(), width):
            if isinstance(result, Crash):
                raise MMFilterError(f"{path}: {result.error.splitlines()[0]}")
            found[path] = result
            progress.advance(result.samples, sum(result.failed.values()))
    return combine([found[path] for path in dict.fromkeys(paths)])
