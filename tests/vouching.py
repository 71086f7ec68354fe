"""Runs whose files are changed on purpose: what their commits record of files is forgotten, or recorded again."""

import json
from pathlib import Path

from mmfilter.json_file import encode
from mmfilter.shard_record import describe_parquet

RECORDED = ("check", "files", "content", "format")


def forget_records(out) -> None:
    """Make the commits of a run's folder such as format 1 has them, which vouch for no bytes."""
    for path in Path(out).glob("metadata/*.json"):
        commit = json.loads(path.read_bytes())
        path.write_text(json.dumps({key: value for key, value in commit.items() if key not in RECORDED}))


def record_again(out, stem: str) -> None:
    """Let the commit vouch for the parquet as it is now; its content stays what it was."""
    path, parquet = Path(out) / f"metadata/{stem}.json", Path(out) / f"metadata/{stem}.parquet"
    commit = json.loads(path.read_bytes())
    commit["files"]["parquet"] = describe_parquet(parquet.read_bytes())
    path.write_bytes(encode(commit))
