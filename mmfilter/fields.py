"""Where a sample's image, caption and uid stand: in members of the tar, or in fields of its json.

Tools differ in what they call a caption and whether they write a uid or a json at all. None of that is damage.
"""

import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b, sha256
from itertools import chain
from typing import Any, NamedTuple

from .errors import UsageError
from .images import ImageLimits
from .tar import Member

IMAGES = ("jpg", "png", "jpeg", "webp", "jpe", "jfif", "gif", "bmp", "tif", "tiff", "avif")
"""The last part of an image member's name, in order of preference (open_clip's, then the rest)."""

CAPTION_MEMBERS = ("txt", "text", "caption", "cap")
CAPTION_FIELDS = ("caption", "text", "TEXT", "alt", "alt_text")
PICKLES = frozenset({
    "pyd", "pkl", "pickle", "pth", "pt", "pck", "pickle5", "p5", "dill", "joblib", "cloudpickle", "ckpt", "marshal",
})  # fmt: skip
"""Members that webdataset, torch or joblib un-pickle, which runs what is in them: never decoded and never copied."""

KEY, CONTENT, JSON_FIELD = "key", "content", "json."
DEPTH = 200  # of a json's lists and mappings within each other
KNOWN = 4096  # extensions whose kind is remembered: a pool has few
SHOWN = 12  # json fields named in a message
UID = re.compile(r"[0-9a-f]{32}")
RESHARDED = re.compile(r"([0-9a-f]{32})-(\d+)")  # the key that a resharder gives

Problem = tuple[str, str] | None
"""A status and its sentence."""


@dataclass(frozen=True)
class ReadOptions:
    """How samples are read.

    `uids` says what a uid is made of where the json states none: ``key`` (the shard's name and the key), ``content``
    (the image and the caption), or ``json.FIELD`` (that field in place of `uid`). `pool_id` is part of a uid made of
    the key, so that two pools with the same names do not share uids. `captions` are the members and json fields where
    a caption may stand, the first that is present counts; empty means `CAPTION_MEMBERS`, then `CAPTION_FIELDS`.
    With `copies` a sample that a resharder wrote again, of the key UID-1 or more, is valid; otherwise its uid is
    repeated.
    """

    uids: str = KEY
    pool_id: str = ""
    captions: tuple[str, ...] = ()
    copies: bool = False
    max_text_bytes: int = 1 << 20
    limits: ImageLimits = ImageLimits()

    @property
    def caption_members(self) -> tuple[str, ...]:
        """Names of members that may hold the caption, in lower case."""
        return tuple(name.lower() for name in self.captions) if self.captions else CAPTION_MEMBERS

    @property
    def caption_fields(self) -> tuple[str, ...]:
        """Fields of the json that may hold the caption."""
        return self.captions or CAPTION_FIELDS

    @property
    def how(self) -> str:
        """What derived uids are made of, in words."""
        if self.uids == CONTENT:
            return "image and caption"
        pool = f"pool id '{self.pool_id}', " if self.pool_id else ""
        return f"{pool}shard and key"


def read_options(
    base: ReadOptions, uids: str | None = None, pool_id: str | None = None, captions: str | None = None
) -> ReadOptions:
    """`base` with what a person gave in its place. Raises UsageError on what is no such value."""
    from dataclasses import replace

    changes: dict[str, Any] = {}
    if uids is not None:
        changes["uids"] = checked_uids(uids)
    if pool_id is not None:
        changes["pool_id"] = checked_pool_id(pool_id)
    if captions is not None:
        changes["captions"] = checked_captions(captions)
    return replace(base, **changes)


def checked_uids(value: Any) -> str:
    if value in (KEY, CONTENT) or (isinstance(value, str) and value.startswith(JSON_FIELD) and value != JSON_FIELD):
        return str(value)
    raise UsageError(f"uids: {value!r} is none of 'key', 'content' and 'json.FIELD' (a field of each sample's json)")


def checked_pool_id(value: Any) -> str:
    if isinstance(value, str) and (not value or value.replace("-", "").replace("_", "").replace(".", "").isalnum()):
        return value
    raise UsageError(f"pool_id: {value!r}: give a word of letters, digits, '-', '_' and '.'")


def checked_captions(value: Any) -> tuple[str, ...]:
    """Names from ``'a;b'`` or a list. Raises UsageError."""
    names = value.split(";") if isinstance(value, str) else value
    if isinstance(names, (list, tuple)) and names and all(isinstance(name, str) and name.strip() for name in names):
        return tuple(name.strip() for name in names)
    raise UsageError(f"captions: {value!r}: give names of members or json fields, as in 'txt;alt_text'")


@lru_cache(KNOWN)
def is_image(extension: str) -> bool:
    """Whether a member with this extension (lower case) is taken for an image: `png`, `image.png`."""
    return extension.rpartition(".")[2] in IMAGES


def image_rank(extension: str) -> tuple[bool, int]:
    """Of several images of a sample the least is used: a plain `jpg` before `image.png` before `mask.png`."""
    name, _, last = extension.rpartition(".")
    return name not in ("", "image"), 2 * IMAGES.index(last) + bool(name)


@lru_cache(KNOWN)
def is_pickle(extension: str) -> bool:
    """Whether a trainer would un-pickle such a member: `pkl`, `x.PKL`, and any form of it such as `pkl.gz`."""
    return not PICKLES.isdisjoint(part.strip() for part in extension.lower().split("."))


