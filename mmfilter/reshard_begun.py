"""What a folder of new shards was begun with (`reshard.plan`), compared with what is asked for now."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from . import storage
from .errors import ConflictError
from .fields import ReadOptions
from .json_file import COUNT, read_object
from .parts import filled, read_part
from .reshard_files import PLAN
from .reshard_plan import OutputShard, Plan, ReshardOptions, fingerprint

DEFAULTS = json.loads(json.dumps(asdict(ReshardOptions())))
CURE = "delete the folder, or give another, and run the whole reshard again"
SHAPE = {"layout": str, "options": dict, "pool": [list], "subset": {"uids": COUNT, "sha256": str}}


def read_plan(path: str) -> dict[str, Any]:
    """What a folder was begun with; options that an older version did not know are what it did. Raises DataError."""
    parts = read_object(path, CURE, SHAPE)
    parts.pop("format", None)
    return {**parts, "options": {**DEFAULTS, **parts["options"]}}


def same_plan(before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether what a folder was begun with is what is asked for `now`; an earlier version did not say how samples are
    read, which is taken as it is.
    """
    usual = {"read": now["read"], **before}
    default = json.loads(json.dumps(read_part(ReadOptions())))
    usual["read"] = filled(usual["read"], now["read"], default)
    return all(usual.get(name) == now[name] for name in now)


def plan_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """What differs between two plans' parts; a layout differs because of something else, so it is told last."""
    if before.get("pool") != now["pool"]:
        was = {json.dumps(shard) for shard in before.get("pool", [])}
        changed = [stem for stem, identity in now["pool"] if json.dumps([stem, identity]) not in was]
        told = ", ".join(changed[:5]) or "none"
        return f"The pool had {len(was)} shards and has {len(now['pool'])}; changed or new: {told}."
    parts = ("subset", "options", *(["read"] if "read" in before else []))
    part = next((name for name in parts if before.get(name) != now[name]), "layout")
    return f"The {part} was {json.dumps(before.get(part))} and is {json.dumps(now[part])}."


def begun(plan: Plan, folder: str) -> bool:
    """Whether `folder` was begun with this very plan."""
    path = storage.join(folder, PLAN)
    return bool(storage.exists(path) and same_plan(read_plan(path), plan.parts))


def check_begun(shard: OutputShard, folder: str) -> None:
    path = storage.join(folder, PLAN)
    if not storage.exists(path) or fingerprint(read_plan(path)) != shard.plan:
        raise ConflictError(
            f"{folder}: it was not begun with the plan of shard {shard.name}; run the whole reshard again"
        )
