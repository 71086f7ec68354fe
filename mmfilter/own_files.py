"""Whether a file is one that mmfilter wrote: no other file is replaced or deleted, whatever its name is."""

import io
import json
import os
from collections.abc import Callable

import numpy as np

from . import storage
from .errors import ConflictError
from .uids import DTYPE

HEAD = 1 << 16  # bytes that tell what a file is
GENERATOR = (b'<meta name="generator" content="mmfilter">', b"<title>mmfilter leaderboard</title>")


def check_replaceable(path: str, is_own: Callable[[str, bytes], bool], what: str) -> None:
    """Raise ConflictError where something stands at `path` that is not `what`, by its first bytes. An empty file is
    nobody's.
    """
    try:
        with storage.open_read(path) as stream:
            head = stream.read(HEAD)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise ConflictError(f"{path}: cannot be replaced by {what} ({error.strerror or error}); {MOVE}") from error
    if head and not is_own(path, head):
        raise ConflictError(f"{path}: is not {what} that mmfilter wrote, and is not replaced; {MOVE}")


MOVE = "move it elsewhere, or give another path"


def is_page(_: str, head: bytes) -> bool:
    """A report, a comparison, an advice or a leaderboard."""
    return any(mark in head for mark in GENERATOR)


def is_card(_: str, head: bytes) -> bool:
    """A subset's data card: Hugging Face's front matter with this program's tag."""
    return head.startswith(b"---\n") and b"mmfilter" in head


def is_subset(path: str, head: bytes) -> bool:
    """A .npy of uids, as long as its header says."""
    try:
        stream = io.BytesIO(head)
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except Exception:  # numpy's parser of headers raises whatever it pleases
        return False
    return dtype == DTYPE and len(shape) == 1 and storage.size(path) == stream.tell() + shape[0] * DTYPE.itemsize


def is_json_with(*names: str) -> Callable[[str, bytes], bool]:
    """A recogniser of a JSON object that has these fields."""

    def recognise(path: str, _: bytes) -> bool:
        try:
            value = json.loads(storage.read_bytes(path))
        except (ValueError, RecursionError):
            return False
        return isinstance(value, dict) and value.keys() >= set(names)

    return recognise


def write_page(path: str, page: str) -> None:
    """Write a page of HTML. Raises ConflictError where another file than such a page stands at `path`."""
    check_replaceable(path, is_page, "a page")
    storage.write_atomic(path, page.encode("utf-8", "replace"))


def check_subset_target(path: str, inputs: list[str]) -> None:
    """Raise ConflictError where a subset that is about to be written would replace one of the `inputs`, a subset that
    `select` wrote, or another kind of file.
    """
    place = path if storage.is_remote(path) else os.path.realpath(path)
    if place in [word if storage.is_remote(word) else os.path.realpath(word) for word in inputs]:
        raise ConflictError(f"{path}: is one of the subsets that are read, and is not replaced; {MOVE}")
    record = f"{path.removesuffix('.npy')}.json"
    if os.path.basename(os.path.dirname(place)) == "subsets" and storage.exists(record):
        raise ConflictError(f"{path}: was written by `mmfilter select`, and is not replaced; {MOVE}")
    check_replaceable(path, is_subset, "a subset")
