"""The members of one key while they are gathered, and whether they can be a sample."""

from dataclasses import dataclass, field

from .fields import SHOWN, Problem, image_rank, is_image, is_pickle
from .tar import Member
from .tar_entries import unread


@dataclass(slots=True)
class Group:
    """Members of `key` by extension; `bytes` are those of their data that are in memory."""

    key: str
    parts: dict[str, Member] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    image: str = ""
    damaged: bool = False  # bytes were lost beside its members
    unread: Problem = None  # why a member that is needed was not read

    @property
    def complete(self) -> bool:
        """Whether it has all that a sample can have."""
        return bool(self.image) and "txt" in self.parts and "json" in self.parts

    def sufficient(self, captions: tuple[str, ...]) -> bool:
        """Whether it can be a sample already, though a json or a caption file may follow."""
        return bool(self.image) and ("json" in self.parts or any(name in self.parts for name in captions))

    def add(self, extension: str, entry: Member, captions: tuple[str, ...]) -> int:
        """Take a member in; of two with one extension the first stands. Returns the bytes that are held for it."""
        if extension in self.parts:
            self.notes.append("member_twice")
            return 0
        self.parts[extension] = entry
        self.bytes += len(entry.data)
        if is_image(extension):
            if self.image:
                self.notes.append("image_twice")
            if not self.image or image_rank(extension) < image_rank(self.image):
                self.image = extension
        elif is_pickle(extension):
            self.notes.append("member_pickled")  # never decoded
        if self.unread is None and (is_image(extension) or extension == "json" or extension in captions):
            self.unread = unread(entry.kind, entry.size, extension)
        return len(entry.data)

    def problem(self) -> Problem:
        """Why it is no sample, whatever its json and its caption say."""
        if not self.image:
            has = ", ".join(list(self.parts)[:SHOWN])
            return "missing_image", f"no image (a member ending in jpg, png, ...); it has: {has}"
        if self.unread is not None:
            return self.unread
        if self.parts[self.image].size == 0:
            return "image_empty", "the image has no bytes"
        return None
