"""What a tar header says of its entry: the type, the name, and the records before it that override both.

POSIX.1-1988 (ustar), POSIX.1-2001 (pax), GNU (long names, sparse files, volumes, incremental dumps), Solaris (type X).
"""

import posixpath
from collections.abc import Mapping
from string import ascii_uppercase

MAX_MEMBER = 1 << 30  # bytes; a larger member is passed over with its size stated and its data unread
KINDS = {
    **dict.fromkeys(map(ord, "346" + ascii_uppercase), "other"),
    **dict.fromkeys([0, *b"07"], "file"),
    **dict.fromkeys(b"12", "link"),
    **dict.fromkeys(b"5D", "dir"),
    ord("S"): "sparse",
    ord("M"): "continued",
    ord("V"): "label",
}
"""Type flag -> kind of entry; `other` are devices, fifos, and what single vendors write (A to Z).

A type that is not listed is a file, as POSIX and GNU tar have it.
"""

HARD_LINK = ord("1")
SPARSE = ord("S")
RECORDS = b"xgXLK"
"""Type flags of entries that describe the one after them."""

WITHOUT_DATA = b"123456"
"""Type flags after which POSIX has no data, though some writers state a size."""

LONG_NAME, LONG_LINK = "=path", "=linkpath"
"""What GNU's long names are called among pax records, whose keywords hold no "=": a pax record counts first."""

INHERITED = ("path", "linkpath", "size")
"""Of a global pax header (g), what holds for all later entries."""

UNREAD = {
    "sparse": (
        "member_sparse",
        "is stored as a sparse file: the tar holds its bytes without the holes; pack it again without --sparse",
    ),
    "continued": (
        "member_continued",
        "is the rest of a file that begins in another volume (tar -M); join the volumes into one tar first",
    ),
}
"""Kind of a file whose bytes do not stand in the tar as they are -> the status of its sample, and why."""


def unread(kind: str, size: int, extension: str) -> tuple[str, str] | None:
    """(status, sentence) of a sample with this member; None where the member's bytes are read."""
    if kind in UNREAD:
        status, why = UNREAD[kind]
        return status, f"its {extension} {why}"
    return ("member_too_large", f"a member is over {MAX_MEMBER} bytes") if size > MAX_MEMBER else None


def stated_name(block: bytes) -> str:
    """The name in a header block."""
    name = block[:100].split(b"\0", 1)[0]
    if block[345] and block[257:263] == b"ustar\0":
        name = block[345:500].split(b"\0", 1)[0] + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def text(data: bytes) -> str:
    """A string up to its first NUL; bytes that are not UTF-8 are kept as surrogates."""
    return data.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def link_target(records: Mapping[str, str], block: bytes) -> str:
    """The name that a link's records, or else its header, state."""
    return records.get("linkpath") or records.get(LONG_LINK) or text(block[157:257])


def place(name: str) -> str:
    """Where a member would be extracted to: names with and without a leading / or ./ mean the same."""
    return posixpath.normpath(name).lstrip("/")


def parse_records(flag: int, data: bytes) -> dict[str, str]:
    """What an entry of a type in RECORDS tells of the one after it, by pax keyword."""
    if flag == ord("L"):
        return {LONG_NAME: text(data)}
    if flag == ord("K"):
        return {LONG_LINK: text(data)}
    return _pax(data)


def _pax(data: bytes) -> dict[str, str]:
    """Records `length key=value\\n`; what does not parse ends the list."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        length = data[at:space] if space > 0 else b""
        if not length.isdigit() or not 0 < int(length) <= len(data) - at:
            break
        key, _, value = data[space + 1 : at + int(length) - 1].partition(b"=")
        records[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        at += int(length)
    return records


def overridden(records: Mapping[str, str], name: str, size: int, kind: str) -> tuple[str, int, str]:
    """(name, size, kind) of an entry after what pax `records` tell of it."""
    name = records.get("path") or records.get(LONG_NAME) or name
    stated = records.get("size", "")
    if stated.isascii() and stated.isdigit() and len(stated) < 20:
        size = int(stated)
    if kind == "file" and any(key.startswith("GNU.sparse.") for key in records):
        return records.get("GNU.sparse.name") or name, size, "sparse"
    if records.get("GNU.volume.offset", "0") != "0":
        return records.get("GNU.volume.filename") or name, size, "continued"
    return name, size, kind
