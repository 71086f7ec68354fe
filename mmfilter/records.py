"""A sample that could not be used, with the reason."""

from dataclasses import dataclass


@dataclass(slots=True)
class Failure:
    """`status` is the reason in a word, `error` in a sentence; key and uid are "" where unknown."""

    key: str
    uid: str
    status: str
    error: str
