"""The members of one sample, as they are met in a tar, before they are known to be whole."""

from dataclasses import dataclass, field

from .fields import SHOWN, Problem
from .tar import Member


@dataclass(slots=True)
class SampleMembers:
    """`parts` are the members by extension, `image` the extension of the one that is shown to a model, or ""."""

    key: str
    parts: dict[str, Member] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    image: str = ""
    damaged: bool = False  # bytes were lost beside its members
    unread: Problem = None  # why a member that is needed was not read

    @property
    def complete(self) -> bool:
        """Whether it has all that most pools' samples have."""
        return bool(self.image) and "txt" in self.parts and "json" in self.parts

    def sufficient(self, captions: tuple[str, ...]) -> bool:
        """Whether it can be a sample already, though a json or a caption file may follow."""
        return bool(self.image) and ("json" in self.parts or any(name in self.parts for name in captions))

    def problem(self) -> Problem:
        """What is wrong with its members, whatever is in its json and its caption."""
        if not self.image:
            has = ", ".join(list(self.parts)[:SHOWN])
            return "missing_image", f"no image (a member ending in jpg, png, ...); it has: {has}"
        if self.unread is not None:
            return self.unread
        if self.parts[self.image].size == 0:
            return "image_empty", "the image has no bytes"
        return None