def parse_json(data: bytes) -> tuple[dict[str, Any], Problem]:
    """(a sample's json as a mapping, what is wrong with it)."""
    try:
        text = data.decode("utf-8")
        meta = json.loads(text.removeprefix("\ufeff"))
        too_deep = data.count(b"[") + data.count(b"{") > DEPTH and _too_deep(meta)
    except ValueError as error:
        return {}, ("json_malformed", f"its json cannot be read ({str(error)[:120]})")
    except RecursionError:
        too_deep = True
    if too_deep:
        return {}, ("json_malformed", f"its json is nested deeper than {DEPTH} levels")
    if not isinstance(meta, dict):
        return {}, ("json_malformed", f"its json is a {type(meta).__name__}, not a mapping")
    pairs = json.loads(data, object_pairs_hook=list) if data.count(b'"uid"') > 1 else []
    if len({json.dumps(value) for name, value in pairs if name == "uid"}) > 1:
        return {}, ("json_malformed", "its json states two different uids")
    return meta, None


def _too_deep(value: Any) -> bool:
    """Whether lists and mappings are nested deeper than DEPTH. How deep Python reads depends on who calls it."""
    level = [value]
    for _ in range(DEPTH + 1):
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, (dict, list))]
        level = list(chain.from_iterable(inner))
    return any(isinstance(item, (dict, list)) for item in level)


def find_caption(
    parts: Mapping[str, Member], meta: Mapping[str, Any], options: ReadOptions, members: Iterable[str]
) -> tuple[str, str, Problem]:
    """(where it stands, the caption, what is wrong with it).

    `parts` are the sample's members by extension, `members` is `options.caption_members`, asked for once a shard.
    """
    for name in members:
        if name in parts:
            return name, *_decoded(parts[name].data, options.max_text_bytes)
    field, text = json_caption(meta, options)
    if field:
        decoded, problem = _decoded(text.encode("utf-8", "surrogatepass"), options.max_text_bytes)
        return f"json.{field}", decoded, problem
    shown = ", ".join(str(name) for name in list(meta)[:SHOWN])
    looked = f"no caption in a member {', '.join(options.caption_members)} or a json field "
    looked += f"{', '.join(options.caption_fields)}; it has: {', '.join(list(parts)[:SHOWN])}"
    return "", "", ("missing_text", looked + (f"; its json has: {shown}" if shown else ""))


def json_caption(meta: Mapping[str, Any], options: ReadOptions) -> tuple[str, str]:
    """(field, caption) of the first field that holds one; ("", "") where none does.

    A list counts only where its field is named by the user: its first string is the caption.
    """
    for field in options.caption_fields:
        value = meta.get(field)
        if isinstance(value, list) and options.captions:
            value = next((item for item in value if isinstance(item, str)), None)
        if isinstance(value, str):
            return field, value
    return "", ""


def _decoded(data: bytes, limit: int) -> tuple[str, Problem]:
    if len(data) > limit:
        return "", ("text_too_long", f"{len(data)} bytes; the limit is {limit}")
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return "", ("text_not_utf8", f"byte {error.start} of the caption is not UTF-8")


class Uid(NamedTuple):
    """A sample's uid. `stated`: the json has this very uid as `uid`. `note`: what is counted of it, or ""."""

    text: str
    stated: bool = False
    note: str = ""  # uid_derived, uid_hashed or uid_uppercase


def stated_uid(meta: Mapping[str, Any], options: ReadOptions) -> Uid | None:
    """The uid that a sample's json states, or the hash of another identifier; None where it states none."""
    field = "uid" if options.uids in (KEY, CONTENT) else options.uids.removeprefix(JSON_FIELD)
    value = meta.get(field)
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    uid = text.lower()
    if not UID.fullmatch(uid):
        return Uid(hashed_uid(text), note="uid_hashed")
    return Uid(uid, field == "uid", "uid_uppercase" if uid != text else "")


def derived_uid(shard: str, key: str, options: ReadOptions) -> Uid:
    """The uid of a sample whose json states none: part of a resharded key, or made of shard and key."""
    match = RESHARDED.fullmatch(key.rsplit("/", 1)[-1])
    return Uid(match[1]) if match else Uid(key_uid(shard, key, options.pool_id), note="uid_derived")


def key_uid(shard: str, key: str, pool_id: str) -> str:
    """128-bit BLAKE2b of ``pool_id/shard/key``, or of ``shard/key`` without a pool id; 32 hex digits."""
    name = "/".join(([pool_id] if pool_id else []) + [shard, key])
    return blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def content_uid(image: bytes, text: str) -> str:
    """128-bit BLAKE2b of the image's sha256 and the caption: equal pairs share one."""
    digest = sha256(image).hexdigest().encode()
    return blake2b(digest + b"/" + text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def hashed_uid(stated: str) -> str:
    """128-bit BLAKE2b of an identifier that is not 32 hex digits."""
    return blake2b(stated.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def member_names(extra: Collection[str]) -> tuple[str, ...]:
    """Names of further members to copy, as a person gave them. Raises UsageError on pickled ones."""
    names = tuple(sorted({name.strip().lower().lstrip(".") for name in extra if name.strip()}))
    for name in names:
        if is_pickle(name):
            raise UsageError(f"--members: '{name}' is never copied: trainers un-pickle it, which runs what is in it")
    return names


def is_copy(key: str, uid: str) -> bool:
    """Whether a resharder gave this key to a second or later copy of the uid."""
    match = RESHARDED.fullmatch(key.rsplit("/", 1)[-1])
    return match is not None and match[1] == uid and int(match[2]) > 0


def uid_origins(uids: Mapping[str, Any]) -> str:
    """Where the uids of a summary came from that their samples did not state; empty where all were stated.

    `uids` has the counts `derived` and `hashed`, and in `of` what derived ones are made of.
    """
    derived, hashed = uids.get("derived", 0), uids.get("hashed", 0)
    parts = [f"{derived:,} derived from {uids.get('of', '')}"] if derived else []
    return ", ".join([*parts, *([f"{hashed:,} hashed from the pool's identifiers"] if hashed else [])])
