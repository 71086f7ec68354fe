"""What of a sample goes into a new shard: the members that trainers read, and what has to be changed in them.

A member's bytes are copied. Made anew are only: a `txt` with the caption that was used where the tar has none or
another, a json's `uid` where it was derived (a json where there was none), and an image in a format that trainers do
not read, as a PNG. Members that nobody named are left out; pickled ones always.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from .fields import CAPTION_MEMBERS, ReadOptions, is_pickle, json_caption
from .images import POSTSCRIPT, DecodeError, image_ending
from .records import Sample
from .text import valid_text

COPY, STATE_UID, NEW_JSON, TEXT, PNG = range(5)
"""What is done with a member's bytes: nothing; the uid is put into its json; a json is made; the caption is taken
from the json; the image is encoded as a PNG."""

TRAINED_ON = ("jpg", "png", "webp")


class Outgoing(NamedTuple):
    """A member of the new shard: its extension there, and where its bytes are taken from."""

    extension: str
    offset: int
    size: int
    check: int
    change: int
    written: int  # bytes; of an image that is encoded anew not known yet, -1


@dataclass(frozen=True)
class Keeping:
    """Which members are copied beside image, caption, json and cls: `members` are further extensions."""

    read: ReadOptions = ReadOptions()
    members: Collection[str] = ()

    def keeps(self, extension: str) -> bool:
        """Whether a member that is neither the image nor the json is copied."""
        named = extension in CAPTION_MEMBERS or extension in self.read.caption_members or extension == "cls"
        return (named or extension in self.members) and not is_pickle(extension)


def outgoing(sample: Sample, keeping: Keeping) -> list[Outgoing]:
    """The members of a sample's copy, in the tar's order, then what is added. Raises DecodeError."""
    members_out: list[Outgoing] = []
    for extension, offset, size, check in sample.members:
        if extension == sample.image_member:
            ending = image_ending(sample.image)
            if sample.image.startswith(POSTSCRIPT):
                raise DecodeError("format_not_allowed", "PostScript, for which a trainer's Pillow starts Ghostscript")
            change, name = (COPY, ending or extension) if ending in (*TRAINED_ON, "") else (PNG, "png")
            image = Outgoing(name, offset, size, check, change, size if change == COPY else -1)
            members_out.append(image)
        elif extension == "json":
            changed = not sample.uid_stated and not _resharded(sample)
            written = len(with_uid(sample.json, sample.uid)) if changed else size
            members_out.append(Outgoing("json", offset, size, check, STATE_UID if changed else COPY, written))
        elif keeping.keeps(extension) and not (extension == "txt" and sample.caption != "txt"):
            members_out.append(Outgoing(extension, offset, size, check, COPY, size))
    return [*members_out, *_added(sample, image)]


def _added(sample: Sample, image: Outgoing) -> list[Outgoing]:
    by_extension = {extension: rest for extension, *rest in sample.members}
    members_out = []
    if sample.caption.startswith("json."):
        offset, size, check = by_extension["json"]
        members_out.append(Outgoing("txt", offset, size, check, TEXT, len(sample.text.encode())))
    elif sample.caption != "txt":
        offset, size, check = by_extension[sample.caption]
        members_out.append(Outgoing("txt", offset, size, check, COPY, size))
    if "json" not in by_extension:  # its header is all that is read of the image
        size_of_new = len(with_uid(b"", sample.uid))
        members_out.append(Outgoing("json", image.offset, 0, image.check, NEW_JSON, size_of_new))
    return members_out


def _resharded(sample: Sample) -> bool:
    """Whether the key states the uid, as it will again."""
    return sample.key.rsplit("/", 1)[-1].startswith(f"{sample.uid}-") and "uid" not in sample.meta


def with_uid(data: bytes, uid: str) -> bytes:
    """A sample's json with `uid` as its first field; every other byte stays, unless it states another uid.

    Of no bytes a json of the uid alone.
    """
    meta = json.loads(data.decode("utf-8-sig")) if data else {}
    if "uid" in meta:
        text = json.dumps({**meta, "uid": uid}, ensure_ascii=False)
        if valid_text(text) != text:  # half a surrogate pair, which stays an escape
            text = json.dumps({**meta, "uid": uid})
        return text.encode()
    start = data.find(b"{") + 1
    before, rest = data[: max(start - 1, 0)], data[start:] or b"}"
    return b'%s{"uid": "%s"%s%s' % (before, uid.encode(), b", " if meta else b"", rest)


def caption_of(data: bytes, read: ReadOptions) -> bytes:
    """The caption that a sample's json states."""
    return json_caption(json.loads(data.decode("utf-8-sig")), read)[1].encode()
