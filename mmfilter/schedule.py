"""A schedule: a subset for each epoch of a training, as NAME.schedule.json beside the subsets it names."""

import json
import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from . import storage
from .errors import DataError, UsageError
from .subset import Subset

ENDING = ".schedule.json"


@dataclass(frozen=True)
class Schedule:
    """`kind` is what made it (rs2, seta), `source` what it was made from; `epochs` are the subsets in order."""

    kind: str
    seed: int
    epochs: Sequence[Subset]
    source: dict[str, Any] = field(default_factory=dict)


def write_schedule(path: str, schedule: Schedule) -> None:
    """PATH (NAME.schedule.json) and NAME/epoch-0000.npy, ... below its folder; the json last. Raises UsageError."""
    if not path.endswith(ENDING) or path.endswith(f"/{ENDING}") or path == ENDING:
        raise UsageError(f"{path}: a schedule's file is called NAME{ENDING}")
    folder, file = posixpath.split(path)
    name = file.removesuffix(ENDING)
    epochs = []
    for number, subset in enumerate(schedule.epochs):
        relative = f"{name}/epoch-{number:04d}.npy"
        subset.write(storage.join(folder, relative))
        epochs.append({"subset": relative, "samples": len(subset)})
    record = {"kind": schedule.kind, "seed": schedule.seed, "source": schedule.source, "epochs": epochs}
    storage.write_atomic(path, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())


def load_schedule(path: str) -> list[str]:
    """The paths of a schedule's subsets, one an epoch, in order; a subset's path is relative to the schedule's folder.

    The file is ``{"kind": .., "seed": .., "epochs": [{"subset": "NAME/epoch-0000.npy", "samples": n}, ..]}``.
    Raises DataError for a file that is not that, or that names a subset which is not there.
    """
    try:
        record = json.loads(storage.read_bytes(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a schedule ({error}); make one with 'mmfilter schedule'") from error
    epochs = record.get("epochs") if isinstance(record, dict) else None
    if not isinstance(epochs, list) or not epochs:
        raise DataError(f"{path}: not a schedule: it has no list of epochs; make one with 'mmfilter schedule'")
    return [_subset_path(path, number, epoch) for number, epoch in enumerate(epochs)]


def _subset_path(path: str, number: int, epoch: Any) -> str:
    relative = epoch.get("subset") if isinstance(epoch, dict) else None
    if not isinstance(relative, str) or posixpath.isabs(relative) or storage.is_remote(relative):
        raise DataError(f"{path}: epochs[{number}].subset: a path from the schedule's folder, not {relative!r}")
    found = storage.join(posixpath.dirname(path), relative)
    if not storage.exists(found):
        raise DataError(f"{path}: epochs[{number}].subset: {found} is not there; make the schedule anew")
    return found
