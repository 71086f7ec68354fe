"""What a record says a thing was made from, compared field by field with what it would be made from now.

A version of mmfilter that adds a field to a model, a score or an option must not turn every older folder into a
conflict: a field that a record lacks counts as the default of the version that wrote it. `EARLIER` names the fields
whose present default is another than what older versions did; all others had no such choice, so that their default
is what was done.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pydantic import BaseModel

from .fields import JSON_FIELD, ReadOptions
from .images import ImageLimits

EARLIER: dict[str, Any] = {}
"""Field -> what versions without it did, where that is not the field's default."""

FORM = ("uid_missing", "missing_json", "missing_text", "uid_invalid")
"""Statuses of samples that an older version could not use for their form, and a newer one may."""


def defaults(of: type[BaseModel]) -> dict[str, Any]:
    """Field -> default, as JSON has it, of a pydantic class; fields that must be given are left out."""
    fields = {name: field.get_default(call_default_factory=True) for name, field in of.model_fields.items()}
    return {name: EARLIER.get(name, value) for name, value in fields.items() if not of.model_fields[name].is_required()}


def filled(was: Any, now: Any, default: Any) -> Any:
    """`was` with what it lacks of the fields of `now` taken from `default`, at every depth."""
    if not (isinstance(was, Mapping) and isinstance(now, Mapping) and isinstance(default, Mapping)):
        return was
    added = {name: default[name] for name in now if name not in was and name in default}
    return {name: filled(value, now.get(name), default.get(name)) for name, value in {**was, **added}.items()}


def read_part(read: ReadOptions) -> dict[str, Any]:
    """How samples are read, as a commit records it: what changes which samples there are, and their uids."""
    limits = asdict(read.limits)
    return {"uids": read.uids, "pool_id": read.pool_id, "captions": list(read.captions), "limits": limits}


def read_limits(commit: Mapping[str, Any]) -> ImageLimits:
    """The limits that a shard's images were read within, the default ones where its commit says none."""
    read = (commit.get("parts") or {}).get("read")
    limits = read.get("limits") if isinstance(read, Mapping) else None
    return ImageLimits(**filled(limits or {}, asdict(ImageLimits()), asdict(ImageLimits())))


def earlier_read(was: Mapping[str, Any]) -> bool:
    """Whether a commit's `read` is of a version that took captions from txt alone and made no uids unless asked."""
    return "uids" not in was


def read_conflict(was: Mapping[str, Any], now: Mapping[str, Any], notes: Mapping[str, int]) -> bool:
    """Whether a shard read as `was` would be another one read as `now`. `notes` are its commit's.

    How uids are derived counts only where one was: in a shard whose samples all state theirs nothing changes.
    """
    derived = bool(was.get("derive_uids") or notes.get("uid_derived"))
    was = filled({name: value for name, value in was.items() if name != "derive_uids"}, now, read_part(ReadOptions()))
    if any(was.get(name) != now[name] for name in now if name not in ("uids", "pool_id")):
        return True
    if (was["uids"], was["pool_id"]) == (now["uids"], now["pool_id"]):
        return False
    return derived or any(uids.startswith(JSON_FIELD) for uids in (was["uids"], now["uids"]))


def read_identity(commit: Mapping[str, Any]) -> Any:
    """How a shard was read, for fingerprints of a pool: two versions that read it alike give the same."""
    read = (commit.get("parts") or {}).get("read")
    if not isinstance(read, Mapping) or earlier_read(read):
        return read
    usual = read_part(ReadOptions(limits=ImageLimits(max_pixels=read["limits"]["max_pixels"])))
    if read != usual:
        return read
    derived = bool((commit.get("notes") or {}).get("uid_derived"))
    return {"derive_uids": derived, "limits": {"max_pixels": usual["limits"]["max_pixels"]}}
