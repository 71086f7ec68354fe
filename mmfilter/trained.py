"""What a trained model's train.json says of the weights that it stands beside."""

import os
from typing import Any

from . import storage
from .errors import DataError
from .file_record import difference, record_of
from .json_file import read_object

TRAINED = "train.json"


def weights_record(folder: str, weights: str) -> dict[str, Any]:
    """The record of a trained model's weights, for its train.json."""
    return {"file": weights, **record_of(os.path.join(folder, weights))}


def weights_of(folder: str) -> dict[str, Any] | None:
    """What train.json says of the weights that it stands beside; None where it does not. Raises DataError."""
    path = storage.join(folder, TRAINED)
    try:
        weights = read_object(path, "copy the model's folder again, or train anew").get("weights")
    except (FileNotFoundError, NotADirectoryError):
        return None
    return weights if isinstance(weights, dict) and isinstance(weights.get("file"), str) else None


def check_weights(folder: str, sha256: str, path: str) -> None:
    """Raise DataError where the weights at `path`, of that `sha256`, are not those that train.json tells of."""
    said = weights_of(folder)
    if said and said["file"] == os.path.basename(path) and said.get("sha256") != sha256:
        raise DataError(
            f"{path}: is damaged, or was replaced: its sha256 is {sha256[:12]}, and {TRAINED} beside it tells of "
            f"{str(said.get('sha256'))[:12]}. Copy the folder again, train anew, or delete {TRAINED} if these weights "
            "are meant"
        )


def whole(folder: str) -> bool:
    """Whether a trained model's weights are those that were written; reads them. An earlier version does not tell."""
    said = weights_of(folder)
    return said is None or not difference(os.path.join(folder, said["file"]), said, whole=True)
