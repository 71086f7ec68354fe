"""A sample as it was read: well, or failed with the reason."""

from dataclasses import dataclass, field
from typing import Any

from .errors import is_of_machine, short_reason
from .text import one_line, valid_text


@dataclass(slots=True)
class Failure:
    """`status` is the reason in a word, `error` in a sentence; key and uid are "" where unknown.

    Whatever stood in the sample, a key is text that a file can hold, and a sentence one line without controls.
    """

    key: str
    uid: str
    status: str
    error: str

    def __post_init__(self) -> None:
        self.key, self.error = valid_text(self.key), one_line(self.error)


def failure_of(key: str, uid: str, error: Exception) -> Failure:
    """The failure of a sample whose content raised `error`: with its `status` where it has one, else content_error.

    Raises `error` again where it is the machine's and says nothing about the sample.
    """
    if is_of_machine(error):
        raise error
    status = getattr(error, "status", "")
    if isinstance(status, str) and status:
        return Failure(key, uid, status, str(error))
    return Failure(key, uid, "content_error", short_reason(error))


@dataclass(slots=True)
class Sample:
    """One valid pair. `offset` and `size` are the image's bytes in the tar.

    `members` are (extension, offset, size, check) of every member, in the tar's order, and `image_member` the
    extension of the image among them. `image` is the file's bytes, or its first bytes only where images were not
    asked for. `caption` says where the text stood: a member's extension, or `json.FIELD`; `uid_stated` whether the
    json states this very uid. `notes` are things worth counting that are no failure.
    """

    key: str
    uid: str
    text: str
    url: str
    image: bytes
    meta: dict[str, Any]
    offset: int
    size: int
    members: list[tuple[str, int, int, int]]
    notes: list[str] = field(default_factory=list)
    image_member: str = "jpg"
    caption: str = "txt"
    uid_stated: bool = True
    json: bytes = b""
