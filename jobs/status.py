"""`status`: how far a run is, from its folder alone, while it runs or after it died."""

import json
from typing import Any

import typer

from . import options as o
from .terminal import print


def add(app: typer.Typer) -> None:
    @app.command()
    def status(out: o.OutArg, as_json: o.Json = False) -> None:
        """Done, left, rate, failures, time to go, stragglers: from OUT alone, while it runs or after it died."""
        from .outdir import absolute

        said = status_of(absolute(out))
        print(json.dumps(said, indent=1) if as_json else "\n".join(lines(said)))


def status_of(out: str) -> dict[str, Any]:
    """`mmfilter.status.run_status` of the pool that OUT/run.json names. Raises UsageError when OUT holds no run."""
    from mmfilter import storage
    from mmfilter.run_file import named_shards
    from mmfilter.status import run_status

    from .outdir import load_run

    run = load_run(out)
    said = run_status(out, [storage.stem(path) for path in named_shards(run)])
    return {**said, "metadata": run.get("metadata")}


def lines(said: dict[str, Any]) -> list[str]:
    """The status for a person."""
    shards, samples = said["shards"], said["samples"]
    if said.get("metadata") and not shards["of"]:
        return [
            f"{said['state']}  {_driver(said['driver'])}".rstrip(),
            f"scores metadata of {said['metadata']}, no tars",
        ]
    out = [f"{said['state']}  {_driver(said['driver'])}".rstrip()]
    out.append(
        f"shards  {shards['of']:,} = done {shards['done']:,} + set aside {shards['set_aside']:,} "
        f"+ left {shards['left']:,}"
    )
    failed = samples["read"] - samples["ok"]
    out.append(f"samples read {samples['read']:,} = ok {samples['ok']:,} + failed {failed:,}")
    out += [f"  failed: {status:<24} {n:,}" for status, n in samples["failed"].items()]
    if said["samples_per_s"] is not None:
        to_go = "" if said["left_s"] is None else f", {_time(said['left_s'])} to go"
        out.append(f"rate    {said['samples_per_s']:,.0f} samples/s{to_go}")
    if said["seconds"]:
        out.append("seconds " + ", ".join(f"{stage} {s:g}" for stage, s in said["seconds"].items()))
    flying = said["driver"].get("in_flight", {})
    if flying and said["state"] != "running":
        out.append(f"it was at shard {_some(list(flying))}")
    out += [f"  straggler: shard {shard}, for {_time(s)}" for shard, s in list(said["stragglers"].items())[:20]]
    out += [f"  tried: shard {shard}, {a['attempts']} times ({a['error']})" for shard, a in said["attempts"].items()]
    out += [f"  set aside: shard {_some(said['set_aside'])}"] if said["set_aside"] else []
    out += [f"  damaged commit: shard {_some(said['damaged'])}; delete it to do it again"] if said["damaged"] else []
    return out


def _driver(note: dict[str, Any]) -> str:
    """Who works or worked here, on what, and when it was last heard of."""
    from datetime import UTC, datetime

    if not note:
        return ""
    what = f"{note.get('command', '?')} on {note.get('host', '?')} (pid {note.get('pid', '?')})"
    if note.get("job"):
        what += f", job {note['job']}"
    if "stage" in note:
        what += f": {note['stage']} {note['done']:,} of {note['of']:,} {note['unit']}"
    return f"{what}; last heard of {datetime.fromtimestamp(note['time'], UTC):%Y-%m-%d %H:%M:%S} UTC"


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _time(seconds: float) -> str:
    """`40 s`, `12 min`, `3.4 h`, `5.1 d`."""
    for size, unit in ((86400, "d"), (3600, "h")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds / 60:.0f} min" if seconds >= 60 else f"{seconds:.0f} s"
