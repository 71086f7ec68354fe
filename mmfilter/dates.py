"""Dates as records hold them."""

from datetime import UTC, datetime


def now() -> str:
    """The time in UTC, to the second: ``2026-12-01T10:30:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def shown(recorded: object) -> str:
    """A recorded date for a reader, ``2026-12-01 10:30 UTC``; empty for anything else."""
    try:
        return datetime.strptime(str(recorded), "%Y-%m-%dT%H:%M:%SZ").strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return ""
