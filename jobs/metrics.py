"""Counters of each worker, which Ray's metrics agents hand to Prometheus: docs/status.md lists them."""

from functools import cache
from typing import Any

from mmfilter.shard import ShardReport

COUNTERS = {  # name -> (what it counts, its tag)
    "mmfilter_shards": ("Shards done.", ""),
    "mmfilter_samples": ("Samples that are well.", ""),
    "mmfilter_samples_failed": ("Samples that failed.", "reason"),
    "mmfilter_bytes": ("Bytes of the shards that were read.", ""),
    "mmfilter_stage_seconds": ("Seconds, added up over threads.", "stage"),
    "mmfilter_worker_seconds": ("Seconds in which a worker had a shard.", ""),
}


@cache
def counter(name: str) -> Any:
    """Ray's counter, made once a process."""
    from ray.util.metrics import Counter

    about, tag = COUNTERS[name]
    return Counter(name, about, (tag,) if tag else ())


def values(report: ShardReport, seconds: float) -> list[tuple[str, str, float]]:
    """(counter, its tag's value, how much) of a shard that took `seconds`."""
    found = [("mmfilter_shards", "", 1.0), ("mmfilter_samples", "", float(report.ok))]
    found += [("mmfilter_bytes", "", float(report.bytes)), ("mmfilter_worker_seconds", "", seconds)]
    found += [("mmfilter_samples_failed", reason, float(n)) for reason, n in report.failed.items()]
    found += [("mmfilter_stage_seconds", stage, s) for stage, s in report.seconds.items()]
    return [row for row in found if row[2] > 0]  # Ray refuses an increment of nothing


def count(result: Any, seconds: float) -> None:
    """Count what a task came to, where it was a shard and something was done to it."""
    if isinstance(result, ShardReport) and result.did:
        for name, value, much in values(result, seconds):
            tag = COUNTERS[name][1]
            counter(name).inc(much, {tag: value} if tag else None)
