"""A schedule: a subset for each epoch of a training, as NAME.schedule.json beside the subsets it names."""

import json
import posixpath
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from . import storage
from .errors import ConflictError, DataError, UsageError
from .file_record import check_size, difference, is_record
from .json_file import FORMAT, optional_object, read_object
from .run_file import is_file_name
from .subset import Subset
from .subset_file import EPOCH, SCHEDULE

ENDING = SCHEDULE
CURE = "make a schedule with `mmfilter schedule`"


@dataclass(frozen=True)
class Schedule:
    """`kind` is what made it (rs2, seta), `source` what it was made from; `epochs` are the subsets in order."""

    kind: str
    seed: int
    epochs: Iterable[Subset]
    source: dict[str, Any] = field(default_factory=dict)


def write_schedule(path: str, schedule: Schedule) -> list[dict[str, Any]]:
    """PATH (NAME.schedule.json) and NAME/epoch-0000.npy, ... beside it, the json last; returns its epochs.

    An earlier schedule of that name is taken away first. Raises UsageError.
    """
    folder, file = posixpath.split(path)
    name = file.removesuffix(ENDING)
    if name in ("", file):
        raise UsageError(f"{path}: a schedule's file is called NAME{ENDING}")
    _check_own(path)
    _remove(path, storage.join(folder, name))
    epochs: list[dict[str, Any]] = []
    for number, subset in enumerate(schedule.epochs):
        relative = f"{name}/epoch-{number:04d}.npy"
        record = subset.write(storage.join(folder, relative))
        epochs.append({"subset": relative, "samples": len(subset), **record})
    told = {"format": FORMAT, "kind": schedule.kind, "seed": schedule.seed, "source": schedule.source}
    told |= {"epochs": epochs}
    storage.write_atomic(path, (json.dumps(told, indent=1, ensure_ascii=False) + "\n").encode())
    return epochs


def _check_own(path: str) -> None:
    """Raise ConflictError where a schedule stands at `path` that was written by hand; a damaged one is replaced."""
    try:
        record = optional_object(path, CURE) or {}
    except DataError:
        return
    if "epochs" in record and not {"kind", "source"} <= record.keys():
        raise ConflictError(f"{path}: is a schedule written by hand, and is not replaced; give another --name")


def _remove(path: str, folder: str) -> None:
    storage.remove(path)
    for name in storage.names(folder):
        if EPOCH.fullmatch(name):
            storage.remove(storage.join(folder, name))


def load_schedule(path: str) -> list[str]:
    """The paths of a schedule's subsets, one an epoch, in order; a subset's path is relative to the schedule's folder.

    The file is ``{"kind": .., "seed": .., "epochs": [{"subset": "NAME/epoch-0000.npy", "samples": n, "bytes": ..,
    "sha256": ..}, ..]}``. Raises DataError for a file that is not that, that names a subset which is not there or has
    another size, or that was drawn from a subset which holds other uids now. (`Subset.read` compares the sha256.)
    """
    try:
        record = read_object(path, CURE, {"epochs": [{"subset": str}]})
    except FileNotFoundError as error:
        raise DataError(f"{path}: does not exist; {CURE}") from error
    epochs = record["epochs"]
    if not epochs:
        raise DataError(f"{path}: is damaged (its list of epochs is empty); {CURE}")
    _check_source(path, record.get("source"))
    return [_subset_path(path, number, epoch) for number, epoch in enumerate(epochs)]


def _check_source(path: str, source: Any) -> None:
    """Raise DataError where the subset that a schedule was drawn from is there, and another one now."""
    subset, was = (source.get("subset"), source.get("file")) if isinstance(source, dict) else (None, None)
    if not isinstance(subset, str) or not subset or was is None or not storage.exists(subset):
        return
    if what := difference(subset, was, whole=True):
        raise DataError(
            f"{path}: was drawn from {subset}, which is another subset now ({what}); make the schedule anew"
        )


def _subset_path(path: str, number: int, epoch: Any) -> str:
    relative = epoch["subset"]
    if storage.is_remote(relative) or not all(map(is_file_name, relative.split("/"))):
        raise DataError(
            f"{path}: epochs[{number}].subset: a path from the schedule's folder, not {relative[:200]!r}; {CURE}"
        )
    found = storage.join(posixpath.dirname(path), relative)
    if not storage.exists(found):
        raise DataError(f"{path}: epochs[{number}].subset: {found} is not there; make the schedule anew")
    if is_record(epoch):
        check_size(found, epoch, "make the schedule anew")
    return found
