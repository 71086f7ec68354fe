"""What a pool came to: samples read, valid and failed, and where their uids came from."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmfilter.fields import uid_origins
from mmfilter.lacking import lost_to_form

PASSED_OVER = {
    "member_without_key": "files whose name begins with a dot or has no extension: they belong to no sample",
    "member_link": "symbolic links, and hard links to files outside their tar",
    "member_other": "devices, fifos and entries of single vendors' types",
    "no_samples": "shards without a sample",
}
"""What stands in tars and is no sample's, by note, in words."""


@dataclass
class PoolCounts:
    """What the pool came to: `read` = `ok` + the sum of `failed`. `aside` are shards given up on.

    `uids` counts valid samples whose uid was derived or hashed, `made_of` says of what. `stricter` are samples that
    an older version could not use for their form alone. `passed_over` counts what is in PASSED_OVER.
    """

    shards: int = 0
    done_before: int = 0
    read: int = 0
    ok: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    set_aside: dict[str, str] = field(default_factory=dict)
    uids: Counter[str] = field(default_factory=Counter)
    made_of: str = ""
    stricter: int = 0
    passed_over: Counter[str] = field(default_factory=Counter)

    def add(self, commit: Mapping[str, Any]) -> None:
        """Count a committed shard."""
        counts, notes = commit["counts"], commit.get("notes") or {}
        self.read += counts["read"]
        self.ok += counts["ok"]
        self.failed.update(counts["failed"])
        self.uids.update({how: notes[f"uid_{how}"] for how in ("derived", "hashed") if f"uid_{how}" in notes})
        self.stricter += lost_to_form(commit)
        self.passed_over.update({note: notes[note] for note in PASSED_OVER if notes.get(note)})


def summary(counts: PoolCounts) -> dict[str, Any]:
    """Plain values for run.json and the CLI."""
    return {
        "shards": counts.shards,
        "shards_done_before": counts.done_before,
        "read": counts.read,
        "ok": counts.ok,
        "failed": dict(sorted(counts.failed.items())),
        "shards_set_aside": counts.set_aside,
        **({"uids": {**counts.uids, "of": counts.made_of}} if counts.uids else {}),
        **({"failed_under_stricter_reading": counts.stricter} if counts.stricter else {}),
        **({"passed_over": dict(sorted(counts.passed_over.items()))} if counts.passed_over else {}),
    }


def lines(totals: dict[str, Any]) -> list[str]:
    """The summary for a person."""
    failed = totals["read"] - totals["ok"]
    shards = f"{totals['shards']:,} shards"
    out = [f"read {totals['read']:,} = ok {totals['ok']:,} + failed {failed:,} ({shards})"]
    out += [f"  failed: {status:<24} {n:,}" for status, n in totals["failed"].items()]
    out += form_lines(totals)
    return out + [f"  set aside: shard {shard} ({why})" for shard, why in totals["shards_set_aside"].items()]


def form_lines(totals: dict[str, Any]) -> list[str]:
    """Of a summary what tells how uids were made, what is no sample's, and what another reading may find."""
    out = []
    if "uids" in totals:
        out.append(f"  uids: {uid_origins(totals['uids'])}")
    out += [f"  passed over: {n:,} {PASSED_OVER[note]}" for note, n in totals.get("passed_over", {}).items()]
    if stricter := totals.get("failed_under_stricter_reading"):
        out.append(
            f"  {stricter:,} samples failed for their form in an earlier version, and may be usable now: "
            "--redo-changed reads their shards again"
        )
    return out
