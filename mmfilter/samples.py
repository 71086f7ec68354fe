"""From a tar's members to samples: grouped by WebDataset's rule, none lost without a reason.

A member's key is its path up to the first dot of the file name; the rest, in lower case, is its
extension. Members of a sample may be interleaved with others'. A sample has an image (jpg, jpeg,
png, webp), a caption (txt) and a json; one that lacks something is a `Failure` with a status:

missing_image missing_text missing_json   the member is not there (open_clip drops such silently)
image_empty         the image has no bytes
text_not_utf8       the caption is not UTF-8
text_too_long       the caption is over `max_text_bytes`
json_malformed      not JSON, not UTF-8, not a mapping, or two different uids
uid_missing uid_invalid uid_repeated      no uid; not 32 hex digits; a second one in the shard
key_repeated        more members of a key whose sample was complete: the first one stands
member_too_large    over 1 GiB
lost                the parquet or _stats.json beside the tar tells of it, the tar does not hold it
unreadable          the tar cannot be opened
empty not_a_tar corrupt_header truncated  bytes were lost and nothing tells which samples were in them
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from . import storage
from .expected import expected_failures, expected_keys
from .images import ImageLimits
from .records import Failure, Sample
from .tar import HARMLESS, MAX_MEMBER, Gap, Member, members

IMAGES = ("jpg", "png", "jpeg", "webp")  # in open_clip's order of preference
NEEDED = frozenset({*IMAGES, "txt", "json"})
UID = re.compile(r"[0-9a-f]{32}")
RESHARDED = re.compile(r"([0-9a-f]{32})-(\d+)")  # the key that a resharder gives
HELD = 1 << 30  # bytes of incomplete samples in memory; past it the oldest is given up as incomplete

__all__ = ["Failure", "ReadOptions", "Sample", "expected_failures", "read_samples"]


@dataclass(frozen=True)
class ReadOptions:
    """`derive_uids` makes a uid of shard and key where the json has none; otherwise that is a failure. With `copies` a
    sample that a resharder wrote again, of the key UID-1 or more, is well; otherwise its uid is repeated.
    """

    derive_uids: bool = False
    copies: bool = False
    max_text_bytes: int = 1 << 20
    limits: ImageLimits = ImageLimits()


@dataclass(slots=True)
class _Group:
    key: str
    parts: dict[str, Member] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    bytes: int = 0
    image: str = ""

    @property
    def complete(self) -> bool:
        return bool(self.image) and "txt" in self.parts and "json" in self.parts


def read_samples(
    path: str, options: ReadOptions = ReadOptions(), notes: Counter[str] | None = None, want_images: bool = True
) -> Iterator[Sample | Failure]:
    """Every sample of the shard at `path` once, well or failed, in the tar's order; then what is lost.

    `notes` counts what happened to the file as a whole. With `want_images` False the images' bytes
    are not read (a reshard's index, a lint). Never raises on content.
    """
    notes = Counter() if notes is None else notes
    reader = _Reader(path, options, notes)
    try:
        stream = storage.open_read(path)
    except OSError as error:
        lost = expected_failures(path)
        why = f"{path} cannot be opened: {error.strerror or error}"
        yield from ([Failure(f.key, f.uid, "lost", why) for f in lost] or [Failure("", "", "unreadable", why)])
        return
    with stream:
        wanted = _wanted if want_images else _wanted_small
        try:
            for entry in members(stream, wanted):
                yield from reader.take(entry)
        except OSError as error:
            reader.gaps.append(Gap(0, 0, "unreadable", f"reading {path} stopped: {error.strerror or error}"))
    yield from reader.finish()


def split_name(name: str) -> tuple[str, str]:
    """(key, lower-case extension) of a member by WebDataset's rule; ("", "") when it has none."""
    dot = name.find(".", name.rfind("/") + 2)  # the file name needs one character before the dot
    base = name.rfind("/") + 1
    if dot < 0 or base >= len(name) or name[base] == ".":
        return "", ""
    return name[:dot], name[dot + 1 :].lower()


def _wanted(name: str) -> bool:
    return split_name(name)[1] in NEEDED


def _wanted_small(name: str) -> bool:
    return split_name(name)[1] in ("json", "txt")


class _Reader:
    """Groups members and turns each group into a Sample or a Failure."""

    def __init__(self, path: str, options: ReadOptions, notes: Counter[str]) -> None:
        self.path, self.stem, self.options, self.notes = path, storage.stem(path), options, notes
        self.open: dict[str, _Group] = {}
        self.last: _Group | None = None
        self.held = 0
        self.finished: set[str] = set()
        self.uids: set[str] = set()
        self.again: dict[str, int] = {}
        self.gaps: list[Gap] = []
        self.incomplete = 0
        self.known = False  # whether the files beside the tar tell what was in it

    def take(self, entry: Member | Gap) -> Iterator[Sample | Failure]:
        if isinstance(entry, Gap):
            self.notes[entry.status] += 1
            if entry.status not in HARMLESS:
                self.gaps.append(entry)
            return
        if entry.kind != "file":
            self.notes[f"member_{entry.kind}"] += 1
            return
        key, extension = split_name(entry.name)
        if not key:
            self.notes["member_without_key"] += 1
            return
        if self.last is not None and self.last.key != key and self.last.complete:
            yield self._close(self.last)
        if key in self.finished:
            self.again.setdefault(key, entry.header)
            return
        self._add(key, extension, entry)
        while self.held > HELD and len(self.open) > 1:
            yield self._close(next(iter(self.open.values())))

    def _add(self, key: str, extension: str, entry: Member) -> None:
        group = self.open.get(key)
        if group is None:
            group = self.open[key] = _Group(key)
        self.last = group
        if extension in group.parts:
            group.notes.append("member_twice")  # the first one stands
            return
        group.parts[extension] = entry
        group.bytes += len(entry.data)
        self.held += len(entry.data)
        if extension in IMAGES:
            if group.image:
                group.notes.append("image_twice")
            if not group.image or IMAGES.index(extension) < IMAGES.index(group.image):
                group.image = extension
        elif extension in ("pyd", "pkl", "pickle", "pth", "pt"):
            group.notes.append("member_pickled")  # never decoded

    def _close(self, group: _Group) -> Sample | Failure:
        del self.open[group.key]
        self.finished.add(group.key)
        self.held -= group.bytes
        self.last = None if self.last is group else self.last
        result = self._sample(group)
        if isinstance(result, Failure):
            self.incomplete += result.status.startswith("missing_")
        return result

    def finish(self) -> Iterator[Sample | Failure]:
        """What is still open, what came twice, and what should have been there."""
        for group in list(self.open.values()):
            yield self._close(group)
        for key, at in self.again.items():
            yield Failure(
                key, "", "key_repeated", f"more members of a finished sample from byte {at} on; the first stands"
            )
        lost = self._lost()
        yield from lost
        if self.gaps and not lost and not self.incomplete and not self.known:
            for gap in self.gaps:  # nothing else tells of these bytes
                yield Failure("", "", gap.status, gap.error)

    def _lost(self) -> list[Failure]:
        why = "; ".join(gap.error for gap in self.gaps[:3]) or "the tar holds no member of it"
        keys = expected_keys(self.path)
        self.known = keys is not None
        seen = {key.rsplit("/", 1)[-1] for key in self.finished}
        if isinstance(keys, dict) and (not seen or seen & keys.keys()):
            return [Failure(key, uid, "lost", why) for key, uid in keys.items() if key not in seen]
        count = len(keys) if isinstance(keys, dict) else keys
        if isinstance(keys, dict):
            self.notes["parquet_of_other_keys"] += 1
        return [Failure("", "", "lost", why) for _ in range((count or 0) - len(self.finished))]

    def _sample(self, group: _Group) -> Sample | Failure:
        """Check a group part by part; the first thing wrong is its status."""
        parts = group.parts
        meta: dict[str, Any] = {}
        problem: tuple[str, str] | None = None
        if "json" in parts:
            meta, problem = _meta(parts["json"].data)
        uid, uid_problem = self._uid(group.key, meta, group.notes)
        problem = _missing(group) or problem or uid_problem
        text = ""
        if problem is None:
            text, problem = self._text(parts["txt"].data)
        if problem is None and uid in self.uids and not (self.options.copies and _is_copy(group.key, uid)):
            problem = ("uid_repeated", "an earlier sample of this shard has the same uid")
        if problem is not None:
            return Failure(group.key, uid, *problem)
        self.uids.add(uid)
        image = parts[group.image]
        url = meta.get("url")
        listed = [(extension, part.offset, part.size, part.check) for extension, part in parts.items()]
        return Sample(
            group.key,
            uid,
            text,
            url if isinstance(url, str) else "",
            image.data,
            meta,
            image.offset,
            image.size,
            listed,
            group.notes,
        )

    def _text(self, data: bytes) -> tuple[str, tuple[str, str] | None]:
        if len(data) > self.options.max_text_bytes:
            return "", ("text_too_long", f"{len(data)} bytes; the limit is {self.options.max_text_bytes}")
        try:
            return data.decode("utf-8"), None
        except UnicodeDecodeError as error:
            return "", ("text_not_utf8", f"byte {error.start} of the caption is not UTF-8")

    def _uid(self, key: str, meta: dict[str, Any], notes: list[str]) -> tuple[str, tuple[str, str] | None]:
        stated = meta.get("uid")
        if stated is None:
            match = RESHARDED.fullmatch(key.rsplit("/", 1)[-1])
            if match:
                return match[1], None
            if self.options.derive_uids:
                return blake2b(
                    f"{self.stem}/{key}".encode("utf-8", "surrogateescape"), digest_size=16
                ).hexdigest(), None
            return "", ("uid_missing", "its json has no uid; `read: {derive_uids: true}` makes one of shard and key")
        if not isinstance(stated, str) or not UID.fullmatch(stated.lower()):
            return "", ("uid_invalid", f"{str(stated)[:60]!r} is not 32 hexadecimal digits")
        if stated != stated.lower():
            notes.append("uid_uppercase")
        return stated.lower(), None


def _is_copy(key: str, uid: str) -> bool:
    match = RESHARDED.fullmatch(key.rsplit("/", 1)[-1])
    return match is not None and match[1] == uid and int(match[2]) > 0


def _missing(group: _Group) -> tuple[str, str] | None:
    parts = group.parts
    has = ", ".join(parts)
    if not group.image:
        return "missing_image", f"no {', '.join(IMAGES)}; it has: {has}"
    for extension, status in (("txt", "missing_text"), ("json", "missing_json")):
        if extension not in parts:
            return status, f"no {extension}; it has: {has}"
    if parts[group.image].size == 0:
        return "image_empty", "the image has no bytes"
    if any(part.size > MAX_MEMBER for part in parts.values()):
        return "member_too_large", f"a member is over {MAX_MEMBER} bytes"
    return None


def _meta(data: bytes) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """The json as a mapping; RecursionError is json's own answer to nesting without end."""
    try:
        meta = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        return {}, ("json_malformed", f"its json cannot be read ({str(error)[:120]})")
    if not isinstance(meta, dict):
        return {}, ("json_malformed", f"its json is a {type(meta).__name__}, not a mapping")
    if (
        data.count(b'"uid"') > 1
        and len({value for name, value in json.loads(data, object_pairs_hook=list) if name == "uid"}) > 1
    ):
        return {}, ("json_malformed", "its json states two different uids")
    return meta, None
