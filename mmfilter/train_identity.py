"""What a training hangs on beside its options, by content: where its pool, subset and model lie is nothing to it."""

from collections.abc import Mapping, Sequence
from typing import Any

from . import storage
from .errors import DataError
from .file_record import difference, sha256_file
from .json_file import read_object
from .model_identity import of_config
from .provenance import fingerprint
from .start import configuration
from .subset import Subset
from .train_options import TrainOptions
from .trained import TRAINED, weights_of

WORDS = {
    "pool": "pool (its shards are others, or were written since)",
    "subset": "subset (it holds other uids)",
    "schedule": "schedule (its epochs hold other uids)",
    "weights": "start model (its weights)",
    "architecture": "start model (its architecture)",
    "preprocessing": "start model (its preprocessing)",
    "vocabulary": "start model (its vocabulary)",
}


def made_from(options: TrainOptions, paths: Sequence[str]) -> dict[str, str]:
    """A digest of each thing that a training on the shards `paths` hangs on; "" for what it does without.

    Raises UsageError, DataError, and what fetching weights raises.
    """
    return {
        "pool": pool_digest(paths),
        "subset": Subset.read(options.subset).digest if options.subset else "",
        "schedule": _schedule_digest(options.schedule) if options.schedule else "",
        **model_digests(options.model, options.pretrained),
    }


def pool_digest(paths: Sequence[str]) -> str:
    """A digest of the shards' names and identities (size, and date or etag)."""
    return fingerprint([[storage.stem(path), storage.identity_or_none(path)] for path in paths])


def model_digests(model: str, pretrained: str = "") -> dict[str, str]:
    """Digests of the weights and the configuration that a training begins with."""
    config, weights = configuration(model, pretrained)
    return {"weights": sha256_file(weights) if weights else "", **of_config(config, "")}


def _schedule_digest(path: str) -> str:
    from .schedule import load_schedule

    return fingerprint([Subset.read(epoch).digest for epoch in load_schedule(path)])


def others(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """In words, what of `now` was another; an earlier version did not record it, which is taken as it is."""
    return [WORDS.get(name, name) for name in now if name in was and was[name] != now[name]]


def check_trial(folder: str, arm: Mapping[str, Any], record: str) -> None:
    """Raise DataError where a trial's results are not of its model, or its model not of the subset that the `arm` in
    the file `record` tells of. One of an earlier version, or that is not done yet, says nothing.
    """
    model, again = storage.join(folder, "model"), "rank with another --out, or delete the trial's folder and rank again"
    weights, trained = weights_of(model), storage.join(model, TRAINED)
    if weights is None:
        return
    path = storage.join(model, weights["file"])
    if what := difference(path, weights):
        raise DataError(f"{path}: {what}; run the same 'mmfilter rank' again")
    made = read_object(trained, again).get("made_from")
    if arm.get("sha256") and isinstance(made, dict) and made.get("subset") not in (None, arm["sha256"]):
        raise DataError(f"{trained}: was trained on another subset than the '{arm['name']}' of {record}; {again}")
    path = storage.join(folder, "evaluate.json")
    measured = read_object(path, again).get("model") if storage.exists(path) else None
    if isinstance(measured, dict) and measured.get("sha256") not in (None, weights.get("sha256")):
        raise DataError(f"{path}: its results are of other weights than {trained} tells of; {again}")
