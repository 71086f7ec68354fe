"""concepts.json as a file: what `cluster` wrote of a pool's concepts."""

from typing import Any

from .beside import check_recorded
from .json_file import COUNT, read_list

CURE = "run `mmfilter cluster` again"
SHAPE = {
    "id": COUNT,
    "size": COUNT,
    "label": [str],
    "tightness?": float,
    "exemplars?": [str],
    "x?": float,
    "y?": float,
    "parent?": int,
}


def read_concepts(path: str) -> list[dict[str, Any]]:
    """The concepts in a file, which is the one that was recorded; none where it does not exist. Raises DataError."""
    try:
        check_recorded(path, CURE)
        return read_list(path, CURE, SHAPE)
    except FileNotFoundError:
        return []
